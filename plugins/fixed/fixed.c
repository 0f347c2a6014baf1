/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* fixed: one consistency rate for all pairs, the control that CREAM's own rate has to beat (Wang et al. 2024, section
 * 5). */
#include <sluice/stage.h>

struct fixed {
    double c;
};

static const sluice_param params[] = {
    SLUICE_DOUBLE(struct fixed, c, .value = 0.75, .min = 0, .max = 1,
                  .doc = "The probability that a label is right, the same for every pair."),
    SLUICE_PARAMS_END};

static int process(void *self, sluice_record *record)
{
    const struct fixed *fixed = self;
    for (size_t i = 0; i < sluice_record_pairs(record); i++) {
        int rc = sluice_pair_doubt(record, i, fixed->c, 1);
        if (rc < 0)
            return rc;
    }
    return SLUICE_OK;
}

static const sluice_stage_class fixed_class = {
    SLUICE_STAGE_CLASS(SLUICE_REGULARIZER, "fixed", "Trust every pair with one given probability", struct fixed,
                       params),
    .base.reads = SLUICE_FIELD_PAIRS,
    .base.adds = SLUICE_FIELD_TRUST,
    .base.traits = SLUICE_STATELESS,
    .base.doc = "p becomes p c + (1 - p)(1 - c). With c = the mean rate that cream measured, it shows how much of "
                "cream's effect is "
                "only the amount of smoothing.",
    .process = process,
};
SLUICE_PLUGIN("fixed", "1.0", "Apache-2.0", &fixed_class.base);
