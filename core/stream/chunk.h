/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Chunks between memory and file: blocks of encoded records, compressing, loading, and the check of the index. */
#ifndef SL_CHUNK_H
#define SL_CHUNK_H

#include <stdatomic.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "core/stream/format.h"

/* The records of one chunk, encoded, end to end. Never moves; counted by those who read it. Its bytes below `size`
 * never change; while it is open, its writer adds behind them and publishes size and records under the edge's lock. */
typedef struct sl_block {
    atomic_uint references;
    uint64_t sequence, first; /* of the chunk; position of the first record */
    uint32_t records;
    size_t size, capacity;
    uint8_t data[];
} sl_block;

/* With one reference. NULL when out of memory. */
sl_block *sl_block_new(size_t capacity);
sl_block *sl_block_share(sl_block *);
void sl_block_release(sl_block *);

/* Compresses a block into `frame` and describes it; offset and sums are set. SLUICE_NO_MEMORY, SLUICE_FAILED. */
int sl_chunk_seal(ZSTD_CCtx *, const sl_block *, uint64_t offset, sl_buffer *frame, sl_chunk *);

/* What reading chunks needs. Starts as {0}; any number of chunks. */
typedef struct sl_loader {
    ZSTD_DCtx *context;
    sl_buffer frame;
} sl_loader;
void sl_loader_free(sl_loader *);

/* Reads and checks the frame of a chunk whose header is known. *block comes in as one to use again (its only reference)
 * or NULL, and goes out with the records. SLUICE_CORRUPT with *why, SLUICE_IO (errno), SLUICE_NO_MEMORY. */
int sl_chunk_load(sl_loader *, int fd, const sl_chunk *, sl_block **block, const char **why);

/* Folds what the index will say of a chunk into a running sum: start from 0, in order. */
uint64_t sl_index_fold(uint64_t fold, const sl_chunk *);
/* Reads and checks the whole index at `offset`, which must end the file of `size` bytes. *fold = that of its entries.
 * SLUICE_CORRUPT with *why, SLUICE_IO (errno). */
int sl_index_check(int fd, uint64_t offset, uint64_t size, sl_totals *, uint64_t *fold, const char **why);

#endif
