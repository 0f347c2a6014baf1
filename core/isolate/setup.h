/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What a stage in a process of its own must know: the message SETUP. The run packs it from its job; the stage's process
 * makes of it a job of its own with as much of plan, phase and run as a stage can see.
 */
#ifndef SL_SETUP_H
#define SL_SETUP_H

#include "core/isolate/wire.h"
#include "core/run/internal.h"

/* Records before `careful` are given to process_batch one by one: one of them ended the process. */
void sl_setup_pack(sl_message *, const sl_job *, uint64_t careful);

/* A stage as its own process sees it. */
typedef struct sl_setup {
    sl_plan plan;
    sl_phase phase;
    sl_stage stage, producer_stage;
    sl_execution run;
    sl_job job, producer;
    sl_registry *registry; /* with the plugins that the stage is made of, and no others */
    uint64_t seed, run_seed;
} sl_setup;

/* Confines the process as the message says before it loads the plugins. What the result points to lies in setup->run's
 * arena. False with one line in `error`. */
bool sl_setup_unpack(sl_message *, sl_setup *, char error[SL_ERROR_SIZE]);

/* confine.c: no network, no other programs, nobody else's memory. False with one line in `error`. */
bool sl_confine(char error[SL_ERROR_SIZE]);

#endif
