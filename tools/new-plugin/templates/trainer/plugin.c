/* @ID@: reward-weighted regression (Peters and Schaal 2007). Every answer is learned from as much as its score
 * deserves: a prompt's loss is -sum_i w_i mean_t log pi(token), with w_i = exp(score_i / temperature) / sum_j
 * exp(score_j / temperature). One pass over the input, AdamW, a constant learning rate. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/model.h>
#include <sluice/random.h>
#include <sluice/stage.h>

struct trainer {
    const sluice_model_ref *model;
    const char *by;
    double lr, temperature;
    int64_t batch;

    const sluice_host *host;
    const sluice_model_service *service;
    sluice_model *opened;
    sluice_training *training;
    /* the record in hand */
    sluice_ids prompt;
    sluice_span *answers; /* [room], `count` of them with a score */
    double *weights;      /* [room] */
    size_t count, room;
    /* so far */
    int64_t pending; /* records whose gradient waits for a step */
    uint64_t records, steps, tokens;
    double loss, step_loss, changed; /* step_loss: of those pending */
};

static const sluice_param params[] = {
    SLUICE_SLOT(struct trainer, model, .required = true,
                .doc = "The model that is trained; its next version is published."),
    SLUICE_STAGE(struct trainer, by, .required = true, .doc = "The judge whose scores weigh the answers."),
    SLUICE_DOUBLE(struct trainer, lr, .value = 1e-5, .above = 0, .doc = "Learning rate."),
    SLUICE_DOUBLE(struct trainer, temperature, .value = 0.5, .above = 0,
                  .doc = "How little the scores count: small learns from the best answer, large from all alike."),
    SLUICE_INT(struct trainer, batch, .value = 16, .min = 1, .unit = "records", .doc = "Prompts a step."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"loss", "nats", "Mean over the prompts of a step of the weighted negative log-probability of a token."},
    {"train_loss", "nats", "The same over all prompts."},
    {"steps", "steps", "Steps taken."},
    {"weights_changed", NULL, "Distance between the weights before and after."},
    {NULL, NULL, NULL}};

static int init(void *self, const sluice_host *host)
{
    struct trainer *t = self;
    t->host = host;
    t->service = sluice_service(host, SLUICE_MODEL_SERVICE);
    if (!t->service)
        return sluice_error(host, SLUICE_BAD_PLUGIN,
                            "no plugin provides " SLUICE_MODEL_SERVICE "; `sluice plugins` shows what was found");
    return t->service->open(t->service, host, t->model, &t->opened);
}

static void fini(void *self)
{
    struct trainer *t = self;
    if (t->training)
        t->service->train_end(t->training);
    if (t->opened)
        t->service->close(t->opened);
    free(t->prompt.items);
    free(t->answers);
    free(t->weights);
}

static bool make_room(struct trainer *t, size_t count)
{
    if (count <= t->room)
        return true;
    sluice_span *answers = realloc(t->answers, count * sizeof *answers);
    t->answers = answers ? answers : t->answers;
    double *weights = realloc(t->weights, count * sizeof *weights);
    t->weights = weights ? weights : t->weights;
    if (!answers || !weights)
        return false;
    t->room = count;
    return true;
}

/* The answers that have a score and tokens, and what each weighs. They borrow the record's tokens. */
static int gather(struct trainer *t, const sluice_record *record)
{
    const size_t candidates = sluice_record_candidates(record);
    const float *scores = sluice_record_scores(record, t->by);
    double best = -INFINITY, sum = 0;
    t->count = 0;
    if (!make_room(t, candidates))
        return sluice_error(t->host, SLUICE_NO_MEMORY, "out of memory for %zu answers", candidates);
    for (size_t i = 0; scores && i < candidates; i++) {
        sluice_candidate candidate;
        const int rc = sluice_record_candidate(record, i, &candidate);
        if (rc < 0)
            return rc;
        if (isnan(scores[i]))
            continue;
        if (!candidate.tokens && candidate.text && candidate.text[0])
            return sluice_record_error(t->host, record, SLUICE_BAD_RECORD,
                                       "answer %zu has no token ids; put a sampler before this stage", i);
        if (candidate.token_count == 0)
            continue;
        best = fmax(best, scores[i]);
        t->weights[t->count] = scores[i];
        t->answers[t->count++] = (sluice_span){candidate.tokens, candidate.token_count};
    }
    for (size_t i = 0; i < t->count; i++)
        sum += t->weights[i] = exp((t->weights[i] - best) / t->temperature);
    for (size_t i = 0; i < t->count; i++)
        t->weights[i] /= sum;
    return SLUICE_OK;
}

/* The runtime has the answers' log-probabilities and wants d loss / d log-probability. */
static int derive(void *context, const float *const *logps, float *const *d_logps)
{
    struct trainer *t = context;
    for (size_t i = 0; i < t->count; i++) {
        const double share = t->weights[i] / (double)t->answers[i].count;
        for (size_t k = 0; k < t->answers[i].count; k++) {
            t->step_loss -= share * logps[i][k];
            d_logps[i][k] = (float)-share;
        }
    }
    return SLUICE_OK;
}

/* Adds a record's gradient. */
static int learn(struct trainer *t, const sluice_record *record)
{
    const char *id = sluice_record_id(record);
    int rc = gather(t, record);
    if (rc < 0 || t->count == 0)
        return rc;
    t->prompt.count = 0;
    if ((rc = t->service->encode_prompt(t->opened, record, false, &t->prompt)) < 0)
        return rc;
    const sluice_group group = {.prompt = {t->prompt.items, t->prompt.count},
                                .completions = t->answers,
                                .completion_count = t->count,
                                .key = sluice_random_name(id, strlen(id))};
    rc = t->service->train_gradient(t->training, &group, 1, derive, t);
    for (size_t i = 0; i < t->count; i++)
        t->tokens += t->answers[i].count;
    sluice_tokens(t->host, t->prompt.count);
    t->pending++;
    t->records++;
    return rc;
}

/* One update with the mean of the pending records' gradients. */
static int step(struct trainer *t)
{
    sluice_step_info info = {0};
    const double scale = 1 / (double)t->pending;
    const int rc = t->service->train_step(t->training, t->lr, scale, &info);
    if (rc < 0)
        return rc;
    if (info.skipped)
        sluice_log(t->host, SLUICE_LOG_WARNING, "step %llu was not taken: its gradient is not finite; lower lr",
                   (unsigned long long)t->steps + 1);
    t->steps++;
    t->loss += t->step_loss;
    const sluice_number number = {"loss", t->step_loss * scale};
    sluice_metrics(t->host, (int64_t)t->steps, &number, 1);
    t->step_loss = 0;
    t->pending = 0;
    const int64_t total = sluice_input_count(t->host);
    sluice_progress(t->host, t->records, total > 0 ? (uint64_t)total : 0, "records");
    return SLUICE_OK;
}

static int train(struct trainer *t)
{
    sluice_record *record;
    int rc;
    while ((rc = sluice_next(t->host, &record)) == SLUICE_OK) {
        rc = sluice_cancelled(t->host) ? SLUICE_CANCELLED : learn(t, record);
        sluice_release(t->host, record);
        if (rc >= 0 && t->pending == t->batch)
            rc = step(t);
        if (rc < 0)
            return rc;
    }
    if (rc >= 0 && t->pending > 0)
        rc = step(t);
    if (rc >= 0 && t->steps == 0)
        return sluice_error(t->host, SLUICE_BAD_RECORD,
                            "no record has an answer with a score of '%s': nothing to learn", t->by);
    return rc < 0 ? rc : SLUICE_OK;
}

/* The next version, whole or not at all. */
static int publish(struct trainer *t)
{
    const char *dir;
    int rc = sluice_publish_begin(t->host, t->model, &dir);
    if (rc >= 0)
        rc = t->service->train_save(t->training, dir);
    if (rc >= 0)
        rc = t->service->train_distance(t->training, &t->changed);
    return rc < 0 ? rc : sluice_publish_commit(t->host, t->model);
}

static int run(void *self)
{
    struct trainer *t = self;
    const sluice_optimizer adamw = {.size = sizeof adamw,
                                    .beta1 = 0.9,
                                    .beta2 = 0.999,
                                    .epsilon = 1e-8,
                                    .max_grad_norm = 1,
                                    .seed = sluice_seed(t->host)};
    int rc = t->service->train_begin(t->opened, &adamw, &t->training);
    if (rc >= 0)
        rc = train(t);
    return rc < 0 ? rc : publish(t);
}

static int finish(void *self)
{
    struct trainer *t = self;
    const sluice_number numbers[] = {
        {"train_loss", t->loss / (double)t->records}, {"steps", (double)t->steps}, {"weights_changed", t->changed}};
    sluice_metrics(t->host, -1, numbers, 3);
    return SLUICE_OK;
}

static const sluice_stage_class trainer_class = {
    SLUICE_STAGE_CLASS(SLUICE_TRAINER, "@ID@", "Reward-weighted regression: learn from each answer by its score",
                       struct trainer, params),
    .base.reads = SLUICE_FIELD_PROMPT | SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_SCORES,
    .base.traits = SLUICE_USES_DEVICE | SLUICE_NO_OUTPUT | SLUICE_NEEDS_INPUT,
    .base.doc =
        "A prompt's loss is -sum_i w_i mean_t log pi(token t of answer i), w_i = exp(score_i / temperature) over its "
        "answers' sum (Peters and Schaal 2007). One pass, AdamW (0.9, 0.999), gradients clipped to norm 1, a constant "
        "learning rate. Answers without a score are left out.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .run = run,
    .finish = finish,
};
SLUICE_PLUGIN("@NAME@", "1.0", "MIT", &trainer_class.base);
