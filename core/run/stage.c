/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The loop of each kind of stage, on the stage's own thread: records in, the plugin's function, records out. */
#include "core/run/internal.h"

#include <stdlib.h>
#include <string.h>

bool sl_stage_has_output(const sl_stage *stage)
{
    return (stage->object.type->type->traits & SLUICE_NO_OUTPUT) == 0;
}

/* ---- in and out */

static bool cancelled(const sl_job *job)
{
    return atomic_load_explicit(&job->run->cancelled, memory_order_relaxed);
}

/* Where a crash finds it without touching what may be broken. */
static void note_taken(sl_job *job, sl_record *record)
{
    const char *id = sluice_record_id(sl_record_public(record));
    const size_t length = id != NULL ? strnlen(id, sizeof job->taken - 1) : 0;
    if (length > 0)
        memcpy(job->taken, id, length);
    job->taken[length] = '\0';
}

int sl_stage_next(sl_job *job, sl_record **record)
{
    *record = NULL;
    if (cancelled(job))
        return SLUICE_CANCELLED;
    if (job->ended && !job->emitting && job->released != NULL) /* what an earlier pass released comes once more */
        memset(job->released, 0, job->released_size);
    job->ended = false;
    const double start = sl_clock();
    const int rc = job->passage != NULL  ? job->passage->next(job, record)
                   : job->taking != NULL ? sl_pipe_take(job->taking, record)
                                         : sl_stream_next(job->input, record);
    job->waiting += sl_clock() - start;
    if (rc == SLUICE_OK) {
        if (job->passage != NULL)
            job->position = sluice_record_number(sl_record_public(*record));
        sl_record_set_number(*record, job->position++);
        note_taken(job, *record);
        if (job->position > job->in) { /* not in an earlier pass */
            atomic_store_explicit(&job->in, job->position, memory_order_relaxed);
            job->tokens_in += sl_record_tokens(*record);
        }
        return SLUICE_OK;
    }
    if (rc == SLUICE_END) { /* the next call starts another pass */
        job->position = 0;
        job->ended = true;
        job->taken[0] = '\0';
        return job->input != NULL && sl_stream_rewind(job->input) < 0 ? SLUICE_IO : SLUICE_END;
    }
    if (rc == SLUICE_CANCELLED || cancelled(job))
        return SLUICE_CANCELLED;
    if (job->passage != NULL)
        return rc;
    return sluice_error(&job->host.public, rc, "cannot read what '%s' put out: %s", job->producer->stage->name,
                        sl_stream_reader_error(job->input));
}

/* The stream refuses a record without an id, and an id or a number that came before; else the disk is to blame. */
static int write_failed(sl_job *job, const sl_record *record, int rc)
{
    const char *why = job->giving != NULL ? sl_pipe_error(job->giving) : sl_stream_writer_error(job->output);
    if (rc == SLUICE_BAD_RECORD && record != NULL)
        return sluice_record_error(&job->host.public, sl_record_public((sl_record *)(uintptr_t)record), rc, "%s", why);
    if (cancelled(job))
        return SLUICE_CANCELLED;
    job->current = NULL; /* it is not to blame */
    return sluice_error(&job->host.public, rc, "cannot write its output: %s", why);
}

int sl_stage_skip(sl_job *job, uint64_t number)
{
    if (job->passage != NULL)
        return job->passage->skip(job, number);
    if (job->output == NULL)
        return SLUICE_OK;
    const int rc = sl_stream_skip(job->output, number);
    return rc < 0 ? write_failed(job, NULL, rc) : SLUICE_OK;
}

int sl_stage_append(sl_job *job, sl_record *record, uint64_t number)
{
    int rc = SLUICE_OK;
    if (job->passage != NULL) {
        rc = job->passage->append(job, record, number);
    } else if (job->output != NULL || job->giving != NULL) {
        const double start = sl_clock();
        const uint64_t tokens = sl_record_tokens(record);
        rc = job->giving != NULL ? sl_pipe_give(job->giving, record) : sl_stream_append(job->output, record, number);
        job->writing += sl_clock() - start;
        if (rc >= 0) {
            job->tokens_out += tokens;
            atomic_fetch_add_explicit(&job->out, 1, memory_order_relaxed);
        } else {
            rc = write_failed(job, record, rc);
        }
        if (rc >= 0 && job->giving != NULL)
            record = NULL; /* it is the readers' now */
    }
    job->current = NULL;
    sl_record_free(record);
    return rc;
}

/* Bits of what was released while nothing had been emitted yet. */
static int note_released(sl_job *job, uint64_t number)
{
    const size_t byte = (size_t)(number / 8);
    if (byte >= job->released_size) {
        const size_t size = 2 * byte + 64;
        uint8_t *more = realloc(job->released, size);
        if (more == NULL)
            return sluice_error(&job->host.public, SLUICE_NO_MEMORY, "out of memory");
        memset(more + job->released_size, 0, size - job->released_size);
        job->released = more;
        job->released_size = size;
    }
    job->released[byte] |= (uint8_t)(1u << (number % 8));
    return SLUICE_OK;
}

static int skip_released(sl_job *job)
{
    int rc = SLUICE_OK;
    for (uint64_t n = 0; rc >= 0 && n < 8 * (uint64_t)job->released_size; n++)
        if (job->released[n / 8] & (1u << (n % 8)))
            rc = sl_stage_skip(job, n);
    job->released_size = 0;
    job->emitting = true;
    return rc;
}

int sl_stage_emit(sl_job *job, sl_record *record)
{
    int rc = SLUICE_OK;
    uint64_t number = sluice_record_number(sl_record_public(record));
    const bool fresh = number == UINT64_MAX;
    if (!sl_stage_has_output(job->stage))
        rc = sluice_error(&job->host.public, SLUICE_UNSUPPORTED, "emits a record but declares that it has no output");
    else if (fresh && job->producer != NULL)
        rc = sluice_error(&job->host.public, SLUICE_UNSUPPORTED,
                          "emits a new record; a stage with input can only send on what came");
    else if (!job->emitting)
        rc = skip_released(job);
    if (rc >= 0 && fresh)
        number = job->position++;
    if (rc >= 0)
        rc = sl_stage_append(job, record, number);
    else
        sl_record_free(record);
    return rc >= 0 && cancelled(job) ? SLUICE_CANCELLED : rc;
}

int sl_stage_release(sl_job *job, sl_record *record)
{
    const uint64_t number = sluice_record_number(sl_record_public(record));
    sl_record_free(record);
    if (number == UINT64_MAX || !sl_stage_has_output(job->stage))
        return SLUICE_OK;
    return job->emitting ? sl_stage_skip(job, number) : note_released(job, number);
}

/* ---- the loops. `current` is what error lines name. */

/* The end of one record's turn. A plugin that failed without a word has its record named all the same. */
static int finish_record(sl_job *job, sl_record *record, int rc)
{
    if (rc < 0 && rc != SLUICE_CANCELLED && job->host.error[0] == '\0')
        sluice_error(&job->host.public, rc,
                     rc == SLUICE_NO_MEMORY ? "%s" : "%s, and '%s' does not say why: sluice test-plugin tests it",
                     sl_result_text(rc), job->stage->id);
    job->current = NULL;
    sl_record_free(record);
    return rc;
}

static int drive_source(sl_job *job, sl_instance *self)
{
    const int64_t most = job->run->records;
    for (uint64_t number = 0; most == 0 || number < (uint64_t)most; number++) {
        sl_record *record = cancelled(job) ? NULL : sl_record_new();
        if (record == NULL)
            return cancelled(job) ? SLUICE_CANCELLED : SLUICE_NO_MEMORY;
        sl_record_set_number(record, number);
        job->current = record;
        const int made = job->type->next(self->state, sl_record_public(record));
        const int rc = made == SLUICE_OK ? sl_stage_append(job, record, number) : finish_record(job, record, made);
        if (rc != SLUICE_OK)
            return rc == SLUICE_END ? SLUICE_OK : rc;
    }
    return SLUICE_OK;
}

static int drive_observe(sl_job *job, sl_instance *self)
{
    sl_record *record;
    int rc;
    while ((rc = sl_stage_next(job, &record)) == SLUICE_OK) {
        job->current = record;
        rc = job->type->observe(self->state, sl_record_public(record));
        rc = finish_record(job, record, rc);
        if (rc < 0)
            return rc;
    }
    if (rc < 0)
        return rc;
    return job->type->settle != NULL ? job->type->settle(self->state) : SLUICE_OK;
}

static int drive_process(sl_job *job, sl_instance *self)
{
    sl_record *record;
    int rc;
    while ((rc = sl_stage_next(job, &record)) == SLUICE_OK) {
        const uint64_t number = job->position - 1;
        job->current = record;
        rc = job->type->process(self->state, sl_record_public(record));
        if (rc >= 0 && rc != SLUICE_DROP)
            rc = sl_stage_append(job, record, number);
        else
            rc = finish_record(job, record, rc < 0 ? rc : sl_stage_skip(job, number));
        if (rc < 0)
            return rc;
    }
    return rc < 0 ? rc : SLUICE_OK;
}

static int drive_batches(sl_job *job, sl_instance *self)
{
    const size_t most = job->type->batch > 0 ? job->type->batch : 64;
    sl_record **records = sl_arena_alloc(job->arena, most * sizeof *records);
    sluice_record **views = sl_arena_alloc(job->arena, most * sizeof *views);
    bool *keep = sl_arena_alloc(job->arena, most * sizeof *keep);
    if (records == NULL || views == NULL || keep == NULL)
        return SLUICE_NO_MEMORY;
    int rc = SLUICE_OK;
    for (bool more = true; more && rc >= 0;) {
        const size_t room = job->position < job->careful ? 1 : most;
        size_t count = 0;
        while (count < room && (rc = sl_stage_next(job, &records[count])) == SLUICE_OK) {
            views[count] = sl_record_public(records[count]);
            keep[count++] = true;
        }
        more = rc == SLUICE_OK;
        if (rc >= 0 && count > 0)
            rc = job->type->process_batch(self->state, views, keep, count);
        for (size_t i = 0; i < count; i++) {
            const uint64_t number = sluice_record_number(sl_record_public(records[i]));
            if (rc >= 0 && keep[i]) {
                rc = sl_stage_append(job, records[i], number);
                continue;
            }
            if (rc >= 0)
                rc = sl_stage_skip(job, number);
            sl_record_free(records[i]);
        }
    }
    return rc < 0 ? rc : SLUICE_OK;
}

static int drive_run(sl_job *job, sl_instance *self)
{
    const int rc = job->type->run(self->state);
    return rc >= 0 && !job->emitting ? skip_released(job) : rc;
}

int sl_stage_drive(sl_job *job, sl_instance *self)
{
    const sluice_stage_class *type = job->type;
    const sluice_host *host = &job->host.public;
    int rc = SLUICE_OK;
    if (type->run != NULL) {
        rc = drive_run(job, self);
    } else if (type->next != NULL) {
        rc = drive_source(job, self);
    } else if (job->producer == NULL) {
        rc = sluice_error(host, SLUICE_BAD_PARAMETER, "has no input: add from = \"STAGE\"");
    } else {
        if (type->observe != NULL)
            rc = drive_observe(job, self);
        if (rc >= 0 && type->process_batch != NULL)
            rc = drive_batches(job, self);
        else if (rc >= 0 && type->process != NULL)
            rc = drive_process(job, self);
    }
    if (rc >= 0 && cancelled(job))
        rc = SLUICE_CANCELLED;
    if (rc >= 0 && job->strayed) /* its key would not tell one number of iterations from another */
        rc = sluice_error(host, SLUICE_BAD_PLUGIN,
                          "class '%s' asks how many times the phase runs and does not declare it; give it the trait "
                          "SLUICE_READS_REPEAT",
                          type->base.id);
    if (rc >= 0 && (type->base.traits & SLUICE_NEEDS_INPUT) && job->producer != NULL && job->in == 0)
        rc = sluice_error(host, SLUICE_BAD_RECORD, "got no records from '%s'", job->producer->stage->name);
    if (rc >= 0 && type->finish != NULL)
        rc = type->finish(self->state);
    return rc < 0 ? rc : SLUICE_OK;
}
