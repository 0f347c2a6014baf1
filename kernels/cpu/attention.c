/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Causal attention over packed segments and over cached pages. Both lay keys and values in blocks of sixteen by
 * absolute position and share attend_rows, so they agree to the bit. Scores of a few rows at a time are kept whole
 * (rows × keys), which lets the softmax's sum run by absolute key index, lane = index mod 16.
 */
#include "layout.h"

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
static void attend_rows(size_t m, const E *q, size_t sm, size_t position, size_t step, const kn_blocks *keys,
                        const kn_blocks *values, const kn_attention *a, float *s, E *out, size_t so, float *lse,
                        size_t sl)
{
    const size_t hd = a->head_dim, end = position + (m - 1) * step + 1;
    const size_t seen = a->window > 0 && position + 1 > a->window ? position + 1 - a->window : 0;
    const size_t from = seen / 16, to = kn_ceil(end, 16), ls = (to - from) * 16;
    float max[16] = {0}, sum[16], factor[16], total[16];
    float *rows = s + m * ls; /* the queries side by side: in place they may crowd a few sets of the cache */
    for (size_t r = 0; r < m; r++)
        e_widen(rows + r * hd, q + r * sm, hd);
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
    attend_values_to(m, hd, s, ls, values, from, end, factor, rows, out, so);
}

/* Query rows [i0, i1) of a sequence whose row i stands at position + i, all query heads of one key/value head. */
static void attend_chunk(const kn_attention *a, size_t kv, const E *qkv, size_t row, size_t position, size_t i0,
                         size_t i1, const kn_blocks *keys, const kn_blocks *values, float *s, E *out, float *lse)
{
    const size_t hd = a->head_dim, width = kn_width(a), group = a->heads / a->kv_heads, wide = a->heads * hd;
    if (i1 - i0 == 1) { /* one token: the heads of the group are the rows */
        const size_t t = row + i0;
        for (size_t g = 0; g < group; g += MR) {
            const size_t h = kv * group + g, m = kn_min(MR, group - g);
            attend_rows(m, qkv + t * width + h * hd, hd, position + i0, 0, keys, values, a, s, out + t * wide + h * hd,
                        hd, lse ? lse + t * a->heads + h : NULL, 1);
        }
        return;
    }
    for (size_t h = kv * group; h < (kv + 1) * group; h++)
        for (size_t i = i0; i < i1; i += MR) {
            const size_t m = kn_min(MR, i1 - i), t = row + i;
            attend_rows(m, qkv + t * width + h * hd, width, position + i, 1, keys, values, a, s,
                        out + t * wide + h * hd, wide, lse ? lse + t * a->heads + h : NULL, a->heads);
        }
}

/* --- packed segments --- */

typedef struct packed_job {
    const kn_attention *a;
    const kn_segment *segment;
    size_t segments;
    const E *qkv;
    E *out;
    float *lse;
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

/* The blocks of one head: keys, each followed by its values; float32, for they are read by many rows. */
static float *segment_blocks(const packed_job *j, size_t segment, size_t kv)
{
    const size_t count = j->first_block[segment + 1] - j->first_block[segment];
    return j->blocks + (j->first_block[segment] * j->a->kv_heads + kv * count) * kn_block_size(j->a);
}

/* Lays one segment's keys and values of one head. */
static void lay_piece(void *arg, size_t index, unsigned worker)
{
    const packed_job *j = arg;
    const size_t hd = j->a->head_dim, width = kn_width(j->a), n = index / j->a->kv_heads, kv = index % j->a->kv_heads;
    const kn_segment *s = &j->segment[n];
    const size_t keys = s->prefix_count + s->count;
    float *block = segment_blocks(j, n, kv);
    for (size_t b = 0; b * 16 < keys; b++, block += kn_block_size(j->a)) {
        const E *row[16];
        for (size_t i = 0; i < 16; i++) {
            const size_t key = b * 16 + i;
            row[i] = key < keys ? j->qkv + key_row(s, key) * width + (j->a->heads + kv) * hd : NULL;
            if (row[i])
                e_widen(block + (16 + i) * hd, row[i] + j->a->kv_heads * hd, hd);
        }
        lay_transposed(block, row, hd);
    }
}

static void packed_piece(void *arg, size_t index, unsigned worker)
{
    const packed_job *j = arg;
    const size_t n = find_segment(j->first_piece, j->segments, index), local = index - j->first_piece[n];
    const size_t kv = local % j->a->kv_heads, chunk = local / j->a->kv_heads;
    const kn_segment *s = &j->segment[n];
    const float *blocks = segment_blocks(j, n, kv);
    const kn_blocks keys = {blocks, NULL, kn_block_size(j->a), false};
    const kn_blocks values = {blocks + 16 * j->a->head_dim, NULL, kn_block_size(j->a), false};
    const size_t i0 = chunk * CHUNK, i1 = kn_min(s->count, i0 + CHUNK);
    attend_chunk(j->a, kv, j->qkv, s->row, s->prefix_count, i0, i1, &keys, &values, j->scores + worker * j->room,
                 j->out, j->lse);
}

int KE(attention)(kn_device *device, void *out, float *lse, const void *qkv, const kn_segment *segment, size_t segments,
                  size_t T, const kn_attention *a)
{
    kn_cpu *cpu = (kn_cpu *)device;
    if (!attention_shape_ok(a) || !segments_ok(segment, segments, T))
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
    const size_t block_floats = blocks * a->kv_heads * kn_block_size(a);
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
    const kn_rotary *rotary;
    E *qkv, *out, *layer;
    float *scores;
    size_t room;
} cached_job;

/* One sequence, one key/value head: turns its rows, writes them into the pages, then attends. */
static void cached_piece(void *arg, size_t index, unsigned worker)
{
    const cached_job *j = arg;
    const kn_attention *a = j->a;
    const size_t hd = a->head_dim, width = kn_width(a), kv = index % a->kv_heads;
    const size_t each = kn_block_size(a), page = each * a->kv_heads;
    const kn_cached_rows *s = &j->rows[index / a->kv_heads];
    E *first = j->layer + kv * each;
    const kn_blocks keys = {first, s->pages, page, sizeof(E) == 2};
    const kn_blocks values = {first + 16 * hd, s->pages, page, sizeof(E) == 2};
    for (size_t i = 0; i < s->count; i++) {
        const size_t at = s->position + i, group = a->heads / a->kv_heads;
        E *q = j->qkv + (s->row + i) * width + kv * group * hd;
        E *k = j->qkv + (s->row + i) * width + (a->heads + kv) * hd;
        const E *v = k + a->kv_heads * hd;
        if (j->rotary) {
            const float *cos = j->rotary->cos + at * (hd / 2), *sin = j->rotary->sin + at * (hd / 2);
            KE(turn)(q, cos, sin, group, hd, false);
            KE(turn)(k, cos, sin, 1, hd, false);
        }
        E *block = first + s->pages[at / 16] * page;
        for (size_t e = 0; e < hd; e++)
            block[e * 16 + at % 16] = k[e];
        memcpy(block + (16 + at % 16) * hd, v, hd * sizeof(E));
    }
    for (size_t i = 0; i < s->count; i += CHUNK)
        attend_chunk(a, kv, j->qkv, s->row, s->position, i, kn_min(s->count, i + CHUNK), &keys, &values,
                     j->scores + worker * j->room, j->out, NULL);
}

int KE(attention_cached)(kn_device *device, void *out, void *qkv, kn_cache *c, size_t layer, const kn_cached_rows *rows,
                         size_t sequences, size_t T, const kn_rotary *rotary)
{
    kn_cpu *cpu = (kn_cpu *)device;
    const kn_attention *a = &c->shape;
    if (layer >= c->layers || (rotary && a->head_dim % 2 != 0))
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
                    .rotary = rotary,
                    .qkv = qkv,
                    .out = out,
                    .room = MR * ((kn_ceil(longest, 16) + 1) * 16 + a->head_dim),
                    .layer = (E *)c->data + layer * c->pages * a->kv_heads * kn_block_size(a)};
    j.scores = kn_scratch_take(cpu, j.room * kn_threads(cpu) * sizeof(float));
    if (!j.scores)
        return KN_NO_MEMORY;
    const double cost = pairs * a->heads * (0.04 * a->head_dim + 1) + 0.5 * (double)T * a->kv_heads * a->head_dim;
    kn_run(cpu, sequences * a->kv_heads, cost, cached_piece, &j);
    kn_scratch_give(cpu, j.scores);
    return KN_OK;
}
