/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* How long each stage took, at the end of a run. */
#include "core/run/internal.h"

#include <string.h>

/* A stage over its iterations. */
typedef struct total {
    const sl_stage *stage;
    size_t ran;
    uint64_t in, out, tokens_in, tokens_out, raw, compressed;
    double seconds, waiting, writing;
} total;

static total add_up(const sl_execution *run, const sl_stage *stage)
{
    total t = {.stage = stage};
    for (size_t j = 0; j < run->job_count; j++) {
        const sl_job *job = &run->jobs[j];
        if (job->stage != stage)
            continue;
        t.ran += job->state == SL_JOB_DONE;
        if (job->state != SL_JOB_DONE)
            continue;
        t.in += job->in;
        t.out += job->out;
        t.tokens_in += job->tokens_in;
        t.tokens_out += job->tokens_out;
        t.raw += job->bytes_raw;
        t.compressed += job->bytes_compressed;
        t.seconds += job->seconds;
        t.waiting += job->waiting;
        t.writing += job->writing;
    }
    return t;
}

static void print_row(const total *t, FILE *out)
{
    char bytes[48] = "";
    if (t->compressed > 0)
        snprintf(bytes, sizeof bytes, "%.1f > %.1f kB", (double)t->raw / 1e3, (double)t->compressed / 1e3);
    else if (t->stage->in_memory)
        snprintf(bytes, sizeof bytes, "in memory");
    fprintf(out, "%-16s %8llu %8llu %10llu %10llu %8.1f %8.1f %8.1f  %20s\n", t->stage->name, (unsigned long long)t->in,
            (unsigned long long)t->out, (unsigned long long)t->tokens_in, (unsigned long long)t->tokens_out,
            t->seconds - t->waiting, t->waiting, t->writing, bytes);
}

void sl_times_print(const sl_execution *run, FILE *out)
{
    uint64_t memory = 0;
    size_t rows = 0;
    for (size_t j = 0; j < run->job_count; j++)
        memory = run->jobs[j].memory > memory ? run->jobs[j].memory : memory;
    for (size_t p = 0; p < run->plan->phase_count; p++)
        for (size_t s = 0; s < run->plan->phases[p].stage_count; s++) {
            const total t = add_up(run, &run->plan->phases[p].stages[s]);
            if (t.ran == 0)
                continue;
            if (rows++ == 0)
                fprintf(out, "\n%-16s %8s %8s %10s %10s %8s %8s %8s  %20s\n", "stage", "in", "out", "tokens in",
                        "tokens out", "busy s", "waited", "writing", "stream");
            print_row(&t, out);
        }
    if (rows > 0)
        fprintf(out, "at most %.0f MB of memory\n\n", (double)memory / 1e6);
}
