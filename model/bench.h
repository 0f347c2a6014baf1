/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What the files of bench-model share. */
#ifndef MODEL_BENCH_H
#define MODEL_BENCH_H

#include "kernels/limits.h"
#include "kernels/profile.h"

double bench_now(void); /* seconds */

/* One line a step of the work: resident memory now, and the most there ever was. */
void bench_memory(const char *what);
double bench_peak_gigabytes(void);

/* What was called since the last reset: time, share, and rates beside the machine's limits. `seconds` passed meanwhile.
 */
void bench_print_ops(kn_device *profile, const kn_limits *limits, double seconds);

#endif
