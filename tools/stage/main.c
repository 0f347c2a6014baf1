/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * sluice-stage STAGE PARENT: one stage in a process of its own. sluice itself starts it, with the run at descriptor 3
 * (isolate.h), and what it writes to standard output and error goes into the run's log.
 */
#include "tools/stage/stage.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "core/run/crash.h"

static sl_setup setup;

/* The run is to stop: what the stage asks for from now on says so. */
static void on_stop(int number)
{
    (void)number;
    atomic_store(&setup.run.cancelled, true);
}

static void say_done(int rc, int code, const char *line)
{
    sl_message m = {.kind = SL_WIRE_DONE};
    sl_put(&m, (uint64_t)(int64_t)rc);
    sl_put(&m, (uint64_t)(int64_t)code);
    sl_put_text(&m, line);
    sl_child_send(&m);
}

/* Error lines are the run's: as it would have said them itself. */
static int refuse(const char *why)
{
    char line[2 * SL_ERROR_SIZE];
    snprintf(line, sizeof line, "stage '%s' (%s:%d): %s", setup.stage.name != NULL ? setup.stage.name : "",
             setup.stage.file != NULL ? setup.stage.file : "", setup.stage.line, why);
    say_done(SLUICE_FAILED, SLUICE_FAILED, line);
    return 1;
}

static int drive(sl_job *job)
{
    sl_instance self = {0};
    const sl_stage *stage = job->stage;
    int rc = sl_instance_begin(&self, &stage->object, stage->parts, stage->part_count, job, &job->host, job->arena);
    if (rc < 0)
        return rc;
    rc = sl_stage_drive(job, &self);
    sl_instance_end(&self);
    return rc;
}

int main(int argc, char **argv)
{
    char error[SL_ERROR_SIZE];
    sl_message message;
    if (argc != 3 || fcntl(SL_CHILD_SOCKET, F_SETFD, FD_CLOEXEC) != 0) {
        fputs("sluice-stage STAGE PARENT: runs one stage; sluice itself starts this\n", stderr);
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if ((long)getppid() != strtol(argv[2], NULL, 10))
        return 1;
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_stop, .sa_flags = SA_RESTART}, NULL);
    sl_child_receive(&message);
    const bool fits = sl_setup_unpack(&message, &setup, error);
    sl_message_free(&message);
    if (!fits)
        return refuse(error);
    sl_job *job = sl_child_job = &setup.job;
    pthread_mutex_init(&setup.run.lock, NULL);
    setup.run.services.seed = setup.run_seed;
    setup.run.services.registry = setup.registry;
    pthread_mutex_init(&setup.run.services.error_lock, NULL);
    sl_host_init(&job->host, setup.stage.name, setup.seed, &setup.run.services, NULL, job);
    job->thread = pthread_self();
    sl_child_host(job);
    sl_crash_watch(STDERR_FILENO, -1, NULL);
    sl_crash_enter(job);
    const int rc = drive(job);
    sl_child_progress(true);
    say_done(rc, job->host.code, job->host.error[0] != '\0' ? job->host.error : NULL);
    _exit(0);
}
