/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/run/environment.h"

#include <libconfig.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

/* "model name : …" of /proc/cpuinfo; elsewhere the architecture alone is said. */
static void print_processor(FILE *out)
{
    char line[512];
    FILE *in = fopen("/proc/cpuinfo", "r");
    while (in && fgets(line, sizeof line, in))
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':')) {
            fprintf(out, "processor   %s", strchr(line, ':') + 2);
            break;
        }
    if (in)
        fclose(in);
}

void sl_environment_print(const sl_registry *registry, FILE *out)
{
    struct utsname system;
    fprintf(out, "sluice      %s, plugin ABI %d\n", SLUICE_VERSION, SLUICE_ABI);
    fprintf(out, "libraries   libconfig %d.%d.%d, zstd %s, xxHash %u\n", LIBCONFIG_VER_MAJOR, LIBCONFIG_VER_MINOR,
            LIBCONFIG_VER_REVISION, ZSTD_versionString(), XXH_versionNumber());
    fprintf(out, "compiler    %s\n", __VERSION__);
    if (uname(&system) == 0)
        fprintf(out, "system      %s %s %s\n", system.sysname, system.release, system.machine);
    print_processor(out);
    fprintf(out, "processors  %ld\n", sysconf(_SC_NPROCESSORS_ONLN));
    const char *const *folders;
    const size_t count = sl_registry_folders(registry, &folders);
    for (size_t i = 0; i < count; i++)
        fprintf(out, "%s%s\n", i ? "            " : "plugins     ", folders[i]);
    const sl_refused *refused;
    const size_t refusals = sl_registry_refused(registry, &refused);
    fprintf(out, "classes     %zu, refused plugins %zu\n", sl_registry_count(registry), refusals);
}
