/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/report/interval.h"

#include <math.h>

/* Student's t, two-sided 95 %, by degrees of freedom 1 to 30; above, the normal's within 2 %. */
static double student(size_t freedom)
{
    static const double t[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                               2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
                               2.080,  2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
    return freedom == 0 ? NAN : freedom <= 30 ? t[freedom - 1] : 1.96 + 2.5 / (double)freedom;
}

double rp_half_interval(const double *values, size_t count, double *mean)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++)
        sum += values[i];
    *mean = sum / (double)count;
    for (size_t i = 0; i < count; i++)
        squares += (values[i] - *mean) * (values[i] - *mean);
    return count < 2 ? NAN : student(count - 1) * sqrt(squares / (double)(count - 1) / (double)count);
}
