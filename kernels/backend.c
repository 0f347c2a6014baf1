/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A backend's plugin opened without a host: for programs that time or test the runtime. */
#include "kernels/backend.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sluice/sluice.h>

static void to_stderr(const char *format, va_list args)
{
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

static void host_error(const sluice_host *host, const sluice_record *record, int code, const char *format, va_list args)
{
    (void)host;
    (void)record;
    (void)code;
    to_stderr(format, args);
}

static void host_log(const sluice_host *host, int level, const char *format, va_list args)
{
    (void)host;
    (void)level;
    to_stderr(format, args);
}

static const sluice_service_class *find(const sluice_plugin *plugin)
{
    for (const sluice_class *const *at = plugin->classes; *at; at++) {
        const sluice_service_class *service = (const sluice_service_class *)(const void *)*at;
        if ((*at)->kind == SLUICE_SERVICE && strcmp(service->service, KN_BACKEND_CUDA) == 0)
            return service;
    }
    return NULL;
}

const kn_backend *kn_backend_load(const char *path, const char **why)
{
    static const sluice_host_api api = {.size = sizeof(api), .verror = host_error, .vlog = host_log};
    static const sluice_host host = {&api};
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const sluice_plugin *plugin = handle ? dlsym(handle, SLUICE_ENTRY) : NULL;
    if (!plugin) {
        *why = dlerror();
        return NULL;
    }
    const sluice_service_class *service = find(plugin);
    void *self = service ? calloc(1, service->base.state_size + 1) : NULL;
    *why = service ? "out of memory" : "this plugin offers no backend";
    if (!self)
        return NULL;
    *why = "the backend cannot start";
    if (service->base.init && service->base.init(self, &host) < 0) {
        free(self);
        return NULL;
    }
    const kn_backend *backend = service->get(self);
    *why = kn_backend_fits(backend) ? NULL : "the backend was built with another op table; build both anew";
    return *why ? NULL : backend;
}
