/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Weights from float32 to the packed bfloat16 of gemm_bf16.h, both layouts in one pass over memory. */
#include "block_bf16.h"

enum { STRETCH = 256 }; /* inputs taken at a time */

/* A panel's sixteen rows of W, rounded, in the first-level cache. */
typedef struct stretch {
    uint16_t row[KN_PANEL][STRETCH];
} stretch;

static void round_row(uint16_t *to, const float *from, size_t n)
{
    size_t i = 0;
    for (; i + VN <= n; i += VN)
        v_store_bf16(to + i, v_load(from + i));
    for (; i < n; i++)
        to[i] = kn_narrow(from[i]);
}

/* Pairs of k stay together: the transpose of a 16 × (n/2) matrix of 32-bit elements. */
static void pack_forward(uint16_t *to, const stretch *s, size_t n)
{
    for (size_t k = 0; k < n; k += 8)
        for (size_t r = 0; r < KN_PANEL; r += 4)
            transpose4(to + k * KN_PANEL + 2 * r, s->row[r] + k, s->row[r + 1] + k, s->row[r + 2] + k,
                       s->row[r + 3] + k);
}

/* Pairs of outputs side by side. */
static void pack_back(uint16_t *to, size_t panel_stride, const stretch *s, size_t rows, size_t n)
{
    for (size_t i = 0; i < n; i += KN_PANEL, to += panel_stride)
        for (size_t r = 0; r < rows; r += 2)
            for (size_t v = 0; v < KN_PANEL; v += VN) {
                const VU pair = (VU)v_load_bf16(&s->row[r][i + v]) >> 16 | (VU)v_load_bf16(&s->row[r + 1][i + v]);
                memcpy(to + r * KN_PANEL + 2 * v, &pair, sizeof(pair));
            }
}

void KN(pack16)(uint16_t *forward, uint16_t *back, const float *w, size_t out, size_t in, size_t panel,
                size_t panel_end)
{
    _Alignas(64) stretch s;
    memset(&s, 0, sizeof(s));
    for (size_t p = panel; p < panel_end; p++) {
        const size_t o = p * KN_PANEL, rows = kn_min(KN_PANEL, out - o);
        if (rows < KN_PANEL)
            memset(&s, 0, sizeof(s));
        for (size_t i = 0; i < in; i += STRETCH) {
            const size_t n = kn_min(STRETCH, in - i), whole = kn_ceil(n, KN_PANEL) * KN_PANEL;
            for (size_t r = 0; r < rows; r++) {
                round_row(s.row[r], w + (o + r) * in + i, n);
                memset(s.row[r] + n, 0, (whole - n) * sizeof(uint16_t));
            }
            pack_forward(forward + p * kn_panel_stride(in) + i * KN_PANEL, &s, whole);
            if (back)
                pack_back(back + i / KN_PANEL * kn_panel_stride(out) + o * KN_PANEL, kn_panel_stride(out), &s,
                          kn_ceil(rows, 2) * 2, n);
        }
    }
}
