/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "plugins/common/copy.h"
#include "plugins/trainer/checkpoint.h"

/* The service may be of an older host. */
static bool can_suspend(const sluice_model_service *s)
{
    return s->size >= offsetof(sluice_model_service, train_resume) + sizeof s->train_resume && s->train_suspend &&
           s->train_resume;
}

static int write_counts(const sluice_host *host, const char *path, const void *counts, size_t size)
{
    FILE *out = fopen(path, "wbe");
    bool whole = out && fwrite(counts, size, 1, out) == 1;
    if (out)
        whole = fclose(out) == 0 && whole;
    return whole ? SLUICE_OK : sluice_error(host, SLUICE_IO, "cannot write %s: %s", path, strerror(errno));
}

int checkpoint_save(const sluice_host *host, const sluice_model_service *service, sluice_training *training,
                    const void *counts, size_t size, const char *best)
{
    char path[PATH_MAX];
    const char *folder;
    if (!can_suspend(service))
        return SLUICE_OK;
    int rc = sluice_checkpoint_begin(host, &folder);
    if (rc == SLUICE_UNSUPPORTED)
        return SLUICE_OK;
    if (rc < 0)
        return rc;
    snprintf(path, sizeof path, "%s/counts", folder);
    rc = write_counts(host, path, counts, size);
    snprintf(path, sizeof path, "%s/training", folder);
    if (rc >= 0)
        rc = service->train_suspend(training, path);
    snprintf(path, sizeof path, "%s/best", folder);
    if (rc >= 0 && best)
        rc = mkdir(path, 0777) == 0 ? copy_model(host, best, path)
                                    : sluice_error(host, SLUICE_IO, "cannot make %s: %s", path, strerror(errno));
    return rc < 0 ? rc : sluice_checkpoint_commit(host);
}

int checkpoint_best(const sluice_host *host, const char *folder, const char *to)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/best", folder);
    return copy_model(host, path, to);
}

int checkpoint_load(const sluice_host *host, const sluice_model_service *service, sluice_training *training,
                    void *counts, size_t size, const char **folder)
{
    char path[PATH_MAX], read[1024];
    if (!can_suspend(service) || size > sizeof read)
        return SLUICE_END;
    int rc = sluice_checkpoint(host, folder);
    if (rc != SLUICE_OK)
        return rc;
    snprintf(path, sizeof path, "%s/counts", *folder);
    FILE *in = fopen(path, "rbe");
    const bool whole = in && fread(read, size, 1, in) == 1 && fgetc(in) == EOF;
    if (in)
        fclose(in);
    if (!whole)
        return sluice_error(host, SLUICE_BAD_FILE, "%s is damaged; delete its folder, or run again with --fresh", path);
    snprintf(path, sizeof path, "%s/training", *folder);
    rc = service->train_resume(training, path);
    if (rc == SLUICE_OK)
        memcpy(counts, read, size);
    return rc;
}
