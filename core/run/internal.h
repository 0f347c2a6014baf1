/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The runner's own structures. A *job* is one stage in one iteration of its phase; an *execution* is all jobs of a
 * plan.
 *
 * Threads: the main thread walks phases and iterations, draws progress and decides; each job has a thread. What is
 * guarded by `lock` says so; the counters that progress reads are atomic; everything else of a job belongs to its
 * thread while that runs and to the main thread before and after.
 */
#ifndef SL_RUN_INTERNAL_H
#define SL_RUN_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sluice/sluice.h>
#include "core/base/file.h"
#include "core/base/hash.h"
#include "core/plan/plan.h"
#include "core/store/store.h"
#include "core/stream/earlier.h"
#include "core/stream/pipe.h"
#include "core/stream/stream.h"

typedef struct sl_job sl_job;
typedef struct sl_execution sl_execution;

/* ---- folder.c: files and folders that are whole or not there. Errors: one line in `error`, a negative result. */
enum { SL_ERROR_SIZE = 1024 };
int sl_folder_make(const char *path, char *error);
int sl_folder_sync(const char *path); /* every file in it and the folder itself to the disk */
int sl_parent_sync(const char *path); /* the folder that holds PATH: a rename in it is on the disk */
int sl_folder_lock(const char *path, int *fd, char *error);
/* Removes what a killed run left half-written below a run folder; `all`: also the streams that were begun, which a run
 * that goes on copies from. */
void sl_folder_sweep(const char *path, bool all);
/* Removes streams and published versions: only what has the form of ours. */
int sl_folder_forget(const char *path, const sl_plan *, char *error);
int sl_file_write(const char *path, const void *bytes, size_t size, char *error);
bool sl_path_exists(const char *path);

/* ---- console.c: log.txt and the terminal, one line at a time. Any thread. */
typedef struct sl_console {
    pthread_mutex_t lock;
    FILE *file;         /* NULL = none */
    FILE *terminal;     /* NULL = none */
    const char *prefix; /* of warnings on the terminal */
    bool live;          /* the terminal can be redrawn; colours are not used, so NO_COLOR has nothing to forbid */
    size_t drawn;       /* lines now standing at its foot */
    char *foot;         /* those lines */
} sl_console;

void sl_console_init(sl_console *, FILE *terminal);
int sl_console_open(sl_console *, const char *path, char *error);
void sl_console_close(sl_console *);
/* To log.txt with the time; warnings to the terminal too. */
void sl_console_line(sl_console *, int level, const char *format, ...) SLUICE_PRINTF(3, 4);
/* For people: to the terminal, and to log.txt. */
void sl_console_say(sl_console *, const char *format, ...) SLUICE_PRINTF(2, 3);
/* Replaces the lines at the terminal's foot. */
void sl_console_draw(sl_console *, const char *lines);
size_t sl_console_width(const sl_console *);
/* UTC, RFC 3339, milliseconds: 24 characters and NUL. */
enum { SL_TIME_SIZE = 32 };
void sl_time_now(char *text);
double sl_clock(void); /* monotonic seconds */

/* ---- host.c, services.c */
typedef struct sl_services {
    pthread_mutex_t lock;       /* recursive: a provider may ask for another service while it is made */
    pthread_mutex_t error_lock; /* last errors of providers, which any thread may report */
    sl_registry *registry;
    const sl_object *settings; /* parameters by class; classes without an entry have defaults */
    size_t setting_count;
    struct sl_provider *first;
    sl_console *console;
    uint64_t seed;
    uint64_t told; /* of the refused plugins, which the log has */
} sl_services;

typedef struct sl_host {
    sluice_host public; /* first: a sluice_host is a sl_host */
    sl_services *services;
    sl_console *console;
    const char *name;
    uint64_t seed;
    sl_job *job;        /* NULL for services, metrics sinks and commands */
    const char *folder; /* the run's, of a metrics sink */
    char error[SL_ERROR_SIZE];
    int code; /* the sluice_result that came with it */
} sl_host;

void sl_host_init(sl_host *, const char *name, uint64_t seed, sl_services *, sl_console *, sl_job *);

void sl_services_init(sl_services *, sl_registry *, const sl_object *settings, size_t count, sl_console *,
                      uint64_t seed);
const void *sl_services_get(sl_services *, const char *id);
/* What one service that was made says decides its numbers; NULL when it says nothing. */
const char *sl_services_numerics_of(sl_services *, const char *id);
/* What the services made so far contribute to content keys: numerics and files. Appended, in the order of class ids. */
int sl_services_numerics(sl_services *, sl_buffer *);
void sl_services_end(sl_services *);

/* ---- object.c: an object made from a class and the plan's values. */
typedef struct sl_instance {
    const sluice_class *type;
    void *state;
    bool begun; /* init was called, so fini is due */
    struct sl_instance *parts;
    size_t part_count;
} sl_instance;

/* Clears, sets and calls init: parts first, then the object. `job` resolves model references (NULL: there are none). On
 * failure everything is undone and a negative result returned; the reason was given to the host. What the state points
 * to lies in `arena`. */
int sl_instance_begin(sl_instance *, const sl_object *, const sl_object *parts, size_t part_count, const sl_job *job,
                      const sl_host *, sl_arena *);
void sl_instance_end(sl_instance *);
const char *sl_result_text(int code);
/* An object with every parameter at its default. */
int sl_object_defaults(const sl_registered *, sl_arena *, sl_object *);

/* ---- versions.c */
/* Folder of a slot's version, from the arena. */
char *sl_version_path(const sl_execution *, size_t slot, int64_t version, sl_arena *);
const sluice_model_ref *sl_version_ref(const sl_job *, const sl_model_use *, const char *text, sl_arena *);
/* Calls `each` for every version that the job reads (what a SLOT starts from included) or, published = true, publishes.
 */
typedef int sl_version_visitor(void *context, const sl_model_use *);
int sl_version_visit(const sl_job *, bool published, sl_version_visitor *each, void *context);
/* The job of a stage in an iteration of its phase. */
sl_job *sl_job_of(const sl_execution *, const sl_stage *, int64_t iteration);
/* The job that publishes a version; NULL for version 0. */
sl_job *sl_version_publisher(const sl_execution *, size_t slot, int64_t version);
int sl_version_index(sl_execution *); /* makes that lookup, once the jobs are there */
int sl_version_begin(sl_job *, const sluice_model_ref *, const char **dir);
int sl_version_commit(sl_job *, const sluice_model_ref *);
/* Where a version is written before it gets its name. */
char *sl_version_hidden(const sl_execution *, size_t slot, int64_t version, sl_arena *);
/* Gives a folder that is whole its name, in the place of what had it; all of it is on the disk then, with the job's
 * key. -1 with errno. */
int sl_version_name(const sl_job *, const char *hidden, const char *final, sl_arena *);
/* Whether a version's folder was published by a job of this key. */
bool sl_version_is_of(const sl_job *, const char *folder, sl_arena *);
/* After the stage's end: every slot was published, nothing half-written is left. */
int sl_version_finish(sl_job *);
void sl_version_discard(sl_job *);
/* Removes versions beyond keep_versions that no unfinished job reads. */
void sl_version_prune(sl_execution *);
/* "policy@1": the version that the job's numbers are about; false when there is none. */
bool sl_version_subject(const sl_job *, sl_model_use *, bool *publishes);

/* ---- key.c */
/* (Re)computes the keys of `count` jobs. Negative with a line in `error` when a file or folder cannot be read. */
int sl_key_compute(sl_execution *, size_t first, size_t count, char *error);
/* What a stage left beside its stream: content of the file that a sink wrote, names and sizes of a published version's
 * files; zero for other stages. False when that cannot be looked at: the version's folder is not there, or a sink's
 * file is what a later iteration wrote. */
bool sl_key_output(const sl_job *, uint8_t out[16]);

/* ---- reuse.c */
/* Decides for each of these jobs, unless it is decided and its key is still the same, whether what lies in the folder
 * or in the store is reused. */
void sl_key_reuse(sl_execution *, size_t first, size_t count);
/* Before those of one iteration start that are not reused: claims them in the store. Waits for other runs that compute
 * the same, and then takes what they put there. SLUICE_CANCELLED when a signal comes meanwhile. */
int sl_key_await(sl_execution *, size_t first, size_t count);

/* ---- shared.c: a run and the store. Without a store all of it does nothing. */
/* Opens the run's store. Only one that somebody named is missed: then false with a line in `error`. */
bool sl_shared_open(sl_execution *, const char *option, char *error);
void sl_shared_close(sl_execution *);
/* Holds the default store at its bound, once an iteration: versions that the run removed may lie there still. */
void sl_shared_bound(sl_execution *);
/* Brings a job's output from the store into the folder; with run->explain only looks. False when it is not there. */
bool sl_shared_fetch(sl_job *);
/* Adds a finished job's output to the store, and gives its claim back. A failure is a warning. The stage's thread. */
void sl_shared_put(sl_job *);
/* False: another run computes the same. */
bool sl_shared_claim(sl_job *);
void sl_shared_release(sl_job *);

/* ---- explain.c */
/* A line a job: reused, or run and why. */
int sl_explain(sl_execution *, FILE *);

/* ---- metrics.c */
void sl_metrics_add(sl_job *, int64_t step, const sluice_number *, size_t count);
int sl_metrics_kept(const sl_job *); /* none of them was lost for want of memory */
int sl_metrics_seal(sl_job *);       /* the stage's own line, after those of its steps */
/* Reads a job's lines back from its .done file. */
int sl_metrics_restore(sl_job *, const char *lines);
/* A job that runs after all starts without what its .done file said. */
void sl_metrics_forget(sl_job *);
/* Writes the lines of finished jobs to metrics.jsonl, in the plan's order. */
int sl_metrics_flush(sl_execution *);
int sl_timing_write(sl_job *, const char *start, const char *end);
/* times.c: how long each stage took, a row a stage, over all iterations that ran. */
void sl_times_print(const sl_execution *, FILE *);

/* Appends whole lines that an earlier run of the job had said. */
int sl_metrics_take(sl_job *, const char *lines, size_t size);

/* ---- checkpoint.c: what host.h says of checkpoints; the stage's thread. */
int sl_checkpoint_find(sl_job *, const char **folder);
int sl_checkpoint_begin(sl_job *, const char **folder);
int sl_checkpoint_commit(sl_job *);
/* Removes all checkpoints of a job. */
void sl_checkpoint_forget(sl_job *);

/* ---- sinks.c: all of it the main thread's. A sink that fails is a warning, and is told nothing more. */
void sl_sinks_begin(sl_execution *);
/* Tells them the lines of a job that they have not been told. */
void sl_sinks_tell(sl_execution *, sl_job *);
void sl_sinks_end(sl_execution *);

/* ---- stage.c: the loop of each kind of stage. */
int sl_stage_drive(sl_job *, sl_instance *);
int sl_stage_next(sl_job *, sl_record **);
int sl_stage_emit(sl_job *, sl_record *);
int sl_stage_release(sl_job *, sl_record *);
/* One record of the output, which is taken, and one left out of it, by the number in the input. */
int sl_stage_append(sl_job *, sl_record *, uint64_t number);
int sl_stage_skip(sl_job *, uint64_t number);
bool sl_stage_has_output(const sl_stage *);

/* ---- progress.c */
void sl_progress_started(const sl_job *);
void sl_progress_finished(const sl_job *, double seconds);
void sl_progress_reused(const sl_job *);
/* Called a few times a second by the main thread with the jobs of the running iteration. */
void sl_progress_tick(sl_execution *, sl_job *jobs, size_t count);

/* ---- phase.c: one iteration of one phase. */
int sl_phase_run(sl_execution *, size_t first, size_t count);
bool sl_run_interrupted(void);        /* run.c: a signal came */
void sl_phase_cancel(sl_execution *); /* wakes everybody; any thread, without the lock */

enum sl_job_state { SL_JOB_WAITING, SL_JOB_RUNNING, SL_JOB_DONE, SL_JOB_REUSED, SL_JOB_FAILED };

/* Where the records of a stage in its own process come from and go to. */
typedef struct sl_passage {
    int (*next)(sl_job *, sl_record **); /* with its number */
    int (*append)(sl_job *, const sl_record *, uint64_t number);
    int (*skip)(sl_job *, uint64_t number);
} sl_passage;

typedef struct sl_publication sl_publication;
typedef struct sl_sink sl_sink;

struct sl_job {
    sl_host host; /* first: a job's host is the job */
    sl_execution *run;
    const sl_stage *stage;
    const sluice_stage_class *type;
    int64_t iteration; /* from 0 */
    sl_job *producer;  /* whose stream it reads; NULL */
    _Atomic int state; /* sl_job_state; changed under run->lock */

    sl_buffer inputs; /* all that determines the output, as text (key.c) */
    uint8_t key[SL_HASH_SIZE];
    bool keyed, decided, reuse; /* key is known; whether to reuse was decided by it; and how */
    bool unread;                /* it is reused without a stream (in_memory): nobody needs its records */
    const sl_job *reader;       /* it would be reused but for this one, which needs them; NULL */
    bool stored, claimed;       /* the output came from the store; this run has the claim to compute it */
    const char *damage;         /* what the store's entry suffered; NULL */

    pthread_t thread;
    bool threaded;
    sl_arena *arena; /* what the stage's state points to */
    sl_stream_reader *input;
    sl_stream_writer *output;  /* under run->lock while other threads may cancel it */
    sl_pipe_end *taking;       /* the input of a producer that is in_memory, */
    sl_pipe *giving;           /* and its output; likewise under the lock */
    sl_earlier *earlier;       /* what an interrupted run of this job left; NULL = nothing */
    const sl_record *current;  /* the record in hand, for error lines */
    char taken[128];           /* id of the last record that it took, for a crash's */
    const sl_passage *passage; /* NULL: input and output */
    uint64_t careful;          /* records before this number are given to process_batch one by one */
    sl_publication *publications;

    /* A stage with `run`: which input records were released before the first was emitted, one bit each. They count as
     * left out only if nothing of them is emitted in a later pass. */
    uint8_t *released;
    size_t released_size;
    bool ended;   /* the last thing that its input gave was the end */
    bool strayed; /* it asked what its class does not say that it hangs on */
    bool emitting;

    uint64_t position; /* of the next input record in this pass */
    _Atomic uint64_t in, out, tokens, done, total;
    char unit[16];                  /* under run->lock */
    double began, seconds;          /* monotonic; how long it ran */
    double waiting, writing;        /* of that, seconds waited for input, and taken by packing and writing the output */
    uint64_t tokens_in, tokens_out; /* of prompts and answers in its records */
    uint64_t memory;                /* of the process at its end: most bytes resident so far */
    uint64_t bytes_raw, bytes_compressed;

    sl_buffer lines;         /* of metrics.jsonl; under run->lock while it runs */
    sl_buffer times;         /* a double a line: when it was said; only where there are metrics sinks */
    size_t told, told_times; /* bytes of both that the sinks have been told; the main thread's */
    sluice_number *numbers;  /* of the whole stage; names malloc'ed */
    size_t number_count;
    bool warned; /* that a number is not finite */
    bool lost;   /* a number or a line, for want of memory */
};

struct sl_execution {
    const sl_plan *plan;
    const char *folder;
    bool quiet, fresh, explain;
    int64_t records;                      /* a source gives at most so many; 0 = all */
    sl_store *store;                      /* NULL = none */
    bool store_by_default;                /* nobody named it */
    atomic_bool store_used, store_failed; /* something was put there; no more is tried */
    sl_console console;
    sl_services services;
    sl_arena *arena;
    sl_job *jobs; /* all, in the order phase, iteration, stage */
    size_t job_count;
    size_t flushed; /* jobs whose metrics are in metrics.jsonl */
    int unwritten;  /* errno of what could not be written there, 0 = none */
    int lock_fd, metrics_fd, timing_fd;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* a job's state */
    atomic_bool cancelled;
    sl_job *failed; /* the first that failed; under lock */
    double drawn;   /* when progress was last shown */
    size_t running; /* stages that it showed */
    sl_sink *sinks;
    size_t sink_count;
    struct sl_content *contents; /* hashes of files, once computed */
    sl_buffer numerics;          /* what the services say decides numbers */
    sl_job ***publishers;        /* [slot][version] */
};

/* Path in the run's folder, from an arena. streams/<phase>-<iteration>/<stage><suffix> */
char *sl_job_path(const sl_job *, const char *suffix, sl_arena *);
/* "align 2/3" */
const char *sl_job_where(const sl_job *, char *text, size_t size);

#endif
