/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What a sweep will do, before it does it; and how long, from what the same stages took in runs that are there. */
#include "tools/report/data.h"
#include "tools/report/page.h"
#include "tools/sweep/sweep.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Runs whose times are looked at: those of the sweep, and the file's own. */
typedef struct history {
    rp_run **runs;
    size_t count;
} history;

static bool same_value(const sl_value *a, const sl_value *b)
{
    if (a->param->type == SLUICE_TYPE_FILE && (a->text == NULL) == (b->text == NULL))
        return true; /* times do not hang on where a file lies */
    return a->number == b->number && a->integer == b->integer && a->count == b->count &&
           (a->text == NULL) == (b->text == NULL) && (a->text == NULL || strcmp(a->text, b->text) == 0);
}

/* The same class with the same settings, and so all that it reads from: it will have as much to do. */
static bool same_work(const sl_stage *a, const sl_stage *b)
{
    if (strcmp(a->name, b->name) != 0 || strcmp(a->id, b->id) != 0 || a->from_count != b->from_count ||
        a->object.value_count != b->object.value_count)
        return false;
    for (size_t v = 0; v < a->object.value_count; v++)
        if (!a->object.values[v].param->speed_only && !same_value(&a->object.values[v], &b->object.values[v]))
            return false;
    for (size_t f = 0; f < a->from_count; f++)
        if (!same_work(a->from[f], b->from[f]))
            return false;
    return true;
}

/* What a second of a busy stage was of a second on the clock: stages of a run work at the same time. */
static double clock_of_busy(const rp_run *run)
{
    double busy = 0;
    for (size_t i = 0; i < run->timing_count; i++)
        busy += run->timings[i].busy;
    const double clock = rp_seconds(run->started, run->ended);
    return busy > 0 && run->state == RP_DONE && clock > 0 && clock < busy ? clock / busy : 1;
}

/* Mean seconds on the clock of a job over past runs; NaN when it never ran. */
static double seconds_of(const history *past, const sw_job *job)
{
    double sum = 0;
    size_t count = 0;
    for (size_t r = 0; r < past->count; r++) {
        const rp_run *run = past->runs[r];
        const sl_stage *stage = rp_stage(run, job->stage->phase->name, job->stage->name);
        if (stage == NULL || !same_work(stage, job->stage))
            continue;
        for (size_t i = 0; i < run->timing_count; i++) {
            const rp_timing *t = &run->timings[i];
            if (strcmp(t->stage, stage->name) == 0 && strcmp(t->phase, stage->phase->name) == 0) {
                sum += t->busy * clock_of_busy(run);
                count++;
            }
        }
    }
    return count > 0 ? sum / (double)count : NAN;
}

static void open_past(const sw_sweep *sweep, history *past)
{
    char error[SL_ERROR_SIZE], path[PATH_MAX];
    past->runs = sl_arena_alloc(sweep->arena, (sweep->run_count + 1) * sizeof *past->runs);
    for (size_t r = 0; past->runs != NULL && r <= sweep->run_count; r++) {
        snprintf(path, sizeof path, "runs/%s", sweep->base->name);
        const char *folder = r < sweep->run_count ? sweep->runs[r].folder : path;
        rp_run *run = sl_path_exists(folder) ? rp_run_open(folder, sweep->registry, error) : NULL;
        if (run != NULL && run->plan != NULL)
            past->runs[past->count++] = run;
        else
            rp_run_close(run);
    }
}

static void print_time(const sw_sweep *sweep, double seconds, const char *unknown, FILE *out)
{
    char number[RP_NUMBER];
    if (seconds <= 0 && unknown != NULL)
        fprintf(out, "Time: unknown; no earlier run of %s tells. After the first run it will be known.\n", sweep->file);
    else if (unknown != NULL)
        fprintf(out, "Time: about %s one run after another, and more for '%s' and others, which never ran.\n",
                rp_duration_text(seconds, number), unknown);
    else
        fprintf(out, "Time: about %s one run after another, from what the same stages took before.\n",
                rp_duration_text(seconds, number));
}

int sw_plan_print(sw_sweep *sweep, FILE *out)
{
    history past = {0};
    double all = 0;
    size_t jobs = 0, shared = 0, there = 0;
    const char *unknown = NULL;
    open_past(sweep, &past);
    fprintf(out, "%zu runs in %s: %zu variant%s, %zu seed%s\n\n%-28s %8s %8s %8s\n", sweep->run_count, sweep->folder,
            sweep->variant_count, sweep->variant_count == 1 ? "" : "s", sweep->seed_count,
            sweep->seed_count == 1 ? "" : "s", "run", "to run", "shared", "finished");
    for (size_t r = 0; r < sweep->run_count; r++) {
        const sw_run *run = &sweep->runs[r];
        size_t of_others = 0, done = 0;
        for (size_t j = 0; j < run->job_count; j++) {
            const sw_job *job = &run->jobs[j];
            if (sw_share_done(run, job)) {
                done++;
            } else if (job->owner < r) {
                of_others++;
            } else {
                const double seconds = seconds_of(&past, job);
                if (isnan(seconds) && unknown == NULL)
                    unknown = job->stage->name;
                all += isnan(seconds) ? 0 : seconds;
            }
        }
        fprintf(out, "%-28s %8zu %8zu %8zu\n", run->name, run->job_count - of_others - done, of_others, done);
        jobs += run->job_count;
        shared += of_others;
        there += done;
    }
    fprintf(out,
            "\nOf %zu stages %zu are to run, %zu are shared with a run before, %zu are finished (whether they may be "
            "reused "
            "is seen when they are met).\n",
            jobs, jobs - shared - there, shared, there);
    print_time(sweep, all, unknown, out);
    for (size_t r = 0; r < past.count; r++)
        rp_run_close(past.runs[r]);
    return SL_EXIT_OK;
}
