/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* One entry: put, taken, compared. `files` has a line a file, "HASH SIZE NAME", and a last line "HASH end" over those
 * before it. */
#include "config.h"
#include "core/store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/file.h"

static int make_parent(const char *root, const char *path)
{
    char part[SL_STORE_PATH];
    for (const char *slash = strchr(path + strlen(root) + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        if (mkdir(part, 0700) != 0 && errno != EEXIST)
            return -1;
    }
    return 0;
}

static int write_text(const char *folder, const char *name, const void *text, size_t size)
{
    char path[SL_STORE_PATH + 16];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wxe");
    const bool written = file != NULL && fwrite(text, 1, size, file) == size;
    return file != NULL && fclose(file) == 0 && written ? 0 : -1;
}

static int bring_in(const char *folder, const sl_store_file *file, sl_buffer *list)
{
    char path[SL_STORE_PATH + 512], hex[SL_HEX_SIZE];
    uint8_t hash[SL_HASH_SIZE];
    struct stat s;
    snprintf(path, sizeof path, "%s/%s", folder, file->name);
    if (make_parent(folder, path) != 0 || sl_store_link(file->path, path) != 0 || stat(path, &s) != 0 ||
        sl_hash_file(path, hash) != SLUICE_OK)
        return -1;
    sl_hex(hash, sizeof hash, hex);
    return sl_buffer_printf(list, "%s %lld %s\n", hex, (long long)s.st_size, file->name) < 0 ? -1 : 0;
}

static int seal(const char *folder, const char *inputs, sl_buffer *list)
{
    char hex[SL_HEX_SIZE];
    uint8_t hash[SL_HASH_SIZE];
    sl_hash_bytes(list->data, list->size, hash);
    sl_hex(hash, sizeof hash, hex);
    return sl_buffer_printf(list, "%s end\n", hex) >= 0 && write_text(folder, "inputs", inputs, strlen(inputs)) == 0 &&
                   write_text(folder, "files", list->data, list->size) == 0
               ? 0
               : -1;
}

/* Gives the new folder its name. */
static int publish(sl_store *store, const char *folder, const char *final, bool replace)
{
    char parent[SL_STORE_PATH];
    snprintf(parent, sizeof parent, "%.*s", (int)(strrchr(final, '/') - final), final);
    if (mkdir(parent, 0700) != 0 && errno != EEXIST)
        return -1;
    if (replace)
        sl_store_discard(store, final);
    if (rename(folder, final) == 0)
        return 0;
    if (errno != EEXIST && errno != ENOTEMPTY)
        return -1;
    return sl_folder_remove(folder) == SLUICE_OK ? 0 : -1; /* somebody was faster, with the same */
}

int sl_store_put(sl_store *store, const uint8_t key[SL_HASH_SIZE], const char *inputs, const sl_store_file *files,
                 size_t count, bool replace, char *error, size_t error_size)
{
    char folder[SL_STORE_PATH], final[SL_STORE_PATH];
    sl_buffer list = {0};
    sl_store_new_path(store, key, folder);
    sl_store_entry_path(store, key, final);
    int rc = sl_folder_remove(folder) == SLUICE_OK ? mkdir(folder, 0700) : -1;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = bring_in(folder, &files[i], &list);
    if (rc == 0)
        rc = seal(folder, inputs, &list);
    if (rc == 0)
        rc = publish(store, folder, final, replace);
    if (rc != 0) {
        snprintf(error, error_size, "cannot write in the store %s: %s", store->path, strerror(errno));
        sl_folder_remove(folder);
    }
    sl_buffer_free(&list);
    return rc == 0 ? SLUICE_OK : SLUICE_IO;
}

struct look {
    const char *folder;
    sl_store_where *where; /* NULL = compare in place */
    void *context;
    char *error;
    size_t error_size;
};

static int damaged(const struct look *look, const char *name, const char *how)
{
    snprintf(look->error, look->error_size, "%s %s", name, how);
    return SLUICE_CORRUPT;
}

/* A line of the list, ended by NUL. */
static int look_at(const struct look *look, const char *line)
{
    char path[SL_STORE_PATH + 512];
    uint8_t hash[SL_HASH_SIZE], now[SL_HASH_SIZE];
    long long size;
    int at = 0;
    struct stat s;
    char hex[SL_HEX_SIZE];
    if (sscanf(line, "%32s %lld %n", hex, &size, &at) != 2 || at == 0 || !sl_unhex(hex, sizeof hash, hash) ||
        strstr(line + at, "../") != NULL)
        return damaged(look, "files", "makes no sense");
    const char *name = line + at;
    snprintf(path, sizeof path, "%s/%s", look->folder, name);
    const char *to = path;
    if (look->where != NULL) {
        to = look->where(look->context, name);
        if (to == NULL)
            return SLUICE_OK;
        if (sl_store_link(path, to) != 0) {
            if (access(path, R_OK) != 0)
                return damaged(look, name, "is missing");
            snprintf(look->error, look->error_size, "cannot write %s: %s", to, strerror(errno));
            return SLUICE_IO;
        }
    }
    if (stat(to, &s) != 0)
        return damaged(look, name, "is missing");
    if (s.st_size != size)
        return damaged(look, name, "has another length than when it was stored");
    if (sl_hash_file(to, now) != SLUICE_OK)
        return damaged(look, name, "cannot be read");
    return memcmp(hash, now, sizeof now) == 0 ? SLUICE_OK : damaged(look, name, "is not what was stored");
}

/* Checks the list's own hash, and ends its lines by NUL in place of newline; the last line is cut off. */
static bool open_list(sl_buffer *list)
{
    uint8_t said[SL_HASH_SIZE], now[SL_HASH_SIZE];
    const size_t end = SL_HEX_SIZE - 1 + sizeof " end\n" - 1;
    char hex[SL_HEX_SIZE];
    if (list->size < end || memcmp(list->data + list->size - 5, " end\n", 5) != 0)
        return false;
    list->size -= end;
    memcpy(hex, list->data + list->size, SL_HEX_SIZE - 1);
    hex[SL_HEX_SIZE - 1] = '\0';
    sl_hash_bytes(list->data, list->size, now);
    if (!sl_unhex(hex, sizeof said, said) || memcmp(said, now, sizeof now) != 0)
        return false;
    for (size_t i = 0; i < list->size; i++)
        if (list->data[i] == '\n')
            list->data[i] = '\0';
    return true;
}

static int look_through(const uint8_t key[SL_HASH_SIZE], const struct look *look)
{
    char path[SL_STORE_PATH + 16];
    uint8_t now[SL_HASH_SIZE];
    sl_buffer text = {0};
    int rc = SLUICE_OK;
    if (access(look->folder, F_OK) != 0)
        return SLUICE_END;
    snprintf(path, sizeof path, "%s/inputs", look->folder);
    if (sl_hash_file(path, now) != SLUICE_OK || memcmp(now, key, sizeof now) != 0)
        rc = damaged(look, "inputs", "is not what was stored");
    snprintf(path, sizeof path, "%s/files", look->folder);
    if (rc == SLUICE_OK && (sl_file_read(path, &text) != SLUICE_OK || !open_list(&text)))
        rc = damaged(look, "files", "is not what was stored");
    for (size_t at = 0; rc == SLUICE_OK && at < text.size; at += strlen((const char *)text.data + at) + 1)
        rc = look_at(look, (const char *)text.data + at);
    sl_buffer_free(&text);
    /* Removed while we were at it: not there, not damaged. */
    return rc == SLUICE_CORRUPT && access(look->folder, F_OK) != 0 ? SLUICE_END : rc;
}

int sl_store_take(sl_store *store, const uint8_t key[SL_HASH_SIZE], sl_store_where *where, void *context, char *error,
                  size_t error_size)
{
    char folder[SL_STORE_PATH], list[SL_STORE_PATH + 16];
    sl_store_entry_path(store, key, folder);
    const int rc = look_through(key, &(struct look){folder, where, context, error, error_size});
    snprintf(list, sizeof list, "%s/files", folder);
    if (rc == SLUICE_OK)
        utimensat(AT_FDCWD, list, NULL, 0); /* when it was last used */
    if (rc == SLUICE_CORRUPT)
        sl_store_discard(store, folder);
    return rc;
}

int sl_store_check(sl_store *store, const uint8_t key[SL_HASH_SIZE], char *error, size_t error_size)
{
    char folder[SL_STORE_PATH];
    sl_store_entry_path(store, key, folder);
    return look_through(key, &(struct look){folder, NULL, NULL, error, error_size});
}
