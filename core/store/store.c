/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* locks that belong to the open file, not to the process */
#include "config.h"
#include "core/store/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/file.h"

/* What makes a folder a store; the file that holds it is the one that claims lock. */
static const char mark[] = "sluice store 1\n";
static const char mark_name[] = "sluice-store";

bool sl_store_place(const char *option, const char *file, char path[PATH_MAX], bool *by_default)
{
    const char *said = option, *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length = -1;
    if (said == NULL)
        said = getenv("SLUICE_STORE");
    if (said == NULL || said[0] == '\0')
        said = file;
    *by_default = said == NULL;
    if (said != NULL)
        length = strcmp(said, "off") != 0 ? snprintf(path, PATH_MAX, "%s", said) : -1;
    else if (cache != NULL && cache[0] == '/')
        length = snprintf(path, PATH_MAX, "%s/sluice/store", cache);
    else if (home != NULL && home[0] == '/')
        length = snprintf(path, PATH_MAX, "%s/.cache/sluice/store", home);
    return length > 0 && length < PATH_MAX;
}

static int make_folders(const char *path)
{
    char part[PATH_MAX];
    for (size_t i = 1;; i++) {
        if (path[i] == '/' || path[i] == '\0') {
            memcpy(part, path, i);
            part[i] = '\0';
            if (mkdir(part, 0700) != 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
                return -1;
        }
        if (path[i] == '\0')
            return access(path, F_OK);
    }
}

static bool is_empty(const char *path)
{
    DIR *dir = opendir(path);
    size_t entries = 0;
    for (const struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;)
        entries += e->d_name[0] != '.';
    if (dir != NULL)
        closedir(dir);
    return entries == 0;
}

/* The reason why this folder cannot be a store; NULL when it can. */
static const char *unfit(const char *path, char *text, size_t size)
{
    struct stat s;
    if (stat(path, &s) != 0)
        snprintf(text, size, "%s", strerror(errno));
    else if (!S_ISDIR(s.st_mode))
        return "is not a folder";
    else if (s.st_uid != geteuid())
        snprintf(text, size, "belongs to another user (%ld; you are %ld), who could change what your runs take from it",
                 (long)s.st_uid, (long)geteuid());
    else if (s.st_mode & S_IWOTH)
        return "can be written by everybody (chmod o-w mends that)";
    else
        return NULL;
    return text;
}

/* Opens or writes the marking file. */
static const char *open_mark(sl_store *store, bool make)
{
    char path[SL_STORE_PATH], found[sizeof mark] = "";
    snprintf(path, sizeof path, "%s/%s", store->path, mark_name);
    store->lock = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    /* A folder found full may be a store that another run has just begun: the mark is the first thing in it. */
    if (store->lock < 0 && errno == ENOENT && make)
        store->lock = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (is_empty(store->path) ? O_CREAT : 0), 0600);
    if (store->lock < 0)
        return errno == ENOENT ? "is no store, but holds other things" : strerror(errno);
    const ssize_t n = pread(store->lock, found, sizeof found - 1, 0);
    if (n == 0 && pwrite(store->lock, mark, sizeof mark - 1, 0) == (ssize_t)sizeof mark - 1)
        return NULL;
    return n > 0 && strncmp(found, mark, (size_t)n) == 0 ? NULL : "was made by another version of sluice";
}

int sl_store_open(const char *path, bool make, sl_store **out, char *error, size_t error_size)
{
    static const char *const inner[] = {"new", "old"};
    char text[256], folder[SL_STORE_PATH];
    const char *why = NULL;
    sl_store *store = *out = calloc(1, sizeof *store);
    if (store == NULL) {
        snprintf(error, error_size, "out of memory");
        return SLUICE_NO_MEMORY;
    }
    store->lock = -1;
    if (make)
        make_folders(path); /* what is wrong shows below */
    if ((why = unfit(path, text, sizeof text)) == NULL && realpath(path, store->path) == NULL)
        why = strerror(errno);
    if (why == NULL)
        why = open_mark(store, make);
    for (size_t i = 0; why == NULL && i < sizeof inner / sizeof *inner; i++) {
        snprintf(folder, sizeof folder, "%s/%s", store->path, inner[i]);
        if (mkdir(folder, 0700) != 0 && errno != EEXIST)
            why = strerror(errno);
    }
    if (why == NULL)
        return SLUICE_OK;
    snprintf(error, error_size,
             "the store %s cannot be used: %s; name another with --store DIR, or none with --store off", path, why);
    sl_store_close(store);
    *out = NULL;
    return SLUICE_IO;
}

void sl_store_close(sl_store *store)
{
    if (store != NULL && store->lock >= 0)
        close(store->lock);
    free(store);
}

const char *sl_store_path(const sl_store *store)
{
    return store->path;
}

void sl_store_entry_path(const sl_store *store, const uint8_t key[SL_HASH_SIZE], char path[SL_STORE_PATH])
{
    char hex[SL_HEX_SIZE];
    sl_hex(key, SL_HASH_SIZE, hex);
    snprintf(path, SL_STORE_PATH, "%s/%.2s/%s", store->path, hex, hex);
}

void sl_store_new_path(const sl_store *store, const uint8_t key[SL_HASH_SIZE], char path[SL_STORE_PATH])
{
    char hex[SL_HEX_SIZE];
    sl_hex(key, SL_HASH_SIZE, hex);
    snprintf(path, SL_STORE_PATH, "%s/new/%s", store->path, hex);
}

int sl_store_discard(sl_store *store, const char *path)
{
    char hidden[SL_STORE_PATH];
    snprintf(hidden, sizeof hidden, "%s/old/%ld-%u", store->path, (long)getpid(), store->moved++);
    if (rename(path, hidden) != 0)
        return errno == ENOENT ? SLUICE_END : SLUICE_IO;
    return sl_folder_remove(hidden);
}

/* A claim locks one byte of the marking file, at a place that the key names: 62 of its bits, past the mark. */
static int lock_byte(const sl_store *store, const uint8_t key[SL_HASH_SIZE], short type)
{
    uint64_t place;
    memcpy(&place, key, sizeof place);
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)(place >> 2), .l_len = 1};
    return fcntl(store->lock, F_OFD_SETLK, &lock);
}

bool sl_store_claim(sl_store *store, const uint8_t key[SL_HASH_SIZE])
{
    /* A file system without locks lets two compute the same: a waste, not an error. */
    return lock_byte(store, key, F_WRLCK) == 0 || (errno != EAGAIN && errno != EACCES);
}

void sl_store_release(sl_store *store, const uint8_t key[SL_HASH_SIZE])
{
    lock_byte(store, key, F_UNLCK);
}
