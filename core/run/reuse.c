/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Which jobs need not run: their output lies in the run's folder under the same key, or in the store. */
#include "core/run/internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The .done file's first line: {"key":"<32 hex>","output":"<32 hex>","records":N} */
static bool is_done(sl_job *job, sl_arena *arena)
{
    char expected[128], key[SL_HEX_SIZE], output[SL_HEX_SIZE], error[SL_ERROR_SIZE];
    uint8_t written[SL_HASH_SIZE];
    const char *path = sl_job_path(job, ".done", arena);
    sl_buffer text = {0};
    const bool there = sl_key_output(job, written);
    sl_hex(job->key, 16, key);
    sl_hex(written, 16, output);
    /* Of a version that was removed because nothing reads it any more, or of a sink's file that a later iteration wrote
     * over, there is nothing to compare. */
    const int n = snprintf(expected, sizeof expected, "{\"key\":\"%s\",\"output\":\"%s\",\"records\":", key, output);
    bool done = path != NULL && sl_file_read(path, &text) == SLUICE_OK && text.size > (size_t)n &&
                memcmp(text.data, expected, there ? (size_t)n : sizeof "{\"key\":\"" - 1 + 32) == 0;
    const char *lines = done ? strchr((const char *)text.data, '\n') : NULL;
    done = done && lines != NULL && sl_metrics_restore(job, lines + 1) == SLUICE_OK;
    if (done)
        atomic_store(&job->out, strtoull((const char *)text.data + n, NULL, 10));
    sl_buffer_free(&text);
    if (!done || !sl_stage_has_output(job->stage))
        return done;
    sl_stream_reader *reader;
    path = sl_job_path(job, ".zst", arena);
    bool stream = path != NULL && sl_stream_open(path, false, &reader, error, sizeof error) == SLUICE_OK;
    if (stream) {
        /* A count is known only when the index is there and whole. */
        stream = sl_stream_count(reader) >= 0 && memcmp(sl_stream_reader_info(reader)->key, job->key, 16) == 0;
        sl_stream_reader_close(reader);
    }
    job->unread = !stream;
    return stream || job->stage->in_memory;
}

/* Whether the job's output is in the folder, or can be had from the store. */
static bool is_there(sl_job *job, sl_arena *arena)
{
    return is_done(job, arena) || (sl_shared_fetch(job) && (job->run->explain || is_done(job, arena)));
}

struct need {
    sl_execution *run;
    sl_arena *arena;
    bool changed;
};

/* A job that must run needs the versions it reads; one that was pruned is made again. */
static int need_version(void *context, const sl_model_use *use)
{
    struct need *need = context;
    sl_job *publisher = sl_version_publisher(need->run, use->slot, use->version);
    const char *path = sl_version_path(need->run, use->slot, use->version, need->arena);
    if (publisher != NULL && publisher->reuse && path != NULL && !sl_path_exists(path) &&
        !(need->run->explain && publisher->stored)) {
        publisher->reuse = sl_shared_fetch(publisher);
        need->changed = need->changed || !publisher->reuse;
    }
    return SLUICE_OK;
}

static int newest_is_there(void *context, const sl_model_use *use)
{
    struct need *need = context;
    const char *path = sl_version_path(need->run, use->slot, use->next, need->arena);
    const bool newest = use->next == need->run->plan->slots[use->slot].last;
    return newest && path != NULL && !sl_path_exists(path) ? SLUICE_END : SLUICE_OK;
}

/* A job that must run needs the records of its producer; those that were in memory are made again. */
static void need_input(struct need *need, const sl_job *job)
{
    sl_job *producer = job->producer;
    if (producer == NULL || !producer->reuse || !producer->unread)
        return;
    producer->reuse = false;
    producer->reader = job;
    need->changed = true;
}

/* A sink whose iteration before must write its file again comes after it, so that the last iteration's stays. */
static bool overwritten(const sl_job *job)
{
    return job->type->base.kind == SLUICE_SINK && job->iteration > 0 && !(job - job->stage->phase->stage_count)->reuse;
}

void sl_key_reuse(sl_execution *run, size_t first, size_t count)
{
    struct need need = {run, sl_arena_new(), true};
    if (need.arena == NULL)
        return;
    for (size_t j = first; j < first + count; j++) {
        sl_job *job = &run->jobs[j];
        if (job->decided)
            continue;
        job->decided = true;
        job->stored = job->unread = false;
        job->reader = NULL;
        job->reuse =
            is_there(job, need.arena) &&
            (job->stored || sl_version_visit(job, true, newest_is_there, &need) == SLUICE_OK || sl_shared_fetch(job));
    }
    while (need.changed) {
        need.changed = false;
        for (size_t j = first; j < first + count; j++)
            if (run->jobs[j].reuse && overwritten(&run->jobs[j]))
                run->jobs[j].reuse = false;
        for (size_t j = first + count; j-- > first;)
            if (!run->jobs[j].reuse) {
                sl_version_visit(&run->jobs[j], false, need_version, &need);
                need_input(&need, &run->jobs[j]);
            }
    }
    sl_arena_free(need.arena);
}

/* Claims what none has claimed and fetches what another run has put into the store meanwhile. The job whose output
 * another run is just computing; NULL when all are settled. */
static sl_job *settle(sl_job *jobs, size_t count, sl_arena *arena)
{
    for (size_t j = 0; j < count; j++) {
        sl_job *job = &jobs[j];
        if (job->reuse)
            continue;
        if (!sl_shared_claim(job))
            return job;
        job->reuse = sl_shared_fetch(job) && is_done(job, arena);
        if (job->reuse)
            sl_shared_release(job);
    }
    return NULL;
}

int sl_key_await(sl_execution *run, size_t first, size_t count)
{
    sl_arena *arena = sl_arena_new();
    bool said = false;
    int rc = arena != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
    for (sl_job *busy; rc >= 0 && (busy = settle(&run->jobs[first], count, arena)) != NULL;) {
        if (!said && !run->quiet)
            sl_console_say(&run->console, "stage '%s': another run is computing the same; waiting for it",
                           busy->stage->name);
        said = true;
        /* Nobody waits while others wait for him. */
        for (size_t j = first; j < first + count; j++)
            sl_shared_release(&run->jobs[j]);
        while (rc >= 0 && !sl_shared_claim(busy)) {
            nanosleep(&(struct timespec){.tv_nsec = 100 * 1000 * 1000}, NULL);
            if (sl_run_interrupted())
                rc = SLUICE_CANCELLED;
        }
    }
    sl_arena_free(arena);
    return rc;
}
