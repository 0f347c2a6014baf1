/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Logits, log-probabilities, entropy and their gradient, some rows at a time: a T × V matrix never exists. A chunk's
 * logits are a product into float32, as many rows as fit in a number of bytes; softmax.cuh then reads them once.
 * Every product of logits is by one algorithm whatever the number of rows (kn_product.each_row), so a row's
 * log-probability is the same bits in any chunk, and those that choose finds in what logits gave.
 *
 * The backward pass turns a chunk's logits in place into the gradient (softmax - target) · dlogprob, in the table's
 * type, for the two products that take it. The first chunk's, which at some thousand tokens is all there is, may have
 * been kept from the forward pass, which therefore goes through the chunks from the last to the first; the others are
 * made again. dw sums over chunks in order; how many rows a chunk has follows from V and the device alone, so the same
 * call gives the same bits, whether logits were kept or not.
 */
#include "linear.cuh"
#include "softmax.cuh"

enum {
    GRADIENT_THREADS = 256,
    GRADIENT_EACH = 8, /* logits a thread holds */
    JOIN_THREADS = 128,
    EVEN_ROWS = 128, /* a chunk's rows are a multiple, if it has more */
};

/* Bytes of logits at a time, at most: for 2,000 rows of 150,000 tokens where the device has room for it, else a share
 * of its memory, or of what SLUICE_CUDA_MEMORY allows (not of what is free). dw is summed chunk by chunk, so the number
 * is part of the numerics' name; as a power of two it is the same for most cards of a kind, and for most limits. */
size_t kn_cuda_logits_bytes(const kn_cuda *c)
{
    if (c->settings.logits_bytes > 0)
        return c->settings.logits_bytes;
    const size_t most = (size_t)1280 << 20, share = kn_cuda_allowed(c) / 32;
    size_t bytes = 1;
    while (bytes <= share / 2)
        bytes *= 2;
    return share < most ? bytes : most;
}

static size_t chunk_rows(const kn_cuda *c, size_t vocab, size_t T)
{
    size_t rows = c->logits_bytes / (vocab * sizeof(float));
    rows = rows > EVEN_ROWS ? rows / EVEN_ROWS * EVEN_ROWS : rows;
    rows = rows > 0 ? rows : 1;
    return rows < T ? rows : T;
}

static void ask_logits(kn_cuda *c, float *logits, const void *h, const kn_matrix *m, size_t rows)
{
    kn_product p = {};
    p.layout = KN_NT;
    p.m = rows;
    p.n = p.ldy = m->out;
    p.k = p.lda = p.ldb = m->in;
    p.a = h;
    p.b = m->w;
    p.from = m->dtype;
    p.y = logits;
    p.to = KN_F32;
    p.each_row = true;
    kn_cuda_multiply(c, &p);
}

static const void *row_of(const void *h, const kn_matrix *m, size_t row)
{
    return (const char *)h + row * m->in * kn_size_of(m->dtype);
}

static bool all_below(const uint32_t *target, size_t T, size_t vocab)
{
    for (size_t t = 0; t < T; t++)
        if (target[t] >= vocab)
            return false;
    return true;
}

static size_t logits_kept(kn_device *device, const kn_matrix *m, size_t T)
{
    return chunk_rows((const kn_cuda *)device, m->out, T);
}

/* --- forward --- */

static int logits(kn_device *device, float *logits, const void *h, const kn_matrix *m, size_t T)
{
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    ask_logits(c, logits, h, m, T);
    return kn_cuda_end(c);
}

/* A block takes a slice of a row. */
template <bool ENTROPY>
__global__ void __launch_bounds__(KN_SOFTMAX_THREADS)
    slice_kernel(softmax_sums *part, const float *logits, unsigned slices, size_t vocab)
{
    const size_t row = blockIdx.x / slices;
    const softmax_sums s = softmax_slice<ENTROPY>(logits + row * vocab, vocab, blockIdx.x % slices);
    if (threadIdx.x == 0)
        part[blockIdx.x] = s;
}

/* A warp takes a row. lse may be NULL. */
template <bool ENTROPY>
__global__ void __launch_bounds__(JOIN_THREADS)
    logprob_kernel(float *logprob, float *lse, float *entropy, const softmax_sums *part, const float *logits,
                   const uint32_t *target, unsigned rows, unsigned slices, size_t vocab)
{
    const unsigned row = blockIdx.x * (JOIN_THREADS / 32) + threadIdx.x / 32;
    if (row >= rows)
        return;
    const softmax_sums s = softmax_join<ENTROPY>(slices, [&](unsigned i) { return part[(size_t)row * slices + i]; });
    if (threadIdx.x % 32 != 0)
        return;
    logprob[row] = softmax_logprob(s, logits[row * vocab + target[row]]);
    if (lse != NULL)
        lse[row] = softmax_lse(s);
    if (ENTROPY)
        entropy[row] = softmax_entropy(s);
}

template <bool ENTROPY>
static void ask_logprob(kn_cuda *c, float *logprob, float *lse, float *entropy, softmax_sums *part, const float *logits,
                        const uint32_t *target, size_t rows, size_t vocab)
{
    const unsigned slices = softmax_slices(vocab), each = JOIN_THREADS / 32;
    KN_LAUNCH(c, slice_kernel<ENTROPY>, (unsigned)rows * slices, KN_SOFTMAX_THREADS, 0, part, logits, slices, vocab);
    KN_LAUNCH(c, logprob_kernel<ENTROPY>, ((unsigned)rows + each - 1) / each, JOIN_THREADS, 0, logprob, lse, entropy,
              part, logits, target, (unsigned)rows, slices, vocab);
}

/* Memory for a chunk of logits: where there is none for so many rows, for half as many, and so on. */
static float *chunk_of(kn_cuda *c, size_t *rows, size_t vocab)
{
    float *chunk = (float *)kn_cuda_scratch(c, *rows * vocab * sizeof(float));
    while (chunk == NULL && c->status == KN_NO_MEMORY && *rows > 1) {
        *rows /= 2;
        c->status = KN_OK;
        chunk = (float *)kn_cuda_scratch(c, *rows * vocab * sizeof(float));
    }
    return chunk;
}

static int logprob(kn_device *device, float *logprob, float *lse, float *entropy, const void *h, const kn_matrix *m,
                   const uint32_t *target, size_t T, float *kept)
{
    if (!all_below(target, T, m->out))
        return KN_BAD_ARGUMENT;
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    if (T == 0)
        return kn_cuda_end(c);
    size_t most = chunk_rows(c, m->out, T);
    float *chunk = kept != NULL ? kept : chunk_of(c, &most, m->out);
    softmax_sums *part = (softmax_sums *)kn_cuda_scratch(c, most * softmax_slices(m->out) * sizeof(*part));
    const uint32_t *targets = (const uint32_t *)kn_cuda_upload(c, target, T * sizeof(*target));
    for (size_t n = (T + most - 1) / most; n-- > 0 && c->status == KN_OK;) {
        const size_t t = n * most, rows = most < T - t ? most : T - t;
        ask_logits(c, chunk, row_of(h, m, t), m, rows);
        float *row_lse = lse != NULL ? lse + t : NULL;
        if (entropy != NULL)
            ask_logprob<true>(c, logprob + t, row_lse, entropy + t, part, chunk, targets + t, rows, m->out);
        else
            ask_logprob<false>(c, logprob + t, row_lse, NULL, part, chunk, targets + t, rows, m->out);
    }
    return kn_cuda_end(c);
}

/* --- backward --- */

/* d logprob/d logit[v] = [v = target] - p(v). In place: an element of E is no larger than the logit it replaces, and a
 * tile's logits are all read before its gradient, which lies in front of them, is written. The rows keep their distance
 * in bytes. */
/* Four neighbours: 16 bytes of logits, 8 or 16 of the gradient. */
KDEV void put_four(float *to, const float *g)
{
    *reinterpret_cast<float4 *>(to) = make_float4(g[0], g[1], g[2], g[3]);
}

KDEV void put_four(__nv_bfloat16 *to, const float *g)
{
    __nv_bfloat162 *pair = reinterpret_cast<__nv_bfloat162 *>(to);
    pair[0] = __floats2bfloat162_rn(g[0], g[1]);
    pair[1] = __floats2bfloat162_rn(g[2], g[3]);
}

/* N: logits that a thread takes at once, 4 or 1; vocab is a multiple. */
template <class E, int N>
__global__ void __launch_bounds__(GRADIENT_THREADS)
    gradient_kernel(float *logits, const float *dlogprob, const float *lse, const uint32_t *target, size_t vocab)
{
    const float *row = logits + (size_t)blockIdx.x * vocab;
    E *gradient = reinterpret_cast<E *>(logits + (size_t)blockIdx.x * vocab);
    const float d = dlogprob[blockIdx.x], total = lse[blockIdx.x];
    const size_t right = target[blockIdx.x];
    for (size_t tile = 0; tile < vocab; tile += GRADIENT_THREADS * GRADIENT_EACH) {
        float g[GRADIENT_EACH / N][N];
#pragma unroll
        for (int k = 0; k < GRADIENT_EACH / N; k++) {
            const size_t v = tile + ((size_t)k * GRADIENT_THREADS + threadIdx.x) * N;
            if (v >= vocab)
                continue;
            if (N == 4) {
                const float4 four = *reinterpret_cast<const float4 *>(row + v);
                g[k][0] = four.x, g[k][1 % N] = four.y, g[k][2 % N] = four.z, g[k][3 % N] = four.w;
            } else {
                g[k][0] = row[v];
            }
        }
#pragma unroll
        for (int k = 0; k < GRADIENT_EACH / N; k++)
#pragma unroll
            for (int i = 0; i < N; i++) {
                const size_t v = tile + ((size_t)k * GRADIENT_THREADS + threadIdx.x) * N + i;
                g[k][i] = v < vocab ? d * ((v == right ? 1.0f : 0.0f) - expf(g[k][i] - total)) : 0;
            }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < GRADIENT_EACH / N; k++) {
            const size_t v = tile + ((size_t)k * GRADIENT_THREADS + threadIdx.x) * N;
            if (v >= vocab)
                continue;
            if (N == 4)
                put_four(gradient + v, g[k]);
            else
                narrow(gradient + v, g[k][0]);
        }
    }
}

template <class E>
static void ask_gradient(kn_cuda *c, float *logits, const float *dlogprob, const float *lse, const uint32_t *target,
                         size_t rows, size_t vocab)
{
    if (vocab % 4 == 0) /* then every row is aligned: the chunk is */
        KN_LAUNCH(c, (gradient_kernel<E, 4>), (unsigned)rows, GRADIENT_THREADS, 0, logits, dlogprob, lse, target,
                  vocab);
    else
        KN_LAUNCH(c, (gradient_kernel<E, 1>), (unsigned)rows, GRADIENT_THREADS, 0, logits, dlogprob, lse, target,
                  vocab);
}

/* dh = gradient·W, dw = gradientᵀ·h or += when accumulate, of a chunk. */
static void ask_gradients(kn_cuda *c, void *dh, float *dw, const void *gradient, const void *h, const kn_matrix *m,
                          size_t rows, bool accumulate)
{
    kn_product p = {};
    p.a = gradient;
    p.lda = m->out * (sizeof(float) / kn_size_of(m->dtype));
    p.from = m->dtype;
    p.n = p.ldb = p.ldy = m->in;

    p.layout = KN_NN;
    p.m = rows;
    p.k = m->out;
    p.b = m->w;
    p.y = dh;
    p.to = m->dtype;
    kn_cuda_multiply(c, &p);

    p.layout = KN_TN;
    p.m = m->out;
    p.k = rows;
    p.b = h;
    p.y = dw;
    p.to = KN_F32;
    p.added = accumulate ? dw : NULL;
    p.beta = 1;
    kn_cuda_multiply(c, &p);
}

static int logprob_backward(kn_device *device, void *dh, float *dw, const float *dlogprob, const void *h,
                            const kn_matrix *m, const float *lse, const uint32_t *target, size_t T, bool accumulate,
                            float *kept)
{
    if (!all_below(target, T, m->out))
        return KN_BAD_ARGUMENT;
    kn_cuda *c = kn_cuda_begin(device);
    if (c == NULL)
        return KN_DEVICE_FAILED;
    if (T == 0) {
        if (!accumulate)
            kn_cuda_clear(c, dw, m->out * m->in * sizeof(*dw));
        return kn_cuda_end(c);
    }
    const size_t most = chunk_rows(c, m->out, T);
    float *chunk = kept != NULL ? kept : (float *)kn_cuda_scratch(c, most * m->out * sizeof(float));
    const uint32_t *targets = (const uint32_t *)kn_cuda_upload(c, target, T * sizeof(*target));
    for (size_t t = 0; t < T && c->status == KN_OK; t += most) {
        const size_t rows = most < T - t ? most : T - t;
        if (kept == NULL || t > 0)
            ask_logits(c, chunk, row_of(h, m, t), m, rows);
        if (m->dtype == KN_F32)
            ask_gradient<float>(c, chunk, dlogprob + t, lse + t, targets + t, rows, m->out);
        else
            ask_gradient<__nv_bfloat16>(c, chunk, dlogprob + t, lse + t, targets + t, rows, m->out);
        ask_gradients(c, (char *)dh + t * m->in * kn_size_of(m->dtype), dw, chunk, row_of(h, m, t), m, rows,
                      accumulate || t > 0);
    }
    return kn_cuda_end(c);
}

void kn_cuda_vocabulary_ops(kn_ops *f32, kn_ops *bf16)
{
    kn_ops *const tables[] = {f32, bf16}; /* a matrix knows its type */
    for (size_t i = 0; i < 2; i++) {
        tables[i]->logprob = logprob;
        tables[i]->logprob_backward = logprob_backward;
        tables[i]->logits_kept = logits_kept;
        tables[i]->logits = logits;
    }
}
