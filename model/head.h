/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A reward model's head: k outputs, value = score.weight [k, hidden] · h without a bias, where h is the hidden state of
 * an answer's last token after the final norm. The folder is transformers' LlamaForSequenceClassification (or its
 * Mistral and Qwen2 relatives).
 *
 * k is small, so this is plain code of the host: products of float32 are summed in float64 in one fixed order, whatever
 * batch a row stands in, and rounded once. Gradients are memory of the device, values and their derivatives host
 * memory. Any thread may call with a workspace of its own.
 */
#ifndef MODEL_HEAD_H
#define MODEL_HEAD_H

#include "model/transformer.h"

#define SM_HEAD_DEVIATION 0.02 /* standard deviation of a new head */

/* Floats before the head (or before a language model's own output matrix): every model of one body lays them out alike.
 */
size_t sm_body_count(const sm_layout *layout);

/* The layout of the body of `body` under a head of `outputs`; freed by sm_layout_free. */
int sm_head_layout(sm_layout *out, const sm_layout *body, uint32_t outputs, sm_error *error);

/* A new head [outputs, hidden] from N(0, SM_HEAD_DEVIATION²). */
void sm_head_random(float *head, uint32_t outputs, uint32_t hidden, uint64_t seed);

/* Forward of a pack of values; values[i·k …] are those of its i-th completion. dropout as in sm_forward. */
int sm_forward_values(const sm_network *network, sm_workspace *workspace, const sm_pack *pack,
                      const sm_dropout *dropout, float *values, sm_error *error);

/* After sm_forward_values with the same pack, of which something is scored: head_gradient [k, hidden] = what d/d value
 * = dvalues [scored, k] gives, row after row, or += when accumulate. */
int sm_head_backward(const sm_network *network, const sm_workspace *workspace, const sm_pack *pack,
                     const float *dvalues, float *head_gradient, bool accumulate, sm_error *error);

/* The same for the whole model. The workspace keeps. */
int sm_backward_values(const sm_network *network, sm_workspace *workspace, const sm_pack *pack,
                       const sm_dropout *dropout, const float *dvalues, const sm_gradient *gradient, sm_error *error);

/* Values of completions, group after group, in micro-batches of whole sequences: values[c] is the c-th completion's
 * array [k] over all groups. */
int sm_score_values(const sm_network *network, sm_workspace *workspace, const sluice_group *groups, size_t count,
                    float *const *values, sm_error *error);

/* The text of a config.json as it stands beside a head of config->outputs: architectures, id2label and label2id as
 * transformers writes them, problem_type regression (its pipelines then give the bare values). A padding token that
 * also ends answers becomes null: transformers reads the value at the last token that is not padding, so it would miss
 * the end. A text that already describes such a model comes back as it is. New memory; NULL when out of it. */
char *sm_config_with_head(const char *text, size_t length, const sm_config *config, size_t *new_length);

#endif
