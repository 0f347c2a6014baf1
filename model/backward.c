/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The backward pass. `dx` is the gradient of the residual stream: it enters at the scored rows and passes every layer
 * from the last to the first; each half of a layer adds what flows through its branch. What is cheap to compute again
 * (norms, the gated activation) was not kept: it comes with its gradient, by the same kernel.
 */
#include "model/transformer.h"

/* What every layer's step needs. */
typedef struct backward {
    const sm_network *n;
    sm_workspace *w;
    const sm_pack *pack;
    const sm_dropout *dropout;
    const sm_gradient *gradient;
    sm_flow b;
} backward;

static float *into(const backward *g, size_t offset)
{
    return offset == SM_ABSENT ? NULL : g->gradient->params + offset;
}

/* The gradient of a branch's output: that of the stream, with the same elements dropped. */
static int enter_branch(backward *g, const void **dy, size_t layer, unsigned site)
{
    const size_t d = g->n->layout->config.hidden, T = g->pack->rows;
    *dy = g->b.dx;
    if (!g->dropout || g->dropout->rate == 0)
        return KN_OK;
    uint64_t key[2];
    sm_dropout_key(g->dropout, layer, site, key);
    *dy = g->b.branch;
    const int kn = g->n->ops->copy(g->n->device, g->b.branch, g->b.dx, T * d * g->w->element);
    return kn == KN_OK ? g->n->ops->dropout(g->n->device, g->b.branch, T, d, g->dropout->rate, key, g->dropout->row_id)
                       : kn;
}

/* The gradient of a norm joins the stream's; what it gave, which the weights' gradient is made of, comes with it. */
static int leave_branch(const backward *g, const void *dnormed, const void *x, const float *weight, size_t at,
                        const float *rstd)
{
    const size_t d = g->n->layout->config.hidden, T = g->pack->rows;
    return g->n->ops->rms_norm_backward(g->n->device, g->b.dx, into(g, at), g->w->normed, dnormed, x, weight, rstd, T,
                                        d, g->gradient->add);
}

static int feed_forward_backward(backward *g, size_t layer)
{
    const sm_network *n = g->n;
    const kn_ops *ops = n->ops;
    kn_device *dev = n->device;
    const sm_layer_layout *p = &n->layout->layer[layer];
    const sm_layer_state *s = &g->w->layer[layer];
    const size_t T = g->pack->rows, d = n->layout->config.hidden, f = n->layout->config.intermediate;
    const bool add = g->gradient->add;
    void *const activated = g->w->activated, *const dnormed = g->b.branch;
    const void *dy;
    int kn;
    if ((kn = enter_branch(g, &dy, layer, 1)) ||
        (kn = ops->linear_backward_input(dev, g->b.dactivated, dy, n->layer[layer].down, T, false)) ||
        (kn = ops->swiglu_backward(dev, g->b.dgate_up, activated, g->b.dactivated, s->gate_up, T, f)) ||
        (kn = ops->linear_backward_weight(dev, into(g, p->down), into(g, p->down_bias), dy, activated, T, d, f, add)) ||
        (kn = ops->linear_backward_input(dev, dnormed, g->b.dgate_up, n->layer[layer].gate_up, T, false)) ||
        (kn = leave_branch(g, dnormed, s->middle, n->layer[layer].mlp_norm, p->mlp_norm, s->mlp_rstd)))
        return kn;
    return ops->linear_backward_weight(dev, into(g, p->gate_up), into(g, p->gate_up_bias), g->b.dgate_up, g->w->normed,
                                       T, 2 * f, d, add);
}

static int attention_backward(backward *g, size_t layer)
{
    const sm_network *n = g->n;
    const kn_ops *ops = n->ops;
    kn_device *dev = n->device;
    const sm_config *c = &n->layout->config;
    const sm_layer_layout *p = &n->layout->layer[layer];
    const sm_layer_state *s = &g->w->layer[layer];
    const size_t T = g->pack->rows, d = c->hidden, q = (size_t)c->heads * c->head_dim;
    const size_t turned = c->heads + c->kv_heads, width = (turned + c->kv_heads) * c->head_dim;
    const bool add = g->gradient->add;
    void *const dnormed = g->b.branch;
    const void *dy;
    int kn;
    if ((kn = enter_branch(g, &dy, layer, 0)) ||
        (kn = ops->linear_backward_weight(dev, into(g, p->out), into(g, p->out_bias), dy, s->attended, T, d, q, add)) ||
        (kn = ops->linear_backward_input(dev, g->b.dattended, dy, n->layer[layer].out, T, false)) ||
        (kn = ops->attention_backward(dev, g->b.dqkv, g->b.dattended, s->qkv, s->attended, s->lse, g->pack->segment,
                                      g->pack->segments, T, &n->attention)) ||
        (kn = ops->rope(dev, g->b.dqkv, width, g->pack->position, n->cos, n->sin, T, turned, c->head_dim, true)) ||
        (kn = ops->linear_backward_input(dev, dnormed, g->b.dqkv, n->layer[layer].qkv, T, false)) ||
        (kn = leave_branch(g, dnormed, s->x, n->layer[layer].attention_norm, p->attention_norm, s->attention_rstd)))
        return kn;
    return ops->linear_backward_weight(dev, into(g, p->qkv), into(g, p->qkv_bias), g->b.dqkv, g->w->normed, T, width, d,
                                       add);
}

/* From the scored rows' gradient to dx; rows scored several times (a prompt's last) add up. */
static int enter_stream(backward *g)
{
    const sm_network *n = g->n;
    const size_t d = n->layout->config.hidden, S = g->pack->scored;
    int kn;
    if ((kn = n->ops->clear(n->device, g->b.dscored_x, S * d * g->w->element)) ||
        (kn = n->ops->rms_norm_backward(n->device, g->b.dscored_x, into(g, n->layout->norm), NULL, g->b.dscored,
                                        g->w->scored_x, n->norm, g->w->scored_rstd, S, d, g->gradient->add)) ||
        (kn = n->ops->clear(n->device, g->b.dx, g->pack->rows * d * g->w->element)))
        return kn;
    return n->ops->scatter_add(n->device, g->b.dx, g->b.dscored_x, g->pack->scored_row, S, g->pack->rows, d);
}

/* The embedding's rows take what reaches the stream's start; few of them are named. Where the output matrix's part lies
 * in the same place it came before. */
static int leave_stream(const backward *g)
{
    const sm_network *n = g->n;
    const sm_config *c = &n->layout->config;
    float *const embed = into(g, n->layout->embed);
    int kn = KN_OK;
    if (!g->gradient->add && g->gradient->head != embed)
        kn = n->ops->clear(n->device, embed, (size_t)c->vocab * c->hidden * sizeof(*embed));
    return kn == KN_OK
               ? n->ops->embed_backward(n->device, embed, g->b.dx, g->pack->token, g->pack->rows, c->hidden, c->vocab)
               : kn;
}

int sm_backward_scored(const sm_network *network, sm_workspace *workspace, const sm_pack *pack,
                       const sm_dropout *dropout, const sm_gradient *gradient, sm_error *error)
{
    const size_t layers = network->layout->config.layers;
    backward g = {
        .n = network, .w = workspace, .pack = pack, .dropout = dropout, .gradient = gradient, .b = workspace->flow};
    int kn = enter_stream(&g);
    for (size_t l = layers; kn == KN_OK && l-- > 0;) {
        if (workspace->keep == SM_KEEP_INPUTS && l + 1 < layers) /* the last layer's state is still there */
            kn = sm_forward_again(network, workspace, l, pack, dropout);
        if (kn == KN_OK)
            kn = feed_forward_backward(&g, l);
        if (kn == KN_OK)
            kn = attention_backward(&g, l);
    }
    if (kn == KN_OK)
        kn = leave_stream(&g);
    return kn == KN_OK ? SM_OK : sm_device_fail(network->device, kn, "the backward pass", error);
}

int sm_backward(const sm_network *network, sm_workspace *workspace, const sm_pack *pack, const sm_dropout *dropout,
                const float *dlogprob, const sm_gradient *gradient, sm_error *error)
{
    float *const slope = workspace->logprob; /* what it held was read */
    int kn = network->ops->write(network->device, slope, dlogprob, pack->scored * sizeof(float));
    if (kn == KN_OK)
        kn = network->ops->logprob_backward(network->device, workspace->flow.dscored, gradient->head, slope,
                                            workspace->scored_normed, network->head, workspace->scored_lse,
                                            pack->target, pack->scored, gradient->add_head, workspace->kept);
    sm_workspace_drop_logits(workspace);
    return kn == KN_OK ? sm_backward_scored(network, workspace, pack, dropout, gradient, error)
                       : sm_device_fail(network->device, kn, "the backward pass", error);
}
