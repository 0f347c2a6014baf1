/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Reads a record's id after the record has gone.
 * Caught by: borrowed=FAILED */
#include "tests/plugins/bad/bad.h"

struct state {
    const sluice_host *host;
    const char *first;
};

static const sluice_metric_info metrics[] = {{"first", NULL, "First letter of the last id."}, {0}};

static int init(void *self, const sluice_host *host)
{
    ((struct state *)self)->host = host;
    return SLUICE_OK;
}

static int process(void *self, sluice_record *record)
{
    ((struct state *)self)->first = sluice_record_id(record);
    return doubt(record, 0.9);
}

static int finish(void *self)
{
    const struct state *s = self;
    sluice_metric(s->host, "first", s->first ? (double)*(volatile const char *)s->first : 0);
    return SLUICE_OK;
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .base.init = init,
                                       .base.metrics = metrics, .process = process, .finish = finish};
BAD_PLUGIN(bad);
