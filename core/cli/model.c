/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* memrchr */
#include "core/cli/model.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/stream/record.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

int sl_models_open(const sl_command *command, int64_t threads, sl_models *models)
{
    char setting[64];
    const char *settings[] = {setting};
    snprintf(setting, sizeof setting, "threads=%lld", (long long)threads);
    *models = (sl_models){.registry = sl_registry_open()};
    if (!models->registry)
        return sl_fail(command, SL_EXIT_FAILED, "out of memory");
    models->owner = sl_free_host_open(models->registry, settings, threads > 0, stderr);
    if (models->owner) {
        models->host = sl_free_host_public(models->owner);
        models->service = sluice_service(models->host, SLUICE_MODEL_SERVICE);
        if (models->service)
            return SL_EXIT_OK;
        const sl_refused *refused;
        const size_t count = sl_registry_refused(models->registry, &refused);
        if (!sl_registry_service(models->registry, SLUICE_MODEL_SERVICE)) {
            sl_fail(command, SL_EXIT_FAILED, "there is no plugin that provides %s", SLUICE_MODEL_SERVICE);
            for (size_t i = 0; i < count; i++)
                sl_fail(command, SL_EXIT_FAILED, "%s was refused: %s", refused[i].file, refused[i].why);
        }
    }
    sl_models_close(models);
    return SL_EXIT_FAILED;
}

void sl_models_close(sl_models *models)
{
    sl_free_host_close(models->owner);
    sl_registry_close(models->registry);
    *models = (sl_models){0};
}

/* ".NAME.tmp-PID-N" of a process that is no more. */
static bool is_left(const char *entry, const char *name, size_t length)
{
    static const char mark[] = ".tmp-";
    char *end;
    if (entry[0] != '.' || strncmp(entry + 1, name, length) != 0 ||
        strncmp(entry + 1 + length, mark, sizeof mark - 1) != 0)
        return false;
    const long process = strtol(entry + length + sizeof mark, &end, 10);
    return *end == '-' && process > 0 && kill((pid_t)process, 0) != 0 && errno == ESRCH;
}

void sl_models_sweep(const char *out)
{
    char path[PATH_MAX];
    size_t length = strlen(out);
    while (length > 1 && out[length - 1] == '/')
        length--;
    const char *slash = memrchr(out, '/', length), *name = slash != NULL ? slash + 1 : out;
    const int parent = (int)(name - out);
    snprintf(path, sizeof path, "%.*s.", parent, out);
    DIR *dir = opendir(path);
    for (const struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;)
        if (is_left(e->d_name, name, length - (size_t)parent) &&
            snprintf(path, sizeof path, "%.*s%s", parent, out, e->d_name) < (int)sizeof path)
            sl_folder_remove(path);
    if (dir != NULL)
        closedir(dir);
}

int sl_models_load(const sl_command *command, const sl_models *models, const char *folder, sluice_model **model)
{
    char *path = realpath(folder, NULL);
    if (!path) {
        sl_fail(command, SL_EXIT_FAILED, "there is no folder '%s'; name a Hugging Face checkpoint folder", folder);
        return SLUICE_BAD_FILE;
    }
    const sluice_model_ref ref = {.slot = "model", .path = path, .dtype = "float32", .text = "model", .next = -1};
    const int rc = models->service->open(models->service, models->host, &ref, model);
    free(path);
    return rc;
}

int sl_models_prompt(const sl_models *models, sluice_model *model, const char *text, bool raw, sluice_ids *ids)
{
    sl_record *record = sl_record_new();
    if (!record)
        return SLUICE_NO_MEMORY;
    sluice_record *public = sl_record_public(record);
    int rc = sluice_record_set_prompt(public, text);
    if (rc == SLUICE_OK)
        rc = models->service->encode_prompt(model, public, raw, ids);
    sl_record_free(record);
    return rc;
}

int sl_json_tokens(sl_buffer *out, const uint32_t *tokens, size_t count)
{
    int rc = sl_buffer_append(out, "[", 1);
    for (size_t i = 0; rc == SLUICE_OK && i < count; i++)
        rc = sl_buffer_printf(out, "%s%u", i ? ", " : "", tokens[i]);
    return rc == SLUICE_OK ? sl_buffer_append(out, "]", 1) : rc;
}

int sl_json_logprobs(sl_buffer *out, const float *logprobs, size_t count)
{
    int rc = sl_buffer_append(out, "[", 1);
    for (size_t i = 0; rc == SLUICE_OK && i < count; i++) {
        rc = i ? sl_buffer_append(out, ", ", 2) : SLUICE_OK;
        if (rc == SLUICE_OK)
            rc = sl_json_float(out, logprobs[i]);
    }
    return rc == SLUICE_OK ? sl_buffer_append(out, "]", 1) : rc;
}
