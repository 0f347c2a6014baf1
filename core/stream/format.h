/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a stream's frames (doc/stream-format.md): packing, and unpacking with every field checked.
 *
 * Integers are little-endian. A sum is XXH3 of 64 bits with seed 0.
 */
#ifndef SL_FORMAT_H
#define SL_FORMAT_H

#include "core/base/buffer.h"
#include "core/stream/stream.h"

enum {
    SL_FRAME_HEAD = 8, /* magic number and size, of every skippable frame */
    SL_CHUNK_HEAD = 64,
    SL_INDEX_HEAD = 40,
    SL_INDEX_ENTRY = 24,
    SL_INDEX_TAIL = 16,
    SL_CHUNK_LEAST = 256 << 10, /* bytes of records: a chunk may end here … */
    SL_CHUNK_MOST = 1 << 20,    /* … and ends here, unless it is one record */
    SL_RECORD_MOST = 256 << 20
};

#define SL_MAGIC_HEADER 0x184D2A50u
#define SL_MAGIC_CHUNK  0x184D2A51u
#define SL_MAGIC_INDEX  0x184D2A52u

/* One chunk: where it lies and what it holds. */
typedef struct sl_chunk {
    uint64_t offset;   /* of its header in the file */
    uint64_t sequence; /* from 0 */
    uint64_t first;    /* position of its first record in the stream */
    uint32_t records;
    uint32_t raw_size;   /* of the records, in bytes */
    uint32_t frame_size; /* of the zstd frame that follows the header */
    uint64_t frame_sum;
} sl_chunk;

/* What the index says of the whole. */
typedef struct sl_totals {
    uint64_t chunks, records, raw_bytes;
} sl_totals;

uint64_t sl_sum(const void *, size_t size);

int sl_header_pack(const sl_stream_info *, sl_buffer *);
/* The frame's size by its first SL_FRAME_HEAD bytes, some thousand at most; 0 when it is no stream's header. */
size_t sl_header_size(const uint8_t *bytes);
/* A whole header. Strings are copied into the arena. NULL, or what is wrong. */
const char *sl_header_unpack(const uint8_t *bytes, size_t size, sl_arena *, sl_stream_info *);

void sl_chunk_pack(const sl_chunk *, uint8_t out[SL_CHUNK_HEAD]);
/* NULL, or what is wrong. chunk->offset is not set. */
const char *sl_chunk_unpack(const uint8_t bytes[SL_CHUNK_HEAD], sl_chunk *);

/* An index's first bytes, one entry, and its last bytes (whose sum is over all that precedes them). */
void sl_index_pack_head(const sl_totals *, uint8_t out[SL_INDEX_HEAD]);
void sl_index_pack_entry(const sl_chunk *, uint8_t out[SL_INDEX_ENTRY]);
void sl_index_pack_tail(uint64_t sum, uint64_t chunks, uint8_t out[SL_INDEX_TAIL]);
const char *sl_index_unpack_head(const uint8_t bytes[SL_INDEX_HEAD], sl_totals *);
/* Bytes of an index of so many chunks; 0 when there cannot be so many. */
size_t sl_index_size(uint64_t chunks);

#endif
