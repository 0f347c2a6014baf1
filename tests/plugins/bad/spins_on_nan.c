/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Waits for a NaN to become smaller.
 * Caught by: numbers=HUNG */
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

static int process(void *self, sluice_record *record)
{
    const float *scores = sluice_record_scores(record, "judge-a");
    for (size_t i = 0; scores && i < sluice_record_candidates(record); i++)
        for (volatile float x = scores[i]; !(x <= 1);)
            x = x > 1e30F ? 1 : x / 2;
    return doubt(record, 0.9);
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .process = process};
BAD_PLUGIN(bad);
