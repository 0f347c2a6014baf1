/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/tokenizer_json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int sm_read_file(const char *dir, const char *name, size_t limit, sm_text *out, bool *missing, sm_error *error)
{
    char path[4096];
    if (missing) {
        *missing = false;
    }
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path) {
        return sm_fail(error, SM_BAD_ARGUMENT, "%.80s…: the path is too long", dir);
    }
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0 && missing && errno == ENOENT) {
        *missing = true;
        return SM_OK;
    }
    struct stat status;
    if (file < 0 || fstat(file, &status) < 0) {
        int code = sm_fail(error, SM_IO, "%s: %s", path, strerror(errno));
        if (file >= 0) {
            close(file);
        }
        return code;
    }
    int code = SM_OK;
    if (!S_ISREG(status.st_mode)) {
        code = sm_fail(error, SM_FORMAT, "%s: not a plain file", path);
    } else if ((uintmax_t)status.st_size > limit) {
        code = sm_fail(error, SM_FORMAT, "%s: %ju bytes; files of this kind have at most %zu", path,
                       (uintmax_t)status.st_size, limit);
    } else if (sm_text_reserve(out, (size_t)status.st_size + 1) < 0) {
        code = sm_fail(error, SM_NO_MEMORY, "%s: out of memory", path);
    }
    while (code == SM_OK) {
        /* A file that grows while it is read ends where its size was. */
        size_t room = (size_t)status.st_size - out->length;
        ssize_t got = room ? read(file, out->bytes + out->length, room) : 0;
        if (got < 0 && errno != EINTR) {
            code = sm_fail(error, SM_IO, "%s: %s", path, strerror(errno));
        } else if (got == 0) {
            break;
        } else if (got > 0) {
            out->length += (size_t)got;
            out->bytes[out->length] = '\0';
        }
    }
    close(file);
    return code;
}

int sm_read_json(const char *dir, const char *name, size_t limit, json_t **out, bool *missing, sm_error *error)
{
    *out = NULL;
    sm_text text = {0};
    int code = sm_read_file(dir, name, limit, &text, missing, error);
    if (code == SM_OK && !(missing && *missing)) {
        json_error_t why;
        *out = json_loadb(text.bytes ? text.bytes : "", text.length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
        if (!*out) {
            code = sm_fail(error, SM_FORMAT, "%s/%s:%d: not JSON: %s", dir, name, why.line, why.text);
        } else if (!json_is_object(*out)) {
            json_decref(*out);
            *out = NULL;
            code = sm_fail(error, SM_FORMAT, "%s/%s: not a JSON object", dir, name);
        }
    }
    sm_text_free(&text);
    return code;
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
