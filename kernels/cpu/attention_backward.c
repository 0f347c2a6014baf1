/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The gradient of attention (formulas in kernels/reference/attention_backward.c). A unit of work is one key/value head
 * of one family: segments that share rows through prefixes, taken in order, so gradients of a shared prompt add up in
 * one fixed order. Within a segment, gradients of keys and values gather in scratch, query head by query head and chunk
 * by chunk of query rows, and are then added to those of the rows they belong to.
 *
 * Units run side by side. One that is a large part of the whole is instead shared by all threads: some chunks of query
 * rows at a time, first the chunks side by side, then their sums for keys and values, stretches of keys side by side.
 * Every sum has the same terms in the same order either way.
 */
#include "layout.h"

enum {
    ROWS = 32,    /* query rows of a chunk; relative to the segment, so a constant of the sums */
    STRETCH = 64, /* keys of a piece, and the most chunks at once, when a unit is shared */
    HELD = 64,
};

typedef struct backward_job {
    const kn_attention *a;
    const kn_segment *segment;
    const E *dout, *qkv, *out;
    const float *lse;
    E *dqkv;
    float *sum; /* gradients of keys and values: row t's keys at sum + t·sum_width, its values kv_heads·head_dim on */
    size_t sum_width;
    size_t *family; /* [segments]: segments in order of family, input order within one */
    size_t *first;  /* [families + 1] */
    size_t *alone;  /* families whose units run on one thread each */
    size_t longest; /* keys, rounded up to 16 */
    size_t room;    /* floats a worker */
    float *scratch;
    size_t T, pieces; /* rows of `sum`, to be rounded at the end */
} backward_job;

/* Scratch for one segment and head. */
typedef struct parts {
    float *keys_t, *values_t; /* blocks [head_dim][16] */
    float *keys;              /* [keys][head_dim] */
    float *dk, *dv;           /* [keys][head_dim] */
} parts;

/* Query rows [i0, i1) of a segment and one head: their probabilities and score gradients for keys [key0, end). */
typedef struct chunk {
    size_t i0, i1, key0, end, n; /* n = end - key0 rounded up to 16 */
    float *q, *d, *wide;         /* [ROWS][head_dim]: queries, gradients of results, room */
    float *p, *ds;               /* [i1 - i0][n] */
} chunk;

static size_t parts_size(const kn_attention *a, size_t longest)
{
    return 5 * longest * a->head_dim;
}

static size_t chunk_size(const kn_attention *a, size_t longest)
{
    return kn_line(ROWS * (2 * longest + 3 * a->head_dim));
}

static parts parts_of(float *at, const kn_attention *a, size_t longest)
{
    const size_t each = longest * a->head_dim;
    return (parts){at, at + each, at + 2 * each, at + 3 * each, at + 4 * each};
}

static chunk chunk_of(float *at, const kn_attention *a, size_t longest)
{
    const size_t rows = ROWS * a->head_dim;
    return (chunk){
        .q = at, .d = at + rows, .wide = at + 2 * rows, .p = at + 3 * rows, .ds = at + 3 * rows + ROWS * longest};
}

/* Keys and values of blocks [from, to) as the products want them. */
static void lay_blocks(const backward_job *j, const kn_segment *s, size_t kv, const parts *w, size_t from, size_t to)
{
    const kn_attention *a = j->a;
    const size_t hd = a->head_dim, width = kn_width(a), keys = s->prefix_count + s->count;
    for (size_t b = from; b < to; b++) {
        const E *k[16], *v[16];
        for (size_t i = 0; i < 16; i++) {
            const size_t key = b * 16 + i;
            k[i] = key < keys ? j->qkv + key_row(s, key) * width + (a->heads + kv) * hd : NULL;
            v[i] = k[i] ? k[i] + a->kv_heads * hd : NULL;
            if (k[i])
                e_widen(w->keys + key * hd, k[i], hd);
        }
        lay_transposed(w->keys_t + b * 16 * hd, k, hd);
        lay_transposed(w->values_t + b * 16 * hd, v, hd);
    }
    memset(w->dk + from * 16 * hd, 0, (to - from) * 16 * hd * sizeof(float));
    memset(w->dv + from * 16 * hd, 0, (to - from) * 16 * hd * sizeof(float));
}

/* p and ds of one row: scores in s and dout·v in dp become probabilities and score gradients (times scale), 0 outside
 * keys [first, last]. n is a multiple of 16. */
static void row_gradient(float *s, float *dp, size_t n, size_t first, size_t last, float lse, float dot,
                         const kn_attention *a)
{
    const V lsev = v_set1(lse), dotv = v_set1(dot), scale = v_set1(a->scale);
    const V cap = v_set1(a->softcap), by = v_set1(a->softcap > 0 ? 1.0f / a->softcap : 0);
    for (size_t i = first / 16 * 16; i <= last; i += VN) {
        V score = v_load(s + i), slope = scale;
        if (a->softcap > 0) {
            const V th = v_tanh(score * by);
            score = cap * th;
            slope = scale * v_fnma(th, th, v_set1(1.0f));
        }
        const V p = v_exp(score - lsev);
        v_store(s + i, p);
        v_store(dp + i, p * (v_load(dp + i) - dotv) * slope);
    }
    for (size_t i = 0; i < first; i++)
        s[i] = dp[i] = 0;
    for (size_t i = last + 1; i < n; i++)
        s[i] = dp[i] = 0;
}

/* Fills a chunk (i0 and i1 are given), and writes the gradients of its queries. */
static void chunk_queries(const backward_job *j, const kn_segment *s, size_t h, const parts *w, chunk *c)
{
    const kn_attention *a = j->a;
    const size_t hd = a->head_dim, width = kn_width(a), wide = a->heads * hd, rows = c->i1 - c->i0;
    const size_t position = s->prefix_count + c->i0, row = s->row + c->i0;
    const size_t seen = a->window > 0 && position + 1 > a->window ? position + 1 - a->window : 0;
    const size_t from = seen / 16, to = kn_ceil(position + rows, 16), n = (to - from) * 16;
    const kn_blocks keys_t = {w->keys_t, NULL, 16 * hd, false}, values_t = {w->values_t, NULL, 16 * hd, false};
    const kn_blocks keys = {w->keys, NULL, 16 * hd, false};
    c->key0 = from * 16;
    c->end = position + rows;
    c->n = n;
    for (size_t i = 0; i < rows; i++) {
        e_widen(c->q + i * hd, j->qkv + (row + i) * width + h * hd, hd);
        e_widen(c->d + i * hd, j->dout + (row + i) * wide + h * hd, hd);
    }
    for (size_t i = 0; i < rows; i += MR) {
        const size_t m = kn_min(MR, rows - i);
        KN(attend_scores)(m, hd, a->scale, c->q + i * hd, hd, &keys_t, from, to, c->p + i * n, n);
        KN(attend_scores)(m, hd, 1.0f, c->d + i * hd, hd, &values_t, from, to, c->ds + i * n, n);
    }
    for (size_t i = 0; i < rows; i++) {
        const size_t t = row + i, at = position + i;
        const size_t first = a->window > 0 && at + 1 > a->window ? at + 1 - a->window : 0;
        const float dot = e_dot(j->dout + t * wide + h * hd, j->out + t * wide + h * hd, hd);
        row_gradient(c->p + i * n, c->ds + i * n, n, first - c->key0, at - c->key0, j->lse[t * a->heads + h], dot, a);
    }
    E *dq = j->dqkv + row * width + h * hd;
    for (size_t i = 0; i < rows; i += MR) {
        const size_t m = kn_min(MR, rows - i);
        attend_values_to(m, hd, c->ds + i * n, n, &keys, from, c->end, NULL, c->wide, dq + i * width, width);
    }
}

/* Adds a chunk's part to the gradients of keys and values [from, to). */
static void chunk_keys(const kn_attention *a, const chunk *c, const parts *w, size_t from, size_t to)
{
    const size_t hd = a->head_dim, rows = c->i1 - c->i0;
    from = from > c->key0 ? from : c->key0;
    to = kn_min(to, c->end);
    for (size_t k = from; k < to; k += MR) {
        const size_t m = kn_min(MR, to - k);
        KN(attend_gradient)(m, hd, rows, c->ds + (k - c->key0), c->n, c->q, hd, w->dk + k * hd);
        KN(attend_gradient)(m, hd, rows, c->p + (k - c->key0), c->n, c->d, hd, w->dv + k * hd);
    }
}

/* Adds a segment's gradients of keys and values [from, to) to those of their rows. */
static void add_keys(const backward_job *j, const kn_segment *s, size_t kv, const parts *w, size_t from, size_t to)
{
    const size_t hd = j->a->head_dim;
    for (size_t k = from; k < to; k++) {
        float *dk = j->sum + key_row(s, k) * j->sum_width + kv * hd, *dv = dk + j->a->kv_heads * hd;
        for (size_t e = 0; e < hd; e++) {
            dk[e] += w->dk[k * hd + e];
            dv[e] += w->dv[k * hd + e];
        }
    }
}

/* --- units on one thread each --- */

static void unit_piece(void *arg, size_t index, unsigned worker)
{
    const backward_job *j = arg;
    const kn_attention *a = j->a;
    const size_t family = j->alone[index / a->kv_heads], kv = index % a->kv_heads, group = a->heads / a->kv_heads;
    float *scratch = j->scratch + worker * j->room;
    const parts w = parts_of(scratch, a, j->longest);
    chunk c = chunk_of(scratch + parts_size(a, j->longest), a, j->longest);
    for (size_t n = j->first[family]; n < j->first[family + 1]; n++) {
        const kn_segment *s = &j->segment[j->family[n]];
        const size_t keys = s->prefix_count + s->count;
        lay_blocks(j, s, kv, &w, 0, kn_ceil(keys, 16));
        for (size_t h = kv * group; h < (kv + 1) * group; h++)
            for (size_t i = 0; i < s->count; i += ROWS) {
                c.i0 = i;
                c.i1 = kn_min(s->count, i + ROWS);
                chunk_queries(j, s, h, &w, &c);
                chunk_keys(a, &c, &w, 0, keys);
            }
        add_keys(j, s, kv, &w, 0, keys);
    }
}

/* --- a unit on all threads --- */

typedef struct shared_job {
    const backward_job *j;
    const kn_segment *s;
    size_t kv, h, keys;
    parts w;
    chunk *chunk;
    size_t chunks;
} shared_job;

static void shared_lay(void *arg, size_t index, unsigned worker)
{
    const shared_job *u = arg;
    const size_t per = STRETCH / 16;
    lay_blocks(u->j, u->s, u->kv, &u->w, index * per, kn_min((index + 1) * per, kn_ceil(u->keys, 16)));
}

static void shared_queries(void *arg, size_t index, unsigned worker)
{
    const shared_job *u = arg;
    chunk_queries(u->j, u->s, u->h, &u->w, &u->chunk[index]);
}

static void shared_keys(void *arg, size_t index, unsigned worker)
{
    const shared_job *u = arg;
    for (size_t i = 0; i < u->chunks; i++)
        chunk_keys(u->j->a, &u->chunk[i], &u->w, index * STRETCH, (index + 1) * STRETCH);
}

static void shared_add(void *arg, size_t index, unsigned worker)
{
    const shared_job *u = arg;
    add_keys(u->j, u->s, u->kv, &u->w, index * STRETCH, kn_min((index + 1) * STRETCH, u->keys));
}

/* One head of one segment, `held` chunks at a time. */
static void share_segment(kn_cpu *cpu, shared_job *u, size_t held)
{
    const kn_attention *a = u->j->a;
    const size_t group = a->heads / a->kv_heads, stretches = kn_ceil(u->keys, STRETCH);
    const double lay_cost = 0.5 * (double)(u->keys * a->head_dim);
    kn_run(cpu, stretches, lay_cost, shared_lay, u);
    for (u->h = u->kv * group; u->h < (u->kv + 1) * group; u->h++)
        for (size_t i = 0; i < u->s->count; i += held * ROWS) {
            u->chunks = kn_min(held, kn_ceil(u->s->count - i, ROWS));
            for (size_t c = 0; c < u->chunks; c++) {
                u->chunk[c].i0 = i + c * ROWS;
                u->chunk[c].i1 = kn_min(u->s->count, i + (c + 1) * ROWS);
            }
            const double product = (double)(u->chunks * ROWS) * (double)u->keys * (0.02 * a->head_dim + 1);
            kn_run(cpu, u->chunks, 3 * product, shared_queries, u);
            kn_run(cpu, stretches, 2 * product, shared_keys, u);
        }
    kn_run(cpu, stretches, lay_cost, shared_add, u);
}

static int share_families(kn_cpu *cpu, const backward_job *j, const size_t *family, size_t families)
{
    const kn_attention *a = j->a;
    const size_t held = kn_min(HELD, 2 * kn_threads(cpu)); /* two a thread: they are uneven */
    const size_t each = chunk_size(a, j->longest), before = kn_line(parts_size(a, j->longest));
    if (families == 0)
        return KN_OK;
    float *scratch = kn_scratch_take(cpu, (before + held * each) * sizeof(float));
    if (!scratch)
        return KN_NO_MEMORY;
    chunk chunks[HELD];
    for (size_t c = 0; c < held; c++)
        chunks[c] = chunk_of(scratch + before + c * each, a, j->longest);
    shared_job u = {.j = j, .w = parts_of(scratch, a, j->longest), .chunk = chunks};
    for (size_t f = 0; f < families; f++)
        for (u.kv = 0; u.kv < a->kv_heads; u.kv++)
            for (size_t n = j->first[family[f]]; n < j->first[family[f] + 1]; n++) {
                u.s = &j->segment[j->family[n]];
                u.keys = u.s->prefix_count + u.s->count;
                share_segment(cpu, &u, held);
            }
    kn_scratch_give(cpu, scratch);
    return KN_OK;
}

/* --- families --- */

/* The segment that holds row t, or `segments`. */
static size_t owner_of(const kn_segment *s, size_t segments, size_t t)
{
    size_t i = 0;
    while (i < segments && !(t >= s[i].row && t - s[i].row < s[i].count))
        i++;
    return i;
}

/* Sorts segments into families: a segment belongs to the family of the segment its prefix lies in. Gives the number of
 * families, or 0 when a prefix lies across segments or not before its reader. root is room for `segments` numbers. */
static size_t find_families(const kn_segment *s, size_t segments, size_t *family, size_t *first, size_t *root)
{
    size_t families = 0, last_prefix = SIZE_MAX, last_owner = 0;
    for (size_t i = 0; i < segments; i++) {
        if (s[i].prefix_count == 0 || s[i].count == 0) {
            root[i] = families++;
            continue;
        }
        if (s[i].prefix != last_prefix) {
            last_prefix = s[i].prefix;
            last_owner = owner_of(s, i, s[i].prefix);
        }
        if (last_owner >= i || s[i].prefix + s[i].prefix_count > s[last_owner].row + s[last_owner].count)
            return 0;
        root[i] = root[last_owner];
    }
    for (size_t f = 0; f <= families; f++)
        first[f] = 0;
    for (size_t i = 0; i < segments; i++)
        first[root[i] + 1]++;
    for (size_t f = 0; f < families; f++)
        first[f + 1] += first[f];
    for (size_t i = 0; i < segments; i++)
        family[first[root[i]]++] = i;
    for (size_t f = families; f > 0; f--)
        first[f] = first[f - 1];
    first[0] = 0;
    return families;
}

/* Pairs of a query and a key that it sees (without windows). */
static double pairs_of(const kn_segment *s)
{
    return (double)s->count * ((double)s->prefix_count + 0.5 * (double)s->count);
}

/* Puts the families that one thread takes alone first in `to`, the shared ones behind them; gives the number of the
 * former. A family is shared when one head of it is more than half of what a thread would get, and worth the waiting
 * of threads for one another. */
static size_t part_families(const kn_cpu *cpu, const backward_job *j, size_t families, double ns_a_pair, double pairs,
                            size_t *to)
{
    size_t alone = 0, shared = families;
    for (size_t f = 0; f < families; f++) {
        double mine = 0;
        for (size_t n = j->first[f]; n < j->first[f + 1]; n++)
            mine += pairs_of(&j->segment[j->family[n]]);
        const bool large = 2.0 * kn_threads(cpu) * mine > pairs * j->a->kv_heads;
        if (large && kn_threads(cpu) > 1 && mine * ns_a_pair > 1e6)
            to[--shared] = f;
        else
            to[alone++] = f;
    }
    return alone;
}

#ifdef KN_ELEMENT_BF16
/* The gradients of keys and values, rounded to where they belong. */
static void narrow_piece(void *arg, size_t index, unsigned worker)
{
    const backward_job *j = arg;
    E *dkv = j->dqkv + (size_t)j->a->heads * j->a->head_dim;
    for (size_t t = kn_cut(j->T, j->pieces, index); t < kn_cut(j->T, j->pieces, index + 1); t++)
        e_narrow(dkv + t * kn_width(j->a), j->sum + t * j->sum_width, j->sum_width);
}
#endif

static int run_families(kn_cpu *cpu, backward_job *j, size_t families, double ns_a_pair, double pairs, size_t *order)
{
    const kn_attention *a = j->a;
    const size_t alone = part_families(cpu, j, families, ns_a_pair, pairs, order);
    const int status = share_families(cpu, j, order + alone, families - alone);
    if (status != KN_OK)
        return status;
    j->alone = order;
    kn_run(cpu, alone * a->kv_heads, pairs * ns_a_pair, unit_piece, j);
    return KN_OK;
}

int KE(attention_backward)(kn_device *device, void *dqkv, const void *dout, const void *qkv, const void *out,
                           const float *lse, const kn_segment *segment, size_t segments, size_t T,
                           const kn_attention *a)
{
    kn_cpu *cpu = (kn_cpu *)device;
    if (!attention_shape_ok(a) || !segments_ok(segment, segments, T))
        return KN_BAD_ARGUMENT;
    backward_job j = {.a = a, .segment = segment, .dout = dout, .qkv = qkv, .out = out, .lse = lse, .dqkv = dqkv};
    double pairs = 0;
    for (size_t i = 0; i < segments; i++) {
        const size_t keys = kn_ceil(segment[i].prefix_count + segment[i].count, 16) * 16;
        j.longest = keys > j.longest ? keys : j.longest;
        pairs += pairs_of(&segment[i]);
    }
    memset(dqkv, 0, T * kn_width(a) * sizeof(E));
    if (segments == 0)
        return KN_OK;
    const size_t kv_width = 2 * (size_t)a->kv_heads * a->head_dim, sums = sizeof(E) == 2 ? T * kv_width : 0;
    j.room = kn_line(parts_size(a, j.longest) + chunk_size(a, j.longest));
    float *scratch = kn_scratch_take(cpu, (j.room * kn_threads(cpu) + kn_line(sums)) * sizeof(float) +
                                              (4 * segments + 1) * sizeof(size_t));
    if (!scratch)
        return KN_NO_MEMORY;
    j.scratch = scratch;
#ifdef KN_ELEMENT_BF16
    j.sum = scratch + j.room * kn_threads(cpu);
    j.sum_width = kv_width;
    memset(j.sum, 0, sums * sizeof(float));
#else
    j.sum = j.dqkv + (size_t)a->heads * a->head_dim;
    j.sum_width = kn_width(a);
#endif
    j.family = (size_t *)(scratch + j.room * kn_threads(cpu) + kn_line(sums));
    j.first = j.family + segments;
    size_t *order = j.first + segments + 1, *root = order + segments;
    const size_t families = find_families(segment, segments, j.family, j.first, root);
    int status = KN_BAD_ARGUMENT;
    if (families > 0)
        status = run_families(cpu, &j, families, a->heads * (0.1 * a->head_dim + 2), pairs, order);
#ifdef KN_ELEMENT_BF16
    if (status == KN_OK) {
        j.T = T;
        j.pieces = kn_pieces(cpu, T, 0.15 * (double)sums);
        kn_run(cpu, j.pieces, 0.15 * (double)sums, narrow_piece, &j);
    }
#endif
    kn_scratch_give(cpu, scratch);
    return status;
}
