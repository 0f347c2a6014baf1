/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/registry/registry.h"
#include "core/base/program.h"
#include "core/base/near.h"
#include "core/registry/trial.h"
#include "core/registry/validate.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { MOST_CLASSES = 256 };

typedef struct list {
    void *items;
    size_t count, capacity;
} list;

struct sl_registry {
    sl_arena *arena;   /* classes and texts */
    list classes;      /* sl_registered */
    list refused;      /* sl_refused */
    list folders;      /* const char * */
    list conflicts;    /* conflict */
    list objects;      /* object */
    sl_trials *trials; /* while folders are searched */
    bool no_memory;
};

typedef struct conflict {
    const char *id, *text;
} conflict;

/* A shared object that was read: kept loaded. */
typedef struct object {
    void *handle; /* NULL when it was refused */
    uint64_t hash[2];
} object;

static void *list_add(sl_registry *r, list *l, size_t item)
{
    void *items = sl_items_grow(l->items, l->count, &l->capacity, item);
    if (!items) {
        r->no_memory = true;
        return NULL;
    }
    l->items = items;
    return (char *)l->items + l->count++ * item;
}

static void refuse(sl_registry *r, const char *file, const char *format, ...) SLUICE_PRINTF(3, 4);
static void refuse(sl_registry *r, const char *file, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    sl_refused *refused = list_add(r, &r->refused, sizeof *refused);
    if (!refused)
        return;
    refused->file = sl_arena_strdup(r->arena, file);
    refused->why = sl_arena_strdup(r->arena, text);
    if (!refused->file || !refused->why)
        r->no_memory = true;
}

/* Hashes the file and looks whether it is a whole shared object. */
static bool inspect(const char *file, uint64_t hash[2], sl_why *why)
{
    bool fits = false;
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe would wait for its writer */
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        snprintf(why->text, sizeof why->text, "cannot be read: %s", strerror(errno));
    } else if (!S_ISREG(st.st_mode) || st.st_size == 0) {
        snprintf(why->text, sizeof why->text, "no regular file, or empty: copy or build it again");
    } else {
        void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes == MAP_FAILED) {
            snprintf(why->text, sizeof why->text, "cannot be read: %s", strerror(errno));
        } else {
            XXH128_hash_t sum = XXH3_128bits(bytes, (size_t)st.st_size);
            hash[0] = sum.high64;
            hash[1] = sum.low64;
            fits = sl_object_whole(bytes, (size_t)st.st_size, why);
            munmap(bytes, (size_t)st.st_size);
        }
    }
    if (fd >= 0)
        close(fd);
    return fits;
}

/* Checks all classes of a plugin; *found (MOST_CLASSES of them) gets the host's copies. */
static bool adopt(sl_registry *r, const sluice_plugin *plugin, const sluice_class **found, size_t *count, sl_why *why)
{
    *count = 0;
    for (; plugin->classes[*count]; ++*count) {
        if (*count == MOST_CLASSES) {
            snprintf(why->text, sizeof why->text,
                     "its classes do not end: make the entry with SLUICE_PLUGIN and rebuild");
            return false;
        }
        const sluice_class *type = sl_class_adopt(plugin->classes[*count], &plugin->stamp, r->arena, why);
        if (!type)
            return false;
        for (size_t i = 0; i < *count; i++)
            if (strcmp(found[i]->id, type->id) == 0) {
                snprintf(why->text, sizeof why->text, "class '%s' is there twice: give one of them another id",
                         type->id);
                return false;
            }
        found[*count] = type;
    }
    if (*count == 0)
        snprintf(why->text, sizeof why->text, "it has no classes: name them in SLUICE_PLUGIN and rebuild");
    return *count > 0;
}

/* True when an id of `found` is taken by another file: both files are named, here and to whoever asks for the id. */
static bool conflicts(sl_registry *r, const char *file, const sluice_class *const *found, size_t count)
{
    bool any = false;
    for (size_t i = 0; i < count; i++) {
        const sl_registered *first = sl_registry_find(r, found[i]->id);
        if (!first)
            continue;
        conflict *c = list_add(r, &r->conflicts, sizeof *c);
        if (!c)
            return true;
        c->id = found[i]->id;
        c->text = sl_arena_printf(r->arena, "class '%s' is in two plugins, %s and %s; remove one of them", found[i]->id,
                                  first->file, file);
        if (!any && c->text)
            refuse(r, file, "%s", c->text);
        any = true;
    }
    return any;
}

static void load(sl_registry *r, const char *file)
{
    sl_why why;
    uint64_t hash[2];
    if (!inspect(file, hash, &why)) {
        refuse(r, file, "%s", why.text);
        return;
    }
    /* One plugin in two places (a build folder and its installation) is no conflict. */
    for (size_t i = 0; i < r->objects.count; i++)
        if (memcmp(((object *)r->objects.items)[i].hash, hash, sizeof hash) == 0)
            return;
    object *o = list_add(r, &r->objects, sizeof *o);
    if (!o)
        return;
    *o = (object){.hash = {hash[0], hash[1]}};
    if (r->trials && !sl_trial_passes(r->trials, file, hash, &why)) {
        refuse(r, file, "%s", why.text);
        return;
    }
    o->handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!o->handle) {
        refuse(r, file, "cannot be loaded: %s", dlerror());
        return;
    }
    const sluice_plugin *plugin = dlsym(o->handle, SLUICE_ENTRY);
    const sluice_class *found[MOST_CLASSES];
    size_t count;
    const char *kept = NULL;
    if (!plugin) {
        refuse(r, file, "exports no %s: end its source with SLUICE_PLUGIN(…) and rebuild", SLUICE_ENTRY);
    } else if (!sl_stamp_fits(plugin, &why) || !adopt(r, plugin, found, &count, &why)) {
        refuse(r, file, "%s", why.text);
    } else if (!conflicts(r, file, found, count)) {
        kept = sl_arena_strdup(r->arena, file);
        for (size_t i = 0; kept && i < count; i++) {
            sl_registered *entry = list_add(r, &r->classes, sizeof *entry);
            if (entry)
                *entry = (sl_registered){found[i], plugin, kept, {hash[0], hash[1]}};
        }
    }
    /* A refused object stays loaded too: texts in `conflicts` and `why` may be its own. */
}

static int only_objects(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);
    return length > 3 && strcmp(entry->d_name + length - 3, ".so") == 0 && entry->d_name[0] != '.';
}

/* `asked`: the user named this folder, so its absence is worth a word. */
static void search(sl_registry *r, const char *folder, bool asked)
{
    struct stat st;
    if (folder[0] != '/') {
        refuse(r, folder, "plugin folders are given by absolute paths; write the whole path");
        return;
    }
    if (stat(folder, &st) < 0 || !S_ISDIR(st.st_mode)) {
        if (asked)
            refuse(r, folder, "no such folder; correct SLUICE_PLUGIN_PATH");
        return;
    }
    if (st.st_mode & S_IWOTH) {
        refuse(r, folder, "everybody may write there, so plugins are not loaded from it; chmod o-w it");
        return;
    }
    const char **slot = list_add(r, &r->folders, sizeof *slot);
    if (slot && !(*slot = sl_arena_strdup(r->arena, folder)))
        r->no_memory = true;
    struct dirent **entries;
    int count = scandir(folder, &entries, only_objects, alphasort);
    for (int i = 0; i < count; i++) {
        char file[PATH_MAX];
        if (snprintf(file, sizeof file, "%s/%s", folder, entries[i]->d_name) < (int)sizeof file)
            load(r, file);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    else
        refuse(r, folder, "cannot be listed: %s", strerror(errno));
}

/* The plugins that belong to this program: its build folder's when it (or a test beside it) runs from there. */
static void search_own(sl_registry *r)
{
    char folder[PATH_MAX], path[PATH_MAX + 16] = SLUICE_PLUGINDIR;
    if (sl_program_build_folder(folder))
        snprintf(path, sizeof path, "%s/plugins", folder);
    search(r, path, false);
}

static sl_registry *registry_new(void)
{
    sl_registry *r = calloc(1, sizeof *r);
    if (r && (!(r->arena = sl_arena_new()) || !(r->trials = sl_trials_open()))) {
        sl_registry_close(r);
        r = NULL;
    }
    return r;
}

static sl_registry *registry_done(sl_registry *r)
{
    if (r) {
        sl_trials_close(r->trials);
        r->trials = NULL;
    }
    if (r && r->no_memory) {
        sl_registry_close(r);
        return NULL;
    }
    return r;
}

sl_registry *sl_registry_open_folders(const char *const *folders, size_t count)
{
    sl_registry *r = registry_new();
    for (size_t i = 0; r && i < count; i++)
        search(r, folders[i], true);
    return registry_done(r);
}

sl_registry *sl_registry_open_own(void)
{
    sl_registry *r = registry_new();
    if (r) {
        sl_trials_close(r->trials);
        r->trials = NULL;
        search_own(r);
    }
    return registry_done(r);
}

sl_registry *sl_registry_open(void)
{
    sl_registry *r = registry_new();
    if (!r)
        return NULL;
    char path[PATH_MAX];
    const char *rest = getenv("SLUICE_PLUGIN_PATH");
    while (rest && *rest) {
        size_t length = strcspn(rest, ":");
        if (length > 0 && length < sizeof path) {
            memcpy(path, rest, length);
            path[length] = '\0';
            search(r, path, true);
        }
        rest += length + (rest[length] == ':');
    }
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    int length = -1;
    if (data && *data)
        length = snprintf(path, sizeof path, "%s/sluice/plugins", data);
    else if (home && *home)
        length = snprintf(path, sizeof path, "%s/.local/share/sluice/plugins", home);
    if (length > 0 && length < (int)sizeof path)
        search(r, path, false);
    search_own(r);
    return registry_done(r);
}

bool sl_registry_load(sl_registry *r, const char *file)
{
    load(r, file);
    return !r->no_memory;
}

void sl_registry_close(sl_registry *r)
{
    if (!r)
        return;
    sl_trials_close(r->trials);
    for (size_t i = 0; i < r->objects.count; i++) {
        object *o = (object *)r->objects.items + i;
        if (o->handle)
            dlclose(o->handle);
    }
    free(r->classes.items);
    free(r->refused.items);
    free(r->folders.items);
    free(r->conflicts.items);
    free(r->objects.items);
    sl_arena_free(r->arena);
    free(r);
}

size_t sl_registry_count(const sl_registry *r)
{
    return r->classes.count;
}

const sl_registered *sl_registry_at(const sl_registry *r, size_t i)
{
    return i < r->classes.count ? (const sl_registered *)r->classes.items + i : NULL;
}

const sl_registered *sl_registry_find(const sl_registry *r, const char *class_id)
{
    for (size_t i = 0; i < r->classes.count; i++)
        if (strcmp(sl_registry_at(r, i)->type->id, class_id) == 0)
            return sl_registry_at(r, i);
    return NULL;
}

const sl_registered *sl_registry_service(const sl_registry *r, const char *service_id)
{
    for (size_t i = 0; i < r->classes.count; i++) {
        const sl_registered *entry = sl_registry_at(r, i);
        if (entry->type->kind == SLUICE_SERVICE &&
            strcmp(((const sluice_service_class *)(const void *)entry->type)->service, service_id) == 0)
            return entry;
    }
    return NULL;
}

size_t sl_registry_refused(const sl_registry *r, const sl_refused **refused)
{
    *refused = r->refused.items;
    return r->refused.count;
}

size_t sl_registry_folders(const sl_registry *r, const char *const **folders)
{
    *folders = r->folders.items;
    return r->folders.count;
}

const char *sl_registry_conflict(const sl_registry *r, const char *class_id)
{
    const conflict *c = r->conflicts.items;
    for (size_t i = 0; i < r->conflicts.count; i++)
        if (strcmp(c[i].id, class_id) == 0)
            return c[i].text;
    return NULL;
}

const char *sl_registry_near(const sl_registry *r, const char *class_id, int kind)
{
    sl_near near = {.wanted = class_id};
    for (size_t i = 0; i < r->classes.count; i++) {
        const sluice_class *type = sl_registry_at(r, i)->type;
        if (kind < 0 || type->kind == (uint32_t)kind)
            sl_near_offer(&near, type->id);
    }
    return near.best;
}

const sluice_param *sl_class_param(const sluice_class *type, size_t i)
{
    return i < sl_class_params(type) ? &type->params[i] : NULL;
}

size_t sl_class_params(const sluice_class *type)
{
    size_t count = 0;
    while (type->params && type->params[count].type != SLUICE_TYPE_END)
        count++;
    return count;
}

const char *sl_kind_name(uint32_t kind)
{
    static const char *const names[] = {"loss",      "source",      "sink",        "sampler", "judge",
                                        "ranker",    "regularizer", "transform",   "trainer", "averager",
                                        "evaluator", "service",     "metrics sink"};
    return kind < sizeof names / sizeof *names ? names[kind] : "unknown kind";
}

bool sl_kind_is_stage(uint32_t kind)
{
    return kind != SLUICE_KIND_LOSS && kind != SLUICE_SERVICE && kind != SLUICE_METRICS_SINK;
}
