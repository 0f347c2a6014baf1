/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What the files that average models share. */
#ifndef MODEL_AVERAGE_PARTS_H
#define MODEL_AVERAGE_PARTS_H

#include "model/average.h"
#include "model/weight_files.h"

/* Opens every folder and makes sure that they belong together, before anything is written. layout and files
 * (average->count of them, zeroed) are the caller's to free, whatever is returned. */
int sm_average_open(const sm_average *average, sm_layout *layout, sm_weight_files *files, sm_error *error);

/* sm_average_write of SM_AVERAGE_SLERP; the request is a good one. */
int sm_average_slerp(const char *to, const sm_average *average, sm_error *error);

#endif
