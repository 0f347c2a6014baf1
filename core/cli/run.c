/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/cli/cli.h"
#include "core/run/run.h"

#include <stdlib.h>

static const char help[] =
    "sluice run FILE [--set KEY=VALUE …] [--out DIR] [--store DIR] [--fresh | --explain]\n"
    "           [-j N] [--quiet]\n\n"
    "Runs a pipeline file. Running it again goes on where it was: what is there already is reused.\n"
    "Ctrl-C finishes the records in hand and stops; a second one stops at once.\n\n"
    "  --set KEY=VALUE  overrides a setting: STAGE.PARAM, models.NAME.KEY, phases.NAME.repeat, runtime.KEY, seed, "
    "name,\n"
    "                   variant (of the file's ablation), STAGE.limits.KEY. Lists are written [a,b], texts with spaces "
    "in\n"
    "                   quotes: --set 'answers.stop=[END, \"a b\"]'\n"
    "  --out DIR        the run's folder (default: the file's `out`, or runs/NAME): pipeline.cfg, metrics.jsonl, "
    "log.txt,\n"
    "                   streams/PHASE-ITERATION/STAGE.zst, models/SLOT@VERSION/\n"
    "  --resume         goes on with what is in the folder (the default)\n"
    "  --fresh          forgets what earlier runs left in the folder, and takes nothing from the store\n"
    "  --store DIR      the store of finished stages, shared by runs (default: SLUICE_STORE, the file's `store`, or\n"
    "                   ~/.cache/sluice/store); off: none. See sluice store --help\n"
    "  --explain        runs nothing; says for each stage whether it would be reused, or run and why\n"
    "  -j, --threads N  threads of the model runtime; changes speed, never what comes out\n"
    "  --quiet          neither progress nor the table at the end\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage or a mistake in the file, 3 wrong or damaged data, 130 stopped.\n\n"
    "Example:\n"
    "  sluice run pipelines/cream.cfg --set models.policy.path=DIR --set trust.use=keep --out runs/plain\n";

/* `threads` as one more override; NULL when out of memory. */
static const char **all_settings(const sl_words *set, const char *threads, size_t *count)
{
    const char **all = malloc((set->count + 1) * sizeof *all);
    *count = 0;
    for (size_t i = 0; all && i < set->count; i++)
        all[(*count)++] = set->items[i];
    if (all && threads)
        all[(*count)++] = threads;
    return all;
}

static int run_file(const sl_command *command, const char *file, const sl_words *set, const char *threads,
                    const sl_run_options *options)
{
    sl_registry *registry = sl_registry_open();
    size_t count, mistakes;
    const char **settings = all_settings(set, threads, &count);
    int code = SL_EXIT_FAILED;
    if (!registry || !settings) {
        sl_fail(command, code, "out of memory");
    } else {
        sl_plan *plan = sl_plan_read(file, settings, count, registry, stderr, true, &mistakes);
        code = plan ? sl_run(plan, registry, options) : SL_EXIT_USAGE;
        sl_plan_free(plan);
    }
    free(settings);
    sl_registry_close(registry);
    return code;
}

static int command_run(const sl_command *command, int argc, char **argv)
{
    sl_words set = {0}, rest = {0};
    sl_run_options run = {0};
    bool resume = false;
    int64_t threads = 0;
    char setting[64];
    const sl_option options[] = {{.name = "set", .kind = SL_WORDS, .to = &set},
                                 {.name = "out", .kind = SL_WORD, .to = &run.out},
                                 {.name = "resume", .kind = SL_FLAG, .to = &resume},
                                 {.name = "fresh", .kind = SL_FLAG, .to = &run.fresh},
                                 {.name = "store", .kind = SL_WORD, .to = &run.store},
                                 {.name = "explain", .kind = SL_FLAG, .to = &run.explain},
                                 {.name = "quiet", .kind = SL_FLAG, .to = &run.quiet},
                                 {"threads", 'j', SL_OPTION_INTEGER, &threads, 1, 4096},
                                 {0}};
    int code = sl_options_read(command, argc, argv, options, &rest);
    snprintf(setting, sizeof setting, "runtime.threads=%lld", (long long)threads);
    if (code < 0 && rest.count != 1)
        code = sl_usage(command, "one pipeline file is wanted, %zu are given", rest.count);
    if (code < 0 && run.out && !*run.out)
        code = sl_usage(command, "--out is empty; name a folder");
    if (code < 0 && run.store && !*run.store)
        code = sl_usage(command, "--store is empty; name a folder, or off");
    if (code < 0 && resume && run.fresh)
        code = sl_usage(command, "--resume and --fresh contradict each other");
    if (code < 0)
        code = run_file(command, rest.items[0], &set, threads > 0 ? setting : NULL, &run);
    sl_words_free(&set);
    sl_words_free(&rest);
    return code;
}

const sl_command sl_command_run = {"run", "runs a pipeline file, or goes on with it", help, command_run};
