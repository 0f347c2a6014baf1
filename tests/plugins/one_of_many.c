/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A plugin of which tests/test_load.sh makes many, each with another number in place of 000. */
#include <sluice/sluice.h>

struct one {
    int64_t nothing;
};

static const sluice_param params[] = {SLUICE_INT(struct one, nothing, .value = 0, .doc = "Changes nothing."),
                                      SLUICE_PARAMS_END};

static int process(void *self, sluice_record *record)
{
    (void)self, (void)record;
    return SLUICE_OK;
}

static const sluice_stage_class one_class = {
    SLUICE_STAGE_CLASS(SLUICE_TRANSFORM, "many/one-000", "Changes nothing", struct one, params),
    .process = process,
};

SLUICE_PLUGIN("one-of-many-000", "1.0", "Apache-2.0", &one_class.base);
