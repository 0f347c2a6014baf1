/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Logits, log-probabilities, entropy and their gradient, without a T × V matrix. The vocabulary is cut in tiles of TILE
 * tokens; each gives its own maximum, Σ exp and Σ exp·logit, and a row puts its tiles together in order in float64. The
 * tiles are the same wherever the logits come from, so choose() and logprob() agree to the bit, and they can be shared
 * out among threads even when there is a single row.
 *
 * One code for both element types: logits are float32 in either, and a matrix knows its type. In bfloat16 the gradients
 * of logits are rounded for the two products that take them, and dh is summed in float32 and rounded once.
 */
#include "ops.h"
#include "scalar.h"
#include "vmath.h"

enum {
    TILE = 256,                    /* tokens; a multiple of NR */
    ROWS = 16 * MR,                /* rows whose tile of logits a worker holds */
    BACK_ROWS = 512,               /* rows and tokens whose logit gradients are held at once in the backward pass */
    BACK_TOKENS = 1024,            /* a multiple of TILE */
    BACK_PITCH = BACK_TOKENS + 32, /* elements from row to row where they are bfloat16: see usable() of gemm_bf16.c */
    STEP = 32,                     /* tokens; a multiple of every panel's width: where the vocabulary may be cut */
};

/* What a tile says of a row: maximum m, Σ exp(l - m), Σ exp(l - m)·(l - m). */
typedef struct tile_sum {
    float max, sum, moment;
} tile_sum;

static tile_sum sum_tile(const float *l, size_t n, bool moment)
{
    const size_t whole = n / 16 * 16;
    W top = w_set1(-INFINITY);
    for (size_t i = 0; i < whole; i += 16)
        top = w_max(top, w_load(l + i));
    if (whole < n)
        top = w_max(top, w_load_n(l + whole, n - whole, -INFINITY));
    tile_sum t = {.max = w_max_lane(top)};
    if (!(t.max > -INFINITY))
        return t;
    const V max = v_set1(t.max);
    W sum = w_set1(0), mom = w_set1(0);
    for (size_t i = 0; i < n; i += 16) {
        W x = i < whole ? w_load(l + i) : w_load_n(l + i, n - i, -INFINITY);
        W_EACH(w)
        {
            const V d = x.v[w] - max, e = v_exp(d);
            sum.v[w] = sum.v[w] + e;
            if (moment)
                mom.v[w] = v_fma(e, v_max(d, v_set1(-1e30f)), mom.v[w]); /* 0 · -infinity is to be 0 */
        }
    }
    t.sum = w_sum(sum);
    t.moment = moment ? w_sum(mom) : 0;
    return t;
}

/* A row put together from its tiles, in order: Σ exp(l - max) and Σ exp(l - max)·(l - max). */
typedef struct row_sum {
    double max, sum, moment;
} row_sum;

static void add_tile(row_sum *r, tile_sum t)
{
    const double down = t.max - r->max, scale = kn_exp(down);
    r->sum += t.sum * scale;
    if (scale > 0)
        r->moment += scale * (t.moment + t.sum * down);
}

static double lse_of(const row_sum *r)
{
    return r->max > -INFINITY ? r->max + kn_log(r->sum) : r->max;
}

double KN(row_lse)(const float *logits, size_t vocab)
{
    const size_t whole = vocab / 16 * 16;
    W top = w_set1(-INFINITY);
    for (size_t i = 0; i < whole; i += 16)
        top = w_max(w_load(logits + i), top);
    row_sum r = {.max = w_max_lane(top)};
    for (size_t i = whole; i < vocab; i++)
        r.max = logits[i] > r.max ? logits[i] : r.max;
    for (size_t i = 0; i < vocab && r.max > -INFINITY; i += TILE)
        add_tile(&r, sum_tile(logits + i, kn_min(TILE, vocab - i), false));
    return lse_of(&r);
}

/* --- logits --- */

/* Elements of h (or of a row of the matrix) as bytes. */
static const void *row_of(const kn_matrix *m, const void *h, size_t row)
{
    return (const char *)h + row * m->in * (m->dtype == KN_BF16 ? sizeof(uint16_t) : sizeof(float));
}

/* What logits_part needs beside, in bytes. */
static size_t logits_room(const kn_matrix *m, size_t rows)
{
    return m->dtype == KN_BF16 ? kn_ceil(kn_product16_room(rows, m->in), 64) * 64 : 0;
}

/* Logits of `rows` rows at h and of n tokens from `from` (a multiple of STEP). */
static void logits_part(const kn_cpu *cpu, const kn_matrix *m, const void *h, size_t rows, size_t from, size_t n,
                        float *logits, size_t ld, void *scratch)
{
    if (m->dtype == KN_BF16) {
        const size_t stride = kn_panel_stride(m->in);
        const kn_product16 p = {.N = n,
                                .K = m->in,
                                .a = h,
                                .lda = m->in,
                                .packed = m->forward16 + from / KN_PANEL * stride,
                                .panel_stride = stride,
                                .ldc = ld,
                                .c = logits};
        cpu->way16->product(&p, 0, rows, 0, kn_ceil(n, KN_PANEL), scratch);
    } else {
        const kn_product p = {.N = n,
                              .K = m->in,
                              .a = h,
                              .lda = m->in,
                              .packed = m->forward + from * m->in,
                              .panel_stride = m->in * NR,
                              .c = logits,
                              .ldc = ld};
        KN(product_part)(&p, 0, rows, 0, kn_ceil(n, NR));
    }
}

int KN(logits)(kn_device *device, float *logits, const void *h, const kn_matrix *m, size_t T)
{
    if (m->dtype == KN_BF16) {
        const kn_product16 p = {.N = m->out,
                                .K = m->in,
                                .a = h,
                                .lda = m->in,
                                .packed = m->forward16,
                                .panel_stride = kn_panel_stride(m->in),
                                .ldc = m->out,
                                .c = logits};
        return KN(product_bf16)((kn_cpu *)device, &p, T);
    }
    const kn_product p = {.N = m->out,
                          .K = m->in,
                          .a = h,
                          .lda = m->in,
                          .packed = m->forward,
                          .panel_stride = m->in * NR,
                          .c = logits,
                          .ldc = m->out};
    KN(product)((kn_cpu *)device, &p, T);
    return KN_OK;
}

/* --- forward --- */

typedef struct logprob_job {
    const kn_cpu *cpu;
    const kn_matrix *m;
    const void *h;
    const uint32_t *target;
    size_t T, tiles, row_cuts, tile_cuts;
    bool entropy;
    tile_sum *sums; /* [T][tiles] */
    float *at;      /* [T]: the target's logit */
    char *scratch;  /* a worker: ROWS × TILE logits, and what logits_part needs */
    size_t room;
} logprob_job;

static void logprob_piece(void *arg, size_t index, unsigned worker)
{
    const logprob_job *j = arg;
    const size_t r = index / j->tile_cuts, c = index % j->tile_cuts;
    const size_t row_end = kn_cut(j->T, j->row_cuts, r + 1);
    float *logits = (float *)(j->scratch + worker * j->room);
    for (size_t row = kn_cut(j->T, j->row_cuts, r); row < row_end; row += ROWS) {
        const size_t rows = kn_min(ROWS, row_end - row);
        for (size_t i = kn_cut(j->tiles, j->tile_cuts, c); i < kn_cut(j->tiles, j->tile_cuts, c + 1); i++) {
            const size_t from = i * TILE, n = kn_min(TILE, j->m->out - from);
            logits_part(j->cpu, j->m, row_of(j->m, j->h, row), rows, from, n, logits, TILE,
                        logits + (size_t)ROWS * TILE);
            for (size_t k = 0; k < rows; k++) {
                j->sums[(row + k) * j->tiles + i] = sum_tile(logits + k * TILE, n, j->entropy);
                const uint32_t target = j->target[row + k];
                if (target >= from && target - from < n)
                    j->at[row + k] = logits[k * TILE + target - from];
            }
        }
    }
}

int KN(logprob)(kn_device *device, float *logprob, float *lse, float *entropy, const void *h, const kn_matrix *m,
                const uint32_t *target, size_t T, float *kept)
{
    (void)kept; /* logits_kept gives 0 */
    kn_cpu *cpu = (kn_cpu *)device;
    for (size_t t = 0; t < T; t++)
        if (target[t] >= m->out)
            return KN_BAD_ARGUMENT;
    logprob_job j = {.cpu = cpu,
                     .m = m,
                     .h = h,
                     .target = target,
                     .T = T,
                     .tiles = kn_ceil(m->out, TILE),
                     .entropy = entropy != NULL};
    const double cost = (double)T * (double)m->out * (0.02 * (double)m->in + 0.5);
    const size_t pieces = kn_pieces(cpu, j.tiles * kn_ceil(T, MR), cost);
    const size_t sums = T * j.tiles * sizeof(tile_sum);
    j.room = (size_t)ROWS * TILE * sizeof(float) + logits_room(m, ROWS);
    j.row_cuts = kn_ceil(T, ROWS);
    j.tile_cuts = j.row_cuts > 0 ? kn_min(j.tiles, kn_ceil(pieces, j.row_cuts)) : 1;
    if (j.row_cuts * j.tile_cuts < pieces)
        j.row_cuts = kn_min(kn_ceil(T, MR), kn_ceil(pieces, j.tile_cuts));
    j.scratch = kn_scratch_take(cpu, j.room * kn_threads(cpu) + sums + T * sizeof(float));
    if (!j.scratch)
        return KN_NO_MEMORY;
    j.sums = (tile_sum *)(j.scratch + j.room * kn_threads(cpu));
    j.at = (float *)(j.sums + T * j.tiles);
    kn_run(cpu, j.row_cuts * j.tile_cuts, cost, logprob_piece, &j);
    for (size_t t = 0; t < T; t++) {
        const tile_sum *tile = j.sums + t * j.tiles;
        row_sum r = {.max = -INFINITY};
        for (size_t i = 0; i < j.tiles; i++)
            r.max = tile[i].max > r.max ? tile[i].max : r.max;
        for (size_t i = 0; i < j.tiles; i++)
            add_tile(&r, tile[i]);
        const double total = lse_of(&r);
        if (entropy) /* -Σ p·log p with p = exp(l - max)/sum */
            entropy[t] = (float)(total - r.max - r.moment / r.sum);
        logprob[t] = (float)(j.at[t] - total);
        if (lse)
            lse[t] = (float)total;
    }
    kn_scratch_give(cpu, j.scratch);
    return KN_OK;
}

/* --- backward --- */

typedef struct back_job {
    const kn_cpu *cpu;
    const kn_matrix *m;
    const void *h;
    const float *dlogprob, *lse;
    const uint32_t *target;
    float *d;                  /* [BACK_ROWS][BACK_TOKENS]: gradients of logits, or */
    uint16_t *d16;             /* [BACK_ROWS][BACK_PITCH] */
    size_t row, rows, from, n; /* the rows and tokens held */
    size_t row_cuts, step_cuts;
    char *scratch; /* a worker */
    size_t room;
    bool accumulate; /* onto what dw holds */
} back_job;

/* Logits of row t, tokens [from, from + n), into their gradients: dlogprob·([v = target] - p(v)). */
static void back_row(const back_job *j, size_t t, size_t from, size_t n, float *d)
{
    const V lse = v_set1(j->lse[t]), by = v_set1(-j->dlogprob[t]);
    const size_t target = j->target[t], at = t - j->row, column = from - j->from;
    for (size_t i = 0; i < n; i += VN) {
        if (n - i >= VN)
            v_store(d + i, by * v_exp(v_load(d + i) - lse));
        else
            v_store_n(d + i, by * v_exp(v_load_n(d + i, n - i) - lse), n - i);
    }
    if (target >= from && target - from < n)
        d[target - from] += j->dlogprob[t];
    if (!j->d16)
        return;
    uint16_t *to = j->d16 + at * BACK_PITCH + column;
    for (size_t i = 0; i < n; i += VN) {
        if (n - i >= VN)
            v_store_bf16(to + i, v_load(d + i));
        else
            v_store_bf16_n(to + i, v_load_n(d + i, n - i), n - i);
    }
}

static void back_piece(void *arg, size_t index, unsigned worker)
{
    const back_job *j = arg;
    const size_t r = index / j->step_cuts, c = index % j->step_cuts, steps = kn_ceil(j->n, STEP);
    const size_t row_end = j->row + kn_cut(j->rows, j->row_cuts, r + 1);
    const size_t begin = kn_cut(steps, j->step_cuts, c) * STEP, end = kn_cut(steps, j->step_cuts, c + 1) * STEP;
    float *tile = (float *)(j->scratch + worker * j->room);
    for (size_t row = j->row + kn_cut(j->rows, j->row_cuts, r), rows; row < row_end; row += rows) {
        rows = kn_min(ROWS, row_end - row);
        for (size_t i = begin, n; i < end && i < j->n; i += n) {
            n = kn_min(kn_min(end, j->n) - i, TILE);
            float *d = j->d16 ? tile : j->d + (row - j->row) * BACK_TOKENS + i;
            const size_t ld = j->d16 ? TILE : BACK_TOKENS;
            logits_part(j->cpu, j->m, row_of(j->m, j->h, row), rows, j->from + i, n, d, ld, tile + (size_t)ROWS * TILE);
            for (size_t t = 0; t < rows; t++)
                back_row(j, row + t, j->from + i, n, d + t * ld);
        }
    }
}

/* The block's share of dh and dw. */
static int back_products(kn_cpu *cpu, const back_job *j, void *dh, float *dw)
{
    const kn_matrix *m = j->m;
    const void *h = row_of(m, j->h, j->row);
    if (m->dtype == KN_BF16) {
        const kn_product16 back = {.N = m->in,
                                   .K = j->n,
                                   .a = j->d16,
                                   .lda = BACK_PITCH,
                                   .packed = m->back16 + j->from * KN_PANEL,
                                   .panel_stride = kn_panel_stride(m->out),
                                   .ldc = m->in,
                                   .c = dh,
                                   .accumulate = j->from > 0};
        const kn_weight16 weight = {.dw = dw + j->from * m->in,
                                    .lddw = m->in,
                                    .dy = j->d16,
                                    .lddy = BACK_PITCH,
                                    .x = h,
                                    .ldx = m->in,
                                    .T = j->rows,
                                    .out = j->n,
                                    .in = m->in,
                                    .accumulate = j->accumulate || j->row > 0};
        const int status = KN(product_bf16)(cpu, &back, j->rows);
        return status == KN_OK ? KN(product_weight_bf16)(cpu, &weight, NULL) : status;
    }
    const kn_product back = {.N = m->in,
                             .K = j->n,
                             .a = j->d,
                             .lda = BACK_TOKENS,
                             .packed = m->back + j->from * NR,
                             .panel_stride = m->out * NR,
                             .c = dh,
                             .ldc = m->in,
                             .accumulate = j->from > 0};
    KN(product)(cpu, &back, j->rows);
    return KN(product_weight)(cpu, dw + j->from * m->in, m->in, NULL, j->d, BACK_TOKENS, h, m->in, j->rows, j->n, m->in,
                              j->accumulate || j->row > 0);
}

int KN(logprob_backward)(kn_device *device, void *dh, float *dw, const float *dlogprob, const void *h,
                         const kn_matrix *m, const float *lse, const uint32_t *target, size_t T, bool accumulate,
                         float *kept)
{
    (void)kept;
    kn_cpu *cpu = (kn_cpu *)device;
    const bool rounded = m->dtype == KN_BF16;
    if (!m->back && !m->back16)
        return KN_BAD_ARGUMENT;
    for (size_t t = 0; t < T; t++)
        if (target[t] >= m->out)
            return KN_BAD_ARGUMENT;
    back_job j = {
        .cpu = cpu, .m = m, .h = h, .dlogprob = dlogprob, .lse = lse, .target = target, .accumulate = accumulate};
    if (T == 0 && !accumulate)
        kn_zero_rows(dw, m->in, m->out, m->in);
    j.room = rounded ? (size_t)ROWS * TILE * sizeof(float) + logits_room(m, ROWS) : 0;
    const size_t gradients =
        rounded ? (size_t)BACK_ROWS * BACK_PITCH * sizeof(uint16_t) : (size_t)BACK_ROWS * BACK_TOKENS * sizeof(float);
    const size_t sums = rounded ? kn_min(BACK_ROWS, T) * m->in * sizeof(float) : 0;
    j.scratch = kn_scratch_take(cpu, j.room * kn_threads(cpu) + gradients + sums);
    if (!j.scratch)
        return KN_NO_MEMORY;
    char *held = j.scratch + j.room * kn_threads(cpu);
    j.d = rounded ? NULL : (float *)held;
    j.d16 = rounded ? (uint16_t *)held : NULL;
    int status = KN_OK;
    for (j.row = 0; j.row < T && status == KN_OK; j.row += BACK_ROWS) {
        j.rows = kn_min(BACK_ROWS, T - j.row);
        float *sum = rounded ? (float *)(held + gradients) : (float *)dh + j.row * m->in;
        for (j.from = 0; j.from < m->out && status == KN_OK; j.from += BACK_TOKENS) {
            j.n = kn_min(BACK_TOKENS, m->out - j.from);
            const double cost = (double)j.rows * (double)j.n * (0.02 * (double)m->in + 0.5);
            const size_t pieces = kn_pieces(cpu, kn_ceil(j.rows, MR) * kn_ceil(j.n, STEP), cost);
            j.step_cuts = kn_min(kn_ceil(j.n, STEP), pieces);
            j.row_cuts = kn_min(kn_ceil(j.rows, MR), kn_ceil(pieces, j.step_cuts));
            kn_run(cpu, j.row_cuts * j.step_cuts, cost, back_piece, &j);
            status = back_products(cpu, &j, sum, dw);
        }
        if (rounded && status == KN_OK)
            status = KN(to_bf16)(device, (uint16_t *)dh + j.row * m->in, sum, j.rows * m->in);
    }
    kn_scratch_give(cpu, j.scratch);
    return status;
}
