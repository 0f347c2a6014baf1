/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* An id without a vendor's name, which only sluice's own may do without.
 * Caught by: registry=FAILED */
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

static int process(void *self, sluice_record *record)
{
    return doubt(record, 0.9);
}

static const sluice_stage_class bad = {GOOD("halve-doubt", struct state, no_params), .process = process};
BAD_PLUGIN(bad);
