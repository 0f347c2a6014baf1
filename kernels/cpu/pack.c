/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Weight matrices in panels. */
#include "ops.h"

#include <stdlib.h>

kn_matrix *KN(matrix_new)(kn_device *device, size_t out, size_t in, bool with_backward)
{
    if (out == 0 || in == 0 || out > SIZE_MAX / 16 / in)
        return NULL;
    kn_matrix *m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    const size_t forward = kn_ceil(out, NR) * NR * in * sizeof(float);
    const size_t back = kn_ceil(in, NR) * NR * out * sizeof(float);
    m->out = out;
    m->in = in;
    m->forward = kn_memory_new(forward);
    m->back = with_backward ? kn_memory_new(back) : NULL;
    kn_onednn *onednn = ((kn_cpu *)device)->onednn;
    if (onednn) {
        m->onednn_forward = kn_onednn_side_new(onednn, in, out, 1, in);
        m->onednn_back = with_backward ? kn_onednn_side_new(onednn, out, in, in, 1) : NULL;
    }
    if (!m->forward || (with_backward && !m->back) || (onednn && !m->onednn_forward) ||
        (onednn && with_backward && !m->onednn_back)) {
        KN(matrix_free)(device, m);
        return NULL;
    }
    memset(m->forward, 0, forward);
    if (m->back)
        memset(m->back, 0, back);
    return m;
}

void KN(matrix_free)(kn_device *device, kn_matrix *m)
{
    if (!m)
        return;
    kn_onednn_side_free(m->onednn_forward);
    kn_onednn_side_free(m->onednn_back);
    free(m->forward);
    free(m->back);
    free(m);
}

typedef struct pack_job {
    kn_matrix *m;
    const float *w;
    size_t pieces_forward, pieces_back;
} pack_job;

/* Panel p of W: NR rows of W become NR columns. */
static void pack_forward(kn_matrix *m, const float *w, size_t p)
{
    float *to = m->forward + p * m->in * NR;
    const size_t o = p * NR, n = kn_min(NR, m->out - o), in4 = m->in / 4 * 4;
    size_t r = 0;
    for (; r + 4 <= n; r += 4) {
        const float *row = w + (o + r) * m->in;
        for (size_t k = 0; k < in4; k += 4)
            v_transpose4(to + k * NR + r, NR, row + k, row + m->in + k, row + 2 * m->in + k, row + 3 * m->in + k);
        for (size_t k = in4; k < m->in; k++)
            for (size_t i = 0; i < 4; i++)
                to[k * NR + r + i] = row[i * m->in + k];
    }
    for (; r < n; r++)
        for (size_t k = 0; k < m->in; k++)
            to[k * NR + r] = w[(o + r) * m->in + k];
}

/* Panel p of Wᵀ: NR columns of W, row after row. */
static void pack_back(kn_matrix *m, const float *w, size_t p)
{
    float *to = m->back + p * m->out * NR;
    const size_t i0 = p * NR, n = kn_min(NR, m->in - i0);
    for (size_t o = 0; o < m->out; o++)
        memcpy(to + o * NR, w + o * m->in + i0, n * sizeof(float));
}

static void pack_piece(void *arg, size_t index, unsigned worker)
{
    const pack_job *j = arg;
    const bool forward = index < j->pieces_forward;
    const size_t panels = kn_ceil(forward ? j->m->out : j->m->in, NR);
    const size_t pieces = forward ? j->pieces_forward : j->pieces_back, i = forward ? index : index - j->pieces_forward;
    for (size_t p = kn_cut(panels, pieces, i); p < kn_cut(panels, pieces, i + 1); p++)
        (forward ? pack_forward : pack_back)(j->m, j->w, p);
}

int KN(matrix_set)(kn_device *device, kn_matrix *m, const float *w)
{
    kn_cpu *cpu = (kn_cpu *)device;
    const double cost = 0.25 * (double)m->out * (double)m->in;
    pack_job j = {.m = m, .w = w, .pieces_forward = kn_pieces(cpu, kn_ceil(m->out, NR), cost)};
    j.pieces_back = m->back ? kn_pieces(cpu, kn_ceil(m->in, NR), cost) : 0;
    kn_run(cpu, j.pieces_forward + j.pieces_back, m->back ? 2 * cost : cost, pack_piece, &j);
    int status = m->onednn_forward ? kn_onednn_side_set(m->onednn_forward, w) : KN_OK;
    if (status == KN_OK && m->onednn_back)
        status = kn_onednn_side_set(m->onednn_back, w);
    return status;
}
