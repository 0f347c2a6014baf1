/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "core/stream/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/file.h"
#include "core/stream/writer.h"

static int SLUICE_PRINTF(3, 4) fail(sl_stream_writer *w, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(w->error, sizeof w->error, format, args);
    va_end(args);
    w->failed = code;
    return code;
}

/* An error of a system call or of memory, in the words that help. */
static int fail_io(sl_stream_writer *w, int code, const char *what, const char *path)
{
    const int number = errno;
    if (code == SLUICE_NO_MEMORY)
        return fail(w, code, "%s: out of memory while writing", w->part);
    if (code == SLUICE_CORRUPT)
        return fail(w, code, "%s: reads back other than it was written; check the disk, then run again", path);
    return fail(w, code, "cannot %s %s: %s; %s", what, path, strerror(number),
                number == ENOSPC || number == EDQUOT || number == EFBIG ? "make room on the disk and run again"
                                                                        : "check the folder and run again");
}

static int fail_twice(sl_stream_writer *w, int code)
{
    return fail(w, code, "%s: record id '%s' comes twice; ids must be unique in a stream", w->part, w->ids.twice);
}

/* An error that the sealer met. */
static int fail_sealer(sl_stream_writer *w)
{
    errno = w->fault.number;
    return fail_io(w, w->fault.code, w->fault.what, w->fault.path);
}

/* Whether another process (or writer) holds the file. */
static bool being_written(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* A fresh PATH.part, locked as long as it is open: the lock tells readers that the writer lives. */
static int open_part(const char *part, char *error, size_t error_size)
{
    int fd = open(part, O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        const bool busy = being_written(fd);
        close(fd);
        if (busy) {
            snprintf(error, error_size, "%s is being written by another run; wait for it, or choose another folder",
                     part);
            return -1;
        }
        unlink(part);
    }
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    fd = open(part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0 || fcntl(fd, F_OFD_SETLK, &lock) < 0) {
        snprintf(error, error_size, "cannot create %s: %s; check that the folder exists and can be written", part,
                 strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

int sl_stream_create(const char *path, const sl_stream_info *info, sl_stream_writer **out, char *error,
                     size_t error_size)
{
    static const sl_limits limits = {.least = SL_CHUNK_LEAST, .most = SL_CHUNK_MOST};
    return sl_stream_create_limited(path, info, &limits, out, error, error_size);
}

int sl_stream_create_limited(const char *path, const sl_stream_info *info, const sl_limits *limits,
                             sl_stream_writer **out, char *error, size_t error_size)
{
    int rc = SLUICE_NO_MEMORY;
    *out = NULL;
    sl_stream_writer *w = calloc(1, sizeof *w);
    if (!w) {
        snprintf(error, error_size, "%s: out of memory", path);
        return rc;
    }
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &clock);
    pthread_condattr_destroy(&clock);
    pthread_mutex_init(&w->lock, NULL);
    w->limits = *limits;
    w->ids.most = limits->ids;
    w->journal.fd = -1;
    const size_t size = strlen(path) + sizeof ".journal";
    char *names = w->part = malloc(2 * size);
    char *journal = names ? names + size : NULL;
    w->context = ZSTD_createCCtx();
    if (!names || !w->context)
        goto failed;
    snprintf(names, size, "%s.part", path);
    w->ids.beside = w->part;
    snprintf(journal, size, "%s.journal", path);
    int fd = open_part(names, error, error_size);
    if (fd < 0) {
        rc = SLUICE_IO;
        w->done = true;
        sl_stream_writer_free(w);
        return rc;
    }
    w->edge = sl_edge_new(path, fd, info, limits->most);
    if (!w->edge) {
        close(fd);
        unlink(names);
        goto failed;
    }
    rc = sl_header_pack(info, &w->frame);
    if (rc == SLUICE_OK) {
        struct iovec piece = {w->frame.data, w->frame.size};
        w->edge->file_bytes = w->frame.size;
        rc = sl_write_at(fd, &piece, 1, 0) < 0 ? SLUICE_IO : SLUICE_OK;
    }
    if (rc == SLUICE_OK)
        rc = sl_journal_create(&w->journal, journal);
    if (rc == SLUICE_OK) {
        *out = w;
        return rc;
    }
failed:
    if (names)
        fail_io(w, rc, "write", names);
    snprintf(error, error_size, "%s", names ? w->error : "out of memory");
    sl_stream_writer_free(w);
    return rc;
}

/* Sift up, or down, of a binary heap. */
static int wait_push(sl_stream_writer *w, sl_waiting item)
{
    if (w->waiting_count == w->waiting_capacity) {
        const size_t capacity = w->waiting_capacity ? w->waiting_capacity * 2 : 64;
        sl_waiting *grown = realloc(w->heap, capacity * sizeof *grown);
        if (!grown)
            return SLUICE_NO_MEMORY;
        w->heap = grown;
        w->waiting_capacity = capacity;
    }
    size_t i = w->waiting_count++;
    for (; i > 0 && w->heap[(i - 1) / 2].number > item.number; i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = item;
    w->waiting_bytes += item.size;
    return SLUICE_OK;
}

static sl_waiting wait_pop(sl_stream_writer *w)
{
    const sl_waiting top = w->heap[0], last = w->heap[--w->waiting_count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w->waiting_count; i = child) {
        if (child + 1 < w->waiting_count && w->heap[child + 1].number < w->heap[child].number)
            child++;
        if (w->heap[child].number >= last.number)
            break;
        w->heap[i] = w->heap[child];
    }
    if (w->waiting_count)
        w->heap[i] = last;
    w->waiting_bytes -= top.size;
    return top;
}

/* Puts a record at the end of the stream. Where chunks end depends on the records alone: one that would pass the upper
 * limit begins a new chunk; past the lower limit a chunk ends where the record's sum says, on average as much again
 * later. */
static int place(sl_stream_writer *w, const uint8_t *bytes, size_t size, uint64_t sum)
{
    sl_edge *edge = w->edge;
    int rc = SLUICE_OK;
    if (edge->open->size && edge->open->size + size > w->limits.most)
        rc = sl_sealer_hand(w);
    if (rc < 0)
        return fail_sealer(w);
    const size_t filled = edge->open->size + size;
    const bool last = filled >= w->limits.most || (filled >= w->limits.least && sum % w->limits.least < size);
    rc = sl_edge_room(edge, size);
    if (rc < 0)
        return fail_io(w, rc, "write", w->part);
    memcpy(edge->open->data + edge->open->size, bytes, size);
    if (!last)
        rc = sl_sealer_note(w, edge->records, bytes, size, sum);
    sl_edge_publish(edge, size);
    if (last)
        rc = sl_sealer_hand(w);
    return rc < 0 ? fail_sealer(w) : rc;
}

/* Those whose turn has come. */
static int drain(sl_stream_writer *w)
{
    while (w->waiting_count && w->heap[0].number <= w->next) {
        uint64_t sum;
        pthread_mutex_lock(&w->lock);
        const sl_waiting item = wait_pop(w);
        const int rc = item.size ? sl_journal_read(&w->journal, item.offset, &w->record, &sum) : SLUICE_OK;
        pthread_mutex_unlock(&w->lock);
        if (item.number < w->next)
            return fail(w, SLUICE_BAD_RECORD, "%s: position %" PRIu64 " was given twice", w->part, item.number);
        if (rc < 0)
            return fail_io(w, rc, "read", w->journal.path);
        /* A skipped position has no bytes. */
        if (item.size && place(w, w->record.data, w->record.size, sum) < 0)
            return w->failed;
        w->next++;
    }
    return SLUICE_OK;
}

int sl_stream_append(sl_stream_writer *w, const sl_record *record, uint64_t number)
{
    if (w->failed)
        return w->failed;
    if (w->done)
        return fail(w, SLUICE_FAILED, "%s: a record after the end", w->part);
    w->record.size = 0;
    int rc = sl_record_encode(record, &w->record);
    if (rc == SLUICE_NO_MEMORY)
        return fail_io(w, rc, "write", w->part);
    if (rc < 0)
        return fail(w, rc, "%s: the record at position %" PRIu64 " has no id", w->part, number);
    const char *id = sluice_record_id((const sluice_record *)record);
    const size_t size = w->record.size;
    if (size > SL_RECORD_MOST)
        return fail(w, SLUICE_BAD_RECORD, "%s: record '%s' is larger than %d MiB; make its candidates fewer or shorter",
                    w->part, id, SL_RECORD_MOST >> 20);
    rc = sl_ids_add(&w->ids, id);
    if (rc == SLUICE_BAD_RECORD)
        return fail_twice(w, strcmp(w->ids.twice, id) == 0 ? rc : SLUICE_CORRUPT);
    if (rc == SLUICE_OK && number < w->next)
        return fail(w, SLUICE_BAD_RECORD, "%s: position %" PRIu64 " of record '%s' was given before", w->part, number,
                    id);
    const uint64_t sum = sl_sum(w->record.data, size);
    if (rc == SLUICE_OK && number > w->next) {
        sl_waiting item = {.number = number, .size = (uint32_t)size};
        pthread_mutex_lock(&w->lock);
        rc = sl_journal_wait(&w->journal, number, w->record.data, size, sum, &item.offset);
        if (rc == SLUICE_OK)
            rc = wait_push(w, item);
        pthread_mutex_unlock(&w->lock);
        return rc < 0 ? fail_io(w, rc, "write", w->journal.path) : SLUICE_OK;
    }
    if (rc < 0)
        return fail_io(w, rc, "write", w->part);
    rc = place(w, w->record.data, size, sum);
    if (rc < 0)
        return rc;
    w->next++;
    return drain(w);
}

int sl_stream_skip(sl_stream_writer *w, uint64_t number)
{
    if (w->failed)
        return w->failed;
    if (number < w->next)
        return fail(w, SLUICE_BAD_RECORD, "%s: position %" PRIu64 " was given before", w->part, number);
    if (number > w->next) {
        sl_waiting item = {.number = number};
        pthread_mutex_lock(&w->lock);
        const int rc = wait_push(w, item);
        pthread_mutex_unlock(&w->lock);
        return rc < 0 ? fail_io(w, rc, "write", w->part) : SLUICE_OK;
    }
    w->next++;
    return drain(w);
}

static int write_index(sl_stream_writer *w)
{
    const sl_edge *edge = w->edge;
    const sl_totals totals = {edge->chunk_count, edge->records, edge->raw_bytes};
    const size_t size = sl_index_size(totals.chunks);
    if (size == 0)
        return fail(w, SLUICE_UNSUPPORTED, "%s: more chunks than an index can hold", w->part);
    w->frame.size = 0;
    int rc = sl_buffer_reserve(&w->frame, size);
    if (rc < 0)
        return fail_io(w, rc, "write", w->part);
    uint8_t *to = w->frame.data;
    sl_index_pack_head(&totals, to);
    to += SL_INDEX_HEAD;
    for (size_t i = 0; i < edge->chunk_count; i++, to += SL_INDEX_ENTRY)
        sl_index_pack_entry(&edge->chunks[i], to);
    sl_index_pack_tail(sl_sum(w->frame.data, size - SL_INDEX_TAIL), totals.chunks, to);
    struct iovec piece = {w->frame.data, size};
    if (sl_write_at(edge->fd, &piece, 1, edge->file_bytes) < 0)
        return fail_io(w, SLUICE_IO, "write", w->part);
    return SLUICE_OK;
}

int sl_stream_close(sl_stream_writer *w)
{
    sl_edge *edge = w->edge;
    if (w->failed || w->done)
        return w->failed;
    if (w->waiting_count)
        return fail(w, SLUICE_FAILED, "%s: the record at position %" PRIu64 " never came, and %zu wait behind it",
                    w->part, w->next, w->waiting_count);
    int rc = sl_ids_settle(&w->ids);
    if (rc == SLUICE_BAD_RECORD)
        return fail_twice(w, rc);
    if (rc < 0)
        return fail_io(w, rc, "compare the ids of", w->part);
    if (edge->open->size)
        sl_sealer_hand(w);
    if (sl_sealer_end(w) < 0)
        return fail_sealer(w);
    rc = write_index(w);
    if (rc < 0)
        return rc;
    if (fsync(edge->fd) < 0)
        return fail_io(w, SLUICE_IO, "write", w->part);
    if (rename(w->part, edge->path) < 0)
        return fail_io(w, SLUICE_IO, "rename to its final name", w->part);
    /* The file is whole and has its name; a folder that cannot be synced (some network file systems) takes nothing
     * back. */
    sl_sync_folder(edge->path);
    sl_journal_remove(&w->journal);
    w->done = true;
    pthread_mutex_lock(&edge->lock);
    edge->file_bytes += sl_index_size(edge->chunk_count);
    pthread_mutex_unlock(&edge->lock);
    sl_edge_close(edge);
    return SLUICE_OK;
}

void sl_stream_abandon(sl_stream_writer *w)
{
    if (w->done)
        return;
    w->done = true;
    sl_sealer_end(w);
    sl_journal_remove(&w->journal);
    if (w->edge) {
        unlink(w->part);
        sl_edge_cancel(w->edge);
    }
}

void sl_stream_leave(sl_stream_writer *w)
{
    if (w->done)
        return;
    w->done = true;
    sl_sealer_end(w);
    sl_journal_leave(&w->journal);
    if (w->edge)
        sl_edge_cancel(w->edge);
}

sl_edge *sl_writer_edge(sl_stream_writer *w)
{
    return w->edge;
}

void sl_stream_cancel(sl_stream_writer *w)
{
    sl_edge_cancel(w->edge);
}

void sl_stream_writer_free(sl_stream_writer *w)
{
    if (!w)
        return;
    sl_stream_abandon(w);
    sl_edge_release(w->edge);
    ZSTD_freeCCtx(w->context);
    sl_buffer_free(&w->record);
    sl_buffer_free(&w->frame);
    sl_buffer_free(&w->placed);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    sl_ids_free(&w->ids);
    free(w->heap);
    free(w->part);
    free(w);
}

const char *sl_stream_writer_error(const sl_stream_writer *w)
{
    return w->error;
}

uint64_t sl_stream_written(sl_stream_writer *w)
{
    pthread_mutex_lock(&w->edge->lock);
    const uint64_t records = w->edge->records;
    pthread_mutex_unlock(&w->edge->lock);
    return records;
}

uint64_t sl_stream_bytes(sl_stream_writer *w, bool compressed)
{
    pthread_mutex_lock(&w->edge->lock);
    const uint64_t bytes = compressed ? w->edge->file_bytes : w->edge->raw_bytes;
    pthread_mutex_unlock(&w->edge->lock);
    return bytes;
}
