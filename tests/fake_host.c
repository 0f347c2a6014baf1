/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "core/stream/record.h"
#include "tests/fake_host.h"

static fake_host *of(const sluice_host *host)
{
    return (fake_host *)(uintptr_t)host;
}

static void host_verror(const sluice_host *host, const sluice_record *record, int code, const char *format,
                        va_list args)
{
    vsnprintf(of(host)->error, sizeof of(host)->error, format, args);
    assert_null(strchr(of(host)->error, '\n')); /* one line */
}

static void host_vlog(const sluice_host *host, int level, const char *format, va_list args)
{
    if (level == SLUICE_LOG_WARNING)
        vsnprintf(of(host)->warning, sizeof of(host)->warning, format, args);
}

/* Whether a declared name is that of a number: what stands in capitals after a slash, as in "pair_accuracy/GROUP", is
 * filled in by what the class meets. */
static bool declares(const char *declared, const char *name)
{
    const char *slash = strrchr(declared, '/');
    if (slash && strspn(slash + 1, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == strlen(slash + 1))
        return strncmp(declared, name, (size_t)(slash + 1 - declared)) == 0;
    return strcmp(declared, name) == 0;
}

/* Only numbers that the class declares may be reported, and only finite ones. */
static void host_metrics(const sluice_host *host, int64_t step, const sluice_number *numbers, size_t count)
{
    fake_host *f = of(host);
    for (size_t i = 0; i < count; i++) {
        const sluice_metric_info *info = f->type->metrics;
        while (info && info->name && !declares(info->name, numbers[i].name))
            info++;
        if (!info || !info->name)
            fail_msg("%s reports '%s', which it does not declare", f->type->id, numbers[i].name);
        assert_true(f->number_count < sizeof f->numbers / sizeof *f->numbers);
        fake_number *n = &f->numbers[f->number_count++];
        snprintf(n->name, sizeof n->name, "%s", numbers[i].name);
        n->step = step;
        n->value = numbers[i].value;
        assert_true(isfinite(n->value));
    }
}

static void host_progress(const sluice_host *host, uint64_t done, uint64_t total, const char *unit)
{
}

static void host_tokens(const sluice_host *host, uint64_t count)
{
}

static bool host_cancelled(const sluice_host *host)
{
    fake_host *f = of(host);
    if (f->cancel_after > 1)
        f->cancel_after--;
    else if (f->cancel_after == 1)
        return true;
    return false;
}

static const void *host_service(const sluice_host *host, const char *id)
{
    return strcmp(id, SLUICE_MODEL_SERVICE) == 0 ? of(host)->models : NULL;
}

static uint64_t host_seed(const sluice_host *host)
{
    return of(host)->seed_value;
}

static int64_t host_iteration(const sluice_host *host)
{
    return of(host)->iteration_value;
}

static int64_t host_repeat(const sluice_host *host)
{
    return of(host)->repeat_value;
}

static const char *host_stage_name(const sluice_host *host)
{
    return of(host)->stage_name;
}

static int host_next(const sluice_host *host, sluice_record **record)
{
    fake_host *f = of(host);
    if (f->input_next == f->input_count)
        return SLUICE_END;
    *record = f->input[f->input_next];
    f->input[f->input_next++] = NULL;
    return SLUICE_OK;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = sluice_record_number(*(sluice_record *const *)a), y = sluice_record_number(*(sluice_record *const *)b);
    return x < y ? -1 : x > y;
}

static int host_emit(const sluice_host *host, sluice_record *record)
{
    fake_host *f = of(host);
    f->output = realloc(f->output, (f->output_count + 1) * sizeof *f->output);
    f->output[f->output_count++] = record;
    return SLUICE_OK;
}

static void host_release(const sluice_host *host, sluice_record *record)
{
    fake_free(record);
}

static sluice_record *host_new_record(const sluice_host *host)
{
    return fake_new();
}

static int64_t host_input_count(const sluice_host *host)
{
    return (int64_t)of(host)->input_count;
}

static int host_scratch(const sluice_host *host)
{
    FILE *file = tmpfile();
    int fd = file ? dup(fileno(file)) : -1;
    if (file)
        fclose(file);
    return fd;
}

static int host_publish_begin(const sluice_host *host, const sluice_model_ref *slot, const char **dir)
{
    *dir = of(host)->publish_dir;
    return SLUICE_OK;
}

static int host_publish_commit(const sluice_host *host, const sluice_model_ref *slot)
{
    of(host)->publications++;
    return SLUICE_OK;
}

static const char *host_last_error(const sluice_host *host)
{
    return of(host)->error;
}

static const sluice_host_api api = {.size = sizeof api,
                                    .verror = host_verror,
                                    .vlog = host_vlog,
                                    .metrics = host_metrics,
                                    .progress = host_progress,
                                    .tokens = host_tokens,
                                    .cancelled = host_cancelled,
                                    .service = host_service,
                                    .seed = host_seed,
                                    .run_seed = host_seed,
                                    .iteration = host_iteration,
                                    .repeat = host_repeat,
                                    .stage_name = host_stage_name,
                                    .next = host_next,
                                    .emit = host_emit,
                                    .release = host_release,
                                    .new_record = host_new_record,
                                    .input_count = host_input_count,
                                    .scratch = host_scratch,
                                    .publish_begin = host_publish_begin,
                                    .publish_commit = host_publish_commit,
                                    .last_error = host_last_error};

/* ---- parameters */

static void *member(const fake_host *f, const sluice_param *param)
{
    return (char *)f->self + param->offset;
}

static const sluice_param *find(const fake_host *f, const char *name)
{
    const sluice_param *p = f->type->params;
    while (p->type != SLUICE_TYPE_END && strcmp(p->name, name) != 0)
        p++;
    if (p->type == SLUICE_TYPE_END)
        fail_msg("%s has no parameter '%s'", f->type->id, name);
    return p;
}

static void set_default(fake_host *f, const sluice_param *p)
{
    void *at = member(f, p);
    switch (p->type) {
    case SLUICE_TYPE_BOOL:
        *(bool *)at = p->value != 0;
        break;
    case SLUICE_TYPE_INT:
        *(int64_t *)at = (int64_t)p->value;
        break;
    case SLUICE_TYPE_DOUBLE:
        *(double *)at = p->value;
        break;
    case SLUICE_TYPE_CHOICE:
        *(int *)at = (int)p->value;
        break;
    case SLUICE_TYPE_STRING:
    case SLUICE_TYPE_STAGE:
    case SLUICE_TYPE_FILE:
        *(const char **)at = p->text;
        break;
    default:
        break; /* models, parts and lists: none */
    }
}

fake_host *fake_open(const char *object, const char *id)
{
    char path[4096];
    fake_host *f = calloc(1, sizeof *f);
    assert_non_null(f);
    assert_non_null(getenv("SLUICE_BUILD"));
    snprintf(path, sizeof path, "%s/plugins/%s.so", getenv("SLUICE_BUILD"), object);
    f->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!f->library)
        fail_msg("%s", dlerror());
    const sluice_plugin *plugin = dlsym(f->library, SLUICE_ENTRY);
    assert_non_null(plugin);
    for (const sluice_class *const *c = plugin->classes; *c && !f->type; c++)
        f->type = strcmp((*c)->id, id) == 0 ? *c : NULL;
    assert_non_null(f->type);
    f->self = calloc(1, f->type->state_size);
    assert_non_null(f->self);
    for (const sluice_param *p = f->type->params; p->type != SLUICE_TYPE_END; p++)
        set_default(f, p);
    f->public.api = &api;
    f->stage_name = id;
    f->repeat_value = 1;
    return f;
}

void fake_set_number(fake_host *f, const char *param, double value)
{
    const sluice_param *p = find(f, param);
    void *at = member(f, p);
    if (p->type == SLUICE_TYPE_BOOL)
        *(bool *)at = value != 0;
    else if (p->type == SLUICE_TYPE_INT)
        *(int64_t *)at = (int64_t)value;
    else if (p->type == SLUICE_TYPE_DOUBLE)
        *(double *)at = value;
    else
        fail_msg("parameter '%s' is no number", param);
}

void fake_set_text(fake_host *f, const char *param, const char *value)
{
    const sluice_param *p = find(f, param);
    if (p->type == SLUICE_TYPE_CHOICE) {
        int i = 0;
        while (p->choices[i] && strcmp(p->choices[i], value) != 0)
            i++;
        assert_non_null(p->choices[i]);
        *(int *)member(f, p) = i;
        return;
    }
    assert_true(p->type == SLUICE_TYPE_STRING || p->type == SLUICE_TYPE_STAGE || p->type == SLUICE_TYPE_FILE);
    *(const char **)member(f, p) = value;
}

void fake_set_pointer(fake_host *f, const char *param, const void *value)
{
    const sluice_param *p = find(f, param);
    assert_true(p->type == SLUICE_TYPE_MODEL || p->type == SLUICE_TYPE_SLOT || p->type == SLUICE_TYPE_CLASS);
    *(const void **)member(f, p) = value;
}

void fake_set_bytes(fake_host *f, const char *param, const void *value, size_t size)
{
    memcpy(member(f, find(f, param)), value, size);
}

/* ---- records */

sluice_record *fake_new(void)
{
    sl_record *record = sl_record_new();
    assert_non_null(record);
    return sl_record_public(record);
}

void fake_free(sluice_record *record)
{
    if (record)
        sl_record_free(sl_record_from_public(record));
}

sluice_record *fake_record(fake_host *f, const char *id, const char *prompt)
{
    sluice_record *record = fake_new();
    assert_int_equal(sluice_record_set_id(record, id), SLUICE_OK);
    if (prompt)
        assert_int_equal(sluice_record_set_prompt(record, prompt), SLUICE_OK);
    f->input = realloc(f->input, (f->input_count + 1) * sizeof *f->input);
    sl_record_set_number(sl_record_from_public(record), f->input_count);
    return f->input[f->input_count++] = record;
}

void fake_candidate(sluice_record *record, const char *text, const uint32_t *tokens, size_t count)
{
    sluice_candidate candidate = {
        .text = text, .tokens = tokens, .token_count = (uint32_t)count, .parent = -1, .finish = SLUICE_FINISH_STOP};
    assert_int_equal(sluice_record_add_candidate(record, &candidate), SLUICE_OK);
}

void fake_score(sluice_record *record, const char *judge, size_t candidate, double score)
{
    assert_int_equal(sluice_record_set_score(record, judge, candidate, (float)score), SLUICE_OK);
}

/* ---- running */

int fake_start(fake_host *f)
{
    f->started = true;
    return f->type->init ? f->type->init(f->self, &f->public) : SLUICE_OK;
}

static int drive_source(fake_host *f, const sluice_stage_class *type)
{
    for (;;) {
        sluice_record *record = fake_new();
        int rc = type->next(f->self, record);
        if (rc != SLUICE_OK) {
            fake_free(record);
            return rc == SLUICE_END ? SLUICE_OK : rc;
        }
        host_emit(&f->public, record);
    }
}

static int drive_input(fake_host *f, const sluice_stage_class *type)
{
    int rc = SLUICE_OK;
    for (size_t i = 0; type->observe && rc >= 0 && i < f->input_count; i++)
        rc = type->observe(f->self, f->input[i]);
    if (rc >= 0 && type->settle)
        rc = type->settle(f->self);
    const size_t most = !type->process_batch ? 1 : type->batch > 0 ? type->batch : 64;
    bool *keep = calloc(most, sizeof *keep);
    assert_non_null(keep);
    for (size_t first = 0; rc >= 0 && first < f->input_count; first += most) {
        size_t count = f->input_count - first < most ? f->input_count - first : most;
        for (size_t i = 0; i < count; i++)
            keep[i] = true;
        rc = type->process_batch ? type->process_batch(f->self, f->input + first, keep, count)
                                 : type->process(f->self, f->input[first]);
        for (size_t i = 0; rc >= 0 && i < count; i++) {
            if (rc == SLUICE_DROP || !keep[i])
                fake_free(f->input[first + i]);
            else
                host_emit(&f->public, f->input[first + i]);
            f->input[first + i] = NULL;
        }
    }
    free(keep);
    return rc;
}

int fake_run(fake_host *f)
{
    const sluice_stage_class *type = (const sluice_stage_class *)(const void *)f->type;
    int rc = f->started ? SLUICE_OK : fake_start(f);
    if (rc >= 0 && type->run) {
        rc = type->run(f->self);
        if (f->output_count > 0) /* as the engine's streams: in the input's order */
            qsort(f->output, f->output_count, sizeof *f->output, by_number);
    } else if (rc >= 0) {
        rc = type->next ? drive_source(f, type) : drive_input(f, type);
    }
    if (rc >= 0 && type->finish)
        rc = type->finish(f->self);
    return rc < 0 ? rc : SLUICE_OK;
}

void fake_close(fake_host *f)
{
    if (f->type->fini)
        f->type->fini(f->self);
    for (size_t i = 0; i < f->input_count; i++)
        fake_free(f->input[i]);
    for (size_t i = 0; i < f->output_count; i++)
        fake_free(f->output[i]);
    free(f->input);
    free(f->output);
    free(f->self);
    dlclose(f->library);
    free(f);
}

double fake_step_metric(const fake_host *f, const char *name, int64_t step)
{
    for (size_t i = f->number_count; i > 0; i--)
        if (f->numbers[i - 1].step == step && strcmp(f->numbers[i - 1].name, name) == 0)
            return f->numbers[i - 1].value;
    return NAN;
}

double fake_metric(const fake_host *f, const char *name)
{
    return fake_step_metric(f, name, -1);
}
