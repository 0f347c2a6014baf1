/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics.jsonl: one line a step of training and one a stage, in the plan's order, without a clock: the same run gives
 * the same bytes. timing.jsonl: how long what took.
 *
 * Lines are kept with their job until it ends, and in its .done file, from which they come back when the job is reused.
 */
#include "core/run/internal.h"
#include "core/base/json.h"
#include "core/run/lines.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int add_string(sl_buffer *out, const char *text)
{
    return sl_json_string(out, text, strlen(text));
}

static int open_line(sl_job *job, sl_buffer *out)
{
    int rc = sl_buffer_printf(out, "{\"phase\":");
    if (rc >= 0)
        rc = add_string(out, job->stage->phase->name);
    if (rc >= 0)
        rc = sl_buffer_printf(out, ",\"iteration\":%lld,\"stage\":", (long long)job->iteration + 1);
    return rc >= 0 ? add_string(out, job->stage->name) : rc;
}

static int add_number(sl_job *job, sl_buffer *out, const char *name, double value)
{
    int rc = sl_buffer_append(out, ",", 1);
    if (rc >= 0)
        rc = add_string(out, name);
    if (rc >= 0)
        rc = sl_buffer_append(out, ":", 1);
    if (!isfinite(value) && !job->warned) {
        job->warned = true;
        sluice_log(&job->host.public, SLUICE_LOG_WARNING, "metric '%s' is %s: null is written instead", name,
                   isnan(value) ? "no number" : "infinite");
    }
    return rc >= 0 ? sl_json_double(out, value) : rc;
}

/* Ends the line and adds it to the job's; the main thread may be telling the metrics sinks of those before it. */
static int close_line(sl_job *job, sl_buffer *line)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    const double now = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    int rc = sl_buffer_append(line, "}\n", 2);
    pthread_mutex_lock(&job->run->lock);
    if (rc >= 0)
        rc = sl_buffer_append(&job->lines, line->data, line->size);
    if (rc >= 0 && job->run->sink_count > 0)
        rc = sl_buffer_append(&job->times, &now, sizeof now);
    pthread_mutex_unlock(&job->run->lock);
    sl_buffer_free(line);
    return rc;
}

/* A number of the whole stage: said again, it replaces the first. */
static void keep(sl_job *job, const char *name, double value)
{
    for (size_t i = 0; i < job->number_count; i++)
        if (strcmp(job->numbers[i].name, name) == 0) {
            job->numbers[i].value = value;
            return;
        }
    sluice_number *more = realloc(job->numbers, (job->number_count + 1) * sizeof *more);
    if (more != NULL) {
        job->numbers = more;
        more[job->number_count].name = strdup(name);
        more[job->number_count].value = value;
    }
    if (more != NULL && more[job->number_count].name != NULL)
        job->number_count++;
    else
        job->lost = true;
}

void sl_metrics_add(sl_job *job, int64_t step, const sluice_number *numbers, size_t count)
{
    if (step < 0) {
        for (size_t i = 0; i < count; i++)
            keep(job, numbers[i].name, numbers[i].value);
        return;
    }
    sl_buffer line = {0};
    int rc = open_line(job, &line);
    if (rc >= 0)
        rc = sl_buffer_printf(&line, ",\"step\":%lld", (long long)step);
    for (size_t i = 0; rc >= 0 && i < count; i++)
        rc = add_number(job, &line, numbers[i].name, numbers[i].value);
    if (rc >= 0)
        rc = close_line(job, &line);
    else
        sl_buffer_free(&line);
    job->lost = job->lost || rc < 0;
}

int sl_metrics_kept(const sl_job *job)
{
    return job->lost ? sluice_error(&job->host.public, SLUICE_NO_MEMORY, "out of memory for its metrics") : SLUICE_OK;
}

int sl_metrics_seal(sl_job *job)
{
    sl_model_use use;
    bool publishes;
    int rc = sl_metrics_kept(job);
    if (rc < 0 || job->number_count == 0)
        return rc;
    sl_buffer line = {0};
    rc = open_line(job, &line);
    if (rc >= 0 && sl_version_subject(job, &use, &publishes))
        rc = sl_buffer_printf(&line, ",\"model\":\"%s@%lld\"", job->run->plan->slots[use.slot].name,
                              (long long)use.version);
    for (size_t i = 0; rc >= 0 && i < job->number_count; i++)
        rc = add_number(job, &line, job->numbers[i].name, job->numbers[i].value);
    if (rc >= 0)
        return close_line(job, &line);
    sl_buffer_free(&line);
    return rc;
}

void sl_metrics_forget(sl_job *job)
{
    for (size_t i = 0; i < job->number_count; i++)
        free((char *)(uintptr_t)job->numbers[i].name);
    job->number_count = 0;
    job->lost = false;
    job->lines.size = job->times.size = job->told = job->told_times = 0;
    atomic_store(&job->out, 0);
}

/* Numbers of a stage's own line: a line of one step has "step" before its numbers, and is not looked through. */
static int restore_number(void *job, const char *name, const char *text, double value)
{
    if (strcmp(name, "step") == 0)
        return SLUICE_END;
    if (text == NULL && strcmp(name, "iteration") != 0)
        keep(job, name, value);
    return SLUICE_OK;
}

int sl_metrics_restore(sl_job *job, const char *lines)
{
    sl_metrics_forget(job);
    const size_t size = strlen(lines);
    if (size > 0 && lines[size - 1] != '\n')
        return SLUICE_CORRUPT;
    for (const char *line = lines, *end; *line != '\0'; line = end + 1) {
        end = strchr(line, '\n');
        const int rc = sl_line_read(line, end, restore_number, job);
        if (rc < 0)
            return rc;
    }
    if (job->lost)
        return SLUICE_NO_MEMORY;
    return size > 0 ? sl_buffer_append(&job->lines, lines, size) : SLUICE_OK;
}

int sl_metrics_take(sl_job *job, const char *lines, size_t size)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    const double now = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    if (size == 0)
        return SLUICE_OK;
    if (lines[size - 1] != '\n')
        return SLUICE_CORRUPT;
    pthread_mutex_lock(&job->run->lock);
    int rc = sl_buffer_append(&job->lines, lines, size);
    for (size_t i = 0; rc >= 0 && job->run->sink_count > 0 && i < size; i++)
        if (lines[i] == '\n')
            rc = sl_buffer_append(&job->times, &now, sizeof now);
    pthread_mutex_unlock(&job->run->lock);
    return rc;
}

static int write_all(int fd, const void *bytes, size_t size)
{
    for (size_t done = 0; done < size;) {
        const ssize_t n = write(fd, (const char *)bytes + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return SLUICE_IO;
        done += (size_t)n;
    }
    return SLUICE_OK;
}

int sl_metrics_flush(sl_execution *run)
{
    int rc = run->unwritten != 0 ? SLUICE_IO : SLUICE_OK; /* what is behind a gap stays unwritten */
    for (; rc >= 0 && run->flushed < run->job_count; run->flushed++) {
        sl_job *job = &run->jobs[run->flushed];
        const int state = job->state; /* before its lines are looked at: of a job that ended they are all there */
        if (state == SL_JOB_RUNNING || state == SL_JOB_DONE || state == SL_JOB_REUSED)
            sl_sinks_tell(run, job);
        if (state != SL_JOB_DONE && state != SL_JOB_REUSED)
            break;
        rc = write_all(run->metrics_fd, job->lines.data, job->lines.size);
        run->unwritten = rc < 0 ? errno : 0;
        sl_buffer_free(&job->lines);
        sl_buffer_free(&job->times);
        job->told = job->told_times = 0;
    }
    return rc;
}

int sl_timing_write(sl_job *job, const char *start, const char *end)
{
    sl_buffer line = {0};
    int rc = open_line(job, &line);
    if (rc >= 0 && job->state == SL_JOB_REUSED)
        rc = sl_buffer_printf(&line, ",\"reused\":true,\"at\":\"%s\",\"records\":%llu}\n", start,
                              (unsigned long long)job->out);
    else if (rc >= 0)
        rc = sl_buffer_printf(
            &line,
            ",\"start\":\"%s\",\"end\":\"%s\",\"seconds\":%.3f,\"busy\":%.3f,\"waiting\":%.3f,\"writing\":%.3f,"
            "\"records_in\":%llu,\"records\":%llu,\"tokens\":%llu,\"tokens_in\":%llu,\"tokens_out\":%llu,"
            "\"bytes\":%llu,\"bytes_compressed\":%llu,\"memory\":%llu}\n",
            start, end, job->seconds, job->seconds - job->waiting, job->waiting, job->writing,
            (unsigned long long)job->in, (unsigned long long)job->out, (unsigned long long)job->tokens,
            (unsigned long long)job->tokens_in, (unsigned long long)job->tokens_out, (unsigned long long)job->bytes_raw,
            (unsigned long long)job->bytes_compressed, (unsigned long long)job->memory);
    if (rc >= 0)
        rc = write_all(job->run->timing_fd, line.data, line.size);
    sl_buffer_free(&line);
    return rc;
}
