/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host offers every class: errors, log, numbers, progress, services, and - for a stage that drives itself -
 * the records of its input and the way out.
 *
 * `init` receives the host; keep the pointer in the state. All calls are made from the stage's own thread unless a line
 * says otherwise. The inline functions below are the interface; the table behind them may grow.
 */
#ifndef SLUICE_HOST_H
#define SLUICE_HOST_H

#include <stdarg.h>
#include <sluice/abi.h>
#include <sluice/param.h>

struct sluice_record;
typedef struct sluice_host sluice_host;

enum sluice_log_level { SLUICE_LOG_DEBUG = 0, SLUICE_LOG_INFO = 1, SLUICE_LOG_WARNING = 2 };

/* A named number; see sluice_metrics. */
typedef struct sluice_number {
    const char *name;
    double value;
} sluice_number;

typedef struct sluice_host_api {
    uint32_t size;
    void (*verror)(const sluice_host *, const struct sluice_record *, int code, const char *format, va_list);
    void (*vlog)(const sluice_host *, int level, const char *format, va_list);
    void (*metrics)(const sluice_host *, int64_t step, const sluice_number *, size_t count);
    void (*progress)(const sluice_host *, uint64_t done, uint64_t total, const char *unit);
    void (*tokens)(const sluice_host *, uint64_t count);
    bool (*cancelled)(const sluice_host *);
    const void *(*service)(const sluice_host *, const char *id);
    uint64_t (*seed)(const sluice_host *);
    int64_t (*iteration)(const sluice_host *);
    const char *(*stage_name)(const sluice_host *);
    int (*next)(const sluice_host *, struct sluice_record **);
    int (*emit)(const sluice_host *, struct sluice_record *);
    void (*release)(const sluice_host *, struct sluice_record *);
    struct sluice_record *(*new_record)(const sluice_host *);
    int64_t (*input_count)(const sluice_host *);
    int (*scratch)(const sluice_host *);
    int (*publish_begin)(const sluice_host *, const sluice_model_ref *, const char **dir);
    int (*publish_commit)(const sluice_host *, const sluice_model_ref *);
    const char *(*last_error)(const sluice_host *);
    int64_t (*repeat)(const sluice_host *);
    uint64_t (*run_seed)(const sluice_host *);
    const struct sluice_record *(*earlier)(const sluice_host *, const struct sluice_record *);
    int (*checkpoint)(const sluice_host *, const char **folder);
    int (*checkpoint_begin)(const sluice_host *, const char **folder);
    int (*checkpoint_commit)(const sluice_host *);
} sluice_host_api;

struct sluice_host {
    const sluice_host_api *api;
};

/* Reports what is wrong and how to mend it, in one line without a full stop; the host adds stage, record, file and
 * line. Returns `code`, so that `return sluice_error(host, SLUICE_BAD_RECORD, "no scores of '%s'", judge);` reads
 * well. */
static inline int SLUICE_PRINTF(3, 4) SLUICE_UNUSED
    sluice_error(const sluice_host *host, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    host->api->verror(host, NULL, code, format, args);
    va_end(args);
    return code;
}

/* The same, about one record: its id is added. */
static inline int SLUICE_PRINTF(4, 5) SLUICE_UNUSED
    sluice_record_error(const sluice_host *host, const struct sluice_record *record, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    host->api->verror(host, record, code, format, args);
    va_end(args);
    return code;
}

/* A line in the run's log (and, for warnings, on the terminal). Any thread. */
static inline void SLUICE_PRINTF(3, 4) SLUICE_UNUSED
    sluice_log(const sluice_host *host, int level, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    host->api->vlog(host, level, format, args);
    va_end(args);
}

/* One number of this stage and iteration, for metrics.jsonl. Declare it in the class's `metrics`. */
static inline void sluice_metric(const sluice_host *host, const char *name, double value)
{
    sluice_number n = {name, value};
    host->api->metrics(host, -1, &n, 1);
}

/* Several numbers that belong together, at a step of training: one line of metrics.jsonl. step -1 = the whole stage. */
static inline void sluice_metrics(const sluice_host *host, int64_t step, const sluice_number *numbers, size_t count)
{
    host->api->metrics(host, step, numbers, count);
}

/* How far a stage that drives itself is; total 0 = unknown. Cheap: call it as often as you like. */
static inline void sluice_progress(const sluice_host *host, uint64_t done, uint64_t total, const char *unit)
{
    host->api->progress(host, done, total, unit);
}

/* Adds to the stage's count of tokens handled (for tokens/s). Any thread. */
static inline void sluice_tokens(const sluice_host *host, uint64_t count)
{
    host->api->tokens(host, count);
}

/* True once the run is to stop: finish the record in hand and return SLUICE_CANCELLED. Any thread. */
static inline bool sluice_cancelled(const sluice_host *host)
{
    return host->api->cancelled(host);
}

/* A service by id and version ("sluice.model/1"); NULL when there is none. Lives as long as the run. */
static inline const void *sluice_service(const sluice_host *host, const char *id)
{
    return host->api->service(host, id);
}

/* A seed of this stage: from the run's seed, the stage's name, the phase and the iteration. */
static inline uint64_t sluice_seed(const sluice_host *host)
{
    return host->api->seed(host);
}

/* The run's own seed, the same in every stage: for what several stages must draw alike. */
static inline uint64_t sluice_run_seed(const sluice_host *host)
{
    return host->api->run_seed(host);
}

/* 0 in the first run of a phase, then 1, … below sluice_repeat. */
static inline int64_t sluice_iteration(const sluice_host *host)
{
    return host->api->iteration(host);
}

/* How many times this phase runs. For classes with the trait SLUICE_READS_REPEAT alone. */
static inline int64_t sluice_repeat(const sluice_host *host)
{
    return host->api->repeat(host);
}

static inline const char *sluice_stage_name(const sluice_host *host)
{
    return host->api->stage_name(host);
}

/* For stages with `run`. The next input record, owned by the caller until emitted or released; SLUICE_END after the
 * last. Blocks while the producer has none. After SLUICE_END the input can be read once more from its start. */
static inline int sluice_next(const sluice_host *host, struct sluice_record **record)
{
    return host->api->next(host, record);
}

/* Sends a record on and takes it. Records may be emitted in another order than they came: the stream keeps the input's.
 * Each input record is emitted at most once; one released instead is left out. */
static inline int sluice_emit(const sluice_host *host, struct sluice_record *record)
{
    return host->api->emit(host, record);
}

static inline void sluice_release(const sluice_host *host, struct sluice_record *record)
{
    host->api->release(host, record);
}

/* An empty record, for a source with `run`. */
static inline struct sluice_record *sluice_new_record(const sluice_host *host)
{
    return host->api->new_record(host);
}

/* What an interrupted run of this very stage (same inputs, parameters, models, seed) had put out for an input record:
 * copy from it what would be costly to compute again. NULL when there is nothing, as almost always. Ask in the order of
 * the input, at most once a record; borrowed until the next question. Everything else must go on as if it had been
 * computed, metrics too, so that an interrupted run ends with the same bytes as an undisturbed one. */
static inline const struct sluice_record *sluice_earlier(const sluice_host *host, const struct sluice_record *input)
{
    return host->api->size > offsetof(sluice_host_api, earlier) && host->api->earlier ? host->api->earlier(host, input)
                                                                                      : NULL;
}

/* For a stage that works long before it emits anything (a trainer): the folder of the last checkpoint that an
 * interrupted run of this very stage committed (borrowed until fini), with the metrics it had reported taken over; or
 * SLUICE_END, as almost always. Ask once, before the first metric. */
static inline int sluice_checkpoint(const sluice_host *host, const char **folder)
{
    *folder = NULL;
    return host->api->size > offsetof(sluice_host_api, checkpoint) && host->api->checkpoint
               ? host->api->checkpoint(host, folder)
               : SLUICE_END;
}

/* begin gives an empty folder to write into (borrowed until commit; the name `metrics` is the host's); commit makes it
 * the stage's one checkpoint, together with the metrics reported so far. The host removes it when the stage is done. A
 * run that goes on from it must end with the same bytes as an undisturbed one. SLUICE_UNSUPPORTED by a host without
 * checkpoints. */
static inline int sluice_checkpoint_begin(const sluice_host *host, const char **folder)
{
    return host->api->size > offsetof(sluice_host_api, checkpoint_begin) && host->api->checkpoint_begin
               ? host->api->checkpoint_begin(host, folder)
               : SLUICE_UNSUPPORTED;
}

static inline int sluice_checkpoint_commit(const sluice_host *host)
{
    return host->api->checkpoint_commit(host);
}

/* Number of input records, or -1 while the producer is not done. */
static inline int64_t sluice_input_count(const sluice_host *host)
{
    return host->api->input_count(host);
}

/* A new unlinked file in the run's folder, for what should not lie in memory; the caller closes it. Negative = error.
 */
static inline int sluice_scratch(const sluice_host *host)
{
    return host->api->scratch(host);
}

/* Trainers and averagers. begin gives an empty folder to write the next version into (borrowed, until commit); commit
 * makes it visible under its final name, whole. Without commit nothing is left behind. */
static inline int sluice_publish_begin(const sluice_host *host, const sluice_model_ref *slot, const char **dir)
{
    return host->api->publish_begin(host, slot, dir);
}

static inline int sluice_publish_commit(const sluice_host *host, const sluice_model_ref *slot)
{
    return host->api->publish_commit(host, slot);
}

#endif
