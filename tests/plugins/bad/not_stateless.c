/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Calls itself stateless and counts.
 * Caught by: batches=FAILED */
#include "tests/plugins/bad/bad.h"

struct state {
    const sluice_host *host;
    int64_t count;
};

static int process(void *self, sluice_record *record)
{
    struct state *s = self;
    return doubt(record, 1 / (double)(2 + s->count++));
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .base.traits = SLUICE_STATELESS,
                                       .process = process};
BAD_PLUGIN(bad);
