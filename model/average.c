/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/average.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/publish.h"
#include "model/same_model.h"
#include "model/weight_files.h"

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

/* The models side by side, and a block of each in turn. */
struct work {
    sm_weight_files *files; /* average->count of them */
    float *sum, *values;    /* BLOCK each */
    double total;           /* of the weights */
};

static int average_tensor(const sm_average *average, const sm_layout *layout, const sm_tensor *tensor,
                          struct work *work, sm_safetensors_writer *writer, sm_error *error)
{
    for (size_t first = 0; first < tensor->count; first += BLOCK) {
        const size_t left = tensor->count - first, count = left < BLOCK ? left : BLOCK;
        int status;
        for (size_t i = 0; i < average->count; i++) {
            sm_safetensors *file;
            const sm_stored_tensor *stored;
            if ((status = sm_weight_files_locate(&work->files[i], layout, tensor, &file, &stored, error)) ||
                (status = sm_safetensors_read(file, stored, first, count, work->values, error))) {
                return status;
            }
            const double weight = average->method == SM_AVERAGE_WEIGHTED ? average->weight[i] / work->total : 1;
            take(average, i, work->sum, work->values, count, (float)weight);
        }
        if (average->method == SM_AVERAGE_MEAN) {
            const float n = (float)average->count;
            for (size_t k = 0; k < count; k++) {
                work->sum[k] /= n;
            }
        }
        if ((status = sm_safetensors_write(writer, work->sum, count, error))) {
            return status;
        }
    }
    return SM_OK;
}

/* Opens every folder and makes sure that they belong together, before anything is written. */
static int open_models(const sm_average *average, sm_layout *layout, struct work *work, sm_error *error)
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
            (status = sm_weight_files_open(&work->files[i], average->dir[i], error))) {
            return status;
        }
        for (size_t t = 0; t < layout->tensors; t++) {
            sm_safetensors *file;
            const sm_stored_tensor *stored;
            if ((status = sm_weight_files_locate(&work->files[i], layout, &layout->tensor[t], &file, &stored, error))) {
                return status;
            }
        }
    }
    return SM_OK;
}

int sm_average_write(const char *to, const sm_average *average, sm_error *error)
{
    sm_layout layout = {0};
    sm_publication publication;
    struct work work = {0};
    int status = check_request(average, error);
    if (status) {
        return status;
    }
    work.files = calloc(average->count, sizeof *work.files);
    work.sum = malloc(BLOCK * sizeof *work.sum);
    work.values = malloc(BLOCK * sizeof *work.values);
    if (!work.files || !work.sum || !work.values) {
        status = sm_fail(error, SM_NO_MEMORY, "%s: no memory to average models", to);
        goto done;
    }
    for (size_t i = 0; average->method == SM_AVERAGE_WEIGHTED && i < average->count; i++) {
        work.total += average->weight[i];
    }
    if ((status = open_models(average, &layout, &work, error)) ||
        (status = sm_publish_begin(&publication, to, average->dir[0], &layout,
                                   average->original_dtype ? layout.config.original : average->dtype, error))) {
        goto done;
    }
    const sm_tensor *tensor;
    while (!status && (tensor = sm_safetensors_next(publication.weights))) {
        status = average_tensor(average, &layout, tensor, &work, publication.weights, error);
    }
    if (status) {
        sm_publish_abort(&publication);
    } else {
        status = sm_publish_commit(&publication, error);
    }
done:
    for (size_t i = 0; work.files && i < average->count; i++) {
        sm_weight_files_close(&work.files[i]);
    }
    sm_layout_free(&layout);
    free(work.files);
    free(work.sum);
    free(work.values);
    return status;
}
