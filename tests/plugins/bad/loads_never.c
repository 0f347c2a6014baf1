/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Needs a function that nobody has.
 * Caught by: loads=FAILED */
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

int nobody_has_this(void);

static int process(void *self, sluice_record *record)
{
    return nobody_has_this();
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .process = process};
BAD_PLUGIN(bad);
