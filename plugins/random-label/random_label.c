/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* random-label: exchanges chosen and rejected at random, a control: what does training do when labels mean nothing? */
#include <math.h>
#include <string.h>
#include <sluice/stage.h>
#include <sluice/random.h>

struct random_label {
    double fraction;
    const char *truth, *mark;

    const sluice_host *host;
    uint64_t pairs, flipped;
    uint64_t right, known; /* of pairs whose truth differs */
};

static const sluice_param params[] = {
    SLUICE_DOUBLE(struct random_label, fraction, .value = 0.5, .min = 0, .max = 1,
                  .doc = "How many labels are exchanged; 0.5 makes them random, 0.25 is WARM's corruption."),
    SLUICE_STAGE(struct random_label, truth,
                 .doc =
                     "A judge that knows (a verifier): the share of labels that it confirms afterwards is reported."),
    SLUICE_STRING(struct random_label, mark,
                  .doc = "A meta field that gets \"flipped\", \"kept\", or for several pairs of which some are "
                         "exchanged \"mixed\": what a judge makes of wrong labels is measured by the evaluator's "
                         "group."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"pairs", "pairs", "Pairs seen."},
    {"flipped", NULL, "Fraction of pairs whose label was exchanged."},
    {"label_accuracy", NULL, "Of the pairs whose truth differs, the fraction labelled right after the exchange."},
    {0}};

static int init(void *self, const sluice_host *host)
{
    struct random_label *state = self;
    state->host = host;
    if (state->mark && !state->mark[0])
        return sluice_error(host, SLUICE_BAD_PARAMETER, "mark is empty; name a meta field, or leave it out");
    return SLUICE_OK;
}

/* By what it is for, never by when it is drawn: neither order nor interruption changes a label. */
static double draw(const struct random_label *state, const sluice_record *record, size_t pair)
{
    const char *id = sluice_record_id(record);
    sluice_draw place = {.seed = sluice_seed(state->host),
                         .record = sluice_random_name(id, strlen(id)),
                         .candidate = pair,
                         .purpose = SLUICE_PURPOSE_LABEL};
    uint64_t key[2], counter[2];
    uint32_t bits[4];
    sluice_draw_place(&place, key, counter);
    sluice_philox(key, counter, bits);
    return sluice_uniform_double(bits[0], bits[1]);
}

/* Counts whether the label that came out is what the verifier says. */
static int compare_truth(struct random_label *state, const sluice_record *record, size_t index)
{
    const float *truth = state->truth ? sluice_record_scores(record, state->truth) : NULL;
    sluice_pair pair;
    int rc = sluice_record_pair(record, index, &pair);
    if (rc < 0 || !truth || isnan(truth[pair.chosen]) || isnan(truth[pair.rejected]) ||
        truth[pair.chosen] == truth[pair.rejected])
        return rc;
    state->known++;
    state->right += (truth[pair.chosen] > truth[pair.rejected]) == (pair.p > 0.5);
    return SLUICE_OK;
}

static int process(void *self, sluice_record *record)
{
    struct random_label *state = self;
    size_t count = sluice_record_pairs(record), exchanged = 0;
    for (size_t i = 0; i < count; i++) {
        bool flip = draw(state, record, i) < state->fraction;
        /* A regularizer changes p only: p = 0 is the same pair with the label exchanged. */
        int rc = sluice_pair_doubt(record, i, flip ? 0 : 1, 1);
        if (rc < 0)
            return rc;
        state->pairs++;
        exchanged += flip;
        if ((rc = compare_truth(state, record, i)) < 0)
            return rc;
    }
    state->flipped += exchanged;
    if (!state->mark || count == 0)
        return SLUICE_OK;
    return sluice_record_set_meta_text(record, state->mark,
                                       exchanged == 0       ? "kept"
                                       : exchanged == count ? "flipped"
                                                            : "mixed");
}

static int finish(void *self)
{
    struct random_label *state = self;
    sluice_metric(state->host, "pairs", (double)state->pairs);
    if (state->pairs > 0)
        sluice_metric(state->host, "flipped", (double)state->flipped / (double)state->pairs);
    if (state->known > 0)
        sluice_metric(state->host, "label_accuracy", (double)state->right / (double)state->known);
    return SLUICE_OK;
}

static const sluice_stage_class random_label_class = {
    SLUICE_STAGE_CLASS(SLUICE_REGULARIZER, "random-label", "Exchange chosen and rejected at random (a control)",
                       struct random_label, params),
    .base.reads = SLUICE_FIELD_PAIRS,
    .base.adds = SLUICE_FIELD_TRUST,
    .base.doc = "Each pair's label is exchanged (p becomes 1 - p) with the given probability, drawn from the seed and "
                "the record's id. "
                "A regularizer whose result is not better than this one's has proved nothing, however high its "
                "consistency rate.",
    .base.metrics = metrics,
    .base.init = init,
    .process = process,
    .finish = finish,
};
SLUICE_PLUGIN("random-label", "1.0", "Apache-2.0", &random_label_class.base);
