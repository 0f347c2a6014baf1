/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of one new token a sequence over its pages, bf16 on tensor cores. What takes time is reading keys and
 * values, so they are read once for all heads of a group, and a sequence's keys are cut into parts of a fixed length
 * that blocks take side by side (Dao et al. 2023, "Flash-Decoding"); the last of them joins the parts in order. Where
 * several sequences have the same pages in a part, as the answers to one prompt have, a block takes them together and
 * reads the part once for all of them: their queries are further rows of the same products, so the bits are those of
 * each alone.
 *
 * Within a block the warps take pages in turn, each with buffers of its own, so they wait for their own copies alone.
 * Rotary embedding happens on the way from qkv; the new token's own key and value come from there too, and the block
 * that sees them brings them to their page.
 */
#include "attend_join.cuh"
#include "rows.cuh"

namespace
{

/* Asks for a page's keys and values of one head, the values behind the keys; from: of the keys; zeros from position
 * `end` of the page on. */
template <int D>
KDEV void load_page(attend_bf16 *to, const attend_bf16 *from, const attend_keys &keys, int end, uint32_t head_dim,
                    int lane)
{
#pragma unroll
    for (int v = 0; v < 2; v++)
        attend_load<KN_PAGE, D, 32>(to + v * KN_PAGE * attend_pitch<D>(), from, head_dim, lane,
                                    [&](int r) -> const attend_bf16 * {
                                        return r < end ? from + v * keys.values + (size_t)r * keys.stride : NULL;
                                    });
}

/* Eight elements of a head, from a multiple of eight on, as the embedding of a position turns them. */
KDEV uint4 load_turned(const attend_bf16 *head, uint32_t from, uint32_t head_dim, const float *cos, const float *sin,
                       uint32_t position)
{
    if (cos == NULL)
        return *reinterpret_cast<const uint4 *>(head + from);
    const uint32_t half = head_dim / 2;
    uint32_t word[4];
#pragma unroll
    for (int k = 0; k < 2; k++) { /* four of them lie in the same half of the head */
        const bool upper = from + 4 * k >= half;
        const uint32_t i = from + 4 * k - (upper ? half : 0);
        float a[4], b[4], c[4], s[4], turned[4];
        row_load(a, head + i);
        row_load(b, head + half + i);
        row_load(c, cos + (size_t)position * half + i);
        row_load(s, sin + (size_t)position * half + i);
#pragma unroll
        for (int n = 0; n < 4; n++) {
            float pair[2];
            row_turn(pair, a[n], b[n], c[n], s[n]);
            turned[n] = upper ? pair[1] : pair[0];
        }
        word[2 * k] = row_join(turned);
        word[2 * k + 1] = row_join(turned + 2);
    }
    return make_uint4(word[0], word[1], word[2], word[3]);
}

/* The new token to its place among a page's keys and values, by the lanes that asked for zeros there. */
template <int D> KDEV void lay_own(attend_bf16 *page, const uint4 *own, int place, int lane)
{
    typedef attend_lanes<D, 32> lanes;
    const int column = lane % (D / 8);
    if (lane < lanes::WORKING && lane / (D / 8) == place % lanes::PASS)
#pragma unroll
        for (int v = 0; v < 2; v++)
            *reinterpret_cast<uint4 *>(page + (v * KN_PAGE + place) * attend_pitch<D>() + column * 8) =
                own[v * (D / 8) + column];
}

/* The queries of a block: row r is head r % heads, of member r / heads. */
template <int ROWS, int D, int ALL>
KDEV void lay_members(attend_bf16 *tile, const attend_bf16 *from, const attend_part *member, const attend_rows *all,
                      uint32_t members, uint32_t heads, const attend_shape &a, const kn_rotary &rotary, int thread)
{
    for (int n = thread; n < ROWS * (D / 8); n += ALL) {
        const uint32_t r = (uint32_t)n / (D / 8), column = (uint32_t)n % (D / 8) * 8, m = r / heads;
        uint4 piece = make_uint4(0, 0, 0, 0);
        if (m < members && column < a.head_dim) {
            const attend_rows s = all[member[m].rows];
            piece = load_turned(from + (size_t)s.row * a.width + r % heads * a.head_dim, column, a.head_dim, rotary.cos,
                                rotary.sin, s.before);
        }
        *reinterpret_cast<uint4 *>(tile + r * attend_pitch<D>() + column) = piece;
    }
}

/* D: head_dim rounded up. A block takes one part of one sequence, or of several that share it (`shared`), and up to
 * MT · 16 rows: sequences times heads of a group, a bundle of which it is where a group has more. */
template <int D, int WARPS, int MT>
__global__ void __launch_bounds__(WARPS * 32)
    attend_part_kernel(attend_bf16 *out, attend_partial partial, const attend_bf16 *qkv, attend_keys keys,
                       kn_rotary rotary, const attend_step *step, uint32_t bundles, uint32_t shared, attend_shape a)
{
    constexpr int PITCH = D + 8, STAGE = 2 * KN_PAGE * PITCH, SUMS = D + 8, ROWS = MT * 16;
    SHARED(float, greatest, [WARPS][ROWS]);
    SHARED(float, total, [WARPS][ROWS]);
    SHARED(uint4, own, [2 * D / 8]); /* the new token's key and value */
    DYN_SHARED(attend_bf16, memory);
    attend_bf16 *const tile_q = memory;
    follow();
    const int thread = (int)threadIdx.x, lane = thread & 31, warp = thread >> 5;
    attend_bf16 *const stages = memory + ROWS * PITCH + warp * 2 * STAGE;
    const uint32_t bundle = blockIdx.x % bundles, kv = blockIdx.x / bundles % a.kv_heads;
    const uint32_t index = blockIdx.x / bundles / a.kv_heads;
    if (index >= (shared ? step->runs : step->parts)) /* the whole block */
        return;
    attend_run run = {index, 1};
    if (shared)
        run = attend_list_of<attend_run>(step, step->at_runs)[index];
    const attend_part *const member = attend_list_of<attend_part>(step, step->at_parts) + run.first;
    const attend_rows *const all = attend_list_of<attend_rows>(step, step->at_rows);
    const attend_part part = member[0];
    const attend_rows s = all[part.rows];
    const uint32_t h0 = bundle * ROWS, heads = a.group - h0 < ROWS ? a.group - h0 : ROWS, head = kv * a.group + h0;
    constexpr bool several = MT > 1; /* then the part is seen whole, and ends before each one's own token */
    const int at = (int)s.before, low = attend_first_key(a, at), begin = (int)part.part * ATTEND_SPLIT;
    const int first = !several && low > begin ? low : begin;
    const int end = !several && at + 1 < begin + ATTEND_SPLIT ? at + 1 : begin + ATTEND_SPLIT;
    const attend_bf16 *const k = (const attend_bf16 *)keys.first + kv * a.head_dim;
    const uint32_t *const pages = attend_list_of<uint32_t>(step, step->at_pages) + s.prefix;
    const bool new_token = !several && end == at + 1; /* it is the last of this part, and not in its page yet */
    const int paged = new_token ? at : end;

    /* The pages of a warp are those whose number is its own modulo WARPS: fixed, whatever the window hides. */
    int page = first / KN_PAGE;
    page += (warp - page % WARPS + WARPS) % WARPS;
    if (page * KN_PAGE < end)
        load_page<D>(stages, k + (size_t)pages[page] * KN_PAGE * keys.stride, keys, paged - page * KN_PAGE, a.head_dim,
                     lane);
    cp_async_commit();
    lay_members<ROWS, D, WARPS * 32>(tile_q, qkv + head * a.head_dim, member, all, run.count, heads, a, rotary, thread);
    if (new_token && thread < 2 * D / 8) {
        const uint32_t value = thread >= D / 8, e = (uint32_t)thread % (D / 8) * 8;
        const attend_bf16 *from = qkv + (size_t)s.row * a.width + (a.heads + kv + value * a.kv_heads) * a.head_dim;
        uint4 piece = make_uint4(0, 0, 0, 0);
        if (e < a.head_dim)
            piece = load_turned(from, e, a.head_dim, value ? NULL : rotary.cos, rotary.sin, s.before);
        own[thread] = piece;
        if (e < a.head_dim && bundle == 0) {
            attend_bf16 *to = const_cast<attend_bf16 *>(k) + value * keys.values + e;
            to += ((size_t)pages[at / KN_PAGE] * KN_PAGE + at % KN_PAGE) * keys.stride;
            *reinterpret_cast<uint4 *>(to) = piece;
        }
    }
    __syncthreads(); /* the queries are there, and the new token */

    attend_softmax<MT> r;
    float o[MT][D / 8][4];
    attend_begin(r);
    attend_zero(o);
    for (int round = 0; page * KN_PAGE < end; page += WARPS, round++) {
        attend_bf16 *const now = stages + (round & 1) * STAGE;
        const int next = page + WARPS;
        if (next * KN_PAGE < end)
            load_page<D>(stages + (~round & 1) * STAGE, k + (size_t)pages[next] * KN_PAGE * keys.stride, keys,
                         paged - next * KN_PAGE, a.head_dim, lane);
        cp_async_commit();
        cp_async_wait<1>();
        if (new_token && page == at / KN_PAGE)
            lay_own<D>(now, own, at % KN_PAGE, lane);
        __syncwarp(); /* this round's page is there */
        float p[MT][2][4];
        attend_zero(p);
        attend_product<MT, 16, D>(p, tile_q, now, lane);
        attend_change_all(p, a);
        if (!several && (page * KN_PAGE < first || (page + 1) * KN_PAGE > end))
            attend_hide<MT, 16>(
                p, [&](int) { return at; }, page * KN_PAGE, a, lane);
        attend_soften<MT, 16, D>(p, o, r, a.factor);
        attend_gather<MT, 16, D, D>(o, p, now + KN_PAGE * PITCH, lane);
        __syncwarp(); /* it is no longer read */
    }
    cp_async_wait<0>();

    /* The warps' sums, joined in order, 16 rows at a time: the next ones are laid where those before the last were. */
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float sum = attend_quad_sum(r.sum[m][i]);
            if ((lane & 3) == 0) {
                greatest[warp][m * 16 + (lane >> 2) + 8 * i] = r.max[m][i] * a.factor;
                total[warp][m * 16 + (lane >> 2) + 8 * i] = sum;
            }
        }
    const float *const sums = reinterpret_cast<const float *>(memory + ROWS * PITCH);
    const bool whole = !several && part.slot == ATTEND_WHOLE;
#pragma unroll
    for (int m = 0; m < MT; m++) {
        const int half = m % 2 * 16 * SUMS;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float *to = reinterpret_cast<float *>(stages) + half + ((lane >> 2) + 8 * i) * SUMS + (lane & 3) * 2;
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                to[n * 8] = o[m][n][2 * i];
                to[n * 8 + 1] = o[m][n][2 * i + 1];
            }
        }
        __syncthreads(); /* all warps are done with these rows */
        const uint32_t rows = run.count * heads, left = rows > m * 16u ? rows - m * 16u : 0;
        for (uint32_t n = (uint32_t)thread; n < (left < 16 ? left : 16) * D; n += WARPS * 32) {
            const uint32_t row = m * 16 + n / D, e = n % D;
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
                value = fmaf(keep, sums[w * STAGE + half + n / D * SUMS + e], value);
            }
            if (whole) {
                out[((size_t)s.row * a.heads + head + row) * a.head_dim + e] = __float2bfloat16(value / sum);
                continue;
            }
            const uint32_t of = run.count > 1 ? row / heads : 0;
            const size_t to = (size_t)member[of].slot * a.heads + head + (row - of * heads);
            partial.values[to * a.head_dim + e] = value;
            if (e == 0) {
                partial.figures[2 * to] = max;
                partial.figures[2 * to + 1] = sum;
            }
        }
    }
    if (!several && !whole)
        attend_join<WARPS * 32>(out, partial,
                                partial.arrived + (size_t)pages[at / KN_PAGE] * a.heads + kv * bundles + bundle, part,
                                s, head, heads, a);
}

/* Tiles of 16 rows that a block has registers for where sequences share it. */
constexpr int shared_tiles(int D)
{
    return D <= 64 ? 4 : D <= 128 ? 2 : 1;
}

template <int D, int WARPS, int MT>
void launch(kn_cuda *c, attend_bf16 *out, const attend_partial &partial, const attend_bf16 *qkv,
            const attend_keys &keys, const kn_rotary &rotary, const attend_planned &v, uint32_t items, bool shared,
            const attend_shape &a)
{
    constexpr size_t bytes = (size_t)(MT * 16 + WARPS * 4 * KN_PAGE) * (D + 8) * sizeof(attend_bf16);
    const uint32_t bundles = (a.group + MT * 16 - 1) / (MT * 16);
    if (items > 0)
        KN_FOLLOW(c, (attend_part_kernel<D, WARPS, MT>), dim3(attend_grid(items) * a.kv_heads * bundles),
                  dim3(WARPS * 32), bytes, out, partial, qkv, keys, rotary, v.device, bundles, shared ? 1 : 0, a);
}

template <int D, int WARPS>
void both(kn_cuda *c, attend_bf16 *out, const attend_partial &partial, const attend_bf16 *qkv, const attend_keys &keys,
          const kn_rotary &rotary, const attend_planned &v, const attend_shape &a)
{
    launch<D, WARPS, shared_tiles(D)>(c, out, partial, qkv, keys, rotary, v, v.host->runs, true, a);
    launch<D, WARPS, 1>(c, out, partial, qkv, keys, rotary, v, v.host->parts, false, a);
}

} // namespace

uint32_t attend_bf16_members(const attend_shape &a)
{
    const uint32_t tiles = a.head_dim <= 64 ? shared_tiles(64) : a.head_dim <= 128 ? shared_tiles(128) : 1;
    return 16 * tiles < a.group ? 1 : 16 * tiles / a.group;
}

void attend_bf16_parts(kn_cuda *c, attend_bf16 *out, const attend_partial &partial, const attend_bf16 *qkv,
                       const attend_keys &keys, const kn_rotary &rotary, const attend_planned &v, const attend_shape &a)
{
    if (c->status != KN_OK || (v.host->parts == 0 && v.host->runs == 0))
        return;
    if (a.head_dim <= 16)
        both<16, 4>(c, out, partial, qkv, keys, rotary, v, a);
    else if (a.head_dim <= 32)
        both<32, 4>(c, out, partial, qkv, keys, rotary, v, a);
    else if (a.head_dim <= 64)
        both<64, 4>(c, out, partial, qkv, keys, rotary, v, a);
    else if (a.head_dim <= 80)
        both<80, 4>(c, out, partial, qkv, keys, rotary, v, a);
    else if (a.head_dim <= 96)
        both<96, 4>(c, out, partial, qkv, keys, rotary, v, a);
    else if (a.head_dim <= 128)
        both<128, 4>(c, out, partial, qkv, keys, rotary, v, a);
    else if (a.head_dim <= 192)
        both<192, 2>(c, out, partial, qkv, keys, rotary, v, a);
    else
        both<256, 2>(c, out, partial, qkv, keys, rotary, v, a);
}
