/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Ends the process.
 * Caught by: malformed=FAILED */
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

static int process(void *self, sluice_record *record)
{
    if (sluice_record_candidates(record) == 0)
        exit(3);
    return doubt(record, 0.9);
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .process = process};
BAD_PLUGIN(bad);
