/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * The emulated instructions against their plain definitions. */
#include "test_emulator.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/cuda/ptx.cuh"

static float number(uint32_t i)
{
    return (float)((i * 2654435761u >> 20) % 17) / 8.0f - 1.0f;
}

/* Runs a kernel of one block that fills out, and copies that to the host. */
template <class T, class K, class... A> static void run(K kernel, int block, T *out, size_t count, A... arguments)
{
    T *device;
    DONE(cudaMalloc(&device, count * sizeof(T)));
    DONE(kn_launch(false, kernel, 1, block, 0, nullptr, device, arguments...));
    DONE(cudaMemcpy(out, device, count * sizeof(T), cudaMemcpyDeviceToHost));
    DONE(cudaFree(device));
}

/* ---- matrices ---- */

/* One product by registers filled as ptx.cuh says, from matrices whose elements number() gives. */
static __global__ void mma_kernel(float *out)
{
    const int lane = (int)threadIdx.x, g = lane / 4, t = lane % 4;
    uint32_t a[4], b[2];
    float d[4];
    for (int i = 0; i < 4; i++) {
        const int row = g + (i & 1) * 8, column = 2 * t + (i >> 1) * 8;
        a[i] = pack_bf16(number((uint32_t)(row * 16 + column)), number((uint32_t)(row * 16 + column + 1)));
        d[i] = number((uint32_t)(1000 + (g + (i >> 1) * 8) * 8 + 2 * t + (i & 1)));
    }
    for (int i = 0; i < 2; i++) {
        const int row = 2 * t + i * 8;
        b[i] = pack_bf16(number((uint32_t)(500 + row * 8 + g)), number((uint32_t)(500 + (row + 1) * 8 + g)));
    }
    mma_m16n8k16_bf16(d, a, b[0], b[1]);
    for (int i = 0; i < 4; i++) {
        out[(g + (i >> 1) * 8) * 8 + 2 * t + (i & 1)] = d[i];
    }
}

static void mma()
{
    float d[16 * 8];
    run(mma_kernel, 32, d, 128);
    for (uint32_t i = 0; i < 16; i++) {
        for (uint32_t j = 0; j < 8; j++) {
            float sum = number(1000 + i * 8 + j);
            for (uint32_t k = 0; k < 16; k++) {
                sum += number(i * 16 + k) * number(500 + k * 8 + j);
            }
            CHECK(fabsf(sum - d[i * 8 + j]) < 1e-6f);
        }
    }
}

/* count matrices of 8 × 8 numbers, their rows 80 bytes apart; lane l writes what it got. */
template <int COUNT, bool TRANS> static __global__ void ldmatrix_kernel(uint32_t *out)
{
    SHARED(uint16_t, rows, [32 * 40]);
    const int lane = (int)threadIdx.x;
    for (int i = lane; i < 32 * 40; i += 32) {
        rows[i] = (uint16_t)i;
    }
    __syncthreads();
    if constexpr (COUNT == 4) {
        uint32_t r[4];
        (TRANS ? ldmatrix_x4_trans : ldmatrix_x4)(r, rows + lane * 40, __FILE__, __LINE__);
        for (int i = 0; i < 4; i++) {
            out[lane * 4 + i] = r[i];
        }
    } else {
        uint32_t r[2];
        (TRANS ? ldmatrix_x2_trans : ldmatrix_x2)(r, rows + lane * 40, __FILE__, __LINE__);
        for (int i = 0; i < 2; i++) {
            out[lane * 2 + i] = r[i];
        }
    }
}

template <int COUNT, bool TRANS> static void check_ldmatrix()
{
    uint32_t got[32 * COUNT];
    run(ldmatrix_kernel<COUNT, TRANS>, 32, got, 32 * COUNT);
    for (uint32_t lane = 0; lane < 32; lane++) {
        for (uint32_t i = 0; i < COUNT; i++) {
            for (uint32_t half = 0; half < 2; half++) {
                const uint32_t row = lane / 4, column = lane % 4 * 2 + half;
                const uint32_t want = TRANS ? (8 * i + column) * 40 + row : (8 * i + row) * 40 + column;
                CHECK((got[lane * COUNT + i] >> 16 * half & 0xffff) == want);
            }
        }
    }
}

static void ldmatrix()
{
    check_ldmatrix<2, false>();
    check_ldmatrix<2, true>();
    check_ldmatrix<4, false>();
    check_ldmatrix<4, true>();
}

/* ---- copies ---- */

static __global__ void cp_async_kernel(uint32_t *out, const uint32_t *in)
{
    SHARED(uint4, s, [32]);
    const int t = (int)threadIdx.x;
    uint32_t *words = reinterpret_cast<uint32_t *>(s);
    cp_async16(&s[t], in + t * 4, t % 3 != 0);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    for (int i = 0; i < 4; i++) {
        out[t * 4 + i] = words[t * 4 + i];
    }
    __syncthreads();
    cp_async8(words + 2 * t, in + 2 * t, t % 3 != 1);
    cp_async_commit();
    cp_async4(words + 64 + t, in + 64 + t, t % 3 != 2);
    cp_async_commit();
    cp_async_wait<1>();
    cp_async_wait<0>();
    __syncthreads();
    for (int i = 0; i < 3; i++) {
        out[128 + t * 3 + i] = words[t * 3 + i];
    }
}

static void cp_async()
{
    uint32_t in[128], out[224], *device;
    for (uint32_t i = 0; i < 128; i++) {
        in[i] = i + 1;
    }
    DONE(cudaMalloc(&device, sizeof in));
    DONE(cudaMemcpy(device, in, sizeof in, cudaMemcpyHostToDevice));
    run(cp_async_kernel, 32, out, 224, device);
    for (uint32_t i = 0; i < 128; i++) {
        CHECK(out[i] == (i / 4 % 3 != 0 ? i + 1 : 0));
    }
    for (uint32_t i = 0; i < 96; i++) {
        CHECK(out[128 + i] == ((i < 64 ? i / 2 % 3 != 1 : i % 32 % 3 != 2) ? i + 1 : 0));
    }
    DONE(cudaFree(device));
}

/* ---- warps ---- */

static __global__ void warp_kernel(int *out)
{
    const int t = (int)threadIdx.x, lane = t % 32;
    int *o = out + t * 16;
    o[0] = __shfl_sync(~0u, t, 5);
    o[1] = __shfl_xor_sync(~0u, t, 3);
    o[2] = __shfl_up_sync(~0u, t, 2);
    o[3] = __shfl_down_sync(~0u, t, 2);
    o[4] = __shfl_xor_sync(~0u, t, 1, 8);
    o[5] = __shfl_sync(~0u, t, 1, 8);
    o[6] = (int)__ballot_sync(~0u, lane % 3 == 0);
    o[7] = __any_sync(~0u, lane == 7) + 2 * __all_sync(~0u, lane < 31);
    o[8] = (int)__reduce_add_sync(~0u, (unsigned)lane);
    o[9] = __reduce_max_sync(~0u, lane == 4 ? 100 : -lane);
    o[10] = (int)__match_any_sync(~0u, lane / 8);
    o[11] = __syncthreads_count(t % 5 == 0);
    o[12] = __syncthreads_or(t == 40);
    o[13] = __syncthreads_and(t != 40);
    o[14] = (int)warp_sum((float)lane);
    o[15] = (int)warp_max((float)(lane == 9 ? 1000 : lane));
}

static void warps()
{
    static int out[64 * 16];
    run(warp_kernel, 64, out, 64 * 16);
    for (int t = 0; t < 64; t++) {
        const int *o = out + t * 16, lane = t % 32, base = t - lane;
        CHECK(o[0] == base + 5);
        CHECK(o[1] == (t ^ 3));
        CHECK(o[2] == (lane >= 2 ? t - 2 : t));
        CHECK(o[3] == (lane < 30 ? t + 2 : t));
        CHECK(o[4] == (t ^ 1));
        CHECK(o[5] == base + lane / 8 * 8 + 1);
        CHECK(o[6] == 0x49249249);
        CHECK(o[7] == 1);
        CHECK(o[8] == 496 && o[9] == 100);
        CHECK(o[10] == (int)(0xffu << lane / 8 * 8));
        CHECK(o[11] == 13 && o[12] == 1 && o[13] == 0);
        CHECK(o[14] == 496 && o[15] == 1000);
    }
}

/* ---- arithmetic ---- */

static void arithmetic()
{
    CHECK(unpack_low_bf16(pack_bf16(1.5f, -2.0f)) == 1.5f && unpack_high_bf16(pack_bf16(1.5f, -2.0f)) == -2.0f);
    CHECK(__float2bfloat16_rn(1.00390625f).bits == 0x3f80); /* a tie, to the even one below */
    CHECK(__float2bfloat16_rn(1.01171875f).bits == 0x3f82); /* and above */
    CHECK(__float2bfloat16_rn(3.4e38f).bits == 0x7f80);     /* beyond the greatest */
    CHECK(__float2bfloat16_rn(-NAN).bits == 0x7fff);
    CHECK(__umulhi(0xdeadbeefu, 0x12345678u) == (uint32_t)(0xdeadbeefull * 0x12345678ull >> 32));
    CHECK(__umul64hi(~0ull, ~0ull) == ~0ull - 1);
    CHECK(__clz(1) == 31 && __clz(0) == 32 && __clzll(1) == 63 && __ffs(8) == 4 && __ffs(0) == 0);
    CHECK(__popc(0xf0f0u) == 8 && __popcll(~0ull) == 64 && __brev(1) == 0x80000000u);
    CHECK(__funnelshift_l(0x80000000u, 1, 1) == 3 && __funnelshift_r(1, 2, 1) == 0);
    CHECK(__byte_perm(0x33221100, 0x77665544, 0x7410) == 0x77441100);
    CHECK(ex2_approx(3) == 8 && ex2_approx(-140) == 0);
    CHECK(__float2int_rn(2.5f) == 2 && __float2int_rz(-2.7f) == -2 && __float2int_rn(1e20f) == INT32_MAX);
    CHECK(__float2int_rn(NAN) == 0 && __float2uint_rz(-1) == 0);
    CHECK(max(3, -4) == 3 && min(2u, 7u) == 2 && max(1.0f, NAN) == 1.0f);
}

static __global__ void atomics_kernel(unsigned *out)
{
    SHARED(unsigned, n, );
    if (threadIdx.x == 0) {
        n = 0;
    }
    __syncthreads();
    atomicAdd(&n, 2);
    atomicMax(out + 1, threadIdx.x);
    atomicOr(out + 2, 1u << threadIdx.x % 32);
    atomicCAS(out + 3, 0, threadIdx.x + 1);
    __syncthreads();
    if (threadIdx.x == 0) {
        out[0] = n;
    }
}

static void atomics()
{
    unsigned out[4], *device;
    DONE(cudaMalloc(&device, sizeof out));
    DONE(cudaMemset(device, 0, sizeof out));
    DONE(kn_launch(false, atomics_kernel, 1, 96, 0, nullptr, device));
    DONE(cudaMemcpy(out, device, sizeof out, cudaMemcpyDeviceToHost));
    CHECK(out[0] == 192 && out[1] == 95 && out[2] == ~0u && out[3] >= 1 && out[3] <= 96);
}

/* ---- running ---- */

static const Case instruction_cases[] = {
    {"mma m16n8k16", mma},      {"ldmatrix", ldmatrix}, {"cp.async", cp_async}, {"warps", warps},
    {"arithmetic", arithmetic}, {"atomics", atomics},   {NULL, NULL},
};

void dies(const char *message, const std::function<void()> &act)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    fflush(NULL);
    emulate_reset();
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        act();
        _exit(0);
    }
    close(ends[1]);
    char text[65536];
    size_t used = 0;
    for (ssize_t n; (n = read(ends[0], text + used, sizeof text - 1 - used)) > 0;) {
        used += (size_t)n;
    }
    text[used] = 0;
    close(ends[0]);
    int status;
    CHECK(waitpid(child, &status, 0) == child);
#ifdef EMULATE_TSAN
    const bool ended = true; /* it goes on after a race */
#else
    const bool ended = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
#endif
    if (!ended || strstr(text, message) == NULL) {
        fprintf(stderr, "expected to die saying \"%s\", but status %d and:\n%s\n", message, status, text);
        exit(1);
    }
}

int found_in(int n, const std::function<bool()> &act)
{
    int found = 0;
    for (int seed = 0; seed < n; seed++) {
        emulate_reset();
        emulate()->seed = (uint64_t)seed;
        emulate()->fatal = false;
        const bool saw = act();
        if (getenv("VERBOSE") != NULL) {
            printf("  seed %d: %d %s\n", seed, saw, emulate_fault());
        }
        found += saw;
    }
    emulate_reset();
    return found;
}

bool fault_says(const char *text)
{
    return strstr(emulate_fault(), text) != NULL;
}

static void run_cases(const Case *cases, const char *only)
{
    for (; cases->name != NULL; cases++) {
        if (only == NULL || strcmp(only, cases->name) == 0) {
            emulate_reset();
            printf("%s\n", cases->name);
            fflush(stdout);
            cases->run();
        }
    }
}

/* An argument: the one case to run. */
int main(int argc, char **argv)
{
    const char *only = argc > 1 ? argv[1] : NULL;
    run_cases(instruction_cases, only);
    run_cases(fault_cases, only);
    run_cases(runtime_cases, only);
    emulate_reset();
    return 0;
}
