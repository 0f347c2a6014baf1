/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Curves: what of a run's numbers is drawn. Those of evaluators, rankers and regularizers over versions of a model,
 * with the intervals that came with them; those of training over steps, which go on over iterations.
 */
#ifndef RP_CURVES_H
#define RP_CURVES_H

#include "tools/report/chart.h"
#include "tools/report/data.h"

typedef struct rp_curve {
    const char *metric; /* "accuracy" */
    const char *series; /* the slot, or the training stage */
    const char *family; /* of training: its loss, as losses of two kinds share no axis; otherwise "" */
    bool training;
    rp_point *points;
    size_t count;
} rp_curve;

typedef struct rp_curves {
    rp_curve *items; /* in an arena, as all that they point to */
    size_t count;
    size_t seeds;  /* runs that they are the mean of */
    size_t *index; /* of items, by what names them: 1 + its place, 0 = free; open addressing */
    size_t room;   /* of the index, a power of two */
} rp_curves;

/* The curves lie in the arena, what names them in the run's. Negative when out of memory. */
int rp_curves_read(const rp_run *, sl_arena *, rp_curves *);
/* The mean of several runs' curves, point by point where all of them have one, with a 95 % interval over them
 * (Student's t); of one run, its own. */
int rp_curves_mean(const rp_curves *sets, size_t count, sl_arena *, rp_curves *mean);

/* Charts of all curves: over versions, or of training. `labels` name the sets and may be NULL for one. False when there
 * was nothing to draw. */
bool rp_charts_write(FILE *, const rp_curves *sets, const char *const *labels, size_t count, bool training);

#endif
