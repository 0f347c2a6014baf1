/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The lines of a file, plain or compressed by zstd, in the order and the part a stage asks for.
 *
 * A compressed file is unpacked into a scratch file first. Without a part or a shuffle the file is read straight
 * through; with one, 16 bytes a line are held. Blank lines are no lines, but count in line numbers. One thread.
 */
#ifndef JSONL_LINES_H
#define JSONL_LINES_H

#include <sluice/host.h>

typedef struct lines lines;

/* Which lines. skip and limit (0 = all) in the file's order first; then the part-th of `parts` equal contiguous parts;
 * then the order, shuffled by `seed` when asked. */
typedef struct lines_choice {
    uint64_t skip, limit;
    uint64_t part, parts; /* parts = 1: all of them */
    bool shuffle;
    uint64_t seed;
} lines_choice;

/* Errors are reported through the host. */
int lines_open(const sluice_host *, const char *path, const lines_choice *, lines **);
/* The next line without its end, borrowed until the next call, and its number from 1. SLUICE_END after the last. */
int lines_next(lines *, const char **text, size_t *length, uint64_t *number);
/* How many will come; 0 while that is not known. */
uint64_t lines_count(const lines *);
void lines_close(lines *);

#endif
