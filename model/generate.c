/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/generate.h"

#include <stdlib.h>

#include "model/generator.h"

/* --- admission ------------------------------------------------------------------------------------------------------
 */

static int check_prompt(const sm_generator *g, const sluice_generate_prompt *p)
{
    const sm_config *c = &g->n->layout->config;
    if (p->token_count == 0)
        return sm_fail(g->error, SM_BAD_ARGUMENT, "a prompt without tokens cannot be continued; give it some text");
    if (p->token_count >= c->max_positions)
        return sm_fail(g->error, SM_BAD_ARGUMENT,
                       "a prompt of %zu tokens leaves no room for an answer in the model's context of %u; shorten it",
                       p->token_count, (unsigned)c->max_positions);
    for (size_t i = 0; i < p->token_count; i++)
        if (p->tokens[i] >= c->vocab)
            return sm_fail(g->error, SM_BAD_ARGUMENT, "token id %u is not of this model's vocabulary of %u",
                           (unsigned)p->tokens[i], (unsigned)c->vocab);
    return SM_OK;
}

/* Asks the caller for the next prompt and makes it current. */
static int next_prompt(sm_generator *g)
{
    sluice_generate_prompt given = {0};
    g->current = NULL;
    *g->result = g->given->prompt(g->given->context, &given);
    if (*g->result < 0)
        return SM_CALLER;
    if (*g->result == SLUICE_END) {
        g->no_more = true;
        return SM_OK;
    }
    const int rc = check_prompt(g, &given);
    if (rc != SM_OK)
        return rc;
    sm_prompt *p = calloc(1, sizeof(*p));
    uint32_t *pages = malloc(sm_pages_of(given.token_count) * sizeof(*pages));
    if (!p || !pages) {
        free(p);
        free(pages);
        return sm_generator_no_memory(g);
    }
    p->given = given;
    p->pages = pages;
    *g->last = p;
    g->last = &p->next;
    g->current = p;
    return SM_OK;
}

/* Gives the current prompt its pages and its place, unless it has them. */
static void settle_prompt(sm_generator *g, sm_prompt *p)
{
    if (p->page_count > 0)
        return;
    p->page_count = sm_pages_of(p->given.token_count);
    sm_pages_take(&g->pages, p->pages, p->page_count);
    p->place = g->free_place[--g->free_places];
}

/* Starts candidates while there are free slots, pages and prompts. */
static int admit(sm_generator *g)
{
    const sm_config *c = &g->n->layout->config;
    for (size_t i = 0; i < g->slots; i++) {
        if (g->slot[i].prompt)
            continue;
        int rc = SM_OK;
        if (!g->current || g->current->started == g->given->candidates) {
            if (!g->no_more)
                rc = next_prompt(g);
            if (rc != SM_OK || g->no_more)
                return rc;
        }
        sm_prompt *p = g->current;
        const size_t own = sm_slot_pages(&p->given, g->given->max_tokens, c->max_positions);
        const size_t needed = own + (p->page_count > 0 ? 0 : sm_pages_of(p->given.token_count));
        if (needed > g->pages.free_count)
            return SM_OK;
        settle_prompt(g, p);
        rc = sm_slot_start(&g->slot[i], p, g->given, c->max_positions, g->tokenizer, &g->pages, g->error);
        if (rc != SM_OK)
            return rc;
        g->live++;
    }
    return SM_OK;
}

static void retire_prompt(sm_generator *g, sm_prompt *p)
{
    sm_prompt **at = &g->prompts;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    if (g->last == &p->next)
        g->last = at;
    if (g->current == p)
        g->current = NULL;
    sm_pages_give(&g->pages, p->pages, p->page_count);
    g->free_place[g->free_places++] = p->place;
    sm_generator_prompt_free(p);
}

static int finish_slot(sm_generator *g, sm_slot *s, int32_t finish)
{
    sm_prompt *p = s->prompt;
    const int rc = sm_slot_report(s, g->given, finish, g->result, g->error);
    sm_slot_release(s, &g->pages);
    g->live--;
    if (++p->finished == g->given->candidates)
        retire_prompt(g, p);
    return rc;
}

/* --- a pass ---------------------------------------------------------------------------------------------------------
 */

static bool is_ready(const sm_prompt *p)
{
    return p->filled == p->given.token_count;
}

/* Rows of this pass: what is missing of new prompts, and the last token of each running candidate. */
static void collect(sm_generator *g)
{
    g->rows = g->sequences = g->running = 0;
    g->next_turn = g->turn;
    for (sm_prompt *p = g->prompts; p && g->rows < g->prefill; p = p->next) {
        const size_t missing = p->given.token_count - p->filled, room = g->prefill - g->rows;
        const size_t count = missing < room ? missing : room;
        if (count == 0 || p->page_count == 0)
            continue;
        g->cached[g->sequences++] = (kn_cached_rows){g->rows, count, p->filled, p->pages};
        for (size_t i = 0; i < count; i++)
            g->token[g->rows++] = p->given.tokens[p->filled + i];
    }
    for (size_t k = 0; k < g->slots && g->running < g->width; k++) {
        const size_t i = (g->turn + k) % g->slots;
        sm_slot *s = &g->slot[i];
        if (!s->prompt || s->count == 0)
            continue;
        const size_t position = s->prompt->given.token_count + s->count - 1;
        g->cached[g->sequences++] = (kn_cached_rows){g->rows, 1, position, s->pages};
        g->choosing[g->running] = s;
        g->gather[g->running++] = (uint32_t)g->rows;
        g->token[g->rows++] = s->tokens[s->count - 1];
        g->next_turn = g->width < g->slots ? (i + 1) % g->slots : 0;
    }
}

/* Keeps the last hidden state of each prompt that became ready. Prompts stand first among the pass's sequences. */
static int keep_prompts(sm_generator *g)
{
    const size_t d = g->n->layout->config.hidden;
    size_t sequence = 0;
    for (sm_prompt *p = g->prompts; p && sequence < g->sequences; p = p->next) {
        const kn_cached_rows *rows = &g->cached[sequence];
        if (rows->pages != p->pages)
            continue;
        ++sequence;
        const bool ready = p->filled + rows->count == p->given.token_count;
        const uint32_t row = (uint32_t)(rows->row + rows->count - 1);
        const int kn =
            ready ? g->n->ops->embed(g->n->device, g->prompt_hidden + p->place * g->row_bytes, g->w->x, &row, 1, d)
                  : KN_OK;
        if (kn != KN_OK)
            return kn;
        p->filled += rows->count;
    }
    return KN_OK;
}

/* Copies the prompt's unfinished page into a new candidate's first own one. */
static int copy_page(const sm_generator *g, const sm_slot *s)
{
    const size_t left = s->prompt->given.token_count % KN_PAGE;
    if (left == 0)
        return KN_OK;
    return g->n->ops->cache_copy_page(g->n->device, g->cache, s->pages[s->shared], s->prompt->pages[s->shared], left);
}

/* hidden[k] = the state that choosing[k]'s next token is read from. */
static int gather_hidden(sm_generator *g, size_t *count)
{
    const kn_ops *ops = g->n->ops;
    const size_t d = g->n->layout->config.hidden, running = g->running;
    size_t n = running;
    int kn = running > 0 ? ops->embed(g->n->device, g->hidden, g->w->x, g->gather, running, d) : KN_OK;
    for (size_t i = 0; kn == KN_OK && i < g->slots; i++) {
        sm_slot *s = &g->slot[i];
        if (s->prompt && s->count == 0 && is_ready(s->prompt)) {
            g->choosing[n] = s;
            g->gather[n++] = (uint32_t)s->prompt->place;
            kn = copy_page(g, s);
        }
    }
    if (kn == KN_OK && n > running)
        kn = ops->embed(g->n->device, g->hidden + running * g->row_bytes, g->prompt_hidden, g->gather + running,
                        n - running, d);
    *count = n;
    return kn;
}

static int compute(sm_generator *g, size_t *count)
{
    const sm_attending attending = {.cache = g->cache, .cached = g->cached, .sequences = g->sequences};
    if (g->rows > 0) {
        const int rc = sm_forward(g->n, g->w, g->token, g->rows, &attending, NULL, g->error);
        if (rc != SM_OK)
            return rc;
    }
    int kn = keep_prompts(g);
    if (kn == KN_OK)
        kn = gather_hidden(g, count);
    return kn == KN_OK ? SM_OK : sm_device_fail(g->n->device, kn, "sampling", g->error);
}

/* --- choosing -------------------------------------------------------------------------------------------------------
 */

static kn_choice choice_of(const sm_generator *g, const sm_slot *s)
{
    const sluice_generation *given = g->given;
    kn_choice choice = {.temperature = (float)given->temperature,
                        .top_p = (float)given->top_p,
                        .min_p = (float)given->min_p,
                        .top_k = given->top_k,
                        .repetition_penalty = (float)given->repetition_penalty,
                        .key = {s->key[0], s->key[1]},
                        .counter = {(uint64_t)s->count << 32, s->counter[1]}};
    if (s->seen) {
        choice.seen = s->seen;
        choice.seen_count = s->prompt->given.token_count + s->count;
    }
    return choice;
}

static int call_hooks(sm_generator *g, size_t from, size_t count)
{
    const size_t V = g->n->layout->config.vocab, bytes = count * V * sizeof(float);
    float *const seen = g->host_logits ? g->host_logits : g->logits;
    int rc = seen != g->logits ? sm_device_read(g->n->device, seen, g->logits, bytes, g->error) : SM_OK;
    for (size_t k = 0; rc == SM_OK && k < count; k++) {
        const sm_slot *s = g->choosing[from + k];
        float *logits = seen + k * V;
        *g->result =
            g->given->hook(g->given->context, s->prompt->given.user, s->candidate, s->tokens, s->count, logits);
        if (*g->result < 0)
            return SM_CALLER;
        g->ended[from + k] = *g->result == SLUICE_END;
        if (g->ended[from + k]) /* its token will not be used */
            logits[0] = 0;
    }
    return rc == SM_OK && seen != g->logits ? sm_device_write(g->n->device, g->logits, seen, bytes, g->error) : rc;
}

/* The recorded log-probabilities are the model's own, whatever a hook made of the logits. */
static int record_logprobs(sm_generator *g, size_t from, size_t count)
{
    kn_device *dev = g->n->device;
    float own[SM_LOGIT_ROWS];
    for (size_t k = 0; k < count; k++)
        g->gather[k] = g->chosen[from + k].token;
    int kn = g->n->ops->logprob(dev, g->logprob, NULL, NULL, g->normed + from * g->row_bytes, g->n->head, g->gather,
                                count, NULL);
    if (kn == KN_OK)
        kn = g->n->ops->read(dev, own, g->logprob, count * sizeof(*own));
    for (size_t k = 0; kn == KN_OK && k < count; k++)
        g->chosen[from + k].logprob = own[k];
    return kn;
}

/* Tokens for choosing[from … from + count). */
static int choose_rows(sm_generator *g, size_t from, size_t count)
{
    const kn_ops *ops = g->n->ops;
    const sm_config *c = &g->n->layout->config;
    kn_device *dev = g->n->device;
    int kn = ops->logits(dev, g->logits, g->normed + from * g->row_bytes, g->n->head, count);
    if (kn != KN_OK)
        return sm_device_fail(g->n->device, kn, "sampling", g->error);
    if (g->given->hook) {
        const int rc = call_hooks(g, from, count);
        if (rc != SM_OK)
            return rc;
    }
    for (size_t k = 0; k < count; k++)
        g->choice[from + k] = choice_of(g, g->choosing[from + k]);
    kn = ops->choose(dev, g->chosen + from, g->logits, g->choice + from, count, c->vocab);
    if (kn == KN_BAD_ARGUMENT)
        return sm_fail(g->error, SM_BAD_ARGUMENT, "no token can be chosen: the logits are not finite or all ruled out");
    if (kn == KN_OK && g->given->hook)
        kn = record_logprobs(g, from, count);
    return kn == KN_OK ? SM_OK : sm_device_fail(g->n->device, kn, "sampling", g->error);
}

/* The next token of each row of hidden. */
static int choose(sm_generator *g, size_t count)
{
    const sm_config *c = &g->n->layout->config;
    const int kn =
        g->n->ops->rms_norm(g->n->device, g->normed, NULL, g->hidden, g->n->norm, count, c->hidden, c->rms_eps);
    if (kn != KN_OK)
        return sm_device_fail(g->n->device, kn, "sampling", g->error);
    int rc = SM_OK;
    for (size_t k = 0; k < count; k++)
        g->ended[k] = false;
    for (size_t from = 0; rc == SM_OK && from < count; from += g->logit_rows)
        rc = choose_rows(g, from, count - from < g->logit_rows ? count - from : g->logit_rows);
    return rc;
}

/* The tokens are the candidates' own from here on. */
static int keep_tokens(sm_generator *g, size_t count)
{
    int rc = SM_OK;
    for (size_t k = 0; rc == SM_OK && k < count; k++) {
        sm_slot *s = g->choosing[k];
        int32_t finish = SLUICE_FINISH_STOP;
        if (!g->ended[k])
            rc = sm_slot_append(s, &g->chosen[k], g->given, g->stop_ids, g->stop_count, &finish, g->error);
        if (rc == SM_OK && finish != SLUICE_FINISH_NONE)
            rc = finish_slot(g, s, finish);
    }
    return rc;
}

/* One pass on the device. A pass of running candidates alone is a step that the device may know from before; one with
 * a hook waits for its caller, which a step may not. */
static int pass(sm_generator *g, size_t *count)
{
    const kn_ops *ops = g->n->ops;
    const bool step = ops->step_begin && !g->given->hook && g->rows == g->running && g->rows > 0;
    int kn = step ? ops->step_begin(g->n->device) : KN_OK;
    if (kn != KN_OK)
        return sm_device_fail(g->n->device, kn, "sampling", g->error);
    int rc = compute(g, count);
    if (rc == SM_OK && *count > 0)
        rc = choose(g, *count);
    if (step)
        kn = ops->step_end(g->n->device);
    return rc == SM_OK && kn != KN_OK ? sm_device_fail(g->n->device, kn, "sampling", g->error) : rc;
}

/* --- the whole ------------------------------------------------------------------------------------------------------
 */

static int check_generation(const sluice_generation *given, const sm_tokenizer *tokenizer, sm_error *error)
{
    if (given->candidates == 0 || given->max_tokens == 0)
        return sm_fail(error, SM_BAD_ARGUMENT, "at least one candidate of one token must be asked for");
    if (!(given->temperature >= 0) || !(given->top_p > 0 && given->top_p <= 1) ||
        !(given->min_p >= 0 && given->min_p < 1) || !(given->repetition_penalty > 0))
        return sm_fail(error, SM_BAD_ARGUMENT,
                       "temperature must be at least 0, top_p in (0, 1], min_p in [0, 1), repetition_penalty above 0");
    if (given->stop_count > 0 && !tokenizer)
        return sm_fail(error, SM_BAD_ARGUMENT, "stop strings need a tokenizer, and this model has none");
    return SM_OK;
}

int sm_generate(const sm_network *network, sm_workspace *workspace, const sm_tokenizer *tokenizer,
                const uint32_t *stop_ids, size_t stop_count, const sluice_generation *generation, sm_narrowed *narrowed,
                int *result, sm_error *error)
{
    int rc = check_generation(generation, tokenizer, error);
    if (narrowed)
        *narrowed = (sm_narrowed){0};
    if (rc != SM_OK)
        return rc;
    sm_generator g = {.n = network,
                      .w = workspace,
                      .tokenizer = tokenizer,
                      .stop_ids = stop_ids,
                      .stop_count = stop_count,
                      .given = generation,
                      .result = result,
                      .error = error};
    rc = sm_generator_new(&g);
    while (rc == SM_OK) {
        rc = admit(&g);
        if (rc != SM_OK || g.live == 0)
            break;
        size_t count = 0;
        collect(&g);
        rc = pass(&g, &count);
        /* A pass that found no memory has kept nothing but keys and values that the next one writes again. A hook has
         * seen its logits, and is not asked twice. */
        if (rc == SM_NO_MEMORY && !generation->hook && sm_generator_narrow(&g)) {
            rc = SM_OK;
            continue;
        }
        if (rc == SM_OK)
            rc = keep_tokens(&g, count);
        g.turn = g.next_turn;
    }
    if (narrowed)
        *narrowed = g.narrowed;
    sm_generator_free(&g);
    return rc;
}
