/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Hugging Face checkpoint folders: read, made anew, written, and named by their content.
 *
 * Nothing here keeps state between calls; any thread may call, two threads may not save to one folder at a time.
 */
#ifndef MODEL_CHECKPOINT_H
#define MODEL_CHECKPOINT_H

#include "model/weight_files.h"
#include "model/weights.h"

typedef struct sm_checkpoint {
    sm_layout layout;      /* and layout.config */
    float *params;         /* layout.count floats, 64-byte aligned; NULL until sm_checkpoint_params */
    sm_weight_files files; /* open as long as the checkpoint is; of a random model there are none */
    bool random;
    uint64_t seed;   /* of a random model */
    kn_dtype stored; /* the dtype of the file's matrices (KN_F32 for a new model) */
    char *note;      /* NULL, or one line for the log: tensors of the file that this model has no use for */
} sm_checkpoint;

/* Reads config and opens the weights: model.safetensors, or the shards that model.safetensors.index.json names (plain
 * file names in the same folder only). Every tensor must be there in its expected shape, F32, BF16 or F16. A tied
 * model may carry an lm_head.weight if it equals the embedding. Numbers are read when they are asked for, and must be
 * finite. *out is NULL on failure; free it with sm_checkpoint_free. */
int sm_checkpoint_open(sm_checkpoint **out, const char *dir, sm_error *error);

/* A new random model for the config.json in `dir`: matrices normal with standard deviation initializer_range, norms 1,
 * biases 0. The values depend on seed, tensor name and place alone, and are computed when they are asked for. */
int sm_checkpoint_open_random(sm_checkpoint **out, const char *dir, uint64_t seed, sm_error *error);

/* The parameters of whole tensors, [offset, offset + count) of the flat array; several threads may read at once. As
 * numbers for networks and training: sm_checkpoint_numbers. */
int sm_checkpoint_read(const sm_checkpoint *checkpoint, size_t offset, size_t count, float *to, sm_error *error);
sm_numbers sm_checkpoint_numbers(const sm_checkpoint *checkpoint);

/* Fills params, unless they are there. One thread at a time. */
int sm_checkpoint_params(sm_checkpoint *checkpoint, sm_error *error);

/* Both in one: opened (or made), and all parameters in memory. */
int sm_checkpoint_load(sm_checkpoint **out, const char *dir, sm_error *error);
int sm_checkpoint_create(sm_checkpoint **out, const char *dir, uint64_t seed, sm_error *error);

void sm_checkpoint_free(sm_checkpoint *checkpoint);

/* Writes the numbers as a folder at `to`: model.safetensors in `dtype` (rounded to nearest, ties to even), config.json
 * of `source` with its dtype fields changed and not a byte else (but see sm_config_with_head), and `source`'s other
 * plain files (tokenizer, chat template, generation_config, …; not weights, hidden files or subfolders). The folder is
 * built beside `to` under a hidden name, flushed, and renamed, so `to` is never half-written; it must not exist yet,
 * unless empty. `layout` must have the shapes of source's config. A parameter that is not finite, or too large for
 * `dtype`, is refused by tensor name. */
int sm_checkpoint_save(const char *to, const sm_layout *layout, const sm_numbers *numbers, kn_dtype dtype,
                       const char *source, sm_error *error);

/* Normal numbers with mean 0; they depend on seed, name and place alone. */
void sm_random_normal(float *to, size_t count, double deviation, const char *name, uint64_t seed);

/* XXH3-128 of what determines the model's behaviour: names and bytes of the weights that load would read, config,
 * generation config, tokenizer and chat template files; not of the path, README or times. hash[0] is the high half. */
int sm_checkpoint_hash(uint64_t hash[2], const char *dir, sm_error *error);

#endif
