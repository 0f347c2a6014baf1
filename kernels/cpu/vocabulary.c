/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Logits, log-probabilities, entropy and their gradient, without a T × V matrix. The vocabulary is cut in tiles of TILE
 * tokens; each gives its own maximum, Σ exp and Σ exp·logit, and a row puts its tiles together in order in float64. The
 * tiles are the same wherever the logits come from, so choose() and logprob() agree to the bit, and they can be shared
 * out among threads even when there is a single row.
 */
#include "ops.h"
#include "scalar.h"
#include "vmath.h"

enum {
    TILE = 256,         /* tokens; a multiple of NR */
    ROWS = 16 * MR,     /* rows whose tile of logits a worker holds */
    BACK_ROWS = 512,    /* rows and tokens whose logit gradients are held at once in the backward pass */
    BACK_TOKENS = 1024, /* a multiple of TILE */
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

static kn_product logits_product(const kn_matrix *m, const float *h, float *c, size_t ldc)
{
    return (kn_product){.N = m->out,
                        .K = m->in,
                        .a = h,
                        .lda = m->in,
                        .packed = m->forward,
                        .panel_stride = m->in * NR,
                        .c = c,
                        .ldc = ldc};
}

int KN(logits)(kn_device *device, float *logits, const void *h, const kn_matrix *m, size_t T)
{
    const kn_product p = logits_product(m, h, logits, m->out);
    KN(product)((kn_cpu *)device, &p, T);
    return KN_OK;
}

/* --- forward --- */

typedef struct logprob_job {
    const kn_matrix *m;
    const float *h;
    const uint32_t *target;
    size_t T, tiles, row_cuts, tile_cuts;
    bool entropy;
    tile_sum *sums; /* [T][tiles] */
    float *at;      /* [T]: the target's logit */
    float *scratch; /* ROWS × TILE a worker */
} logprob_job;

static void logprob_piece(void *arg, size_t index, unsigned worker)
{
    const logprob_job *j = arg;
    const size_t r = index / j->tile_cuts, c = index % j->tile_cuts;
    const size_t row_end = kn_cut(j->T, j->row_cuts, r + 1);
    float *logits = j->scratch + worker * (size_t)ROWS * TILE;
    for (size_t row = kn_cut(j->T, j->row_cuts, r); row < row_end; row += ROWS) {
        const size_t rows = kn_min(ROWS, row_end - row);
        for (size_t i = kn_cut(j->tiles, j->tile_cuts, c); i < kn_cut(j->tiles, j->tile_cuts, c + 1); i++) {
            const size_t from = i * TILE, n = kn_min(TILE, j->m->out - from);
            kn_product p = logits_product(j->m, j->h + row * j->m->in, logits, TILE);
            p.packed += from / NR * p.panel_stride;
            p.N = n;
            KN(product_part)(&p, 0, rows, 0, kn_ceil(n, NR));
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
                const uint32_t *target, size_t T)
{
    kn_cpu *cpu = (kn_cpu *)device;
    for (size_t t = 0; t < T; t++)
        if (target[t] >= m->out)
            return KN_BAD_ARGUMENT;
    logprob_job j = {
        .m = m, .h = h, .target = target, .T = T, .tiles = kn_ceil(m->out, TILE), .entropy = entropy != NULL};
    const double cost = (double)T * (double)m->out * (0.02 * (double)m->in + 0.5);
    const size_t pieces = kn_pieces(cpu, j.tiles * kn_ceil(T, MR), cost);
    const size_t sums = T * j.tiles * 3, work = (size_t)ROWS * TILE * kn_threads(cpu);
    j.row_cuts = kn_ceil(T, ROWS);
    j.tile_cuts = j.row_cuts > 0 ? kn_min(j.tiles, kn_ceil(pieces, j.row_cuts)) : 1;
    if (j.row_cuts * j.tile_cuts < pieces)
        j.row_cuts = kn_min(kn_ceil(T, MR), kn_ceil(pieces, j.tile_cuts));
    j.scratch = kn_scratch_take(cpu, (work + sums + T) * sizeof(float));
    if (!j.scratch)
        return KN_NO_MEMORY;
    j.sums = (tile_sum *)(j.scratch + work);
    j.at = j.scratch + work + sums;
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
    const kn_matrix *m;
    const float *h, *dlogprob, *lse;
    const uint32_t *target;
    float *d;                  /* [BACK_ROWS][BACK_TOKENS]: gradients of logits */
    size_t row, rows, from, n; /* the rows and tokens held */
    size_t row_cuts, panel_cuts;
} back_job;

/* Logits of some rows and panels, turned into their gradients: dlogprob·([v = target] - p(v)). */
static void back_piece(void *arg, size_t index, unsigned worker)
{
    const back_job *j = arg;
    const size_t r = index / j->panel_cuts, c = index % j->panel_cuts, panels = kn_ceil(j->n, NR);
    const size_t r0 = kn_cut(j->rows, j->row_cuts, r), r1 = kn_cut(j->rows, j->row_cuts, r + 1);
    const size_t p0 = kn_cut(panels, j->panel_cuts, c), p1 = kn_cut(panels, j->panel_cuts, c + 1);
    kn_product p = logits_product(j->m, j->h + j->row * j->m->in, j->d, BACK_TOKENS);
    p.packed += j->from / NR * p.panel_stride;
    p.N = j->n;
    KN(product_part)(&p, r0, r1, p0, p1);
    const size_t c0 = p0 * NR, c1 = kn_min(j->n, p1 * NR);
    for (size_t t = r0; t < r1; t++) {
        float *d = j->d + t * BACK_TOKENS;
        const V lse = v_set1(j->lse[j->row + t]), by = v_set1(-j->dlogprob[j->row + t]);
        for (size_t i = c0; i < c1; i += VN) {
            const size_t n = kn_min(VN, c1 - i);
            if (n == VN)
                v_store(d + i, by * v_exp(v_load(d + i) - lse));
            else
                v_store_n(d + i, by * v_exp(v_load_n(d + i, n) - lse), n);
        }
        const size_t target = j->target[j->row + t];
        if (target >= j->from + c0 && target < j->from + c1)
            d[target - j->from] += j->dlogprob[j->row + t];
    }
}

int KN(logprob_backward)(kn_device *device, void *dh, float *dw, const float *dlogprob, const void *h,
                         const kn_matrix *m, const float *lse, const uint32_t *target, size_t T)
{
    kn_cpu *cpu = (kn_cpu *)device;
    if (!m->back)
        return KN_BAD_ARGUMENT;
    for (size_t t = 0; t < T; t++)
        if (target[t] >= m->out)
            return KN_BAD_ARGUMENT;
    float *d = kn_scratch_take(cpu, (size_t)BACK_ROWS * BACK_TOKENS * sizeof(float));
    if (!d)
        return KN_NO_MEMORY;
    int status = KN_OK;
    for (size_t row = 0; row < T && status == KN_OK; row += BACK_ROWS) {
        back_job j = {.m = m,
                      .h = h,
                      .dlogprob = dlogprob,
                      .lse = lse,
                      .target = target,
                      .d = d,
                      .row = row,
                      .rows = kn_min(BACK_ROWS, T - row)};
        for (j.from = 0; j.from < m->out && status == KN_OK; j.from += BACK_TOKENS) {
            j.n = kn_min(BACK_TOKENS, m->out - j.from);
            const double cost = (double)j.rows * (double)j.n * (0.02 * (double)m->in + 0.5);
            const size_t pieces = kn_pieces(cpu, kn_ceil(j.rows, MR) * kn_ceil(j.n, NR), cost);
            j.panel_cuts = kn_min(kn_ceil(j.n, NR), pieces);
            j.row_cuts = kn_min(kn_ceil(j.rows, MR), kn_ceil(pieces, j.panel_cuts));
            kn_run(cpu, j.row_cuts * j.panel_cuts, cost, back_piece, &j);
            const kn_product back = {.N = m->in,
                                     .K = j.n,
                                     .a = d,
                                     .lda = BACK_TOKENS,
                                     .packed = m->back + j.from * NR,
                                     .panel_stride = m->out * NR,
                                     .c = (float *)dh + row * m->in,
                                     .ldc = m->in,
                                     .accumulate = j.from > 0};
            KN(product)(cpu, &back, j.rows);
            status = KN(product_weight)(cpu, dw + j.from * m->in, m->in, NULL, d, BACK_TOKENS,
                                        (const float *)h + row * m->in, m->in, j.rows, j.n, m->in);
        }
    }
    kn_scratch_give(cpu, d);
    return status;
}
