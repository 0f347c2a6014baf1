/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Where each tensor of a model lies in one flat array of float32 ("params"). Gradients and optimizer moments use the
 * same layout, so that one index means one parameter everywhere.
 *
 * The order is fixed, dense and without padding; count is the number of parameters:
 *
 *     model.embed_tokens.weight        [vocab, hidden]
 *     per layer:
 *       input_layernorm.weight         [hidden]
 *       self_attn.{q,k,v}_proj.weight  one block [(heads + 2 kv_heads) head_dim, hidden]: q rows, k rows, v rows
 *       self_attn.{q,k,v}_proj.bias    one block [(heads + 2 kv_heads) head_dim]       (config.qkv_bias)
 *       self_attn.o_proj.weight        [hidden, heads head_dim]
 *       self_attn.o_proj.bias          [hidden]                                        (config.out_bias)
 *       post_attention_layernorm.weight [hidden]
 *       mlp.{gate,up}_proj.weight      one block [2 intermediate, hidden]: gate rows, up rows
 *       mlp.{gate,up}_proj.bias        one block [2 intermediate]                      (config.mlp_bias)
 *       mlp.down_proj.weight           [hidden, intermediate]
 *       mlp.down_proj.bias             [hidden]                                        (config.mlp_bias)
 *     model.norm.weight                [hidden]
 *     lm_head.weight                   [vocab, hidden]    (unless config.tied or config.outputs)
 *     score.weight                     [outputs, hidden]  (config.outputs: a reward model)
 */
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include "model/config.h"

#define SM_ABSENT SIZE_MAX
#define SM_SCORE  "score.weight"

/* One tensor as the Hugging Face folder names it. */
typedef struct sm_tensor {
    char name[72];
    uint32_t rank; /* 1: norm or bias (no weight decay by custom), 2: matrix */
    size_t shape[2];
    size_t offset; /* in floats from the start of params */
    size_t count;  /* of floats */
} sm_tensor;

/* Offsets in floats from the start of params; SM_ABSENT where the config has no such tensor. */
typedef struct sm_layer_layout {
    size_t attention_norm;
    size_t qkv, qkv_bias;
    size_t out, out_bias;
    size_t mlp_norm;
    size_t gate_up, gate_up_bias;
    size_t down, down_bias;
} sm_layer_layout;

typedef struct sm_layout {
    sm_config config;
    size_t count; /* of floats in params */
    size_t embed;
    sm_layer_layout *layer; /* config.layers of them */
    size_t norm;
    size_t head;       /* the output matrix; equals embed when tied; SM_ABSENT in a reward model */
    size_t score;      /* a reward model's head; SM_ABSENT in a language model */
    sm_tensor *tensor; /* in the order of offsets, which is the order above */
    size_t tensors;
} sm_layout;

/* Fills a layout for a config; SM_NO_MEMORY, or SM_UNSUPPORTED when the model could not be addressed. Freed by
 * sm_layout_free, which accepts a zeroed struct. */
int sm_layout_init(sm_layout *layout, const sm_config *config, sm_error *error);
void sm_layout_free(sm_layout *layout);

/* NULL when there is no such tensor. */
const sm_tensor *sm_layout_find(const sm_layout *layout, const char *name);

/* Numbers of its largest tensor. */
size_t sm_layout_largest(const sm_layout *layout);

/* Where the parameters of a layout come from: a flat array that may change, or a function that reads them. */
typedef struct sm_numbers {
    const float *params;    /* [layout.count] in host memory, borrowed; NULL = read them */
    const float *on_device; /* the same in memory of the device that computes, for a network (network.h) alone */
    /* Copies the parameters [offset, offset + count) of the flat array, which are whole tensors. */
    int (*read)(void *context, size_t offset, size_t count, float *to, sm_error *error);
    void *context;
} sm_numbers;

/* Either kind into `to`. */
int sm_numbers_read(const sm_numbers *numbers, size_t offset, size_t count, float *to, sm_error *error);

#endif
