/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Sampling: the right distribution, the model's own log-probabilities, the same tokens whatever runs beside them. */
#include "tests/model_golden.h"
#include "tests/test_device.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/generate.h"

#define MAX_TOKENS 300

typedef struct answer {
    uint32_t tokens[MAX_TOKENS];
    float logprobs[MAX_TOKENS];
    uint32_t count;
    int32_t finish;
    bool done;
    char text[4096];
} answer;

/* One run: prompts handed out in turn (backwards if asked), answers by prompt and candidate. */
typedef struct run {
    kn_device *device;
    kn_dtype dtype;
    const sm_layout *layout;
    sm_numbers numbers;
    const sm_tokenizer *tokenizer;
    const sluice_span *prompts;
    size_t prompt_count, handed_out;
    bool backwards;
    const uint32_t *stop_ids;
    size_t stop_count;
    sluice_generation generation;
    answer *answers;
    sm_error error;
} run;

static int next(void *context, sluice_generate_prompt *out)
{
    run *r = context;
    if (r->handed_out == r->prompt_count)
        return SLUICE_END;
    const size_t i = r->backwards ? r->prompt_count - 1 - r->handed_out : r->handed_out;
    r->handed_out++;
    *out = (sluice_generate_prompt){.tokens = r->prompts[i].tokens,
                                    .token_count = r->prompts[i].count,
                                    .key = 77 + i,
                                    .user = (void *)(uintptr_t)i};
    return SLUICE_OK;
}

static int keep(void *context, const sluice_generated *g)
{
    run *r = context;
    answer *a = &r->answers[(uintptr_t)g->user * r->generation.candidates + g->candidate];
    assert_false(a->done);
    assert_true(g->token_count <= MAX_TOKENS);
    memcpy(a->tokens, g->tokens, g->token_count * sizeof(*a->tokens));
    memcpy(a->logprobs, g->logprobs, g->token_count * sizeof(*a->logprobs));
    a->count = g->token_count;
    a->finish = g->finish;
    a->done = true;
    snprintf(a->text, sizeof(a->text), "%s", g->text);
    return SLUICE_OK;
}

static run run_of(kn_device *device, const sm_checkpoint *checkpoint, const sluice_span *prompts, size_t count,
                  uint32_t candidates)
{
    run r = {.device = device,
             .layout = &checkpoint->layout,
             .numbers = {.params = checkpoint->params},
             .prompts = prompts,
             .prompt_count = count,
             .generation = {.size = sizeof(sluice_generation),
                            .candidates = candidates,
                            .max_tokens = 20,
                            .temperature = 1,
                            .top_p = 1,
                            .repetition_penalty = 1,
                            .seed = 3,
                            .prompt = next,
                            .done = keep}};
    return r;
}

/* Returns the sm_status; a caller's own result becomes `*result`. */
static int generate(run *r)
{
    sm_network *network;
    int result = 0;
    free(r->answers);
    r->answers = calloc(r->prompt_count * r->generation.candidates + 1, sizeof(*r->answers));
    r->handed_out = 0;
    r->generation.context = r;
    assert_non_null(r->answers);
    if (sm_network_new(&network, r->device, r->dtype, r->layout, &r->numbers, false, &r->error) != SM_OK)
        fail_msg("%s", r->error.text);
    sm_workspace *w = sm_workspace_new(network, SM_KEEP_NOTHING);
    assert_non_null(w);
    const int rc =
        sm_generate(network, w, r->tokenizer, r->stop_ids, r->stop_count, &r->generation, NULL, &result, &r->error);
    sm_workspace_free(w);
    sm_network_free(network);
    return rc;
}

static void generate_all(run *r)
{
    if (generate(r) != SM_OK)
        fail_msg("%s", r->error.text);
    for (size_t i = 0; i < r->prompt_count * r->generation.candidates; i++)
        assert_true(r->answers[i].done);
}

/* The golden prompts that have tokens. */
static size_t prompts_of(const golden *g, sluice_span *prompts)
{
    size_t count = 0;
    for (size_t i = 0; i < g->group_count; i++)
        if (g->groups[i].prompt.count > 0)
            prompts[count++] = g->groups[i].prompt;
    return count;
}

/* The same bits where a device has one kernel for all lengths of queries; else what other orders of sums make of them:
 * passes of a prompt, decoding and scoring are computed by different kernels on a GPU. */
static void logprobs_equal(const float *a, const float *b, size_t n, kn_dtype dtype)
{
    if (test_device_exact()) {
        assert_memory_equal(a, b, n * sizeof(float));
        return;
    }
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= (dtype == KN_F32 ? 1e-5f : 0.05f) * (1 + fabsf(b[i]))))
            fail_msg("token %zu: log-probability %.7g, and %.7g", i, (double)a[i], (double)b[i]);
}

static void answers_equal(const run *a, const answer *b, bool same_kernels)
{
    for (size_t i = 0; i < a->prompt_count * a->generation.candidates; i++) {
        assert_int_equal(a->answers[i].count, b[i].count);
        assert_int_equal(a->answers[i].finish, b[i].finish);
        assert_memory_equal(a->answers[i].tokens, b[i].tokens, b[i].count * sizeof(uint32_t));
        if (same_kernels)
            assert_memory_equal(a->answers[i].logprobs, b[i].logprobs, b[i].count * sizeof(float));
        else
            logprobs_equal(a->answers[i].logprobs, b[i].logprobs, b[i].count, a->dtype);
    }
}

/* Does something with a run of every golden model on every device in every type it computes in. */
static void each_run(int threads, uint32_t candidates, void (*check)(run *r, const golden *g))
{
    for (const char *const *name = golden_models; *name; name++) {
        golden g;
        golden_load(&g, *name);
        sluice_span prompts[8];
        const size_t count = prompts_of(&g, prompts);
        for (int number = 0; number < GOLDEN_DEVICES; number++) {
            kn_device *device = golden_device(number, threads);
            if (!device)
                continue;
            for (kn_dtype dtype = KN_F32; dtype <= golden_last_dtype(device); dtype++) {
                run r = run_of(device, g.checkpoint, prompts, count, candidates);
                r.dtype = dtype;
                check(&r, &g);
                free(r.answers);
            }
            golden_device_free(number, device);
        }
        golden_free(&g);
    }
}

static void expect_same_tokens(run *r, const golden *g)
{
    static const uint32_t stop[] = {2, 9}, slots[] = {1, 2, 3, 7, 100};
    (void)g;
    r->generation.temperature = 0.9;
    r->generation.top_p = 0.95;
    r->generation.repetition_penalty = 1.1;
    r->generation.max_tokens = 60; /* some run into the context's end */
    r->stop_ids = stop;
    r->stop_count = 2;
    generate_all(r);
    answer *first = r->answers;
    r->answers = NULL;
    for (size_t i = 0; i < sizeof(slots) / sizeof(*slots); i++) {
        r->generation.slots = slots[i];
        r->backwards = i % 2;
        r->device->ops->set_threads(r->device, 1 + (int)(i % 3));
        generate_all(r);
        answers_equal(r, first, true);
    }
    free(first);
}

static void tokens_do_not_depend_on_slots_threads_or_order(void **state)
{
    (void)state;
    if (!test_device_one_answer())
        skip();
    each_run(1, 5, expect_same_tokens);
}

static void expect_scores_as_recorded(run *r, const golden *g)
{
    r->generation.temperature = 1.3;
    r->generation.top_k = 30;
    r->generation.min_p = 0.01;
    r->generation.max_tokens = 40;
    r->generation.repetition_penalty = 1.2;
    generate_all(r);
    for (size_t i = 0; i < r->prompt_count; i++) {
        sluice_span spans[4];
        for (size_t c = 0; c < 4; c++)
            spans[c] = (sluice_span){r->answers[4 * i + c].tokens, r->answers[4 * i + c].count};
        const sluice_group group = {r->prompts[i], spans, 4, 0};
        float **logps = golden_room(&group, 1);
        golden_score(r->device, r->dtype, g, &group, 1, logps);
        for (size_t c = 0; c < 4; c++) {
            assert_int_equal(r->answers[4 * i + c].finish, SLUICE_FINISH_LENGTH);
            logprobs_equal(logps[c], r->answers[4 * i + c].logprobs, spans[c].count, r->dtype);
        }
        golden_room_free(logps, 4);
    }
}

static void recorded_log_probabilities_equal_a_later_score(void **state)
{
    (void)state;
    each_run(2, 4, expect_scores_as_recorded);
}

/* --- the distribution -----------------------------------------------------------------------------------------------
 */

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* The exact probabilities of the next token after temperature, top-k, top-p and min-p, by sorting. */
static void exact(double *p, const float *logp, size_t V, const sluice_generation *generation)
{
    double sorted[256], total = 0;
    for (size_t v = 0; v < V; v++)
        total += p[v] = exp(logp[v] / generation->temperature);
    for (size_t v = 0; v < V; v++)
        sorted[v] = p[v] /= total;
    qsort(sorted, V, sizeof(*sorted), by_size);
    size_t kept = generation->top_k > 0 && generation->top_k < V ? generation->top_k : V;
    double mass = 0, sum = 0;
    for (size_t i = 0; i < kept; i++)
        mass += sorted[i];
    size_t n = 0;
    while (n < kept && sum < generation->top_p * mass)
        sum += sorted[n++];
    const double least = fmax(sorted[n - 1], generation->min_p * sorted[0]);
    total = 0;
    for (size_t v = 0; v < V; v++)
        total += p[v] = p[v] >= least ? p[v] : 0;
    for (size_t v = 0; v < V; v++)
        p[v] /= total;
}

/* Natural log-probabilities of every next token, by scoring each as a completion of one token. */
static void next_logps(kn_device *device, const golden *g, const sluice_span *prompt, float *logp, size_t V)
{
    uint32_t ids[256];
    sluice_span spans[256];
    float *to[256];
    for (size_t v = 0; v < V; v++) {
        ids[v] = (uint32_t)v;
        spans[v] = (sluice_span){&ids[v], 1};
        to[v] = &logp[v];
    }
    const sluice_group group = {*prompt, spans, V, 0};
    golden_score(device, KN_F32, g, &group, 1, to);
}

static void sampled_tokens_follow_the_truncated_distribution(void **state)
{
    (void)state;
    const size_t draws = getenv("SLUICE_TEST_QUICK") ? 600 : 20000;
    static const struct {
        double temperature, top_p, min_p;
        uint32_t top_k;
    } settings[] = {{1, 1, 0, 0}, {2, 1, 0, 0}, {1.5, 0.8, 0, 0}, {2, 1, 0, 7}, {1.5, 1, 0.1, 0}, {2, 0.9, 0.02, 20}};
    golden g;
    golden_load(&g, "grouped");
    const size_t V = g.checkpoint->layout.config.vocab;
    kn_device *device = golden_device(1, 2);
    float logp[256];
    double p[256];
    next_logps(device, &g, &g.groups[0].prompt, logp, V);
    for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++) {
        run r = run_of(device, g.checkpoint, &g.groups[0].prompt, 1, (uint32_t)draws);
        r.generation.max_tokens = 1;
        r.generation.temperature = settings[i].temperature;
        r.generation.top_p = settings[i].top_p;
        r.generation.min_p = settings[i].min_p;
        r.generation.top_k = settings[i].top_k;
        r.generation.seed = 11 + i;
        generate_all(&r);
        exact(p, logp, V, &r.generation);
        double seen[256] = {0}, chi2 = 0, rare = 0, rare_expected = 0;
        for (size_t k = 0; k < draws; k++)
            seen[r.answers[k].tokens[0]]++;
        int cells = 0;
        for (size_t v = 0; v < V; v++) {
            const double expected = p[v] * (double)draws;
            if (expected == 0) {
                assert_true(seen[v] == 0);
            } else if (expected < 5) { /* too rare for a cell of its own */
                rare += seen[v];
                rare_expected += expected;
            } else {
                chi2 += (seen[v] - expected) * (seen[v] - expected) / expected;
                cells++;
            }
        }
        if (rare_expected > 0) {
            chi2 += (rare - rare_expected) * (rare - rare_expected) / rare_expected;
            cells++;
        }
        /* Wilson and Hilferty 1931: the cube root of χ²/k is nearly normal; 3.7 standard deviations are 1 in 10,000 */
        const double k = cells - 1, z = (cbrt(chi2 / k) - (1 - 2 / (9 * k))) / sqrt(2 / (9 * k));
        if (!(z < 3.7))
            fail_msg("setting %zu: χ² %g over %d cells", i, chi2, cells);
        free(r.answers);
    }
    golden_device_free(1, device);
    golden_free(&g);
}

/* --- little memory --------------------------------------------------------------------------------------------------
 */

/* A device whose memory ends: allocations above a bound and passes of many rows are refused. */
static struct {
    const kn_ops *real;
    size_t bytes; /* of one allocation */
    size_t rows;  /* of one pass */
    size_t refused;
} little;

static void *little_alloc(kn_device *device, size_t bytes)
{
    little.refused += bytes > little.bytes;
    return bytes > little.bytes ? NULL : little.real->alloc(device, bytes);
}

static int little_attention(kn_device *device, void *out, void *qkv, kn_cache *cache, size_t layer,
                            const kn_cached_rows *rows, size_t sequences, size_t T, const kn_rotary *rotary)
{
    /* not in the first layer: what that one wrote into the cache is written again */
    const bool refused = layer > 0 && T > little.rows;
    little.refused += refused;
    if (refused)
        return KN_NO_MEMORY;
    return little.real->attention_cached(device, out, qkv, cache, layer, rows, sequences, T, rotary);
}

static kn_cache *no_cache(kn_device *device, size_t layers, size_t pages, const kn_attention *attention)
{
    return NULL;
}

static void little_memory_is_slower_and_gives_the_same_answers(void **state)
{
    (void)state;
    if (!test_device_one_answer())
        skip();
    golden g;
    sluice_span prompts[8];
    golden_load(&g, "grouped");
    kn_device *device = golden_device(1, 2);
    run r = run_of(device, g.checkpoint, prompts, prompts_of(&g, prompts), 5);
    generate_all(&r);
    answer *first = r.answers;
    r.answers = NULL;
    kn_ops ops = *device->ops;
    little.real = device->ops;
    device->ops = &ops;
    static const struct {
        size_t bytes, rows;
    } bounds[] = {{(size_t)-1, 7}, {(size_t)-1, 2}, {100000, (size_t)-1}, {100000, 3}};
    for (size_t i = 0; i < sizeof(bounds) / sizeof(*bounds); i++) {
        little.bytes = bounds[i].bytes;
        little.rows = bounds[i].rows;
        little.refused = 0;
        ops.alloc = little_alloc;
        ops.attention_cached = little_attention;
        generate_all(&r);
        assert_true(little.refused > 0);
        answers_equal(&r, first, false);
    }
    ops.cache_new = no_cache; /* not even for one candidate */
    assert_int_equal(generate(&r), SM_NO_MEMORY);
    assert_non_null(strstr(r.error.text, "out of memory"));
    device->ops = little.real;
    free(first);
    free(r.answers);
    golden_device_free(1, device);
    golden_free(&g);
}

static void candidates_and_seeds_differ(void **state)
{
    (void)state;
    golden g;
    golden_load(&g, "grouped");
    kn_device *device = golden_device(1, 2);
    run r = run_of(device, g.checkpoint, &g.groups[0].prompt, 1, 3);
    generate_all(&r);
    answer first = r.answers[0];
    assert_memory_not_equal(first.tokens, r.answers[1].tokens, 20 * sizeof(uint32_t));
    assert_memory_not_equal(r.answers[1].tokens, r.answers[2].tokens, 20 * sizeof(uint32_t));
    r.generation.seed++;
    generate_all(&r);
    assert_memory_not_equal(first.tokens, r.answers[0].tokens, 20 * sizeof(uint32_t));
    free(r.answers);
    golden_device_free(1, device);
    golden_free(&g);
}

/* --- hooks, penalties, ends -----------------------------------------------------------------------------------------
 */

/* Only even tokens; the third ends the candidate. */
static int even_only(void *context, void *user, uint32_t candidate, const uint32_t *tokens, size_t count, float *logits)
{
    const run *r = context;
    (void)user;
    (void)candidate;
    (void)tokens;
    for (size_t v = 1; v < r->layout->config.vocab; v += 2)
        logits[v] = -INFINITY;
    return count == 3 ? SLUICE_END : SLUICE_OK;
}

static void a_hook_shapes_the_choice_and_not_what_is_recorded(void **state)
{
    (void)state;
    golden g;
    golden_load(&g, "grouped");
    kn_device *device = golden_device(1, 2);
    run r = run_of(device, g.checkpoint, &g.groups[0].prompt, 1, 6);
    r.generation.hook = even_only;
    generate_all(&r);
    for (size_t c = 0; c < 6; c++) {
        const answer *a = &r.answers[c];
        assert_int_equal(a->count, 3);
        assert_int_equal(a->finish, SLUICE_FINISH_STOP);
        for (size_t t = 0; t < 3; t++)
            assert_int_equal(a->tokens[t] % 2, 0);
        const sluice_span span = {a->tokens, 3};
        const sluice_group group = {g.groups[0].prompt, &span, 1, 0};
        float logps[3], *to = logps;
        golden_score(r.device, r.dtype, &g, &group, 1, &to);
        logprobs_equal(logps, a->logprobs, 3, r.dtype);
    }
    free(r.answers);
    golden_device_free(1, device);
    golden_free(&g);
}

/* An enormous penalty puts what was seen at 0 or far below. Some unseen token has a positive logit in a model of random
 * weights, so the best unseen one must win. */
static void the_repetition_penalty_covers_prompt_and_answer(void **state)
{
    (void)state;
    golden g;
    golden_load(&g, "grouped");
    kn_device *device = golden_device(1, 1);
    run r = run_of(device, g.checkpoint, &g.groups[1].prompt, 1, 1);
    r.generation.temperature = 0;
    r.generation.max_tokens = 12;
    r.generation.repetition_penalty = 1e30;
    generate_all(&r);
    float logps[256];
    for (uint32_t t = 0; t < r.answers[0].count; t++) {
        bool seen[256] = {false};
        uint32_t sequence[64];
        const size_t before = g.groups[1].prompt.count + t;
        memcpy(sequence, g.groups[1].prompt.tokens, g.groups[1].prompt.count * sizeof(*sequence));
        memcpy(sequence + g.groups[1].prompt.count, r.answers[0].tokens, t * sizeof(*sequence));
        for (size_t i = 0; i < before; i++)
            seen[sequence[i]] = true;
        const sluice_span prompt = {sequence, before};
        next_logps(device, &g, &prompt, logps, g.checkpoint->layout.config.vocab);
        uint32_t best = 0;
        for (uint32_t v = 0; v < g.checkpoint->layout.config.vocab; v++)
            if (!seen[v] && (seen[best] || logps[v] > logps[best]))
                best = v;
        assert_int_equal(r.answers[0].tokens[t], best);
    }
    free(r.answers);
    golden_device_free(1, device);
    golden_free(&g);
}

static void answers_end_at_stop_ids_lengths_and_the_context(void **state)
{
    (void)state;
    golden g;
    golden_load(&g, "grouped");
    kn_device *device = golden_device(1, 2);
    run r = run_of(device, g.checkpoint, &g.groups[1].prompt, 1, 8);
    r.generation.max_tokens = MAX_TOKENS;
    generate_all(&r);
    for (size_t c = 0; c < 8; c++) { /* 64 positions, 17 of them the prompt's */
        assert_int_equal(r.answers[c].count, 64 - 17);
        assert_int_equal(r.answers[c].finish, SLUICE_FINISH_LENGTH);
    }
    const uint32_t stop = r.answers[3].tokens[10];
    answer before = r.answers[3];
    size_t first = 0;
    while (before.tokens[first] != stop)
        first++;
    r.stop_ids = &stop;
    r.stop_count = 1;
    generate_all(&r);
    assert_int_equal(r.answers[3].count, first + 1); /* the stop token is the answer's last */
    assert_int_equal(r.answers[3].tokens[first], stop);
    assert_int_equal(r.answers[3].finish, SLUICE_FINISH_STOP);
    r.generation.max_tokens = 2;
    r.stop_count = 0;
    generate_all(&r);
    assert_int_equal(r.answers[5].count, 2);
    assert_int_equal(r.answers[5].finish, SLUICE_FINISH_LENGTH);
    free(r.answers);
    golden_device_free(1, device);
    golden_free(&g);
}

static void what_cannot_be_continued_is_refused(void **state)
{
    (void)state;
    golden g;
    golden_load(&g, "grouped");
    kn_device *device = golden_device(1, 1);
    uint32_t tokens[64] = {0};
    sluice_span prompt = {tokens, 64};
    run r = run_of(device, g.checkpoint, &prompt, 1, 1);
    assert_int_equal(generate(&r), SM_BAD_ARGUMENT);
    assert_non_null(strstr(r.error.text, "64"));
    prompt.count = 63;
    generate_all(&r);
    assert_int_equal(r.answers[0].count, 1);
    prompt.count = 0;
    assert_int_equal(generate(&r), SM_BAD_ARGUMENT);
    prompt.count = 3;
    tokens[1] = 80;
    assert_int_equal(generate(&r), SM_BAD_ARGUMENT);
    tokens[1] = 0;
    r.generation.stop = (const char *const[]){"x"};
    r.generation.stop_count = 1; /* no tokenizer */
    assert_int_equal(generate(&r), SM_BAD_ARGUMENT);
    free(r.answers);
    golden_device_free(1, device);
    golden_free(&g);
}

/* --- a real model ---------------------------------------------------------------------------------------------------
 */

static const char *stories(void)
{
    const char *folder = getenv("SLUICE_STORIES");
    if (!folder || !*folder) {
        print_message("SLUICE_STORIES is not set: the real model is left out\n");
        skip();
    }
    return folder;
}

typedef struct real {
    sm_checkpoint *checkpoint;
    sm_tokenizer *tokenizer;
    json_t *json;
    sluice_span prompt, greedy;
} real;

static void real_load(real *m)
{
    const char *folder = stories(), *data = getenv("SLUICE_TEST_DATA");
    char path[4096];
    sm_error error = {0};
    if (sm_checkpoint_load(&m->checkpoint, folder, &error) || sm_tokenizer_load(&m->tokenizer, folder, &error))
        fail_msg("%s", error.text);
    snprintf(path, sizeof(path), "%s/golden/stories.json", data);
    m->json = json_load_file(path, 0, NULL);
    assert_non_null(m->json);
    m->prompt = golden_span(json_object_get(m->json, "prompt"));
    m->greedy = golden_span(json_object_get(m->json, "greedy"));
}

static void real_free(real *m)
{
    free((void *)(uintptr_t)m->prompt.tokens);
    free((void *)(uintptr_t)m->greedy.tokens);
    json_decref(m->json);
    sm_tokenizer_free(m->tokenizer);
    sm_checkpoint_free(m->checkpoint);
}

static void greedy_decoding_is_that_of_transformers(void **state)
{
    (void)state;
    real m;
    real_load(&m);
    for (int number = 0; number < GOLDEN_DEVICES; number++) {
        kn_device *device = golden_device(number, 2);
        if (!device)
            continue;
        run r = run_of(device, m.checkpoint, &m.prompt, 1, 1);
        r.generation.temperature = 0;
        r.generation.max_tokens = 200;
        generate_all(&r);
        assert_int_equal(r.answers[0].count, 200);
        assert_memory_equal(r.answers[0].tokens, m.greedy.tokens, 200 * sizeof(uint32_t));
        free(r.answers);
        golden_device_free(number, device);
    }
    real_free(&m);
}

static void stop_strings_cut_the_text_and_keep_the_tokens(void **state)
{
    (void)state;
    real m;
    real_load(&m);
    kn_device *device = golden_device(1, 2);
    run r = run_of(device, m.checkpoint, &m.prompt, 1, 1);
    r.tokenizer = m.tokenizer;
    r.generation.temperature = 0;
    r.generation.max_tokens = 60;
    generate_all(&r);
    assert_non_null(strstr(r.answers[0].text, "there was a little girl named Lily."));
    answer whole = r.answers[0];
    /* over token borders; the earliest of several */
    r.generation.stop = (const char *const[]){"named Lily", "tle gir", "never"};
    r.generation.stop_count = 3;
    generate_all(&r);
    const answer *a = &r.answers[0];
    assert_int_equal(a->finish, SLUICE_FINISH_STOP);
    assert_true(a->count < whole.count);
    assert_memory_equal(a->tokens, whole.tokens, a->count * sizeof(uint32_t));
    const char *at = strstr(whole.text, "tle gir");
    assert_int_equal(strlen(a->text), at - whole.text);
    assert_memory_equal(a->text, whole.text, strlen(a->text));
    free(r.answers);
    golden_device_free(1, device);
    real_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_do_not_depend_on_slots_threads_or_order),
        cmocka_unit_test(recorded_log_probabilities_equal_a_later_score),
        cmocka_unit_test(sampled_tokens_follow_the_truncated_distribution),
        cmocka_unit_test(little_memory_is_slower_and_gives_the_same_answers),
        cmocka_unit_test(candidates_and_seeds_differ),
        cmocka_unit_test(a_hook_shapes_the_choice_and_not_what_is_recorded),
        cmocka_unit_test(the_repetition_penalty_covers_prompt_and_answer),
        cmocka_unit_test(answers_end_at_stop_ids_lengths_and_the_context),
        cmocka_unit_test(what_cannot_be_continued_is_refused),
        cmocka_unit_test(greedy_decoding_is_that_of_transformers),
        cmocka_unit_test(stop_strings_cut_the_text_and_keep_the_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
