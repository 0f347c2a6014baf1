/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * trainer: gathers examples, asks the reference once, takes optimizer steps, publishes the next version.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sluice/stage.h>
#include <sluice/random.h>
#include "plugins/trainer/batch.h"
#include "plugins/trainer/checkpoint.h"
#include "plugins/trainer/gather.h"
#include "plugins/trainer/validate.h"

enum freeze { FREEZE_NONE, FREEZE_BODY };
enum keep { KEEP_LAST, KEEP_BEST };
enum moments { MOMENTS_FLOAT32, MOMENTS_BF16 };
enum schedule { SCHEDULE_COSINE, SCHEDULE_LINEAR, SCHEDULE_CONSTANT };

/* What is reported together: means over the steps since the last report. */
struct window {
    batch_sums sums;
    double loss, grad_norm;
    uint64_t steps;
};

/* What a checkpoint holds beside the runtime's state. */
struct counts {
    struct window window;
    double total_loss;
    uint64_t steps, skipped_steps, tokens;
    double changed; /* distance between the weights before and those to be published */
    double best[BY_COUNT];
    int64_t best_epoch; /* whose weights lie where the next version is written; 0 = none yet */
};

struct trainer {
    const sluice_model_ref *model, *start, *reference, *head_from;
    const sluice_part *loss;
    double lr, warmup, weight_decay, beta1, beta2, epsilon, max_grad_norm, dropout, prompt_weight, checkpoint_every,
        validation;
    int64_t epochs, batch, micro_tokens, log_every, head;
    int schedule, too_long, truncated, freeze, keep, best_by, moments;
    bool raw, recompute;

    const sluice_host *host;
    answers_model policy, base, head_model;
    uint32_t heads; /* outputs of the reward model that is trained; 0 = a language model */
    gather gather;
    examples examples;
    sluice_training *training;
    uint32_t *order;
    uint32_t *members; /* all examples: `trained` to train on, then those of the validation split */
    size_t trained;
    struct batch work;
    struct counts counts;
    uint64_t total_steps;
    double saved;    /* monotonic seconds, when the last checkpoint was written */
    const char *dir; /* where the next version is written */
};

static const char *const schedules[] = {"cosine", "linear", "constant", NULL};
static const char *const frozen_parts[] = {"none", "body", NULL};
static const char *const kept[] = {"last", "best", NULL};
static const char *const bests[] = {"loss", "rewards/accuracies", "rewards/margins", "rewards/chosen", NULL};
static const char *const moment_types[] = {"float32", "bf16", NULL};
static const char *const long_rules[] = {"error", "skip", "left", NULL};
static const char *const truncated_rules[] = {"keep", "drop", NULL};

static const sluice_param params[] = {
    SLUICE_SLOT(struct trainer, model, .required = true, .doc = "The model to train; its next version is published."),
    SLUICE_MODEL(struct trainer, start,
                 .doc = "The version training starts from, of any slot; the newest of `model` when not set."),
    SLUICE_MODEL(struct trainer, reference,
                 .doc = "The reference model of losses that need one; the version training starts from "
                        "when not set."),
    SLUICE_PART(struct trainer, loss, .kind = SLUICE_KIND_LOSS, .text = "dpo",
                .doc = "The loss, by id; its own parameters are set on this stage."),
    SLUICE_INT(struct trainer, head, .value = 0, .min = 0, .max = 4096, .unit = "outputs",
               .doc = "Outputs of the head of a reward model (with losses on rewards, bradley-terry); 0 = as the model "
                      "has, else 1."),
    SLUICE_MODEL(struct trainer, head_from, .head = true,
                 .doc = "A reward model whose head is taken; the model's own or a random one when not set."),
    SLUICE_CHOICE(struct trainer, freeze, .value = FREEZE_NONE, .choices = frozen_parts,
                  .doc = "What does not learn: nothing, or a reward model's body, so that only its head does (linear "
                         "probing)."),
    SLUICE_DOUBLE(struct trainer, lr, .value = 1e-6, .min = 0, .doc = "Highest learning rate."),
    SLUICE_CHOICE(struct trainer, schedule, .value = SCHEDULE_COSINE, .choices = schedules,
                  .doc =
                      "How the learning rate falls after the warm-up: to 0 along a cosine or a line, or not at all."),
    SLUICE_DOUBLE(struct trainer, warmup, .value = 0.1, .min = 0, .max = 1,
                  .doc = "Fraction of the steps over which the learning rate rises."),
    SLUICE_INT(struct trainer, epochs, .value = 1, .min = 1, .max = 1000000, .unit = "epochs",
               .doc = "How often every example is seen."),
    SLUICE_INT(struct trainer, batch, .value = 32, .min = 1, .max = 4294967295.0, .unit = "examples",
               .doc = "Pairs or sequences to an optimizer step."),
    SLUICE_INT(struct trainer, micro_tokens, .value = 2048, .min = 1, .unit = "tokens", .speed_only = true,
               .doc = "Tokens computed at once, on each device: memory, never the result."),
    SLUICE_DOUBLE(struct trainer, weight_decay, .value = 0.01, .min = 0,
                  .doc = "AdamW's; norms and biases do not decay."),
    SLUICE_DOUBLE(struct trainer, beta1, .value = 0.9, .min = 0, .below = 1,
                  .doc = "AdamW's decay of the mean gradient."),
    SLUICE_DOUBLE(struct trainer, beta2, .value = 0.999, .min = 0, .below = 1,
                  .doc = "AdamW's decay of the mean squared gradient."),
    SLUICE_DOUBLE(struct trainer, epsilon, .value = 1e-8, .above = 0, .doc = "AdamW's, in the denominator."),
    SLUICE_CHOICE(
        struct trainer, moments, .value = MOMENTS_FLOAT32, .choices = moment_types,
        .doc = "What AdamW's two moments are kept in: bf16 takes 4 bytes a parameter instead of 8 and is rounded "
               "stochastically, so that small changes count on average."),
    SLUICE_DOUBLE(struct trainer, max_grad_norm, .value = 1, .min = 0,
                  .doc = "Longer gradients are shortened to this; 0 = never."),
    SLUICE_DOUBLE(struct trainer, dropout, .value = 0, .min = 0, .below = 1,
                  .doc = "On attention and feed-forward outputs."),
    SLUICE_DOUBLE(struct trainer, prompt_weight, .value = 0, .min = 0, .max = 1,
                  .doc = "How much the prompt's tokens count in a loss on sequences (sft); 0 = answers only."),
    SLUICE_BOOL(struct trainer, recompute, .value = 0, .speed_only = true,
                .doc = "Compute activations a second time in the backward pass instead of keeping them: less memory, "
                       "never another result."),
    SLUICE_BOOL(struct trainer, raw, .value = 0, .doc = "Feed prompts as they are, without the chat template."),
    SLUICE_CHOICE(
        struct trainer, too_long, .value = TOO_LONG_ERROR, .choices = long_rules,
        .doc =
            "What to do where prompt and answer exceed the context: stop, leave out, or cut the prompt on the left."),
    SLUICE_CHOICE(struct trainer, truncated, .value = TRUNCATED_KEEP, .choices = truncated_rules,
                  .doc = "What to do with answers that were cut at max_tokens."),
    SLUICE_DOUBLE(struct trainer, validation, .value = 0, .min = 0, .below = 1,
                  .doc = "Share of the records, chosen by their ids, that is not trained on but measured after each "
                         "epoch."),
    SLUICE_CHOICE(struct trainer, keep, .value = KEEP_LAST, .choices = kept,
                  .doc = "Which weights are published: the last, or those after the epoch that was best on the "
                         "validation split."),
    SLUICE_CHOICE(struct trainer, best_by, .value = BY_LOSS, .choices = bests,
                  .doc = "What keep = best goes by: the smallest loss, or the largest of the others."),
    SLUICE_DOUBLE(struct trainer, checkpoint_every, .value = 60, .min = 0, .unit = "seconds", .speed_only = true,
                  .doc =
                      "Time between two checkpoints, from which an interrupted training goes on; it takes 12 bytes a "
                      "parameter on the disk, 8 with moments = bf16."),
    SLUICE_INT(struct trainer, log_every, .value = 1, .min = 1, .unit = "steps",
               .doc = "Steps between two lines of metrics, which hold means over those steps."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"loss", NULL, "Mean loss of a batch before its step."},
    {"grad_norm", NULL, "Norm of the gradient before clipping."},
    {"learning_rate", NULL, "Learning rate of the step."},
    {"epoch", "epochs", "How often the examples have been seen."},
    {"num_tokens", "tokens", "Tokens trained on so far, prompts included."},
    {"rewards/chosen", NULL,
     "Mean reward of the chosen answers: beta times the log-ratio to the reference, or what the reward model says."},
    {"rewards/rejected", NULL, "Mean reward of the rejected answers."},
    {"rewards/margins", NULL, "Mean difference of the two."},
    {"rewards/accuracies", NULL, "Fraction of pairs whose chosen answer has the higher reward."},
    {"rewards/mean", NULL, "Reward models: mean reward of all answers."},
    {"rewards/center", NULL,
     "Reward models: mean square of the sum of a pair's rewards, what bradley-terry's center weighs."},
    {"logps/chosen", "nats", "Mean log-probability of the chosen answers."},
    {"logps/rejected", "nats", "Mean log-probability of the rejected answers."},
    {"validation/loss", NULL, "Mean loss of the validation split after an epoch."},
    {"validation/rewards/accuracies", NULL, "As rewards/accuracies, of the validation split."},
    {"validation/rewards/margins", NULL, "As rewards/margins, of the validation split."},
    {"validation/rewards/chosen", NULL, "As rewards/chosen, of the validation split."},
    {"validation_examples", NULL, "Pairs or sequences in the validation split."},
    {"best_epoch", "epochs", "With keep = best: the epoch whose weights were published, from 1."},
    {"train_loss", NULL, "Mean of the loss over all steps."},
    {"steps", "steps", "Optimizer steps taken."},
    {"examples", NULL, "Pairs or sequences trained on."},
    {"weights_changed", NULL, "Distance between the weights before and after."},
    {"bare", "records", "Records that gave no example."},
    {"identical", "pairs", "Pairs left out because chosen and rejected are the same answer."},
    {"weightless", "examples", "Examples left out because their weight is 0."},
    {"truncated", "examples", "Examples left out because an answer was cut at max_tokens."},
    {"too_long", "examples", "Examples left out because they exceed the context."},
    {"cut", "examples", "Examples whose prompt was cut on the left."},
    {"empty", "examples", "Examples left out because an answer has no tokens."},
    {"reference_found", "answers", "Answers whose reference log-probabilities stood in the record."},
    {"reference_computed", "answers", "Answers whose reference log-probabilities had to be computed."},
    {"skipped_steps", "steps", "Steps not taken because the gradient was not finite."},
    {0}};

static const sluice_loss_class *loss_class(const struct trainer *t)
{
    return (const sluice_loss_class *)(const void *)t->loss->type;
}

static int check_loss(const struct trainer *t)
{
    const sluice_loss_class *loss = loss_class(t);
    if (!loss->pairs && !loss->tokens)
        return sluice_error(t->host, SLUICE_BAD_PLUGIN,
                            "loss '%s' has neither pairs nor tokens; it cannot be trained with", loss->base.id);
    if ((loss->needs & SLUICE_HEAD_VALUES) && (!loss->pairs || (loss->needs & ~(uint32_t)SLUICE_HEAD_VALUES)))
        return sluice_error(t->host, SLUICE_BAD_PLUGIN,
                            "loss '%s' is on rewards; such a loss takes pairs and needs nothing else", loss->base.id);
    if (!(loss->needs & SLUICE_HEAD_VALUES) && (t->head > 0 || t->head_from || t->freeze != FREEZE_NONE))
        return sluice_error(t->host, SLUICE_BAD_PARAMETER,
                            "%s is for reward models, which loss = \"%s\" does not train; use loss = \"bradley-terry\"",
                            t->head > 0    ? "head"
                            : t->head_from ? "head_from"
                                           : "freeze",
                            loss->base.id);
    if (t->prompt_weight > 0 && (loss->pairs || loss->needs))
        return sluice_error(
            t->host, SLUICE_BAD_PARAMETER,
            "prompt_weight is for losses on sequences without a reference (sft); with loss = \"%s\" leave it at 0",
            loss->base.id);
    return SLUICE_OK;
}

/* How many outputs the head will have. */
static int open_head(struct trainer *t)
{
    if (!(loss_class(t)->needs & SLUICE_HEAD_VALUES))
        return SLUICE_OK;
    int rc = t->head_from ? answers_open(t->host, t->head_from, &t->head_model) : SLUICE_OK;
    if (rc < 0)
        return rc;
    const uint32_t own = t->head_from ? t->head_model.info.head_outputs : t->policy.info.head_outputs;
    t->heads = t->head > 0 ? (uint32_t)t->head : own > 0 ? own : 1;
    return SLUICE_OK;
}

static int init(void *self, const sluice_host *host)
{
    struct trainer *t = self;
    t->host = host;
    if (t->keep == KEEP_BEST && t->validation == 0)
        return sluice_error(host, SLUICE_BAD_PARAMETER,
                            "keep = \"best\" has nothing to go by; hold records out with validation = 0.1");
    const sluice_model_ref *start = t->start ? t->start : t->model;
    int rc = check_loss(t);
    if (rc >= 0)
        rc = answers_open(host, start, &t->policy);
    if (rc >= 0)
        rc = open_head(t);
    if (rc >= 0 && (loss_class(t)->needs & SLUICE_REFERENCE))
        rc = answers_open(host, t->reference ? t->reference : start, &t->base);
    if (rc >= 0 && t->base.model)
        rc = answers_check_reference(&t->policy, &t->base);
    return rc;
}

static void fini(void *self)
{
    struct trainer *t = self;
    if (t->training)
        t->policy.service->train_end(t->training);
    batch_free(&t->work);
    free(t->order);
    free(t->members);
    examples_close(&t->examples);
    answers_close(&t->policy);
    answers_close(&t->base);
    answers_close(&t->head_model);
}

/* Reads the input; a trainer that gets nothing has failed, however quietly. */
static int collect(struct trainer *t)
{
    gather *g = &t->gather;
    *g = (gather){.host = t->host,
                  .loss = loss_class(t),
                  .policy = &t->policy,
                  .reference = t->base.model ? &t->base : NULL,
                  .prompt_weight = t->prompt_weight,
                  .raw = t->raw,
                  .too_long = t->too_long,
                  .truncated = t->truncated};
    int rc = gather_examples(g, &t->examples);
    if (rc < 0)
        return rc;
    if (t->examples.count > UINT32_MAX)
        return sluice_error(t->host, SLUICE_UNSUPPORTED, "%zu examples are more than one training can hold",
                            t->examples.count);
    if (t->examples.count > 0)
        return SLUICE_OK;
    const char *what = loss_class(t)->pairs ? "pairs" : "answers";
    if (g->identical + g->weightless + g->truncated_count + g->too_long_count + g->empty == 0)
        return sluice_error(t->host, SLUICE_BAD_RECORD, "no %s reached the trainer: none of %llu records has any; %s",
                            what, (unsigned long long)g->records,
                            loss_class(t)->pairs
                                ? "put a ranker before it, or read preferences; one that is there found only ties "
                                  "or single answers: look at its metrics"
                                : "put a sampler before it, or read completions");
    return sluice_error(
        t->host, SLUICE_BAD_RECORD,
        "no %s reached the trainer: of %llu records none gave an example; left out: %llu identical, %llu of "
        "weight 0, %llu truncated, %llu too long, %llu empty; look at the stages before with sluice cat",
        what, (unsigned long long)g->records, (unsigned long long)g->identical, (unsigned long long)g->weightless,
        (unsigned long long)g->truncated_count, (unsigned long long)g->too_long_count, (unsigned long long)g->empty);
}

/* Another order in each epoch (Fisher and Yates, by counting). */
static void shuffle(struct trainer *t, uint32_t epoch)
{
    sluice_draw place = {.seed = sluice_seed(t->host), .purpose = SLUICE_PURPOSE_SHUFFLE, .position = epoch};
    uint64_t key[2], counter[2];
    uint32_t bits[4];
    sluice_draw_place(&place, key, counter);
    memcpy(t->order, t->members, t->trained * sizeof *t->order);
    for (size_t i = t->trained; i > 1; i--) {
        counter[1] = i;
        sluice_philox(key, counter, bits);
        size_t j = sluice_uniform_below(bits[0], bits[1], i);
        uint32_t swap = t->order[i - 1];
        t->order[i - 1] = t->order[j];
        t->order[j] = swap;
    }
}

/* The learning rate of step 0 … total-1. As in transformers, but for the warm-up, which rises to its end: no step has
 * rate 0. */
static double learning_rate(const struct trainer *t, uint64_t step)
{
    double total = (double)t->total_steps, warm = ceil(t->warmup * total), s = (double)step;
    if (s < warm)
        return t->lr * (s + 1) / warm;
    double done = (s - warm) / (total - warm);
    if (t->schedule == SCHEDULE_COSINE)
        return t->lr * 0.5 * (1 + cos(M_PI * done));
    return t->schedule == SCHEDULE_LINEAR ? t->lr * (1 - done) : t->lr;
}

/* One line of metrics: the means over the steps since the last. */
static void report(struct trainer *t, double lr)
{
    struct window *w = &t->counts.window;
    double steps = (double)w->steps, pairs = (double)w->sums.examples;
    double done = (double)t->counts.steps * (double)t->epochs / (double)t->total_steps;
    double chosen = w->sums.chosen_reward / pairs, rejected = w->sums.rejected_reward / pairs;
    sluice_number numbers[11] = {{"loss", w->loss / steps},
                                 {"grad_norm", w->grad_norm / steps},
                                 {"learning_rate", lr},
                                 {"epoch", done},
                                 {"num_tokens", (double)t->counts.tokens},
                                 {"rewards/chosen", chosen},
                                 {"rewards/rejected", rejected},
                                 {"rewards/margins", chosen - rejected},
                                 {"rewards/accuracies", w->sums.correct / pairs},
                                 {"logps/chosen", w->sums.chosen_logp / pairs},
                                 {"logps/rejected", w->sums.rejected_logp / pairs}};
    if (t->heads > 0) {
        numbers[9] = (sluice_number){"rewards/mean", (chosen + rejected) / 2};
        numbers[10] = (sluice_number){"rewards/center", w->sums.center / pairs};
    }
    sluice_metrics(t->host, (int64_t)t->counts.steps, numbers, loss_class(t)->pairs ? 11 : 5);
    memset(w, 0, sizeof *w);
}

/* Adds a batch's sums to the window's. */
static void note_batch(struct window *w, const batch_sums *s)
{
    w->sums.examples += s->examples;
    w->sums.chosen_reward += s->chosen_reward;
    w->sums.rejected_reward += s->rejected_reward;
    w->sums.correct += s->correct;
    w->sums.chosen_logp += s->chosen_logp;
    w->sums.rejected_logp += s->rejected_logp;
    w->sums.center += s->center;
}

static int step(struct trainer *t, const uint32_t *order, size_t count)
{
    batch_sums sums = {0};
    sluice_step_info info = {0};
    double lr = learning_rate(t, t->counts.steps), progress = (double)t->counts.steps / (double)t->total_steps;
    int rc = batch_gradient(&t->work, order, count, t->counts.steps + 1, progress, &sums);
    if (rc < 0)
        return rc;
    double scale = sums.divisor > 0 ? 1 / sums.divisor : 0;
    if ((rc = t->policy.service->train_step(t->training, lr, scale, &info)) < 0)
        return rc;
    if (info.skipped && t->counts.skipped_steps++ == 0)
        sluice_log(t->host, SLUICE_LOG_WARNING,
                   "step %llu was not taken: its gradient is not finite; lower lr or max_grad_norm",
                   (unsigned long long)t->counts.steps + 1);
    t->counts.steps++;
    t->counts.tokens += sums.tokens;
    t->counts.total_loss += sums.loss * scale;
    t->counts.window.steps++;
    t->counts.window.loss += sums.loss * scale;
    t->counts.window.grad_norm += info.grad_norm;
    note_batch(&t->counts.window, &sums);
    if (t->counts.steps % (uint64_t)t->log_every == 0 || t->counts.steps == t->total_steps)
        report(t, lr);
    sluice_progress(t->host, t->counts.steps, t->total_steps, "steps");
    return SLUICE_OK;
}

static double monotonic(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Between two steps. A run that is to stop leaves a checkpoint too. */
static int between(struct trainer *t)
{
    const bool stopping = sluice_cancelled(t->host);
    int rc = SLUICE_OK;
    if (stopping || monotonic() - t->saved >= t->checkpoint_every) {
        rc = checkpoint_save(t->host, t->policy.service, t->training, &t->counts, sizeof t->counts, t->dir);
        t->saved = monotonic();
    }
    return rc >= 0 && stopping ? SLUICE_CANCELLED : rc;
}

/* How far the new weights are from those training started from. */
static int measure_change(struct trainer *t)
{
    int rc = t->policy.service->train_distance(t->training, &t->counts.changed);
    if (rc >= 0 && t->counts.changed == 0)
        sluice_log(t->host, SLUICE_LOG_WARNING, "training changed no weight; is lr = %g too small?", t->lr);
    return rc;
}

/* Writes the weights as they are now for publication, over those written before. */
static int save(struct trainer *t)
{
    int rc = SLUICE_OK;
    if (t->dir)
        validate_forget(t->dir);
    else
        rc = sluice_publish_begin(t->host, t->model, &t->dir);
    if (rc >= 0)
        rc = t->policy.service->train_save(t->training, t->dir);
    return rc >= 0 ? measure_change(t) : rc;
}

static int end_epoch(struct trainer *t, int64_t epoch)
{
    double values[BY_COUNT];
    const size_t held = t->examples.count - t->trained;
    if (held == 0)
        return SLUICE_OK;
    int rc = validate(&t->work, t->members + t->trained, held, t->counts.steps,
                      (double)t->counts.steps / (double)t->total_steps, values);
    if (rc < 0 || t->keep != KEEP_BEST ||
        (t->counts.best_epoch > 0 && !validate_better(t->best_by, values, t->counts.best)))
        return rc;
    memcpy(t->counts.best, values, sizeof t->counts.best);
    t->counts.best_epoch = epoch + 1;
    return save(t);
}

/* All steps that were not taken before an interruption. */
static int take_steps(struct trainer *t)
{
    const size_t count = t->trained, size = (size_t)t->batch;
    uint64_t number = 0;
    int rc = SLUICE_OK;
    t->saved = monotonic();
    for (int64_t epoch = 0; rc >= 0 && epoch < t->epochs; epoch++) {
        shuffle(t, (uint32_t)epoch);
        for (size_t at = 0; rc >= 0 && at < count; at += size) {
            if (number++ < t->counts.steps)
                continue;
            rc = step(t, t->order + at, count - at < size ? count - at : size);
            if (rc >= 0 && at + size >= count)
                rc = end_epoch(t, epoch);
            if (rc >= 0 && number < t->total_steps)
                rc = between(t);
        }
    }
    return rc;
}

static int split(struct trainer *t)
{
    const size_t count = t->examples.count;
    t->members = malloc(count * sizeof *t->members);
    if (!t->members)
        return sluice_error(t->host, SLUICE_NO_MEMORY, "out of memory for the order of %zu examples", count);
    t->trained = validate_split(&t->examples, sluice_seed(t->host), t->validation, t->members);
    if (t->validation > 0 && (t->trained == 0 || t->trained == count))
        return sluice_error(t->host, SLUICE_BAD_RECORD,
                            "validation = %g of %zu examples leaves none to %s; give more examples or another share",
                            t->validation, count, t->trained == 0 ? "train on" : "validate on");
    return SLUICE_OK;
}

static int train(struct trainer *t)
{
    sluice_optimizer optimizer = {.size = sizeof optimizer,
                                  .beta1 = t->beta1,
                                  .beta2 = t->beta2,
                                  .epsilon = t->epsilon,
                                  .weight_decay = t->weight_decay,
                                  .max_grad_norm = t->max_grad_norm,
                                  .dropout = t->dropout,
                                  .seed = sluice_seed(t->host),
                                  .head_outputs = t->heads,
                                  .head_from = t->head_model.model,
                                  .freeze_body = t->freeze == FREEZE_BODY,
                                  .recompute = t->recompute,
                                  .moment_bits = t->moments == MOMENTS_BF16 ? 16 : 32};
    const char *checkpoint;
    int rc = split(t);
    if (rc >= 0)
        rc = t->policy.service->train_begin(t->policy.model, &optimizer, &t->training);
    if (rc < 0)
        return rc;
    const size_t count = t->trained, size = (size_t)t->batch;
    t->total_steps = (uint64_t)t->epochs * ((count + size - 1) / size);
    t->order = malloc(count * sizeof *t->order);
    if (!t->order)
        return sluice_error(t->host, SLUICE_NO_MEMORY, "out of memory for the order of %zu examples", count);
    const uint32_t devices = t->policy.info.devices; /* 0 where the runtime does not know of it */
    t->work = (struct batch){.host = t->host,
                             .service = t->policy.service,
                             .training = t->training,
                             .loss = t->loss,
                             .examples = &t->examples,
                             .heads = t->heads,
                             .micro_tokens = (size_t)t->micro_tokens * (devices > 0 ? devices : 1)};
    rc = checkpoint_load(t->host, t->policy.service, t->training, &t->counts, sizeof t->counts, &checkpoint);
    if (rc == SLUICE_OK)
        sluice_log(t->host, SLUICE_LOG_INFO, "goes on after step %llu", (unsigned long long)t->counts.steps);
    if (rc == SLUICE_OK && t->counts.best_epoch > 0)
        rc = sluice_publish_begin(t->host, t->model, &t->dir);
    if (rc == SLUICE_OK && t->dir)
        rc = checkpoint_best(t->host, checkpoint, t->dir);
    if (rc >= 0)
        rc = take_steps(t);
    if (rc < 0)
        return rc;
    if (t->counts.skipped_steps == t->counts.steps)
        return sluice_error(t->host, SLUICE_FAILED,
                            "no step had a finite gradient, so nothing was trained; lower lr, and look at the "
                            "first lines of this stage's loss in metrics.jsonl");
    return SLUICE_OK;
}

static int publish(struct trainer *t)
{
    const int rc = t->counts.best_epoch > 0 ? SLUICE_OK : save(t);
    t->policy.service->train_end(t->training);
    t->training = NULL;
    return rc < 0 ? rc : sluice_publish_commit(t->host, t->model);
}

static int run(void *self)
{
    struct trainer *t = self;
    int rc = collect(t);
    if (rc >= 0)
        rc = train(t);
    return rc < 0 ? rc : publish(t);
}

static int finish(void *self)
{
    struct trainer *t = self;
    const gather *g = &t->gather;
    sluice_number numbers[] = {{"train_loss", t->counts.total_loss / (double)t->counts.steps},
                               {"steps", (double)t->counts.steps},
                               {"examples", (double)t->trained},
                               {"weights_changed", t->counts.changed},
                               {"bare", (double)g->bare},
                               {"identical", (double)g->identical},
                               {"weightless", (double)g->weightless},
                               {"truncated", (double)g->truncated_count},
                               {"too_long", (double)g->too_long_count},
                               {"cut", (double)g->cut},
                               {"empty", (double)g->empty},
                               {"skipped_steps", (double)t->counts.skipped_steps},
                               {"reference_found", (double)g->found},
                               {"reference_computed", (double)g->computed}};
    sluice_metrics(t->host, -1, numbers, sizeof numbers / sizeof *numbers - (g->reference ? 0 : 2));
    const sluice_number held[] = {{"validation_examples", (double)(t->examples.count - t->trained)},
                                  {"best_epoch", (double)t->counts.best_epoch}};
    if (t->validation > 0)
        sluice_metrics(t->host, -1, held, t->keep == KEEP_BEST ? 2 : 1);
    return SLUICE_OK;
}

static const sluice_stage_class trainer_class = {
    SLUICE_STAGE_CLASS(SLUICE_TRAINER, "trainer", "Train a model on pairs or answers and publish its next version",
                       struct trainer, params),
    .base.reads = SLUICE_FIELD_PROMPT,
    .base.traits = SLUICE_USES_DEVICE | SLUICE_NO_OUTPUT | SLUICE_NEEDS_INPUT | SLUICE_IN_PROCESS,
    .base.doc =
        "Reads its whole input, packs it into a file (memory holds 8 bytes an example), computes the reference's "
        "log-probabilities once "
        "where the records do not hold them, and takes AdamW steps on float32 weights. A batch's loss is the sum of "
        "weight times loss "
        "over its pairs, divided by their number (for sft: by the number of trained tokens); how a batch is cut to fit "
        "the memory "
        "changes nothing.\n"
        "Left out and counted: pairs whose answers are the same, examples of weight 0, empty answers, and what "
        "too_long and truncated "
        "say. Answers read from files are encoded apart from their prompt and end with the stop token. Without a "
        "single example the "
        "stage fails. A loss on sequences takes the chosen answers of records with pairs, else every candidate.\n"
        "With a loss on rewards (bradley-terry) it trains a reward model: a head of `head` outputs on the hidden state "
        "of an answer's last token. The head starts from head_from, from the model's own, or random; the published "
        "folder is a …ForSequenceClassification. While the body is frozen dropout does not apply.\n"
        "The warm-up differs from transformers': it rises to its last step, so no step has learning rate 0.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .run = run,
    .finish = finish,
};
SLUICE_PLUGIN("trainer", "1.0", "Apache-2.0", &trainer_class.base);
