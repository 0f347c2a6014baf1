/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * The wrappers of kernels/cuda/ptx.cuh, emulated; what each does is documented there. */
#ifndef EMULATE_PTX_H
#define EMULATE_PTX_H

#include "launch.h"

namespace emulate_cuda
{

struct Mma {
    float *d;
    const uint32_t *a;
    uint32_t b[2];
};

/* Gathers the whole matrices from the lanes' registers, multiplies them, and hands the result out. The device sums in
 * an order of its own; products of bf16 are exact in float32. */
QUIET inline void mma(Fiber *lanes, uint32_t)
{
    float a[16][16], b[16][8], d[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const Mma *m = static_cast<const Mma *>(lanes[lane].brought);
        const int g = lane >> 2, t = (lane & 3) * 2;
        for (int i = 0; i < 4; i++) {
            for (int half = 0; half < 2; half++) {
                const int shift = half ? 0 : 16;
                a[g + (i & 1) * 8][t + (i >> 1) * 8 + half] = __uint_as_float(m->a[i] << shift & 0xffff0000u);
                if (i < 2) {
                    b[t + i * 8 + half][g] = __uint_as_float(m->b[i] << shift & 0xffff0000u);
                    d[g + i * 8][t + half] = m->d[i * 2 + half];
                }
            }
        }
    }
    for (int i = 0; i < 16; i++) {
        for (int k = 0; k < 16; k++) {
            for (int j = 0; j < 8; j++) {
                d[i][j] += a[i][k] * b[k][j];
            }
        }
    }
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 4; i++) {
            static_cast<Mma *>(lanes[lane].brought)->d[i] = d[(lane >> 2) + (i >> 1) * 8][(lane & 3) * 2 + (i & 1)];
        }
    }
}

typedef uint64_t __attribute__((may_alias)) Word64; /* plain loads and stores: gcc hides an inlined memcpy from TSan */
typedef uint32_t __attribute__((may_alias)) Word32;

struct Rows {
    alignas(16) uint16_t row[8];
    uint32_t *r;
};

template <int COUNT, bool TRANS> QUIET void rows_to_lanes(Fiber *lanes, uint32_t)
{
    for (int lane = 0; lane < 32; lane++) {
        for (int q = 0; q < 2 * COUNT; q++) {
            const int i = lane >> 2, j = (lane & 3) * 2 + (q & 1);
            const int row = TRANS ? j : i, column = TRANS ? i : j;
            const uint16_t v = static_cast<Rows *>(lanes[(q >> 1) * 8 + row].brought)->row[column];
            uint32_t &r = static_cast<Rows *>(lanes[lane].brought)->r[q >> 1];
            r = q & 1 ? r | (uint32_t)v << 16 : v;
        }
    }
}

template <int COUNT, bool TRANS> static inline void load_rows(uint32_t *r, const void *row, const char *what, Place at)
{
    Rows mine;
    if (((uintptr_t)row & 15) != 0) {
        fail("%s at %s:%d: the row is not aligned to 16 bytes", what, at.file, at.line);
    }
    check_shared_address(row, 16, what, at);
    if (lane() < 8 * COUNT) {
        for (int i = 0; i < 2; i++) {
            reinterpret_cast<Word64 *>(mine.row)[i] = static_cast<const Word64 *>(row)[i];
        }
    }
    mine.r = r;
    meet(~0u, &mine, rows_to_lanes<COUNT, TRANS>, false, what, at);
}

/* Moves an asynchronous copy's bytes, visibly to TSan. */
VISIBLE inline void land(const Copy &c)
{
    if (c.bytes == 4) {
        *static_cast<Word32 *>(c.to) = c.from == nullptr ? 0 : *static_cast<const Word32 *>(c.from);
        return;
    }
    for (int i = 0; i < c.bytes / 8; i++) {
        static_cast<Word64 *>(c.to)[i] = c.from == nullptr ? 0 : static_cast<const Word64 *>(c.from)[i];
    }
}

VISIBLE inline void poison(const Copy &c)
{
    for (int i = 0; i < c.bytes / 4; i++) {
        static_cast<Word32 *>(c.to)[i] = ~0u;
    }
}

/* A copy lands as late as it may, its destination a NaN meanwhile, or at once: the seed says. */
QUIET inline void cp_async(void *to, const void *from, int bytes, bool valid, Place at)
{
    Fiber *f = worker->current;
    const Copy c = {to, valid ? from : nullptr, bytes, f->group};
    if ((((uintptr_t)to | (valid ? (uintptr_t)from : 0)) & (uintptr_t)(bytes - 1)) != 0) {
        fail("cp_async%d at %s:%d: an address is not aligned to %d bytes", bytes, at.file, at.line, bytes);
    }
    check_shared_address(to, (size_t)bytes, "cp_async", at);
    if (worker->seed == 1 || (worker->seed > 1 && (random_bits() & 1)) || f->copies == MAX_COPIES) {
        land(c);
        return;
    }
    poison(c);
    copies()[f->copies++] = c;
}

QUIET inline void wait_for_copies(int but)
{
    Fiber *f = worker->current;
    if (f->copies == 0) {
        return;
    }
    Copy *copy = copies();
    int left = 0;
    for (int i = 0; i < f->copies; i++) {
        if (copy[i].group < f->group - but) {
            land(copy[i]);
        } else {
            copy[left++] = copy[i];
        }
    }
    f->copies = left;
}

} // namespace emulate_cuda

static inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, EMULATE_PLACE)
{
    emulate_cuda::Mma m = {d, a, {b0, b1}};
    emulate_cuda::meet(~0u, &m, emulate_cuda::mma, false, "mma", EMULATE_HERE);
}

static inline void ldmatrix_x2(uint32_t (&r)[2], const void *row, EMULATE_PLACE)
{
    emulate_cuda::load_rows<2, false>(r, row, "ldmatrix_x2", EMULATE_HERE);
}

static inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row, EMULATE_PLACE)
{
    emulate_cuda::load_rows<2, true>(r, row, "ldmatrix_x2_trans", EMULATE_HERE);
}

static inline void ldmatrix_x4(uint32_t (&r)[4], const void *row, EMULATE_PLACE)
{
    emulate_cuda::load_rows<4, false>(r, row, "ldmatrix_x4", EMULATE_HERE);
}

static inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row, EMULATE_PLACE)
{
    emulate_cuda::load_rows<4, true>(r, row, "ldmatrix_x4_trans", EMULATE_HERE);
}

static inline void cp_async16(void *shared, const void *global, bool valid, EMULATE_PLACE)
{
    emulate_cuda::cp_async(shared, global, 16, valid, EMULATE_HERE);
}

static inline void cp_async8(void *shared, const void *global, bool valid, EMULATE_PLACE)
{
    emulate_cuda::cp_async(shared, global, 8, valid, EMULATE_HERE);
}

static inline void cp_async4(void *shared, const void *global, bool valid, EMULATE_PLACE)
{
    emulate_cuda::cp_async(shared, global, 4, valid, EMULATE_HERE);
}

QUIET static inline void cp_async_commit()
{
    emulate_cuda::worker->current->group++;
}

template <int N> static inline void cp_async_wait()
{
    emulate_cuda::wait_for_copies(N);
}

static inline void griddep_wait(EMULATE_PLACE)
{
    emulate_cuda::wait_for_former(EMULATE_HERE);
}

static inline void griddep_launch()
{
}

static inline float ex2_approx(float x)
{
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
}

static inline uint4 load_stream16(const void *p)
{
    return *static_cast<const uint4 *>(p);
}

static inline void store_stream16(void *p, uint4 v)
{
    *static_cast<uint4 *>(p) = v;
}

static inline void prefetch_l2(const void *)
{
}

#endif
