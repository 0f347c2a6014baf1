/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrix products by cuBLASLt: which algorithm for which shape is asked once and remembered.
 *
 * The number of token rows is another in nearly every call, so rows are put into classes a quarter of an octave wide
 * and an algorithm is chosen for the greatest of its class. cuBLASLt's own heuristics choose: on one device with one
 * version of the library they answer the same each time, so the same configuration gives the same bits. The
 * environment may say otherwise:
 *
 *   SLUICE_CUDA_PRODUCTS = timed | own    timed: the fastest of some proposals, measured at first use (the
 *       choice, and so the last bits, may differ from run to run); own: our own kernel for everything.
 *   SLUICE_CUDA_INVARIANT = 1    one algorithm a weight whatever the number of rows, and no sum split: a row's result
 *       does not depend on the rows beside it. The vocabulary's products are always like that.
 *
 * cuBLASLt counts matrices by columns. A row-major matrix is its own transpose counted that way, so y = a·b is asked
 * for as yᵀ = bᵀ·aᵀ, and the bias, one number a column of y, is what its epilogue adds to the rows of yᵀ.
 */
#include "linear.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PROPOSALS = 8,      /* that are timed against each other */
    TRIALS = 3,         /* of each */
    BUCKETS = 256,      /* of the table of choices */
    FINEST = 16,        /* rows of the smallest class */
    FIXED_ROWS = 256,   /* what an algorithm for any number of rows is chosen for */
    MOST_ALIGNMENT = 16 /* bytes; no kernel asks for more */
};

/* What cuBLAS recommends for Hopper and later. A run that may have less than ROOMY times as much does without: which of
 * the two hangs on the card and on SLUICE_CUDA_MEMORY, not on what is free now, so that a run resumed computes the
 * same. */
static const size_t usual_workspace = (size_t)32 << 20;
enum { ROOMY = 8 };

/* What a choice hangs on. Filled with zeros first: compared as bytes. */
typedef struct shape_key {
    uint64_t m, n, k; /* the one that counts token rows stands for its class */
    uint64_t lda, ldb, ldy;
    uint32_t layout, from, to, bias, added, each_row;
    uint32_t align_a, align_b, align_y;
    uint32_t zero;
} shape_key;

typedef struct choice {
    struct choice *next;
    shape_key key;
    bool own; /* cuBLASLt has nothing for it */
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, y; /* as cuBLASLt sees them: a is our b */
    cublasLtMatmulAlgo_t algo;
    uint64_t exact_rows; /* the last number of rows that `algo` was not possible for; 0 = none */
    cublasLtMatmulAlgo_t exact;
} choice;

struct kn_cuda_products {
    bool own, timed, invariant;
    void *workspace;
    size_t workspace_bytes; /* 0 = none */
    char mode[32];
    choice *bucket[BUCKETS];
};

/* --- keys --- */

static size_t class_of(size_t rows)
{
    if (rows <= FINEST)
        return FINEST;
    size_t step = FINEST;
    while (step * 8 < rows)
        step *= 2;
    return (rows + step - 1) / step * step; /* 4 · step < rows ≤ 8 · step: four classes an octave */
}

/* How many token rows. */
static size_t rows_of(const kn_product *p)
{
    return p->layout == KN_TN ? p->k : p->m;
}

static uint32_t alignment_of(const void *p, size_t ld, kn_dtype type)
{
    const uintptr_t bits = (uintptr_t)p | (uintptr_t)(ld * kn_size_of(type)) | MOST_ALIGNMENT;
    return (uint32_t)(bits & (~bits + 1));
}

static shape_key key_of(const kn_cuda_products *t, const kn_product *p)
{
    shape_key key;
    memset(&key, 0, sizeof(key));
    const bool each_row = p->layout != KN_TN && (p->each_row || t->invariant);
    const size_t class_rows = each_row ? (size_t)FIXED_ROWS : class_of(rows_of(p));
    key.m = p->layout == KN_TN ? p->m : class_rows;
    key.n = p->n;
    key.k = p->layout == KN_TN ? class_rows : p->k;
    key.lda = p->lda;
    key.ldb = p->ldb;
    key.ldy = p->ldy;
    key.layout = p->layout;
    key.from = p->from;
    key.to = p->to;
    key.bias = p->bias != NULL;
    key.added = p->added != NULL;
    key.each_row = each_row;
    key.align_a = alignment_of(p->a, p->lda, p->from);
    key.align_b = alignment_of(p->b, p->ldb, p->from);
    key.align_y = alignment_of(p->y, p->ldy, p->to);
    if (p->added != NULL) {
        const uint32_t added = alignment_of(p->added, p->ldy, p->to);
        key.align_y = added < key.align_y ? added : key.align_y;
    }
    return key;
}

static size_t bucket_of(const shape_key *key)
{
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < sizeof(*key); i++)
        hash = (hash ^ ((const unsigned char *)key)[i]) * 1099511628211u;
    return hash % BUCKETS;
}

/* --- descriptions --- */

static cudaDataType_t cuda_type(kn_dtype type)
{
    return type == KN_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

static void forget(choice *e)
{
    if (e->op != NULL)
        cublasLtMatmulDescDestroy(e->op);
    cublasLtMatrixLayout_t all[] = {e->a, e->b, e->y};
    for (size_t i = 0; i < 3; i++)
        if (all[i] != NULL)
            cublasLtMatrixLayoutDestroy(all[i]);
    free(e);
}

/* Describes the product as cuBLASLt wants it, with m, n, k of the key. */
static cublasStatus_t describe(choice *e)
{
    const shape_key *key = &e->key;
    const cudaDataType_t from = cuda_type((kn_dtype)key->from), to = cuda_type((kn_dtype)key->to);
    const cublasOperation_t op_a = key->layout == KN_NT ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t op_b = key->layout == KN_TN ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = key->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    cublasStatus_t status = cublasLtMatmulDescCreate(&e->op, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(e->op, CUBLASLT_MATMUL_DESC_TRANSA, &op_a, sizeof(op_a));
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(e->op, CUBLASLT_MATMUL_DESC_TRANSB, &op_b, sizeof(op_b));
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(e->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof(epilogue));
    if (status == CUBLAS_STATUS_SUCCESS && key->bias) /* only y's own type is offered everywhere */
        status = cublasLtMatmulDescSetAttribute(e->op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &to, sizeof(to));
    const bool b_along_k = key->layout == KN_NT, a_along_k = key->layout != KN_TN;
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutCreate(&e->a, from, b_along_k ? key->k : key->n, b_along_k ? key->n : key->k,
                                            (int64_t)key->ldb);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutCreate(&e->b, from, a_along_k ? key->k : key->m, a_along_k ? key->m : key->k,
                                            (int64_t)key->lda);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutCreate(&e->y, to, key->n, key->m, (int64_t)key->ldy);
    return status;
}

/* Sets the number of token rows of the product at hand. */
static cublasStatus_t set_rows(choice *e, const kn_product *p)
{
    const uint64_t rows = rows_of(p);
    cublasStatus_t status = cublasLtMatrixLayoutSetAttribute(e->b, CUBLASLT_MATRIX_LAYOUT_COLS, &rows, sizeof(rows));
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutSetAttribute(p->layout == KN_TN ? e->a : e->y, CUBLASLT_MATRIX_LAYOUT_COLS, &rows,
                                                  sizeof(rows));
    return status;
}

static cublasStatus_t set_bias(choice *e, const void *bias)
{
    if (!e->key.bias)
        return CUBLAS_STATUS_SUCCESS;
    return cublasLtMatmulDescSetAttribute(e->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof(bias));
}

/* Up to `most` proposals for what the descriptions say, best first by cuBLASLt's own estimate. It reads off the bias'
 * address how that is aligned, for which there is no preference: it is shown what every bias keeps, and `bias` is set
 * behind that. */
static int propose(kn_cuda *c, choice *e, const void *bias, cublasLtMatmulHeuristicResult_t *proposal, int most)
{
    const shape_key *key = &e->key;
    const size_t workspace_bytes = c->products->workspace_bytes;
    /* A sum that is split is put together in float32, never in bfloat16. */
    const uint32_t reductions = key->each_row ? CUBLASLT_REDUCTION_SCHEME_NONE : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t size;
    } wish[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes, sizeof(workspace_bytes)},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof(reductions)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &key->align_b, sizeof(key->align_b)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &key->align_a, sizeof(key->align_a)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &key->align_y, sizeof(key->align_y)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &key->align_y, sizeof(key->align_y)},
    };
    cublasLtMatmulPreference_t preference = NULL;
    cublasStatus_t status = cublasLtMatmulPreferenceCreate(&preference);
    for (size_t i = 0; i < sizeof(wish) / sizeof(wish[0]) && status == CUBLAS_STATUS_SUCCESS; i++)
        status = cublasLtMatmulPreferenceSetAttribute(preference, wish[i].name, wish[i].value, wish[i].size);
    int found = 0;
    if (status == CUBLAS_STATUS_SUCCESS)
        status = set_bias(e, reinterpret_cast<const void *>((uintptr_t)MOST_ALIGNMENT));
    if (status == CUBLAS_STATUS_SUCCESS)
        status =
            cublasLtMatmulAlgoGetHeuristic(c->lt, e->op, e->a, e->b, e->y, e->y, preference, most, proposal, &found);
    if (preference != NULL)
        cublasLtMatmulPreferenceDestroy(preference);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = set_bias(e, bias);
    int good = 0;
    for (int i = 0; i < found && status == CUBLAS_STATUS_SUCCESS; i++)
        if (proposal[i].state == CUBLAS_STATUS_SUCCESS && proposal[i].workspaceSize <= workspace_bytes)
            proposal[good++] = proposal[i];
    return good;
}

/* The product by an algorithm, its rows and bias set before. */
static cublasStatus_t multiply(kn_cuda *c, choice *e, const cublasLtMatmulAlgo_t *algo, const kn_product *p, void *y,
                               cudaStream_t stream)
{
    const float one = 1, beta = p->added != NULL ? p->beta : 0;
    return cublasLtMatmul(c->lt, e->op, &one, p->b, e->a, p->a, e->b, &beta, p->added != NULL ? p->added : y, e->y, y,
                          e->y, algo, c->products->workspace, c->products->workspace_bytes, stream);
}

/* --- choosing --- */

/* Milliseconds of TRIALS runs, negative where it does not run. */
static float time_of(kn_cuda *c, choice *e, const cublasLtMatmulAlgo_t *algo, const kn_product *p, void *y,
                     cudaEvent_t start, cudaEvent_t stop)
{
    float ms = -1;
    if (multiply(c, e, algo, p, y, c->stream) != CUBLAS_STATUS_SUCCESS) /* also what is loaded at first use */
        return -1;
    KN_CUDA(c, cudaEventRecord(start, c->stream));
    for (int i = 0; i < TRIALS; i++)
        if (multiply(c, e, algo, p, y, c->stream) != CUBLAS_STATUS_SUCCESS)
            return -1;
    KN_CUDA(c, cudaEventRecord(stop, c->stream));
    KN_CUDA(c, cudaEventSynchronize(stop));
    KN_CUDA(c, cudaEventElapsedTime(&ms, start, stop));
    return ms;
}

/* The fastest of the proposals on the product at hand, into memory of its own; the first where time cannot be taken. */
static int fastest(kn_cuda *c, choice *e, const cublasLtMatmulHeuristicResult_t *proposal, int n, const kn_product *p)
{
    if (n < 2 || c->status != KN_OK)
        return 0;
    kn_cuda_flush(c);
    void *y = kn_cuda_scratch(c, p->m * p->ldy * kn_size_of(p->to));
    if (y == NULL) {
        c->status = c->status == KN_NO_MEMORY ? KN_OK : c->status;
        return 0;
    }
    cudaEvent_t start = NULL, stop = NULL;
    KN_CUDA(c, cudaEventCreate(&start));
    KN_CUDA(c, cudaEventCreate(&stop));
    int best = 0;
    float least = -1;
    for (int i = 0; i < n && c->status == KN_OK; i++) {
        const float ms = time_of(c, e, &proposal[i].algo, p, y, start, stop);
        if (ms >= 0 && (least < 0 || ms < least)) {
            least = ms;
            best = i;
        }
    }
    if (start != NULL)
        cudaEventDestroy(start);
    if (stop != NULL)
        cudaEventDestroy(stop);
    return best;
}

/* The choice for a product: remembered, or made now. NULL without memory. */
static choice *choose(kn_cuda *c, const kn_product *p, const void *bias)
{
    kn_cuda_products *t = c->products;
    const shape_key key = key_of(t, p);
    choice **head = &t->bucket[bucket_of(&key)];
    for (choice *e = *head; e != NULL; e = e->next)
        if (memcmp(&e->key, &key, sizeof(key)) == 0)
            return e;
    choice *e = (choice *)calloc(1, sizeof(*e));
    if (e == NULL)
        return NULL;
    e->key = key;
    cublasLtMatmulHeuristicResult_t proposal[PROPOSALS];
    const bool described = describe(e) == CUBLAS_STATUS_SUCCESS;
    const int n = described ? propose(c, e, bias, proposal, t->timed ? (int)PROPOSALS : 1) : 0;
    e->own = n == 0 || set_rows(e, p) != CUBLAS_STATUS_SUCCESS;
    if (!e->own)
        e->algo = proposal[t->timed ? fastest(c, e, proposal, n, p) : 0].algo;
    e->next = *head;
    *head = e;
    return e;
}

bool kn_cuda_products_new(kn_cuda *c, const char **why)
{
    kn_cuda_products *t = c->products = (kn_cuda_products *)calloc(1, sizeof(*t));
    *why = "out of memory";
    if (t == NULL)
        return false;
    t->own = c->settings.own;
    t->timed = c->settings.timed;
    t->invariant = !t->own && c->settings.invariant; /* our own kernel is like that anyway */
    const bool roomy = kn_cuda_allowed(c) / ROOMY >= usual_workspace;
    t->workspace_bytes = roomy && !t->own ? usual_workspace : 0;
    snprintf(t->mode, sizeof(t->mode), "%s%s%s%s", t->own ? "-own" : "", t->timed ? "-timed" : "",
             t->invariant ? "-invariant" : "", roomy || t->own ? "" : "-bare");
    /* Now, before caches and weights have taken everything. */
    if (t->workspace_bytes > 0)
        t->workspace = kn_cuda_alloc(c, t->workspace_bytes);
    const bool got = t->workspace != NULL || t->workspace_bytes == 0;
    *why = got ? NULL : kn_cuda_say_full(c, "cuBLAS' workspace");
    return got;
}

const char *kn_cuda_products_mode(const kn_cuda *c)
{
    return c->products->mode;
}

bool kn_cuda_products_bare(const kn_cuda *c)
{
    return !c->products->own && c->products->workspace_bytes == 0;
}

void kn_cuda_products_free(kn_cuda *c)
{
    kn_cuda_products *t = c->products;
    if (t == NULL)
        return;
    for (size_t i = 0; i < BUCKETS; i++)
        while (t->bucket[i] != NULL) {
            choice *e = t->bucket[i];
            t->bucket[i] = e->next;
            forget(e);
        }
    if (t->workspace != NULL)
        kn_cuda_free_memory(c, t->workspace);
    free(t);
    c->products = NULL;
}

/* --- products --- */

/* The bias as cuBLASLt takes it: in y's type, and aligned for the wide loads of its epilogues. */
static const void *bias_of(kn_cuda *c, const kn_product *p)
{
    if (p->bias == NULL || (p->to == KN_F32 && (uintptr_t)p->bias % MOST_ALIGNMENT == 0))
        return p->bias;
    if (p->to == KN_F32) {
        void *aligned = kn_cuda_scratch(c, p->n * sizeof(float));
        if (aligned != NULL)
            kn_cuda_copy(c, aligned, p->bias, p->n * sizeof(float));
        return aligned;
    }
    if (p->rounded_bias != NULL)
        return p->rounded_bias;
    void *rounded = kn_cuda_scratch(c, p->n * sizeof(uint16_t));
    if (rounded != NULL)
        kn_cuda_round(c, rounded, p->bias, p->n);
    return rounded;
}

/* A product by cuBLASLt, as it is put off. */
typedef struct lt_call {
    kn_product product;
    kn_cuda *device;
    choice *chosen;
    const void *bias;
} lt_call;

static cudaError_t run_lt(const void *with, cudaStream_t stream)
{
    const lt_call *call = (const lt_call *)with;
    const kn_product *p = &call->product;
    kn_cuda *c = call->device;
    choice *e = call->chosen;
    cublasStatus_t status = e->own ? CUBLAS_STATUS_NOT_SUPPORTED : set_rows(e, p);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = set_bias(e, call->bias);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = multiply(c, e, e->exact_rows == rows_of(p) ? &e->exact : &e->algo, p, p->y, stream);
    /* Chosen for the class and not possible for this number of rows: asked for exactly this one. Where a row may not
     * depend on the others, there is no other choice. */
    cublasLtMatmulHeuristicResult_t exact;
    if (status != CUBLAS_STATUS_SUCCESS && status != CUBLAS_STATUS_EXECUTION_FAILED && !e->own && !e->key.each_row &&
        propose(c, e, call->bias, &exact, 1) == 1) {
        e->exact_rows = rows_of(p);
        e->exact = exact.algo;
        status = multiply(c, e, &e->exact, p, p->y, stream);
    }
    if (status == CUBLAS_STATUS_SUCCESS)
        return cudaSuccess;
    if (status == CUBLAS_STATUS_EXECUTION_FAILED) {
        const cudaError_t error = cudaGetLastError();
        return error != cudaSuccess ? error : cudaErrorUnknown;
    }
    e->own = true;
    return kn_cuda_product_own(p, stream);
}

void kn_cuda_multiply(kn_cuda *c, const kn_product *p)
{
    if (c->status != KN_OK || p->m == 0 || p->n == 0)
        return;
    const kn_cuda_products *t = c->products;
    lt_call call;
    memset(&call, 0, sizeof(call));
    call.product = *p;
    call.device = c;
    if (!t->own && p->k > 0) {
        call.bias = bias_of(c, p);
        call.chosen = c->status == KN_OK ? choose(c, p, call.bias) : NULL;
    }
    if (c->status != KN_OK)
        return;
    if (call.chosen != NULL && !call.chosen->own)
        kn_cuda_ask(c, run_lt, &call, sizeof(call), "cublasLtMatmul");
    else
        kn_cuda_ask(c, kn_cuda_product_own, p, sizeof(*p), "product_kernel");
}

void kn_cuda_product(kn_cuda *c, kn_layout layout, void *y, kn_dtype to, const void *a, const void *b, kn_dtype from,
                     const float *bias, const void *added, float beta, size_t m, size_t n, size_t k)
{
    kn_product p;
    memset(&p, 0, sizeof(p));
    p.layout = layout;
    p.m = m;
    p.n = n;
    p.k = k;
    p.a = a;
    p.b = b;
    p.lda = layout == KN_TN ? m : k;
    p.ldb = layout == KN_NT ? k : n;
    p.from = from;
    p.y = y;
    p.ldy = n;
    p.to = to;
    p.bias = bias;
    p.added = added;
    p.beta = beta;
    kn_cuda_multiply(c, &p);
}
