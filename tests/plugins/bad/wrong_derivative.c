/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The derivative has the wrong sign for the rejected answer.
 * Caught by: derivative=FAILED */
#include <math.h>
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

static int pairs(void *self, const sluice_pairs *in, sluice_pair_grads *out)
{
    for (size_t i = 0; i < in->count; i++) {
        const double x = in->chosen[i].policy - in->rejected[i].policy;
        out->loss[i] = x > 0 ? log1p(exp(-x)) : log1p(exp(x)) - x;
        out->d_chosen[i] = -1 / (1 + exp(x));
        out->d_rejected[i] = out->d_chosen[i];
    }
    return SLUICE_OK;
}

static const sluice_loss_class bad = {SLUICE_CLASS("bad/loss", "Does one thing wrong", struct state, no_params),
                                      .base.doc = "A loss that the conformance suite must find fault with.",
                                      .pairs = pairs};
BAD_PLUGIN(bad);
