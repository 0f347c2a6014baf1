/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Two classes of one id.
 * Caught by: description=FAILED registry=FAILED */
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

static int process(void *self, sluice_record *record)
{
    return doubt(record, 0.9);
}

static const sluice_stage_class one = {GOOD("bad/class", struct state, no_params), .process = process};
static const sluice_stage_class two = {GOOD("bad/class", struct state, no_params), .process = process};
SLUICE_PLUGIN("bad", "1", "Apache-2.0", &one.base, &two.base);
