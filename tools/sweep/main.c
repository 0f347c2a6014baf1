/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* sluice sweep: an ablation study as one command. */
#include "tools/sweep/sweep.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "sluice sweep FILE [--set KEY=VALUE …] [--out DIR] [--metric STAGE/NAME …] [-j N] [--threads N] [--fresh] "
    "[--plan]\n\n"
    "Runs every variant of the file's `ablation` with every one of its `seeds`, each as a run in DIR/VARIANT-SEED.\n"
    "What they share is computed once. The same command again goes on where it was; finished runs are kept. A run "
    "that\n"
    "fails does not stop the others. Then a table: means with 95 % intervals (Student's t) and differences to the "
    "first\n"
    "variant, paired by seed; also written as DIR/table.json, table.csv and table.md.\n\n"
    "  --set KEY=VALUE      overrides a setting of all runs, as in `sluice run`; seeds=[1,2] too\n"
    "  --out DIR            the folder (default: the file's `out`, or runs/NAME-sweep)\n"
    "  --metric STAGE/NAME  what the table shows (default: accuracies of evaluators, label accuracies of rankers and\n"
    "                       regularizers)\n"
    "  -j, --jobs N         runs at once (1)\n"
    "  --threads N          threads of each run (default: the processors, divided among the runs at once)\n"
    "  --store DIR          the store by which the runs share (default: DIR/store of the sweep)\n"
    "  --fresh              forgets what earlier sweeps left in the folder\n"
    "  --plan               says what would run, what is shared and about how long it takes; runs nothing\n\n"
    "Exit codes: 0 done, 1 a run failed, 2 wrong usage or a mistake in the file, 130 stopped.\n\n"
    "Example:\n"
    "  sluice sweep pipelines/ablation-cream.cfg -j 2 --plan\n"
    "  sluice report runs/ablation-cream-sweep/*-*      # all runs beside each other, as a page\n";

static int name_failed(const sw_sweep *sweep)
{
    bool any = false;
    for (size_t r = 0; r < sweep->run_count; r++) {
        const sw_run *run = &sweep->runs[r];
        if (run->state != SW_FAILED)
            continue;
        fprintf(stderr, "sluice sweep: %s failed: %s\n", run->name, run->reason);
        any = true;
    }
    return any ? SL_EXIT_FAILED : SL_EXIT_OK;
}

/* Every metric that was asked for by name is somewhere. */
static void name_missing(const sw_table *table, const sl_words *metrics)
{
    for (size_t m = 0; m < metrics->count; m++) {
        bool found = false;
        for (size_t i = 0; i < table->count && !found; i++) {
            const sw_row *row = &table->rows[i];
            const size_t n = strlen(row->stage);
            found = strncmp(metrics->items[m], row->stage, n) == 0 && metrics->items[m][n] == '/' &&
                    strcmp(metrics->items[m] + n + 1, row->metric) == 0;
        }
        if (!found)
            fprintf(
                stderr,
                "sluice sweep: no run reported '%s'; `grep -o '\"[^\"]*\":' RUN/metrics.jsonl` shows what there is\n",
                metrics->items[m]);
    }
}

static int tell(sw_sweep *sweep, const sl_words *metrics)
{
    char error[SL_ERROR_SIZE];
    sw_table table;
    if (sw_table_read(sweep, metrics, &table) < 0)
        return sl_fail(sweep->command, SL_EXIT_FAILED, "out of memory");
    if (sw_table_write(&table, error) < 0)
        return sl_fail(sweep->command, SL_EXIT_FAILED, "%s", error);
    sw_table_print(&table, stdout);
    name_missing(&table, metrics);
    printf("\n%s/table.md, table.csv, table.json\n", sweep->folder);
    return SL_EXIT_OK;
}

static bool has_stage(const sl_plan *plan, const char *name, size_t length)
{
    for (size_t p = 0; p < plan->phase_count; p++)
        for (size_t s = 0; s < plan->phases[p].stage_count; s++)
            if (strncmp(plan->phases[p].stages[s].name, name, length) == 0 &&
                plan->phases[p].stages[s].name[length] == '\0')
                return true;
    return false;
}

/* A mistyped stage is told of before anything runs; which numbers a stage will report is known afterwards alone. */
static int check_metrics(const sw_sweep *sweep, const sl_words *metrics)
{
    for (size_t m = 0; m < metrics->count; m++) {
        const size_t length = strcspn(metrics->items[m], "/");
        bool found = false;
        for (size_t r = 0; r < sweep->run_count && !found; r++)
            found = has_stage(sweep->runs[r].plan, metrics->items[m], length);
        if (!found)
            return sl_fail(sweep->command, SL_EXIT_USAGE, "--metric %s: %s has no stage '%.*s'", metrics->items[m],
                           sweep->file, (int)length, metrics->items[m]);
    }
    return -1;
}

static int sweep_file(sw_sweep *sweep, const sl_words *settings, const sl_words *metrics, const char *out, bool fresh,
                      bool plan)
{
    sw_take_signals(); /* before anything that takes time */
    sweep->arena = sl_arena_new();
    sweep->registry = sl_registry_open();
    if (sweep->arena == NULL || sweep->registry == NULL)
        return sl_fail(sweep->command, SL_EXIT_FAILED, "out of memory");
    int code = sw_runs_read(sweep, settings, out);
    if (code < 0)
        code = check_metrics(sweep, metrics);
    if (code >= 0)
        return code;
    if (sw_share_find(sweep) < 0)
        return sl_fail(sweep->command, SL_EXIT_FAILED, "out of memory");
    if (plan)
        return sw_plan_print(sweep, stdout);
    code = sw_execute(sweep, fresh);
    if (code == SL_EXIT_CANCELLED)
        return code;
    const int told = tell(sweep, metrics);
    return name_failed(sweep) != SL_EXIT_OK ? SL_EXIT_FAILED : code != SL_EXIT_OK ? code : told;
}

/* The user's settings and, as one more of them, the threads of each run. */
static int add_threads(const sw_sweep *sweep, sl_words *settings, int64_t threads, char text[64])
{
    const int64_t processors = sysconf(_SC_NPROCESSORS_ONLN);
    if (threads == 0 && sweep->parallel > 1)
        threads = processors > sweep->parallel ? processors / sweep->parallel : 1;
    if (threads == 0)
        return -1;
    const char **items = realloc(settings->items, (settings->count + 1) * sizeof *items);
    if (items == NULL)
        return sl_fail(sweep->command, SL_EXIT_FAILED, "out of memory");
    snprintf(text, 64, "runtime.threads=%lld", (long long)threads);
    settings->items = items;
    items[settings->count++] = text;
    return -1;
}

int main(int argc, char **argv)
{
    static const sl_command command = {"sweep", "", help, NULL};
    sw_sweep sweep = {.command = &command, .parallel = 1};
    sl_words settings = {0}, metrics = {0}, files = {0};
    const char *out = NULL;
    char text[64];
    bool fresh = false, plan = false;
    int64_t threads = 0;
    const sl_option options[] = {{.name = "set", .kind = SL_WORDS, .to = &settings},
                                 {.name = "out", .kind = SL_WORD, .to = &out},
                                 {.name = "metric", .kind = SL_WORDS, .to = &metrics},
                                 {"jobs", 'j', SL_OPTION_INTEGER, &sweep.parallel, 1, 1024},
                                 {"threads", 0, SL_OPTION_INTEGER, &threads, 1, 4096},
                                 {.name = "store", .kind = SL_WORD, .to = &sweep.store},
                                 {.name = "fresh", .kind = SL_FLAG, .to = &fresh},
                                 {.name = "plan", .kind = SL_FLAG, .to = &plan},
                                 {0}};
    int code = sl_options_read(&command, argc - 1, argv + 1, options, &files);
    if (code < 0 && files.count != 1)
        code = sl_usage(&command, "one pipeline file is wanted, %zu are given", files.count);
    if (code < 0 && out != NULL && out[0] == '\0')
        code = sl_usage(&command, "--out is empty; name a folder");
    if (code < 0 && sweep.store != NULL && (sweep.store[0] == '\0' || strcmp(sweep.store, "off") == 0))
        code = sl_usage(&command, "the runs of a sweep share by a store; name its folder, or leave --store out");
    if (code < 0 && sweep.store != NULL && fresh)
        code = sl_usage(&command, "--fresh forgets the sweep's own store alone; leave --store out");
    for (size_t m = 0; code < 0 && m < metrics.count; m++)
        if (strchr(metrics.items[m], '/') == NULL || metrics.items[m][0] == '/')
            code = sl_usage(&command, "--metric %s names no stage; write STAGE/NAME, such as eval/accuracy",
                            metrics.items[m]);
    if (code < 0)
        code = add_threads(&sweep, &settings, threads, text);
    if (code < 0) {
        sweep.file = files.items[0];
        code = sweep_file(&sweep, &settings, &metrics, out, fresh, plan);
    }
    sw_runs_free(&sweep);
    sl_registry_close(sweep.registry);
    sl_arena_free(sweep.arena);
    sl_words_free(&settings);
    sl_words_free(&metrics);
    sl_words_free(&files);
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == SL_EXIT_OK)
        code = sl_fail(&command, SL_EXIT_FAILED, "writing to standard output failed: %s", strerror(errno));
    return code;
}
