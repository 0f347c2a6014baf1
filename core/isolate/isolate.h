/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A stage in a process of its own, the run's side. The program sluice-stage loads the plugin and drives the stage as
 * the run would (run/stage.c); what it wants of the run - records, numbers, models - it asks for over a socket, and the
 * stage's thread answers here. So both ways give the same bytes.
 *
 * All of it is the stage's thread's.
 */
#ifndef SL_ISOLATE_H
#define SL_ISOLATE_H

#include <sys/types.h>
#include <sluice/model.h>
#include "core/isolate/wire.h"
#include "core/run/internal.h"

enum { SL_WORDS = 512 }; /* a line that the process says on stderr; the rest is cut */

/* The process and what is known of it. */
typedef struct sl_process {
    sl_job *job;
    pid_t pid;         /* 0 = none */
    int socket, words; /* -1 = closed */
    bool told;         /* that the run is to stop */
    bool crashed;      /* ended, or was ended, before it was done; `how` then says how */
    char how[SL_WORDS + 128];
    char line[SL_WORDS], last[SL_WORDS]; /* of stderr: being read; the last whole one */
    size_t line_size;
    bool crash_told; /* what follows is a backtrace */
} sl_process;

/* What is kept while a process is served. */
typedef struct sl_isolate {
    sl_process process; /* first */
    sl_job *job;
    const sluice_model_service *models; /* NULL until asked for */
    sluice_model **open;                /* by handle; NULL = closed */
    size_t open_count;
    sl_record **hand; /* records that were given and have not come back */
    size_t hand_count, hand_room;
    uint8_t *placed; /* numbers that are in the output already, a bit each: a second attempt sends them again */
    size_t placed_size;
    uint64_t *left_out; /* numbers of records that go to quarantine */
    size_t left_out_count;
    uint64_t careful; /* see sl_job */
    int depth;        /* of questions within questions */
} sl_isolate;

/* ---- run.c. In the place of making the object and driving it: until the stage is done. The reason of a failure was
 * given to the host. */
int sl_isolate_run(sl_job *);

/* ---- setup.c. The message SETUP of a job; `careful` as in sl_job. */
void sl_setup_pack(sl_message *, const sl_job *, uint64_t careful);

/* ---- process.c. After a crash every call returns SLUICE_FAILED. */
int sl_process_start(sl_process *, sl_job *);
int sl_process_send(sl_process *, const sl_message *);
/* The next message; the caller frees it. Waits while the process works, but no longer than its limit. */
int sl_process_receive(sl_process *, sl_message *);
/* Waits for its end after it is done; what it left running is ended too. */
void sl_process_end(sl_process *);
/* Ends it by force: `what` it did wrong, or NULL when it has ended by itself. SLUICE_FAILED. */
int sl_process_crashed(sl_process *, const char *what);

/* ---- serve.c. Answers until a message of kind `until` comes, which the caller frees. */
int sl_isolate_serve(sl_isolate *, enum sl_wire_kind until, sl_message *);
/* REPLY with a result; `more` adds to it when it is none of failure. */
int sl_isolate_reply(sl_isolate *, int rc, sl_message *reply);

/* ---- model.c. The model service's messages. */
int sl_isolate_model(sl_isolate *, sl_message *);
void sl_isolate_close_models(sl_isolate *);

/* ---- quarantine.c. Adds a record to the stage's streams/…/STAGE.quarantine.zst, with what happened in its meta. */
int sl_quarantine_add(sl_job *, sl_record *, const char *what, char *error);
/* Removes what an earlier run left there. */
void sl_quarantine_forget(const sl_job *);

#endif
