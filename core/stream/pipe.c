/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/stream/pipe.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/stream/ids.h"

enum {
    PIPE_RECORDS = 256,
    PIPE_BYTES = 4 << 20,
    WORTH_WAKING = 64,     /* records for which a reader that sleeps is woken */
    PATIENCE = 1000 * 1000 /* ns that it waits for as many once there is one */
};

/* Full arrays and empty ones change places: the lock is held for a pointer's time. */
struct sl_pipe_end {
    sl_pipe_end *next;
    sl_pipe *pipe;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t more, room;
    sl_record **queue;
    size_t count, bytes;
    bool closed, cancelled, asleep;
    uint64_t records; /* in all */
    /* The reader's alone. */
    sl_record **batch;
    size_t at, filled;
};

struct sl_pipe {
    sl_pipe_end *ends;
    sl_ids ids;
    char *beside;
    char error[512];
};

sl_pipe *sl_pipe_new(const char *beside)
{
    sl_pipe *p = calloc(1, sizeof *p);
    if (p)
        p->ids.beside = p->beside = strdup(beside);
    if (p && p->beside)
        return p;
    free(p);
    return NULL;
}

sl_pipe_end *sl_pipe_open(sl_pipe *p)
{
    sl_pipe_end *end = calloc(1, sizeof *end);
    sl_record **records = calloc(2 * PIPE_RECORDS, sizeof *records);
    pthread_condattr_t clock;
    if (!end || !records) {
        free(end);
        free(records);
        return NULL;
    }
    *end = (sl_pipe_end){.next = p->ends, .pipe = p, .queue = records, .batch = records + PIPE_RECORDS};
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_mutex_init(&end->lock, NULL);
    pthread_cond_init(&end->more, &clock);
    pthread_cond_init(&end->room, &clock);
    pthread_condattr_destroy(&clock);
    p->ends = end;
    return end;
}

static int put(sl_pipe_end *end, sl_record *record)
{
    const size_t bytes = sl_record_bytes(record);
    pthread_mutex_lock(&end->lock);
    while (!end->cancelled && end->count > 0 && (end->count == PIPE_RECORDS || end->bytes + bytes > PIPE_BYTES))
        pthread_cond_wait(&end->room, &end->lock);
    const bool cancelled = end->cancelled;
    if (!cancelled) {
        end->queue[end->count++] = record;
        end->bytes += bytes;
        end->records++;
        if (end->asleep && (end->count == 1 || end->count == WORTH_WAKING || end->bytes > PIPE_BYTES / 2))
            pthread_cond_signal(&end->more);
    }
    pthread_mutex_unlock(&end->lock);
    return cancelled ? SLUICE_CANCELLED : SLUICE_OK;
}

static int fail(sl_pipe *p, int rc)
{
    if (rc == SLUICE_BAD_RECORD || rc == SLUICE_CORRUPT)
        snprintf(p->error, sizeof p->error, "record id '%.400s' comes twice; ids must be unique in a stream",
                 p->ids.twice);
    else if (rc == SLUICE_IO)
        snprintf(p->error, sizeof p->error,
                 "cannot write a temporary file beside %.400s: %s; make room on the disk "
                 "and run again",
                 p->beside, strerror(errno));
    else
        snprintf(p->error, sizeof p->error, "out of memory");
    return rc;
}

int sl_pipe_give(sl_pipe *p, sl_record *record)
{
    const char *id = sluice_record_id(sl_record_public(record));
    if (!id || !*id) {
        snprintf(p->error, sizeof p->error, "a record has no id");
        return SLUICE_BAD_RECORD;
    }
    int rc = sl_ids_add(&p->ids, id);
    if (rc < 0)
        return fail(p, rc == SLUICE_BAD_RECORD && strcmp(p->ids.twice, id) != 0 ? SLUICE_CORRUPT : rc);
    for (sl_pipe_end *end = p->ends; end; end = end->next) {
        sl_record *given = record;
        if (end->next) { /* the last reader gets the record itself */
            rc = sl_record_copy(record, &given);
            if (rc < 0)
                return fail(p, rc);
        }
        rc = put(end, given);
        if (rc < 0) {
            if (given != record)
                sl_record_free(given);
            return rc;
        }
    }
    if (!p->ends)
        sl_record_free(record);
    return SLUICE_OK;
}

/* The end of the writing: all is there, or no more comes. */
static void stop(sl_pipe *p, bool cancelled)
{
    for (sl_pipe_end *end = p->ends; end; end = end->next) {
        pthread_mutex_lock(&end->lock);
        end->closed = end->closed || !cancelled;
        end->cancelled = end->cancelled || cancelled;
        pthread_cond_signal(&end->more);
        pthread_cond_signal(&end->room);
        pthread_mutex_unlock(&end->lock);
    }
}

int sl_pipe_close(sl_pipe *p)
{
    const int rc = sl_ids_settle(&p->ids);
    if (rc < 0)
        return fail(p, rc);
    stop(p, false);
    return SLUICE_OK;
}

void sl_pipe_cancel(sl_pipe *p)
{
    stop(p, true);
}

const char *sl_pipe_error(const sl_pipe *p)
{
    return p->error;
}

/* Until there are records worth waking for, or some and patience is at its end. Under the lock. */
static void await(sl_pipe_end *end)
{
    struct timespec until;
    end->asleep = true;
    while (end->count == 0 && !end->closed && !end->cancelled)
        pthread_cond_wait(&end->more, &end->lock);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += PATIENCE;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (end->count < WORTH_WAKING && end->bytes <= PIPE_BYTES / 2 && !end->closed && !end->cancelled)
        if (pthread_cond_timedwait(&end->more, &end->lock, &until) == ETIMEDOUT)
            break;
    end->asleep = false;
}

int sl_pipe_take(sl_pipe_end *end, sl_record **record)
{
    *record = NULL;
    if (end->at == end->filled) {
        sl_record **empty = end->batch;
        pthread_mutex_lock(&end->lock);
        if (end->count == 0)
            await(end);
        const bool cancelled = end->cancelled;
        end->batch = end->queue;
        end->filled = end->count;
        end->at = 0;
        end->queue = empty;
        end->count = end->bytes = 0;
        pthread_cond_signal(&end->room);
        pthread_mutex_unlock(&end->lock);
        if (cancelled)
            return SLUICE_CANCELLED;
        if (end->filled == 0)
            return SLUICE_END;
    }
    *record = end->batch[end->at++];
    return SLUICE_OK;
}

int64_t sl_pipe_count(sl_pipe_end *end)
{
    pthread_mutex_lock(&end->lock);
    const int64_t count = end->closed ? (int64_t)end->records : -1;
    pthread_mutex_unlock(&end->lock);
    return count;
}

void sl_pipe_free(sl_pipe *p)
{
    for (sl_pipe_end *end = p ? p->ends : NULL, *next; end; end = next) {
        next = end->next;
        while (end->at < end->filled)
            sl_record_free(end->batch[end->at++]);
        for (size_t i = 0; i < end->count; i++)
            sl_record_free(end->queue[i]);
        free(end->queue < end->batch ? end->queue : end->batch); /* both are one block */
        pthread_cond_destroy(&end->more);
        pthread_cond_destroy(&end->room);
        pthread_mutex_destroy(&end->lock);
        free(end);
    }
    if (p) {
        sl_ids_free(&p->ids);
        free(p->beside);
    }
    free(p);
}
