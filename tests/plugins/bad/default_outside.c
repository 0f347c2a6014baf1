/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A default beyond its own bounds.
 * Caught by: description=FAILED */
#include "tests/plugins/bad/bad.h"

struct state {
    double strength;
};

static const sluice_param params[] = {SLUICE_DOUBLE(struct state, strength, .value = 2, .max = 1, .doc = "How much."),
                                      SLUICE_PARAMS_END};

static int process(void *self, sluice_record *record)
{
    return doubt(record, 0.9);
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, params), .process = process};
BAD_PLUGIN(bad);
