/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/dtype.h"
#include "model/json_file.h"

/* The reference implementation allows 100 MB; the largest model that model/config.h admits needs a tenth of this, and a
 * parsed header takes some twenty times its text. */
#define HEADER_CAP ((uint64_t)32 << 20)

/* Elements decoded at a time. */
#define BLOCK ((size_t)1 << 14)

struct sm_safetensors {
    char *path;
    int descriptor;
    json_t *header;           /* owns the names */
    sm_stored_tensor *tensor; /* by name */
    size_t count;
};

const char *sm_shape_show(uint32_t rank, const uint64_t *shape, char to[120])
{
    size_t at = (size_t)snprintf(to, 120, "[");
    for (uint32_t i = 0; i < rank && at < 90; i++) {
        at += (size_t)snprintf(to + at, 120 - at, "%s%llu", i ? ", " : "", (unsigned long long)shape[i]);
    }
    snprintf(to + at, 120 - at, at < 90 ? "]" : ", ...]");
    return to;
}

/* Bits of one element of each dtype the format knows: tensors we have no use for may be of any of them. 0: unknown. */
static unsigned dtype_bits(const char *name)
{
    static const struct {
        const char *name;
        unsigned bits;
    } known[] = {{"F32", 32},    {"BF16", 16},   {"F16", 16},    {"F64", 64},    {"I64", 64},
                 {"I32", 32},    {"I16", 16},    {"I8", 8},      {"U64", 64},    {"U32", 32},
                 {"U16", 16},    {"U8", 8},      {"BOOL", 8},    {"C64", 64},    {"F8_E4M3", 8},
                 {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(name, known[i].name) == 0) {
            return known[i].bits;
        }
    }
    return 0;
}

/* A whole number that is not negative. */
static bool whole(const json_t *value, uint64_t *to)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return false;
    }
    *to = (uint64_t)json_integer_value(value);
    return true;
}

/* Reads one entry of the header; begin and end still count from the first byte after it. */
static int read_entry(const sm_safetensors *file, const char *name, const json_t *entry, sm_stored_tensor *tensor,
                      sm_error *error)
{
    const json_t *dtype = json_object_get(entry, "dtype"), *shape = json_object_get(entry, "shape");
    const json_t *offsets = json_object_get(entry, "data_offsets");
    if (!json_is_string(dtype) || !json_is_array(shape) || !json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !whole(json_array_get(offsets, 0), &tensor->begin) || !whole(json_array_get(offsets, 1), &tensor->end)) {
        return sm_fail(error, SM_FORMAT,
                       "%s: tensor %.100s: its header entry is malformed; expected dtype, shape and two data_offsets",
                       file->path, name);
    }
    const unsigned bits = dtype_bits(json_string_value(dtype));
    if (bits == 0) {
        return sm_fail(error, SM_UNSUPPORTED, "%s: tensor %.100s: unknown dtype \"%.40s\"", file->path, name,
                       json_string_value(dtype));
    }
    if (json_array_size(shape) > SM_MAX_RANK) {
        return sm_fail(error, SM_UNSUPPORTED, "%s: tensor %.100s has %zu dimensions; at most %d are supported",
                       file->path, name, json_array_size(shape), SM_MAX_RANK);
    }
    tensor->name = name;
    snprintf(tensor->dtype, sizeof tensor->dtype, "%s", json_string_value(dtype));
    tensor->rank = (uint32_t)json_array_size(shape);
    tensor->count = 1;
    bool overflow = false;
    for (uint32_t i = 0; i < tensor->rank; i++) {
        if (!whole(json_array_get(shape, i), &tensor->shape[i])) {
            return sm_fail(error, SM_FORMAT, "%s: tensor %.100s: its shape holds something other than sizes",
                           file->path, name);
        }
        overflow |= __builtin_mul_overflow(tensor->count, tensor->shape[i], &tensor->count);
    }
    char shown[120];
    uint64_t size = 0;
    sm_shape_show(tensor->rank, tensor->shape, shown);
    if (overflow || __builtin_mul_overflow(tensor->count, bits, &size)) {
        return sm_fail(error, SM_FORMAT, "%s: tensor %.100s: its shape %s is impossibly large", file->path, name,
                       shown);
    }
    if (size % 8 != 0 || tensor->end < tensor->begin || tensor->end - tensor->begin != size / 8) {
        return sm_fail(error, SM_FORMAT,
                       "%s: tensor %.100s: %s in shape %s takes %llu bytes, but its data_offsets are %llu and %llu",
                       file->path, name, tensor->dtype, shown, (unsigned long long)size / 8,
                       (unsigned long long)tensor->begin, (unsigned long long)tensor->end);
    }
    return SM_OK;
}

static int by_place(const void *a, const void *b)
{
    const sm_stored_tensor *x = a, *y = b;
    if (x->begin != y->begin) {
        return x->begin < y->begin ? -1 : 1;
    }
    return (x->end > y->end) - (x->end < y->end);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const sm_stored_tensor *)a)->name, ((const sm_stored_tensor *)b)->name);
}

/* The tensors must fill the `size` bytes after the header, without overlap or gap. Turns their places into places in
 * the file and leaves them sorted by name. */
static int check_places(sm_safetensors *file, uint64_t start, uint64_t size, sm_error *error)
{
    qsort(file->tensor, file->count, sizeof *file->tensor, by_place);
    uint64_t end = 0;
    const char *last = "the header";
    for (size_t i = 0; i < file->count; i++) {
        sm_stored_tensor *tensor = &file->tensor[i];
        if (tensor->end > size) {
            return sm_fail(error, SM_FORMAT,
                           "%s: tensor %.100s ends at byte %llu, but the file has %llu after its header: it is "
                           "truncated; copy it again",
                           file->path, tensor->name, (unsigned long long)tensor->end, (unsigned long long)size);
        }
        if (tensor->begin != end) {
            return sm_fail(error, SM_FORMAT, "%s: tensor %.100s begins at byte %llu, but %.100s ends at %llu: they %s",
                           file->path, tensor->name, (unsigned long long)tensor->begin, last, (unsigned long long)end,
                           tensor->begin < end ? "overlap" : "leave a gap");
        }
        end = tensor->end;
        last = tensor->name;
        tensor->begin += start;
        tensor->end += start;
    }
    if (end != size) {
        return sm_fail(error, SM_FORMAT, "%s: %llu bytes follow the last tensor", file->path,
                       (unsigned long long)(size - end));
    }
    qsort(file->tensor, file->count, sizeof *file->tensor, by_name);
    return SM_OK;
}

static int read_entries(sm_safetensors *file, sm_error *error)
{
    file->tensor = calloc(json_object_size(file->header) + 1, sizeof *file->tensor);
    if (!file->tensor) {
        return sm_fail(error, SM_NO_MEMORY, "%s: no memory for its table of tensors", file->path);
    }
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0) {
            const char *key;
            json_t *value;
            bool texts = json_is_object(entry);
            json_object_foreach(entry, key, value)
            {
                texts = texts && json_is_string(value);
            }
            if (!texts) {
                return sm_fail(error, SM_FORMAT, "%s: __metadata__ holds something other than texts", file->path);
            }
            continue;
        }
        const int status = read_entry(file, name, entry, &file->tensor[file->count], error);
        if (status) {
            return status;
        }
        file->count++;
    }
    return SM_OK;
}

static int read_header(sm_safetensors *file, uint64_t size, sm_error *error)
{
    uint8_t prefix[8];
    uint64_t length;
    if (size < sizeof prefix) {
        return sm_fail(error, SM_FORMAT, "%s: is %llu bytes long, too short for a safetensors file", file->path,
                       (unsigned long long)size);
    }
    int status = sm_file_read_at(file->descriptor, file->path, prefix, sizeof prefix, 0, error);
    if (status) {
        return status;
    }
    memcpy(&length, prefix, sizeof length);
    if (length > HEADER_CAP) {
        return sm_fail(error, SM_FORMAT, "%s: its header would be %llu bytes long: not a safetensors file", file->path,
                       (unsigned long long)length);
    }
    if (length > size - sizeof prefix) {
        return sm_fail(error, SM_FORMAT,
                       "%s: its header is %llu bytes long, but %llu follow: it is truncated; copy it again", file->path,
                       (unsigned long long)length, (unsigned long long)(size - sizeof prefix));
    }
    char *text = malloc(length + 1);
    if (!text) {
        return sm_fail(error, SM_NO_MEMORY, "%s: no memory for its header", file->path);
    }
    if (!(status = sm_file_read_at(file->descriptor, file->path, text, length, sizeof prefix, error))) {
        char where[600];
        snprintf(where, sizeof where, "%s: header", file->path);
        file->header = sm_json_parse(where, text, length, error);
        status = file->header ? SM_OK : SM_FORMAT;
    }
    free(text);
    if (status || (status = read_entries(file, error))) {
        return status;
    }
    return check_places(file, sizeof prefix + length, size - sizeof prefix - length, error);
}

int sm_safetensors_open(sm_safetensors **out, const char *path, sm_error *error)
{
    *out = NULL;
    sm_safetensors *file = calloc(1, sizeof *file);
    if (!file || !(file->path = strdup(path))) {
        free(file);
        return sm_fail(error, SM_NO_MEMORY, "%s: no memory to open it", path);
    }
    unsigned long long size;
    int status = file->descriptor = sm_file_open(path, &size, error);
    if (status >= 0) {
        status = read_header(file, size, error);
    }
    if (status) {
        sm_safetensors_close(file);
        return status;
    }
    *out = file;
    return SM_OK;
}

void sm_safetensors_close(sm_safetensors *file)
{
    if (!file) {
        return;
    }
    if (file->descriptor >= 0) {
        close(file->descriptor);
    }
    json_decref(file->header);
    free(file->tensor);
    free(file->path);
    free(file);
}

const char *sm_safetensors_path(const sm_safetensors *file)
{
    return file->path;
}

const sm_stored_tensor *sm_safetensors_list(const sm_safetensors *file, size_t *count)
{
    *count = file->count;
    return file->tensor;
}

const sm_stored_tensor *sm_safetensors_find(const sm_safetensors *file, const char *name)
{
    const sm_stored_tensor key = {.name = name};
    return bsearch(&key, file->tensor, file->count, sizeof *file->tensor, by_name);
}

int sm_safetensors_dtype(const sm_safetensors *file, const sm_stored_tensor *tensor, kn_dtype *dtype, sm_error *error)
{
    static const char *const names[] = {[KN_F32] = "F32", [KN_BF16] = "BF16", [KN_F16] = "F16"};
    for (kn_dtype i = KN_F32; i <= KN_F16; i++) {
        if (strcmp(tensor->dtype, names[i]) == 0) {
            if (dtype) {
                *dtype = i;
            }
            return SM_OK;
        }
    }
    return sm_fail(error, SM_UNSUPPORTED, "%s: tensor %.100s holds %s; supported: F32, BF16 and F16", file->path,
                   tensor->name, tensor->dtype);
}

int sm_safetensors_read(const sm_safetensors *file, const sm_stored_tensor *tensor, uint64_t first, size_t count,
                        float *to, sm_error *error)
{
    kn_dtype dtype;
    int status = sm_safetensors_dtype(file, tensor, &dtype, error);
    if (status) {
        return status;
    }
    if (first > tensor->count || count > tensor->count - first) {
        return sm_fail(error, SM_BAD_ARGUMENT, "%s: tensor %.100s was read past its end", file->path, tensor->name);
    }
    const size_t size = sm_dtype_size(dtype);
    uint16_t block[BLOCK];
    for (size_t done = 0; done < count;) {
        const size_t now = count - done < BLOCK ? count - done : BLOCK;
        const uint64_t place = tensor->begin + (first + done) * size;
        void *raw = dtype == KN_F32 ? (void *)(to + done) : block; /* float32 needs no second place */
        if ((status = sm_file_read_at(file->descriptor, file->path, raw, now * size, place, error))) {
            return status;
        }
        if (!sm_dtype_decode(to + done, raw, now, dtype)) {
            return sm_fail(error, SM_FORMAT,
                           "%s: tensor %.100s holds an infinity or a NaN; take a version from before the training "
                           "went wrong",
                           file->path, tensor->name);
        }
        done += now;
    }
    return SM_OK;
}
