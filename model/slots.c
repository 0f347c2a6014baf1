/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* memmem */
#include "model/slots.h"

#include <stdlib.h>
#include <string.h>

#include <sluice/random.h>

int sm_pages_new(sm_pages *pages, size_t total)
{
    pages->free = malloc(total * sizeof(*pages->free));
    if (!pages->free)
        return SM_NO_MEMORY;
    pages->free_count = pages->total = total;
    for (size_t i = 0; i < total; i++)
        pages->free[i] = (uint32_t)(total - 1 - i);
    return SM_OK;
}

void sm_pages_free(sm_pages *pages)
{
    free(pages->free);
    *pages = (sm_pages){0};
}

bool sm_pages_take(sm_pages *pages, uint32_t *out, size_t count)
{
    if (pages->free_count < count)
        return false;
    for (size_t i = 0; i < count; i++)
        out[i] = pages->free[--pages->free_count];
    return true;
}

void sm_pages_give(sm_pages *pages, const uint32_t *from, size_t count)
{
    for (size_t i = count; i-- > 0;)
        pages->free[pages->free_count++] = from[i];
}

static uint32_t answer_limit(const sluice_generate_prompt *prompt, uint32_t max_tokens, uint32_t max_positions)
{
    const size_t room = max_positions - prompt->token_count;
    return max_tokens < room ? max_tokens : (uint32_t)room;
}

size_t sm_slot_pages(const sluice_generate_prompt *prompt, uint32_t max_tokens, uint32_t max_positions)
{
    /* The last token of an answer is never fed back. */
    const size_t positions = prompt->token_count + answer_limit(prompt, max_tokens, max_positions) - 1;
    return (positions + KN_PAGE - 1) / KN_PAGE - prompt->token_count / KN_PAGE;
}

int sm_slot_start(sm_slot *s, sm_prompt *prompt, const sluice_generation *generation, uint32_t max_positions,
                  const sm_tokenizer *tokenizer, sm_pages *pages, sm_error *error)
{
    const sluice_generate_prompt *given = &prompt->given;
    const uint32_t limit = answer_limit(given, generation->max_tokens, max_positions);
    const size_t shared = given->token_count / KN_PAGE;
    const size_t own = sm_slot_pages(given, generation->max_tokens, max_positions);
    *s = (sm_slot){.prompt = prompt, .candidate = prompt->started, .limit = limit, .shared = shared};
    s->tokens = malloc(limit * sizeof(*s->tokens));
    s->logprobs = malloc(limit * sizeof(*s->logprobs));
    s->pages = malloc((shared + own + 1) * sizeof(*s->pages));
    bool ok = s->tokens && s->logprobs && s->pages;
    if (ok && generation->repetition_penalty != 1) {
        s->seen = malloc((given->token_count + limit) * sizeof(*s->seen));
        ok = s->seen != NULL;
        if (ok)
            memcpy(s->seen, given->tokens, given->token_count * sizeof(*s->seen));
    }
    if (ok && tokenizer) {
        s->decoder = sm_decoder_new(tokenizer, true);
        ok = s->decoder != NULL;
    }
    if (ok) {
        memcpy(s->pages, prompt->pages, shared * sizeof(*s->pages));
        ok = sm_pages_take(pages, s->pages + shared, own);
        s->page_count = ok ? shared + own : 0;
    }
    if (!ok) {
        sm_slot_release(s, pages);
        return sm_fail(error, SM_NO_MEMORY, "out of memory for a candidate");
    }
    const sluice_draw draw = {
        .seed = generation->seed, .record = given->key, .candidate = s->candidate, .purpose = SLUICE_PURPOSE_TOKEN};
    sluice_draw_place(&draw, s->key, s->counter);
    prompt->started++;
    return SM_OK;
}

/* Cuts the text before the earliest stop string that ends beyond `from`, the text's length before it last grew. */
static bool cut_at_stop(sm_slot *s, const sluice_generation *generation, size_t from)
{
    size_t cut = s->text.length;
    bool found = false;
    for (size_t i = 0; i < generation->stop_count; i++) {
        const size_t length = strlen(generation->stop[i]);
        const size_t begin = from >= length ? from - length + 1 : 0; /* it may begin in what was there before */
        if (length == 0 || s->text.length < begin + length)
            continue;
        const char *hit = memmem(s->text.bytes + begin, s->text.length - begin, generation->stop[i], length);
        if (hit && (!found || (size_t)(hit - s->text.bytes) < cut)) {
            cut = (size_t)(hit - s->text.bytes);
            found = true;
        }
    }
    if (found) {
        s->text.length = cut;
        s->text.bytes[cut] = '\0';
    }
    return found;
}

static bool is_stop(uint32_t token, const uint32_t *stop_ids, size_t stop_count)
{
    for (size_t i = 0; i < stop_count; i++)
        if (stop_ids[i] == token)
            return true;
    return false;
}

int sm_slot_append(sm_slot *s, const kn_chosen *chosen, const sluice_generation *generation, const uint32_t *stop_ids,
                   size_t stop_count, int32_t *finish, sm_error *error)
{
    *finish = SLUICE_FINISH_NONE;
    s->tokens[s->count] = chosen->token;
    s->logprobs[s->count] = chosen->logprob;
    if (s->seen)
        s->seen[s->prompt->given.token_count + s->count] = chosen->token;
    s->count++;
    if (is_stop(chosen->token, stop_ids, stop_count)) {
        *finish = SLUICE_FINISH_STOP;
        return SM_OK;
    }
    if (s->decoder) {
        const size_t before = s->text.length;
        const int rc = sm_decoder_feed(s->decoder, chosen->token, &s->text, error);
        if (rc != SM_OK)
            return rc;
        if (cut_at_stop(s, generation, before)) {
            *finish = SLUICE_FINISH_STOP;
            sm_decoder_free(s->decoder); /* nothing after the stop string belongs to the text */
            s->decoder = NULL;
            return SM_OK;
        }
    }
    if (s->count == s->limit)
        *finish = SLUICE_FINISH_LENGTH;
    return SM_OK;
}

int sm_slot_report(sm_slot *s, const sluice_generation *generation, int32_t finish, int *result, sm_error *error)
{
    if (s->decoder) {
        const size_t before = s->text.length;
        const int rc = sm_decoder_finish(s->decoder, &s->text, error);
        if (rc != SM_OK)
            return rc;
        if (cut_at_stop(s, generation, before))
            finish = SLUICE_FINISH_STOP;
    }
    const sluice_generated generated = {.user = s->prompt->given.user,
                                        .candidate = s->candidate,
                                        .tokens = s->tokens,
                                        .logprobs = s->logprobs,
                                        .token_count = s->count,
                                        .finish = finish,
                                        .text = s->text.bytes ? s->text.bytes : ""};
    *result = generation->done(generation->context, &generated);
    return *result < 0 ? SM_CALLER : SM_OK;
}

void sm_slot_release(sm_slot *s, sm_pages *pages)
{
    if (!s->prompt)
        return;
    if (s->page_count > 0)
        sm_pages_give(pages, s->pages + s->shared, s->page_count - s->shared);
    free(s->tokens);
    free(s->logprobs);
    free(s->seen);
    free(s->pages);
    if (s->decoder)
        sm_decoder_free(s->decoder);
    sm_text_free(&s->text);
    *s = (sm_slot){0};
}
