/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * One answer: on every instruction set, results have the same bits whatever the number of rows in a call, the place of
 * a row among them, the number of threads, and the cut of a batch; and sets with fused multiply-add agree with each
 * other.
 */
#include <stdbool.h>

#include "kernels_staged.h"
#include "kernels_test.h"
#include "tests/amx_emulated.h"

/* Everything that the ops make of one packed batch of T rows, in one buffer. */
typedef struct world {
    size_t d, f, vocab, heads, kv_heads, hd, width;
    kn_attention shape;
    float *w_qkv, *w_gate, *w_head, *norm, *bias;
    float *cos, *sin;
} world;

static world world_new(void)
{
    world w = {.d = 48, .f = 70, .vocab = 600, .heads = 6, .kv_heads = 2, .hd = 8};
    w.width = (w.heads + 2 * w.kv_heads) * w.hd;
    w.shape = (kn_attention){(uint32_t)w.heads, (uint32_t)w.kv_heads, (uint32_t)w.hd, 0, 0, 0.35f};
    w.w_qkv = test_floats(w.width * w.d, 0.3f, 1);
    w.w_gate = test_floats(2 * w.f * w.d, 0.3f, 2);
    w.w_head = test_floats(w.vocab * w.d, 0.5f, 3);
    w.norm = test_floats(w.d, 1, 4);
    w.bias = test_floats(w.width, 1, 5);
    w.cos = test_floats(400 * w.hd / 2, 1, 6);
    w.sin = test_floats(400 * w.hd / 2, 1, 7);
    return w;
}

static void world_free(world *w)
{
    free(w->w_qkv);
    free(w->w_gate);
    free(w->w_head);
    free(w->norm);
    free(w->bias);
    free(w->cos);
    free(w->sin);
}

/* What a run over a batch leaves; rows first, then what accumulates over rows. */
typedef struct result {
    size_t rows, sums; /* floats */
    size_t per_row;    /* floats of a row in `row` */
    float *row;        /* [T][per_row] */
    float *sum;
} result;

/* Norm, projection, rotary, attention, gate, log-probability and all gradients over whole sequences. `cut` = how many
 * sequences a call takes at a time. */
static result run(kn_device *device, const world *w, const float *x, const size_t *length, size_t sequences, size_t cut)
{
    const kn_ops *o = device->ops;
    size_t T = 0;
    for (size_t i = 0; i < sequences; i++)
        T += length[i];
    result r = {.per_row = w->d * 3 + w->width * 3 + w->f * 4 + 4 + w->heads};
    r.rows = T * r.per_row;
    r.sums = w->width * w->d + w->width + 2 * w->f * w->d + w->vocab * w->d + w->d;
    r.row = calloc(r.rows, sizeof(float));
    r.sum = test_memory(r.sums * sizeof(float));
    memset(r.sum, 0x7f, r.sums * sizeof(float)); /* the first call writes over it */
    kn_matrix *qkv_m = o->matrix_new(device, w->width, w->d, true);
    kn_matrix *gate_m = o->matrix_new(device, 2 * w->f, w->d, true);
    kn_matrix *head_m = o->matrix_new(device, w->vocab, w->d, true);
    o->matrix_set(device, qkv_m, w->w_qkv);
    o->matrix_set(device, gate_m, w->w_gate);
    o->matrix_set(device, head_m, w->w_head);
    size_t at = 0;
    for (size_t s = 0; s < sequences; s += cut) {
        kn_segment segment[16];
        uint32_t position[400];
        size_t n = 0, count = 0;
        for (size_t i = s; i < sequences && i < s + cut; i++) {
            segment[count++] = (kn_segment){n, length[i], 0, 0};
            for (size_t k = 0; k < length[i]; k++)
                position[n + k] = (uint32_t)k;
            n += length[i];
        }
        float *y = test_memory(n * w->d * 4), *rstd = test_memory(n * 4), *qkv = test_memory(n * w->width * 4);
        float *out = test_memory(n * w->heads * w->hd * 4), *lse = test_memory(n * w->heads * 4);
        float *gate = test_memory(n * 2 * w->f * 4), *act = test_memory(n * w->f * 4), *lp = test_memory(n * 4 * 3);
        float *dqkv = test_memory(n * w->width * 4), *dgate = test_memory(n * 2 * w->f * 4);
        float *dh = test_memory(n * w->d * 4), *dx = calloc(n * w->d, 4);
        uint32_t *target = test_memory(n * 4);
        for (size_t t = 0; t < n; t++)
            target[t] = (uint32_t)(fabsf(x[(at + t) * w->d]) * 500) % (uint32_t)w->vocab;
        o->rms_norm(device, y, rstd, x + at * w->d, w->norm, n, w->d, 1e-5f);
        o->linear(device, qkv, y, qkv_m, w->bias, NULL, n);
        o->rope(device, qkv, w->width, position, w->cos, w->sin, n, w->heads + w->kv_heads, w->hd, false);
        assert_int_equal(o->attention(device, out, lse, qkv, segment, count, n, &w->shape), KN_OK);
        o->linear(device, gate, y, gate_m, NULL, NULL, n);
        o->swiglu(device, act, gate, n, w->f);
        o->logprob(device, lp, lp + n, lp + 2 * n, y, head_m, target, n, NULL);
        o->attention_backward(device, dqkv, out, qkv, out, lse, segment, count, n, &w->shape);
        o->swiglu_backward(device, dgate, NULL, act, gate, n, w->f);
        float *sum = r.sum;
        o->linear_backward_weight(device, sum, sum + w->width * w->d, dqkv, y, n, w->width, w->d, s > 0);
        sum += w->width * w->d + w->width;
        o->linear_backward_weight(device, sum, NULL, dgate, y, n, 2 * w->f, w->d, s > 0);
        sum += 2 * w->f * w->d;
        o->logprob_backward(device, dh, sum, lp, y, head_m, lp + n, target, n, s > 0, NULL);
        sum += w->vocab * w->d;
        o->linear_backward_input(device, dh, dgate, gate_m, n, true);
        o->rms_norm_backward(device, dx, sum, NULL, dh, x + at * w->d, w->norm, rstd, n, w->d, s > 0);
        for (size_t t = 0; t < n; t++) {
            float *to = r.row + (at + t) * r.per_row;
#define PUT(from, size) (memcpy(to, (from) + t * (size), (size)*4), to += (size))
            PUT(y, w->d);
            PUT(dh, w->d);
            PUT(dx, w->d);
            PUT(qkv, w->width);
            PUT(dqkv, w->width);
            PUT(out, w->heads * w->hd);
            PUT(lse, w->heads);
            PUT(act, w->f);
            PUT(dgate, 2 * w->f);
            PUT(lp, 1);
            PUT(lp + n, 1);
            PUT(lp + 2 * n, 1);
#undef PUT
        }
        at += n;
        void *all[] = {y, rstd, qkv, out, lse, gate, act, lp, dqkv, dgate, dh, dx, target};
        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
            free(all[i]);
    }
    o->matrix_free(device, qkv_m);
    o->matrix_free(device, gate_m);
    o->matrix_free(device, head_m);
    return r;
}

static void result_free(result *r)
{
    free(r->row);
    free(r->sum);
}

static const size_t any_lengths[] = {1, 37, 14, 64, 3, 90, 29};
#define SEQUENCES 7
#define ROWS      238
#define LONG_ROWS 224
/* Of about as many rows; weight gradients of bfloat16 take rows in groups (row_group), so cuts fall after whole ones.
 */
static const size_t even_lengths[] = {2, 36, 14, 64, 4, 90, 28};
static const size_t long_lengths[] = {32, 32, 32, 32, 32, 32, 32};

/* Calls f with the device, and with its bfloat16 table as a float32 one (kernels_staged.h). */
static void both_types(kn_device *device, const char *isa, void (*f)(kn_device *, const char *isa))
{
    kn_device *narrow = staged_device(device, KN_BF16);
    f(device, isa);
    f(narrow, isa);
    staged_device_free(narrow);
}

/* Batches cut any way, one thread to three. */
static void check_bits(kn_device *device, const char *isa)
{
    const size_t group = device->ops->row_group(device);
    const size_t *lengths = group > 2 ? long_lengths : group == 2 ? even_lengths : any_lengths;
    const size_t rows = group > 2 ? LONG_ROWS : ROWS;
    const world w = world_new();
    float *x = test_floats(ROWS * w.d, 1, 8);
    device->ops->set_threads(device, 1);
    const result whole = run(device, &w, x, lengths, SEQUENCES, SEQUENCES);
    for (int threads = 1; threads <= 3; threads++) {
        device->ops->set_threads(device, threads);
        for (size_t cut = 1; cut <= SEQUENCES; cut += 3) {
            result again = run(device, &w, x, lengths, SEQUENCES, cut);
            assert_same_bits("rows", again.row, whole.row, whole.rows);
            assert_same_bits("sums over rows", again.sum, whole.sum, whole.sums);
            result_free(&again);
        }
    }
    /* The last sequence first: its rows keep their bits in another place. */
    size_t turned[SEQUENCES];
    float *y = test_memory(rows * w.d * sizeof(float));
    const size_t last = lengths[SEQUENCES - 1], before = rows - last;
    turned[0] = last;
    memcpy(turned + 1, lengths, (SEQUENCES - 1) * sizeof(*turned));
    memcpy(y, x + before * w.d, last * w.d * sizeof(float));
    memcpy(y + last * w.d, x, before * w.d * sizeof(float));
    result moved = run(device, &w, y, turned, SEQUENCES, SEQUENCES);
    assert_same_bits("moved rows", moved.row, whole.row + before * whole.per_row, last * whole.per_row);
    assert_same_bits("rows behind them", moved.row + last * whole.per_row, whole.row, before * whole.per_row);
    result_free(&moved);
    result first = whole;
    result_free(&first);
    free(x);
    free(y);
    world v = w;
    world_free(&v);
}

static void bits_isa(kn_device *device, const char *isa)
{
    both_types(device, isa, check_bits);
}

static void test_one_answer(void **state)
{
    if (!test_device_one_answer())
        skip();
    each_isa(1, bits_isa);
}

static void test_one_answer_amx(void **state)
{
    kn_device *device = amx_emulated_device(1);
    if (device)
        bits_isa(device, "amx, emulated");
    else
        print_message("skipped: no AVX-512\n");
    kn_cpu_free(device);
}

static void test_one_answer_onednn(void **state)
{
    setenv("SLUICE_CPU_MATMUL", "onednn", 1);
    kn_device *device = kn_cpu_new(1, NULL, NULL);
    if (device) {
        bits_isa(device, "onednn");
        kn_cpu_free(device);
    } else {
        print_message("skipped: built without oneDNN\n");
    }
    unsetenv("SLUICE_CPU_MATMUL");
}

static void sets_agree(kn_device *a, kn_device *b)
{
    world w = world_new();
    float *x = test_floats(ROWS * w.d, 1, 8);
    result ra = run(a, &w, x, even_lengths, SEQUENCES, SEQUENCES), rb = run(b, &w, x, even_lengths, SEQUENCES, 2);
    assert_string_equal(a->ops->numerics(a), b->ops->numerics(b));
    assert_same_bits("AVX2 and AVX-512, rows", ra.row, rb.row, ra.rows);
    assert_same_bits("AVX2 and AVX-512, sums", ra.sum, rb.sum, ra.sums);
    result_free(&ra);
    result_free(&rb);
    free(x);
    world_free(&w);
}

static void test_sets_agree(void **state)
{
    setenv("SLUICE_CPU_BF16", "widened",
           1); /* products of bfloat16 by the machine's own instructions are another class */
    kn_device *a = kn_cpu_new(1, "avx512", NULL), *b = kn_cpu_new(2, "avx2", NULL);
    if (a && b) {
        kn_device *a16 = staged_device(a, KN_BF16), *b16 = staged_device(b, KN_BF16);
        sets_agree(a, b);
        sets_agree(a16, b16);
        staged_device_free(a16);
        staged_device_free(b16);
    } else {
        print_message("skipped: this machine has not both AVX2 and AVX-512\n");
    }
    kn_cpu_free(a);
    kn_cpu_free(b);
    unsetenv("SLUICE_CPU_BF16");
}

/* The same bits on every machine and with every compiler: what a numerics class means. When a kernel's arithmetic is
 * changed on purpose, these change, and so must the number in "own1" (device.c), so that nothing older is taken for the
 * same. */
static const struct {
    const char *numerics;
    uint64_t rows, sums;
} pinned[] = {
    {"cpu-plain-own1-f32", UINT64_C(0x56d84474ee7b9ec2), UINT64_C(0x3a432f0eb4fee60c)},
    {"cpu-fma-own1-f32", UINT64_C(0x8e0328b6c85e5729), UINT64_C(0x9162a3bcb9e03859)},
    {"cpu-plain-own1-bf16", UINT64_C(0xd1428ead13499594), UINT64_C(0xacbc68588d74672a)},
    {"cpu-fma-own1-bf16", UINT64_C(0xd4fcffcb9661aab0), UINT64_C(0x7d24125f5f924ac8)},
};

static void check_pinned(kn_device *device, const char *isa)
{
    world w = world_new();
    float *x = test_floats(ROWS * w.d, 1, 8);
    result r = run(device, &w, x, any_lengths, SEQUENCES, SEQUENCES);
    const char *numerics = device->ops->numerics(device);
    if (strncmp(numerics, "far-", 4) == 0) /* the same numbers, further away */
        numerics += 4;
    const uint64_t rows = sluice_random_name(r.row, r.rows * sizeof(float));
    const uint64_t sums = sluice_random_name(r.sum, r.sums * sizeof(float));
    size_t i = 0;
    while (i < 4 && strcmp(pinned[i].numerics, numerics) != 0)
        i++;
    if (i == 4 || rows != pinned[i].rows || sums != pinned[i].sums)
        fail_msg("%s, %s: rows %016llx, sums %016llx", isa, numerics, (unsigned long long)rows,
                 (unsigned long long)sums);
    result_free(&r);
    free(x);
    world_free(&w);
}

static void pinned_isa(kn_device *device, const char *isa)
{
    both_types(device, isa, check_pinned);
}

static void test_pinned(void **state)
{
    if (!test_device_exact())
        skip();
    setenv("SLUICE_CPU_BF16", "widened", 1);
    each_isa(1, pinned_isa);
    unsetenv("SLUICE_CPU_BF16");
}

/* --- attention: cached as packed --- */

/* A prompt, prefilled in pieces, then tokens one by one on two sequences that share its full pages. */
static void cached_case(kn_device *device, const kn_attention *a)
{
    const size_t prompt = 37, more = 30, width = (a->heads + 2 * a->kv_heads) * a->head_dim;
    const size_t wide = a->heads * a->head_dim, T = prompt + 2 * more;
    const kn_segment segment[] = {{0, prompt, 0, 0}, {prompt, more, 0, prompt}, {prompt + more, more, 0, prompt}};
    float *qkv = test_floats(T * width, 1, 1), *packed = test_memory(T * wide * 4), *cached = test_memory(T * wide * 4);
    assert_int_equal(device->ops->attention(device, packed, NULL, qkv, segment, 3, T, a), KN_OK);
    kn_cache *cache = device->ops->cache_new(device, 2, 12, a);
    assert_non_null(cache);
    const uint32_t first[] = {7, 2, 9, 4, 1}, second[] = {7, 2, 11, 5, 0}; /* full pages shared, the third copied */
    for (size_t i = 0; i < prompt; i += 10) {
        const size_t n = prompt - i < 10 ? prompt - i : 10;
        const kn_cached_rows rows = {0, n, i, first};
        for (size_t layer = 0; layer < 2; layer++)
            assert_int_equal(device->ops->attention_cached(device, cached + i * wide, qkv + i * width, cache, layer,
                                                           &rows, 1, n, NULL),
                             KN_OK);
    }
    assert_int_equal(device->ops->cache_copy_page(device, cache, 11, 9, prompt % KN_PAGE), KN_OK);
    for (size_t i = 0; i < more; i++) {
        float *in = test_memory(2 * width * 4), *out = test_memory(2 * wide * 4);
        memcpy(in, qkv + (prompt + more + i) * width, width * 4);
        memcpy(in + width, qkv + (prompt + i) * width, width * 4);
        const kn_cached_rows rows[] = {{0, 1, prompt + i, second}, {1, 1, prompt + i, first}};
        assert_int_equal(device->ops->attention_cached(device, out, in, cache, 1, rows, 2, 2, NULL), KN_OK);
        memcpy(cached + (prompt + more + i) * wide, out, wide * 4);
        memcpy(cached + (prompt + i) * wide, out + wide, wide * 4);
        free(in);
        free(out);
    }
    assert_same_bits("cached attention", cached, packed, T * wide);
    const kn_cached_rows wrong = {0, 1, 0, (const uint32_t[]){12}};
    assert_int_equal(device->ops->attention_cached(device, cached, qkv, cache, 0, &wrong, 1, 1, NULL), KN_BAD_ARGUMENT);
    assert_int_equal(device->ops->attention_cached(device, cached, qkv, cache, 2, &wrong, 0, 1, NULL), KN_BAD_ARGUMENT);
    assert_int_equal(device->ops->cache_copy_page(device, cache, 12, 0, 1), KN_BAD_ARGUMENT);
    device->ops->cache_free(device, cache);
    free(qkv);
    free(packed);
    free(cached);
}

/* Turned on the way into the pages, or by rope before. */
static void turned_case(kn_device *device, const kn_attention *a)
{
    const size_t turned = a->heads + a->kv_heads, width = (turned + a->kv_heads) * a->head_dim, half = a->head_dim / 2;
    const size_t wide = a->heads * a->head_dim, prompt = 21, T = prompt + 1;
    float *tables[2] = {test_floats(T * half, 1, 1), test_floats(T * half, 1, 2)};
    const kn_rotary rotary = {tables[0], tables[1]};
    const uint32_t pages[] = {2, 0};
    uint32_t position[22];
    float *out[2], *qkv[2];
    for (uint32_t t = 0; t < T; t++)
        position[t] = t;
    for (int i = 0; i < 2; i++) {
        kn_cache *cache = device->ops->cache_new(device, 1, 3, a);
        const kn_cached_rows rows[] = {{0, prompt, 0, pages}, {0, 1, prompt, pages}};
        out[i] = test_memory(T * wide * 4);
        qkv[i] = test_floats(T * width, 1, 3);
        if (i == 1)
            assert_int_equal(
                device->ops->rope(device, qkv[i], width, position, tables[0], tables[1], T, turned, a->head_dim, false),
                KN_OK);
        const kn_rotary *by = i == 0 ? &rotary : NULL;
        assert_int_equal(device->ops->attention_cached(device, out[i], qkv[i], cache, 0, &rows[0], 1, prompt, by),
                         KN_OK);
        assert_int_equal(device->ops->attention_cached(device, out[i] + prompt * wide, qkv[i] + prompt * width, cache,
                                                       0, &rows[1], 1, 1, by),
                         KN_OK);
        device->ops->cache_free(device, cache);
    }
    assert_same_bits("turned on the way", out[0], out[1], T * wide);
    for (int i = 0; i < 2; i++) {
        free(tables[i]);
        free(out[i]);
        free(qkv[i]);
    }
}

static void check_cached(kn_device *device, const char *isa)
{
    static const kn_attention shapes[] = {{8, 4, 8, 0, 0, 0.35f},   {6, 2, 24, 0, 0, 0.2f},  {9, 3, 64, 0, 0, 0.125f},
                                          {4, 4, 33, 20, 0, 0.2f},  {4, 1, 128, 0, 2, 0.1f}, {3, 3, 5, 7, 1.5f, 0.4f},
                                          {32, 2, 16, 0, 0, 0.25f}, {4, 2, 80, 0, 0, 0.1f}};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        cached_case(device, &shapes[i]);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        if (shapes[i].head_dim % 2 == 0)
            turned_case(device, &shapes[i]);
}

static void cached_isa(kn_device *device, const char *isa)
{
    both_types(device, isa, check_cached);
}

static void test_cached(void **state)
{
    if (!test_device_one_answer())
        skip();
    each_isa(2, cached_isa);
    kn_device *reference = kn_reference_new();
    cached_isa(reference, "reference");
    kn_reference_free(reference);
}

/* --- the recorded log-probability is the scored one --- */

static void check_recorded(kn_device *device, const char *isa)
{
    const size_t T = 60, d = 24;
    const size_t vocabs[] = {3, 512, 777};
    for (size_t v = 0; v < 3; v++) {
        const size_t V = vocabs[v];
        float *w = test_floats(V * d, 1, 1), *h = test_floats(T * d, 1, 2), *logits = test_memory(T * V * 4);
        kn_matrix *m = device->ops->matrix_new(device, V, d, false);
        device->ops->matrix_set(device, m, w);
        kn_choice choice[60];
        kn_chosen chosen[60];
        const uint32_t seen[] = {1, 2, 1, 0};
        for (size_t t = 0; t < T; t++)
            choice[t] = (kn_choice){.temperature = (float)(t % 4) * 0.5f,
                                    .top_p = t % 3 ? 1 : 0.9f,
                                    .top_k = t % 5 ? 0 : 20,
                                    .min_p = t % 7 ? 0 : 0.01f,
                                    .repetition_penalty = t % 2 ? 1 : 1.3f,
                                    .seen = seen,
                                    .seen_count = 4,
                                    .key = {t, 5}};
        for (size_t t = 0; t < T; t += 7) { /* sampled a few rows at a time */
            const size_t n = T - t < 7 ? T - t : 7;
            device->ops->logits(device, logits, h + t * d, m, n);
            assert_int_equal(device->ops->choose(device, chosen + t, logits, choice + t, n, V), KN_OK);
        }
        uint32_t target[60];
        float recorded[60], scored[60];
        for (size_t t = 0; t < T; t++) {
            target[t] = chosen[t].token;
            recorded[t] = chosen[t].logprob;
        }
        device->ops->logprob(device, scored, NULL, NULL, h, m, target, T, NULL); /* scored all at once */
        assert_same_bits("recorded and scored log-probability", recorded, scored, T);
        device->ops->matrix_free(device, m);
        free(w);
        free(h);
        free(logits);
    }
}

static void recorded_isa(kn_device *device, const char *isa)
{
    both_types(device, isa, check_recorded);
}

static void test_recorded(void **state)
{
    if (!test_device_one_answer())
        skip();
    each_isa(2, recorded_isa);
    kn_device *reference = kn_reference_new();
    recorded_isa(reference, "reference");
    kn_reference_free(reference);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_answer),
        cmocka_unit_test(test_one_answer_amx),
        cmocka_unit_test(test_one_answer_onednn),
        cmocka_unit_test(test_sets_agree),
        cmocka_unit_test(test_pinned),
        cmocka_unit_test(test_cached),
        cmocka_unit_test(test_recorded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
