/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* fini uses what a failed init did not make.
 * Caught by: life=CRASHED */
#include "tests/plugins/bad/bad.h"

struct state {
    const sluice_model_service *models;
    int *made;
};

static int init(void *self, const sluice_host *host)
{
    struct state *s = self;
    s->models = sluice_service(host, SLUICE_MODEL_SERVICE);
    if (!s->models)
        return sluice_error(host, SLUICE_BAD_PLUGIN, "no plugin provides models");
    s->made = calloc(1, sizeof *s->made);
    return SLUICE_OK;
}

static void fini(void *self)
{
    struct state *s = self;
    *(volatile int *)s->made = 0;
    free(s->made);
}

static int process(void *self, sluice_record *record)
{
    return doubt(record, 0.9);
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .base.init = init, .base.fini = fini,
                                       .process = process};
BAD_PLUGIN(bad);
