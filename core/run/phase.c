/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* One iteration of one phase: streams opened, a thread a stage, the end awaited. */
#include "core/isolate/isolate.h"
#include "core/run/crash.h"
#include "core/run/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

char *sl_job_path(const sl_job *job, const char *suffix, sl_arena *arena)
{
    return sl_arena_printf(arena, "%s/streams/%s-%lld/%s%s", job->run->folder, job->stage->phase->name,
                           (long long)job->iteration + 1, job->stage->name, suffix);
}

const char *sl_job_where(const sl_job *job, char *text, size_t size)
{
    if (job->stage->phase->repeat == 1)
        snprintf(text, size, "%s", job->stage->phase->name);
    else
        snprintf(text, size, "%s %lld/%lld", job->stage->phase->name, (long long)job->iteration + 1,
                 (long long)job->stage->phase->repeat);
    return text;
}

static bool is_over(const sl_job *job)
{
    return job->state >= SL_JOB_DONE;
}

static void set_state(sl_job *job, int state)
{
    pthread_mutex_lock(&job->run->lock);
    atomic_store(&job->state, state);
    pthread_cond_broadcast(&job->run->changed);
    pthread_mutex_unlock(&job->run->lock);
}

void sl_phase_cancel(sl_execution *run)
{
    atomic_store(&run->cancelled, true);
    pthread_mutex_lock(&run->lock);
    for (size_t j = 0; j < run->job_count; j++) {
        if (run->jobs[j].output != NULL)
            sl_stream_cancel(run->jobs[j].output);
        if (run->jobs[j].giving != NULL)
            sl_pipe_cancel(run->jobs[j].giving);
    }
    pthread_cond_broadcast(&run->changed);
    pthread_mutex_unlock(&run->lock);
}

/* The first error of a run is its cause: everybody else stops for it. */
static void fail(sl_job *job)
{
    pthread_mutex_lock(&job->run->lock);
    if (job->run->failed == NULL && job->host.error[0] != '\0')
        job->run->failed = job;
    pthread_mutex_unlock(&job->run->lock);
    sl_phase_cancel(job->run);
}

/* The job of another stage of the same phase and iteration. */
static const sl_job *job_of(const sl_job *job, const sl_stage *stage)
{
    return job - job->stage->index + stage->index;
}

/* Whether all that this stage and the stages it reads from come after is done. A stage downstream of an `after` waits
 * as well: it may name a model version that the stage before publishes. */
static bool is_ready(const sl_job *job, const sl_stage *stage)
{
    for (size_t a = 0; a < stage->after_count; a++) {
        const sl_job *before = job_of(job, stage->after[a]);
        if (before->state != SL_JOB_DONE && before->state != SL_JOB_REUSED)
            return false;
    }
    for (size_t f = 0; f < stage->from_count; f++)
        if (!is_ready(job, stage->from[f]))
            return false;
    return true;
}

/* Until this stage's turn has come; false when the run is to stop. */
static bool await_turn(sl_job *job)
{
    sl_execution *run = job->run;
    bool ready = false;
    pthread_mutex_lock(&run->lock);
    while (!ready && !run->cancelled) {
        ready = is_ready(job, job->stage);
        if (!ready)
            pthread_cond_wait(&run->changed, &run->lock);
    }
    pthread_mutex_unlock(&run->lock);
    return ready && !run->cancelled;
}

/* The note that makes a job reusable: its key, what a sink wrote, and its metrics. Last of all that a job writes into
 * the folder. */
static int write_done(sl_job *job)
{
    char key[33], output[33], error[SL_ERROR_SIZE];
    uint8_t written[16];
    sl_buffer text = {0};
    const char *path = sl_job_path(job, ".done", job->arena);
    sl_key_output(job, written);
    sl_hex(job->key, 16, key);
    sl_hex(written, 16, output);
    int rc = sl_buffer_printf(&text, "{\"key\":\"%s\",\"output\":\"%s\",\"records\":%llu}\n", key, output,
                              (unsigned long long)job->out);
    if (rc >= 0 && job->lines.size > 0)
        rc = sl_buffer_append(&text, job->lines.data, job->lines.size);
    snprintf(error, sizeof error, "out of memory");
    const char *inputs = sl_job_path(job, ".inputs", job->arena);
    if (rc >= 0 && inputs != NULL)
        rc = sl_file_write(inputs, job->inputs.data, job->inputs.size, error);
    if (rc >= 0 && path != NULL)
        rc = sl_file_write(path, text.data, text.size, error);
    sl_buffer_free(&text);
    return rc < 0 || path == NULL ? sluice_error(&job->host.public, rc, "%s", error) : SLUICE_OK;
}

static int close_output(sl_job *job)
{
    const bool in_memory = job->giving != NULL;
    if (job->output == NULL && !in_memory)
        return SLUICE_OK;
    const int rc = in_memory ? sl_pipe_close(job->giving) : sl_stream_close(job->output);
    if (rc < 0)
        return sluice_error(&job->host.public, rc, "cannot finish its output: %s",
                            in_memory ? sl_pipe_error(job->giving) : sl_stream_writer_error(job->output));
    if (in_memory)
        return SLUICE_OK;
    job->bytes_raw = sl_stream_bytes(job->output, false);
    job->bytes_compressed = sl_stream_bytes(job->output, true);
    return SLUICE_OK;
}

/* The stage's own part, in this process. */
static int work(sl_job *job)
{
    sl_instance self = {0};
    const sl_stage *stage = job->stage;
    int rc = sl_instance_begin(&self, &stage->object, stage->parts, stage->part_count, job, &job->host, job->arena);
    if (rc < 0)
        return rc;
    rc = sl_stage_drive(job, &self);
    sl_instance_end(&self);
    free(job->released); /* ending, a stage that failed gives back what it still held */
    job->released = NULL;
    job->released_size = 0;
    return rc;
}

static int execute(sl_job *job)
{
    int rc = job->stage->isolation.on ? sl_isolate_run(job) : work(job);
    if (rc >= 0)
        rc = sl_version_finish(job);
    if (rc >= 0)
        rc = close_output(job);
    if (rc >= 0)
        rc = sl_metrics_seal(job);
    if (rc >= 0)
        rc = write_done(job);
    if (rc >= 0)
        sl_shared_put(job);
    return rc;
}

static void *stage_thread(void *argument)
{
    sl_job *job = argument;
    char start[SL_TIME_SIZE], end[SL_TIME_SIZE];
    job->thread = pthread_self();
    if (!await_turn(job)) {
        if (job->output != NULL)
            sl_stream_leave(job->output);
        set_state(job, SL_JOB_FAILED);
        return NULL;
    }
    job->began = sl_clock();
    sl_time_now(start);
    set_state(job, SL_JOB_RUNNING);
    sl_progress_started(job);
    sl_crash_enter(job);
    const int rc = execute(job);
    sl_crash_leave();
    if (rc < 0) {
        if (rc != SLUICE_CANCELLED || !job->run->cancelled)
            sluice_error(&job->host.public, rc == SLUICE_CANCELLED ? SLUICE_FAILED : rc, "%s", sl_result_text(rc));
        fail(job);
        if (job->output != NULL) /* for a run that goes on */
            sl_stream_leave(job->output);
        sl_version_discard(job);
        set_state(job, SL_JOB_FAILED);
        return NULL;
    }
    struct rusage used;
    job->seconds = sl_clock() - job->began;
    if (getrusage(RUSAGE_SELF, &used) == 0)
        job->memory = (uint64_t)used.ru_maxrss * 1024;
    sl_time_now(end);
    sl_timing_write(job, start, end);
    sl_progress_finished(job, job->seconds);
    set_state(job, SL_JOB_DONE);
    return NULL;
}

/* What is found in the folder takes the place of running. */
static int take_over(sl_job *job)
{
    char now[SL_TIME_SIZE];
    sl_time_now(now);
    const char *path = sl_stage_has_output(job->stage) ? sl_job_path(job, ".zst", job->run->arena) : NULL;
    if (path != NULL) /* a run that was killed between finishing it and tidying up */
        sl_earlier_forget(path);
    sl_checkpoint_forget(job);
    set_state(job, SL_JOB_REUSED);
    sl_progress_reused(job);
    return sl_timing_write(job, now, now);
}

static int open_output(sl_job *job, char *error)
{
    sl_stream_info info = {.schema = SL_STREAM_SCHEMA, .stage = job->stage->name};
    const char *done = sl_job_path(job, ".done", job->arena), *path = sl_job_path(job, ".zst", job->arena);
    snprintf(error, SL_ERROR_SIZE, "out of memory");
    if (done == NULL || path == NULL)
        return SLUICE_NO_MEMORY;
    if (unlink(done) != 0 && errno != ENOENT) {
        snprintf(error, SL_ERROR_SIZE, "cannot remove %s: %s", done, strerror(errno));
        return SLUICE_IO;
    }
    memcpy(info.key, job->key, sizeof info.key);
    if (!sl_stage_has_output(job->stage))
        return SLUICE_OK;
    if (job->stage->in_memory) {
        unlink(path); /* of another key */
        sl_earlier_forget(path);
        job->giving = sl_pipe_new(path);
        return job->giving != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
    }
    const int rc = sl_earlier_take(path, job->key, &job->earlier);
    return rc < 0 ? rc : sl_stream_create(path, &info, &job->output, error, SL_ERROR_SIZE);
}

/* Readers of this iteration's streams follow their writers from the start, also those of stages that come later: what
 * waits, waits on disk. */
static int open_input(sl_job *job, char *error)
{
    sl_job *producer = job->producer;
    if (producer == NULL)
        return SLUICE_OK;
    if (producer->giving != NULL) {
        job->taking = sl_pipe_open(producer->giving);
        return job->taking != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
    }
    if (producer->output != NULL) {
        snprintf(error, SL_ERROR_SIZE, "cannot follow the stream of '%s'", producer->stage->name);
        return sl_stream_follow(producer->output, &job->input);
    }
    const char *path = sl_job_path(producer, ".zst", job->arena);
    return path != NULL ? sl_stream_open(path, false, &job->input, error, SL_ERROR_SIZE) : SLUICE_NO_MEMORY;
}

static int open_all(sl_execution *run, sl_job *jobs, size_t count)
{
    char error[SL_ERROR_SIZE] = "out of memory";
    int rc = SLUICE_OK;
    for (size_t j = 0; rc >= 0 && j < count; j++)
        if (!jobs[j].reuse) {
            sl_metrics_forget(&jobs[j]);
            jobs[j].arena = sl_arena_new();
            rc = jobs[j].arena != NULL ? open_output(&jobs[j], error) : SLUICE_NO_MEMORY;
        }
    for (size_t j = 0; rc >= 0 && j < count; j++)
        if (!jobs[j].reuse)
            rc = open_input(&jobs[j], error);
    if (rc < 0)
        sl_console_line(&run->console, SLUICE_LOG_WARNING, "%s", error);
    return rc;
}

static void close_all(sl_job *jobs, size_t count)
{
    for (size_t j = 0; j < count; j++) {
        if (jobs[j].input != NULL)
            sl_stream_reader_close(jobs[j].input);
        jobs[j].input = NULL;
        jobs[j].taking = NULL; /* goes with its pipe */
    }
    for (size_t j = 0; j < count; j++) {
        sl_stream_writer *output = jobs[j].output;
        sl_pipe *giving = jobs[j].giving;
        pthread_mutex_lock(&jobs[j].run->lock);
        jobs[j].output = NULL;
        jobs[j].giving = NULL;
        pthread_mutex_unlock(&jobs[j].run->lock);
        sl_pipe_free(giving);
        if (output != NULL) {
            sl_stream_leave(output); /* nothing more where it was closed */
            sl_stream_writer_free(output);
        }
        sl_earlier_close(jobs[j].earlier, jobs[j].state == SL_JOB_DONE);
        if (jobs[j].state == SL_JOB_DONE)
            sl_checkpoint_forget(&jobs[j]);
        sl_shared_release(&jobs[j]);
        jobs[j].earlier = NULL;
        sl_arena_free(jobs[j].arena);
        jobs[j].arena = NULL;
    }
}

static void await_all(sl_execution *run, sl_job *jobs, size_t count)
{
    for (bool over = false; !over;) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100 * 1000 * 1000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_mutex_lock(&run->lock);
        over = true;
        for (size_t j = 0; j < count; j++)
            over = over && is_over(&jobs[j]);
        if (!over)
            pthread_cond_timedwait(&run->changed, &run->lock, &until);
        pthread_mutex_unlock(&run->lock);
        if (sl_run_interrupted() && !run->cancelled) {
            sl_console_say(&run->console, "stopping: finishing the records in hand (once more to stop at once)");
            sl_phase_cancel(run);
        }
        if (sl_metrics_flush(run) < 0)
            sl_phase_cancel(run);
        sl_progress_tick(run, jobs, count);
    }
    if (run->console.live)
        sl_console_draw(&run->console, NULL);
}

int sl_phase_run(sl_execution *run, size_t first, size_t count)
{
    sl_job *jobs = &run->jobs[first];
    char error[SL_ERROR_SIZE];
    sl_arena *arena = sl_arena_new();
    const char *folder = arena != NULL ? sl_arena_printf(arena, "%s/streams/%s-%lld", run->folder,
                                                         jobs[0].stage->phase->name, (long long)jobs[0].iteration + 1)
                                       : NULL;
    snprintf(error, sizeof error, "out of memory");
    int rc = folder != NULL ? sl_folder_make(folder, error) : SLUICE_NO_MEMORY;
    sl_arena_free(arena);
    if (rc >= 0) /* once more: an earlier stage may have written the file that one of these reads */
        rc = sl_key_compute(run, first, count, error);
    if (rc < 0) {
        sl_console_line(&run->console, SLUICE_LOG_WARNING, "%s", error);
        return rc;
    }
    sl_key_reuse(run, first, count);
    rc = sl_key_await(run, first, count);
    if (rc == SLUICE_NO_MEMORY)
        sl_console_line(&run->console, SLUICE_LOG_WARNING, "out of memory");
    if (rc >= 0)
        rc = open_all(run, jobs, count);
    for (size_t j = 0; rc >= 0 && j < count; j++)
        if (jobs[j].reuse)
            take_over(&jobs[j]);
    for (size_t j = 0; rc >= 0 && j < count; j++)
        if (!jobs[j].reuse) {
            jobs[j].threaded = pthread_create(&jobs[j].thread, NULL, stage_thread, &jobs[j]) == 0;
            if (!jobs[j].threaded) {
                sluice_error(&jobs[j].host.public, SLUICE_FAILED, "no thread can be started");
                fail(&jobs[j]);
                set_state(&jobs[j], SL_JOB_FAILED);
            }
        }
    if (rc >= 0)
        await_all(run, jobs, count);
    for (size_t j = 0; j < count; j++)
        if (jobs[j].threaded)
            pthread_join(jobs[j].thread, NULL);
    close_all(jobs, count);
    if (rc >= 0)
        rc = sl_metrics_flush(run);
    if (rc >= 0 && !run->cancelled)
        sl_version_prune(run);
    sl_shared_bound(run);
    return run->cancelled ? SLUICE_CANCELLED : rc;
}
