/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* memfd_create */
#include "tools/test-plugin/host.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sluice/cuda.h>
#include "core/run/internal.h"
#include "tools/test-plugin/gpu.h"
#include "tools/test-plugin/model.h"

static tp_host *of(const sluice_host *host)
{
    return (tp_host *)(uintptr_t)host; /* made by tp_host_init; plugins only hold it const */
}

void tp_fault(tp_host *host, enum tp_fault fault, const char *format, ...)
{
    va_list args;
    if (host->out->fault != TP_FAULT_NONE) /* the first is the cause */
        return;
    va_start(args, format);
    vsnprintf(host->out->what, sizeof host->out->what, format, args);
    va_end(args);
    host->out->fault = fault;
}

/* ---- words and numbers */

static void host_verror(const sluice_host *public, const sluice_record *record, int code, const char *format,
                        va_list args)
{
    tp_host *host = of(public);
    char text[sizeof host->out->error];
    vsnprintf(text, sizeof text, format, args);
    if (record != NULL)
        (void)sluice_record_id(record);
    if (code == SLUICE_CANCELLED || host->out->error[0] != '\0')
        return;
    if (text[0] == '\0' || strchr(text, '\n') != NULL)
        tp_fault(host, TP_FAULT_MESSAGE, "an error is one line of words, not '%.200s'", text);
    memcpy(host->out->error, text[0] != '\0' ? text : "?", sizeof text);
}

static void host_vlog(const sluice_host *public, int level, const char *format, va_list args)
{
    tp_host *host = of(public);
    char text[1024];
    vsnprintf(text, sizeof text, format, args); /* so that bad arguments show */
    if (level == SLUICE_LOG_WARNING && host->out->warning[0] == '\0')
        snprintf(host->out->warning, sizeof host->out->warning, "%.500s", text);
}

static bool declared(const sluice_class *type, const char *name)
{
    for (const sluice_metric_info *m = type->metrics; m != NULL && m->name != NULL; m++)
        if (strcmp(m->name, name) == 0)
            return true;
    return false;
}

static void host_metrics(const sluice_host *public, int64_t step, const sluice_number *numbers, size_t count)
{
    tp_host *host = of(public);
    for (size_t i = 0; i < count; i++) {
        if (!declared(host->subject->type, numbers[i].name))
            tp_fault(host, TP_FAULT_UNDECLARED, "reports '%s', which its table of metrics does not have",
                     numbers[i].name);
        else if (!isfinite(numbers[i].value))
            tp_fault(host, TP_FAULT_METRIC, "reports '%s' = %g: leave out what has no value", numbers[i].name,
                     numbers[i].value);
        sl_buffer_printf(&host->out->numbers, "%lld %s %a\n", (long long)step, numbers[i].name, numbers[i].value);
    }
}

static void host_progress(const sluice_host *public, uint64_t done, uint64_t total, const char *unit)
{
    (void)public, (void)done, (void)total;
    if (unit != NULL)
        (void)strlen(unit);
}

static void host_tokens(const sluice_host *public, uint64_t count)
{
    (void)public, (void)count;
}

/* ---- where it runs */

bool tp_host_cancelled(tp_host *host)
{
    host->out->occasions++;
    host->cancelled =
        host->cancelled || (host->work->cancel_after > 0 && host->out->occasions >= host->work->cancel_after);
    return host->cancelled;
}

static bool host_cancelled(const sluice_host *public)
{
    return tp_host_cancelled(of(public));
}

static const void *host_service(const sluice_host *public, const char *id)
{
    tp_host *host = of(public);
    if (strcmp(id, SLUICE_CUDA_SERVICE) == 0 && !(host->subject->type->traits & SLUICE_USES_CUDA))
        tp_fault(host, TP_FAULT_UNDECLARED,
                 "asks for %s without the trait SLUICE_USES_CUDA: what one GPU made would be taken for another's",
                 SLUICE_CUDA_SERVICE);
    if (host->work->no_services)
        return NULL;
    if (strcmp(id, SLUICE_MODEL_SERVICE) == 0)
        return tp_model_service(host->subject->heads);
    host->out->wants_gpu = host->out->wants_gpu || strcmp(id, SLUICE_CUDA_SERVICE) == 0;
    return tp_gpu_knows(id) ? tp_gpu_service(id) : NULL;
}

static uint64_t host_seed(const sluice_host *public)
{
    return of(public)->subject->seed * UINT64_C(0x9e3779b97f4a7c15);
}

static uint64_t host_run_seed(const sluice_host *public)
{
    return of(public)->subject->seed;
}

static int64_t host_iteration(const sluice_host *public)
{
    (void)public;
    return 0;
}

static bool reads_repeat(const tp_subject *subject)
{
    uint32_t traits = subject->type->traits | (subject->part != NULL ? subject->part->traits : 0);
    for (size_t i = 0; i < subject->value_count; i++) {
        const tp_value *v = &subject->values[i];
        if (v->param->type == SLUICE_TYPE_CHOICE && v->param->choice_traits != NULL)
            traits |= v->param->choice_traits[(size_t)v->number];
    }
    return traits & SLUICE_READS_REPEAT;
}

static int64_t host_repeat(const sluice_host *public)
{
    tp_host *host = of(public);
    if (!reads_repeat(host->subject))
        tp_fault(host, TP_FAULT_UNDECLARED,
                 "asks how many times the phase runs without the trait SLUICE_READS_REPEAT: results of one number of "
                 "iterations would be taken for another's");
    return 1;
}

static const char *host_stage_name(const sluice_host *public)
{
    (void)public;
    return "under-test";
}

/* ---- records */

sl_record *tp_host_input(tp_host *host, size_t index)
{
    const tp_records *records = host->work->records;
    if (records == NULL || (host->work->alone && index > 0) || (!host->work->alone && index >= records->count))
        return NULL;
    if (host->work->alone)
        index = host->work->only;
    return tp_record_decode(&records->items[index], index);
}

void tp_host_keep(tp_host *host, sl_record *record)
{
    tp_outcome *out = host->out;
    if (out->count == out->room) {
        const size_t room = 2 * out->room + 16;
        tp_emitted *more = realloc(out->records, room * sizeof *more);
        if (more == NULL) {
            sl_record_free(record);
            return;
        }
        out->records = more;
        out->room = room;
    }
    tp_emitted *e = &out->records[out->count++];
    *e = (tp_emitted){.number = sluice_record_number(sl_record_public(record))};
    if (sl_record_encode(record, &e->bytes) < 0)
        tp_fault(host, TP_FAULT_RECORD, "puts out a record without an id");
    sl_record_free(record);
}

/* What is in hand may still be finished, but that has an end. */
static int tell(tp_host *host)
{
    enum { PATIENCE = 1000 };
    if (!tp_host_cancelled(host))
        return SLUICE_OK;
    if (++host->told > PATIENCE)
        tp_fault(host, TP_FAULT_CANCEL, "goes on although next and emit say SLUICE_CANCELLED: return it");
    return SLUICE_CANCELLED;
}

static int host_next(const sluice_host *public, sluice_record **record)
{
    tp_host *host = of(public);
    *record = NULL;
    if (tell(host) < 0)
        return SLUICE_CANCELLED;
    sl_record *r = tp_host_input(host, host->next);
    host->next = r != NULL ? host->next + 1 : 0; /* after the end it begins again */
    if (r == NULL)
        return SLUICE_END;
    *record = sl_record_public(r);
    return SLUICE_OK;
}

static int host_emit(const sluice_host *public, sluice_record *record)
{
    tp_host *host = of(public);
    sl_record *own = sl_record_from_public(record);
    if (sluice_record_number(record) == UINT64_MAX) {
        if (host->subject->type->kind != SLUICE_SOURCE) {
            tp_fault(host, TP_FAULT_RECORD, "emits a new record; a stage with input can only send on what came");
            sl_record_free(own);
            return SLUICE_UNSUPPORTED;
        }
        sl_record_set_number(own, host->made++);
        host->cancelled = host->cancelled || host->made >= TP_MOST_MADE;
    }
    if (host->subject->type->traits & SLUICE_NO_OUTPUT)
        tp_fault(host, TP_FAULT_RECORD, "emits a record but declares that it has no output");
    tp_host_keep(host, own);
    return tell(host);
}

static void host_release(const sluice_host *public, sluice_record *record)
{
    (void)public;
    sl_record_free(sl_record_from_public(record));
}

static sluice_record *host_new_record(const sluice_host *public)
{
    (void)public;
    sl_record *record = sl_record_new();
    if (record == NULL)
        return NULL;
    sl_record_set_number(record, UINT64_MAX);
    return sl_record_public(record);
}

static int64_t host_input_count(const sluice_host *public)
{
    const tp_work *work = of(public)->work;
    return work->records == NULL ? -1 : work->alone ? 1 : (int64_t)work->records->count;
}

static const sluice_record *host_earlier(const sluice_host *public, const sluice_record *input)
{
    tp_host *host = of(public);
    const tp_outcome *earlier = host->work->earlier;
    sl_record_free(host->earlier);
    host->earlier = NULL;
    for (size_t i = 0; earlier != NULL && i < earlier->count && i < host->work->earlier_count; i++)
        if (earlier->records[i].number == sluice_record_number(input))
            host->earlier = tp_record_decode(&earlier->records[i].bytes, earlier->records[i].number);
    return host->earlier != NULL ? sl_record_public(host->earlier) : NULL;
}

/* ---- files */

static int host_scratch(const sluice_host *public)
{
    const int fd = memfd_create("scratch", MFD_CLOEXEC);
    return fd >= 0 ? fd : sluice_error(public, SLUICE_IO, "no temporary file: %s", strerror(errno));
}

static int host_publish_begin(const sluice_host *public, const sluice_model_ref *slot, const char **dir)
{
    tp_host *host = of(public);
    snprintf(host->folder, sizeof host->folder, TP_OUTPUT "/version-%lld", (long long)slot->next);
    if (mkdir(host->folder, 0700) < 0 && errno != EEXIST)
        return sluice_error(public, SLUICE_IO, "cannot make %s", host->folder);
    *dir = host->folder;
    return SLUICE_OK;
}

static int host_publish_commit(const sluice_host *public, const sluice_model_ref *slot)
{
    tp_host *host = of(public);
    (void)slot;
    if (host->cancelled)
        tp_fault(host, TP_FAULT_CANCEL, "publishes a version after it was told to stop");
    return SLUICE_OK;
}

static int host_checkpoint(const sluice_host *public, const char **folder)
{
    tp_host *host = of(public);
    char path[sizeof host->folder + 16];
    if (host->work->checkpoints == NULL)
        return SLUICE_END;
    snprintf(host->folder, sizeof host->folder, "%s/current", host->work->checkpoints);
    if (!sl_path_exists(host->folder))
        return SLUICE_END;
    /* What it had reported until then is taken over. */
    snprintf(path, sizeof path, "%s/metrics", host->folder);
    host->out->numbers.size = 0;
    if (sl_file_read(path, &host->out->numbers) < 0)
        return sluice_error(public, SLUICE_IO, "cannot read %s", path);
    *folder = host->folder;
    return SLUICE_OK;
}

static int host_checkpoint_begin(const sluice_host *public, const char **folder)
{
    tp_host *host = of(public);
    if (host->work->checkpoints == NULL)
        return SLUICE_UNSUPPORTED;
    snprintf(host->folder, sizeof host->folder, "%s/next", host->work->checkpoints);
    mkdir(host->work->checkpoints, 0700);
    sl_folder_remove(host->folder);
    if (mkdir(host->folder, 0700) < 0)
        return sluice_error(public, SLUICE_IO, "cannot make %s", host->folder);
    *folder = host->folder;
    return SLUICE_OK;
}

static int host_checkpoint_commit(const sluice_host *public)
{
    tp_host *host = of(public);
    char next[64], current[64], path[96], error[SL_ERROR_SIZE];
    snprintf(next, sizeof next, "%.40s/next", host->work->checkpoints);
    snprintf(current, sizeof current, "%.40s/current", host->work->checkpoints);
    snprintf(path, sizeof path, "%s/metrics", next);
    const sl_buffer *numbers = &host->out->numbers;
    if (sl_file_write(path, numbers->size > 0 ? (const char *)numbers->data : "", numbers->size, error) < 0 ||
        sl_folder_remove(current) < 0 || rename(next, current) < 0)
        return sluice_error(public, SLUICE_IO, "cannot keep a checkpoint");
    if (++host->out->commits == host->work->die_at_commit)
        raise(SIGKILL);
    return SLUICE_OK;
}

static const char *host_last_error(const sluice_host *public)
{
    return of(public)->out->error;
}

void tp_host_init(tp_host *host, const tp_subject *subject, const tp_work *work, tp_outcome *out)
{
    static const sluice_host_api api = {
        .size = sizeof api,
        .verror = host_verror,
        .vlog = host_vlog,
        .metrics = host_metrics,
        .progress = host_progress,
        .tokens = host_tokens,
        .cancelled = host_cancelled,
        .service = host_service,
        .seed = host_seed,
        .iteration = host_iteration,
        .stage_name = host_stage_name,
        .next = host_next,
        .emit = host_emit,
        .release = host_release,
        .new_record = host_new_record,
        .input_count = host_input_count,
        .scratch = host_scratch,
        .publish_begin = host_publish_begin,
        .publish_commit = host_publish_commit,
        .last_error = host_last_error,
        .repeat = host_repeat,
        .run_seed = host_run_seed,
        .earlier = host_earlier,
        .checkpoint = host_checkpoint,
        .checkpoint_begin = host_checkpoint_begin,
        .checkpoint_commit = host_checkpoint_commit,
    };
    *host = (tp_host){.public.api = &api, .subject = subject, .work = work, .out = out};
}

void tp_host_end(tp_host *host)
{
    sl_record_free(host->earlier);
}
