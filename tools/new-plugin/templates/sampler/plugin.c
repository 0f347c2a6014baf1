/* @ID@: one answer at each of several temperatures, so that careful and daring ones stand side by side. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/model.h>
#include <sluice/random.h>
#include <sluice/stage.h>

struct sampler {
    const sluice_model_ref *model;
    sluice_doubles temperatures;
    int64_t max_tokens;

    const sluice_host *host;
    const sluice_model_service *service;
    sluice_model *opened;
    sluice_model_info info;
    char version[256]; /* as records name it: "policy@1" */
    /* what is being answered */
    sluice_record *record;
    sluice_ids prompt;
    bool asked; /* the runtime has the prompt */
    char tag[32];
    uint64_t prompts, answers, tokens;
};

static const sluice_param params[] = {
    SLUICE_MODEL(struct sampler, model, .required = true, .doc = "The model that answers."),
    SLUICE_DOUBLES(struct sampler, temperatures, .required = true, .min = 0,
                   .doc = "One answer is sampled at each; 0 takes the likeliest token."),
    SLUICE_INT(struct sampler, max_tokens, .value = 128, .min = 1, .max = 1048576, .unit = "tokens",
               .doc = "Longest answer, stop token included."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {{"prompts", "records", "Prompts answered."},
                                             {"mean_length", "tokens", "Mean length of an answer."},
                                             {NULL, NULL, NULL}};

static int init(void *self, const sluice_host *host)
{
    struct sampler *s = self;
    s->host = host;
    s->info.size = sizeof s->info;
    if (s->temperatures.count == 0)
        return sluice_error(host, SLUICE_BAD_PARAMETER, "temperatures is empty; give one or more, [0.5, 1.0]");
    s->service = sluice_service(host, SLUICE_MODEL_SERVICE);
    if (!s->service)
        return sluice_error(host, SLUICE_BAD_PLUGIN,
                            "no plugin provides " SLUICE_MODEL_SERVICE "; `sluice plugins` shows what was found");
    snprintf(s->version, sizeof s->version, "%s@%lld", s->model->slot, (long long)s->model->version);
    int rc = s->service->open(s->service, host, s->model, &s->opened);
    return rc < 0 ? rc : s->service->info(s->opened, &s->info);
}

static void fini(void *self)
{
    struct sampler *s = self;
    if (s->opened)
        s->service->close(s->opened);
    free(s->prompt.items);
}

/* The runtime asks for prompts until there are none: here one a call of generate. */
static int on_prompt(void *context, sluice_generate_prompt *prompt)
{
    struct sampler *s = context;
    if (s->asked)
        return SLUICE_END;
    const char *id = sluice_record_id(s->record);
    s->asked = true;
    *prompt = (sluice_generate_prompt){
        .tokens = s->prompt.items, .token_count = s->prompt.count, .key = sluice_random_name(id, strlen(id))};
    return SLUICE_OK;
}

/* A finished answer: token ids, log-probabilities and text into the record. */
static int on_done(void *context, const sluice_generated *generated)
{
    struct sampler *s = context;
    const sluice_candidate candidate = {.text = generated->text,
                                        .tokens = generated->tokens,
                                        .logprobs = generated->logprobs,
                                        .token_count = generated->token_count,
                                        .finish = generated->finish,
                                        .parent = -1,
                                        .tag = s->tag};
    int rc = sluice_record_add_candidate(s->record, &candidate);
    if (rc >= 0) /* what the model gave its own tokens: whoever asks for it later finds it */
        rc = sluice_record_set_logps(s->record, sluice_record_candidates(s->record) - 1, s->version,
                                     generated->logprobs, generated->token_count);
    s->answers++;
    s->tokens += generated->token_count;
    sluice_tokens(s->host, generated->token_count);
    return rc;
}

/* One answer at temperature number i. The seed is another for each, the record's id makes it another for each prompt:
 * neither order nor interruption changes an answer. */
static int answer(struct sampler *s, size_t i)
{
    const sluice_generation generation = {.size = sizeof generation,
                                          .candidates = 1,
                                          .max_tokens = (uint32_t)s->max_tokens,
                                          .temperature = s->temperatures.items[i],
                                          .top_p = 1,
                                          .repetition_penalty = 1,
                                          .seed = sluice_mix(sluice_seed(s->host), i),
                                          .context = s,
                                          .prompt = on_prompt,
                                          .done = on_done};
    s->asked = false;
    snprintf(s->tag, sizeof s->tag, "t=%.6g", s->temperatures.items[i]);
    return s->service->generate(s->opened, &generation);
}

static int answer_all(struct sampler *s)
{
    s->prompt.count = 0;
    int rc = s->service->encode_prompt(s->opened, s->record, false, &s->prompt);
    if (rc >= 0 && (s->prompt.count == 0 || s->prompt.count + (size_t)s->max_tokens > s->info.context))
        return sluice_record_error(s->host, s->record, SLUICE_BAD_RECORD,
                                   "the prompt has %zu tokens; with max_tokens = %lld it must have 1 to %lld",
                                   s->prompt.count, (long long)s->max_tokens,
                                   (long long)s->info.context - (long long)s->max_tokens);
    if (rc >= 0) /* later stages feed the very tokens that were answered */
        rc = sluice_record_set_prompt_tokens(s->record, s->prompt.items, s->prompt.count, s->info.template_hash);
    for (size_t i = 0; rc >= 0 && i < s->temperatures.count; i++)
        rc = answer(s, i);
    return rc;
}

static int run(void *self)
{
    struct sampler *s = self;
    int rc;
    while ((rc = sluice_next(s->host, &s->record)) == SLUICE_OK) {
        rc = sluice_cancelled(s->host) ? SLUICE_CANCELLED : answer_all(s);
        if (rc < 0) {
            sluice_release(s->host, s->record);
            return rc;
        }
        const int64_t total = sluice_input_count(s->host);
        sluice_progress(s->host, ++s->prompts, total > 0 ? (uint64_t)total : 0, "prompts");
        if ((rc = sluice_emit(s->host, s->record)) < 0)
            return rc;
    }
    return rc < 0 ? rc : SLUICE_OK;
}

static int finish(void *self)
{
    struct sampler *s = self;
    sluice_metric(s->host, "prompts", (double)s->prompts);
    if (s->answers > 0)
        sluice_metric(s->host, "mean_length", (double)s->tokens / (double)s->answers);
    return SLUICE_OK;
}

static const sluice_stage_class sampler_class = {
    SLUICE_STAGE_CLASS(SLUICE_SAMPLER, "@ID@", "One answer at each of several temperatures", struct sampler, params),
    .base.reads = SLUICE_FIELD_PROMPT,
    .base.adds = SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_LOGPS,
    .base.traits = SLUICE_USES_DEVICE | SLUICE_NEEDS_INPUT,
    .base.doc =
        "Adds one candidate a temperature to each record, in their order, with each token's log-probability under the "
        "model (temperature 1, nothing truncated). The temperature stands in the candidate's tag.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .run = run,
    .finish = finish,
};
SLUICE_PLUGIN("@NAME@", "1.0", "MIT", &sampler_class.base);
