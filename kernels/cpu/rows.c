/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What is done to each row by itself: norm, rotary embedding, gated activation, embedding, dropout, sums. The formulas
 * stand in kernels/reference/rows.c. */
#include "draw.h"
#include "element.h"
#include "ops.h"

/* --- RMS norm --- */

typedef struct norm_job {
    E *y, *dx;
    const E *x, *dy;
    float *rstd, *dw;
    const float *w;
    size_t T, d, row_pieces, column_pieces;
    float eps;
    bool accumulate;
} norm_job;

static void norm_row(E *y, const E *x, const float *w, size_t d, float r)
{
    const V rv = v_set1(r);
    size_t i = 0;
    for (; i + VN <= d; i += VN)
        e_store(y + i, e_load(x + i) * rv * v_load(w + i));
    if (i < d)
        e_store_n(y + i, e_load_n(x + i, d - i) * rv * v_load_n(w + i, d - i), d - i);
}

static void norm_piece(void *arg, size_t index, unsigned worker)
{
    const norm_job *j = arg;
    for (size_t t = kn_cut(j->T, j->row_pieces, index); t < kn_cut(j->T, j->row_pieces, index + 1); t++) {
        const E *x = j->x + t * j->d;
        const float r = 1.0f / sqrtf(e_dot(x, x, j->d) / (float)j->d + j->eps);
        norm_row(j->y + t * j->d, x, j->w, j->d, r);
        if (j->rstd)
            j->rstd[t] = r;
    }
}

int KE(rms_norm)(kn_device *device, void *y, float *rstd, const void *x, const float *w, size_t T, size_t d, float eps)
{
    kn_cpu *cpu = (kn_cpu *)device;
    const double cost = 0.15 * (double)T * (double)d;
    norm_job j = {
        .y = y, .rstd = rstd, .x = x, .w = w, .T = T, .d = d, .eps = eps, .row_pieces = kn_pieces(cpu, T, cost)};
    kn_run(cpu, j.row_pieces, cost, norm_piece, &j);
    return KN_OK;
}

static void norm_backward_row(const norm_job *j, size_t t)
{
    const E *x = j->x + t * j->d, *dy = j->dy + t * j->d;
    const float *w = j->w;
    E *dx = j->dx + t * j->d;
    const size_t d = j->d;
    W sum = w_set1(0);
    size_t i = 0;
    for (; i + 16 <= d; i += 16) {
        W wd = w_load(w + i), dyv = e_load16(dy + i);
        W_EACH(n)
        wd.v[n] = wd.v[n] * dyv.v[n];
        sum = w_fma(wd, e_load16(x + i), sum);
    }
    if (i < d) {
        W wd = w_load_n(w + i, d - i, 0), dyv = e_load16_n(dy + i, d - i);
        W_EACH(n)
        wd.v[n] = wd.v[n] * dyv.v[n];
        sum = w_fma(wd, e_load16_n(x + i, d - i), sum);
    }
    const float r = j->rstd[t], back = r * r * r * (w_sum(sum) / (float)d);
    const V rv = v_set1(r), bv = v_set1(back);
    for (i = 0; i + VN <= d; i += VN) {
        const V g = v_fnma(bv, e_load(x + i), rv * (v_load(w + i) * e_load(dy + i)));
        e_store(dx + i, e_load(dx + i) + g);
    }
    if (i < d) {
        const size_t n = d - i;
        const V g = v_fnma(bv, e_load_n(x + i, n), rv * (v_load_n(w + i, n) * e_load_n(dy + i, n)));
        e_store_n(dx + i, e_load_n(dx + i, n) + g, n);
    }
    if (j->y)
        norm_row(j->y + t * d, x, w, d, r);
}

/* dw[i] = Σ_t dy·x·r, rows in order, of columns [from, to), or += when accumulate. */
static void norm_backward_columns(const norm_job *j, size_t from, size_t to)
{
    enum { WIDE = 64 / VN }; /* vectors at once, so that whole cache lines are read */
    size_t i = from;
    for (; i + WIDE * VN <= to; i += WIDE * VN) {
        V sum[WIDE];
        KN_UNROLL
        for (int n = 0; n < WIDE; n++)
            sum[n] = j->accumulate ? v_load(j->dw + i + n * VN) : v_zero();
        for (size_t t = 0; t < j->T; t++) {
            const V r = v_set1(j->rstd[t]);
            const E *x = j->x + t * j->d + i, *dy = j->dy + t * j->d + i;
            KN_UNROLL
            for (int n = 0; n < WIDE; n++)
                sum[n] = v_fma(e_load(dy + n * VN), e_load(x + n * VN) * r, sum[n]);
        }
        KN_UNROLL
        for (int n = 0; n < WIDE; n++)
            v_store(j->dw + i + n * VN, sum[n]);
    }
    for (; i < to; i += VN) {
        const size_t n = kn_min(VN, to - i);
        V sum = j->accumulate ? v_load_n(j->dw + i, n) : v_zero();
        for (size_t t = 0; t < j->T; t++) {
            const V x = e_load_n(j->x + t * j->d + i, n), dy = e_load_n(j->dy + t * j->d + i, n);
            sum = v_fma(dy, x * v_set1(j->rstd[t]), sum);
        }
        v_store_n(j->dw + i, sum, n);
    }
}

static void norm_backward_piece(void *arg, size_t index, unsigned worker)
{
    const norm_job *j = arg;
    if (index < j->row_pieces) {
        for (size_t t = kn_cut(j->T, j->row_pieces, index); t < kn_cut(j->T, j->row_pieces, index + 1); t++)
            norm_backward_row(j, t);
        return;
    }
    const size_t i = index - j->row_pieces, blocks = kn_ceil(j->d, 64);
    norm_backward_columns(j, kn_cut(blocks, j->column_pieces, i) * 64,
                          kn_min(j->d, kn_cut(blocks, j->column_pieces, i + 1) * 64));
}

int KE(rms_norm_backward)(kn_device *device, void *dx, float *dw, void *y, const void *dy, const void *x,
                          const float *w, const float *rstd, size_t T, size_t d, bool accumulate)
{
    kn_cpu *cpu = (kn_cpu *)device;
    const double cost = 0.2 * (double)T * (double)d;
    norm_job j = {.y = y,
                  .dx = dx,
                  .dw = dw,
                  .dy = dy,
                  .x = x,
                  .w = w,
                  .rstd = (float *)rstd,
                  .T = T,
                  .d = d,
                  .accumulate = accumulate};
    j.row_pieces = kn_pieces(cpu, T, cost);
    j.column_pieces = kn_pieces(cpu, kn_ceil(d, 64), cost);
    kn_run(cpu, j.row_pieces + j.column_pieces, 2 * cost, norm_backward_piece, &j);
    return KN_OK;
}

/* --- rotary embedding --- */

typedef struct rope_job {
    E *x;
    const uint32_t *position;
    const float *cos, *sin;
    size_t stride, T, heads, half, pieces;
    bool inverse;
} rope_job;

KN_INLINE void rotate(E *a, E *b, const float *cos, const float *sin, size_t n, bool inverse, bool whole)
{
    const V c = whole ? v_load(cos) : v_load_n(cos, n), s0 = whole ? v_load(sin) : v_load_n(sin, n);
    const V s = inverse ? -s0 : s0;
    const V av = whole ? e_load(a) : e_load_n(a, n), bv = whole ? e_load(b) : e_load_n(b, n);
    const V first = v_fnma(bv, s, av * c), second = v_fma(av, s, bv * c);
    if (whole) {
        e_store(a, first);
        e_store(b, second);
    } else {
        e_store_n(a, first, n);
        e_store_n(b, second, n);
    }
}

void KE(turn)(void *x, const float *cos, const float *sin, size_t heads, size_t head_dim, bool inverse)
{
    const size_t half = head_dim / 2;
    for (size_t h = 0; h < heads; h++) {
        E *v = (E *)x + h * head_dim;
        size_t i = 0;
        for (; i + VN <= half; i += VN)
            rotate(v + i, v + half + i, cos + i, sin + i, VN, inverse, true);
        if (i < half)
            rotate(v + i, v + half + i, cos + i, sin + i, half - i, inverse, false);
    }
}

static void rope_piece(void *arg, size_t index, unsigned worker)
{
    const rope_job *j = arg;
    for (size_t t = kn_cut(j->T, j->pieces, index); t < kn_cut(j->T, j->pieces, index + 1); t++) {
        const size_t angle = j->position[t] * j->half;
        KE(turn)(j->x + t * j->stride, j->cos + angle, j->sin + angle, j->heads, 2 * j->half, j->inverse);
    }
}

int KE(rope)(kn_device *device, void *x, size_t stride, const uint32_t *position, const float *cos, const float *sin,
             size_t T, size_t heads, size_t head_dim, bool inverse)
{
    kn_cpu *cpu = (kn_cpu *)device;
    if (head_dim % 2 != 0)
        return KN_BAD_ARGUMENT;
    const double cost = 0.2 * (double)T * (double)(heads * head_dim);
    rope_job j = {.x = x,
                  .position = position,
                  .cos = cos,
                  .sin = sin,
                  .stride = stride,
                  .T = T,
                  .heads = heads,
                  .half = head_dim / 2,
                  .pieces = kn_pieces(cpu, T, cost),
                  .inverse = inverse};
    kn_run(cpu, j.pieces, cost, rope_piece, &j);
    return KN_OK;
}

/* --- gated activation --- */

typedef struct gate_job {
    E *y, *dgate_up;
    const E *gate_up, *dy;
    size_t T, f, pieces;
} gate_job;

static void swiglu_piece(void *arg, size_t index, unsigned worker)
{
    const gate_job *j = arg;
    const size_t f = j->f;
    for (size_t t = kn_cut(j->T, j->pieces, index); t < kn_cut(j->T, j->pieces, index + 1); t++) {
        const E *gate = j->gate_up + t * 2 * f, *up = gate + f;
        E *y = j->y + t * f;
        size_t i = 0;
        for (; i + VN <= f; i += VN) {
            const V g = e_load(gate + i);
            e_store(y + i, g * v_sigmoid(g) * e_load(up + i));
        }
        if (i < f) {
            const V g = e_load_n(gate + i, f - i);
            e_store_n(y + i, g * v_sigmoid(g) * e_load_n(up + i, f - i), f - i);
        }
    }
}

int KE(swiglu)(kn_device *device, void *y, const void *gate_up, size_t T, size_t f)
{
    kn_cpu *cpu = (kn_cpu *)device;
    const double cost = 0.5 * (double)T * (double)f;
    gate_job j = {.y = y, .gate_up = gate_up, .T = T, .f = f, .pieces = kn_pieces(cpu, T, cost)};
    kn_run(cpu, j.pieces, cost, swiglu_piece, &j);
    return KN_OK;
}

/* Returns swiglu itself. */
KN_INLINE V swiglu_gradient(V *dgate, V *dup, V g, V u, V dy)
{
    const V one = v_set1(1.0f), s = v_sigmoid(g);
    *dgate = dy * u * s * v_fma(g, one - s, one);
    *dup = dy * g * s;
    return g * s * u;
}

static void swiglu_backward_piece(void *arg, size_t index, unsigned worker)
{
    const gate_job *j = arg;
    const size_t f = j->f;
    for (size_t t = kn_cut(j->T, j->pieces, index); t < kn_cut(j->T, j->pieces, index + 1); t++) {
        const E *gate = j->gate_up + t * 2 * f, *up = gate + f, *dy = j->dy + t * f;
        E *dgate = j->dgate_up + t * 2 * f, *dup = dgate + f;
        V dg, du;
        size_t i = 0;
        for (; i + VN <= f; i += VN) {
            const V y = swiglu_gradient(&dg, &du, e_load(gate + i), e_load(up + i), e_load(dy + i));
            if (j->y)
                e_store(j->y + t * f + i, y);
            e_store(dgate + i, dg);
            e_store(dup + i, du);
        }
        if (i < f) {
            const size_t n = f - i;
            const V y = swiglu_gradient(&dg, &du, e_load_n(gate + i, n), e_load_n(up + i, n), e_load_n(dy + i, n));
            if (j->y)
                e_store_n(j->y + t * f + i, y, n);
            e_store_n(dgate + i, dg, n);
            e_store_n(dup + i, du, n);
        }
    }
}

int KE(swiglu_backward)(kn_device *device, void *dgate_up, void *y, const void *dy, const void *gate_up, size_t T,
                        size_t f)
{
    kn_cpu *cpu = (kn_cpu *)device;
    const double cost = 0.7 * (double)T * (double)f;
    gate_job j = {
        .y = y, .dgate_up = dgate_up, .dy = dy, .gate_up = gate_up, .T = T, .f = f, .pieces = kn_pieces(cpu, T, cost)};
    kn_run(cpu, j.pieces, cost, swiglu_backward_piece, &j);
    return KN_OK;
}

/* --- embedding and dropout --- */

int KE(embed)(kn_device *device, void *y, const void *table, const uint32_t *token, size_t T, size_t d)
{
    for (size_t t = 0; t < T; t++)
        memcpy((E *)y + t * d, (const E *)table + token[t] * d, d * sizeof(E));
    return KN_OK;
}

typedef struct table_job {
    float *dtable;
    const E *dy;
    const uint32_t *token;
    size_t T, d, pieces;
} table_job;

/* Rows in order, so pieces are columns. */
static void embed_backward_piece(void *arg, size_t index, unsigned worker)
{
    const table_job *j = arg;
    const size_t from = kn_cut(j->d, j->pieces, index), to = kn_cut(j->d, j->pieces, index + 1);
    for (size_t t = 0; t < j->T; t++) {
        float *row = j->dtable + j->token[t] * j->d;
        const E *dy = j->dy + t * j->d;
        size_t i = from;
        for (; i + VN <= to; i += VN)
            v_store(row + i, v_load(row + i) + e_load(dy + i));
        if (i < to)
            v_store_n(row + i, v_load_n(row + i, to - i) + e_load_n(dy + i, to - i), to - i);
    }
}

int KE(embed_backward)(kn_device *device, float *dtable, const void *dy, const uint32_t *token, size_t T, size_t d,
                       size_t vocab)
{
    kn_cpu *cpu = (kn_cpu *)device;
    for (size_t t = 0; t < T; t++)
        if (token[t] >= vocab)
            return KN_BAD_ARGUMENT;
    const double cost = 0.2 * (double)T * (double)d;
    table_job j = {
        .dtable = dtable, .dy = dy, .token = token, .T = T, .d = d, .pieces = kn_pieces(cpu, kn_ceil(d, 32), cost)};
    kn_run(cpu, j.pieces, cost, embed_backward_piece, &j);
    return KN_OK;
}

typedef struct dropout_job {
    E *x;
    const uint64_t *key, *row_id;
    size_t T, d, pieces;
    float rate;
} dropout_job;

/* Elements i … i + 63 of a row belong to sixteen counters, whose four words serve sixteen elements each. */
static void dropout_row(E *x, size_t d, float rate, const kn_draw *draw)
{
    const V limit = v_set1(rate), scale = v_set1(1 / (1 - rate));
    for (size_t i = 0; i < d; i += 64)
        for (size_t w = 0; w < NW; w++) {
            VU word[4];
            draw_words(word, draw, (VU)(vi_iota() + (int32_t)(i / 4 + w * VN)));
            for (size_t n = 0; n < 4; n++) {
                const size_t at = i + 16 * n + w * VN;
                if (at >= d)
                    break;
                const VI gone = draw_uniform(word[n]) < limit;
                if (at + VN <= d)
                    e_store(x + at, v_select(gone, v_zero(), e_load(x + at) * scale));
                else
                    e_store_n(x + at, v_select(gone, v_zero(), e_load_n(x + at, d - at) * scale), d - at);
            }
        }
}

static void dropout_piece(void *arg, size_t index, unsigned worker)
{
    const dropout_job *j = arg;
    for (size_t t = kn_cut(j->T, j->pieces, index); t < kn_cut(j->T, j->pieces, index + 1); t++) {
        const kn_draw draw = kn_draw_of(j->key, (const uint64_t[]){0, j->row_id[t]});
        dropout_row(j->x + t * j->d, j->d, j->rate, &draw);
    }
}

int KE(dropout)(kn_device *device, void *x, size_t T, size_t d, float rate, const uint64_t key[2],
                const uint64_t *row_id)
{
    kn_cpu *cpu = (kn_cpu *)device;
    if (!(rate >= 0 && rate < 1))
        return KN_BAD_ARGUMENT;
    const double cost = 0.7 * (double)T * (double)d;
    dropout_job j = {
        .x = x, .key = key, .row_id = row_id, .T = T, .d = d, .rate = rate, .pieces = kn_pieces(cpu, T, cost)};
    kn_run(cpu, j.pieces, cost, dropout_piece, &j);
    return KN_OK;
}

/* --- sums --- */

typedef struct sum_job {
    E *y;
    const E *x;
    float a;
    size_t n, pieces;
} sum_job;

static void axpy_piece(void *arg, size_t index, unsigned worker)
{
    const sum_job *j = arg;
    const V a = v_set1(j->a);
    const size_t blocks = kn_ceil(j->n, 16), to = kn_min(j->n, kn_cut(blocks, j->pieces, index + 1) * 16);
    size_t i = kn_cut(blocks, j->pieces, index) * 16;
    for (; i + VN <= to; i += VN)
        e_store(j->y + i, v_fma(a, e_load(j->x + i), e_load(j->y + i)));
    if (i < to)
        e_store_n(j->y + i, v_fma(a, e_load_n(j->x + i, to - i), e_load_n(j->y + i, to - i)), to - i);
}

int KE(axpy)(kn_device *device, void *y, float a, const void *x, size_t n)
{
    kn_cpu *cpu = (kn_cpu *)device;
    const double cost = 0.15 * (double)n;
    sum_job j = {.y = y, .x = x, .a = a, .n = n, .pieces = kn_pieces(cpu, kn_ceil(n, 1024), cost)};
    kn_run(cpu, j.pieces, cost, axpy_piece, &j);
    return KN_OK;
}

int KE(add)(kn_device *device, void *y, const void *x, size_t n)
{
    return KE(axpy)(device, y, 1.0f, x, n); /* 1·x + y rounds once: the same bits as y + x */
}

/* Neighbours that stay neighbours go together. */
int KE(scatter_add)(kn_device *device, void *y, const void *x, const uint32_t *row, size_t S, size_t T, size_t d)
{
    int kn = KN_OK;
    for (size_t s = 0; s < S; s++)
        if (row[s] >= T)
            return KN_BAD_ARGUMENT;
    for (size_t s = 0, end; kn == KN_OK && s < S; s = end) {
        for (end = s + 1; end < S && row[end] == row[s] + (end - s);)
            end++;
        kn = KE(add)(device, (E *)y + row[s] * d, (const E *)x + s * d, (end - s) * d);
    }
    return kn;
}
