/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/weight_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/json_file.h"

#define INDEX_CAP  ((size_t)32 << 20)
#define MAX_SHARDS 512 /* each is an open file */

static void free_names(char **names)
{
    for (size_t i = 0; names && names[i]; i++) {
        free(names[i]);
    }
    free(names);
}

static bool exists(const char *dir, const char *name)
{
    char *path = sm_path(dir, name);
    const bool found = path && access(path, F_OK) == 0;
    free(path);
    return found;
}

/* A name that cannot lead out of the folder, of the one format we read. */
static bool plain_weight_name(const char *name)
{
    const size_t length = strlen(name), suffix = strlen(".safetensors");
    return name[0] != '.' && !strchr(name, '/') && length > suffix && length < 256 &&
           strcmp(name + length - suffix, ".safetensors") == 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int names_of_index(const char *path, const json_t *index, char ***out, sm_error *error)
{
    const json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0) {
        return sm_fail(error, SM_FORMAT, "%s: weight_map is missing or empty", path);
    }
    char **names = calloc(MAX_SHARDS + 1, sizeof *names);
    size_t count = 0;
    const char *tensor;
    json_t *value;
    if (!names) {
        return sm_fail(error, SM_NO_MEMORY, "%s: no memory for its list of files", path);
    }
    int status = SM_OK;
    json_object_foreach((json_t *)map, tensor, value)
    {
        const char *name = json_string_value(value);
        char shown[80];
        if (!name || strlen(name) != json_string_length(value) || !plain_weight_name(name)) {
            status =
                sm_fail(error, SM_FORMAT,
                        "%s: weight_map puts %.100s into %s; expected the plain name of a .safetensors file in the "
                        "same folder",
                        path, tensor, sm_json_show(value, shown));
            break;
        }
        size_t i = 0;
        while (i < count && strcmp(names[i], name) != 0) {
            i++;
        }
        if (i < count) {
            continue;
        }
        if (count == MAX_SHARDS) {
            status = sm_fail(error, SM_UNSUPPORTED, "%s: names more than %d files", path, MAX_SHARDS);
            break;
        }
        if (!(names[count] = strdup(name))) {
            status = sm_fail(error, SM_NO_MEMORY, "%s: no memory for its list of files", path);
            break;
        }
        count++;
    }
    if (status) {
        free_names(names);
        return status;
    }
    qsort(names, count, sizeof *names, by_text);
    *out = names;
    return SM_OK;
}

/* *index stays NULL for a folder of one file; else it is the caller's. */
static int list_names(const char *dir, char ***names, json_t **index, sm_error *error)
{
    *names = NULL;
    *index = NULL;
    if (exists(dir, SM_WEIGHT_FILE)) {
        *names = calloc(2, sizeof **names);
        if (!*names || !((*names)[0] = strdup(SM_WEIGHT_FILE))) {
            free(*names);
            *names = NULL;
            return sm_fail(error, SM_NO_MEMORY, "%s: no memory to open its weights", dir);
        }
        return SM_OK;
    }
    if (!exists(dir, SM_WEIGHT_INDEX)) {
        const bool pickled = exists(dir, "pytorch_model.bin") || exists(dir, "pytorch_model.bin.index.json");
        return sm_fail(error, SM_IO, "%s: has no " SM_WEIGHT_FILE "%s", dir,
                       pickled ? ", only pytorch_model.bin, which is not supported; load it in transformers and "
                                 "save_pretrained() it again"
                               : "; name a folder as save_pretrained() writes it");
    }
    char *path = sm_path(dir, SM_WEIGHT_INDEX);
    if (!path) {
        return sm_fail(error, SM_NO_MEMORY, "%s: no memory to open its weights", dir);
    }
    int status = SM_FORMAT;
    if ((*index = sm_json_read(path, INDEX_CAP, error))) {
        status = names_of_index(path, *index, names, error);
    }
    if (status) {
        json_decref(*index);
        *index = NULL;
    }
    free(path);
    return status;
}

int sm_weight_files_names(const char *dir, char ***names, sm_error *error)
{
    json_t *index;
    const int status = list_names(dir, names, &index, error);
    json_decref(index);
    return status;
}

/* Every tensor is where the index says, and in one file only. */
static int check_index(const sm_weight_files *files, const json_t *index, char *const *names, sm_error *error)
{
    const json_t *map = json_object_get(index, "weight_map");
    const char *tensor;
    json_t *value;
    json_object_foreach((json_t *)map, tensor, value)
    {
        size_t i = 0;
        while (strcmp(names[i], json_string_value(value)) != 0) {
            i++;
        }
        if (!sm_safetensors_find(files->file[i], tensor)) {
            return sm_fail(error, SM_FORMAT, "%s: tensor %.100s is missing, which " SM_WEIGHT_INDEX " places there",
                           sm_safetensors_path(files->file[i]), tensor);
        }
    }
    for (size_t i = 0; i < files->count; i++) {
        size_t count;
        const sm_stored_tensor *list = sm_safetensors_list(files->file[i], &count);
        for (size_t t = 0; t < count; t++) {
            const char *place = json_string_value(json_object_get(map, list[t].name));
            if (place && strcmp(place, names[i]) != 0) {
                return sm_fail(error, SM_FORMAT, "%s: tensor %.100s stands here and in %s",
                               sm_safetensors_path(files->file[i]), list[t].name, place);
            }
        }
    }
    return SM_OK;
}

int sm_weight_files_open(sm_weight_files *files, const char *dir, sm_error *error)
{
    *files = (sm_weight_files){0};
    char **names;
    json_t *index;
    int status = list_names(dir, &names, &index, error);
    if (status) {
        return status;
    }
    size_t count = 0;
    while (names[count]) {
        count++;
    }
    files->dir = strdup(dir);
    files->file = calloc(count, sizeof(sm_safetensors *));
    if (!files->dir || !files->file) {
        status = sm_fail(error, SM_NO_MEMORY, "%s: no memory to open its weights", dir);
    }
    while (!status && files->count < count) {
        char *path = sm_path(dir, names[files->count]);
        status = path ? sm_safetensors_open(&files->file[files->count], path, error)
                      : sm_fail(error, SM_NO_MEMORY, "%s: no memory to open its weights", dir);
        files->count += status == SM_OK;
        free(path);
    }
    if (!status && index) {
        status = check_index(files, index, names, error);
    }
    json_decref(index);
    free_names(names);
    if (status) {
        sm_weight_files_close(files);
    }
    return status;
}

void sm_weight_files_close(sm_weight_files *files)
{
    for (size_t i = 0; i < files->count; i++) {
        sm_safetensors_close(files->file[i]);
    }
    free(files->file);
    free(files->dir);
    *files = (sm_weight_files){0};
}

const sm_stored_tensor *sm_weight_files_find(const sm_weight_files *files, const char *name, sm_safetensors **file)
{
    for (size_t i = 0; i < files->count; i++) {
        const sm_stored_tensor *stored = sm_safetensors_find(files->file[i], name);
        if (stored) {
            *file = files->file[i];
            return stored;
        }
    }
    return NULL;
}

int sm_weight_files_locate(const sm_weight_files *files, const sm_layout *layout, const sm_tensor *tensor,
                           sm_safetensors **file, const sm_stored_tensor **stored, sm_error *error)
{
    *stored = sm_weight_files_find(files, tensor->name, file);
    if (!*stored && layout->config.tied && tensor->offset == layout->embed) {
        *stored = sm_weight_files_find(files, "lm_head.weight", file);
    }
    const uint64_t shape[2] = {tensor->shape[0], tensor->shape[1]};
    char expected[120], found[120];
    sm_shape_show(tensor->rank, shape, expected);
    const bool score = tensor->offset == layout->score;
    if (!*stored && score) {
        return sm_fail(error, SM_FORMAT,
                       "%s: config.json says that this is a reward model (…ForSequenceClassification), but its head, "
                       "tensor %s of shape %s, is missing from the weights",
                       files->dir, tensor->name, expected);
    }
    if (!*stored) {
        return sm_fail(error, SM_FORMAT, "%s: tensor %s of shape %s is missing from the weights%s", files->dir,
                       tensor->name, expected,
                       !layout->config.tied && tensor->offset == layout->head
                           ? "; if the model shares it with its embedding, set tie_word_embeddings in config.json"
                           : "");
    }
    const sm_stored_tensor *s = *stored;
    if (s->rank != tensor->rank || memcmp(s->shape, shape, tensor->rank * sizeof *shape) != 0) {
        return sm_fail(error, SM_FORMAT, "%s: tensor %s has shape %s; config.json asks for %s%s",
                       sm_safetensors_path(*file), s->name, sm_shape_show(s->rank, s->shape, found), expected,
                       score ? " (id2label has one entry for each output)" : "");
    }
    return sm_safetensors_dtype(*file, s, NULL, error);
}
