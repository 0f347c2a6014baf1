/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * From a row of logits to a token. What is kept is exactly what sorting would keep (kernels/reference/choose.c). It is
 * found by looking within some distance of the largest logit, widened until that is enough. Few tokens are listed and
 * selected among; of many (a flat row) the boundary is found by halving, a pass over the row each time, and only what
 * lies about it is listed.
 */
#include "draw.h"
#include "ops.h"
#include "scalar.h"

/* A token with its place in the order: the larger `rank` comes first. Its high half is the logit's bits, turned so that
 * they order as numbers; its low half the token's complement, so that of equal logits the smaller token comes first. */
typedef struct entry {
    uint64_t rank;
    float weight; /* exp(logit - largest) */
} entry;

static entry entry_of(float logit, float weight, uint32_t token)
{
    uint32_t bits;
    logit += 0.0f; /* one zero */
    memcpy(&bits, &logit, sizeof(bits));
    bits ^= bits >> 31 ? UINT32_MAX : UINT32_C(1) << 31;
    return (entry){(uint64_t)bits << 32 | (uint32_t)~token, weight};
}

static uint32_t token_of(const entry *e)
{
    return ~(uint32_t)e->rank;
}

static float logit_of(const entry *e)
{
    uint32_t bits = (uint32_t)(e->rank >> 32);
    float logit;
    bits ^= bits >> 31 ? UINT32_C(1) << 31 : UINT32_MAX;
    memcpy(&logit, &bits, sizeof(logit));
    return logit;
}

/* A worker's scratch. */
typedef struct room {
    entry *kept;      /* [vocab], by token */
    entry *work;      /* [vocab], for selecting */
    uint32_t *seen;   /* [vocab]: distinct penalized tokens */
    float *seen_was;  /* their logits before */
    uint64_t *marked; /* a bit a token */
    float *scaled;    /* [vocab, rounded up to 64] */
    float *weight;    /* the same: exp(scaled - largest) */
} room;

static size_t room_bytes(size_t vocab)
{
    return vocab * (2 * sizeof(entry) + 8) + (vocab / 64 + 1) * (2 * 64 * 4 + 8);
}

static room room_at(char *p, size_t vocab)
{
    room r = {.scaled = (float *)p};
    r.weight = r.scaled + (vocab / 64 + 1) * 64;
    r.marked = (uint64_t *)(r.weight + (vocab / 64 + 1) * 64);
    r.kept = (entry *)(r.marked + vocab / 64 + 1);
    r.work = r.kept + vocab;
    r.seen = (uint32_t *)(r.work + vocab);
    r.seen_was = (float *)(r.seen + vocab);
    return r;
}

/* --- penalties --- */

/* Returns how many distinct tokens were penalized. */
static size_t penalize(float *logits, const kn_choice *c, size_t vocab, const room *r)
{
    size_t n = 0;
    if (c->seen_count > 0 && c->repetition_penalty != 1.0f) {
        memset(r->marked, 0, (vocab / 64 + 1) * 8);
        for (size_t i = 0; i < c->seen_count; i++) {
            const uint32_t v = c->seen[i];
            if (v >= vocab || (r->marked[v / 64] >> (v % 64) & 1))
                continue;
            r->marked[v / 64] |= UINT64_C(1) << (v % 64);
            r->seen[n] = v;
            r->seen_was[n++] = logits[v];
            logits[v] = logits[v] > 0 ? logits[v] / c->repetition_penalty : logits[v] * c->repetition_penalty;
        }
    }
    for (size_t i = 0; i < c->banned_count; i++)
        if (c->banned[i] < vocab)
            logits[c->banned[i]] = -INFINITY;
    return n;
}

/* --- the row as a whole --- */

/* Logits by their temperature, in scratch of 64-multiples: what the draw is from. The logits themselves stay, for the
 * recorded log-probability is of them. */
typedef struct row {
    float *x; /* -infinity behind the end, and for what is no number */
    size_t n, padded;
    float max;
} row;

static row scale_row(float *to, const float *l, size_t n, float temperature)
{
    row r = {.x = to, .n = n, .padded = (n + 63) / 64 * 64};
    const V by = v_set1(temperature), none = v_set1(-INFINITY);
    W top = w_set1(-INFINITY);
    for (size_t i = n; i < r.padded; i++)
        to[i] = -INFINITY;
    for (size_t i = 0; i < n; i += 16) {
        W x = i + 16 <= n ? w_load(l + i) : w_load_n(l + i, n - i, -INFINITY);
        W_EACH(w)
        {
            x.v[w] = temperature == 1.0f ? x.v[w] : x.v[w] / by;
            x.v[w] = v_select(x.v[w] == x.v[w], x.v[w], none);
        }
        top = w_max(x, top);
        w_store(to + i, x);
    }
    r.max = w_max_lane(top);
    return r;
}

/* weight = exp(x - max); their sum. */
static double weigh_row(float *weight, const row *r)
{
    double sum = 0;
    for (size_t at = 0; at < r->padded; at += 256) {
        W part = w_set1(0);
        for (size_t i = at; i < kn_min(r->padded, at + 256); i += 16) {
            W x = w_load(r->x + i);
            W_EACH(w)
            {
                x.v[w] = v_exp(x.v[w] - v_set1(r->max));
                part.v[w] = part.v[w] + x.v[w];
            }
            w_store(weight + i, x);
        }
        sum += w_sum(part);
    }
    return sum;
}

/* The number, or the weight, of the tokens whose logit is at least `least`. */
static double measure_above(const row *r, const float *weight, float least, bool count)
{
    const V bound = v_set1(least), one = v_set1(1), none = v_set1(0);
    double sum = 0;
    for (size_t at = 0; at < r->padded; at += 256) {
        W part = w_set1(0);
        for (size_t i = at; i < kn_min(r->padded, at + 256); i += 16) {
            const W x = w_load(r->x + i), m = w_load(weight + i);
            W_EACH(w)
            part.v[w] = part.v[w] + v_select(x.v[w] >= bound, count ? one : m.v[w], none);
        }
        sum += w_sum(part);
    }
    return sum;
}

enum { FEW = 512 }; /* tokens that are worth a list */

/* Tokens whose logit is at least `least` and below `below`, in order of token; at most `most` of them, and most + 1
 * says that there are more. */
static size_t collect(entry *e, const row *r, const float *weight, float least, float below, size_t most)
{
    size_t count = 0;
    const V low = v_set1(least), high = v_set1(below);
    for (size_t i = 0; i < r->padded; i += VN) {
        const V x = v_load(r->x + i);
        for (unsigned bits = v_bits(x >= low) & v_bits(x < high); bits != 0; bits &= bits - 1) {
            const size_t k = i + (size_t)__builtin_ctz(bits);
            if (count == most)
                return most + 1;
            e[count++] = entry_of(r->x[k], weight[k], (uint32_t)k);
        }
    }
    return count;
}

/* --- truncation --- */

static double measure(const entry *e, size_t n, bool count)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += e[i].weight;
    return count ? (double)n : sum;
}

/* Moves the entries whose rank is above (or below) the pivot's to the front; gives how many. Every step swaps, so there
 * is no branch to mispredict. */
static size_t partition(entry *e, size_t n, uint64_t pivot, bool above)
{
    size_t front = 0;
    for (size_t i = 0; i < n; i++) {
        const entry x = e[i];
        e[i] = e[front];
        e[front] = x;
        front += above ? x.rank > pivot : x.rank < pivot;
    }
    return front;
}

static entry median(entry a, entry b, entry c)
{
    const entry high = a.rank > b.rank ? a : b, low = a.rank > b.rank ? b : a;
    return c.rank > high.rank ? high : c.rank < low.rank ? low : c;
}

/* The rank of the last entry of the shortest ranked prefix whose count or weight reaches `target`; of the very last one
 * when all together do not. Quickselect: e is reordered. */
static uint64_t select_boundary(entry *e, size_t n, bool count, double target)
{
    for (;;) {
        const entry pivot = median(e[0], e[n / 2], e[n - 1]);
        const size_t before = partition(e, n, pivot.rank, true);
        const double mass = measure(e, before, count), with = mass + (count ? 1 : pivot.weight);
        if (before > 0 && mass >= target) {
            n = before;
        } else if (with >= target || before + 1 == n) {
            return pivot.rank;
        } else {
            target -= with;
            e += before;
            n = partition(e, n - before, pivot.rank, false);
        }
    }
}

/* Keeps the entries up to the boundary, in their order. */
static size_t keep_prefix(entry *e, size_t n, entry *work, bool count, double target)
{
    memcpy(work, e, n * sizeof(*e));
    const uint64_t last = select_boundary(work, n, count, target);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        e[kept] = e[i];
        kept += e[i].rank >= last;
    }
    return kept;
}

/* Takes out of the row (-infinity, no weight) all behind the shortest ranked prefix whose count or weight reaches
 * `target`; `least` is low enough for that. What is left: its weight. */
static double cut_row(row *w, const room *r, float least, bool count, double target)
{
    float above = INFINITY; /* the boundary's logit is at least `least` and below this */
    double taken = 0;       /* what `above` and more come to */
    size_t n;
    while ((n = collect(r->work, w, r->weight, least, above, FEW)) > FEW) {
        const float high = above < w->max ? above : w->max, middle = least + (high - least) / 2;
        if (!(middle > least && middle < above)) { /* that many equal logits */
            n = collect(r->work, w, r->weight, least, above, w->n);
            break;
        }
        const double sum = measure_above(w, r->weight, middle, count);
        if (sum >= target) {
            least = middle;
        } else {
            above = middle;
            taken = sum;
        }
    }
    const uint64_t last = n > 0 ? select_boundary(r->work, n, count, target - taken) : 0;
    const entry end = {.rank = last};
    const float bound = n > 0 ? logit_of(&end) : least;
    const V limit = v_set1(bound), none = v_set1(-INFINITY);
    for (size_t i = 0; i < w->padded; i += VN) {
        const V x = v_load(w->x + i);
        if (v_bits(x == limit) != 0) {
            for (size_t k = i; k < i + VN; k++)
                if (w->x[k] < bound || (w->x[k] == bound && (uint32_t)k > token_of(&end))) {
                    w->x[k] = -INFINITY;
                    r->weight[k] = 0;
                }
        } else {
            v_store(w->x + i, v_select(x >= limit, x, none));
            v_store(r->weight + i, v_select(x >= limit, v_load(r->weight + i), v_set1(0)));
        }
    }
    return measure_above(w, r->weight, bound, false);
}

/* The kept tokens of a scaled row by top-k, top-p and min-p, of which at least one is on: how many are listed in
 * r->kept, or 0 and the others are taken out of the row. */
static size_t truncate_row(const room *r, row *w, const kn_choice *c)
{
    const bool by_count = c->top_k > 0 && c->top_k < w->n, by_mass = c->top_p < 1;
    const double all = weigh_row(r->weight, w), mass = by_mass && !by_count ? c->top_p * all : 0;
    float least = 0;
    for (float reach = 4;; reach *= 2) {
        least = reach > 1000 ? -3.4028234e38f : w->max - reach;
        if (reach > 1000 || (by_count  ? measure_above(w, r->weight, least, true) >= c->top_k
                             : by_mass ? measure_above(w, r->weight, least, false) >= mass
                                       : kn_exp(-reach) < 0.99 * c->min_p))
            break;
    }
    size_t n = collect(r->kept, w, r->weight, least, INFINITY, FEW);
    if (n > FEW) {
        double left = all;
        if (by_count)
            left = cut_row(w, r, least, true, c->top_k);
        if (by_mass)
            cut_row(w, r, least, false, c->top_p * left);
        for (size_t i = 0; c->min_p > 0 && i < w->n; i++)
            if (r->weight[i] < c->min_p)
                w->x[i] = -INFINITY;
        return 0;
    }
    if (by_count && n > c->top_k)
        n = keep_prefix(r->kept, n, r->work, true, c->top_k);
    if (by_mass)
        n = keep_prefix(r->kept, n, r->work, false, by_count ? c->top_p * measure(r->kept, n, false) : mass);
    if (c->min_p > 0) {
        size_t kept = 0;
        for (size_t i = 0; i < n; i++)
            if (r->kept[i].weight >= c->min_p)
                r->kept[kept++] = r->kept[i];
        n = kept;
    }
    return n;
}

/* --- the draw --- */

/* x + Gumbel noise of up to sixteen entries, whose tokens need not be neighbours: each lane works out its own counter
 * and word. */
static void draw_values(float value[16], const entry *e, size_t n, const kn_draw *d)
{
    uint32_t token[16];
    float x[16];
    for (size_t k = 0; k < 16; k++) {
        token[k] = token_of(&e[k < n ? k : 0]);
        x[k] = logit_of(&e[k < n ? k : 0]);
    }
    W_EACH(w)
    {
        VU at, word[4];
        memcpy(&at, token + w * VN, sizeof(at));
        const VI pick = (VI)((at >> 4) & 3);
        draw_words(word, d, (at >> 6 << 4) + (at & 15));
        V bits = v_select(pick == vi_set1(1), (V)word[1], (V)word[0]);
        bits = v_select(pick == vi_set1(2), (V)word[2], bits);
        bits = v_select(pick == vi_set1(3), (V)word[3], bits);
        v_store(value + w * VN, v_load(x + w * VN) + draw_gumbel((VU)bits));
    }
}

static float draw_value(const entry *e, const kn_draw *d)
{
    float value[16];
    draw_values(value, e, 1, d);
    return value[0];
}

static uint32_t draw_listed(const entry *e, size_t n, const kn_draw *d)
{
    float best = -INFINITY;
    uint32_t token = token_of(&e[0]);
    for (size_t i = 0; i < n; i += 16) {
        float value[16];
        draw_values(value, e + i, kn_min(16, n - i), d);
        for (size_t k = 0; k < kn_min(16, n - i); k++)
            if (value[k] > best) {
                best = value[k];
                token = token_of(&e[i + k]);
            }
    }
    return token;
}

/* Every token of the row; sixty-four at a time share their counters. -log(1 - u) is at least u, so a token can only win
 * where u < exp(x - best): the two logarithms are worked out for such stretches alone. mass = Σ exp(x - max). */
static uint32_t draw_whole(const row *r, uint32_t start, const kn_draw *d, double *mass)
{
    const entry first = entry_of(r->x[start], 1, start);
    float best = draw_value(&first, d);
    uint32_t token = start;
    const V max = v_set1(r->max);
    V ratio = v_set1((float)kn_exp((double)r->max - best) * 1.0001f);
    W sum = w_set1(0);
    *mass = 0;
    for (size_t at = 0; at < r->padded; at += 64) {
        if (at % 256 == 0) {
            *mass += w_sum(sum);
            sum = w_set1(0);
        }
        VU word[NW][4];
        unsigned hit[NW][4], any = 0;
        W_EACH(w)
        {
            draw_words(word[w], d, (VU)(vi_iota() + (int32_t)(at / 4 + (size_t)w * VN)));
            KN_UNROLL
            for (int n = 0; n < 4; n++) {
                const V weight = v_exp(v_load(r->x + at + 16 * n + w * VN) - max);
                const V low = v_from_int((VI)(word[w][n] >> 8)) * v_set1(0x1p-24f); /* not above u */
                sum.v[w] = sum.v[w] + weight;
                hit[w][n] = v_bits(low < weight * ratio);
                any |= hit[w][n];
            }
        }
        if (any == 0)
            continue;
        for (size_t k = 0; k < 4 * NW; k++) {
            const size_t n = k / NW, w = k % NW, from = at + 16 * n + w * VN;
            float value[VN];
            if (hit[w][n] != 0)
                v_store(value, v_load(r->x + from) + draw_gumbel(word[w][n]));
            for (unsigned bits = hit[w][n]; bits != 0; bits &= bits - 1) {
                const size_t i = (size_t)__builtin_ctz(bits);
                if (value[i] > best || (value[i] == best && from + i < token)) {
                    best = value[i];
                    token = (uint32_t)(from + i);
                }
            }
        }
        ratio = v_set1((float)kn_exp((double)r->max - best) * 1.0001f);
    }
    *mass += w_sum(sum);
    return token;
}

/* The first token with the largest logit. */
static uint32_t first_largest(const row *r)
{
    uint32_t v = 0;
    while (v + 1 < r->n && r->x[v] != r->max)
        v++;
    return v;
}

/* --- the op --- */

static int choose_row(kn_chosen *chosen, float *l, const kn_choice *c, size_t vocab, const room *r)
{
    const double lse = KN(row_lse)(l, vocab);
    const size_t penalized = penalize(l, c, vocab, r);
    const bool greedy = !(c->temperature > 0), cut = c->top_k > 0 || c->top_p < 1 || c->min_p > 0;
    const kn_draw draw = kn_draw_of(c->key, c->counter);
    row w = scale_row(r->scaled, l, vocab, greedy ? 1.0f : c->temperature);
    if (!(w.max > -INFINITY && w.max < INFINITY))
        return KN_BAD_ARGUMENT;
    uint32_t token = first_largest(&w);
    double kept_mass = 1; /* Σ exp(logit - max) over what was kept */
    const size_t listed = !greedy && cut ? truncate_row(r, &w, c) : 0;
    if (listed > 0) {
        token = draw_listed(r->kept, listed, &draw);
        kept_mass = measure(r->kept, listed, false);
    } else if (!greedy) {
        token = draw_whole(&w, token, &draw, &kept_mass);
    }
    float plain = l[token];
    for (size_t i = 0; i < penalized; i++)
        if (r->seen[i] == token)
            plain = r->seen_was[i];
    chosen->token = token;
    chosen->logprob = (float)(plain - lse);
    chosen->kept_logprob = (float)((double)w.x[token] - w.max - kn_log(kept_mass));
    return KN_OK;
}

typedef struct choose_job {
    kn_chosen *chosen;
    float *logits;
    const kn_choice *choice;
    size_t T, vocab, pieces, room;
    char *scratch;
    int *status; /* a piece */
} choose_job;

static void choose_piece(void *arg, size_t index, unsigned worker)
{
    const choose_job *j = arg;
    const room r = room_at(j->scratch + worker * j->room, j->vocab);
    j->status[index] = KN_OK;
    for (size_t t = kn_cut(j->T, j->pieces, index); t < kn_cut(j->T, j->pieces, index + 1); t++) {
        const int status = choose_row(&j->chosen[t], j->logits + t * j->vocab, &j->choice[t], j->vocab, &r);
        if (status != KN_OK)
            j->status[index] = status;
    }
}

int KN(choose)(kn_device *device, kn_chosen *chosen, float *logits, const kn_choice *choice, size_t T, size_t vocab)
{
    kn_cpu *cpu = (kn_cpu *)device;
    if (vocab == 0 || vocab > INT32_MAX)
        return KN_BAD_ARGUMENT;
    const double cost = 4.0 * (double)T * (double)vocab;
    choose_job j = {.chosen = chosen,
                    .logits = logits,
                    .choice = choice,
                    .T = T,
                    .vocab = vocab,
                    .pieces = kn_pieces(cpu, T, cost),
                    .room = (room_bytes(vocab) + 63) / 64 * 64};
    j.scratch = kn_scratch_take(cpu, j.room * kn_threads(cpu) + j.pieces * sizeof(int));
    if (!j.scratch)
        return KN_NO_MEMORY;
    j.status = (int *)(j.scratch + j.room * kn_threads(cpu));
    kn_run(cpu, j.pieces, cost, choose_piece, &j);
    int status = KN_OK;
    for (size_t i = 0; i < j.pieces; i++)
        status = j.status[i] != KN_OK ? j.status[i] : status;
    kn_scratch_give(cpu, j.scratch);
    return status;
}
