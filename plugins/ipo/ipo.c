/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* IPO: identity preference optimisation (Azar et al. 2023, arXiv 2310.12036, eq. 17). */
#include <sluice/loss.h>

enum average { AVERAGE_SUM, AVERAGE_MEAN };

struct ipo {
    double beta;
    int average;
};

static const char *const averages[] = {"sum", "mean", NULL};

static const sluice_param params[] = {
    SLUICE_DOUBLE(
        struct ipo, beta, .value = 0.1, .above = 0,
        .doc =
            "Strength of the pull towards the reference model (the paper's tau): the margin aimed at is 1/(2 beta)."),
    SLUICE_CHOICE(struct ipo, average, .value = AVERAGE_SUM, .choices = averages,
                  .doc = "Whether an answer's log-ratio is summed over its tokens (the paper) or averaged (TRL)."),
    SLUICE_PARAMS_END};

static int pairs(void *self, const sluice_pairs *in, sluice_pair_grads *out)
{
    const struct ipo *ipo = self;
    double margin = 0.5 / ipo->beta;
    for (size_t i = 0; i < in->count; i++) {
        const sluice_answer *w = &in->chosen[i], *l = &in->rejected[i];
        double per_w = 1, per_l = 1;
        if (ipo->average == AVERAGE_MEAN) {
            per_w = 1.0 / (double)(w->length ? w->length : 1);
            per_l = 1.0 / (double)(l->length ? l->length : 1);
        }
        double delta = per_w * (w->policy - w->reference) - per_l * (l->policy - l->reference);
        double p = in->p[i], right = delta - margin, wrong = -delta - margin;
        double slope = 2 * (p * right - (1 - p) * wrong); /* d loss / d delta */
        out->loss[i] = p * right * right + (1 - p) * wrong * wrong;
        out->d_chosen[i] = per_w * slope;
        out->d_rejected[i] = -per_l * slope;
    }
    return SLUICE_OK;
}

static double reward_scale(const void *self)
{
    return ((const struct ipo *)self)->beta;
}

static const sluice_loss_class ipo_class = {
    SLUICE_CLASS("ipo", "Identity preference optimisation, with soft labels", struct ipo, params),
    .base.reads = SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_PAIRS,
    .base.doc = "loss = p (delta - 1/(2 beta))^2 + (1 - p) (-delta - 1/(2 beta))^2, where delta is the chosen answer's "
                "log-ratio of "
                "policy to reference less the rejected one's (Azar et al. 2023, eq. 17). The paper sums over an "
                "answer's tokens; "
                "average = \"mean\" divides by its length, as TRL does.",
    .needs = SLUICE_REFERENCE,
    .pairs = pairs,
    .reward_scale = reward_scale,
};
SLUICE_PLUGIN("ipo", "1.0", "Apache-2.0", &ipo_class.base);
