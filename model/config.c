/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/config.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/json_file.h"

/* Far above any real model, far below where a product of two could overflow. */
#define MAX_WIDTH     (1u << 20)
#define MAX_LAYERS    4096u
#define MAX_HEADS     65536u
#define MAX_HEAD_DIM  4096u
#define MAX_VOCAB     (1u << 24)
#define MAX_POSITIONS (1u << 28)
#define MAX_OUTPUTS   4096u

#define CONFIG_CAP ((size_t)4 << 20) /* bytes of a config.json */

/* One object of one file, and where complaints go. */
struct reader {
    const char *file;
    const json_t *object;
    sm_error *error;
};

static int refuse(const struct reader *r, int code, const char *field, const json_t *value, const char *expected)
{
    char shown[80];
    return sm_fail(r->error, code, "%s: %s is %s; expected %s", r->file, field, sm_json_show(value, shown), expected);
}

/* NULL for an absent field and for an explicit null alike, as most of the fields mean the same by both. */
static const json_t *field(const struct reader *r, const char *key)
{
    const json_t *value = json_object_get(r->object, key);
    return json_is_null(value) ? NULL : value;
}

static int read_count(const struct reader *r, const char *key, uint32_t low, uint32_t high, uint32_t *to)
{
    const json_t *value = field(r, key);
    if (!value) {
        return SM_OK;
    }
    const json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < low || number > high) {
        char range[64];
        snprintf(range, sizeof range, "a whole number from %u to %u", low, high);
        return refuse(r, SM_FORMAT, key, value, range);
    }
    *to = (uint32_t)number;
    return SM_OK;
}

static int need_count(const struct reader *r, const char *key, uint32_t low, uint32_t high, uint32_t *to)
{
    if (!field(r, key)) {
        return sm_fail(r->error, SM_FORMAT, "%s: %s is missing", r->file, key);
    }
    return read_count(r, key, low, high, to);
}

static int read_real(const struct reader *r, const char *key, double low, double high, double *to)
{
    const json_t *value = field(r, key);
    if (!value) {
        return SM_OK;
    }
    const double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= low && number <= high)) {
        char range[64];
        snprintf(range, sizeof range, "a number from %g to %g", low, high);
        return refuse(r, SM_FORMAT, key, value, range);
    }
    *to = number;
    return SM_OK;
}

static int read_bool(const struct reader *r, const char *key, bool *to)
{
    const json_t *value = field(r, key);
    if (value && !json_is_boolean(value)) {
        return refuse(r, SM_FORMAT, key, value, "true or false");
    }
    if (value) {
        *to = json_is_true(value);
    }
    return SM_OK;
}

/* The named text, or `otherwise`; NULL (and a complaint) when it is no text. */
static const char *read_text(const struct reader *r, const char *key, const char *otherwise)
{
    const json_t *value = field(r, key);
    if (value && !json_is_string(value)) {
        refuse(r, SM_FORMAT, key, value, "a text");
        return NULL;
    }
    return value ? json_string_value(value) : otherwise;
}

/* The outputs of a reward model's head, as transformers counts labels: num_labels, else the entries of id2label,
 * else 2.
 */
static int read_outputs(const struct reader *r, sm_config *c)
{
    const json_t *labels = field(r, "id2label");
    if (labels &&
        (!json_is_object(labels) || json_object_size(labels) == 0 || json_object_size(labels) > MAX_OUTPUTS)) {
        return refuse(r, SM_FORMAT, "id2label", labels, "one entry for each output of the head");
    }
    c->outputs = labels ? (uint32_t)json_object_size(labels) : 2;
    return read_count(r, "num_labels", 1, MAX_OUTPUTS, &c->outputs);
}

static int read_architecture(const struct reader *r, sm_config *c)
{
    static const struct {
        const char *model_type, *architecture, *reward;
    } known[] = {{"llama", "LlamaForCausalLM", "LlamaForSequenceClassification"},
                 {"mistral", "MistralForCausalLM", "MistralForSequenceClassification"},
                 {"qwen2", "Qwen2ForCausalLM", "Qwen2ForSequenceClassification"}};
    static const char supported[] = "llama, mistral or qwen2";

    const char *type = read_text(r, "model_type", "");
    if (!type) {
        return SM_FORMAT;
    }
    size_t i = 0;
    while (i < sizeof known / sizeof *known && strcmp(type, known[i].model_type) != 0) {
        i++;
    }
    if (i == sizeof known / sizeof *known) {
        return sm_fail(r->error, SM_UNSUPPORTED, "%s: model_type \"%.60s\" is not supported; supported: %s", r->file,
                       type, supported);
    }
    snprintf(c->model_type, sizeof c->model_type, "%s", type);

    const json_t *architectures = field(r, "architectures"), *first = json_array_get(architectures, 0);
    if (json_is_string(first) && strcmp(json_string_value(first), known[i].reward) == 0) {
        const int status = read_outputs(r, c);
        if (status) {
            return status;
        }
    } else if (first && (!json_is_string(first) || strcmp(json_string_value(first), known[i].architecture) != 0)) {
        char expected[80];
        snprintf(expected, sizeof expected, "%s or %s", known[i].architecture, known[i].reward);
        return refuse(r, SM_UNSUPPORTED, "architectures[0]", first, expected);
    }
    const json_t *quantization = field(r, "quantization_config");
    if (quantization) {
        return sm_fail(
            r->error, SM_UNSUPPORTED,
            "%s: quantization_config: quantized weights are not supported; use the model's float32, bfloat16 "
            "or float16 folder",
            r->file);
    }
    const char *activation = read_text(r, "hidden_act", "silu");
    if (!activation) {
        return SM_FORMAT;
    }
    if (strcmp(activation, "silu") != 0) {
        return refuse(r, SM_UNSUPPORTED, "hidden_act", field(r, "hidden_act"), "\"silu\"");
    }
    return SM_OK;
}

static int read_shape(const struct reader *r, sm_config *c)
{
    int status;
    if ((status = need_count(r, "hidden_size", 1, MAX_WIDTH, &c->hidden)) ||
        (status = need_count(r, "intermediate_size", 1, MAX_WIDTH, &c->intermediate)) ||
        (status = need_count(r, "num_hidden_layers", 1, MAX_LAYERS, &c->layers)) ||
        (status = need_count(r, "num_attention_heads", 1, MAX_HEADS, &c->heads)) ||
        (status = need_count(r, "vocab_size", 2, MAX_VOCAB, &c->vocab))) {
        return status;
    }
    /* LlamaConfig's default is one key/value head per head; its relatives have other defaults, which nobody relies on.
     */
    c->kv_heads = c->heads;
    const bool llama = strcmp(c->model_type, "llama") == 0;
    status = llama ? read_count(r, "num_key_value_heads", 1, MAX_HEADS, &c->kv_heads)
                   : need_count(r, "num_key_value_heads", 1, MAX_HEADS, &c->kv_heads);
    if (status) {
        return status;
    }
    if (c->heads % c->kv_heads != 0) {
        return sm_fail(r->error, SM_FORMAT,
                       "%s: num_attention_heads (%u) is not a multiple of num_key_value_heads (%u)", r->file, c->heads,
                       c->kv_heads);
    }
    if (field(r, "head_dim")) {
        if ((status = read_count(r, "head_dim", 2, MAX_HEAD_DIM, &c->head_dim))) {
            return status;
        }
    } else if (c->hidden % c->heads != 0) {
        return sm_fail(r->error, SM_FORMAT, "%s: hidden_size (%u) is not a multiple of num_attention_heads (%u)",
                       r->file, c->hidden, c->heads);
    } else {
        c->head_dim = c->hidden / c->heads;
    }
    if (c->head_dim % 2 != 0 || c->head_dim > MAX_HEAD_DIM) {
        return sm_fail(r->error, SM_UNSUPPORTED, "%s: head_dim is %u; expected an even number up to %u", r->file,
                       c->head_dim, MAX_HEAD_DIM);
    }
    if ((uint64_t)c->heads * c->head_dim > MAX_WIDTH) {
        return sm_fail(r->error, SM_FORMAT, "%s: num_attention_heads × head_dim is %llu, above the limit of %u",
                       r->file, (unsigned long long)c->heads * c->head_dim, MAX_WIDTH);
    }
    c->max_positions = llama ? 2048 : 32768;
    return read_count(r, "max_position_embeddings", 1, MAX_POSITIONS, &c->max_positions);
}

/* A window shorter than the context would change every answer; one that is never reached changes none. */
static int read_window(const struct reader *r, const sm_config *c)
{
    bool used = strcmp(c->model_type, "mistral") == 0;
    if (strcmp(c->model_type, "qwen2") == 0) {
        const int status = read_bool(r, "use_sliding_window", &used);
        if (status) {
            return status;
        }
    }
    uint32_t window = 4096; /* MistralConfig's default; an explicit null means none */
    if (json_is_null(json_object_get(r->object, "sliding_window"))) {
        used = false;
    }
    if (used) {
        const int status = read_count(r, "sliding_window", 1, MAX_POSITIONS, &window);
        if (status) {
            return status;
        }
        if (window < c->max_positions) {
            return sm_fail(
                r->error, SM_UNSUPPORTED,
                "%s: sliding_window is %u, shorter than max_position_embeddings (%u); sliding windows are not "
                "supported, set it to null or shorten max_position_embeddings",
                r->file, window, c->max_positions);
        }
    }
    size_t i;
    json_t *type;
    json_array_foreach(json_object_get(r->object, "layer_types"), i, type)
    {
        if (!json_is_string(type) || strcmp(json_string_value(type), "full_attention") != 0) {
            return refuse(r, SM_UNSUPPORTED, "layer_types", type, "\"full_attention\" in every layer");
        }
    }
    return SM_OK;
}

static int read_biases(const struct reader *r, sm_config *c)
{
    if (strcmp(c->model_type, "qwen2") == 0) {
        c->qkv_bias = true; /* always, and nowhere else: its modelling code has no flag for it */
        return SM_OK;
    }
    if (strcmp(c->model_type, "llama") != 0) {
        return SM_OK;
    }
    int status = read_bool(r, "attention_bias", &c->qkv_bias);
    c->out_bias = c->qkv_bias;
    return status ? status : read_bool(r, "mlp_bias", &c->mlp_bias);
}

static int read_rope(const struct reader *r, sm_config *c)
{
    static const char supported[] = "\"default\", \"linear\" or \"llama3\"";
    /* transformers lets a non-empty rope_scaling win over rope_parameters. */
    const char *name = json_object_size(field(r, "rope_scaling")) > 0 ? "rope_scaling" : "rope_parameters";
    static const char *const either[] = {"rope_scaling", "rope_parameters"};
    for (int i = 0; i < 2; i++) {
        if (field(r, either[i]) && !json_is_object(field(r, either[i]))) {
            return refuse(r, SM_FORMAT, either[i], field(r, either[i]), "an object or null");
        }
    }
    const json_t *parameters = field(r, name);
    char file[600];
    snprintf(file, sizeof file, "%s: %s", r->file, name);
    const struct reader rope = {file, parameters, r->error};

    int status;
    double partial = 1;
    c->rope = (sm_rope){.type = SM_ROPE_DEFAULT, .theta = 10000, .factor = 1};
    if ((status = read_real(r, "rope_theta", 1, 1e15, &c->rope.theta)) ||
        (status = read_real(&rope, "rope_theta", 1, 1e15, &c->rope.theta)) ||
        (status = read_real(r, "partial_rotary_factor", 0, 1, &partial)) ||
        (status = read_real(&rope, "partial_rotary_factor", 0, 1, &partial))) {
        return status;
    }
    if (partial != 1) {
        return sm_fail(r->error, SM_UNSUPPORTED, "%s: partial_rotary_factor is %g; only 1 is supported", r->file,
                       partial);
    }
    const char *type = read_text(&rope, "type", "default");
    type = type ? read_text(&rope, "rope_type", type) : NULL;
    if (!type) {
        return SM_FORMAT;
    }
    if (field(&rope, "full_attention") || field(&rope, "sliding_attention")) {
        return sm_fail(r->error, SM_UNSUPPORTED, "%s: one set of parameters per kind of layer is not supported", file);
    }
    if (strcmp(type, "default") == 0) {
        return SM_OK;
    }
    const bool llama3 = strcmp(type, "llama3") == 0;
    if (!llama3 && strcmp(type, "linear") != 0) {
        return sm_fail(r->error, SM_UNSUPPORTED, "%s: rope type \"%.40s\" is not supported; supported: %s", file, type,
                       supported);
    }
    c->rope.type = llama3 ? SM_ROPE_LLAMA3 : SM_ROPE_LINEAR;
    const char *const needed[] = {"factor", "low_freq_factor", "high_freq_factor"};
    double *const values[] = {&c->rope.factor, &c->rope.low_freq_factor, &c->rope.high_freq_factor};
    for (int i = 0; i < (llama3 ? 3 : 1); i++) {
        if (!field(&rope, needed[i])) {
            return sm_fail(r->error, SM_FORMAT, "%s: %s is missing, which rope type \"%s\" needs", file, needed[i],
                           type);
        }
        if ((status = read_real(&rope, needed[i], i ? 1e-6 : 1, 1e6, values[i]))) {
            return status;
        }
    }
    if (!llama3) {
        return SM_OK;
    }
    if (c->rope.high_freq_factor <= c->rope.low_freq_factor) {
        return sm_fail(r->error, SM_FORMAT, "%s: high_freq_factor (%g) must be above low_freq_factor (%g)", file,
                       c->rope.high_freq_factor, c->rope.low_freq_factor);
    }
    return need_count(&rope, "original_max_position_embeddings", 1, MAX_POSITIONS, &c->rope.original_max_position);
}

static int read_dtype_field(const struct reader *r, const char *key, kn_dtype fallback, kn_dtype *dtype)
{
    const char *name = read_text(r, key, sm_dtype_name(fallback));
    if (!name) {
        return SM_FORMAT;
    }
    for (*dtype = KN_F32; *dtype <= KN_F16; ++*dtype) {
        if (strcmp(name, sm_dtype_name(*dtype)) == 0) {
            return SM_OK;
        }
    }
    return refuse(r, SM_UNSUPPORTED, key, field(r, key), "\"float32\", \"bfloat16\" or \"float16\"");
}

static int read_dtype(const struct reader *r, sm_config *c)
{
    const int status = read_dtype_field(r, field(r, "dtype") ? "dtype" : "torch_dtype", KN_F32, &c->dtype);
    return status ? status : read_dtype_field(r, "sluice_original_dtype", c->dtype, &c->original);
}

/* One id, which must be in the vocabulary. */
static int read_token(const struct reader *r, const sm_config *c, const char *key, const json_t *value, uint32_t *to)
{
    const json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id >= c->vocab) {
        char range[64];
        snprintf(range, sizeof range, "a token id below vocab_size (%u)", c->vocab);
        return refuse(r, SM_FORMAT, key, value, range);
    }
    *to = (uint32_t)id;
    return SM_OK;
}

/* Replaces the answer's ends by what this file says of them; an absent field changes nothing, null empties the list. */
static int read_eos(const struct reader *r, sm_config *c)
{
    const json_t *value = json_object_get(r->object, "eos_token_id");
    if (!value) {
        return SM_OK;
    }
    c->eos_count = 0;
    if (json_is_null(value)) {
        return SM_OK;
    }
    if (!json_is_array(value)) {
        const int status = read_token(r, c, "eos_token_id", value, &c->eos[0]);
        c->eos_count = status ? 0 : 1;
        return status;
    }
    if (json_array_size(value) > SM_MAX_EOS) {
        return sm_fail(r->error, SM_UNSUPPORTED, "%s: eos_token_id lists %zu ids; at most %d are supported", r->file,
                       json_array_size(value), SM_MAX_EOS);
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        const int status = read_token(r, c, "eos_token_id", json_array_get(value, i), &c->eos[i]);
        if (status) {
            return status;
        }
        c->eos_count++;
    }
    return SM_OK;
}

static int read_bos(const struct reader *r, sm_config *c)
{
    const json_t *value = json_object_get(r->object, "bos_token_id");
    if (!value) {
        return SM_OK;
    }
    c->bos = SM_NO_TOKEN;
    return json_is_null(value) ? SM_OK : read_token(r, c, "bos_token_id", value, &c->bos);
}

static int read_tokens(const struct reader *r, sm_config *c)
{
    c->bos = c->pad = SM_NO_TOKEN;
    c->eos_count = 0;
    if (strcmp(c->model_type, "qwen2") != 0) { /* the defaults of LlamaConfig and MistralConfig */
        c->bos = 1;
        if (c->vocab > 2) {
            c->eos[0] = 2;
            c->eos_count = 1;
        }
    }
    int status = read_bos(r, c);
    if (status || (status = read_eos(r, c))) {
        return status;
    }
    /* Nothing here is padded, so an impossible padding id (-1, or one past the vocabulary) hurts nobody. */
    const json_t *pad = field(r, "pad_token_id");
    if (json_is_integer(pad) && json_integer_value(pad) >= 0 && json_integer_value(pad) < c->vocab) {
        c->pad = (uint32_t)json_integer_value(pad);
    }
    return SM_OK;
}

int sm_config_parse(sm_config *config, const char *file, const char *text, size_t length, const char *generation_file,
                    const char *generation, size_t generation_length, sm_error *error)
{
    *config = (sm_config){0};
    struct reader r = {file, NULL, error};
    json_t *object = sm_json_parse(file, text, length, error), *generation_object = NULL;
    if (!object) {
        return SM_FORMAT;
    }
    r.object = object;
    double eps = 1e-6, initializer_range = 0.02;
    int status;
    if ((status = read_architecture(&r, config)) || (status = read_shape(&r, config)) ||
        (status = read_window(&r, config)) || (status = read_biases(&r, config)) || (status = read_rope(&r, config)) ||
        (status = read_dtype(&r, config)) || (status = read_real(&r, "rms_norm_eps", 0, 1, &eps)) ||
        (status = read_real(&r, "initializer_range", 0, 1, &initializer_range)) ||
        (status = read_bool(&r, "tie_word_embeddings", &config->tied)) || (status = read_tokens(&r, config))) {
        goto done;
    }
    config->rms_eps = (float)eps;
    config->initializer_range = (float)initializer_range;
    if (generation) {
        generation_object = sm_json_parse(generation_file, generation, generation_length, error);
        if (!generation_object) {
            status = SM_FORMAT;
            goto done;
        }
        const struct reader g = {generation_file, generation_object, error};
        /* null there says nothing: transformers writes it for what nobody set. */
        if ((field(&g, "bos_token_id") && (status = read_bos(&g, config))) ||
            (field(&g, "eos_token_id") && (status = read_eos(&g, config)))) {
            goto done;
        }
    }
done:
    json_decref(object);
    json_decref(generation_object);
    return status;
}

int sm_config_read(sm_config *config, const char *dir, sm_error *error)
{
    int status = SM_OK;
    char *text = NULL, *generation = NULL;
    size_t length = 0, generation_length = 0;
    char *path = sm_path(dir, "config.json"), *generation_path = sm_path(dir, "generation_config.json");
    if (!path || !generation_path) {
        status = sm_fail(error, SM_NO_MEMORY, "%s: no memory to read its config.json", dir);
        goto done;
    }
    if (access(path, F_OK) != 0) {
        status = sm_fail(error, SM_IO, "%s: cannot be read: %s; name a Hugging Face checkpoint folder", path,
                         strerror(errno));
        goto done;
    }
    if ((status = sm_file_read(path, CONFIG_CAP, &text, &length, error))) {
        goto done;
    }
    if (access(generation_path, F_OK) == 0 &&
        (status = sm_file_read(generation_path, CONFIG_CAP, &generation, &generation_length, error))) {
        goto done;
    }
    status = sm_config_parse(config, path, text, length, generation_path, generation, generation_length, error);
done:
    free(text);
    free(generation);
    free(path);
    free(generation_path);
    return status;
}

void sm_config_rope_frequencies(const sm_config *config, float *frequency)
{
    const sm_rope *rope = &config->rope;
    const double pi = 3.14159265358979323846;
    for (uint32_t i = 0; i < config->head_dim / 2; i++) {
        double f = pow(rope->theta, -2.0 * i / config->head_dim);
        if (rope->type == SM_ROPE_LINEAR) {
            f /= rope->factor;
        } else if (rope->type == SM_ROPE_LLAMA3) {
            /* Llama 3.1: slow rotations are stretched by factor, fast ones kept, those between blended
             * (transformers, modeling_rope_utils.py, _compute_llama3_parameters). */
            const double turns = rope->original_max_position * f / (2 * pi); /* within the original context */
            double keep = (turns - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
            keep = keep < 0 ? 0 : keep > 1 ? 1 : keep;
            f = (1 - keep) * f / rope->factor + keep * f;
        }
        frequency[i] = (float)f;
    }
}

const char *sm_dtype_name(kn_dtype dtype)
{
    static const char *const names[] = {[KN_F32] = "float32", [KN_BF16] = "bfloat16", [KN_F16] = "float16"};
    return names[dtype];
}

bool sm_dtype_of_name(const char *name, kn_dtype *dtype)
{
    static const char *const brief[] = {[KN_F32] = "fp32", [KN_BF16] = "bf16", [KN_F16] = "fp16"};
    for (kn_dtype i = KN_F32; i <= KN_F16; i++) {
        if (strcmp(name, sm_dtype_name(i)) == 0 || strcmp(name, brief[i]) == 0) {
            *dtype = i;
            return true;
        }
    }
    return false;
}
