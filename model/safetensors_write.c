/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* sync_file_range */
#include "model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/dtype.h"

#define BLOCK       ((size_t)1 << 15) /* elements encoded and written at a time */
#define FLUSH_BYTES ((uint64_t)8 << 20)

struct sm_safetensors_writer {
    char *path;
    int descriptor;
    kn_dtype dtype;
    const sm_tensor **tensor; /* by name */
    uint64_t *begin;          /* their places in the file; [count] is its length */
    size_t count;
    size_t next;            /* the tensor that sm_safetensors_write is at */
    size_t written;         /* of its values */
    _Atomic uint64_t bytes; /* of the file that were written */
};

static int by_name(const void *a, const void *b)
{
    const sm_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* Has the disk begin with what was written every now and then, so that it is not all left to the last fsync; that one
 * still waits for every byte, and it is the one that reports what failed. */
static void count_written(sm_safetensors_writer *writer, size_t length)
{
    const uint64_t before = atomic_fetch_add(&writer->bytes, length);
#ifdef SYNC_FILE_RANGE_WRITE
    if (before / FLUSH_BYTES != (before + length) / FLUSH_BYTES) {
        (void)sync_file_range(writer->descriptor, 0, 0, SYNC_FILE_RANGE_WRITE);
    }
#else
    (void)before;
#endif
}

static int put(sm_safetensors_writer *writer, const void *from, size_t length, uint64_t place, sm_error *error)
{
    const char *at = from;
    for (size_t left = length; left > 0;) {
        const ssize_t now = pwrite(writer->descriptor, at, left, (off_t)place);
        if (now < 0 && errno == EINTR) {
            continue;
        }
        if (now <= 0) {
            return sm_fail(error, SM_IO, "%s: cannot be written: %s", writer->path, strerror(now < 0 ? errno : ENOSPC));
        }
        at += now;
        place += (uint64_t)now;
        left -= (size_t)now;
    }
    count_written(writer, length);
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
    size_t at = 8;
    uint64_t begin = 0;
    at += (size_t)snprintf(text + at, room - at, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < writer->count; i++) {
        const sm_tensor *tensor = writer->tensor[i];
        const uint64_t end = begin + tensor->count * sm_dtype_size(writer->dtype);
        at += (size_t)snprintf(text + at, room - at, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%zu", tensor->name,
                               names[writer->dtype], tensor->shape[0]);
        if (tensor->rank == 2) {
            at += (size_t)snprintf(text + at, room - at, ",%zu", tensor->shape[1]);
        }
        at += (size_t)snprintf(text + at, room - at, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", begin, end);
        begin = end;
        writer->begin[i + 1] = end;
    }
    at += (size_t)snprintf(text + at, room - at, "}");
    while (at % 8 != 0) {
        text[at++] = ' '; /* numbers start at a multiple of 8, so that others may map the file */
    }
    const uint64_t length = at - 8;
    memcpy(text, &length, sizeof length);
    for (size_t i = 0; i <= writer->count; i++) {
        writer->begin[i] += at;
    }
    const int status = put(writer, text, at, 0, error);
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
    writer->begin = calloc(count + 1, sizeof *writer->begin);
    int status;
    if (!writer->path || !writer->tensor || !writer->begin) {
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

int sm_safetensors_write_at(sm_safetensors_writer *writer, size_t index, size_t first, const float *values,
                            size_t count, sm_error *error)
{
    const sm_tensor *tensor = sm_safetensors_tensor(writer, index);
    if (!tensor || first > tensor->count || count > tensor->count - first) {
        return sm_fail(error, SM_BAD_ARGUMENT, "%s: more values than its tensors hold", writer->path);
    }
    const size_t size = sm_dtype_size(writer->dtype);
    uint16_t block[BLOCK];
    for (size_t done = 0; done < count;) {
        const size_t now = count - done < BLOCK ? count - done : BLOCK;
        const bool plain = writer->dtype == KN_F32; /* needs no second place */
        const void *encoded = plain ? (const void *)(values + done) : block;
        if (!(plain ? sm_dtype_finite(values + done, now)
                    : sm_dtype_encode(block, values + done, now, writer->dtype))) {
            return sm_fail(
                error, SM_FORMAT,
                "%s: tensor %s holds a value that is not finite in %s: training diverged, or the dtype is too "
                "narrow",
                writer->path, tensor->name, sm_dtype_name(writer->dtype));
        }
        const int status = put(writer, encoded, now * size, writer->begin[index] + (first + done) * size, error);
        if (status) {
            return status;
        }
        done += now;
    }
    return SM_OK;
}

int sm_safetensors_write(sm_safetensors_writer *writer, const float *values, size_t count, sm_error *error)
{
    const int status = sm_safetensors_write_at(writer, writer->next, writer->written, values, count, error);
    if (status) {
        return status;
    }
    writer->written += count;
    if (writer->written == writer->tensor[writer->next]->count) {
        writer->next++;
        writer->written = 0;
    }
    return SM_OK;
}

int sm_safetensors_finish(sm_safetensors_writer *writer, int complete, sm_error *error)
{
    int status = SM_OK;
    if (complete && writer->bytes != writer->begin[writer->count]) {
        status = sm_fail(error, SM_BAD_ARGUMENT, "%s: not all of its tensors were written", writer->path);
    } else if (complete && fsync(writer->descriptor) != 0) {
        status = sm_fail(error, SM_IO, "%s: cannot be flushed to the disk: %s", writer->path, strerror(errno));
    }
    if (writer->descriptor >= 0 && close(writer->descriptor) != 0 && complete && status == SM_OK) {
        status = sm_fail(error, SM_IO, "%s: cannot be closed: %s", writer->path, strerror(errno));
    }
    free(writer->path);
    free(writer->tensor);
    free(writer->begin);
    free(writer);
    return status;
}
