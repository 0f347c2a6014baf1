/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/test-plugin/gpu.h"

#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <sluice/cuda.h>
#include "core/run/host.h"
#include "tools/test-plugin/process.h"

static struct {
    pid_t process; /* that made them; 0 = nobody yet */
    sl_registry *registry;
    sl_free_host *host;
    long threads;
} services;

bool tp_gpu_knows(const char *id)
{
    return strcmp(id, SLUICE_CUDA_SERVICE) == 0 || strcmp(id, SLUICE_DEVICE_SERVICE) == 0;
}

static void make(void)
{
    static const char *const settings[] = {"threads=1"};
    /* A CUDA context takes tens of gigabytes of addresses, which the limit of a test does not allow. */
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_AS, &limit);
    }
    services.process = getpid();
    services.registry = sl_registry_open();
    FILE *nowhere = fopen("/dev/null", "we"); /* why a GPU is refused says `open`, to the class */
    if (services.registry != NULL && nowhere != NULL)
        services.host = sl_free_host_open(services.registry, settings, 1, nowhere);
}

const void *tp_gpu_service(const char *id)
{
    const long before = tp_entries(TP_THREADS);
    if (services.process == 0)
        make();
    if (services.host == NULL || services.process != getpid() || sl_registry_service(services.registry, id) == NULL)
        return NULL;
    const void *service = sluice_service(sl_free_host_public(services.host), id);
    services.threads += tp_entries(TP_THREADS) - before;
    return service;
}

long tp_gpu_threads(void)
{
    return services.threads;
}
