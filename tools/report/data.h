/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A run's folder as the report reads it: whatever is there, of a run that is finished, going on, killed or damaged.
 * What could not be read is among `notes`, in words for the page.
 *
 * Everything belongs to the run and lives until rp_run_close. One thread.
 */
#ifndef RP_DATA_H
#define RP_DATA_H

#include "core/base/buffer.h"
#include "core/plan/plan.h"

/* A line of metrics.jsonl. */
typedef struct rp_line {
    const char *phase, *stage;
    const char *model; /* "policy@1"; NULL = none */
    int64_t iteration; /* from 1 */
    int64_t step;      /* -1 = of the whole stage */
    sluice_number *numbers;
    size_t count;
} rp_line;

/* A line of timing.jsonl of a stage that ran: reused ones are left out. */
typedef struct rp_timing {
    const char *phase, *stage;
    int64_t iteration;
    double seconds, busy, waiting, writing, records_in, records, tokens, tokens_in, tokens_out, bytes, bytes_compressed,
        memory;
} rp_timing;

enum rp_state { RP_DONE, RP_RUNNING, RP_STOPPED };

/* Texts, one after another. */
typedef struct rp_texts {
    const char **items;
    size_t count;
} rp_texts;

typedef struct rp_run {
    sl_arena *arena;
    const char *folder; /* as given, without a slash at its end */
    sl_plan *plan;      /* NULL when the resolved file cannot be understood here; `notes` says why */
    const char *name;   /* of the pipeline; of the folder without a plan */
    rp_line *lines;
    size_t line_count;
    rp_timing *timings;
    size_t timing_count;
    enum rp_state state;
    const char *started, *ended; /* "2026-01-31T12:00:00.000Z" of the log, of its last run; NULL = not there */
    const char *last;            /* the last line of a log that does not end with a finished run */
    size_t jobs, jobs_done;      /* stages of all iterations; 0 without a plan */
    const char *pipeline, *environment, *version; /* NULL = not there */
    rp_texts warnings, notes;
    rp_texts names; /* that lines share */
} rp_run;

/* NULL after one line in `error` (SL_ERROR_SIZE bytes): no such folder, or no run's. */
rp_run *rp_run_open(const char *folder, sl_registry *, char *error);
void rp_run_close(rp_run *);
/* Adds a note, in words for the page. */
void rp_note(rp_run *, const char *format, ...) SLUICE_PRINTF(2, 3);

/* The stage of a line in the plan; NULL without a plan or when it has none of that name. */
const sl_stage *rp_stage(const rp_run *, const char *phase, const char *stage);
/* "policy@2" → 2, and the slot's name in `slot` (64 bytes); -1 when it is no such text. */
int64_t rp_version(const char *model, char slot[64]);
/* The number of that name; NaN when there is none. `end` is appended to the name ("/low"). */
double rp_number(const rp_line *, const char *name, const char *end);
/* Path of a stream; NULL when neither the finished nor the growing file is there. */
const char *rp_stream_path(rp_run *, const sl_stage *, int64_t iteration);
/* Seconds from one time of a log to another; NaN when either cannot be read. */
double rp_seconds(const char *from, const char *to);
/* Room in an arena for one more item of a list that this made: the list, or a larger copy of it. NULL: no memory. */
void *rp_grow(sl_arena *, void *items, size_t count, size_t size);

#endif
