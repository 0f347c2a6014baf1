/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Which runs a sweep has: the file is read once for each, so that every mistake is said before anything runs. */
#include "tools/sweep/sweep.h"

#include <stdlib.h>
#include <string.h>

/* The plan of one run; with NULL of the file itself. */
static sl_plan *read_plan(sw_sweep *sweep, const sl_words *settings, const char *variant, const char *seed, FILE *out)
{
    size_t count = 0, mistakes;
    const char **all = sl_arena_alloc(sweep->arena, (settings->count + 2) * sizeof *all);
    if (all == NULL)
        return NULL;
    for (; count < settings->count; count++)
        all[count] = settings->items[count];
    if (variant != NULL)
        all[count++] = variant;
    if (seed != NULL)
        all[count++] = seed;
    return sl_plan_read(sweep->file, all, count, sweep->registry, out, true, &mistakes);
}

static int make_jobs(sw_sweep *sweep, sw_run *run)
{
    const sl_plan *plan = run->plan;
    size_t block = 0;
    for (size_t p = 0; p < plan->phase_count; p++)
        run->job_count += plan->phases[p].stage_count * (size_t)plan->phases[p].repeat;
    run->jobs = sl_arena_alloc(sweep->arena, (run->job_count + 1) * sizeof *run->jobs);
    sw_job *job = run->jobs;
    if (job == NULL)
        return SLUICE_NO_MEMORY;
    for (size_t p = 0; p < plan->phase_count; p++)
        for (int64_t i = 0; i < plan->phases[p].repeat; i++, block++)
            for (size_t s = 0; s < plan->phases[p].stage_count; s++)
                *job++ = (sw_job){.stage = &plan->phases[p].stages[s], .iteration = i, .block = block};
    return SLUICE_OK;
}

/* Remarks were printed once, for the file itself: a run's plan is read without a word. */
static int make_run(sw_sweep *sweep, const sl_words *settings, const char *variant, uint64_t seed, bool named,
                    FILE *nowhere)
{
    sw_run *run = &sweep->runs[sweep->run_count++];
    run->variant = variant;
    run->seed = seed;
    run->name = sl_arena_printf(sweep->arena, "%s-%llu", variant, (unsigned long long)seed);
    run->folder = sl_arena_printf(sweep->arena, "%s/%s", sweep->folder, run->name);
    const char *choose = named ? sl_arena_printf(sweep->arena, "variant=%s", variant) : NULL;
    const char *sow = sl_arena_printf(sweep->arena, "seed=%llu", (unsigned long long)seed);
    if (run->name == NULL || run->folder == NULL || sow == NULL || (named && choose == NULL))
        return sl_fail(sweep->command, SL_EXIT_FAILED, "out of memory");
    run->plan = read_plan(sweep, settings, choose, sow, nowhere);
    if (run->plan == NULL)
        return sl_fail(sweep->command, SL_EXIT_USAGE, "%s cannot be read any more", sweep->file);
    return make_jobs(sweep, run) < 0 ? sl_fail(sweep->command, SL_EXIT_FAILED, "out of memory") : -1;
}

/* A sink's file would be every run's file. */
static void warn_of_sinks(const sw_sweep *sweep, const sl_plan *plan)
{
    for (size_t p = 0; p < plan->phase_count; p++)
        for (size_t s = 0; s < plan->phases[p].stage_count; s++) {
            const sl_stage *stage = &plan->phases[p].stages[s];
            for (size_t v = 0; stage->object.type->type->kind == SLUICE_SINK && v < stage->object.value_count; v++)
                if (stage->object.values[v].param->type == SLUICE_TYPE_FILE && stage->object.values[v].text != NULL)
                    fprintf(stderr, "sluice %s: stage '%s' writes %s: each run replaces what the one before wrote\n",
                            sweep->command->name, stage->name, stage->object.values[v].text);
        }
}

static bool is_repeated(const uint64_t *seeds, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (seeds[k] == seeds[i])
            return true;
    return false;
}

/* Variants and seeds of the file; without any, the file itself and its own seed. */
static int make_runs(sw_sweep *sweep, sl_plan *base, const sl_words *settings, FILE *nowhere)
{
    const bool named = base->variant_count > 0;
    const char **alone = sl_arena_alloc(sweep->arena, sizeof *alone);
    if (alone == NULL)
        return sl_fail(sweep->command, SL_EXIT_FAILED, "out of memory");
    alone[0] = base->name;
    sweep->variants = named ? base->variants : alone;
    sweep->variant_count = named ? base->variant_count : 1;
    sweep->seeds = base->seed_count > 0 ? base->seeds : &base->seed;
    sweep->seed_count = base->seed_count > 0 ? base->seed_count : 1;
    sweep->runs = sl_arena_alloc(sweep->arena, sweep->variant_count * sweep->seed_count * sizeof *sweep->runs);
    int code = sweep->runs != NULL ? -1 : sl_fail(sweep->command, SL_EXIT_FAILED, "out of memory");
    for (size_t v = 0; code < 0 && v < sweep->variant_count; v++)
        for (size_t s = 0; code < 0 && s < sweep->seed_count; s++)
            code = make_run(sweep, settings, sweep->variants[v], sweep->seeds[s], named, nowhere);
    return code;
}

int sw_runs_read(sw_sweep *sweep, const sl_words *settings, const char *out)
{
    sl_plan *base = sweep->base = read_plan(sweep, settings, NULL, NULL, stderr);
    FILE *nowhere = fopen("/dev/null", "we");
    int code = -1;
    if (base == NULL)
        code = SL_EXIT_USAGE;
    else if (nowhere == NULL)
        code = sl_fail(sweep->command, SL_EXIT_FAILED, "/dev/null cannot be opened");
    else if (base->variant != NULL)
        code = sl_usage(sweep->command, "a sweep runs all variants; leave variant=%s out", base->variant);
    else if (base->variant_count == 0 && base->seed_count == 0)
        code =
            sl_fail(sweep->command, SL_EXIT_USAGE,
                    "%s has neither ablation nor seeds: there is nothing to sweep; add seeds = [1, 2, 3]; or ablation "
                    "= { VARIANT = { STAGE = { param = value; }; }; };",
                    sweep->file);
    for (size_t s = 0; code < 0 && s < base->seed_count; s++)
        if (is_repeated(base->seeds, s))
            code = sl_fail(sweep->command, SL_EXIT_USAGE, "%s has the seed %llu twice; each names a folder",
                           sweep->file, (unsigned long long)base->seeds[s]);
    if (code < 0) {
        sweep->folder = out != NULL         ? sl_arena_strdup(sweep->arena, out)
                        : base->out != NULL ? sl_arena_strdup(sweep->arena, base->out)
                                            : sl_arena_printf(sweep->arena, "runs/%s-sweep", base->name);
        sweep->own_store = sweep->store == NULL;
        if (sweep->own_store)
            sweep->store = sl_arena_printf(sweep->arena, "%s/store", sweep->folder);
        warn_of_sinks(sweep, base);
        code = make_runs(sweep, base, settings, nowhere);
    }
    if (nowhere != NULL)
        fclose(nowhere);
    return code;
}

void sw_runs_free(sw_sweep *sweep)
{
    for (size_t r = 0; r < sweep->run_count; r++)
        sl_plan_free(sweep->runs[r].plan);
    sl_plan_free(sweep->base);
}
