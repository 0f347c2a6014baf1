/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* sampler: several answers to each prompt. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/stage.h>
#include <sluice/random.h>
#include "plugins/common/answers.h"

enum too_long { TOO_LONG_ERROR, TOO_LONG_SKIP, TOO_LONG_LEFT };
enum truncated { TRUNCATED_KEEP, TRUNCATED_DROP };

/* A record whose answers are being generated. */
struct item {
    struct item *next, **from; /* list of those in the air */
    sluice_record *record;
    uint32_t left;
    struct answer *answers; /* [n] */
};

struct answer {
    char *text;
    uint32_t *tokens;
    float *logprobs;
    uint32_t token_count;
    int32_t finish;
};

struct sampler {
    const sluice_model_ref *model;
    int64_t n, top_k, max_tokens, slots;
    double temperature, top_p, min_p, repetition_penalty;
    sluice_strings stop;
    bool raw;
    int too_long, truncated;

    const sluice_host *host;
    answers_model opened;
    char tag[160];
    struct item *items;
    uint64_t prompts, done, skipped, cut;         /* records */
    uint64_t candidates, tokens, truncated_count; /* answers, before any is dropped */
};

static const char *const long_rules[] = {"error", "skip", "left", NULL};
static const char *const truncated_rules[] = {"keep", "drop", NULL};

static const sluice_param params[] = {
    SLUICE_MODEL(struct sampler, model, .required = true, .doc = "The model that answers."),
    SLUICE_INT(struct sampler, n, .value = 1, .min = 1, .max = 65536, .unit = "candidates",
               .doc = "Answers to each prompt."),
    SLUICE_DOUBLE(struct sampler, temperature, .value = 1, .min = 0,
                  .doc = "Divides the logits; 0 takes the likeliest token."),
    SLUICE_DOUBLE(struct sampler, top_p, .value = 1, .above = 0, .max = 1,
                  .doc = "Keep the likeliest tokens that together have this probability."),
    SLUICE_INT(struct sampler, top_k, .value = 0, .min = 0, .max = 4294967295.0, .unit = "tokens",
               .doc = "Keep that many of the likeliest tokens; 0 = all."),
    SLUICE_DOUBLE(struct sampler, min_p, .value = 0, .min = 0, .below = 1,
                  .doc = "Keep tokens at least this fraction as likely as the likeliest."),
    SLUICE_DOUBLE(struct sampler, repetition_penalty, .value = 1, .above = 0,
                  .doc = "Divides positive logits of tokens that came already and multiplies negative ones; 1 = none."),
    SLUICE_INT(struct sampler, max_tokens, .value = 128, .min = 1, .max = 4294967295.0, .unit = "tokens",
               .doc = "Longest answer, stop token included."),
    SLUICE_STRINGS(struct sampler, stop, .doc = "Texts that end an answer."),
    SLUICE_BOOL(struct sampler, raw, .value = 0, .doc = "Feed prompts as they are, without the chat template."),
    SLUICE_CHOICE(
        struct sampler, too_long, .value = TOO_LONG_ERROR, .choices = long_rules,
        .doc =
            "What to do with a prompt that leaves no room for max_tokens: stop, leave it out, or cut it on the left."),
    SLUICE_CHOICE(struct sampler, truncated, .value = TRUNCATED_KEEP, .choices = truncated_rules,
                  .doc = "What to do with answers that were cut at max_tokens."),
    SLUICE_INT(struct sampler, slots, .value = 0, .min = 0, .max = 65536, .unit = "candidates", .speed_only = true,
               .doc = "Answers generated at once; 0 = chosen by the runtime."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"prompts", "records", "Prompts answered."},
    {"candidates", "candidates", "Answers generated."},
    {"tokens", "tokens", "Tokens generated."},
    {"mean_length", "tokens", "Mean length of an answer, stop token included."},
    {"truncated", NULL, "Fraction of the answers cut at max_tokens."},
    {"skipped", "records", "Prompts left out because they are too long."},
    {"cut", "records", "Prompts cut on the left."},
    {0}};

/* How an answer came to be, for whoever reads it later. */
static void write_tag(struct sampler *s)
{
    size_t used = (size_t)snprintf(s->tag, sizeof s->tag, "t=%.6g", s->temperature);
    if (s->top_p < 1)
        used += (size_t)snprintf(s->tag + used, sizeof s->tag - used, " top_p=%.6g", s->top_p);
    if (s->top_k > 0)
        used += (size_t)snprintf(s->tag + used, sizeof s->tag - used, " top_k=%lld", (long long)s->top_k);
    if (s->min_p > 0)
        used += (size_t)snprintf(s->tag + used, sizeof s->tag - used, " min_p=%.6g", s->min_p);
    if (s->repetition_penalty != 1)
        snprintf(s->tag + used, sizeof s->tag - used, " repetition_penalty=%.6g", s->repetition_penalty);
}

static int init(void *self, const sluice_host *host)
{
    struct sampler *s = self;
    s->host = host;
    write_tag(s);
    int rc = answers_open(host, s->model, &s->opened);
    if (rc < 0)
        return rc;
    if (s->max_tokens >= s->opened.info.context)
        return sluice_error(host, SLUICE_BAD_PARAMETER,
                            "max_tokens = %lld leaves no room for a prompt in the model's context of %u",
                            (long long)s->max_tokens, s->opened.info.context);
    if (s->temperature == 0 && s->n > 1)
        sluice_log(host, SLUICE_LOG_WARNING,
                   "temperature = 0 gives the same answer %lld times; set n = 1 or a temperature", (long long)s->n);
    return SLUICE_OK;
}

static void item_free(struct sampler *s, struct item *item)
{
    *item->from = item->next;
    if (item->next)
        item->next->from = item->from;
    for (int64_t i = 0; item->answers && i < s->n; i++) {
        free(item->answers[i].text);
        free(item->answers[i].tokens);
        free(item->answers[i].logprobs);
    }
    if (item->record)
        sluice_release(s->host, item->record);
    free(item->answers);
    free(item);
}

static void fini(void *self)
{
    struct sampler *s = self;
    while (s->items)
        item_free(s, s->items);
    answers_close(&s->opened);
}

/* Cuts the prompt on the left to `room` tokens; a start token stays where it is. */
static int cut_prompt(const struct sampler *s, sluice_record *record, const uint32_t *tokens, size_t count, size_t room)
{
    uint32_t *kept = malloc((room + 1) * sizeof *kept);
    if (!kept)
        return sluice_error(s->host, SLUICE_NO_MEMORY, "out of memory for a prompt of %zu tokens", count);
    memcpy(kept, tokens + (count - room), room * sizeof *kept);
    if (room > 0 && s->opened.info.start_id >= 0 && tokens[0] == (uint32_t)s->opened.info.start_id)
        kept[0] = tokens[0];
    int rc = sluice_record_set_prompt_tokens(record, kept, room, s->raw ? 0 : s->opened.info.template_hash);
    free(kept);
    return rc;
}

/* Encodes the prompt. SLUICE_DROP when the record is to be left out. */
static int prepare(struct sampler *s, sluice_record *record)
{
    size_t count = 0, room = s->opened.info.context - (size_t)s->max_tokens;
    int rc = answers_encode(&s->opened, record, s->raw);
    if (rc < 0)
        return rc;
    const uint32_t *tokens = sluice_record_prompt_tokens(record, &count);
    if (count == 0)
        return sluice_record_error(s->host, record, SLUICE_BAD_RECORD,
                                   "the prompt is empty and the model has no start token; give it a prompt");
    if (count <= room)
        return SLUICE_OK;
    if (s->too_long == TOO_LONG_ERROR)
        return sluice_record_error(
            s->host, record, SLUICE_BAD_RECORD,
            "the prompt has %zu tokens, which with max_tokens = %lld exceeds the model's context of %u; "
            "lower max_tokens, or set too_long = \"skip\" or \"left\"",
            count, (long long)s->max_tokens, s->opened.info.context);
    if (s->too_long == TOO_LONG_SKIP) {
        s->skipped++;
        return SLUICE_DROP;
    }
    s->cut++;
    return cut_prompt(s, record, tokens, count, room);
}

/* What is counted of an answer, before any is dropped. */
static void count_answer(struct sampler *s, uint32_t tokens, int32_t finish)
{
    s->candidates++;
    s->tokens += tokens;
    s->truncated_count += finish == SLUICE_FINISH_LENGTH;
}

static int send(struct sampler *s, sluice_record *record)
{
    s->done++;
    int64_t total = sluice_input_count(s->host);
    sluice_progress(s->host, s->done, total > 0 ? (uint64_t)total : 0, "prompts");
    return sluice_emit(s->host, record);
}

/* The answers that an interrupted run had already generated: copied. SLUICE_END when there are none, or not all. */
static int take_earlier(struct sampler *s, sluice_record *record)
{
    const sluice_record *earlier = sluice_earlier(s->host, record);
    const size_t had = sluice_record_candidates(record);
    int rc = SLUICE_OK;
    if (!earlier || sluice_record_candidates(earlier) != had + (size_t)s->n)
        return SLUICE_END;
    for (size_t i = had; rc >= 0 && i < had + (size_t)s->n; i++) {
        sluice_candidate candidate;
        size_t count = 0;
        rc = sluice_record_candidate(earlier, i, &candidate);
        const float *logps = rc >= 0 ? sluice_record_logps(earlier, i, s->opened.version, &count) : NULL;
        if (rc >= 0 && count != candidate.token_count)
            rc = SLUICE_BAD_RECORD;
        if (rc >= 0)
            rc = sluice_record_add_candidate(record, &candidate);
        if (rc >= 0)
            rc = sluice_record_set_logps(record, i, s->opened.version, logps, count);
        if (rc >= 0)
            count_answer(s, candidate.token_count, candidate.finish);
    }
    if (rc < 0)
        return sluice_record_error(s->host, record, rc,
                                   "what an interrupted run left of this record does not fit; run again with --fresh");
    s->prompts++;
    return SLUICE_OK;
}

/* The runtime asks for the next prompt. */
static int on_prompt(void *context, sluice_generate_prompt *prompt)
{
    struct sampler *s = context;
    sluice_record *record;
    int rc;
    for (;;) {
        if (sluice_cancelled(s->host))
            return SLUICE_CANCELLED;
        if ((rc = sluice_next(s->host, &record)) != SLUICE_OK)
            return rc;
        rc = prepare(s, record);
        if (rc == SLUICE_OK && (rc = take_earlier(s, record)) == SLUICE_END)
            break;
        if (rc == SLUICE_OK)
            rc = send(s, record);
        else
            sluice_release(s->host, record);
        if (rc < 0)
            return rc;
    }
    struct item *item = calloc(1, sizeof *item);
    if (item)
        item->answers = calloc((size_t)s->n, sizeof *item->answers);
    if (!item || !item->answers) {
        free(item);
        sluice_release(s->host, record);
        return sluice_error(s->host, SLUICE_NO_MEMORY, "out of memory for %lld answers", (long long)s->n);
    }
    item->record = record;
    item->left = (uint32_t)s->n;
    item->from = &s->items;
    item->next = s->items;
    if (s->items)
        s->items->from = &item->next;
    s->items = item;
    s->prompts++;
    const char *id = sluice_record_id(record);
    *prompt = (sluice_generate_prompt){.key = sluice_random_name(id, strlen(id)), .user = item};
    prompt->tokens = sluice_record_prompt_tokens(record, &prompt->token_count);
    return SLUICE_OK;
}

/* All answers are there: into the record, in their order, and on. */
static int emit(struct sampler *s, struct item *item)
{
    sluice_record *record = item->record;
    for (int64_t i = 0; i < s->n; i++) {
        const struct answer *a = &item->answers[i];
        sluice_candidate candidate = {.text = a->text,
                                      .tokens = a->tokens,
                                      .logprobs = a->logprobs,
                                      .token_count = a->token_count,
                                      .finish = a->finish,
                                      .parent = -1,
                                      .tag = s->tag};
        if (s->truncated == TRUNCATED_DROP && a->finish == SLUICE_FINISH_LENGTH)
            continue;
        int rc = sluice_record_add_candidate(record, &candidate);
        /* What the model gave its own tokens is its score: whoever asks for it later finds it under the version's name.
         */
        if (rc >= 0)
            rc = sluice_record_set_logps(record, sluice_record_candidates(record) - 1, s->opened.version, a->logprobs,
                                         a->token_count);
        if (rc < 0)
            return sluice_record_error(s->host, record, rc, "the record refuses answer %lld", (long long)i);
    }
    item->record = NULL;
    item_free(s, item);
    return send(s, record);
}

static int on_done(void *context, const sluice_generated *generated)
{
    struct sampler *s = context;
    struct item *item = generated->user;
    struct answer *a = &item->answers[generated->candidate];
    size_t count = generated->token_count;
    a->text = strdup(generated->text ? generated->text : "");
    a->tokens = malloc((count + 1) * sizeof *a->tokens);
    a->logprobs = malloc((count + 1) * sizeof *a->logprobs);
    if (!a->text || !a->tokens || !a->logprobs)
        return sluice_error(s->host, SLUICE_NO_MEMORY, "out of memory for an answer of %zu tokens", count);
    if (count > 0) {
        memcpy(a->tokens, generated->tokens, count * sizeof *a->tokens);
        memcpy(a->logprobs, generated->logprobs, count * sizeof *a->logprobs);
    }
    a->token_count = generated->token_count;
    a->finish = generated->finish;
    count_answer(s, a->token_count, a->finish);
    sluice_tokens(s->host, count);
    return --item->left == 0 ? emit(s, item) : SLUICE_OK;
}

static int run(void *self)
{
    struct sampler *s = self;
    sluice_generation generation = {.size = sizeof generation,
                                    .candidates = (uint32_t)s->n,
                                    .max_tokens = (uint32_t)s->max_tokens,
                                    .top_k = (uint32_t)s->top_k,
                                    .temperature = s->temperature,
                                    .top_p = s->top_p,
                                    .min_p = s->min_p,
                                    .repetition_penalty = s->repetition_penalty,
                                    .stop = s->stop.items,
                                    .stop_count = s->stop.count,
                                    .seed = sluice_seed(s->host),
                                    .slots = (uint32_t)s->slots,
                                    .context = s,
                                    .prompt = on_prompt,
                                    .done = on_done};
    return s->opened.service->generate(s->opened.model, &generation);
}

static int finish(void *self)
{
    struct sampler *s = self;
    sluice_number numbers[7] = {{"prompts", (double)s->prompts},
                                {"candidates", (double)s->candidates},
                                {"tokens", (double)s->tokens},
                                {"skipped", (double)s->skipped},
                                {"cut", (double)s->cut},
                                {"mean_length", (double)s->tokens / (double)s->candidates},
                                {"truncated", (double)s->truncated_count / (double)s->candidates}};
    sluice_metrics(s->host, -1, numbers, s->candidates > 0 ? 7 : 5);
    return SLUICE_OK;
}

static const sluice_stage_class sampler_class = {
    SLUICE_STAGE_CLASS(SLUICE_SAMPLER, "sampler", "Let a model answer each prompt several times", struct sampler,
                       params),
    .base.reads = SLUICE_FIELD_PROMPT,
    .base.adds = SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_LOGPS,
    .base.traits = SLUICE_USES_DEVICE | SLUICE_NEEDS_INPUT,
    .base.doc = "Adds n candidates to each record: token ids, the text they decode to, how the answer ended, and each "
                "token's log-probability "
                "under the model (temperature 1, nothing truncated). The log-probabilities stand under the version's "
                "name as well, so the "
                "current model's implicit reward costs nothing more. Settings stand in the candidate's tag. A token is "
                "chosen by the seed, the "
                "record's id, the candidate's number and its position: neither slots nor order change an answer.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .run = run,
    .finish = finish,
};
SLUICE_PLUGIN("sampler", "1.0", "Apache-2.0", &sampler_class.base);
