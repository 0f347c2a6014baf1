/* @ID@: clear pairs weigh more. A pair's weight is the logistic function of how many standard deviations the gap
 * between its scores lies above the mean gap of all pairs, worked out on the GPU. */
#include <math.h>
#include <stdlib.h>
#include <sluice/cuda.h>
#include <sluice/stage.h>

#include "@NAME@.h"

struct regularizer {
    const char *by;

    const sluice_host *host;
    const sluice_cuda_service *cuda;
    sluice_cuda *gpu;
    float *gaps; /* [count] of all pairs; their weights once the stream was seen */
    size_t count, room, next;
    double sum; /* of weights */
};

static const sluice_param params[] = {
    SLUICE_STAGE(struct regularizer, by, .required = true, .doc = "The judge whose scores say how clear a pair is."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"weight", NULL, "Mean weight given to a pair."}, {"pairs", "pairs", "Pairs seen."}, {NULL, NULL, NULL}};

static int init(void *self, const sluice_host *host)
{
    struct regularizer *r = self;
    r->host = host;
    r->cuda = sluice_service(host, SLUICE_CUDA_SERVICE);
    if (!r->cuda)
        return sluice_error(host, SLUICE_UNSUPPORTED, "this sluice was built without CUDA; build it where nvcc is");
    return r->cuda->open(r->cuda, host, &r->gpu);
}

static void fini(void *self)
{
    struct regularizer *r = self;
    if (r->gpu)
        r->cuda->close(r->gpu);
    free(r->gaps);
}

/* |score(chosen) - score(rejected)| of a pair; NaN where one is missing. */
static double gap(const struct regularizer *r, const sluice_record *record, size_t index)
{
    const float *scores = sluice_record_scores(record, r->by);
    sluice_pair pair;
    if (!scores || sluice_record_pair(record, index, &pair) < 0)
        return NAN;
    return fabs((double)scores[pair.chosen] - (double)scores[pair.rejected]);
}

/* First pass: every record once. */
static int observe(void *self, const sluice_record *record)
{
    struct regularizer *r = self;
    for (size_t i = 0; i < sluice_record_pairs(record); i++) {
        const double g = gap(r, record, i);
        if (isnan(g))
            return sluice_record_error(r->host, record, SLUICE_BAD_RECORD,
                                       "a pair has no scores of '%s'; name with by a judge that scored all candidates",
                                       r->by);
        if (r->count == r->room) {
            const size_t room = r->room ? 2 * r->room : 1024;
            float *grown = realloc(r->gaps, room * sizeof *grown);
            if (!grown)
                return sluice_error(r->host, SLUICE_NO_MEMORY, "out of memory for %zu pairs", room);
            r->gaps = grown;
            r->room = room;
        }
        r->gaps[r->count++] = (float)g;
    }
    return SLUICE_OK;
}

/* Gaps in, weights out. */
static int weigh(struct regularizer *r, float *x, float *weight, double *sums, double *parts)
{
    struct CUstream_st *stream;
    int rc = r->cuda->write(r->gpu, x, r->gaps, r->count * sizeof *x);
    if (rc == SLUICE_OK)
        rc = sluice_cuda_enter(r->cuda, r->gpu, &stream);
    if (rc == SLUICE_OK) {
        int error = launch_sums(sums, parts, x, r->count, stream);
        if (!error)
            error = launch_weights(weight, x, sums, r->count, stream);
        rc = sluice_cuda_leave(r->cuda, r->gpu, error);
    }
    return rc == SLUICE_OK ? r->cuda->read(r->gpu, r->gaps, weight, r->count * sizeof *weight) : rc;
}

/* Between the passes. */
static int settle(void *self)
{
    struct regularizer *r = self;
    if (r->count == 0)
        return SLUICE_OK;
    float *x = r->cuda->alloc(r->gpu, r->count * sizeof *x);
    float *weight = x ? r->cuda->alloc(r->gpu, r->count * sizeof *weight) : NULL;
    double *sums = weight ? r->cuda->alloc(r->gpu, (2 + 2 * PARTS) * sizeof *sums) : NULL;
    const int rc = sums ? weigh(r, x, weight, sums, sums + 2) : SLUICE_NO_MEMORY;
    r->cuda->free(r->gpu, sums);
    r->cuda->free(r->gpu, weight);
    r->cuda->free(r->gpu, x);
    return rc;
}

/* Second pass: the same records again. */
static int process(void *self, sluice_record *record)
{
    struct regularizer *r = self;
    for (size_t i = 0; i < sluice_record_pairs(record); i++) {
        const double weight = r->gaps[r->next++];
        const int rc = sluice_pair_doubt(record, i, 1, weight);
        if (rc < 0)
            return rc;
        r->sum += weight;
    }
    return SLUICE_OK;
}

static int finish(void *self)
{
    struct regularizer *r = self;
    const sluice_number numbers[] = {{"weight", r->count ? r->sum / (double)r->count : 0}, {"pairs", (double)r->count}};
    sluice_metrics(r->host, -1, numbers, 2);
    return SLUICE_OK;
}

static const sluice_stage_class regularizer_class = {
    SLUICE_STAGE_CLASS(SLUICE_REGULARIZER, "@ID@", "Clear pairs weigh more, worked out on the GPU", struct regularizer,
                       params),
    .base.reads = SLUICE_FIELD_SCORES | SLUICE_FIELD_PAIRS,
    .base.adds = SLUICE_FIELD_TRUST,
    .base.traits = SLUICE_WHOLE_STREAM | SLUICE_USES_DEVICE | SLUICE_USES_CUDA | SLUICE_IN_PROCESS,
    .base.doc = "A pair's weight is the logistic function of how many standard deviations the gap between the scores "
                "of chosen and "
                "rejected lies above the mean gap of all pairs.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .observe = observe,
    .settle = settle,
    .process = process,
    .finish = finish,
};
SLUICE_PLUGIN("@NAME@", "1.0", "MIT", &regularizer_class.base);
