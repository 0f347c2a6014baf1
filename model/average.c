/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/average_parts.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/publish.h"
#include "model/same_model.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

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

/* Takes the block of model i into the sum. */
static void take(const sm_average *average, size_t i, float *restrict sum, const float *restrict values, size_t count,
                 float weight)
{
    if (i == 0 && average->method == SM_AVERAGE_WEIGHTED) {
        for (size_t k = 0; k < count; k++) {
            sum[k] = weight * values[k];
        }
    } else if (i == 0) {
        memcpy(sum, values, count * sizeof *sum);
    } else if (average->method == SM_AVERAGE_MEAN) {
        for (size_t k = 0; k < count; k++) {
            sum[k] += values[k];
        }
    } else if (average->method == SM_AVERAGE_WEIGHTED) {
        for (size_t k = 0; k < count; k++) {
            const float share = weight * values[k];
            sum[k] += share;
        }
    } else {
        const float keep = (float)(1 - average->mu), move = (float)average->mu;
        for (size_t k = 0; k < count; k++) {
            const float kept = keep * sum[k], moved = move * values[k];
            sum[k] = kept + moved;
        }
    }
}

/* A part of one tensor, and its place in the result's order. */
struct block {
    const sm_tensor *tensor;
    size_t first, count;
};

/* Blocks on their way: taken in order by whoever is free, computed side by side, written in order. */
struct place {
    float *sum; /* BLOCK */
    bool done;
    int status;
    sm_error error;
};

enum { PLACES = 16, MOST_WORKERS = 8 };

struct work {
    const sm_average *average;
    sm_layout layout;
    sm_weight_files *files; /* average->count of them */
    double total;           /* of the weights */
    struct block *block;
    size_t blocks;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct place place[PLACES]; /* block k is at k % PLACES */
    size_t taken, written;      /* blocks; under the lock, as the places' `done` */
    bool stop;
};

static int average_block(const struct work *work, const struct block *block, float *sum, float *values, sm_error *error)
{
    const sm_average *average = work->average;
    for (size_t i = 0; i < average->count; i++) {
        sm_safetensors *file;
        const sm_stored_tensor *stored;
        int status = sm_weight_files_locate(&work->files[i], &work->layout, block->tensor, &file, &stored, error);
        if (status || (status = sm_safetensors_read(file, stored, block->first, block->count, values, error))) {
            return status;
        }
        const double weight = average->method == SM_AVERAGE_WEIGHTED ? average->weight[i] / work->total : 1;
        take(average, i, sum, values, block->count, (float)weight);
    }
    if (average->method == SM_AVERAGE_MEAN) {
        const float n = (float)average->count;
        for (size_t k = 0; k < block->count; k++) {
            sum[k] /= n;
        }
    }
    return SM_OK;
}

static void *compute(void *context)
{
    struct work *work = context;
    float *values = malloc(BLOCK * sizeof *values);
    pthread_mutex_lock(&work->lock);
    for (;;) {
        while (!work->stop && work->taken < work->blocks && work->taken - work->written >= PLACES) {
            pthread_cond_wait(&work->changed, &work->lock);
        }
        if (work->stop || work->taken == work->blocks) {
            break;
        }
        const size_t k = work->taken++;
        struct place *place = &work->place[k % PLACES];
        pthread_mutex_unlock(&work->lock);
        place->status = values ? average_block(work, &work->block[k], place->sum, values, &place->error)
                               : sm_fail(&place->error, SM_NO_MEMORY, "no memory to average models");
        pthread_mutex_lock(&work->lock);
        place->done = true;
        pthread_cond_broadcast(&work->changed);
    }
    pthread_mutex_unlock(&work->lock);
    free(values);
    return NULL;
}

static int write_blocks(struct work *work, sm_safetensors_writer *writer, sm_error *error)
{
    int status = SM_OK;
    for (size_t k = 0; !status && k < work->blocks; k++) {
        struct place *place = &work->place[k % PLACES];
        pthread_mutex_lock(&work->lock);
        while (!place->done) {
            pthread_cond_wait(&work->changed, &work->lock);
        }
        pthread_mutex_unlock(&work->lock);
        status = place->status;
        if (status) {
            *error = place->error;
        } else {
            status = sm_safetensors_write(writer, place->sum, work->block[k].count, error);
        }
        pthread_mutex_lock(&work->lock);
        place->done = false;
        work->written++;
        work->stop = status != SM_OK;
        pthread_cond_broadcast(&work->changed);
        pthread_mutex_unlock(&work->lock);
    }
    return status;
}

static int average_all(struct work *work, sm_safetensors_writer *writer, sm_error *error)
{
    const sm_tensor *tensor;
    for (size_t t = 0; (tensor = sm_safetensors_tensor(writer, t)); t++) {
        work->blocks += (tensor->count + BLOCK - 1) / BLOCK;
    }
    work->block = malloc(work->blocks * sizeof *work->block + 1);
    bool memory = work->block != NULL;
    for (size_t i = 0; i < PLACES; i++) {
        work->place[i].sum = malloc(BLOCK * sizeof(float));
        memory = memory && work->place[i].sum;
    }
    if (!memory) {
        return sm_fail(error, SM_NO_MEMORY, "no memory to average models");
    }
    size_t k = 0;
    for (size_t t = 0; (tensor = sm_safetensors_tensor(writer, t)); t++) {
        for (size_t first = 0; first < tensor->count; first += BLOCK) {
            const size_t left = tensor->count - first;
            work->block[k++] = (struct block){tensor, first, left < BLOCK ? left : BLOCK};
        }
    }
    const long processors = work->average->threads > 0 ? work->average->threads : sysconf(_SC_NPROCESSORS_ONLN);
    const size_t wanted = processors < 1 ? 1 : processors > MOST_WORKERS ? MOST_WORKERS : (size_t)processors;
    pthread_t worker[MOST_WORKERS];
    size_t workers = 0;
    while (workers < wanted && pthread_create(&worker[workers], NULL, compute, work) == 0) {
        workers++;
    }
    const int status = workers > 0 ? write_blocks(work, writer, error)
                                   : sm_fail(error, SM_NO_MEMORY, "no thread can be started to average models");
    for (size_t i = 0; i < workers; i++) {
        pthread_join(worker[i], NULL);
    }
    return status;
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
    struct work work = {.average = average, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
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
        if (!status && (status = average_all(&work, publication.weights, error))) {
            sm_publish_abort(&publication);
        } else if (!status) {
            status = sm_publish_commit(&publication, error);
        }
    }
    for (size_t i = 0; i < average->count; i++) {
        sm_weight_files_close(&work.files[i]);
    }
    for (size_t i = 0; i < PLACES; i++) {
        free(work.place[i].sum);
    }
    sm_layout_free(&work.layout);
    free(work.files);
    free(work.block);
    return status;
}
