/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* "sluice.model/1" in a stage's own process: the run's models, asked over the socket. */
#include "tools/stage/stage.h"

#include <stdlib.h>
#include <string.h>

struct sluice_model {
    uint64_t handle;
    sluice_model_info info; /* with texts and ids of its own */
};

static int refuse(const char *what)
{
    return sluice_error(&sl_child_job->host.public, SLUICE_UNSUPPORTED,
                        "%s is not possible in a process of its own; remove isolate = true", what);
}

static int no_memory(void)
{
    return sluice_error(&sl_child_job->host.public, SLUICE_NO_MEMORY, "out of memory");
}

/* ---- opening */

static void put_ref(sl_message *m, const sluice_model_ref *ref)
{
    sl_put_text(m, ref->slot);
    sl_put_text(m, ref->path);
    sl_put_text(m, ref->dtype);
    sl_put_text(m, ref->text);
    sl_put(m, (uint64_t)ref->version);
    sl_put(m, (uint64_t)ref->next);
    sl_put(m, ref->random);
    sl_put(m, ref->seed);
}

static bool get_info(sl_message *m, sluice_model_info *info)
{
    size_t size;
    info->size = sizeof *info;
    info->vocabulary = (uint32_t)sl_get(m);
    info->context = (uint32_t)sl_get(m);
    info->layers = (uint32_t)sl_get(m);
    info->hidden = (uint32_t)sl_get(m);
    info->parameters = sl_get(m);
    const void *ids = sl_get_bytes(m, sizeof(uint32_t), &size);
    uint32_t *stop_ids = malloc(size + 1);
    if (stop_ids != NULL && size > 0)
        memcpy(stop_ids, ids, size);
    info->stop_ids = stop_ids;
    info->stop_count = size / sizeof(uint32_t);
    info->start_id = (int64_t)sl_get(m);
    info->has_template = sl_get(m) != 0;
    info->has_tokenizer = sl_get(m) != 0;
    info->template_hash = sl_get(m);
    const char *numerics = sl_get_text(m);
    info->numerics = numerics != NULL ? strdup(numerics) : NULL;
    const void *hash = sl_get_bytes(m, 1, &size);
    if (size == sizeof info->content_hash)
        memcpy(info->content_hash, hash, size);
    info->head_outputs = (uint32_t)sl_get(m);
    return stop_ids != NULL && (numerics == NULL || info->numerics != NULL);
}

static void model_free(sluice_model *model)
{
    free((void *)(uintptr_t)model->info.stop_ids);
    free((void *)(uintptr_t)model->info.numerics);
    free(model);
}

static void child_close(sluice_model *model)
{
    sl_message m = {.kind = SL_WIRE_CLOSE};
    if (model == NULL)
        return;
    sl_put(&m, model->handle);
    sl_child_send(&m);
    model_free(model);
}

static int child_open(const sluice_model_service *service, const sluice_host *host, const sluice_model_ref *ref,
                      sluice_model **out)
{
    sl_message m = {.kind = SL_WIRE_OPEN}, reply;
    (void)service, (void)host;
    sluice_model *model = *out = calloc(1, sizeof *model);
    if (model == NULL)
        return no_memory();
    put_ref(&m, ref);
    int rc = sl_child_ask(&m, &reply);
    if (rc >= 0) {
        model->handle = sl_get(&reply);
        rc = get_info(&reply, &model->info) ? rc : no_memory();
    }
    if (rc < 0) {
        model_free(model);
        *out = NULL;
    }
    sl_message_free(&reply);
    return rc;
}

static int child_info(sluice_model *model, sluice_model_info *info)
{
    const uint32_t size = info->size < sizeof *info ? info->size : (uint32_t)sizeof *info;
    memcpy(info, &model->info, size);
    info->size = size;
    return SLUICE_OK;
}

/* ---- text and ids */

static int ask_ids(sl_message *m, sluice_ids *ids)
{
    sl_message reply;
    size_t size;
    int rc = sl_child_ask(m, &reply);
    const void *items = sl_get_bytes(&reply, sizeof *ids->items, &size);
    const size_t count = size / sizeof *ids->items;
    if (rc >= 0 && ids->count + count > ids->capacity) {
        const size_t capacity = 2 * (ids->count + count);
        uint32_t *more = realloc(ids->items, capacity * sizeof *more);
        if (more != NULL) {
            ids->items = more;
            ids->capacity = capacity;
        } else {
            rc = no_memory();
        }
    }
    if (rc >= 0 && count > 0) {
        memcpy(ids->items + ids->count, items, size);
        ids->count += count;
    }
    sl_message_free(&reply);
    return rc;
}

static int child_encode(sluice_model *model, const char *text, size_t length, uint32_t flags, sluice_ids *ids)
{
    sl_message m = {.kind = SL_WIRE_ENCODE};
    sl_put(&m, model->handle);
    sl_put_bytes(&m, text, length);
    sl_put(&m, flags);
    return ask_ids(&m, ids);
}

static int child_encode_messages(sluice_model *model, const sluice_message *messages, size_t count, bool generation,
                                 sluice_ids *ids)
{
    sl_message m = {.kind = SL_WIRE_MESSAGES};
    sl_put(&m, model->handle);
    sl_put(&m, generation);
    sl_put(&m, count);
    for (size_t i = 0; i < count; i++) {
        sl_put_text(&m, messages[i].role);
        sl_put_text(&m, messages[i].content);
    }
    return ask_ids(&m, ids);
}

static int child_decode(sluice_model *model, const uint32_t *ids, size_t count, bool special, sluice_text *text)
{
    sl_message m = {.kind = SL_WIRE_DECODE}, reply;
    size_t size;
    sl_put(&m, model->handle);
    sl_put_bytes(&m, ids, count * sizeof *ids);
    sl_put(&m, special);
    int rc = sl_child_ask(&m, &reply);
    const char *bytes = sl_get_bytes(&reply, 1, &size);
    if (rc >= 0 && size + 1 > text->capacity) {
        char *more = realloc(text->text, size + 1);
        if (more != NULL) {
            text->text = more;
            text->capacity = size + 1;
        } else {
            rc = no_memory();
        }
    }
    if (rc >= 0) {
        if (size > 0)
            memcpy(text->text, bytes, size);
        text->text[size] = '\0';
        text->length = size;
    }
    sl_message_free(&reply);
    return rc;
}

static int child_encode_prompt(sluice_model *model, const sluice_record *record, bool raw, sluice_ids *ids)
{
    sl_message m = {.kind = SL_WIRE_PROMPT};
    sl_buffer bytes = {0};
    const int rc = sl_record_encode((const sl_record *)(const void *)record, &bytes);
    if (rc < 0) {
        sl_buffer_free(&bytes);
        return sluice_error(&sl_child_job->host.public, rc, "the record has no id");
    }
    sl_put(&m, model->handle);
    sl_put_bytes(&m, bytes.data, bytes.size);
    sl_put(&m, raw);
    sl_buffer_free(&bytes);
    return ask_ids(&m, ids);
}

/* ---- scores */

static void put_groups(sl_message *m, const sluice_group *groups, size_t count)
{
    size_t completions = 0;
    for (size_t i = 0; i < count; i++)
        completions += groups[i].completion_count;
    sl_put(m, count);
    sl_put(m, completions);
    for (size_t i = 0; i < count; i++) {
        sl_put(m, groups[i].key);
        sl_put_bytes(m, groups[i].prompt.tokens, groups[i].prompt.count * sizeof(uint32_t));
        sl_put(m, groups[i].completion_count);
        for (size_t c = 0; c < groups[i].completion_count; c++)
            sl_put_bytes(m, groups[i].completions[c].tokens, groups[i].completions[c].count * sizeof(uint32_t));
    }
}

/* Floats end to end into one array a completion; `outputs` 0: one float a token. */
static void spread(const float **from, const sluice_group *groups, size_t count, size_t outputs, float *const *rows)
{
    for (size_t i = 0, k = 0; i < count; i++)
        for (size_t c = 0; c < groups[i].completion_count; c++, k++) {
            const size_t n = outputs > 0 ? outputs : groups[i].completions[c].count;
            if (n > 0)
                memcpy(rows[k], *from, n * sizeof **from);
            *from += n;
        }
}

static size_t floats_of(const sluice_group *groups, size_t count, size_t outputs)
{
    size_t floats = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < groups[i].completion_count; c++)
            floats += outputs > 0 ? outputs : groups[i].completions[c].count;
    return floats;
}

static int child_score(sluice_model *model, const sluice_group *groups, size_t count, float *const *logps,
                       float *const *entropy)
{
    sl_message m = {.kind = SL_WIRE_SCORE}, reply;
    size_t size;
    sl_put(&m, model->handle);
    sl_put(&m, entropy != NULL);
    put_groups(&m, groups, count);
    int rc = sl_child_ask(&m, &reply);
    const float *values = sl_get_bytes(&reply, sizeof *values, &size);
    const size_t floats = floats_of(groups, count, 0) * (entropy != NULL ? 2 : 1);
    if (rc >= 0 && size == floats * sizeof *values) {
        spread(&values, groups, count, 0, logps);
        if (entropy != NULL)
            spread(&values, groups, count, 0, entropy);
    }
    sl_message_free(&reply);
    return rc;
}

static int child_score_values(sluice_model *model, const sluice_group *groups, size_t count, float *const *rows)
{
    sl_message m = {.kind = SL_WIRE_VALUES}, reply;
    size_t size;
    sl_put(&m, model->handle);
    put_groups(&m, groups, count);
    const int rc = sl_child_ask(&m, &reply);
    const float *values = sl_get_bytes(&reply, sizeof *values, &size);
    if (rc >= 0 && size == floats_of(groups, count, model->info.head_outputs) * sizeof *values)
        spread(&values, groups, count, model->info.head_outputs, rows);
    sl_message_free(&reply);
    return rc;
}

/* ---- generation */

static const sluice_generation *generating; /* under the lock of questions: by the thread that waits for its end */

static void answer_prompt(sl_message *answer)
{
    sluice_generate_prompt prompt = {0};
    const int rc = generating->prompt(generating->context, &prompt);
    sl_put(answer, (uint64_t)(int64_t)rc);
    if (rc != SLUICE_OK)
        return;
    sl_put(answer, (uint64_t)(uintptr_t)prompt.user);
    sl_put(answer, prompt.key);
    sl_put_bytes(answer, prompt.tokens, prompt.token_count * sizeof *prompt.tokens);
}

static void answer_generated(sl_message *m, sl_message *answer)
{
    sluice_generated c = {0};
    size_t size;
    c.user = (void *)(uintptr_t)sl_get(m);
    c.candidate = (uint32_t)sl_get(m);
    c.finish = (int32_t)sl_get(m);
    c.tokens = sl_get_bytes(m, sizeof *c.tokens, &size);
    c.token_count = (uint32_t)(size / sizeof *c.tokens);
    c.logprobs = sl_get_bytes(m, sizeof *c.logprobs, &size);
    c.text = sl_get_text(m);
    sl_put(answer, (uint64_t)(int64_t)generating->done(generating->context, &c));
}

void sl_child_answer(sl_message *m)
{
    sl_message answer = {.kind = SL_WIRE_ANSWER};
    if (generating == NULL)
        sl_put(&answer, (uint64_t)(int64_t)SLUICE_FAILED);
    else if (m->kind == SL_WIRE_WANT_PROMPT)
        answer_prompt(&answer);
    else
        answer_generated(m, &answer);
    sl_child_send(&answer);
}

static int child_generate(sluice_model *model, const sluice_generation *g)
{
    sl_message m = {.kind = SL_WIRE_GENERATE}, reply;
    if (g->hook != NULL)
        return refuse("a hook at each token");
    sl_put(&m, model->handle);
    sl_put(&m, g->candidates);
    sl_put(&m, g->max_tokens);
    sl_put(&m, g->top_k);
    sl_put_double(&m, g->temperature);
    sl_put_double(&m, g->top_p);
    sl_put_double(&m, g->min_p);
    sl_put_double(&m, g->repetition_penalty);
    sl_put(&m, g->seed);
    sl_put(&m, g->slots);
    sl_put(&m, g->stop_count);
    for (size_t i = 0; i < g->stop_count; i++)
        sl_put_text(&m, g->stop[i]);
    const sluice_generation *outer = generating;
    generating = g;
    const int rc = sl_child_ask(&m, &reply);
    generating = outer;
    sl_message_free(&reply);
    return rc;
}

/* ---- whole models */

static int child_merge(const sluice_model_service *service, const sluice_host *host, int method,
                       const char *const *folders, const double *weights, size_t count, const char *dir,
                       const char *dtype)
{
    sl_message m = {.kind = SL_WIRE_MERGE}, reply;
    const size_t given = weights == NULL ? 0 : method == SLUICE_MERGE_WEIGHTED ? count : 1;
    (void)service, (void)host;
    sl_put(&m, (uint64_t)method);
    sl_put_text(&m, dir);
    sl_put_text(&m, dtype);
    sl_put(&m, count);
    for (size_t i = 0; i < count; i++) {
        sl_put_text(&m, folders[i]);
        sl_put_double(&m, i < given ? weights[i] : 0);
        sl_put(&m, weights != NULL);
    }
    const int rc = sl_child_ask(&m, &reply);
    sl_message_free(&reply);
    return rc;
}

static int child_distance(sluice_model *a, sluice_model *b, double *value)
{
    sl_message m = {.kind = SL_WIRE_DISTANCE}, reply;
    sl_put(&m, a->handle);
    sl_put(&m, b->handle);
    const int rc = sl_child_ask(&m, &reply);
    *value = rc >= 0 ? sl_get_double(&reply) : 0;
    sl_message_free(&reply);
    return rc;
}

/* ---- what would pass gigabytes over the socket, or a question a token */

static int no_training(sluice_model *model, const sluice_optimizer *optimizer, sluice_training **training)
{
    (void)model, (void)optimizer;
    *training = NULL;
    return refuse("training");
}

static size_t no_tensors(sluice_model *model)
{
    (void)model;
    refuse("reading tensors");
    return 0;
}

static int no_tensor(sluice_model *model, size_t index, sluice_tensor *tensor)
{
    (void)model, (void)index, (void)tensor;
    return refuse("reading tensors");
}

static int no_copy(sluice_model *model, sluice_model **copy)
{
    (void)model;
    *copy = NULL;
    return refuse("copying a model");
}

static int no_save(sluice_model *model, const char *dir)
{
    (void)model, (void)dir;
    return refuse("saving a model");
}

const sluice_model_service *sl_child_models(void)
{
    /* What works on a training can only be called with one, and there is none. */
    static const sluice_model_service service = {.size = sizeof service,
                                                 .open = child_open,
                                                 .close = child_close,
                                                 .info = child_info,
                                                 .encode = child_encode,
                                                 .encode_messages = child_encode_messages,
                                                 .decode = child_decode,
                                                 .encode_prompt = child_encode_prompt,
                                                 .generate = child_generate,
                                                 .score = child_score,
                                                 .train_begin = no_training,
                                                 .tensor_count = no_tensors,
                                                 .tensor = no_tensor,
                                                 .copy = no_copy,
                                                 .save = no_save,
                                                 .merge = child_merge,
                                                 .distance = child_distance,
                                                 .score_values = child_score_values};
    return &service;
}
