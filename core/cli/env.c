/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/base/buffer.h"
#include "core/cli/cli.h"
#include "core/run/environment.h"
#include "core/run/host.h"

#include <sluice/device.h>

static const char help[] =
    "sluice env\n\n"
    "Prints versions, the machine, the plugin folders, and what decides numbers here (instruction set,\n"
    "libraries, the GPU): what a bug report needs.\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage.\n\n"
    "Example:\n"
    "  sluice env\n";

/* What models are computed on here, unless a pipeline says otherwise. */
static void print_device(const sluice_host *host)
{
    const sluice_device_service *devices = sluice_service(host, SLUICE_DEVICE_SERVICE);
    sluice_device *device = NULL;
    sluice_device_info info = {.size = sizeof info};
    sluice_device_memory memory = {.size = sizeof memory};
    if (devices == NULL || devices->open(devices, host, &device) != SLUICE_OK)
        return;
    if (devices->info(device, &info) == SLUICE_OK && devices->memory(device, &memory) == SLUICE_OK) {
        const double gib = 1 << 30;
        printf("device      %s: %s, %.1f GiB, %.1f free\n", info.kind, info.name, (double)memory.total / gib,
               (double)memory.free / gib);
        if (info.together != NULL)
            printf("            %u such; for training on several: %s\n", info.count, info.together);
        if (info.reason != NULL)
            printf("            no GPU: %s\n", info.reason);
    }
    devices->close(device);
}

/* Starts every service, so that each can say what it would compute with. */
static void print_services(sl_registry *registry)
{
    sl_buffer text = {0};
    sl_free_host *host = sl_free_host_open(registry, NULL, 0, stderr);
    for (size_t i = 0; host && i < sl_registry_count(registry); i++) {
        const sluice_class *type = sl_registry_at(registry, i)->type;
        if (type->kind == SLUICE_SERVICE)
            sluice_service(sl_free_host_public(host), ((const sluice_service_class *)(const void *)type)->service);
    }
    if (host && sl_free_host_numerics(host, &text) == SLUICE_OK && text.size > 0)
        printf("services    %.*s", (int)text.size, (const char *)text.data);
    if (host)
        print_device(sl_free_host_public(host));
    sl_free_host_close(host);
    sl_buffer_free(&text);
}

static int command_env(const sl_command *command, int argc, char **argv)
{
    sl_words rest = {0};
    const sl_option options[] = {{0}};
    int code = sl_options_read(command, argc, argv, options, &rest);
    if (code < 0 && rest.count > 0)
        code = sl_usage(command, "'%s' is not wanted", rest.items[0]);
    sl_words_free(&rest);
    if (code >= 0)
        return code;
    sl_registry *registry = sl_registry_open();
    if (!registry)
        return sl_fail(command, SL_EXIT_FAILED, "out of memory");
    sl_environment_print(registry, stdout);
    print_services(registry);
    sl_registry_close(registry);
    return SL_EXIT_OK;
}

const sl_command sl_command_env = {"env", "prints versions and the machine: what a bug report needs", help,
                                   command_env};
