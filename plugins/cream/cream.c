/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * CREAM: consistency regularized self-rewarding (Wang et al. 2024, arXiv 2410.12735, section 4).
 *
 * Two judges rank the same candidates: the current model and the previous one. Where they agree the label is to be
 * trusted: the consistency rate C is the probability p that a pair's label is right, and cDPO with p = C is CREAM's
 * loss.
 */
#include <math.h>
#include <stdlib.h>
#include <sluice/stage.h>
#include "plugins/cream/rank_correlation.h"

enum measure { KENDALL, KENDALL_B, SPEARMAN, TOP_ORDER, TOP_ORDER_PUBLISHED };
enum scope { DATASET, SAMPLE };
enum ties { TIES_ZERO, TIES_DROP, TIES_INDEX };
enum map { MAP_PUBLISHED, MAP_MAX_HALF, MAP_THEORY };

struct cream {
    const char *current, *previous;
    int measure, scope, ties, map;

    const sluice_host *host;
    double *work; /* 4 arrays of `room`: both judges' scores, both judges' ordinal ranks */
    size_t room;
    double consistency, tau; /* sums while observing */
    double trust;            /* what C maps to, once settled */
    uint64_t defined, undefined, unpaired;
    uint64_t lacking; /* of the undefined: without a score of one of the judges */
    uint64_t pairs, reversed;
};

static const char *const measures[] = {"kendall", "kendall-b", "spearman", "top-order", "top-order-published", NULL};
static const char *const scopes[] = {"dataset", "sample", NULL};
static const char *const tie_rules[] = {"zero", "drop", "index", NULL};
static const char *const maps[] = {"published", "max-half", "theory", NULL};

static const sluice_param params[] = {
    SLUICE_STAGE(struct cream, current, .required = true,
                 .doc = "The judge that ranked the pairs: scores under the current model."),
    SLUICE_STAGE(struct cream, previous, .required = true,
                 .doc = "The judge to compare with: scores under the previous model."),
    SLUICE_CHOICE(
        struct cream, measure, .value = KENDALL, .choices = measures,
        .doc =
            "How the agreement of two rankings is measured; top-order asks only for the same best and the same worst."),
    SLUICE_CHOICE(struct cream, scope, .value = DATASET, .choices = scopes,
                  .doc = "One rate for all pairs, the mean over the records, or each record's own."),
    SLUICE_CHOICE(struct cream, ties, .value = TIES_ZERO, .choices = tie_rules,
                  .doc = "What candidates with equal scores count in kendall: zero = no agreement, drop = left out; "
                         "index = the earlier is "
                         "the worse, in every measure, as in the published code."),
    SLUICE_CHOICE(struct cream, map, .value = MAP_PUBLISHED, .choices = maps,
                  .doc = "How the rate C becomes a probability: C itself, never below 1/2, or (2 - C)/(3 - 2C) as the "
                         "paper's theory has it."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"consistency", NULL, "The consistency rate C, mean over the records that have one."},
    {"trust", NULL, "The probability that C became for the pairs, mean over the records that have a rate."},
    {"tau", NULL, "Mean rank correlation, 2C - 1."},
    {"records", "records", "Records that have a rate."},
    {"undefined", "records",
     "Records without a rate: a judge gave fewer than two different scores. They leave C as it is."},
    {"unpaired", "records", "Records without a pair: they have no say in C."},
    {"reversed", "pairs", "Pairs whose p fell below 1/2: their preference is trained the other way round."},
    {0}};

static int init(void *self, const sluice_host *host)
{
    struct cream *cream = self;
    cream->host = host;
    return SLUICE_OK;
}

static void fini(void *self)
{
    struct cream *cream = self;
    free(cream->work);
}

/* The rate of n candidates in [0, 1]; NaN where it is undefined. */
static double rate(const struct cream *cream, const double *x, const double *y, double *rx, double *ry, size_t n)
{
    if (!rank_distinct(x, n) || !rank_distinct(y, n))
        return NAN;
    bool by_index = cream->ties == TIES_INDEX || cream->measure == TOP_ORDER_PUBLISHED;
    if (by_index) {
        rank_ordinal(x, n, rx);
        rank_ordinal(y, n, ry);
        x = rx;
        y = ry;
    }
    switch (cream->measure) {
    case KENDALL:
        return ((cream->ties == TIES_DROP ? rank_untied(x, y, n) : rank_kendall_a(x, y, n)) + 1) / 2;
    case KENDALL_B:
        return (rank_kendall_b(x, y, n) + 1) / 2;
    case SPEARMAN:
        return (rank_spearman(x, y, n) + 1) / 2;
    case TOP_ORDER:
        return rank_same_extremes(x, y, n);
    default: /* the published code compares the ranks of the first and the last candidate */
        return x[0] == y[0] && x[n - 1] == y[n - 1];
    }
}

/* The record's rate from the candidates that both judges scored. */
static int record_rate(struct cream *cream, const sluice_record *record, double *result)
{
    size_t count = sluice_record_candidates(record), n = 0;
    const float *current = sluice_record_scores(record, cream->current);
    const float *previous = sluice_record_scores(record, cream->previous);
    if (!current || !previous) { /* a judge may have nothing to say of a record */
        *result = NAN;
        return SLUICE_OK;
    }
    if (count > cream->room) {
        double *grown = realloc(cream->work, 4 * count * sizeof(double));
        if (!grown)
            return sluice_error(cream->host, SLUICE_NO_MEMORY, "out of memory for %zu candidates", count);
        cream->work = grown;
        cream->room = count;
    }
    double *x = cream->work, *y = x + cream->room;
    for (size_t i = 0; i < count; i++)
        if (!isnan(current[i]) && !isnan(previous[i])) {
            x[n] = current[i];
            y[n] = previous[i];
            n++;
        }
    *result = rate(cream, x, y, y + cream->room, y + 2 * cream->room, n);
    return SLUICE_OK;
}

/* Theorem 4.1's lambda is the expected inconsistency: with lambda = 1 - C its (1 + lambda)/(1 + 2 lambda) is (2 - C)/(3
 * - 2C). */
static double mapped(const struct cream *cream, double c)
{
    if (cream->map == MAP_MAX_HALF)
        return c < 0.5 ? 0.5 : c;
    if (cream->map == MAP_THEORY)
        return (2 - c) / (3 - 2 * c);
    return c;
}

/* Only records with a pair have a say in C: the published code also counts those whose pair is then dropped. */
static int observe(void *self, const sluice_record *record)
{
    struct cream *cream = self;
    double c;
    if (sluice_record_pairs(record) == 0) {
        cream->unpaired++;
        return SLUICE_OK;
    }
    int rc = record_rate(cream, record, &c);
    if (rc < 0)
        return rc;
    if (isnan(c)) {
        cream->undefined++;
        cream->lacking +=
            !sluice_record_scores(record, cream->current) || !sluice_record_scores(record, cream->previous);
        return SLUICE_OK;
    }
    cream->defined++;
    cream->consistency += c;
    cream->trust += mapped(cream, c);
    return SLUICE_OK;
}

static int settle(void *self)
{
    struct cream *cream = self;
    if (cream->lacking > 0 && cream->lacking == cream->defined + cream->undefined)
        return sluice_error(cream->host, SLUICE_BAD_RECORD,
                            "no record has scores of both '%s' and '%s': one gave none, which its numbers in "
                            "metrics.jsonl say, or is not before "
                            "this stage in the chain; mend it, or put it there",
                            cream->current, cream->previous);
    if (cream->defined == 0)
        return SLUICE_OK;
    cream->consistency /= (double)cream->defined;
    cream->trust = cream->scope == DATASET ? mapped(cream, cream->consistency) : cream->trust / (double)cream->defined;
    if (cream->consistency < 0.5 && cream->map == MAP_PUBLISHED)
        sluice_log(cream->host, SLUICE_LOG_WARNING,
                   "the consistency rate is %.3f: below 1/2 the published method reverses preferences; "
                   "map = \"max-half\" or \"theory\" does not",
                   cream->consistency);
    return SLUICE_OK;
}

static int process(void *self, sluice_record *record)
{
    struct cream *cream = self;
    size_t pairs = sluice_record_pairs(record);
    double c = cream->trust;
    if (pairs == 0)
        return SLUICE_OK;
    if (cream->scope == SAMPLE) {
        int rc = record_rate(cream, record, &c);
        if (rc < 0)
            return rc;
        c = mapped(cream, c);
    }
    if (cream->defined == 0 || isnan(c)) /* nothing is known of how far to trust it */
        c = 1;
    for (size_t i = 0; i < pairs; i++) {
        sluice_pair pair;
        int rc = sluice_pair_doubt(record, i, c, 1);
        if (rc >= 0)
            rc = sluice_record_pair(record, i, &pair);
        if (rc < 0)
            return rc;
        cream->pairs++;
        cream->reversed += pair.p < 0.5;
    }
    return SLUICE_OK;
}

static int finish(void *self)
{
    struct cream *cream = self;
    sluice_number numbers[7] = {{"records", (double)cream->defined},   {"undefined", (double)cream->undefined},
                                {"unpaired", (double)cream->unpaired}, {"reversed", (double)cream->reversed},
                                {"consistency", cream->consistency},   {"trust", cream->trust},
                                {"tau", 2 * cream->consistency - 1}};
    sluice_metrics(cream->host, -1, numbers, cream->defined > 0 ? 7 : 4);
    if (cream->defined == 0 && cream->pairs > 0)
        sluice_log(cream->host, SLUICE_LOG_WARNING,
                   "no record has a consistency rate (a judge gave all candidates one score): every pair is trusted as "
                   "it was");
    return SLUICE_OK;
}

static const sluice_stage_class cream_class = {
    SLUICE_STAGE_CLASS(SLUICE_REGULARIZER, "cream",
                       "Trust pairs as far as the current and the previous model rank alike", struct cream, params),
    .base.reads = SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_SCORES | SLUICE_FIELD_PAIRS,
    .base.adds = SLUICE_FIELD_TRUST,
    .base.traits = SLUICE_WHOLE_STREAM,
    .base.doc =
        "Consistency regularized self-rewarding (Wang et al. 2024, arXiv 2410.12735). For each record the candidates' "
        "scores by the "
        "current and by the previous model are compared by rank: tau = 2/(N(N-1)) times the sum over pairs of sign "
        "agreement, "
        "C = (tau + 1)/2, averaged over the records (scope = \"dataset\") or per record (\"sample\"). p becomes p C + "
        "(1-p)(1-C), which "
        "with loss = \"dpo\" is the paper's loss, C times DPO plus 1-C times DPO on the reversed pair.\n"
        "Below 1/2 that reverses preferences; the paper's theory would give (2-C)/(3-2C) >= 2/3 (map = \"theory\").\n"
        "Where the published code differs: it breaks ties by index, which counts them as agreement (ties = \"index\"); "
        "its top-order "
        "compares the ranks of the first and last candidate (measure = \"top-order-published\") instead of best and "
        "worst; it counts "
        "records whose pair is dropped, and shifts rates against records after one is skipped: neither is offered.\n"
        "A high rate alone proves nothing: compare with random-label and fixed, and with label_accuracy where a "
        "verifier exists.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .observe = observe,
    .settle = settle,
    .process = process,
    .finish = finish,
};
SLUICE_PLUGIN("cream", "1.0", "Apache-2.0", &cream_class.base);
