/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Streams as files: finished, cut off, or growing under the hands of another process. */
#include "config.h"
#include "core/stream/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/file.h"

static const char part_ending[] = ".part";

static bool ends_in_part(const char *path)
{
    const size_t size = strlen(path), ending = sizeof part_ending - 1;
    return size > ending && strcmp(path + size - ending, part_ending) == 0;
}

/* The writer locks the file as long as it has it open. */
static bool writer_lives(int fd)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static void wait_a_little(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 20 * 1000 * 1000}, NULL);
}

/* Opens the one of PATH and PATH.part that is wanted; file->path and ->growing say which. */
static int choose(sl_stream_file *f, const char *path)
{
    const size_t size = strlen(path) + sizeof part_ending;
    f->path = malloc(size);
    if (!f->path)
        return SLUICE_NO_MEMORY;
    if (f->follow && !ends_in_part(path)) {
        snprintf(f->path, size, "%s%s", path, part_ending);
        f->fd = open(f->path, O_RDONLY | O_CLOEXEC);
        if (f->fd >= 0 && !writer_lives(f->fd)) { /* left behind: a finished stream is of more use */
            int finished = open(path, O_RDONLY | O_CLOEXEC);
            if (finished >= 0) {
                close(f->fd);
                f->fd = finished;
                snprintf(f->path, size, "%s", path);
            }
        }
    }
    if (f->fd < 0) {
        snprintf(f->path, size, "%s", path);
        f->fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    f->growing = ends_in_part(f->path);
    return f->fd < 0 ? SLUICE_IO : SLUICE_OK;
}

static const char *read_header(sl_stream_file *f)
{
    uint8_t head[SL_FRAME_HEAD];
    const char *why = "it is no stream of sluice";
    ssize_t got = sl_read_at(f->fd, head, sizeof head, 0);
    /* A writer that has just begun writes it at once. */
    for (int i = 0; i < 50 && f->follow && got >= 0 && got < SL_FRAME_HEAD && writer_lives(f->fd); i++) {
        wait_a_little();
        got = sl_read_at(f->fd, head, sizeof head, 0);
    }
    if (got < 0)
        return strerror(errno);
    const size_t size = got == SL_FRAME_HEAD ? sl_header_size(head) : 0;
    if (size == 0)
        return why;
    uint8_t *bytes = malloc(size);
    if (!bytes)
        return "out of memory";
    got = sl_read_at(f->fd, bytes, size, 0);
    why = got < 0 ? strerror(errno) : (size_t)got < size ? "it is cut off in its header" : NULL;
    if (!why)
        why = sl_header_unpack(bytes, size, f->arena, &f->info);
    free(bytes);
    f->start = f->offset = size;
    return why;
}

/* The number of records by the index, when there is a whole one at the end. */
static int64_t read_count(const sl_stream_file *f)
{
    uint8_t tail[SL_INDEX_TAIL];
    const int64_t size = sl_fd_size(f->fd);
    if (size < SL_INDEX_TAIL ||
        sl_read_at(f->fd, tail, sizeof tail, (uint64_t)size - sizeof tail) != (ssize_t)sizeof tail)
        return -1;
    const uint64_t index =
        (uint64_t)tail[8] | (uint64_t)tail[9] << 8 | (uint64_t)tail[10] << 16 | (uint64_t)tail[11] << 24;
    const char *why;
    uint64_t fold;
    sl_totals totals;
    if (index + f->start > (uint64_t)size ||
        sl_index_check(f->fd, (uint64_t)size - index, (uint64_t)size, &totals, &fold, &why) < 0)
        return -1;
    return (int64_t)totals.records;
}

static int name_journal(sl_stream_file *f)
{
    const size_t stem = strlen(f->path) - (sizeof part_ending - 1);
    f->journal_path = malloc(stem + sizeof ".journal");
    if (!f->journal_path)
        return SLUICE_NO_MEMORY;
    sprintf(f->journal_path, "%.*s.journal", (int)stem, f->path);
    f->journal.path = f->journal_path;
    return SLUICE_OK;
}

int sl_stream_open(const char *path, bool follow, sl_stream_reader **out, char *error, size_t error_size)
{
    *out = NULL;
    sl_stream_reader *r = calloc(1, sizeof *r);
    if (!r) {
        snprintf(error, error_size, "%s: out of memory", path);
        return SLUICE_NO_MEMORY;
    }
    sl_stream_file *f = &r->file;
    *f = (sl_stream_file){.fd = -1, .follow = follow, .count = -1, .journal.fd = -1};
    int rc = choose(f, path);
    f->arena = sl_arena_new();
    if (rc == SLUICE_OK && !f->arena)
        rc = SLUICE_NO_MEMORY;
    const char *why = rc == SLUICE_OK ? read_header(f) : NULL;
    if (rc == SLUICE_OK && f->growing)
        rc = name_journal(f);
    if (rc == SLUICE_OK && !why) {
        if (!f->growing)
            f->count = read_count(f);
        *out = r;
        return SLUICE_OK;
    }
    if (why) {
        rc = SLUICE_BAD_FILE;
        snprintf(error, error_size, "%s: %s; give a stream that a run wrote", f->path, why);
    } else if (rc == SLUICE_IO) {
        rc = SLUICE_BAD_FILE;
        snprintf(error, error_size, "cannot open %s: %s", path, strerror(errno));
    } else {
        snprintf(error, error_size, "%s: out of memory", path);
    }
    sl_stream_reader_close(r);
    return rc;
}

static int read_failed(sl_stream_reader *r)
{
    return sl_reader_fail(r, SLUICE_IO, "%s: cannot read at byte %" PRIu64 ": %s; check the disk", r->file.path,
                          r->file.offset, strerror(errno));
}

static int damaged(sl_stream_reader *r, const char *why)
{
    return sl_reader_fail(r, SLUICE_CORRUPT,
                          "%s: damaged at byte %" PRIu64 ", after chunk %" PRIu64 ": %s; the %" PRIu64
                          " records before it are whole; delete the file and run again",
                          r->file.path, r->file.offset, r->sequence, why, r->ordinal);
}

/* The index stands where the next chunk would: the stream is complete if the index says what was read. */
static int at_index(sl_stream_reader *r, uint64_t size)
{
    sl_stream_file *f = &r->file;
    const char *why = "";
    uint64_t fold;
    sl_totals totals;
    int rc = sl_index_check(f->fd, f->offset, size, &totals, &fold, &why);
    if (rc == SLUICE_IO)
        return read_failed(r);
    if (rc == SLUICE_CORRUPT)
        return damaged(r, why);
    if (rc < 0)
        return sl_reader_fail(r, rc, "%s: out of memory for the index", f->path);
    if (totals.chunks != r->sequence || totals.records != r->ordinal || fold != f->fold)
        return damaged(r, "the index does not fit the chunks");
    return SLUICE_END;
}

/* What stands whole at file->offset: SLUICE_OK with a block, SLUICE_END at the index, an error, or *short_of_it when
 * the file ends before it does. */
static int take_frame(sl_stream_reader *r, bool *short_of_it)
{
    sl_stream_file *f = &r->file;
    uint8_t head[SL_CHUNK_HEAD];
    sl_chunk chunk;
    const int64_t size = sl_fd_size(f->fd);
    const ssize_t got = size < 0 ? -1 : sl_read_at(f->fd, head, sizeof head, f->offset);
    if (got < 0)
        return read_failed(r);
    sl_totals totals;
    if (got >= SL_INDEX_HEAD && !sl_index_unpack_head(head, &totals)) {
        *short_of_it = f->growing && f->offset + sl_index_size(totals.chunks) > (uint64_t)size;
        return *short_of_it ? SLUICE_OK : at_index(r, (uint64_t)size);
    }
    *short_of_it = got < SL_CHUNK_HEAD;
    if (*short_of_it)
        return SLUICE_OK;
    const char *why = sl_chunk_unpack(head, &chunk);
    if (why)
        return damaged(r, why);
    chunk.offset = f->offset;
    const uint64_t end = chunk.offset + SL_CHUNK_HEAD + chunk.frame_size;
    *short_of_it = end > (uint64_t)size; /* before anything of that size is allocated */
    if (*short_of_it)
        return SLUICE_OK;
    const bool in_order =
        chunk.sequence == r->sequence && chunk.first <= r->ordinal && (chunk.first == r->ordinal || f->growing);
    if (!in_order)
        return damaged(r, "a chunk is missing or out of order");
    int rc = sl_reader_load(r, f->fd, f->path, &chunk);
    if (rc == SLUICE_OK) {
        f->offset = end;
        f->fold = sl_index_fold(f->fold, &chunk);
    }
    return rc;
}

int sl_file_advance(sl_stream_reader *r, bool *single)
{
    sl_stream_file *f = &r->file;
    for (;;) {
        /* Asked before looking, so that what a writer wrote before it went is seen. */
        const bool more = f->growing && f->follow && writer_lives(f->fd);
        bool short_of_it = false;
        int rc = take_frame(r, &short_of_it);
        if (rc != SLUICE_OK || !short_of_it)
            return rc;
        if (f->growing) {
            rc = sl_journal_next(&f->journal, r->ordinal, &f->record);
            *single = rc == SLUICE_OK;
            if (rc == SLUICE_OK)
                return rc;
            if (rc == SLUICE_IO)
                return read_failed(r);
            if (rc < 0)
                return sl_reader_fail(r, rc, "%s: out of memory", f->path);
        }
        if (!more)
            return sl_reader_fail(r, SLUICE_CORRUPT,
                                  "%s: %s after record %" PRIu64 " (byte %" PRIu64
                                  "): what comes before is whole, run again "
                                  "to make the rest",
                                  f->path, f->growing ? "the stream was not finished: it ends" : "the file is cut off",
                                  r->ordinal, f->offset);
        wait_a_little();
    }
}

void sl_file_rewind(sl_stream_file *f)
{
    f->offset = f->start;
    f->fold = 0;
    sl_journal_reader_rewind(&f->journal);
}

void sl_file_close(sl_stream_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    sl_journal_reader_close(&f->journal);
    sl_buffer_free(&f->record);
    sl_arena_free(f->arena);
    free(f->journal_path);
    free(f->path);
}
