/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Works while it is being loaded.
 * Caught by: loads=FAILED */
#include <time.h>
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

__attribute__((constructor)) static void early(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 150000000}, NULL);
}

static int process(void *self, sluice_record *record)
{
    return doubt(record, 0.9);
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .process = process};
BAD_PLUGIN(bad);
