/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention on the CUDA device, real or emulated, against the scalar reference: both types, packed segments with shared
 * prefixes, windows, caps, every head size that has kernels of its own, pages, and what is refused. Twice the same call
 * gives the same bits, and a row's result does not hang on the rows beside it.
 *
 * test_attention                  a choice of shapes, in the order of EMULATED_CUDA=seed=N
 * test_attention SEED [SEED…]     all of them, for each order of the emulated threads
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/bf16.h"
#include "kernels/cuda/cuda.h"
#include "kernels/ops.h"
#ifdef EMULATED
#include "emulate/control.h"
#endif

static kn_device *device, *reference;
static unsigned failures;
static bool quick;

#define CHECK(condition, ...)                              \
    do {                                                   \
        if (!(condition)) {                                \
            failures++;                                    \
            printf("line %d: %s: ", __LINE__, #condition); \
            printf(__VA_ARGS__);                           \
            printf("\n");                                  \
        }                                                  \
    } while (0)

static void *memory(size_t bytes)
{
    void *p = calloc(bytes ? bytes : 1, 1);
    if (!p)
        abort();
    return p;
}

/* n numbers in (-scale, scale), the same in tests/golden/attention_bf16.py. */
static float *numbers(size_t n, float scale, uint32_t seed)
{
    float *x = memory(n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        uint32_t h = (uint32_t)i * 2654435761u + seed * 40503u;
        h = (h ^ h >> 15) * 2246822519u;
        h = (h ^ h >> 13) * 3266489917u;
        h ^= h >> 16;
        x[i] = scale * ((float)(h >> 8) / 8388608.0f - 1.0f);
    }
    return x;
}

/* An array of the table's type on a device, from numbers that are rounded to it in place. */
static void *to_device(kn_device *d, bool narrow, float *x, size_t n)
{
    const kn_ops *ops = narrow ? d->ops_bf16 : d->ops;
    void *p = ops->alloc(d, n * (narrow ? 2 : 4) + 1);
    if (!p)
        abort();
    if (narrow) {
        uint16_t *bits = memory(n * 2);
        for (size_t i = 0; i < n; i++) {
            bits[i] = kn_narrow(x[i]);
            x[i] = kn_widen(bits[i]);
        }
        ops->write(d, p, bits, n * 2);
        free(bits);
    } else {
        ops->write(d, p, x, n * 4);
    }
    return p;
}

static float *from_device(kn_device *d, bool narrow, const void *p, size_t n)
{
    float *x = memory(n * 4);
    if (narrow) {
        uint16_t *bits = memory(n * 2);
        CHECK(d->ops->read(d, bits, p, n * 2) == KN_OK, "read");
        for (size_t i = 0; i < n; i++)
            x[i] = kn_widen(bits[i]);
        free(bits);
    } else {
        CHECK(d->ops->read(d, x, p, n * 4) == KN_OK, "read");
    }
    return x;
}

/* The greatest and the root mean square difference, against the greatest and the root mean square number. */
typedef struct difference {
    double most, mean;
} difference;

static difference compare(const float *a, const float *b, size_t n)
{
    double largest = 1e-30, square = 1e-60, off = 0, off_square = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = fabs((double)a[i] - b[i]);
        largest = fmax(largest, fabs((double)b[i]));
        square += (double)b[i] * b[i];
        off = d <= off ? off : d; /* a NaN stays */
        off_square += d * d;
    }
    return (difference){off / largest, sqrt(off_square / square)};
}

static const char *shape_text(const kn_attention *a)
{
    static char text[96];
    snprintf(text, sizeof(text), "heads %u/%u of %u, window %u, cap %g", a->heads, a->kv_heads, a->head_dim, a->window,
             (double)a->softcap);
    return text;
}

/* The worst that was seen, to be printed at the end. */
static difference worst[2][3];

static void check_near(const char *what, const kn_attention *a, bool narrow, const float *x, const float *y, size_t n,
                       double narrow_mean)
{
    const difference d = compare(x, y, n);
    difference *w = &worst[narrow][strcmp(what, "attention") == 0 ? 0 : strcmp(what, "attention_cached") == 0 ? 1 : 2];
    *w = (difference){fmax(w->most, d.most), fmax(w->mean, d.mean)};
    if (narrow)
        CHECK(d.mean <= narrow_mean && d.most <= 0.03, "%s, bf16, %s: off by %.3g of the mean, %.3g of the greatest",
              what, shape_text(a), d.mean, d.most);
    else
        CHECK(d.most <= 1e-5, "%s, float32, %s: off by %.3g of the greatest", what, shape_text(a), d.most);
}

/* --- packed segments ------------------------------------------------------------------------------------------------
 */

/* The results of a call, as float32. */
typedef struct results {
    float *out, *lse, *dqkv;
} results;

static void results_free(results *r)
{
    free(r->out);
    free(r->lse);
    free(r->dqkv);
}

static results run(kn_device *d, bool narrow, float *qkv, float *dout, const kn_segment *s, size_t segments, size_t T,
                   const kn_attention *a)
{
    const kn_ops *ops = narrow ? d->ops_bf16 : d->ops;
    const size_t width = (a->heads + 2 * a->kv_heads) * a->head_dim, wide = a->heads * a->head_dim;
    float *filled = numbers(T * width, 1, 77), *nothing = memory(T * wide * 4), *zero = memory(T * a->heads * 4);
    void *q = to_device(d, narrow, qkv, T * width), *g = to_device(d, narrow, dout, T * wide);
    void *o = to_device(d, narrow, nothing, T * wide), *l = to_device(d, false, zero, T * a->heads);
    void *dq = to_device(d, narrow, filled, T * width);
    CHECK(ops->attention(d, o, l, q, s, segments, T, a) == KN_OK, "%s", shape_text(a));
    CHECK(ops->attention_backward(d, dq, g, q, o, l, s, segments, T, a) == KN_OK, "%s", shape_text(a));
    const results r = {from_device(d, narrow, o, T * wide), from_device(d, false, l, T * a->heads),
                       from_device(d, narrow, dq, T * width)};
    void *const all[] = {q, g, o, l, dq};
    for (int i = 0; i < 5; i++)
        ops->free(d, all[i]);
    free(filled);
    free(nothing);
    free(zero);
    return r;
}

/* Against the reference in float32, on the same (rounded) numbers. */
static void check_packed(const kn_attention *a, bool narrow, const kn_segment *s, size_t segments, size_t T,
                         float scale)
{
    const size_t width = (a->heads + 2 * a->kv_heads) * a->head_dim, wide = a->heads * a->head_dim;
    float *qkv = numbers(T * width, scale, 1), *dout = numbers(T * wide, 1, 2);
    results mine = run(device, narrow, qkv, dout, s, segments, T, a);
    results right = run(reference, false, qkv, dout, s, segments, T, a);
    check_near("attention", a, narrow, mine.out, right.out, T * wide, 4e-3);
    CHECK(compare(mine.lse, right.lse, T * a->heads).most <= 1e-5, "lse of %s: %g", shape_text(a),
          compare(mine.lse, right.lse, T * a->heads).most);
    check_near("attention_backward", a, narrow, mine.dqkv, right.dqkv, T * width, scale > 2 ? 4e-2 : 1e-2);
    results_free(&mine);
    results_free(&right);
    free(qkv);
    free(dout);
}

/* A prompt of 21 rows with three answers, another of 3 with two, one whose prefix is a part of a segment that has a
 * prefix itself; rows 0 and 1 belong to nobody. */
static const kn_segment packed[] = {{2, 21, 0, 0},    {23, 17, 2, 21}, {40, 1, 2, 21},   {41, 33, 2, 21},
                                    {74, 3, 0, 0},    {77, 4, 74, 3},  {81, 16, 74, 3},  {97, 40, 0, 0},
                                    {137, 5, 45, 20}, {142, 0, 97, 9}, {142, 70, 97, 33}};
enum { PACKED = sizeof(packed) / sizeof(*packed), PACKED_ROWS = 212 };

static void test_packed(bool narrow)
{
    static const kn_attention small[] = {{4, 4, 8, 0, 0, 0.35f},    {4, 2, 16, 0, 0, 0.25f},   {6, 2, 24, 0, 0, 0.2f},
                                         {3, 3, 7, 0, 0, 0.4f},     {4, 2, 16, 5, 0, 0.25f},   {4, 2, 16, 33, 0, 0.25f},
                                         {2, 1, 80, 0, 3.0f, 0.1f}, {2, 2, 33, 9, 2.0f, 0.2f}, {20, 1, 8, 0, 0, 0.4f},
                                         {4, 2, 16, 0, 0, -0.2f},   {2, 1, 16, 70, 1.5f, 0.3f}};
    static const kn_attention large[] = {{2, 1, 32, 0, 0, 0.18f},  {7, 1, 64, 0, 0, 0.125f}, {2, 2, 64, 40, 0, 0.125f},
                                         {2, 1, 96, 0, 0, 0.1f},   {2, 1, 128, 0, 0, 0.09f}, {1, 1, 128, 50, 9, 0.09f},
                                         {2, 1, 192, 0, 0, 0.07f}, {2, 1, 256, 0, 0, 0.06f}, {1, 1, 200, 3, 5, 0.06f},
                                         {1, 1, 104, 0, 0, 0.1f},  {1, 1, 160, 0, 0, 0.08f}, {1, 1, 100, 0, 0, 0.1f},
                                         {1, 1, 196, 9, 0, 0.07f}}; /* the last two: never on tensor cores */
    static const size_t rows[] = {1, 2, 15, 16, 17, 63, 64, 65, 130};
    for (size_t i = 0; i < sizeof(small) / sizeof(*small); i++) {
        for (size_t n = 0; n < sizeof(rows) / sizeof(*rows) && (!quick || i < 2); n++) {
            const kn_segment one = {0, rows[n], 0, 0};
            check_packed(&small[i], narrow, &one, 1, rows[n], 1);
        }
        check_packed(&small[i], narrow, packed, PACKED, PACKED_ROWS, 1);
        if (!quick)
            check_packed(&small[i], narrow, packed, PACKED, PACKED_ROWS, 4); /* sharp probabilities */
    }
    for (size_t i = 0; i < sizeof(large) / sizeof(*large); i += quick && !narrow ? 4 : 1) /* float32 has three sizes */
        check_packed(&large[i], narrow, packed, PACKED, PACKED_ROWS, 1);
}

/* Twice the same; and each segment alone as among the others. */
static void test_bits(bool narrow)
{
    const kn_attention a = {4, 2, 64, 50, 0, 0.125f};
    const size_t width = (a.heads + 2 * a.kv_heads) * a.head_dim, wide = a.heads * a.head_dim;
    float *qkv = numbers(PACKED_ROWS * width, 1, 5), *dout = numbers(PACKED_ROWS * wide, 1, 6);
    results r[3];
    for (int i = 0; i < 2; i++)
        r[i] = run(device, narrow, qkv, dout, packed, PACKED, PACKED_ROWS, &a);
    CHECK(memcmp(r[0].out, r[1].out, PACKED_ROWS * wide * 4) == 0, "the same call, other bits");
    CHECK(memcmp(r[0].dqkv, r[1].dqkv, PACKED_ROWS * width * 4) == 0, "the same call, other bits");
    const kn_segment alone = {97, 40, 0, 0};
    r[2] = run(device, narrow, qkv, dout, &alone, 1, PACKED_ROWS, &a);
    CHECK(memcmp(r[0].out + 97 * wide, r[2].out + 97 * wide, 40 * wide * 4) == 0, "alone, other bits");
    /* A sequence cut into a prefix and a rest. */
    const kn_segment whole = {0, 150, 0, 0}, cut[] = {{0, 61, 0, 0}, {61, 89, 0, 61}};
    results_free(&r[1]);
    results_free(&r[2]);
    r[1] = run(device, narrow, qkv, dout, &whole, 1, 150, &a);
    r[2] = run(device, narrow, qkv, dout, cut, 2, 150, &a);
    CHECK(memcmp(r[1].out, r[2].out, 150 * wide * 4) == 0, "cut in two, other bits");
    for (int i = 0; i < 3; i++)
        results_free(&r[i]);
    free(qkv);
    free(dout);
}

/* Of elements [from, from + n) of each row. */
static double mean_off(const float *x, const float *y, size_t T, size_t width, size_t from, size_t n)
{
    double off = 0, square = 1e-60;
    for (size_t t = 0; t < T; t++)
        for (size_t i = t * width + from; i < t * width + from + n; i++) {
            off += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
            square += (double)y[i] * y[i];
        }
    return sqrt(off / square);
}

/* In bf16 no further from the exact result than PyTorch's own attention: tests/golden/attention_bf16.txt. */
static void test_golden(void)
{
    static const char *const part[] = {"out", "dq", "dk", "dv"};
    char path[4096], line[256];
    const char *data = getenv("SLUICE_TEST_DATA");
    snprintf(path, sizeof(path), "%s/golden/attention_bf16.txt", data ? data : "tests");
    FILE *file = fopen(path, "r");
    if (!file) {
        printf("PyTorch's errors not compared: no %s\n", path);
        return;
    }
    unsigned cases = 0;
    while (fgets(line, sizeof(line), file)) {
        kn_attention a = {0};
        size_t T;
        double theirs[4];
        if (sscanf(line, "%zu %u %u %u %lf %lf %lf %lf", &T, &a.heads, &a.kv_heads, &a.head_dim, &theirs[0], &theirs[1],
                   &theirs[2], &theirs[3]) != 8)
            continue;
        a.scale = 1 / sqrtf((float)a.head_dim);
        const size_t q = a.heads * a.head_dim, kv = a.kv_heads * a.head_dim, width = q + 2 * kv;
        const kn_segment whole = {0, T, 0, 0};
        float *qkv = numbers(T * width, 1, 1), *dout = numbers(T * q, 1, 2);
        results mine = run(device, true, qkv, dout, &whole, 1, T, &a);
        results right = run(reference, false, qkv, dout, &whole, 1, T, &a);
        const double off[] = {
            mean_off(mine.out, right.out, T, q, 0, q), mean_off(mine.dqkv, right.dqkv, T, width, 0, q),
            mean_off(mine.dqkv, right.dqkv, T, width, q, kv), mean_off(mine.dqkv, right.dqkv, T, width, q + kv, kv)};
        for (int i = 0; i < 4; i++) {
            printf("%zu x %u of %u, %s: off by %.3e, PyTorch by %.3e\n", T, a.heads, a.head_dim, part[i], off[i],
                   theirs[i]);
            CHECK(off[i] <= 1.05 * theirs[i], "%s of %s", part[i], shape_text(&a));
        }
        cases++;
        results_free(&mine);
        results_free(&right);
        free(qkv);
        free(dout);
    }
    CHECK(cases > 0, "no case in %s", path);
    fclose(file);
}

/* --- pages ----------------------------------------------------------------------------------------------------------
 */

/* A prompt, prefilled in pieces, then tokens one by one on two sequences that share its full pages; against packed
 * attention of the reference. */
static void check_cached(const kn_attention *a, bool narrow, size_t prompt, size_t more)
{
    const kn_ops *ops = narrow ? device->ops_bf16 : device->ops;
    const size_t width = (a->heads + 2 * a->kv_heads) * a->head_dim, wide = a->heads * a->head_dim;
    const size_t T = prompt + 2 * more, size = narrow ? 2 : 4, full = prompt / KN_PAGE;
    const kn_segment segment[] = {{0, prompt, 0, 0}, {prompt, more, 0, prompt}, {prompt + more, more, 0, prompt}};
    float *qkv = numbers(T * width, 1, 1), *dout = numbers(T * wide, 1, 2), *nothing = memory(T * wide * 4);
    char *q = to_device(device, narrow, qkv, T * width), *o = to_device(device, narrow, nothing, T * wide);
    results right = run(reference, false, qkv, dout, segment, 3, T, a);
    const size_t pages = (prompt + more) / KN_PAGE + 1, room = 2 * pages + 3;
    kn_cache *cache = ops->cache_new(device, 2, room, a);
    CHECK(cache != NULL, "no cache");
    uint32_t *first = memory(pages * 4), *second = memory(pages * 4);
    for (size_t p = 0; p < pages; p++) {
        first[p] = (uint32_t)(room - 1 - p);
        second[p] = p < full ? first[p] : (uint32_t)p;
    }
    for (size_t i = 0, n = 10; i < prompt; i += n, n = 37) {
        n = prompt - i < n ? prompt - i : n;
        const kn_cached_rows rows = {0, n, i, first};
        for (size_t layer = 0; layer < 2; layer++)
            CHECK(ops->attention_cached(device, o + i * wide * size, q + i * width * size, cache, layer, &rows, 1, n,
                                        NULL) == KN_OK,
                  "prompt of %s", shape_text(a));
    }
    if (prompt % KN_PAGE)
        CHECK(ops->cache_copy_page(device, cache, second[full], first[full], prompt % KN_PAGE) == KN_OK, "copy");
    for (size_t i = 0; i < more; i++) {
        char *in = ops->alloc(device, 2 * width * size), *out = ops->alloc(device, 2 * wide * size);
        ops->copy(device, in, q + (prompt + more + i) * width * size, width * size);
        ops->copy(device, in + width * size, q + (prompt + i) * width * size, width * size);
        const kn_cached_rows rows[] = {{0, 1, prompt + i, second}, {1, 1, prompt + i, first}};
        CHECK(ops->attention_cached(device, out, in, cache, 1, rows, 2, 2, NULL) == KN_OK, "%s", shape_text(a));
        ops->copy(device, o + (prompt + more + i) * wide * size, out, wide * size);
        ops->copy(device, o + (prompt + i) * wide * size, out + wide * size, wide * size);
        if (i + 1 == more) { /* the same bits alone */
            CHECK(ops->attention_cached(device, out + wide * size, in, cache, 1, rows, 1, 1, NULL) == KN_OK, "alone");
            float *two = from_device(device, narrow, out, 2 * wide);
            CHECK(memcmp(two, two + wide, wide * 4) == 0, "alone, other bits: %s", shape_text(a));
            free(two);
        }
        ops->free(device, in);
        ops->free(device, out);
    }
    float *mine = from_device(device, narrow, o, T * wide);
    check_near("attention_cached", a, narrow, mine, right.out, T * wide, 4e-3);
    const kn_cached_rows wrong = {0, 1, 0, (const uint32_t[]){(uint32_t)room}}, far = {T, 1, 0, first};
    CHECK(ops->attention_cached(device, o, q, cache, 0, &wrong, 1, 1, NULL) == KN_BAD_ARGUMENT, "page");
    CHECK(ops->attention_cached(device, o, q, cache, 2, &wrong, 0, 1, NULL) == KN_BAD_ARGUMENT, "layer");
    CHECK(ops->attention_cached(device, o, q, cache, 0, &far, 1, T, NULL) == KN_BAD_ARGUMENT, "rows");
    CHECK(ops->attention_cached(device, o, q, cache, 0, NULL, 0, T, NULL) == KN_OK, "nothing");
    CHECK(ops->cache_copy_page(device, cache, (uint32_t)room, 0, 1) == KN_BAD_ARGUMENT, "page");
    CHECK(ops->cache_copy_page(device, cache, 0, 1, KN_PAGE + 1) == KN_BAD_ARGUMENT, "count");
    ops->cache_free(device, cache);
    ops->free(device, q);
    ops->free(device, o);
    results_free(&right);
    free(qkv);
    free(dout);
    free(nothing);
    free(mine);
    free(first);
    free(second);
}

/* Rotary embedding on the way into the pages, against the same done before: a prompt in two pieces, then answers, most
 * of them with the prompt's pages. The same bits. */
static void check_turned(const kn_attention *a, bool narrow, size_t prompt, size_t answers, size_t more)
{
    const kn_ops *ops = narrow ? device->ops_bf16 : device->ops;
    const size_t turned = a->heads + a->kv_heads, width = (turned + a->kv_heads) * a->head_dim;
    const size_t wide = a->heads * a->head_dim, half = a->head_dim / 2, size = narrow ? 2 : 4, end = prompt + more;
    const size_t full = prompt / KN_PAGE, each = end / KN_PAGE + 1, own = each - full, pages = full + 1 + answers * own;
    const size_t rows_most = prompt > answers ? prompt : answers;
    const size_t tabled = (end * half + 3) / 4 * 4;
    float *angle = numbers(2 * tabled, 1, 5), *const table = to_device(device, false, angle, 2 * tabled);
    const kn_rotary rotary = {table, table + tabled};
    kn_cache *cache[2];
    char *qkv[2], *out[2];
    for (int i = 0; i < 2; i++) {
        cache[i] = ops->cache_new(device, 1, pages, a);
        qkv[i] = ops->alloc(device, rows_most * width * size);
        out[i] = ops->alloc(device, rows_most * wide * size);
    }
    uint32_t *page = memory(answers * each * 4), *position = memory(rows_most * 4);
    kn_cached_rows *rows = memory((answers + 2) * sizeof(*rows));
    for (size_t s = 0; s < answers; s++)
        for (size_t p = 0; p < each; p++)
            page[s * each + p] = (uint32_t)(p < full ? p : full + (s == 0 ? 0 : 1 + s * own) + p - full);
    for (size_t step = 0; step <= more; step++) {
        const size_t T = step == 0 ? prompt : answers;
        size_t entries = 0;
        if (step == 0) {
            rows[entries++] = (kn_cached_rows){1, prompt - 1, 0, page};
            rows[entries++] = (kn_cached_rows){0, 1, prompt - 1, page};
        }
        for (size_t s = 0; s < answers && step > 0; s++)
            rows[entries++] = (kn_cached_rows){s, 1, prompt + step - 1, page + s * each};
        for (size_t i = 0; i < entries; i++)
            for (size_t n = 0; n < rows[i].count; n++)
                position[rows[i].row + n] = (uint32_t)(rows[i].position + n);
        float *x = numbers(T * width, 1, 10 + (uint32_t)step);
        void *in = to_device(device, narrow, x, T * width);
        float *told[2];
        for (int i = 0; i < 2; i++) {
            ops->copy(device, qkv[i], in, T * width * size);
            if (i == 1)
                CHECK(ops->rope(device, qkv[i], width, position, rotary.cos, rotary.sin, T, turned, a->head_dim,
                                false) == KN_OK,
                      "rope");
            CHECK(ops->attention_cached(device, out[i], qkv[i], cache[i], 0, rows, entries, T, i ? NULL : &rotary) ==
                      KN_OK,
                  "%s", shape_text(a));
            for (size_t s = 1; s < answers && step == 0 && prompt % KN_PAGE; s++)
                ops->cache_copy_page(device, cache[i], page[s * each + full], page[full], prompt % KN_PAGE);
            told[i] = from_device(device, narrow, out[i], T * wide);
        }
        CHECK(memcmp(told[0], told[1], T * wide * 4) == 0, "step %zu, turned on the way, other bits: %s", step,
              shape_text(a));
        free(told[0]);
        free(told[1]);
        free(x);
        ops->free(device, in);
    }
    const kn_rotary aside = {table + 1, table};
    CHECK(ops->attention_cached(device, out[0], qkv[0], cache[0], 0, rows, 0, 1, &aside) == KN_BAD_ARGUMENT, "aligned");
    for (int i = 0; i < 2; i++) {
        ops->cache_free(device, cache[i]);
        ops->free(device, qkv[i]);
        ops->free(device, out[i]);
    }
    ops->free(device, table);
    void *const here[] = {angle, page, position, rows};
    for (int i = 0; i < 4; i++)
        free(here[i]);
}

static void test_turned(bool narrow)
{
    static const kn_attention shapes[] = {{4, 2, 8, 0, 0, 0.35f},   {6, 2, 16, 21, 0, 0.25f}, {14, 2, 64, 0, 0, 0.125f},
                                          {20, 1, 32, 0, 2, 0.2f},  {2, 1, 72, 0, 0, 0.1f},   {2, 1, 128, 9, 0, 0.09f},
                                          {2, 1, 256, 0, 0, 0.06f}, {34, 2, 24, 0, 0, -0.1f}, {3, 3, 6, 0, 0, 0.4f}};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        check_turned(&shapes[i], narrow, 37, 2, 2);
    check_turned(&shapes[1], narrow, 520, 50, 1); /* parts that answers share */
    const kn_attention odd = {2, 1, 7, 0, 0, 0.3f};
    const kn_ops *ops = narrow ? device->ops_bf16 : device->ops;
    kn_cache *cache = ops->cache_new(device, 1, 1, &odd);
    CHECK(ops->attention_cached(device, NULL, NULL, cache, 0, NULL, 0, 1, &(kn_rotary){NULL, NULL}) == KN_BAD_ARGUMENT,
          "an odd head_dim");
    ops->cache_free(device, cache);
}

static void test_cached(bool narrow)
{
    static const kn_attention shapes[] = {{4, 2, 8, 0, 0, 0.35f},   {6, 2, 16, 21, 0, 0.25f}, {7, 1, 64, 0, 0, 0.125f},
                                          {20, 1, 32, 0, 2, 0.2f},  {2, 1, 80, 0, 0, 0.1f},   {2, 1, 96, 0, 0, 0.1f},
                                          {2, 1, 128, 9, 0, 0.09f}, {1, 1, 192, 0, 0, 0.07f}, {2, 1, 256, 0, 0, 0.06f},
                                          {3, 3, 7, 0, 0, 0.4f},    {34, 2, 24, 0, 0, -0.1f}};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        check_cached(&shapes[i], narrow, 37, 5);
    check_cached(&shapes[0], narrow, 48, 3);
    const kn_attention wide[] = {{4, 2, 16, 0, 0, 0.25f}, {4, 2, 16, 300, 0, 0.25f}}; /* several parts a sequence */
    for (int i = 0; i < 2; i++)
        check_cached(&wide[i], narrow, 510, 4);
}

/* Many answers to one prompt, longer than a part of the decoding kernel: it takes them together, and the bits are those
 * of each alone. Every third has another page in its second part. */
static void test_shared(bool narrow, const kn_attention *a, size_t prompt, size_t answers)
{
    const kn_ops *ops = narrow ? device->ops_bf16 : device->ops;
    const size_t width = (a->heads + 2 * a->kv_heads) * a->head_dim, wide = a->heads * a->head_dim;
    const size_t size = narrow ? 2 : 4, each = prompt / KN_PAGE + 1, whole = (prompt + KN_PAGE - 1) / KN_PAGE;
    const size_t odd = each > 20 ? 20 : 0, pages = whole + 2 * answers;
    float *qkv = numbers((prompt + answers) * width, 1, 1), *out = numbers(prompt * wide, 1, 2);
    char *q = to_device(device, narrow, qkv, (prompt + answers) * width),
         *o = to_device(device, narrow, out, prompt * wide);
    kn_cache *cache = ops->cache_new(device, 1, pages, a);
    uint32_t *page = memory(answers * each * sizeof(*page)), *first = memory(whole * sizeof(*first));
    kn_cached_rows *rows = memory(answers * sizeof(*rows));
    for (size_t p = 0; p < whole; p++)
        first[p] = (uint32_t)(whole - 1 - p);
    const kn_cached_rows start = {0, prompt, 0, first};
    CHECK(ops->attention_cached(device, o, q, cache, 0, &start, 1, prompt, NULL) == KN_OK, "prompt");
    for (size_t s = 0; s < answers; s++) {
        for (size_t p = 0; p + 1 < each; p++)
            page[s * each + p] = first[p];
        page[s * each + each - 1] = (uint32_t)(whole + 2 * s);
        if (prompt % KN_PAGE)
            ops->cache_copy_page(device, cache, page[s * each + each - 1], first[each - 1], prompt % KN_PAGE);
        if (odd && s % 3 == 0) {
            page[s * each + odd] = (uint32_t)(whole + 2 * s + 1);
            ops->cache_copy_page(device, cache, page[s * each + odd], first[odd], KN_PAGE);
        }
        rows[s] = (kn_cached_rows){s, 1, prompt, page + s * each};
    }
    q += prompt * width * size;
    char *all = ops->alloc(device, answers * wide * size), *one = ops->alloc(device, answers * wide * size);
    CHECK(ops->attention_cached(device, all, q, cache, 0, rows, answers, answers, NULL) == KN_OK, "%s", shape_text(a));
    for (size_t s = 0; s < answers; s++)
        CHECK(ops->attention_cached(device, one, q, cache, 0, &rows[s], 1, answers, NULL) == KN_OK, "%s",
              shape_text(a));
    float *together = from_device(device, narrow, all, answers * wide),
          *alone = from_device(device, narrow, one, answers * wide);
    CHECK(memcmp(together, alone, answers * wide * 4) == 0, "together, other bits: %s", shape_text(a));
    /* the same queries on the reference, whose prompt is packed rows */
    kn_segment *segment = memory((answers + 1) * sizeof(*segment));
    segment[0] = (kn_segment){0, prompt, 0, 0};
    for (size_t s = 0; s < answers; s++)
        segment[s + 1] = (kn_segment){prompt + s, 1, 0, prompt};
    float *dout = numbers((prompt + answers) * wide, 1, 3);
    results right = run(reference, false, qkv, dout, segment, answers + 1, prompt + answers, a);
    check_near("attention_cached", a, narrow, together, right.out + prompt * wide, answers * wide, 4e-3);
    results_free(&right);
    ops->cache_free(device, cache);
    ops->free(device, q - prompt * width * size);
    void *const there[] = {o, all, one};
    for (int i = 0; i < 3; i++)
        ops->free(device, there[i]);
    void *const here[] = {qkv, out, page, first, rows, together, alone, segment, dout};
    for (int i = 0; i < 9; i++)
        free(here[i]);
}

/* --- what is refused ------------------------------------------------------------------------------------------------
 */

static void test_refused(bool narrow)
{
    const kn_ops *ops = narrow ? device->ops_bf16 : device->ops;
    const kn_attention good = {4, 2, 8, 0, 0, 1}, bad[] = {{4, 3, 8, 0, 0, 1},
                                                           {0, 1, 8, 0, 0, 1},
                                                           {4, 0, 8, 0, 0, 1},
                                                           {4, 2, 0, 0, 0, 1},
                                                           {4, 2, 8, 0, -1, 1}};
    const kn_segment one = {0, 4, 0, 0}, beyond = {0, 5, 0, 0}, prefix = {0, 4, 3, 2};
    const kn_segment later[] = {{0, 2, 2, 1}, {2, 2, 0, 0}}, across[] = {{0, 2, 0, 0}, {2, 1, 0, 0}, {3, 1, 1, 2}};
    char *room = ops->alloc(device, 1 << 14);
    float *lse = ops->alloc(device, 1 << 10);
    ops->clear(device, room, 1 << 14);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        CHECK(ops->attention(device, room, NULL, room, &one, 1, 4, &bad[i]) == KN_BAD_ARGUMENT, "shape %zu", i);
        CHECK(ops->cache_new(device, 1, 1, &bad[i]) == NULL, "shape %zu", i);
    }
    CHECK(ops->attention(device, room, NULL, room, &beyond, 1, 4, &good) == KN_BAD_ARGUMENT, "rows");
    CHECK(ops->attention(device, room, NULL, room, &prefix, 1, 4, &good) == KN_BAD_ARGUMENT, "prefix");
    CHECK(ops->attention(device, room, NULL, room, NULL, 0, 4, &good) == KN_OK, "nothing");
    CHECK(ops->attention_backward(device, room, room, room, room, lse, later, 2, 4, &good) == KN_BAD_ARGUMENT, "later");
    CHECK(ops->attention_backward(device, room, room, room, room, lse, across, 3, 4, &good) == KN_BAD_ARGUMENT,
          "across");
    CHECK(ops->attention_backward(device, room, room, room, room, lse, NULL, 0, 4, &good) == KN_OK, "nothing");
    CHECK(ops->cache_new(device, 0, 1, &good) == NULL && ops->cache_new(device, 1, 0, &good) == NULL, "empty cache");
    ops->free(device, room);
    ops->free(device, lse);
}

int main(int argc, char **argv)
{
    const char *why = NULL;
    quick = argc == 1;
    for (int i = 1; i < (argc > 1 ? argc : 2); i++) {
#ifdef EMULATED
        if (argc > 1)
            emulate()->seed = strtoull(argv[i], NULL, 10);
#endif
        device = kn_cuda_new(0, &why);
        if (!device) {
            printf("no device: %s\n", why);
            return 77;
        }
        reference = kn_reference_new();
        test_golden();
        for (int narrow = 0; narrow < 2; narrow++) {
            test_packed(narrow);
            test_bits(narrow);
            test_cached(narrow);
            test_turned(narrow);
            test_shared(narrow, &(kn_attention){6, 2, 16, 0, 0, 0.25f}, 300, 53);
            if (narrow) {
                test_shared(narrow, &(kn_attention){2, 1, 16, 530, 0, 0.25f}, 515, 50); /* a window that hides a part */
                test_shared(narrow, &(kn_attention){3, 1, 72, 0, 2, 0.1f}, 256, 61);
            }
            if (narrow) { /* tiles for two sequences, for four */
                test_shared(narrow, &(kn_attention){4, 1, 128, 0, 0, 0.09f}, 258, 60);
                test_shared(narrow, &(kn_attention){4, 1, 96, 0, 0, 0.1f}, 257, 60);
                test_shared(narrow, &(kn_attention){4, 1, 64, 0, 0, 0.125f}, 257, 60);
                test_shared(narrow, &(kn_attention){4, 1, 32, 0, 0, 0.2f}, 257, 60);
            }
            if (narrow && !quick) {
                test_shared(narrow, &(kn_attention){7, 1, 64, 0, 0, 0.125f}, 520, 60);
                test_shared(narrow, &(kn_attention){2, 1, 256, 0, 0, 0.06f}, 257, 60);
                test_shared(narrow, &(kn_attention){34, 1, 32, 0, 0, 0.06f}, 257, 60); /* nothing is shared */
            }
            test_refused(narrow);
        }
        kn_reference_free(reference);
        kn_cuda_free(device);
    }
    for (int n = 0; n < 2; n++)
        printf("%s: attention %.2g of the greatest, %.2g of the mean; cached %.2g, %.2g; backward %.2g, %.2g\n",
               n ? "bf16" : "float32", worst[n][0].most, worst[n][0].mean, worst[n][1].most, worst[n][1].mean,
               worst[n][2].most, worst[n][2].mean);
    if (failures)
        printf("%u failures\n", failures);
    return failures ? 1 : 0;
}
