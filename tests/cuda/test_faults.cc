/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * Kernels with one fault each: in how many of eight seeds is it found, and does the message say what it is? Faults that
 * leave the emulator no trace but a wrong result count as found by that. */
#include "test_emulator.h"

#include "kernels/cuda/ptx.cuh"

/* A sanitizer ends the process before some of these could say anything. */
#pragma GCC diagnostic ignored "-Wunused-function"

enum { SEEDS = 8 };

/* Runs a kernel of one block over 256 floats, all 1; says whether it was refused, or its result is not what wanted
 * gives. */
template <class K> static bool wrong(K kernel, int block, float (*wanted)(int))
{
    float *memory, host[256];
    DONE(cudaMalloc(&memory, sizeof host));
    for (float &x : host) {
        x = 1;
    }
    DONE(cudaMemcpy(memory, host, sizeof host, cudaMemcpyHostToDevice));
    if (kn_launch(false, kernel, 1, block, 0, nullptr, memory) != cudaSuccess ||
        cudaDeviceSynchronize() != cudaSuccess) {
        return true;
    }
    DONE(cudaMemcpy(host, memory, sizeof host, cudaMemcpyDeviceToHost));
    for (int i = 0; i < block; i++) {
        if (host[i] != wanted(i)) {
            return true;
        }
    }
    return false;
}

static float one(int)
{
    return 1;
}

static float neighbour(int i)
{
    return (float)(i ^ 1);
}

static float sum_of_sums(int)
{
    return 256 * 256;
}

static float sum_of_ones(int)
{
    return 64;
}

static __global__ void leaves_early(float *o)
{
    if (threadIdx.x >= 40) {
        return;
    }
    __syncthreads();
    o[threadIdx.x] = 1;
}

static __global__ void two_barriers(float *o)
{
    if (threadIdx.x & 1) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    o[threadIdx.x] = 1;
}

static __global__ void half_a_warp(float *o)
{
    float v = 1;
    if (threadIdx.x < 16) {
        v = __shfl_xor_sync(~0u, v, 1);
    }
    o[threadIdx.x] = v;
}

static __global__ void half_a_warp_rightly(float *o)
{
    float v = 1;
    if (threadIdx.x < 16) {
        v = __shfl_xor_sync(0xffffu, v, 1);
    }
    o[threadIdx.x] = v;
}

static __global__ void reads_absent_lane(float *o)
{
    float v = 1;
    if (threadIdx.x < 16) {
        v = __shfl_xor_sync(0xffffu, v, 16);
    }
    o[threadIdx.x] = v;
}

static __global__ void no_syncwarp(float *o)
{
    SHARED(float, s, [32]);
    s[threadIdx.x] = (float)threadIdx.x;
    o[threadIdx.x] = s[threadIdx.x ^ 1];
}

template <bool BARRIER> static __global__ void sum(float *o)
{
    SHARED(float, part, [2]);
    const float v = warp_sum(o[threadIdx.x]);
    if (threadIdx.x % 32 == 0) {
        part[threadIdx.x / 32] = v;
    }
    if (BARRIER) {
        __syncthreads();
    }
    o[threadIdx.x] = part[0] + part[1];
}

/* Sums twice in the same memory; without the barrier a warp may write its second part while another reads the first. */
template <bool BARRIER> static __global__ void sums_again(float *o)
{
    SHARED(float, part, [8]);
    float v = 1;
    for (int i = 0; i < 2; i++) {
        v = warp_sum(v);
        if (BARRIER) {
            __syncthreads();
        }
        if (threadIdx.x % 32 == 0) {
            part[threadIdx.x / 32] = v;
        }
        __syncthreads();
        v = 0;
        for (int k = 0; k < 8; k++) {
            v += part[k];
        }
    }
    o[threadIdx.x] = v;
}

static __global__ void reads_what_nobody_wrote(float *o)
{
    SHARED(float, s, [65]);
    s[threadIdx.x] = 1;
    __syncthreads();
    o[threadIdx.x] = s[threadIdx.x + 1];
}

static __global__ void writes_behind_shared(float *o)
{
    SHARED(float, s, [32]);
    float *behind = s + 1;   /* UBSan knows the size of s */
    behind[threadIdx.x] = 1; /* ASan stops here, by itself */
    __syncthreads();
    o[threadIdx.x] = 1;
}

template <bool WAIT> static __global__ void copies(float *o)
{
    SHARED(float4, s, [32]);
    cp_async16(&s[threadIdx.x], o + 128 + threadIdx.x * 4, true);
    cp_async_commit();
    if (WAIT) {
        cp_async_wait<0>();
    }
    const float v = s[threadIdx.x].x;
    cp_async_wait<0>();
    o[threadIdx.x] = v;
}

static __global__ void copies_and_ends(float *o)
{
    SHARED(float4, s, [32]);
    cp_async16(&s[threadIdx.x], o + threadIdx.x * 4, true);
    cp_async_commit();
    o[128 + threadIdx.x] = 1;
}

static __global__ void copies_askew(float *o)
{
    SHARED(float, s, [64]);
    cp_async16(s + 1, o, true);
    cp_async_wait<0>();
}

static __global__ void wants_much_memory(float *o)
{
    SHARED(float, s, [60000]);
    s[threadIdx.x] = 1;
    o[threadIdx.x] = s[threadIdx.x];
}

static __global__ void wants_both(float *o)
{
    SHARED(float, s, [500]); /* beside the launch's dynamic memory */
    DYN_SHARED(float, t);
    s[threadIdx.x] = t[threadIdx.x] = 1;
    o[threadIdx.x] = s[threadIdx.x] * t[threadIdx.x];
}

static __global__ void recurses(float *o)
{
    volatile char room[400 * 1024];
    for (size_t i = sizeof room; i > 0; i--) {
        room[i - 1] = 1;
    }
    o[0] = room[3];
}

static __global__ void follows_null(float *o)
{
    __syncthreads();
    if (threadIdx.x == 5) {
        *(volatile int *)(uintptr_t)(uint32_t)(o[0] * 4096) = 1; /* a member of something that is not there */
    }
}

static void meetings()
{
    CHECK(found_in(SEEDS, [] { return wrong(leaves_early, 64, one) && fault_says("took different ways"); }) == SEEDS);
    CHECK(found_in(SEEDS, [] { return wrong(two_barriers, 64, one) && fault_says("divergent barriers"); }) == SEEDS);
    CHECK(found_in(SEEDS, [] { return wrong(half_a_warp, 32, one) && fault_says("test_faults.cc:"); }) == SEEDS);
    CHECK(found_in(SEEDS, [] { return wrong(half_a_warp_rightly, 32, one); }) == 0);
    CHECK(found_in(SEEDS, [] { return wrong(reads_absent_lane, 32, one) && fault_says("not in mask"); }) == SEEDS);
}

#ifndef EMULATE_TSAN /* which says more of a race; see below */
static void missing_barriers()
{
    CHECK(found_in(SEEDS, [] { return wrong(sum<true>, 64, sum_of_ones); }) == 0);
    CHECK(found_in(SEEDS, [] { return wrong(sum<false>, 64, sum_of_ones); }) >= 4);
    CHECK(found_in(SEEDS, [] { return wrong(sums_again<true>, 256, sum_of_sums); }) == 0);
    CHECK(found_in(SEEDS, [] { return wrong(sums_again<false>, 256, sum_of_sums); }) >= 4);
    CHECK(found_in(SEEDS, [] { return wrong(no_syncwarp, 32, neighbour); }) == SEEDS);
    CHECK(found_in(SEEDS, [] { return wrong(reads_what_nobody_wrote, 64, one); }) == SEEDS);
}
#endif

static void missing_waits()
{
    CHECK(found_in(SEEDS, [] { return wrong(copies<true>, 32, one); }) == 0);
    CHECK(found_in(SEEDS, [] { return wrong(copies<false>, 32, one); }) >=
          SEEDS - 1); /* with seed 1 they land at once */
    CHECK(found_in(SEEDS, [] { return wrong(copies_and_ends, 32, one) && fault_says("not waited for"); }) >= SEEDS - 1);
    CHECK(found_in(SEEDS, [] { return wrong(copies_askew, 32, one) && fault_says("aligned"); }) == SEEDS);
}

static void shared_memory()
{
#ifndef EMULATE_ASAN
    CHECK(found_in(SEEDS, [] { return wrong(writes_behind_shared, 32, one) && fault_says("outside a shared"); }) ==
          SEEDS);
#else
    dies("AddressSanitizer", [] { wrong(writes_behind_shared, 32, one); });
#endif
    CHECK(found_in(1, [] { return wrong(wants_much_memory, 32, one) && fault_says("of shared memory"); }) == 1);
    static const struct {
        int capability;
        size_t dynamic;
        bool too_much;
    } both[] = {{90, 46 << 10, false}, {90, 47 << 10, true}, {90, 225 << 10, false}, {90, 226 << 10, true},
                {86, 97 << 10, false}, {86, 98 << 10, true}, {80, 161 << 10, false}, {80, 162 << 10, true}};
    for (const auto &b : both) {
        float *p;
        emulate_reset();
        emulate()->fatal = false;
        emulate()->capability = b.capability;
        DONE(cudaMalloc(&p, 1024));
        DONE(kn_launch(false, wants_both, 1, 32, b.dynamic, nullptr, p));
        CHECK((cudaDeviceSynchronize() != cudaSuccess) == b.too_much);
        CHECK(!b.too_much || fault_says("of shared memory"));
    }
}

static void shapes()
{
    emulate()->fatal = false;
    float *p;
    DONE(cudaMalloc(&p, 1024));
    CHECK(kn_launch(false, half_a_warp_rightly, 1, 40, 0, nullptr, p) != cudaSuccess &&
          fault_says("no multiple of 32"));
    emulate_reset();
    DONE(cudaMalloc(&p, 1024));
    CHECK(kn_launch(false, half_a_warp_rightly, 1, 2048, 0, nullptr, p) == cudaErrorInvalidConfiguration);
    CHECK(kn_launch(false, half_a_warp_rightly, dim3(1, 70000), 32, 0, nullptr, p) == cudaErrorInvalidConfiguration);
    CHECK(kn_launch(false, half_a_warp_rightly, 1, 32, 230 * 1024, nullptr, p) == cudaErrorInvalidValue);
    CHECK(cudaGetLastError() == cudaErrorInvalidValue && cudaGetLastError() == cudaSuccess);
    DONE(cudaFree(p));
}

static __global__ void follows_rightly(float *o)
{
    SHARED(float, s, [64]);
    s[threadIdx.x] = 1;
    __syncthreads();
    follow();
    o[blockIdx.x * 64 + threadIdx.x] = s[threadIdx.x ^ 1];
}

static __global__ void follows_too_late(float *o)
{
    const float x = blockIdx.x > 0 ? o[threadIdx.x] : 1;
    follow();
    o[threadIdx.x] = x;
}

static __global__ void follows_and_leaves(float *o)
{
    if (threadIdx.x >= 32) {
        return;
    }
    follow();
    o[threadIdx.x] = 1;
}

static __global__ void adds_one(float *o)
{
    follow();
    o[threadIdx.x] += 1;
}

template <class K> static cudaError_t after_another(K kernel, int blocks)
{
    float *p;
    DONE(cudaMalloc(&p, 1024));
    DONE(cudaMemset(p, 0, 1024));
    DONE(kn_launch(true, adds_one, 1, 64, 0, nullptr, p));
    DONE(kn_launch(true, kernel, blocks, 64, 0, nullptr, p));
    return cudaDeviceSynchronize();
}

/* Launched to follow: what a kernel does before it waits for the one before it. */
static void followers()
{
    CHECK(found_in(SEEDS, [] { return after_another(follows_rightly, 3) != cudaSuccess; }) == 0);
    CHECK(found_in(SEEDS, [] { return after_another(adds_one, 1) != cudaSuccess; }) == 0);
    CHECK(found_in(SEEDS, [] {
              return after_another(follows_and_leaves, 1) != cudaSuccess && fault_says("without having waited");
          }) == SEEDS);
#ifndef EMULATE_TSAN
    dies("before it has waited", [] { after_another(follows_too_late, 3); });
    dies("follows_too_late", [] { after_another(follows_too_late, 3); });
    dies("before it has waited", [] { after_another(half_a_warp_rightly, 1); });
#endif
    float *p;
    emulate_reset();
    emulate()->capability = 89;
    DONE(cudaMalloc(&p, 1024));
    CHECK(kn_launch(true, adds_one, 1, 64, 0, nullptr, p) == cudaErrorNotSupported);
    DONE(kn_launch(false, adds_one, 1, 64, 0, nullptr, p));
}

#ifndef EMULATE_TSAN
static void wild_pointers()
{
    dies("follows a null pointer", [] { wrong(follows_null, 32, one); });
    dies("follows_null", [] { wrong(follows_null, 32, one); });
#ifndef EMULATE_ASAN
    dies("has used its whole stack", [] { wrong(recurses, 32, one); });
#endif
}
#endif

#ifdef EMULATE_TSAN
static __global__ void shuffle_for_a_barrier(float *o)
{
    SHARED(float, s, [32]);
    s[threadIdx.x] = (float)threadIdx.x;
    const float v = __shfl_xor_sync(~0u, 1.0f, 1);
    o[threadIdx.x] = v * s[threadIdx.x ^ 1];
}

static __global__ void blocks_meet(float *o)
{
    o[threadIdx.x] += 1;
}

/* The last block to come adds what all have written. */
template <bool BEFORE, bool AFTER> static __global__ void last_adds(float *o, unsigned *arrived)
{
    SHARED(unsigned, before, [1]);
    o[1 + blockIdx.x * 64 + threadIdx.x] = 1;
    __syncthreads();
    if (threadIdx.x == 0) {
        if (BEFORE) {
            __threadfence();
        }
        *before = atomicInc(arrived, gridDim.x - 1);
        if (AFTER) {
            __threadfence();
        }
    }
    __syncthreads();
    float sum = 0;
    for (unsigned i = 0; *before == gridDim.x - 1 && i < 64 * gridDim.x; i++) {
        sum += threadIdx.x == 0 ? o[1 + i] : 0;
    }
    if (sum > 0) {
        o[0] = sum;
    }
}

template <bool BEFORE, bool AFTER> static void last_block()
{
    enum { BLOCKS = 16 };
    float *o, sum;
    unsigned *arrived, left;
    DONE(cudaMalloc(&o, (1 + 64 * BLOCKS) * sizeof *o));
    DONE(cudaMalloc(&arrived, sizeof *arrived));
    DONE(cudaMemset(arrived, 0, sizeof *arrived));
    for (int i = 0; i < 2; i++) {
        DONE(kn_launch(false, last_adds<BEFORE, AFTER>, BLOCKS, 64, 0, nullptr, o, arrived));
        DONE(cudaMemcpy(&sum, o, sizeof sum, cudaMemcpyDeviceToHost));
        DONE(cudaMemcpy(&left, arrived, sizeof left, cudaMemcpyDeviceToHost));
        CHECK(sum == 64 * BLOCKS && left == 0);
    }
}

static void races()
{
    for (uint64_t seed = 0; seed < 4; seed++) { /* with both fences none: TSan would end the program */
        emulate_reset();
        emulate()->seed = seed;
        emulate()->threads = 2;
        last_block<true, true>();
    }
    for (uint64_t seed = 0; seed < 4; seed++) {
        const auto within = [seed](const std::function<void()> &act) {
            return [seed, act] {
                emulate()->seed = seed;
                emulate()->threads = 2;
                act();
            };
        };
        dies("data race", within([] { wrong(sum<false>, 64, sum_of_ones); }));
        dies("data race", within([] { wrong(no_syncwarp, 32, neighbour); }));
        dies("data race", within([] { wrong(shuffle_for_a_barrier, 32, neighbour); }));
        dies("data race", within(last_block<false, true>));
        dies("data race", within(last_block<true, false>));
        dies("data race", within([] {
                 float *p;
                 DONE(cudaMalloc(&p, 1024));
                 DONE(kn_launch(false, blocks_meet, 16, 64, 0, nullptr, p));
                 cudaDeviceSynchronize();
             }));
    }
}
#endif

const Case fault_cases[] = {
    {"barriers and warps that diverge", meetings},
#ifndef EMULATE_TSAN
    {"missing barriers", missing_barriers},
    {"wild pointers in kernels", wild_pointers},
#endif
#ifdef EMULATE_TSAN
    {"races", races},
#endif
    {"kernels that follow", followers},
    {"missing waits for copies", missing_waits},
    {"shared memory beyond its end", shared_memory},
    {"shapes of launches", shapes},
    {NULL, NULL},
};
