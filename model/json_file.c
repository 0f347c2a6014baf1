/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/json_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *sm_path(const char *dir, const char *name)
{
    const size_t length = strlen(dir), more = strlen(name);
    char *path = malloc(length + more + 2);
    if (path) {
        memcpy(path, dir, length);
        path[length] = '/';
        memcpy(path + length + 1, name, more + 1);
    }
    return path;
}

int sm_file_open(const char *path, unsigned long long *size, sm_error *error)
{
    /* O_NONBLOCK: opening a pipe must not wait for somebody to write into it. */
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat status;
    if (descriptor < 0 || fstat(descriptor, &status) != 0) {
        const int why = errno;
        if (descriptor >= 0) {
            close(descriptor);
        }
        return sm_fail(error, SM_IO, "%s: cannot be read: %s", path, strerror(why));
    }
    if (!S_ISREG(status.st_mode)) {
        close(descriptor);
        return sm_fail(error, SM_IO, "%s: is not a plain file", path);
    }
    if (size) {
        *size = (unsigned long long)status.st_size;
    }
    return descriptor;
}

int sm_file_read_at(int descriptor, const char *path, void *to, size_t length, unsigned long long offset,
                    sm_error *error)
{
    char *at = to;
    const size_t most = 1u << 30; /* one call may not move more than 2 GiB */
    while (length > 0) {
        const ssize_t got = pread(descriptor, at, length < most ? length : most, (off_t)offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return sm_fail(error, SM_IO, "%s: cannot be read: %s", path, strerror(errno));
        }
        if (got == 0) {
            return sm_fail(error, SM_FORMAT, "%s: ended at byte %llu, while it was being read", path, offset);
        }
        at += got;
        offset += (unsigned long long)got;
        length -= (size_t)got;
    }
    return SM_OK;
}

int sm_file_read(const char *path, size_t cap, char **text, size_t *length, sm_error *error)
{
    unsigned long long size;
    const int descriptor = sm_file_open(path, &size, error);
    *text = NULL;
    if (descriptor < 0) {
        return descriptor;
    }
    int status = SM_OK;
    if (size > cap) {
        status = sm_fail(error, SM_FORMAT, "%s: is %llu bytes long, more than the %zu such a file may have", path, size,
                         cap);
    } else if (!(*text = malloc(size + 1))) {
        status = sm_fail(error, SM_NO_MEMORY, "%s: no memory for its %llu bytes", path, size);
    } else {
        status = sm_file_read_at(descriptor, path, *text, size, 0, error);
    }
    close(descriptor);
    if (status != SM_OK) {
        free(*text);
        *text = NULL;
        return status;
    }
    (*text)[size] = '\0';
    *length = size;
    return SM_OK;
}

json_t *sm_json_parse(const char *file, const char *text, size_t length, sm_error *error)
{
    json_error_t why;
    json_t *value = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);
    if (!value) {
        sm_fail(error, SM_FORMAT, "%s:%d: not valid JSON: %s", file, why.line, why.text);
    } else if (!json_is_object(value)) {
        json_decref(value);
        value = NULL;
        sm_fail(error, SM_FORMAT, "%s: holds no JSON object", file);
    }
    return value;
}

json_t *sm_json_read(const char *path, size_t cap, sm_error *error)
{
    char *text;
    size_t length;
    if (sm_file_read(path, cap, &text, &length, error) != SM_OK) {
        return NULL;
    }
    json_t *value = sm_json_parse(path, text, length, error);
    free(text);
    return value;
}

const char *sm_json_show(const json_t *value, char to[80])
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(7));
    snprintf(to, 80, "%s", text ? text : "?");
    if (text && strlen(text) > 79) {
        size_t cut = 76;
        while (cut > 0 && ((unsigned char)to[cut] & 0xc0) == 0x80) {
            cut--; /* never inside a UTF-8 character */
        }
        memcpy(to + cut, "...", 4);
    }
    free(text);
    return to;
}
