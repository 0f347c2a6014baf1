/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * ranker: from one judge's scores to a ranking and to pairs of chosen and rejected answers.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/stage.h>
#include <sluice/random.h>

enum pick { BEST_WORST, BEST_RANDOM, ALL_PAIRS };
enum ties { TIES_DROP, TIES_KEEP, TIES_FIRST };

struct ranker {
    const char *by, *truth;
    int pick, ties;
    bool margin;

    const sluice_host *host;
    uint32_t *work; /* 2 arrays of `room`: ranks; candidates that have a score */
    size_t room;
    uint64_t records, unpaired, pairs, tied, identical;
    uint64_t judged, lacking; /* records with candidates: with a score of the judge, without */
    uint64_t right, known;    /* of pairs whose truth differs */
    double margins;
};

static const char *const picks[] = {"best-worst", "best-random", "all-pairs", NULL};
static const char *const tie_rules[] = {"drop", "keep", "first", NULL};

static const sluice_param params[] = {
    SLUICE_STAGE(struct ranker, by, .required = true, .doc = "The judge whose scores rank the candidates."),
    SLUICE_CHOICE(
        struct ranker, pick, .value = BEST_WORST, .choices = picks,
        .doc = "Which pairs are formed: the best against the worst, the best against any other, or each against each."),
    SLUICE_CHOICE(struct ranker, ties, .value = TIES_DROP, .choices = tie_rules,
                  .doc = "What becomes of a pair with equal scores: no pair, a pair with p = 1/2, or the earlier "
                         "candidate is chosen."),
    SLUICE_BOOL(struct ranker, margin, .value = 0,
                .doc = "Whether the difference of the scores becomes the pair's margin."),
    SLUICE_STAGE(
        struct ranker, truth,
        .doc = "A judge that knows (a verifier): the share of pairs that it confirms is reported as label_accuracy."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"records", "records", "Records seen."},
    {"pairs", "pairs", "Pairs formed."},
    {"unpaired", "records", "Records that gave no pair."},
    {"ties", "pairs", "Pairs whose scores were equal; dropped unless `ties` says otherwise."},
    {"identical", "pairs", "Pairs dropped because chosen and rejected are the same answer."},
    {"score_margin", NULL, "Mean difference of the scores of chosen and rejected."},
    {"label_accuracy", NULL, "Of the pairs whose truth differs, the fraction with the right one chosen."},
    {"label_coverage", NULL, "Fraction of the pairs whose truth differs."},
    {0}};

static int init(void *self, const sluice_host *host)
{
    struct ranker *ranker = self;
    ranker->host = host;
    return SLUICE_OK;
}

static void fini(void *self)
{
    struct ranker *ranker = self;
    free(ranker->work);
}

/* The same tokens, or where nobody has encoded them the same text. */
static bool same_answer(const sluice_candidate *a, const sluice_candidate *b)
{
    if (a->tokens && b->tokens)
        return a->token_count == b->token_count &&
               (a->token_count == 0 || memcmp(a->tokens, b->tokens, a->token_count * sizeof(uint32_t)) == 0);
    return a->text && b->text && strcmp(a->text, b->text) == 0;
}

/* Counts whether the pair's label is what the verifier says. */
static void compare_truth(struct ranker *ranker, const sluice_record *record, const sluice_pair *pair)
{
    const float *truth = ranker->truth ? sluice_record_scores(record, ranker->truth) : NULL;
    if (!truth || isnan(truth[pair->chosen]) || isnan(truth[pair->rejected]) ||
        truth[pair->chosen] == truth[pair->rejected])
        return;
    ranker->known++;
    ranker->right += truth[pair->chosen] > truth[pair->rejected];
}

/* Forms the pair of a and b, unless they tie (see `ties`) or are the same answer. b may not score above a. */
static int form(struct ranker *ranker, sluice_record *record, const float *scores, uint32_t a, uint32_t b)
{
    sluice_candidate x, y;
    sluice_pair pair = {.chosen = a, .rejected = b, .p = 1, .weight = 1, .margin = NAN};
    int rc;
    if (a == b)
        return SLUICE_OK;
    if (scores[a] == scores[b]) {
        ranker->tied++;
        if (ranker->ties == TIES_DROP)
            return SLUICE_OK;
        if (ranker->ties == TIES_KEEP)
            pair.p = 0.5;
        pair.chosen = a < b ? a : b;
        pair.rejected = a < b ? b : a;
    }
    if ((rc = sluice_record_candidate(record, pair.chosen, &x)) < 0 ||
        (rc = sluice_record_candidate(record, pair.rejected, &y)) < 0)
        return rc;
    if (same_answer(&x, &y)) {
        ranker->identical++;
        return SLUICE_OK;
    }
    double difference = (double)scores[a] - scores[b];
    if (ranker->margin)
        pair.margin = difference;
    if ((rc = sluice_record_add_pair(record, &pair)) < 0)
        return rc;
    ranker->pairs++;
    ranker->margins += difference;
    compare_truth(ranker, record, &pair);
    return SLUICE_OK;
}

/* Uniform in 0 … n-1, by what it is for. */
static size_t choose(const struct ranker *ranker, const sluice_record *record, size_t n)
{
    const char *id = sluice_record_id(record);
    sluice_draw place = {.seed = sluice_seed(ranker->host),
                         .record = sluice_random_name(id, strlen(id)),
                         .purpose = SLUICE_PURPOSE_CHOICE};
    uint64_t key[2], counter[2];
    uint32_t bits[4];
    sluice_draw_place(&place, key, counter);
    sluice_philox(key, counter, bits);
    return sluice_uniform_below(bits[0], bits[1], n);
}

/* The best against one of the others, drawn at random; where ties are dropped, one of those that score less. */
static int best_random(struct ranker *ranker, sluice_record *record, const float *scores, uint32_t *scored, size_t n,
                       uint32_t best)
{
    size_t others = 0;
    for (size_t i = 0; i < n; i++)
        if (scored[i] != best && (ranker->ties != TIES_DROP || scores[scored[i]] < scores[best]))
            scored[others++] = scored[i];
    if (others == 0) {
        ranker->tied++;
        return SLUICE_OK;
    }
    return form(ranker, record, scores, best, scored[choose(ranker, record, others)]);
}

static int all_pairs(struct ranker *ranker, sluice_record *record, const float *scores, const uint32_t *scored,
                     size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = i + 1; j < n; j++) {
            uint32_t a = scored[i], b = scored[j];
            int rc = scores[a] >= scores[b] ? form(ranker, record, scores, a, b) : form(ranker, record, scores, b, a);
            if (rc < 0)
                return rc;
        }
    return SLUICE_OK;
}

/* Rank = how many score higher, so that equal scores share a rank. */
static int set_ranking(struct ranker *ranker, sluice_record *record, const float *scores, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t above = 0;
        for (size_t j = 0; j < count; j++)
            above += scores[j] > scores[i];
        ranker->work[i] = isnan(scores[i]) ? UINT32_MAX : above;
    }
    return sluice_record_set_ranking(record, ranker->by, ranker->work);
}

static int rank(struct ranker *ranker, sluice_record *record, const float *scores, size_t count)
{
    uint32_t *scored = ranker->work + ranker->room;
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        if (!isnan(scores[i]))
            scored[n++] = (uint32_t)i;
    if (n < 2)
        return SLUICE_OK;
    if (ranker->pick == ALL_PAIRS)
        return all_pairs(ranker, record, scores, scored, n);
    uint32_t best = scored[0], worst = scored[0];
    for (size_t i = 1; i < n; i++) {
        if (scores[scored[i]] > scores[best])
            best = scored[i];
        if (scores[scored[i]] < scores[worst])
            worst = scored[i];
    }
    if (ranker->pick == BEST_RANDOM)
        return best_random(ranker, record, scores, scored, n, best);
    if (best == worst) /* all equal: the first against the second stands for the tie */
        worst = scored[1];
    return form(ranker, record, scores, best, worst);
}

static int process(void *self, sluice_record *record)
{
    struct ranker *ranker = self;
    size_t count = sluice_record_candidates(record);
    int rc = sluice_record_clear_pairs(record);
    if (rc < 0)
        return rc;
    ranker->records++;
    if (count == 0) {
        ranker->unpaired++;
        return SLUICE_OK;
    }
    if (count > ranker->room) {
        uint32_t *grown = realloc(ranker->work, 2 * count * sizeof(uint32_t));
        if (!grown)
            return sluice_error(ranker->host, SLUICE_NO_MEMORY, "out of memory for %zu candidates", count);
        ranker->work = grown;
        ranker->room = count;
    }
    const float *borrowed = sluice_record_scores(record, ranker->by);
    if (!borrowed) { /* a judge may have nothing to say of a record */
        ranker->unpaired++;
        ranker->lacking++;
        return SLUICE_OK;
    }
    ranker->judged++;
    float *scores = malloc(count * sizeof(float)); /* what is read of a record is gone once the record is changed */
    if (!scores)
        return sluice_error(ranker->host, SLUICE_NO_MEMORY, "out of memory for %zu candidates", count);
    memcpy(scores, borrowed, count * sizeof(float));
    rc = set_ranking(ranker, record, scores, count);
    if (rc >= 0)
        rc = rank(ranker, record, scores, count);
    free(scores);
    if (rc >= 0)
        ranker->unpaired += sluice_record_pairs(record) == 0;
    return rc;
}

static int finish(void *self)
{
    struct ranker *ranker = self;
    if (ranker->lacking > 0 && ranker->judged == 0)
        return sluice_error(
            ranker->host, SLUICE_BAD_RECORD,
            "no record has scores of '%s': it gave none, which its numbers in metrics.jsonl say, or is not before "
            "this stage in the chain; mend that judge, or put it there",
            ranker->by);
    sluice_number numbers[8] = {{"records", (double)ranker->records},
                                {"pairs", (double)ranker->pairs},
                                {"unpaired", (double)ranker->unpaired},
                                {"ties", (double)ranker->tied},
                                {"identical", (double)ranker->identical}};
    size_t count = 5;
    if (ranker->pairs > 0)
        numbers[count++] = (sluice_number){"score_margin", ranker->margins / (double)ranker->pairs};
    if (ranker->truth && ranker->known > 0)
        numbers[count++] = (sluice_number){"label_accuracy", (double)ranker->right / (double)ranker->known};
    if (ranker->truth && ranker->pairs > 0)
        numbers[count++] = (sluice_number){"label_coverage", (double)ranker->known / (double)ranker->pairs};
    sluice_metrics(ranker->host, -1, numbers, count);
    return SLUICE_OK;
}

static const sluice_stage_class ranker_class = {
    SLUICE_STAGE_CLASS(SLUICE_RANKER, "ranker", "Rank candidates by a judge's scores and form pairs", struct ranker,
                       params),
    .base.reads = SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_SCORES,
    .base.adds = SLUICE_FIELD_RANKINGS | SLUICE_FIELD_PAIRS,
    .base.doc = "Writes the ranking (0 = best, equal scores share a rank) and replaces the record's pairs. Where "
                "several candidates share "
                "the best or the worst score the first of them stands for all: candidates come in no order that means "
                "anything. A "
                "candidate without a score takes no part, nor does a record about which the judge said nothing. "
                "Records that give no pair stay in the stream, without one.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .process = process,
    .finish = finish,
};
SLUICE_PLUGIN("ranker", "1.0", "Apache-2.0", &ranker_class.base);
