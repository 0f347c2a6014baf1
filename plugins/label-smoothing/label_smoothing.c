/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* label-smoothing: every label is wrong with the same small probability (cDPO, Mitchell 2023). */
#include <sluice/stage.h>

struct smoothing {
    double epsilon;
};

static const sluice_param params[] = {
    SLUICE_DOUBLE(struct smoothing, epsilon, .value = 0.1, .min = 0, .max = 0.5,
                  .doc = "How often labels are taken to be wrong; 0.5 says that nothing is known."),
    SLUICE_PARAMS_END};

static int process(void *self, sluice_record *record)
{
    const struct smoothing *smoothing = self;
    for (size_t i = 0; i < sluice_record_pairs(record); i++) {
        int rc = sluice_pair_doubt(record, i, 1 - smoothing->epsilon, 1);
        if (rc < 0)
            return rc;
    }
    return SLUICE_OK;
}

static const sluice_stage_class smoothing_class = {
    SLUICE_STAGE_CLASS(SLUICE_REGULARIZER, "label-smoothing", "Take every label to be wrong with probability epsilon",
                       struct smoothing, params),
    .base.reads = SLUICE_FIELD_PAIRS,
    .base.adds = SLUICE_FIELD_TRUST,
    .base.traits = SLUICE_STATELESS,
    .base.doc =
        "p becomes p (1 - epsilon) + (1 - p) epsilon: with loss = \"dpo\" this is cDPO (TRL's label_smoothing).",
    .process = process,
};
SLUICE_PLUGIN("label-smoothing", "1.0", "Apache-2.0", &smoothing_class.base);
