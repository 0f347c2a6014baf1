/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints of a stage that takes long and emits nothing while it does (a trainer): a folder beside its stream,
 * streams/<phase>-<iteration>/<stage>.checkpoint-<n>. A stage writes its files into a hidden folder; commit adds the
 * metrics that it has reported so far and the job's key, waits for the disk, gives the folder its name, and removes the
 * one before. So there is always one whole checkpoint, or none yet.
 */
#include "core/run/internal.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The newest checkpoint's number, 0 = none; *prefix is what their names begin with. */
static int64_t newest(const sl_job *job, const char **prefix, sl_arena *arena)
{
    *prefix = sl_job_path(job, ".checkpoint-", arena);
    char *folder = *prefix != NULL ? sl_arena_strdup(arena, *prefix) : NULL;
    char *slash = folder != NULL ? strrchr(folder, '/') : NULL;
    if (slash == NULL)
        return 0;
    *slash = '\0';
    const char *stem = slash + 1;
    const size_t length = strlen(stem);
    int64_t most = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        char *end;
        const long long n = strncmp(e->d_name, stem, length) == 0 ? strtoll(e->d_name + length, &end, 10) : 0;
        if (n > most && *end == '\0')
            most = n;
    }
    if (dir != NULL)
        closedir(dir);
    return most;
}

/* {"key":"<32 hex>","numbers":N,"bytes":B}, then a line a number of the whole stage, then B bytes of metrics lines. */
static int write_note(sl_job *job, const char *path, char *error)
{
    char key[33];
    sl_buffer text = {0};
    sl_hex(job->key, 16, key);
    int rc = sl_metrics_kept(job);
    if (rc >= 0)
        rc = sl_buffer_printf(&text, "{\"key\":\"%s\",\"numbers\":%zu,\"bytes\":%zu}\n", key, job->number_count,
                              job->lines.size);
    for (size_t i = 0; rc >= 0 && i < job->number_count; i++)
        rc = sl_buffer_printf(&text, "%a %s\n", job->numbers[i].value, job->numbers[i].name);
    if (rc >= 0 && job->lines.size > 0)
        rc = sl_buffer_append(&text, job->lines.data, job->lines.size);
    snprintf(error, SL_ERROR_SIZE, "out of memory");
    if (rc >= 0)
        rc = sl_file_write(path, text.data, text.size, error);
    sl_buffer_free(&text);
    return rc;
}

/* Takes the numbers and lines over when the note is whole and of this very job. */
static bool read_note(sl_job *job, const char *path)
{
    char key[33], expected[64];
    sl_buffer text = {0};
    size_t numbers = 0, bytes = 0;
    int at = 0;
    sl_hex(job->key, 16, key);
    snprintf(expected, sizeof expected, "{\"key\":\"%s\",", key);
    bool fits = sl_file_read(path, &text) == SLUICE_OK && text.size > strlen(expected) &&
                memcmp(text.data, expected, strlen(expected)) == 0 &&
                sscanf((const char *)text.data + strlen(expected), "\"numbers\":%zu,\"bytes\":%zu}%n", &numbers, &bytes,
                       &at) == 2 &&
                at > 0;
    const char *line = fits ? (const char *)text.data + strlen(expected) + (size_t)at + 1 : NULL;
    const char *const end = (const char *)text.data + text.size;
    if (fits)
        sl_metrics_forget(job);
    for (size_t i = 0; fits && i < numbers; i++) {
        char *name;
        const double value = strtod(line, &name);
        const char *stop = name < end ? memchr(name, '\n', (size_t)(end - name)) : NULL;
        fits = stop != NULL && *name == ' ';
        if (fits) {
            sluice_number number = {.name = sl_arena_printf(job->arena, "%.*s", (int)(stop - name - 1), name + 1),
                                    .value = value};
            fits = number.name != NULL;
            if (fits)
                sl_metrics_add(job, -1, &number, 1);
            line = stop + 1;
        }
    }
    fits = fits && !job->lost && (size_t)(end - line) == bytes && sl_metrics_take(job, line, bytes) == SLUICE_OK;
    sl_buffer_free(&text);
    return fits;
}

int sl_checkpoint_find(sl_job *job, const char **folder)
{
    const char *prefix;
    const int64_t n = newest(job, &prefix, job->arena);
    *folder = n > 0 ? sl_arena_printf(job->arena, "%s%" PRId64, prefix, n) : NULL;
    const char *note = *folder != NULL ? sl_arena_printf(job->arena, "%s/metrics", *folder) : NULL;
    if (note != NULL && read_note(job, note))
        return SLUICE_OK;
    sl_checkpoint_forget(job); /* of another configuration, or not whole */
    return SLUICE_END;
}

int sl_checkpoint_begin(sl_job *job, const char **folder)
{
    const sluice_host *host = &job->host.public;
    const char *prefix = sl_job_path(job, ".checkpoint", job->arena);
    *folder = prefix != NULL ? sl_arena_printf(job->arena, "%s.tmp", prefix) : NULL;
    if (*folder == NULL)
        return sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
    if (sl_folder_remove(*folder) < 0 || mkdir(*folder, 0777) != 0)
        return sluice_error(host, SLUICE_IO, "cannot make %s for a checkpoint: %s", *folder, strerror(errno));
    return SLUICE_OK;
}

int sl_checkpoint_commit(sl_job *job)
{
    const sluice_host *host = &job->host.public;
    const char *prefix, *begun = sl_job_path(job, ".checkpoint.tmp", job->arena);
    const int64_t n = newest(job, &prefix, job->arena);
    const char *old = prefix != NULL ? sl_arena_printf(job->arena, "%s%" PRId64, prefix, n) : NULL;
    const char *fresh = prefix != NULL ? sl_arena_printf(job->arena, "%s%" PRId64, prefix, n + 1) : NULL;
    const char *note = begun != NULL ? sl_arena_printf(job->arena, "%s/metrics", begun) : NULL;
    char error[SL_ERROR_SIZE];
    if (old == NULL || fresh == NULL || note == NULL)
        return sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
    int rc = write_note(job, note, error);
    if (rc >= 0 && (sl_folder_sync(begun) < 0 || rename(begun, fresh) != 0 || sl_parent_sync(fresh) != 0)) {
        snprintf(error, sizeof error, "cannot write %s: %s", fresh, strerror(errno));
        rc = SLUICE_IO;
    }
    if (rc < 0)
        return sluice_error(host, rc, "%s", error);
    if (n > 0)
        sl_folder_remove(old);
    return SLUICE_OK;
}

void sl_checkpoint_forget(sl_job *job)
{
    sl_arena *arena = sl_arena_new();
    const char *prefix = NULL;
    for (int64_t n; arena != NULL && (n = newest(job, &prefix, arena)) > 0;) {
        const char *folder = sl_arena_printf(arena, "%s%" PRId64, prefix, n);
        if (folder == NULL || sl_folder_remove(folder) < 0)
            break;
    }
    const char *begun = arena != NULL ? sl_job_path(job, ".checkpoint.tmp", arena) : NULL;
    if (begun != NULL)
        sl_folder_remove(begun);
    sl_arena_free(arena);
}
