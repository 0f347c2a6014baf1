/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What attention's files of one element type share: the layout of keys and values, and scratch memory. */
#ifndef KN_LAYOUT_H
#define KN_LAYOUT_H

#include "attend.h"
#include "element.h"

/* Four rows of four elements as columns of float32: to[c·16 + r] = row r's element c. */
KN_INLINE void transpose4(float *to, const E *r0, const E *r1, const E *r2, const E *r3)
{
#ifdef KN_ELEMENT_BF16
    float wide[4][4];
    const E *const row[4] = {r0, r1, r2, r3};
    for (int r = 0; r < 4; r++)
        for (int i = 0; i < 4; i++)
            wide[r][i] = kn_widen(row[r][i]);
    v_transpose4(to, 16, wide[0], wide[1], wide[2], wide[3]);
#else
    v_transpose4(to, 16, r0, r1, r2, r3);
#endif
}

/* Sixteen rows (NULL beyond the last) of head_dim elements as a float32 block [head_dim][16], absent rows as 0. */
static inline void lay_transposed(float *block, const E *const row[16], size_t head_dim)
{
    const size_t whole = head_dim / 4 * 4;
    for (size_t r = 0; r < 16; r += 4) {
        if (row[r + 3]) {
            for (size_t i = 0; i < whole; i += 4)
                transpose4(block + i * 16 + r, row[r] + i, row[r + 1] + i, row[r + 2] + i, row[r + 3] + i);
            for (size_t n = r; n < r + 4; n++)
                for (size_t i = whole; i < head_dim; i++)
                    block[i * 16 + n] = e_get(row[n] + i);
        } else {
            for (size_t n = r; n < r + 4; n++)
                for (size_t i = 0; i < head_dim; i++)
                    block[i * 16 + n] = row[n] ? e_get(row[n] + i) : 0;
        }
    }
}

/* attend_values with results of the element type; `wide` is room for m × head_dim numbers. */
static inline void attend_values_to(size_t m, size_t head_dim, const float *p, size_t lp, const kn_blocks *blocks,
                                    size_t from, size_t end, const float *factor, float *wide, E *out, size_t so)
{
#ifdef KN_ELEMENT_BF16
    KN(attend_values)(m, head_dim, p, lp, blocks, from, end, factor, wide, head_dim);
    for (size_t r = 0; r < m; r++)
        e_narrow(out + r * so, wide + r * head_dim, head_dim);
#else
    KN(attend_values)(m, head_dim, p, lp, blocks, from, end, factor, out, so);
#endif
}

static inline bool attention_shape_ok(const kn_attention *a)
{
    return a->heads > 0 && a->kv_heads > 0 && a->head_dim > 0 && a->heads % a->kv_heads == 0 && a->softcap >= 0;
}

static inline bool segments_ok(const kn_segment *s, size_t segments, size_t T)
{
    for (size_t i = 0; i < segments; i++)
        if (s[i].row > T || s[i].count > T - s[i].row ||
            (s[i].prefix_count > 0 && (s[i].prefix > T || s[i].prefix_count > T - s[i].prefix)))
            return false;
    return true;
}

/* Row (of the packed batch) of key j of a segment. */
static inline size_t key_row(const kn_segment *s, size_t j)
{
    return j < s->prefix_count ? s->prefix + j : s->row + (j - s->prefix_count);
}

/* n floats of scratch, rounded up to a cache line. */
static inline size_t kn_line(size_t n)
{
    return kn_ceil(n, 16) * 16;
}

#endif
