/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* nftw */
#include "core/run/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(char *error, const char *what, const char *path)
{
    const char *mend = "";
    if (errno == EROFS || errno == EACCES || errno == EPERM)
        mend = "; give a folder that you may write to with --out";
    else if (errno == ENOSPC || errno == EDQUOT)
        mend = "; make room or give another folder with --out";
    snprintf(error, SL_ERROR_SIZE, "cannot %s %s: %s%s", what, path, strerror(errno), mend);
    return SLUICE_IO;
}

bool sl_path_exists(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0;
}

int sl_folder_make(const char *path, char *error)
{
    char part[PATH_MAX];
    const size_t length = strlen(path);
    if (length >= sizeof part) {
        errno = ENAMETOOLONG;
        return fail(error, "create the folder", path);
    }
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0777) == 0 || errno == EEXIST)
            continue;
        struct stat s; /* an existing folder of a read-only disk says EROFS, one above ours perhaps EACCES */
        const int why = errno;
        if (stat(part, &s) == 0 && S_ISDIR(s.st_mode))
            continue;
        errno = why;
        return fail(error, "create the folder", part);
    }
    struct stat s;
    if (stat(path, &s) != 0 || !S_ISDIR(s.st_mode)) {
        errno = ENOTDIR;
        return fail(error, "create the folder", path);
    }
    return SLUICE_OK;
}

static int sync_one(const char *path, const struct stat *s, int flag, struct FTW *where)
{
    (void)s, (void)where;
    if (flag != FTW_F && flag != FTW_DP)
        return 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    const int rc = fsync(fd);
    close(fd);
    return rc;
}

int sl_folder_sync(const char *path)
{
    return nftw(path, sync_one, 16, FTW_DEPTH | FTW_PHYS) == 0 ? SLUICE_OK : SLUICE_IO;
}

int sl_folder_lock(const char *path, int *fd, char *error)
{
    char file[PATH_MAX], owner[32] = "";
    snprintf(file, sizeof file, "%s/.lock", path);
    *fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0)
        return fail(error, "write in", path);
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0) {
        const ssize_t n = read(*fd, owner, sizeof owner - 1);
        owner[n > 0 ? n : 0] = '\0';
        owner[strcspn(owner, "\n")] = '\0';
        snprintf(error, SL_ERROR_SIZE,
                 "%s is in use by another run (process %s); wait for it or give another folder with --out", path,
                 owner[0] ? owner : "unknown");
        close(*fd);
        *fd = -1;
        return SLUICE_IO;
    }
    const int n = snprintf(owner, sizeof owner, "%ld\n", (long)getpid());
    if (ftruncate(*fd, 0) != 0 || pwrite(*fd, owner, (size_t)n, 0) != n) {
        const int rc = fail(error, "write in", path);
        close(*fd);
        *fd = -1;
        return rc;
    }
    return SLUICE_OK;
}

static bool ends_with(const char *name, const char *end)
{
    const size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

/* Entry by entry of path/inner; `visit` decides by name. */
static void each_entry(const char *path, const char *inner, void (*visit)(const char *path, const char *name))
{
    char folder[PATH_MAX], entry[PATH_MAX];
    if (snprintf(folder, sizeof folder, "%s%s%s", path, inner[0] ? "/" : "", inner) >= (int)sizeof folder)
        return;
    DIR *dir = opendir(folder);
    if (dir == NULL)
        return;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (snprintf(entry, sizeof entry, "%s/%s", folder, e->d_name) < (int)sizeof entry)
            visit(entry, e->d_name);
    }
    closedir(dir);
}

static void sweep_temporary(const char *path, const char *name)
{
    if (ends_with(name, ".checkpoint.tmp"))
        sl_folder_remove(path);
    else if (ends_with(name, ".tmp"))
        unlink(path);
}

static void sweep_begun(const char *path, const char *name)
{
    if (ends_with(name, ".part") || ends_with(name, ".journal") || ends_with(name, ".journal.new"))
        unlink(path);
    else if (strstr(name, ".checkpoint-") != NULL)
        sl_folder_remove(path);
}

static void sweep_streams(const char *path, const char *name)
{
    (void)name;
    each_entry(path, "", sweep_temporary);
}

static void sweep_all_streams(const char *path, const char *name)
{
    sweep_streams(path, name);
    each_entry(path, "", sweep_begun);
}

static void sweep_models(const char *path, const char *name)
{
    if (name[0] == '.' && strchr(name, '@') != NULL && strstr(name, ".tmp-") != NULL)
        sl_folder_remove(path);
}

void sl_folder_sweep(const char *path, bool all)
{
    static const char *const files[] = {"pipeline.cfg.tmp", "environment.txt.tmp"};
    char entry[PATH_MAX];
    each_entry(path, "streams", all ? sweep_all_streams : sweep_streams);
    each_entry(path, "models", sweep_models);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(entry, sizeof entry, "%s/%s", path, files[i]);
        unlink(entry);
    }
}

/* `name` is a slot of the plan, '@' and digits. */
static bool is_version(const sl_plan *plan, const char *name)
{
    const char *at = strrchr(name, '@');
    if (at == NULL || at[1] == '\0' || strspn(at + 1, "0123456789") != strlen(at + 1))
        return false;
    for (size_t i = 0; i < plan->slot_count; i++)
        if (strlen(plan->slots[i].name) == (size_t)(at - name) &&
            memcmp(plan->slots[i].name, name, (size_t)(at - name)) == 0)
            return true;
    return false;
}

int sl_folder_forget(const char *path, const sl_plan *plan, char *error)
{
    char entry[PATH_MAX];
    for (size_t p = 0; p < plan->phase_count; p++)
        for (int64_t i = 1; i <= plan->phases[p].repeat; i++) {
            snprintf(entry, sizeof entry, "%s/streams/%s-%lld", path, plan->phases[p].name, (long long)i);
            if (sl_folder_remove(entry) < 0)
                return fail(error, "remove", entry);
        }
    snprintf(entry, sizeof entry, "%s/models", path);
    DIR *dir = opendir(entry);
    if (dir == NULL)
        return SLUICE_OK;
    int rc = SLUICE_OK;
    for (struct dirent *e; rc == SLUICE_OK && (e = readdir(dir)) != NULL;) {
        if (!is_version(plan, e->d_name))
            continue;
        snprintf(entry, sizeof entry, "%s/models/%s", path, e->d_name);
        if (sl_folder_remove(entry) < 0)
            rc = fail(error, "remove", entry);
    }
    closedir(dir);
    return rc;
}

int sl_parent_sync(const char *path)
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash != NULL)
        *slash = '\0';
    const int fd = open(slash != NULL ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    const int rc = fsync(fd);
    close(fd);
    return rc;
}

int sl_file_write(const char *path, const void *bytes, size_t size, char *error)
{
    char part[PATH_MAX];
    snprintf(part, sizeof part, "%s.tmp", path);
    unlink(part); /* it may be another name of a file in the store */
    const int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return fail(error, "write", part);
    for (size_t done = 0; done < size;) {
        const ssize_t n = write(fd, (const char *)bytes + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            const int rc = fail(error, "write", part);
            close(fd);
            unlink(part);
            return rc;
        }
        done += (size_t)n;
    }
    const bool synced = fsync(fd) == 0;
    if (close(fd) != 0 || !synced || rename(part, path) != 0 || sl_parent_sync(path) != 0) {
        const int rc = fail(error, "write", path);
        unlink(part);
        return rc;
    }
    return SLUICE_OK;
}
