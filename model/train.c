/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct sm_training {
    kn_device *device;
    const sm_layout *layout;
    sluice_optimizer optimizer;
    sm_network *network; /* runs the masters */
    sm_workspace *keeping, *scoring;
    sm_pack pack;
    float *params, *gradient, *moment, *square; /* [layout->count] */
    float *head_gradient; /* of a tied model's output matrix, [vocab, hidden]; else its place in gradient */
    uint64_t updates;     /* applied, for the bias correction */
    uint64_t steps;       /* called, for dropout */
};

static size_t head_count(const sm_layout *layout)
{
    return (size_t)layout->config.vocab * layout->config.hidden;
}

static bool allocate(sm_training *t)
{
    const kn_ops *ops = t->device->ops;
    const size_t bytes = t->layout->count * sizeof(float);
    t->params = ops->alloc(t->device, bytes);
    t->gradient = ops->alloc(t->device, bytes);
    t->moment = ops->alloc(t->device, bytes);
    t->square = ops->alloc(t->device, bytes);
    if (!t->params || !t->gradient || !t->moment || !t->square)
        return false;
    t->head_gradient = t->layout->config.tied ? ops->alloc(t->device, head_count(t->layout) * sizeof(float))
                                              : t->gradient + t->layout->head;
    return t->head_gradient != NULL;
}

int sm_training_new(sm_training **out, kn_device *device, const sm_layout *layout, const float *params,
                    const sluice_optimizer *optimizer, sm_error *error)
{
    *out = NULL;
    sm_training *t = calloc(1, sizeof(*t));
    if (!t)
        return sm_fail(error, SM_NO_MEMORY, "out of memory for training");
    t->device = device;
    t->layout = layout;
    t->optimizer = *optimizer;
    int rc = SM_OK;
    if (!allocate(t)) {
        rc = sm_fail(error, SM_NO_MEMORY, "out of memory for training %zu parameters", layout->count);
        goto fail;
    }
    memcpy(t->params, params, layout->count * sizeof(float));
    memset(t->moment, 0, layout->count * sizeof(float));
    memset(t->square, 0, layout->count * sizeof(float));
    memset(t->gradient, 0, layout->count * sizeof(float));
    if (layout->config.tied)
        memset(t->head_gradient, 0, head_count(layout) * sizeof(float));
    rc = sm_network_new(&t->network, device, layout, t->params, true, error);
    if (rc != SM_OK)
        goto fail;
    t->keeping = sm_workspace_new(t->network, true);
    t->scoring = sm_workspace_new(t->network, false);
    if (!t->keeping || !t->scoring) {
        rc = sm_fail(error, SM_NO_MEMORY, "out of memory for training");
        goto fail;
    }
    *out = t;
    return SM_OK;
fail:
    sm_training_free(t);
    return rc;
}

void sm_training_free(sm_training *t)
{
    if (!t)
        return;
    const kn_ops *ops = t->device->ops;
    sm_pack_free(&t->pack);
    sm_workspace_free(t->keeping);
    sm_workspace_free(t->scoring);
    sm_network_free(t->network);
    if (t->layout->config.tied)
        ops->free(t->device, t->head_gradient);
    ops->free(t->device, t->params);
    ops->free(t->device, t->gradient);
    ops->free(t->device, t->moment);
    ops->free(t->device, t->square);
    free(t);
}

const float *sm_training_params(const sm_training *t)
{
    return t->params;
}

const float *sm_training_gradients(const sm_training *t)
{
    return t->gradient;
}

/* --- gradient -------------------------------------------------------------------------------------------------------
 */

/* Per completion: its log-probabilities and their derivatives, as the caller's function sees them. */
typedef struct exchange {
    float **logps, **d_logps; /* [completions] */
    float *values, *derivatives;
} exchange;

static void exchange_free(exchange *x)
{
    free(x->logps);
    free(x->d_logps);
    free(x->values);
    free(x->derivatives);
}

static int exchange_new(exchange *x, const sluice_group *groups, size_t count, sm_error *error)
{
    size_t completions = 0, tokens = 0;
    for (size_t g = 0; g < count; g++) {
        completions += groups[g].completion_count;
        for (size_t c = 0; c < groups[g].completion_count; c++)
            tokens += groups[g].completions[c].count;
    }
    x->logps = calloc(completions + 1, sizeof(*x->logps));
    x->d_logps = calloc(completions + 1, sizeof(*x->d_logps));
    x->values = calloc(tokens + 1, sizeof(float));
    x->derivatives = calloc(tokens + 1, sizeof(float));
    if (!x->logps || !x->d_logps || !x->values || !x->derivatives)
        return sm_fail(error, SM_NO_MEMORY, "out of memory for a batch of %zu tokens; use smaller batches", tokens);
    size_t k = 0, from = 0;
    for (size_t g = 0; g < count; g++)
        for (size_t c = 0; c < groups[g].completion_count; c++, k++) {
            x->logps[k] = x->values + from;
            x->d_logps[k] = x->derivatives + from;
            from += groups[g].completions[c].count;
        }
    return SM_OK;
}

/* Copies between the flat array of scored tokens and the completions' arrays (which may have one token more). */
static void deal(const sluice_group *groups, size_t count, float *flat, float *const *arrays, bool out)
{
    size_t k = 0;
    for (size_t g = 0; g < count; g++)
        for (size_t c = 0; c < groups[g].completion_count; c++, k++) {
            const size_t scored = sm_pack_scored(&groups[g], c);
            float *const array = arrays[k] + (groups[g].completions[c].count - scored);
            if (out)
                memcpy(array, flat, scored * sizeof(float));
            else
                memcpy(flat, array, scored * sizeof(float));
            flat += scored;
        }
}

int sm_training_gradient(sm_training *t, const sluice_group *groups, size_t count, sm_derivative derivative,
                         void *context, int *result, sm_error *error)
{
    const sm_config *c = &t->layout->config;
    exchange x = {0};
    int rc = exchange_new(&x, groups, count, error);
    sm_pack_clear(&t->pack);
    for (size_t g = 0; rc == SM_OK && g < count; g++)
        rc = sm_pack_add(&t->pack, &groups[g], 0, groups[g].completion_count, c->vocab, c->max_positions, error);
    const sm_dropout dropout = {
        .rate = (float)t->optimizer.dropout, .seed = t->optimizer.seed, .step = t->steps, .row_id = t->pack.row_id};
    if (rc == SM_OK && t->pack.scored > 0)
        rc = sm_forward_pack(t->network, t->keeping, &t->pack, &dropout, false, error);
    if (rc == SM_OK) {
        deal(groups, count, t->keeping->logprob, x.logps, true);
        *result = derivative(context, (const float *const *)x.logps, x.d_logps);
        if (*result < 0)
            rc = SM_CALLER;
    }
    if (rc == SM_OK && t->pack.scored > 0) {
        deal(groups, count, t->keeping->logprob, x.d_logps, false);
        rc = sm_backward(t->network, t->keeping, &t->pack, &dropout, t->keeping->logprob, t->gradient, t->head_gradient,
                         error);
    }
    exchange_free(&x);
    return rc;
}

int sm_training_score(sm_training *t, const sluice_group *groups, size_t count, float *const *logps, sm_error *error)
{
    return sm_score(t->network, t->scoring, groups, count, logps, NULL, error);
}

/* --- step -----------------------------------------------------------------------------------------------------------
 */

int sm_training_gather(sm_training *t, sm_error *error)
{
    if (!t->layout->config.tied)
        return SM_OK;
    const size_t count = head_count(t->layout);
    const int kn = t->device->ops->add(t->device, t->gradient + t->layout->embed, t->head_gradient, count);
    memset(t->head_gradient, 0, count * sizeof(float));
    return kn == KN_OK ? SM_OK : sm_device_fail(kn, "the sum of gradients", error);
}

/* AdamW over runs of neighbouring tensors that decay alike: matrices do, norms and biases do not. */
static int update(sm_training *t, double lr, double scale)
{
    const sm_layout *layout = t->layout;
    for (size_t i = 0; i < layout->tensors;) {
        const size_t begin = layout->tensor[i].offset;
        const bool decays = layout->tensor[i].rank > 1;
        size_t end = begin;
        while (i < layout->tensors && ((layout->tensor[i].rank > 1) == decays || t->optimizer.weight_decay == 0))
            end += layout->tensor[i++].count;
        const kn_adamw a = {.lr = (float)lr,
                            .beta1 = (float)t->optimizer.beta1,
                            .beta2 = (float)t->optimizer.beta2,
                            .eps = (float)t->optimizer.epsilon,
                            .weight_decay = decays ? (float)t->optimizer.weight_decay : 0,
                            .step = t->updates,
                            .grad_scale = (float)scale};
        const int kn = t->device->ops->adamw(t->device, t->params + begin, t->moment + begin, t->square + begin,
                                             t->gradient + begin, end - begin, &a);
        if (kn != KN_OK)
            return kn;
    }
    return KN_OK;
}

int sm_training_step(sm_training *t, double lr, double grad_scale, sluice_step_info *info, sm_error *error)
{
    *info = (sluice_step_info){0};
    int rc = sm_training_gather(t, error);
    if (rc != SM_OK)
        return rc;
    double squares = 0;
    int kn = t->device->ops->sum_squares(t->device, &squares, t->gradient, t->layout->count);
    if (kn != KN_OK)
        return sm_device_fail(kn, "the gradient's norm", error);
    t->steps++;
    info->grad_norm = sqrt(squares) * fabs(grad_scale);
    info->skipped = !isfinite(info->grad_norm);
    double scale = grad_scale;
    if (t->optimizer.max_grad_norm > 0 && info->grad_norm > t->optimizer.max_grad_norm) {
        scale *= t->optimizer.max_grad_norm / (info->grad_norm + 1e-6); /* PyTorch's clip_grad_norm_ */
        info->clipped = true;
    }
    if (!info->skipped) {
        t->updates++;
        kn = update(t, lr, scale);
        if (kn != KN_OK)
            return sm_device_fail(kn, "AdamW", error);
        rc = sm_network_refresh(t->network, error);
    }
    memset(t->gradient, 0, t->layout->count * sizeof(float));
    return rc;
}
