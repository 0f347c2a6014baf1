/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Runs: stopped, killed and gone on with, repeated, with memory that is taken back, at another speed. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/run/internal.h"
#include "tools/test-plugin/memory.h"
#include "tools/test-plugin/process.h"

#define STAGES (~(1u << SLUICE_KIND_LOSS | 1u << SLUICE_SERVICE | 1u << SLUICE_METRICS_SINK))

bool tp_baseline(const tp_subject *s, const tp_records *records, tp_outcome *out, tp_report *r)
{
    tp_doing(r, "sample records");
    tp_drive(s, &(tp_work){.records = records}, out);
    if (out->rc < 0 && out->wants_gpu && !out->began)
        tp_skip(r, "it needs a GPU");
    else if (out->rc < 0)
        tp_skip(r, "refuses the sample records: %s", out->error);
    return out->rc >= 0;
}

void tp_check_fault(const tp_outcome *out, enum tp_fault fault, tp_report *r)
{
    if (out->fault == fault)
        tp_fail(r, "%s", out->what);
}

static bool on_gpu(const tp_subject *s)
{
    return s->type->traits & SLUICE_USES_CUDA;
}

bool tp_drive_apart(const tp_subject *s, const tp_work *work, int seconds, tp_apart *how)
{
    enum { START = 5 }; /* seconds that a GPU may take */
    bool done = false;
    *how = (tp_apart){.rc = SLUICE_FAILED};
    tp_apart *told = tp_shared(sizeof *told);
    if (told == NULL)
        return false;
    *told = *how;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        tp_outcome out;
        tp_drive(s, work, &out);
        *told = (tp_apart){.rc = out.rc, .occasions = out.occasions};
        _exit(0);
    }
    seconds += on_gpu(s) ? START : 0;
    for (int ms = 0; child > 0 && !done && ms < 1000 * seconds; ms++) {
        done = waitpid(child, &how->status, WNOHANG) == child;
        if (!done)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    if (child > 0 && !done) {
        kill(child, SIGKILL);
        waitpid(child, &how->status, 0);
    }
    how->rc = told->rc;
    how->occasions = told->occasions;
    munmap(told, sizeof *told);
    return done;
}

/* ---- cancel */

static void cancel(tp_subject *s, tp_report *r)
{
    tp_records records;
    tp_outcome out;
    if (!tp_records_make(s, TP_USUAL_RECORDS, TP_PLAIN, 0, &records))
        return;
    const bool whole = tp_baseline(s, &records, &out, r);
    const size_t occasions = out.occasions > 0 ? out.occasions : 1;
    tp_outcome_free(&out);
    for (size_t quarter = 0; whole && quarter < 4; quarter++) {
        const size_t after = 1 + occasions * quarter / 4;
        tp_doing(r, "cancelled at occasion %zu of %zu", after, occasions);
        tp_drive(s, &(tp_work){.records = &records, .cancel_after = after}, &out);
        tp_check_fault(&out, TP_FAULT_CANCEL, r);
        tp_check_fault(&out, TP_FAULT_MESSAGE, r);
        if (out.rc < 0 && out.rc != SLUICE_CANCELLED)
            tp_fail(r, "cancelled, it fails: %s; return SLUICE_CANCELLED", out.error);
        tp_outcome_free(&out);
    }
    tp_records_free(&records);
}

const tp_test tp_test_cancel = {"cancel", "cancelled in the middle, it stops soon and publishes nothing", TP_RUN,
                                STAGES, cancel};

/* ---- resume */

static void same_as(const tp_subject *s, const tp_work *work, const tp_outcome *whole, const char *when, tp_report *r)
{
    tp_outcome out;
    char why[256];
    tp_doing(r, "%s", when);
    tp_drive(s, work, &out);
    if (!tp_outcome_same(whole, &out, why, sizeof why))
        tp_fail(r, "%s %s", when, why);
    tp_outcome_free(&out);
}

enum { TURNS = 6 };

static const char *checkpoints_of(size_t turn)
{
    static const char *const folder[TURNS] = {"checkpoints-1", "checkpoints-2", "checkpoints-3",
                                              "checkpoints-4", "checkpoints-5", "checkpoints-6"};
    return folder[turn];
}

/* Runs killed after a checkpoint that they wrote when they were cancelled, mostly near the end, where work that reads
 * all its input first is done, and after one that they wrote when they liked. Each leaves its checkpoints in a folder
 * of its own. They are processes, and with a GPU must come before this one asks for it. */
static void kill_some(const tp_subject *s, const tp_records *records, bool killed[TURNS])
{
    enum { MOST = 4 }; /* seconds for those that start a GPU each */
    const double start = sl_clock();
    tp_apart how;
    if (!tp_drive_apart(s, &(tp_work){.records = records}, 3, &how) || how.rc < 0)
        return; /* which others say */
    const size_t end = how.occasions > 4 ? how.occasions : 4;
    const size_t moments[TURNS] = {end / 2, 0, end - 3, end - 2, end - 1, end};
    for (size_t turn = 0; turn < TURNS; turn++) {
        const tp_work work = {
            .records = records, .checkpoints = checkpoints_of(turn), .cancel_after = moments[turn], .die_at_commit = 1};
        if (turn > 1 && on_gpu(s) && sl_clock() - start > MOST)
            break;
        if (!tp_drive_apart(s, &work, 3, &how)) /* it does not stop when it is cancelled, which another test says */
            break;
        killed[turn] = WIFSIGNALED(how.status) && WTERMSIG(how.status) == SIGKILL;
    }
}

static void resume(tp_subject *s, tp_report *r)
{
    enum { MANY = 80 }; /* enough for several steps of a usual batch */
    tp_records records;
    tp_outcome out;
    bool killed[TURNS] = {false};
    if (!tp_records_make(s, s->type->kind == SLUICE_TRAINER ? MANY : TP_USUAL_RECORDS, TP_PLAIN, 0, &records))
        return;
    kill_some(s, &records, killed);
    if (tp_baseline(s, &records, &out, r)) {
        const tp_work half = {.records = &records, .earlier = &out, .earlier_count = out.count / 2};
        const tp_work all = {.records = &records, .earlier = &out, .earlier_count = out.count};
        same_as(s, &half, &out, "going on from half of its output,", r);
        same_as(s, &all, &out, "going on from all of its output,", r);
        for (size_t turn = 0; turn < TURNS; turn++)
            if (killed[turn])
                same_as(s, &(tp_work){.records = &records, .checkpoints = checkpoints_of(turn)}, &out,
                        "killed after a checkpoint and gone on with,", r);
    }
    tp_outcome_free(&out);
    tp_records_free(&records);
}

const tp_test tp_test_resume = {"resume", "killed and gone on with, it ends with the same bytes", TP_RUN, STAGES,
                                resume};

/* ---- same seed */

static void same_seed(tp_subject *s, tp_report *r)
{
    tp_records records;
    tp_outcome out;
    if (!tp_records_make(s, TP_USUAL_RECORDS, TP_PLAIN, 0, &records))
        return;
    tp_memory_set(TP_FREED_REUSED, 0);
    if (tp_baseline(s, &records, &out, r)) {
        const tp_work plain = {.records = &records};
        tp_memory_set(TP_FREED_REUSED, 0xA5);
        same_as(s, &plain, &out, "again, in memory that held something else,", r);
        tp_clock_shift(1000003);
        same_as(s, &plain, &out, "again, on another day,", r);
    }
    tp_memory_set(TP_FREED_REUSED, -1);
    tp_outcome_free(&out);
    tp_records_free(&records);
}

const tp_test tp_test_same_seed = {"seed", "the same seed gives the same bytes, at any time and in any memory", TP_RUN,
                                   0, same_seed};

/* ---- borrowed */

static void borrowed(tp_subject *s, tp_report *r)
{
    tp_records records;
    tp_outcome out;
    if (!tp_memory_ours()) {
        tp_skip(r, "the sanitizer's allocator finds this by itself");
        return;
    }
    if (!tp_records_make(s, TP_USUAL_RECORDS, TP_PLAIN, 0, &records))
        return;
    tp_memory_set(TP_FREED_KEPT, 0);
    if (tp_baseline(s, &records, &out, r)) {
        const tp_work plain = {.records = &records};
        tp_memory_set(TP_FREED_POISONED, 0);
        same_as(s, &plain, &out, "when what it borrowed is overwritten after the call", r);
    }
    tp_memory_set(TP_FREED_REUSED, -1);
    tp_outcome_free(&out);
    tp_records_free(&records);
}

const tp_test tp_test_borrowed = {"borrowed", "pointers it borrowed, or freed, are not read after the call", TP_RUN, 0,
                                  borrowed};

/* ---- speed */

static bool change(tp_value *v)
{
    const sluice_param *p = v->param;
    const double other = v->number < p->max && v->number + 1 < p->below ? v->number + 1 : v->number - 1;
    if (!p->speed_only)
        return false;
    if (p->type == SLUICE_TYPE_BOOL)
        v->number = v->number == 0;
    else if ((p->type == SLUICE_TYPE_INT || p->type == SLUICE_TYPE_DOUBLE) && other >= p->min && other > p->above)
        v->number = other;
    else
        return false;
    v->integer = (int64_t)v->number;
    return true;
}

static void speed(tp_subject *s, tp_report *r)
{
    tp_records records;
    tp_outcome out;
    bool any = false;
    if (!tp_records_make(s, TP_USUAL_RECORDS, TP_PLAIN, 0, &records))
        return;
    if (tp_baseline(s, &records, &out, r))
        for (size_t i = 0; i < s->value_count; i++) {
            const tp_value before = s->values[i];
            char when[128];
            if (!change(&s->values[i]))
                continue;
            any = true;
            snprintf(when, sizeof when, "with another '%.60s', which is speed_only,", before.param->name);
            same_as(s, &(tp_work){.records = &records}, &out, when, r);
            s->values[i] = before;
        }
    if (!any)
        tp_skip(r, "it has no parameter that is speed_only");
    tp_outcome_free(&out);
    tp_records_free(&records);
}

const tp_test tp_test_speed = {"speed", "parameters that are speed_only change no bytes", TP_RUN, 0, speed};
