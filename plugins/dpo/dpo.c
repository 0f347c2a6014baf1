/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * DPO: direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, eq. 7), with soft labels as in cDPO
 * (Mitchell 2023): p is the probability that the label is right.
 */
#include <math.h>
#include <sluice/loss.h>

struct dpo {
    double beta;
};

static const sluice_param params[] = {
    SLUICE_DOUBLE(
        struct dpo, beta, .value = 0.1, .above = 0,
        .doc =
            "Strength of the pull towards the reference model; also the factor that turns a log-ratio into a reward."),
    SLUICE_PARAMS_END};

/* log(1 + e^x) without overflow and without losing the small end: for x >> 0 it is x, for x << 0 it is e^x. */
static double softplus(double x)
{
    return (x > 0 ? x : 0) + log1p(exp(-fabs(x)));
}

static double sigmoid(double x)
{
    double small = exp(-fabs(x));
    return x >= 0 ? 1 / (1 + small) : small / (1 + small);
}

static int pairs(void *self, const sluice_pairs *in, sluice_pair_grads *out)
{
    const struct dpo *dpo = self;
    for (size_t i = 0; i < in->count; i++) {
        double delta =
            (in->chosen[i].policy - in->chosen[i].reference) - (in->rejected[i].policy - in->rejected[i].reference);
        double x = dpo->beta * delta, p = in->p[i];
        out->loss[i] = p * softplus(-x) + (1 - p) * softplus(x);
        /* sigma(x) - p, written so that nothing cancels at p = 1 and large x. */
        out->d_chosen[i] = dpo->beta * ((1 - p) * sigmoid(x) - p * sigmoid(-x));
        out->d_rejected[i] = -out->d_chosen[i];
    }
    return SLUICE_OK;
}

static double reward_scale(const void *self)
{
    return ((const struct dpo *)self)->beta;
}

static const sluice_loss_class dpo_class = {
    SLUICE_CLASS("dpo", "Direct preference optimisation, with soft labels", struct dpo, params),
    .base.reads = SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_PAIRS,
    .base.doc = "loss = p * -log sigma(beta delta) + (1 - p) * -log sigma(-beta delta), where delta is the chosen "
                "answer's summed "
                "log-ratio of policy to reference less the rejected one's (Rafailov et al. 2023, eq. 7). p comes with "
                "each pair: "
                "1 gives plain DPO, 1 - epsilon gives cDPO (TRL's label_smoothing), CREAM's consistency rate gives "
                "CREAM's loss.",
    .needs = SLUICE_REFERENCE,
    .pairs = pairs,
    .reward_scale = reward_scale,
};
SLUICE_PLUGIN("dpo", "1.0", "Apache-2.0", &dpo_class.base);
