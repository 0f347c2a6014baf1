/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal beside a growing stream: records that no chunk holds yet, so that readers of other processes and whoever
 * comes after a kill see them, and so that those which came too early wait on disk and not in memory.
 *
 * Two kinds of entry. A record that came in its order is PLACED: its position in the stream is known, and positions
 * stand in the file in their order. One that came too early WAITS, and is PLACED once more when its turn comes. Sealing
 * a chunk makes the placed entries stale; once nothing waits, the file is written anew from its start under another
 * salt, and what is left of the old entries has sums that no longer fit.
 */
#ifndef SL_JOURNAL_H
#define SL_JOURNAL_H

#include "core/base/buffer.h"

/* The writer's side. Errors: SLUICE_IO with errno. */
typedef struct sl_journal {
    int fd;
    char *path;
    uint64_t salt, end;
} sl_journal;

/* A fresh file; an old one is removed. `path` is copied. */
int sl_journal_create(sl_journal *, const char *path);
/* Appends to `entries` one for a record's bytes, with their sum (sl_sum), at position `ordinal`. SLUICE_NO_MEMORY. */
int sl_journal_pack(sl_buffer *entries, uint64_t ordinal, const void *bytes, size_t size, uint64_t sum);
/* Writes such entries, with one call of the system. */
int sl_journal_write(sl_journal *, sl_buffer *entries);
/* A record that waits as `number` of the input's order; *offset is where its entry lies. */
int sl_journal_wait(sl_journal *, uint64_t number, const void *bytes, size_t size, uint64_t sum, uint64_t *offset);
/* Reads a waiting entry's record into `out`; SLUICE_CORRUPT when it is not what was written. */
int sl_journal_read(const sl_journal *, uint64_t offset, sl_buffer *out, uint64_t *sum);
/* Nothing in it is wanted any more. */
int sl_journal_reset(sl_journal *);
/* Begins a second file to which the entries still wanted are written; `sl_journal_replace` puts it in the place of the
 * first. */
int sl_journal_begin(const sl_journal *, sl_journal *fresh);
int sl_journal_replace(sl_journal *, sl_journal *fresh);
/* Closes and removes it. */
void sl_journal_remove(sl_journal *);
/* Closes it and leaves the file. */
void sl_journal_leave(sl_journal *);

/* Opens what a dead writer left, for sl_journal_read; calls `each` for every entry that waited. `path` is borrowed, and
 * the descriptor is the caller's to close. SLUICE_END when there is no whole journal. */
int sl_journal_take(sl_journal *, const char *path, int (*each)(void *context, uint64_t number, uint64_t offset),
                    void *context);

/* The reader's side: looks on, from any process, while the writer writes. Starts as {.fd = -1, .path = …}. */
typedef struct sl_journal_reader {
    int fd;
    const char *path; /* borrowed */
    uint64_t salt, at;
} sl_journal_reader;

/* The record at position `ordinal`, when the journal holds it whole: SLUICE_OK. SLUICE_END when not (yet). Going back
 * to an earlier position wants sl_journal_reader_rewind. */
int sl_journal_next(sl_journal_reader *, uint64_t ordinal, sl_buffer *out);
void sl_journal_reader_rewind(sl_journal_reader *);
void sl_journal_reader_close(sl_journal_reader *);

#endif
