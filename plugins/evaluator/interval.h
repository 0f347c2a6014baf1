/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* 95 % intervals of a fraction. */
#ifndef EVALUATOR_INTERVAL_H
#define EVALUATOR_INTERVAL_H

#include <math.h>

#define INTERVAL_Z 1.959963984540054 /* the normal distribution's 97.5 % point */

/* Wilson's score interval of `mean`, a fraction of n independent trials (Wilson 1927). */
static inline void interval_wilson(double mean, double n, double *low, double *high)
{
    double z2 = INTERVAL_Z * INTERVAL_Z, middle = (mean + z2 / (2 * n)) / (1 + z2 / n);
    double half = INTERVAL_Z / (1 + z2 / n) * sqrt(mean * (1 - mean) / n + z2 / (4 * n * n));
    *low = fmax(0, middle - half);
    *high = fmin(1, middle + half);
}

/* Answers to one question are not independent: questions are. `mean` and `squares` are the mean over n questions of a
 * question's own mean and of its square. Wilson's interval for as many independent trials as would have the standard
 * error found over questions; where questions do not differ that error says nothing, and n trials are taken. */
static inline void interval_by_question(double mean, double squares, double n, double *low, double *high)
{
    double variance = n > 1 ? (squares - mean * mean) * n / (n - 1) : 0;
    interval_wilson(mean, variance > 1e-15 ? n * mean * (1 - mean) / variance : n, low, high);
}

#endif
