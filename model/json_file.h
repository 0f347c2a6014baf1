/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* JSON files of checkpoint folders: read whole, below a cap, with one-line errors that name the file and the line. */
#ifndef MODEL_JSON_FILE_H
#define MODEL_JSON_FILE_H

#include <jansson.h>
#include <stddef.h>

#include "model/error.h"

/* "dir/name" in new memory (free it), NULL when out of memory. */
char *sm_path(const char *dir, const char *name);

/* Opens a plain file for reading (links are followed, as hub caches are made of them; devices, pipes and folders are
 * refused and never block). Returns a descriptor, or a negative sm_status. *size may be NULL. */
int sm_file_open(const char *path, unsigned long long *size, sm_error *error);

/* Reads exactly `length` bytes at `offset`. Short files are SM_FORMAT. */
int sm_file_read_at(int descriptor, const char *path, void *to, size_t length, unsigned long long offset,
                    sm_error *error);

/* The whole file in new memory, with a NUL after its *length bytes. */
int sm_file_read(const char *path, size_t cap, char **text, size_t *length, sm_error *error);

/* An object; duplicate keys, trailing text, bad UTF-8 and anything but an object are refused. `file` is for messages.
 * The caller owns the reference. NULL on failure. */
json_t *sm_json_parse(const char *file, const char *text, size_t length, sm_error *error);
json_t *sm_json_read(const char *path, size_t cap, sm_error *error);

/* A value in the compact form a message can hold: at most 79 bytes. Returns `to`. */
const char *sm_json_show(const json_t *value, char to[80]);

#endif
