/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/stream/writer.h"

#include <errno.h>
#include <time.h>

#include "core/base/file.h"

enum {
    JOURNAL_LARGE = 16 << 20,        /* a journal below this size is not worth tidying */
    JOURNAL_DELAY = 10 * 1000 * 1000 /* ns */
};

/* Notes the first error. Under the lock. */
static int fault(sl_stream_writer *w, int code, const char *what, const char *path)
{
    if (w->fault.code == SLUICE_OK)
        w->fault = (sl_write_fault){code, errno, what, path};
    return w->fault.code;
}

/* Writes a journal that holds only what waits. */
static int compact(sl_stream_writer *w)
{
    sl_journal fresh = {.fd = -1};
    sl_buffer bytes = {0};
    int rc = sl_journal_begin(&w->journal, &fresh);
    for (size_t i = 0; i < w->waiting_count && rc == SLUICE_OK; i++) {
        uint64_t sum, offset;
        if (w->heap[i].size == 0)
            continue;
        rc = sl_journal_read(&w->journal, w->heap[i].offset, &bytes, &sum);
        if (rc == SLUICE_OK)
            rc = sl_journal_wait(&fresh, w->heap[i].number, bytes.data, bytes.size, sum, &offset);
        if (rc == SLUICE_OK)
            w->heap[i].offset = offset;
    }
    sl_buffer_free(&bytes);
    if (rc == SLUICE_OK)
        rc = sl_journal_replace(&w->journal, &fresh);
    if (rc < 0) {
        const int number = errno;
        sl_journal_remove(&fresh);
        errno = number;
    }
    return rc;
}

/* A full block becomes a chunk of the file. */
static int seal(sl_stream_writer *w, const sl_block *block, const char **what)
{
    sl_edge *edge = w->edge;
    sl_chunk chunk;
    uint8_t head[SL_CHUNK_HEAD];
    *what = "compress";
    int rc = sl_chunk_seal(w->context, block, edge->file_bytes, &w->frame, &chunk);
    if (rc < 0)
        return rc;
    *what = "write";
    sl_chunk_pack(&chunk, head);
    struct iovec pieces[2] = {{head, sizeof head}, {w->frame.data, w->frame.size}};
    return sl_write_at(edge->fd, pieces, 2, chunk.offset) < 0 ? SLUICE_IO : sl_edge_sealed(edge, &chunk);
}

/* The first full block. Entries of its records are stale then; there are none of a later block, for nothing is written
 * into the journal while a full one waits. Under the lock. */
static void seal_first(sl_stream_writer *w)
{
    const char *what;
    sl_block *block = w->full[0];
    pthread_mutex_unlock(&w->lock);
    int rc = seal(w, block, &what);
    pthread_mutex_lock(&w->lock);
    if (rc < 0)
        fault(w, rc, what, w->part);
    else if (!w->waiting_count)
        rc = sl_journal_reset(&w->journal);
    else if (w->journal.end > JOURNAL_LARGE && w->journal.end / 2 > w->waiting_bytes)
        rc = compact(w);
    if (rc < 0)
        fault(w, rc, "write", w->journal.path);
    w->full[0] = w->full[1];
    w->full_count--;
    sl_block_release(block);
    pthread_cond_broadcast(&w->changed);
}

static void write_journal(sl_stream_writer *w)
{
    const int rc = sl_journal_write(&w->journal, &w->placed);
    w->placed.size = 0;
    if (rc < 0)
        fault(w, rc, "write", w->journal.path);
}

/* Nothing to do until `placed` is old enough. Under the lock. */
static bool is_due(sl_stream_writer *w)
{
    struct timespec until = w->placed_at;
    until.tv_nsec += JOURNAL_DELAY;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return pthread_cond_timedwait(&w->changed, &w->lock, &until) == ETIMEDOUT;
}

static void *work(void *argument)
{
    sl_stream_writer *w = argument;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        if (w->fault.code != SLUICE_OK)
            break;
        if (w->full_count > 0)
            seal_first(w);
        else if (w->ending)
            break;
        else if (w->placed.size == 0)
            pthread_cond_wait(&w->changed, &w->lock);
        else if (is_due(w) && w->full_count == 0 && w->placed.size > 0)
            write_journal(w);
    }
    if (w->fault.code == SLUICE_OK && w->placed.size > 0)
        write_journal(w);
    for (; w->full_count > 0; w->full_count--)
        sl_block_release(w->full[w->full_count - 1]);
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* Under the lock. */
static int ensure_running(sl_stream_writer *w)
{
    if (w->fault.code == SLUICE_OK && !w->running) {
        const int number = pthread_create(&w->thread, NULL, work, w);
        w->running = number == 0;
        errno = number;
        if (number != 0)
            fault(w, SLUICE_FAILED, "start a thread for", w->part);
    }
    return w->fault.code;
}

int sl_sealer_note(sl_stream_writer *w, uint64_t ordinal, const void *bytes, size_t size, uint64_t sum)
{
    pthread_mutex_lock(&w->lock);
    int rc = ensure_running(w);
    const bool first = w->placed.size == 0;
    if (rc >= 0 && (rc = sl_journal_pack(&w->placed, ordinal, bytes, size, sum)) < 0)
        fault(w, rc, "write", w->part);
    if (rc >= 0 && first) {
        clock_gettime(CLOCK_MONOTONIC, &w->placed_at);
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return rc;
}

int sl_sealer_hand(sl_stream_writer *w)
{
    sl_block *block = NULL;
    int rc = sl_edge_hand(w->edge, &block);
    pthread_mutex_lock(&w->lock);
    if (rc < 0)
        fault(w, rc, "write", w->part);
    rc = ensure_running(w);
    while (rc >= 0 && w->full_count == SL_MOST_FULL) {
        pthread_cond_wait(&w->changed, &w->lock);
        rc = w->fault.code;
    }
    w->placed.size = 0;
    if (rc >= 0)
        w->full[w->full_count++] = block;
    else
        sl_block_release(block);
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return rc;
}

int sl_sealer_end(sl_stream_writer *w)
{
    pthread_mutex_lock(&w->lock);
    const bool running = w->running;
    w->ending = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    if (running)
        pthread_join(w->thread, NULL);
    w->running = false;
    return w->fault.code;
}
