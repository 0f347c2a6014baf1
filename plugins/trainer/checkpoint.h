/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A training's state between two steps, so that an interrupted one goes on where it was: the runtime's masters and
 * moments, what the trainer itself counts, and the weights of the best epoch so far. */
#ifndef TRAINER_CHECKPOINT_H
#define TRAINER_CHECKPOINT_H

#include <sluice/host.h>
#include <sluice/model.h>

/* Writes both and makes them the stage's checkpoint, with a copy of the folder `best` (NULL = none). `counts` is plain
 * data of `size` bytes. */
int checkpoint_save(const sluice_host *, const sluice_model_service *, sluice_training *, const void *counts,
                    size_t size, const char *best);
/* SLUICE_OK: training and counts are as they were saved. SLUICE_END: there is no checkpoint, and nothing was changed.
 * SLUICE_BAD_FILE: it is damaged. */
int checkpoint_load(const sluice_host *, const sluice_model_service *, sluice_training *, void *counts, size_t size,
                    const char **folder);
/* Copies the best weights of the checkpoint in that folder to `to`, before another is saved. */
int checkpoint_best(const sluice_host *, const char *folder, const char *to);

#endif
