/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The model service for a stage in a process of its own: its questions are put to the real one, on this thread. */
#include "core/isolate/isolate.h"

#include <stdlib.h>
#include <string.h>

static sluice_model *model_of(sl_isolate *x, sl_message *m)
{
    const uint64_t handle = sl_get(m);
    sluice_model *model = handle < x->open_count ? x->open[handle] : NULL;
    m->bad = m->bad || model == NULL;
    return model;
}

void sl_isolate_close_models(sl_isolate *x)
{
    for (size_t i = 0; i < x->open_count; i++)
        if (x->open[i] != NULL)
            x->models->close(x->open[i]);
    free(x->open);
    x->open = NULL;
    x->open_count = 0;
}

/* ---- opening */

static void put_info(sl_message *m, const sluice_model_info *info)
{
    sl_put(m, info->vocabulary);
    sl_put(m, info->context);
    sl_put(m, info->layers);
    sl_put(m, info->hidden);
    sl_put(m, info->parameters);
    sl_put_bytes(m, info->stop_ids, info->stop_count * sizeof *info->stop_ids);
    sl_put(m, (uint64_t)info->start_id);
    sl_put(m, info->has_template);
    sl_put(m, info->has_tokenizer);
    sl_put(m, info->template_hash);
    sl_put_text(m, info->numerics);
    sl_put_bytes(m, info->content_hash, sizeof info->content_hash);
    sl_put(m, info->head_outputs);
}

/* The service may keep what a reference points to: it lives as long as the job. */
static const sluice_model_ref *get_ref(sl_message *m, sl_arena *arena)
{
    sluice_model_ref *ref = sl_arena_alloc(arena, sizeof *ref);
    const char *texts[4];
    for (int i = 0; i < 4; i++) {
        const char *text = sl_get_text(m);
        texts[i] = text != NULL ? sl_arena_strdup(arena, text) : NULL;
    }
    if (ref == NULL || texts[0] == NULL || texts[1] == NULL)
        return NULL;
    *ref = (sluice_model_ref){.slot = texts[0], .path = texts[1], .dtype = texts[2], .text = texts[3]};
    ref->version = (int64_t)sl_get(m);
    ref->next = (int64_t)sl_get(m);
    ref->random = sl_get(m) != 0;
    ref->seed = sl_get(m);
    return ref;
}

static int open_model(sl_isolate *x, sl_message *m)
{
    const sluice_host *host = &x->job->host.public;
    sl_message reply = {0};
    sluice_model *model = NULL;
    sluice_model_info info = {.size = sizeof info};
    const sluice_model_ref *ref = get_ref(m, x->job->arena);
    sluice_model **more = realloc(x->open, (x->open_count + 1) * sizeof *more);
    if (more != NULL)
        x->open = more;
    if (ref == NULL || more == NULL)
        return sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
    int rc = x->models->open(x->models, host, ref, &model);
    if (rc >= 0) {
        x->open[x->open_count] = model;
        rc = x->models->info(model, &info);
        sl_put(&reply, x->open_count++);
        put_info(&reply, &info);
    }
    return sl_isolate_reply(x, rc, &reply);
}

/* ---- text and ids */

static int reply_ids(sl_isolate *x, int rc, sluice_ids *ids)
{
    sl_message reply = {0};
    sl_put_bytes(&reply, ids->items, ids->count * sizeof *ids->items);
    free(ids->items);
    return sl_isolate_reply(x, rc, &reply);
}

static int encode(sl_isolate *x, sl_message *m)
{
    sluice_ids ids = {0};
    size_t size;
    sluice_model *model = model_of(x, m);
    const char *text = sl_get_bytes(m, 1, &size);
    const uint32_t flags = (uint32_t)sl_get(m);
    if (m->bad)
        return SLUICE_FAILED;
    return reply_ids(x, x->models->encode(model, text, size, flags, &ids), &ids);
}

static int encode_messages(sl_isolate *x, sl_message *m)
{
    sluice_ids ids = {0};
    sluice_model *model = model_of(x, m);
    const bool generation = sl_get(m) != 0;
    const size_t count = sl_get_count(m, 16);
    sluice_message *messages = calloc(count + 1, sizeof *messages);
    for (size_t i = 0; messages != NULL && i < count; i++) {
        messages[i].role = sl_get_text(m);
        messages[i].content = sl_get_text(m);
        m->bad = m->bad || messages[i].role == NULL || messages[i].content == NULL;
    }
    int rc = messages == NULL || m->bad ? SLUICE_FAILED : SLUICE_OK;
    if (rc >= 0)
        rc = reply_ids(x, x->models->encode_messages(model, messages, count, generation, &ids), &ids);
    free(messages);
    return rc;
}

static int decode(sl_isolate *x, sl_message *m)
{
    sl_message reply = {0};
    sluice_text text = {0};
    size_t size;
    sluice_model *model = model_of(x, m);
    const uint32_t *ids = sl_get_bytes(m, sizeof *ids, &size);
    const bool special = sl_get(m) != 0;
    if (m->bad)
        return SLUICE_FAILED;
    const int rc = x->models->decode(model, ids, size / sizeof *ids, special, &text);
    sl_put_bytes(&reply, text.text, text.length);
    free(text.text);
    return sl_isolate_reply(x, rc, &reply);
}

static int encode_prompt(sl_isolate *x, sl_message *m)
{
    sluice_ids ids = {0};
    char why[256];
    size_t size, used;
    sl_record *record;
    sluice_model *model = model_of(x, m);
    const uint8_t *bytes = sl_get_bytes(m, 1, &size);
    const bool raw = sl_get(m) != 0;
    if (m->bad || sl_record_decode(bytes, size, &record, &used, why, sizeof why) < 0) {
        m->bad = true;
        return SLUICE_FAILED;
    }
    const int rc = reply_ids(x, x->models->encode_prompt(model, sl_record_public(record), raw, &ids), &ids);
    sl_record_free(record);
    return rc;
}

/* ---- scores */

struct groups {
    sluice_group *groups;
    sluice_span *spans; /* of all groups, end to end */
    float **rows;       /* one a completion, into `values`; twice as many where entropies are wanted too */
    float *values;
    size_t count, completions, floats;
};

static void groups_free(struct groups *g)
{
    free(g->groups);
    free(g->spans);
    free(g->rows);
    free(g->values);
}

/* Groups, and room for `outputs` floats a completion (0: one a token), `times` over. */
static int get_groups(sl_message *m, struct groups *g, size_t outputs, size_t times)
{
    size_t size;
    memset(g, 0, sizeof *g);
    g->count = sl_get_count(m, 24);
    g->completions = sl_get_count(m, 8);
    g->groups = calloc(g->count + 1, sizeof *g->groups);
    g->spans = calloc(g->completions + 1, sizeof *g->spans);
    g->rows = calloc(times * g->completions + 1, sizeof *g->rows);
    if (g->groups == NULL || g->spans == NULL || g->rows == NULL)
        return SLUICE_NO_MEMORY;
    size_t span = 0;
    for (size_t i = 0; i < g->count && !m->bad; i++) {
        sluice_group *group = &g->groups[i];
        group->key = sl_get(m);
        group->prompt.tokens = sl_get_bytes(m, sizeof(uint32_t), &size);
        group->prompt.count = size / sizeof(uint32_t);
        group->completion_count = sl_get_count(m, 8);
        group->completions = g->spans + span;
        m->bad = m->bad || group->completion_count > g->completions - span;
        for (size_t c = 0; c < group->completion_count && !m->bad; c++, span++) {
            g->spans[span].tokens = sl_get_bytes(m, sizeof(uint32_t), &size);
            g->spans[span].count = size / sizeof(uint32_t);
            g->floats += outputs > 0 ? outputs : g->spans[span].count;
        }
    }
    m->bad = m->bad || span != g->completions;
    g->values = calloc(times * g->floats + 1, sizeof *g->values);
    if (g->values == NULL)
        return SLUICE_NO_MEMORY;
    float *at = g->values;
    for (size_t t = 0; t < times; t++)
        for (size_t c = 0; c < g->completions; c++) {
            g->rows[t * g->completions + c] = at;
            at += outputs > 0 ? outputs : g->spans[c].count;
        }
    return m->bad ? SLUICE_FAILED : SLUICE_OK;
}

static int reply_values(sl_isolate *x, int rc, struct groups *g, size_t times)
{
    sl_message reply = {0};
    sl_put_bytes(&reply, g->values, times * g->floats * sizeof *g->values);
    groups_free(g);
    return sl_isolate_reply(x, rc, &reply);
}

static int score(sl_isolate *x, sl_message *m)
{
    struct groups g;
    sluice_model *model = model_of(x, m);
    const size_t times = sl_get(m) != 0 ? 2 : 1; /* the entropies too */
    int rc = get_groups(m, &g, 0, times);
    if (rc < 0 || m->bad) {
        groups_free(&g);
        return rc < 0 ? rc : SLUICE_FAILED;
    }
    rc = x->models->score(model, g.groups, g.count, g.rows, times == 2 ? g.rows + g.completions : NULL);
    return reply_values(x, rc, &g, times);
}

static int score_values(sl_isolate *x, sl_message *m)
{
    struct groups g;
    sluice_model *model = model_of(x, m);
    sluice_model_info info = {.size = sizeof info};
    int rc = m->bad ? SLUICE_FAILED : x->models->info(model, &info);
    if (rc < 0)
        return rc;
    rc = get_groups(m, &g, info.head_outputs > 0 ? info.head_outputs : 1, 1);
    if (rc < 0) {
        groups_free(&g);
        return rc;
    }
    return reply_values(x, x->models->score_values(model, g.groups, g.count, g.rows), &g, 1);
}

/* ---- whole models */

static int merge(sl_isolate *x, sl_message *m)
{
    const int method = (int)sl_get(m);
    const char *folder = sl_get_text(m), *dtype = sl_get_text(m);
    const size_t count = sl_get_count(m, 16);
    const char **folders = calloc(count + 1, sizeof *folders);
    double *weights = calloc(count + 1, sizeof *weights);
    bool weighted = false;
    for (size_t i = 0; folders != NULL && weights != NULL && i < count; i++) {
        folders[i] = sl_get_text(m);
        weights[i] = sl_get_double(m);
        weighted = sl_get(m) != 0;
        m->bad = m->bad || folders[i] == NULL;
    }
    int rc = folders == NULL || weights == NULL || folder == NULL || m->bad ? SLUICE_FAILED : SLUICE_OK;
    if (rc >= 0)
        rc = sl_isolate_reply(x,
                              x->models->merge(x->models, &x->job->host.public, method, folders,
                                               weighted ? weights : NULL, count, folder, dtype),
                              NULL);
    else
        m->bad = true;
    free(folders);
    free(weights);
    return rc;
}

static int distance(sl_isolate *x, sl_message *m)
{
    sl_message reply = {0};
    double value = 0;
    sluice_model *a = model_of(x, m), *b = model_of(x, m);
    if (m->bad)
        return SLUICE_FAILED;
    const int rc = x->models->distance(a, b, &value);
    sl_put_double(&reply, value);
    return sl_isolate_reply(x, rc, &reply);
}

/* ---- generation: the service asks this thread for prompts and gives it answers; both are passed on. */

/* A prompt under way: the service reads its tokens until the last of its candidates is done. */
struct prompt {
    struct prompt *next;
    uint64_t user;
    uint32_t left;
    uint32_t tokens[];
};

struct generating {
    sl_isolate *isolate;
    struct prompt *prompts;
    uint32_t candidates;
};

/* Asks the process, and answers it until it has answered. */
static int ask(sl_isolate *x, const sl_message *question, sl_message *answer)
{
    int rc = sl_process_send(&x->process, question);
    if (rc >= 0)
        rc = sl_isolate_serve(x, SL_WIRE_ANSWER, answer);
    return rc >= 0 ? (int)(int64_t)sl_get(answer) : rc;
}

static int want_prompt(void *context, sluice_generate_prompt *prompt)
{
    struct generating *g = context;
    const sl_message question = {.kind = SL_WIRE_WANT_PROMPT};
    sl_message answer = {0};
    size_t size;
    int rc = ask(g->isolate, &question, &answer);
    if (rc == SLUICE_OK) {
        const uint64_t user = sl_get(&answer);
        prompt->key = sl_get(&answer);
        const uint32_t *tokens = sl_get_bytes(&answer, sizeof *tokens, &size);
        struct prompt *kept = malloc(sizeof *kept + size);
        if (answer.bad || kept == NULL) {
            free(kept);
            rc = answer.bad ? sl_process_crashed(&g->isolate->process, "gave no prompt that can be read, and was ended")
                            : SLUICE_NO_MEMORY;
        } else {
            *kept = (struct prompt){g->prompts, user, g->candidates};
            if (size > 0)
                memcpy(kept->tokens, tokens, size);
            g->prompts = kept;
            prompt->tokens = kept->tokens;
            prompt->token_count = size / sizeof *tokens;
            prompt->user = kept;
        }
    }
    sl_message_free(&answer);
    return rc;
}

static void prompt_done(struct generating *g, struct prompt *prompt)
{
    struct prompt **at = &g->prompts;
    if (--prompt->left > 0)
        return;
    while (*at != prompt)
        at = &(*at)->next;
    *at = prompt->next;
    free(prompt);
}

static int generated(void *context, const sluice_generated *c)
{
    struct generating *g = context;
    sl_message question = {.kind = SL_WIRE_GENERATED}, answer = {0};
    struct prompt *prompt = c->user;
    sl_put(&question, prompt->user);
    sl_put(&question, c->candidate);
    sl_put(&question, (uint64_t)c->finish);
    sl_put_bytes(&question, c->tokens, c->token_count * sizeof *c->tokens);
    sl_put_bytes(&question, c->logprobs, c->logprobs != NULL ? c->token_count * sizeof *c->logprobs : 0);
    sl_put_text(&question, c->text);
    const int rc = ask(g->isolate, &question, &answer);
    sl_message_free(&question);
    sl_message_free(&answer);
    prompt_done(g, prompt);
    return rc;
}

static int generate(sl_isolate *x, sl_message *m)
{
    sluice_generation settings = {.size = sizeof settings, .prompt = want_prompt, .done = generated};
    sluice_model *model = model_of(x, m);
    settings.candidates = (uint32_t)sl_get(m);
    settings.max_tokens = (uint32_t)sl_get(m);
    settings.top_k = (uint32_t)sl_get(m);
    settings.temperature = sl_get_double(m);
    settings.top_p = sl_get_double(m);
    settings.min_p = sl_get_double(m);
    settings.repetition_penalty = sl_get_double(m);
    settings.seed = sl_get(m);
    settings.slots = (uint32_t)sl_get(m);
    settings.stop_count = sl_get_count(m, 8);
    const char **stop = calloc(settings.stop_count + 1, sizeof *stop);
    for (size_t i = 0; stop != NULL && i < settings.stop_count; i++) {
        stop[i] = sl_get_text(m);
        m->bad = m->bad || stop[i] == NULL;
    }
    if (stop == NULL || m->bad || settings.candidates == 0) {
        m->bad = true;
        free(stop);
        return SLUICE_FAILED;
    }
    struct generating g = {.isolate = x, .candidates = settings.candidates};
    settings.stop = stop;
    settings.context = &g;
    const int rc = x->models->generate(model, &settings);
    for (struct prompt *p = g.prompts, *next; p != NULL; p = next) {
        next = p->next;
        free(p);
    }
    free(stop);
    return x->process.crashed ? SLUICE_FAILED : sl_isolate_reply(x, rc, NULL);
}

int sl_isolate_model(sl_isolate *x, sl_message *m)
{
    if (x->models == NULL) {
        x->models = sluice_service(&x->job->host.public, SLUICE_MODEL_SERVICE);
        if (x->models == NULL)
            return m->kind == SL_WIRE_CLOSE ? SLUICE_OK : sl_isolate_reply(x, SLUICE_UNSUPPORTED, NULL);
    }
    switch (m->kind) {
    case SL_WIRE_OPEN:
        return open_model(x, m);
    case SL_WIRE_CLOSE: {
        const uint64_t handle = sl_get(m);
        if (handle < x->open_count && x->open[handle] != NULL)
            x->models->close(x->open[handle]);
        if (handle < x->open_count)
            x->open[handle] = NULL;
        return SLUICE_OK;
    }
    case SL_WIRE_ENCODE:
        return encode(x, m);
    case SL_WIRE_MESSAGES:
        return encode_messages(x, m);
    case SL_WIRE_DECODE:
        return decode(x, m);
    case SL_WIRE_PROMPT:
        return encode_prompt(x, m);
    case SL_WIRE_SCORE:
        return score(x, m);
    case SL_WIRE_VALUES:
        return score_values(x, m);
    case SL_WIRE_MERGE:
        return merge(x, m);
    case SL_WIRE_DISTANCE:
        return distance(x, m);
    default:
        return generate(x, m);
    }
}
