/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* exp of a large number.
 * Caught by: extremes=FAILED */
#include <math.h>
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

static int pairs(void *self, const sluice_pairs *in, sluice_pair_grads *out)
{
    for (size_t i = 0; i < in->count; i++) {
        const double x = in->chosen[i].policy - in->rejected[i].policy;
        out->loss[i] = log(1 + exp(-x));
        out->d_chosen[i] = -1 / (1 + exp(x));
        out->d_rejected[i] = -out->d_chosen[i];
    }
    return SLUICE_OK;
}

static const sluice_loss_class bad = {SLUICE_CLASS("bad/loss", "Does one thing wrong", struct state, no_params),
                                      .base.doc = "A loss that the conformance suite must find fault with.",
                                      .pairs = pairs};
BAD_PLUGIN(bad);
