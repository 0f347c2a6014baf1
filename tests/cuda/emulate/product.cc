/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * cuBLASLt and cuBLAS as far as they are used: products summed in float32, in the order of k, whatever the shape. */
#include "runtime.h"

#include <math.h>
#include <string.h>

#include <cublasLt.h>
#include <cuda_bf16.h>

struct cublasLtContext {
    int device;
};

struct cublasContext {
    int device;
    cudaStream_t stream;
    cublasPointerMode_t pointers;
};

struct cublasLtMatrixLayoutOpaque_t {
    cudaDataType type;
    int order, batch;
    uint64_t rows, cols;
    int64_t ld, stride;
};

struct cublasLtMatmulDescOpaque_t {
    int pointers, transa, transb, epilogue;
    void *bias, *aux;
    int64_t aux_ld;
    int bias_type, aux_type; /* -1: that of d */
};

struct cublasLtMatmulPreferenceOpaque_t {
    uint64_t workspace;
    uint32_t aligned[4]; /* bytes that a, b, c and d are said to be aligned to */
};

namespace emulate_cuda
{

/* A matrix in memory: element (i, j) at i · down + j · right. */
struct Matrix {
    const char *at;
    cudaDataType type;
    int64_t down, right, stride;
};

static size_t width(cudaDataType type)
{
    return type == CUDA_R_32F ? 4 : 2;
}

static float number(float value)
{
    return value;
}

static float number(__nv_bfloat16 value)
{
    return __bfloat162float(value);
}

static float element(const void *p, cudaDataType type)
{
    if (type == CUDA_R_32F) {
        return *static_cast<const float *>(p);
    }
    return __bfloat162float(*static_cast<const __nv_bfloat16 *>(p));
}

static void put(void *p, cudaDataType type, float value)
{
    if (type == CUDA_R_32F) {
        *static_cast<float *>(p) = value;
    } else {
        *static_cast<__nv_bfloat16 *>(p) = __float2bfloat16_rn(value);
    }
}

static Matrix matrix(const void *at, const cublasLtMatrixLayoutOpaque_t &l, int transposed)
{
    const bool rows = (l.order == CUBLASLT_ORDER_ROW) != (transposed != CUBLAS_OP_N);
    return Matrix{static_cast<const char *>(at), l.type, rows ? l.ld : 1, rows ? 1 : l.ld, l.stride};
}

/* The matrix as floats in panels of WIDTH rows: element (i, k) at (i / WIDTH · depth + k) · WIDTH + i % WIDTH, zeros
 * beyond the last row. */
template <size_t WIDTH, class T>
static void fill_panels(float *to, const T *from, const Matrix &m, size_t rows, size_t depth)
{
    for (size_t i = 0; i < rows; i++) {
        float *row = to + i / WIDTH * WIDTH * depth + i % WIDTH;
        const T *p = from + (int64_t)i * m.down;
        for (size_t k = 0; k < depth; k++) {
            row[k * WIDTH] = number(p[(int64_t)k * m.right]);
        }
    }
}

template <size_t WIDTH>
static void panels(std::vector<float> &to, const Matrix &m, int64_t batch, size_t rows, size_t depth)
{
    const char *from = m.at + batch * m.stride * (int64_t)width(m.type);
    to.assign((rows + WIDTH - 1) / WIDTH * WIDTH * depth, 0.0f);
    if (m.type == CUDA_R_32F) {
        fill_panels<WIDTH>(to.data(), reinterpret_cast<const float *>(from), m, rows, depth);
    } else {
        fill_panels<WIDTH>(to.data(), reinterpret_cast<const __nv_bfloat16 *>(from), m, rows, depth);
    }
}

enum { DOWN = 8, RIGHT = 4 }; /* of the tile whose sums stay in registers */
typedef float Four __attribute__((vector_size(16)));

/* sums[j · m + i] = Σ a(i, k) · b(j, k), each sum in the order of k. */
static void multiply(std::vector<float> &sums, const std::vector<float> &a, const std::vector<float> &b, size_t m,
                     size_t n, size_t depth)
{
    sums.resize(m * n);
    for (size_t j0 = 0; j0 < n; j0 += RIGHT) {
        for (size_t i0 = 0; i0 < m; i0 += DOWN) {
            Four tile[RIGHT][2] = {};
            const float *x = &a[i0 * depth], *y = &b[j0 * depth];
            for (size_t k = 0; k < depth; k++, x += DOWN, y += RIGHT) {
                Four low, high;
                memcpy(&low, x, sizeof low);
                memcpy(&high, x + 4, sizeof high);
                for (int j = 0; j < RIGHT; j++) {
                    tile[j][0] += low * y[j];
                    tile[j][1] += high * y[j];
                }
            }
            for (size_t j = 0; j < RIGHT && j0 + j < n; j++) {
                memcpy(&sums[(j0 + j) * m + i0], tile[j], (m - i0 < DOWN ? m - i0 : (size_t)DOWN) * sizeof(float));
            }
        }
    }
}

struct Product {
    cublasLtMatmulDescOpaque_t how;
    cublasLtMatrixLayoutOpaque_t a, b, c, d;
    const void *pa, *pb, *pc;
    void *pd;
    const float *alpha, *beta; /* on the device, or nullptr: the values */
    float alpha_value, beta_value;
    void *workspace;
    size_t workspace_size;
};

static float epilogue(const Product &p, float v, size_t i, size_t j)
{
    const cudaDataType bias_type = p.how.bias_type < 0 ? p.d.type : (cudaDataType)p.how.bias_type;
    const int e = p.how.epilogue;
    if (e != CUBLASLT_EPILOGUE_BGRADA && e != CUBLASLT_EPILOGUE_BGRADB && (e & CUBLASLT_EPILOGUE_BIAS) != 0) {
        v += element(inside(p.how.bias) + i * width(bias_type), bias_type);
    }
    if ((e & 128) != 0) {
        const cudaDataType type = p.how.aux_type < 0 ? p.d.type : (cudaDataType)p.how.aux_type;
        put(inside(p.how.aux) + ((int64_t)j * p.how.aux_ld + (int64_t)i) * (int64_t)width(type), type, v);
    }
    if ((e & CUBLASLT_EPILOGUE_RELU) != 0) {
        v = v > 0 ? v : 0.0f;
    }
    if ((e & CUBLASLT_EPILOGUE_GELU) != 0) {
        v = 0.5f * v * (1.0f + tanhf(0.7978845608f * (v + 0.044715f * v * v * v)));
    }
    return v;
}

/* The sums over k of op(a)'s rows, or op(b)'s columns. */
static void bias_gradient(const Product &p, const Matrix &of, size_t count, size_t depth)
{
    const cudaDataType type = p.how.bias_type < 0 ? p.d.type : (cudaDataType)p.how.bias_type;
    for (size_t i = 0; i < count; i++) {
        float sum = 0;
        for (size_t k = 0; k < depth; k++) {
            sum += element(of.at + ((int64_t)i * of.down + (int64_t)k * of.right) * (int64_t)width(of.type), of.type);
        }
        put(inside(p.how.bias) + i * width(type), type, sum);
    }
}

/* The bytes from a matrix's first element to behind its last. */
static size_t extent(const cublasLtMatrixLayoutOpaque_t &l)
{
    const uint64_t inner = l.order == CUBLASLT_ORDER_ROW ? l.cols : l.rows;
    const uint64_t outer = l.order == CUBLASLT_ORDER_ROW ? l.rows : l.cols;
    return ((outer - 1) * (uint64_t)l.ld + inner + (uint64_t)(l.batch - 1) * (uint64_t)l.stride) * width(l.type);
}

static void run_product(const Product &p, const Stream *by)
{
    std::string why;
    const float alpha = p.alpha != nullptr ? *reinterpret_cast<float *>(inside(p.alpha)) : p.alpha_value;
    const float beta = p.beta != nullptr ? *reinterpret_cast<float *>(inside(p.beta)) : p.beta_value;
    if (!usable(p.pa, extent(p.a), by, &why) || !usable(p.pb, extent(p.b), by, &why) ||
        !usable(p.pd, extent(p.d), by, &why) || (beta != 0 && !usable(p.pc, extent(p.c), by, &why)) ||
        !usable(p.workspace, p.workspace_size, by, &why)) {
        fault("a matrix product is given %s", why.c_str());
        return;
    }
    if (p.workspace_size != 0) {
        memset(inside(p.workspace), 0xff, p.workspace_size);
    }
    const size_t m = p.d.rows, n = p.d.cols, k = p.how.transa == CUBLAS_OP_N ? p.a.cols : p.a.rows;
    const Matrix a = matrix(inside(p.pa), p.a, p.how.transa);
    Matrix b = matrix(inside(p.pb), p.b, p.how.transb);
    std::swap(b.down, b.right); /* column j of op(b) is what row i is of op(a) */
    const Matrix c = matrix(inside(p.pc), p.c, CUBLAS_OP_N), d = matrix(inside(p.pd), p.d, CUBLAS_OP_N);
    std::vector<float> left, right, sums;
    for (int64_t batch = 0; batch < p.d.batch; batch++) {
        panels<DOWN>(left, a, batch, m, k);
        panels<RIGHT>(right, b, batch, n, k);
        multiply(sums, left, right, m, n, k);
        for (size_t j = 0; j < n; j++) {
            for (size_t i = 0; i < m; i++) {
                float v = alpha * sums[j * m + i];
                if (beta != 0) {
                    v += beta * element(c.at + (batch * c.stride + (int64_t)i * c.down + (int64_t)j * c.right) *
                                                   (int64_t)width(c.type),
                                        c.type);
                }
                put(const_cast<char *>(d.at) +
                        (batch * d.stride + (int64_t)i * d.down + (int64_t)j * d.right) * (int64_t)width(d.type),
                    d.type, epilogue(p, v, i, j));
            }
        }
        if (p.how.epilogue == CUBLASLT_EPILOGUE_BGRADA) {
            bias_gradient(p, a, m, k);
        } else if (p.how.epilogue == CUBLASLT_EPILOGUE_BGRADB) {
            bias_gradient(p, b, n, k);
        }
    }
}

static bool known(cudaDataType type)
{
    return type == CUDA_R_32F || type == CUDA_R_16BF;
}

/* What the shapes must be for d = op(a) · op(b). */
static bool agree(const cublasLtMatmulDescOpaque_t &how, const cublasLtMatrixLayoutOpaque_t &a,
                  const cublasLtMatrixLayoutOpaque_t &b, const cublasLtMatrixLayoutOpaque_t &c,
                  const cublasLtMatrixLayoutOpaque_t &d)
{
    const uint64_t m = how.transa == CUBLAS_OP_N ? a.rows : a.cols, k = how.transa == CUBLAS_OP_N ? a.cols : a.rows;
    const uint64_t kb = how.transb == CUBLAS_OP_N ? b.rows : b.cols, n = how.transb == CUBLAS_OP_N ? b.cols : b.rows;
    if (!known(a.type) || a.type != b.type || !known(c.type) || c.type != d.type ||
        (a.type == CUDA_R_32F && d.type != CUDA_R_32F)) {
        return false;
    }
    return k == kb && m == d.rows && n == d.cols && c.rows == d.rows && c.cols == d.cols && a.batch == d.batch &&
           b.batch == d.batch && m > 0 && n > 0 && k > 0;
}

static cublasStatus_t multiply_on(cudaStream_t handle, const Product &p)
{
    Call call;
    const std::shared_ptr<Stream> stream = stream_of(handle);
    if (stream == nullptr) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (broken() != cudaSuccess) {
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
    for (const void *pointer : {p.pa, p.pb, static_cast<const void *>(p.pd), static_cast<const void *>(p.workspace)}) {
        int device;
        if (pointer != nullptr && where(pointer, &device) == PAGEABLE) {
            fault("a matrix product is given host memory that is not pinned");
            return CUBLAS_STATUS_EXECUTION_FAILED;
        }
    }
    rt.counts.products++;
    const cudaError_t error =
        enqueue(stream, Work{"a matrix product", [p, stream] { run_product(p, stream.get()); }, {}});
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

} // namespace emulate_cuda

using namespace emulate_cuda;

extern "C" {

static cublasStatus_t ready()
{
    Call call;
    cudaError_t error;
    return broken() == cudaSuccess && card_of_device(current_device(), &error) != nullptr
               ? CUBLAS_STATUS_SUCCESS
               : CUBLAS_STATUS_NOT_INITIALIZED;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    const cublasStatus_t status = ready();
    *handle = status == CUBLAS_STATUS_SUCCESS ? new cublasLtContext{current_device()} : nullptr;
    return status;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion(void)
{
    return CUBLAS_VERSION;
}

const char *cublasGetStatusName(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
        return "CUBLAS_STATUS_INTERNAL_ERROR";
    }
}

const char *cublasGetStatusString(cublasStatus_t status)
{
    return cublasGetStatusName(status);
}

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    return cublasGetStatusName(status);
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return cublasGetStatusName(status);
}

/* ---- descriptions ---- */

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld)
{
    *layout = new cublasLtMatrixLayoutOpaque_t{type, CUBLASLT_ORDER_COL, 1, rows, cols, ld, 0};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

/* Copies a value of the caller's into ours, if it has the size it must have. */
#define EMULATE_SET(field, T)                \
    if (size != sizeof(T)) {                 \
        return CUBLAS_STATUS_INVALID_VALUE;  \
    } else {                                 \
        T given;                             \
        memcpy(&given, value, sizeof given); \
        (field) = (decltype(field))given;    \
        return CUBLAS_STATUS_SUCCESS;        \
    }

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t size)
{
    switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE:
        EMULATE_SET(l->type, uint32_t)
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
        EMULATE_SET(l->order, int32_t)
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
        EMULATE_SET(l->rows, uint64_t)
    case CUBLASLT_MATRIX_LAYOUT_COLS:
        EMULATE_SET(l->cols, uint64_t)
    case CUBLASLT_MATRIX_LAYOUT_LD:
        EMULATE_SET(l->ld, int64_t)
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        EMULATE_SET(l->batch, int32_t)
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        EMULATE_SET(l->stride, int64_t)
    }
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t, cudaDataType_t scale)
{
    *desc = nullptr;
    if (scale != CUDA_R_32F) {
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    *desc = new cublasLtMatmulDescOpaque_t{
        CUBLASLT_POINTER_MODE_HOST, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr, nullptr, 0, -1, -1};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t size)
{
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
        EMULATE_SET(d->pointers, int32_t)
    case CUBLASLT_MATMUL_DESC_TRANSA:
        EMULATE_SET(d->transa, int32_t)
    case CUBLASLT_MATMUL_DESC_TRANSB:
        EMULATE_SET(d->transb, int32_t)
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        EMULATE_SET(d->epilogue, uint32_t)
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        EMULATE_SET(d->bias, void *)
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
        EMULATE_SET(d->aux, void *)
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
        EMULATE_SET(d->aux_ld, int64_t)
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE:
        EMULATE_SET(d->aux_type, int32_t)
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        EMULATE_SET(d->bias_type, int32_t)
    case CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET:
        return CUBLAS_STATUS_SUCCESS;
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = new cublasLtMatmulPreferenceOpaque_t{0, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                                    size_t size)
{
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        EMULATE_SET(preference->workspace, uint64_t)
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
        EMULATE_SET(preference->aligned[0], uint32_t)
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
        EMULATE_SET(preference->aligned[1], uint32_t)
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
        EMULATE_SET(preference->aligned[2], uint32_t)
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        EMULATE_SET(preference->aligned[3], uint32_t)
    default:
        return size == sizeof(uint32_t) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
    }
}

/* ---- products ---- */

enum { WORKSPACE = 16384 }; /* bytes that the first algorithm wants where it may have them; a second wants none */

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference, int want,
                                              cublasLtMatmulHeuristicResult_t *results, int *got)
{
    *got = 0;
    if (want < 1 || !agree(*desc, *a, *b, *c, *d)) {
        return want < 1 ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_NOT_SUPPORTED;
    }
    const bool roomy = preference->workspace >= WORKSPACE;
    *got = roomy && want > 1 ? 2 : 1;
    for (int i = 0; i < *got; i++) {
        memset(&results[i], 0, sizeof results[i]);
        results[i].workspaceSize = roomy && i == 0 ? (size_t)WORKSPACE : 0;
        results[i].algo.data[0] = 1 + results[i].workspaceSize;
        for (int k = 0; k < 4; k++) {
            results[i].algo.data[1 + k] = preference->aligned[k];
        }
        results[i].algo.data[5] = ((uintptr_t)desc->bias | 256) & (~((uintptr_t)desc->bias | 256) + 1);
        results[i].state = CUBLAS_STATUS_SUCCESS;
        results[i].wavesCount = 1.0f;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *, cublasLtMatmulAlgoConfigAttributes_t,
                                                    void *value, size_t size, size_t *written)
{
    memset(value, 0, size);
    if (written != nullptr) {
        *written = size;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb, const void *beta,
                              const void *c, cublasLtMatrixLayout_t lc, void *d, cublasLtMatrixLayout_t ld,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_size,
                              cudaStream_t stream)
{
    if (handle == nullptr || !agree(*desc, *la, *lb, *lc, *ld)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    const size_t wants = algo != nullptr ? algo->data[0] - 1 : 0;
    if (wants > workspace_size || (wants != 0 && ((uintptr_t)workspace & 255) != 0)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    const void *given[] = {a, b, c, d};
    for (int i = 0; algo != nullptr && i < 4; i++) {
        if (((uintptr_t)given[i] & (algo->data[1 + i] - 1)) != 0) {
            fault("a matrix product's %c is at %p, by an algorithm for memory aligned to %d bytes", "abcd"[i], given[i],
                  (int)algo -> data[1 + i]);
            return CUBLAS_STATUS_EXECUTION_FAILED;
        }
    }
    if (algo != nullptr && (desc->epilogue & CUBLASLT_EPILOGUE_BIAS) != 0 &&
        ((uintptr_t)desc->bias & (algo->data[5] - 1)) != 0) {
        fault("a matrix product's bias is at %p, and was aligned to %d bytes when its algorithm was asked for",
              desc->bias, (int)algo->data[5]);
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
    Product p = {*desc, *la, *lb, *lc, *ld, a, b, c, d, nullptr, nullptr, 0, 0, nullptr, wants};
    p.workspace = workspace;
    if (desc->pointers == CUBLASLT_POINTER_MODE_HOST) {
        p.alpha_value = *static_cast<const float *>(alpha);
        p.beta_value = *static_cast<const float *>(beta);
    } else {
        p.alpha = static_cast<const float *>(alpha);
        p.beta = static_cast<const float *>(beta);
    }
    return multiply_on(stream, p);
}

cublasStatus_t cublasCreate(cublasHandle_t *handle)
{
    const cublasStatus_t status = ready();
    *handle = status == CUBLAS_STATUS_SUCCESS ? new cublasContext{current_device(), nullptr, CUBLAS_POINTER_MODE_HOST}
                                              : nullptr;
    return status;
}

cublasStatus_t cublasDestroy(cublasHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetVersion(cublasHandle_t, int *version)
{
    *version = CUBLAS_VERSION;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream)
{
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetStream(cublasHandle_t handle, cudaStream_t *stream)
{
    *stream = handle->stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace(cublasHandle_t, void *, size_t)
{
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t)
{
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetPointerMode(cublasHandle_t handle, cublasPointerMode_t mode)
{
    handle->pointers = mode;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetAtomicsMode(cublasHandle_t, cublasAtomicsMode_t)
{
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m,
                                          int n, int k, const void *alpha, const void *a, cudaDataType type_a, int lda,
                                          long long stride_a, const void *b, cudaDataType type_b, int ldb,
                                          long long stride_b, const void *beta, void *c, cudaDataType type_c, int ldc,
                                          long long stride_c, int batch, cublasComputeType_t, cublasGemmAlgo_t)
{
    const cublasLtMatrixLayoutOpaque_t la = {type_a,
                                             CUBLASLT_ORDER_COL,
                                             batch,
                                             (uint64_t)(ta == CUBLAS_OP_N ? m : k),
                                             (uint64_t)(ta == CUBLAS_OP_N ? k : m),
                                             lda,
                                             stride_a};
    const cublasLtMatrixLayoutOpaque_t lb = {type_b,
                                             CUBLASLT_ORDER_COL,
                                             batch,
                                             (uint64_t)(tb == CUBLAS_OP_N ? k : n),
                                             (uint64_t)(tb == CUBLAS_OP_N ? n : k),
                                             ldb,
                                             stride_b};
    const cublasLtMatrixLayoutOpaque_t lc = {type_c,  CUBLASLT_ORDER_COL, batch, (uint64_t)m, (uint64_t)n, ldc,
                                             stride_c};
    cublasLtMatmulDescOpaque_t how = {
        (int)handle->pointers, ta, tb, CUBLASLT_EPILOGUE_DEFAULT, nullptr, nullptr, 0, -1, -1};
    return cublasLtMatmul(reinterpret_cast<cublasLtHandle_t>(handle), &how, alpha, a,
                          const_cast<cublasLtMatrixLayout_t>(&la), b, const_cast<cublasLtMatrixLayout_t>(&lb), beta, c,
                          const_cast<cublasLtMatrixLayout_t>(&lc), c, const_cast<cublasLtMatrixLayout_t>(&lc), nullptr,
                          nullptr, 0, handle->stream);
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                            const void *alpha, const void *a, cudaDataType type_a, int lda, const void *b,
                            cudaDataType type_b, int ldb, const void *beta, void *c, cudaDataType type_c, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t algo)
{
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, type_a, lda, 0, b, type_b, ldb, 0, beta, c,
                                      type_c, ldc, 0, 1, compute, algo);
}

cublasStatus_t cublasSgemm(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                           const float *alpha, const float *a, int lda, const float *b, int ldb, const float *beta,
                           float *c, int ldc)
{
    return cublasGemmEx(handle, ta, tb, m, n, k, alpha, a, CUDA_R_32F, lda, b, CUDA_R_32F, ldb, beta, c, CUDA_R_32F,
                        ldc, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
}

} // extern "C"
