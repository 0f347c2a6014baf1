/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Where sluice's data files lie: templates, models, pipelines. Laid out alike in the source and in an installation. */
#ifndef NP_PLACE_H
#define NP_PLACE_H

#include <limits.h>
#include <stdbool.h>

/* The folder that holds them: the source's when the program runs from its build folder, otherwise the installation's,
 * also where that was moved as a whole. False, with errno set, when it cannot be told. */
bool np_data_folder(char folder[PATH_MAX]);

#endif
