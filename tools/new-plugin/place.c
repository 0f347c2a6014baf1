/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/new-plugin/place.h"
#include "core/base/program.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A build folder says in its own pkg-config file where the source is. */
static bool of_build(const char *build, char folder[PATH_MAX])
{
    static const char key[] = "pkgdatadir=";
    char path[PATH_MAX + 32], line[PATH_MAX + sizeof key];
    bool found = false;
    snprintf(path, sizeof path, "%s/config.status", build);
    if (access(path, F_OK) != 0)
        return false;
    snprintf(path, sizeof path, "%s/sluice-uninstalled.pc", build);
    FILE *file = fopen(path, "r");
    while (file && !found && fgets(line, sizeof line, file))
        if (strncmp(line, key, sizeof key - 1) == 0) {
            line[strcspn(line, "\n")] = '\0';
            found = snprintf(folder, PATH_MAX, "%s", line + sizeof key - 1) < PATH_MAX;
        }
    if (file)
        fclose(file);
    return found;
}

/* The program is PLACE/SLUICE_LIBEXECDIR/sluice-new-plugin; PLACE is empty unless the installation was moved. */
static bool of_installation(char folder[PATH_MAX])
{
    char exe[PATH_MAX];
    const ssize_t length = readlink("/proc/self/exe", exe, sizeof exe - 1);
    size_t place = 0;
    if (length > 0) {
        exe[length] = '\0';
        char *slash = strrchr(exe, '/');
        *slash = '\0';
        const size_t end = (size_t)(slash - exe), own = sizeof SLUICE_LIBEXECDIR - 1;
        if (end > own && strcmp(slash - own, SLUICE_LIBEXECDIR) == 0)
            place = end - own;
    }
    return snprintf(folder, PATH_MAX, "%.*s%s", (int)place, exe, SLUICE_PKGDATADIR) < PATH_MAX;
}

bool np_data_folder(char folder[PATH_MAX])
{
    char programs[PATH_MAX];
    sl_program_folder(programs);
    if (of_build(programs, folder) || of_installation(folder))
        return true;
    errno = ENAMETOOLONG;
    return false;
}
