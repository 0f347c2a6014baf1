/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The 95 % interval of a mean (Student's t). */
#ifndef RP_INTERVAL_H
#define RP_INTERVAL_H

#include <stddef.h>

/* Half the width of the 95 % interval of the mean of `count` values; NaN for fewer than two. */
double rp_half_interval(const double *values, size_t count, double *mean);

#endif
