/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-model: times a DPO step, scoring and sampling on a checkpoint with random token ids, no tokenizer needed.
 *
 * The work is what a plain PyTorch loop would be timed on: pairs of 256 tokens with 64 of them the prompt (all tokens
 * of both answers, prompt included, count), reference log-probabilities known; 16 sequences of 256; 8 prompts of 64
 * tokens with 5 answers of 64 each.
 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/backend.h"
#include "model/bench.h"
#include "model/checkpoint.h"
#include "model/generate.h"
#include "model/train.h"

enum { LENGTH = 256, PROMPT = 64, SEQUENCES = 16, PROMPTS = 8, CANDIDATES = 5, NEW = 64, MOST_PAIRS = 64 };

static const char usage[] = "usage: bench-model [OPTIONS] FOLDER [train|score|sample|all]\n\n"
                            "  --dtype TYPE   float32 (default) or bf16\n"
                            "  --pairs N      of a DPO step: 8\n"
                            "  --micro N      pairs computed at once: 2\n"
                            "  --recompute    keep one row of activations a layer\n"
                            "  --rounds N     timed runs, of which the median counts: 7\n"
                            "  --threads N    0: one a processor\n"
                            "  --device D     auto (default), cpu, cuda, or the path of a backend's plugin\n"
                            "  --memory       what is resident after each part of the work\n"
                            "  --ops          time, share, flops and bytes of each op, beside the machine's limits\n";

typedef struct bench {
    const char *name; /* of the model */
    kn_dtype dtype;
    int pairs, micro, rounds, threads;
    bool recompute, memory, ops;
    const char *wanted; /* device */

    const kn_backend *backend; /* NULL: the CPU's */
    kn_device *device;
    kn_limits limits;
    sm_checkpoint *checkpoint;
    sm_network *network;
    sm_workspace *workspace;
    sm_training *training;
    sm_error error;
    uint32_t *tokens; /* random, enough for everything */
    int handed_out;
} bench;

static void told(const bench *b, const char *what)
{
    if (b->memory)
        bench_memory(what);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median time of some runs after one that does not count; the ops of all these runs. */
static int timed(bench *b, int (*work)(bench *), double *median)
{
    double *times = malloc((size_t)b->rounds * sizeof(*times)), total = 0;
    int rc = times ? work(b) : sm_fail(&b->error, SM_NO_MEMORY, "out of memory");
    if (b->ops)
        kn_profile_reset(b->device);
    for (int i = 0; rc == SM_OK && i < b->rounds; i++) {
        const double begin = bench_now();
        rc = work(b);
        total += times[i] = bench_now() - begin;
    }
    if (rc == SM_OK) {
        qsort(times, (size_t)b->rounds, sizeof(*times), by_size);
        *median = times[b->rounds / 2];
        if (b->ops)
            bench_print_ops(b->device, &b->limits, total);
    }
    free(times);
    return rc;
}

/* --- DPO ------------------------------------------------------------------------------------------------------------
 */

/* Of one micro-batch: -log σ(0.1 (s_w - s_l)), reference log-probabilities known (0 here). */
typedef struct batch {
    int count, pairs;
} batch;

static int dpo(void *context, const float *const *logps, float *const *d_logps)
{
    const batch *x = context;
    const size_t count = LENGTH - PROMPT;
    for (int i = 0; i < x->count; i++) {
        double delta = 0;
        for (size_t t = 0; t < count; t++)
            delta += (double)logps[2 * i][t] - logps[2 * i + 1][t];
        const double slope = -0.1 / (1 + exp(0.1 * delta)) / x->pairs;
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
    sluice_group groups[MOST_PAIRS];
    sluice_span spans[MOST_PAIRS][2];
    for (int from = 0; from < b->pairs; from += b->micro) {
        batch x = {b->pairs - from < b->micro ? b->pairs - from : b->micro, b->pairs};
        for (int i = 0; i < x.count; i++) {
            const uint32_t *at = b->tokens + (size_t)(from + i) * 2 * LENGTH;
            spans[i][0] = (sluice_span){at + PROMPT, LENGTH - PROMPT};
            spans[i][1] = (sluice_span){at + LENGTH, LENGTH - PROMPT};
            groups[i] = (sluice_group){{at, PROMPT}, spans[i], 2, (uint64_t)(from + i)};
        }
        int result = 0;
        const int rc = sm_training_gradient(b->training, groups, (size_t)x.count, dpo, &x, &result, &b->error);
        if (rc != SM_OK)
            return rc;
    }
    told(b, "after the gradient");
    return sm_training_step(b->training, 1e-6, 1, &info, &b->error);
}

static int time_training(bench *b)
{
    const sluice_optimizer optimizer = {.size = sizeof(optimizer),
                                        .beta1 = 0.9,
                                        .beta2 = 0.999,
                                        .epsilon = 1e-8,
                                        .weight_decay = 0.01,
                                        .recompute = b->recompute};
    const sm_numbers numbers = sm_checkpoint_numbers(b->checkpoint);
    int rc =
        sm_training_new(&b->training, b->device, b->dtype, &b->checkpoint->layout, &numbers, &optimizer, &b->error);
    double seconds = 0;
    if (rc == SM_OK) {
        told(b, "training begun: masters, weights");
        rc = timed(b, dpo_step, &seconds);
    }
    if (rc == SM_OK) {
        const double tokens = 2.0 * b->pairs * LENGTH, parameters = (double)b->checkpoint->layout.count;
        printf("train sluice %s %s pairs %d x %d: median %.3f s/step, %.0f tokens/s, %.0f GFLOP/s (6ND), "
               "peak %.2f GB\n",
               b->name, sm_dtype_name(b->dtype), b->pairs, LENGTH, seconds, tokens / seconds,
               6 * parameters * tokens / seconds / 1e9, bench_peak_gigabytes());
    }
    sm_training_free(b->training);
    b->training = NULL;
    return rc;
}

/* --- scoring and sampling -------------------------------------------------------------------------------------------
 */

static int open_network(bench *b)
{
    if (b->network)
        return SM_OK;
    const sm_numbers numbers = sm_checkpoint_numbers(b->checkpoint);
    const int rc = sm_network_new(&b->network, b->device, b->dtype, &b->checkpoint->layout, &numbers, false, &b->error);
    if (rc == SM_OK && !(b->workspace = sm_workspace_new(b->network, SM_KEEP_NOTHING)))
        return sm_fail(&b->error, SM_NO_MEMORY, "out of memory");
    told(b, "weights packed");
    return rc;
}

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

static int time_scoring(bench *b)
{
    double seconds = 0;
    int rc = open_network(b);
    if (rc == SM_OK)
        rc = timed(b, score, &seconds);
    const double tokens = (double)SEQUENCES * LENGTH, parameters = (double)b->checkpoint->layout.count;
    if (rc == SM_OK)
        printf("score sluice %s %s %d x %d: %.0f tokens/s, %.0f GFLOP/s (2ND)\n", b->name, sm_dtype_name(b->dtype),
               SEQUENCES, LENGTH, tokens / seconds, 2 * parameters * tokens / seconds / 1e9);
    told(b, "after scoring");
    return rc;
}

static int next_prompt(void *context, sluice_generate_prompt *out)
{
    bench *b = context;
    if (b->handed_out == PROMPTS)
        return SLUICE_END;
    *out = (sluice_generate_prompt){.tokens = b->tokens + b->handed_out * PROMPT, .token_count = PROMPT};
    out->key = (uint64_t)b->handed_out++;
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
    return sm_generate(b->network, b->workspace, NULL, NULL, 0, &generation, NULL, &result, &b->error);
}

static int time_sampling(bench *b)
{
    double seconds = 0;
    int rc = open_network(b);
    if (rc == SM_OK)
        rc = timed(b, sample, &seconds);
    if (rc == SM_OK)
        printf("sample sluice %s %s %d x %d x %d: %.0f new tokens/s\n", b->name, sm_dtype_name(b->dtype), PROMPTS,
               CANDIDATES, NEW, PROMPTS * CANDIDATES * NEW / seconds);
    told(b, "after sampling");
    return rc;
}

/* --- the program ----------------------------------------------------------------------------------------------------
 */

/* false: something is wrong with the words. */
static bool read_options(bench *b, int argc, char **argv)
{
    enum { DTYPE, PAIRS, MICRO, RECOMPUTE, ROUNDS, THREADS, MEMORY, OPS, DEVICE };
    static const struct option options[] = {
        {"dtype", required_argument, NULL, DTYPE},   {"pairs", required_argument, NULL, PAIRS},
        {"micro", required_argument, NULL, MICRO},   {"recompute", no_argument, NULL, RECOMPUTE},
        {"rounds", required_argument, NULL, ROUNDS}, {"threads", required_argument, NULL, THREADS},
        {"memory", no_argument, NULL, MEMORY},       {"ops", no_argument, NULL, OPS},
        {"device", required_argument, NULL, DEVICE}, {0}};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        int *const numbers[] = {
            [PAIRS] = &b->pairs, [MICRO] = &b->micro, [ROUNDS] = &b->rounds, [THREADS] = &b->threads};
        if (option == DTYPE && (!sm_dtype_of_name(optarg, &b->dtype) || b->dtype == KN_F16))
            return false;
        if (option == PAIRS || option == MICRO || option == ROUNDS || option == THREADS)
            *numbers[option] = atoi(optarg);
        if (option == DEVICE)
            b->wanted = optarg;
        b->recompute |= option == RECOMPUTE;
        b->memory |= option == MEMORY;
        b->ops |= option == OPS;
        if (option == '?')
            return false;
    }
    return b->pairs >= 1 && b->pairs <= MOST_PAIRS && b->micro >= 1 && b->rounds >= 1 && b->threads >= 0 &&
           optind < argc && argc <= optind + 2;
}

static int make_tokens(bench *b)
{
    const size_t sequences = b->pairs > SEQUENCES ? (size_t)b->pairs : SEQUENCES, needed = 2 * sequences * LENGTH;
    uint64_t x = 1;
    if (!(b->tokens = malloc(needed * sizeof(*b->tokens))))
        return sm_fail(&b->error, SM_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < needed; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        b->tokens[i] = (uint32_t)((x >> 33) % b->checkpoint->layout.config.vocab);
    }
    return SM_OK;
}

static int work(bench *b, const char *folder, const char *kind)
{
    static const struct {
        const char *name;
        int (*run)(bench *);
    } kinds[] = {{"train", time_training}, {"score", time_scoring}, {"sample", time_sampling}};
    int rc = sm_checkpoint_open(&b->checkpoint, folder, &b->error);
    if (rc == SM_OK)
        rc = make_tokens(b);
    told(b, "opened");
    for (size_t i = 0; rc == SM_OK && i < sizeof(kinds) / sizeof(*kinds); i++)
        if (strcmp(kind, "all") == 0 || strcmp(kind, kinds[i].name) == 0)
            rc = kinds[i].run(b);
    return rc;
}

/* The plugin beside this program that computes with CUDA, or the one whose path was given. */
static kn_device *open_backend(bench *b, const char **why)
{
    char path[4096];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - sizeof("plugins/cuda.so"));
    path[length > 0 ? length : 0] = '\0';
    char *const slash = strrchr(path, '/');
    if (strchr(b->wanted, '/'))
        snprintf(path, sizeof(path), "%s", b->wanted);
    else
        strcpy(slash ? slash + 1 : path, "plugins/cuda.so");
    b->backend = kn_backend_load(path, why);
    return b->backend ? b->backend->open(b->backend, 0, why) : NULL;
}

static kn_device *open_device(bench *b, const char **why)
{
    kn_device *device = strcmp(b->wanted, "cpu") != 0 ? open_backend(b, why) : NULL;
    if (device)
        device->ops->set_threads(device, b->threads);
    if (device || (strcmp(b->wanted, "auto") != 0 && strcmp(b->wanted, "cpu") != 0))
        return device;
    b->backend = NULL;
    return kn_cpu_new(b->threads, NULL, why);
}

static void close_device(const bench *b, kn_device *device)
{
    if (device && b->backend)
        b->backend->close(b->backend, device);
    else
        kn_cpu_free(device);
}

int main(int argc, char **argv)
{
    bench b = {.pairs = 8, .micro = 2, .rounds = 7, .wanted = "auto"};
    const char *why = NULL;
    if (!read_options(&b, argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    const char *folder = argv[optind], *slash = strrchr(folder, '/');
    b.name = slash && slash[1] ? slash + 1 : folder;
    kn_device *device = open_device(&b, &why);
    b.device = device && b.ops ? kn_profile_new(device) : device;
    if (!b.device) {
        fprintf(stderr, "bench-model: %s\n", why ? why : "no device");
        return 1;
    }
    b.dtype = sm_device_dtype(b.device, b.dtype);
    int rc = b.ops && kn_limits_measure(device, &b.limits) != KN_OK ? sm_fail(&b.error, SM_NO_MEMORY, "out of memory")
                                                                    : SM_OK;
    if (rc == SM_OK)
        rc = work(&b, folder, optind + 1 < argc ? argv[optind + 1] : "all");
    if (rc != SM_OK)
        fprintf(stderr, "bench-model: %s\n", b.error.text);
    sm_workspace_free(b.workspace);
    sm_network_free(b.network);
    sm_checkpoint_free(b.checkpoint);
    free(b.tokens);
    if (b.ops)
        kn_profile_free(b.device);
    close_device(&b, device);
    return rc == SM_OK ? 0 : 1;
}
