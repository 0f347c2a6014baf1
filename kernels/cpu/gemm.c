/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Matrix products: cutting them into the blocks of tile.h, and those blocks onto the pool. */
#include "ops.h"

enum {
    ROWS_BYTES =
        128 << 10, /* rows of A that one piece walks over all its panels: they stay in the second-level cache */
    DEPTH = 256,   /* rows of dy and x packed at a time for a weight gradient; and of how much of them, */
    WEIGHT_TILES = (128 + MR - 1) / MR, /* so that both packs stay in the second-level cache */
    WEIGHT_PANELS = 256 / NR,
    STRETCH = 512, /* floats of a row copied at a time */
};

static const double flops_per_ns = 100; /* of one thread, for the pool's estimate */

/* --- one block of C --- */

/* Columns [0, n) of vector v of a row, or nothing where the row ends before it. */
KN_INLINE V load_part(const float *c, int v, size_t n)
{
    const size_t at = (size_t)v * VN;
    return n >= at + VN ? v_load(c + at) : n > at ? v_load_n(c + at, n - at) : v_zero();
}

KN_INLINE void store_part(float *c, int v, size_t n, V value)
{
    const size_t at = (size_t)v * VN;
    if (n >= at + VN)
        v_store(c + at, value);
    else if (n > at)
        v_store_n(c + at, value, n - at);
}

/* m rows × np panels at once (several panels keep the multipliers busy when rows are few). */
KN_INLINE void block(const int m, const int np, const int by_row, size_t K, const float *a, size_t sm, size_t sk,
                     const float *b, size_t panel, float *c, size_t ldc, size_t columns, bool load)
{
    const int nv = np * NV;
    V acc[MR * NV > 8 * 2 ? MR * NV : 8 * 2];
    KN_UNROLL
    for (int r = 0; r < m; r++) {
        KN_UNROLL
        for (int n = 0; n < nv; n++)
            acc[r * nv + n] = load ? load_part(c + (size_t)r * ldc, n, columns) : v_zero();
    }
    tile_run(acc, m, nv, K, a, sm, sk, by_row, b, NR, np > 1 ? panel : 0, 0);
    KN_UNROLL
    for (int r = 0; r < m; r++) {
        KN_UNROLL
        for (int n = 0; n < nv; n++)
            store_part(c + (size_t)r * ldc, n, columns, acc[r * nv + n]);
    }
}

/* Panels that a block of m rows takes at once. */
static size_t panels_at_once(size_t m)
{
    return m == 1 ? 8 / NV : m == 2 ? (NV == 2 && VN == 16 ? 4 : NV == 2 ? 2 : 1) : m <= 4 && VN == 16 ? 2 : 1;
}

static void block_rows(int m, size_t np, const kn_product *p, const float *a, const float *b, float *c, size_t columns,
                       bool load)
{
#define ONE(M)                                                              \
    case M:                                                                 \
        block(M, 1, 1, p->K, a, p->lda, 0, b, 0, c, p->ldc, columns, load); \
        break;
#define SEVERAL(M, NP) block(M, NP, 1, p->K, a, p->lda, 0, b, p->panel_stride, c, p->ldc, columns, load)
    if (np == 1) {
        TILE_ROWS(m, ONE)
    }
#if VN == 16
    else if (np == 4 && m == 1)
        SEVERAL(1, 4);
    else if (np == 4)
        SEVERAL(2, 4);
    else if (m == 1)
        SEVERAL(1, 2);
    else if (m == 2)
        SEVERAL(2, 2);
    else if (m == 3)
        SEVERAL(3, 2);
    else
        SEVERAL(4, 2);
#elif NV == 2
    else if (np == 4)
        SEVERAL(1, 4);
    else if (m == 1)
        SEVERAL(1, 2);
    else
        SEVERAL(2, 2);
#else
    else
        SEVERAL(1, 2);
#endif
#undef ONE
#undef SEVERAL
}

/* Bias and residual are the chain's first value. */
static void start_rows(const kn_product *p, size_t row, size_t m, size_t column, size_t columns)
{
    for (size_t r = row; r < row + m; r++) {
        float *c = p->c + r * p->ldc + column;
        const float *bias = p->bias ? p->bias + column : NULL;
        const float *residual = p->residual ? p->residual + r * p->ldc + column : NULL;
        if (residual == c && !bias)
            continue;
        for (size_t i = 0; i < columns; i++)
            c[i] = bias && residual ? bias[i] + residual[i] : bias ? bias[i] : residual[i];
    }
}

/* Panels that are taken together, of those left: a power of two. */
static size_t fitting(size_t group, size_t left)
{
    while (group > left)
        group /= 2;
    return group;
}

/* One tile of rows against all panels, where rows lie a multiple of 4 KiB apart: their elements would crowd a few sets
 * of the first-level cache, so stretches of them are copied to where they do not. */
static void crowded_tile(const kn_product *p, size_t row, size_t m, size_t panel, size_t panel_end, bool load)
{
    float copy[MR * (STRETCH + 16)];
    kn_product part = *p;
    part.lda = STRETCH + 16;
    for (size_t k = 0; k < p->K; k += STRETCH) {
        part.K = kn_min(STRETCH, p->K - k);
        for (size_t r = 0; r < m; r++)
            memcpy(copy + r * part.lda, p->a + (row + r) * p->lda + k, part.K * sizeof(float));
        for (size_t at = panel, np; at < panel_end; at += np) {
            np = fitting(panels_at_once(m), panel_end - at);
            block_rows((int)m, np, &part, copy, p->packed + at * p->panel_stride + k * NR,
                       p->c + row * p->ldc + at * NR, kn_min(p->N - at * NR, np * NR), load || k > 0);
        }
    }
}

void KN(product_part)(const kn_product *p, size_t row, size_t row_end, size_t panel, size_t panel_end)
{
    const size_t rows = row_end - row, tiles = kn_ceil(rows, MR);
    const bool start = p->bias || p->residual, load = start || p->accumulate;
    const bool crowded = p->lda % 1024 == 0 && rows > 4 && panel_end - panel > 3;
    if (tiles == 0)
        return;
    if (crowded) {
        for (size_t i = 0; i < tiles; i++) {
            const size_t r = row + kn_cut(rows, tiles, i), m = row + kn_cut(rows, tiles, i + 1) - r;
            if (start)
                start_rows(p, r, m, panel * NR, kn_min(p->N, panel_end * NR) - panel * NR);
            crowded_tile(p, r, m, panel, panel_end, load);
        }
        return;
    }
    const size_t highest = kn_ceil(rows, tiles);
    for (size_t at = panel, np; at < panel_end; at += np) {
        np = fitting(panels_at_once(highest), panel_end - at);
        const size_t column = at * NR, columns = kn_min(p->N - column, np * NR);
        for (size_t i = 0; i < tiles; i++) {
            const size_t r = row + kn_cut(rows, tiles, i), m = row + kn_cut(rows, tiles, i + 1) - r;
            if (start)
                start_rows(p, r, m, column, columns);
            block_rows((int)m, np, p, p->a + r * p->lda, p->packed + at * p->panel_stride, p->c + r * p->ldc + column,
                       columns, load);
        }
    }
}

/* --- the whole product on the pool --- */

typedef struct product_job {
    const kn_product *p;
    size_t M, panels, row_cuts, panel_cuts;
} product_job;

static void product_piece(void *arg, size_t index, unsigned worker)
{
    const product_job *j = arg;
    const size_t r = index / j->panel_cuts, c = index % j->panel_cuts;
    KN(product_part)
    (j->p, kn_cut(j->M, j->row_cuts, r), kn_cut(j->M, j->row_cuts, r + 1), kn_cut(j->panels, j->panel_cuts, c),
     kn_cut(j->panels, j->panel_cuts, c + 1));
}

void KN(product)(kn_cpu *cpu, const kn_product *p, size_t M)
{
    if (M == 0)
        return;
    const size_t tiles = kn_ceil(M, MR), fit = ROWS_BYTES / (p->K * sizeof(float) * MR);
    product_job j = {.p = p, .M = M, .panels = kn_ceil(p->N, NR)};
    const double cost = 2.0 * (double)M * (double)p->N * (double)p->K / flops_per_ns;
    const size_t pieces = kn_pieces(cpu, tiles * j.panels, cost);
    j.row_cuts = kn_ceil(tiles, fit > 0 ? fit : 1);
    j.panel_cuts = kn_min(j.panels, kn_ceil(pieces, j.row_cuts));
    if (j.row_cuts * j.panel_cuts < pieces)
        j.row_cuts = kn_min(tiles, kn_ceil(pieces, j.panel_cuts));
    kn_run(cpu, j.row_cuts * j.panel_cuts, cost, product_piece, &j);
}

int KN(linear)(kn_device *device, void *y, const void *x, const kn_matrix *m, const float *bias, const void *residual,
               size_t T)
{
    if (m->onednn_forward)
        return kn_onednn_product((kn_cpu *)device, m->onednn_forward, y, x, bias, residual, false, T);
    const kn_product p = {.N = m->out,
                          .K = m->in,
                          .a = x,
                          .lda = m->in,
                          .packed = m->forward,
                          .panel_stride = m->in * NR,
                          .c = y,
                          .ldc = m->out,
                          .bias = bias,
                          .residual = residual};
    KN(product)((kn_cpu *)device, &p, T);
    return KN_OK;
}

int KN(linear_backward_input)(kn_device *device, void *dx, const void *dy, const kn_matrix *m, size_t T,
                              bool accumulate)
{
    if (!m->back)
        return KN_BAD_ARGUMENT;
    if (m->onednn_back)
        return kn_onednn_product((kn_cpu *)device, m->onednn_back, dx, dy, NULL, NULL, accumulate, T);
    const kn_product p = {.N = m->in,
                          .K = m->out,
                          .a = dy,
                          .lda = m->out,
                          .packed = m->back,
                          .panel_stride = m->out * NR,
                          .c = dx,
                          .ldc = m->in,
                          .accumulate = accumulate};
    KN(product)((kn_cpu *)device, &p, T);
    return KN_OK;
}

/* --- weight gradients --- */

typedef struct weight_job {
    float *dw, *db;
    const float *dy, *x;
    size_t lddw, lddy, ldx, T, out, in;
    size_t tiles, panels, tile_cuts, panel_cuts;
    size_t room; /* floats of scratch a worker */
    float *scratch;
    bool accumulate;
} weight_job;

/* The first n floats of a row into `width` places, 0 beyond n. */
KN_INLINE void pack_row(float *to, const size_t width, const float *from, size_t n)
{
    if (n == width && width % VN == 0) {
        KN_UNROLL
        for (size_t i = 0; i < width / VN; i++)
            v_store(to + i * VN, v_load(from + i * VN));
        return;
    }
    KN_UNROLL
    for (size_t i = 0; i < (width + VN - 1) / VN; i++) {
        const size_t at = i * VN, room = width - at < VN ? width - at : VN;
        v_store_n(to + at, at < n ? v_load_n(from + at, kn_min(room, n - at)) : v_zero(), room);
    }
}

/* A block of weights: x packed in panels, dy in tiles of up to MR outputs, DEPTH rows at a time. */
static void weight_piece(void *arg, size_t index, unsigned worker)
{
    const weight_job *j = arg;
    const size_t row = index / j->panel_cuts, col = index % j->panel_cuts;
    const size_t tile0 = kn_cut(j->tiles, j->tile_cuts, row);
    const size_t tiles = kn_cut(j->tiles, j->tile_cuts, row + 1) - tile0;
    const size_t panel0 = kn_cut(j->panels, j->panel_cuts, col);
    const size_t panels = kn_cut(j->panels, j->panel_cuts, col + 1) - panel0;
    float *dy_pack = j->scratch + worker * j->room, *x_pack = dy_pack + tiles * MR * DEPTH;
    size_t output[WEIGHT_TILES + 1];
    for (size_t i = 0; i <= tiles; i++)
        output[i] = kn_cut(j->out, j->tiles, tile0 + i);
    for (size_t t = 0; t < j->T; t += DEPTH) {
        const size_t depth = kn_min(DEPTH, j->T - t);
        const bool load = j->accumulate || t > 0;
        for (size_t k = 0; k < depth; k++) {
            const float *x = j->x + (t + k) * j->ldx, *dy = j->dy + (t + k) * j->lddy;
            for (size_t p = 0; p < panels; p++)
                pack_row(x_pack + (p * DEPTH + k) * NR, NR, x + (panel0 + p) * NR,
                         kn_min(NR, j->in - (panel0 + p) * NR));
            for (size_t i = 0; i < tiles; i++)
                pack_row(dy_pack + (i * DEPTH + k) * MR, MR, dy + output[i], output[i + 1] - output[i]);
        }
        for (size_t p = 0; p < panels; p++)
            for (size_t i = 0; i < tiles; i++) {
                const float *a = dy_pack + i * MR * DEPTH, *b = x_pack + p * NR * DEPTH;
                float *c = j->dw + output[i] * j->lddw + (panel0 + p) * NR;
                const size_t columns = kn_min(NR, j->in - (panel0 + p) * NR);
#define ONE(M)                                                            \
    case M:                                                               \
        block(M, 1, 0, depth, a, 0, MR, b, 0, c, j->lddw, columns, load); \
        break;
                TILE_ROWS(output[i + 1] - output[i], ONE)
#undef ONE
            }
    }
    if (!j->db || panel0 != 0)
        return;
    if (!j->accumulate)
        kn_zero_rows(j->db + output[0], 0, 1, output[tiles] - output[0]);
    for (size_t t = 0; t < j->T; t++)
        for (size_t o = output[0]; o < output[tiles]; o++)
            j->db[o] += j->dy[t * j->lddy + o];
}

int KN(product_weight)(kn_cpu *cpu, float *dw, size_t lddw, float *db, const float *dy, size_t lddy, const float *x,
                       size_t ldx, size_t T, size_t out, size_t in, bool accumulate)
{
    if (T == 0 && !accumulate) {
        kn_zero_rows(dw, lddw, out, in);
        kn_zero_rows(db, 0, db != NULL, out);
    }
    if (T == 0)
        return KN_OK;
    weight_job j = {.dw = dw,
                    .db = db,
                    .dy = dy,
                    .x = x,
                    .lddw = lddw,
                    .lddy = lddy,
                    .ldx = ldx,
                    .T = T,
                    .out = out,
                    .in = in,
                    .accumulate = accumulate,
                    .tiles = kn_ceil(out, MR),
                    .panels = kn_ceil(in, NR)};
    const double cost = 2.0 * (double)T * (double)out * (double)in / flops_per_ns;
    const size_t pieces = kn_pieces(cpu, j.tiles * j.panels, cost);
    j.tile_cuts = kn_ceil(j.tiles, WEIGHT_TILES);
    j.panel_cuts = kn_ceil(j.panels, WEIGHT_PANELS);
    if (j.tile_cuts * j.panel_cuts < pieces)
        j.tile_cuts = kn_min(j.tiles, kn_ceil(pieces, j.panel_cuts));
    if (j.tile_cuts * j.panel_cuts < pieces)
        j.panel_cuts = kn_min(j.panels, kn_ceil(pieces, j.tile_cuts));
    j.room = (kn_ceil(j.tiles, j.tile_cuts) * MR + kn_ceil(j.panels, j.panel_cuts) * NR) * DEPTH;
    j.scratch = kn_scratch_take(cpu, j.room * kn_threads(cpu) * sizeof(float));
    if (!j.scratch)
        return KN_NO_MEMORY;
    kn_run(cpu, j.tile_cuts * j.panel_cuts, cost, weight_piece, &j);
    kn_scratch_give(cpu, j.scratch);
    return KN_OK;
}

int KN(linear_backward_weight)(kn_device *device, float *dw, float *db, const void *dy, const void *x, size_t T,
                               size_t out, size_t in, bool accumulate)
{
    return KN(product_weight)((kn_cpu *)device, dw, in, db, dy, out, x, in, T, out, in, accumulate);
}
