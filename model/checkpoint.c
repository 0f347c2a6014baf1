/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/publish.h"
#include "model/weight_files.h"
#include "sluice/random.h"

#define HEAD      "lm_head.weight"
#define ALIGNMENT 64

/* A checkpoint with its layout and room for its parameters. */
static int checkpoint_new(sm_checkpoint **out, const sm_config *config, sm_error *error)
{
    sm_checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    if (!checkpoint) {
        return sm_fail(error, SM_NO_MEMORY, "no memory for a model");
    }
    const int status = sm_layout_init(&checkpoint->layout, config, error);
    if (status) {
        free(checkpoint);
        return status;
    }
    *out = checkpoint;
    return SM_OK;
}

void sm_checkpoint_free(sm_checkpoint *checkpoint)
{
    if (checkpoint) {
        sm_layout_free(&checkpoint->layout);
        sm_weight_files_close(&checkpoint->files);
        free(checkpoint->params);
        free(checkpoint->note);
        free(checkpoint);
    }
}

/* Whether the whole model is there, before any memory is spent on it. */
static int check_tensors(sm_checkpoint *checkpoint, sm_error *error)
{
    for (size_t i = 0; i < checkpoint->layout.tensors; i++) {
        const sm_tensor *tensor = &checkpoint->layout.tensor[i];
        sm_safetensors *file;
        const sm_stored_tensor *stored;
        const int status =
            sm_weight_files_locate(&checkpoint->files, &checkpoint->layout, tensor, &file, &stored, error);
        if (status) {
            return status;
        }
        if (tensor->offset == checkpoint->layout.embed) {
            sm_safetensors_dtype(file, stored, &checkpoint->stored, NULL);
        }
    }
    return SM_OK;
}

/* Some writers store a tied output matrix a second time. A different one means that the model is not tied, whatever its
 * config says, and to read it as tied would be to read another model. */
static int check_tied_head(const sm_checkpoint *checkpoint, sm_error *error)
{
    const sm_tensor *embed = &checkpoint->layout.tensor[0];
    sm_safetensors *head_file, *embed_file;
    const sm_stored_tensor *head = sm_weight_files_find(&checkpoint->files, HEAD, &head_file), *stored;
    if (!checkpoint->layout.config.tied || !head) {
        return SM_OK;
    }
    int status = sm_weight_files_locate(&checkpoint->files, &checkpoint->layout, embed, &embed_file, &stored, error);
    if (status || stored == head) { /* the embedding itself may stand under the head's name */
        return status;
    }
    float a[1024], b[1024];
    bool equal = head->count == embed->count;
    for (size_t done = 0; equal && done < embed->count;) {
        const size_t left = embed->count - done, now = left < 1024 ? left : 1024;
        if ((status = sm_safetensors_read(head_file, head, done, now, a, error)) ||
            (status = sm_safetensors_read(embed_file, stored, done, now, b, error))) {
            return status;
        }
        equal = memcmp(a, b, now * sizeof *a) == 0;
        done += now;
    }
    return equal ? SM_OK
                 : sm_fail(error, SM_MISMATCH,
                           "%s: " HEAD " differs from %s, but config.json says tie_word_embeddings; set it to false",
                           sm_safetensors_path(head_file), embed->name);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names, for the log, what the files hold and the model does not want. */
static int note_ignored(sm_checkpoint *checkpoint, sm_error *error)
{
    const sm_weight_files *files = &checkpoint->files;
    const sm_layout *layout = &checkpoint->layout;
    const char **known = calloc(layout->tensors + 1, sizeof *known);
    if (!known) {
        return sm_fail(error, SM_NO_MEMORY, "%s: no memory to look through its tensors", files->dir);
    }
    for (size_t i = 0; i < layout->tensors; i++) {
        known[i] = layout->tensor[i].name;
    }
    known[layout->tensors] = HEAD; /* when tied, it was compared */
    const size_t known_count = layout->tensors + (layout->config.tied ? 1 : 0);
    qsort(known, known_count, sizeof *known, compare_names);

    char names[400] = "";
    size_t ignored = 0, at = 0;
    for (size_t f = 0; f < files->count; f++) {
        size_t count;
        const sm_stored_tensor *list = sm_safetensors_list(files->file[f], &count);
        for (size_t i = 0; i < count; i++) {
            if (bsearch(&list[i].name, known, known_count, sizeof *known, compare_names)) {
                continue;
            }
            if (ignored++ < 3) {
                at += (size_t)snprintf(names + at, sizeof names - at, "%s%.100s", at ? ", " : "", list[i].name);
            }
        }
    }
    free(known);
    if (ignored > 0) {
        sm_error line; /* sm_fail keeps foreign names to one line */
        sm_fail(&line, SM_OK, "%s: ignored %zu tensor%s that this model has no use for: %s%s", files->dir, ignored,
                ignored == 1 ? "" : "s", names, ignored > 3 ? ", ..." : "");
        checkpoint->note = strdup(line.text);
    }
    return SM_OK;
}

int sm_checkpoint_open(sm_checkpoint **out, const char *dir, sm_error *error)
{
    *out = NULL;
    sm_config config;
    sm_checkpoint *checkpoint = NULL;
    int status;
    if ((status = sm_config_read(&config, dir, error)) || (status = checkpoint_new(&checkpoint, &config, error)) ||
        (status = sm_weight_files_open(&checkpoint->files, dir, error)) ||
        (status = check_tensors(checkpoint, error)) || (status = check_tied_head(checkpoint, error)) ||
        (status = note_ignored(checkpoint, error))) {
        sm_checkpoint_free(checkpoint);
        return status;
    }
    *out = checkpoint;
    return SM_OK;
}

int sm_checkpoint_open_random(sm_checkpoint **out, const char *dir, uint64_t seed, sm_error *error)
{
    *out = NULL;
    sm_config config;
    sm_checkpoint *checkpoint = NULL;
    int status = sm_config_read(&config, dir, error);
    if (status || (status = checkpoint_new(&checkpoint, &config, error))) {
        return status;
    }
    checkpoint->random = true;
    checkpoint->seed = seed;
    *out = checkpoint;
    return SM_OK;
}

/* Normal numbers by Box and Muller (1958), two for each Philox block; the place of a number is its tensor's name and
 * its index there. */
void sm_random_normal(float *to, size_t count, double deviation, const char *name, uint64_t seed)
{
    const sluice_draw draw = {
        .seed = seed, .record = sluice_random_name(name, strlen(name)), .purpose = SLUICE_PURPOSE_INIT};
    uint64_t key[2], counter[2];
    sluice_draw_place(&draw, key, counter);
    for (size_t i = 0; i < count; i += 2, counter[0]++) {
        uint32_t bits[4];
        sluice_philox(key, counter, bits);
        const double radius = deviation * sqrt(-2 * log(sluice_uniform_double(bits[0], bits[1])));
        const double angle = 2 * 3.14159265358979323846 * sluice_uniform_double(bits[2], bits[3]);
        to[i] = (float)(radius * cos(angle));
        if (i + 1 < count) {
            to[i + 1] = (float)(radius * sin(angle));
        }
    }
}

static void fill_random(const sm_checkpoint *checkpoint, const sm_tensor *tensor, float *to)
{
    if (tensor->rank == 2) {
        sm_random_normal(to, tensor->count, checkpoint->layout.config.initializer_range, tensor->name,
                         checkpoint->seed);
        return;
    }
    const size_t length = strlen(tensor->name), suffix = strlen(".bias");
    const float value = strcmp(tensor->name + length - suffix, ".bias") == 0 ? 0.0f : 1.0f;
    for (size_t k = 0; k < tensor->count; k++) {
        to[k] = value;
    }
}

static int read_tensor(const sm_checkpoint *checkpoint, const sm_tensor *tensor, float *to, sm_error *error)
{
    sm_safetensors *file;
    const sm_stored_tensor *stored;
    if (checkpoint->params) {
        memcpy(to, checkpoint->params + tensor->offset, tensor->count * sizeof *to);
        return SM_OK;
    }
    if (checkpoint->random) {
        fill_random(checkpoint, tensor, to);
        return SM_OK;
    }
    const int status = sm_weight_files_locate(&checkpoint->files, &checkpoint->layout, tensor, &file, &stored, error);
    return status ? status : sm_safetensors_read(file, stored, 0, tensor->count, to, error);
}

/* The index of the tensor that lies at `offset`. */
static size_t tensor_at(const sm_layout *layout, size_t offset)
{
    size_t low = 0, high = layout->tensors;
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (layout->tensor[middle].offset <= offset) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

int sm_checkpoint_read(const sm_checkpoint *checkpoint, size_t offset, size_t count, float *to, sm_error *error)
{
    const sm_layout *layout = &checkpoint->layout;
    const size_t end = offset + count;
    for (size_t i = tensor_at(layout, offset); i < layout->tensors && layout->tensor[i].offset < end; i++) {
        const sm_tensor *tensor = &layout->tensor[i];
        const int status = read_tensor(checkpoint, tensor, to + (tensor->offset - offset), error);
        if (status) {
            return status;
        }
    }
    return SM_OK;
}

static int read_numbers(void *context, size_t offset, size_t count, float *to, sm_error *error)
{
    return sm_checkpoint_read(context, offset, count, to, error);
}

sm_numbers sm_checkpoint_numbers(const sm_checkpoint *checkpoint)
{
    return (sm_numbers){.read = read_numbers, .context = (void *)(uintptr_t)checkpoint};
}

int sm_checkpoint_params(sm_checkpoint *checkpoint, sm_error *error)
{
    const size_t count = checkpoint->layout.count, bytes = count * sizeof(float);
    void *params;
    if (checkpoint->params) {
        return SM_OK;
    }
    if (posix_memalign(&params, ALIGNMENT, bytes) != 0) {
        return sm_fail(error, SM_NO_MEMORY, "no memory for a model of %zu parameters (%.1f GB)", count,
                       (double)bytes * 1e-9);
    }
    const int status = sm_checkpoint_read(checkpoint, 0, count, params, error);
    if (status) {
        free(params);
    } else {
        checkpoint->params = params;
    }
    return status;
}

/* What was opened, with its parameters; or nothing. */
static int with_params(sm_checkpoint **checkpoint, int status, sm_error *error)
{
    if (!status && (status = sm_checkpoint_params(*checkpoint, error))) {
        sm_checkpoint_free(*checkpoint);
        *checkpoint = NULL;
    }
    return status;
}

int sm_checkpoint_load(sm_checkpoint **out, const char *dir, sm_error *error)
{
    return with_params(out, sm_checkpoint_open(out, dir, error), error);
}

int sm_checkpoint_create(sm_checkpoint **out, const char *dir, uint64_t seed, sm_error *error)
{
    return with_params(out, sm_checkpoint_open_random(out, dir, seed, error), error);
}

/* A folder whose config.json is of another shape than its weights would load nowhere. A reward model may be saved with
 * the files of the language model that its body came from. */
static int check_source(const sm_layout *layout, const char *source, sm_error *error)
{
    sm_config config;
    sm_layout wanted;
    int status = sm_config_read(&config, source, error);
    config.outputs = layout->config.outputs;
    if (status || (status = sm_layout_init(&wanted, &config, error))) {
        return status;
    }
    bool same = wanted.tensors == layout->tensors && wanted.count == layout->count;
    for (size_t i = 0; same && i < layout->tensors; i++) {
        const sm_tensor *a = &wanted.tensor[i], *b = &layout->tensor[i];
        same = strcmp(a->name, b->name) == 0 && a->shape[0] == b->shape[0] && a->shape[1] == b->shape[1];
    }
    sm_layout_free(&wanted);
    return same ? SM_OK
                : sm_fail(error, SM_MISMATCH, "%s: its config.json describes another shape than the model to be saved",
                          source);
}

int sm_checkpoint_save(const char *to, const sm_layout *layout, const sm_numbers *numbers, kn_dtype dtype,
                       const char *source, sm_error *error)
{
    sm_publication publication;
    int status = check_source(layout, source, error);
    if (status || (status = sm_publish_begin(&publication, to, source, layout, dtype, error))) {
        return status;
    }
    float *room = numbers->params ? NULL : malloc(sm_layout_largest(layout) * sizeof *room);
    if (!numbers->params && !room) {
        status = sm_fail(error, SM_NO_MEMORY, "%s: out of memory to write a model", to);
    }
    const sm_tensor *tensor;
    while (!status && (tensor = sm_safetensors_next(publication.weights))) {
        if (room && (status = sm_numbers_read(numbers, tensor->offset, tensor->count, room, error))) {
            break;
        }
        const float *from = room ? room : numbers->params + tensor->offset;
        status = sm_safetensors_write(publication.weights, from, tensor->count, error);
    }
    free(room);
    if (status) {
        sm_publish_abort(&publication);
        return status;
    }
    return sm_publish_commit(&publication, error);
}
