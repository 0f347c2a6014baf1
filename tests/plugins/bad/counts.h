/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints of plugins that count: the next step, and the sum of those taken. */
#ifndef TESTS_COUNTS_H
#define TESTS_COUNTS_H

#include <stdio.h>
#include <sluice/sluice.h>

static int save(const sluice_host *host, int step, int sum)
{
    char path[4096];
    const char *folder;
    int rc = sluice_checkpoint_begin(host, &folder);
    if (rc < 0)
        return rc == SLUICE_UNSUPPORTED ? SLUICE_OK : rc;
    snprintf(path, sizeof path, "%s/counts", folder);
    FILE *out = fopen(path, "we");
    if (out)
        fprintf(out, "%d %d", step, sum);
    if (!out || fclose(out) != 0)
        return sluice_error(host, SLUICE_IO, "cannot write %s", path);
    return sluice_checkpoint_commit(host);
}

/* Leaves both as they are where there is no checkpoint. */
static void load(const sluice_host *host, int *step, int *sum)
{
    char path[4096];
    const char *folder;
    if (sluice_checkpoint(host, &folder) != SLUICE_OK)
        return;
    snprintf(path, sizeof path, "%s/counts", folder);
    FILE *in = fopen(path, "re");
    if (in && fscanf(in, "%d %d", step, sum) != 2)
        *step = *sum = 0;
    if (in)
        fclose(in);
}

#endif
