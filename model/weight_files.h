/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The weights of a checkpoint folder as one set of tensors, whether they lie in one file or in several.
 *
 * A set is read-only once opened; any thread may read from it.
 */
#ifndef MODEL_WEIGHT_FILES_H
#define MODEL_WEIGHT_FILES_H

#include "model/safetensors.h"

#define SM_WEIGHT_FILE  "model.safetensors"
#define SM_WEIGHT_INDEX "model.safetensors.index.json"

typedef struct sm_weight_files {
    char *dir;
    sm_safetensors **file;
    size_t count;
} sm_weight_files;

/* Opens dir/model.safetensors, or else the files that dir/model.safetensors.index.json names: plain names in the same
 * folder only. Closed by sm_weight_files_close, which accepts a zeroed struct. */
int sm_weight_files_open(sm_weight_files *files, const char *dir, sm_error *error);
void sm_weight_files_close(sm_weight_files *files);

/* The file names (not paths) that open would read, in bytewise order, each in new memory (NULL-terminated list; free
 * each and the list). */
int sm_weight_files_names(const char *dir, char ***names, sm_error *error);

/* NULL when no file has the tensor; *file says which one has it. */
const sm_stored_tensor *sm_weight_files_find(const sm_weight_files *files, const char *name, sm_safetensors **file);

/* Where the values of one of the layout's tensors lie, its shape and dtype checked against the layout. A tied model
 * whose files name only lm_head.weight has its embedding there. */
int sm_weight_files_locate(const sm_weight_files *files, const sm_layout *layout, const sm_tensor *tensor,
                           sm_safetensors **file, const sm_stored_tensor **stored, sm_error *error);

#endif
