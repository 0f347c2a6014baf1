/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/run/crash.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__GLIBC__)
#include <execinfo.h>
#endif

static const struct {
    int number;
    const char *name;
} signals[] = {{SIGSEGV, "SIGSEGV"}, {SIGABRT, "SIGABRT"}, {SIGBUS, "SIGBUS"}, {SIGFPE, "SIGFPE"}, {SIGILL, "SIGILL"}};
enum { SIGNALS = sizeof signals / sizeof *signals, FRAMES = 64, STACK = 64 << 10 };

static struct sigaction before[SIGNALS];
static int log_fd = -1, terminal_fd = -1;
static const char *words;
static pid_t process; /* the one that is watched: not a child of it */
static atomic_flag crashing = ATOMIC_FLAG_INIT;

static _Thread_local const sl_job *mine;
static _Thread_local void *stack;

/* ---- within the handler nothing but write, and reading what no crash can have torn: names and ids in arrays */

struct line {
    char text[640];
    size_t size;
};

static void add(struct line *l, const char *text)
{
    while (text != NULL && *text != '\0' && l->size < sizeof l->text)
        l->text[l->size++] = (unsigned char)*text < ' ' ? ' ' : *text, text++;
}

static void add_number(struct line *l, long long n)
{
    char digits[24], *at = digits + sizeof digits - 1;
    *at = '\0';
    do
        *--at = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    add(l, at);
}

static void put(int fd, const char *text, size_t size)
{
    while (fd >= 0 && size > 0) {
        const ssize_t n = write(fd, text, size);
        if (n <= 0)
            return;
        text += n;
        size -= (size_t)n;
    }
}

static const char *how_taken(const sl_job *job)
{
    return job->type->process != NULL ? "record '" : "the last record taken '";
}

static void describe(struct line *l)
{
    if (mine != NULL) {
        add(l, "stage '");
        add(l, mine->stage->name);
        add(l, "' of ");
        add(l, mine->stage->phase->name);
        add(l, "-");
        add_number(l, (long long)mine->iteration + 1);
        add(l, " (");
        add(l, mine->stage->id);
        add(l, ")");
        if (mine->taken[0] != '\0') {
            add(l, ", ");
            add(l, how_taken(mine));
            add(l, mine->taken);
            add(l, "'");
        } else if (mine->producer == NULL) {
            add(l, ", after ");
            add_number(l, (long long)atomic_load(&mine->out));
            add(l, " records");
        }
    } else {
        add(l, "outside the stages' own threads");
    }
}

static void describe_signal(struct line *l, int number)
{
    add(l, ": signal ");
    add_number(l, number);
    for (size_t i = 0; i < SIGNALS; i++)
        if (signals[i].number == number) {
            add(l, " (");
            add(l, signals[i].name);
            add(l, ")");
        }
}

static void on_crash(int number)
{
    struct line line = {.size = 0};
    if (atomic_flag_test_and_set(&crashing)) { /* another thread tells of its own and ends the process */
        sleep(5);
        _exit(128 + number);
    }
    add(&line, "crash: ");
    describe(&line);
    describe_signal(&line, number);
    put(terminal_fd, "\nsluice: ", 9);
    put(terminal_fd, line.text, line.size);
    put(terminal_fd, words, words != NULL ? strlen(words) : 0);
    put(terminal_fd, "\n", 1);
    put(log_fd, line.text, line.size);
    put(log_fd, "; backtrace:\n", 13);
#if defined(__GLIBC__)
    void *frames[FRAMES];
    backtrace_symbols_fd(frames, backtrace(frames, FRAMES), log_fd);
#endif
    signal(number, SIG_DFL);
    raise(number); /* blocked until the handler returns */
}

/* exit called in a stage's thread: without this the run would end there with the plugin's exit code, 0 perhaps. */
static void on_exit_called(void)
{
    static const char what[] =
        ": it called exit; a plugin returns an error instead; the same command goes on from there";
    struct line line = {.size = 0};
    if (mine == NULL || terminal_fd < 0 || getpid() != process)
        return;
    describe(&line);
    add(&line, what);
    put(terminal_fd, "\nsluice: ", 9);
    put(terminal_fd, line.text, line.size);
    put(terminal_fd, "\n", 1);
    put(log_fd, line.text, line.size);
    put(log_fd, "\n", 1);
    _exit(EXIT_FAILURE);
}

/* ---- */

void sl_crash_watch(int log, int terminal, const char *advice)
{
    static bool hooked;
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_ONSTACK};
#if defined(__GLIBC__)
    void *frames[2];
    backtrace(frames, 2); /* loads what it needs while memory can still be had */
#endif
    if (!hooked)
        hooked = atexit(on_exit_called) == 0;
    process = getpid();
    log_fd = log;
    terminal_fd = terminal;
    words = advice;
    atomic_flag_clear(&crashing);
    for (size_t i = 0; i < SIGNALS; i++)
        sigaction(signals[i].number, &action, &before[i]);
}

void sl_crash_unwatch(void)
{
    if (log_fd < 0)
        return;
    for (size_t i = 0; i < SIGNALS; i++)
        sigaction(signals[i].number, &before[i], NULL);
    log_fd = terminal_fd = -1;
}

void sl_crash_enter(const sl_job *job)
{
    mine = job;
    stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED)
        stack = NULL;
    else
        sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = STACK}, NULL);
}

void sl_crash_leave(void)
{
    mine = NULL;
    if (stack == NULL)
        return;
    sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
    munmap(stack, STACK);
    stack = NULL;
}
