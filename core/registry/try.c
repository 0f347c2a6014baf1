/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * sluice-try FILE: loads one plugin and reads all it says of itself, as the registry will. Whether it survives is all
 * that is asked; what is wrong with its description the registry says itself.
 */
#include <dlfcn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <signal.h>

#include "core/registry/validate.h"

int main(int argc, char **argv)
{
    if (argc != 2) {
        fputs("sluice-try FILE: loads one plugin; sluice itself starts this\n", stderr);
        return 2;
    }
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    void *handle = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    const sluice_plugin *plugin = handle ? dlsym(handle, SLUICE_ENTRY) : NULL;
    sl_arena *arena = sl_arena_new();
    sl_why why;
    if (plugin && arena && sl_stamp_fits(plugin, &why))
        for (size_t i = 0; i < 256 && plugin->classes[i]; i++)
            if (!sl_class_adopt(plugin->classes[i], &plugin->stamp, arena, &why))
                break;
    sl_arena_free(arena);
    if (handle)
        dlclose(handle);
    return 0;
}
