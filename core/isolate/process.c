/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "core/isolate/isolate.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/program.h"

extern char **environ;

static const double last_moments = 5; /* seconds that a process gets to end once it is done */

/* ---- its words */

static void end_line(sl_process *p)
{
    while (p->line_size > 0 && p->line[p->line_size - 1] == ' ')
        p->line_size--;
    if (p->line_size == 0)
        return;
    p->line[p->line_size] = '\0';
    p->line_size = 0;
    p->crash_told = p->crash_told || strncmp(p->line, "crash: ", 7) == 0;
    if (!p->crash_told)
        memcpy(p->last, p->line, sizeof p->last);
    sluice_log(&p->job->host.public, SLUICE_LOG_INFO, "its process: %s", p->line);
}

static void read_words(sl_process *p)
{
    char bytes[4096];
    const ssize_t got = p->words >= 0 ? read(p->words, bytes, sizeof bytes) : 0;
    for (ssize_t i = 0; i < got; i++) {
        const unsigned char c = (unsigned char)bytes[i];
        if (c == '\n')
            end_line(p);
        else if (p->line_size + 1 < sizeof p->line)
            p->line[p->line_size++] = c < ' ' || c == 0x7f ? ' ' : (char)c;
    }
    if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR)))
        return;
    if (p->words >= 0)
        close(p->words);
    p->words = -1;
    end_line(p);
}

/* ---- start and end */

/* A group of its own, so that the terminal's signals reach the run alone and that nothing is left of it when it is
 * ended; nothing but the socket and a pipe for its words. */
static int spawn(sl_process *p, const char *program, int socket, int words)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    char parent[32];
    char *const argv[] = {(char *)(uintptr_t)program, (char *)(uintptr_t)p->job->stage->name, parent, NULL};
    snprintf(parent, sizeof parent, "%ld", (long)getpid());
    sigemptyset(&none);
    sigfillset(&all);
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc != 0)
        return rc;
    rc = posix_spawnattr_init(&attributes);
    if (rc != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return rc;
    }
    if (rc == 0)
        rc = posix_spawn_file_actions_adddup2(&actions, words, STDOUT_FILENO);
    if (rc == 0)
        rc = posix_spawn_file_actions_adddup2(&actions, words, STDERR_FILENO);
    if (rc == 0)
        rc = posix_spawn_file_actions_adddup2(&actions, socket, 3);
    if (rc == 0)
        rc = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
#if defined(__GLIBC__)
#if __GLIBC_PREREQ(2, 34)
    if (rc == 0)
        rc = posix_spawn_file_actions_addclosefrom_np(&actions, 4);
#endif
#endif
    if (rc == 0)
        rc = posix_spawnattr_setflags(&attributes,
                                      POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (rc == 0)
        rc = posix_spawnattr_setpgroup(&attributes, 0);
    if (rc == 0)
        rc = posix_spawnattr_setsigmask(&attributes, &none);
    if (rc == 0)
        rc = posix_spawnattr_setsigdefault(&attributes, &all);
    if (rc == 0)
        rc = posix_spawn(&p->pid, program, &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

int sl_process_start(sl_process *p, sl_job *job)
{
    const sluice_host *host = &job->host.public;
    char program[PATH_MAX];
    int sockets[2] = {-1, -1}, words[2] = {-1, -1};
    *p = (sl_process){.job = job, .socket = -1, .words = -1};
    if (!sl_program_find("stage", program))
        return sluice_error(host, SLUICE_FAILED,
                            "isolate needs the program sluice-stage, and there is no %s; install "
                            "sluice again",
                            program);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0 || pipe2(words, O_CLOEXEC) != 0)
        return sluice_error(host, SLUICE_IO, "cannot make a pipe: %m");
    fcntl(sockets[0], F_SETFL, O_NONBLOCK);
    fcntl(words[0], F_SETFL, O_NONBLOCK);
    const int rc = spawn(p, program, sockets[1], words[1]);
    close(sockets[1]);
    close(words[1]);
    p->socket = sockets[0];
    p->words = words[0];
    if (rc == 0)
        return SLUICE_OK;
    p->pid = 0;
    close(p->socket);
    close(p->words);
    p->socket = p->words = -1;
    return sluice_error(host, SLUICE_FAILED, "its process cannot be started: %s", strerror(rc));
}

static bool has_ended(const sl_process *p)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid != 0;
}

static void await(const sl_process *p, double seconds)
{
    for (const double until = sl_clock() + seconds; !has_ended(p) && sl_clock() < until;)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* Collects it; before that nobody else can have its number. */
static int collect(sl_process *p)
{
    int status = 0;
    kill(-p->pid, SIGKILL);
    kill(p->pid, SIGKILL);
    while (waitpid(p->pid, &status, 0) < 0 && errno == EINTR)
        ;
    p->pid = 0;
    while (p->words >= 0) {
        struct pollfd words = {p->words, POLLIN, 0};
        if (poll(&words, 1, 0) <= 0)
            break;
        read_words(p);
    }
    if (p->words >= 0)
        close(p->words);
    close(p->socket);
    p->words = p->socket = -1;
    end_line(p);
    return status;
}

int sl_process_crashed(sl_process *p, const char *what)
{
    if (p->pid == 0)
        return SLUICE_FAILED;
    if (what == NULL) /* its end of the socket is closed: its own end is near */
        await(p, last_moments);
    const bool ended = has_ended(p);
    const int status = collect(p);
    char how[128];
    if (what != NULL)
        snprintf(how, sizeof how, "%s", what);
    else if (!ended)
        snprintf(how, sizeof how, "closed its connection to the run");
    else if (WIFSIGNALED(status))
        snprintf(how, sizeof how, "was ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(how, sizeof how, "ended with exit code %d", WEXITSTATUS(status));
    snprintf(p->how, sizeof p->how, "%s", how);
    p->crashed = true;
    return SLUICE_FAILED;
}

void sl_process_end(sl_process *p)
{
    if (p->pid == 0)
        return;
    await(p, last_moments);
    collect(p);
}

/* ---- messages */

/* Until the socket is ready, the process takes too long or says something wrong; `since`: when it was its turn. */
static int await_socket(sl_process *p, short events, double since)
{
    const double limit = p->job->stage->isolation.seconds;
    for (;;) {
        struct pollfd fds[2] = {{p->socket, events, 0}, {p->words, POLLIN, 0}};
        const double left = limit > 0 ? limit - (sl_clock() - since) : 1;
        if (!p->told && atomic_load_explicit(&p->job->run->cancelled, memory_order_relaxed)) {
            kill(p->pid, SIGUSR1);
            p->told = true;
        }
        const int ready = poll(fds, 2, left > 0.1 ? 100 : left > 0 ? (int)(left * 1000) + 1 : 0);
        if (ready > 0 && fds[1].revents)
            read_words(p);
        if (ready > 0 && fds[0].revents)
            return SLUICE_OK;
        if (ready < 0 && errno != EINTR)
            return sl_process_crashed(p, "cannot be waited for");
        if (limit > 0 && left <= 0) {
            char what[96];
            snprintf(what, sizeof what, "gave no sign for %g seconds, its limit, and was ended", limit);
            return sl_process_crashed(p, what);
        }
    }
}

static int transfer(sl_process *p, void *bytes, size_t size, bool out, double since)
{
    for (size_t done = 0; done < size;) {
        if (p->pid == 0)
            return SLUICE_FAILED;
        const ssize_t n = out ? send(p->socket, (const char *)bytes + done, size - done, MSG_NOSIGNAL)
                              : recv(p->socket, (char *)bytes + done, size - done, 0);
        if (n > 0) {
            done += (size_t)n;
        } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            const int rc = await_socket(p, out ? POLLOUT : POLLIN, since);
            if (rc < 0)
                return rc;
        } else {
            return sl_process_crashed(p, NULL);
        }
    }
    return SLUICE_OK;
}

int sl_process_send(sl_process *p, const sl_message *m)
{
    uint8_t head[SL_WIRE_HEAD];
    if (m->failed < 0)
        return sluice_error(&p->job->host.public, m->failed, "out of memory");
    sl_wire_head(m, head);
    const double now = sl_clock();
    const int rc = transfer(p, head, sizeof head, true, now);
    return rc < 0 ? rc : transfer(p, m->body.data, m->body.size, true, now);
}

int sl_process_receive(sl_process *p, sl_message *m)
{
    uint8_t head[SL_WIRE_HEAD];
    uint64_t size;
    const double now = sl_clock();
    *m = (sl_message){0};
    int rc = transfer(p, head, sizeof head, false, now);
    if (rc < 0)
        return rc;
    if (!sl_wire_read_head(head, &m->kind, &size))
        return sl_process_crashed(p, "wrote what is no message into its connection to the run, and was ended");
    rc = sl_buffer_reserve(&m->body, (size_t)size);
    if (rc < 0)
        return sluice_error(&p->job->host.public, rc, "out of memory");
    m->body.size = (size_t)size;
    rc = transfer(p, m->body.data, (size_t)size, false, now);
    if (rc < 0)
        sl_message_free(m);
    return rc;
}
