/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Exports a helper.
 * Caught by: symbols=FAILED */
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

SLUICE_EXPORT int helper(void);
int helper(void)
{
    return 1;
}

static int process(void *self, sluice_record *record)
{
    return doubt(record, 0.9);
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .process = process};
BAD_PLUGIN(bad);
