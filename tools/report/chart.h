/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A line chart as SVG with a heading, a key and the same numbers as a table to open. */
#ifndef RP_CHART_H
#define RP_CHART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct rp_point {
    double x, y;
    double low, high; /* a 95 % interval; NaN = none */
} rp_point;

typedef struct rp_series {
    const char *label;
    const rp_point *points; /* x rises; y is finite */
    size_t count;
} rp_series;

typedef struct rp_chart {
    const char *title, *x_title;
    bool share;    /* y is shown in percent */
    bool whole_x;  /* few whole numbers, as versions are: a mark for each */
    bool smooth;   /* many noisy points: thin as they are, and smoothed */
    bool interval; /* the band is one over seeds, otherwise whiskers of each point */
    const rp_series *series;
    size_t count;
} rp_chart;

enum { RP_COLOURS = 8 };

void rp_chart_write(FILE *, const rp_chart *);

#endif
