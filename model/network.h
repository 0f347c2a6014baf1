/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A model's weights in the form a device computes with: packed matrices and embedding rows in the network's type
 * (float32 or bfloat16), norm weights and biases in float32.
 *
 * A network borrows its layout, and a flat array of parameters where it was given one. It changes in sm_network_refresh
 * and, where it lies in that array or in what is rounded beside it (in_place), whenever these are written to; in
 * between any number of threads may run it, each with a workspace of its own. All its arrays are memory of the device
 * (kernels/ops.h), which the host does not touch.
 */
#ifndef MODEL_NETWORK_H
#define MODEL_NETWORK_H

#include "kernels/ops.h"
#include "model/weights.h"

typedef struct sm_layer_weights {
    kn_matrix *qkv, *out, *gate_up, *down;
    const float *attention_norm, *mlp_norm;
    const float *qkv_bias, *out_bias, *gate_up_bias, *down_bias; /* NULL = none */
} sm_layer_weights;

typedef struct sm_network {
    kn_device *device;
    const kn_ops *ops; /* the device's table of the network's type */
    const sm_layout *layout;
    kn_attention attention;
    sm_layer_weights *layer;
    kn_matrix *head;   /* NULL in a reward model */
    const void *embed; /* [vocab, hidden] in the network's type */
    const float *norm;
    const float *score; /* [outputs, hidden] of a reward model; NULL in a language model */
    float *cos, *sin;   /* [max_positions, head_dim / 2] */

    sm_numbers numbers;   /* what it was made of; flat arrays stay borrowed, a function is called in refresh alone */
    const float *masters; /* the flat array where the device can read it, else NULL */
    uint16_t *rounded;    /* the masters in bfloat16, where the matrices and `embed` lie in them; else NULL */
    bool in_place;        /* matrices and `embed` lie in masters or in `rounded` */
    void *own_embed;      /* NULL where `embed` lies in one of them */
    float *own_vectors;   /* norm weights and biases where there are no masters */
    size_t vector_count;
} sm_network;

/* The type in which this device computes what is asked for in `wanted`: KN_F32 where it has no table of it. */
kn_dtype sm_device_dtype(const kn_device *device, kn_dtype wanted);

/* Packs the weights for the device's table of `dtype` (KN_F32, or KN_BF16 where the device has one); with_backward also
 * for sm_backward. A flat array must outlive the network; else every number is read once and no float32 copy is kept
 * beyond what the network needs. */
int sm_network_new(sm_network **out, kn_device *device, kn_dtype dtype, const sm_layout *layout,
                   const sm_numbers *numbers, bool with_backward, sm_error *error);
/* Takes the numbers over again after they have changed. */
int sm_network_refresh(sm_network *network, sm_error *error);
/* Where who changes the masters from `offset` on is to write them rounded as well (kn_adamw.rounded); NULL = nowhere.
 * Then sm_network_follow is enough, which reads them again only where that was not asked for. */
uint16_t *sm_network_rounded(const sm_network *network, size_t offset);
int sm_network_follow(sm_network *network, sm_error *error);
void sm_network_free(sm_network *network);

/* Bytes of one activation. */
size_t sm_network_element(const sm_network *network);

/* One line for a failing device call; returns the sm_status. */
int sm_device_fail(kn_device *device, int kn, const char *what, sm_error *error);
/* The same where memory could not be had, of the device or the host: the line, with the device's figures. */
int sm_device_no_memory(kn_device *device, sm_error *error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* From device memory to host memory; SM_OK, or one line on why not. */
int sm_device_read(kn_device *device, void *to, const void *from, size_t bytes, sm_error *error);
int sm_device_write(kn_device *device, void *to, const void *from, size_t bytes, sm_error *error);

#endif
