/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Dies at the lowest value that its own bounds allow.
 * Caught by: bounds=CRASHED parameters=CRASHED */
#include "tests/plugins/bad/bad.h"

struct state {
    int64_t window;
};

static const sluice_param params[] = {
    SLUICE_INT(struct state, window, .value = 4, .min = 0, .max = 100, .doc = "Pairs looked at."), SLUICE_PARAMS_END};

static int process(void *self, sluice_record *record)
{
    const struct state *s = self;
    if (s->window == 0)
        abort();
    return doubt(record, 0.9);
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, params), .process = process};
BAD_PLUGIN(bad);
