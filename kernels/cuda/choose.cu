/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * From a row of logits to a token; kernels/reference/choose.c is the definition. A row is read
 *   - once, where nothing is cut off or the largest logit is taken: the log-probability's sums, the largest logit and
 *     the draw on the same way, a block for each of the row's slices (softmax.cuh), which another block then joins;
 *   - twice more, by one block, where few tokens are kept: for the histogram and for the list;
 *   - some more times, where many are.
 * Penalties and bans change a slice in memory after the first way over it, which is over the logits as they came.
 */
#include "choose_cut.cuh"
#include "ptx.cuh"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What the first way finds, of a slice or of the row. */
struct choose_sums {
    softmax_sums plain;        /* of the logits as they came */
    softmax_sums scaled;       /* of those that are drawn by; `sum` only where the whole row is drawn from */
    unsigned long long winner; /* of the draw from the whole row, or the largest: choose_rank of it; 0 = none */
};

/* A block's slice. */
struct choose_slice {
    float *row;         /* the whole row */
    uint32_t from, end; /* its tokens */
    unsigned *marked;   /* [MARKS], in shared memory */
};
enum { MARKS = KN_SOFTMAX_SLICE / 32, JOIN_THREADS = 128 };

KDEV bool has(const choose_slice &s, uint32_t token)
{
    return token >= s.from && token < s.end;
}

/* --- penalties and bans --- */

/* Marks the slice's tokens that change, once each, and notes in was[] what the penalized ones were: NaN where a token
 * is banned or was noted by another thread, whose `was` is then the one. */
KDEV void mark(const choose_slice &s, float *was, const choose_row &c, const uint32_t *ids)
{
    for (unsigned w = threadIdx.x; w < MARKS; w += CHOOSE_THREADS)
        s.marked[w] = 0;
    __syncthreads();
    for (unsigned i = threadIdx.x; i < c.banned_count; i += CHOOSE_THREADS) {
        const uint32_t v = ids[c.banned + i], at = v - s.from;
        if (has(s, v))
            atomicOr(&s.marked[at / 32], 1u << at % 32);
    }
    __syncthreads();
    for (unsigned i = threadIdx.x; i < c.seen_count; i += CHOOSE_THREADS) {
        const uint32_t v = ids[c.seen + i], at = v - s.from;
        if (has(s, v))
            was[c.seen + i] = atomicOr(&s.marked[at / 32], 1u << at % 32) >> at % 32 & 1 ? NAN : s.row[v];
    }
    __syncthreads();
}

KDEV void change(const choose_slice &s, const float *was, const choose_row &c, const uint32_t *ids)
{
    for (unsigned i = threadIdx.x; i < c.banned_count; i += CHOOSE_THREADS) {
        const uint32_t v = ids[c.banned + i];
        if (has(s, v))
            s.row[v] = -INFINITY;
    }
    for (unsigned i = threadIdx.x; i < c.seen_count; i += CHOOSE_THREADS) {
        const uint32_t v = ids[c.seen + i];
        const float x = has(s, v) ? was[c.seen + i] : NAN;
        if (x == x)
            s.row[v] = x > 0 ? x / c.penalty : x * c.penalty;
    }
    __syncthreads();
}

/* The logit of a token as it came. */
template <int THREADS>
KDEV float plain_logit(const float *row, const float *was, const choose_row &c, const uint32_t *ids, uint32_t token)
{
    float found = -INFINITY;
    for (unsigned i = threadIdx.x; i < c.seen_count; i += THREADS)
        if (ids[c.seen + i] == token && was[c.seen + i] == was[c.seen + i])
            found = was[c.seen + i];
    found = reduce_block(found, reduce_max(), -INFINITY);
    return found > -INFINITY ? found : row[token];
}

/* --- the first way --- */

/* Four neighbours; a whole warp comes with 32 groups in a row. skip: one bit each, what is left out. bound: no lane of
 * the warp has a better draw yet, so what cannot come above it need not be worked out. */
KDEV void take_four(softmax_sums &plain, softmax_sums &scaled, choose_best &best, float &bound, const choose_row &c,
                    unsigned skip, const float (&v)[4], uint32_t group, bool whole)
{
    softmax_add<false>(plain, v);
    float y[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        y[i] = skip >> i & 1 ? -INFINITY : choose_scaled(c, v[i]);
    const float top = fmaxf(fmaxf(y[0], y[1]), fmaxf(y[2], y[3]));
    if (!whole) {
        scaled.max = fmaxf(scaled.max, top);
        if (c.temperature > 0)
            return;
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (y[i] > best.value)
                best = {y[i], 4 * group + i};
        return;
    }
    softmax_add<false>(scaled, y);
    if (!__any_sync(0xffffffffu, top + GUMBEL_MOST > bound))
        return;
    uint32_t bits[4];
    choose_bits(bits, c.key, group);
    bool may = false;
#pragma unroll
    for (int i = 0; i < 4; i++)
        may |= choose_may_win(y[i], bits[i], bound);
    if (!__any_sync(0xffffffffu, may))
        return;
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (may)
            choose_draw(best, y[i], 4 * group + i, bits[i]);
    bound = reduce_warp(best.value, reduce_max());
}

/* The tokens left out on the way, in an order of their own: whole words of the marks by thread. */
KDEV void take_marked(softmax_sums &scaled, choose_best &best, const choose_row &c, const choose_slice &s, bool whole)
{
    for (unsigned w = threadIdx.x; w < MARKS; w += CHOOSE_THREADS)
        for (unsigned left = s.marked[w]; left != 0; left &= left - 1) {
            const uint32_t token = s.from + w * 32 + __ffs((int)left) - 1;
            const float y[4] = {choose_scaled(c, s.row[token]), -INFINITY, -INFINITY, -INFINITY};
            if (whole) {
                softmax_add<false>(scaled, y);
                choose_draw(best, y[0], token, philox_item(c.key, token));
            } else {
                scaled.max = fmaxf(scaled.max, y[0]);
                if (y[0] > best.value || (y[0] == best.value && token < best.token))
                    best = {y[0], token};
            }
        }
}

/* The sums of the logits as they came are those of softmax_slice, added in the same order. */
KDEV choose_sums first_way(const choose_slice &s, float *was, const choose_row &c, const uint32_t *ids, bool whole)
{
    const size_t n = c.vocab;
    const bool aligned = (reinterpret_cast<uintptr_t>(s.row) & 15) == 0, changes = c.seen_count + c.banned_count > 0;
    softmax_sums plain = {-INFINITY, 0, 0}, scaled = plain;
    choose_best best = {-INFINITY, 0};
    float bound = -INFINITY;
    if (changes)
        mark(s, was, c, ids);
#pragma unroll 1
    for (unsigned g = threadIdx.x; g < KN_SOFTMAX_GROUPS; g += CHOOSE_AHEAD * CHOOSE_THREADS) {
        float v[CHOOSE_AHEAD][4];
#pragma unroll
        for (int k = 0; k < CHOOSE_AHEAD; k++)
            softmax_four(v[k], s.row, n, s.from / 4 + g + k * CHOOSE_THREADS, aligned);
#pragma unroll
        for (int k = 0; k < CHOOSE_AHEAD; k++) {
            const unsigned at = g + k * CHOOSE_THREADS;
            take_four(plain, scaled, best, bound, c, changes ? s.marked[at / 8] >> at % 8 * 4 : 0, v[k],
                      s.from / 4 + at, whole);
        }
    }
    choose_sums sums;
    sums.plain = softmax_block<false>(plain);
    if (changes) {
        change(s, was, c, ids);
        take_marked(scaled, best, c, s, whole);
    }
    sums.scaled = softmax_block<false>(scaled);
    sums.winner = choose_winning(best);
    return sums;
}

/* A row's slices, put together by a warp. */
KDEV choose_sums join_slices(const choose_sums *part, unsigned slices)
{
    choose_sums s = {softmax_join<false>(slices, [&](unsigned i) { return part[i].plain; }),
                     softmax_join<false>(slices, [&](unsigned i) { return part[i].scaled; }), 0};
    for (unsigned i = threadIdx.x % 32; i < slices; i += 32)
        s.winner = part[i].winner > s.winner ? part[i].winner : s.winner;
    s.winner = reduce_warp(s.winner, reduce_max());
    return s;
}

/* --- the kept part of a row --- */

/* Draws from the kept part; `log_mass`: the logarithm of its Σ exp(y - max). */
KDEV uint32_t draw_kept(choose_room *room, choose_found *found, const choose_view &v, double &log_mass)
{
    const choose_row &c = *v.c;
    mass_t total, kept = 0;
    fill_bins(room, v);
    const unsigned all = count_bins(room, BINS - 1, total);
    const bool by_count = c.top_k > 0 && c.top_k < all, by_mass = c.top_p < 1;
    unsigned last = BINS - 1;
    if (by_count || by_mass) {
        find_bin(found, room, by_count, by_count ? c.top_k : share_of(total, c.top_p));
        last = found->at < BINS ? found->at : BINS - 1;
    }
    uint64_t cut = 0; /* kept: ranks from here on */
    if (c.min_p > 0) {
        float least = (float)(v.max + c.log_min_p);
        if ((double)least - v.max < c.log_min_p) /* rounded down */
            least = nextafterf(least, INFINITY);
        least = least < v.max ? least : v.max;
        cut = (uint64_t)choose_order(least) << 32;
        if (!by_count || !by_mass) /* top-p is a share of all that top-k leaves, so that is wanted whole */
            last = min(last, bin_of(v, least));
    }
    choose_best best = {-INFINITY, 0};
    mass_t up_to;
    if (count_bins(room, last, up_to) <= LIST) {
        unsigned n = list_part(room, found, v, choose_part{0, last, 64, 0});
        n = by_count && c.top_k < n ? c.top_k : n;
        if (by_mass) {
            find_entry(found, room, v, n, share_of(by_count ? list_mass(room, v, n) : total, c.top_p));
            n = found->at < n ? found->at + 1 : n;
        }
        for (unsigned i = threadIdx.x; i < n; i += CHOOSE_THREADS) {
            const uint64_t rank = room->list[i];
            if (rank < cut)
                break;
            const float y = choose_logit(rank);
            kept += choose_mass(y, v.max);
            if (y + GUMBEL_MOST > best.value)
                choose_draw(best, y, choose_token(rank), philox_item(c.key, choose_token(rank)));
        }
    } else {
        mass_t left = total;
#pragma unroll 1
        for (int stage = by_count ? 0 : 1; stage <= (by_mass ? 1 : 0); stage++) { /* top-k, then top-p of its mass */
            const mass_t target = stage == 0 ? c.top_k : share_of(left, c.top_p);
            if (stage == 1 && by_count)
                fill_bins(room, v);
            find_bin(found, room, stage == 0, target);
            left = 0;
            if (found->at < BINS)
                cut = max((mass_t)cut, (mass_t)cut_bin(room, found, v, stage == 0, target, left));
        }
        const float least = cut > 0 ? choose_logit(cut) : -INFINITY;
        choose_each(
            c, v.row, [&](float y) { return y >= least; },
            [&](uint32_t token, float y) {
                if (choose_rank(y, token) >= cut) {
                    kept += choose_mass(y, v.max);
                    if (y + GUMBEL_MOST > best.value)
                        choose_draw(best, y, token, philox_item(c.key, token));
                }
            });
    }
    kept = reduce_block(kept, reduce_add(), (mass_t)0);
    log_mass = log((double)kept * 0x1p-44);
    return choose_winner(best);
}

/* What the second kernel wants to know of the first one's row. */
struct choose_left {
    softmax_sums plain;
    float max; /* of the logits that are drawn by; not finite: there is nothing to choose */
};

KDEV bool cuts(const choose_row &c)
{
    return c.temperature > 0 && (c.top_k > 0 || c.top_p < 1 || c.min_p > 0);
}

KDEV bool can_choose(float max)
{
    return max > -INFINITY && max < INFINITY;
}

/* All threads of the block come here; `log_mass`: see draw_kept. */
template <int THREADS>
KDEV void answer(kn_chosen *chosen, const float *row, const float *was, const choose_row &c, const uint32_t *ids,
                 uint32_t token, const softmax_sums &plain, float max, double log_mass)
{
    const float logit = plain_logit<THREADS>(row, was, c, ids, token);
    if (threadIdx.x == 0)
        *chosen = {token, softmax_logprob(plain, logit),
                   (float)((double)choose_scaled(c, row[token]) - max - log_mass)};
}

__global__ void __launch_bounds__(CHOOSE_THREADS, 2)
    choose_slice_kernel(choose_sums *part, float *logits, const choose_row *rows, unsigned slices, const uint32_t *ids,
                        float *was)
{
    SHARED(unsigned, marked, [MARKS]);
    follow();
    const choose_row c = rows[blockIdx.x / slices];
    choose_slice s;
    s.row = logits + (size_t)(blockIdx.x / slices) * c.vocab;
    s.from = blockIdx.x % slices * KN_SOFTMAX_SLICE;
    s.end = c.vocab - s.from < KN_SOFTMAX_SLICE ? c.vocab : s.from + KN_SOFTMAX_SLICE;
    s.marked = marked;
    const choose_sums sums = first_way(s, was, c, ids, c.temperature > 0 && !cuts(c));
    if (threadIdx.x == 0)
        part[blockIdx.x] = sums;
}

/* A block a row. */
__global__ void __launch_bounds__(JOIN_THREADS)
    choose_kernel(kn_chosen *chosen, choose_left *left, const choose_sums *part, const float *logits,
                  const choose_row *rows, unsigned slices, const uint32_t *ids, const float *was)
{
    follow();
    const choose_row c = rows[blockIdx.x];
    const float *row = logits + (size_t)blockIdx.x * c.vocab;
    const choose_sums s = join_slices(part + (size_t)blockIdx.x * slices, slices); /* each warp for itself */
    if (!can_choose(s.scaled.max) || cuts(c)) {
        if (threadIdx.x == 0) {
            left[blockIdx.x] = {s.plain, s.scaled.max};
            chosen[blockIdx.x] = {UINT32_MAX, 0, 0};
        }
        return;
    }
    answer<JOIN_THREADS>(&chosen[blockIdx.x], row, was, c, ids, choose_token(s.winner), s.plain, s.scaled.max,
                         c.temperature > 0 ? log((double)s.scaled.sum) : 0);
}

/* The rows of which something is cut off. */
__global__ void __launch_bounds__(CHOOSE_THREADS, 1)
    choose_kept_kernel(kn_chosen *chosen, const choose_left *left, const float *logits, const choose_row *rows,
                       const uint32_t *ids, const float *was)
{
    DYN_SHARED(choose_room, room);
    SHARED(choose_found, found, [1]);
    follow();
    const choose_row c = rows[blockIdx.x];
    const choose_left l = left[blockIdx.x];
    if (!cuts(c) || !can_choose(l.max))
        return;
    const float *row = logits + (size_t)blockIdx.x * c.vocab;
    /* Sixteen nats hold all that matters of a mass; of a count, sixteen of the logits as they were. */
    const float reach = c.top_k > 0 && c.temperature < 1 ? 16.0f / c.temperature : 16.0f;
    const choose_view v = {&c, row, l.max, (BINS - 1) / reach};
    double log_mass;
    const uint32_t token = draw_kept(room, found, v, log_mass);
    answer<CHOOSE_THREADS>(&chosen[blockIdx.x], row, was, c, ids, token, l.plain, l.max, log_mass);
}

/* --- the op --- */

static size_t ids_of(const kn_choice *c)
{
    return (c->repetition_penalty != 1.0f ? c->seen_count : 0) + c->banned_count;
}

/* The rows' choices as the kernel reads them; their ids go to ids[0 …). */
static void describe(choose_row *row, uint32_t *ids, const kn_choice *choice, size_t T, size_t vocab)
{
    size_t used = 0;
    for (size_t t = 0; t < T; t++) {
        const kn_choice *c = &choice[t];
        const size_t seen = ids_of(c) - c->banned_count;
        memset(&row[t], 0, sizeof(row[t]));
        row[t].seen = used;
        row[t].banned = used + seen;
        row[t].log_min_p = c->min_p > 0 ? log((double)c->min_p) : 0;
        row[t].seen_count = (uint32_t)seen;
        row[t].banned_count = (uint32_t)c->banned_count;
        row[t].key = philox_of(c->key, c->counter);
        row[t].temperature = c->temperature;
        row[t].top_p = c->top_p;
        row[t].min_p = c->min_p;
        row[t].penalty = c->repetition_penalty;
        row[t].top_k = c->top_k;
        row[t].vocab = (uint32_t)vocab;
        if (seen > 0)
            memcpy(ids + used, c->seen, seen * sizeof(*ids));
        if (c->banned_count > 0)
            memcpy(ids + used + seen, c->banned, c->banned_count * sizeof(*ids));
        used += ids_of(c);
    }
}

static void ask_choose(kn_cuda *c, kn_chosen *chosen, float *logits, const choose_row *row, const uint32_t *ids,
                       size_t id_count, bool some_cut, size_t T, size_t vocab)
{
    const unsigned slices = softmax_slices(vocab);
    if (T * slices > INT32_MAX) {
        kn_cuda_refuse(c, KN_UNSUPPORTED);
        return;
    }
    kn_chosen *answer = (kn_chosen *)kn_cuda_scratch(c, T * sizeof(*answer));
    choose_sums *part = (choose_sums *)kn_cuda_scratch(c, T * slices * sizeof(*part));
    choose_left *left = (choose_left *)kn_cuda_scratch(c, T * sizeof(*left));
    float *was = id_count > 0 ? (float *)kn_cuda_scratch(c, id_count * sizeof(*was)) : NULL;
    const choose_row *rows = (const choose_row *)kn_cuda_upload(c, row, T * sizeof(*row));
    const uint32_t *list = id_count > 0 ? (const uint32_t *)kn_cuda_upload(c, ids, id_count * sizeof(*ids)) : NULL;
    if (c->status != KN_OK)
        return;
    KN_FOLLOW(c, choose_slice_kernel, dim3((unsigned)T * slices), dim3(CHOOSE_THREADS), 0, part, logits, rows, slices,
              list, was);
    KN_FOLLOW(c, choose_kernel, dim3((unsigned)T), dim3(JOIN_THREADS), 0, answer, left, part, logits, rows, slices,
              list, was);
    if (some_cut)
        KN_FOLLOW(c, choose_kept_kernel, dim3((unsigned)T), dim3(CHOOSE_THREADS), sizeof(choose_room), answer, left,
                  logits, rows, list, was);
    if (kn_cuda_read(c, chosen, answer, T * sizeof(*chosen)) != KN_OK)
        return;
    for (size_t t = 0; t < T; t++)
        if (chosen[t].token == UINT32_MAX)
            kn_cuda_refuse(c, KN_BAD_ARGUMENT);
}

static int choose(kn_device *device, kn_chosen *chosen, float *logits, const kn_choice *choice, size_t T, size_t vocab)
{
    size_t id_count = 0;
    bool some_cut = false;
    for (size_t t = 0; t < T; t++) {
        id_count += ids_of(&choice[t]);
        some_cut |= choice[t].temperature > 0 && (choice[t].top_k > 0 || choice[t].top_p < 1 || choice[t].min_p > 0);
    }
    if (vocab == 0 || vocab > INT32_MAX)
        return KN_BAD_ARGUMENT;
    choose_row *row = (choose_row *)malloc(T * sizeof(*row) + 1);
    uint32_t *ids = (uint32_t *)malloc(id_count * sizeof(*ids) + 1);
    int status = KN_NO_MEMORY;
    if (row != NULL && ids != NULL) {
        describe(row, ids, choice, T, vocab);
        kn_cuda *c = kn_cuda_begin(device);
        if (c != NULL && T > 0)
            ask_choose(c, chosen, logits, row, ids, id_count, some_cut, T, vocab);
        status = c != NULL ? kn_cuda_end(c) : KN_DEVICE_FAILED;
    }
    free(row);
    free(ids);
    return status;
}

void kn_cuda_choose_ops(kn_ops *f32, kn_ops *bf16)
{
    f32->choose = bf16->choose = choose;
}
