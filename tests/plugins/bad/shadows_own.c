/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* An id that a plugin of sluice's own has.
 * Caught by: registry=FAILED */
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

static int process(void *self, sluice_record *record)
{
    return doubt(record, 0.9);
}

static const sluice_stage_class bad = {GOOD("label-smoothing", struct state, no_params), .process = process};
BAD_PLUGIN(bad);
