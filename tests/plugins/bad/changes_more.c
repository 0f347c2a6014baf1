/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Changes what it does not say.
 * Caught by: fields=FAILED */
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

static int process(void *self, sluice_record *record)
{
    return sluice_record_set_prompt(record, "something else");
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .process = process};
BAD_PLUGIN(bad);
