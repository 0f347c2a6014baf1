/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What generation keeps: prompts whose keys and values are in the cache, candidates in slots, free pages. */
#ifndef MODEL_SLOTS_H
#define MODEL_SLOTS_H

#include "model/generate.h"

/* Free pages of a cache. The last one freed is the next one given, so that memory which was
 * touched is touched again. */
typedef struct sm_pages {
    uint32_t *free;
    size_t free_count, total;
} sm_pages;

int sm_pages_new(sm_pages *pages, size_t total);
void sm_pages_free(sm_pages *pages);
bool sm_pages_take(sm_pages *pages, uint32_t *out, size_t count); /* all or none */
void sm_pages_give(sm_pages *pages, const uint32_t *from, size_t count);

/* A prompt in the cache. Freed when its candidates have all started and finished. */
typedef struct sm_prompt {
    struct sm_prompt *next;
    sluice_generate_prompt given;
    uint32_t *pages;
    size_t page_count;
    size_t filled; /* positions whose keys and values are in the cache; all of them = ready */
    size_t place;  /* row of the table of hidden states that holds its last token's */
    uint32_t started, finished;
} sm_prompt;

/* A candidate being decoded. */
typedef struct sm_slot {
    sm_prompt *prompt; /* NULL = the slot is free */
    uint32_t candidate;
    uint32_t count, limit; /* tokens so far, at most */
    uint32_t *tokens;      /* [limit] */
    float *logprobs;       /* [limit] */
    uint32_t *seen;        /* prompt and answer, for the repetition penalty; NULL without one */
    uint32_t *pages;       /* its page table: the prompt's full pages, then its own */
    size_t page_count, shared;
    uint64_t key[2], counter[2];
    sm_decoder *decoder;
    sm_text text;
} sm_slot;

/* Starts the prompt's next candidate in a free slot, with sm_slot_pages of its own. */
int sm_slot_start(sm_slot *slot, sm_prompt *prompt, const sluice_generation *generation, uint32_t max_positions,
                  const sm_tokenizer *tokenizer, sm_pages *pages, sm_error *error);
/* Pages beyond the prompt's full ones that a candidate of this prompt needs. */
size_t sm_slot_pages(const sluice_generate_prompt *prompt, uint32_t max_tokens, uint32_t max_positions);
/* Appends a token that was chosen; *finish is set when it ends the answer. */
int sm_slot_append(sm_slot *slot, const kn_chosen *chosen, const sluice_generation *generation,
                   const uint32_t *stop_ids, size_t stop_count, int32_t *finish, sm_error *error);
/* Finishes the text and tells the caller. */
int sm_slot_report(sm_slot *slot, const sluice_generation *generation, int32_t finish, int *result, sm_error *error);
/* Gives memory and pages back; the slot is free afterwards. */
void sm_slot_release(sm_slot *slot, sm_pages *pages);

#endif
