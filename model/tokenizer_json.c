/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/tokenizer_json.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "model/json_file.h"

int sm_read_json(const char *dir, const char *name, size_t limit, json_t **out, bool *missing, sm_error *error)
{
    char *path = sm_path(dir, name);
    struct stat status;
    *out = NULL;
    if (!path) {
        return sm_fail(error, SM_NO_MEMORY, "out of memory");
    }
    if (missing) {
        *missing = stat(path, &status) < 0 && errno == ENOENT;
    }
    if (!missing || !*missing) {
        *out = sm_json_read(path, limit, error);
    }
    free(path);
    return *out || (missing && *missing) ? SM_OK : error->code;
}

const char *sm_json_string(const json_t *object, const char *key, const char *what, size_t *length, sm_error *error)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value)) {
        sm_fail(error, SM_FORMAT, "%s: \"%s\" must be a string", what, key);
        return NULL;
    }
    if (length) {
        *length = json_string_length(value);
    }
    return json_string_value(value);
}

int sm_json_bool_or(const json_t *object, const char *key, const char *what, bool *out, sm_error *error)
{
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value)) {
        return SM_OK;
    }
    return sm_json_bool(object, key, what, out, error);
}

int sm_json_bool(const json_t *object, const char *key, const char *what, bool *out, sm_error *error)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_boolean(value)) {
        return sm_fail(error, SM_FORMAT, "%s: \"%s\" must be true or false", what, key);
    }
    *out = json_is_true(value);
    return SM_OK;
}

int sm_json_number(const json_t *object, const char *key, const char *what, uint64_t limit, uint64_t *out,
                   sm_error *error)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) > limit) {
        return sm_fail(error, SM_FORMAT, "%s: \"%s\" must be a whole number from 0 to %ju", what, key,
                       (uintmax_t)limit);
    }
    *out = (uint64_t)json_integer_value(value);
    return SM_OK;
}

const char *sm_json_type(const json_t *object, const char *what, sm_error *error)
{
    if (!json_is_object(object)) {
        sm_fail(error, SM_FORMAT, "%s: must be an object or null", what);
        return NULL;
    }
    return sm_json_string(object, "type", what, NULL, error);
}
