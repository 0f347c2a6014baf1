/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors format: 8 bytes of little-endian header length, a JSON header that names each tensor's dtype, shape
 * and place, then the numbers.
 *
 * Reading trusts nothing: as the reference implementation does, it refuses a header whose tensors overlap, leave gaps,
 * do not fill the file or disagree with their shapes. Numbers are read with pread, not mapped, so that a file cut short
 * by somebody else meanwhile is an error and not a signal.
 *
 * An open file may be read by several threads at once. A writer belongs to one thread, but for sm_safetensors_write_at.
 */
#ifndef MODEL_SAFETENSORS_H
#define MODEL_SAFETENSORS_H

#include <stdint.h>

#include "model/error.h"
#include "model/weights.h"

#define SM_MAX_RANK 8

typedef struct sm_stored_tensor {
    const char *name; /* lives as long as the open file */
    char dtype[16];   /* as the header says: "F32", "BF16", "I64", … */
    uint32_t rank;
    uint64_t shape[SM_MAX_RANK];
    uint64_t count;      /* of elements */
    uint64_t begin, end; /* bytes in the file */
} sm_stored_tensor;

typedef struct sm_safetensors sm_safetensors;

int sm_safetensors_open(sm_safetensors **out, const char *path, sm_error *error);
void sm_safetensors_close(sm_safetensors *file);
const char *sm_safetensors_path(const sm_safetensors *file);

/* The tensors in bytewise order of their names; NULL when there is no tensor of that name. */
const sm_stored_tensor *sm_safetensors_list(const sm_safetensors *file, size_t *count);
const sm_stored_tensor *sm_safetensors_find(const sm_safetensors *file, const char *name);

/* SM_OK when the tensor is one that a float32 read accepts: F32, BF16 or F16; *dtype may be NULL. */
int sm_safetensors_dtype(const sm_safetensors *file, const sm_stored_tensor *tensor, kn_dtype *dtype, sm_error *error);

/* Elements [first, first + count) as float32. Infinities and NaNs are refused by tensor name. */
int sm_safetensors_read(const sm_safetensors *file, const sm_stored_tensor *tensor, uint64_t first, size_t count,
                        float *to, sm_error *error);

/* "[4, 8]", for messages; at most 119 bytes. */
const char *sm_shape_show(uint32_t rank, const uint64_t *shape, char to[120]);

/*
 * A new file, written with bounded memory, front to back or each part at its place. All tensors get one dtype and stand
 * in bytewise order of their names, which is how transformers writes them, so equal parameters make equal files.
 */
typedef struct sm_safetensors_writer sm_safetensors_writer;

/* Creates `path`, which must not exist, and writes the header. The tensors are borrowed until the writer is gone. */
int sm_safetensors_create(sm_safetensors_writer **out, const char *path, kn_dtype dtype, const sm_tensor *tensors,
                          size_t count, sm_error *error);

/* The tensor whose values come next, NULL when all are written. */
const sm_tensor *sm_safetensors_next(const sm_safetensors_writer *writer);
/* The tensors in the order in which they are to be written; NULL behind the last. */
const sm_tensor *sm_safetensors_tensor(const sm_safetensors_writer *writer, size_t index);

/* The next `count` values of that tensor (never past its end). Values that are not finite in the file's dtype are
 * refused by tensor name. */
int sm_safetensors_write(sm_safetensors_writer *writer, const float *values, size_t count, sm_error *error);

/* Instead: values [first, first + count) of the tensor with that index in the order of sm_safetensors_tensor. Every
 * value is written once, in any order, by any threads. */
int sm_safetensors_write_at(sm_safetensors_writer *writer, size_t index, size_t first, const float *values,
                            size_t count, sm_error *error);

/* Flushes to the disk and frees the writer, whatever it returns. With `complete` false the file is only given up (the
 * caller removes it). */
int sm_safetensors_finish(sm_safetensors_writer *writer, int complete, sm_error *error);

#endif
