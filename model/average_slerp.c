/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * WARP's merge of task vectors (Ramé et al. 2024, arXiv:2406.16768, section 3): SLERP layer by layer, then a step of
 * length η from the base. Formulas and their edge cases: average.h, kernels/ops.h.
 *
 * A layer is read twice for two models: for the angle, then for the weights. With more, the angle to the k-th model is
 * known when those before it are turned, so that a layer is read M times. Memory holds three parts of a tensor.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/average_parts.h"
#include "model/network.h"
#include "model/publish.h"

#define PART ((size_t)1 << 20) /* floats at a time */

typedef struct merge {
    const sm_average *average; /* dir[0] is the base */
    sm_layout layout;
    sm_weight_files *files;
    kn_device *device;
    float *base, *sum, *other; /* [PART] of the device: the base, the models so far, the next */
    double *dots;              /* [models - 1][3] of the device: of the layer at hand, for its angles */
    float *room;               /* [PART] of the host; NULL where the device's memory is host memory */
    sm_error *error;
} merge;

/* A part of a tensor. */
typedef struct part {
    const sm_tensor *tensor;
    size_t first, count;
} part;

/* Tensors of one layer have one number; those outside of all layers have one each. */
static long layer_of(const sm_layout *layout, const sm_tensor *tensor)
{
    unsigned layer;
    return sscanf(tensor->name, "model.layers.%u.", &layer) == 1 ? (long)layer : -1 - (long)(tensor - layout->tensor);
}

static int device_status(const merge *m, int kn)
{
    return kn == KN_OK ? SM_OK : sm_device_fail(m->device, kn, "merging models", m->error);
}

static int load(const merge *m, size_t model, part p, float *to)
{
    sm_safetensors *file;
    const sm_stored_tensor *stored;
    float *here = m->room ? m->room : to;
    int status = sm_weight_files_locate(&m->files[model], &m->layout, p.tensor, &file, &stored, m->error);
    if (status == SM_OK)
        status = sm_safetensors_read(file, stored, p.first, p.count, here, m->error);
    if (status == SM_OK && m->room)
        status = sm_device_write(m->device, to, here, p.count * sizeof(float), m->error);
    return status;
}

/* sum = base + s_k of the first k models, the angles up to theirs being known. */
static int turn(const merge *m, part p, size_t k)
{
    int status = load(m, 0, p, m->base);
    if (status == SM_OK)
        status = load(m, 1, p, m->sum);
    for (size_t i = 2; status == SM_OK && i <= k; i++) {
        if ((status = load(m, i, p, m->other)) == SM_OK)
            status = device_status(m, m->device->ops->slerp(m->device, m->sum, m->dots + 3 * (i - 2), m->base, m->sum,
                                                            m->other, 1 / (double)i, p.count));
    }
    return status;
}

static part part_of(const sm_tensor *tensor, size_t first)
{
    const size_t left = tensor->count - first;
    return (part){tensor, first, left < PART ? left : PART};
}

/* The angles of a layer, whose tensors are those from `begin` to before `end` in the writer's order. */
static int measure(const merge *m, const sm_safetensors_writer *writer, size_t begin, size_t end)
{
    const size_t models = m->average->count - 1;
    const kn_ops *ops = m->device->ops;
    int status = device_status(m, ops->clear(m->device, m->dots, 3 * models * sizeof(*m->dots)));
    for (size_t k = 2; k <= models; k++)
        for (size_t t = begin; t < end; t++) {
            const sm_tensor *tensor = sm_safetensors_tensor(writer, t);
            for (size_t first = 0; status == SM_OK && first < tensor->count; first += PART) {
                const part p = part_of(tensor, first);
                if ((status = turn(m, p, k - 1)) == SM_OK && (status = load(m, k, p, m->other)) == SM_OK)
                    status = device_status(
                        m, ops->slerp_dots_add(m->device, m->dots + 3 * (k - 2), m->base, m->sum, m->other, p.count));
            }
        }
    return status;
}

/* θ₀ + η (θ − θ₀), "linear interpolation towards initialization", as the mean with weights 1 − η and η. */
static int step_from_base(const merge *m, size_t count)
{
    const float *const from[] = {m->base, m->sum};
    const float weight[] = {(float)(1 - m->average->mu), (float)m->average->mu};
    return m->average->mu == 1 ? SM_OK
                               : device_status(m, m->device->ops->mean(m->device, m->sum, from, weight, 2, count));
}

static int write_tensor(const merge *m, sm_safetensors_writer *writer, const sm_tensor *tensor)
{
    int status = SM_OK;
    for (size_t first = 0; status == SM_OK && first < tensor->count; first += PART) {
        const part p = part_of(tensor, first);
        if ((status = turn(m, p, m->average->count - 1)) == SM_OK)
            status = step_from_base(m, p.count);
        if (status == SM_OK && m->room)
            status = sm_device_read(m->device, m->room, m->sum, p.count * sizeof(float), m->error);
        if (status == SM_OK)
            status = sm_safetensors_write(writer, m->room ? m->room : m->sum, p.count, m->error);
    }
    return status;
}

/* Layer by layer, as they lie together in the writer's order. */
static int write_all(const merge *m, sm_safetensors_writer *writer)
{
    const sm_tensor *tensor;
    int status = SM_OK;
    for (size_t begin = 0, end; status == SM_OK && (tensor = sm_safetensors_tensor(writer, begin)); begin = end) {
        const long layer = layer_of(&m->layout, tensor);
        for (end = begin + 1; (tensor = sm_safetensors_tensor(writer, end)); end++)
            if (layer_of(&m->layout, tensor) != layer)
                break;
        status = measure(m, writer, begin, end);
        for (size_t t = begin; status == SM_OK && t < end; t++)
            status = write_tensor(m, writer, sm_safetensors_tensor(writer, t));
    }
    return status;
}

static int take_memory(merge *m)
{
    const kn_ops *ops = m->device->ops;
    const size_t bytes = PART * sizeof(float);
    if (!(m->base = ops->alloc(m->device, bytes)) || !(m->sum = ops->alloc(m->device, bytes)) ||
        !(m->other = ops->alloc(m->device, bytes)) ||
        !(m->dots = ops->alloc(m->device, 3 * m->average->count * sizeof(*m->dots))))
        return sm_device_no_memory(m->device, m->error, "no memory to merge models");
    if (m->device->host_memory || (m->room = malloc(bytes)))
        return SM_OK;
    return sm_fail(m->error, SM_NO_MEMORY, "no memory to merge models");
}

static int publish(merge *m, const char *to)
{
    const sm_average *average = m->average;
    const kn_dtype dtype = average->original_dtype ? m->layout.config.original : average->dtype;
    sm_publication publication;
    int status = sm_publish_begin(&publication, to, average->dir[0], &m->layout, dtype, m->error);
    if (status != SM_OK)
        return status;
    status = write_all(m, publication.weights);
    if (status == SM_OK)
        return sm_publish_commit(&publication, m->error);
    sm_publish_abort(&publication);
    return status;
}

int sm_average_slerp(const char *to, const sm_average *average, sm_error *error)
{
    merge m = {.average = average, .device = average->device, .error = error};
    const kn_ops *ops = m.device->ops;
    m.files = calloc(average->count, sizeof(*m.files));
    int status = m.files ? sm_average_open(average, &m.layout, m.files, error)
                         : sm_fail(error, SM_NO_MEMORY, "%s: no memory to merge models", to);
    if (status == SM_OK && (status = take_memory(&m)) == SM_OK)
        status = publish(&m, to);
    for (size_t i = 0; m.files && i < average->count; i++)
        sm_weight_files_close(&m.files[i]);
    ops->free(m.device, m.base);
    ops->free(m.device, m.sum);
    ops->free(m.device, m.other);
    ops->free(m.device, m.dots);
    sm_layout_free(&m.layout);
    free(m.room);
    free(m.files);
    return status;
}
