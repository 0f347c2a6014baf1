/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding between step_begin and step_end, where launches become graphs, against the same calls as they come: the same
 * bits, with caches that grow, pages from anywhere, sequences that end, and tokens that were just drawn. Where tokens
 * are given beforehand nothing waits between the steps, so that what is sent for one must outlive those before it.
 *
 * test_steps            on the device; emulated, in several orders of its work, or, with EMULATED_CUDA=seed=N, in that
 * one
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "kernels/profile.h"
#ifdef EMULATED
#include "emulate/control.h"
#endif

enum {
    LAYERS = 2,
    VOCAB = 96,
    D = 32,
    HEADS = 4,
    KV_HEADS = 2,
    HEAD = 16,
    WIDTH = (HEADS + 2 * KV_HEADS) * HEAD,
    WIDE = HEADS * HEAD,
    SEQUENCES = 3,
    STEPS = 26,
    LEAVES = 15, /* after so many steps the first sequence ends */
    EACH = 18,   /* pages of a sequence */
    PAGES = SEQUENCES * EACH
};

static const size_t prompt[SEQUENCES] = {5, 15, 245}; /* the last comes to have two parts of keys */
static const kn_attention shape = {HEADS, KV_HEADS, HEAD, 0, 0, 0.25f};
static unsigned failures;

static unsigned long long seed; /* the order of the emulated device's work */

#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            failures++;                                                     \
            printf("line %d, seed %llu: %s\n", __LINE__, seed, #condition); \
        }                                                                   \
    } while (0)
#define OK(call) CHECK((call) == KN_OK)

typedef struct decoder {
    kn_device *device;
    const kn_ops *ops;
    size_t element;
    kn_matrix *qkv[LAYERS], *out[LAYERS], *head;
    void *table;
    float *norm;
    kn_rotary rotary;
    kn_cache *cache;
    void *x, *y, *wide, *sum;
    float *logits;
    uint32_t page[SEQUENCES][EACH];
} decoder;

/* What a run leaves: the tokens with their log-probabilities, and the sum of all last layers. */
typedef struct outcome {
    kn_chosen chosen[STEPS][SEQUENCES];
    float sum[SEQUENCES * D];
} outcome;

static float number(size_t i, uint32_t stream)
{
    uint32_t h = (uint32_t)i * 2654435761u + stream * 40503u;
    h = (h ^ h >> 15) * 2246822519u;
    h ^= h >> 13;
    return (float)(h >> 8) / 8388608.0f - 1.0f;
}

static float *numbers(decoder *m, size_t n, float scale, uint32_t stream)
{
    float *x = malloc(n * sizeof(*x)), *on = m->ops->alloc(m->device, n * sizeof(*x));
    for (size_t i = 0; i < n; i++)
        x[i] = scale * number(i, stream);
    OK(m->ops->write(m->device, on, x, n * sizeof(*x)));
    free(x);
    return on;
}

static kn_matrix *matrix(decoder *m, size_t out, size_t in, uint32_t stream)
{
    kn_matrix *w = m->ops->matrix_new(m->device, out, in, false);
    float *x = numbers(m, out * in, 0.4f, stream);
    OK(m->ops->matrix_set(m->device, w, x));
    m->ops->free(m->device, x);
    return w;
}

static void decoder_new(decoder *m, kn_device *device, kn_dtype type)
{
    const kn_ops *o = type == KN_F32 ? device->ops : device->ops_bf16;
    *m = (decoder){.device = device, .ops = o, .element = type == KN_F32 ? 4 : 2};
    for (uint32_t l = 0; l < LAYERS; l++) {
        m->qkv[l] = matrix(m, WIDTH, D, 10 + l);
        m->out[l] = matrix(m, D, WIDE, 20 + l);
    }
    m->head = matrix(m, VOCAB, D, 30);
    m->norm = numbers(m, D, 1, 31);
    m->rotary = (kn_rotary){numbers(m, EACH * KN_PAGE * HEAD / 2, 1, 33), numbers(m, EACH * KN_PAGE * HEAD / 2, 1, 34)};
    float *table = numbers(m, VOCAB * D, 1, 32);
    m->table = o->alloc(device, VOCAB * D * m->element);
    OK(type == KN_F32 ? o->copy(device, m->table, table, VOCAB * D * 4)
                      : o->to_bf16(device, m->table, table, VOCAB * D));
    o->free(device, table);
    m->cache = o->cache_new(device, LAYERS, PAGES, &shape);
    const size_t rows = prompt[0] + prompt[1] + prompt[2];
    m->x = o->alloc(device, rows * D * m->element);
    m->y = o->alloc(device, rows * WIDTH * m->element);
    m->wide = o->alloc(device, rows * WIDE * m->element);
    m->sum = o->alloc(device, SEQUENCES * D * m->element);
    m->logits = o->alloc(device, SEQUENCES * VOCAB * sizeof(float));
    for (uint32_t p = 0; p < PAGES; p++)
        m->page[p % SEQUENCES][p / SEQUENCES] = p * 7 % PAGES; /* 7 and PAGES have no common divisor */
}

static void decoder_free(decoder *m)
{
    const kn_ops *o = m->ops;
    for (int l = 0; l < LAYERS; l++) {
        o->matrix_free(m->device, m->qkv[l]);
        o->matrix_free(m->device, m->out[l]);
    }
    o->matrix_free(m->device, m->head);
    o->cache_free(m->device, m->cache);
    void *const all[] = {m->norm,  (void *)m->rotary.cos, (void *)m->rotary.sin, m->table, m->x, m->y, m->wide, m->sum,
                         m->logits};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        o->free(m->device, all[i]);
}

/* The layers, over rows of the sequences from `first` on. */
static void layers(decoder *m, const uint32_t *token, const kn_cached_rows *rows, size_t first, size_t T)
{
    const kn_ops *o = m->ops;
    OK(o->embed(m->device, m->x, m->table, token, T, D));
    for (size_t l = 0; l < LAYERS; l++) {
        OK(o->rms_norm(m->device, m->wide, NULL, m->x, m->norm, T, D, 1e-5f));
        OK(o->linear(m->device, m->y, m->wide, m->qkv[l], NULL, NULL, T));
        OK(o->attention_cached(m->device, m->wide, m->y, m->cache, l, rows + first, SEQUENCES - first, T, &m->rotary));
        OK(o->linear(m->device, m->x, m->wide, m->out[l], NULL, m->x, T));
    }
}

/* All steps; in_steps: between step_begin and step_end. drawn: the next token is the one that was drawn. */
static void decode(decoder *m, bool in_steps, bool drawn, outcome *out)
{
    const kn_ops *o = m->ops;
    kn_cached_rows rows[SEQUENCES];
    uint32_t token[288], last[SEQUENCES];
    size_t T = 0;
    memset(out, 0, sizeof(*out));
    OK(o->clear(m->device, m->sum, SEQUENCES * D * m->element));
    for (size_t s = 0; s < SEQUENCES; T += prompt[s++]) {
        rows[s] = (kn_cached_rows){T, prompt[s], 0, m->page[s]};
        last[s] = (uint32_t)s;
        for (size_t i = 0; i < prompt[s]; i++)
            token[T + i] = (uint32_t)(i * 11 + s) % VOCAB;
    }
    layers(m, token, rows, 0, T);
    for (size_t step = 0; step < STEPS; step++) {
        const size_t first = step < LEAVES ? 0 : 1, n = SEQUENCES - first;
        kn_choice choice[SEQUENCES];
        for (size_t s = first; s < SEQUENCES; s++) {
            token[s - first] = drawn ? last[s] : (uint32_t)(step * 17 + s * 5) % VOCAB;
            rows[s] = (kn_cached_rows){s - first, 1, prompt[s] + step, m->page[s]};
            choice[s - first] = (kn_choice){.temperature = 0.8f,
                                            .top_p = s == 1 ? 0.9f : 1,
                                            .repetition_penalty = s == 2 ? 1.2f : 1,
                                            .seen = last,
                                            .seen_count = SEQUENCES,
                                            .key = {s + 1, 2},
                                            .counter = {(uint64_t)step << 32, 0}};
        }
        if (in_steps)
            OK(o->step_begin(m->device));
        layers(m, token, rows, first, n);
        OK(o->add(m->device, m->sum, m->x, n * D));
        if (drawn) {
            OK(o->logits(m->device, m->logits, m->x, m->head, n));
            OK(o->choose(m->device, out->chosen[step], m->logits, choice, n, VOCAB));
            for (size_t s = first; s < SEQUENCES; s++)
                last[s] = out->chosen[step][s - first].token % VOCAB;
        }
        if (in_steps)
            OK(o->step_end(m->device));
    }
    OK(o->read(m->device, out->sum, m->sum, SEQUENCES * D * m->element));
}

static uint64_t graph_launches(void)
{
#ifdef EMULATED
    return emulate_count().graph_launches;
#else
    return 0;
#endif
}

/* A device that measures leaves steps whole: as many graphs, and the same bits. */
static void measured(kn_device *device, kn_dtype type, bool drawn, uint64_t graphs, const outcome *plain)
{
    static outcome out;
    decoder m;
    kn_device *profile = kn_profile_new(device);
    decoder_new(&m, profile, type);
    const uint64_t before = graph_launches();
    decode(&m, true, drawn, &out);
    CHECK(graph_launches() - before == graphs);
    CHECK(memcmp(&out, plain, sizeof(out)) == 0);
    decoder_free(&m);
    kn_profile_free(profile);
}

/* Graphs that were captured in one answer serve the next, too. */
static void compare(kn_device *device, kn_dtype type, bool drawn)
{
    static outcome plain, whole, again;
    decoder m;
    decoder_new(&m, device, type);
    decode(&m, false, drawn, &plain);
    const uint64_t before = graph_launches();
    decode(&m, true, drawn, &whole);
    const uint64_t graphs = graph_launches() - before;
    decode(&m, true, drawn, &again);
#ifdef EMULATED
    CHECK(graphs >= STEPS / 2);
#endif
    CHECK(graph_launches() - before >= 2 * graphs);
    for (int i = 0; i < 2; i++) {
        const outcome *o = i ? &again : &whole;
        if (memcmp(o, &plain, sizeof(plain)) == 0)
            continue;
        failures++;
        printf("%s, seed %llu, tokens %s: steps are not the same as their calls, %s time\n",
               type == KN_F32 ? "float32" : "bf16", seed, drawn ? "drawn" : "given", i ? "second" : "first");
    }
    decoder_free(&m);
    measured(device, type, drawn, graphs, &plain);
    CHECK(plain.sum[0] == plain.sum[0] && plain.sum[0] != 0);
}

static void run(kn_device *device)
{
    for (int drawn = 0; drawn < 2; drawn++)
        for (int type = KN_F32; type <= KN_BF16; type++)
            compare(device, type, drawn);
    kn_cuda_free(device);
#ifdef EMULATED
    const emulate_counts left = emulate_count();
    CHECK(left.allocations == 0 && left.pinned == 0 && left.streams == 0 && left.events == 0);
    CHECK(*emulate_fault() == '\0');
#endif
}

#ifdef EMULATED
/* Whether a step has kernels that begin before the one before them has ended. */
static bool overlaps(int capability, int code)
{
    static outcome out;
    const char *why = NULL;
    decoder m;
    emulate_reset();
    emulate()->capability = capability;
    emulate()->code = code;
    kn_device *device = kn_cuda_new(0, &why);
    CHECK(device != NULL);
    decoder_new(&m, device, KN_BF16);
    decode(&m, true, false, &out);
    decoder_free(&m);
    kn_cuda_free(device);
    return emulate_count().following > 0;
}
#endif

int main(void)
{
    const char *why = NULL;
#ifdef EMULATED
    const bool given = getenv("EMULATED_CUDA") != NULL;
    const unsigned orders = given ? 1 : 4;
#else
    const unsigned orders = 1;
#endif
    for (; seed < orders; seed++) {
#ifdef EMULATED
        if (!given) {
            emulate_reset();
            emulate()->seed = seed;
        }
#endif
        kn_device *device = kn_cuda_new(0, &why);
        if (!device) {
            printf("no device: %s\n", why);
            return 77;
        }
        run(device);
    }
#ifdef EMULATED
    if (!given) {
        CHECK(overlaps(90, 0) && overlaps(100, 90));
        CHECK(!overlaps(89, 0) && !overlaps(90, 80)); /* code for older ones does not wait */
        setenv("SLUICE_CUDA_OVERLAP", "0", 1);
        CHECK(!overlaps(90, 0));
    }
#endif
    if (failures)
        printf("%u failures\n", failures);
    return failures ? 1 : 0;
}
