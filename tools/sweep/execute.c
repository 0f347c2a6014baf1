/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs as child processes, some at once. A child dies with the sweep, even a killed one; its folder then holds what it
 * had finished, and the next sweep goes on from there.
 */
#define _GNU_SOURCE /* prctl's headers */
#include "core/run/run.h"
#include "tools/report/page.h"
#include "tools/sweep/sweep.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t signals; /* that came; each is sent on to the children */

static void on_signal(int number)
{
    (void)number;
    signals = signals + 1;
}

void sw_take_signals(void)
{
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

static int64_t size_of(const sw_run *run, const char *name)
{
    char path[PATH_MAX];
    struct stat s;
    snprintf(path, sizeof path, "%s/%s", run->folder, name);
    return stat(path, &s) == 0 ? s.st_size : 0;
}

/* Did it compute anything since it was started? */
static bool has_computed(const sw_run *run)
{
    char path[PATH_MAX];
    sl_buffer text = {0};
    snprintf(path, sizeof path, "%s/timing.jsonl", run->folder);
    const bool read = sl_file_read(path, &text) == SLUICE_OK && (int64_t)text.size >= run->timing;
    const bool computed = !read || strstr((const char *)text.data + run->timing, "\"start\":") != NULL;
    sl_buffer_free(&text);
    return computed;
}

/* The last line that a process said, without the program's name before it. */
static const char *last_words(sl_arena *arena, FILE *said)
{
    char line[SL_ERROR_SIZE], last[SL_ERROR_SIZE] = "";
    rewind(said);
    while (fgets(line, sizeof line, said) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] != '\0')
            memcpy(last, line, sizeof last);
    }
    const char *text = strncmp(last, "sluice: ", 8) == 0 ? last + 8 : last;
    return text[0] != '\0' ? sl_arena_strdup(arena, text) : NULL;
}

static _Noreturn void be_child(const sw_sweep *sweep, const sw_run *run, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it was killed just now */
        _exit(SL_RUN_STOPPED);
    setpgid(0, 0); /* a terminal's Ctrl-C comes by way of the sweep, once */
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_IGN);
    const int null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(null, 1);
    dup2(fileno(run->said), 2);
    const sl_run_options options = {.out = run->folder, .store = sweep->store, .quiet = true};
    const int code = sl_run(run->plan, sweep->registry, &options);
    fflush(stderr);
    _exit(code);
}

static void fail(sw_run *run, const char *reason)
{
    run->state = SW_FAILED;
    run->reason = reason;
}

static void start(sw_sweep *sweep, sw_run *run, sl_console *console)
{
    const pid_t parent = getpid();
    run->began = sl_clock();
    run->timing = size_of(run, "timing.jsonl");
    run->said = tmpfile();
    if (run->said == NULL) {
        fail(run, "no temporary file can be made");
    } else if (fflush(stdout), fflush(stderr), (run->process = fork()) == 0) {
        be_child(sweep, run, parent);
    } else if (run->process < 0) {
        fail(run, "no process can be started");
    } else {
        run->state = SW_RUNNING;
        if (!console->live)
            sl_console_say(console, "%-24s started", run->name);
        return;
    }
    sl_console_say(console, "%-24s failed: %s", run->name, run->reason);
}

static size_t count_of(const sw_sweep *sweep, enum sw_state state)
{
    size_t count = 0;
    for (size_t r = 0; r < sweep->run_count; r++)
        count += sweep->runs[r].state == state;
    return count;
}

/* "about 0:42:10 h left", from the runs that were computed so far; "" when there is none. */
static const char *time_left(const sw_sweep *sweep, char text[64])
{
    char number[RP_NUMBER];
    double sum = 0;
    size_t ran = 0;
    for (size_t r = 0; r < sweep->run_count; r++)
        if (sweep->runs[r].state == SW_DONE && !sweep->runs[r].kept) {
            sum += sweep->runs[r].seconds;
            ran++;
        }
    const size_t left = count_of(sweep, SW_WAITING) + count_of(sweep, SW_RUNNING);
    text[0] = '\0';
    if (ran > 0 && left > 0)
        snprintf(text, 64, ", about %s left",
                 rp_duration_text(sum / (double)ran * (double)left / (double)sweep->parallel, number));
    return text;
}

static void finish(sw_sweep *sweep, sw_run *run, int status, sl_console *console)
{
    char number[RP_NUMBER], left[64];
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    run->seconds = sl_clock() - run->began;
    const char *words = last_words(sweep->arena, run->said);
    fclose(run->said);
    run->said = NULL;
    if (code == SL_RUN_DONE) {
        run->state = SW_DONE;
        run->kept = !has_computed(run);
        sl_console_say(console, "%-24s %s %s  (%zu of %zu runs%s)", run->name,
                       run->kept ? "there, looked at in" : "done in", rp_duration_text(run->seconds, number),
                       count_of(sweep, SW_DONE), sweep->run_count, time_left(sweep, left));
    } else if (signals > 0) {
        run->state = SW_STOPPED;
    } else {
        const char *reason = words;
        if (!WIFEXITED(status))
            reason = sl_arena_printf(sweep->arena, "killed by signal %d (%s)", WTERMSIG(status),
                                     strsignal(WTERMSIG(status)));
        fail(run, reason != NULL ? reason : "it said nothing");
        sl_console_say(console, "%-24s failed: %s", run->name, run->reason);
    }
}

static void reap(sw_sweep *sweep, sl_console *console)
{
    for (size_t r = 0; r < sweep->run_count; r++) {
        int status;
        sw_run *run = &sweep->runs[r];
        if (run->state == SW_RUNNING && waitpid(run->process, &status, WNOHANG) == run->process)
            finish(sweep, run, status, console);
    }
}

/* Seed after seed, so that a sweep that is stopped early has compared all variants on some. */
static void start_what_can(sw_sweep *sweep, sl_console *console)
{
    for (size_t s = 0; s < sweep->seed_count; s++)
        for (size_t v = 0; v < sweep->variant_count; v++) {
            sw_run *run = &sweep->runs[v * sweep->seed_count + s];
            if ((int64_t)count_of(sweep, SW_RUNNING) >= sweep->parallel)
                return;
            if (run->state == SW_WAITING && !sw_share_awaits(sweep, run))
                start(sweep, run, console);
        }
}

static void send_on(const sw_sweep *sweep)
{
    for (size_t r = 0; r < sweep->run_count; r++)
        if (sweep->runs[r].state == SW_RUNNING)
            kill(sweep->runs[r].process, SIGTERM);
}

static void draw(const sw_sweep *sweep, sl_console *console)
{
    char number[RP_NUMBER];
    const int width = (int)sl_console_width(console);
    sl_buffer lines = {0};
    for (size_t r = 0; r < sweep->run_count; r++) {
        const sw_run *run = &sweep->runs[r];
        size_t done = 0;
        if (run->state != SW_RUNNING)
            continue;
        for (size_t j = 0; j < run->job_count; j++)
            done += sw_share_done(run, &run->jobs[j]);
        char line[256];
        snprintf(line, sizeof line, "%-24s %zu/%zu stages  %s", run->name, done, run->job_count,
                 rp_duration_text(sl_clock() - run->began, number));
        sl_buffer_printf(&lines, "%.*s\n", width, line);
    }
    if (sl_buffer_append(&lines, "", 1) >= 0)
        sl_console_draw(console, (const char *)lines.data);
    sl_buffer_free(&lines);
}

static void run_all(sw_sweep *sweep, sl_console *console)
{
    const struct timespec pause = {.tv_nsec = 100 * 1000 * 1000};
    int sent = 0;
    for (int tick = 0;; tick++) {
        reap(sweep, console);
        if (signals == 0)
            start_what_can(sweep, console);
        const bool any = count_of(sweep, SW_RUNNING) > 0;
        if (!any && (signals > 0 || count_of(sweep, SW_WAITING) == 0))
            break;
        for (; sent < signals; sent++) {
            if (sent == 0)
                sl_console_say(console, "stopping: the runs finish the records in hand (once more to stop at once)");
            send_on(sweep);
        }
        if (console->live && tick % 5 == 0)
            draw(sweep, console);
        nanosleep(&pause, NULL);
    }
    sl_console_draw(console, NULL);
}

/* Under another name first: half of a store, after a kill, would be a folder that no run may use. */
static int forget_store(const sw_sweep *sweep, char *error)
{
    char old[PATH_MAX];
    const int length = snprintf(old, sizeof old, "%s-old", sweep->store);
    errno = ENAMETOOLONG;
    if ((size_t)length < sizeof old && sl_folder_remove(old) >= 0 &&
        (rename(sweep->store, old) == 0 || errno == ENOENT) && sl_folder_remove(old) >= 0)
        return SLUICE_OK;
    snprintf(error, SL_ERROR_SIZE, "cannot remove %s: %s", sweep->store, strerror(errno));
    return SLUICE_IO;
}

static int forget(sw_sweep *sweep, char *error)
{
    int rc = SLUICE_OK;
    for (size_t r = 0; rc >= 0 && r < sweep->run_count; r++)
        if (sl_path_exists(sweep->runs[r].folder))
            rc = sl_folder_forget(sweep->runs[r].folder, sweep->runs[r].plan, error);
    return rc >= 0 && sweep->own_store ? forget_store(sweep, error) : rc;
}

int sw_execute(sw_sweep *sweep, bool fresh)
{
    char error[SL_ERROR_SIZE];
    sl_console console;
    int lock = -1, rc = sl_folder_make(sweep->folder, error);
    if (rc >= 0)
        rc = sl_folder_lock(sweep->folder, &lock, error);
    if (rc >= 0 && fresh)
        rc = forget(sweep, error);
    if (rc < 0)
        return sl_fail(sweep->command, SL_EXIT_FAILED, "%s", error);
    sl_console_init(&console, stderr);
    run_all(sweep, &console);
    sl_console_close(&console);
    close(lock);
    if (signals > 0) {
        fprintf(stderr,
                "stopped; %zu of %zu runs are done, what is finished lies in %s: the same command goes on from there\n",
                count_of(sweep, SW_DONE), sweep->run_count, sweep->folder);
        return SL_EXIT_CANCELLED;
    }
    return count_of(sweep, SW_FAILED) > 0 ? SL_EXIT_FAILED : SL_EXIT_OK;
}
