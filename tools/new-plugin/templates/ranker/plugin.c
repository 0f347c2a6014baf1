/* @ID@: pairs of neighbours. Candidates are ranked by a judge's scores; each is chosen over the one that follows it,
 * when their scores are far enough apart. */
#include <math.h>
#include <stdlib.h>
#include <sluice/stage.h>

struct entry {
    float score;
    uint32_t candidate;
};

struct ranker {
    const char *by;
    double gap;

    const sluice_host *host;
    struct entry *entries; /* [room] the record's scored candidates, best first */
    uint32_t *ranks;       /* [room] */
    size_t room;
    uint64_t pairs, close;
};

static const sluice_param params[] = {
    SLUICE_STAGE(struct ranker, by, .required = true, .doc = "The judge whose scores rank the candidates."),
    SLUICE_DOUBLE(struct ranker, gap, .value = 0, .min = 0,
                  .doc = "Neighbours whose scores differ by no more than that give no pair."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {{"pairs", "pairs", "Pairs formed."},
                                             {"close", "pairs", "Neighbours too close to make a pair."},
                                             {NULL, NULL, NULL}};

static int init(void *self, const sluice_host *host)
{
    ((struct ranker *)self)->host = host;
    return SLUICE_OK;
}

static void fini(void *self)
{
    struct ranker *ranker = self;
    free(ranker->entries);
    free(ranker->ranks);
}

static bool make_room(struct ranker *ranker, size_t count)
{
    if (count <= ranker->room)
        return true;
    struct entry *entries = realloc(ranker->entries, count * sizeof *entries);
    ranker->entries = entries ? entries : ranker->entries;
    uint32_t *ranks = realloc(ranker->ranks, count * sizeof *ranks);
    ranker->ranks = ranks ? ranks : ranker->ranks;
    if (!entries || !ranks)
        return false;
    ranker->room = count;
    return true;
}

/* Best first; equal scores in the order of the candidates, so that the result never depends on the sort. */
static int compare(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    return (x->candidate > y->candidate) - (x->candidate < y->candidate);
}

/* Equal scores share a rank, 0 = best; candidates without a score have none. */
static int set_ranking(struct ranker *ranker, sluice_record *record, size_t count, size_t scored)
{
    for (size_t i = 0; i < count; i++)
        ranker->ranks[i] = UINT32_MAX;
    uint32_t rank = 0;
    for (size_t i = 0; i < scored; i++) {
        if (i > 0 && ranker->entries[i].score < ranker->entries[i - 1].score)
            rank = (uint32_t)i;
        ranker->ranks[ranker->entries[i].candidate] = rank;
    }
    return sluice_record_set_ranking(record, ranker->by, ranker->ranks);
}

static int process(void *self, sluice_record *record)
{
    struct ranker *ranker = self;
    const size_t count = sluice_record_candidates(record);
    int rc = sluice_record_clear_pairs(record);
    const float *scores = sluice_record_scores(record, ranker->by);
    if (rc < 0 || !scores) /* a judge may have nothing to say of a record */
        return rc;
    if (!make_room(ranker, count))
        return sluice_error(ranker->host, SLUICE_NO_MEMORY, "out of memory for %zu candidates", count);
    size_t scored = 0;
    for (size_t i = 0; i < count; i++)
        if (!isnan(scores[i]))
            ranker->entries[scored++] = (struct entry){scores[i], (uint32_t)i};
    qsort(ranker->entries, scored, sizeof *ranker->entries, compare);
    rc = set_ranking(ranker, record, count, scored);
    for (size_t i = 1; rc >= 0 && i < scored; i++) {
        const struct entry *better = &ranker->entries[i - 1], *worse = &ranker->entries[i];
        if ((double)better->score - (double)worse->score <= ranker->gap) {
            ranker->close++;
            continue;
        }
        const sluice_pair pair = {
            .chosen = better->candidate, .rejected = worse->candidate, .p = 1, .weight = 1, .margin = NAN};
        rc = sluice_record_add_pair(record, &pair);
        ranker->pairs += rc >= 0;
    }
    return rc;
}

static int finish(void *self)
{
    struct ranker *ranker = self;
    const sluice_number numbers[] = {{"pairs", (double)ranker->pairs}, {"close", (double)ranker->close}};
    sluice_metrics(ranker->host, -1, numbers, 2);
    return SLUICE_OK;
}

static const sluice_stage_class ranker_class = {
    SLUICE_STAGE_CLASS(SLUICE_RANKER, "@ID@", "Each answer is chosen over the next worse", struct ranker, params),
    .base.reads = SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_SCORES,
    .base.adds = SLUICE_FIELD_RANKINGS | SLUICE_FIELD_PAIRS,
    .base.traits = SLUICE_STATELESS,
    .base.doc = "Of n answers with different scores this makes n - 1 pairs. Answers without a score take no part.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .process = process,
    .finish = finish,
};
SLUICE_PLUGIN("@NAME@", "1.0", "MIT", &ranker_class.base);
