/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A training's state between two steps, so that an interrupted one goes on where it was: the runtime's masters and
 * moments, and what the trainer itself counts. */
#ifndef TRAINER_CHECKPOINT_H
#define TRAINER_CHECKPOINT_H

#include <sluice/host.h>
#include <sluice/model.h>

/* Writes both and makes them the stage's checkpoint. `counts` is plain data of `size` bytes. */
int checkpoint_save(const sluice_host *, const sluice_model_service *, sluice_training *, const void *counts,
                    size_t size);
/* SLUICE_OK: training and counts are as they were saved. SLUICE_END: there is no checkpoint, and nothing was changed.
 * SLUICE_BAD_FILE: it is damaged. */
int checkpoint_load(const sluice_host *, const sluice_model_service *, sluice_training *, void *counts, size_t size);

#endif
