/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of one new token a sequence over its pages, bf16 on tensor cores. What takes time is reading keys and
 * values, so they are read once for all heads of a group, and a sequence's keys are cut into parts of a fixed length
 * that blocks take side by side (Dao et al. 2023, "Flash-Decoding"); a second kernel joins the parts in order.
 *
 * Within a block the warps take pages in turn, each with buffers of its own, so they wait for their own copies alone.
 */
#include "attend.cuh"

namespace
{

/* Asks for a page's keys and values of one head. from, to: of the keys; zeros from position `end` of the page on. */
template <int D>
KDEV void load_page(attend_bf16 *to, const attend_bf16 *from, const attend_keys &keys, int end, uint32_t head_dim,
                    int lane)
{
    typedef attend_lanes<D, 32> lanes;
    const int column = lane % (D / 8) * 8;
    if (lane >= lanes::WORKING)
        return;
#pragma unroll
    for (int n = 0; n < (KN_PAGE + lanes::PASS - 1) / lanes::PASS; n++) {
        const int r = lane / (D / 8) + n * lanes::PASS;
        if (KN_PAGE % lanes::PASS != 0 && r >= KN_PAGE)
            break;
        const bool in = r < end && (uint32_t)column < head_dim;
        const attend_bf16 *row = in ? from + (size_t)r * keys.stride + column : from;
        cp_async16(to + r * attend_pitch<D>() + column, row, in);
        cp_async16(to + (KN_PAGE + r) * attend_pitch<D>() + column, in ? row + keys.values : from, in);
    }
}

/* D: head_dim rounded up. A block takes one part of one sequence and up to 16 heads of a group. */
template <int D, int WARPS>
__global__ void __launch_bounds__(WARPS * 32)
    attend_part_kernel(attend_bf16 *out, float *partial, float *figures, const attend_bf16 *qkv, attend_keys keys,
                       const attend_step *step, uint32_t bundles, attend_shape a)
{
    constexpr int PITCH = D + 8, STAGE = 2 * KN_PAGE * PITCH, SUMS = D + 8;
    SHARED(float, greatest, [WARPS][16]);
    SHARED(float, total, [WARPS][16]);
    DYN_SHARED(attend_bf16, memory);
    attend_bf16 *const tile_q = memory;
    const int thread = (int)threadIdx.x, lane = thread & 31, warp = thread >> 5;
    attend_bf16 *const stages = memory + 16 * PITCH + warp * 2 * STAGE;
    const uint32_t bundle = blockIdx.x % bundles, kv = blockIdx.x / bundles % a.kv_heads;
    const uint32_t index = blockIdx.x / bundles / a.kv_heads;
    if (index >= step->parts) /* the whole block */
        return;
    const attend_part part = attend_list_of<attend_part>(step, step->at_parts)[index];
    const attend_rows s = attend_list_of<attend_rows>(step, step->at_rows)[part.rows];
    const uint32_t h0 = bundle * 16, heads = a.group - h0 < 16 ? a.group - h0 : 16, head = kv * a.group + h0;
    const int at = (int)s.before, low = attend_first_key(a, at);
    const int first = low > (int)part.part * ATTEND_SPLIT ? low : (int)part.part * ATTEND_SPLIT;
    const int end = at + 1 < ((int)part.part + 1) * ATTEND_SPLIT ? at + 1 : ((int)part.part + 1) * ATTEND_SPLIT;
    const attend_bf16 *const k = (const attend_bf16 *)keys.first + kv * a.head_dim;
    const uint32_t *const pages = attend_list_of<uint32_t>(step, step->at_pages) + s.prefix;

    attend_load_queries<16, D, WARPS * 32>(tile_q, qkv + head * a.head_dim, a.width, s, heads, 0, heads, a.head_dim,
                                           thread);
    cp_async_commit();
    /* The pages of a warp are those whose number is its own modulo WARPS: fixed, whatever the window hides. */
    int page = first / KN_PAGE;
    page += (warp - page % WARPS + WARPS) % WARPS;
    if (page * KN_PAGE < end)
        load_page<D>(stages, k + (size_t)pages[page] * KN_PAGE * keys.stride, keys, end - page * KN_PAGE, a.head_dim,
                     lane);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads(); /* the queries are there */

    attend_softmax<1> r;
    r.max[0][0] = r.max[0][1] = -INFINITY;
    r.sum[0][0] = r.sum[0][1] = 0;
    float o[1][D / 8][4];
    attend_zero(o);
    for (int round = 0; page * KN_PAGE < end; page += WARPS, round++) {
        const attend_bf16 *const now = stages + (round & 1) * STAGE;
        const int next = page + WARPS;
        if (next * KN_PAGE < end)
            load_page<D>(stages + (~round & 1) * STAGE, k + (size_t)pages[next] * KN_PAGE * keys.stride, keys,
                         end - next * KN_PAGE, a.head_dim, lane);
        cp_async_commit();
        cp_async_wait<1>();
        __syncwarp(); /* this round's page is there */
        float p[1][2][4];
        attend_zero(p);
        attend_product<1, 16, D>(p, tile_q, now, lane);
        attend_change_all(p, a);
        if (page * KN_PAGE < first || (page + 1) * KN_PAGE > end)
            attend_hide<1, 16>(
                p, [&](int) { return at; }, page * KN_PAGE, a, lane);
        attend_soften<1, 16, D>(p, o, r, a.factor);
        attend_gather<1, 16, D, D>(o, p, now + KN_PAGE * PITCH, lane);
        __syncwarp(); /* it is no longer read */
    }
    cp_async_wait<0>();

    /* The warps' sums, joined in order. */
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = (lane >> 2) + 8 * i;
        const float sum = attend_quad_sum(r.sum[0][i]);
        if ((lane & 3) == 0) {
            greatest[warp][row] = r.max[0][i] * a.factor;
            total[warp][row] = sum;
        }
        float *to = reinterpret_cast<float *>(stages) + row * SUMS + (lane & 3) * 2;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            to[n * 8] = o[0][n][2 * i];
            to[n * 8 + 1] = o[0][n][2 * i + 1];
        }
    }
    __syncthreads(); /* all warps are done */
    const bool whole = part.slot == ATTEND_WHOLE;
    const float *const sums = reinterpret_cast<const float *>(memory + 16 * PITCH);
    for (uint32_t n = (uint32_t)thread; n < heads * D; n += WARPS * 32) {
        const uint32_t row = n / D, e = n % D;
        if (e >= a.head_dim)
            continue;
        float max = greatest[0][row], sum = 0, value = 0;
#pragma unroll
        for (int w = 1; w < WARPS; w++)
            max = fmaxf(max, greatest[w][row]);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const float keep = ex2_approx(greatest[w][row] - max);
            sum = fmaf(keep, total[w][row], sum);
            value = fmaf(keep, sums[w * STAGE + row * SUMS + e], value);
        }
        if (whole) {
            out[((size_t)s.row * a.heads + head + row) * a.head_dim + e] = __float2bfloat16(value / sum);
            continue;
        }
        const size_t to = (size_t)part.slot * a.heads + head + row;
        partial[to * a.head_dim + e] = value;
        if (e == 0) {
            figures[2 * to] = max;
            figures[2 * to + 1] = sum;
        }
    }
}

template <int D, int WARPS>
void launch(kn_cuda *c, attend_bf16 *out, float *partial, float *figures, const attend_bf16 *qkv,
            const attend_keys &keys, const attend_planned &v, const attend_shape &a)
{
    constexpr size_t shared = (size_t)(16 + WARPS * 4 * KN_PAGE) * (D + 8) * sizeof(attend_bf16);
    const uint32_t bundles = (a.group + 15) / 16;
    KN_LAUNCH(c, (attend_part_kernel<D, WARPS>), dim3(attend_grid(v.host->parts) * a.kv_heads * bundles),
              dim3(WARPS * 32), shared, out, partial, figures, qkv, keys, v.device, bundles, a);
}

/* --- the parts, joined --- */

enum { JOIN_THREADS = 128 };

KDEV void put(float *to, float x)
{
    *to = x;
}

KDEV void put(attend_bf16 *to, float x)
{
    *to = __float2bfloat16(x);
}

/* A warp takes one head of one query. */
template <class E>
__global__ void __launch_bounds__(JOIN_THREADS)
    join_parts(E *out, const float *partial, const float *figures, const attend_step *step, attend_shape a)
{
    constexpr int EACH = ATTEND_HEAD_DIM_MOST / 32;
    const uint32_t index = blockIdx.x * (JOIN_THREADS / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (index >= step->joints * a.heads)
        return;
    const attend_joint j = attend_list_of<attend_joint>(step, step->at_joints)[index / a.heads];
    const uint32_t h = index % a.heads;
    float max = -INFINITY, sum = 0, value[EACH] = {};
    for (uint32_t p = 0; p < j.count; p++)
        max = fmaxf(max, figures[2 * ((size_t)(j.slot + p) * a.heads + h)]);
    for (uint32_t p = 0; p < j.count; p++) {
        const size_t at = (size_t)(j.slot + p) * a.heads + h;
        const float keep = ex2_approx(figures[2 * at] - max);
        sum = fmaf(keep, figures[2 * at + 1], sum);
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (i * 32 + lane < a.head_dim)
                value[i] = fmaf(keep, partial[at * a.head_dim + i * 32 + lane], value[i]);
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
        if (i * 32 + lane < a.head_dim)
            put(out + ((size_t)j.row * a.heads + h) * a.head_dim + i * 32 + lane, value[i] / sum);
}

} // namespace

void attend_bf16_parts(kn_cuda *c, attend_bf16 *out, float *partial, float *figures, const attend_bf16 *qkv,
                       const attend_keys &keys, const attend_planned &v, const attend_shape &a)
{
    if (c->status != KN_OK || v.host->parts == 0)
        return;
    if (a.head_dim <= 16)
        launch<16, 4>(c, out, partial, figures, qkv, keys, v, a);
    else if (a.head_dim <= 32)
        launch<32, 4>(c, out, partial, figures, qkv, keys, v, a);
    else if (a.head_dim <= 64)
        launch<64, 4>(c, out, partial, figures, qkv, keys, v, a);
    else if (a.head_dim <= 80)
        launch<80, 4>(c, out, partial, figures, qkv, keys, v, a);
    else if (a.head_dim <= 96)
        launch<96, 4>(c, out, partial, figures, qkv, keys, v, a);
    else if (a.head_dim <= 128)
        launch<128, 4>(c, out, partial, figures, qkv, keys, v, a);
    else if (a.head_dim <= 192)
        launch<192, 2>(c, out, partial, figures, qkv, keys, v, a);
    else
        launch<256, 2>(c, out, partial, figures, qkv, keys, v, a);
}

template <class E>
void attend_join(kn_cuda *c, E *out, const float *partial, const float *figures, const attend_planned &v,
                 const attend_shape &a)
{
    const uint32_t each = JOIN_THREADS / 32;
    if (c->status == KN_OK && v.host->joints > 0)
        KN_LAUNCH(c, join_parts<E>, dim3((attend_grid(v.host->joints) * a.heads + each - 1) / each), dim3(JOIN_THREADS),
                  0, out, partial, figures, v.device, a);
}

template void attend_join<float>(kn_cuda *, float *, const float *, const float *, const attend_planned &,
                                 const attend_shape &);
template void attend_join<attend_bf16>(kn_cuda *, attend_bf16 *, const float *, const float *, const attend_planned &,
                                       const attend_shape &);
