/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Takes being cancelled for an error.
 * Caught by: cancel=FAILED */
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

static int run(void *self)
{
    struct state *s = self;
    sluice_record *record;
    int rc;
    while ((rc = sluice_next(s->host, &record)) == SLUICE_OK)
        if (doubt(record, 0.9) < 0 || (rc = sluice_emit(s->host, record)) < 0)
            break;
    return rc < 0 ? sluice_error(s->host, SLUICE_IO, "the input ended early") : SLUICE_OK;
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .base.init = init, .run = run};
BAD_PLUGIN(bad);
