/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The Llama-layout transformer over packed rows: token ids in, hidden states and log-probabilities out.
 *
 * A layer is x ← x + Wo·attention(rope(Wqkv·norm(x))), x ← x + Wdown·swiglu(Wgate_up·norm(x)) (Touvron et al. 2023,
 * "LLaMA", §2.2). T is the number of rows, S that of the scored rows, d the hidden size, V the vocabulary;
 * q = heads·head_dim, w = (heads + 2 kv_heads)·head_dim, f the feed-forward size.
 *
 * `void *` rows have the network's type, float32 or bfloat16; `float *` is float32 in both.
 */
#ifndef MODEL_TRANSFORMER_H
#define MODEL_TRANSFORMER_H

#include "model/network.h"
#include "model/pack.h"

/* What of every layer's state is there after a forward pass. The backward pass wants all of it, and computes again what
 * was not kept: the same operations on the same rows, so the result is the same to the bit. */
typedef enum sm_keep {
    SM_KEEP_NOTHING = 0, /* all layers share one state, whose x and middle are the same rows */
    SM_KEEP_INPUTS,      /* each layer's x; the rest is shared */
    SM_KEEP_ALL
} sm_keep;

/* What a layer computed. */
typedef struct sm_layer_state {
    void *x;                                /* [T, d] the layer's input */
    void *qkv;                              /* [T, w] after the rotary embedding */
    void *attended;                         /* [T, q] */
    void *middle;                           /* [T, d] after attention */
    void *gate_up;                          /* [T, 2f] */
    float *attention_rstd, *lse, *mlp_rstd; /* [T], [T, heads], [T]; NULL when nothing is kept */
} sm_layer_state;

/* Buffers of the backward pass. */
typedef struct sm_flow {
    void *dx;                  /* [T, d] of the residual stream */
    void *branch;              /* [T, d] of a branch's output (a copy of dx that dropout may change) or input */
    void *dactivated;          /* [T, f] */
    void *dgate_up;            /* [T, 2f] */
    void *dattended;           /* [T, q] */
    void *dqkv;                /* [T, w] */
    void *dscored, *dscored_x; /* [S, d] after and before the final norm */
} sm_flow;

typedef struct sm_workspace {
    kn_device *device;
    size_t row_capacity, scored_capacity;
    size_t element; /* bytes of one activation */
    sm_keep keep;
    sm_layer_state *layer;
    void *x;                               /* [T, d] after the last layer */
    void *normed;                          /* [T, d] */
    void *activated;                       /* [T, f] */
    void *scored_x;                        /* [S, d] rows of x that are scored */
    void *scored_normed;                   /* [S, d] */
    float *scored_rstd;                    /* [S] */
    float *logprob, *scored_lse, *entropy; /* [S] */
    float *host_logprob, *host_entropy;    /* [S] in host memory: as sm_forward_pack read them */
    float *host_head;                      /* in host memory: what a reward model's head computes with (head.c) */
    size_t host_head_capacity;             /* floats */
    sm_flow flow;                          /* unless nothing is kept */
    void *rows_memory, *scored_memory;
    float *kept; /* logits between sm_forward_pack and sm_backward, where the device keeps some; NULL = none */
    size_t layers;
} sm_workspace;

/* An empty workspace for networks of this layout and type; it grows when it is used. NULL when out of memory. */
sm_workspace *sm_workspace_new(const sm_network *network, sm_keep keep);
void sm_workspace_free(sm_workspace *workspace);
int sm_workspace_reserve(sm_workspace *workspace, const sm_network *network, size_t rows, size_t scored,
                         sm_error *error);
/* Gives the memory back; the workspace grows again when it is used. */
void sm_workspace_shrink(sm_workspace *workspace);
/* Gives back the logits that sm_forward_pack kept for sm_backward. */
void sm_workspace_drop_logits(sm_workspace *workspace);

/* How rows attend: packed segments, or pages of a cache. */
typedef struct sm_attending {
    const kn_segment *segment; /* packed */
    size_t segments;
    const uint32_t *position; /* packed: [T], of each row; pages know their rows' */
    kn_cache *cache;          /* NULL = packed */
    const kn_cached_rows *cached;
    size_t sequences;
} sm_attending;

/* Dropout on the outputs of attention and feed-forward. rate 0 = none. */
typedef struct sm_dropout {
    float rate;
    uint64_t seed, step;
    const uint64_t *row_id; /* [T] */
} sm_dropout;

/* workspace->x = the hidden states of T rows after the last layer, before the final norm. dropout may be NULL,
 * and needs a workspace that keeps. Reserve the workspace first. */
int sm_forward(const sm_network *network, sm_workspace *workspace, const uint32_t *token, size_t T,
               const sm_attending *attending, const sm_dropout *dropout, sm_error *error);

/* Forward of a pack and workspace->scored_normed of its scored rows. */
int sm_forward_scored(const sm_network *network, sm_workspace *workspace, const sm_pack *pack,
                      const sm_dropout *dropout, sm_error *error);

/* Forward of a pack and workspace->host_logprob of its scored rows (and host_entropy, in nats, when asked). */
int sm_forward_pack(const sm_network *network, sm_workspace *workspace, const sm_pack *pack, const sm_dropout *dropout,
                    bool entropy, sm_error *error);

/* Computes a layer's state again from its x, all but what follows it. */
int sm_forward_again(const sm_network *network, sm_workspace *workspace, size_t layer, const sm_pack *pack,
                     const sm_dropout *dropout);

/* Where a gradient is gathered, in memory of the device. The first pass of a step writes all of it, so nobody clears it
 * or reads what was there. */
typedef struct sm_gradient {
    float *params; /* laid out as params */
    float *head;   /* [V, d] the output matrix's part: its place in params, or for a tied model a buffer of its own */
    bool add, add_head; /* onto what they hold; else that is nothing */
} sm_gradient;

/* Adds to the gradient that of what has d/d logprob = dlogprob[scored] (in host memory), after sm_forward_pack with the
 * same pack and dropout in a workspace that keeps inputs or all. Something must be scored. For gradients that do not
 * depend on how a batch was cut, the pack's `multiple` must be the device's row_group. */
int sm_backward(const sm_network *network, sm_workspace *workspace, const sm_pack *pack, const sm_dropout *dropout,
                const float *dlogprob, const sm_gradient *gradient, sm_error *error);

/* The same from the gradient of the scored rows after the final norm, flow.dscored [scored, d], on down. */
int sm_backward_scored(const sm_network *network, sm_workspace *workspace, const sm_pack *pack,
                       const sm_dropout *dropout, const sm_gradient *gradient, sm_error *error);

/* Key of a layer's dropout; site 0 attention, 1 feed-forward. */
void sm_dropout_key(const sm_dropout *dropout, size_t layer, unsigned site, uint64_t key[2]);

/* Log-probabilities of completions, group after group, in micro-batches of whole sequences. logps[k] (and entropy[k];
 * entropy may be NULL) is the k-th completion's array over all groups; a token without one gets 0. The workspace must
 * not keep. */
int sm_score(const sm_network *network, sm_workspace *workspace, const sluice_group *groups, size_t count,
             float *const *logps, float *const *entropy, sm_error *error);

#endif
