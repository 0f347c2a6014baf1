/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics sinks: they are told the lines of metrics.jsonl, in its order, by the main thread. The lines of the job whose
 * turn it is are told while it runs; those of jobs beside it when it has ended.
 */
#include "core/run/internal.h"
#include "core/run/lines.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct sl_sink {
    sl_host host;
    sl_instance instance;
    bool broken; /* it failed once, and is told nothing more */
};

static const sluice_metrics_class *class_of(const sl_sink *sink)
{
    return (const sluice_metrics_class *)(const void *)sink->instance.type;
}

static void give_up(sl_execution *run, sl_sink *sink, const char *id, int code)
{
    sink->broken = true;
    sl_console_line(&run->console, SLUICE_LOG_WARNING,
                    "warning: metrics sink '%s' gets no more numbers: %s; the run goes on without it", id,
                    sink->host.error[0] != '\0' ? sink->host.error : sl_result_text(code));
}

void sl_sinks_begin(sl_execution *run)
{
    const sl_plan *plan = run->plan;
    run->sinks = plan->sink_count > 0 ? calloc(plan->sink_count, sizeof *run->sinks) : NULL;
    for (size_t i = 0; run->sinks != NULL && i < plan->sink_count; i++, run->sink_count++) {
        sl_sink *sink = &run->sinks[i];
        const char *id = plan->sinks[i].type->type->id;
        sl_host_init(&sink->host, id, plan->seed, &run->services, &run->console, NULL);
        sink->host.folder = run->folder;
        const int rc = sl_instance_begin(&sink->instance, &plan->sinks[i], NULL, 0, NULL, &sink->host, run->arena);
        if (rc < 0)
            give_up(run, sink, id, rc);
    }
}

void sl_sinks_end(sl_execution *run)
{
    for (size_t i = 0; i < run->sink_count; i++) {
        sl_sink *sink = &run->sinks[i];
        if (sink->instance.type == NULL)
            continue;
        const sluice_metrics_class *type = class_of(sink);
        const int rc = !sink->broken && type->finish != NULL ? type->finish(sink->instance.state) : SLUICE_OK;
        if (rc < 0)
            give_up(run, sink, type->base.id, rc);
        sl_instance_end(&sink->instance);
    }
    free(run->sinks);
    run->sinks = NULL;
    run->sink_count = 0;
}

/* One line, read back: names lie in `arena`. */
typedef struct reading {
    sl_arena *arena;
    sluice_number *numbers;
    size_t count, capacity;
    int64_t step;
} reading;

static int take_member(void *context, const char *name, const char *text, double value)
{
    reading *r = context;
    if (text != NULL || strcmp(name, "iteration") == 0)
        return SLUICE_OK;
    if (strcmp(name, "step") == 0) {
        r->step = (int64_t)value;
        return SLUICE_OK;
    }
    sluice_number *numbers = sl_items_grow(r->numbers, r->count, &r->capacity, sizeof *numbers);
    if (numbers == NULL)
        return SLUICE_NO_MEMORY;
    r->numbers = numbers;
    const char *kept = sl_arena_strdup(r->arena, name);
    if (kept == NULL)
        return SLUICE_NO_MEMORY;
    r->numbers[r->count++] = (sluice_number){kept, value};
    return SLUICE_OK;
}

static void tell_all(sl_execution *run, const sluice_metrics_line *line)
{
    for (size_t i = 0; i < run->sink_count; i++) {
        sl_sink *sink = &run->sinks[i];
        const int rc = sink->broken ? SLUICE_OK : class_of(sink)->line(sink->instance.state, line);
        if (rc < 0)
            give_up(run, sink, class_of(sink)->base.id, rc);
    }
}

/* When the note of a job that is reused was written. */
static double time_of_done(const sl_job *job, sl_arena *arena)
{
    struct stat s;
    const char *path = sl_job_path(job, ".done", arena);
    return path != NULL && stat(path, &s) == 0 ? (double)s.st_mtim.tv_sec + 1e-9 * (double)s.st_mtim.tv_nsec : 0;
}

void sl_sinks_tell(sl_execution *run, sl_job *job)
{
    sl_buffer lines = {0}, times = {0};
    sl_arena *arena = run->sink_count > 0 ? sl_arena_new() : NULL;
    if (arena == NULL)
        return;
    pthread_mutex_lock(&run->lock); /* its thread may be adding to them */
    int rc = sl_buffer_append(&lines, (const char *)job->lines.data + job->told, job->lines.size - job->told);
    if (rc >= 0 && job->times.size > job->told_times)
        rc = sl_buffer_append(&times, job->times.data + job->told_times, job->times.size - job->told_times);
    if (rc >= 0) {
        job->told = job->lines.size;
        job->told_times = job->times.size;
    }
    pthread_mutex_unlock(&run->lock);
    const bool reused = job->state == SL_JOB_REUSED;
    const double before = reused ? time_of_done(job, arena) : 0;
    reading r = {.arena = arena};
    const char *at = (const char *)lines.data, *end;
    for (size_t n = 0; rc >= 0 && lines.size > 0 && at < (const char *)lines.data + lines.size; n++, at = end + 1) {
        end = memchr(at, '\n', lines.size - (size_t)(at - (const char *)lines.data));
        if (end == NULL)
            break;
        r.count = 0;
        r.step = -1;
        if (sl_line_read(at, end, take_member, &r) < 0)
            continue;
        sluice_metrics_line line = {.size = sizeof line,
                                    .phase = job->stage->phase->name,
                                    .stage = job->stage->name,
                                    .iteration = job->iteration + 1,
                                    .step = r.step,
                                    .numbers = r.numbers,
                                    .count = r.count,
                                    .time = before,
                                    .reused = reused};
        if ((n + 1) * sizeof(double) <= times.size)
            memcpy(&line.time, times.data + n * sizeof(double), sizeof(double));
        tell_all(run, &line);
    }
    free(r.numbers);
    sl_buffer_free(&lines);
    sl_buffer_free(&times);
    sl_arena_free(arena);
}
