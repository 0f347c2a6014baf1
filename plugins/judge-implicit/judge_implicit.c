/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * judge-implicit: the reward that a model trained by DPO implies, log pi(y|x) - log pi_ref(y|x) (Rafailov et al. 2023,
 * eq. 5, up to the factor beta and a term of the prompt alone).
 */
#include <string.h>
#include <sluice/stage.h>
#include "plugins/common/answers.h"

enum same { SAME_MEAN, SAME_SUM, SAME_ERROR };
enum normalize { NORMALIZE_NONE, NORMALIZE_LENGTH };
enum too_long { TOO_LONG_ERROR, TOO_LONG_SKIP };

struct judge {
    const sluice_model_ref *model, *reference;
    int same, normalize, too_long;
    bool raw;

    const sluice_host *host;
    answers_model policy, base;
    bool one;       /* no reference, or model and reference are one version: the score is the likelihood */
    size_t context; /* of the two, the smaller */
    uint64_t records, scored, computed, found, skipped;
    double sum;
};

static const char *const same_rules[] = {"likelihood-mean", "likelihood-sum", "error", NULL};
static const char *const normalizations[] = {"none", "length", NULL};
static const char *const long_rules[] = {"error", "skip", NULL};

static const sluice_param params[] = {
    SLUICE_MODEL(struct judge, model, .required = true, .doc = "The model whose reward is asked for."),
    SLUICE_MODEL(struct judge, reference,
                 .doc = "The model it is measured against, usually the first version; none = the score is the "
                        "log-likelihood, see same."),
    SLUICE_CHOICE(struct judge, same, .value = SAME_MEAN, .choices = same_rules,
                  .doc = "What to score by without a reference, and where model and reference are one version, whose "
                         "rewards are all 0: the mean over tokens or the sum of log pi, or nothing."),
    SLUICE_CHOICE(struct judge, normalize, .value = NORMALIZE_NONE, .choices = normalizations,
                  .doc = "Whether the reward is divided by the answer's length."),
    SLUICE_CHOICE(struct judge, too_long, .value = TOO_LONG_ERROR, .choices = long_rules,
                  .doc =
                      "What to do with an answer that exceeds the context with its prompt: stop, or give it no score."),
    SLUICE_BOOL(struct judge, raw, .value = 0, .doc = "Feed prompts as they are, without the chat template."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"scored", "candidates", "Answers that got a score."},
    {"mean_score", "nats", "Mean of the scores."},
    {"computed", "answers", "Answers whose log-probabilities had to be computed, once for each model."},
    {"found", "answers", "Answers whose log-probabilities stood in the record already."},
    {"skipped", "candidates", "Answers without a score: empty ones, and those too long for the model."},
    {0}};

static int init(void *self, const sluice_host *host)
{
    struct judge *judge = self;
    judge->host = host;
    int rc = answers_open(host, judge->model, &judge->policy);
    if (rc >= 0 && judge->reference)
        rc = answers_open(host, judge->reference, &judge->base);
    if (rc >= 0 && judge->reference)
        rc = answers_check_reference(&judge->policy, &judge->base);
    if (rc < 0)
        return rc;
    judge->context = judge->policy.info.context;
    if (judge->reference && judge->base.info.context < judge->context)
        judge->context = judge->base.info.context;
    judge->one = !judge->reference || strcmp(judge->policy.version, judge->base.version) == 0;
    if (!judge->one)
        return SLUICE_OK;
    if (judge->same == SAME_ERROR && !judge->reference)
        return sluice_error(host, SLUICE_BAD_PARAMETER,
                            "same = \"error\" wants a reward, which needs a reference; name one, or set same = "
                            "\"likelihood-mean\"");
    if (judge->same == SAME_ERROR)
        return sluice_error(
            host, SLUICE_BAD_PARAMETER,
            "model and reference are both %s, so every reward would be 0; name two versions, or set same = "
            "\"likelihood-mean\"",
            judge->base.version);
    sluice_log(host, SLUICE_LOG_INFO, "%s %s: scores are %s of log pi",
               judge->reference ? "model and reference are both" : "there is no reference to", judge->policy.version,
               judge->same == SAME_MEAN ? "the mean over tokens" : "the sum");
    return SLUICE_OK;
}

static void fini(void *self)
{
    struct judge *judge = self;
    answers_close(&judge->policy);
    answers_close(&judge->base);
}

static int score(struct judge *judge, sluice_record *record)
{
    for (size_t c = 0; c < sluice_record_candidates(record); c++) {
        sluice_candidate candidate;
        double policy, base = 0;
        int rc = sluice_record_candidate(record, c, &candidate);
        if (rc < 0)
            return rc;
        if (!answers_fit(record, c, judge->context) ||
            !answers_sum(record, (uint32_t)c, judge->policy.version, &policy) ||
            (!judge->one && !answers_sum(record, (uint32_t)c, judge->base.version, &base))) {
            judge->skipped++;
            continue;
        }
        double reward = policy - base;
        if (judge->normalize == NORMALIZE_LENGTH || (judge->one && judge->same == SAME_MEAN))
            reward /= candidate.token_count;
        rc = sluice_record_set_score(record, sluice_stage_name(judge->host), c, (float)reward);
        if (rc < 0)
            return sluice_record_error(judge->host, record, rc, "candidate %zu has the reward %g, which is no score", c,
                                       reward);
        judge->scored++;
        judge->sum += reward;
    }
    return SLUICE_OK;
}

static int process_batch(void *self, sluice_record *const *records, bool *keep, size_t count)
{
    struct judge *judge = self;
    const answers_model *const models[] = {&judge->policy, &judge->base};
    uint64_t copied = 0;
    int rc = SLUICE_OK;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        if ((rc = answers_encode(&judge->policy, records[i], judge->raw)) >= 0 && judge->too_long == TOO_LONG_ERROR)
            rc = answers_check_lengths(&judge->policy, records[i], judge->context);
        if (rc >= 0)
            rc = answers_copy_earlier(models, judge->one ? 1 : 2, records[i], &copied);
    }
    if (rc >= 0)
        rc = answers_complete(&judge->policy, records, count, judge->context, &judge->found, &judge->computed);
    if (rc >= 0 && !judge->one)
        rc = answers_complete(&judge->base, records, count, judge->context, &judge->found, &judge->computed);
    judge->computed += copied; /* by the run that was interrupted */
    judge->found -= copied < judge->found ? copied : judge->found;
    for (size_t i = 0; rc >= 0 && i < count; i++)
        rc = score(judge, records[i]);
    judge->records += count;
    int64_t total = sluice_input_count(judge->host);
    sluice_progress(judge->host, judge->records, total > 0 ? (uint64_t)total : 0, "records");
    return rc;
}

static int finish(void *self)
{
    struct judge *judge = self;
    sluice_number numbers[5] = {{"scored", (double)judge->scored},
                                {"computed", (double)judge->computed},
                                {"found", (double)judge->found},
                                {"skipped", (double)judge->skipped},
                                {"mean_score", judge->sum / (double)judge->scored}};
    sluice_metrics(judge->host, -1, numbers, judge->scored > 0 ? 5 : 4);
    return SLUICE_OK;
}

static const sluice_stage_class judge_class = {
    SLUICE_STAGE_CLASS(SLUICE_JUDGE, "judge-implicit", "Score answers by a model's implicit reward against a reference",
                       struct judge, params),
    .base.reads = SLUICE_FIELD_PROMPT | SLUICE_FIELD_CANDIDATES,
    .base.adds = SLUICE_FIELD_SCORES | SLUICE_FIELD_LOGPS,
    .base.traits = SLUICE_USES_DEVICE,
    .base.doc = "score = sum over the answer's tokens of log pi(token) - log pi_ref(token). Log-probabilities that "
                "stand in the record (the "
                "sampler's own, an earlier judge's) are taken, the others are computed and written into the record.\n"
                "Without a reference, and where both are one version and every reward is 0, the score is log pi "
                "itself: its mean over the tokens, "
                "as in CREAM's published "
                "code, or its sum (same). CREAM's code then compares that mean with summed rewards; with same = "
                "\"likelihood-sum\" both judges "
                "are sums.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .process_batch = process_batch,
    .finish = finish,
};
SLUICE_PLUGIN("judge-implicit", "1.0", "Apache-2.0", &judge_class.base);
