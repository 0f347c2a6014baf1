/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * From a row of logits to a token. What is kept is exactly what sorting would keep (kernels/reference/choose.c); found
 * instead by collecting the tokens within some distance of the largest logit, widening that until they are enough, and
 * selecting among those few.
 */
#include "draw.h"
#include "ops.h"
#include "scalar.h"

typedef struct entry {
    float logit, weight; /* weight = exp(logit - largest) */
    uint32_t token;
} entry;

/* A worker's scratch. */
typedef struct room {
    entry *kept;      /* [vocab], by token */
    entry *work;      /* [vocab], for selecting */
    uint32_t *seen;   /* [vocab]: distinct penalized tokens */
    float *seen_was;  /* their logits before */
    uint64_t *marked; /* a bit a token */
    float *scaled;    /* [vocab, rounded up to 64] */
} room;

static size_t room_bytes(size_t vocab)
{
    return vocab * (2 * sizeof(entry) + 8) + (vocab / 64 + 1) * (64 * 4 + 8);
}

static room room_at(char *p, size_t vocab)
{
    room r = {.scaled = (float *)p};
    r.marked = (uint64_t *)(r.scaled + (vocab / 64 + 1) * 64);
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

/* Σ exp(x - max) */
static double row_mass(const row *r)
{
    double sum = 0;
    for (size_t at = 0; at < r->n; at += 256) {
        W part = w_set1(0);
        for (size_t i = at; i < kn_min(r->n, at + 256); i += 16) {
            W x = w_load(r->x + i);
            W_EACH(w)
            part.v[w] = part.v[w] + v_exp(x.v[w] - v_set1(r->max));
        }
        sum += w_sum(part);
    }
    return sum;
}

/* Tokens within `reach` of the largest (and above -infinity), in order of token. */
static size_t collect(entry *e, const row *r, float reach)
{
    size_t count = 0;
    const float least = reach < INFINITY ? r->max - reach : -3.4028234e38f;
    const V bound = v_set1(least);
    for (size_t i = 0; i < r->n; i += 16) {
        W x = w_load(r->x + i);
        VI some = {0};
        W_EACH(w)
        some |= x.v[w] >= bound;
        if (!v_any(some))
            continue;
        float weight[16];
        W_EACH(w)
        x.v[w] = v_exp(x.v[w] - v_set1(r->max));
        w_store(weight, x);
        for (size_t k = 0; k < 16; k++)
            if (r->x[i + k] >= least)
                e[count++] = (entry){r->x[i + k], weight[k], (uint32_t)(i + k)};
    }
    return count;
}

/* --- truncation --- */

static bool ranks_before(const entry *a, const entry *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->token < b->token);
}

static double measure(const entry *e, size_t n, bool count)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += e[i].weight;
    return count ? (double)n : sum;
}

/* The last entry of the shortest ranked prefix whose count or weight reaches `target` (all of them reach it, or the
 * last ranked entry is given). Partitions e as quickselect does. */
static entry select_boundary(entry *e, size_t n, bool count, double target)
{
    while (n > 1) {
        const entry a = e[0], b = e[n / 2], c = e[n - 1]; /* the median of three as pivot */
        const entry pivot = ranks_before(&a, &b) ? (ranks_before(&b, &c)   ? b
                                                    : ranks_before(&a, &c) ? c
                                                                           : a)
                                                 : (ranks_before(&a, &c)   ? a
                                                    : ranks_before(&b, &c) ? c
                                                                           : b);
        size_t before = 0;
        for (size_t i = 0; i < n; i++)
            if (ranks_before(&e[i], &pivot)) {
                const entry swap = e[i];
                e[i] = e[before];
                e[before++] = swap;
            }
        const double mass = measure(e, before, count);
        if (before > 0 && mass >= target) {
            n = before;
            continue;
        }
        const double with = mass + (count ? 1 : pivot.weight);
        if (with >= target || before + 1 == n)
            return pivot;
        size_t left = before; /* drop the pivot and all before it */
        for (size_t i = before; i < n; i++)
            if (ranks_before(&pivot, &e[i])) {
                const entry swap = e[i];
                e[i] = e[left];
                e[left++] = swap;
            }
        e += before;
        n = left - before;
        target -= with;
    }
    return e[0];
}

/* Keeps the entries up to the boundary, in their order. */
static size_t keep_prefix(entry *e, size_t n, entry *work, bool count, double target)
{
    memcpy(work, e, n * sizeof(*e));
    const entry last = select_boundary(work, n, count, target);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (!ranks_before(&last, &e[i]))
            e[kept++] = e[i];
    return kept;
}

/* The kept tokens of a scaled row by top-k, top-p and min-p, of which at least one is on. */
static size_t truncate_row(const room *r, const row *w, const kn_choice *c)
{
    const bool by_count = c->top_k > 0 && c->top_k < w->n, by_mass = c->top_p < 1;
    const double mass = by_mass && !by_count ? c->top_p * row_mass(w) : 0;
    size_t n = 0;
    for (float reach = 4;; reach *= 2) {
        reach = reach > 1000 ? INFINITY : reach;
        n = collect(r->kept, w, reach);
        if (reach == INFINITY || (by_count  ? n >= c->top_k
                                  : by_mass ? measure(r->kept, n, false) >= mass
                                            : kn_exp(-reach) < 0.99 * c->min_p))
            break;
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
        token[k] = e[k < n ? k : 0].token;
        x[k] = e[k < n ? k : 0].logit;
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
    uint32_t token = e[0].token;
    for (size_t i = 0; i < n; i += 16) {
        float value[16];
        draw_values(value, e + i, kn_min(16, n - i), d);
        for (size_t k = 0; k < kn_min(16, n - i); k++)
            if (value[k] > best) {
                best = value[k];
                token = e[i + k].token;
            }
    }
    return token;
}

/* Every token of the row; sixty-four at a time share their counters. -log(1 - u) is at least u, so a token can only win
 * where u < exp(x - best): the two logarithms are worked out for such stretches alone. mass = Σ exp(x - max). */
static uint32_t draw_whole(const row *r, uint32_t start, const kn_draw *d, double *mass)
{
    const entry first = {r->x[start], 1, start};
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
        VI some = {0};
        W_EACH(w)
        {
            VU word[4];
            draw_words(word, d, (VU)(vi_iota() + (int32_t)(at / 4 + (size_t)w * VN)));
            KN_UNROLL
            for (int n = 0; n < 4; n++) {
                const V weight = v_exp(v_load(r->x + at + 16 * n + w * VN) - max);
                const V low = v_from_int((VI)(word[n] >> 8)) * v_set1(0x1p-24f); /* not above u */
                sum.v[w] = sum.v[w] + weight;
                some |= low < weight * ratio;
            }
        }
        if (!v_any(some))
            continue;
        for (size_t w = 0; w < NW; w++) {
            VU word[4];
            draw_words(word, d, (VU)(vi_iota() + (int32_t)(at / 4 + w * VN)));
            for (size_t n = 0; n < 4; n++) {
                float value[VN];
                const size_t from = at + 16 * n + w * VN;
                v_store(value, v_load(r->x + from) + draw_gumbel(word[n]));
                for (size_t k = 0; k < VN; k++)
                    if (value[k] > best || (value[k] == best && from + k < token)) {
                        best = value[k];
                        token = (uint32_t)(from + k);
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
    const row w = scale_row(r->scaled, l, vocab, greedy ? 1.0f : c->temperature);
    if (!(w.max > -INFINITY && w.max < INFINITY))
        return KN_BAD_ARGUMENT;
    uint32_t token = first_largest(&w);
    double kept_mass = 1; /* Σ exp(logit - max) over what was kept */
    if (!greedy && cut) {
        const size_t n = truncate_row(r, &w, c);
        token = draw_listed(r->kept, n, &draw);
        kept_mass = measure(r->kept, n, false);
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
