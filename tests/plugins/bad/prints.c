/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Prints.
 * Caught by: quiet=FAILED */
#include <stdio.h>
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

static int process(void *self, sluice_record *record)
{
    printf("%s\n", sluice_record_id(record));
    return doubt(record, 0.9);
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .process = process};
BAD_PLUGIN(bad);
