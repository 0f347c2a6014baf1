/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "plugins/common/counts.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SAVE_EVERY 1.0 /* seconds */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int counts_damaged(const sluice_host *host)
{
    return sluice_error(host, SLUICE_BAD_FILE, "the checkpoint of its counts is damaged; run again with --fresh");
}

/* The number of records, then the bytes. */
static int read_all(const sluice_host *host, const char *path, uint64_t *records, void **bytes, size_t *size)
{
    FILE *in = fopen(path, "rbe");
    long length = -1;
    if (in && fseek(in, 0, SEEK_END) == 0)
        length = ftell(in);
    bool whole = length >= (long)sizeof *records && fseek(in, 0, SEEK_SET) == 0;
    *size = whole ? (size_t)length - sizeof *records : 0;
    *bytes = whole ? malloc(*size + 1) : NULL;
    const bool room = !whole || *bytes;
    whole = whole && room && fread(records, sizeof *records, 1, in) == 1 && fread(*bytes, 1, *size, in) == *size;
    if (in)
        fclose(in);
    if (whole)
        return SLUICE_OK;
    free(*bytes);
    *bytes = NULL;
    return room ? counts_damaged(host) : sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
}

int counts_begin(counts_keeper *keeper, const sluice_host *host, void **bytes, size_t *size)
{
    char path[PATH_MAX];
    const char *folder;
    *keeper = (counts_keeper){.saved_at = now()};
    *bytes = NULL;
    *size = 0;
    int rc = sluice_checkpoint(host, &folder);
    if (rc != SLUICE_OK)
        return rc == SLUICE_END ? SLUICE_OK : rc;
    snprintf(path, sizeof path, "%s/counts", folder);
    rc = read_all(host, path, &keeper->records, bytes, size);
    if (rc == SLUICE_OK)
        sluice_log(host, SLUICE_LOG_INFO, "goes on after record %llu", (unsigned long long)keeper->records);
    return rc;
}

bool counts_due(const counts_keeper *keeper, uint64_t records)
{
    return records > keeper->records && now() - keeper->saved_at >= SAVE_EVERY;
}

int counts_save(counts_keeper *keeper, const sluice_host *host, uint64_t records, const void *bytes, size_t size)
{
    char path[PATH_MAX];
    const char *folder;
    keeper->saved_at = now();
    int rc = sluice_checkpoint_begin(host, &folder);
    if (rc < 0)
        return rc == SLUICE_UNSUPPORTED ? SLUICE_OK : rc;
    snprintf(path, sizeof path, "%s/counts", folder);
    FILE *out = fopen(path, "wbe");
    bool whole = out && fwrite(&records, sizeof records, 1, out) == 1 && fwrite(bytes, 1, size, out) == size;
    if (out)
        whole = fclose(out) == 0 && whole;
    if (!whole)
        return sluice_error(host, SLUICE_IO, "cannot write %s: %s", path, strerror(errno));
    rc = sluice_checkpoint_commit(host);
    keeper->records = rc >= 0 ? records : keeper->records;
    return rc;
}
