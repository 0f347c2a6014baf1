/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/weights.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Hands out places one after the other. An impossible size sticks as an overflow that the end looks at. */
struct placing {
    sm_layout *layout;
    bool overflow;
};

/* A tensor of rows × columns (columns 0: a vector). Returns its offset. */
static size_t place(struct placing *at, size_t rows, size_t columns, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static size_t place(struct placing *at, size_t rows, size_t columns, const char *format, ...)
{
    sm_layout *layout = at->layout;
    sm_tensor *tensor = &layout->tensor[layout->tensors++];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(tensor->name, sizeof tensor->name, format, arguments);
    va_end(arguments);
    tensor->rank = columns ? 2 : 1;
    tensor->shape[0] = rows;
    tensor->shape[1] = columns ? columns : 1;
    tensor->offset = layout->count;
    if (__builtin_mul_overflow(rows, tensor->shape[1], &tensor->count) ||
        __builtin_add_overflow(layout->count, tensor->count, &layout->count)) {
        at->overflow = true;
    }
    return tensor->offset;
}

static void place_layer(struct placing *at, uint32_t index)
{
    const sm_config *c = &at->layout->config;
    sm_layer_layout *layer = &at->layout->layer[index];
    const size_t q = (size_t)c->heads * c->head_dim, kv = (size_t)c->kv_heads * c->head_dim;
    const size_t d = c->hidden, ff = c->intermediate;
    *layer = (sm_layer_layout){
        .qkv_bias = SM_ABSENT, .out_bias = SM_ABSENT, .gate_up_bias = SM_ABSENT, .down_bias = SM_ABSENT};
#define PLACE(rows, columns, name) place(at, rows, columns, "model.layers.%u." name, (unsigned)index)
    layer->attention_norm = PLACE(d, 0, "input_layernorm.weight");
    layer->qkv = PLACE(q, d, "self_attn.q_proj.weight");
    PLACE(kv, d, "self_attn.k_proj.weight");
    PLACE(kv, d, "self_attn.v_proj.weight");
    if (c->qkv_bias) {
        layer->qkv_bias = PLACE(q, 0, "self_attn.q_proj.bias");
        PLACE(kv, 0, "self_attn.k_proj.bias");
        PLACE(kv, 0, "self_attn.v_proj.bias");
    }
    layer->out = PLACE(d, q, "self_attn.o_proj.weight");
    if (c->out_bias) {
        layer->out_bias = PLACE(d, 0, "self_attn.o_proj.bias");
    }
    layer->mlp_norm = PLACE(d, 0, "post_attention_layernorm.weight");
    layer->gate_up = PLACE(ff, d, "mlp.gate_proj.weight");
    PLACE(ff, d, "mlp.up_proj.weight");
    if (c->mlp_bias) {
        layer->gate_up_bias = PLACE(ff, 0, "mlp.gate_proj.bias");
        PLACE(ff, 0, "mlp.up_proj.bias");
    }
    layer->down = PLACE(d, ff, "mlp.down_proj.weight");
    if (c->mlp_bias) {
        layer->down_bias = PLACE(d, 0, "mlp.down_proj.bias");
    }
#undef PLACE
}

int sm_layout_init(sm_layout *layout, const sm_config *config, sm_error *error)
{
    *layout = (sm_layout){.config = *config};
    const size_t per_layer = 16, others = 3;
    layout->layer = calloc(config->layers, sizeof *layout->layer);
    layout->tensor = calloc(config->layers * per_layer + others, sizeof *layout->tensor);
    if (!layout->layer || !layout->tensor) {
        sm_layout_free(layout);
        return sm_fail(error, SM_NO_MEMORY, "no memory for the table of a model of %u layers", config->layers);
    }
    struct placing at = {.layout = layout};
    layout->embed = place(&at, config->vocab, config->hidden, "model.embed_tokens.weight");
    for (uint32_t i = 0; i < config->layers; i++) {
        place_layer(&at, i);
    }
    layout->norm = place(&at, config->hidden, 0, "model.norm.weight");
    layout->head = layout->score = SM_ABSENT;
    if (config->outputs) {
        layout->score = place(&at, config->outputs, config->hidden, SM_SCORE);
    } else {
        layout->head = config->tied ? layout->embed : place(&at, config->vocab, config->hidden, "lm_head.weight");
    }
    if (at.overflow || layout->count > SIZE_MAX / 2 / sizeof(float)) {
        sm_layout_free(layout);
        return sm_fail(error, SM_UNSUPPORTED, "the model's parameters would not fit in this machine's address space");
    }
    return SM_OK;
}

void sm_layout_free(sm_layout *layout)
{
    free(layout->layer);
    free(layout->tensor);
    *layout = (sm_layout){0};
}

const sm_tensor *sm_layout_find(const sm_layout *layout, const char *name)
{
    for (size_t i = 0; i < layout->tensors; i++) {
        if (strcmp(layout->tensor[i].name, name) == 0) {
            return &layout->tensor[i];
        }
    }
    return NULL;
}

size_t sm_layout_largest(const sm_layout *layout)
{
    size_t most = 0;
    for (size_t i = 0; i < layout->tensors; i++) {
        most = layout->tensor[i].count > most ? layout->tensor[i].count : most;
    }
    return most;
}

int sm_numbers_read(const sm_numbers *numbers, size_t offset, size_t count, float *to, sm_error *error)
{
    if (!numbers->params)
        return numbers->read(numbers->context, offset, count, to, error);
    memcpy(to, numbers->params + offset, count * sizeof *to);
    return SM_OK;
}
