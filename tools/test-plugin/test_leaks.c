/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What is left behind: printed words, memory, threads, processes, descriptors. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/test-plugin/gpu.h"
#include "tools/test-plugin/memory.h"
#include "tools/test-plugin/process.h"

/* Lives of an object: some whole, some cancelled early, some given what is odd. */
typedef struct lives {
    tp_records plain, odd;
    tp_work kinds[4];
} lives;

/* Whether a class comes through is for other tests to say; here it decides what can be repeated. */
static bool comes_through(const tp_subject *s, const tp_work *work)
{
    tp_apart how;
    return tp_drive_apart(s, work, 1, &how) && WIFEXITED(how.status) && WEXITSTATUS(how.status) == 0;
}

static bool lives_make(const tp_subject *s, lives *l)
{
    if (!tp_records_make(s, TP_USUAL_RECORDS, TP_PLAIN, 0, &l->plain) ||
        !tp_records_make(s, TP_USUAL_RECORDS, TP_NO_CANDIDATES, 3, &l->odd))
        return false;
    const tp_work plain = {.records = &l->plain}, cancelled = {.records = &l->plain, .cancel_after = 5};
    const tp_work odd = {.records = &l->odd};
    l->kinds[0] = l->kinds[1] = plain;
    l->kinds[2] = comes_through(s, &cancelled) ? cancelled : plain;
    l->kinds[3] = comes_through(s, &odd) ? odd : plain;
    return true;
}

static void live(const tp_subject *s, const lives *l, int count)
{
    for (int i = 0; i < count; i++) {
        tp_outcome out;
        tp_drive(s, &l->kinds[i % 4], &out);
        tp_outcome_free(&out);
    }
}

typedef long measure(void);

static void repeat(tp_subject *s, measure *now, int warm, int rounds, long *first, long *second)
{
    lives l = {0};
    if (lives_make(s, &l)) {
        live(s, &l, warm);
        const long before = now();
        live(s, &l, rounds);
        const long between = now();
        live(s, &l, rounds);
        *first = between - before;
        *second = now() - between;
    }
    tp_records_free(&l.odd);
    tp_records_free(&l.plain);
}

/* ---- quiet */

static long printed(void)
{
    struct stat out, err;
    fflush(NULL);
    return (stat(TP_STDOUT, &out) == 0 ? (long)out.st_size : 0) + (stat(TP_STDERR, &err) == 0 ? (long)err.st_size : 0);
}

static void quiet(tp_subject *s, tp_report *r)
{
    long first = 0, second = 0;
    tp_doing(r, "several lives");
    const long before = printed();
    repeat(s, printed, 4, 2, &first, &second);
    if (printed() > before)
        tp_fail(r, "prints to standard output or error; use sluice_log and sluice_error");
}

const tp_test tp_test_quiet = {"quiet", "nothing on standard output or error", TP_RUN, 0, quiet};

/* ---- memory */

static void memory(tp_subject *s, tp_report *r)
{
    enum { WARM = 8, ROUNDS = 12 };
    long blocks = 0, more = 0;
    if (!tp_memory_ours()) {
        tp_skip(r, "it needs an allocator that counts, and a sanitizer has its own");
        return;
    }
    tp_doing(r, "several lives");
    repeat(s, tp_memory_blocks, WARM, ROUNDS, &blocks, &more);
    /* A table that grows once in a while is no leak: only what grows with every round of four is. */
    if (blocks >= ROUNDS / 4 && more >= ROUNDS / 4)
        tp_fail(r, "leaks: %ld blocks of memory more after %d lives, and %ld more after as many again", blocks, ROUNDS,
                more);
}

const tp_test tp_test_memory = {"memory", "no memory is left behind, however it ends", TP_RUN, 0, memory};

/* ---- threads, processes and descriptors */

static long threads_now(void)
{
    return tp_entries(TP_THREADS);
}

static long descriptors_now(void)
{
    return tp_entries("/proc/self/fd");
}

/* A thread that was just told to end gets a moment to do so. */
static long threads_settled(void)
{
    long now = threads_now();
    for (int i = 0; i < 20 && now > 3 + tp_gpu_threads(); i++) { /* . and .. and this one */
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        now = threads_now();
    }
    return now;
}

static void threads(tp_subject *s, tp_report *r)
{
    long first = 0, second = 0;
    const long before = threads_now();
    tp_doing(r, "several lives");
    repeat(s, threads_settled, 1, 2, &first, &second);
    if (threads_settled() > before + tp_gpu_threads())
        tp_fail(r, "leaves %ld threads running after fini", threads_now() - before - tp_gpu_threads());
    if (waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD)
        tp_fail(r, "leaves a child process behind after fini");
}

const tp_test tp_test_threads = {"threads", "no threads or processes are left behind", TP_RUN, 0, threads};

static void descriptors(tp_subject *s, tp_report *r)
{
    long first = 0, second = 0;
    tp_doing(r, "several lives");
    repeat(s, descriptors_now, 4, 4, &first, &second);
    if (first > 0 && second > 0)
        tp_fail(r, "leaves files open: %ld more after four lives, and %ld more after as many again", first, second);
}

const tp_test tp_test_descriptors = {"descriptors", "no files are left open", TP_RUN, 0, descriptors};
