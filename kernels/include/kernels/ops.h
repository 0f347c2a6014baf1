/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The op table: the whole operations of a transformer that a device backend offers.
 *
 * One contract, several implementations: kernels/reference (plain scalar C, the definition), kernels/cpu (vector code
 * chosen at run time), kernels/cuda. The model runtime knows nothing else of a device.
 *
 * Conventions. Matrices are row-major and dense. T is the number of packed token rows: sequences lie end to end,
 * nothing is padded. Sizes are counts of elements unless a name says bytes.
 *
 * Two memories. A pointer to numbers is memory of the device (`alloc`, or inside of what it gave), which the host may
 * not touch: it goes in with `write` and comes out with `read`. What is marked KN_HOST is host memory: index arrays,
 * shapes, options and the pointers inside them, results the host waits for. No array may be given as the other kind.
 * Host memory is borrowed for the call, and may be changed or freed when the call is over. On a device with
 * `host_memory` the two are one: any array of the host is an array of the device and the other way round, and who
 * would copy much may leave it out.
 *
 * Order. A device may work after a call is over. What is asked of it happens in the order in which it was asked, by
 * whichever thread; `read`, and ops with results in host memory (`choose`), wait for all that was asked before. Device
 * memory may be freed while it is in use by what was asked before.
 *
 * Failure. KN_NO_MEMORY, KN_UNSUPPORTED and KN_BAD_ARGUMENT refuse one call, which then changed nothing but its
 * results. KN_DEVICE_FAILED means that the device stopped working (an illegal address, a memory error, a driver that is
 * gone), in this call or in one before: nothing it holds can be trusted, every later call fails too, and `error` says
 * why.
 *
 * Element types. A device has one table for each type of activation: `ops` for float32 and `ops_bf16` for bfloat16
 * (NULL where the device computes none; the runtime then runs such models in float32 and says so). `void *` in a
 * signature is an array of the table's type; `float *` is float32 in both: norm weights, biases, rope tables, rstd,
 * lse, log-probabilities, logits, gradients of weights, optimizer state. In the bfloat16 table inputs are widened
 * exactly, every sum and function is computed in float32, and a result is rounded once (nearest, ties to even) when it
 * is stored. Matrices and caches belong to the table that made them.
 *
 * One answer. Each output row depends on its own inputs alone and its sums run in one fixed order, so a result is
 * bit-identical whatever the number of rows in the call, the place of a row among them, and the number of threads.
 * Weight gradients accumulate row by row in row order onto what the buffer already holds, so cutting a batch into
 * several calls does not change them either. In the bfloat16 table the rows of a call are taken in groups of
 * row_group(), so there a cut falls after a multiple of it (the runtime starts every record at one). Softmax sums run
 * by absolute key index, so packed and cached attention agree to the bit. This is the CPU's promise. A GPU promises
 * less: the same calls give the same bits; another number of rows, or packed against cached, may round differently.
 *
 * Threads. A device may be used from several threads; calls are serialized or share its one pool. Functions return
 * KN_OK or a negative kn_status, and never print or exit.
 */
#ifndef KERNELS_OPS_H
#define KERNELS_OPS_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

typedef enum kn_dtype { KN_F32 = 0, KN_BF16 = 1, KN_F16 = 2 } kn_dtype;

typedef enum kn_status {
    KN_OK = 0,
    KN_NO_MEMORY = -1,
    KN_UNSUPPORTED = -2,
    KN_BAD_ARGUMENT = -3,
    KN_DEVICE_FAILED = -4
} kn_status;

#define KN_HOST /* marks an argument in host memory */

typedef struct kn_device kn_device; /* one backend instance: memory, threads, numerics class */
typedef struct kn_matrix kn_matrix; /* a weight matrix in the layouts its backend wants */
typedef struct kn_cache kn_cache;   /* pages of keys and values for generation */

/* Shape of attention. group = heads / kv_heads query heads share one key/value head. */
typedef struct kn_attention {
    uint32_t heads, kv_heads, head_dim;
    uint32_t window; /* sliding window in tokens, 0 = none */
    float softcap;   /* cap · tanh(score / cap), 0 = none */
    float scale;     /* multiplies q·k, usually 1/sqrt(head_dim) */
} kn_attention;

/* Consecutive query rows [row, row + count) of one sequence. They see the prefix rows [prefix, prefix + prefix_count)
 * (a prompt shared by several answers, lying anywhere in the same packed batch) and then each other, causally. */
typedef struct kn_segment {
    size_t row, count;
    size_t prefix, prefix_count;
} kn_segment;

/* One sequence's share of a cached attention call: query rows [row, row + count) stand at positions
 * [position, position + count); keys and values of positions 0 … position+count-1 lie in `pages` (KN_PAGE each). */
#define KN_PAGE 16
typedef struct kn_cached_rows {
    size_t row, count;
    size_t position;
    const uint32_t *pages; /* page numbers, ceil((position + count) / KN_PAGE) of them */
} kn_cached_rows;

/* Rotary embedding, as the op `rope` does it: tables [max position + 1, head_dim/2] in memory of the device, which
 * begin at multiples of 16 bytes. */
typedef struct kn_rotary {
    const float *cos, *sin;
} kn_rotary;

/* How a row of logits becomes a token (all fields apply in this order: repetition penalty, temperature, top-k, top-p,
 * min-p; then Gumbel-max keyed by token id). temperature 0 means greedy: the largest logit, ties to the smallest id. */
typedef struct kn_choice {
    float temperature; /* ≥ 0 */
    float top_p;       /* (0, 1], 1 = off */
    float min_p;       /* [0, 1), 0 = off */
    uint32_t top_k;    /* 0 = off */
    float
        repetition_penalty; /* 1 = off; as in Keskar et al. 2019 (CTRL): positive logits divided, negative multiplied */
    const uint32_t *seen;   /* ids the penalty applies to (prompt and answer so far), may repeat */
    size_t seen_count;
    const uint32_t *banned; /* ids that may not be chosen */
    size_t banned_count;
    uint64_t key[2];     /* where the draw stands: sluice_draw_place of sluice/random.h. Token v draws with */
    uint64_t counter[2]; /* sluice_random_item(key, counter, v); the low 32 bits of counter[0] are left to it. */
} kn_choice;

typedef struct kn_chosen {
    uint32_t token;
    float logprob; /* natural log-probability of the token under the untruncated logits at temperature 1: bit-equal to
                      what logprob_forward gives for the same hidden row and token */
    float kept_logprob; /* under the distribution it was really drawn from */
} kn_chosen;

/* AdamW (Loshchilov & Hutter 2019, algorithm 2), PyTorch's order: decay first, then the bias-corrected step. */
typedef struct kn_adamw {
    float lr, beta1, beta2, eps, weight_decay;
    uint64_t step;         /* 1 for the first update */
    float grad_scale;      /* the gradient is multiplied by this first (averaging) */
    const float *scale_at; /* and by this number in memory of the device (clipping); NULL = 1. When it is not finite
                              nothing changes. */
    uint16_t
        *rounded; /* [n] in memory of the device: takes the new w in bfloat16, as to_bf16 makes it; NULL = nobody */
} kn_adamw;

/* Bytes of the device's memory. */
typedef struct kn_memory_use {
    size_t used, high;  /* by this device object: now, and at most so far */
    size_t reserved;    /* held for it, used or not */
    size_t free, total; /* of the device, whoever uses it */
    size_t limit;       /* this device object takes no more; 0 = all there is */
} kn_memory_use;

typedef void (*kn_task)(void *arg, size_t begin, size_t end);

typedef struct kn_ops {
    size_t size;    /* sizeof(kn_ops) of the backend */
    kn_dtype dtype; /* of `void *` activations: KN_F32 or KN_BF16 */

    /* --- the device --- */
    const char *(*numerics)(const kn_device *); /* e.g. "cpu-fma-own1-f32": part of every content key */
    void *(*alloc)(kn_device *, size_t bytes);  /* 64-byte aligned, not cleared; NULL when out of memory */
    void (*free)(kn_device *, void *);          /* NULL is no matter */
    /* Between the two memories, and within the device's; `to` and `from` do not overlap. `read` waits for all that was
     * asked before. clear makes every byte 0. */
    int (*write)(kn_device *, void *to, KN_HOST const void *from, size_t bytes);
    int (*read)(kn_device *, KN_HOST void *to, const void *from, size_t bytes);
    int (*copy)(kn_device *, void *to, const void *from, size_t bytes);
    int (*clear)(kn_device *, void *, size_t bytes);
    /* One line on why the device failed, good as long as the device; NULL while it works. */
    const char *(*error)(kn_device *);
    size_t (*row_group)(const kn_device *); /* rows whose share of a weight gradient is summed first; 1 in float32 */
    int (*threads)(const kn_device *);
    int (*set_threads)(kn_device *, int threads); /* 0 = one a processor this process may use */
    /* Runs task over [0, n) cut into ranges on host threads; returns when all are done. For host-side loops of the
     * runtime. */
    void (*parallel)(kn_device *, size_t n, size_t grain, kn_task task, KN_HOST void *arg);

    /* --- matrix products --- */
    /* A weight W[out, in] in the table's type. set copies (rounds and packs) from float32 on the device; the matrix
     * keeps no pointer. with_backward also keeps the layout that linear_backward_input needs. */
    kn_matrix *(*matrix_new)(kn_device *, size_t out, size_t in, bool with_backward);
    int (*matrix_set)(kn_device *, kn_matrix *, const float *w);
    void (*matrix_free)(kn_device *, kn_matrix *);
    /* y[T,out] = x[T,in] · Wᵀ (+ bias[out]) (+ residual[T,out]); y may be residual. */
    int (*linear)(kn_device *, void *y, const void *x, const kn_matrix *, const float *bias, const void *residual,
                  size_t T);
    /* dx[T,in] = dy[T,out] · W, or += when accumulate. */
    int (*linear_backward_input)(kn_device *, void *dx, const void *dy, const kn_matrix *, size_t T, bool accumulate);
    /* dw[out,in] = dyᵀ · x over rows in order, db[out] = column sums of dy when db is given; or += when accumulate. Who
     * writes the first sum of a step need not clear the array, nor read it: the same sum as onto zeros. */
    int (*linear_backward_weight)(kn_device *, float *dw, float *db, const void *dy, const void *x, size_t T,
                                  size_t out, size_t in, bool accumulate);

    /* --- rows --- */
    /* y[t] = x[t] / sqrt(mean(x[t]²) + eps) · w. rstd[T] is kept for the backward pass (may be NULL). */
    int (*rms_norm)(kn_device *, void *y, float *rstd, const void *x, const float *w, size_t T, size_t d, float eps);
    /* dx[T,d] += …; dw[d] = …, or += when accumulate. y[T,d], when given, takes what rms_norm gave, to the bit: who
     * needs it for the next weight gradient need not have kept it. */
    int (*rms_norm_backward)(kn_device *, void *dx, float *dw, void *y, const void *dy, const void *x, const float *w,
                             const float *rstd, size_t T, size_t d, bool accumulate);
    /* In place on x[T, heads, head_dim] with row stride `stride` elements; halves rotated as Hugging Face does (pairs i
     * and i + head_dim/2). cos/sin are tables [max position + 1, head_dim/2]. inverse = the backward pass. */
    int (*rope)(kn_device *, void *x, size_t stride, KN_HOST const uint32_t *position, const float *cos,
                const float *sin, size_t T, size_t heads, size_t head_dim, bool inverse);
    /* y[T,f] = silu(gate) · up, where gate_up[T, 2f] holds gate then up in each row. */
    int (*swiglu)(kn_device *, void *y, const void *gate_up, size_t T, size_t f);
    /* y[T,f] as in rms_norm_backward: what swiglu gave. */
    int (*swiglu_backward)(kn_device *, void *dgate_up, void *y, const void *dy, const void *gate_up, size_t T,
                           size_t f);
    /* y[t] = table[token[t]]; backward: dtable[token[t]] += dy[t], rows in order. */
    int (*embed)(kn_device *, void *y, const void *table, KN_HOST const uint32_t *token, size_t T, size_t d);
    int (*embed_backward)(kn_device *, float *dtable, const void *dy, KN_HOST const uint32_t *token, size_t T, size_t d,
                          size_t vocab);
    /* y[row[s]] += x[s] for s = 0 … S-1, in this order for a row that is named several times; row[s] < T. */
    int (*scatter_add)(kn_device *, void *y, const void *x, KN_HOST const uint32_t *row, size_t S, size_t T, size_t d);
    /* Inverted dropout in place: keeps element e of row t with probability 1 - rate by sluice_random_item(key,
     * {0, row_id[t]}, e). The same call on the gradient is the backward pass. */
    int (*dropout)(kn_device *, void *x, size_t T, size_t d, float rate, KN_HOST const uint64_t key[2],
                   KN_HOST const uint64_t *row_id);
    int (*add)(kn_device *, void *y, const void *x, size_t n);           /* y += x */
    int (*axpy)(kn_device *, void *y, float a, const void *x, size_t n); /* y += a·x, element by element */

    /* --- attention --- */
    /* qkv[T, (heads + 2·kv_heads)·head_dim]: q, k, v of a row side by side, rotary already applied.
     * out[T, heads·head_dim]; lse[T, heads] = log Σ exp(score), kept for the backward pass (may be NULL). With no
     * segments it says whether the device computes such heads (KN_OK or KN_UNSUPPORTED). Segments do not overlap, and a
     * prefix lies within one earlier segment: the backward pass refuses any other (KN_BAD_ARGUMENT).
     */
    int (*attention)(kn_device *, void *out, float *lse, const void *qkv, KN_HOST const kn_segment *, size_t segments,
                     size_t T, KN_HOST const kn_attention *);
    /* dqkv[T, …] is overwritten. */
    int (*attention_backward)(kn_device *, void *dqkv, const void *dout, const void *qkv, const void *out,
                              const float *lse, KN_HOST const kn_segment *, size_t segments, size_t T,
                              KN_HOST const kn_attention *);

    /* --- generation --- */
    kn_cache *(*cache_new)(kn_device *, size_t layers, size_t pages, KN_HOST const kn_attention *);
    void (*cache_free)(kn_device *, kn_cache *);
    /* Copies the first `count` positions of a page (all layers): the shared prompt's unfinished last page. */
    int (*cache_copy_page)(kn_device *, kn_cache *, uint32_t to, uint32_t from, size_t count);
    /* Writes k and v of these rows into their pages (one thread of control owns a cache), then attends. Several entries
     * may name the same full pages, if no entry of this call writes to them. With tables (NULL = none) q and k are
     * turned by their positions before, to the bits that `rope` gives them; what qkv holds afterwards is then of no
     * use. */
    int (*attention_cached)(kn_device *, void *out, void *qkv, kn_cache *, size_t layer, KN_HOST const kn_cached_rows *,
                            size_t sequences, size_t T, KN_HOST const kn_rotary *);

    /* --- the vocabulary, some rows at a time: a T × V matrix never exists --- */
    /* logprob[t] = log softmax(h[t]·Wᵀ)[target[t]]; lse[T] kept for backward (may be NULL); entropy[T] in nats (may be
     * NULL). kept (NULL = none): room for the logits of logits_kept(T) rows, left there for the backward pass. */
    int (*logprob)(kn_device *, float *logprob, float *lse, float *entropy, const void *h, const kn_matrix *,
                   KN_HOST const uint32_t *target, size_t T, float *kept);
    /* Given dlogprob[T]: dh[T,in] = …; dw[out,in] = …, or += when accumulate (both required). kept: what logprob left
     * of the same rows, which is overwritten; with NULL all logits are made again, and the result is the same to the
     * bit. */
    int (*logprob_backward)(kn_device *, void *dh, float *dw, const float *dlogprob, const void *h, const kn_matrix *,
                            const float *lse, KN_HOST const uint32_t *target, size_t T, bool accumulate, float *kept);
    /* How many of T rows' logits, V floats each, are worth keeping between the two; 0 where none are, and then `kept`
     * is not looked at. The same for the same device, matrix and T. */
    size_t (*logits_kept)(kn_device *, const kn_matrix *, size_t T);
    /* logits[T, V], for those who must see them (hooks, `--top`). */
    int (*logits)(kn_device *, float *logits, const void *h, const kn_matrix *, size_t T);
    /* One token a row of logits [T, V], one kn_choice a row; logits are overwritten. No full sort of the vocabulary.
     * KN_BAD_ARGUMENT when a row has no token that may be chosen (all banned, or no finite logit). */
    int (*choose)(kn_device *, KN_HOST kn_chosen *chosen, float *logits, KN_HOST const kn_choice *, size_t T,
                  size_t vocab);

    /* --- between the two types; the same functions in both tables --- */
    int (*to_bf16)(kn_device *, uint16_t *to, const float *from, size_t n); /* nearest, ties to even; NaN stays NaN */
    int (*from_bf16)(kn_device *, float *to, const uint16_t *from, size_t n);

    /* --- the optimizer (float32 in both tables) --- */
    /* *sum += Σ x², in float64, summed in one fixed order. */
    int (*sum_squares_add)(kn_device *, double *sum, const float *x, size_t n);
    /* What clips a gradient g with Σ g² = *sum that is to be multiplied by grad_scale: with norm = √sum · |grad_scale|,
     * *scale = grad_scale, times max_norm / (norm + 1e-6) where norm > max_norm > 0 (PyTorch's clip_grad_norm_), in
     * float64 and rounded once; NaN where the norm is not finite. */
    int (*clip)(kn_device *, float *scale, const double *sum, double grad_scale, double max_norm);
    int (*adamw)(kn_device *, float *w, float *m, float *v, const float *g, size_t n, KN_HOST const kn_adamw *);
    /* The same with moments in bfloat16, a third less memory to move. Their change at a step is mostly smaller than
     * half a unit in the last place, so they are rounded stochastically (Gupta et al. 2015, "Deep learning with limited
     * numerical precision", §3): the expected value is the unrounded one. Element i rounds by sluice_random_item(key,
     * counter, i): m by its low half, v by its high half (kn_narrow_random). n ≤ 2^32. */
    int (*adamw_bf16)(kn_device *, float *w, uint16_t *m, uint16_t *v, const float *g, size_t n,
                      KN_HOST const kn_adamw *, KN_HOST const uint64_t key[2], KN_HOST const uint64_t counter[2]);

    /* --- merging models (float32 in both tables); `to` may be one of the arrays it is made from --- */
    /* to = Σ weight[i]·from[i] over count > 0 arrays, in order, every product rounded before it is added; without
     * weights (NULL) their sum divided by count. */
    int (*mean)(kn_device *, float *to, KN_HOST const float *const *from, KN_HOST const float *weight, size_t count,
                size_t n);
    /* Spherical interpolation of what a and b differ from base (NULL = 0): with δa = a - base, δb = b - base and Ω the
     * angle between them, to = base + sin((1-λ)Ω)/sin Ω · δa + sin(λΩ)/sin Ω · δb; straight, with 1-λ and λ, where sin
     * Ω < 1e-6 or one of them is 0. dots is of all that is turned as one, a layer say, in as many calls as it has
     * parts: dots[0] += Σ δa², dots[1] += Σ δb², dots[2] += Σ δa·δb, in float64, summed in one fixed order. */
    int (*slerp_dots_add)(kn_device *, double dots[3], const float *base, const float *a, const float *b, size_t n);
    int (*slerp)(kn_device *, float *to, const double dots[3], const float *base, const float *a, const float *b,
                 double lambda, size_t n);

    /* --- what a device may leave out (NULL) --- */
    /* Around the ops of a step that comes again and again with the same addresses and sizes (decoding): the device may
     * put off what is asked between them, until the step ends or a result is read. Other threads' calls wait for the
     * end, so nothing may be waited for in between. A step that did not begin has no end. */
    int (*step_begin)(kn_device *);
    int (*step_end)(kn_device *);
    /* Figures of the device's memory. Where they are left out, memory is the host's. */
    int (*memory)(kn_device *, KN_HOST kn_memory_use *);
    /* The numbers of the last KN_NO_MEMORY, in one line that is good until the next; NULL when there was none. */
    const char *(*refusal)(kn_device *);
    /* Says that `linear` will get this bias with this matrix, and that its numbers stay as they are until this is asked
     * again: what the device makes of them, in its own type, it then makes once. NULL = no bias that stays. */
    int (*matrix_bias)(kn_device *, kn_matrix *, const float *bias);
    /* A matrix whose numbers are w[out, in] of the table's type, borrowed from memory of the device, as they are when
     * it is used: it is never set, and whoever changes w changes it. With both products of the backward pass. */
    kn_matrix *(*matrix_at)(kn_device *, const void *w, size_t out, size_t in);
} kn_ops;

/* Every device starts with its table; further fields belong to the backend. */
struct kn_device {
    const kn_ops *ops;
    const kn_ops *ops_bf16; /* NULL = this device computes no bfloat16 */
    bool host_memory;       /* memory of the device is host memory */
    bool one_answer;        /* keeps the promise at the head of this file; a GPU does not */
};

/* --- backends --- */
/* The plain scalar one, single-threaded. Never fails but for memory. */
kn_device *kn_reference_new(void);
void kn_reference_free(kn_device *);
/* The CPU one. threads 0 = one a processor this process may use; isa NULL = the best this machine has, or one of
 * "plain", "avx2", "avx512", "neon" (NULL returned and *why set when the machine lacks it). The environment's
 * SLUICE_CPU_MATMUL = own | onednn says who multiplies (doc/results/matmul.md), SLUICE_CPU_BF16 = auto | amx | avx512 |
 * widened with which instructions in bfloat16; numerics() tells. */
kn_device *kn_cpu_new(int threads, const char *isa, const char **why);
void kn_cpu_free(kn_device *);

#endif
