/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Handing out records, from a writer of this process or from a file. */
#include "core/stream/reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int sl_reader_fail(sl_stream_reader *r, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->error, sizeof r->error, format, args);
    va_end(args);
    r->failed = code;
    return code;
}

static void leave_block(sl_stream_reader *r)
{
    if (r->block != r->own)
        sl_block_release(r->block);
    r->block = NULL;
    r->at = r->visible = 0;
}

static void enter_block(sl_stream_reader *r, sl_block *block)
{
    r->block = block;
    r->at = r->visible = 0;
    r->position = block->first;
}

int sl_reader_load(sl_stream_reader *r, int fd, const char *path, const sl_chunk *chunk)
{
    const char *why = "";
    int rc = sl_chunk_load(&r->loader, fd, chunk, &r->own, &why);
    if (rc == SLUICE_CORRUPT)
        return sl_reader_fail(r, rc,
                              "%s: chunk %" PRIu64 " at byte %" PRIu64 " is damaged: %s; the %" PRIu64
                              " records before it are whole; delete the file and run again",
                              path, chunk->sequence, chunk->offset, why, chunk->first);
    if (rc == SLUICE_IO)
        return sl_reader_fail(r, rc, "%s: cannot read chunk %" PRIu64 " at byte %" PRIu64 ": %s; check the disk", path,
                              chunk->sequence, chunk->offset, strerror(errno));
    if (rc < 0)
        return sl_reader_fail(r, rc, "%s: out of memory for chunk %" PRIu64, path, chunk->sequence);
    enter_block(r, r->own);
    r->visible = r->own->size;
    return SLUICE_OK;
}

static const char *path_of(const sl_stream_reader *r)
{
    return r->edge ? r->edge->path : r->file.path;
}

static int decode(sl_stream_reader *r, const uint8_t *bytes, size_t size, uint64_t position, size_t *used,
                  sl_record **out)
{
    char why[160];
    int rc = sl_record_decode(bytes, size, out, used, why, sizeof why);
    if (rc == SLUICE_OK) {
        sl_record_set_number(*out, position);
        return rc;
    }
    return sl_reader_fail(r, rc == SLUICE_BAD_RECORD ? SLUICE_CORRUPT : rc,
                          "%s: record %" PRIu64 " cannot be read: %s; delete the file and run again", path_of(r),
                          position, why);
}

/* The record at r->at. Those that the journal showed before their chunk was there are passed over. */
static int from_block(sl_stream_reader *r, sl_record **out)
{
    size_t used;
    int rc = decode(r, r->block->data + r->at, r->visible - r->at, r->position, &used, out);
    if (rc < 0)
        return rc;
    r->at += used;
    r->position++;
    if (r->position <= r->ordinal) {
        sl_record_free(*out);
        *out = NULL;
        return SLUICE_OK;
    }
    r->ordinal++;
    return SLUICE_OK;
}

/* A block ends with its last record, and holds as many as its header says. */
static int end_block(sl_stream_reader *r)
{
    if (r->position - r->block->first != r->block->records)
        return sl_reader_fail(r, SLUICE_CORRUPT,
                              "%s: chunk %" PRIu64 " holds %" PRIu64 " records, not %" PRIu32
                              "; delete the file and run again",
                              path_of(r), r->block->sequence, r->position - r->block->first, r->block->records);
    leave_block(r);
    r->sequence++;
    return SLUICE_OK;
}

/* The block of a sealed chunk from the window, or its description for loading. Under the lock. */
static bool take_recent(sl_stream_reader *r, sl_chunk *chunk)
{
    sl_block *b = r->edge->recent[r->sequence % SL_WINDOW];
    if (b && b->sequence == r->sequence) {
        enter_block(r, sl_block_share(b));
        return true;
    }
    *chunk = r->edge->chunks[r->sequence];
    return false;
}

/* Until there is a record more, and then a moment longer for as many as are worth the waking. Under the lock. */
static void sleep_on(sl_edge *edge)
{
    enum { WORTH_WAKING = 64, PATIENCE = 1000 * 1000 };
    const uint64_t had = edge->records;
    const size_t full = edge->full_count;
    struct timespec until;
    if (edge->wake > had + 1)
        edge->wake = had + 1;
    pthread_cond_wait(&edge->changed, &edge->lock);
    if (edge->closed || atomic_load(&edge->cancelled) || edge->records - had >= WORTH_WAKING || edge->full_count > full)
        return;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += PATIENCE;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    if (edge->wake > had + WORTH_WAKING)
        edge->wake = had + WORTH_WAKING;
    pthread_cond_timedwait(&edge->changed, &edge->lock, &until);
}

/* Brings more bytes to read: SLUICE_OK, SLUICE_END, SLUICE_CANCELLED or an error. */
static int edge_advance(sl_stream_reader *r)
{
    sl_edge *edge = r->edge;
    sl_chunk chunk;
    bool load = false;
    int rc = SLUICE_OK;
    pthread_mutex_lock(&edge->lock);
    for (;;) {
        if (atomic_load(&edge->cancelled)) {
            rc = SLUICE_CANCELLED;
            break;
        }
        if (r->block && r->block != r->own && r->block->size > r->visible) {
            r->visible = r->block->size;
            break;
        }
        if (r->block && r->block != edge->open) {
            rc = end_block(r);
            if (rc < 0)
                break;
        }
        if (!r->block && r->sequence < edge->full_count) {
            load = !take_recent(r, &chunk);
            if (load)
                break;
            continue;
        }
        if (!r->block && edge->open && edge->open->size) {
            enter_block(r, sl_block_share(edge->open));
            continue;
        }
        if (edge->closed) {
            rc = SLUICE_END;
            break;
        }
        sleep_on(edge);
    }
    pthread_mutex_unlock(&edge->lock);
    return load ? sl_reader_load(r, edge->fd, edge->path, &chunk) : rc;
}

int sl_stream_next(sl_stream_reader *r, sl_record **out)
{
    *out = NULL;
    if (r->failed)
        return r->failed;
    for (;;) {
        int rc;
        if (r->edge && atomic_load_explicit(&r->edge->cancelled, memory_order_relaxed))
            return SLUICE_CANCELLED;
        if (r->at < r->visible) {
            rc = from_block(r, out);
            if (rc < 0 || *out)
                return rc;
            continue;
        }
        if (r->edge) {
            rc = edge_advance(r);
        } else {
            bool single = false;
            rc = r->block ? end_block(r) : SLUICE_OK;
            if (rc == SLUICE_OK)
                rc = sl_file_advance(r, &single);
            if (rc == SLUICE_OK && single) {
                size_t used;
                rc = decode(r, r->file.record.data, r->file.record.size, r->ordinal, &used, out);
                if (rc == SLUICE_OK)
                    r->ordinal++;
                return rc;
            }
        }
        if (rc != SLUICE_OK)
            return rc;
    }
}

int sl_stream_rewind(sl_stream_reader *r)
{
    leave_block(r);
    r->sequence = r->ordinal = r->position = 0;
    r->failed = SLUICE_OK;
    r->error[0] = '\0';
    if (!r->edge)
        sl_file_rewind(&r->file);
    return SLUICE_OK;
}

int sl_stream_follow(sl_stream_writer *w, sl_stream_reader **out)
{
    sl_stream_reader *r = calloc(1, sizeof *r);
    *out = r;
    if (!r)
        return SLUICE_NO_MEMORY;
    r->edge = sl_edge_share(sl_writer_edge(w));
    r->file.fd = -1;
    return SLUICE_OK;
}

const char *sl_stream_reader_error(const sl_stream_reader *r)
{
    return r->error;
}

const sl_stream_info *sl_stream_reader_info(const sl_stream_reader *r)
{
    return r->edge ? &r->edge->info : &r->file.info;
}

int64_t sl_stream_count(const sl_stream_reader *r)
{
    if (!r->edge)
        return r->file.count;
    pthread_mutex_lock(&r->edge->lock);
    const int64_t count = r->edge->closed ? (int64_t)r->edge->records : -1;
    pthread_mutex_unlock(&r->edge->lock);
    return count;
}

void sl_stream_reader_close(sl_stream_reader *r)
{
    if (!r)
        return;
    leave_block(r);
    sl_block_release(r->own);
    sl_loader_free(&r->loader);
    if (r->edge)
        sl_edge_release(r->edge);
    else
        sl_file_close(&r->file);
    free(r);
}
