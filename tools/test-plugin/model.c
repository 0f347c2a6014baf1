/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/test-plugin/model.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/random.h>
#include "tools/test-plugin/model_parts.h"

enum { V = TP_VOCABULARY };

/* ---- weights */

void tp_table_draw(struct tp_table *t, int64_t version)
{
    for (size_t i = 0; i < V; i++)
        for (size_t j = 0; j < V; j++)
            t->w[i][j] = (float)sin((double)(i * 7 + j * 13) + 1.5 * (double)version);
    for (size_t h = 0; h < TP_HEADS; h++)
        for (size_t i = 0; i < V; i++)
            t->head[h][i] = (float)cos((double)(i * 5 + h) + (double)version);
}

static bool table_write(const struct tp_table *t, const char *path)
{
    FILE *out = fopen(path, "wbe");
    const bool whole = out != NULL && fwrite(t, sizeof *t, 1, out) == 1;
    return (out != NULL && fclose(out) == 0) && whole;
}

bool tp_table_read(struct tp_table *t, const char *path)
{
    FILE *in = fopen(path, "rbe");
    const bool whole = in != NULL && fread(t, sizeof *t, 1, in) == 1;
    if (in != NULL)
        fclose(in);
    return whole;
}

bool tp_table_save(const struct tp_table *t, const char *folder)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/weights", folder);
    return table_write(t, path);
}

bool tp_model_write(const char *folder, int64_t version)
{
    struct tp_table *t = malloc(sizeof *t);
    if (t == NULL)
        return false;
    tp_table_draw(t, version);
    const bool written = tp_table_save(t, folder);
    free(t);
    return written;
}

void tp_table_sums(const struct tp_table *t, double *sums)
{
    for (size_t i = 0; i < V; i++) {
        double sum = 0;
        for (size_t j = 0; j < V; j++)
            sum += exp((double)t->w[i][j]);
        sums[i] = log(sum);
    }
}

static bool known(const uint32_t *tokens, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (tokens[i] >= V)
            return false;
    return true;
}

bool tp_groups_fit(const sluice_host *host, const sluice_group *groups, size_t count)
{
    for (size_t g = 0; g < count; g++) {
        bool fits = known(groups[g].prompt.tokens, groups[g].prompt.count);
        for (size_t c = 0; fits && c < groups[g].completion_count; c++)
            fits = known(groups[g].completions[c].tokens, groups[g].completions[c].count) &&
                   groups[g].prompt.count + groups[g].completions[c].count <= TP_CONTEXT;
        if (!fits) {
            sluice_error(host, SLUICE_BAD_RECORD, "a token id is beyond the vocabulary of %d, or there are too many",
                         V);
            return false;
        }
    }
    return true;
}

void tp_table_score(const struct tp_table *t, const sluice_group *groups, size_t count, float *const *logps)
{
    double sums[V];
    size_t k = 0;
    tp_table_sums(t, sums);
    for (size_t g = 0; g < count; g++)
        for (size_t c = 0; c < groups[g].completion_count; c++, k++) {
            const sluice_span *span = &groups[g].completions[c];
            uint32_t last = groups[g].prompt.count > 0 ? groups[g].prompt.tokens[groups[g].prompt.count - 1] : V;
            for (size_t i = 0; i < span->count; last = span->tokens[i++])
                logps[k][i] = last == V ? 0 : (float)((double)t->w[last][span->tokens[i]] - sums[last]);
        }
}

uint32_t tp_last_token(const sluice_group *group, const sluice_span *span)
{
    if (span->count > 0)
        return span->tokens[span->count - 1];
    return group->prompt.count > 0 ? group->prompt.tokens[group->prompt.count - 1] : TP_START;
}

void tp_table_values(const struct tp_table *t, size_t outputs, const sluice_group *groups, size_t count,
                     float *const *values)
{
    size_t k = 0;
    for (size_t g = 0; g < count; g++)
        for (size_t c = 0; c < groups[g].completion_count; c++, k++)
            for (size_t h = 0; h < outputs; h++)
                values[k][h] = t->head[h][tp_last_token(&groups[g], &groups[g].completions[c])];
}

/* ---- opening */

static int model_open(const sluice_model_service *service, const sluice_host *host, const sluice_model_ref *ref,
                      sluice_model **out)
{
    char path[PATH_MAX];
    sluice_model *model = calloc(1, sizeof *model);
    if (model == NULL)
        return sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
    model->host = host;
    model->heads = service == tp_model_service(true);
    snprintf(path, sizeof path, "%s/weights", ref->path != NULL ? ref->path : ".");
    if (!tp_table_read(&model->table, path)) {
        free(model);
        return sluice_error(host, SLUICE_BAD_MODEL, "%s cannot be read: %s", path, strerror(errno));
    }
    *out = model;
    return SLUICE_OK;
}

static void model_close(sluice_model *model)
{
    free(model);
}

static int model_info(sluice_model *model, sluice_model_info *info)
{
    static const uint32_t stops[] = {TP_STOP};
    sluice_model_info whole = {.size = info->size,
                               .vocabulary = V,
                               .context = TP_CONTEXT,
                               .layers = 1,
                               .hidden = V,
                               .parameters = V * V,
                               .stop_ids = stops,
                               .stop_count = 1,
                               .start_id = TP_START,
                               .has_tokenizer = true,
                               .numerics = "a table",
                               .head_outputs = model->heads ? TP_HEADS : 0};
    memcpy(info, &whole, info->size < sizeof whole ? info->size : sizeof whole);
    return SLUICE_OK;
}

/* ---- text */

static int append(const sluice_model *model, sluice_ids *ids, uint32_t id)
{
    if (ids->count == ids->capacity) {
        const size_t capacity = ids->capacity > 0 ? 2 * ids->capacity : 64;
        uint32_t *items = realloc(ids->items, capacity * sizeof *items);
        if (items == NULL)
            return sluice_error(model->host, SLUICE_NO_MEMORY, "out of memory");
        ids->items = items;
        ids->capacity = capacity;
    }
    ids->items[ids->count++] = id;
    return SLUICE_OK;
}

static int model_encode(sluice_model *model, const char *text, size_t length, uint32_t flags, sluice_ids *out)
{
    int rc = flags & SLUICE_ENCODE_START ? append(model, out, TP_START) : SLUICE_OK;
    for (size_t i = 0; rc >= 0 && i < length; i++)
        rc = append(model, out, (unsigned char)text[i]);
    return rc >= 0 && (flags & SLUICE_ENCODE_STOP) ? append(model, out, TP_STOP) : rc;
}

static int model_encode_messages(sluice_model *model, const sluice_message *messages, size_t count,
                                 bool add_generation_prompt, sluice_ids *out)
{
    int rc = SLUICE_OK;
    for (size_t i = 0; rc >= 0 && i < count; i++)
        rc = model_encode(model, messages[i].content, strlen(messages[i].content),
                          SLUICE_ENCODE_START | SLUICE_ENCODE_STOP, out);
    return rc >= 0 && add_generation_prompt ? append(model, out, TP_START) : rc;
}

static int model_decode(sluice_model *model, const uint32_t *ids, size_t count, bool keep_special, sluice_text *out)
{
    (void)keep_special;
    char *text = realloc(out->text, count + 1);
    if (text == NULL)
        return sluice_error(model->host, SLUICE_NO_MEMORY, "out of memory");
    *out = (sluice_text){.text = text, .capacity = count + 1};
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 128)
            text[out->length++] = (char)ids[i];
    text[out->length] = '\0';
    return SLUICE_OK;
}

static int model_encode_prompt(sluice_model *model, const sluice_record *record, bool raw, sluice_ids *out)
{
    (void)raw;
    size_t count;
    const sluice_message *messages;
    const uint32_t *tokens = sluice_record_prompt_tokens(record, &count);
    int rc = SLUICE_OK;
    for (size_t i = 0; tokens != NULL && rc >= 0 && i < count; i++)
        rc = append(model, out, tokens[i]);
    if (tokens != NULL)
        return rc;
    if ((count = sluice_record_messages(record, &messages)) > 0)
        return model_encode_messages(model, messages, count, true, out);
    const char *text = sluice_record_prompt(record);
    if (text == NULL)
        return sluice_record_error(model->host, record, SLUICE_BAD_RECORD, "it has no prompt; give it one");
    return model_encode(model, text, strlen(text), SLUICE_ENCODE_START, out);
}

/* ---- asking */

/* An answer of a few letters, drawn by seed, prompt, candidate and position. */
static int answer(const sluice_model *model, const double *sums, const sluice_generation *g,
                  const sluice_generate_prompt *prompt, uint32_t candidate)
{
    enum { MOST = 24 };
    uint32_t tokens[MOST], last = prompt->tokens[prompt->token_count - 1];
    float logprobs[MOST];
    char text[MOST + 1];
    sluice_generated out = {.user = prompt->user,
                            .candidate = candidate,
                            .tokens = tokens,
                            .logprobs = logprobs,
                            .text = text,
                            .finish = SLUICE_FINISH_LENGTH};
    while (out.token_count < MOST && out.token_count < g->max_tokens && out.finish == SLUICE_FINISH_LENGTH) {
        const uint32_t at = out.token_count++;
        const uint64_t h = sluice_mix(sluice_mix(sluice_mix(g->seed, prompt->key), candidate), at);
        const bool stop = h % 5 == 0 || at == MOST - 1;
        tokens[at] = stop ? TP_STOP : '0' + (uint32_t)(h >> 8) % 10;
        logprobs[at] = (float)((double)model->table.w[last][tokens[at]] - sums[last]);
        text[at] = stop ? '\0' : (char)tokens[at];
        out.finish = stop ? SLUICE_FINISH_STOP : SLUICE_FINISH_LENGTH;
        last = tokens[at];
    }
    text[out.token_count] = '\0';
    return g->done(g->context, &out);
}

/* Up to three prompts at once, the last one's last candidate first: any order is allowed. */
static int model_generate(sluice_model *model, const sluice_generation *g)
{
    double sums[V];
    sluice_generate_prompt prompts[3];
    int rc = SLUICE_OK;
    tp_table_sums(&model->table, sums);
    while (rc == SLUICE_OK) {
        size_t count = 0;
        while (count < 3 && (rc = g->prompt(g->context, &prompts[count])) == SLUICE_OK)
            count++;
        for (size_t i = count; rc >= 0 && i > 0; i--) {
            int done = prompts[i - 1].token_count > 0 && known(prompts[i - 1].tokens, prompts[i - 1].token_count)
                           ? SLUICE_OK
                           : sluice_error(model->host, SLUICE_BAD_RECORD, "a prompt is empty or has unknown token ids");
            for (uint32_t c = g->candidates; done >= 0 && c > 0; c--)
                done = answer(model, sums, g, &prompts[i - 1], c - 1);
            rc = done < 0 ? done : rc;
        }
    }
    return rc < 0 ? rc : SLUICE_OK;
}

static int model_score(sluice_model *model, const sluice_group *groups, size_t count, float *const *logps,
                       float *const *entropy)
{
    if (!tp_groups_fit(model->host, groups, count))
        return SLUICE_BAD_RECORD;
    tp_table_score(&model->table, groups, count, logps);
    for (size_t g = 0, k = 0; entropy != NULL && g < count; g++)
        for (size_t c = 0; c < groups[g].completion_count; c++, k++)
            for (size_t i = 0; i < groups[g].completions[c].count; i++)
                entropy[k][i] = 1;
    return SLUICE_OK;
}

static int model_values(sluice_model *model, const sluice_group *groups, size_t count, float *const *values)
{
    if (!model->heads)
        return sluice_error(model->host, SLUICE_BAD_MODEL, "the model has no head");
    if (!tp_groups_fit(model->host, groups, count))
        return SLUICE_BAD_RECORD;
    tp_table_values(&model->table, TP_HEADS, groups, count, values);
    return SLUICE_OK;
}

/* ---- weights as tensors */

static size_t model_tensors(sluice_model *model)
{
    (void)model;
    return 1;
}

static int model_tensor(sluice_model *model, size_t index, sluice_tensor *out)
{
    static const size_t shape[] = {V, V};
    if (index > 0)
        return SLUICE_BAD_PARAMETER;
    *out = (sluice_tensor){.name = "table", .shape = shape, .rank = 2, .count = V * V, .data = &model->table.w[0][0]};
    return SLUICE_OK;
}

static int model_copy(sluice_model *model, sluice_model **out)
{
    *out = malloc(sizeof **out);
    if (*out == NULL)
        return sluice_error(model->host, SLUICE_NO_MEMORY, "out of memory");
    **out = *model;
    return SLUICE_OK;
}

static int model_save(sluice_model *model, const char *folder)
{
    return tp_table_save(&model->table, folder)
               ? SLUICE_OK
               : sluice_error(model->host, SLUICE_IO, "cannot write into %s: %s", folder, strerror(errno));
}

static int model_distance(sluice_model *a, sluice_model *b, double *out)
{
    *out = tp_table_distance(&a->table, &b->table);
    return SLUICE_OK;
}

static int model_merge(const sluice_model_service *service, const sluice_host *host, int method,
                       const char *const *folders, const double *weights, size_t count, const char *folder,
                       const char *dtype)
{
    (void)service, (void)dtype;
    if (method == SLUICE_MERGE_SLERP)
        return sluice_error(host, SLUICE_UNSUPPORTED, "test-plugin's model has no layers to turn; use another method");
    struct tp_table *sum = calloc(1, sizeof *sum), *one = malloc(sizeof *one);
    double total = 0;
    int rc = sum != NULL && one != NULL ? SLUICE_OK : sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/weights", folders[i]);
        if (!tp_table_read(one, path)) {
            rc = sluice_error(host, SLUICE_BAD_MODEL, "%s cannot be read", path);
            break;
        }
        const double rate = weights != NULL && method == SLUICE_MERGE_RUNNING ? weights[0] : 0;
        const double w = method == SLUICE_MERGE_MEAN       ? 1
                         : method == SLUICE_MERGE_WEIGHTED ? weights[i]
                         : i == 0                          ? 1
                                                           : rate;
        const double keep = method == SLUICE_MERGE_RUNNING && i > 0 ? 1 - rate : 1;
        total = total * keep + w;
        for (size_t x = 0; x < sizeof *sum / sizeof(float); x++)
            ((float *)sum)[x] = (float)((double)((float *)sum)[x] * keep + w * (double)((float *)one)[x]);
    }
    for (size_t x = 0; rc >= 0 && x < sizeof *sum / sizeof(float); x++)
        ((float *)sum)[x] = (float)((double)((float *)sum)[x] / total);
    if (rc >= 0 && !tp_table_save(sum, folder))
        rc = sluice_error(host, SLUICE_IO, "cannot write into %s", folder);
    free(sum);
    free(one);
    return rc;
}

#define SERVICE                                                                                              \
    .size = sizeof(sluice_model_service), .open = model_open, .close = model_close, .info = model_info,      \
    .encode = model_encode, .encode_messages = model_encode_messages, .decode = model_decode,                \
    .encode_prompt = model_encode_prompt, .generate = model_generate, .score = model_score,                  \
    .score_values = model_values, .tensor_count = model_tensors, .tensor = model_tensor, .copy = model_copy, \
    .save = model_save, .merge = model_merge, .distance = model_distance, .train_begin = tp_train_begin,     \
    .train_gradient = tp_train_gradient, .train_step = tp_train_step, .train_score = tp_train_score,         \
    .train_save = tp_train_save, .train_end = tp_train_end, .train_values = tp_train_values,                 \
    .train_score_values = tp_train_score_values, .train_distance = tp_train_distance,                        \
    .train_suspend = tp_train_suspend, .train_resume = tp_train_resume

const sluice_model_service *tp_model_service(bool heads)
{
    static const sluice_model_service language = {SERVICE}, reward = {SERVICE};
    return heads ? &reward : &language;
}
