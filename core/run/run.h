/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a plan: phases, iterations, a thread a stage, a folder with all that came out.
 *
 * The folder (default runs/<name>) holds pipeline.cfg (resolved), metrics.jsonl (no clock in it: the same run gives the
 * same bytes), timing.jsonl, log.txt, streams/<phase>-<iteration>/<stage>.zst and models/<slot>@<version>/; iterations
 * count from 1 in names of folders and in what people read. Whatever is found there, or in the store, with the same
 * content key is not computed again, so running again after an interruption goes on with the stage that was
 * interrupted.
 */
#ifndef SL_RUN_H
#define SL_RUN_H

#include "core/plan/plan.h"

typedef struct sl_run_options {
    const char *out;   /* the run's folder; NULL = the plan's, or runs/<name> */
    const char *store; /* of stage outputs, shared with other runs (core/store/store.h); "off"; NULL = SLUICE_STORE, the
                          plan's, or the user's */
    bool fresh;        /* forget the streams and models that earlier runs left in it, and take none from the store */
    bool explain;      /* run nothing: say for each stage whether it would be reused, or run and why */
    int64_t records;   /* a source stops after so many; 0 = it gives all */
    bool quiet;        /* no progress and no table: errors and warnings only */
} sl_run_options;

/* DAMAGED: a stream is damaged, or a record or a line of data is wrong. */
enum sl_run_exit { SL_RUN_DONE = 0, SL_RUN_FAILED = 1, SL_RUN_DAMAGED = 3, SL_RUN_STOPPED = 130 };

/* Runs to the end. Progress and the one line of an error go to stderr, the table to stdout. Takes SIGINT and SIGTERM
 * while it runs: the first finishes the records in hand and stops, the second ends the process at once. One run at a
 * time in a process. Returns the process's exit code. */
int sl_run(const sl_plan *, sl_registry *, const sl_run_options *);

#endif
