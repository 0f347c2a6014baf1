/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/dtype.h"

#define BLOCK ((size_t)1 << 18) /* elements encoded and written at a time */

struct sm_safetensors_writer {
    char *path;
    int descriptor;
    kn_dtype dtype;
    const sm_tensor **tensor; /* by name */
    size_t count;
    size_t next;    /* the tensor being written */
    size_t written; /* of its values */
    char *block;    /* encoded values on their way to the file */
};

static int by_name(const void *a, const void *b)
{
    const sm_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int put(sm_safetensors_writer *writer, const void *from, size_t length, sm_error *error)
{
    const char *at = from;
    while (length > 0) {
        const ssize_t put = write(writer->descriptor, at, length);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            return sm_fail(error, SM_IO, "%s: cannot be written: %s", writer->path, strerror(put < 0 ? errno : ENOSPC));
        }
        at += put;
        length -= (size_t)put;
    }
    return SM_OK;
}

/* Names come from our own layout, so nothing in them needs escaping. */
static int put_header(sm_safetensors_writer *writer, sm_error *error)
{
    static const char *const names[] = {[KN_F32] = "F32", [KN_BF16] = "BF16", [KN_F16] = "F16"};
    const size_t room = writer->count * (sizeof(sm_tensor) + 160) + 64;
    char *text = malloc(room);
    if (!text) {
        return sm_fail(error, SM_NO_MEMORY, "%s: no memory for its header", writer->path);
    }
    size_t at = 8, begin = 0;
    at += (size_t)snprintf(text + at, room - at, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < writer->count; i++) {
        const sm_tensor *tensor = writer->tensor[i];
        const size_t end = begin + tensor->count * sm_dtype_size(writer->dtype);
        at += (size_t)snprintf(text + at, room - at, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%zu", tensor->name,
                               names[writer->dtype], tensor->shape[0]);
        if (tensor->rank == 2) {
            at += (size_t)snprintf(text + at, room - at, ",%zu", tensor->shape[1]);
        }
        at += (size_t)snprintf(text + at, room - at, "],\"data_offsets\":[%zu,%zu]}", begin, end);
        begin = end;
    }
    at += (size_t)snprintf(text + at, room - at, "}");
    while (at % 8 != 0) {
        text[at++] = ' '; /* numbers start at a multiple of 8, so that others may map the file */
    }
    const uint64_t length = at - 8;
    memcpy(text, &length, sizeof length);
    const int status = put(writer, text, at, error);
    free(text);
    return status;
}

int sm_safetensors_create(sm_safetensors_writer **out, const char *path, kn_dtype dtype, const sm_tensor *tensors,
                          size_t count, sm_error *error)
{
    *out = NULL;
    sm_safetensors_writer *writer = calloc(1, sizeof *writer);
    if (!writer) {
        return sm_fail(error, SM_NO_MEMORY, "%s: no memory to write it", path);
    }
    writer->descriptor = -1;
    writer->dtype = dtype;
    writer->count = count;
    writer->path = strdup(path);
    writer->tensor = calloc(count + 1, sizeof *writer->tensor);
    writer->block = malloc(BLOCK * sizeof(float));
    int status;
    if (!writer->path || !writer->tensor || !writer->block) {
        status = sm_fail(error, SM_NO_MEMORY, "%s: no memory to write it", path);
        goto failed;
    }
    for (size_t i = 0; i < count; i++) {
        writer->tensor[i] = &tensors[i];
    }
    qsort(writer->tensor, count, sizeof *writer->tensor, by_name);
    writer->descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (writer->descriptor < 0) {
        status = sm_fail(error, SM_IO, "%s: cannot be created: %s", path, strerror(errno));
        goto failed;
    }
    if ((status = put_header(writer, error))) {
        goto failed;
    }
    *out = writer;
    return SM_OK;
failed:
    sm_safetensors_finish(writer, 0, NULL);
    return status;
}

const sm_tensor *sm_safetensors_next(const sm_safetensors_writer *writer)
{
    return writer->next < writer->count ? writer->tensor[writer->next] : NULL;
}

const sm_tensor *sm_safetensors_tensor(const sm_safetensors_writer *writer, size_t index)
{
    return index < writer->count ? writer->tensor[index] : NULL;
}

int sm_safetensors_write(sm_safetensors_writer *writer, const float *values, size_t count, sm_error *error)
{
    const sm_tensor *tensor = sm_safetensors_next(writer);
    if (!tensor || count > tensor->count - writer->written) {
        return sm_fail(error, SM_BAD_ARGUMENT, "%s: more values than its tensors hold", writer->path);
    }
    for (size_t done = 0; done < count;) {
        const size_t now = count - done < BLOCK ? count - done : BLOCK;
        if (!sm_dtype_holds(values + done, now, writer->dtype)) {
            return sm_fail(
                error, SM_FORMAT,
                "%s: tensor %s holds a value that is not finite in %s: training diverged, or the dtype is too "
                "narrow",
                writer->path, tensor->name, sm_dtype_name(writer->dtype));
        }
        sm_dtype_encode(writer->block, values + done, now, writer->dtype);
        const int status = put(writer, writer->block, now * sm_dtype_size(writer->dtype), error);
        if (status) {
            return status;
        }
        done += now;
    }
    writer->written += count;
    if (writer->written == tensor->count) {
        writer->next++;
        writer->written = 0;
    }
    return SM_OK;
}

int sm_safetensors_finish(sm_safetensors_writer *writer, int complete, sm_error *error)
{
    int status = SM_OK;
    if (complete && sm_safetensors_next(writer)) {
        status = sm_fail(error, SM_BAD_ARGUMENT, "%s: tensor %s was not written", writer->path,
                         sm_safetensors_next(writer)->name);
    } else if (complete && fsync(writer->descriptor) != 0) {
        status = sm_fail(error, SM_IO, "%s: cannot be flushed to the disk: %s", writer->path, strerror(errno));
    }
    if (writer->descriptor >= 0 && close(writer->descriptor) != 0 && complete && status == SM_OK) {
        status = sm_fail(error, SM_IO, "%s: cannot be closed: %s", writer->path, strerror(errno));
    }
    free(writer->path);
    free(writer->tensor);
    free(writer->block);
    free(writer);
    return status;
}
