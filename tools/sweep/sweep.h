/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A sweep: the variants of a file's ablation, each with every seed, as runs of their own in DIR/VARIANT-SEED.
 *
 * Two jobs (a stage in an iteration) of different runs are the same when all that determines what they put out is:
 * class, parameters, names, seed, and the same of whatever they read. All runs have one store, by which one of them
 * computes such a job and the others take it over, each deciding by the job's content key.
 *
 * One thread; runs are child processes. Everything lives in the sweep's arena, but for the plans.
 */
#ifndef SW_SWEEP_H
#define SW_SWEEP_H

#include "core/cli/cli.h"
#include "core/plan/plan.h"
#include "core/run/internal.h"

#include <sys/types.h>

enum sw_state { SW_WAITING, SW_RUNNING, SW_DONE, SW_FAILED, SW_STOPPED };

typedef struct sw_job {
    const sl_stage *stage;
    int64_t iteration; /* from 0 */
    size_t block;      /* its iteration of its phase, counted over all phases: blocks run one after another */
    uint8_t hash[16];
    bool hashed;
    size_t owner; /* the first run that has this job */
} sw_job;

typedef struct sw_run {
    const char *variant;
    uint64_t seed;
    const char *name, *folder; /* "cream-1", "DIR/cream-1" */
    sl_plan *plan;
    sw_job *jobs; /* in the order phase, iteration, stage */
    size_t job_count;

    enum sw_state state;
    pid_t process;
    FILE *said;         /* what it writes to stderr */
    const char *reason; /* why it failed */
    double began, seconds;
    int64_t timing; /* size of its timing.jsonl when it started */
    bool kept;      /* everything was there already */
} sw_run;

typedef struct sw_sweep {
    const sl_command *command;
    sl_arena *arena;
    sl_registry *registry;
    const char *file, *folder;
    sl_plan *base; /* of the file itself */
    sw_run *runs;  /* the first variant's, seed after seed, then the next's */
    size_t run_count;
    const char **variants;
    size_t variant_count;
    const uint64_t *seeds;
    size_t seed_count;
    int64_t parallel;  /* runs at once */
    const char *store; /* of all runs */
    bool own_store;    /* in the sweep's folder */
} sw_sweep;

/* ---- runs.c: reads the file for every run. Returns -1 to go on, otherwise what to exit with, after a word on stderr.
 */
int sw_runs_read(sw_sweep *, const sl_words *settings, const char *out);
void sw_runs_free(sw_sweep *);

/* ---- share.c */
/* Hashes and owners of all jobs; negative when out of memory. */
int sw_share_find(sw_sweep *);
/* Is this job finished in the folder of its run? */
bool sw_share_done(const sw_run *, const sw_job *);
/* Is there a running run that will soon have computed what this one needs as well? */
bool sw_share_awaits(const sw_sweep *, const sw_run *);

/* ---- execute.c */
/* From here on SIGINT, SIGTERM and SIGHUP stop the sweep in order. */
void sw_take_signals(void);
/* Runs what is not there. Returns what to exit with. */
int sw_execute(sw_sweep *, bool fresh);

/* ---- estimate.c: what will run, what is shared, how long it may take. */
int sw_plan_print(sw_sweep *, FILE *);

/* ---- table.c, print.c */
typedef struct sw_cell {
    double *values;             /* one a seed; NaN = the run has no such number */
    size_t count;               /* of values that are there */
    double mean, half;          /* half the width of the 95 % interval */
    size_t pairs;               /* seeds that the first variant has too */
    double change, change_half; /* mean of the paired differences to the first variant */
} sw_cell;

/* A metric of a stage in one iteration. */
typedef struct sw_row {
    const char *phase, *stage, *metric;
    int64_t iteration; /* from 1 */
    sw_cell *cells;    /* one a variant */
} sw_row;

typedef struct sw_table {
    const sw_sweep *sweep;
    sw_row *rows; /* iterations of one metric of a stage lie together */
    size_t count;
} sw_table;

/* Of all runs that are done. metrics: "STAGE/NAME"; none: accuracies of evaluators, label accuracies of rankers and
 * regularizers. Negative when out of memory. */
int sw_table_read(sw_sweep *, const sl_words *metrics, sw_table *);
/* Writes table.json, table.csv and table.md into the sweep's folder. */
int sw_table_write(const sw_table *, char *error);
/* As Markdown: text that people read too. */
void sw_table_print(const sw_table *, FILE *);

#endif
