/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/cli/model.h"

#include <stdlib.h>
#include <string.h>

static const char help[] = "sluice average --method mean|weighted|running|slerp --out DIR MODEL…\n\n"
                           "Averages the weights of checkpoint folders of one architecture, tensor by tensor, and "
                           "writes a Hugging Face folder.\n\n"
                           "  --method METHOD   mean      Σ θ_i / n\n"
                           "                    weighted  Σ w_i θ_i / Σ w_i\n"
                           "                    running   ema ← (1 − a)·ema + a·θ, along the list\n"
                           "                    slerp     base + eta · slerp(θ_1 − base, θ_2 − base, …), layer by "
                           "layer\n"
                           "  --weights A,B,…   weighted: one a model; running: the one number a\n"
                           "  --base MODEL      slerp: what the models started from\n"
                           "  --eta E           slerp: how far to go from the base, 1 when not given\n"
                           "  --out DIR         the new folder\n"
                           "  --dtype TYPE      of the weights written: float32 (default), bfloat16, float16, or\n"
                           "                    original: that of the folder which the first was trained from\n"
                           "  --threads N       changes speed, never what comes out\n\n"
                           "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a checkpoint is damaged or does not "
                           "go with the others.\n\n"
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

/* slerp's folders begin with the base; its one number is eta. -1, or what to exit with. */
static int take_slerp(const sl_command *command, const char *base, const char *eta, sl_words *folders, double *weights)
{
    char *end = NULL;
    if (!base)
        return sl_usage(command, "slerp wants --base, the folder that the models started from");
    weights[0] = eta ? strtod(eta, &end) : 1;
    if (eta && (end == eta || *end || !(weights[0] >= 0 && weights[0] <= 1)))
        return sl_usage(command, "--eta is '%s'; write a number from 0 to 1", eta);
    const char **items = realloc(folders->items, (folders->count + 1) * sizeof *items);
    if (!items)
        return sl_fail(command, SL_EXIT_FAILED, "out of memory");
    memmove(items + 1, items, folders->count++ * sizeof *items);
    items[0] = base;
    folders->items = items;
    return -1;
}

static int command_average(const sl_command *command, int argc, char **argv)
{
    static const char *const methods[] = {"mean", "weighted", "running", "slerp"};
    sl_words folders = {0};
    const char *name = "mean", *out = NULL, *dtype = "float32", *text = "", *base = NULL, *eta = NULL;
    double *weights = calloc(MOST_MODELS, sizeof *weights);
    int64_t threads = 0;
    int method = 0;
    const sl_option options[] = {
        {.name = "method", .kind = SL_WORD, .to = &name},       {.name = "weights", .kind = SL_WORD, .to = &text},
        {.name = "out", .kind = SL_WORD, .to = &out},           {.name = "dtype", .kind = SL_WORD, .to = &dtype},
        {.name = "base", .kind = SL_WORD, .to = &base},         {.name = "eta", .kind = SL_WORD, .to = &eta},
        {"threads", 'j', SL_OPTION_INTEGER, &threads, 1, 4096}, {0}};
    int code = weights ? sl_options_read(command, argc, argv, options, &folders)
                       : sl_fail(command, SL_EXIT_FAILED, "out of memory");
    while (code < 0 && method < 4 && strcmp(methods[method], name) != 0)
        method++;
    const long count = code < 0 ? read_weights(text, weights) : 0;
    if (code < 0 && method == 4)
        code = sl_usage(command, "--method is '%s'; choose mean, weighted, running or slerp", name);
    if (code < 0 && !out)
        code = sl_usage(command, "--out is missing");
    if (code < 0 && folders.count == 0)
        code = sl_usage(command, "name the checkpoint folders to average");
    if (code < 0 && count < 0)
        code = sl_usage(command, "--weights is '%s'; write numbers not below 0 with commas between them", text);
    if (code < 0 && method == SLUICE_MERGE_SLERP)
        code = take_slerp(command, base, eta, &folders, weights);
    else if (code < 0 && (base || eta))
        code = sl_usage(command, "--%s goes with slerp", base ? "base" : "eta");
    if (code < 0 && method == SLUICE_MERGE_SLERP && count > 0)
        code = sl_usage(command, "--weights goes with weighted and running");
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
            code = sl_exit_of(models.service->merge(models.service, models.host, method, folders.items, weights,
                                                    folders.count, out, dtype));
            sl_models_close(&models);
        }
    }
    free(weights);
    sl_words_free(&folders);
    return code;
}

const sl_command sl_command_average = {"average", "averages checkpoints into a new one", help, command_average};
