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
KN_INLINE double sum_above(const row *r, const float *weight, float least, const bool count)
{
    const V bound = v_set1(least), one = v_set1(1);
    double sum = 0;
    for (size_t at = 0; at < r->padded; at += 256) {
        W part = w_set1(0);
        for (size_t i = at; i < kn_min(r->padded, at + 256); i += 16) {
            const W x = w_load(r->x + i), m = count ? w_set1(1) : w_load(weight + i);
            W_EACH(w)
            part.v[w] = part.v[w] + v_where_at_least(x.v[w], bound, count ? one : m.v[w]);
        }
        sum += w_sum(part);
    }
    return sum;
}

static double measure_above(const row *r, const float *weight, float least, bool count)
{
    return count ? sum_above(r, weight, least, true) : sum_above(r, weight, least, false);
}

enum { FEW = 512, MANY = 2048 }; /* tokens that are worth a list to draw from; to find a boundary in */

/* Tokens whose logit is at least `least` and below `below`, in order of token; at most `most` of them, and most + 1
 * says that there are more. */
static size_t collect(entry *e, const row *r, const float *weight, float least, float below, size_t most)
{
    size_t count = 0;
    const V low = v_set1(least), high = v_set1(below);
    for (size_t i = 0; i < r->padded; i += VN) {
        const V x = v_load(r->x + i);
        for (unsigned bits = v_bits_at_least(x, low) & v_bits_less(x, high); bits != 0; bits &= bits - 1) {
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

/* Where the boundary lies: at a logit of at least `least` and below `above`, whose tokens and better ones come to
 * `taken`. */
typedef struct bracket {
    float least, above;
    double taken;
} bracket;

/* Looks at a logit between the two. */
static void narrow(bracket *k, const row *w, const float *weight, float middle, bool count, double target)
{
    const double sum = measure_above(w, weight, middle, count);
    if (sum >= target) {
        k->least = middle;
    } else {
        k->above = middle;
        k->taken = sum;
    }
}

/* The lower end of what is left of low … high, halved so often. */
static float halve(const row *w, const float *weight, float low, float high, int rounds, bool count, double target)
{
    while (rounds-- > 0) {
        const float middle = low + (high - low) / 2;
        if (measure_above(w, weight, middle, count) >= target)
            low = middle;
        else
            high = middle;
    }
    return low;
}

enum { EVERY = 16, SAMPLE_ROUNDS = 9 };

/* Narrows to what a sample of the row, one group of sixteen in EVERY, says, give or take two standard deviations of a
 * share of the row that so many tokens show. What comes out is right whatever the sample: it only saves passes. */
static void narrow_by_sample(bracket *k, const row *w, const room *r, bool count, double target, double whole)
{
    float *x = (float *)r->work, *weight = x + w->padded / EVERY + 16;
    row sample = {.x = x, .max = w->max};
    for (size_t i = 0; i < w->padded; i += 16 * EVERY, sample.n += 16) {
        w_store(x + sample.n, w_load(w->x + i));
        w_store(weight + sample.n, w_load(r->weight + i));
    }
    sample.padded = sample.n;
    const double all = measure_above(&sample, weight, -3.4028234e38f, count), share = target / whole;
    if (!(all > 0 && share > 0 && share < 1))
        return;
    const double spread = 2 * sqrt(share * (1 - share) / (double)sample.n);
    const float high = halve(&sample, weight, k->least, w->max, SAMPLE_ROUNDS, count, (share - spread) * all);
    const float low = halve(&sample, weight, k->least, high, SAMPLE_ROUNDS, count, (share + spread) * all);
    const float step = (w->max - k->least) / (1 << SAMPLE_ROUNDS); /* the end above: what is left, but never below it */
    if (high + step < k->above)
        narrow(k, w, r->weight, high + step, count, target);
    if (low > k->least && low < k->above)
        narrow(k, w, r->weight, low, count, target);
}

/* Takes out of the row (-infinity, no weight) all behind the shortest ranked prefix whose count or weight reaches
 * `target` of `whole`; `least` is low enough for that. */
static void cut_row(row *w, const room *r, float least, bool count, double target, double whole)
{
    bracket k = {least, INFINITY, 0};
    size_t n;
    if (w->n >= 16 * MANY / EVERY)
        narrow_by_sample(&k, w, r, count, target, whole);
    while ((n = collect(r->work, w, r->weight, k.least, k.above, MANY)) > MANY) {
        const float high = k.above < w->max ? k.above : w->max, middle = k.least + (high - k.least) / 2;
        if (!(middle > k.least && middle < k.above)) { /* that many equal logits */
            n = collect(r->work, w, r->weight, k.least, k.above, w->n);
            break;
        }
        narrow(&k, w, r->weight, middle, count, target);
    }
    const uint64_t last = n > 0 ? select_boundary(r->work, n, count, target - k.taken) : 0;
    const entry end = {.rank = last};
    const float bound = n > 0 ? logit_of(&end) : k.least;
    const V limit = v_set1(bound), none = v_set1(-INFINITY);
    for (size_t i = 0; i < w->padded; i += VN) {
        const V x = v_load(w->x + i);
        if (v_bits_at_least(x, limit) != v_bits_less(limit, x)) { /* one that is equal */
            for (size_t t = i; t < i + VN; t++)
                if (w->x[t] < bound || (w->x[t] == bound && (uint32_t)t > token_of(&end))) {
                    w->x[t] = -INFINITY;
                    r->weight[t] = 0;
                }
        } else {
            v_store(w->x + i, v_select(x >= limit, x, none));
            v_store(r->weight + i, v_where_at_least(x, limit, v_load(r->weight + i)));
        }
    }
}

/* The kept tokens of a scaled row by top-k, top-p and min-p, of which at least one is on: how many are listed in
 * r->kept, or 0 and the others are taken out of the row. */
static size_t truncate_row(const room *r, row *w, const kn_choice *c)
{
    const bool by_count = c->top_k > 0 && c->top_k < w->n, by_mass = c->top_p < 1;
    const double all = weigh_row(r->weight, w), mass = by_mass && !by_count ? c->top_p * all : 0;
    float least = 0;
    double above = 0; /* no more than the number of tokens from `least` on: no weight is more than 1 */
    for (float reach = 4;; reach *= 2) {
        least = reach > 1000 ? -3.4028234e38f : w->max - reach;
        if (by_count || by_mass)
            above = measure_above(w, r->weight, least, by_count);
        if (reach > 1000 || (by_count ? above >= c->top_k : by_mass ? above >= mass : kn_exp(-reach) < 0.99 * c->min_p))
            break;
    }
    size_t n = above > FEW ? FEW + 1 : collect(r->kept, w, r->weight, least, INFINITY, FEW);
    if (n > FEW) {
        if (by_count)
            cut_row(w, r, least, true, c->top_k, (double)w->n);
        const double left = by_count ? measure_above(w, r->weight, least, false) : all;
        if (by_mass)
            cut_row(w, r, least, false, c->top_p * left, left);
        for (size_t i = 0; c->min_p > 0 && i < w->n; i++)
            if (r->weight[i] < c->min_p) {
                w->x[i] = -INFINITY;
                r->weight[i] = 0;
            }
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
 * where u < exp(x - best): the two logarithms are worked out for such stretches alone. weight = exp(x - max), mass = Σ
 * weight. */
static uint32_t draw_whole(const row *r, const float *weight, uint32_t start, const kn_draw *d, double *mass)
{
    const entry first = entry_of(r->x[start], 1, start);
    float best = draw_value(&first, d);
    uint32_t token = start;
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
                const V share = v_load(weight + at + 16 * n + w * VN);
                const V low = v_from_int((VI)(word[w][n] >> 8)) * v_set1(0x1p-24f); /* not above u */
                sum.v[w] = sum.v[w] + share;
                hit[w][n] = v_bits_less(low, share * ratio);
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
    const V max = v_set1(r->max);
    for (size_t i = 0; i < r->padded; i += VN) {
        const unsigned bits = v_bits_at_least(v_load(r->x + i), max);
        if (bits != 0)
            return (uint32_t)(i + (size_t)__builtin_ctz(bits));
    }
    return 0;
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
        if (!cut)
            weigh_row(r->weight, &w);
        token = draw_whole(&w, r->weight, token, &draw, &kept_mass);
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
