/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The table of functions behind sluice_host, for stages, services and commands alike. */
#include "core/run/internal.h"
#include "core/run/host.h"
#include "core/base/utf8.h"

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sluice/cuda.h>

static sl_host *of(const sluice_host *host)
{
    return (sl_host *)(uintptr_t)host; /* the host made it and may write to it; plugins only hold it const */
}

/* The thread rule of host.h, for plugin authors who build without NDEBUG. */
static sl_job *own(const sluice_host *host)
{
    sl_job *job = of(host)->job;
    assert(job == NULL || pthread_equal(job->thread, pthread_self()));
    return job;
}

/* One line of one message, which a terminal shows and a reader of log.txt can decode: what a plugin says may hold
 * newlines and other control characters (also those of two bytes, U+0080 to U+009F), or bytes that are no UTF-8. */
static void one_line(char *text)
{
    const size_t size = strlen(text);
    for (size_t bad = sl_utf8_check(text, size); bad < size; bad += sl_utf8_check(text + bad, size - bad))
        text[bad] = '?';
    for (char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
        else if ((unsigned char)c[0] == 0xc2 && (unsigned char)c[1] < 0xa0)
            c[0] = c[1] = ' ';
    }
}

static void host_verror(const sluice_host *public, const sluice_record *record, int code, const char *format,
                        va_list args)
{
    sl_host *host = of(public);
    char what[SL_ERROR_SIZE / 2], line[SL_ERROR_SIZE];
    vsnprintf(what, sizeof what, format, args);
    one_line(what);
    const sl_job *job = host->job;
    if (job == NULL) {
        pthread_mutex_lock(&host->services->error_lock);
        if (record != NULL)
            snprintf(host->error, sizeof host->error, "record '%.200s': %s", sluice_record_id(record), what);
        else
            snprintf(host->error, sizeof host->error, "%s", what);
        if (host->folder == NULL) /* a metrics sink's error is said by who calls it */
            sl_console_line(host->console, SLUICE_LOG_WARNING, "%s%s%s", host->name, host->name[0] ? ": " : "",
                            host->error);
        pthread_mutex_unlock(&host->services->error_lock);
        return;
    }
    if (code == SLUICE_CANCELLED || host->error[0] != '\0') /* the first error is the cause */
        return;
    const sluice_record *about = record;
    if (about == NULL && job->current != NULL)
        about = sl_record_public((sl_record *)(uintptr_t)job->current);
    const char *id = about != NULL ? sluice_record_id(about) : NULL;
    if (id != NULL && id[0] != '\0')
        snprintf(line, sizeof line, "stage '%s' (%s:%d), record '%.200s': %s", job->stage->name, job->stage->file,
                 job->stage->line, id, what);
    else
        snprintf(line, sizeof line, "stage '%s' (%s:%d): %s", job->stage->name, job->stage->file, job->stage->line,
                 what);
    one_line(line);
    memcpy(host->error, line, sizeof line);
    host->code = code;
}

static void host_vlog(const sluice_host *public, int level, const char *format, va_list args)
{
    const sl_host *host = of(public);
    const char *warning = level >= SLUICE_LOG_WARNING ? "warning: " : "";
    char what[SL_ERROR_SIZE], where[64];
    vsnprintf(what, sizeof what, format, args);
    one_line(what);
    if (host->job != NULL)
        sl_console_line(host->console, level, "%s%s: stage '%s': %s", warning,
                        sl_job_where(host->job, where, sizeof where), host->name, what);
    else
        sl_console_line(host->console, level, "%s%s%s%s", warning, host->name, host->name[0] ? ": " : "", what);
}

static void host_metrics(const sluice_host *public, int64_t step, const sluice_number *numbers, size_t count)
{
    if (own(public) != NULL)
        sl_metrics_add(own(public), step, numbers, count);
}

static void host_progress(const sluice_host *public, uint64_t done, uint64_t total, const char *unit)
{
    sl_job *job = of(public)->job;
    if (job == NULL)
        return;
    atomic_store_explicit(&job->done, done, memory_order_relaxed);
    atomic_store_explicit(&job->total, total, memory_order_relaxed);
    if (unit != NULL && strncmp(unit, job->unit, sizeof job->unit - 1) != 0) {
        pthread_mutex_lock(&job->run->lock);
        snprintf(job->unit, sizeof job->unit, "%s", unit);
        pthread_mutex_unlock(&job->run->lock);
    }
}

static void host_tokens(const sluice_host *public, uint64_t count)
{
    if (of(public)->job != NULL)
        atomic_fetch_add_explicit(&of(public)->job->tokens, count, memory_order_relaxed);
}

static bool host_cancelled(const sluice_host *public)
{
    const sl_job *job = of(public)->job;
    return job != NULL && atomic_load_explicit(&job->run->cancelled, memory_order_relaxed);
}

static const void *host_service(const sluice_host *public, const char *id)
{
    const sl_job *job = of(public)->job;
    if (job != NULL && strcmp(id, SLUICE_CUDA_SERVICE) == 0 && !(job->type->base.traits & SLUICE_USES_CUDA)) {
        /* its key would not tell one GPU from another */
        sluice_error(public, SLUICE_BAD_PLUGIN,
                     "class '%s' asks for %s and does not declare it; give it the trait SLUICE_USES_CUDA",
                     job->type->base.id, SLUICE_CUDA_SERVICE);
        return NULL;
    }
    return sl_services_get(of(public)->services, id);
}

static uint64_t host_seed(const sluice_host *public)
{
    return of(public)->seed;
}

static uint64_t host_run_seed(const sluice_host *public)
{
    return of(public)->services->seed;
}

static int64_t host_iteration(const sluice_host *public)
{
    return of(public)->job != NULL ? of(public)->job->iteration : 0;
}

static int64_t host_repeat(const sluice_host *public)
{
    sl_job *job = own(public);
    if (job == NULL)
        return 1;
    job->strayed = job->strayed || !sl_stage_reads_repeat(job->stage);
    return job->stage->phase->repeat;
}

static const char *host_stage_name(const sluice_host *public)
{
    return of(public)->name;
}

static int host_next(const sluice_host *public, sluice_record **record)
{
    sl_record *r = NULL;
    *record = NULL;
    if (own(public) == NULL || own(public)->producer == NULL)
        return SLUICE_END;
    const int rc = sl_stage_next(own(public), &r);
    if (rc == SLUICE_OK)
        *record = sl_record_public(r);
    return rc;
}

static int host_emit(const sluice_host *public, sluice_record *record)
{
    if (own(public) != NULL)
        return sl_stage_emit(own(public), sl_record_from_public(record));
    sl_record_free(sl_record_from_public(record));
    return SLUICE_UNSUPPORTED;
}

static void host_release(const sluice_host *public, sluice_record *record)
{
    if (own(public) != NULL)
        sl_stage_release(own(public), sl_record_from_public(record));
    else
        sl_record_free(sl_record_from_public(record));
}

static sluice_record *host_new_record(const sluice_host *public)
{
    (void)public;
    sl_record *record = sl_record_new();
    if (record == NULL)
        return NULL;
    sl_record_set_number(record, UINT64_MAX); /* it gets its place when it is emitted */
    return sl_record_public(record);
}

static int64_t host_input_count(const sluice_host *public)
{
    const sl_job *job = of(public)->job;
    if (job != NULL && job->taking != NULL)
        return sl_pipe_count(job->taking);
    return job != NULL && job->input != NULL ? sl_stream_count(job->input) : -1;
}

static int host_scratch(const sluice_host *public)
{
    const sl_host *host = of(public);
    char beside[PATH_MAX];
    if (host->job != NULL)
        snprintf(beside, sizeof beside, "%s/.", host->job->run->folder);
    const int fd = sl_temporary_file(host->job != NULL ? beside : NULL);
    return fd >= 0 ? fd : sluice_error(public, SLUICE_IO, "cannot make a temporary file: %m");
}

static int host_publish_begin(const sluice_host *public, const sluice_model_ref *slot, const char **dir)
{
    return own(public) != NULL ? sl_version_begin(own(public), slot, dir) : SLUICE_UNSUPPORTED;
}

static int host_publish_commit(const sluice_host *public, const sluice_model_ref *slot)
{
    return own(public) != NULL ? sl_version_commit(own(public), slot) : SLUICE_UNSUPPORTED;
}

static const sluice_record *host_earlier(const sluice_host *public, const sluice_record *input)
{
    const sl_job *job = own(public);
    if (job == NULL || job->earlier == NULL)
        return NULL;
    const sl_record *found = sl_earlier_find(job->earlier, sluice_record_id(input), sluice_record_number(input));
    return found != NULL ? sl_record_public((sl_record *)(uintptr_t)found) : NULL;
}

static int host_checkpoint(const sluice_host *public, const char **folder)
{
    return own(public) != NULL ? sl_checkpoint_find(own(public), folder) : SLUICE_END;
}

static int host_checkpoint_begin(const sluice_host *public, const char **folder)
{
    return own(public) != NULL ? sl_checkpoint_begin(own(public), folder) : SLUICE_UNSUPPORTED;
}

static int host_checkpoint_commit(const sluice_host *public)
{
    return own(public) != NULL ? sl_checkpoint_commit(own(public)) : SLUICE_UNSUPPORTED;
}

static const char *host_last_error(const sluice_host *public)
{
    return of(public)->error;
}

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

void sl_host_init(sl_host *host, const char *name, uint64_t seed, sl_services *services, sl_console *console,
                  sl_job *job)
{
    host->public.api = &api;
    host->services = services;
    host->console = console;
    host->name = name;
    host->seed = seed;
    host->job = job;
    host->error[0] = '\0';
}

/* ---- a host without a run */

struct sl_free_host {
    sl_host host;
    sl_services services;
    sl_console console;
    sl_arena *arena;
};

/* "name=text" into the parameter of that name; 1 when this class has none of it. */
static int set(sl_object *object, const char *setting, FILE *errors)
{
    const char *equals = strchr(setting, '=');
    for (size_t i = 0; equals != NULL && i < object->value_count; i++) {
        sl_value *value = &object->values[i];
        const char *text = equals + 1;
        if (strlen(value->param->name) != (size_t)(equals - setting) ||
            memcmp(value->param->name, setting, (size_t)(equals - setting)) != 0)
            continue;
        char *end = NULL;
        bool good = true;
        switch (value->param->type) {
        case SLUICE_TYPE_BOOL:
            good = strcmp(text, "true") == 0 || strcmp(text, "false") == 0;
            value->number = text[0] == 't';
            break;
        case SLUICE_TYPE_INT:
            value->integer = strtoll(text, &end, 10);
            value->number = (double)value->integer;
            good = end != text && *end == '\0';
            break;
        case SLUICE_TYPE_DOUBLE:
            value->number = strtod(text, &end);
            good = end != text && *end == '\0';
            break;
        case SLUICE_TYPE_CHOICE:
            good = false;
            for (int c = 0; !good && value->param->choices[c] != NULL; c++)
                if ((good = strcmp(value->param->choices[c], text) == 0))
                    value->number = c;
            break;
        case SLUICE_TYPE_STRING:
            value->text = text;
            break;
        default:
            good = false;
        }
        if (value->param->type == SLUICE_TYPE_INT || value->param->type == SLUICE_TYPE_DOUBLE)
            good = good && value->number >= value->param->min && value->number <= value->param->max &&
                   value->number > value->param->above && value->number < value->param->below;
        if (good)
            return SLUICE_OK;
        fprintf(errors, "sluice: %s: not a value that '%s' of '%s' can have\n", setting, value->param->name,
                object->type->type->id);
        return SLUICE_BAD_PARAMETER;
    }
    return 1;
}

sl_free_host *sl_free_host_open(sl_registry *registry, const char *const *settings, size_t count, FILE *errors)
{
    sl_free_host *host = calloc(1, sizeof *host);
    sl_arena *arena = sl_arena_new();
    sl_object *objects =
        arena != NULL ? sl_arena_alloc(arena, (sl_registry_count(registry) + 1) * sizeof *objects) : NULL;
    if (host == NULL || objects == NULL) {
        free(host);
        sl_arena_free(arena);
        return NULL;
    }
    host->arena = arena;
    sl_console_init(&host->console, errors);
    size_t made = 0;
    int rc = SLUICE_OK;
    for (size_t i = 0; i < sl_registry_count(registry) && rc >= 0; i++)
        if (sl_registry_at(registry, i)->type->kind == SLUICE_SERVICE)
            rc = sl_object_defaults(sl_registry_at(registry, i), arena, &objects[made++]);
    for (size_t s = 0; s < count && rc >= 0; s++) {
        rc = 1;
        for (size_t i = 0; i < made && rc == 1; i++)
            rc = set(&objects[i], settings[s], errors);
        if (rc == 1) {
            fprintf(errors, "sluice: %s: no service has this setting\n", settings[s]);
            rc = SLUICE_BAD_PARAMETER;
        }
    }
    sl_services_init(&host->services, registry, objects, made, &host->console, 0);
    sl_host_init(&host->host, "", 0, &host->services, &host->console, NULL);
    if (rc >= 0)
        return host;
    sl_free_host_close(host);
    return NULL;
}

const sluice_host *sl_free_host_public(const sl_free_host *host)
{
    return &host->host.public;
}

int sl_free_host_numerics(sl_free_host *host, sl_buffer *out)
{
    return sl_services_numerics(&host->services, out);
}

void sl_free_host_close(sl_free_host *host)
{
    if (host == NULL)
        return;
    sl_services_end(&host->services);
    sl_console_close(&host->console);
    sl_arena_free(host->arena);
    free(host);
}
