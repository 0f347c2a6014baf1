/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The story of a run: folder, keys, phases and iterations, table. */
#include "core/run/crash.h"
#include "core/run/environment.h"
#include "core/run/internal.h"
#include "core/run/run.h"
#include "core/run/table.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A signal handler can reach nothing but this. */
static volatile sig_atomic_t interrupts;
static struct timespec interrupted;

/* Wrappers (timeout, sudo) deliver one signal twice, to the process and to its group: what follows within a third of a
 * second is the same one. */
static void on_signal(int number)
{
    (void)number;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (interrupts == 0) {
        interrupted = now;
        interrupts = 1;
        return;
    }
    const double since = (double)(now.tv_sec - interrupted.tv_sec) + (double)(now.tv_nsec - interrupted.tv_nsec) * 1e-9;
    if (since > 0.3)
        _exit(SL_RUN_STOPPED);
}

bool sl_run_interrupted(void)
{
    return interrupts > 0;
}

struct handlers {
    struct sigaction interrupt, terminate, hangup, pipe;
};

static void take_signals(struct handlers *old)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    interrupts = 0;
    sigaction(SIGINT, &action, &old->interrupt);
    sigaction(SIGTERM, &action, &old->terminate);
    /* Who reads our words may go before us: `sluice run … 2>&1 | tee log`, and Ctrl-C. */
    sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, &old->pipe);
    sigaction(SIGHUP, NULL, &old->hangup); /* nohup has it ignored */
    if (old->hangup.sa_handler != SIG_IGN)
        sigaction(SIGHUP, &action, NULL);
}

static void give_signals_back(const struct handlers *old)
{
    sigaction(SIGINT, &old->interrupt, NULL);
    sigaction(SIGTERM, &old->terminate, NULL);
    sigaction(SIGHUP, &old->hangup, NULL);
    sigaction(SIGPIPE, &old->pipe, NULL);
}

static uint64_t seed_of(const sl_plan *plan, const sl_stage *stage, int64_t iteration)
{
    uint64_t seed = sluice_mix(plan->seed, sluice_random_name(stage->phase->name, strlen(stage->phase->name)));
    seed = sluice_mix(seed, sluice_random_name(stage->name, strlen(stage->name)));
    return sluice_mix(seed, (uint64_t)iteration);
}

/* All jobs, in the order in which their metrics are written. */
static int make_jobs(sl_execution *run)
{
    const sl_plan *plan = run->plan;
    for (size_t p = 0; p < plan->phase_count; p++)
        run->job_count += plan->phases[p].stage_count * (size_t)plan->phases[p].repeat;
    run->jobs = calloc(run->job_count + 1, sizeof *run->jobs);
    if (run->jobs == NULL)
        return SLUICE_NO_MEMORY;
    sl_job *job = run->jobs;
    for (size_t p = 0; p < plan->phase_count; p++)
        for (int64_t i = 0; i < plan->phases[p].repeat; i++) {
            sl_job *first = job;
            for (size_t s = 0; s < plan->phases[p].stage_count; s++, job++) {
                const sl_stage *stage = &plan->phases[p].stages[s];
                sl_host_init(&job->host, stage->name, seed_of(plan, stage, i), &run->services, &run->console, job);
                job->run = run;
                job->stage = stage;
                job->type = (const sluice_stage_class *)stage->object.type->type;
                job->iteration = i;
                job->producer = stage->from_count > 0 ? &first[stage->from[0]->index] : NULL;
            }
        }
    return sl_version_index(run);
}

static int open_file(const sl_execution *run, const char *name, int flags, int *fd, char *error)
{
    const char *path = sl_arena_printf(run->arena, "%s/%s", run->folder, name);
    *fd = path != NULL ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | flags, 0666) : -1;
    if (*fd >= 0)
        return SLUICE_OK;
    snprintf(error, SL_ERROR_SIZE, "cannot write %s: %s", path != NULL ? path : name, strerror(errno));
    return SLUICE_IO;
}

static int print_plan(const sl_execution *run, FILE *out)
{
    return sl_plan_write(run->plan, out);
}

/* What `sluice env` says, with the services that this run uses. */
static int print_environment(const sl_execution *run, FILE *out)
{
    sl_environment_print(run->services.registry, out);
    if (run->numerics.size > 0)
        fprintf(out, "services    %s", (const char *)run->numerics.data);
    return SLUICE_OK;
}

/* A file of the run's folder, from what `print` writes. */
static int write_file(const sl_execution *run, const char *name, int (*print)(const sl_execution *, FILE *),
                      char *error)
{
    char *text = NULL;
    size_t size = 0;
    const char *path = sl_arena_printf(run->arena, "%s/%s", run->folder, name);
    FILE *memory = open_memstream(&text, &size);
    int rc = memory != NULL && path != NULL ? print(run, memory) : SLUICE_NO_MEMORY;
    if (memory != NULL && fclose(memory) != 0)
        rc = SLUICE_NO_MEMORY;
    snprintf(error, SL_ERROR_SIZE, "%s cannot be written", name);
    if (rc >= 0)
        rc = sl_file_write(path, text, size, error);
    free(text);
    return rc;
}

static int open_folder(sl_execution *run, bool fresh, char *error)
{
    const char *models = sl_arena_printf(run->arena, "%s/models", run->folder);
    const char *log = sl_arena_printf(run->arena, "%s/log.txt", run->folder);
    snprintf(error, SL_ERROR_SIZE, "out of memory");
    int rc = models != NULL && log != NULL ? sl_folder_make(run->folder, error) : SLUICE_NO_MEMORY;
    if (rc >= 0)
        rc = sl_folder_lock(run->folder, &run->lock_fd, error);
    if (rc >= 0 && fresh)
        rc = sl_folder_forget(run->folder, run->plan, error);
    if (rc < 0)
        return rc;
    sl_folder_sweep(run->folder, false);
    rc = sl_folder_make(models, error);
    if (rc >= 0)
        rc = sl_console_open(&run->console, log, error);
    if (rc >= 0)
        rc = write_file(run, "pipeline.cfg", print_plan, error);
    if (rc >= 0)
        rc = open_file(run, "metrics.jsonl", O_TRUNC, &run->metrics_fd, error);
    if (rc >= 0)
        rc = open_file(run, "timing.jsonl", fresh ? O_TRUNC : 0, &run->timing_fd, error);
    return rc;
}

static int run_phases(sl_execution *run, char *error)
{
    int rc = sl_key_compute(run, 0, run->job_count, error);
    if (rc >= 0)
        rc = write_file(run, "environment.txt", print_environment, error);
    if (rc < 0)
        return rc;
    error[0] = '\0'; /* from here on whoever fails has said why */
    sl_key_reuse(run, 0, run->job_count);
    size_t first = 0;
    for (size_t p = 0; rc >= 0 && p < run->plan->phase_count; p++)
        for (int64_t i = 0; rc >= 0 && i < run->plan->phases[p].repeat; i++) {
            const size_t count = run->plan->phases[p].stage_count;
            rc = sl_run_interrupted() ? SLUICE_CANCELLED : sl_phase_run(run, first, count);
            first += count;
        }
    return rc;
}

/* What a run would do, without a change to anything. */
static int explain(sl_execution *run, char *error)
{
    const int rc = sl_key_compute(run, 0, run->job_count, error);
    if (rc < 0)
        return rc;
    sl_key_reuse(run, 0, run->job_count);
    return sl_explain(run, stdout);
}

static void print_table(const sl_execution *run, FILE *out)
{
    sl_table_entry *entries = calloc(run->job_count + 1, sizeof *entries);
    size_t count = 0;
    for (size_t j = 0; entries != NULL && j < run->job_count; j++) {
        const sl_job *job = &run->jobs[j];
        sl_model_use use;
        sl_table_entry entry = {.kind = job->type->base.kind,
                                .stage = job->stage->name,
                                .phase = job->stage->phase->name,
                                .iteration = job->iteration,
                                .repeat = job->stage->phase->repeat,
                                .numbers = job->numbers,
                                .count = job->number_count};
        if (sl_version_subject(job, &use, &entry.publishes)) {
            entry.slot = run->plan->slots[use.slot].name;
            entry.version = use.version;
        }
        entries[count++] = entry;
    }
    sl_table_print(entries, count, out);
    free(entries);
}

static void print_places(const sl_execution *run, FILE *out)
{
    const sl_plan *plan = run->plan;
    for (size_t s = 0; s < plan->slot_count; s++)
        if (plan->slots[s].last > 0)
            fprintf(out, "model    %s/models/%s@%lld\n", run->folder, plan->slots[s].name,
                    (long long)plan->slots[s].last);
    fprintf(out, "streams  %s/streams/   (sluice cat FILE)\n", run->folder);
    fprintf(out, "metrics  %s/metrics.jsonl\n", run->folder);
}

static void close_all(sl_execution *run)
{
    sl_sinks_end(run);
    sl_shared_close(run);
    sl_services_end(&run->services);
    for (size_t j = 0; run->jobs != NULL && j < run->job_count; j++) {
        for (size_t i = 0; i < run->jobs[j].number_count; i++)
            free((char *)(uintptr_t)run->jobs[j].numbers[i].name);
        free(run->jobs[j].numbers);
        sl_buffer_free(&run->jobs[j].lines);
        sl_buffer_free(&run->jobs[j].times);
        sl_buffer_free(&run->jobs[j].inputs);
    }
    free(run->jobs);
    sl_buffer_free(&run->numerics);
    const int files[] = {run->metrics_fd, run->timing_fd, run->lock_fd};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (files[i] >= 0)
            close(files[i]);
    sl_console_close(&run->console);
    pthread_cond_destroy(&run->changed);
    pthread_mutex_destroy(&run->lock);
    sl_arena_free(run->arena);
}

int sl_run(const sl_plan *plan, sl_registry *registry, const sl_run_options *options)
{
    sl_execution run = {.plan = plan,
                        .quiet = options->quiet,
                        .records = options->records,
                        .fresh = options->fresh,
                        .explain = options->explain,
                        .lock_fd = -1,
                        .metrics_fd = -1,
                        .timing_fd = -1};
    char error[SL_ERROR_SIZE] = "out of memory";
    struct handlers handlers;
    run.arena = sl_arena_new();
    if (run.arena == NULL) {
        fprintf(stderr, "sluice: out of memory\n");
        return SL_RUN_FAILED;
    }
    const char *folder = options->out != NULL ? options->out : plan->out;
    run.folder =
        folder != NULL ? sl_arena_strdup(run.arena, folder) : sl_arena_printf(run.arena, "runs/%s", plan->name);
    pthread_mutex_init(&run.lock, NULL);
    pthread_cond_init(&run.changed, NULL);
    sl_console_init(&run.console, stderr);
    sl_services_init(&run.services, registry, plan->runtime, plan->runtime_count, &run.console, plan->seed);
    take_signals(&handlers);

    int rc = run.folder != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
    if (rc >= 0 && !run.explain)
        rc = open_folder(&run, options->fresh, error);
    if (rc >= 0 && !sl_shared_open(&run, options->store, error))
        rc = SLUICE_IO;
    if (rc >= 0)
        rc = make_jobs(&run);
    if (rc >= 0 && run.explain) {
        rc = explain(&run, error);
    } else if (rc >= 0) {
        sl_console_line(&run.console, SLUICE_LOG_INFO, "run of %s in %s", plan->file, run.folder);
        sl_crash_watch(fileno(run.console.file), STDERR_FILENO,
                       "; the run's log.txt has a backtrace, the same command goes on from there, and isolate = true, "
                       "where a class can have it, keeps a stage's crash from the run");
        sl_sinks_begin(&run);
        rc = run_phases(&run, error);
        sl_crash_unwatch();
    }
    int code = SL_RUN_FAILED;
    if (rc >= 0) {
        code = SL_RUN_DONE;
        if (!run.explain)
            sl_folder_sweep(run.folder, true);
        if (!options->quiet && !run.explain) {
            print_table(&run, stdout);
            sl_times_print(&run, stdout);
            print_places(&run, stdout);
            fflush(stdout);
        }
        sl_console_line(&run.console, SLUICE_LOG_INFO, "done");
    } else if (run.failed != NULL) {
        const int why = run.failed->host.code;
        code = why == SLUICE_CORRUPT || why == SLUICE_BAD_RECORD || why == SLUICE_BAD_MODEL ? SL_RUN_DAMAGED
                                                                                            : SL_RUN_FAILED;
        sl_console_line(&run.console, SLUICE_LOG_WARNING, "%s", run.failed->host.error);
    } else if (run.unwritten != 0) {
        sl_console_line(&run.console, SLUICE_LOG_WARNING,
                        "cannot write %s/metrics.jsonl: %s; mend the disk and run again", run.folder,
                        strerror(run.unwritten));
    } else if (sl_run_interrupted()) {
        code = SL_RUN_STOPPED;
        sl_console_line(&run.console, SLUICE_LOG_WARNING,
                        "stopped; what is finished lies in %s: the same command again goes on from there", run.folder);
    } else if (error[0] != '\0') {
        sl_console_line(&run.console, SLUICE_LOG_WARNING, "%s", error);
    }
    close_all(&run);
    give_signals_back(&handlers);
    return code;
}
