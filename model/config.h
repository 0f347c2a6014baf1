/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The shape of a Llama-layout model, read from a Hugging Face folder's config.json and generation_config.json.
 *
 * Both spellings are read: `rope_theta` + `rope_scaling` + `torch_dtype` (transformers 4) and `rope_parameters` +
 * `dtype` (transformers 5). Accepted `model_type`: llama; mistral without a sliding window that would take effect;
 * qwen2 without sliding layers. Everything else is refused in one line that names the file, the field, the value and
 * what is supported.
 *
 * Include it as "model/config.h": the plain name is autoconf's header.
 */
#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/ops.h"
#include "model/error.h"

#define SM_MAX_EOS  16
#define SM_NO_TOKEN UINT32_MAX

typedef enum sm_rope_type { SM_ROPE_DEFAULT, SM_ROPE_LINEAR, SM_ROPE_LLAMA3 } sm_rope_type;

typedef struct sm_rope {
    sm_rope_type type;
    double theta;
    double factor;                  /* linear and llama3 */
    double low_freq_factor;         /* llama3 */
    double high_freq_factor;        /* llama3 */
    uint32_t original_max_position; /* llama3 */
} sm_rope;

typedef struct sm_config {
    char model_type[32]; /* as the file has it */
    uint32_t hidden;
    uint32_t intermediate;
    uint32_t layers;
    uint32_t heads, kv_heads; /* heads is a multiple of kv_heads */
    uint32_t head_dim;        /* even; need not be hidden / heads */
    uint32_t vocab;
    uint32_t outputs;       /* of a reward model's head (…ForSequenceClassification); 0: a language model */
    uint32_t max_positions; /* the longest sequence, prompt and answer together */
    float rms_eps;
    sm_rope rope;
    bool tied;                /* the output matrix is the embedding */
    bool qkv_bias;            /* q, k and v have a bias (attention_bias, qwen2) */
    bool out_bias;            /* the attention's output projection has one (attention_bias) */
    bool mlp_bias;            /* gate, up and down have one */
    kn_dtype dtype;           /* what config.json says the file holds; the file itself decides when it is read */
    kn_dtype original;        /* what the folder it descends from held (sluice_original_dtype), else dtype */
    float initializer_range;  /* standard deviation of a new random matrix */
    uint32_t bos;             /* SM_NO_TOKEN when there is none */
    uint32_t pad;             /* likewise */
    uint32_t eos[SM_MAX_EOS]; /* generation_config.json's, else config.json's */
    uint32_t eos_count;       /* 0: nothing but the length ends an answer */
} sm_config;

/* Reads dir/config.json and, where it exists, dir/generation_config.json. Any thread. */
int sm_config_read(sm_config *config, const char *dir, sm_error *error);

/* The same from text in memory; `file` and `generation_file` name the texts in messages. generation may be NULL. */
int sm_config_parse(sm_config *config, const char *file, const char *text, size_t length, const char *generation_file,
                    const char *generation, size_t generation_length, sm_error *error);

/* The rotary embedding's angle per position for each pair of elements: frequency[head_dim / 2], scaled as rope.type
 * asks. Row p of the cos and sin tables that kn_ops.rope wants is cos(p · frequency[i]), sin(p · frequency[i]).
 * Computed in float64 and rounded once, as transformers' inv_freq (float32) is up to its last bit. */
void sm_config_rope_frequencies(const sm_config *config, float *frequency);

/* "float32", "bfloat16", "float16": the names of config.json. */
const char *sm_dtype_name(kn_dtype dtype);
/* The type of one of these names, or of "fp32", "bf16", "fp16"; false for any other. */
bool sm_dtype_of_name(const char *name, kn_dtype *dtype);

#endif
