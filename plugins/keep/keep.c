/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* keep: trusts every pair. The regularizer that changes nothing, for comparing the others with. */
#include <sluice/stage.h>

struct keep {
    char none; /* no parameters */
};

static const sluice_param params[] = {SLUICE_PARAMS_END};

static int process(void *self, sluice_record *record)
{
    return SLUICE_OK;
}

static const sluice_stage_class keep_class = {
    SLUICE_STAGE_CLASS(SLUICE_REGULARIZER, "keep", "Trust every pair as it is", struct keep, params),
    .base.reads = SLUICE_FIELD_PAIRS,
    .base.adds = SLUICE_FIELD_TRUST,
    .base.traits = SLUICE_STATELESS,
    .base.doc = "Leaves p and weight of every pair as they are. Put it in a regularizer's place to see what the "
                "regularizer does.",
    .process = process,
};
SLUICE_PLUGIN("keep", "1.0", "Apache-2.0", &keep_class.base);
