/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "core/stream/recover.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/file.h"
#include "core/stream/chunk.h"
#include "core/stream/ids.h"
#include "core/stream/journal.h"

typedef struct salvage {
    const char *path;
    int fd;
    const uint8_t *bytes; /* of the file, mapped; NULL when it is empty */
    size_t size;
    sl_arena *arena;
    sl_stream_info info;
    sl_stream_writer *writer;
    sl_loader loader;
    sl_block *block;
    sl_ids ids;
    uint64_t next; /* position after the last record that was found */
    uint64_t found;
    sl_salvage *out;
    char *error;
    size_t error_size;
} salvage;

static int fail(salvage *s, int code, const char *what)
{
    snprintf(s->error, s->error_size, "%s: %s", s->path, what);
    return code;
}

/* One whole record of the old stream. */
static int keep(salvage *s, const uint8_t *bytes, size_t size, size_t *used)
{
    sl_record *record;
    char why[256];
    int rc = sl_record_decode(bytes, size, &record, used, why, sizeof why);
    if (rc < 0)
        return rc;
    rc = sl_ids_add(&s->ids, sluice_record_id(sl_record_public(record)));
    if (rc == SLUICE_BAD_RECORD) {
        s->out->repeated++;
        rc = SLUICE_OK;
    } else if (rc == SLUICE_OK) {
        rc = sl_stream_append(s->writer, record, s->out->records);
        if (rc == SLUICE_OK)
            s->out->records++;
        else
            snprintf(s->error, s->error_size, "%s", sl_stream_writer_error(s->writer));
    } else {
        fail(s, rc, "the ids cannot be compared: no memory, or no temporary file");
    }
    sl_record_free(record);
    return rc;
}

/* Only what is wrong with the old stream is passed over; what is wrong with the new one ends the work. */
static bool ends_the_work(int rc)
{
    return rc == SLUICE_IO || rc == SLUICE_NO_MEMORY || rc == SLUICE_FAILED;
}

static int keep_block(salvage *s)
{
    size_t at = 0;
    uint64_t position = s->block->first;
    for (uint32_t i = 0; i < s->block->records && at < s->block->size; i++, position++) {
        size_t used = 0;
        const int rc = keep(s, s->block->data + at, s->block->size - at, &used);
        if (ends_the_work(rc))
            return rc;
        if (rc < 0 || used == 0)
            break; /* where the next begins is not known */
        if (position > s->next && s->found > 0)
            s->out->missing += position - s->next;
        s->next = position + 1;
        s->found++;
        at += used;
    }
    return SLUICE_OK;
}

/* The next place from `at` on where a chunk's header may begin. */
static size_t find_chunk(const salvage *s, size_t at)
{
    static const uint8_t mark[12] = {0x51, 0x2A, 0x4D, 0x18, SL_CHUNK_HEAD - 8, 0, 0, 0, 'S', 'L', 'C', 'H'};
    const uint8_t *found = at < s->size ? memmem(s->bytes + at, s->size - at, mark, sizeof mark) : NULL;
    return found ? (size_t)(found - s->bytes) : s->size;
}

/* All whole chunks, by their headers; behind damage the file is searched for the next. */
static int walk_chunks(salvage *s, size_t start)
{
    size_t at = start, whole = start;
    while ((at = find_chunk(s, at)) + SL_CHUNK_HEAD <= s->size) {
        sl_chunk chunk;
        const char *why = sl_chunk_unpack(s->bytes + at, &chunk);
        chunk.offset = at;
        int rc = why ? SLUICE_CORRUPT : sl_chunk_load(&s->loader, s->fd, &chunk, &s->block, &why);
        if (rc == SLUICE_OK) {
            rc = keep_block(s);
            if (rc < 0)
                return rc;
            s->out->lost_bytes += at - whole;
            at = whole = at + SL_CHUNK_HEAD + chunk.frame_size;
        } else if (rc == SLUICE_NO_MEMORY) {
            return fail(s, rc, "out of memory");
        } else {
            at++;
        }
    }
    sl_totals totals;
    uint64_t fold;
    const char *why;
    s->out->complete = s->out->lost_bytes == 0 &&
                       sl_index_check(s->fd, whole, s->size, &totals, &fold, &why) == SLUICE_OK &&
                       totals.records == s->out->records && s->out->repeated == 0;
    if (!s->out->complete)
        s->out->lost_bytes += s->size - whole;
    return SLUICE_OK;
}

/* Records that no chunk held yet when the writer died. */
static int walk_journal(salvage *s)
{
    const size_t length = strlen(s->path);
    if (length < 5 || strcmp(s->path + length - 5, ".part") != 0)
        return SLUICE_OK;
    char *path = malloc(length + sizeof ".journal");
    if (!path)
        return fail(s, SLUICE_NO_MEMORY, "out of memory");
    sprintf(path, "%.*s.journal", (int)(length - 5), s->path);
    sl_journal_reader journal = {.fd = -1, .path = path};
    sl_buffer bytes = {0};
    int rc = SLUICE_OK;
    while (!ends_the_work(rc) && sl_journal_next(&journal, s->next, &bytes) == SLUICE_OK) {
        size_t used;
        rc = keep(s, bytes.data, bytes.size, &used);
        s->next++;
        bytes.size = 0;
    }
    sl_journal_reader_close(&journal);
    sl_buffer_free(&bytes);
    free(path);
    return ends_the_work(rc) ? rc : SLUICE_OK;
}

/* Maps the file and reads the header; with a damaged one the chunks still say what they are. */
static int begin(salvage *s, size_t *start)
{
    s->fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const int64_t size = s->fd < 0 ? -1 : sl_fd_size(s->fd);
    if (size < 0)
        return fail(s, SLUICE_IO, strerror(errno));
    s->size = (size_t)size;
    if (s->size > 0) {
        void *map = mmap(NULL, s->size, PROT_READ, MAP_PRIVATE, s->fd, 0);
        if (map == MAP_FAILED)
            return fail(s, SLUICE_IO, strerror(errno));
        s->bytes = map;
    }
    *start = s->size >= SL_FRAME_HEAD ? sl_header_size(s->bytes) : 0;
    if (*start > s->size || *start == 0 || sl_header_unpack(s->bytes, *start, s->arena, &s->info)) {
        *start = 0;
        s->info.stage = "recovered";
    }
    s->info.schema = SL_STREAM_SCHEMA;
    memset(s->info.key, 0, sizeof s->info.key);
    return SLUICE_OK;
}

int sl_stream_recover(const char *path, const char *to, sl_salvage *out, char *error, size_t error_size)
{
    salvage s = {.path = path,
                 .ids = {.beside = to, .most = SIZE_MAX},
                 .fd = -1,
                 .out = out,
                 .error = error,
                 .error_size = error_size};
    size_t start = 0;
    *out = (sl_salvage){0};
    if (access(to, F_OK) == 0) {
        snprintf(error, error_size, "%s is there already; name another file, or remove it", to);
        return SLUICE_BAD_PARAMETER;
    }
    s.arena = sl_arena_new();
    int rc = s.arena ? begin(&s, &start) : fail(&s, SLUICE_NO_MEMORY, "out of memory");
    if (rc == SLUICE_OK)
        rc = sl_stream_create(to, &s.info, &s.writer, error, error_size);
    if (rc == SLUICE_OK)
        rc = walk_chunks(&s, start);
    if (rc == SLUICE_OK)
        rc = walk_journal(&s);
    if (rc == SLUICE_OK && out->records == 0 && !out->complete)
        rc = fail(&s, SLUICE_CORRUPT, "not one whole record is in it");
    if (rc == SLUICE_OK && (rc = sl_stream_close(s.writer)) < 0)
        snprintf(error, error_size, "%s", sl_stream_writer_error(s.writer));
    sl_stream_writer_free(s.writer); /* abandons what was not closed */
    sl_block_release(s.block);
    sl_loader_free(&s.loader);
    sl_ids_free(&s.ids);
    if (s.bytes)
        munmap((void *)s.bytes, s.size);
    if (s.fd >= 0)
        close(s.fd);
    sl_arena_free(s.arena);
    return rc;
}
