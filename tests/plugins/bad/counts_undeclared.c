/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Reports a number that its table of metrics does not have.
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
    return doubt(record, 0.9);
}

static int finish(void *self)
{
    sluice_metric(((struct state *)self)->host, "undeclared", 1);
    return SLUICE_OK;
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .base.init = init,
                                       .process = process, .finish = finish};
BAD_PLUGIN(bad);
