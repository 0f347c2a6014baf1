/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Causal attention over packed segments and over cached pages. Both lay keys and values in blocks of sixteen by
 * absolute position and share attend_rows, so they agree to the bit. Scores of a few rows at a time are kept whole
 * (rows × keys), which lets the softmax's sum run by absolute key index, lane = index mod 16.
 */
#include "attend.h"

enum { CHUNK = 48 }; /* query rows of a piece */

/* --- a few rows --- */

/* Keys outside [first, last] of the block that starts at key `at`. */
KN_INLINE W hide(W x, size_t at, size_t first, size_t last)
{
    W_EACH(w)
    {
        const VI key = vi_iota() + (int32_t)(at + (size_t)w * VN);
        const VI seen = (key >= vi_set1((int32_t)first)) & (key <= vi_set1((int32_t)last));
        x.v[w] = v_select(seen, x.v[w], v_set1(-INFINITY));
    }
    return x;
}

/* Turns the scores s of n keys into exp(score - max), 0 outside [first, last]; gives max and Σ. n is a multiple of 16.
 */
static void softmax_row(float *s, size_t n, size_t first, size_t last, float softcap, float *max, float *sum)
{
    const size_t from = first / 16 * 16, to = last / 16 * 16 + 16;
    if (softcap > 0) {
        const V cap = v_set1(softcap), by = v_set1(1.0f / softcap);
        for (size_t i = from; i < to; i += VN)
            v_store(s + i, cap * v_tanh(v_load(s + i) * by));
    }
    w_store(s + from, hide(w_load(s + from), from, first, last));
    w_store(s + to - 16, hide(w_load(s + to - 16), to - 16, first, last));
    W top = w_load(s + from);
    for (size_t i = from + 16; i < to; i += 16)
        top = w_max(top, w_load(s + i));
    *max = w_max_lane(top);
    const V maxv = v_set1(*max);
    W total = w_set1(0);
    for (size_t i = from; i < to; i += 16) {
        W e = w_load(s + i);
        W_EACH(w)
        e.v[w] = v_exp(e.v[w] - maxv);
        total = w_add(total, e);
        w_store(s + i, e);
    }
    *sum = w_sum(total);
    for (size_t i = 0; i < from; i += 16)
        w_store(s + i, w_set1(0));
    for (size_t i = to; i < n; i += 16)
        w_store(s + i, w_set1(0));
}

/* m query rows against the blocks of one head; row r stands at position + r·step. */
static void attend_rows(size_t m, const float *q, size_t sm, size_t position, size_t step, const kn_blocks *keys,
                        const kn_attention *a, float *s, float *out, size_t so, float *lse, size_t sl)
{
    const size_t hd = a->head_dim, end = position + (m - 1) * step + 1;
    const size_t seen = a->window > 0 && position + 1 > a->window ? position + 1 - a->window : 0;
    const size_t from = seen / 16, to = kn_ceil(end, 16), ls = (to - from) * 16;
    const kn_blocks vals = {keys->base + 16 * hd, keys->pages, keys->stride};
    float max[16] = {0}, sum[16], factor[16], total[16];
    float *rows = s + m * ls; /* the queries side by side: in place they may crowd a few sets of the cache */
    for (size_t r = 0; r < m; r++)
        memcpy(rows + r * hd, q + r * sm, hd * sizeof(float));
    KN(attend_scores)(m, hd, a->scale, rows, hd, keys, from, to, s, ls);
    for (size_t r = 0; r < 16; r++)
        sum[r] = 1;
    for (size_t r = 0; r < m; r++) {
        const size_t at = position + r * step;
        const size_t first = a->window > 0 && at + 1 > a->window ? at + 1 - a->window : 0;
        softmax_row(s + r * ls, ls, first - from * 16, at - from * 16, a->softcap, &max[r], &sum[r]);
    }
    for (size_t r = 0; r < 16; r += VN) {
        v_store(factor + r, v_set1(1.0f) / v_load(sum + r));
        v_store(total + r, v_load(max + r) + v_log(v_load(sum + r)));
    }
    for (size_t r = 0; lse && r < m; r++)
        lse[r * sl] = total[r];
    KN(attend_values)(m, hd, s, ls, &vals, from, end, factor, out, so);
}

/* Query rows [i0, i1) of a sequence whose row i stands at position + i, all query heads of one key/value head. */
static void attend_chunk(const kn_attention *a, size_t kv, const float *qkv, size_t row, size_t position, size_t i0,
                         size_t i1, const kn_blocks *keys, float *s, float *out, float *lse)
{
    const size_t hd = a->head_dim, width = kn_width(a), group = a->heads / a->kv_heads, wide = a->heads * hd;
    if (i1 - i0 == 1) { /* one token: the heads of the group are the rows */
        const size_t t = row + i0;
        for (size_t g = 0; g < group; g += MR) {
            const size_t h = kv * group + g, m = kn_min(MR, group - g);
            attend_rows(m, qkv + t * width + h * hd, hd, position + i0, 0, keys, a, s, out + t * wide + h * hd, hd,
                        lse ? lse + t * a->heads + h : NULL, 1);
        }
        return;
    }
    for (size_t h = kv * group; h < (kv + 1) * group; h++)
        for (size_t i = i0; i < i1; i += MR) {
            const size_t m = kn_min(MR, i1 - i), t = row + i;
            attend_rows(m, qkv + t * width + h * hd, width, position + i, 1, keys, a, s, out + t * wide + h * hd, wide,
                        lse ? lse + t * a->heads + h : NULL, a->heads);
        }
}

/* --- packed segments --- */

typedef struct packed_job {
    const kn_attention *a;
    const kn_segment *segment;
    size_t segments;
    const float *qkv;
    float *out, *lse;
    size_t *first_piece; /* [segments + 1]: pieces of the segments before */
    size_t *first_block; /* [segments + 1]: blocks (of one head) of the segments before */
    float *blocks, *scores;
    size_t room; /* floats of scores a worker */
} packed_job;

/* The last segment whose `first` is not above index. */
static size_t find_segment(const size_t *first, size_t segments, size_t index)
{
    size_t lo = 0, hi = segments;
    while (hi - lo > 1) {
        const size_t middle = (lo + hi) / 2;
        if (first[middle] <= index)
            lo = middle;
        else
            hi = middle;
    }
    return lo;
}

static kn_blocks segment_blocks(const packed_job *j, size_t segment, size_t kv)
{
    const size_t each = kn_block_floats(j->a), count = j->first_block[segment + 1] - j->first_block[segment];
    return (kn_blocks){j->blocks + (j->first_block[segment] * j->a->kv_heads + kv * count) * each, NULL, each};
}

/* Lays one segment's keys and values of one head. */
static void lay_piece(void *arg, size_t index, unsigned worker)
{
    const packed_job *j = arg;
    const size_t hd = j->a->head_dim, width = kn_width(j->a), n = index / j->a->kv_heads, kv = index % j->a->kv_heads;
    const kn_segment *s = &j->segment[n];
    const size_t keys = s->prefix_count + s->count;
    const kn_blocks blocks = segment_blocks(j, n, kv);
    for (size_t b = 0; b * 16 < keys; b++) {
        const float *row[16];
        float *block = (float *)kn_block(&blocks, b);
        for (size_t i = 0; i < 16; i++) {
            const size_t key = b * 16 + i;
            const size_t t = key < s->prefix_count ? s->prefix + key : s->row + (key - s->prefix_count);
            row[i] = key < keys ? j->qkv + t * width + (j->a->heads + kv) * hd : NULL;
            if (row[i])
                memcpy(block + (16 + i) * hd, row[i] + j->a->kv_heads * hd, hd * sizeof(float));
        }
        KN(attend_transpose)(block, row, hd);
    }
}

static void packed_piece(void *arg, size_t index, unsigned worker)
{
    const packed_job *j = arg;
    const size_t n = find_segment(j->first_piece, j->segments, index), local = index - j->first_piece[n];
    const size_t kv = local % j->a->kv_heads, chunk = local / j->a->kv_heads;
    const kn_segment *s = &j->segment[n];
    const kn_blocks blocks = segment_blocks(j, n, kv);
    const size_t i0 = chunk * CHUNK, i1 = kn_min(s->count, i0 + CHUNK);
    attend_chunk(j->a, kv, j->qkv, s->row, s->prefix_count, i0, i1, &blocks, j->scores + worker * j->room, j->out,
                 j->lse);
}

static bool shape_ok(const kn_attention *a)
{
    return a->heads > 0 && a->kv_heads > 0 && a->head_dim > 0 && a->heads % a->kv_heads == 0 && a->softcap >= 0;
}

static bool segments_ok(const kn_segment *s, size_t segments, size_t T)
{
    for (size_t i = 0; i < segments; i++)
        if (s[i].row > T || s[i].count > T - s[i].row ||
            (s[i].prefix_count > 0 && (s[i].prefix > T || s[i].prefix_count > T - s[i].prefix)))
            return false;
    return true;
}

int KN(attention)(kn_device *device, void *out, float *lse, const void *qkv, const kn_segment *segment, size_t segments,
                  size_t T, const kn_attention *a)
{
    kn_cpu *cpu = (kn_cpu *)device;
    if (!shape_ok(a) || !segments_ok(segment, segments, T))
        return KN_BAD_ARGUMENT;
    size_t blocks = 0, longest = 0;
    double pairs = 0;
    for (size_t i = 0; i < segments; i++) {
        const size_t keys = segment[i].prefix_count + segment[i].count;
        blocks += kn_ceil(keys, 16);
        longest = keys > longest ? keys : longest;
        pairs += (double)segment[i].count * ((double)segment[i].prefix_count + 0.5 * (double)segment[i].count);
    }
    packed_job j = {.a = a,
                    .segment = segment,
                    .segments = segments,
                    .qkv = qkv,
                    .out = out,
                    .lse = lse,
                    .room = MR * ((kn_ceil(longest, 16) + 1) * 16 + a->head_dim)};
    const size_t block_floats = blocks * a->kv_heads * kn_block_floats(a);
    char *scratch = kn_scratch_take(cpu, (block_floats + j.room * kn_threads(cpu)) * sizeof(float) +
                                             2 * (segments + 1) * sizeof(size_t));
    if (!scratch)
        return KN_NO_MEMORY;
    j.first_piece = (size_t *)scratch;
    j.first_block = j.first_piece + segments + 1;
    j.blocks = (float *)(j.first_block + segments + 1);
    j.scores = j.blocks + block_floats;
    j.first_piece[0] = j.first_block[0] = 0;
    for (size_t i = 0; i < segments; i++) {
        j.first_piece[i + 1] = j.first_piece[i] + kn_ceil(segment[i].count, CHUNK) * a->kv_heads;
        j.first_block[i + 1] = j.first_block[i] + kn_ceil(segment[i].prefix_count + segment[i].count, 16);
    }
    kn_run(cpu, segments * a->kv_heads, 0.3 * (double)block_floats, lay_piece, &j);
    kn_run(cpu, j.first_piece[segments], pairs * a->heads * (0.04 * a->head_dim + 1), packed_piece, &j);
    kn_scratch_give(cpu, scratch);
    return KN_OK;
}

/* --- cached pages --- */

typedef struct cached_job {
    const kn_attention *a;
    const kn_cached_rows *rows;
    const float *qkv;
    float *out, *layer, *scores;
    size_t room;
} cached_job;

/* One sequence, one key/value head: writes its rows into the pages, then attends. */
static void cached_piece(void *arg, size_t index, unsigned worker)
{
    const cached_job *j = arg;
    const kn_attention *a = j->a;
    const size_t hd = a->head_dim, width = kn_width(a), kv = index % a->kv_heads, each = kn_block_floats(a);
    const kn_cached_rows *s = &j->rows[index / a->kv_heads];
    const kn_blocks blocks = {j->layer + kv * each, s->pages, each * a->kv_heads};
    for (size_t i = 0; i < s->count; i++) {
        const size_t at = s->position + i;
        const float *k = j->qkv + (s->row + i) * width + (a->heads + kv) * hd, *v = k + a->kv_heads * hd;
        float *block = (float *)kn_block(&blocks, at / 16);
        for (size_t e = 0; e < hd; e++)
            block[e * 16 + at % 16] = k[e];
        memcpy(block + (16 + at % 16) * hd, v, hd * sizeof(float));
    }
    for (size_t i = 0; i < s->count; i += CHUNK)
        attend_chunk(a, kv, j->qkv, s->row, s->position, i, kn_min(s->count, i + CHUNK), &blocks,
                     j->scores + worker * j->room, j->out, NULL);
}

int KN(attention_cached)(kn_device *device, void *out, const void *qkv, kn_cache *c, size_t layer,
                         const kn_cached_rows *rows, size_t sequences, size_t T)
{
    kn_cpu *cpu = (kn_cpu *)device;
    const kn_attention *a = &c->shape;
    if (layer >= c->layers)
        return KN_BAD_ARGUMENT;
    size_t longest = 0;
    double pairs = 0;
    for (size_t i = 0; i < sequences; i++) {
        const size_t keys = rows[i].position + rows[i].count;
        if (rows[i].row > T || rows[i].count > T - rows[i].row)
            return KN_BAD_ARGUMENT;
        for (size_t p = 0; p * KN_PAGE < keys; p++)
            if (rows[i].pages[p] >= c->pages)
                return KN_BAD_ARGUMENT;
        longest = keys > longest ? keys : longest;
        pairs += (double)rows[i].count * (double)keys;
    }
    cached_job j = {.a = a,
                    .rows = rows,
                    .qkv = qkv,
                    .out = out,
                    .room = MR * ((kn_ceil(longest, 16) + 1) * 16 + a->head_dim),
                    .layer = c->data + layer * c->pages * a->kv_heads * kn_block_floats(a)};
    j.scores = kn_scratch_take(cpu, j.room * kn_threads(cpu) * sizeof(float));
    if (!j.scores)
        return KN_NO_MEMORY;
    const double cost = pairs * a->heads * (0.04 * a->head_dim + 1) + 0.5 * (double)T * a->kv_heads * a->head_dim;
    kn_run(cpu, sequences * a->kv_heads, cost, cached_piece, &j);
    kn_scratch_give(cpu, j.scores);
    return KN_OK;
}
