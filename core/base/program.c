/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/base/program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool sl_program_build_folder(char folder[PATH_MAX])
{
    char exe[PATH_MAX - 64], mark[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", exe, sizeof exe - 1);
    for (int up = 0; length > 0 && up < 2; up++) {
        exe[length] = '\0';
        char *slash = strrchr(exe, '/');
        if (!slash)
            break;
        *slash = '\0';
        length = slash - exe;
        snprintf(mark, sizeof mark, "%s/config.status", exe);
        if (access(mark, F_OK) == 0) {
            snprintf(folder, PATH_MAX, "%s", exe);
            return true;
        }
    }
    return false;
}

void sl_program_folder(char folder[PATH_MAX])
{
    const char *given = getenv("SLUICE_LIBEXEC");
    if (given || !sl_program_build_folder(folder))
        snprintf(folder, PATH_MAX, "%s", given ? given : SLUICE_LIBEXECDIR);
}

bool sl_program_find(const char *name, char path[PATH_MAX])
{
    char folder[PATH_MAX];
    sl_program_folder(folder);
    const int length = snprintf(path, PATH_MAX, "%s/sluice-%s", folder, name);
    return length > 0 && length < PATH_MAX && access(path, X_OK) == 0;
}
