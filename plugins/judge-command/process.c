/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pipe2, execvpe */
#endif
#include "plugins/judge-command/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define READ_SIZE      65536
#define LOG_PER_SECOND 20

extern char **environ;

double process_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void close_one(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* A pipe whose ends are above the standard descriptors, so that handing one over as 0, 1 or 2 cannot hit another. */
static bool make_pipe(int ends[2])
{
    if (pipe2(ends, O_CLOEXEC) < 0) {
        ends[0] = ends[1] = -1;
        return false;
    }
    for (int i = 0; i < 2; i++)
        if (ends[i] <= 2) {
            int moved = fcntl(ends[i], F_DUPFD_CLOEXEC, 3);
            close(ends[i]);
            ends[i] = moved;
        }
    return ends[0] >= 0 && ends[1] >= 0;
}

/* Our environment, and PYTHONUNBUFFERED: a Python program that forgets to flush its answers would hang. */
static char **environment(void)
{
    static char unbuffered[] = "PYTHONUNBUFFERED=1";
    size_t count = 0;
    while (environ[count])
        count++;
    char **all = malloc((count + 2) * sizeof *all);
    if (!all)
        return NULL;
    memcpy(all, environ, count * sizeof *all);
    if (!getenv("PYTHONUNBUFFERED"))
        all[count++] = unbuffered;
    all[count] = NULL;
    return all;
}

/* What the child does before it is the program; it shares our memory until then, and calls the kernel alone. A group of
 * its own, no signal blocked or ignored, its three descriptors and no other; and it ends when this thread does, so that
 * a run which is killed leaves no program behind. (posix_spawn can do all but that.) */
static void become(const char *const *argv, char *const *env, const int child[3])
{
    const struct sigaction as_usual = {.sa_handler = SIG_DFL};
    sigset_t none;
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int i = 0; i < 3; i++)
        if (dup2(child[i], i) < 0)
            return;
#ifdef SYS_close_range
    syscall(SYS_close_range, 3u, ~0u, 0u); /* also what others forgot to mark */
#endif
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &as_usual, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvpe(argv[0], (char *const *)(uintptr_t)argv, env);
}

/* 0, or why not. */
static int spawn(pid_t *pid, const char *const *argv, const int child[3])
{
    static _Thread_local volatile int failed; /* written by the child */
    sigset_t all, before;
    char **env = environment();
    if (!env)
        return ENOMEM;
    failed = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* no handler of ours may run in the child */
    *pid = vfork();
    if (*pid == 0) {
        become(argv, env, child);
        failed = errno;
        _exit(127);
    }
    int rc = *pid < 0 ? errno : failed;
    if (*pid > 0 && rc != 0)
        while (waitpid(*pid, NULL, 0) < 0 && errno == EINTR)
            ;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    free(env);
    return rc;
}

int process_start(process *p, const sluice_host *host, const char *const *argv)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1}, rc = 0;
    p->host = host;
    p->begin = p->length = p->searched = p->words_length = 0;
    p->last_words[0] = '\0';
    p->in = p->out = p->err = -1;
    if (!make_pipe(in) || !make_pipe(out) || !make_pipe(err) || fcntl(in[1], F_SETFL, O_NONBLOCK) < 0 ||
        fcntl(out[0], F_SETFL, O_NONBLOCK) < 0 || fcntl(err[0], F_SETFL, O_NONBLOCK) < 0) {
        rc = sluice_error(host, SLUICE_IO, "cannot make a pipe: %s", strerror(errno));
        goto done;
    }
    const int child[3] = {in[0], out[1], err[1]};
    int failed = spawn(&p->pid, argv, child);
    if (failed != 0) {
        p->pid = 0;
        rc = sluice_error(host, SLUICE_FAILED, "cannot run '%s': %s; correct command, or install the program", argv[0],
                          strerror(failed));
        goto done;
    }
    p->in = in[1];
    p->out = out[0];
    p->err = err[0];
    in[1] = out[0] = err[0] = -1;
done:
    for (int i = 0; i < 2; i++) {
        close_one(&in[i]);
        close_one(&out[i]);
        close_one(&err[i]);
    }
    return rc;
}

/* What a program says belongs into the log, but a flood of it does not. */
static void log_words(process *p)
{
    double second = (double)(int64_t)process_now();
    if (second != p->log_second) {
        if (p->unlogged > 0)
            sluice_log(p->host, SLUICE_LOG_INFO, "program: … and %llu more lines", (unsigned long long)p->unlogged);
        p->log_second = second;
        p->logged = p->unlogged = 0;
    }
    if (p->logged < LOG_PER_SECOND) {
        sluice_log(p->host, SLUICE_LOG_INFO, "program: %s", p->last_words);
        p->logged++;
    } else {
        p->unlogged++;
    }
}

static void end_words(process *p)
{
    while (p->words_length > 0 && p->words[p->words_length - 1] == ' ')
        p->words_length--;
    if (p->words_length > 0) {
        memcpy(p->last_words, p->words, p->words_length);
        p->last_words[p->words_length] = '\0';
        log_words(p);
    }
    p->words_length = 0;
}

/* Takes in stderr; at most so much a call, so that a flood leaves time for the rest. */
static void read_words(process *p)
{
    char bytes[READ_SIZE];
    if (p->err < 0)
        return;
    ssize_t got = read(p->err, bytes, sizeof bytes);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
        close_one(&p->err);
    for (ssize_t i = 0; i < got; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c == '\n')
            end_words(p);
        else if (p->words_length + 1 < sizeof p->words)
            p->words[p->words_length++] = c < ' ' || c == 0x7f ? ' ' : (char)c;
    }
    if (p->err < 0)
        end_words(p);
}

void process_wait(process *p, bool writing, double seconds)
{
    struct pollfd fds[3] = {{p->out, POLLIN, 0}, {p->err, POLLIN, 0}, {writing ? p->in : -1, POLLOUT, 0}};
    if (poll(fds, 3, seconds <= 0 ? 0 : (int)(seconds * 1000) + 1) > 0 && fds[1].revents)
        read_words(p);
}

ssize_t process_write(process *p, const char *bytes, size_t count)
{
    /* A program that has gone would send us SIGPIPE, which is ours alone to deal with: a plugin must not change the
     * host's signals. It is blocked for the write and taken back if it came. */
    sigset_t broken, before, pending;
    if (p->in < 0)
        return -1;
    sigemptyset(&broken);
    sigaddset(&broken, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &broken, &before);
    ssize_t wrote;
    do
        wrote = write(p->in, bytes, count);
    while (wrote < 0 && errno == EINTR);
    int why = errno;
    if (wrote < 0 && why == EPIPE && !sigismember(&pending, SIGPIPE)) {
        const struct timespec now = {0, 0};
        while (sigtimedwait(&broken, NULL, &now) < 0 && errno == EINTR)
            ;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (wrote >= 0)
        return wrote;
    if (why == EAGAIN)
        return 0;
    close_one(&p->in);
    return -1;
}

/* Room for READ_SIZE more bytes and a NUL. */
static bool make_room(process *p)
{
    if (p->begin > 0) {
        memmove(p->lines, p->lines + p->begin, p->length);
        p->begin = 0;
    }
    if (p->length + READ_SIZE + 1 <= p->room)
        return true;
    size_t room = 2 * p->room + READ_SIZE + 1;
    char *grown = realloc(p->lines, room);
    if (!grown)
        return false;
    p->lines = grown;
    p->room = room;
    return true;
}

enum process_read process_line(process *p, char **line, size_t *length)
{
    for (;;) {
        char *bytes = p->lines + p->begin;
        char *end = p->length > p->searched ? memchr(bytes + p->searched, '\n', p->length - p->searched) : NULL;
        if (end) {
            *line = bytes;
            *length = (size_t)(end - bytes);
            p->begin += *length + 1;
            p->length -= *length + 1;
            p->searched = 0;
            if (*length > 0 && bytes[*length - 1] == '\r')
                --*length;
            bytes[*length] = '\0';
            return PROCESS_LINE;
        }
        p->searched = p->length;
        if (p->length > PROCESS_LINE_MAX)
            return PROCESS_TOO_LONG;
        *length = p->length;
        if (p->out < 0)
            return PROCESS_CLOSED;
        if (!make_room(p))
            return PROCESS_NO_MEMORY;
        ssize_t got = read(p->out, p->lines + p->length, READ_SIZE);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return PROCESS_NOTHING;
        if (got <= 0)
            close_one(&p->out);
        else
            p->length += (size_t)got;
    }
}

bool process_ended(const process *p)
{
    siginfo_t info = {0};
    return p->pid == 0 || (waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0);
}

bool process_finish(process *p, double seconds)
{
    char *line;
    size_t length;
    double deadline = process_now() + seconds;
    close_one(&p->in);
    while (!process_ended(p) && process_now() < deadline) {
        process_wait(p, false, 0.02);
        while (p->out >= 0 && process_line(p, &line, &length) == PROCESS_LINE) /* nobody asked: kept from blocking */
            ;
        if (p->length > PROCESS_LINE_MAX)
            p->length = p->searched = 0;
        if (p->out < 0 && p->err < 0) {
            const struct timespec moment = {0, 2000000};
            nanosleep(&moment, NULL);
        }
    }
    return process_ended(p);
}

int process_kill(process *p, double grace)
{
    int status = 0;
    if (p->pid == 0)
        return 0;
    double deadline = process_now() + grace;
    while (!process_ended(p) && process_now() < deadline) {
        const struct timespec moment = {0, 2000000};
        read_words(p);
        nanosleep(&moment, NULL);
    }
    /* Before it is collected: until then nobody else can have its number. */
    kill(-p->pid, SIGKILL);
    kill(p->pid, SIGKILL);
    while (waitpid(p->pid, &status, 0) < 0 && errno == EINTR)
        ;
    for (int i = 0; i < 64 && p->err >= 0; i++) { /* its last words; whoever else holds the pipe is not waited for */
        struct pollfd fd = {p->err, POLLIN, 0};
        if (poll(&fd, 1, 0) <= 0)
            break;
        read_words(p);
    }
    close_one(&p->in);
    close_one(&p->out);
    close_one(&p->err);
    end_words(p);
    p->pid = 0;
    return status;
}

void process_status_text(int status, char *text, size_t size)
{
    if (WIFSIGNALED(status))
        snprintf(text, size, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(text, size, "exit status %d", WEXITSTATUS(status));
}
