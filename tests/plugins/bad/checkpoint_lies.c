/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Its checkpoint is one step ahead of what was done.
 * Caught by: resume=FAILED */
#include "tests/plugins/bad/bad.h"
#include "tests/plugins/bad/counts.h"

enum { STEPS = 6 };

struct state {
    const sluice_host *host;
};

static const sluice_metric_info metrics[] = {{"sum", NULL, "Sum of the steps taken."}, {0}};

static int init(void *self, const sluice_host *host)
{
    ((struct state *)self)->host = host;
    return SLUICE_OK;
}

static int run(void *self)
{
    const sluice_host *host = ((struct state *)self)->host;
    sluice_record *record;
    int rc, step = 0, sum = 0;
    while ((rc = sluice_next(host, &record)) == SLUICE_OK)
        if ((rc = sluice_emit(host, record)) < 0)
            return rc;
    if (rc < 0)
        return rc;
    load(host, &step, &sum);
    for (; step < STEPS; step++) {
        sum += step + 1;
        if ((rc = save(host, step + 2, sum)) < 0) /* step + 1 is next */
            return rc;
        if (sluice_cancelled(host))
            return SLUICE_CANCELLED;
    }
    sluice_metric(host, "sum", sum);
    return SLUICE_OK;
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .base.init = init,
                                       .base.metrics = metrics, .run = run};
BAD_PLUGIN(bad);
