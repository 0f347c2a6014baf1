/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Which of several runs are one experiment with different seeds, and what tells the experiments apart. */
#ifndef RP_VARIANTS_H
#define RP_VARIANTS_H

#include "tools/report/data.h"

typedef struct rp_variant {
    const char
        *label; /* "trust.use=cream, train.beta=0.2": what differs from the others; "all runs" when there is one */
    rp_run **runs;
    size_t count;
} rp_variant;

/* Groups the runs by all settings of their plans but seed, name and out; in the order of their first runs. A run
 * without a plan is a variant of its own. NULL when out of memory. */
rp_variant *rp_variants_of(rp_run *const *runs, size_t count, sl_arena *, size_t *variants);

#endif
