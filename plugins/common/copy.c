/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* copy_file_range */
#include "plugins/common/copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_model_file(const char *name)
{
    static const char *const ends[] = {".json", ".safetensors", ".model", ".jinja", ".txt"};
    const char *end = strrchr(name, '.');
    for (size_t i = 0; end != NULL && end != name && i < sizeof ends / sizeof *ends; i++)
        if (strcmp(end, ends[i]) == 0)
            return true;
    return false;
}

static bool write_all(int to, const char *bytes, size_t size)
{
    while (size > 0) {
        const ssize_t n = write(to, bytes, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        bytes += n;
        size -= (size_t)n;
    }
    return true;
}

/* 0, or -1 with errno set. */
static int copy_bytes(int from, int to)
{
    char buffer[65536];
    ssize_t n;
    do
        n = copy_file_range(from, NULL, to, NULL, 64 << 20, 0);
    while (n > 0 || (n < 0 && errno == EINTR));
    /* Two file systems, or one that cannot: goes on from where it is. */
    while (n != 0) {
        n = read(from, buffer, sizeof buffer);
        if ((n < 0 && errno != EINTR) || (n > 0 && !write_all(to, buffer, (size_t)n)))
            return -1;
    }
    return 0;
}

static int copy_file(const sluice_host *host, const char *from, const char *to)
{
    struct stat s;
    const int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0 || fstat(in, &s) != 0 || !S_ISREG(s.st_mode)) {
        if (in >= 0)
            close(in);
        return in < 0 ? sluice_error(host, SLUICE_IO, "cannot read %s: %s", from, strerror(errno)) : SLUICE_OK;
    }
    const int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    int rc = out >= 0 ? copy_bytes(in, out) : -1;
    int why = errno;
    if (out >= 0 && close(out) != 0 && rc == 0) {
        rc = -1;
        why = errno;
    }
    close(in);
    return rc == 0 ? SLUICE_OK : sluice_error(host, SLUICE_IO, "cannot copy %s to %s: %s", from, to, strerror(why));
}

int copy_model(const sluice_host *host, const char *from, const char *to)
{
    char source[PATH_MAX], target[PATH_MAX];
    DIR *dir = opendir(from);
    if (!dir)
        return sluice_error(host, SLUICE_BAD_MODEL, "cannot open %s: %s", from, strerror(errno));
    int rc = SLUICE_OK;
    for (const struct dirent *e; rc >= 0 && (e = readdir(dir)) != NULL;) {
        if (!is_model_file(e->d_name))
            continue;
        if (snprintf(source, sizeof source, "%s/%s", from, e->d_name) >= (int)sizeof source ||
            snprintf(target, sizeof target, "%s/%s", to, e->d_name) >= (int)sizeof target)
            rc = sluice_error(host, SLUICE_IO, "the path of %s is too long", e->d_name);
        else
            rc = copy_file(host, source, target);
    }
    closedir(dir);
    return rc;
}
