/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Each wrapper of ptx.cuh, the warp's collectives, and the arithmetic that kernels rely on, on random data: what came
 * out, word by word. Compiled by nvcc it says what the hardware does, compiled against the emulation what we believe it
 * does. Arguments are made without rounding, for nvcc joins products with sums where the host does not:
 *
 *   test_ptx > hardware; test_ptx_emulated > emulated; test_ptx --compare hardware emulated
 *
 * A line is a name, how far numbers may lie apart (of the largest in the line; 0 = the same bits), and words in
 * hexadecimal. Exits with 77 where there is no device.
 */
#include "kernels/cuda/ptx.cuh"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 32, IN = 512, OUT = 512 }; /* words */

typedef void (*probe)(uint32_t *out, const uint32_t *in);

/* --- kernels of one warp: in and out are IN and OUT words --- */

__global__ void mma_probe(uint32_t *out, const uint32_t *in)
{
    const unsigned lane = threadIdx.x;
    uint32_t a[4];
    float d[4];
    for (int i = 0; i < 4; i++) {
        a[i] = in[lane * 4 + i];
        d[i] = __uint_as_float(in[256 + lane * 4 + i]);
    }
    mma_m16n8k16_bf16(d, a, in[128 + lane * 2], in[128 + lane * 2 + 1]);
    for (int i = 0; i < 4; i++)
        out[lane * 4 + i] = __float_as_uint(d[i]);
}

/* 32 rows of 8 elements in shared memory, one a lane. */
template <int KIND> __global__ void ldmatrix_probe(uint32_t *out, const uint32_t *in)
{
    SHARED(uint4, rows, [LANES]);
    const unsigned lane = threadIdx.x;
    rows[lane] = reinterpret_cast<const uint4 *>(in)[lane];
    __syncthreads();
    uint32_t r[4] = {0, 0, 0, 0}, two[2] = {0, 0};
    if (KIND == 0)
        ldmatrix_x4(r, &rows[lane]);
    if (KIND == 1)
        ldmatrix_x4_trans(r, &rows[lane]);
    if (KIND == 2)
        ldmatrix_x2(two, &rows[lane]);
    if (KIND == 3)
        ldmatrix_x2_trans(two, &rows[lane]);
    for (int i = 0; i < 4; i++)
        out[lane * 4 + i] = KIND < 2 ? r[i] : i < 2 ? two[i] : 0;
}

/* Every third copy is not valid; the second group is waited for after the first. */
template <int BYTES> __global__ void copy_probe(uint32_t *out, const uint32_t *in)
{
    SHARED(uint4, first, [LANES]);
    SHARED(uint4, second, [LANES]);
    const unsigned lane = threadIdx.x, words = BYTES / 4;
    uint32_t *const to[2] = {reinterpret_cast<uint32_t *>(first), reinterpret_cast<uint32_t *>(second)};
    for (int g = 0; g < 2; g++) {
        const uint32_t *from = in + 128 * g + lane * words;
        if (BYTES == 16)
            cp_async16(to[g] + lane * words, from, (lane + g) % 3 != 0);
        if (BYTES == 8)
            cp_async8(to[g] + lane * words, from, (lane + g) % 3 != 0);
        if (BYTES == 4)
            cp_async4(to[g] + lane * words, from, (lane + g) % 3 != 0);
        cp_async_commit();
    }
    cp_async_wait<1>();
    __syncthreads();
    for (unsigned i = 0; i < words; i++)
        out[lane * words + i] = to[0][(lane * words + i + words) % (LANES * words)];
    cp_async_wait<0>();
    __syncthreads();
    for (unsigned i = 0; i < words; i++)
        out[128 + lane * words + i] = to[1][(lane * words + i + words) % (LANES * words)];
}

/* -16 … 16, exactly. */
KDEV float number_of(uint32_t random)
{
    return (float)((int32_t)(random >> 8) - (1 << 23)) * 0x1p-19f;
}

__global__ void ex2_probe(uint32_t *out, const uint32_t *in)
{
    for (unsigned i = threadIdx.x; i < 256; i += LANES)
        out[i] = __float_as_uint(ex2_approx(number_of(in[i])));
}

/* What may differ in the last places. */
__global__ void near_probe(uint32_t *out, const uint32_t *in)
{
    const float x = number_of(in[threadIdx.x]), positive = fabsf(x) + 0x1p-10f, u = fabsf(x) * 0x1p-5f;
    const float results[8] = {expf(x),  logf(positive + 2), log1pf(-u), tanhf(x),
                              log2f(u), 1.0f + expf(-u),    sinf(u),    __fdividef(x, positive)};
    for (int i = 0; i < 8; i++)
        out[8 * threadIdx.x + i] = __float_as_uint(results[i]);
}

/* What may not: division and roots too, and nothing is flushed to zero. */
__global__ void exact_probe(uint32_t *out, const uint32_t *in)
{
    const float x = number_of(in[threadIdx.x]), y = number_of(in[threadIdx.x + 32]), tiny = __fmul_rn(x, 0x1p-130f);
    const float results[8] = {x / y, sqrtf(fabsf(x)), fmaf(x, y, 1.0f),   __fadd_rn(__fmul_rn(x, y), y),
                              tiny,  tiny / 3.0f,     sqrtf(fabsf(tiny)), fmaxf(NAN, x)};
    for (int i = 0; i < 8; i++)
        out[8 * threadIdx.x + i] = __float_as_uint(results[i]);
    const double d = fma((double)x, (double)y, sqrt((double)fabsf(y)) / 3.0);
    out[256 + threadIdx.x] = (uint32_t)(__double_as_longlong(d) >> 32);
    out[288 + threadIdx.x] = (uint32_t)__double_as_longlong(d);
    out[320 + threadIdx.x] = (uint32_t)(__float2ll_rn(__fmul_rn(x, 0x1p30f)) >> 8);
    out[352 + threadIdx.x] = (uint32_t)__double2ll_rz(ceil((double)x * (double)y));
    out[384 + threadIdx.x] = (uint32_t)__ffs((int)in[threadIdx.x]);
}

__global__ void ex2_edges_probe(uint32_t *out, const uint32_t *in)
{
    (void)in;
    const float edges[8] = {0, 1, -1, 10, -127.5f, -200, 200, -INFINITY};
    if (threadIdx.x < 8)
        out[threadIdx.x] = __float_as_uint(ex2_approx(edges[threadIdx.x]));
}

__global__ void stream_probe(uint32_t *out, const uint32_t *in)
{
    const uint4 v = load_stream16(in + 4 * threadIdx.x);
    prefetch_l2(in + 256);
    const uint4 turned = {v.w, v.x, v.y, v.z};
    store_stream16(out + 4 * threadIdx.x, turned);
}

__global__ void pack_probe(uint32_t *out, const uint32_t *in)
{
    const unsigned lane = threadIdx.x;
    const float low = __uint_as_float(in[lane] & 0x7fffffffu) * 1.0f, high = (float)(int32_t)in[lane + 32] * 1e-7f;
    const uint32_t both = pack_bf16(low == low ? low : 1.0f, high);
    out[3 * lane] = both;
    out[3 * lane + 1] = __float_as_uint(unpack_low_bf16(both));
    out[3 * lane + 2] = __float_as_uint(unpack_high_bf16(both));
}

__global__ void warp_probe(uint32_t *out, const uint32_t *in)
{
    const unsigned lane = threadIdx.x;
    const float x = __fmul_rn((float)(int32_t)in[lane], 1e-9f);
    out[8 * lane] = __float_as_uint(warp_sum(x));
    out[8 * lane + 1] = __float_as_uint(warp_max(x));
    out[8 * lane + 2] = __shfl_xor_sync(0xffffffffu, in[lane], 5);
    out[8 * lane + 3] = __shfl_down_sync(0xffffffffu, in[lane], 3);
    out[8 * lane + 4] = __shfl_up_sync(0xffffffffu, in[lane], 7);
    out[8 * lane + 5] = __shfl_sync(0xffffffffu, in[lane], (int)(in[lane + 32] % 32));
    out[8 * lane + 6] = __ballot_sync(0xffffffffu, in[lane] & 1);
    out[8 * lane + 7] = (uint32_t)__popc(in[lane]);
}

static const struct {
    const char *name;
    probe run;
    double tolerance;
    bool bf16; /* inputs are pairs of numbers of -1 … 1, and from word 256 on float32 ones */
} probes[] = {
    {"mma_m16n8k16_bf16", mma_probe, 2e-6, true},
    {"ldmatrix_x4", ldmatrix_probe<0>, 0, false},
    {"ldmatrix_x4_trans", ldmatrix_probe<1>, 0, false},
    {"ldmatrix_x2", ldmatrix_probe<2>, 0, false},
    {"ldmatrix_x2_trans", ldmatrix_probe<3>, 0, false},
    {"cp_async16", copy_probe<16>, 0, false},
    {"cp_async8", copy_probe<8>, 0, false},
    {"cp_async4", copy_probe<4>, 0, false},
    {"ex2_approx", ex2_probe, 3e-7, false},
    {"ex2_approx_edges", ex2_edges_probe, 3e-7, false},
    {"each_near", near_probe, 4.8e-7, false},
    {"exact", exact_probe, 0, false},
    {"stream16", stream_probe, 0, false},
    {"pack_bf16", pack_probe, 0, false},
    {"warp", warp_probe, 0, false},
};

static void check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return;
    fprintf(stderr, "test_ptx: %s: %s\n", what, cudaGetErrorString(error));
    exit(1);
}

static uint32_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

static uint32_t pair_of(uint64_t *state)
{
    union {
        float f;
        uint32_t u;
    } a = {(float)(int32_t)draw(state) * 0x1p-31f}, b = {(float)(int32_t)draw(state) * 0x1p-31f};
    return a.u >> 16 | (b.u & 0xffff0000u);
}

static void run(size_t which, unsigned seed)
{
    uint32_t host[IN], *in = NULL, *out = NULL;
    uint64_t state = seed + 1;
    for (int i = 0; i < IN; i++) {
        const float number = (float)(int32_t)draw(&state) * 0x1p-30f;
        memcpy(&host[i], &number, sizeof(number));
        if (!probes[which].bf16)
            host[i] = draw(&state);
        else if (i < 256)
            host[i] = pair_of(&state);
    }
    check(cudaMalloc((void **)&in, sizeof(host)), "cudaMalloc");
    check(cudaMalloc((void **)&out, OUT * sizeof(uint32_t)), "cudaMalloc");
    check(cudaMemcpy(in, host, sizeof(host), cudaMemcpyHostToDevice), "cudaMemcpy");
    check(cudaMemset(out, 0, OUT * sizeof(uint32_t)), "cudaMemset");
    check(kn_launch(false, probes[which].run, dim3(1), dim3(LANES), 0, NULL, out, in), probes[which].name);
    check(cudaDeviceSynchronize(), probes[which].name);
    check(cudaMemcpy(host, out, OUT * sizeof(uint32_t), cudaMemcpyDeviceToHost), "cudaMemcpy");
    check(cudaFree(in), "cudaFree");
    check(cudaFree(out), "cudaFree");
    printf("%s %g", probes[which].name, probes[which].tolerance);
    for (int i = 0; i < OUT; i++)
        printf(" %08x", (unsigned)host[i]);
    printf("\n");
}

/* --- comparing --- */

typedef struct line {
    char name[32];
    double tolerance;
    uint32_t word[OUT];
} line;

static bool read_line(FILE *f, line *l)
{
    if (fscanf(f, "%31s %lf", l->name, &l->tolerance) != 2)
        return false;
    for (int i = 0; i < OUT; i++) {
        unsigned word;
        if (fscanf(f, "%x", &word) != 1)
            return false;
        l->word[i] = word;
    }
    return true;
}

static float float_of(uint32_t word)
{
    float x;
    memcpy(&x, &word, sizeof(x));
    return x;
}

/* How many words differ by more than they may. Of ex2… and each… every number counts for itself. */
static int differ(const line *a, const line *b, double *worst)
{
    const bool each = strncmp(a->name, "ex2", 3) == 0 || strncmp(a->name, "each", 4) == 0;
    double largest = 0;
    for (int i = 0; i < OUT; i++)
        largest = fabs((double)float_of(b->word[i])) > largest ? fabs((double)float_of(b->word[i])) : largest;
    int wrong = 0;
    for (int i = 0; i < OUT; i++) {
        if (a->word[i] == b->word[i])
            continue;
        const double x = float_of(a->word[i]), y = float_of(b->word[i]);
        const double error = a->tolerance > 0 ? fabs(x - y) / (each ? fabs(y) : largest) : INFINITY;
        *worst = error > *worst ? error : *worst;
        wrong += !(error <= a->tolerance);
    }
    return wrong;
}

static int compare(const char *hardware, const char *emulated)
{
    FILE *f = fopen(hardware, "r"), *g = fopen(emulated, "r");
    if (!f || !g) {
        fprintf(stderr, "test_ptx: cannot read %s\n", f ? emulated : hardware);
        return 2;
    }
    static line a, b;
    int wrong = 0, lines = 0;
    printf("| wrapper | words that differ | worst error | |\n| --- | ---: | ---: | --- |\n");
    while (read_line(f, &a) && read_line(g, &b)) {
        double worst = 0;
        const int n = strcmp(a.name, b.name) == 0 ? differ(&a, &b, &worst) : OUT;
        if (n > 0 || lines % 4 == 0)
            printf("| %s | %d | %.2g | %s |\n", a.name, n, worst, n ? "**wrong**" : "ok");
        wrong += n > 0;
        lines++;
    }
    fclose(f);
    fclose(g);
    printf("\n%d lines, %d wrong\n", lines, wrong);
    return wrong > 0 || lines != (int)(4 * sizeof(probes) / sizeof(probes[0])) ? 1 : 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--compare") == 0)
        return compare(argv[2], argv[3]);
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
        fprintf(stderr, "skipped: no CUDA device\n");
        return 77;
    }
    for (size_t i = 0; i < sizeof(probes) / sizeof(probes[0]); i++)
        for (unsigned seed = 0; seed < 4; seed++)
            run(i, seed);
    return 0;
}
