/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What attention's files share: how a call is described to the kernels, and the plan of its work.
 *
 * Tiles of queries. The query heads of one key head stand together in a tile: its rows are pairs (query, head of the
 * group), `query · group + head` counted from the first query of a sequence. Keys and values are then read once for
 * all heads of the group, and a tile is full even where queries are few.
 *
 * Keys are counted by their absolute position in the sequence, and key tiles start at multiples of their length, so a
 * row's sums do not depend on the tile that it lies in, nor on whether its keys lie in packed rows or in pages.
 */
#ifndef KERNELS_CUDA_ATTENTION_CUH
#define KERNELS_CUDA_ATTENTION_CUH

#include "cuda.h"
#include "launch.cuh"

/* The most that kernels count in 32 bits. */
enum { ATTEND_MOST = 1 << 30 };
/* Head sizes above this are refused with KN_UNSUPPORTED. */
enum { ATTEND_HEAD_DIM_MOST = 256 };
/* Keys of one part of a cached sequence that answers a single query. A constant: the sums of a row must not depend on
 * the other rows of the call. */
enum { ATTEND_SPLIT = 256 };

struct kn_cache {
    size_t layers, pages;
    kn_attention shape;
    size_t page_bytes;
    void *data;               /* [layers][pages][KN_PAGE][2][kv_heads][head_dim] */
    uint32_t *arrived;        /* [pages][heads]: attend_partial */
    struct attend_step *step; /* what the last call planned, in host memory: it is asked again in every layer */
    size_t step_room;
};

/* kn_attention as kernels want it. Softmax runs in powers of two: p = exp2(factor · score - …). */
struct attend_shape {
    uint32_t heads, kv_heads, group, head_dim;
    uint32_t width;        /* elements of a row of qkv */
    int32_t window;        /* INT32_MAX = none */
    float scale, cap;      /* of kn_attention */
    float factor;          /* scale · log2 e; 1 where the score was changed already */
    float cap_in, cap_out; /* score = cap_out · tanh(cap_in · q·k); cap_out 0 = no cap */
    uint32_t changed;      /* the score is changed before the softmax: a cap, or a scale that is not positive */
};

/* Consecutive queries of one sequence. Packed: key j lies in row prefix + j of qkv for j < before, else in row
 * row + j - before. Paged: in page pages[prefix + j / KN_PAGE]. */
struct attend_rows {
    uint32_t row, count;
    uint32_t before; /* keys before the first query */
    uint32_t prefix;
};

/* Where keys are: those of key head 0 at position 0, elements between positions, elements from keys to values. */
struct attend_keys {
    const void *first;
    const uint32_t *pages; /* NULL = packed rows */
    uint32_t stride, values;
};

/* A tile of queries: attend_rows[rows], from row `first` of its count · group rows. */
struct attend_tile {
    uint32_t rows, first;
};

/* A block of keys for the gradients of keys and values: packed rows [row, row + count) of one segment, seen by
 * attend_rows[viewers[viewer … viewer_end)]; the first of them is the segment itself. */
struct attend_block {
    uint32_t row, count;
    uint32_t viewer, viewer_end;
};

/* One query over a part of its keys: [part · ATTEND_SPLIT, …) of attend_rows[rows]. `slot` is where its partial result
 * goes, or ATTEND_WHOLE when it is the only part; those of a query have slots side by side. `alone`: how many of the
 * query's parts no run takes. */
enum : uint32_t { ATTEND_WHOLE = UINT32_MAX };
struct attend_part {
    uint32_t rows, part, slot, alone;
};
/* Parts [first, first + count) of the list, which lie in the same pages: a block takes them together. */
struct attend_run {
    uint32_t first, count;
};
/* Where parts go, and how they come together: the block that is the last of a query's parts to count itself joins them,
 * in order. */
struct attend_partial {
    float *values;  /* [slots, heads, head_dim] */
    float *figures; /* [slots, heads, 2]: greatest score in powers of two, sum */
    uint32_t
        *arrived; /* counts by the page that the query's own key lies in, which is nobody else's; 0 between calls */
};

/* A row whose key and value are brought to their place in the cache: page · KN_PAGE + place in the page. */
struct attend_written {
    uint32_t row, place, position;
};

/* --- attention_plan.cu: what is done where; everything lies on the device --- */

bool attend_shape_ok(const kn_attention *);
bool attend_segments_ok(const kn_segment *, size_t segments, size_t T);
/* Refuses (KN_UNSUPPORTED) what the kernels cannot count. */
attend_shape attend_shape_of(kn_cuda *, const kn_attention *, size_t T);

struct attend_queries {
    const attend_rows *rows;
    const attend_tile *tile; /* longest first */
    uint32_t tiles;
};
attend_queries attend_plan_segments(kn_cuda *, const kn_segment *, size_t segments, const attend_shape *,
                                    uint32_t tile_rows);
struct attend_viewed {
    const attend_rows *rows;
    const uint32_t *viewers;
    const attend_block *block; /* longest first */
    uint32_t blocks;
};
/* Refuses (KN_BAD_ARGUMENT) a prefix that does not lie within one earlier segment. */
attend_viewed attend_plan_viewed(kn_cuda *, const kn_segment *, size_t segments, const attend_shape *,
                                 uint32_t block_keys);

/* attention_step.cu: what one call for cached pages does, as one piece of memory, the same on the host and on the
 * device: this, and behind it the lists, each at its number of words from here. Its size is a power of two, and kernels
 * take counts from here and grids of at least as many blocks, so that a decoding step asks the same as the one before
 * although each sequence is longer. */
struct attend_step {
    uint32_t size;         /* bytes, all in all */
    uint32_t sequences;    /* attend_rows of all entries */
    uint32_t pages;        /* of all entries, end to end */
    uint32_t written;      /* attend_written of what the parts do not write */
    uint32_t tiles;        /* attend_tile of the entries with several queries, longest first */
    uint32_t parts, slots; /* of the entries with one; behind these parts lie those that the runs take */
    uint32_t runs;
    uint32_t at_rows, at_pages, at_written, at_tiles, at_parts, at_runs;
};
/* A list of a step, for kernels; the same for the host, which must not look into the device's. */
template <class T> KDEV const T *attend_list_of(const attend_step *step, uint32_t at)
{
    return reinterpret_cast<const T *>(reinterpret_cast<const uint32_t *>(step) + at);
}
template <class T> static inline const T *attend_list_at(const attend_step *step, uint32_t at)
{
    return reinterpret_cast<const T *>(reinterpret_cast<const uint32_t *>(step) + at);
}

/* A step in both memories. */
struct attend_planned {
    const attend_step *host, *device;
};

/* Checks the entries (KN_BAD_ARGUMENT) and plans them, in cache->step. members: how many parts attend_bf16_parts takes
 * together, which then also brings each single query's key and value to their page; 0 where attend_plain_parts comes,
 * which does neither. */
int attend_plan_step(kn_cuda *, kn_cache *, const kn_cached_rows *, size_t sequences, size_t T, const attend_shape *,
                     uint32_t tile_rows, uint32_t members);
/* The least power of two that is not below n. */
static inline uint32_t attend_grid(uint32_t n)
{
    uint32_t grid = 1;
    while (grid < n)
        grid *= 2;
    return grid;
}

/* --- the kernels ---
 *
 * On tensor cores, bf16 with a head_dim that is a multiple of 8 (attention_forward.cu, attention_backward.cu,
 * attention_decode.cu); the plain ones take every head_dim and both types (attention_plain*.cu). */

uint32_t attend_tile_rows(uint32_t head_dim);
void attend_bf16_tiles(kn_cuda *, __nv_bfloat16 *out, float *lse, const __nv_bfloat16 *qkv, const attend_keys &,
                       const attend_queries &, const attend_shape &);
void attend_bf16_backward(kn_cuda *, __nv_bfloat16 *dqkv, const __nv_bfloat16 *dout, const __nv_bfloat16 *qkv,
                          const float *lse, const float *dots, const attend_keys &, const kn_segment *, size_t segments,
                          const attend_shape &);
uint32_t attend_bf16_members(const attend_shape &);
/* Parts of single queries, which are turned where the tables are not NULL. */
void attend_bf16_parts(kn_cuda *, __nv_bfloat16 *out, const attend_partial &, const __nv_bfloat16 *qkv,
                       const attend_keys &, const kn_rotary &, const attend_planned &, const attend_shape &);

uint32_t attend_plain_tile_rows(uint32_t head_dim);
template <class E>
void attend_plain_tiles(kn_cuda *, E *out, float *lse, const E *qkv, const attend_keys &, const attend_queries &,
                        const attend_shape &);
template <class E>
void attend_plain_parts(kn_cuda *, E *out, const attend_partial &, const E *qkv, const attend_keys &,
                        const attend_planned &, const attend_shape &);
/* dots[n] = Σ dout·out over rows of head_dim. */
template <class E> void attend_dots(kn_cuda *, float *dots, const E *dout, const E *out, size_t n, uint32_t head_dim);
template <class E>
void attend_plain_backward(kn_cuda *, E *dqkv, const E *dout, const E *qkv, const float *lse, const float *dots,
                           const attend_keys &, const kn_segment *, size_t segments, const attend_shape &);

/* attention_cache.cu */
kn_cache *attend_cache_new(kn_device *, kn_dtype, size_t layers, size_t pages, const kn_attention *);
void attend_cache_free(kn_device *, kn_cache *);
int attend_cache_copy_page(kn_device *, kn_cache *, uint32_t to, uint32_t from, size_t count);
/* Keys and values of rows of qkv to their places in a layer of the cache. Where the tables are not NULL keys are turned
 * on the way, and queries in their rows. */
template <class E>
void attend_cache_write(kn_cuda *, E *layer, E *qkv, const kn_rotary &, const attend_planned &, const attend_shape &);

/*
 * What the kernels on tensor cores take: rows of a tile and what they walk over, registers (the least and the most over
 * sm_80 to sm_120, nvcc 13.0), KiB of dynamic shared memory (with up to 2 more: 99 at most, for an sm_86, sm_89 or
 * sm_120 has no more).
 *
 *  size   forward                     dq                          dk, dv
 *    16   128 x 64  127-167    12    128 x 64  206-211    21    128 x 64  224-255    21
 *    32   128 x 64      167    20    128 x 64  218-255    35    128 x 32  179-190    28
 *    64   128 x 64  207-219    36    128 x 32  167-206    50    128 x 32  253-255    50
 *    80   128 x 64  214-233    44    128 x 32  203-217    60     64 x 64  202-225    55
 *    96   128 x 64      255    52    128 x 32  219-235    72     64 x 64  236-253    65
 *   128   128 x 64      255    68     64 x 64  167-179    85     64 x 48  243-255    72
 *   192    64 x 64  181-223    75     64 x 32  167-168    88     64 x 32  178-210    88
 *   256    64 x 48  231-255    83     64 x 16  166-230    91     64 x 16  195-208    91
 *
 * Spilled: up to 16 bytes in the forward of 128; all others nothing.
 */

#endif
