/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A plan is read, and shown instead of run. */
#include "core/cli/cli.h"
#include "core/plan/plan.h"

static const char check_help[] =
    "sluice check FILE [--set KEY=VALUE …] [--no-files]\n\n"
    "Finds every mistake in a pipeline file without running it, each with its line, the stage, what was expected\n"
    "and the nearest right name, in the file and in every variant of its ablation; then prints the plan with every\n"
    "model version resolved.\n\n"
    "  --set KEY=VALUE  overrides a setting, as in `sluice run`\n"
    "  --no-files       does not look whether files and models exist\n\n"
    "Exit codes: 0 nothing wrong, 1 failed, 2 mistakes were found.\n\n"
    "Example:\n"
    "  sluice check pipelines/cream.cfg --set trust.use=label-smoothing\n";

static int command_check(const sl_command *command, int argc, char **argv)
{
    sl_words set = {0}, rest = {0};
    bool no_files = false;
    const sl_option options[] = {
        {.name = "set", .kind = SL_WORDS, .to = &set}, {.name = "no-files", .kind = SL_FLAG, .to = &no_files}, {0}};
    int code = sl_options_read(command, argc, argv, options, &rest);
    sl_registry *registry = NULL;
    if (code < 0 && rest.count != 1)
        code = sl_usage(command, "one pipeline file is wanted, %zu are given", rest.count);
    if (code < 0 && !(registry = sl_registry_open()))
        code = sl_fail(command, SL_EXIT_FAILED, "out of memory");
    if (code < 0) {
        size_t mistakes;
        sl_plan *plan = sl_plan_read(rest.items[0], set.items, set.count, registry, stderr, !no_files, &mistakes);
        if (plan)
            sl_plan_print(plan, stdout);
        else
            fprintf(stderr, "%zu mistake%s\n", mistakes, mistakes == 1 ? "" : "s");
        code = plan ? SL_EXIT_OK : SL_EXIT_USAGE;
        sl_plan_free(plan);
    }
    sl_registry_close(registry);
    sl_words_free(&set);
    sl_words_free(&rest);
    return code;
}

const sl_command sl_command_check = {"check", "finds every mistake in a pipeline file, prints the plan", check_help,
                                     command_check};
