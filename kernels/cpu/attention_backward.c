/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The gradient of attention (formulas in kernels/reference/attention_backward.c). A piece of work is one key/value head
 * of one family: segments that share rows through prefixes, taken in order, so gradients of a shared prompt add up in
 * one fixed order. Within a segment, gradients of keys and values gather in scratch, query head by query head and row
 * by row, and are then added to the rows they belong to.
 */
#include "attend.h"
#include "scalar.h"

enum {
    ROWS = 32
}; /* query rows whose probabilities are held at once; relative to the segment, so a constant of the sums */

typedef struct backward_job {
    const kn_attention *a;
    const kn_segment *segment;
    const float *dout, *qkv, *out, *lse;
    float *dqkv;
    size_t *family; /* [segments]: segments in order of family, input order within one */
    size_t *first;  /* [families + 1] */
    size_t longest; /* keys, rounded up to 16 */
    size_t room;    /* floats a worker */
    float *scratch;
} backward_job;

/* A worker's scratch for one segment and head. */
typedef struct parts {
    float *keys_t, *values_t; /* blocks [head_dim][16] */
    float *keys;              /* [keys][head_dim] */
    float *dk, *dv;           /* [keys][head_dim] */
    float *p, *ds;            /* [ROWS][keys] */
    float *dot;               /* [ROWS] */
} parts;

static size_t parts_floats(const kn_attention *a, size_t longest)
{
    return 5 * longest * a->head_dim + 2 * ROWS * longest + ROWS;
}

static parts parts_of(float *at, const kn_attention *a, size_t longest)
{
    const size_t each = longest * a->head_dim;
    return (parts){.keys_t = at,
                   .values_t = at + each,
                   .keys = at + 2 * each,
                   .dk = at + 3 * each,
                   .dv = at + 4 * each,
                   .p = at + 5 * each,
                   .ds = at + 5 * each + ROWS * longest,
                   .dot = at + 5 * each + 2 * ROWS * longest};
}

static size_t key_row(const kn_segment *s, size_t j)
{
    return j < s->prefix_count ? s->prefix + j : s->row + (j - s->prefix_count);
}

static void lay_segment(const backward_job *j, const kn_segment *s, size_t kv, const parts *w)
{
    const kn_attention *a = j->a;
    const size_t hd = a->head_dim, width = kn_width(a), keys = s->prefix_count + s->count;
    for (size_t b = 0; b * 16 < keys; b++) {
        const float *k[16], *v[16];
        for (size_t i = 0; i < 16; i++) {
            const size_t key = b * 16 + i;
            k[i] = key < keys ? j->qkv + key_row(s, key) * width + (a->heads + kv) * hd : NULL;
            v[i] = k[i] ? k[i] + a->kv_heads * hd : NULL;
            if (k[i])
                memcpy(w->keys + key * hd, k[i], hd * sizeof(float));
        }
        KN(attend_transpose)(w->keys_t + b * 16 * hd, k, hd);
        KN(attend_transpose)(w->values_t + b * 16 * hd, v, hd);
    }
    memset(w->dk, 0, keys * hd * sizeof(float));
    memset(w->dv, 0, keys * hd * sizeof(float));
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

/* Query rows [i0, i1) of a segment, query head h. */
static void rows_backward(const backward_job *j, const kn_segment *s, size_t h, size_t i0, size_t i1, const parts *w)
{
    const kn_attention *a = j->a;
    const size_t hd = a->head_dim, width = kn_width(a), wide = a->heads * hd;
    const size_t position = s->prefix_count + i0, end = s->prefix_count + i1;
    const size_t seen = a->window > 0 && position + 1 > a->window ? position + 1 - a->window : 0;
    const size_t from = seen / 16, to = kn_ceil(end, 16), n = (to - from) * 16, key0 = from * 16;
    const float *q = j->qkv + (s->row + i0) * width + h * hd, *d = j->dout + (s->row + i0) * wide + h * hd;
    float *dq = j->dqkv + (s->row + i0) * width + h * hd;
    const kn_blocks keys_t = {w->keys_t, NULL, 16 * hd}, values_t = {w->values_t, NULL, 16 * hd};
    const kn_blocks keys = {w->keys, NULL, 16 * hd};
    for (size_t i = 0; i < i1 - i0; i += MR) {
        const size_t m = kn_min(MR, i1 - i0 - i);
        KN(attend_scores)(m, hd, a->scale, q + i * width, width, &keys_t, from, to, w->p + i * n, n);
        KN(attend_scores)(m, hd, 1.0f, d + i * wide, wide, &values_t, from, to, w->ds + i * n, n);
    }
    for (size_t i = 0; i < i1 - i0; i++) {
        const size_t t = s->row + i0 + i, at = position + i;
        const size_t first = a->window > 0 && at + 1 > a->window ? at + 1 - a->window : 0;
        const float dot = w_dot(j->dout + t * wide + h * hd, j->out + t * wide + h * hd, hd);
        row_gradient(w->p + i * n, w->ds + i * n, n, first - key0, at - key0, j->lse[t * a->heads + h], dot, a);
    }
    for (size_t i = 0; i < i1 - i0; i += MR)
        KN(attend_values)(kn_min(MR, i1 - i0 - i), hd, w->ds + i * n, n, &keys, from, end, NULL, dq + i * width, width);
    for (size_t k = key0; k < end; k += MR) {
        const size_t m = kn_min(MR, end - k);
        KN(attend_gradient)(m, hd, i1 - i0, w->ds + (k - key0), n, q, width, w->dk + k * hd);
        KN(attend_gradient)(m, hd, i1 - i0, w->p + (k - key0), n, d, wide, w->dv + k * hd);
    }
}

static void backward_piece(void *arg, size_t index, unsigned worker)
{
    const backward_job *j = arg;
    const kn_attention *a = j->a;
    const size_t family = index / a->kv_heads, kv = index % a->kv_heads, group = a->heads / a->kv_heads;
    const size_t hd = a->head_dim, width = kn_width(a);
    const parts w = parts_of(j->scratch + worker * j->room, a, j->longest);
    for (size_t n = j->first[family]; n < j->first[family + 1]; n++) {
        const kn_segment *s = &j->segment[j->family[n]];
        lay_segment(j, s, kv, &w);
        for (size_t h = kv * group; h < (kv + 1) * group; h++)
            for (size_t i = 0; i < s->count; i += ROWS)
                rows_backward(j, s, h, i, kn_min(s->count, i + ROWS), &w);
        for (size_t k = 0; k < s->prefix_count + s->count; k++) {
            float *dk = j->dqkv + key_row(s, k) * width + (a->heads + kv) * hd, *dv = dk + a->kv_heads * hd;
            for (size_t e = 0; e < hd; e++) {
                dk[e] += w.dk[k * hd + e];
                dv[e] += w.dv[k * hd + e];
            }
        }
    }
}

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

int KN(attention_backward)(kn_device *device, void *dqkv, const void *dout, const void *qkv, const void *out,
                           const float *lse, const kn_segment *segment, size_t segments, size_t T,
                           const kn_attention *a)
{
    kn_cpu *cpu = (kn_cpu *)device;
    if (a->heads == 0 || a->kv_heads == 0 || a->head_dim == 0 || a->heads % a->kv_heads != 0 || !(a->softcap >= 0))
        return KN_BAD_ARGUMENT;
    backward_job j = {.a = a, .segment = segment, .dout = dout, .qkv = qkv, .out = out, .lse = lse, .dqkv = dqkv};
    double pairs = 0;
    for (size_t i = 0; i < segments; i++) {
        const kn_segment *s = &segment[i];
        if (s->row > T || s->count > T - s->row ||
            (s->prefix_count > 0 && (s->prefix > T || s->prefix_count > T - s->prefix)))
            return KN_BAD_ARGUMENT;
        const size_t keys = kn_ceil(s->prefix_count + s->count, 16) * 16;
        j.longest = keys > j.longest ? keys : j.longest;
        pairs += (double)s->count * ((double)s->prefix_count + 0.5 * (double)s->count);
    }
    memset(dqkv, 0, T * kn_width(a) * sizeof(float));
    if (segments == 0)
        return KN_OK;
    j.room = parts_floats(a, j.longest);
    char *scratch =
        kn_scratch_take(cpu, j.room * kn_threads(cpu) * sizeof(float) + (3 * segments + 1) * sizeof(size_t));
    if (!scratch)
        return KN_NO_MEMORY;
    j.family = (size_t *)scratch;
    j.first = j.family + segments;
    size_t *root = j.first + segments + 1;
    j.scratch = (float *)(root + segments);
    const size_t families = find_families(segment, segments, j.family, j.first, root);
    if (families > 0)
        kn_run(cpu, families * a->kv_heads, pairs * a->heads * (0.1 * a->head_dim + 2), backward_piece, &j);
    kn_scratch_give(cpu, scratch);
    return families > 0 ? KN_OK : KN_BAD_ARGUMENT;
}
