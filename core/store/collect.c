/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What a store holds, and less of it. */
#include "config.h"
#include "core/store/internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/file.h"

static int plain(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* Adds the sizes of the files below a folder, which is two deep at most below models/. */
static void measure(const char *path, sl_store_entry *entry)
{
    char inner[SL_STORE_PATH + 512];
    struct dirent **entries;
    struct stat s;
    const int count = scandir(path, &entries, plain, alphasort);
    for (int i = 0; i < count; i++) {
        if (snprintf(inner, sizeof inner, "%s/%s", path, entries[i]->d_name) < (int)sizeof inner &&
            lstat(inner, &s) == 0) {
            if (S_ISDIR(s.st_mode))
                measure(inner, entry);
            else
                entry->bytes += s.st_size;
            if (S_ISREG(s.st_mode) && s.st_nlink == 1)
                entry->alone += s.st_size;
        }
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

static int visit_entry(const char *path, const char *name, sl_store_visitor *visit, void *context)
{
    char file[SL_STORE_PATH + 512];
    sl_store_entry entry = {.inputs = ""};
    sl_buffer text = {0};
    uint8_t hash[SL_HASH_SIZE];
    struct stat s;
    if (strlen(name) != SL_HEX_SIZE - 1 || !sl_unhex(name, SL_HASH_SIZE, entry.key))
        return SLUICE_OK;
    snprintf(file, sizeof file, "%s/files", path);
    if (stat(file, &s) == 0)
        entry.used = s.st_mtime;
    snprintf(file, sizeof file, "%s/inputs", path);
    if (stat(file, &s) == 0)
        entry.made = s.st_mtime;
    if (sl_file_read(file, &text) == SLUICE_OK) {
        sl_hash_bytes(text.data, text.size, hash);
        if (memcmp(hash, entry.key, sizeof hash) == 0)
            entry.inputs = (const char *)text.data;
    }
    measure(path, &entry);
    const int rc = visit(context, &entry);
    sl_buffer_free(&text);
    return rc;
}

/* Every name in a folder, with its path. */
typedef int name_visitor(void *context, const char *path, const char *name);

static int each_name(const char *folder, name_visitor *visit, void *context)
{
    char path[SL_STORE_PATH + 512];
    struct dirent **entries;
    int rc = SLUICE_OK;
    const int count = scandir(folder, &entries, plain, alphasort);
    for (int i = 0; i < count; i++) {
        if (rc == SLUICE_OK && snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name) < (int)sizeof path)
            rc = visit(context, path, entries[i]->d_name);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    return rc;
}

struct visit {
    sl_store_visitor *each;
    void *context;
};

static int visit_one(void *context, const char *path, const char *name)
{
    const struct visit *v = context;
    return visit_entry(path, name, v->each, v->context);
}

static int visit_share(void *context, const char *path, const char *name)
{
    return strlen(name) == 2 ? each_name(path, visit_one, context) : SLUICE_OK;
}

int sl_store_visit(sl_store *store, sl_store_visitor *each, void *context)
{
    struct visit visit = {each, context};
    return each_name(store->path, visit_share, &visit);
}

int sl_store_remove(sl_store *store, const uint8_t key[SL_HASH_SIZE])
{
    char folder[SL_STORE_PATH];
    sl_store_entry_path(store, key, folder);
    return sl_store_discard(store, folder);
}

/* --- collecting -----------------------------------------------------------------------------------------------------
 */

struct listing {
    sl_store_entry *items;
    size_t count, room;
};

static int note(void *context, const sl_store_entry *entry)
{
    struct listing *l = context;
    sl_store_entry *more = sl_items_grow(l->items, l->count, &l->room, sizeof *more);
    if (more == NULL)
        return SLUICE_NO_MEMORY;
    l->items = more;
    l->items[l->count++] = *entry;
    return SLUICE_OK;
}

static int by_use(const void *a, const void *b)
{
    const sl_store_entry *x = a, *y = b;
    return x->used != y->used ? (x->used < y->used ? -1 : 1) : memcmp(x->key, y->key, sizeof x->key);
}

/* Half-written by a process that is gone: nobody has claimed its key. */
static int remove_orphan(void *context, const char *path, const char *name)
{
    sl_store *store = context;
    uint8_t key[SL_HASH_SIZE];
    if (strlen(name) == SL_HEX_SIZE - 1 && sl_unhex(name, sizeof key, key) && sl_store_claim(store, key)) {
        sl_folder_remove(path);
        sl_store_release(store, key);
    }
    return SLUICE_OK;
}

static int remove_old(void *context, const char *path, const char *name)
{
    (void)context, (void)name;
    sl_folder_remove(path);
    return SLUICE_OK;
}

int sl_store_collect(sl_store *store, sl_store_gc *gc)
{
    char folder[SL_STORE_PATH];
    struct listing all = {0};
    int64_t alone = 0;
    gc->removed = 0;
    gc->freed = 0;
    snprintf(folder, sizeof folder, "%s/new", store->path);
    each_name(folder, remove_orphan, store);
    snprintf(folder, sizeof folder, "%s/old", store->path);
    each_name(folder, remove_old, NULL);
    int rc = sl_store_visit(store, note, &all);
    for (size_t i = 0; i < all.count; i++)
        alone += all.items[i].alone;
    if (all.count > 0)
        qsort(all.items, all.count, sizeof *all.items, by_use);
    for (size_t i = 0; rc == SLUICE_OK && i < all.count; i++) {
        const sl_store_entry *e = &all.items[i];
        const bool over = gc->most >= 0 && alone > gc->most && e->alone > 0;
        if (e->used >= gc->before && !over)
            continue;
        rc = sl_store_remove(store, e->key);
        alone -= e->alone;
        gc->freed += rc == SLUICE_OK ? e->alone : 0;
        gc->removed += rc == SLUICE_OK;
        rc = rc == SLUICE_END ? SLUICE_OK : rc; /* another process was faster */
    }
    free(all.items);
    return rc;
}

void sl_store_input(const char *inputs, const char *name, char *value, size_t size)
{
    const size_t length = strlen(name);
    value[0] = '\0';
    for (const char *line = inputs, *end; (end = strchr(line, '\n')) != NULL; line = end + 1)
        if (strncmp(line, name, length) == 0 && line[length] == '\t') {
            snprintf(value, size, "%.*s", (int)(end - line - (long)length - 1), line + length + 1);
            return;
        }
}
