/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics sinks: who gets a run's numbers beside metrics.jsonl (TensorBoard event files, a tracker of yours).
 *
 * A pipeline file names them at its top: metrics = ( { use = "tensorboard"; path = "events"; } ); their parameters are
 * set in the same group. They see the numbers and change nothing: no stage's output depends on them.
 */
#ifndef SLUICE_METRICS_H
#define SLUICE_METRICS_H

#include <sluice/plugin.h>
#include <sluice/host.h>

/* Numbers that were reported together. Everything borrowed for the call. */
typedef struct sluice_metrics_line {
    uint32_t size;
    const char *phase, *stage;
    int64_t iteration; /* of the phase, from 1 */
    int64_t step;      /* of training; -1 = of the whole stage */
    const sluice_number *numbers;
    size_t count;
    double time; /* seconds since 1970, UTC, when it was reported */
    bool reused; /* of a stage whose finished output was taken over: said again, not computed again */
} sluice_metrics_line;

typedef struct sluice_metrics_class {
    sluice_class base; /* kind SLUICE_METRICS_SINK */
    /* The run's main thread, in the order of metrics.jsonl. A negative result after sluice_error is a warning in the
     * log, and the sink gets no more lines: a run does not fail for a chart. */
    int (*line)(void *self, const sluice_metrics_line *line);
    /* Once, after the last line, also of a run that failed; not after init or line failed. May be NULL. */
    int (*finish)(void *self);
    /* Before init: the run's folder, where relative paths of such a sink lie. Borrowed until fini. May be NULL. */
    void (*folder)(void *self, const char *run_folder);
} sluice_metrics_class;

#define SLUICE_METRICS_CLASS(id, summary, state, params) \
    SLUICE_BASE(sluice_metrics_class, SLUICE_METRICS_SINK, id, summary, state, params)

#endif
