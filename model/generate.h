/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Sampling: several candidates for each of many prompts, decoded together.
 *
 * A table of slots holds the candidates that are being decoded; a finished one's slot is taken by the next candidate
 * before the next pass. Prompts are computed beside running candidates in the same pass. The keys and values of a
 * prompt lie once in the paged cache and are read by all its candidates; only the unfinished last page is copied.
 *
 * What is chosen depends on the model, the prompt, the parameters and the place of the draw (seed, prompt's key,
 * candidate, position) alone: not on slots, neighbours, order or threads.
 */
#ifndef MODEL_GENERATE_H
#define MODEL_GENERATE_H

#include "model/tokenizer.h"
#include "model/transformer.h"

/* How far a run was cut down when memory ran out. */
typedef struct sm_narrowed {
    size_t asked, at_once; /* candidates decoded at once; equal where memory was enough */
    char why[256];         /* the device's figures when it refused; "" where it has none */
} sm_narrowed;

/* Runs until `generation->prompt` has no more and all candidates are done. stop_ids end an answer (and stay its last
 * token). *narrowed, where it is not NULL, is filled whatever happens. tokenizer may be NULL: then text is "" and stop
 * strings are refused. When a function of the caller returns a negative result, SM_CALLER is returned and *result holds
 * it. Calls the caller's functions on this thread. */
int sm_generate(const sm_network *network, sm_workspace *workspace, const sm_tokenizer *tokenizer,
                const uint32_t *stop_ids, size_t stop_count, const sluice_generation *generation, sm_narrowed *narrowed,
                int *result, sm_error *error);

#endif
