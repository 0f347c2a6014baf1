/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Classes that describe themselves as sluice's own do and do nothing: what the tests of plans check files against, so
 * that they do not change with the real ones. */
#include <sluice/sluice.h>

static int nothing(void *self)
{
    (void)self;
    return SLUICE_OK;
}

static int nothing_next(void *self, sluice_record *record)
{
    (void)self, (void)record;
    return SLUICE_END;
}

static int nothing_process(void *self, sluice_record *record)
{
    (void)self, (void)record;
    return SLUICE_OK;
}

static int nothing_observe(void *self, const sluice_record *record)
{
    (void)self, (void)record;
    return SLUICE_OK;
}

struct state {
    const char *path, *by, *current, *previous, *label;
    int64_t n, top_k, max_tokens, epochs, batch, limit, threads;
    double temperature, top_p, epsilon, lr, beta, margin;
    int split, form, pick, measure, scope, schedule;
    bool raw;
    const sluice_model_ref *model, *reference;
    const sluice_part *loss;
    sluice_models models;
    sluice_doubles weights;
    sluice_strings stop, judges;
};

#define STAGE(name, id, kind, summary, ...)                                                                     \
    static const sluice_stage_class name = {SLUICE_STAGE_CLASS(kind, id, summary, struct state, name##_params), \
                                            __VA_ARGS__}

static const char *const splits[] = {"all", "by-iteration", NULL};
static const sluice_param jsonl_params[] = {
    SLUICE_FILE(struct state, path, .required = true, .doc = "The file to read."),
    SLUICE_CHOICE(struct state, split, .choices = splits, .doc = "Which part of it."),
    SLUICE_INT(struct state, limit, .value = 0, .min = 0, .unit = "records", .doc = "The most records; 0 = all."),
    SLUICE_PARAMS_END};
STAGE(jsonl, "jsonl-source", SLUICE_SOURCE, "Reads JSON lines",
      .base.adds = SLUICE_FIELD_PROMPT | SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_META, .next = nothing_next);

static const char *const forms[] = {"prompt", "completion", "preference", NULL};
static const uint32_t form_adds[] = {0, SLUICE_FIELD_CANDIDATES, SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_PAIRS};
static const sluice_param tasks_params[] = {
    SLUICE_CHOICE(struct state, form, .choices = forms, .choice_adds = form_adds, .doc = "What is made."),
    SLUICE_PARAMS_END};
STAGE(tasks, "tasks", SLUICE_SOURCE, "Makes questions", .base.adds = SLUICE_FIELD_PROMPT, .next = nothing_next);

static const sluice_param sink_params[] = {
    SLUICE_FILE(struct state, path, .required = true, .doc = "The file to write."), SLUICE_PARAMS_END};
STAGE(sink, "jsonl-sink", SLUICE_SINK, "Writes JSON lines", .base.traits = SLUICE_NO_OUTPUT,
      .process = nothing_process);

static const sluice_param sampler_params[] = {
    SLUICE_MODEL(struct state, model, .required = true, .doc = "The model that answers."),
    SLUICE_INT(struct state, n, .value = 1, .min = 1, .max = 1024, .doc = "Answers a prompt."),
    SLUICE_DOUBLE(struct state, temperature, .value = 1, .min = 0, .doc = "Of the softmax."),
    SLUICE_DOUBLE(struct state, top_p, .value = 1, .above = 0, .max = 1, .doc = "Truncation."),
    SLUICE_INT(struct state, max_tokens, .value = 128, .min = 1, .unit = "tokens", .doc = "The longest answer."),
    SLUICE_STRINGS(struct state, stop, .doc = "Words that end an answer."),
    SLUICE_BOOL(struct state, raw, .doc = "No chat template."),
    SLUICE_PARAMS_END};
STAGE(sampler, "sampler", SLUICE_SAMPLER, "Answers prompts", .base.reads = SLUICE_FIELD_PROMPT,
      .base.adds = SLUICE_FIELD_CANDIDATES, .base.traits = SLUICE_NEEDS_INPUT, .run = nothing);

static const sluice_param judge_params[] = {
    SLUICE_MODEL(struct state, model, .required = true, .doc = "The model judging."),
    SLUICE_MODEL(struct state, reference, .doc = "The model to compare with."), SLUICE_PARAMS_END};
STAGE(judge, "judge-implicit", SLUICE_JUDGE, "Implicit rewards", .base.reads = SLUICE_FIELD_CANDIDATES,
      .base.adds = SLUICE_FIELD_SCORES, .process = nothing_process);

static const char *const picks[] = {"best-worst", "best-random", "all", NULL};
static const sluice_param ranker_params[] = {SLUICE_STAGE(struct state, by, .required = true, .doc = "The judge."),
                                             SLUICE_CHOICE(struct state, pick, .choices = picks, .doc = "Which pairs."),
                                             SLUICE_PARAMS_END};
STAGE(ranker, "ranker", SLUICE_RANKER, "Forms pairs", .base.reads = SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_SCORES,
      .base.adds = SLUICE_FIELD_RANKINGS | SLUICE_FIELD_PAIRS, .process = nothing_process);

static const sluice_param keep_params[] = {SLUICE_PARAMS_END};
STAGE(keep, "keep", SLUICE_REGULARIZER, "Trusts every pair", .base.reads = SLUICE_FIELD_PAIRS,
      .base.adds = SLUICE_FIELD_TRUST, .process = nothing_process);

static const sluice_param smoothing_params[] = {
    SLUICE_DOUBLE(struct state, epsilon, .value = 0.1, .min = 0, .below = 0.5, .doc = "How often labels are wrong."),
    SLUICE_PARAMS_END};
STAGE(smoothing, "label-smoothing", SLUICE_REGULARIZER, "Trusts pairs to a degree", .base.reads = SLUICE_FIELD_PAIRS,
      .base.adds = SLUICE_FIELD_TRUST, .process = nothing_process);

static const char *const measures[] = {"kendall", "kendall-b", "spearman", "top-order", NULL};
static const char *const scopes[] = {"dataset", "sample", NULL};
static const sluice_param cream_params[] = {
    SLUICE_STAGE(struct state, current, .required = true, .doc = "The judge now."),
    SLUICE_STAGE(struct state, previous, .required = true, .doc = "The judge before."),
    SLUICE_CHOICE(struct state, measure, .choices = measures, .doc = "Of agreement."),
    SLUICE_CHOICE(struct state, scope, .choices = scopes, .doc = "Of the mean."), SLUICE_PARAMS_END};
STAGE(cream, "cream", SLUICE_REGULARIZER, "Trusts pairs as far as two judges agree",
      .base.reads = SLUICE_FIELD_SCORES | SLUICE_FIELD_PAIRS, .base.adds = SLUICE_FIELD_TRUST,
      .base.traits = SLUICE_WHOLE_STREAM, .observe = nothing_observe, .process = nothing_process);

static const char *const schedules[] = {"constant", "linear", "cosine", NULL};
static const sluice_param trainer_params[] = {
    SLUICE_SLOT(struct state, model, .required = true, .doc = "The model to train."),
    SLUICE_MODEL(struct state, reference, .doc = "The reference of the loss."),
    SLUICE_PART(struct state, loss, .required = true, .kind = SLUICE_KIND_LOSS, .doc = "What is minimised."),
    SLUICE_DOUBLE(struct state, lr, .value = 1e-6, .above = 0, .doc = "Learning rate."),
    SLUICE_INT(struct state, epochs, .value = 1, .min = 1, .doc = "Passes over the data."),
    SLUICE_INT(struct state, batch, .value = 32, .min = 1, .unit = "records", .doc = "Records an update."),
    SLUICE_CHOICE(struct state, schedule, .choices = schedules, .value = 1, .doc = "Of the learning rate."),
    SLUICE_PARAMS_END};
STAGE(trainer, "trainer", SLUICE_TRAINER, "Trains a model", .base.reads = SLUICE_FIELD_PROMPT,
      .base.traits = SLUICE_NEEDS_INPUT | SLUICE_NO_OUTPUT, .run = nothing);

static const sluice_param combine_params[] = {
    SLUICE_STAGES(struct state, judges, .required = true, .doc = "Whose scores are combined."), SLUICE_PARAMS_END};
STAGE(combine, "judge-combine", SLUICE_JUDGE, "Combines scores",
      .base.reads = SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_SCORES, .base.adds = SLUICE_FIELD_SCORES,
      .process = nothing_process);

static const sluice_param averager_params[] = {
    SLUICE_SLOT(struct state, model, .required = true, .doc = "The model to publish."),
    SLUICE_MODELS(struct state, models, .required = true, .doc = "What is averaged."),
    SLUICE_DOUBLES(struct state, weights, .min = 0, .doc = "One a model."), SLUICE_PARAMS_END};
STAGE(averager, "averager", SLUICE_AVERAGER, "Averages models", .base.traits = SLUICE_NO_OUTPUT, .run = nothing);

static const sluice_param evaluator_params[] = {
    SLUICE_MODEL(struct state, model, .required = true, .doc = "Evaluated."),
    SLUICE_MODEL(struct state, reference, .doc = "For KL."), SLUICE_PARAMS_END};
STAGE(evaluator, "evaluator", SLUICE_EVALUATOR, "Measures a model", .base.traits = SLUICE_NO_OUTPUT, .run = nothing);

static int nothing_pairs(void *self, const sluice_pairs *in, sluice_pair_grads *out)
{
    (void)self, (void)in, (void)out;
    return SLUICE_OK;
}

static int nothing_tokens(void *self, const sluice_token_batch *in, sluice_token_grads *out)
{
    (void)self, (void)in, (void)out;
    return SLUICE_OK;
}

static const sluice_param sft_params[] = {SLUICE_PARAMS_END};
static const sluice_param dpo_params[] = {
    SLUICE_DOUBLE(struct state, beta, .value = 0.1, .above = 0, .doc = "Strength of the pull."), SLUICE_PARAMS_END};
static const sluice_loss_class sft = {SLUICE_CLASS("sft", "Likelihood", struct state, sft_params),
                                      .tokens = nothing_tokens};
static const sluice_loss_class dpo = {SLUICE_CLASS("dpo", "Preferences", struct state, dpo_params),
                                      .pairs = nothing_pairs};

static const sluice_param service_params[] = {
    SLUICE_INT(struct state, threads, .value = 0, .min = 0, .max = 1024, .doc = "0 = all.", .speed_only = true),
    SLUICE_PARAMS_END};
static const void *get(void *self)
{
    return self;
}
static const sluice_service_class service = {SLUICE_SERVICE_CLASS("model", "Models", struct state, service_params),
                                             .service = "sluice.model/1", .get = get};

SLUICE_PLUGIN("fakes", "1.0", "Apache-2.0", &jsonl.base, &tasks.base, &sink.base, &sampler.base, &judge.base,
              &combine.base, &ranker.base, &keep.base, &smoothing.base, &cream.base, &trainer.base, &averager.base,
              &evaluator.base, &sft.base, &dpo.base, &service.base);
