/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The Llama-layout transformer over packed rows: token ids in, hidden states and log-probabilities out.
 *
 * A layer is x ← x + Wo·attention(rope(Wqkv·norm(x))), x ← x + Wdown·swiglu(Wgate_up·norm(x)) (Touvron et al. 2023,
 * "LLaMA", §2.2). T is the number of rows, d the hidden size, V the vocabulary; q = heads·head_dim,
 * w = (heads + 2 kv_heads)·head_dim, f the feed-forward size.
 *
 * A network borrows its layout and parameters. It changes only in sm_network_refresh; between refreshes any number of
 * threads may run it, each with a workspace of its own. Memory of this version's devices is addressed by the host too.
 */
#ifndef MODEL_TRANSFORMER_H
#define MODEL_TRANSFORMER_H

#include "kernels/ops.h"
#include "model/pack.h"
#include "model/weights.h"

typedef struct sm_layer_matrices {
    kn_matrix *qkv, *out, *gate_up, *down;
} sm_layer_matrices;

typedef struct sm_network {
    kn_device *device;
    const sm_layout *layout;
    const float *params;
    kn_attention attention;
    sm_layer_matrices *layer;
    kn_matrix *head;  /* NULL in a reward model */
    float *cos, *sin; /* [max_positions, head_dim / 2] */
} sm_network;

/* Packs the weights for the device; with_backward also for sm_backward. SM_NO_MEMORY is the only failure. */
int sm_network_new(sm_network **out, kn_device *device, const sm_layout *layout, const float *params,
                   bool with_backward, sm_error *error);
/* Takes the parameters over again after they have changed. */
int sm_network_refresh(sm_network *network, sm_error *error);
void sm_network_free(sm_network *network);

/* What a layer computed. In a workspace without `keep` all layers share one, and x and middle are the same rows. */
typedef struct sm_layer_state {
    float *x;                               /* [T, d] the layer's input */
    float *qkv;                             /* [T, w] after the rotary embedding */
    float *attended;                        /* [T, q] */
    float *middle;                          /* [T, d] after attention */
    float *gate_up;                         /* [T, 2f] */
    float *attention_rstd, *lse, *mlp_rstd; /* [T], [T, heads], [T]; NULL without keep */
} sm_layer_state;

/* Buffers of the backward pass. */
typedef struct sm_flow {
    float *dx;                  /* [T, d] of the residual stream */
    float *branch;              /* [T, d] of a branch's output (a copy of dx that dropout may change) or input */
    float *dactivated;          /* [T, f] */
    float *dgate_up;            /* [T, 2f] */
    float *dattended;           /* [T, q] */
    float *dqkv;                /* [T, w] */
    float *dscored, *dscored_x; /* [S, d] after and before the final norm */
} sm_flow;

typedef struct sm_workspace {
    kn_device *device;
    size_t row_capacity, scored_capacity;
    bool keep; /* every layer's state is kept, for the backward pass */
    sm_layer_state *layer;
    float *x;                              /* [T, d] after the last layer */
    float *normed;                         /* [T, d] */
    float *activated;                      /* [T, f] */
    float *scored_x;                       /* [S, d] rows of x that are scored */
    float *scored_normed;                  /* [S, d] */
    float *scored_rstd;                    /* [S] */
    float *logprob, *scored_lse, *entropy; /* [S] */
    sm_flow flow;                          /* with keep */
    float *rows_memory, *scored_memory;
    size_t layers;
} sm_workspace;

/* An empty workspace for networks of this layout; it grows when it is used. NULL when out of memory. */
sm_workspace *sm_workspace_new(const sm_network *network, bool keep);
void sm_workspace_free(sm_workspace *workspace);
int sm_workspace_reserve(sm_workspace *workspace, const sm_network *network, size_t rows, size_t scored,
                         sm_error *error);

/* How rows attend: packed segments, or pages of a cache. */
typedef struct sm_attending {
    const kn_segment *segment; /* packed */
    size_t segments;
    kn_cache *cache; /* NULL = packed */
    const kn_cached_rows *cached;
    size_t sequences;
} sm_attending;

/* Dropout on the outputs of attention and feed-forward. rate 0 = none. */
typedef struct sm_dropout {
    float rate;
    uint64_t seed, step;
    const uint64_t *row_id; /* [T] */
} sm_dropout;

/* workspace->x = the hidden states of T rows after the last layer, before the final norm. dropout may be NULL, and
 * needs `keep`. Reserve the workspace first. */
int sm_forward(const sm_network *network, sm_workspace *workspace, const uint32_t *token, const uint32_t *position,
               size_t T, const sm_attending *attending, const sm_dropout *dropout, sm_error *error);

/* Forward of a pack and workspace->scored_normed of its scored rows. */
int sm_forward_scored(const sm_network *network, sm_workspace *workspace, const sm_pack *pack,
                      const sm_dropout *dropout, sm_error *error);

/* Forward of a pack and workspace->logprob of its scored rows (and entropy, in nats, when asked). */
int sm_forward_pack(const sm_network *network, sm_workspace *workspace, const sm_pack *pack, const sm_dropout *dropout,
                    bool entropy, sm_error *error);

/* Adds to `gradient` (laid out as params) the gradient of what has d/d logprob = dlogprob[scored], after
 * sm_forward_pack with the same pack and dropout in a workspace that keeps. `head_gradient` [V, d] takes the output
 * matrix's part (its place in `gradient`, or for a tied model a buffer of its own, so that the order of sums does not
 * depend on how a batch was cut). */
int sm_backward(const sm_network *network, sm_workspace *workspace, const sm_pack *pack, const sm_dropout *dropout,
                const float *dlogprob, float *gradient, float *head_gradient, sm_error *error);

/* The same from the gradient of the scored rows after the final norm, flow.dscored [scored, d], on down. */
int sm_backward_scored(const sm_network *network, sm_workspace *workspace, const sm_pack *pack,
                       const sm_dropout *dropout, float *gradient, sm_error *error);

/* Key of a layer's dropout; site 0 attention, 1 feed-forward. */
void sm_dropout_key(const sm_dropout *dropout, size_t layer, unsigned site, uint64_t key[2]);

/* One line for a failing device call; returns the sm_status. */
int sm_device_fail(int kn, const char *what, sm_error *error);

/* Log-probabilities of completions, group after group, in micro-batches of whole sequences. logps[k] (and entropy[k];
 * entropy may be NULL) is the k-th completion's array over all groups; a token without one gets 0. The workspace must
 * not keep. */
int sm_score(const sm_network *network, sm_workspace *workspace, const sluice_group *groups, size_t count,
             float *const *logps, float *const *entropy, sm_error *error);

#endif
