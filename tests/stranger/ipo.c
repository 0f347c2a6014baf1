/* IPO: identity preference optimisation (Azar et al. 2023, eq. 17). A stranger's loss: doc/plugin-guide.md. */
#include <sluice/loss.h>

struct ipo {
    double beta;
};

static const sluice_param params[] = {
    SLUICE_DOUBLE(struct ipo, beta, .value = 0.1, .above = 0, .doc = "Strength of the pull towards the reference model."),
    SLUICE_PARAMS_END};

/* Trainer's thread, once a micro-batch. Log-probabilities are natural, summed over the answer's tokens. */
static int pairs(void *self, const sluice_pairs *in, sluice_pair_grads *out)
{
    const struct ipo *ipo = self;
    for (size_t i = 0; i < in->count; i++) {
        double delta =
            (in->chosen[i].policy - in->chosen[i].reference) - (in->rejected[i].policy - in->rejected[i].reference);
        double p = in->p[i]; /* probability that the label is right */
        double right = delta - 0.5 / ipo->beta, wrong = -delta - 0.5 / ipo->beta;
        out->loss[i] = p * right * right + (1 - p) * wrong * wrong;
        out->d_chosen[i] = 2 * (p * right - (1 - p) * wrong); /* d loss / d (chosen's log-probability) */
        out->d_rejected[i] = -out->d_chosen[i];
    }
    return SLUICE_OK; /* the trainer applies `weight` and averages */
}

static const sluice_loss_class ipo_class = {
    SLUICE_CLASS("stranger/ipo", "Identity preference optimisation", struct ipo, params),
    .needs = SLUICE_REFERENCE,
    .pairs = pairs,
};
SLUICE_PLUGIN("stranger-ipo", "1.0", "MIT", &ipo_class.base);
