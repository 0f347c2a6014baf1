/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * How far the stages are: on a terminal a line for each running stage, redrawn four times a second; elsewhere a line
 * when a stage starts and ends, and every ten seconds.
 */
#include "core/run/internal.h"

#include <stdlib.h>
#include <string.h>

static const double draw_every = 0.25, print_every = 10;

/* 1234567 → "1,234,567" */
static const char *grouped(uint64_t n, char *text)
{
    char digits[24];
    const int length = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n);
    char *to = text;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            *to++ = ',';
        *to++ = digits[i];
    }
    *to = '\0';
    return text;
}

static const char *duration(double seconds, char *text, size_t size)
{
    const long s = (long)(seconds + 0.5);
    if (seconds < 9.95)
        snprintf(text, size, "%.1f s", seconds);
    else if (s < 3600)
        snprintf(text, size, "%ld:%02ld", s / 60, s % 60);
    else
        snprintf(text, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    return text;
}

/* Records that will have come when the stage ends, as far as anybody upstream knows; 0 = unknown. */
static uint64_t expected(const sl_job *job)
{
    if (job->state == SL_JOB_DONE || job->state == SL_JOB_REUSED)
        return job->out;
    if (job->producer != NULL)
        return expected(job->producer);
    return job->unit[0] == '\0' || strcmp(job->unit, "records") == 0 ? job->total : 0;
}

static void name_line(sl_buffer *line, const sl_job *job)
{
    char where[96];
    sl_buffer_printf(line, "%-12s %-12s ", sl_job_where(job, where, sizeof where), job->stage->name);
}

/* "1,200/2,048 records  5,310 tokens/s  queue 12  0:42 left" */
static void describe(sl_buffer *line, const sl_job *job, double now)
{
    char a[32], b[32], unit[sizeof job->unit];
    const double seconds = now - job->began;
    uint64_t done = job->producer != NULL ? job->in : job->out;
    uint64_t total = job->producer != NULL ? expected(job->producer) : expected(job);
    pthread_mutex_lock(&job->run->lock);
    memcpy(unit, job->unit, sizeof unit);
    pthread_mutex_unlock(&job->run->lock);
    if (unit[0] != '\0' && job->total > 0) {
        done = job->done;
        total = job->total;
    }
    if (total == 0 && done == 0 && job->producer == NULL && unit[0] == '\0') {
        sl_buffer_printf(line, "running %s", duration(seconds, a, sizeof a));
        return;
    }
    if (total > 0)
        sl_buffer_printf(line, "%s/%s", grouped(done, a), grouped(total, b));
    else
        sl_buffer_printf(line, "%s", grouped(done, a));
    sl_buffer_printf(line, " %s", unit[0] != '\0' ? unit : "records");
    if (job->tokens > 0 && seconds > 0)
        sl_buffer_printf(line, "  %s tokens/s", grouped((uint64_t)((double)job->tokens / seconds), a));
    else if (done > 0 && seconds > 1)
        sl_buffer_printf(line, "  %s/s", grouped((uint64_t)((double)done / seconds), a));
    if (job->producer != NULL && job->producer->out > job->in)
        sl_buffer_printf(line, "  queue %s", grouped(job->producer->out - job->in, a));
    if (total > done && done > 0)
        sl_buffer_printf(line, "  %s left", duration(seconds * (double)(total - done) / (double)done, a, sizeof a));
}

static void say(const sl_job *job, sl_buffer *line)
{
    if (sl_buffer_append(line, "", 1) >= 0)
        sl_console_say(&job->run->console, "%s", (const char *)line->data);
    sl_buffer_free(line);
}

void sl_progress_started(const sl_job *job)
{
    sl_buffer line = {0};
    if (job->run->quiet || job->run->console.live)
        return;
    name_line(&line, job);
    sl_buffer_printf(&line, "started");
    say(job, &line);
}

void sl_progress_finished(const sl_job *job, double seconds)
{
    sl_buffer line = {0};
    char a[32], b[32];
    if (job->run->quiet)
        return;
    name_line(&line, job);
    sl_buffer_printf(&line, "done    ");
    if (job->producer != NULL || sl_stage_has_output(job->stage))
        sl_buffer_printf(&line, "%s records%s ", grouped(sl_stage_has_output(job->stage) ? job->out : job->in, a),
                         job->tokens > 0 ? "," : "");
    if (job->tokens > 0)
        sl_buffer_printf(&line, "%s tokens ", grouped(job->tokens, a));
    sl_buffer_printf(&line, "in %s", duration(seconds, b, sizeof b));
    if (job->tokens > 0 && seconds > 0)
        sl_buffer_printf(&line, " (%s tokens/s)", grouped((uint64_t)((double)job->tokens / seconds), a));
    say(job, &line);
}

void sl_progress_reused(const sl_job *job)
{
    sl_buffer line = {0};
    char a[32];
    if (job->run->quiet)
        return;
    name_line(&line, job);
    sl_buffer_printf(&line, job->stored ? "reused, from the store" : "reused");
    if (sl_stage_has_output(job->stage))
        sl_buffer_printf(&line, "  %s records", grouped(job->out, a));
    say(job, &line);
}

void sl_progress_tick(sl_execution *run, sl_job *jobs, size_t count)
{
    const double now = sl_clock();
    size_t running = 0;
    for (size_t j = 0; j < count; j++)
        running += jobs[j].state == SL_JOB_RUNNING;
    if (running != run->running && run->console.live) /* who has ended must not stand at the foot as well */
        run->drawn = 0;
    run->running = running;
    if (run->quiet || now - run->drawn < (run->console.live ? draw_every : print_every))
        return;
    if (run->drawn == 0 && !run->console.live) { /* the first ten seconds have the starts */
        run->drawn = now;
        return;
    }
    run->drawn = now;
    const size_t width = sl_console_width(&run->console); /* a line that wraps could not be redrawn */
    sl_buffer lines = {0};
    for (size_t j = 0; j < count; j++) {
        if (jobs[j].state != SL_JOB_RUNNING)
            continue;
        sl_buffer line = {0};
        name_line(&line, &jobs[j]);
        describe(&line, &jobs[j], now);
        if (run->console.live) {
            sl_buffer_printf(&lines, "%.*s\n", (int)(line.size < width ? line.size : width), (const char *)line.data);
            sl_buffer_free(&line);
        } else {
            say(&jobs[j], &line);
        }
    }
    if (run->console.live && sl_buffer_append(&lines, "", 1) >= 0)
        sl_console_draw(&run->console, (const char *)lines.data);
    sl_buffer_free(&lines);
}
