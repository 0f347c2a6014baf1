/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows fetched and rows added by number: embedding, its gradient, scatter_add. What adds takes the rows of one number
 * together: the host, which has the numbers, sorts them (stably, so their order stays), and a thread adds its columns
 * of all rows of a number one after the other. So a sum is that of the plain loop over rows, to the bit, and no two
 * threads meet.
 */
#include "rows.cuh"

#include <stdlib.h>
#include <string.h>

enum { AHEAD = 8 }; /* rows whose loads are on their way at once */

/* --- fetching --- */

/* C: 16 bytes, or an element where rows are no multiple of that. */
template <class C>
__global__ void __launch_bounds__(256) embed_kernel(C *y, const C *table, const uint32_t *token, size_t T, size_t row)
{
    const size_t t = (size_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (t >= T)
        return;
    const C *from = table + (size_t)token[t] * row;
    C *to = y + t * row;
#pragma unroll 4
    for (size_t i = threadIdx.x; i < row; i += blockDim.x)
        to[i] = from[i];
}

template <class C>
static void ask_embed(kn_cuda *c, void *y, const void *table, const uint32_t *token, size_t T, size_t row)
{
    const row_shape s = row_shape_of(T, (row + 1) / 2);
    KN_LAUNCH(c, embed_kernel<C>, s.grid, s.block, 0, (C *)y, (const C *)table, token, T, row);
}

template <class E>
static int embed(kn_device *device, void *y, const void *table, const uint32_t *token, size_t T, size_t d)
{
    return row_op(device, false, [&](kn_cuda *c) {
        if (T == 0 || d == 0)
            return;
        const uint32_t *at = (const uint32_t *)kn_cuda_upload(c, token, T * sizeof(*token));
        if (at == NULL)
            return;
        if (d % wide<E>::N == 0 && row_aligned(16, y, table))
            ask_embed<uint4>(c, y, table, at, T, d / wide<E>::N);
        else
            ask_embed<E>(c, y, table, at, T, d);
    });
}

/* --- rows by their number --- */

/* Rows in groups of one number each: those of group g are order[start[g]] … order[start[g + 1] - 1], in rising order.
 * One array, for one upload: number[count], start[count + 1], order[rows]. */
typedef struct row_groups {
    uint32_t *all;
    size_t count, rows;
} row_groups;

static size_t groups_bytes(const row_groups *g)
{
    return (2 * g->count + 1 + g->rows) * sizeof(uint32_t);
}

/* Sorts by number, eleven bits at a time from the lowest, each time stably. Two arrays of n; returns the one with the
 * result. Numbers are the high halves. */
static uint64_t *sort_stably(uint64_t *a, uint64_t *b, size_t n, uint32_t most)
{
    enum { BITS = 11 };
    size_t place[1 << BITS];
    for (unsigned shift = 0; shift < 32 && most >> shift > 0; shift += BITS) {
        memset(place, 0, sizeof(place));
        for (size_t i = 0; i < n; i++)
            place[a[i] >> (32 + shift) & ((1 << BITS) - 1)]++;
        size_t sum = 0;
        for (size_t k = 0; k < (size_t)1 << BITS; k++) {
            const size_t here = place[k];
            place[k] = sum;
            sum += here;
        }
        for (size_t i = 0; i < n; i++)
            b[place[a[i] >> (32 + shift) & ((1 << BITS) - 1)]++] = a[i];
        uint64_t *swap = a;
        a = b;
        b = swap;
    }
    return a;
}

/* KN_OK, KN_NO_MEMORY, or KN_BAD_ARGUMENT where a number is not below `limit`. g->all is the caller's to free. */
static int group_rows(row_groups *g, const uint32_t *number, size_t n, size_t limit)
{
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++)
        most = number[i] > most ? number[i] : most;
    if (n > UINT32_MAX || (n > 0 && most >= limit))
        return KN_BAD_ARGUMENT;
    uint64_t *pair = (uint64_t *)malloc(2 * n * sizeof(*pair) + 1);
    *g = {(uint32_t *)malloc((3 * n + 1) * sizeof(uint32_t)), 0, n};
    if (pair == NULL || g->all == NULL) {
        free(pair);
        return KN_NO_MEMORY;
    }
    for (size_t i = 0; i < n; i++)
        pair[i] = (uint64_t)number[i] << 32 | i;
    const uint64_t *sorted = sort_stably(pair, pair + n, n, most);
    for (size_t i = 0; i < n; i++)
        g->count += i == 0 || sorted[i] >> 32 != sorted[i - 1] >> 32;
    uint32_t *start = g->all + g->count, *order = start + g->count + 1;
    for (size_t i = 0, at = 0; i < n; i++) {
        order[i] = (uint32_t)sorted[i];
        if (i == 0 || sorted[i] >> 32 != sorted[i - 1] >> 32) {
            g->all[at] = (uint32_t)(sorted[i] >> 32);
            start[at++] = (uint32_t)i;
        }
    }
    start[g->count] = (uint32_t)n;
    free(pair);
    return KN_OK;
}

/* A sum as the type that it is kept in has it after every row. */
KDEV float kept_as(float v, const float *)
{
    return v;
}

KDEV float kept_as(float v, const bf16 *)
{
    return __bfloat162float(__float2bfloat16(v));
}

/* to[number[g]] += from[row] over the rows of group g, in order; a row of threads takes one group. */
template <class To, class From, int N>
__global__ void __launch_bounds__(256)
    add_rows_kernel(To *to, const From *from, const uint32_t *number, const uint32_t *start, const uint32_t *order,
                    size_t groups, size_t d)
{
    const size_t g = (size_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (g >= groups)
        return;
    To *sum = to + (size_t)number[g] * d;
    const uint32_t begin = start[g], end = start[g + 1];
    for (size_t at = (size_t)threadIdx.x * N; at < d; at += (size_t)blockDim.x * N) {
        float s[N];
        row_load(s, sum + at);
        uint32_t i = begin;
        for (; i + AHEAD <= end; i += AHEAD) {
            float x[AHEAD][N];
#pragma unroll
            for (int k = 0; k < AHEAD; k++)
                row_load(x[k], from + (size_t)order[i + k] * d + at);
#pragma unroll
            for (int k = 0; k < AHEAD; k++)
#pragma unroll
                for (int j = 0; j < N; j++)
                    s[j] = kept_as(s[j] + x[k][j], to);
        }
        for (; i < end; i++) {
            float x[N];
            row_load(x, from + (size_t)order[i] * d + at);
#pragma unroll
            for (int j = 0; j < N; j++)
                s[j] = kept_as(s[j] + x[j], to);
        }
        row_store(sum + at, s);
    }
}

template <class To, class From, int N>
static void ask_add_rows(kn_cuda *c, To *to, const From *from, const uint32_t *all, const row_groups *g, size_t d)
{
    const row_shape s = row_shape_of(g->count, (d + N - 1) / N);
    KN_LAUNCH(c, (add_rows_kernel<To, From, N>), s.grid, s.block, 0, to, from, all, all + g->count,
              all + 2 * g->count + 1, g->count, d);
}

template <class To, class From>
static int add_rows(kn_device *device, To *to, const From *from, const uint32_t *number, size_t n, size_t limit,
                    size_t d)
{
    row_groups g;
    int status = group_rows(&g, number, n, limit);
    if (status == KN_OK)
        status = row_op(device, false, [&](kn_cuda *c) {
            if (n == 0 || d == 0)
                return;
            const uint32_t *all = (const uint32_t *)kn_cuda_upload(c, g.all, groups_bytes(&g));
            if (all == NULL)
                return;
            constexpr int N = 16 / sizeof(To); /* what is read and written back sets the width */
            if (d % N == 0 && row_aligned(16, (const void *)to, (const void *)from))
                ask_add_rows<To, From, N>(c, to, from, all, &g, d);
            else
                ask_add_rows<To, From, 1>(c, to, from, all, &g, d);
        });
    if (status != KN_BAD_ARGUMENT)
        free(g.all);
    return status;
}

template <class E>
static int embed_backward(kn_device *device, float *dtable, const void *dy, const uint32_t *token, size_t T, size_t d,
                          size_t vocab)
{
    return add_rows(device, dtable, (const E *)dy, token, T, vocab, d);
}

template <class E>
static int scatter_add(kn_device *device, void *y, const void *x, const uint32_t *row, size_t S, size_t T, size_t d)
{
    return add_rows(device, (E *)y, (const E *)x, row, S, T, d);
}

template <class E> static void enter(kn_ops *ops)
{
    ops->embed = embed<E>;
    ops->embed_backward = embed_backward<E>;
    ops->scatter_add = scatter_add<E>;
}

void kn_cuda_embed_ops(kn_ops *f32, kn_ops *b16)
{
    enter<float>(f32);
    enter<bf16>(b16);
}
