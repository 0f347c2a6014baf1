/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/average_parts.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/publish.h"
#include "model/same_model.h"
#include "model/wide.h"

#define BLOCK ((size_t)1 << 15) /* elements at a time: what fits a processor's own cache */

static int check_request(const sm_average *average, sm_error *error)
{
    if (average->count == 0) {
        return sm_fail(error, SM_BAD_ARGUMENT, "an average needs at least one model");
    }
    if (average->method == SM_AVERAGE_RUNNING && !(average->mu >= 0 && average->mu <= 1)) {
        return sm_fail(error, SM_BAD_ARGUMENT, "mu is %g; a running average needs a number from 0 to 1", average->mu);
    }
    if (average->method == SM_AVERAGE_SLERP && average->count < 2) {
        return sm_fail(error, SM_BAD_ARGUMENT, "slerp needs a base and at least one model");
    }
    if (average->method == SM_AVERAGE_SLERP && !(average->mu >= 0 && average->mu <= 1)) {
        return sm_fail(error, SM_BAD_ARGUMENT, "eta is %g; slerp needs a number from 0 to 1", average->mu);
    }
    if (average->method != SM_AVERAGE_WEIGHTED) {
        return SM_OK;
    }
    double sum = 0;
    for (size_t i = 0; i < average->count; i++) {
        if (!(average->weight[i] >= 0) || !isfinite(average->weight[i])) {
            return sm_fail(error, SM_BAD_ARGUMENT, "the weight of %s is %g; expected 0 or more", average->dir[i],
                           average->weight[i]);
        }
        sum += average->weight[i];
    }
    return sum > 0 && isfinite(sum) ? SM_OK : sm_fail(error, SM_BAD_ARGUMENT, "the weights add up to %g", sum);
}

SM_LOOP void add(float *restrict sum, const float *restrict values, size_t count)
{
    for (size_t k = 0; k < count; k++) {
        sum[k] += values[k];
    }
}

/* sum = keep·sum + move·values. */
SM_LOOP void mix(float *restrict sum, const float *restrict values, size_t count, float keep, float move)
{
    for (size_t k = 0; k < count; k++) {
        const float kept = keep * sum[k], moved = move * values[k];
        sum[k] = kept + moved;
    }
}

SM_LOOP void scale(float *sum, size_t count, float by)
{
    for (size_t k = 0; k < count; k++) {
        sum[k] *= by;
    }
}

SM_LOOP void divide(float *sum, size_t count, float by)
{
    for (size_t k = 0; k < count; k++) {
        sum[k] /= by;
    }
}

SM_TWICE(void, add, (float *restrict sum, const float *restrict values, size_t count), (sum, values, count))
SM_TWICE(void, mix, (float *restrict sum, const float *restrict values, size_t count, float keep, float move),
         (sum, values, count, keep, move))
SM_TWICE(void, scale, (float *sum, size_t count, float by), (sum, count, by))
SM_TWICE(void, divide, (float *sum, size_t count, float by), (sum, count, by))

/* Takes the block of model i, the first of which is in the sum already. */
static void take(const sm_average *average, size_t i, float *sum, const float *values, size_t count, float weight)
{
    if (average->method == SM_AVERAGE_WEIGHTED) {
        if (i == 0) {
            scale_here(sum, count, weight);
        } else {
            mix_here(sum, values, count, 1, weight);
        }
    } else if (i > 0 && average->method == SM_AVERAGE_MEAN) {
        add_here(sum, values, count);
    } else if (i > 0) {
        mix_here(sum, values, count, (float)(1 - average->mu), (float)average->mu);
    }
}

/* A part of one tensor. */
struct block {
    size_t index; /* of the tensor, in the writer's order */
    size_t first, count;
};

enum { MOST_WORKERS = 8 };

/* Blocks are taken in order by whoever is free, computed side by side and put where they belong in the file. */
struct work {
    const sm_average *average;
    sm_layout layout;
    sm_weight_files *files; /* average->count of them */
    double total;           /* of the weights */
    sm_safetensors_writer *writer;
    struct block *block;
    size_t blocks;
    atomic_size_t taken; /* blocks */

    pthread_mutex_t lock; /* of the first block that failed */
    size_t failed;        /* `blocks` while none has */
    int status;
    sm_error error;
};

static int average_block(const struct work *work, const struct block *block, float *sum, float *values, sm_error *error)
{
    const sm_average *average = work->average;
    const sm_tensor *tensor = sm_safetensors_tensor(work->writer, block->index);
    for (size_t i = 0; i < average->count; i++) {
        sm_safetensors *file;
        const sm_stored_tensor *stored;
        int status = sm_weight_files_locate(&work->files[i], &work->layout, tensor, &file, &stored, error);
        if (status ||
            (status = sm_safetensors_read(file, stored, block->first, block->count, i ? values : sum, error))) {
            return status;
        }
        const double weight = average->method == SM_AVERAGE_WEIGHTED ? average->weight[i] / work->total : 1;
        take(average, i, sum, values, block->count, (float)weight);
    }
    if (average->method == SM_AVERAGE_MEAN) {
        divide_here(sum, block->count, (float)average->count);
    }
    return sm_safetensors_write_at(work->writer, block->index, block->first, sum, block->count, error);
}

/* Keeps the failure of the earliest block, so that the message does not depend on the threads: those before it were
 * taken before it and run to their end. */
static void note_failure(struct work *work, size_t block, int status, const sm_error *error)
{
    pthread_mutex_lock(&work->lock);
    if (block < work->failed) {
        work->failed = block;
        work->status = status;
        work->error = *error;
    }
    pthread_mutex_unlock(&work->lock);
    atomic_store(&work->taken, work->blocks); /* no more of them */
}

static void *compute(void *context)
{
    struct work *work = context;
    float *sum = malloc(2 * BLOCK * sizeof *sum);
    sm_error error;
    for (size_t k; (k = atomic_fetch_add(&work->taken, 1)) < work->blocks;) {
        const int status = sum ? average_block(work, &work->block[k], sum, sum + BLOCK, &error)
                               : sm_fail(&error, SM_NO_MEMORY, "no memory to average models");
        if (status) {
            note_failure(work, k, status, &error);
        }
    }
    free(sum);
    return NULL;
}

static int average_all(struct work *work, sm_error *error)
{
    const sm_tensor *tensor;
    for (size_t t = 0; (tensor = sm_safetensors_tensor(work->writer, t)); t++) {
        work->blocks += (tensor->count + BLOCK - 1) / BLOCK;
    }
    work->failed = work->blocks;
    work->block = malloc(work->blocks * sizeof *work->block + 1);
    if (!work->block) {
        return sm_fail(error, SM_NO_MEMORY, "no memory to average models");
    }
    size_t k = 0;
    for (size_t t = 0; (tensor = sm_safetensors_tensor(work->writer, t)); t++) {
        for (size_t first = 0; first < tensor->count; first += BLOCK) {
            const size_t left = tensor->count - first;
            work->block[k++] = (struct block){t, first, left < BLOCK ? left : BLOCK};
        }
    }
    const long processors = work->average->threads > 0 ? work->average->threads : sysconf(_SC_NPROCESSORS_ONLN);
    const size_t wanted = processors < 1 ? 1 : processors > MOST_WORKERS ? MOST_WORKERS : (size_t)processors;
    pthread_t worker[MOST_WORKERS];
    size_t workers = 0;
    while (workers + 1 < wanted && pthread_create(&worker[workers], NULL, compute, work) == 0) {
        workers++;
    }
    compute(work); /* this thread is one of them */
    for (size_t i = 0; i < workers; i++) {
        pthread_join(worker[i], NULL);
    }
    if (work->status) {
        *error = work->error;
    }
    return work->status;
}

int sm_average_open(const sm_average *average, sm_layout *layout, sm_weight_files *files, sm_error *error)
{
    sm_config first, config;
    int status = sm_config_read(&first, average->dir[0], error);
    if (status || (status = sm_layout_init(layout, &first, error))) {
        return status;
    }
    for (size_t i = 0; i < average->count; i++) {
        if ((status = sm_config_read(&config, average->dir[i], error)) ||
            (status = sm_same_config(average->dir[0], &first, average->dir[i], &config, error)) ||
            (i > 0 && (status = sm_same_tokenizer(average->dir[0], average->dir[i], error))) ||
            (status = sm_weight_files_open(&files[i], average->dir[i], error))) {
            return status;
        }
        for (size_t t = 0; t < layout->tensors; t++) {
            sm_safetensors *file;
            const sm_stored_tensor *stored;
            if ((status = sm_weight_files_locate(&files[i], layout, &layout->tensor[t], &file, &stored, error))) {
                return status;
            }
        }
    }
    return SM_OK;
}

int sm_average_write(const char *to, const sm_average *average, sm_error *error)
{
    sm_publication publication;
    struct work work = {.average = average, .lock = PTHREAD_MUTEX_INITIALIZER};
    int status = check_request(average, error);
    if (status) {
        return status;
    }
    if (average->method == SM_AVERAGE_SLERP) {
        return sm_average_slerp(to, average, error);
    }
    work.files = calloc(average->count, sizeof *work.files);
    if (!work.files) {
        return sm_fail(error, SM_NO_MEMORY, "%s: no memory to average models", to);
    }
    for (size_t i = 0; average->method == SM_AVERAGE_WEIGHTED && i < average->count; i++) {
        work.total += average->weight[i];
    }
    status = sm_average_open(average, &work.layout, work.files, error);
    if (!status) {
        const kn_dtype dtype = average->original_dtype ? work.layout.config.original : average->dtype;
        status = sm_publish_begin(&publication, to, average->dir[0], &work.layout, dtype, error);
        if (!status) {
            work.writer = publication.weights;
            status = average_all(&work, error);
            if (status) {
                sm_publish_abort(&publication);
            } else {
                status = sm_publish_commit(&publication, error);
            }
        }
    }
    for (size_t i = 0; i < average->count; i++) {
        sm_weight_files_close(&work.files[i]);
    }
    sm_layout_free(&work.layout);
    free(work.files);
    free(work.block);
    return status;
}
