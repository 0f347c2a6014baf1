/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * bradley-terry: the loss of reward models (Bradley and Terry 1952; Ouyang et al. 2022, eq. 1). With r the outputs of a
 * head, x = r_chosen - r_rejected and l(x) = -log sigma(x - margin):
 *
 *     loss = mean over heads of [ p l(x) + (1 - p) l(-x) + center (r_chosen + r_rejected)^2 ]
 *
 * The margin is Llama 2's (Touvron et al. 2023, section 3.2.2), the last term Eisenstein et al.'s (2023), both as in
 * TRL's RewardTrainer.
 */
#include <math.h>
#include <sluice/loss.h>

struct bradley_terry {
    double center;
};

static const sluice_param params[] = {
    SLUICE_DOUBLE(struct bradley_terry, center, .value = 0, .min = 0,
                  .doc = "Weight of the squared sum of a pair's rewards, which keeps rewards around 0; TRL's "
                         "center_rewards_coefficient."),
    SLUICE_PARAMS_END};

/* log(1 + e^x) without overflow and without losing the small end. */
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
    const struct bradley_terry *bt = self;
    const double heads = (double)in->heads;
    for (size_t k = 0; k < in->count * in->heads; k++) {
        const size_t i = k / in->heads;
        const double w = in->chosen_value[k], l = in->rejected_value[k], p = in->p[i], margin = in->margin[i];
        const double right = margin - (w - l), wrong = margin + (w - l); /* l(x) is softplus(margin - x) */
        const double slope = (1 - p) * sigmoid(wrong) - p * sigmoid(right), pull = 2 * bt->center * (w + l);
        out->loss[i] += (p * softplus(right) + (1 - p) * softplus(wrong) + bt->center * (w + l) * (w + l)) / heads;
        out->d_chosen_value[k] = (slope + pull) / heads;
        out->d_rejected_value[k] = (pull - slope) / heads;
    }
    return SLUICE_OK;
}

static const sluice_loss_class bradley_terry_class = {
    SLUICE_CLASS("bradley-terry", "Reward models from preferences, with soft labels, margin and centring",
                 struct bradley_terry, params),
    .base.reads = SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_PAIRS,
    .base.doc =
        "loss = p * -log sigma(x - margin) + (1 - p) * -log sigma(-x - margin) + center * (r_w + r_l)^2, where x "
        "= r_w - r_l is the difference of the rewards of chosen and rejected (Ouyang et al. 2022, eq. 1, with p = "
        "1). The trainer then trains a reward model: outputs of a head at the answer's last token. p and margin "
        "come with each pair; without a margin it is 0.\n"
        "A head of several outputs is an ensemble on one body: each output has this loss, and the loss is their "
        "mean.",
    .needs = SLUICE_HEAD_VALUES,
    .pairs = pairs,
};
SLUICE_PLUGIN("bradley-terry", "1.0", "Apache-2.0", &bradley_terry_class.base);
