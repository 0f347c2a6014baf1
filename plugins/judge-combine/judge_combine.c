/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* judge-combine: one score from those of several judges. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/stage.h>
#include "plugins/judge-combine/combine.h"

enum missing { MISSING_ABSENT, MISSING_SKIP };

struct combiner {
    sluice_strings judges;
    sluice_doubles weights;
    int method, normalize, missing;
    double penalty, tolerance;

    const sluice_host *host;
    combine_rule rule;
    double *ones;         /* the weights that nobody gave */
    double *raw, *scores; /* [judges · room] as given, on a common scale */
    double *out;
    size_t *order;
    size_t room;     /* of candidates */
    uint64_t *given; /* [judges] how many scores each gave */
    uint64_t records, scored, absent;
    double sum;
};

static const char *const methods[] = {"weighted-sum", "min", "lexicographic", "mean-std", NULL};
static const char *const scales[] = {"none", "prompt", "rank", NULL};
static const char *const missing_rules[] = {"absent", "skip", NULL};

static const sluice_param params[] = {
    SLUICE_STAGES(struct combiner, judges, .required = true,
                  .doc = "The judges whose scores are combined; for lexicographic, the one that decides first."),
    SLUICE_CHOICE(struct combiner, method, .value = COMBINE_SUM, .choices = methods,
                  .doc = "The sum of weight times score; the least score; the first judge's order, ties by the next "
                         "one's; or the mean over judges less penalty times the standard deviation."),
    SLUICE_DOUBLES(struct combiner, weights, .doc = "One a judge (weighted-sum); none given = 1 each."),
    SLUICE_DOUBLE(struct combiner, penalty, .value = 1, .min = 0,
                  .doc = "How much the judges' disagreement counts (mean-std)."),
    SLUICE_DOUBLE(struct combiner, tolerance, .value = 0, .min = 0,
                  .doc = "Scores that differ by no more are a tie, which the next judge decides (lexicographic)."),
    SLUICE_CHOICE(struct combiner, normalize, .value = COMBINE_RAW, .choices = scales,
                  .doc = "What each judge's scores become first: nothing else; mean 0 and standard deviation 1 over "
                         "the record's answers; or the share of the other answers that score lower."),
    SLUICE_CHOICE(struct combiner, missing, .value = MISSING_ABSENT, .choices = missing_rules,
                  .doc = "An answer that a judge gave no score: it gets none, or that judge is left out."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {{"records", "records", "Records seen."},
                                             {"scored", "candidates", "Answers that got a score."},
                                             {"absent", "candidates", "Answers that got none."},
                                             {"mean_score", NULL, "Mean of the scores."},
                                             {0}};

static int init(void *self, const sluice_host *host)
{
    struct combiner *c = self;
    size_t count = c->judges.count;
    c->host = host;
    if (count == 0)
        return sluice_error(host, SLUICE_BAD_PARAMETER, "judges names no judge; name two or more");
    if (c->weights.count > 0 && c->method != COMBINE_SUM)
        return sluice_error(host, SLUICE_BAD_PARAMETER, "weights are given, but method is \"%s\"; set method = \"%s\"",
                            methods[c->method], methods[COMBINE_SUM]);
    if (c->weights.count > 0 && c->weights.count != count)
        return sluice_error(host, SLUICE_BAD_PARAMETER,
                            "there are %zu judge%s and %zu weight%s; give one weight a judge", count,
                            count == 1 ? "" : "s", c->weights.count, c->weights.count == 1 ? "" : "s");
    c->ones = malloc(count * sizeof *c->ones);
    c->given = calloc(count, sizeof *c->given);
    if (!c->ones || !c->given)
        return sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
    for (size_t j = 0; j < count; j++)
        c->ones[j] = 1;
    c->rule = (combine_rule){.method = c->method,
                             .weights = c->weights.count > 0 ? c->weights.items : c->ones,
                             .penalty = c->penalty,
                             .tolerance = c->tolerance,
                             .skip_missing = c->missing == MISSING_SKIP};
    return SLUICE_OK;
}

static void free_rows(struct combiner *c)
{
    free(c->raw);
    free(c->scores);
    free(c->out);
    free(c->order);
    c->raw = c->scores = c->out = NULL;
    c->order = NULL;
    c->room = 0;
}

static void fini(void *self)
{
    struct combiner *c = self;
    free_rows(c);
    free(c->ones);
    free(c->given);
}

static bool make_room(struct combiner *c, size_t count)
{
    if (count <= c->room)
        return true;
    free_rows(c);
    c->raw = malloc(count * sizeof *c->raw);
    c->scores = malloc(c->judges.count * count * sizeof *c->scores);
    c->out = malloc(count * sizeof *c->out);
    c->order = malloc(count * sizeof *c->order);
    if (!c->raw || !c->scores || !c->out || !c->order)
        return false;
    c->room = count;
    return true;
}

static int process(void *self, sluice_record *record)
{
    struct combiner *c = self;
    size_t count = sluice_record_candidates(record);
    c->records++;
    if (!make_room(c, count))
        return sluice_error(c->host, SLUICE_NO_MEMORY, "out of memory for %zu candidates", count);
    for (size_t j = 0; j < c->judges.count; j++) {
        const float *given = sluice_record_scores(record, c->judges.items[j]);
        for (size_t i = 0; i < count; i++) {
            c->raw[i] = given ? (double)given[i] : NAN;
            c->given[j] += !isnan(c->raw[i]);
        }
        combine_normalize(c->normalize, c->raw, count, c->scores + j * count);
    }
    combine_scores(&c->rule, c->scores, c->judges.count, count, c->order, c->out);
    for (size_t i = 0; i < count; i++) {
        if (isnan(c->out[i])) {
            c->absent++;
            continue;
        }
        int rc = sluice_record_set_score(record, sluice_stage_name(c->host), i, (float)c->out[i]);
        if (rc < 0)
            return sluice_record_error(c->host, record, rc, "candidate %zu gets the score %g, which is no score", i,
                                       c->out[i]);
        c->scored++;
        c->sum += c->out[i];
    }
    return SLUICE_OK;
}

static int finish(void *self)
{
    struct combiner *c = self;
    sluice_number numbers[4] = {{"records", (double)c->records},
                                {"scored", (double)c->scored},
                                {"absent", (double)c->absent},
                                {"mean_score", c->sum / (double)c->scored}};
    for (size_t j = 0; j < c->judges.count && c->scored + c->absent > 0; j++)
        if (c->given[j] == 0)
            return sluice_error(
                c->host, SLUICE_BAD_RECORD,
                "no record has a score of '%s': it gave none, which its numbers in metrics.jsonl say, or is not before "
                "this stage in the chain, or is called otherwise",
                c->judges.items[j]);
    sluice_metrics(c->host, -1, numbers, c->scored > 0 ? 4 : 3);
    return SLUICE_OK;
}

static const sluice_stage_class combiner_class = {
    SLUICE_STAGE_CLASS(SLUICE_JUDGE, "judge-combine", "One score from those of several judges", struct combiner,
                       params),
    .base.reads = SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_SCORES,
    .base.adds = SLUICE_FIELD_SCORES,
    .base.traits = SLUICE_STATELESS,
    .base.doc =
        "With s_j the j-th judge's score of an answer, as it is or on the scale that normalize says: weighted-sum "
        "Σ w_j s_j; min the least s_j; mean-std mean(s) − penalty · sqrt(mean((s − mean(s))²)) over the judges, as "
        "ensembles of reward models are used against over-optimisation (Coste et al. 2024, arXiv 2310.02743: "
        "penalty 0 is the mean). Where judges are missing and missing = \"skip\", the sum is scaled by Σ|w| over all / "
        "Σ|w| over those that are there.\n\n"
        "lexicographic orders the record's answers by the first judge; those within tolerance of the best of their "
        "group are tied and the next judge orders them (with skip, those without its score last). The score is the "
        "share of the other answers that rank lower, ties counting half: 0 to 1, comparable within a record only. "
        "prompt and rank compare within a record, too.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .process = process,
    .finish = finish,
};
SLUICE_PLUGIN("judge-combine", "1.0", "Apache-2.0", &combiner_class.base);
