/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The plugin "model": the service "sluice.model/1" over the model library. Each function unpacks a handle, calls the
 * library, and reports what it says through the host that opened the model.
 */
#include <sluice/service.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/average.h"
#include "model/generate.h"
#include "model/head.h"
#include "model/service_parts.h"

typedef struct runtime {
    int64_t threads;
    int64_t devices;
    int device_wanted;  /* an index into device_kinds */
    char numerics[400]; /* of both tables, and of what sums over devices */
    sluice_model_service service;
    service_device device;
    sm_versions *versions;
} runtime;

/* --- errors ---------------------------------------------------------------------------------------------------------
 */

static int result_of(int status)
{
    switch (status) {
    case SM_OK:
        return SLUICE_OK;
    case SM_NO_MEMORY:
        return SLUICE_NO_MEMORY;
    case SM_IO:
        return SLUICE_IO;
    case SM_FORMAT:
    case SM_MISMATCH:
        return SLUICE_BAD_MODEL;
    case SM_UNSUPPORTED:
        return SLUICE_UNSUPPORTED;
    case SM_DEVICE:
        return SLUICE_FAILED;
    default:
        return SLUICE_BAD_RECORD;
    }
}

int service_report(const sluice_host *host, int status, const sm_error *error, int callers)
{
    if (status == SM_OK)
        return SLUICE_OK;
    if (status == SM_CALLER)
        return callers;
    return sluice_error(host, result_of(status), "%s", error->text);
}

/* --- opening --------------------------------------------------------------------------------------------------------
 */

static runtime *runtime_of(const sluice_model_service *service)
{
    return (runtime *)((char *)(uintptr_t)service - offsetof(runtime, service));
}

static int wrap(const sluice_model_service *service, const sluice_host *host, sm_version *version, sluice_model **out)
{
    sluice_model *model = malloc(sizeof(*model));
    if (!model) {
        sm_version_close(version);
        return sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
    }
    *model = (sluice_model){.host = host, .service = service, .version = version};
    *out = model;
    return SLUICE_OK;
}

static int model_open(const sluice_model_service *service, const sluice_host *host, const sluice_model_ref *ref,
                      sluice_model **out)
{
    sm_error error;
    sm_version *version;
    *out = NULL;
    kn_dtype dtype = KN_F32;
    if (ref->dtype && (!sm_dtype_of_name(ref->dtype, &dtype) || dtype == KN_F16))
        return sluice_error(host, SLUICE_UNSUPPORTED,
                            "model '%s': dtype \"%s\" is not supported for computing; use \"float32\" or \"bf16\"",
                            ref->text, ref->dtype);
    const int rc =
        sm_version_open(runtime_of(service)->versions, ref->path, dtype, ref->random, ref->seed, &version, &error);
    if (rc != SM_OK)
        return service_report(host, rc == SM_IO ? SM_MISMATCH : rc, &error,
                              0); /* SLUICE_BAD_MODEL: the folder is at fault */
    if (version->checkpoint->note)
        sluice_log(host, SLUICE_LOG_INFO, "%s", version->checkpoint->note);
    if (version->dtype != dtype && sm_version_tell_other_type(version))
        sluice_log(host, SLUICE_LOG_WARNING, "%s: this device computes no %s; float32 is used instead", version->path,
                   sm_dtype_name(dtype));
    if (sm_version_tell_numerics(version))
        sluice_log(host, SLUICE_LOG_INFO, "%s is computed in %s (%s)", version->path, sm_dtype_name(version->dtype),
                   sm_version_numerics(version));
    return wrap(service, host, version, out);
}

static void model_close(sluice_model *model)
{
    if (!model)
        return;
    sm_version_close(model->version);
    free(model);
}

static int model_copy(sluice_model *model, sluice_model **out)
{
    sm_error error;
    sm_version *version;
    *out = NULL;
    const int rc = sm_version_copy(model->version, &version, &error);
    return rc == SM_OK ? wrap(model->service, model->host, version, out) : service_report(model->host, rc, &error, 0);
}

static int model_info(sluice_model *model, sluice_model_info *out)
{
    const sm_version *v = model->version;
    const sm_config *c = &v->checkpoint->layout.config;
    sluice_model_info info = {.size = out->size,
                              .vocabulary = c->vocab,
                              .context = c->max_positions,
                              .layers = c->layers,
                              .hidden = c->hidden,
                              .parameters = v->checkpoint->layout.count,
                              .stop_ids = c->eos,
                              .stop_count = c->eos_count,
                              .start_id = c->bos == SM_NO_TOKEN ? -1 : (int64_t)c->bos,
                              .has_template = v->chat != NULL,
                              .has_tokenizer = v->tokenizer != NULL,
                              .numerics = sm_version_numerics(v),
                              .head_outputs = c->outputs,
                              .devices = (uint32_t)runtime_of(model->service)->device.count};
    info.template_hash = v->template_hash;
    if (v->tokenizer && sm_tokenizer_bos(v->tokenizer) != SM_NO_TOKEN)
        info.start_id = sm_tokenizer_bos(v->tokenizer);
    sm_error error;
    const int rc = sm_version_hash(model->version, info.content_hash, &error);
    if (rc != SM_OK)
        return service_report(model->host, rc, &error, 0);
    memcpy(out, &info, out->size < sizeof(info) ? out->size : sizeof(info));
    return SLUICE_OK;
}

/* --- text -----------------------------------------------------------------------------------------------------------
 */

static int need_tokenizer(const sluice_model *model)
{
    if (model->version->tokenizer)
        return SLUICE_OK;
    return sluice_error(model->host, SLUICE_BAD_MODEL,
                        "%s has no tokenizer.json, so text cannot be encoded or decoded; add the model's tokenizer",
                        model->version->path);
}

/* The caller's array as the library's buffer and back: both are malloc'ed and mean the same. */
static sm_tokens tokens_of(const sluice_ids *ids)
{
    return (sm_tokens){.ids = ids->items, .count = ids->count, .capacity = ids->capacity};
}

static void keep_tokens(sluice_ids *ids, const sm_tokens *tokens)
{
    *ids = (sluice_ids){.items = tokens->ids, .count = tokens->count, .capacity = tokens->capacity};
}

/* The token that ends an answer written by hand. */
static uint32_t stop_token(const sm_version *v)
{
    const sm_config *c = &v->checkpoint->layout.config;
    const uint32_t eos = sm_tokenizer_eos(v->tokenizer);
    for (uint32_t i = 0; i < c->eos_count; i++)
        if (c->eos[i] == eos)
            return eos;
    return c->eos_count > 0 ? c->eos[0] : eos;
}

static int model_encode(sluice_model *model, const char *text, size_t length, uint32_t flags, sluice_ids *out)
{
    int rc = need_tokenizer(model);
    if (rc != SLUICE_OK)
        return rc;
    const sm_version *v = model->version;
    sm_error error;
    sm_tokens tokens = tokens_of(out);
    const unsigned how = (flags & SLUICE_ENCODE_START ? SM_ADD_SPECIAL : 0u) |
                         (flags & SLUICE_ENCODE_SPECIAL ? SM_PARSE_SPECIAL : 0u) |
                         (flags & SLUICE_ENCODE_CONTINUE ? SM_CONTINUE : 0u);
    rc = sm_encode(v->tokenizer, text, length, how, &tokens, &error);
    if (rc == SM_OK && (flags & SLUICE_ENCODE_STOP)) {
        const uint32_t stop = stop_token(v);
        if (stop == SM_NO_TOKEN)
            rc = sm_fail(&error, SM_MISMATCH,
                         "%s names no token that ends an answer; set eos_token_id in its generation_config.json",
                         v->path);
        else if (sm_tokens_push(&tokens, stop) != 0)
            rc = sm_fail(&error, SM_NO_MEMORY, "out of memory for token ids");
    }
    keep_tokens(out, &tokens);
    return service_report(model->host, rc, &error, 0);
}

/* Without a template the contents are the text, one after the other, each on a line of its own. */
static int encode_plain(sluice_model *model, const sluice_message *messages, size_t count, sluice_ids *out)
{
    sm_text text = {0};
    int failed = 0;
    if (sm_version_tell_no_template(model->version))
        sluice_log(model->host, SLUICE_LOG_INFO, "%s has no chat template: messages are fed as plain text",
                   model->version->path);
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            failed |= sm_text_append(&text, "\n", 1);
        failed |= sm_text_append(&text, messages[i].content, strlen(messages[i].content));
    }
    const int rc = failed ? sluice_error(model->host, SLUICE_NO_MEMORY, "out of memory for a prompt")
                          : model_encode(model, text.bytes ? text.bytes : "", text.length, SLUICE_ENCODE_START, out);
    sm_text_free(&text);
    return rc;
}

static int model_encode_messages(sluice_model *model, const sluice_message *messages, size_t count,
                                 bool add_generation_prompt, sluice_ids *out)
{
    int rc = need_tokenizer(model);
    if (rc != SLUICE_OK)
        return rc;
    if (!model->version->chat)
        return encode_plain(model, messages, count, out);
    sm_message *m = malloc((count + 1) * sizeof(*m));
    if (!m)
        return sluice_error(model->host, SLUICE_NO_MEMORY, "out of memory for a prompt");
    for (size_t i = 0; i < count; i++)
        m[i] = (sm_message){messages[i].role, messages[i].content, strlen(messages[i].content)};
    sm_error error;
    sm_tokens tokens = tokens_of(out);
    rc = sm_chat_encode(model->version->chat, m, count, add_generation_prompt, &tokens, &error);
    keep_tokens(out, &tokens);
    free(m);
    return service_report(model->host, rc, &error, 0);
}

static int model_encode_prompt(sluice_model *model, const sluice_record *record, bool raw, sluice_ids *out)
{
    size_t count = 0;
    const uint32_t *ids = sluice_record_prompt_tokens(record, &count);
    if (ids) {
        sm_tokens tokens = tokens_of(out);
        const int failed = sm_tokens_append(&tokens, ids, count);
        keep_tokens(out, &tokens);
        return failed ? sluice_error(model->host, SLUICE_NO_MEMORY, "out of memory for a prompt") : SLUICE_OK;
    }
    const sluice_message *messages;
    count = sluice_record_messages(record, &messages);
    if (count > 0)
        return model_encode_messages(model, messages, count, true, out);
    const char *text = sluice_record_prompt(record);
    if (!text)
        return sluice_record_error(model->host, record, SLUICE_BAD_RECORD, "the record has no prompt");
    if (model->version->chat && !raw) {
        const sluice_message user = {"user", text};
        return model_encode_messages(model, &user, 1, true, out);
    }
    return model_encode(model, text, strlen(text), SLUICE_ENCODE_START, out);
}

static int model_decode(sluice_model *model, const uint32_t *ids, size_t count, bool keep_special, sluice_text *out)
{
    int rc = need_tokenizer(model);
    if (rc != SLUICE_OK)
        return rc;
    sm_error error;
    sm_text text = {.bytes = out->text, .capacity = out->capacity};
    rc = sm_decode(model->version->tokenizer, ids, count, !keep_special, &text, &error);
    if (rc == SM_OK && sm_text_append(&text, "", 0) != 0) /* a NUL even when there is no text */
        rc = sm_fail(&error, SM_NO_MEMORY, "out of memory for text");
    *out = (sluice_text){.text = text.bytes, .length = text.length, .capacity = text.capacity};
    return service_report(model->host, rc, &error, 0);
}

/* --- computing ------------------------------------------------------------------------------------------------------
 */

uint32_t service_outputs(const sluice_model *model)
{
    return model->version->checkpoint->layout.config.outputs;
}

int service_need_language_head(const sluice_model *model)
{
    if (service_outputs(model) == 0)
        return SLUICE_OK;
    return sluice_error(model->host, SLUICE_BAD_MODEL,
                        "%s has no language-model head; it is a reward model: name a language model to sample from, to "
                        "ask for log-probabilities, or to train on them",
                        model->version->path);
}

int service_need_reward_head(const sluice_model *model)
{
    if (service_outputs(model) > 0)
        return SLUICE_OK;
    return sluice_error(
        model->host, SLUICE_BAD_MODEL,
        "%s has no reward head (score.weight); it is a language model: train a reward model from it with "
        "loss = \"bradley-terry\"",
        model->version->path);
}

/* Once a stage and model. */
static void tell_narrow(sluice_model *model, const sm_narrowed *n)
{
    if (n->at_once >= n->asked || model->told_narrow)
        return;
    model->told_narrow = true;
    sluice_log(model->host, SLUICE_LOG_INFO,
               "memory ran out: at most %zu candidate%s decoded at once instead of %zu, slower and with the same "
               "result%s%s%s",
               n->at_once, n->at_once == 1 ? " was" : "s were", n->asked, *n->why ? " (" : "", n->why,
               *n->why ? ")" : "");
}

static int model_generate(sluice_model *model, const sluice_generation *generation)
{
    sm_version *v = model->version;
    const sm_config *c = &v->checkpoint->layout.config;
    sm_network *network;
    sm_workspace *workspace;
    sm_narrowed narrowed = {0};
    sm_error error;
    int callers = 0, rc = service_need_language_head(model);
    if (rc != SLUICE_OK)
        return rc;
    rc = sm_version_begin(v, &network, &workspace, &error);
    if (rc == SM_OK) {
        rc = sm_generate(network, workspace, v->tokenizer, c->eos, c->eos_count, generation, &narrowed, &callers,
                         &error);
        sm_version_end(v, workspace);
    }
    if (rc == SM_OK) {
        tell_narrow(model, &narrowed);
        service_device_tell(&runtime_of(model->service)->device, model->host);
    }
    return service_report(model->host, rc, &error, callers);
}

static int model_score(sluice_model *model, const sluice_group *groups, size_t count, float *const *logps,
                       float *const *entropy)
{
    sm_network *network;
    sm_workspace *workspace;
    sm_error error;
    int rc = service_need_language_head(model);
    if (rc != SLUICE_OK)
        return rc;
    rc = sm_version_begin(model->version, &network, &workspace, &error);
    if (rc == SM_OK) {
        rc = sm_score(network, workspace, groups, count, logps, entropy, &error);
        sm_version_end(model->version, workspace);
    }
    return service_report(model->host, rc, &error, 0);
}

static int model_score_values(sluice_model *model, const sluice_group *groups, size_t count, float *const *values)
{
    sm_network *network;
    sm_workspace *workspace;
    sm_error error;
    int rc = service_need_reward_head(model);
    if (rc != SLUICE_OK)
        return rc;
    rc = sm_version_begin(model->version, &network, &workspace, &error);
    if (rc == SM_OK) {
        rc = sm_score_values(network, workspace, groups, count, values, &error);
        sm_version_end(model->version, workspace);
    }
    return service_report(model->host, rc, &error, 0);
}

/* --- tensors --------------------------------------------------------------------------------------------------------
 */

static size_t model_tensor_count(sluice_model *model)
{
    return model->version->checkpoint->layout.tensors;
}

static int model_tensor(sluice_model *model, size_t index, sluice_tensor *out)
{
    const sm_checkpoint *c = model->version->checkpoint;
    if (index >= c->layout.tensors)
        return sluice_error(model->host, SLUICE_BAD_PARAMETER, "tensor %zu of %zu was asked for", index,
                            c->layout.tensors);
    const sm_tensor *t = &c->layout.tensor[index];
    float *params;
    sm_error error;
    const int rc = sm_version_params(model->version, &params, &error);
    if (rc == SM_OK)
        *out = (sluice_tensor){t->name, t->shape, t->rank, t->count, params + t->offset};
    return service_report(model->host, rc, &error, 0);
}

static int model_save(sluice_model *model, const char *dir)
{
    sm_version *v = model->version;
    sm_error error;
    const sm_numbers numbers = sm_version_numbers(v);
    const int rc = sm_checkpoint_save(dir, &v->checkpoint->layout, &numbers, KN_F32, v->path, &error);
    return service_report(model->host, rc, &error, 0);
}

static int model_merge(const sluice_model_service *service, const sluice_host *host, int method,
                       const char *const *folders, const double *weights, size_t count, const char *dir,
                       const char *dtype)
{
    static const sm_average_method methods[] = {[SLUICE_MERGE_MEAN] = SM_AVERAGE_MEAN,
                                                [SLUICE_MERGE_WEIGHTED] = SM_AVERAGE_WEIGHTED,
                                                [SLUICE_MERGE_RUNNING] = SM_AVERAGE_RUNNING,
                                                [SLUICE_MERGE_SLERP] = SM_AVERAGE_SLERP};
    if (method < 0 || (size_t)method >= sizeof(methods) / sizeof(*methods))
        return sluice_error(host, SLUICE_BAD_PARAMETER, "merge method %d is unknown", method);
    sm_average average = {.method = methods[method],
                          .dir = folders,
                          .count = count,
                          .weight = weights,
                          .threads = (int)runtime_of(service)->threads,
                          .device = runtime_of(service)->device.kn};
    if ((method == SLUICE_MERGE_RUNNING || method == SLUICE_MERGE_SLERP) && weights)
        average.mu = weights[0];
    if (dtype && strcmp(dtype, "original") == 0)
        average.original_dtype = true;
    else if (dtype && !sm_dtype_of_name(dtype, &average.dtype))
        return sluice_error(host, SLUICE_BAD_PARAMETER,
                            "dtype \"%s\" is unknown; use float32, bfloat16, float16 or original", dtype);
    sm_error error;
    return service_report(host, sm_average_write(dir, &average, &error), &error, 0);
}

/* Tensor by tensor, so that neither model need lie in memory. */
static int distance(sm_version *x, sm_version *y, double *out, sm_error *error)
{
    const sm_layout *layout = &x->checkpoint->layout;
    const sm_numbers of_x = sm_version_numbers(x), of_y = sm_version_numbers(y);
    const size_t most = sm_layout_largest(layout);
    float *a = malloc(most * sizeof(*a)), *b = malloc(most * sizeof(*b));
    int rc = a && b ? SM_OK : sm_fail(error, SM_NO_MEMORY, "out of memory to compare two models");
    double sum = 0;
    for (size_t i = 0; rc == SM_OK && i < layout->tensors; i++) {
        const sm_tensor *t = &layout->tensor[i];
        if ((rc = sm_numbers_read(&of_x, t->offset, t->count, a, error)) == SM_OK)
            rc = sm_numbers_read(&of_y, t->offset, t->count, b, error);
        for (size_t k = 0; rc == SM_OK && k < t->count; k++) {
            const double difference = (double)a[k] - b[k];
            sum += difference * difference;
        }
    }
    *out = sqrt(sum);
    free(a);
    free(b);
    return rc;
}

static int model_distance(sluice_model *a, sluice_model *b, double *out)
{
    const sm_checkpoint *x = a->version->checkpoint, *y = b->version->checkpoint;
    if (x->layout.count != y->layout.count || x->layout.tensors != y->layout.tensors)
        return sluice_error(a->host, SLUICE_BAD_MODEL, "%s and %s are models of different shapes", a->version->path,
                            b->version->path);
    sm_error error;
    const int rc = distance(a->version, b->version, out, &error);
    return service_report(a->host, rc, &error, 0);
}

/* --- the plugin -----------------------------------------------------------------------------------------------------
 */

static const sluice_model_service functions = {
    .size = sizeof(sluice_model_service),
    .open = model_open,
    .close = model_close,
    .info = model_info,
    .encode = model_encode,
    .encode_messages = model_encode_messages,
    .decode = model_decode,
    .encode_prompt = model_encode_prompt,
    .generate = model_generate,
    .score = model_score,
    .tensor_count = model_tensor_count,
    .tensor = model_tensor,
    .copy = model_copy,
    .save = model_save,
    .merge = model_merge,
    .distance = model_distance,
    .score_values = model_score_values,
};

static int runtime_init(void *self, const sluice_host *host)
{
    runtime *r = self;
    r->service = functions;
    service_add_training(&r->service);
    const int rc = service_device_open(&r->device, host, r->device_wanted, (int)r->devices, (int)r->threads);
    if (rc != SLUICE_OK)
        return rc;
    kn_device *device = r->device.kn;
    const kn_ops *ops = device->ops, *bf16 = device->ops_bf16;
    snprintf(r->numerics, sizeof(r->numerics), "%s%s%s", ops->numerics(device), bf16 ? " " : "",
             bf16 ? bf16->numerics(device) : "");
    if (r->device.together) {
        const size_t used = strlen(r->numerics);
        snprintf(r->numerics + used, sizeof(r->numerics) - used, " %zu-by-%s", r->device.count,
                 r->device.together->name);
    }
    r->versions = sm_versions_new(device);
    return r->versions ? SLUICE_OK : sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
}

static void runtime_fini(void *self)
{
    runtime *r = self;
    sm_versions_free(r->versions);
    service_device_close(&r->device);
}

const service_device *service_device_of(const sluice_model_service *service)
{
    return &runtime_of(service)->device;
}

sm_devices service_devices(const sluice_model_service *service)
{
    const service_device *d = service_device_of(service);
    return (sm_devices){.device = d->all, .count = d->count, .together = d->together};
}

static const void *runtime_get(void *self)
{
    return &((runtime *)self)->service;
}

static const char *runtime_numerics(void *self)
{
    return ((const runtime *)self)->numerics;
}

static const char *const device_kinds[] = {
    [SERVICE_AUTO] = "auto", [SERVICE_CPU] = "cpu", [SERVICE_CUDA] = "cuda", NULL};

static const sluice_param params[] = {
    SLUICE_INT(runtime, threads, .value = 0, .min = 0, .max = 1024, .unit = "threads", .speed_only = true,
               .doc = "How many threads compute; 0 is one a processor."),
    SLUICE_CHOICE(runtime, device_wanted, .name = "device", .choices = device_kinds, .value = SERVICE_AUTO,
                  .doc =
                      "Where models are computed: a GPU (cuda), the processor (cpu), or a GPU where one works (auto)."),
    SLUICE_INT(runtime, devices, .value = 1, .min = 0, .max = SM_MOST_DEVICES, .unit = "devices",
               .doc = "On how many GPUs of this machine a model is trained at once, of those that CUDA_VISIBLE_DEVICES "
                      "shows; 0 is all of them."),
    SLUICE_PARAMS_END};

static const sluice_service_class model_class = {
    SLUICE_SERVICE_CLASS("model", "language models of the Llama layout, on the processor or a GPU", runtime, params),
    .base.init = runtime_init,
    .base.fini = runtime_fini,
    .base.doc =
        "Loads, samples, scores and trains checkpoints in the Hugging Face layout, in float32 or bfloat16 (a model's\n"
        "dtype in the models section). On the processor every result is bit-identical whatever the batch, the order "
        "of\n"
        "work and the number of threads; on a GPU the same configuration gives the same bits.",
    .service = SLUICE_MODEL_SERVICE,
    .get = runtime_get,
    .numerics = runtime_numerics,
};

SLUICE_PLUGIN("model", "0.1.0", "Apache-2.0", &model_class.base, &service_device_class.base);
