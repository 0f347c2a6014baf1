/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The ids of a stream, to notice one that comes twice, in bounded memory whatever their number.
 *
 * The last of them stand in a table of 64-bit hashes (a mebibyte): one that comes again while its first stands there is
 * noticed at once. A full table is written to a temporary file as a sorted run; sixteen runs are merged into one, and
 * what comes twice in them shows; sl_ids_settle compares all the rest. The ids themselves lie in a second file, so that
 * equal hashes of different ids are told apart and a late find can be named. Both files have no name: they are gone
 * with the process. On disk: an id and 20 bytes for each, and 16 more each time that it is merged: above 786,432 ids
 * once, above 12.6 million twice.
 *
 * One thread at a time.
 */
#ifndef SL_IDS_H
#define SL_IDS_H

#include "core/base/buffer.h"

typedef struct sl_id {
    uint64_t hash, at; /* at: its place among the ids, plus 1; 0 = an empty slot */
} sl_id;

/* A sorted part of the second file. */
typedef struct sl_run {
    uint64_t offset, count; /* in bytes; in ids */
    int level;              /* how often its ids were merged */
} sl_run;

/* Starts as {0}, with what has an explanation set. */
typedef struct sl_ids {
    const char *beside; /* a path in the folder where the temporary files should lie; borrowed */
    size_t most;        /* ids in the table before it is written out; 0 = 49,152, SIZE_MAX = all stay in memory */
    sl_id *slots;
    size_t count, capacity;
    uint64_t seed;
    int text_file, run_file; /* a descriptor plus 1; 0 = not opened */
    sl_buffer text;          /* ids, a length and bytes each, that are not in the file yet */
    uint64_t text_written, runs_end;
    sl_run *runs; /* the most merged first */
    size_t run_count, run_capacity;
    char *twice;
} sl_ids;

/* SLUICE_BAD_RECORD when an id came twice: this one, or (a merge shows it) an earlier one; ids->twice names it.
 * SLUICE_IO with errno, SLUICE_NO_MEMORY. */
int sl_ids_add(sl_ids *, const char *id);
/* Compares all that has not been compared; the same results. Nothing can be added afterwards. */
int sl_ids_settle(sl_ids *);
void sl_ids_free(sl_ids *);

#endif
