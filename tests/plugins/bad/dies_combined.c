/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Dies when two switches are on at once.
 * Caught by: parameters=CRASHED */
#include "tests/plugins/bad/bad.h"

struct state {
    bool strict, quick;
};

static const sluice_param params[] = {SLUICE_BOOL(struct state, strict, .value = 0, .doc = "Be strict."),
                                      SLUICE_BOOL(struct state, quick, .value = 0, .doc = "Be quick."),
                                      SLUICE_PARAMS_END};

static int process(void *self, sluice_record *record)
{
    const struct state *s = self;
    if (s->strict && s->quick)
        abort();
    return doubt(record, 0.9);
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, params), .process = process};
BAD_PLUGIN(bad);
