/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Takes it for granted that there are scores.
 * Caught by: malformed=CRASHED */
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

static int process(void *self, sluice_record *record)
{
    volatile const float *scores = sluice_record_scores(record, "judge-a");
    return doubt(record, scores[0] > 0 ? 0.9 : 0.8);
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .process = process};
BAD_PLUGIN(bad);
