/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of bfloat16 with AMX: two tiles of rows by two panels at a time, k in blocks of 32. An element's sum runs
 * over the blocks in order, each block's share being what one TDPBF16PS adds (amx.h). Weight gradients take rows in
 * blocks of 32 likewise, so a cut of a batch falls after a multiple of 32 rows here.
 *
 * Tiles: 0 … 3 are C (0, 1 the upper rows), 4, 5 are A (upper, lower rows), 6, 7 are B.
 */
#include "amx.h"
#include "block_bf16.h"

#ifndef KN_AMX_EMULATED
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum { SIDE = 16, BLOCK = 32, TILE_BYTES = 64 };

/* Sums of a block on their way out of the tiles. */
typedef struct sums {
    _Alignas(64) float at[2 * SIDE][2 * SIDE];
} sums;

static void configure(size_t upper, size_t lower)
{
    kn_tile_shapes s = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        s.bytes[i] = TILE_BYTES;
        s.rows[i] = SIDE;
    }
    s.rows[0] = s.rows[1] = s.rows[4] = (uint8_t)upper;
    s.rows[2] = s.rows[3] = s.rows[5] = (uint8_t)lower;
    kn_tile_config(&s);
}

/* C += A·B over `blocks` blocks of k, into s. A's tiles lie `lower` elements apart and its rows `lda`; B's panels lie
 * `panel` elements apart. Each block's tiles are `a_step` and 512 elements further. What has 1 tile of rows (m) or of
 * columns (n) leaves the others alone. `ahead` asks memory for what lies that many elements behind B. */
KN_INLINE void run(const int m, const int n, size_t blocks, const uint16_t *a, size_t lower, size_t lda, size_t a_step,
                   const uint16_t *b, size_t panel, size_t ahead)
{
    kn_tile_barrier();
    for (size_t k = 0; k < blocks; k++, a += a_step, b += BLOCK * KN_PANEL) {
        kn_tile_load(6, b, TILE_BYTES);
        kn_tile_load(4, a, lda * sizeof(*a));
        kn_tile_dpbf16(0, 4, 6);
        if (n == 2) {
            kn_tile_load(7, b + panel, TILE_BYTES);
            kn_tile_dpbf16(1, 4, 7);
        }
        if (m == 2) {
            kn_tile_load(5, a + lower, lda * sizeof(*a));
            kn_tile_dpbf16(2, 5, 6);
            if (n == 2)
                kn_tile_dpbf16(3, 5, 7);
        }
        for (size_t i = 0; ahead && i < BLOCK * KN_PANEL; i += TILE_BYTES / sizeof(*b)) {
            __builtin_prefetch(b + ahead + i, 0, 2);
            if (n == 2)
                __builtin_prefetch(b + ahead + panel + i, 0, 2);
        }
    }
}

static void start_zero(void)
{
    kn_tile_zero(0);
    kn_tile_zero(1);
    kn_tile_zero(2);
    kn_tile_zero(3);
}

static void store_sums(sums *s, size_t m, size_t n)
{
    kn_tile_store(0, s->at[0], sizeof(s->at[0]));
    if (n == 2)
        kn_tile_store(1, s->at[0] + SIDE, sizeof(s->at[0]));
    if (m == 2)
        kn_tile_store(2, s->at[SIDE], sizeof(s->at[0]));
    if (m == 2 && n == 2)
        kn_tile_store(3, s->at[SIDE] + SIDE, sizeof(s->at[0]));
}

/* --- products --- */

static void run_block(size_t m, size_t n, size_t blocks, const uint16_t *a, size_t lda, const uint16_t *b, size_t panel,
                      size_t ahead)
{
    start_zero();
    if (m == 2 && n == 2)
        run(2, 2, blocks, a, SIDE * lda, lda, BLOCK, b, panel, ahead);
    else if (m == 2)
        run(2, 1, blocks, a, SIDE * lda, lda, BLOCK, b, panel, ahead);
    else if (n == 2)
        run(1, 2, blocks, a, 0, lda, BLOCK, b, panel, ahead);
    else
        run(1, 1, blocks, a, 0, lda, BLOCK, b, panel, ahead);
}

/* Rows [skip, rows) of the block whose first is `row`. */
static void put(const kn_product16 *p, const sums *s, size_t row, size_t skip, size_t rows, size_t panel, size_t n)
{
    const size_t column = panel * KN_PANEL, columns = kn_min(p->N - column, n * KN_PANEL);
    for (size_t r = skip; r < rows; r++)
        for (size_t v = 0; v < n * NW && v * VN < columns; v++) {
            const V sum = v_load(s->at[r] + v * VN);
            if (p->c) {
                float *c = p->c + (row + r) * p->ldc + column;
                store_columns(c, (int)v, columns, p->accumulate ? load_columns(c, (int)v, columns) + sum : sum);
            } else {
                store_rounded(p, row + r, column + v * VN, columns - v * VN, sum);
            }
        }
}

/* A as it lies, unless a block of k would reach into the next row or the rows crowd the cache; else a copy. */
static const uint16_t *rows_of_a(const kn_product16 *p, size_t row, size_t rows, size_t *lda, uint16_t *scratch)
{
    const uint16_t *a = p->a + row * p->lda;
    *lda = p->lda;
    if (p->K % BLOCK == 0 && !(p->lda % 1024 == 0 && rows > 4))
        return a;
    const size_t whole = kn_ceil(p->K, BLOCK) * BLOCK;
    *lda = whole + 32;
    for (size_t r = 0; r < rows; r++) {
        memcpy(scratch + r * *lda, a + r * p->lda, p->K * sizeof(*a));
        memset(scratch + r * *lda + p->K, 0, (whole - p->K) * sizeof(*a));
    }
    return scratch;
}

/* One configuration serves the call: where rows are no multiple of 16, the last block reaches back over rows that are
 * done, computes them again and keeps the rest. */
static void product(const kn_product16 *p, size_t row, size_t row_end, size_t panel, size_t panel_end, void *scratch)
{
    const size_t rows = row_end - row, blocks = kn_ceil(p->K, BLOCK);
    if (rows == 0)
        return;
    size_t lda;
    const uint16_t *a = rows_of_a(p, row, rows, &lda, scratch);
    sums s;
    if (rows <= SIDE)
        configure(rows, SIDE);
    else
        configure(SIDE, rows < 2 * SIDE ? rows - SIDE : SIDE);
    for (size_t at = panel, n; at < panel_end; at += n) {
        n = kn_min(2, panel_end - at);
        const uint16_t *b = p->packed + at * p->panel_stride;
        const size_t ahead = rows <= 2 * SIDE ? n * p->panel_stride : 0;
        for (size_t r = 0, take; r < rows; r += take) {
            const size_t left = rows - r, m = left > SIDE ? 2 : 1, high = kn_min(rows, m * SIDE);
            take = kn_min(left, high);
            const size_t first = r + take - high;
            run_block(m, n, blocks, a + first * lda, lda, b, p->panel_stride, ahead);
            store_sums(&s, m, n);
            put(p, &s, row + first, high - take, high, at, n);
        }
    }
    kn_tile_release();
}

/* --- weight gradients --- */

/* A step of 16 pairs of rows (those from `depth` on are zero) and 16 columns (those from `left` on likewise), as a tile
 * of B. */
static void pack_b(uint16_t *to, const uint16_t *from, size_t ld, size_t depth, size_t left)
{
    for (size_t k = 0; k < BLOCK; k += 2, to += 2 * KN_PANEL) {
        if (k < depth)
            pack_panel(to, from + k * ld, k + 1 < depth ? from + (k + 1) * ld : NULL, left);
        else
            memset(to, 0, TILE_BYTES);
    }
}

/* The same transposed, as a tile of A. */
static void pack_a(uint16_t *to, const uint16_t *from, size_t ld, size_t depth, size_t left)
{
    _Alignas(64) uint16_t pairs[SIDE * BLOCK];
    pack_b(pairs, from, ld, depth, left);
    for (size_t k = 0; k < SIDE; k += 4)
        for (size_t o = 0; o < SIDE; o += 4)
            transpose4(to + o * BLOCK + 2 * k, pairs + k * BLOCK + 2 * o, pairs + (k + 1) * BLOCK + 2 * o,
                       pairs + (k + 2) * BLOCK + 2 * o, pairs + (k + 3) * BLOCK + 2 * o);
}

/* Between dw and s, for outputs and inputs that are there. */
static void move(float *dw, size_t lddw, sums *s, size_t outputs, size_t inputs, bool back)
{
    for (size_t r = 0; r < outputs; r++) {
        if (back)
            memcpy(dw + r * lddw, s->at[r], inputs * sizeof(float));
        else
            memcpy(s->at[r], dw + r * lddw, inputs * sizeof(float));
    }
}

/* m × n tiles of dw at `dw`. */
static void weight_block(size_t m, size_t n, size_t blocks, const uint16_t *a, const uint16_t *b, float *dw,
                         size_t lddw, size_t outputs, size_t inputs)
{
    const size_t tile = (size_t)KN_DEPTH16 * SIDE;
    const bool whole = outputs == m * SIDE && inputs == n * SIDE;
    sums s;
    if (!whole) {
        memset(&s, 0, sizeof(s));
        move(dw, lddw, &s, outputs, inputs, false);
    }
    float *c = whole ? dw : s.at[0];
    const size_t ld = whole ? lddw : 2 * SIDE, stride = ld * sizeof(float);
    kn_tile_barrier();
    kn_tile_load(0, c, stride);
    if (n == 2)
        kn_tile_load(1, c + SIDE, stride);
    if (m == 2)
        kn_tile_load(2, c + SIDE * ld, stride);
    if (m == 2 && n == 2)
        kn_tile_load(3, c + SIDE * ld + SIDE, stride);
    if (m == 2 && n == 2)
        run(2, 2, blocks, a, tile, BLOCK, SIDE * BLOCK, b, tile, 0);
    else if (m == 2)
        run(2, 1, blocks, a, tile, BLOCK, SIDE * BLOCK, b, tile, 0);
    else if (n == 2)
        run(1, 2, blocks, a, tile, BLOCK, SIDE * BLOCK, b, tile, 0);
    else
        run(1, 1, blocks, a, tile, BLOCK, SIDE * BLOCK, b, tile, 0);
    kn_tile_store(0, c, stride);
    if (n == 2)
        kn_tile_store(1, c + SIDE, stride);
    if (m == 2)
        kn_tile_store(2, c + SIDE * ld, stride);
    if (m == 2 && n == 2)
        kn_tile_store(3, c + SIDE * ld + SIDE, stride);
    if (!whole)
        move(dw, lddw, &s, outputs, inputs, true);
}

static void weight(const kn_weight16 *w, size_t out, size_t out_end, size_t panel, size_t panel_end, void *scratch)
{
    const size_t tiles = kn_ceil(out_end - out, SIDE), panels = panel_end - panel;
    const size_t tile = (size_t)KN_DEPTH16 * SIDE;
    uint16_t *b = scratch, *a = b + panels * tile;
    configure(SIDE, SIDE);
    for (size_t t = 0; t < w->T; t += KN_DEPTH16) {
        const size_t depth = kn_min(KN_DEPTH16, w->T - t), blocks = kn_ceil(depth, BLOCK);
        for (size_t k = 0; k < blocks; k++) {
            const size_t row = t + k * BLOCK, rows = kn_min(BLOCK, w->T - row);
            for (size_t p = 0; p < panels; p++) {
                const size_t i = (panel + p) * KN_PANEL;
                pack_b(b + p * tile + k * SIDE * BLOCK, w->x + row * w->ldx + i, w->ldx, rows, w->in - i);
            }
            for (size_t i = 0; i < tiles; i++) {
                const size_t o = out + i * SIDE;
                pack_a(a + i * tile + k * SIDE * BLOCK, w->dy + row * w->lddy + o, w->lddy, rows, w->out - o);
            }
        }
        for (size_t p = 0, n; p < panels; p += n) {
            n = kn_min(2, panels - p);
            const size_t column = (panel + p) * KN_PANEL, inputs = kn_min(n * SIDE, w->in - column);
            for (size_t i = 0, m; i < tiles; i += m) {
                m = kn_min(2, tiles - i);
                const size_t o = out + i * SIDE;
                weight_block(m, n, blocks, a + i * tile, b + p * tile, w->dw + o * w->lddw + column, w->lddw,
                             kn_min(m * SIDE, out_end - o), inputs);
            }
        }
    }
    kn_tile_release();
}

/* --- whether it may be used --- */

#ifdef KN_AMX_EMULATED

static const char *refused(void)
{
    return NULL;
}

#else

/* The processor's tiles must be asked of the kernel, once a process. */
static const char *refused(void)
{
    enum { TILE_BIT = 1 << 24, BF16_BIT = 1 << 22, REQUEST = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & TILE_BIT) || !(d & BF16_BIT))
        return "the processor has no AMX for bfloat16";
    if (syscall(SYS_arch_prctl, REQUEST, TILE_DATA) != 0)
        return "the processor has AMX, but the operating system does not give it";
    return NULL;
}

#endif

/* A product with ragged sides against the definition. What differs by more than an order of sums could explain is a
 * fault of the machine or of this file. */
static bool works(void)
{
    enum { M = 19, N = 21, K = 70, STRIDE = 96 * KN_PANEL };
    _Alignas(64) uint16_t a[M][K], b[2 * STRIDE] = {0};
    float c[M][N];
    _Alignas(64) char scratch[M * (96 + 32) * sizeof(float)];
    for (size_t i = 0; i < M * K; i++)
        a[i / K][i % K] = kn_narrow((float)((i * 37 + 11) % 101) / 50 - 1);
    for (size_t k = 0; k < K; k++)
        for (size_t n = 0; n < N; n++)
            b[n / KN_PANEL * STRIDE + k / 2 * 32 + n % KN_PANEL * 2 + k % 2] =
                kn_narrow((float)((k * 53 + n * 29) % 97) / 48 - 1);
    const kn_product16 p = {
        .N = N, .K = K, .a = a[0], .lda = K, .packed = b, .panel_stride = STRIDE, .ldc = N, .c = c[0]};
    product(&p, 0, M, 0, 2, scratch);
    for (size_t m = 0; m < M; m++)
        for (size_t n = 0; n < N; n++) {
            float want = 0;
            for (size_t k = 0; k < K; k += BLOCK)
                want = kn_tile_dot(want, a[m] + k, b + n / KN_PANEL * STRIDE + k * KN_PANEL + n % KN_PANEL * 2, 32,
                                   kn_min(BLOCK, K - k) / 2);
            if (!(fabsf(c[m][n] - want) <= 1e-5f * K))
                return false;
        }
    return true;
}

const char *KN(amx_refused)(void)
{
    const char *why = refused();
    return why ? why : works() ? NULL : "AMX gives wrong results in a trial product";
}

const kn_way16 *KN(way16)(void)
{
    static const kn_way16 way = {.name = "amx",
                                 .tile_rows = 2 * SIDE,
                                 .row_group = BLOCK,
                                 .product = product,
                                 .weight = weight,
                                 .pack = KN(pack16)};
    return &way;
}
