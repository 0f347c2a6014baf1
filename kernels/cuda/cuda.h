/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA backend's inside: what its files share. kernels/ops.h is the contract it fulfils.
 *
 * A concept is one `.cu` file: its kernels (templates over the element type), the ops that launch them, and one
 * function that enters those ops into the two tables (`kn_cuda_rows_ops(float32, bfloat16)`). Host-only parts
 * (device, memory, uploads, graphs) are plain C. All of it is compiled either by nvcc or, for the tests, by the
 * host's compilers against the emulated runtime of tests/cuda: kernels keep the rules of launch.cuh.
 *
 * An op looks like this:
 *
 *     template <class E> int add(kn_device *device, void *y, const void *x, size_t n)
 *     {
 *         kn_cuda *c = kn_cuda_begin(device);
 *         if (c == NULL)
 *             return KN_DEVICE_FAILED;
 *         KN_LAUNCH(c, add_kernel<E>, grid, block, 0, (E *)y, (const E *)x, n);
 *         return kn_cuda_end(c);
 *     }
 *
 * Order. Everything is asked of one stream, `c->stream`, so ops follow each other without further care; what the host
 * gives (index arrays) is copied to pinned memory before an op returns. Only `read`, and ops that answer in host
 * memory, wait. No sum of floats is made by atomics: the same configuration gives the same bits.
 *
 * Steps. Between step_begin and step_end of the op table what is asked by KN_LAUNCH and kn_cuda_ask is only written
 * down; when all of it is what an earlier step wrote down, to the byte, one graph is launched instead (graph.c). So a
 * decoding step gains when its arguments and grids do not grow with each token: lengths go into uploads, and a grid
 * that depends on them is rounded up to a power of two. Structs given to kernels have no padding. KN_CUDA first carries
 * out what is written down, so any other call keeps its place, but ends a graph there: in ops of decoding,
 * kn_cuda_clear and kn_cuda_copy are better than cudaMemsetAsync and cudaMemcpyAsync.
 *
 * Threads. begin takes the device's lock and end gives it back; an op between them has the device to itself.
 */
#ifndef KERNELS_CUDA_CUDA_H
#define KERNELS_CUDA_CUDA_H

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/collective.h"
#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    KN_CUDA_CHUNK = 256, /* every address that the pool, a scratch or an upload gives is a multiple of this */
    KN_CUDA_ASKED = 4,   /* how many of the last launches an error names */
    KN_CUDA_DEVICES = 64 /* of one machine, at most */
};

typedef struct kn_cuda_memory kn_cuda_memory;
typedef struct kn_cuda_uploads kn_cuda_uploads;
typedef struct kn_cuda_graphs kn_cuda_graphs;
typedef struct kn_cuda_products kn_cuda_products;
typedef struct kn_cuda_timeline kn_cuda_timeline;

/* What the environment asks: settings.c. */
typedef struct kn_cuda_settings {
    bool waits;          /* SLUICE_CUDA_WAIT: after each launch, so that an error names its kernel */
    bool invariant;      /* SLUICE_CUDA_INVARIANT */
    bool overlaps;       /* SLUICE_CUDA_OVERLAP: kernels may follow where the device and the build can */
    bool own, timed;     /* SLUICE_CUDA_PRODUCTS */
    size_t logits_bytes; /* SLUICE_CUDA_LOGITS_BYTES; 0 = unset */
} kn_cuda_settings;
/* NULL, or a line about the first value that says nothing. */
const char *kn_cuda_read_settings(kn_cuda_settings *);

typedef struct kn_cuda {
    kn_device base; /* the op tables */
    kn_ops f32, bf16;
    int ordinal;
    int capability; /* 10 · major + minor: 90 on an H100 */
    int multiprocessors;
    size_t shared_most; /* bytes of shared memory a block may ask for */
    size_t l2_bytes;
    char name[128]; /* as the driver says */
    char bus[32];   /* where it is, "0000:17:00.0": nvidia-smi's name for it whatever CUDA_VISIBLE_DEVICES numbers it */
    char numerics_f32[160], numerics_bf16[160];
    size_t logits_bytes; /* at a time, at most: vocabulary.cu */
    kn_cuda_settings settings;

    cudaStream_t stream;
    cudaMemPool_t pool; /* stream-ordered; what it keeps and gives back: memory.c */
    cublasLtHandle_t lt;
    kn_cuda_memory *memory;     /* memory.c */
    kn_cuda_uploads *uploads;   /* upload.c */
    kn_cuda_graphs *graphs;     /* graph.c */
    kn_cuda_products *products; /* linear_lt.cu: chosen algorithms by shape */
    kn_cuda_timeline *timeline; /* timeline.c; NULL unless SLUICE_CUDA_TIMELINE names a file */

    kn_device *host; /* threads of the host, for `parallel` */

    pthread_mutex_t lock;             /* recursive */
    unsigned depth;                   /* begins without their end */
    uint64_t op;                      /* counts begins */
    int status;                       /* of the op in progress: the first thing that went wrong, or KN_OK */
    bool failed;                      /* the device stopped working; nothing more is asked of it */
    char error[512];                  /* why, in one line */
    char refusal[256];                /* why memory was last refused, in one line with the numbers */
    bool stepping;                    /* calls are written down: graph.c */
    bool overlaps;                    /* kernels may follow (kn_launch): overlap.cu */
    bool waits;                       /* after each launch: settings */
    struct kn_cuda_name *names;       /* kept by kn_cuda_keep_name */
    const char *asked[KN_CUDA_ASKED]; /* the last kernels, a ring */
    unsigned asked_count;
} kn_cuda;

/* Takes the lock, makes the device this thread's current one, forgets the last op's status. NULL when the device has
 * failed (kn_ops.error says why). */
kn_cuda *kn_cuda_begin(kn_device *);
/* Gives the scratch memory of this op back (in stream order) and the lock, and returns the op's status. */
int kn_cuda_end(kn_cuda *);
/* Notes what went wrong: KN_NO_MEMORY stays a plain refusal of this op, every other CUDA error ends the device, with
 * `what` and the runtime's words in `error`. Returns the status, so that `return` and further work are both possible.
 */
int kn_cuda_note(kn_cuda *, cudaError_t, const char *what);
/* Notes a refusal of the op's own (KN_BAD_ARGUMENT, KN_UNSUPPORTED, KN_NO_MEMORY). */
int kn_cuda_refuse(kn_cuda *, int status);

/* Something asked of the stream, as KN_LAUNCH does; what cuBLAS launches goes the same way. `with` are `bytes` without
 * padding that hold all that run needs (pointers in it stay good as long as the device, or point to device memory).
 * `what` names it in errors and lives as long as the program. run may be called later, but before the op table's next
 * answer in host memory, and again in later steps that ask the very same. */
typedef cudaError_t (*kn_cuda_run)(const void *with, cudaStream_t stream);
void kn_cuda_ask(kn_cuda *, kn_cuda_run run, const void *with, size_t bytes, const char *what);
void kn_cuda_clear(kn_cuda *, void *device, size_t bytes);
void kn_cuda_copy(kn_cuda *, void *to, const void *from, size_t bytes);
/* A name for `what` that lives as long as the device; NULL without memory. */
const char *kn_cuda_keep_name(kn_cuda *, const char *name);
/* Carries out what is written down: before anything is launched otherwise. */
void kn_cuda_flush(kn_cuda *);
/* Names for errors what was launched otherwise. */
void kn_cuda_asked(kn_cuda *, const char *what);

/* Runs a CUDA call unless something went wrong before in this op. */
#define KN_CUDA(c, call)                             \
    do {                                             \
        if ((c)->stepping)                           \
            kn_cuda_flush(c);                        \
        if ((c)->status == KN_OK) {                  \
            const cudaError_t kn_error_ = (call);    \
            if (kn_error_ != cudaSuccess)            \
                kn_cuda_note((c), kn_error_, #call); \
        }                                            \
    } while (0)

/* Scratch memory of the op in progress, on the device: NULL (and the op's status KN_NO_MEMORY) when there is none. It
 * goes back at kn_cuda_end. Any number of times in one op. */
void *kn_cuda_scratch(kn_cuda *, size_t bytes);
/* The device's copy of `bytes` of host memory, good for what this op launches. The same content given again (positions,
 * segments and pages are the same in every layer) is not sent again. NULL as above. */
const void *kn_cuda_upload(kn_cuda *, const void *host, size_t bytes);
/* Copies to host memory and waits. */
int kn_cuda_read(kn_cuda *, void *host, const void *device, size_t bytes);
/* Copies from host memory, which may change as soon as this returns. */
int kn_cuda_write(kn_cuda *, void *device, const void *host, size_t bytes);
/* Memory of the device for as long as its owner wants it; freed in stream order. NULL when there is none, after caches
 * were asked to shrink: `refusal` then has the numbers. */
void *kn_cuda_alloc(kn_cuda *, size_t bytes);
void kn_cuda_free_memory(kn_cuda *, void *);

/* Who keeps memory that it could do without is asked for it before an allocation is refused, on the thread that asks,
 * between begin and end. Returns whether it freed anything. */
typedef bool (*kn_cuda_gives)(void *arg, size_t bytes);
int kn_cuda_on_pressure(kn_device *, kn_cuda_gives, void *arg);
void kn_cuda_no_pressure(kn_device *, kn_cuda_gives, void *arg);

/* A weight: W[out, in], row-major, in the element type of its table. */
struct kn_matrix {
    void *w;
    bool borrowed; /* w is somebody else's */
    size_t out, in;
    kn_dtype dtype;
    const float *bias; /* that of matrix_bias, and as the products take it */
    void *rounded_bias;
};

/* y[T, out] (element type `to`) = alpha · x[T, in] · Wᵀ + beta · y and the two products of the backward pass, by
 * cuBLASLt, rows in row-major order; what linear.cu offers to the other files. x and W have the type `from`.
 *   KN_NT: y[m, n] = a[m, k] · b[n, k]ᵀ     KN_NN: y[m, n] = a[m, k] · b[k, n]     KN_TN: y[m, n] = a[k, m]ᵀ · b[k, n]
 * bias[n] (float32, may be NULL) is added to every row. */
typedef enum kn_layout { KN_NT, KN_NN, KN_TN } kn_layout;
void kn_cuda_product(kn_cuda *, kn_layout, void *y, kn_dtype to, const void *a, const void *b, kn_dtype from,
                     const float *bias, const void *added, float beta, size_t m, size_t n, size_t k);

/* What belongs to the device besides its ops, made and unmade by device.c, which alone calls these. */
bool kn_cuda_memory_new(kn_cuda *, const char **why);
void kn_cuda_memory_free(kn_cuda *);
/* The most bytes that a run may have: the device's, or SLUICE_CUDA_MEMORY. */
size_t kn_cuda_allowed(const kn_cuda *);
void kn_cuda_scratch_end(kn_cuda *);
/* vocabulary.cu: how many bytes of logits exist at a time, after the memory. */
size_t kn_cuda_logits_bytes(const kn_cuda *);
bool kn_cuda_uploads_new(kn_cuda *, const char **why);
void kn_cuda_uploads_free(kn_cuda *);
/* linear_lt.cu: with cuBLAS' workspace, after the memory. */
bool kn_cuda_products_new(kn_cuda *, const char **why);
void kn_cuda_products_free(kn_cuda *);
/* What decides the bits of products, as part of the numerics' name: "" or such as "-invariant". */
const char *kn_cuda_products_mode(const kn_cuda *);
/* Whether cuBLAS has to do without a workspace. */
bool kn_cuda_products_bare(const kn_cuda *);
bool kn_cuda_graphs_new(kn_cuda *, const char **why);
void kn_cuda_graphs_free(kn_cuda *);
/* One line once a step could not be made a graph, good as long as the device; NULL before. */
const char *kn_cuda_graphs_note(kn_cuda *);
/* timeline.c, made after and unmade before the stream: around each call on it; after the host has waited for a result.
 * Nothing without a timeline. */
bool kn_cuda_timeline_new(kn_cuda *, const char **why);
void kn_cuda_timeline_free(kn_cuda *); /* writes the file */
void kn_cuda_timeline_before(kn_cuda *);
void kn_cuda_timeline_after(kn_cuda *, const char *what);
void kn_cuda_timeline_read(kn_cuda *);
/* While a step is written down: a place for an upload, at the same address in each such step; NULL when there is none.
 */
const void *kn_cuda_step_upload(kn_cuda *, const void *host, size_t bytes);
/* Why there is no device: the memory that was just refused. One line, as below. */
const char *kn_cuda_say_full(const kn_cuda *, const char *what);
/* One line, in memory of the calling thread. */
const char *kn_cuda_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Each concept enters its ops. */
void kn_cuda_memory_ops(kn_ops *f32, kn_ops *bf16); /* memory.c: alloc, free, write, read, copy, clear */
void kn_cuda_rows_ops(kn_ops *f32,
                      kn_ops *bf16); /* rows.cu: norms, rope, swiglu, embedding, dropout, sums, conversion */
void kn_cuda_optimizer_ops(kn_ops *f32, kn_ops *bf16);  /* optimizer.cu: adamw, sum of squares, clipping, merges */
void kn_cuda_choose_ops(kn_ops *f32, kn_ops *bf16);     /* choose.cu */
void kn_cuda_attention_ops(kn_ops *f32, kn_ops *bf16);  /* attention*.cu and the cache */
void kn_cuda_linear_ops(kn_ops *f32, kn_ops *bf16);     /* linear.cu */
void kn_cuda_vocabulary_ops(kn_ops *f32, kn_ops *bf16); /* vocabulary.cu: logprob, logits */
void kn_cuda_graph_ops(kn_ops *f32, kn_ops *bf16);      /* graph.c: step_begin, step_end */

/* The device of this number among those that CUDA shows; NULL and one line in `why` (borrowed, static or the
 * thread's) when there is none that works: no driver, a driver older than the toolkit, no device, a device below
 * compute capability 8.0, no memory for the context. */
kn_device *kn_cuda_new(int ordinal, const char **why);
void kn_cuda_free(kn_device *);
/* Whether kernels of this build may follow each other on the current device. */
bool kn_cuda_overlaps(int capability);
/* How many CUDA shows; 0 when there is none. */
int kn_cuda_count(void);

/* nccl.c: sums over several of them, which stay open meanwhile. NULL and one line in `why` as above. */
kn_collective *kn_nccl_join(kn_device *const *devices, size_t count, const char **why);
/* Which NCCL there is, or why none. */
void kn_nccl_describe(char *text, size_t size);

#ifdef __cplusplus
}

#include <cstring>
#include <utility>

#include "kernels/cuda/launch.cuh"

/* A launch as plain bytes: the kernel, its shape, and its arguments at multiples of 16. */
template <class... P> struct kn_call {
    void (*kernel)(P...);
    unsigned grid[3], block[3];
    size_t shared, follows;
    alignas(16) unsigned char value[16 + (0 + ... + ((sizeof(P) + 15) / 16 * 16))];

    template <class T> void put(size_t &at, const T &v)
    {
        static_assert(alignof(T) <= 16, "arguments of a kernel are aligned to 16 bytes at most");
        memcpy(value + at, static_cast<const void *>(&v), sizeof(T));
        at += (sizeof(T) + 15) / 16 * 16;
    }
    static constexpr size_t place(size_t i)
    {
        const size_t sizes[] = {sizeof(P)..., 0};
        size_t at = 0;
        for (size_t k = 0; k < i; k++)
            at += (sizes[k] + 15) / 16 * 16;
        return at;
    }
    template <size_t... i> cudaError_t launch(cudaStream_t stream, std::index_sequence<i...>) const
    {
        return kn_launch(follows != 0, kernel, dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]),
                         shared, stream, *reinterpret_cast<const P *>(value + place(i))...);
    }
    static cudaError_t run(const void *with, cudaStream_t stream)
    {
        return static_cast<const kn_call *>(with)->launch(stream, std::index_sequence_for<P...>());
    }
};

template <class... P, class... A>
void kn_cuda_launch(kn_cuda *c, bool follows, const char *what, void (*kernel)(P...), dim3 grid, dim3 block,
                    size_t shared, A... arguments)
{
    static_assert(sizeof...(P) == sizeof...(A), "KN_LAUNCH: one argument for each parameter of the kernel");
    kn_call<P...> call;
    size_t at = 0;
    memset(static_cast<void *>(&call), 0, sizeof(call));
    call.kernel = kernel;
    call.grid[0] = grid.x, call.grid[1] = grid.y, call.grid[2] = grid.z;
    call.block[0] = block.x, call.block[1] = block.y, call.block[2] = block.z;
    call.shared = shared;
    call.follows = follows && c->overlaps;
    (call.put(at, static_cast<P>(arguments)), ...);
    kn_cuda_ask(c, kn_call<P...>::run, &call, sizeof(call), what);
}

/* Launches a kernel on the op's stream unless something went wrong before in this op. KN_FOLLOW: one that begins with
 * follow() (ptx.cuh), and is brought to the multiprocessors while the kernel before it ends. */
#define KN_LAUNCH(c, kernel, grid, block, shared, ...) KN_LAUNCH_AS(false, c, kernel, grid, block, shared, __VA_ARGS__)
#define KN_FOLLOW(c, kernel, grid, block, shared, ...) KN_LAUNCH_AS(true, c, kernel, grid, block, shared, __VA_ARGS__)
#define KN_LAUNCH_AS(follows, c, kernel, grid, block, shared, ...)                                 \
    do {                                                                                           \
        if ((c)->status == KN_OK)                                                                  \
            kn_cuda_launch((c), follows, #kernel, kernel, (grid), (block), (shared), __VA_ARGS__); \
    } while (0)
#endif

#endif
