/* Trust by margin: pairs whose scores lie closer than the data set's mean gap count half. A stranger's regularizer. */
#include <sluice/stage.h>
#include <math.h>

struct halve {
    const char *by; /* the judge whose scores are read */
    const sluice_host *host;
    double sum;
    uint64_t count, halved;
};

static const sluice_param params[] = {
    SLUICE_STAGE(struct halve, by, .required = true, .doc = "Judge whose scores measure how clear a pair is."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {{"mean_gap", NULL, "Mean difference of the scores of chosen and rejected."},
                                             {"halved", "pairs", "Pairs that count half."},
                                             {NULL, NULL, NULL}};

static int init(void *self, const sluice_host *host)
{
    ((struct halve *)self)->host = host;
    return SLUICE_OK;
}

/* |score(chosen) - score(rejected)|, NaN where one is missing. */
static double gap(const float *scores, const sluice_pair *pair)
{
    return scores ? fabs((double)scores[pair->chosen] - (double)scores[pair->rejected]) : NAN;
}

/* First pass: every record once. */
static int observe(void *self, const sluice_record *record)
{
    struct halve *h = self;
    const float *scores = sluice_record_scores(record, h->by);
    for (size_t i = 0; i < sluice_record_pairs(record); i++) {
        sluice_pair pair;
        sluice_record_pair(record, i, &pair);
        double g = gap(scores, &pair);
        if (isnan(g))
            return sluice_record_error(h->host, record, SLUICE_BAD_RECORD,
                                       "no scores of '%s' for a pair; name a judge that scored these candidates with by = ...",
                                       h->by);
        h->sum += g;
        h->count++;
    }
    return SLUICE_OK;
}

/* Between the passes. */
static int settle(void *self)
{
    struct halve *h = self;
    sluice_metric(h->host, "mean_gap", h->count ? h->sum / (double)h->count : 0);
    return SLUICE_OK;
}

/* Second pass: the same records again. */
static int process(void *self, sluice_record *record)
{
    struct halve *h = self;
    for (size_t i = 0; i < sluice_record_pairs(record); i++) {
        sluice_pair pair;
        sluice_record_pair(record, i, &pair);
        if (gap(sluice_record_scores(record, h->by), &pair) >= h->sum / (double)h->count)
            continue;
        int rc = sluice_pair_doubt(record, i, 1, 0.5);
        if (rc < 0)
            return rc;
        h->halved++;
    }
    return SLUICE_OK;
}

static int finish(void *self)
{
    struct halve *h = self;
    sluice_metric(h->host, "halved", (double)h->halved);
    return SLUICE_OK;
}

static const sluice_stage_class halve = {
    SLUICE_STAGE_CLASS(SLUICE_REGULARIZER, "stranger/halve", "Unclear pairs count half", struct halve, params),
    .base.reads = SLUICE_FIELD_SCORES | SLUICE_FIELD_PAIRS,
    .base.adds = SLUICE_FIELD_TRUST,
    .base.traits = SLUICE_WHOLE_STREAM,
    .base.metrics = metrics,
    .base.init = init,
    .observe = observe,
    .settle = settle,
    .process = process,
    .finish = finish,
};
SLUICE_PLUGIN("stranger-halve", "1.0", "MIT", &halve.base);
