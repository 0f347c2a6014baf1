/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What plugins with one fault each have in common. The head of each says which tests of `sluice test-plugin` fail, and
 * how; tests/test_conformance.sh compares.
 */
#ifndef TESTS_BAD_H
#define TESTS_BAD_H

#include <stdlib.h>
#include <string.h>
#include <sluice/sluice.h>

/* A regularizer that does everything right; members given after it win. */
#define GOOD(id, state, params)                                                        \
    SLUICE_STAGE_CLASS(SLUICE_REGULARIZER, id, "Does one thing wrong", state, params), \
        .base.doc = "A plugin that the conformance suite must find fault with.",       \
        .base.reads = SLUICE_FIELD_PAIRS | SLUICE_FIELD_SCORES, .base.adds = SLUICE_FIELD_TRUST

#define BAD_PLUGIN(name) SLUICE_PLUGIN("bad", "1", "Apache-2.0", &name.base)

static const sluice_param no_params[] SLUICE_UNUSED = {SLUICE_PARAMS_END};

/* Doubts every pair alike. */
static int SLUICE_UNUSED doubt(sluice_record *record, double p)
{
    int rc = SLUICE_OK;
    for (size_t i = 0; rc >= 0 && i < sluice_record_pairs(record); i++)
        rc = sluice_pair_doubt(record, i, p, 1);
    return rc;
}

#endif
