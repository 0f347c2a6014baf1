/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/stream/format.h"

#include <string.h>
#include <xxhash.h>

enum { VERSION = 1, SL_MOST_NAME = 4096 };

static const char header_mark[8] = "SLUICE\r\n", chunk_mark[4] = "SLCH", index_mark[4] = "SLIX", tail_mark[4] = "SLND";

static uint8_t *put(uint8_t *to, uint64_t value, size_t width)
{
    for (size_t i = 0; i < width; i++, value >>= 8)
        *to++ = (uint8_t)value;
    return to;
}

static uint64_t get(const uint8_t *from, size_t width)
{
    uint64_t value = 0;
    for (size_t i = width; i > 0; i--)
        value = value << 8 | from[i - 1];
    return value;
}

uint64_t sl_sum(const void *bytes, size_t size)
{
    return XXH3_64bits(bytes, size);
}

/* Header: head 8, mark 8, version 2, zero 2, key 16, lengths 2 + 2, schema, stage, sum 8. */
enum { HEADER_FIXED = SL_FRAME_HEAD + 32 };

int sl_header_pack(const sl_stream_info *info, sl_buffer *out)
{
    const size_t schema = strlen(info->schema), stage = strlen(info->stage), size = HEADER_FIXED + schema + stage + 8;
    if (schema > SL_MOST_NAME || stage > SL_MOST_NAME)
        return SLUICE_BAD_PARAMETER;
    int rc = sl_buffer_reserve(out, size);
    if (rc < 0)
        return rc;
    uint8_t *start = out->data + out->size, *to = start;
    to = put(to, SL_MAGIC_HEADER, 4);
    to = put(to, size - SL_FRAME_HEAD, 4);
    memcpy(to, header_mark, sizeof header_mark);
    to = put(to + sizeof header_mark, VERSION, 4);
    memcpy(to, info->key, sizeof info->key);
    to = put(to + sizeof info->key, schema, 2);
    to = put(to, stage, 2);
    memcpy(to, info->schema, schema);
    memcpy(to + schema, info->stage, stage);
    to += schema + stage;
    put(to, sl_sum(start, (size_t)(to - start)), 8);
    out->size += size;
    return SLUICE_OK;
}

size_t sl_header_size(const uint8_t *bytes)
{
    const uint64_t size = get(bytes + 4, 4) + SL_FRAME_HEAD;
    const bool plausible = size >= HEADER_FIXED + 8 && size <= HEADER_FIXED + 2 * SL_MOST_NAME + 8;
    return get(bytes, 4) == SL_MAGIC_HEADER && plausible ? size : 0;
}

const char *sl_header_unpack(const uint8_t *bytes, size_t size, sl_arena *arena, sl_stream_info *info)
{
    if (sl_header_size(bytes) != size || memcmp(bytes + 8, header_mark, sizeof header_mark) != 0)
        return "it is no stream of sluice";
    if (get(bytes + size - 8, 8) != sl_sum(bytes, size - 8))
        return "the sum of its header does not fit";
    if (get(bytes + 16, 4) != VERSION)
        return "its format is of another version";
    const size_t schema = get(bytes + 36, 2), stage = get(bytes + 38, 2);
    if (HEADER_FIXED + schema + stage + 8 != size)
        return "the lengths in its header do not fit";
    char *texts = sl_arena_alloc(arena, schema + stage + 2);
    if (!texts)
        return "out of memory";
    memcpy(texts, bytes + HEADER_FIXED, schema);
    memcpy(texts + schema + 1, bytes + HEADER_FIXED + schema, stage);
    info->schema = texts;
    info->stage = texts + schema + 1;
    memcpy(info->key, bytes + 20, sizeof info->key);
    return NULL;
}

/* Chunk: head 8, mark 4, version 4, sequence 8, first 8, records 4, raw size 4, frame size 4, zero 4, frame sum 8,
 * sum 8. */
void sl_chunk_pack(const sl_chunk *chunk, uint8_t out[SL_CHUNK_HEAD])
{
    uint8_t *to = put(out, SL_MAGIC_CHUNK, 4);
    to = put(to, SL_CHUNK_HEAD - SL_FRAME_HEAD, 4);
    memcpy(to, chunk_mark, sizeof chunk_mark);
    to = put(to + sizeof chunk_mark, VERSION, 4);
    to = put(to, chunk->sequence, 8);
    to = put(to, chunk->first, 8);
    to = put(to, chunk->records, 4);
    to = put(to, chunk->raw_size, 4);
    to = put(to, chunk->frame_size, 4);
    to = put(to, 0, 4);
    to = put(to, chunk->frame_sum, 8);
    put(to, sl_sum(out, SL_CHUNK_HEAD - 8), 8);
}

const char *sl_chunk_unpack(const uint8_t bytes[SL_CHUNK_HEAD], sl_chunk *chunk)
{
    if (get(bytes, 4) != SL_MAGIC_CHUNK || get(bytes + 4, 4) != SL_CHUNK_HEAD - SL_FRAME_HEAD ||
        memcmp(bytes + 8, chunk_mark, sizeof chunk_mark) != 0)
        return "no chunk begins here";
    if (get(bytes + SL_CHUNK_HEAD - 8, 8) != sl_sum(bytes, SL_CHUNK_HEAD - 8))
        return "the sum of the chunk's header does not fit";
    if (get(bytes + 12, 4) != VERSION || get(bytes + 44, 4) != 0)
        return "the chunk is of another version";
    chunk->sequence = get(bytes + 16, 8);
    chunk->first = get(bytes + 24, 8);
    chunk->records = (uint32_t)get(bytes + 32, 4);
    chunk->raw_size = (uint32_t)get(bytes + 36, 4);
    chunk->frame_size = (uint32_t)get(bytes + 40, 4);
    chunk->frame_sum = get(bytes + 48, 8);
    if (chunk->records == 0 || chunk->raw_size < chunk->records || chunk->raw_size > SL_RECORD_MOST ||
        (chunk->raw_size > SL_CHUNK_MOST && chunk->records != 1) ||
        chunk->frame_size > SL_RECORD_MOST + SL_RECORD_MOST / 64)
        return "the chunk's sizes are beyond what is admitted";
    return NULL;
}

/* Index: head 8, mark 4, version 4, chunks 8, records 8, raw bytes 8; entries; sum 8, size of the frame 4, mark 4. */
size_t sl_index_size(uint64_t chunks)
{
    const uint64_t most = (UINT32_MAX - SL_INDEX_HEAD - SL_INDEX_TAIL) / SL_INDEX_ENTRY;
    return chunks <= most ? SL_INDEX_HEAD + SL_INDEX_ENTRY * chunks + SL_INDEX_TAIL : 0;
}

void sl_index_pack_head(const sl_totals *totals, uint8_t out[SL_INDEX_HEAD])
{
    uint8_t *to = put(out, SL_MAGIC_INDEX, 4);
    to = put(to, sl_index_size(totals->chunks) - SL_FRAME_HEAD, 4);
    memcpy(to, index_mark, sizeof index_mark);
    to = put(to + sizeof index_mark, VERSION, 4);
    to = put(to, totals->chunks, 8);
    to = put(to, totals->records, 8);
    put(to, totals->raw_bytes, 8);
}

void sl_index_pack_entry(const sl_chunk *chunk, uint8_t out[SL_INDEX_ENTRY])
{
    uint8_t *to = put(out, chunk->offset, 8);
    to = put(to, chunk->first, 8);
    to = put(to, chunk->records, 4);
    put(to, chunk->raw_size, 4);
}

void sl_index_pack_tail(uint64_t sum, uint64_t chunks, uint8_t out[SL_INDEX_TAIL])
{
    uint8_t *to = put(out, sum, 8);
    to = put(to, sl_index_size(chunks), 4);
    memcpy(to, tail_mark, sizeof tail_mark);
}

const char *sl_index_unpack_head(const uint8_t bytes[SL_INDEX_HEAD], sl_totals *totals)
{
    if (get(bytes, 4) != SL_MAGIC_INDEX || memcmp(bytes + 8, index_mark, sizeof index_mark) != 0)
        return "no index begins here";
    if (get(bytes + 12, 4) != VERSION)
        return "the index is of another version";
    totals->chunks = get(bytes + 16, 8);
    totals->records = get(bytes + 24, 8);
    totals->raw_bytes = get(bytes + 32, 8);
    const size_t size = sl_index_size(totals->chunks);
    return size && get(bytes + 4, 4) == size - SL_FRAME_HEAD ? NULL : "the index's lengths do not fit";
}
