/* @ID@: exact match. The fraction of answers that are, white space at both ends aside, the text a record's meta field
 * holds. */
#include <ctype.h>
#include <math.h>
#include <string.h>
#include <sluice/stage.h>

struct evaluator {
    const char *field;

    const sluice_host *host;
    uint64_t questions, answers;
    double matched, squares; /* sums over the questions of each one's own fraction */
};

static const sluice_param params[] = {
    SLUICE_STRING(struct evaluator, field, .text = "answer", .doc = "Meta field of the right answer."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"questions", "records", "Records with an answer."},
    {"exact_match", NULL, "Fraction of right answers: mean over the questions of each question's own."},
    {"exact_match/error", NULL, "Its standard error; answers to one question do not count as independent."},
    {NULL, NULL, NULL}};

static int init(void *self, const sluice_host *host)
{
    ((struct evaluator *)self)->host = host;
    return SLUICE_OK;
}

static bool same(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    for (; n > 0 && isspace((unsigned char)*a); a++)
        n--;
    for (; m > 0 && isspace((unsigned char)*b); b++)
        m--;
    while (n > 0 && isspace((unsigned char)a[n - 1]))
        n--;
    while (m > 0 && isspace((unsigned char)b[m - 1]))
        m--;
    return n == m && memcmp(a, b, n) == 0;
}

static int process(void *self, sluice_record *record)
{
    struct evaluator *e = self;
    const size_t count = sluice_record_candidates(record);
    const char *right = sluice_record_meta_text(record, e->field);
    size_t matched = 0;
    if (count == 0)
        return SLUICE_OK;
    if (!right)
        return sluice_record_error(e->host, record, SLUICE_BAD_RECORD,
                                   "its meta fields have no text under the name that field gives; name the one of the "
                                   "right answer");
    for (size_t i = 0; i < count; i++) {
        sluice_candidate candidate;
        const int rc = sluice_record_candidate(record, i, &candidate);
        if (rc < 0)
            return rc;
        matched += candidate.text && same(candidate.text, right);
    }
    const double fraction = (double)matched / (double)count;
    e->questions++;
    e->answers += count;
    e->matched += fraction;
    e->squares += fraction * fraction;
    return SLUICE_OK;
}

static int finish(void *self)
{
    struct evaluator *e = self;
    const double n = (double)e->questions;
    if (e->questions == 0)
        return sluice_error(e->host, SLUICE_BAD_RECORD, "no record has an answer; put a sampler before this stage");
    const double mean = e->matched / n, variance = fmax(0, e->squares / n - mean * mean);
    const sluice_number numbers[] = {
        {"questions", n}, {"exact_match", mean}, {"exact_match/error", sqrt(variance / fmax(1, n - 1))}};
    sluice_metrics(e->host, -1, numbers, 3);
    return SLUICE_OK;
}

static const sluice_stage_class evaluator_class = {
    SLUICE_STAGE_CLASS(SLUICE_EVALUATOR, "@ID@", "Fraction of answers that are exactly right", struct evaluator,
                       params),
    .base.reads = SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_META,
    .base.doc = "An answer is right when it is, white space at both ends aside, the text of the meta field.",
    .base.metrics = metrics,
    .base.init = init,
    .process = process,
    .finish = finish,
};
SLUICE_PLUGIN("@NAME@", "1.0", "MIT", &evaluator_class.base);
