/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Losses: the value and its derivative with respect to log-probability. The runtime does the rest of the backward pass,
 * so a new objective is some thirty lines and needs no automatic differentiation.
 *
 * A class gives `pairs` (chosen against rejected; sums of log-probabilities) or `tokens` (single sequences, token by
 * token). The trainer multiplies each pair's or sequence's loss and derivative by its `weight` and divides by the
 * number of pairs (for `tokens`: by the number of trained tokens, or of sequences, as `per` says). Log-probabilities
 * are natural logarithms. Derivatives are checked against finite differences by the tests.
 */
#ifndef SLUICE_LOSS_H
#define SLUICE_LOSS_H

#include <sluice/plugin.h>
#include <sluice/host.h>

enum sluice_loss_needs {
    SLUICE_REFERENCE = 1u << 0, /* log-probabilities of the reference model */
    SLUICE_SAMPLER_LOGPS = 1u << 1,
    SLUICE_HEAD_VALUES = 1u << 2 /* the outputs of a reward model's head: the trainer trains one */
};

enum sluice_loss_per { SLUICE_PER_TOKEN = 0, SLUICE_PER_SEQUENCE = 1 };

/* One answer's sums over its tokens, stop token included. Frozen: new inputs are new arrays in sluice_pairs. */
typedef struct sluice_answer {
    double policy;    /* Σ log π(token) */
    double reference; /* Σ log π_ref(token); 0 without SLUICE_REFERENCE */
    double sampler;   /* Σ log-probability recorded when it was sampled; 0 without SLUICE_SAMPLER_LOGPS */
    uint64_t length;  /* tokens */
} sluice_answer;

typedef struct sluice_pairs {
    uint32_t size;
    size_t count;
    const sluice_answer *chosen, *rejected; /* [count] */
    const double *p;                        /* [count] probability that the label is right */
    const double *margin;                   /* [count] 0 where none was set */
    double progress;                        /* of training, 0 to 1 */
    /* With SLUICE_HEAD_VALUES; the sums of log-probabilities are then 0. [count · heads], pair after pair. */
    size_t heads;
    const double *chosen_value, *rejected_value;
} sluice_pairs;

/* All arrays are [count], cleared by the host. */
typedef struct sluice_pair_grads {
    uint32_t size;
    double *loss;     /* each pair's own, before weight and mean */
    double *d_chosen; /* d loss[i] / d chosen[i].policy */
    double *d_rejected;
    /* With SLUICE_HEAD_VALUES: d loss[i] / d chosen_value[i · heads + h]. [count · heads] */
    double *d_chosen_value, *d_rejected_value;
} sluice_pair_grads;

/* Sequences of tokens; sequence i's tokens are [offset[i], offset[i+1]) in the flat arrays. */
typedef struct sluice_token_batch {
    uint32_t size;
    size_t count;
    const size_t *offset;    /* [count + 1] */
    const double *policy;    /* log π of each token */
    const double *reference; /* NULL without SLUICE_REFERENCE */
    const double *sampler;   /* NULL without SLUICE_SAMPLER_LOGPS */
    const double *mask;      /* how much each token counts: 1 trained, 0 not (prompt tokens may have values between) */
    const double *advantage; /* [count]; NULL where none */
    double progress;
} sluice_token_batch;

typedef struct sluice_token_grads {
    uint32_t size;
    double *loss;     /* [count] each sequence's own sum over tokens */
    double *d_policy; /* [offset[count]] d loss / d policy */
} sluice_token_grads;

typedef struct sluice_loss_class {
    sluice_class base;
    uint32_t needs; /* sluice_loss_needs */
    uint32_t per;   /* sluice_loss_per: what the mean of `tokens` is over */
    /* Trainer's thread, once a micro-batch. Inputs are borrowed for the call. */
    int (*pairs)(void *self, const sluice_pairs *in, sluice_pair_grads *out);
    int (*tokens)(void *self, const sluice_token_batch *in, sluice_token_grads *out);
    /* The factor that turns a log-ratio into the reward which metrics report (β); NULL = 1. */
    double (*reward_scale)(const void *self);
} sluice_loss_class;

#define SLUICE_CLASS(id, summary, state, params) \
    SLUICE_BASE(sluice_loss_class, SLUICE_KIND_LOSS, id, summary, state, params)

#endif
