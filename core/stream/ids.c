/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/stream/ids.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/base/file.h"

enum {
    FIRST_SLOTS = 1024,
    MOST = 49152, /* three quarters of 65,536 slots */
    TEXT_MOST = 64 << 10,
    FAN = 16,        /* runs of one length before they are merged */
    PIECE = 1024,    /* ids that a merge reads or writes at once */
    EQUAL_HASHES = 8 /* different ids of one hash that a merge looks back on */
};

/* ---- the ids themselves */

static int open_once(sl_ids *ids, int *file)
{
    if (*file > 0)
        return SLUICE_OK;
    const int fd = sl_temporary_file(ids->beside);
    *file = fd + 1;
    return fd < 0 ? SLUICE_IO : SLUICE_OK;
}

static int write_to(int file, void *bytes, size_t size, uint64_t offset)
{
    struct iovec piece = {bytes, size};
    return sl_write_at(file - 1, &piece, 1, offset) < 0 ? SLUICE_IO : SLUICE_OK;
}

static int read_from(int file, void *bytes, size_t size, uint64_t offset)
{
    return sl_read_at(file - 1, bytes, size, offset) == (ssize_t)size ? SLUICE_OK : SLUICE_IO;
}

static int add_text(sl_ids *ids, const char *id, uint32_t size, uint64_t *at)
{
    int rc = SLUICE_OK;
    if (ids->text.size > 0 && ids->text.size + size > TEXT_MOST) {
        rc = open_once(ids, &ids->text_file);
        if (rc >= 0)
            rc = write_to(ids->text_file, ids->text.data, ids->text.size, ids->text_written);
        if (rc >= 0) {
            ids->text_written += ids->text.size;
            ids->text.size = 0;
        }
    }
    *at = ids->text_written + ids->text.size + 1;
    if (rc >= 0)
        rc = sl_buffer_reserve(&ids->text, sizeof size + size);
    if (rc >= 0)
        rc = sl_buffer_append(&ids->text, &size, sizeof size);
    return rc >= 0 ? sl_buffer_append(&ids->text, id, size) : rc;
}

/* Into ids->twice. */
static int read_text(sl_ids *ids, uint64_t at)
{
    uint32_t size = 0;
    const uint64_t place = at - 1;
    const bool written = place < ids->text_written;
    const uint8_t *text = written ? NULL : ids->text.data + (place - ids->text_written);
    int rc = SLUICE_OK;
    if (written)
        rc = read_from(ids->text_file, &size, sizeof size, place);
    else
        memcpy(&size, text, sizeof size);
    free(ids->twice);
    ids->twice = rc >= 0 ? malloc((size_t)size + 1) : NULL;
    if (ids->twice == NULL)
        return rc < 0 ? rc : SLUICE_NO_MEMORY;
    if (written)
        rc = read_from(ids->text_file, ids->twice, size, place + sizeof size);
    else
        memcpy(ids->twice, text + sizeof size, size);
    ids->twice[size] = '\0';
    return rc;
}

/* SLUICE_BAD_RECORD when the id at `at` is this one: equal hashes alone say nothing. */
static int compare(sl_ids *ids, uint64_t at, const char *id)
{
    const int rc = read_text(ids, at);
    return rc >= 0 && strcmp(ids->twice, id) == 0 ? SLUICE_BAD_RECORD : rc;
}

static int same_ids(sl_ids *ids, uint64_t a, uint64_t b)
{
    int rc = read_text(ids, a);
    char *id = ids->twice;
    ids->twice = NULL;
    if (rc >= 0)
        rc = compare(ids, b, id);
    free(id);
    return rc;
}

/* ---- the table: by the upper bits of the hash, so that it lies nearly sorted */

static sl_id *slot_of(const sl_ids *ids, uint64_t hash)
{
    return &ids->slots[(hash >> 32) * ids->capacity >> 32];
}

static sl_id *next_slot(const sl_ids *ids, sl_id *slot)
{
    return ++slot < ids->slots + ids->capacity ? slot : ids->slots;
}

static int grow(sl_ids *ids)
{
    sl_id *old = ids->slots;
    const size_t count = ids->capacity, capacity = count > 0 ? 2 * count : FIRST_SLOTS;
    sl_id *slots = calloc(capacity, sizeof *slots);
    if (!slots)
        return SLUICE_NO_MEMORY;
    ids->slots = slots;
    ids->capacity = capacity;
    for (size_t i = 0; i < count; i++) {
        sl_id *slot = slot_of(ids, old[i].hash);
        while (old[i].at && slot->at)
            slot = next_slot(ids, slot);
        if (old[i].at)
            *slot = old[i];
    }
    free(old);
    return SLUICE_OK;
}

/* ---- runs */

static int add_run(sl_ids *ids, sl_run run)
{
    if (ids->run_count == ids->run_capacity) {
        const size_t capacity = ids->run_capacity + 2 * FAN;
        sl_run *more = realloc(ids->runs, capacity * sizeof *more);
        if (!more)
            return SLUICE_NO_MEMORY;
        ids->runs = more;
        ids->run_capacity = capacity;
    }
    ids->runs[ids->run_count++] = run;
    return SLUICE_OK;
}

/* Where a merge stands in a run. */
typedef struct cursor {
    uint64_t offset, left; /* not read yet: bytes from the file's start, ids */
    size_t at, count;      /* in the piece that was */
    sl_id piece[PIECE];
} cursor;

/* The id at the cursor; NULL at its end. */
static int peek(const sl_ids *ids, cursor *c, const sl_id **out)
{
    int rc = SLUICE_OK;
    if (c->at == c->count) {
        c->count = c->left < PIECE ? (size_t)c->left : PIECE;
        c->at = 0;
        rc = c->count > 0 ? read_from(ids->run_file, c->piece, c->count * sizeof *c->piece, c->offset) : SLUICE_OK;
        c->offset += c->count * sizeof *c->piece;
        c->left -= c->count;
    }
    *out = c->at < c->count ? &c->piece[c->at] : NULL;
    return rc;
}

static int smallest(const sl_ids *ids, cursor *cursors, size_t count, sl_id *out)
{
    cursor *from = NULL;
    const sl_id *least = NULL, *next;
    for (size_t i = 0; i < count; i++) {
        const int rc = peek(ids, &cursors[i], &next);
        if (rc < 0)
            return rc;
        if (next && (!least || next->hash < least->hash)) {
            least = next;
            from = &cursors[i];
        }
    }
    if (!from)
        return SLUICE_END;
    *out = *least;
    from->at++;
    return SLUICE_OK;
}

/* Walks through the last `count` runs in the order of their hashes; writes them as one run unless `out` is NULL. */
static int merge(sl_ids *ids, size_t count, sl_run *out)
{
    cursor *cursors = malloc(count * sizeof *cursors);
    sl_id id, *piece = malloc(PIECE * sizeof *piece);
    uint64_t hash = 0, equal[EQUAL_HASHES];
    size_t equals = 0, filled = 0;
    int rc = cursors && piece ? SLUICE_OK : SLUICE_NO_MEMORY;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        const sl_run *run = &ids->runs[ids->run_count - count + i];
        cursors[i].offset = run->offset;
        cursors[i].left = run->count;
        cursors[i].at = cursors[i].count = 0;
    }
    while (rc >= 0 && (rc = smallest(ids, cursors, count, &id)) == SLUICE_OK) {
        if (id.hash != hash)
            equals = 0;
        hash = id.hash;
        for (size_t i = 0; rc >= 0 && i < equals && i < EQUAL_HASHES; i++)
            rc = same_ids(ids, id.at, equal[i]);
        equal[equals++ % EQUAL_HASHES] = id.at;
        if (!out)
            continue;
        piece[filled++] = id;
        out->count++;
        if (filled == PIECE && rc >= 0) {
            rc = write_to(ids->run_file, piece, filled * sizeof *piece, ids->runs_end);
            ids->runs_end += filled * sizeof *piece;
            filled = 0;
        }
    }
    if (rc >= 0 && filled > 0)
        rc = write_to(ids->run_file, piece, filled * sizeof *piece, ids->runs_end);
    ids->runs_end += filled * sizeof *piece;
    free(piece);
    free(cursors);
    return rc < 0 ? rc : SLUICE_OK;
}

/* The table goes into the file, and sixteen runs of a length become one. */
static int write_table(sl_ids *ids)
{
    sl_run run = {.offset = ids->runs_end, .count = ids->count};
    size_t filled = 0;
    int rc = open_once(ids, &ids->run_file);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < ids->capacity; i++) { /* nearly sorted: few steps back */
        const sl_id id = ids->slots[i];
        size_t to = filled;
        if (!id.at)
            continue;
        for (; to > 0 && ids->slots[to - 1].hash > id.hash; to--)
            ids->slots[to] = ids->slots[to - 1];
        ids->slots[to] = id;
        filled++;
    }
    rc = write_to(ids->run_file, ids->slots, filled * sizeof *ids->slots, ids->runs_end);
    ids->runs_end += filled * sizeof *ids->slots;
    memset(ids->slots, 0, ids->capacity * sizeof *ids->slots);
    ids->count = 0;
    if (rc >= 0)
        rc = add_run(ids, run);
    while (rc >= 0 && ids->run_count >= FAN && ids->runs[ids->run_count - FAN].level == run.level) {
        run = (sl_run){.offset = ids->runs_end, .level = run.level + 1};
        rc = merge(ids, FAN, &run);
        ids->run_count -= FAN;
        ids->runs[ids->run_count++] = run;
    }
    return rc;
}

int sl_ids_add(sl_ids *ids, const char *id)
{
    const size_t size = strlen(id), most = ids->most > 0 ? ids->most : MOST;
    uint64_t at;
    int rc = SLUICE_OK;
    if (ids->capacity == 0 && getrandom(&ids->seed, sizeof ids->seed, 0) != sizeof ids->seed)
        return SLUICE_IO;
    if (ids->count >= most)
        rc = write_table(ids);
    if (rc >= 0 && ids->count >= ids->capacity / 4 * 3)
        rc = grow(ids);
    if (rc < 0)
        return rc;
    const uint64_t hash = XXH3_64bits_withSeed(id, size, ids->seed);
    sl_id *slot = slot_of(ids, hash);
    for (; slot->at && rc >= 0; slot = next_slot(ids, slot))
        if (slot->hash == hash)
            rc = compare(ids, slot->at, id);
    if (rc >= 0)
        rc = add_text(ids, id, (uint32_t)size, &at);
    if (rc < 0)
        return rc;
    *slot = (sl_id){hash, at};
    ids->count++;
    return SLUICE_OK;
}

int sl_ids_settle(sl_ids *ids)
{
    if (ids->run_count == 0) /* the table is compared as it grows */
        return SLUICE_OK;
    const int rc = ids->count > 0 ? write_table(ids) : SLUICE_OK;
    return rc < 0 ? rc : merge(ids, ids->run_count, NULL);
}

void sl_ids_free(sl_ids *ids)
{
    if (ids->text_file > 0)
        close(ids->text_file - 1);
    if (ids->run_file > 0)
        close(ids->run_file - 1);
    sl_buffer_free(&ids->text);
    free(ids->slots);
    free(ids->runs);
    free(ids->twice);
    *ids = (sl_ids){0};
}
