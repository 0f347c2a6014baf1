/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* SFT: supervised fine-tuning, the negative log-likelihood of the answers' tokens. */
#include <sluice/loss.h>

struct sft {
    char none; /* no parameters */
};

static const sluice_param params[] = {SLUICE_PARAMS_END};

static int tokens(void *self, const sluice_token_batch *in, sluice_token_grads *out)
{
    for (size_t i = 0; i < in->count; i++) {
        double loss = 0;
        for (size_t t = in->offset[i]; t < in->offset[i + 1]; t++) {
            loss -= in->mask[t] * in->policy[t];
            out->d_policy[t] = -in->mask[t];
        }
        out->loss[i] = loss;
    }
    return SLUICE_OK;
}

static const sluice_loss_class sft_class = {
    SLUICE_CLASS("sft", "Supervised fine-tuning: likelihood of the answers", struct sft, params),
    .base.reads = SLUICE_FIELD_CANDIDATES,
    .base.doc =
        "loss = -sum of mask * log pi(token), averaged over the trained tokens of a batch (weighted by their mask). "
        "Answers "
        "count with mask 1, prompts with the trainer's prompt_weight, parts of an answer that are not trained with 0. "
        "Nothing is padded, so nothing of padding is learned.",
    .per = SLUICE_PER_TOKEN,
    .tokens = tokens,
};
SLUICE_PLUGIN("sft", "1.0", "Apache-2.0", &sft_class.base);
