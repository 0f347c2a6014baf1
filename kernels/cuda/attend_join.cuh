/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* How the parts of a query's keys come together (attend_partial). */
#ifndef KERNELS_CUDA_ATTEND_JOIN_CUH
#define KERNELS_CUDA_ATTEND_JOIN_CUH

#include "attend.cuh"

KDEV void attend_put(float *to, float x)
{
    *to = x;
}

KDEV void attend_put(attend_bf16 *to, float x)
{
    *to = __float2bfloat16(x);
}

/* Called by a whole block whose part is written: the last one of the query and these heads joins all parts, in order,
 * so that it does not matter which that is. */
template <int THREADS, class E>
KDEV void attend_join(E *out, const attend_partial &partial, uint32_t *arrived, const attend_part &part,
                      const attend_rows &s, uint32_t head, uint32_t heads, const attend_shape &a)
{
    SHARED(uint32_t, before, [1]);
    const uint32_t first = (uint32_t)attend_first_key(a, (int)s.before) / ATTEND_SPLIT;
    const uint32_t parts = s.before / ATTEND_SPLIT + 1 - first, slot = part.slot - (part.part - first);
    __syncthreads(); /* the block's part is written */
    if (threadIdx.x == 0) {
        __threadfence();                              /* for the others, before it counts */
        *before = atomicInc(arrived, part.alone - 1); /* 0 again after the last */
        __threadfence();                              /* theirs, after they counted */
    }
    __syncthreads(); /* it is known who is the last */
    if (*before + 1 < part.alone)
        return;
    for (uint32_t n = threadIdx.x; n < heads * a.head_dim; n += THREADS) {
        const uint32_t h = head + n / a.head_dim, e = n % a.head_dim;
        float max = -INFINITY, sum = 0, value = 0;
        for (uint32_t p = 0; p < parts; p++)
            max = fmaxf(max, __ldcg(partial.figures + 2 * ((size_t)(slot + p) * a.heads + h)));
        for (uint32_t p = 0; p < parts; p++) {
            const size_t at = (size_t)(slot + p) * a.heads + h;
            const float keep = ex2_approx(__ldcg(partial.figures + 2 * at) - max);
            sum = fmaf(keep, __ldcg(partial.figures + 2 * at + 1), sum);
            value = fmaf(keep, __ldcg(partial.values + at * a.head_dim + e), value);
        }
        attend_put(out + ((size_t)s.row * a.heads + h) * a.head_dim + e, value / sum);
    }
}

#endif
