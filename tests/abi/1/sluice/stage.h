/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Stages: sources, sinks, samplers, judges, rankers, regularizers, transforms, trainers, averagers, evaluators.
 *
 * A stage class gives one of these sets of functions, the simplest that fits; the host does the rest (threads, queues,
 * files, order, progress):
 *
 *   next                        a source: fills one record a call
 *   process                     one record at a time, changed in place
 *   process_batch               up to `batch` records at a time (for those who use a model)
 *   observe, settle, process    two passes: every record is seen before the first is changed; the host replays
 *                               the stream
 *   run                         drives itself with sluice_next and sluice_emit (samplers, trainers); a stage without
 *                               input (an averager, an evaluator that makes its own questions) has only this
 *
 *     static const sluice_stage_class keep = {
 *         SLUICE_STAGE_CLASS(SLUICE_REGULARIZER, "vendor/keep", "Trust every pair", struct keep, params),
 *         .base.reads = SLUICE_FIELD_PAIRS, .base.adds = SLUICE_FIELD_TRUST, .process = process,
 *     };
 */
#ifndef SLUICE_STAGE_H
#define SLUICE_STAGE_H

#include <sluice/plugin.h>
#include <sluice/host.h>
#include <sluice/record.h>

typedef struct sluice_stage_class {
    sluice_class base;
    uint32_t batch; /* for process_batch: the most records a call gets; 0 = 64 */

    /* All of them: the stage's own thread. Records are borrowed for the call (but see `run` in host.h).
     * Each returns SLUICE_OK or a negative result after sluice_error. */

    /* Fills an empty record (its id at least). SLUICE_END when there are no more; the record is then ignored. */
    int (*next)(void *self, sluice_record *record);
    int (*observe)(void *self, const sluice_record *record);
    /* Between the last observe and the first process. */
    int (*settle)(void *self);
    /* SLUICE_DROP leaves the record out of the output. */
    int (*process)(void *self, sluice_record *record);
    /* Sets keep[i] = false (true on entry) to leave record i out. */
    int (*process_batch)(void *self, sluice_record *const *records, bool *keep, size_t count);
    int (*run)(void *self);
    /* After the last record: report metrics, close files. Not called after an error. */
    int (*finish)(void *self);
} sluice_stage_class;

#define SLUICE_STAGE_CLASS(kind, id, summary, state, params) \
    SLUICE_BASE(sluice_stage_class, kind, id, summary, state, params)

#endif
