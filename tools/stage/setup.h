/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * From the message SETUP (core/isolate/setup.c) to a job of this process's own, with as much of plan, phase and run as
 * a stage can see.
 */
#ifndef STAGE_SETUP_H
#define STAGE_SETUP_H

#include "core/isolate/wire.h"
#include "core/run/internal.h"

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
