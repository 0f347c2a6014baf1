/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/cli/model.h"

static const char help[] =
    "sluice export --model DIR --out DIR\n\n"
    "Writes a model, such as a version that a run published (float32), as a Hugging Face folder "
    "in another number format.\n\n"
    "  --model DIR     the folder to read: runs/NAME/models/policy@1\n"
    "  --out DIR       the new folder\n"
    "  --dtype TYPE    of the weights written: float32, bfloat16, float16, or original (default): "
    "that of the folder\n"
    "                  which the model was first trained from\n"
    "  --threads N     changes speed, never what comes out\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a checkpoint is damaged.\n\n"
    "Example:\n"
    "  sluice export --model runs/a/models/policy@1 --out models/aligned\n";

static int command_export(const sl_command *command, int argc, char **argv)
{
    const char *model = NULL, *out = NULL, *dtype = "original";
    int64_t threads = 0;
    sl_words rest = {0};
    const sl_option options[] = {{.name = "model", .kind = SL_WORD, .to = &model},
                                 {.name = "out", .kind = SL_WORD, .to = &out},
                                 {.name = "dtype", .kind = SL_WORD, .to = &dtype},
                                 {"threads", 'j', SL_OPTION_INTEGER, &threads, 1, 4096},
                                 {0}};
    int code = sl_options_read(command, argc, argv, options, &rest);
    if (code < 0 && !model)
        code = sl_usage(command, "--model is missing");
    if (code < 0 && !out)
        code = sl_usage(command, "--out is missing");
    if (code < 0 && rest.count > 0)
        code = sl_usage(command, "'%s' is not an option; one model is exported at a time", rest.items[0]);
    if (code < 0) {
        sl_models models;
        code = sl_models_open(command, threads, &models);
        if (code == SL_EXIT_OK) { /* the mean of one model is that model */
            sl_models_sweep(out);
            code = sl_exit_of(
                models.service->merge(models.service, models.host, SLUICE_MERGE_MEAN, &model, NULL, 1, out, dtype));
            sl_models_close(&models);
        }
    }
    sl_words_free(&rest);
    return code;
}

const sl_command sl_command_export = {"export", "writes a model in another number format", help, command_export};
