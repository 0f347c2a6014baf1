/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* nftw, O_TMPFILE, mkostemp */
#include "config.h"
#include "core/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int sl_write_at(int fd, struct iovec *pieces, int count, uint64_t offset)
{
    while (count > 0) {
        if (pieces->iov_len == 0) {
            pieces++;
            count--;
            continue;
        }
        ssize_t written = pwritev(fd, pieces, count, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -1;
        if (written == 0) {
            errno = EIO;
            return -1;
        }
        offset += (uint64_t)written;
        for (; count > 0 && (size_t)written >= pieces->iov_len; pieces++, count--)
            written -= (ssize_t)pieces->iov_len;
        if (count > 0) {
            pieces->iov_base = (char *)pieces->iov_base + written;
            pieces->iov_len -= (size_t)written;
        }
    }
    return 0;
}

ssize_t sl_read_at(int fd, void *to, size_t size, uint64_t offset)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = pread(fd, (char *)to + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int64_t sl_fd_size(int fd)
{
    struct stat status;
    return fstat(fd, &status) < 0 ? -1 : (int64_t)status.st_size;
}

/* The folder that holds PATH. */
static int folder_of(const char *path, char folder[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    const size_t size = !slash ? 0 : slash == path ? 1 : (size_t)(slash - path);
    if (size >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    snprintf(folder, PATH_MAX, "%.*s", slash ? (int)size : 1, slash ? path : ".");
    return 0;
}

static int nameless(const char *folder)
{
    const int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return fd;
    char path[PATH_MAX]; /* some file systems know no O_TMPFILE */
    if (snprintf(path, sizeof path, "%s/.scratch-XXXXXX", folder) >= (int)sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    const int named = mkostemp(path, O_CLOEXEC);
    if (named >= 0)
        unlink(path);
    return named;
}

int sl_temporary_file(const char *beside)
{
    char folder[PATH_MAX];
    const char *temporary = getenv("TMPDIR");
    if (beside) {
        const int fd = folder_of(beside, folder) < 0 ? -1 : nameless(folder);
        if (fd >= 0 || (errno != EACCES && errno != EPERM && errno != EROFS))
            return fd;
    }
    return nameless(temporary ? temporary : "/tmp");
}

int sl_sync_folder(const char *path)
{
    char folder[PATH_MAX];
    if (folder_of(path, folder) < 0)
        return -1;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int rc = fsync(fd);
    int saved = errno;
    close(fd);
    errno = saved;
    return rc;
}

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *where)
{
    (void)s, (void)flag, (void)where;
    return remove(path);
}

int sl_folder_remove(const char *path)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT)
        return SLUICE_OK;
    return SLUICE_IO;
}

int sl_file_read(const char *path, sl_buffer *out)
{
    FILE *file = fopen(path, "rbe");
    if (file == NULL)
        return SLUICE_IO;
    int rc = SLUICE_OK;
    out->size = 0;
    for (size_t n = 1; rc == SLUICE_OK && n > 0;) {
        rc = sl_buffer_reserve(out, 65536 + 1);
        if (rc == SLUICE_OK)
            out->size += n = fread(out->data + out->size, 1, 65536, file);
    }
    if (ferror(file))
        rc = SLUICE_IO;
    fclose(file);
    if (rc == SLUICE_OK)
        out->data[out->size] = '\0';
    return rc;
}
