/* @ID@: marks down answers that repeat themselves. The score is minus the fraction of n-grams of words that stood in
 * the answer before (seq-rep-n of Welleck et al. 2019, arXiv 1908.04319); 0 = nothing is repeated. */
#include <stdlib.h>
#include <string.h>
#include <sluice/random.h>
#include <sluice/stage.h>

struct judge {
    int64_t n;

    const sluice_host *host;
    uint64_t answers;
    double repeated; /* sum of the fractions */
};

static const sluice_param params[] = {
    SLUICE_INT(struct judge, n, .value = 3, .min = 1, .max = 16, .unit = "words", .doc = "Length of an n-gram."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"answers", "candidates", "Answers judged."},
    {"repetition", NULL, "Mean fraction of an answer's n-grams that stood in it before."},
    {NULL, NULL, NULL}};

static int init(void *self, const sluice_host *host)
{
    ((struct judge *)self)->host = host;
    return SLUICE_OK;
}

static int compare(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Hashes of the text's words, in order; `words` has room for one in two bytes. */
static size_t split(const char *text, uint64_t *words)
{
    static const char spaces[] = " \t\r\n";
    size_t count = 0;
    for (text += strspn(text, spaces); *text; text += strspn(text, spaces)) {
        const size_t length = strcspn(text, spaces);
        words[count++] = sluice_random_name(text, length);
        text += length;
    }
    return count;
}

/* Fraction of repeated n-grams, 0 where there is none; negative when out of memory. */
static double repetition(const char *text, size_t n)
{
    uint64_t *words = malloc((strlen(text) / 2 + 1) * sizeof *words);
    if (!words)
        return -1;
    const size_t count = split(text, words);
    size_t repeated = 0, grams = 0;
    for (; grams + n <= count; grams++) /* each n-gram's hash takes the place of its first word */
        for (size_t i = 1; i < n; i++)
            words[grams] = sluice_mix(words[grams], words[grams + i]);
    qsort(words, grams, sizeof *words, compare);
    for (size_t i = 1; i < grams; i++)
        repeated += words[i] == words[i - 1];
    free(words);
    return grams ? (double)repeated / (double)grams : 0;
}

static int process(void *self, sluice_record *record)
{
    struct judge *judge = self;
    for (size_t i = 0; i < sluice_record_candidates(record); i++) {
        sluice_candidate candidate;
        int rc = sluice_record_candidate(record, i, &candidate);
        if (rc < 0)
            return rc;
        if (!candidate.text) /* nothing to judge: no score, which is not 0 */
            continue;
        const double share = repetition(candidate.text, (size_t)judge->n);
        if (share < 0)
            return sluice_error(judge->host, SLUICE_NO_MEMORY, "out of memory for an answer of %zu bytes",
                                strlen(candidate.text));
        rc = sluice_record_set_score(record, sluice_stage_name(judge->host), i, (float)-share);
        if (rc < 0)
            return rc;
        judge->answers++;
        judge->repeated += share;
    }
    return SLUICE_OK;
}

static int finish(void *self)
{
    struct judge *judge = self;
    sluice_metric(judge->host, "answers", (double)judge->answers);
    if (judge->answers > 0)
        sluice_metric(judge->host, "repetition", judge->repeated / (double)judge->answers);
    return SLUICE_OK;
}

static const sluice_stage_class judge_class = {
    SLUICE_STAGE_CLASS(SLUICE_JUDGE, "@ID@", "Marks down answers that repeat themselves", struct judge, params),
    .base.reads = SLUICE_FIELD_CANDIDATES,
    .base.adds = SLUICE_FIELD_SCORES,
    .base.traits = SLUICE_STATELESS,
    .base.doc =
        "The score is minus the fraction of n-grams of words that stood in the answer before (Welleck et al. 2019, "
        "seq-rep-n). Answers of fewer than n words score 0, those without text nothing.",
    .base.metrics = metrics,
    .base.init = init,
    .process = process,
    .finish = finish,
};
SLUICE_PLUGIN("@NAME@", "1.0", "MIT", &judge_class.base);
