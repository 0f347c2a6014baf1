/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What a sampling run holds (generate.c), and how it gets its memory (generator.c). */
#ifndef MODEL_GENERATOR_H
#define MODEL_GENERATOR_H

#include "model/generate.h"
#include "model/slots.h"

#define SM_LOGIT_ROWS 256 /* at most at a time */

static inline size_t sm_pages_of(size_t positions)
{
    return (positions + KN_PAGE - 1) / KN_PAGE;
}

typedef struct sm_generator {
    const sm_network *n;
    sm_workspace *w;
    const sm_tokenizer *tokenizer;
    const uint32_t *stop_ids;
    size_t stop_count;
    const sluice_generation *given;
    int *result;
    sm_error *error;

    kn_cache *cache;
    sm_pages pages;
    sm_prompt *prompts, **last; /* in the order they came */
    sm_prompt *current;         /* the one whose candidates are being started */
    bool no_more;
    sm_slot *slot;
    size_t slots, live;
    size_t prefill;         /* prompt rows in one pass */
    size_t width;           /* running candidates in one pass: `slots`, or fewer once memory was refused */
    size_t turn, next_turn; /* the slot that this pass and the next begin with */
    size_t logit_rows;      /* rows of logits at a time */
    sm_narrowed narrowed;
    size_t *free_place, free_places; /* rows of prompt_hidden */

    /* one pass */
    size_t rows, sequences, running; /* running: rows of candidates, the last of them */
    uint32_t *token;
    kn_cached_rows *cached;
    sm_slot **choosing; /* the slots whose next token can be chosen */
    uint32_t *gather;
    kn_choice *choice;
    kn_chosen *chosen;
    bool *ended;           /* by the hook */
    char *prompt_hidden;   /* [slots + 1, d] in the network's type, as are … */
    char *hidden, *normed; /* [slots, d] of the slots in choosing */
    size_t row_bytes;      /* of one of these rows */
    float *logits;         /* [SM_LOGIT_ROWS, V] */
    float *logprob;        /* [SM_LOGIT_ROWS] */
    float *host_logits;    /* what a hook sees; NULL without one, and where host memory is the device's */
} sm_generator;

/* Makes everything for `slots` candidates. When there is no memory for so many, for half of them, and so on down to
 * one; then SM_NO_MEMORY. Fixed fields are set by the caller, the rest is 0. */
int sm_generator_new(sm_generator *);
void sm_generator_free(sm_generator *);
void sm_generator_prompt_free(sm_prompt *);
int sm_generator_no_memory(const sm_generator *);
/* Memory was refused in the middle of a pass: the next ones do less at a time. False when they already do the least. */
bool sm_generator_narrow(sm_generator *);

#endif
