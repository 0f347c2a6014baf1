/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Services: each provider is made when somebody first asks for its id, and ends with the run. */
#include "core/run/internal.h"

#include <stdlib.h>
#include <string.h>

typedef struct sl_provider {
    struct sl_provider *next;
    const sl_registered *type;
    sl_host host;
    sl_instance instance;
    sl_arena *arena;
    const void *table; /* NULL while it is made, and when that failed */
} sl_provider;

void sl_services_init(sl_services *services, sl_registry *registry, const sl_object *settings, size_t count,
                      sl_console *console, uint64_t seed)
{
    memset(services, 0, sizeof *services);
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&services->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    pthread_mutex_init(&services->error_lock, NULL);
    services->registry = registry;
    services->settings = settings;
    services->setting_count = count;
    services->console = console;
    services->seed = seed;
}

static const sluice_service_class *class_of(const sl_provider *provider)
{
    return (const sluice_service_class *)provider->type->type;
}

static const void *make(sl_services *services, const sl_registered *type)
{
    sl_provider *provider = calloc(1, sizeof *provider);
    if (provider == NULL) {
        sl_console_line(services->console, SLUICE_LOG_WARNING, "service '%s': out of memory", type->type->id);
        return NULL;
    }
    provider->type = type;
    provider->next = services->first; /* seen before it is whole: a circle of services finds NULL, not itself */
    services->first = provider;
    provider->arena = sl_arena_new();
    sl_host_init(&provider->host, type->type->id, services->seed, services, services->console, NULL);
    sl_object defaults;
    const sl_object *object = NULL;
    for (size_t i = 0; i < services->setting_count; i++)
        if (services->settings[i].type == type)
            object = &services->settings[i];
    int rc = provider->arena != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
    if (rc >= 0 && object == NULL) {
        rc = sl_object_defaults(type, provider->arena, &defaults);
        object = &defaults;
    }
    if (rc >= 0)
        rc = sl_instance_begin(&provider->instance, object, NULL, 0, NULL, &provider->host, provider->arena);
    if (rc < 0) {
        if (provider->host.error[0] == '\0')
            sl_console_line(services->console, SLUICE_LOG_WARNING, "service '%s' of %s could not start", type->type->id,
                            type->file);
        return NULL;
    }
    provider->table = class_of(provider)->get(provider->instance.state);
    /* To the front, before what it asked for while it was made: services end in that order. */
    sl_provider **at = &services->first;
    while (*at != provider)
        at = &(*at)->next;
    *at = provider->next;
    provider->next = services->first;
    services->first = provider;
    return provider->table;
}

/* A service that nobody provides, and a plugin file of its name that was refused: a damaged cuda.so is not the same as
 * none. Once a file. */
static void tell_refused(sl_services *services, const char *id)
{
    const sl_refused *refused;
    const size_t count = sl_registry_refused(services->registry, &refused);
    pthread_mutex_lock(&services->lock);
    for (size_t i = 0; i < count; i++) {
        const char *slash = strrchr(refused[i].file, '/'), *name = slash != NULL ? slash + 1 : refused[i].file;
        char part[128]; /* "cuda.so" provides what has ".cuda" in its id */
        snprintf(part, sizeof part, ".%.*s/", (int)strcspn(name, "."), name);
        if (strstr(id, part) == NULL || (i < 64 && services->told & UINT64_C(1) << i))
            continue;
        services->told |= i < 64 ? UINT64_C(1) << i : 0;
        sl_console_line(services->console, SLUICE_LOG_WARNING, "warning: %s is not available: %s was refused: %s", id,
                        refused[i].file, refused[i].why);
    }
    pthread_mutex_unlock(&services->lock);
}

const void *sl_services_get(sl_services *services, const char *id)
{
    const sl_registered *type = sl_registry_service(services->registry, id);
    if (type == NULL) {
        tell_refused(services, id);
        return NULL;
    }
    pthread_mutex_lock(&services->lock);
    const void *table = NULL;
    sl_provider *provider = services->first;
    while (provider != NULL && provider->type != type)
        provider = provider->next;
    table = provider != NULL ? provider->table : make(services, type);
    pthread_mutex_unlock(&services->lock);
    return table;
}

const char *sl_services_numerics_of(sl_services *services, const char *id)
{
    const sl_registered *type = sl_registry_service(services->registry, id);
    const char *text = NULL;
    pthread_mutex_lock(&services->lock);
    for (const sl_provider *p = services->first; p != NULL; p = p->next)
        if (p->type == type && p->table != NULL && class_of(p)->numerics != NULL)
            text = class_of(p)->numerics(p->instance.state);
    pthread_mutex_unlock(&services->lock);
    return text;
}

static int by_id(const void *a, const void *b)
{
    const sl_provider *const *x = a, *const *y = b;
    return strcmp((*x)->type->type->id, (*y)->type->type->id);
}

int sl_services_numerics(sl_services *services, sl_buffer *out)
{
    size_t count = 0;
    int rc = SLUICE_OK;
    pthread_mutex_lock(&services->lock);
    for (const sl_provider *p = services->first; p != NULL; p = p->next)
        count++;
    const sl_provider **sorted = calloc(count + 1, sizeof *sorted);
    if (sorted == NULL)
        rc = SLUICE_NO_MEMORY;
    else
        count = 0;
    for (const sl_provider *p = services->first; rc >= 0 && p != NULL; p = p->next)
        sorted[count++] = p;
    if (rc >= 0)
        qsort(sorted, count, sizeof *sorted, by_id);
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        const sluice_service_class *type = class_of(sorted[i]);
        const char *text =
            sorted[i]->table != NULL && type->numerics != NULL ? type->numerics(sorted[i]->instance.state) : NULL;
        rc = sl_buffer_printf(out, "%s %016llx%016llx %s\n", type->base.id,
                              (unsigned long long)sorted[i]->type->file_hash[0],
                              (unsigned long long)sorted[i]->type->file_hash[1], text != NULL ? text : "");
    }
    free(sorted);
    pthread_mutex_unlock(&services->lock);
    return rc;
}

/* A service ends before those that it uses. */
void sl_services_end(sl_services *services)
{
    for (sl_provider *provider = services->first, *next; provider != NULL; provider = next) {
        next = provider->next;
        sl_instance_end(&provider->instance);
        sl_arena_free(provider->arena);
        free(provider);
    }
    services->first = NULL;
    pthread_mutex_destroy(&services->error_lock);
    pthread_mutex_destroy(&services->lock);
}
