/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Asks how many times the phase runs and does not declare that its results hang on it.
 * Caught by: works=FAILED */
#include "tests/plugins/bad/bad.h"

struct state {
    const sluice_host *host;
    int64_t count;
};

static int init(void *self, const sluice_host *host)
{
    ((struct state *)self)->host = host;
    return SLUICE_OK;
}

static int process(void *self, sluice_record *record)
{
    return doubt(record, sluice_repeat(((struct state *)self)->host) > 1 ? 0.9 : 0.8);
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .base.init = init,
                                       .process = process};
BAD_PLUGIN(bad);
