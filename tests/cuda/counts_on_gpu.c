/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A plugin that counts on the GPU, with checkpoints. AHEAD=1: they are one step ahead of what was done, which
 * test-plugin must find. */
#include <sluice/sluice.h>
#include <sluice/cuda.h>

#include "tests/plugins/bad/counts.h"

enum { STEPS = 6 };

struct state {
    const sluice_host *host;
    const sluice_cuda_service *service;
    sluice_cuda *gpu;
};

static const sluice_param params[] = {SLUICE_PARAMS_END};
static const sluice_metric_info metrics[] = {{"sum", NULL, "Sum of the steps taken."}, {0}};

static int init(void *self, const sluice_host *host)
{
    struct state *s = self;
    s->host = host;
    s->service = sluice_service(host, SLUICE_CUDA_SERVICE);
    if (!s->service)
        return sluice_error(host, SLUICE_UNSUPPORTED, "there is no sluice.cuda/1");
    return s->service->open(s->service, host, &s->gpu);
}

static void fini(void *self)
{
    struct state *s = self;
    if (s->gpu)
        s->service->close(s->gpu);
}

/* The next step and the sum so far lie on the GPU from step to step. */
static int take_steps(struct state *s, void *there)
{
    int counts[2] = {0, 0};
    load(s->host, &counts[0], &counts[1]);
    int rc = s->service->write(s->gpu, there, counts, sizeof counts);
    while (rc >= 0 && counts[0] < STEPS) {
        counts[0] = counts[1] = -1;
        if ((rc = s->service->read(s->gpu, counts, there, sizeof counts)) < 0)
            break;
        counts[1] += ++counts[0];
        if ((rc = s->service->write(s->gpu, there, counts, sizeof counts)) >= 0)
            rc = save(s->host, counts[0] + AHEAD, counts[1]);
        if (rc >= 0 && sluice_cancelled(s->host))
            rc = SLUICE_CANCELLED;
    }
    if (rc >= 0)
        sluice_metric(s->host, "sum", counts[1]);
    return rc;
}

static int run(void *self)
{
    struct state *s = self;
    sluice_record *record;
    int rc;
    while ((rc = sluice_next(s->host, &record)) == SLUICE_OK)
        if ((rc = sluice_emit(s->host, record)) < 0)
            return rc;
    if (rc < 0)
        return rc;
    void *there = s->service->alloc(s->gpu, 2 * sizeof(int));
    rc = there ? take_steps(s, there) : sluice_error(s->host, SLUICE_NO_MEMORY, "no memory for two numbers");
    s->service->free(s->gpu, there);
    return rc;
}

static const sluice_stage_class counts_on_gpu = {
    SLUICE_STAGE_CLASS(SLUICE_REGULARIZER, "ann/counts", "Counts on the GPU", struct state, params),
    .base.doc = "Counts to six on the GPU, and sends records on as they are.",
    .base.reads = SLUICE_FIELD_PAIRS,
    .base.traits = SLUICE_USES_DEVICE | SLUICE_USES_CUDA | SLUICE_IN_PROCESS,
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .run = run};
SLUICE_PLUGIN("ann", "1", "Apache-2.0", &counts_on_gpu.base);
