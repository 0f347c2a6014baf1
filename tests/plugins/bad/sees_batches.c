/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What becomes of a record depends on how many come with it.
 * Caught by: batches=FAILED */
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

static int process_batch(void *self, sluice_record *const *records, bool *keep, size_t count)
{
    int rc = SLUICE_OK;
    for (size_t i = 0; rc >= 0 && i < count; i++)
        rc = doubt(records[i], 1 / (double)(count + 1));
    return rc;
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .process_batch = process_batch};
BAD_PLUGIN(bad);
