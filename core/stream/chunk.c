/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/stream/chunk.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "core/base/file.h"

enum { LEVEL = 3, SLICE = SL_INDEX_ENTRY * 1024 };

sl_block *sl_block_new(size_t capacity)
{
    sl_block *b = malloc(sizeof *b + capacity);
    if (!b)
        return NULL;
    atomic_init(&b->references, 1);
    b->sequence = b->first = 0;
    b->records = 0;
    b->size = 0;
    b->capacity = capacity;
    return b;
}

sl_block *sl_block_share(sl_block *b)
{
    atomic_fetch_add(&b->references, 1);
    return b;
}

void sl_block_release(sl_block *b)
{
    if (b && atomic_fetch_sub(&b->references, 1) == 1)
        free(b);
}

int sl_chunk_seal(ZSTD_CCtx *context, const sl_block *block, uint64_t offset, sl_buffer *frame, sl_chunk *chunk)
{
    frame->size = 0;
    int rc = sl_buffer_reserve(frame, ZSTD_compressBound(block->size));
    if (rc < 0)
        return rc;
    if (ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, LEVEL)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)))
        return SLUICE_FAILED;
    const size_t size = ZSTD_compress2(context, frame->data, frame->capacity, block->data, block->size);
    if (ZSTD_isError(size))
        return ZSTD_getErrorCode(size) == ZSTD_error_memory_allocation ? SLUICE_NO_MEMORY : SLUICE_FAILED;
    frame->size = size;
    *chunk = (sl_chunk){.offset = offset,
                        .sequence = block->sequence,
                        .first = block->first,
                        .records = block->records,
                        .raw_size = (uint32_t)block->size,
                        .frame_size = (uint32_t)size,
                        .frame_sum = sl_sum(frame->data, size)};
    return SLUICE_OK;
}

void sl_loader_free(sl_loader *loader)
{
    ZSTD_freeDCtx(loader->context);
    sl_buffer_free(&loader->frame);
    loader->context = NULL;
}

int sl_chunk_load(sl_loader *loader, int fd, const sl_chunk *chunk, sl_block **block, const char **why)
{
    if (!loader->context && !(loader->context = ZSTD_createDCtx()))
        return SLUICE_NO_MEMORY;
    loader->frame.size = 0;
    int rc = sl_buffer_reserve(&loader->frame, chunk->frame_size);
    if (rc < 0)
        return rc;
    const ssize_t got = sl_read_at(fd, loader->frame.data, chunk->frame_size, chunk->offset + SL_CHUNK_HEAD);
    if (got < 0)
        return SLUICE_IO;
    if ((size_t)got < chunk->frame_size) {
        *why = "the file is cut off inside it";
        return SLUICE_CORRUPT;
    }
    if (sl_sum(loader->frame.data, chunk->frame_size) != chunk->frame_sum) {
        *why = "its sum does not fit";
        return SLUICE_CORRUPT;
    }
    /* The sum says that the frame is the one written; what wrote it is not trusted. */
    if (ZSTD_getFrameContentSize(loader->frame.data, chunk->frame_size) != chunk->raw_size ||
        ZSTD_findFrameCompressedSize(loader->frame.data, chunk->frame_size) != chunk->frame_size) {
        *why = "its frame is not of the size that its header says";
        return SLUICE_CORRUPT;
    }
    sl_block *b = *block;
    if (b && b->capacity < chunk->raw_size) {
        sl_block_release(b);
        b = *block = NULL;
    }
    if (!b) {
        b = sl_block_new(chunk->raw_size > SL_CHUNK_MOST ? chunk->raw_size : SL_CHUNK_MOST);
        if (!b)
            return SLUICE_NO_MEMORY;
    }
    *block = b;
    const size_t size =
        ZSTD_decompressDCtx(loader->context, b->data, chunk->raw_size, loader->frame.data, chunk->frame_size);
    if (ZSTD_isError(size) || size != chunk->raw_size) {
        *why = "it does not decompress";
        return SLUICE_CORRUPT;
    }
    b->sequence = chunk->sequence;
    b->first = chunk->first;
    b->records = chunk->records;
    b->size = size;
    return SLUICE_OK;
}

static uint64_t fold_entry(uint64_t fold, const uint8_t entry[SL_INDEX_ENTRY])
{
    return XXH3_64bits_withSeed(entry, SL_INDEX_ENTRY, fold);
}

uint64_t sl_index_fold(uint64_t fold, const sl_chunk *chunk)
{
    uint8_t entry[SL_INDEX_ENTRY];
    sl_index_pack_entry(chunk, entry);
    return fold_entry(fold, entry);
}

static int damaged(const char **why, const char *text)
{
    *why = text;
    return SLUICE_CORRUPT;
}

static int check_entries(int fd, uint64_t offset, uint64_t count, XXH3_state_t *sum, uint64_t *fold, const char **why)
{
    uint8_t *slice = malloc(SLICE);
    int rc = slice ? SLUICE_OK : SLUICE_NO_MEMORY;
    *fold = 0;
    for (uint64_t left = count * SL_INDEX_ENTRY; left > 0 && rc == SLUICE_OK;) {
        const size_t size = left < SLICE ? left : SLICE;
        const ssize_t got = sl_read_at(fd, slice, size, offset);
        if (got < 0 || (size_t)got < size) {
            rc = got < 0 ? SLUICE_IO : damaged(why, "the index is cut off");
            break;
        }
        XXH3_64bits_update(sum, slice, size);
        for (size_t i = 0; i < size; i += SL_INDEX_ENTRY)
            *fold = fold_entry(*fold, slice + i);
        offset += size;
        left -= size;
    }
    free(slice);
    return rc;
}

int sl_index_check(int fd, uint64_t offset, uint64_t size, sl_totals *totals, uint64_t *fold, const char **why)
{
    uint8_t head[SL_INDEX_HEAD], tail[SL_INDEX_TAIL], expected[SL_INDEX_TAIL];
    ssize_t got = sl_read_at(fd, head, sizeof head, offset);
    if (got < 0)
        return SLUICE_IO;
    if (got < SL_INDEX_HEAD)
        return damaged(why, "the index is cut off");
    const char *wrong = sl_index_unpack_head(head, totals);
    if (wrong)
        return damaged(why, wrong);
    const uint64_t end = offset + sl_index_size(totals->chunks);
    if (end != size)
        return damaged(why, end > size ? "the index is cut off" : "something follows the index");
    XXH3_state_t *sum = XXH3_createState();
    if (!sum)
        return SLUICE_NO_MEMORY;
    XXH3_64bits_reset(sum);
    XXH3_64bits_update(sum, head, sizeof head);
    int rc = check_entries(fd, offset + SL_INDEX_HEAD, totals->chunks, sum, fold, why);
    if (rc == SLUICE_OK) {
        got = sl_read_at(fd, tail, sizeof tail, end - SL_INDEX_TAIL);
        sl_index_pack_tail(XXH3_64bits_digest(sum), totals->chunks, expected);
        if (got < 0)
            rc = SLUICE_IO;
        else if (got < SL_INDEX_TAIL || memcmp(tail, expected, sizeof tail) != 0)
            rc = damaged(why, "the sum of the index does not fit");
    }
    XXH3_freeState(sum);
    return rc;
}
