/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Its randomness comes from the clock.
 * Caught by: seed=FAILED */
#include <time.h>
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

static int process(void *self, sluice_record *record)
{
    return doubt(record, 0.7 + 0.1 * (double)(time(NULL) / 100000 % 3));
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .process = process};
BAD_PLUGIN(bad);
