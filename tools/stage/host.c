/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The host of a stage in a process of its own: the run's table, with what lies in the run asked for there. */
#include "tools/stage/stage.h"

#include <string.h>

/* ---- records, for run/stage.c */

static int next(sl_job *job, sl_record **record)
{
    sl_message m = {.kind = SL_WIRE_NEXT}, reply;
    char why[256];
    size_t size, used;
    (void)job;
    sl_child_progress(false);
    int rc = sl_child_ask(&m, &reply);
    if (rc == SLUICE_OK) {
        const uint64_t number = sl_get(&reply);
        const uint8_t *bytes = sl_get_bytes(&reply, 1, &size);
        rc = sl_record_decode(bytes, size, record, &used, why, sizeof why);
        if (rc == SLUICE_OK)
            sl_record_set_number(*record, number);
    }
    sl_message_free(&reply);
    return rc;
}

static int append(sl_job *job, const sl_record *record, uint64_t number)
{
    sl_message m = {.kind = SL_WIRE_APPEND};
    sl_buffer bytes = {0};
    const bool has_output = sl_stage_has_output(job->stage);
    const int rc = has_output ? sl_record_encode(record, &bytes) : SLUICE_OK;
    if (rc < 0) {
        sl_buffer_free(&bytes);
        return rc == SLUICE_BAD_RECORD
                   ? sluice_error(&job->host.public, rc, "cannot write its output: the record has no id")
                   : sluice_error(&job->host.public, rc, "out of memory");
    }
    sl_put(&m, number);
    sl_put_bytes(&m, bytes.data, bytes.size);
    sl_buffer_free(&bytes);
    sl_child_send(&m);
    return SLUICE_OK;
}

static int skip(sl_job *job, uint64_t number)
{
    sl_message m = {.kind = SL_WIRE_SKIP};
    (void)job;
    sl_put(&m, number);
    sl_child_send(&m);
    return SLUICE_OK;
}

const sl_passage sl_child_passage = {next, append, skip};

/* ---- the table */

static const sluice_host_api *own; /* the run's, which does all that needs no run */

static void child_vlog(const sluice_host *host, int level, const char *format, va_list args)
{
    sl_message m = {.kind = SL_WIRE_LOG};
    char line[SL_ERROR_SIZE];
    (void)host;
    vsnprintf(line, sizeof line, format, args);
    sl_put(&m, (uint64_t)level);
    sl_put_text(&m, line);
    sl_child_send(&m);
}

static void child_metrics(const sluice_host *host, int64_t step, const sluice_number *numbers, size_t count)
{
    sl_message m = {.kind = SL_WIRE_METRICS};
    (void)host;
    sl_put(&m, (uint64_t)step);
    sl_put(&m, count);
    for (size_t i = 0; i < count; i++) {
        sl_put_text(&m, numbers[i].name);
        sl_put_double(&m, numbers[i].value);
    }
    sl_child_send(&m);
}

static void child_report(const sluice_host *host, uint64_t done, uint64_t total, const char *unit)
{
    own->progress(host, done, total, unit);
    sl_child_progress(false);
}

static const void *child_service(const sluice_host *host, const char *id)
{
    if (strcmp(id, SLUICE_MODEL_SERVICE) == 0)
        return sl_child_models();
    sluice_log(host, SLUICE_LOG_WARNING, "service '%s' is out of reach in a process of its own; remove isolate = true",
               id);
    return NULL;
}

static int64_t child_input_count(const sluice_host *host)
{
    sl_message m = {.kind = SL_WIRE_COUNT}, reply;
    (void)host;
    const int rc = sl_child_ask(&m, &reply);
    const int64_t count = rc >= 0 ? (int64_t)sl_get(&reply) : -1;
    sl_message_free(&reply);
    return count;
}

static const sluice_record *child_earlier(const sluice_host *host, const sluice_record *input)
{
    static sl_record *given; /* until the next question */
    sl_message m = {.kind = SL_WIRE_EARLIER}, reply;
    char why[256];
    size_t size, used;
    (void)host;
    sl_record_free(given);
    given = NULL;
    sl_put_text(&m, sluice_record_id(input));
    sl_put(&m, sluice_record_number(input));
    if (sl_child_ask(&m, &reply) == SLUICE_OK) {
        const uint8_t *bytes = sl_get_bytes(&reply, 1, &size);
        if (sl_record_decode(bytes, size, &given, &used, why, sizeof why) < 0)
            given = NULL;
    }
    sl_message_free(&reply);
    return given != NULL ? sl_record_public(given) : NULL;
}

/* A question whose answer is a folder, borrowed as long as the stage lives. */
static int ask_folder(sl_message *m, const char **folder)
{
    sl_message reply;
    const int rc = sl_child_ask(m, &reply);
    const char *text = sl_get_text(&reply);
    if (folder != NULL)
        *folder = text != NULL ? sl_arena_strdup(sl_child_job->arena, text) : NULL;
    sl_message_free(&reply);
    return rc;
}

static int publish(const sluice_model_ref *slot, bool commit, const char **folder)
{
    sl_message m = {.kind = SL_WIRE_PUBLISH};
    sl_put_text(&m, slot != NULL ? slot->slot : "");
    sl_put(&m, slot != NULL ? (uint64_t)slot->next : 0);
    sl_put(&m, commit);
    return ask_folder(&m, folder);
}

static int child_publish_begin(const sluice_host *host, const sluice_model_ref *slot, const char **folder)
{
    (void)host;
    return publish(slot, false, folder);
}

static int child_publish_commit(const sluice_host *host, const sluice_model_ref *slot)
{
    (void)host;
    return publish(slot, true, NULL);
}

static int checkpoint(uint64_t what, const char **folder)
{
    sl_message m = {.kind = SL_WIRE_CHECKPOINT};
    sl_put(&m, what);
    return ask_folder(&m, folder);
}

static int child_checkpoint(const sluice_host *host, const char **folder)
{
    (void)host;
    return checkpoint(0, folder);
}

static int child_checkpoint_begin(const sluice_host *host, const char **folder)
{
    (void)host;
    return checkpoint(1, folder);
}

static int child_checkpoint_commit(const sluice_host *host)
{
    (void)host;
    return checkpoint(2, NULL);
}

void sl_child_host(sl_job *job)
{
    static sluice_host_api api;
    own = job->host.public.api;
    api = *own;
    api.vlog = child_vlog;
    api.metrics = child_metrics;
    api.progress = child_report;
    api.service = child_service;
    api.input_count = child_input_count;
    api.earlier = child_earlier;
    api.publish_begin = child_publish_begin;
    api.publish_commit = child_publish_commit;
    api.checkpoint = child_checkpoint;
    api.checkpoint_begin = child_checkpoint_begin;
    api.checkpoint_commit = child_checkpoint_commit;
    job->host.public.api = &api;
    job->passage = &sl_child_passage;
}
