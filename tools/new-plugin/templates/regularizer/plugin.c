/* @ID@: trust the clear pairs. Of all pairs of the stream only the share with the widest gaps between the scores of
 * chosen and rejected answer counts; the others get weight 0, and trainers leave them out. */
#include <math.h>
#include <stdlib.h>
#include <sluice/stage.h>

struct regularizer {
    const char *by;
    double share;

    const sluice_host *host;
    double *gaps; /* [count] of all pairs */
    size_t count, room;
    double least; /* gaps below it are not trusted */
    uint64_t kept;
};

static const sluice_param params[] = {
    SLUICE_STAGE(struct regularizer, by, .required = true, .doc = "The judge whose scores say how clear a pair is."),
    SLUICE_DOUBLE(struct regularizer, share, .value = 0.5, .above = 0, .max = 1, .doc = "Share of the pairs to keep."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {{"least_gap", NULL, "Narrowest gap between scores that was trusted."},
                                             {"kept", "pairs", "Pairs trusted."},
                                             {"pairs", "pairs", "Pairs seen."},
                                             {NULL, NULL, NULL}};

static int init(void *self, const sluice_host *host)
{
    ((struct regularizer *)self)->host = host;
    return SLUICE_OK;
}

static void fini(void *self)
{
    free(((struct regularizer *)self)->gaps);
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
            double *grown = realloc(r->gaps, room * sizeof *grown);
            if (!grown)
                return sluice_error(r->host, SLUICE_NO_MEMORY, "out of memory for %zu pairs", room);
            r->gaps = grown;
            r->room = room;
        }
        r->gaps[r->count++] = g;
    }
    return SLUICE_OK;
}

static int widest_first(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* Between the passes. */
static int settle(void *self)
{
    struct regularizer *r = self;
    if (r->count == 0)
        return SLUICE_OK;
    qsort(r->gaps, r->count, sizeof *r->gaps, widest_first);
    r->least = r->gaps[(size_t)ceil(r->share * (double)r->count) - 1];
    return SLUICE_OK;
}

/* Second pass: the same records again. */
static int process(void *self, sluice_record *record)
{
    struct regularizer *r = self;
    for (size_t i = 0; i < sluice_record_pairs(record); i++) {
        const bool clear = gap(r, record, i) >= r->least;
        const int rc = sluice_pair_doubt(record, i, 1, clear ? 1 : 0);
        if (rc < 0)
            return rc;
        r->kept += clear;
    }
    return SLUICE_OK;
}

static int finish(void *self)
{
    struct regularizer *r = self;
    const sluice_number numbers[] = {{"least_gap", r->least}, {"kept", (double)r->kept}, {"pairs", (double)r->count}};
    sluice_metrics(r->host, -1, numbers, 3);
    return SLUICE_OK;
}

static const sluice_stage_class regularizer_class = {
    SLUICE_STAGE_CLASS(SLUICE_REGULARIZER, "@ID@", "Only the clearest pairs count", struct regularizer, params),
    .base.reads = SLUICE_FIELD_SCORES | SLUICE_FIELD_PAIRS,
    .base.adds = SLUICE_FIELD_TRUST,
    .base.traits = SLUICE_WHOLE_STREAM,
    .base.doc =
        "Of all pairs the share with the widest gaps between the scores of chosen and rejected keeps its weight, "
        "the others get weight 0. Gaps equal to the narrowest one kept are kept too.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .observe = observe,
    .settle = settle,
    .process = process,
    .finish = finish,
};
SLUICE_PLUGIN("@NAME@", "1.0", "MIT", &regularizer_class.base);
