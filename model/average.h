/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Averages of checkpoints, as WARM (Ramé et al. 2024, arXiv:2401.12187) takes of fine-tunings of one model and WARP
 * (arXiv:2406.16768) of one training's past.
 *
 * Every element is computed by itself in float32, each operation rounded once, in the order written here, so a plain
 * array library gives the same bits. With θ₀, θ₁, … the folders in order:
 *
 *     mean      (((θ₀ + θ₁) + θ₂) + …) / n
 *     weighted  ((v₀·θ₀ + v₁·θ₁) + v₂·θ₂) + …          v_i = weight_i / Σ weight, in float64, then rounded to float32
 *     running   e ← (1 − μ)·e + μ·θ_i, from e = θ₀     1 − μ in float64, then both factors rounded to float32
 *
 *     slerp     below: from the base θ₀, on a device, within a few roundings of float64
 *
 * Blocks are computed and written side by side, each at its place; memory holds one a thread, whatever the size and
 * number of the models.
 *
 * slerp is WARP's second and third stage (section 3): task vectors δ_i = θ_i − θ₀, turned layer by layer,
 *
 *     s₁ = δ₁,   s_k = slerp(s_{k−1}, δ_k; 1/k),   θ₀ + μ·s_M        slerp(a, b; λ) = sin((1−λ)Ω)/sin Ω·a + sin(λΩ)/sin
 * Ω·b
 *
 * with Ω the angle between a and b, which the tensors of a transformer layer have in common; the embedding, the last
 * norm and the head are layers of their own. Where sin Ω < 1e-6 (parallel or opposite) or one of the two is 0, the
 * straight line (1−λ)·a + λ·b is taken. The order counts where there are more than two. A difference that no model has
 * stays 0: with θ_i = θ₀ a tensor comes out as it was.
 */
#ifndef MODEL_AVERAGE_H
#define MODEL_AVERAGE_H

#include "model/weights.h"

typedef enum sm_average_method {
    SM_AVERAGE_MEAN,
    SM_AVERAGE_WEIGHTED,
    SM_AVERAGE_RUNNING,
    SM_AVERAGE_SLERP
} sm_average_method;

typedef struct sm_average {
    sm_average_method method;
    const char *const *dir; /* `count` checkpoint folders, at least one */
    size_t count;
    const double *weight; /* weighted: `count` of them, none negative, not all 0; else unused */
    double mu;            /* running and slerp (its η): 0 … 1; else unused */
    kn_dtype dtype;       /* of the result's file, unless … */
    int threads;          /* 0: one a processor; changes nothing but speed */
    bool original_dtype;  /* it is to be what the first folder descends from (sm_config.original) */
    kn_device *device;    /* slerp: computes; else unused */
} sm_average;

/* Writes the average as a new folder at `to` (see sm_checkpoint_save), whose other files are those of the first folder.
 * Folders are refused when their shapes, the numbers that shape their answers (rotary embedding, epsilon) or their
 * tokenizers differ; the message names the first difference. Any thread. */
int sm_average_write(const char *to, const sm_average *average, sm_error *error);

#endif
