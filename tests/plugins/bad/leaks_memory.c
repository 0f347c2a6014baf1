/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Forgets what it allocated.
 * Caught by: memory=FAILED */
#include "tests/plugins/bad/bad.h"

struct state {
    char *id;
};

static int process(void *self, sluice_record *record)
{
    ((struct state *)self)->id = strdup(sluice_record_id(record));
    return doubt(record, 0.9);
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .process = process};
BAD_PLUGIN(bad);
