/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* evaluator: what a model's answers are worth, and how far it has moved. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/stage.h>
#include "plugins/common/answers.h"
#include "plugins/common/counts.h"
#include "plugins/evaluator/agreement.h"
#include "plugins/evaluator/interval.h"

/* What the metrics say of the records so far. */
struct sums {
    uint64_t questions, marked, most; /* with a mark; marks; most marks of one question */
    double accuracy, squares;         /* sums over questions */
    uint64_t pairs;                   /* whose truth differs */
    double right;
    uint64_t answers, truncated, length; /* candidates */
    uint64_t scored, scored_length;      /* candidates the model was asked about */
    double log_ratio, given_logp;
    uint64_t given_length;
};

struct evaluator {
    const char *truth, *judge, *group;
    const sluice_model_ref *model, *reference;
    bool raw;

    const sluice_host *host;
    answers_model policy, base;
    size_t context;
    uint64_t records, found, computed;
    struct sums sums;
    agreement agreement;
    counts_keeper keeper;
};

static const sluice_param params[] = {
    SLUICE_STAGE(struct evaluator, truth,
                 .doc = "The judge that knows, a verifier: its scores, 0 or 1, give accuracy."),
    SLUICE_STAGE(struct evaluator, judge,
                 .doc = "A judge whose scores are held against the pairs' labels: pair_accuracy."),
    SLUICE_STRING(struct evaluator, group,
                  .doc = "A meta field; pair_accuracy is then also given for each of its values."),
    SLUICE_MODEL(struct evaluator, model,
                 .doc = "The model that is evaluated: gives perplexity, and with reference the KL divergence."),
    SLUICE_MODEL(struct evaluator, reference, .doc = "The model that the divergence is measured from."),
    SLUICE_BOOL(struct evaluator, raw, .value = 0, .doc = "Feed prompts as they are, without the chat template."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"questions", "records", "Records with at least one answer."},
    {"accuracy", NULL, "Fraction of right answers: mean over the questions of each question's own."},
    {"accuracy/low", NULL,
     "Lower end of its 95 % interval, Wilson's; answers to one question do not count as independent."},
    {"accuracy/high", NULL, "Upper end of the interval."},
    {"label_accuracy", NULL,
     "Of the pairs whose truth differs, the fraction labelled right; p < 1/2 is the reversed label."},
    {"pair_accuracy", NULL,
     "Fraction of the pairs whose chosen answer the judge gives the higher score; a tie counts half."},
    {"pair_accuracy/low", NULL, "Lower end of its 95 % interval, Wilson's."},
    {"pair_accuracy/high", NULL, "Upper end of the interval."},
    {"pair_accuracy/GROUP", NULL, "The same for the pairs whose records have this value of the field `group`."},
    {"pairs_judged", "pairs", "Pairs with a score of the judge for both answers."},
    {"kl", "nats",
     "KL divergence to the reference for an answer: mean of log pi - log pi_ref over the model's own answers."},
    {"kl/token", "nats", "The same for a token."},
    {"perplexity", NULL,
     "exp of the mean negative log-probability of the tokens of answers that were given, not sampled."},
    {"mean_length", "tokens", "Mean length of an answer, stop token included."},
    {"truncated", NULL, "Fraction of the answers cut at max_tokens."},
    {0}};

/* The sums, then those of the judge's agreement. */
static int save(struct evaluator *e)
{
    char *bytes = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&bytes, &size);
    if (out) {
        fwrite(&e->sums, sizeof e->sums, 1, out);
        agreement_write(&e->agreement, out);
    }
    int rc = out && fclose(out) == 0 ? SLUICE_OK : sluice_error(e->host, SLUICE_NO_MEMORY, "out of memory");
    if (rc >= 0)
        rc = counts_save(&e->keeper, e->host, e->records, bytes, size);
    free(bytes);
    return rc;
}

static int restore(struct evaluator *e)
{
    void *bytes;
    size_t size;
    int rc = counts_begin(&e->keeper, e->host, &bytes, &size);
    FILE *in = bytes && size > 0 ? fmemopen(bytes, size, "rb") : NULL;
    if (bytes && (!in || fread(&e->sums, sizeof e->sums, 1, in) != 1 || !agreement_read(&e->agreement, in)))
        rc = counts_damaged(e->host);
    if (in)
        fclose(in);
    free(bytes);
    return rc;
}

static int init(void *self, const sluice_host *host)
{
    struct evaluator *e = self;
    int rc = SLUICE_OK;
    e->host = host;
    if (e->group && !e->judge)
        return sluice_error(host, SLUICE_BAD_PARAMETER,
                            "group is set and judge is not; groups are of the judge's accuracy on pairs");
    if (e->reference && !e->model)
        return sluice_error(host, SLUICE_BAD_PARAMETER, "reference is set and model is not; the divergence needs both");
    if (e->model)
        rc = answers_open(host, e->model, &e->policy);
    if (rc >= 0 && e->reference)
        rc = answers_open(host, e->reference, &e->base);
    if (rc >= 0 && e->reference)
        rc = answers_check_reference(&e->policy, &e->base);
    e->context = e->policy.info.context;
    if (e->reference && e->base.info.context < e->context)
        e->context = e->base.info.context;
    return rc >= 0 ? restore(e) : rc;
}

static void fini(void *self)
{
    struct evaluator *e = self;
    answers_close(&e->policy);
    answers_close(&e->base);
    agreement_free(&e->agreement);
}

/* Marks of one question's answers, and whether its pairs are labelled as they say. */
static int mark(struct evaluator *e, const sluice_record *record)
{
    const float *truth = sluice_record_scores(record, e->truth);
    size_t count = sluice_record_candidates(record), marks = 0;
    double sum = 0;
    for (size_t i = 0; truth && i < count; i++)
        if (!isnan(truth[i])) {
            if (truth[i] < 0 || truth[i] > 1)
                return sluice_record_error(e->host, record, SLUICE_BAD_RECORD,
                                           "the score %g of '%s' is no mark from 0 to 1; let truth name a verifier",
                                           (double)truth[i], e->truth);
            sum += truth[i];
            marks++;
        }
    if (marks == 0)
        return SLUICE_OK;
    double mean = sum / (double)marks;
    e->sums.marked++;
    e->sums.accuracy += mean;
    e->sums.squares += mean * mean;
    e->sums.most = marks > e->sums.most ? marks : e->sums.most;
    for (size_t i = 0; i < sluice_record_pairs(record); i++) {
        sluice_pair pair;
        if (sluice_record_pair(record, i, &pair) < 0 || isnan(truth[pair.chosen]) || isnan(truth[pair.rejected]) ||
            truth[pair.chosen] == truth[pair.rejected])
            continue;
        bool chosen_right = truth[pair.chosen] > truth[pair.rejected];
        e->sums.pairs++;
        e->sums.right += pair.p == 0.5 ? 0.5 : chosen_right == (pair.p > 0.5);
    }
    return SLUICE_OK;
}

static int measure(struct evaluator *e, const sluice_record *record)
{
    size_t count = sluice_record_candidates(record);
    e->sums.questions += count > 0;
    for (size_t i = 0; i < count; i++) {
        sluice_candidate candidate;
        double policy = 0, base = 0;
        int rc = sluice_record_candidate(record, i, &candidate);
        if (rc < 0)
            return rc;
        e->sums.answers++;
        e->sums.length += candidate.token_count;
        e->sums.truncated += candidate.finish == SLUICE_FINISH_LENGTH;
        if (!e->model || !answers_fit(record, i, e->context) ||
            !answers_sum(record, (uint32_t)i, e->policy.version, &policy) ||
            (e->reference && !answers_sum(record, (uint32_t)i, e->base.version, &base)))
            continue;
        e->sums.scored++;
        e->sums.scored_length += candidate.token_count;
        if (!candidate.logprobs) { /* a model's own samples tell nothing of how well it predicts */
            e->sums.given_length += candidate.token_count;
            e->sums.given_logp += policy;
        }
        e->sums.log_ratio += policy - base;
    }
    return SLUICE_OK;
}

static int process_batch(void *self, sluice_record *const *records, bool *keep, size_t count)
{
    struct evaluator *e = self;
    int rc = SLUICE_OK;
    /* What an interrupted run had counted is not looked at again. */
    const uint64_t left = e->keeper.records > e->records ? e->keeper.records - e->records : 0;
    const size_t before = left < count ? (size_t)left : count;
    records += before;
    count -= before;
    e->records += before;
    for (size_t i = 0; e->model && rc >= 0 && i < count; i++)
        rc = answers_encode(&e->policy, records[i], e->raw);
    if (rc >= 0 && e->model)
        rc = answers_complete(&e->policy, records, count, e->context, &e->found, &e->computed);
    if (rc >= 0 && e->reference)
        rc = answers_complete(&e->base, records, count, e->context, &e->found, &e->computed);
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        if (e->truth)
            rc = mark(e, records[i]);
        if (rc >= 0 && e->judge)
            rc = agreement_add(&e->agreement, e->host, records[i], e->judge, e->group);
        if (rc >= 0)
            rc = measure(e, records[i]);
    }
    e->records += count;
    if (rc >= 0 && counts_due(&e->keeper, e->records))
        rc = save(e);
    int64_t total = sluice_input_count(e->host);
    sluice_progress(e->host, e->records, total > 0 ? (uint64_t)total : 0, "records");
    return rc;
}

static int finish(void *self)
{
    struct evaluator *e = self;
    sluice_number numbers[14] = {{"questions", (double)e->sums.questions}};
    size_t n = 1;
    if (e->sums.questions == 0)
        return sluice_error(e->host, SLUICE_BAD_RECORD,
                            "there is nothing to evaluate: no record has an answer; put a sampler before");
    if (e->truth && e->sums.marked == 0)
        sluice_log(e->host, SLUICE_LOG_INFO, "no answer has a score of '%s': there is no accuracy", e->truth);
    if (e->sums.marked > 0) {
        double count = (double)e->sums.marked, mean = e->sums.accuracy / count, low, high;
        if (e->sums.most == 1)
            interval_wilson(mean, count, &low, &high);
        else
            interval_by_question(mean, e->sums.squares / count, count, &low, &high);
        numbers[n++] = (sluice_number){"accuracy", mean};
        numbers[n++] = (sluice_number){"accuracy/low", low};
        numbers[n++] = (sluice_number){"accuracy/high", high};
    }
    if (e->sums.pairs > 0)
        numbers[n++] = (sluice_number){"label_accuracy", e->sums.right / (double)e->sums.pairs};
    if (e->judge && e->agreement.all.pairs == 0)
        return sluice_error(e->host, SLUICE_BAD_RECORD,
                            "no pair has scores of '%s': put pairs (preferences, or a ranker) and that judge before",
                            e->judge);
    if (e->judge) {
        const double pairs = (double)e->agreement.all.pairs, mean = e->agreement.all.right / pairs;
        double low, high;
        interval_wilson(mean, pairs, &low, &high);
        numbers[n++] = (sluice_number){"pairs_judged", pairs};
        numbers[n++] = (sluice_number){"pair_accuracy", mean};
        numbers[n++] = (sluice_number){"pair_accuracy/low", low};
        numbers[n++] = (sluice_number){"pair_accuracy/high", high};
        agreement_report(&e->agreement, e->host);
    }
    if (e->sums.scored > 0 && e->reference) {
        numbers[n++] = (sluice_number){"kl", e->sums.log_ratio / (double)e->sums.scored};
        numbers[n++] = (sluice_number){"kl/token", e->sums.log_ratio / (double)e->sums.scored_length};
    }
    if (e->sums.given_length > 0)
        numbers[n++] = (sluice_number){"perplexity", exp(-e->sums.given_logp / (double)e->sums.given_length)};
    if (e->sums.length > 0) {
        numbers[n++] = (sluice_number){"mean_length", (double)e->sums.length / (double)e->sums.answers};
        numbers[n++] = (sluice_number){"truncated", (double)e->sums.truncated / (double)e->sums.answers};
    }
    sluice_metrics(e->host, -1, numbers, n);
    return SLUICE_OK;
}

static const sluice_stage_class evaluator_class = {
    SLUICE_STAGE_CLASS(SLUICE_EVALUATOR, "evaluator",
                       "Accuracy, divergence, length and perplexity of a model's answers", struct evaluator, params),
    .base.reads = SLUICE_FIELD_CANDIDATES,
    .base.traits = SLUICE_USES_DEVICE | SLUICE_NO_OUTPUT | SLUICE_NEEDS_INPUT,
    .base.doc = "Reads records whose answers stand there already: usually held-out questions, a sampler after the "
                "training, a verifier. The "
                "divergence is the Monte-Carlo estimate, mean of log pi(y|x) - log pi_ref(y|x) over the given answers: "
                "it is the KL divergence "
                "when the model itself sampled them at temperature 1 with nothing truncated, and close to it "
                "otherwise. Log-probabilities that "
                "stand in the records are taken, the others computed.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .process_batch = process_batch,
    .finish = finish,
};
SLUICE_PLUGIN("evaluator", "1.0", "Apache-2.0", &evaluator_class.base);
