/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Programs that belong to this one: in the build folder when it runs from there, otherwise in libexec. */
#ifndef SL_PROGRAM_H
#define SL_PROGRAM_H

#include <limits.h>
#include <stdbool.h>

/* The folder with config.status that this program, or a test beside it, runs from; false when it is installed. */
bool sl_program_build_folder(char folder[PATH_MAX]);
/* The folder that holds them: SLUICE_LIBEXEC where that is set; the build folder (with its config.status) when the
 * program, or a test beside it, runs from there; the installation's. */
void sl_program_folder(char folder[PATH_MAX]);
/* The path of sluice-NAME; false when it is not there or cannot be run. */
bool sl_program_find(const char *name, char path[PATH_MAX]);

#endif
