/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint folder that appears whole or not at all.
 *
 * begin makes a hidden folder beside the final one, with everything but the weights, and opens the weights for writing;
 * the caller writes every tensor in the writer's order; commit flushes and renames. A run that dies in between leaves
 * only the hidden folder (`.NAME.tmp-PID-N`), which nothing reads. One thread owns a publication.
 */
#ifndef MODEL_PUBLISH_H
#define MODEL_PUBLISH_H

#include "model/safetensors.h"

typedef struct sm_publication {
    char *to;
    char *hidden;
    sm_safetensors_writer *weights;
} sm_publication;

/* Copies `source`'s plain files (see sm_checkpoint_save) and its config.json with `dtype`. `to` must not exist, unless
 * as an empty folder. On failure nothing is left behind. */
int sm_publish_begin(sm_publication *publication, const char *to, const char *source, const sm_layout *layout,
                     kn_dtype dtype, sm_error *error);

/* Both end the publication; commit removes what it made when it fails. */
int sm_publish_commit(sm_publication *publication, sm_error *error);
void sm_publish_abort(sm_publication *publication);

/* The text of a config.json with its dtype fields (`dtype`, `torch_dtype`; one is added where there is none) saying
 * `dtype`, and not another byte changed, but that a float32 folder made of a 16-bit one remembers what that was in
 * `sluice_original_dtype`, and a 16-bit one that has the field says its own type there. `text` must be valid JSON with
 * at least one field. New memory; NULL when out of it. */
char *sm_config_with_dtype(const char *text, size_t length, kn_dtype dtype, size_t *new_length);

#endif
