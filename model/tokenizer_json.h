/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the JSON files of a tokenizer: files that may be missing, and members of a stated type.
 *
 * Messages about a member name it; the caller adds the file.
 */
#ifndef MODEL_TOKENIZER_JSON_H
#define MODEL_TOKENIZER_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "model/error.h"

/* Sequences inside sequences: real files have one or two. */
#define SM_MAX_NESTING 8
#define SM_MAX_STEPS   64

/* Reads the object in `dir`/`name`, a file of at most `limit` bytes. With `missing`, a file that is not there is no
 * error: *missing becomes true and *out NULL. `error` may not be NULL. */
int sm_read_json(const char *dir, const char *name, size_t limit, json_t **out, bool *missing, sm_error *error);

/* The member `key` of `object`; NULL, with an error that names `what`, when it is absent or of another type. */
const char *sm_json_string(const json_t *object, const char *key, const char *what, size_t *length, sm_error *error);
int sm_json_bool(const json_t *object, const char *key, const char *what, bool *out, sm_error *error);
/* A member that may be absent or null keeps *out. */
int sm_json_bool_or(const json_t *object, const char *key, const char *what, bool *out, sm_error *error);
/* A number from 0 to `limit`. */
int sm_json_number(const json_t *object, const char *key, const char *what, uint64_t limit, uint64_t *out,
                   sm_error *error);
/* The "type" of a component, or NULL with an error. */
const char *sm_json_type(const json_t *object, const char *what, sm_error *error);

#endif
