/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <sluice/random.h>
#include "tests/fake_model.h"

#define V FAKE_VOCABULARY

struct sluice_model {
    fake_models *owner;
    int64_t version;
    double w[V][V];
};

struct sluice_training {
    fake_models *owner;
    int64_t version;
    double w[V][V], gradient[V][V], start[V][V];
};

/* Weights of a version: something smooth that differs between versions. */
static void weights(int64_t version, double w[V][V])
{
    for (size_t i = 0; i < V; i++)
        for (size_t j = 0; j < V; j++)
            w[i][j] = sin((double)(i * 7 + j * 13) + 1.5 * (double)version);
}

static double logp(double w[V][V], uint32_t last, uint32_t token)
{
    double sum = 0;
    for (size_t j = 0; j < V; j++)
        sum += exp(w[last][j]);
    return w[last][token] - log(sum);
}

double fake_logp(int64_t version, uint32_t last, uint32_t token)
{
    static double w[V][V];
    weights(version, w);
    return logp(w, last, token);
}

/* Output o for these tokens. */
static double value(double w[V][V], const sluice_span *span, uint32_t o)
{
    double sum = 0;
    for (size_t t = 0; t < span->count; t++)
        sum += w[span->tokens[t]][o];
    return sum;
}

double fake_value(int64_t version, const char *text, uint32_t o)
{
    static double w[V][V];
    weights(version, w);
    double sum = w[FAKE_STOP][o];
    for (; *text; text++)
        sum += w[(unsigned char)*text][o];
    return sum;
}

sluice_model_ref fake_ref(int64_t version)
{
    return (sluice_model_ref){
        .slot = "policy", .version = version, .path = "", .dtype = "float32", .text = "policy", .next = version + 1};
}

static fake_models *of(const sluice_model_service *service)
{
    return (fake_models *)(uintptr_t)service;
}

static int model_open(const sluice_model_service *service, const sluice_host *host, const sluice_model_ref *ref,
                      sluice_model **out)
{
    fake_models *owner = of(service);
    sluice_model *model = calloc(1, sizeof *model);
    assert_non_null(model);
    model->owner = owner;
    model->version = ref->version;
    if (ref->path[0] && strcmp(ref->path, owner->saved_dir) == 0)
        memcpy(model->w, owner->saved, sizeof model->w);
    else
        weights(ref->version, model->w);
    owner->open++;
    *out = model;
    return SLUICE_OK;
}

static void model_close(sluice_model *model)
{
    model->owner->open--;
    free(model);
}

static int model_info(sluice_model *model, sluice_model_info *info)
{
    info->vocabulary = V;
    info->context = model->owner->context;
    info->start_id = FAKE_START;
    info->template_hash = model->owner->other_template && model->version == model->owner->other_template;
    info->has_tokenizer = !model->owner->no_tokenizer;
    info->has_template = model->owner->has_template;
    info->head_outputs = model->owner->head_outputs;
    return SLUICE_OK;
}

static void append(sluice_ids *ids, uint32_t id)
{
    if (ids->count == ids->capacity) {
        ids->capacity = ids->capacity ? 2 * ids->capacity : 64;
        ids->items = realloc(ids->items, ids->capacity * sizeof *ids->items);
        assert_non_null(ids->items);
    }
    ids->items[ids->count++] = id;
}

static int model_encode(sluice_model *model, const char *text, size_t length, uint32_t flags, sluice_ids *out)
{
    const fake_models *owner = model->owner;
    assert_false(flags & SLUICE_ENCODE_SPECIAL); /* what users wrote stays text */
    if (flags & SLUICE_ENCODE_START)
        append(out, FAKE_START);
    for (size_t i = 0; i < length; i++)
        append(out, (unsigned char)text[i] ^ (owner->other_tokens && model->version == owner->other_tokens));
    if (flags & SLUICE_ENCODE_STOP)
        append(out, FAKE_STOP);
    return SLUICE_OK;
}

/* What model_encode did, backwards; ids that are no bytes are left out. */
static int model_decode(sluice_model *model, const uint32_t *ids, size_t count, bool keep_special, sluice_text *out)
{
    (void)model, (void)keep_special;
    *out = (sluice_text){.text = calloc(count + 1, 1), .capacity = count + 1};
    assert_non_null(out->text);
    for (size_t i = 0; i < count; i++)
        if (ids[i] < FAKE_START)
            out->text[out->length++] = (char)ids[i];
    return SLUICE_OK;
}

static int model_encode_prompt(sluice_model *model, const sluice_record *record, bool raw, sluice_ids *out)
{
    const char *text = sluice_record_prompt(record);
    assert_non_null(text);
    return model_encode(model, text, strlen(text), SLUICE_ENCODE_START, out);
}

/* A start, the content and a stop a message, and a start where the answer begins. */
static int model_encode_messages(sluice_model *model, const sluice_message *messages, size_t count,
                                 bool add_generation_prompt, sluice_ids *out)
{
    char *roles = model->owner->roles;
    size_t room = sizeof model->owner->roles, at = 0;
    for (size_t i = 0; i < count; i++) {
        at += (size_t)snprintf(roles + at, room - at, "%s ", messages[i].role);
        assert_true(at < room);
        model_encode(model, messages[i].content, strlen(messages[i].content), SLUICE_ENCODE_START | SLUICE_ENCODE_STOP,
                     out);
    }
    return add_generation_prompt ? model_encode(model, "", 0, SLUICE_ENCODE_START, out) : SLUICE_OK;
}

static void remember(fake_models *owner, const uint32_t *tokens, size_t count)
{
    size_t n = 0;
    for (size_t i = 0; i < count && n + 1 < sizeof owner->asked; i++)
        if (tokens[i] < 256)
            owner->asked[n++] = (char)tokens[i];
    owner->asked[n] = 0;
}

static void say(const sluice_generation *g, const sluice_generate_prompt *prompt, uint32_t candidate, const char *text)
{
    bool cut = strncmp(text, "…", strlen("…")) == 0;
    const sluice_generated out = {.user = prompt->user,
                                  .candidate = candidate,
                                  .text = cut ? text + strlen("…") : text,
                                  .finish = cut ? SLUICE_FINISH_LENGTH : SLUICE_FINISH_STOP};
    assert_int_equal(g->done(g->context, &out), SLUICE_OK);
}

/* Answers of a few letters, drawn by seed, prompt, candidate and position; the last candidate of the last prompt is
 * done first. */
static void answer(sluice_model *model, const sluice_generation *g, const sluice_generate_prompt *prompt,
                   uint32_t candidate)
{
    uint32_t tokens[64], last = prompt->tokens[prompt->token_count - 1];
    float logprobs[64];
    char text[65];
    sluice_generated out = {.user = prompt->user,
                            .candidate = candidate,
                            .tokens = tokens,
                            .logprobs = logprobs,
                            .text = text,
                            .finish = SLUICE_FINISH_LENGTH};
    fake_models *owner = model->owner;
    remember(owner, prompt->tokens, prompt->token_count);
    if (owner->say_count > 0) {
        say(g, prompt, candidate, owner->says[owner->said++ % owner->say_count]);
        return;
    }
    while (out.token_count < g->max_tokens && out.finish == SLUICE_FINISH_LENGTH) {
        uint32_t at = out.token_count;
        uint64_t h = sluice_mix(sluice_mix(sluice_mix(g->seed, prompt->key), candidate), at);
        uint32_t token = h % 5 == 0 ? FAKE_STOP : 'a' + (uint32_t)(h % 7);
        tokens[at] = token;
        logprobs[at] = (float)logp(model->w, last, token);
        text[at] = token == FAKE_STOP ? 0 : (char)token;
        out.finish = token == FAKE_STOP ? SLUICE_FINISH_STOP : SLUICE_FINISH_LENGTH;
        out.token_count++;
        last = token;
    }
    text[out.token_count] = 0;
    assert_int_equal(g->done(g->context, &out), SLUICE_OK);
}

static int model_generate(sluice_model *model, const sluice_generation *g)
{
    sluice_generate_prompt prompts[3];
    int rc = SLUICE_OK;
    while (rc == SLUICE_OK) {
        size_t count = 0;
        while (count < 3 && (rc = g->prompt(g->context, &prompts[count])) == SLUICE_OK)
            count++;
        for (size_t i = count; rc >= 0 && i > 0; i--)
            for (uint32_t c = g->candidates; c > 0; c--)
                answer(model, g, &prompts[i - 1], c - 1);
    }
    return rc < 0 ? rc : SLUICE_OK;
}

static void score(double w[V][V], const sluice_group *groups, size_t count, float *const *logps)
{
    size_t k = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < groups[i].completion_count; c++, k++) {
            const sluice_span *span = &groups[i].completions[c];
            uint32_t last = groups[i].prompt.count ? groups[i].prompt.tokens[groups[i].prompt.count - 1] : V;
            for (size_t t = 0; t < span->count; t++) {
                logps[k][t] = last == V ? 0 : (float)logp(w, last, span->tokens[t]);
                last = span->tokens[t];
            }
        }
}

static int model_score(sluice_model *model, const sluice_group *groups, size_t count, float *const *logps,
                       float *const *entropy)
{
    for (size_t i = 0; i < count; i++)
        model->owner->scored += groups[i].completion_count;
    if (count > 0)
        remember(model->owner, groups[count - 1].prompt.tokens, groups[count - 1].prompt.count);
    score(model->w, groups, count, logps);
    if (model->owner->score_not_finite)
        logps[0][0] = NAN;
    return SLUICE_OK;
}

static void values_of(const fake_models *owner, int64_t version, double w[V][V], const sluice_group *groups,
                      size_t count, float *const *values)
{
    size_t k = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < groups[i].completion_count; c++, k++)
            for (uint32_t o = 0; o < owner->head_outputs; o++)
                values[k][o] =
                    owner->broken && version == owner->broken ? NAN : (float)value(w, &groups[i].completions[c], o);
}

static int model_score_values(sluice_model *model, const sluice_group *groups, size_t count, float *const *values)
{
    for (size_t i = 0; i < count; i++)
        model->owner->scored += groups[i].completion_count;
    values_of(model->owner, model->version, model->w, groups, count, values);
    return SLUICE_OK;
}

static int train_begin(sluice_model *model, const sluice_optimizer *optimizer, sluice_training **out)
{
    sluice_training *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->owner = model->owner;
    t->version = model->version;
    t->owner->optimizer = *optimizer;
    t->owner->started = model->version;
    t->owner->head_from = optimizer->head_from ? optimizer->head_from->version : -1;
    memcpy(t->w, model->w, sizeof t->w);
    memcpy(t->start, model->w, sizeof t->start);
    *out = t;
    return SLUICE_OK;
}

/* d log pi(token | last) / d w[last][j] = [j = token] - pi(j | last) */
static void backward(sluice_training *t, uint32_t last, uint32_t token, double d)
{
    for (uint32_t j = 0; d != 0 && j < V; j++)
        t->gradient[last][j] += d * ((j == token) - exp(logp(t->w, last, j)));
}

static int train_gradient(sluice_training *t, const sluice_group *groups, size_t count,
                          int (*derivative)(void *, const float *const *, float *const *), void *context)
{
    float *logps[256], *d[256];
    size_t n = 0;
    t->owner->gradients++;
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < groups[i].completion_count; c++, n++) {
            assert_true(n < 256);
            logps[n] = calloc(groups[i].completions[c].count + 1, sizeof(float));
            d[n] = calloc(groups[i].completions[c].count + 1, sizeof(float));
        }
    score(t->w, groups, count, logps);
    int rc = derivative(context, (const float *const *)logps, d);
    size_t k = 0;
    for (size_t i = 0; rc >= 0 && i < count; i++)
        for (size_t c = 0; c < groups[i].completion_count; c++, k++) {
            const sluice_span *span = &groups[i].completions[c];
            uint32_t last = groups[i].prompt.count ? groups[i].prompt.tokens[groups[i].prompt.count - 1] : V;
            for (size_t x = 0; x < span->count; x++) {
                if (last != V)
                    backward(t, last, span->tokens[x], d[k][x]);
                last = span->tokens[x];
            }
        }
    for (size_t i = 0; i < n; i++) {
        free(logps[i]);
        free(d[i]);
    }
    return rc;
}

static int train_values(sluice_training *t, const sluice_group *groups, size_t count,
                        int (*derivative)(void *, const float *const *, float *const *), void *context)
{
    const size_t outputs = t->owner->optimizer.head_outputs;
    float flat[256 * 4] = {0}, d_flat[256 * 4] = {0}, *values[256], *d[256];
    size_t n = 0;
    t->owner->gradients++;
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < groups[i].completion_count; c++, n++) {
            assert_true(n < 256 && outputs <= 4);
            values[n] = flat + n * outputs;
            d[n] = d_flat + n * outputs;
        }
    values_of(t->owner, t->version, t->w, groups, count, values);
    int rc = derivative(context, (const float *const *)values, d);
    size_t k = 0;
    for (size_t i = 0; rc >= 0 && i < count; i++)
        for (size_t c = 0; c < groups[i].completion_count; c++, k++)
            for (size_t x = 0; x < groups[i].completions[c].count; x++)
                for (size_t o = 0; o < outputs; o++)
                    t->gradient[groups[i].completions[c].tokens[x]][o] += d[k][o];
    return rc;
}

static int train_step(sluice_training *t, double lr, double scale, sluice_step_info *info)
{
    double norm = 0;
    t->owner->steps++;
    t->owner->last_lr = lr;
    info->skipped = t->owner->gradient_not_finite;
    for (size_t i = 0; i < V; i++)
        for (size_t j = 0; j < V; j++) {
            double g = t->gradient[i][j] * scale;
            t->owner->applied[i][j] = g;
            norm += g * g;
            if (!info->skipped)
                t->w[i][j] -= lr * g;
        }
    info->grad_norm = sqrt(norm);
    memset(t->gradient, 0, sizeof t->gradient);
    return SLUICE_OK;
}

static int train_save(sluice_training *t, const char *dir)
{
    memcpy(t->owner->saved, t->w, sizeof t->w);
    snprintf(t->owner->saved_dir, sizeof t->owner->saved_dir, "%s", dir);
    return SLUICE_OK;
}

static void train_end(sluice_training *t)
{
    free(t);
}

static int model_merge(const sluice_model_service *service, const sluice_host *host, int method,
                       const char *const *folders, const double *w, size_t count, const char *dir, const char *dtype)
{
    of(service)->merged_method = method;
    of(service)->merged = count;
    of(service)->merged_weight = w ? w[0] : NAN;
    return SLUICE_OK;
}

static int train_distance(sluice_training *t, double *out)
{
    double sum = 0;
    for (size_t i = 0; i < V; i++)
        for (size_t j = 0; j < V; j++)
            sum += (t->w[i][j] - t->start[i][j]) * (t->w[i][j] - t->start[i][j]);
    *out = sqrt(sum);
    return SLUICE_OK;
}

fake_models *fake_models_new(void)
{
    fake_models *m = calloc(1, sizeof *m);
    assert_non_null(m);
    m->context = 64;
    m->service = (sluice_model_service){.size = sizeof m->service,
                                        .open = model_open,
                                        .close = model_close,
                                        .info = model_info,
                                        .encode = model_encode,
                                        .encode_messages = model_encode_messages,
                                        .decode = model_decode,
                                        .encode_prompt = model_encode_prompt,
                                        .generate = model_generate,
                                        .score = model_score,
                                        .train_begin = train_begin,
                                        .train_gradient = train_gradient,
                                        .train_step = train_step,
                                        .train_save = train_save,
                                        .train_end = train_end,
                                        .merge = model_merge,
                                        .score_values = model_score_values,
                                        .train_values = train_values,
                                        .train_distance = train_distance};
    return m;
}

void fake_models_free(fake_models *m)
{
    assert_int_equal(m->open, 0);
    free(m);
}
