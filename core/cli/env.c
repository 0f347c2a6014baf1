/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/base/buffer.h"
#include "core/cli/cli.h"
#include "core/run/host.h"

#include <libconfig.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

static const char help[] =
    "sluice env\n\n"
    "Prints versions, the machine, the plugin folders, and what decides numbers here (instruction set,\n"
    "libraries): what a bug report needs.\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage.\n\n"
    "Example:\n"
    "  sluice env\n";

/* "model name : …" of /proc/cpuinfo; elsewhere the architecture alone is said. */
static void print_processor(void)
{
    char line[512];
    FILE *in = fopen("/proc/cpuinfo", "r");
    while (in && fgets(line, sizeof line, in))
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':')) {
            printf("processor   %s", strchr(line, ':') + 2);
            break;
        }
    if (in)
        fclose(in);
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
    struct utsname system;
    printf("sluice      %s, plugin ABI %d\n", SLUICE_VERSION, SLUICE_ABI);
    printf("libraries   libconfig %d.%d.%d, zstd %s, xxHash %u\n", LIBCONFIG_VER_MAJOR, LIBCONFIG_VER_MINOR,
           LIBCONFIG_VER_REVISION, ZSTD_versionString(), XXH_versionNumber());
    printf("compiler    %s\n", __VERSION__);
    if (uname(&system) == 0)
        printf("system      %s %s %s\n", system.sysname, system.release, system.machine);
    print_processor();
    printf("processors  %ld\n", sysconf(_SC_NPROCESSORS_ONLN));
    const char *const *folders;
    const size_t count = sl_registry_folders(registry, &folders);
    for (size_t i = 0; i < count; i++)
        printf("%s%s\n", i ? "            " : "plugins     ", folders[i]);
    const sl_refused *refused;
    const size_t refusals = sl_registry_refused(registry, &refused);
    printf("classes     %zu, refused plugins %zu\n", sl_registry_count(registry), refusals);
    print_services(registry);
    sl_registry_close(registry);
    return SL_EXIT_OK;
}

const sl_command sl_command_env = {"env", "prints versions and the machine: what a bug report needs", help,
                                   command_env};
