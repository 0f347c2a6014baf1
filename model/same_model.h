/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Whether two checkpoint folders hold the same model but for the values of its weights. */
#ifndef MODEL_SAME_MODEL_H
#define MODEL_SAME_MODEL_H

#include "model/config.h"

/* SM_OK, or SM_MISMATCH with the first field that differs and both its values. */
int sm_same_config(const char *dir_a, const sm_config *a, const char *dir_b, const sm_config *b, sm_error *error);

/* Compares what tokenizer.json says of text and ids (not its version, padding and truncation). Two folders without one
 * are the same. */
int sm_same_tokenizer(const char *dir_a, const char *dir_b, sm_error *error);

#endif
