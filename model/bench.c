/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-model: times a DPO step, scoring and sampling on a checkpoint with random token ids, no tokenizer needed.
 *
 *     bench-model FOLDER [train|score|sample] [threads]
 *
 * The work is what a plain PyTorch loop would be timed on: 8 pairs of 256 tokens with 64 of them the prompt (all tokens
 * of both answers, prompt included, count); 16 sequences of 256; 8 prompts of 64 tokens with 5 answers of 64 each.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <math.h>

#include "model/checkpoint.h"
#include "model/generate.h"
#include "model/train.h"

enum { PAIRS = 8, LENGTH = 256, PROMPT = 64, SEQUENCES = 16, CANDIDATES = 5, NEW = 64, MICRO_BATCH_PAIRS = 2 };

typedef struct bench {
    kn_device *device;
    sm_checkpoint *checkpoint;
    sm_network *network;
    sm_workspace *workspace;
    sm_error error;
    uint32_t *tokens; /* random, enough for everything */
    size_t handed_out;
    int rc;
} bench;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median time of seven runs after one that does not count. */
static double median_time(bench *b, int (*work)(bench *))
{
    double times[7];
    for (int i = -1; i < 7; i++) {
        const double begin = now();
        b->rc = work(b);
        if (b->rc != SM_OK)
            return NAN;
        if (i >= 0)
            times[i] = now() - begin;
    }
    qsort(times, 7, sizeof(*times), by_size);
    return times[3];
}

/* --- DPO ------------------------------------------------------------------------------------------------------------
 */

static sm_training *training;

/* -log σ(0.1 (s_w - s_l)), reference log-probabilities known (0 here). */
static int dpo(void *context, const float *const *logps, float *const *d_logps)
{
    (void)context;
    const size_t count = LENGTH - PROMPT;
    for (size_t i = 0; i < MICRO_BATCH_PAIRS; i++) {
        double delta = 0;
        for (size_t t = 0; t < count; t++)
            delta += (double)logps[2 * i][t] - logps[2 * i + 1][t];
        const double slope = -0.1 / (1 + exp(0.1 * delta)) / PAIRS;
        for (size_t t = 0; t < count; t++) {
            d_logps[2 * i][t] = (float)slope;
            d_logps[2 * i + 1][t] = (float)-slope;
        }
    }
    return 0;
}

static int dpo_step(bench *b)
{
    sluice_step_info info;
    const size_t answer = LENGTH - PROMPT;
    for (size_t from = 0; from < PAIRS; from += MICRO_BATCH_PAIRS) {
        sluice_group groups[MICRO_BATCH_PAIRS];
        sluice_span spans[MICRO_BATCH_PAIRS][2];
        for (size_t i = 0; i < MICRO_BATCH_PAIRS; i++) {
            const uint32_t *at = b->tokens + (from + i) * 2 * LENGTH;
            spans[i][0] = (sluice_span){at + PROMPT, answer};
            spans[i][1] = (sluice_span){at + LENGTH, answer};
            groups[i] = (sluice_group){{at, PROMPT}, spans[i], 2, from + i};
        }
        int result = 0;
        const int rc = sm_training_gradient(training, groups, MICRO_BATCH_PAIRS, dpo, NULL, &result, &b->error);
        if (rc != SM_OK)
            return rc;
    }
    return sm_training_step(training, 1e-6, 1, &info, &b->error);
}

static int time_training(bench *b, const char *name)
{
    const sluice_optimizer optimizer = {
        .size = sizeof(optimizer), .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.01};
    int rc = sm_training_new(&training, b->device, KN_F32, &b->checkpoint->layout,
                             &(sm_numbers){.params = b->checkpoint->params}, &optimizer, &b->error);
    if (rc != SM_OK)
        return rc;
    const double seconds = median_time(b, dpo_step);
    const double tokens = 2.0 * PAIRS * LENGTH;
    printf("train sluice %s float32 pairs %d x %d: median %.3f s/step, %.0f tokens/s, %.0f GFLOP/s (6ND)\n", name,
           PAIRS, LENGTH, seconds, tokens / seconds, 6 * (double)b->checkpoint->layout.count * tokens / seconds / 1e9);
    sm_training_free(training);
    return b->rc;
}

/* --- scoring --------------------------------------------------------------------------------------------------------
 */

static int score(bench *b)
{
    static float room[SEQUENCES][LENGTH];
    sluice_group groups[SEQUENCES];
    sluice_span spans[SEQUENCES];
    float *logps[SEQUENCES];
    for (size_t i = 0; i < SEQUENCES; i++) {
        spans[i] = (sluice_span){b->tokens + i * LENGTH, LENGTH};
        groups[i] = (sluice_group){{NULL, 0}, &spans[i], 1, i};
        logps[i] = room[i];
    }
    return sm_score(b->network, b->workspace, groups, SEQUENCES, logps, NULL, &b->error);
}

static int time_scoring(bench *b, const char *name)
{
    const double seconds = median_time(b, score), tokens = (double)SEQUENCES * LENGTH;
    printf("score sluice %s float32 %d x %d: %.0f tokens/s, %.0f GFLOP/s (2ND)\n", name, SEQUENCES, LENGTH,
           tokens / seconds, 2 * (double)b->checkpoint->layout.count * tokens / seconds / 1e9);
    return b->rc;
}

/* --- sampling -------------------------------------------------------------------------------------------------------
 */

static int next_prompt(void *context, sluice_generate_prompt *out)
{
    bench *b = context;
    if (b->handed_out == PAIRS)
        return SLUICE_END;
    *out = (sluice_generate_prompt){.tokens = b->tokens + b->handed_out * PROMPT, .token_count = PROMPT};
    out->key = b->handed_out++;
    return SLUICE_OK;
}

static int done(void *context, const sluice_generated *generated)
{
    (void)context;
    return generated->token_count == NEW ? SLUICE_OK : SLUICE_FAILED;
}

static int sample(bench *b)
{
    int result = 0;
    b->handed_out = 0;
    const sluice_generation generation = {.size = sizeof(generation),
                                          .candidates = CANDIDATES,
                                          .max_tokens = NEW,
                                          .temperature = 0.8,
                                          .top_p = 0.95,
                                          .repetition_penalty = 1,
                                          .seed = 1,
                                          .context = b,
                                          .prompt = next_prompt,
                                          .done = done};
    return sm_generate(b->network, b->workspace, NULL, NULL, 0, &generation, &result, &b->error);
}

static int time_sampling(bench *b, const char *name)
{
    const double seconds = median_time(b, sample);
    printf("sample sluice %s float32 %d x %d x %d: %.0f new tokens/s\n", name, PAIRS, CANDIDATES, NEW,
           PAIRS * CANDIDATES * NEW / seconds);
    return b->rc;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(bench *, const char *);
    } kinds[] = {{"train", time_training}, {"score", time_scoring}, {"sample", time_sampling}};
    const char *why = NULL;
    if (argc < 2) {
        fprintf(stderr, "usage: bench-model FOLDER [train|score|sample|all] [threads]\n");
        return 2;
    }
    const char *kind = argc > 2 ? argv[2] : "all", *slash = strrchr(argv[1], '/');
    bench b = {.device = kn_cpu_new(argc > 3 ? atoi(argv[3]) : 0, NULL, &why)};
    if (!b.device) {
        fprintf(stderr, "bench-model: %s\n", why ? why : "no device");
        return 1;
    }
    int rc = sm_checkpoint_load(&b.checkpoint, argv[1], &b.error);
    if (rc == SM_OK)
        rc = sm_network_new(&b.network, b.device, KN_F32, &b.checkpoint->layout,
                            &(sm_numbers){.params = b.checkpoint->params}, false, &b.error);
    const size_t needed = (size_t)2 * SEQUENCES * LENGTH;
    b.tokens = malloc(needed * sizeof(*b.tokens));
    b.workspace = rc == SM_OK ? sm_workspace_new(b.network, SM_KEEP_NOTHING) : NULL;
    if (rc == SM_OK && (!b.tokens || !b.workspace))
        rc = sm_fail(&b.error, SM_NO_MEMORY, "out of memory");
    uint64_t x = 1;
    for (size_t i = 0; rc == SM_OK && i < needed; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        b.tokens[i] = (uint32_t)((x >> 33) % b.checkpoint->layout.config.vocab);
    }
    for (size_t i = 0; rc == SM_OK && i < sizeof(kinds) / sizeof(*kinds); i++)
        if (strcmp(kind, "all") == 0 || strcmp(kind, kinds[i].name) == 0)
            rc = kinds[i].run(&b, slash && slash[1] ? slash + 1 : argv[1]);
    if (rc != SM_OK)
        fprintf(stderr, "bench-model: %s\n", b.error.text);
    sm_workspace_free(b.workspace);
    if (b.network)
        sm_network_free(b.network);
    sm_checkpoint_free(b.checkpoint);
    free(b.tokens);
    kn_cpu_free(b.device);
    return rc == SM_OK ? 0 : 1;
}
