/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A pair's loss depends on how many pairs come with it.
 * Caught by: batches=FAILED */
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

static int pairs(void *self, const sluice_pairs *in, sluice_pair_grads *out)
{
    for (size_t i = 0; i < in->count; i++) {
        out->loss[i] = (in->rejected[i].policy - in->chosen[i].policy) / (double)in->count;
        out->d_chosen[i] = -1 / (double)in->count;
        out->d_rejected[i] = 1 / (double)in->count;
    }
    return SLUICE_OK;
}

static const sluice_loss_class bad = {SLUICE_CLASS("bad/loss", "Does one thing wrong", struct state, no_params),
                                      .base.doc = "A loss that the conformance suite must find fault with.",
                                      .pairs = pairs};
BAD_PLUGIN(bad);
