/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Refuses a record without a word.
 * Caught by: malformed=FAILED */
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

static int process(void *self, sluice_record *record)
{
    return sluice_record_pairs(record) > 0 ? doubt(record, 0.9) : SLUICE_BAD_RECORD;
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .process = process};
BAD_PLUGIN(bad);
