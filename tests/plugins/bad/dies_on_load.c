/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Dies while it is being loaded.
 * Caught by: loads=CRASHED */
#include <signal.h>
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

__attribute__((constructor)) static void early(void)
{
    raise(SIGSEGV);
}

static int process(void *self, sluice_record *record)
{
    return doubt(record, 0.9);
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .process = process};
BAD_PLUGIN(bad);
