/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/cli/model.h"

#include <stdlib.h>
#include <string.h>

static const char help[] = "sluice average --method mean|weighted|running --out DIR MODEL…\n\n"
                           "Averages the weights of checkpoint folders of one architecture, tensor by tensor, and "
                           "writes a Hugging Face folder.\n\n"
                           "  --method METHOD   mean      Σ θ_i / n\n"
                           "                    weighted  Σ w_i θ_i / Σ w_i\n"
                           "                    running   ema ← (1 − a)·ema + a·θ, along the list\n"
                           "  --weights A,B,…   weighted: one a model; running: the one number a\n"
                           "  --out DIR         the new folder\n"
                           "  --dtype TYPE      of the weights written: float32 (default), bfloat16, float16, or\n"
                           "                    original: that of the folder which the first was trained from\n"
                           "  --threads N       changes speed, never what comes out\n\n"
                           "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a checkpoint is damaged.\n\n"
                           "Example:\n"
                           "  sluice average --method weighted --weights 0.7,0.3 --out models/merged "
                           "runs/a/models/policy@1 runs/b/models/policy@1\n";

enum { MOST_MODELS = 1024 };

/* "0.7,0.3" → numbers. Their count, or -1. */
static long read_weights(const char *text, double *weights)
{
    long count = 0;
    for (char *end; *text; text = end + (*end == ',')) {
        if (count == MOST_MODELS)
            return -1;
        weights[count++] = strtod(text, &end);
        if (end == text || (*end && (*end != ',' || !end[1])) || !(weights[count - 1] >= 0) || weights[count - 1] > 1e9)
            return -1;
    }
    return count;
}

static int command_average(const sl_command *command, int argc, char **argv)
{
    static const char *const methods[] = {"mean", "weighted", "running"};
    sl_words folders = {0};
    const char *name = "mean", *out = NULL, *dtype = "float32", *text = "";
    double *weights = calloc(MOST_MODELS, sizeof *weights);
    int64_t threads = 0;
    int method = 0;
    const sl_option options[] = {
        {.name = "method", .kind = SL_WORD, .to = &name},       {.name = "weights", .kind = SL_WORD, .to = &text},
        {.name = "out", .kind = SL_WORD, .to = &out},           {.name = "dtype", .kind = SL_WORD, .to = &dtype},
        {"threads", 'j', SL_OPTION_INTEGER, &threads, 1, 4096}, {0}};
    int code = weights ? sl_options_read(command, argc, argv, options, &folders)
                       : sl_fail(command, SL_EXIT_FAILED, "out of memory");
    while (code < 0 && method < 3 && strcmp(methods[method], name) != 0)
        method++;
    const long count = code < 0 ? read_weights(text, weights) : 0;
    if (code < 0 && method == 3)
        code = sl_usage(command, "--method is '%s'; choose mean, weighted or running", name);
    if (code < 0 && !out)
        code = sl_usage(command, "--out is missing");
    if (code < 0 && folders.count == 0)
        code = sl_usage(command, "name the checkpoint folders to average");
    if (code < 0 && count < 0)
        code = sl_usage(command, "--weights is '%s'; write numbers not below 0 with commas between them", text);
    if (code < 0 && method == SLUICE_MERGE_MEAN && count > 0)
        code = sl_usage(command, "--weights goes with weighted and running");
    if (code < 0 && method == SLUICE_MERGE_WEIGHTED && (size_t)count != folders.count)
        code = sl_usage(command, "--weights has %ld number%s for %zu model%s", count, count == 1 ? "" : "s",
                        folders.count, folders.count == 1 ? "" : "s");
    if (code < 0 && method == SLUICE_MERGE_RUNNING && (count != 1 || weights[0] > 1))
        code = sl_usage(command, "running wants one number from 0 to 1 in --weights");
    if (code < 0) {
        sl_models models;
        code = sl_models_open(command, threads, &models);
        if (code == SL_EXIT_OK) {
            sl_models_sweep(out);
            code = sl_exit_of(models.service->merge(models.service, models.host, method, folders.items,
                                                    count > 0 ? weights : NULL, folders.count, out, dtype));
            sl_models_close(&models);
        }
    }
    free(weights);
    sl_words_free(&folders);
    return code;
}

const sl_command sl_command_average = {"average", "averages checkpoints into a new one", help, command_average};
