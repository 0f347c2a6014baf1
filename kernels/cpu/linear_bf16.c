/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The matrix ops of the bfloat16 table: cutting products into parts for the pool. The device's way computes the parts
 * (gemm_bf16.h). */
#include "ops.h"

#include <stdlib.h>

/* Bytes of rows of A that a part walks over all its panels: they stay in the second-level cache. */
enum { ROWS_BYTES = 128 << 10 };

static const double flops_per_ns = 200; /* of one thread, for the pool's estimate */

/* --- weights --- */

kn_matrix *KN(matrix_new_bf16)(kn_device *device, size_t out, size_t in, bool with_backward)
{
    if (out == 0 || in == 0 || out > SIZE_MAX / 4096 / in)
        return NULL;
    kn_matrix *m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    const size_t forward = kn_ceil(out, KN_PANEL) * kn_panel_stride(in) * sizeof(uint16_t);
    const size_t back = kn_ceil(in, KN_PANEL) * kn_panel_stride(out) * sizeof(uint16_t);
    m->dtype = KN_BF16;
    m->out = out;
    m->in = in;
    m->forward16 = kn_memory_new(forward);
    m->back16 = with_backward ? kn_memory_new(back) : NULL;
    if (!m->forward16 || (with_backward && !m->back16)) {
        KN(matrix_free_bf16)(device, m);
        return NULL;
    }
    memset(m->forward16, 0, forward);
    if (m->back16)
        memset(m->back16, 0, back);
    return m;
}

void KN(matrix_free_bf16)(kn_device *device, kn_matrix *m)
{
    if (!m)
        return;
    free(m->forward16);
    free(m->back16);
    free(m);
}

typedef struct pack_job {
    const kn_way16 *way;
    kn_matrix *m;
    const float *w;
    size_t panels, pieces;
} pack_job;

static void pack_piece(void *arg, size_t index, unsigned worker)
{
    const pack_job *j = arg;
    j->way->pack(j->m->forward16, j->m->back16, j->w, j->m->out, j->m->in, kn_cut(j->panels, j->pieces, index),
                 kn_cut(j->panels, j->pieces, index + 1));
}

int KN(matrix_set_bf16)(kn_device *device, kn_matrix *m, const float *w)
{
    kn_cpu *cpu = (kn_cpu *)device;
    const double cost = 0.3 * (double)m->out * (double)m->in;
    pack_job j = {.way = cpu->way16, .m = m, .w = w, .panels = kn_ceil(m->out, KN_PANEL)};
    j.pieces = kn_pieces(cpu, j.panels, cost);
    kn_run(cpu, j.pieces, cost, pack_piece, &j);
    return KN_OK;
}

/* --- products --- */

typedef struct product_job {
    const kn_way16 *way;
    const kn_product16 *p;
    size_t M, panels, row_cuts, panel_cuts, room;
    char *scratch;
} product_job;

static void product_piece(void *arg, size_t index, unsigned worker)
{
    const product_job *j = arg;
    const size_t r = index / j->panel_cuts, c = index % j->panel_cuts;
    const size_t tiles = kn_ceil(j->M, j->way->tile_rows);
    j->way->product(j->p, kn_cut(tiles, j->row_cuts, r) * j->way->tile_rows,
                    kn_min(j->M, kn_cut(tiles, j->row_cuts, r + 1) * j->way->tile_rows),
                    kn_cut(j->panels, j->panel_cuts, c), kn_cut(j->panels, j->panel_cuts, c + 1),
                    j->scratch + worker * j->room);
}

int KN(product_bf16)(kn_cpu *cpu, const kn_product16 *p, size_t M)
{
    if (M == 0)
        return KN_OK;
    const size_t most = cpu->way16->tile_rows, tiles = kn_ceil(M, most);
    const size_t fit = ROWS_BYTES / (p->K * sizeof(uint16_t) * most);
    product_job j = {.way = cpu->way16, .p = p, .M = M, .panels = kn_ceil(p->N, KN_PANEL)};
    const double cost = 2.0 * (double)M * (double)p->N * (double)p->K / flops_per_ns;
    const size_t pieces = kn_pieces(cpu, tiles * j.panels, cost);
    j.row_cuts = kn_ceil(tiles, fit > 0 ? fit : 1);
    j.panel_cuts = kn_min(j.panels, kn_ceil(pieces, j.row_cuts));
    if (j.row_cuts * j.panel_cuts < pieces)
        j.row_cuts = kn_min(tiles, kn_ceil(pieces, j.panel_cuts));
    j.room = kn_ceil(kn_product16_room(kn_ceil(tiles, j.row_cuts) * most, p->K), 64) * 64;
    j.scratch = kn_scratch_take(cpu, j.room * kn_threads(cpu));
    if (!j.scratch)
        return KN_NO_MEMORY;
    kn_run(cpu, j.row_cuts * j.panel_cuts, cost, product_piece, &j);
    kn_scratch_give(cpu, j.scratch);
    return KN_OK;
}

int KN(linear_bf16)(kn_device *device, void *y, const void *x, const kn_matrix *m, const float *bias,
                    const void *residual, size_t T)
{
    const kn_product16 p = {.N = m->out,
                            .K = m->in,
                            .a = x,
                            .lda = m->in,
                            .packed = m->forward16,
                            .panel_stride = kn_panel_stride(m->in),
                            .y = y,
                            .ldc = m->out,
                            .bias = bias,
                            .residual = residual};
    return KN(product_bf16)((kn_cpu *)device, &p, T);
}

int KN(linear_backward_input_bf16)(kn_device *device, void *dx, const void *dy, const kn_matrix *m, size_t T,
                                   bool accumulate)
{
    if (!m->back16)
        return KN_BAD_ARGUMENT;
    const kn_product16 p = {.N = m->in,
                            .K = m->out,
                            .a = dy,
                            .lda = m->out,
                            .packed = m->back16,
                            .panel_stride = kn_panel_stride(m->out),
                            .y = dx,
                            .ldc = m->in,
                            .residual = accumulate ? dx : NULL};
    return KN(product_bf16)((kn_cpu *)device, &p, T);
}

/* --- weight gradients --- */

typedef struct weight_job {
    const kn_way16 *way;
    const kn_weight16 *w;
    float *db;
    size_t panels, out_cuts, panel_cuts, room;
    char *scratch;
} weight_job;

/* db[o] = dy's column, in row order, or += when accumulate. */
static void add_rows(float *db, const kn_weight16 *w, size_t out, size_t out_end)
{
    for (size_t o = out; o < out_end; o += VN) {
        const size_t n = kn_min(VN, out_end - o);
        V sum = w->accumulate ? v_load_n(db + o, n) : v_zero();
        for (size_t t = 0; t < w->T; t++) {
            const uint16_t *dy = w->dy + t * w->lddy + o;
            sum = sum + (n == VN ? v_load_bf16(dy) : v_load_bf16_n(dy, n));
        }
        v_store_n(db + o, sum, n);
    }
}

static void weight_piece(void *arg, size_t index, unsigned worker)
{
    const weight_job *j = arg;
    const size_t r = index / j->panel_cuts, c = index % j->panel_cuts;
    const size_t out = kn_cut(j->w->out, j->out_cuts, r), out_end = kn_cut(j->w->out, j->out_cuts, r + 1);
    const size_t panel = kn_cut(j->panels, j->panel_cuts, c), panel_end = kn_cut(j->panels, j->panel_cuts, c + 1);
    const size_t from = panel * KN_PANEL, to = kn_min(panel_end * KN_PANEL, j->w->in);
    if (!j->w->accumulate) /* here they stay in the cache until they are added to */
        kn_zero_rows(j->w->dw + out * j->w->lddw + from, j->w->lddw, out_end - out, to - from);
    j->way->weight(j->w, out, out_end, panel, panel_end, j->scratch + worker * j->room);
    if (j->db && c == 0)
        add_rows(j->db, j->w, out, out_end);
}

int KN(product_weight_bf16)(kn_cpu *cpu, const kn_weight16 *w, float *db)
{
    if (w->T == 0 && !w->accumulate) {
        kn_zero_rows(w->dw, w->lddw, w->out, w->in);
        kn_zero_rows(db, 0, db != NULL, w->out);
    }
    if (w->T == 0)
        return KN_OK;
    weight_job j = {.way = cpu->way16, .w = w, .db = db, .panels = kn_ceil(w->in, KN_PANEL)};
    const double cost = 2.0 * (double)w->T * (double)w->out * (double)w->in / flops_per_ns;
    const size_t tiles = kn_ceil(w->out, j.way->tile_rows), pieces = kn_pieces(cpu, tiles * j.panels, cost);
    j.out_cuts = kn_ceil(w->out, KN_WEIGHT_OUTPUTS);
    j.panel_cuts = kn_ceil(j.panels, KN_WEIGHT_PANELS);
    if (j.out_cuts * j.panel_cuts < pieces)
        j.out_cuts = kn_min(tiles, kn_ceil(pieces, j.panel_cuts));
    if (j.out_cuts * j.panel_cuts < pieces)
        j.panel_cuts = kn_min(j.panels, kn_ceil(pieces, j.out_cuts));
    j.room = kn_weight16_room(j.way, kn_ceil(w->out, j.out_cuts), kn_ceil(j.panels, j.panel_cuts));
    j.scratch = kn_scratch_take(cpu, j.room * kn_threads(cpu));
    if (!j.scratch)
        return KN_NO_MEMORY;
    kn_run(cpu, j.out_cuts * j.panel_cuts, cost, weight_piece, &j);
    kn_scratch_give(cpu, j.scratch);
    return KN_OK;
}

int KN(linear_backward_weight_bf16)(kn_device *device, float *dw, float *db, const void *dy, const void *x, size_t T,
                                    size_t out, size_t in, bool accumulate)
{
    const kn_weight16 w = {.dw = dw,
                           .lddw = in,
                           .dy = dy,
                           .lddy = out,
                           .x = x,
                           .ldx = in,
                           .T = T,
                           .out = out,
                           .in = in,
                           .accumulate = accumulate};
    return KN(product_weight_bf16)((kn_cpu *)device, &w, db);
}
