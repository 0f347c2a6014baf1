/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A parameter that is said to be about speed changes what comes out.
 * Caught by: speed=FAILED */
#include "tests/plugins/bad/bad.h"

struct state {
    int64_t threads;
};

static const sluice_param params[] = {
    SLUICE_INT(struct state, threads, .value = 1, .min = 1, .max = 8, .speed_only = true, .doc = "How many."),
    SLUICE_PARAMS_END};

static int process(void *self, sluice_record *record)
{
    const struct state *s = self;
    return doubt(record, 1 / (double)(1 + s->threads));
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, params), .process = process};
BAD_PLUGIN(bad);
