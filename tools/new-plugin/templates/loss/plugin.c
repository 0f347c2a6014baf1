/* @ID@: a hinge on the margin, as in SLiC-HF (Zhao et al. 2023, arXiv 2305.10425), with log-ratios to a reference
 * model: max(0, delta - beta d), d = how much more the policy prefers chosen to rejected than the reference does. */
#include <math.h>
#include <sluice/loss.h>

struct loss {
    double beta, delta;
};

static const sluice_param params[] = {
    SLUICE_DOUBLE(struct loss, beta, .value = 0.1, .above = 0, .doc = "Turns a log-ratio into a reward."),
    SLUICE_DOUBLE(struct loss, delta, .value = 1, .above = 0,
                  .doc = "How far apart the rewards of chosen and rejected are to be; beyond it the loss is 0."),
    SLUICE_PARAMS_END};

/* Trainer's thread, once a micro-batch. p is the probability that a label is right; the expected loss is
 * p max(0, delta - x) + (1 - p) max(0, delta + x). The trainer applies weights and averages. */
static int pairs(void *self, const sluice_pairs *in, sluice_pair_grads *out)
{
    const struct loss *loss = self;
    for (size_t i = 0; i < in->count; i++) {
        const sluice_answer *w = &in->chosen[i], *l = &in->rejected[i];
        const double x = loss->beta * ((w->policy - w->reference) - (l->policy - l->reference)), p = in->p[i];
        const double right = loss->delta - x, wrong = loss->delta + x;
        out->loss[i] = p * fmax(0, right) + (1 - p) * fmax(0, wrong);
        out->d_chosen[i] = loss->beta * ((wrong > 0 ? 1 - p : 0) - (right > 0 ? p : 0));
        out->d_rejected[i] = -out->d_chosen[i];
    }
    return SLUICE_OK;
}

/* For the trainer's metrics of rewards. */
static double reward_scale(const void *self)
{
    return ((const struct loss *)self)->beta;
}

static const sluice_loss_class loss_class = {
    SLUICE_CLASS("@ID@", "A hinge on the margin between chosen and rejected", struct loss, params),
    .base.reads = SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_PAIRS,
    .base.doc =
        "loss = p max(0, delta - x) + (1 - p) max(0, delta + x), where x is beta times the chosen answer's summed "
        "log-ratio of policy to reference less the rejected one's (Zhao et al. 2023).",
    .needs = SLUICE_REFERENCE,
    .pairs = pairs,
    .reward_scale = reward_scale,
};
SLUICE_PLUGIN("@NAME@", "1.0", "MIT", &loss_class.base);
