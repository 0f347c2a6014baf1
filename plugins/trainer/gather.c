/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/random.h>
#include "plugins/trainer/gather.h"

#define RECORDS_A_CALL 64 /* read ahead, so that the reference scores many answers at once */

/* An example in the making. */
struct draft {
    sluice_record *record;
    uint32_t answers[2], answer_count;
    double p, weight, margin;
    bool cut; /* the prompt was shortened: recorded log-probabilities are no longer its own */
};

struct drafts {
    struct draft *items;
    size_t count, room;
};

static int add_draft(const gather *g, struct drafts *drafts, const struct draft *draft)
{
    if (drafts->count == drafts->room) {
        size_t room = drafts->room ? 2 * drafts->room : 128;
        struct draft *grown = realloc(drafts->items, room * sizeof *grown);
        if (!grown)
            return sluice_error(g->host, SLUICE_NO_MEMORY, "out of memory for %zu examples", room);
        drafts->items = grown;
        drafts->room = room;
    }
    drafts->items[drafts->count++] = *draft;
    return SLUICE_OK;
}

static bool on_pairs(const gather *g)
{
    return g->loss->pairs != NULL;
}

/* Room in the context for prompt and the longest answer? May shorten the prompt; SLUICE_DROP leaves the example out. */
static int fit(gather *g, struct draft *draft, size_t longest)
{
    size_t count = 0, context = g->policy->info.context;
    const uint32_t *tokens = sluice_record_prompt_tokens(draft->record, &count);
    if (g->reference && g->reference->info.context < context)
        context = g->reference->info.context;
    if (count + longest <= context)
        return SLUICE_OK;
    if (g->too_long == TOO_LONG_ERROR)
        return sluice_record_error(
            g->host, draft->record, SLUICE_BAD_RECORD,
            "prompt and answer have %zu tokens, more than the model's context of %zu; set too_long = \"skip\" or "
            "\"left\" (cut the prompt)",
            count + longest, context);
    if (g->too_long == TOO_LONG_SKIP || longest >= context) {
        g->too_long_count++;
        return SLUICE_DROP;
    }
    size_t room = context - longest;
    uint32_t *kept = malloc(room * sizeof *kept);
    if (!kept)
        return sluice_error(g->host, SLUICE_NO_MEMORY, "out of memory for a prompt of %zu tokens", count);
    memcpy(kept, tokens + (count - room), room * sizeof *kept);
    if (g->policy->info.start_id >= 0 && tokens[0] == (uint32_t)g->policy->info.start_id)
        kept[0] = tokens[0];
    int rc = sluice_record_set_prompt_tokens(draft->record, kept, room, g->raw ? 0 : g->policy->info.template_hash);
    free(kept);
    draft->cut = true;
    g->cut++;
    return rc;
}

/* Is the example worth training on? Counts why not (SLUICE_DROP). */
static int accept(gather *g, struct draft *draft)
{
    sluice_candidate answers[2];
    size_t longest = 0;
    for (uint32_t a = 0; a < draft->answer_count; a++) {
        int rc = sluice_record_candidate(draft->record, draft->answers[a], &answers[a]);
        if (rc < 0)
            return sluice_record_error(g->host, draft->record, rc, "there is no candidate %u", draft->answers[a]);
        if (answers[a].token_count == 0) {
            g->empty++;
            return SLUICE_DROP;
        }
        if (answers[a].finish == SLUICE_FINISH_LENGTH && g->truncated == TRUNCATED_DROP) {
            g->truncated_count++;
            return SLUICE_DROP;
        }
        if (answers[a].token_count > longest)
            longest = answers[a].token_count;
    }
    if (draft->answer_count == 2 && answers[0].token_count == answers[1].token_count &&
        memcmp(answers[0].tokens, answers[1].tokens, answers[0].token_count * sizeof(uint32_t)) == 0) {
        g->identical++;
        return SLUICE_DROP;
    }
    if (draft->weight == 0) {
        g->weightless++;
        return SLUICE_DROP;
    }
    return fit(g, draft, longest);
}

static int consider(gather *g, struct drafts *drafts, struct draft *draft)
{
    int rc = accept(g, draft);
    return rc == SLUICE_DROP ? SLUICE_OK : rc < 0 ? rc : add_draft(g, drafts, draft);
}

static int draft_pairs(gather *g, struct drafts *drafts, sluice_record *record)
{
    int rc = SLUICE_OK;
    for (size_t i = 0; rc >= 0 && i < sluice_record_pairs(record); i++) {
        sluice_pair pair;
        if ((rc = sluice_record_pair(record, i, &pair)) < 0)
            break;
        struct draft draft = {record, {pair.chosen, pair.rejected}, 2, pair.p, pair.weight, pair.margin, false};
        rc = consider(g, drafts, &draft);
    }
    return rc;
}

static bool drafted(const struct drafts *drafts, const sluice_record *record, uint32_t answer)
{
    for (size_t i = drafts->count; i > 0 && drafts->items[i - 1].record == record; i--)
        if (drafts->items[i - 1].answers[0] == answer)
            return true;
    return false;
}

static int draft_sequences(gather *g, struct drafts *drafts, sluice_record *record)
{
    size_t pairs = sluice_record_pairs(record), count = pairs ? pairs : sluice_record_candidates(record);
    int rc = SLUICE_OK;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        sluice_pair pair = {.chosen = (uint32_t)i, .p = 1, .weight = 1, .margin = NAN};
        if (pairs && (rc = sluice_record_pair(record, i, &pair)) < 0)
            break;
        struct draft draft = {record, {pair.chosen, 0}, 1, pair.p, pair.weight, pair.margin, false};
        if (!drafted(drafts, record, pair.chosen))
            rc = consider(g, drafts, &draft);
    }
    return rc;
}

/* Asks the reference for what the records do not hold, each answer once. */
static int score_reference(gather *g, const struct drafts *drafts)
{
    size_t count = 0, tokens;
    answers_item *items = malloc((2 * drafts->count + 1) * sizeof *items);
    if (!items)
        return sluice_error(g->host, SLUICE_NO_MEMORY, "out of memory for %zu examples", drafts->count);
    for (size_t i = 0; i < drafts->count; i++)
        for (uint32_t a = 0; a < drafts->items[i].answer_count; a++) {
            const struct draft *d = &drafts->items[i];
            bool asked = false;
            for (size_t k = count; k > 0 && items[k - 1].record == d->record; k--)
                asked |= items[k - 1].candidate == d->answers[a];
            if (asked)
                continue;
            if (!d->cut && sluice_record_logps(d->record, d->answers[a], g->reference->version, &tokens))
                g->found++;
            else
                items[count++] = (answers_item){d->record, d->answers[a]};
        }
    g->computed += count;
    int rc = answers_score(g->reference, items, count);
    free(items);
    return rc;
}

static double sampler_sum(const sluice_candidate *candidate)
{
    double sum = 0;
    for (uint32_t t = 0; candidate->logprobs && t < candidate->token_count; t++)
        sum += candidate->logprobs[t];
    return sum;
}

static int missing_sampler(const gather *g, const sluice_record *record)
{
    return sluice_record_error(
        g->host, record, SLUICE_BAD_RECORD,
        "loss '%s' needs the log-probabilities recorded while sampling, and these answers have none; train on "
        "answers of a sampler",
        g->loss->base.id);
}

static int pack_pair(gather *g, examples *out, const struct draft *d, example *x)
{
    for (uint32_t a = 0; a < 2; a++) {
        sluice_candidate candidate;
        int rc = sluice_record_candidate(d->record, d->answers[a], &candidate);
        if (rc < 0)
            return rc;
        x->answer[a] = candidate.tokens;
        x->count[a] = candidate.token_count;
        if (g->reference && !answers_sum(d->record, d->answers[a], g->reference->version, &x->reference[a]))
            return sluice_record_error(g->host, d->record, SLUICE_FAILED, "the reference gave no log-probabilities");
        if ((g->loss->needs & SLUICE_SAMPLER_LOGPS) && !candidate.logprobs)
            return missing_sampler(g, d->record);
        x->sampler[a] = sampler_sum(&candidate);
    }
    return examples_add(out, x);
}

/* How much each token of a sequence counts: the prompt's `prompt_weight`, the answer's 1, and
 * 0 where the answer is not the assistant's own. */
static int fill_mask(const gather *g, const struct draft *d, size_t prompt, size_t count, float *mask)
{
    const sluice_segment *segments;
    size_t segment_count;
    int rc = sluice_record_segments(d->record, d->answers[0], &segments, &segment_count);
    for (size_t t = 0; t < prompt; t++)
        mask[t] = (float)g->prompt_weight;
    for (size_t t = 0; t < count; t++)
        mask[prompt + t] = 1;
    for (size_t s = 0; rc == SLUICE_OK && s < segment_count; s++)
        for (uint32_t t = segments[s].begin; t < segments[s].end && t < count && !segments[s].trained; t++)
            mask[prompt + t] = 0;
    return rc < 0 ? rc : SLUICE_OK;
}

static int pack_sequence(gather *g, examples *out, const struct draft *d, example *x)
{
    sluice_candidate candidate;
    size_t count = 0;
    int rc = sluice_record_candidate(d->record, d->answers[0], &candidate);
    if (rc < 0)
        return rc;
    /* Where the prompt counts, it is trained like the answer: one sequence without a prompt. */
    size_t own = g->prompt_weight > 0 ? x->prompt_count : 0, whole = own + candidate.token_count;
    uint32_t *tokens = malloc(whole * sizeof *tokens);
    float *mask = malloc(whole * sizeof *mask);
    if (!tokens || !mask) {
        rc = sluice_error(g->host, SLUICE_NO_MEMORY, "out of memory for a sequence of %zu tokens", whole);
        goto done;
    }
    if (own > 0)
        memcpy(tokens, x->prompt, own * sizeof *tokens);
    memcpy(tokens + own, candidate.tokens, candidate.token_count * sizeof *tokens);
    if ((rc = fill_mask(g, d, own, candidate.token_count, mask)) < 0)
        goto done;
    x->prompt_count -= (uint32_t)own;
    if (x->prompt_count == 0)
        mask[0] = 0; /* predicted by nothing */
    x->answer[0] = tokens;
    x->count[0] = (uint32_t)whole;
    x->mask = mask;
    if (g->reference) {
        x->token_reference = sluice_record_logps(d->record, d->answers[0], g->reference->version, &count);
        x->has_reference = count == whole;
    }
    if (g->loss->needs & SLUICE_SAMPLER_LOGPS) {
        x->token_sampler = candidate.logprobs;
        x->has_sampler = candidate.logprobs != NULL;
        if (!x->has_sampler)
            rc = missing_sampler(g, d->record);
    }
    if (rc >= 0)
        rc = examples_add(out, x);
done:
    free(tokens);
    free(mask);
    return rc;
}

static int pack(gather *g, examples *out, const struct draft *d)
{
    const char *id = sluice_record_id(d->record);
    example x = {.key = sluice_random_name(id, strlen(id)),
                 .id = id,
                 .id_size = (uint32_t)strlen(id) + 1,
                 .p = d->p,
                 .weight = d->weight,
                 .margin = isnan(d->margin) ? 0 : d->margin,
                 .answer_count = d->answer_count};
    size_t count = 0;
    x.prompt = sluice_record_prompt_tokens(d->record, &count);
    x.prompt_count = (uint32_t)count;
    return d->answer_count == 2 ? pack_pair(g, out, d, &x) : pack_sequence(g, out, d, &x);
}

static int gather_records(gather *g, examples *out, sluice_record *const *records, size_t count)
{
    struct drafts drafts = {0};
    int rc = SLUICE_OK;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        size_t before = drafts.count;
        bool useful = on_pairs(g) ? sluice_record_pairs(records[i]) > 0 : sluice_record_candidates(records[i]) > 0;
        if (useful && (rc = answers_encode(g->policy, records[i], g->raw)) >= 0)
            rc = on_pairs(g) ? draft_pairs(g, &drafts, records[i]) : draft_sequences(g, &drafts, records[i]);
        g->bare += drafts.count == before;
        bool cut = false;
        for (size_t k = before; k < drafts.count; k++)
            cut |= drafts.items[k].cut;
        for (size_t k = before; k < drafts.count; k++) /* they share the prompt */
            drafts.items[k].cut = cut;
    }
    if (rc >= 0 && g->reference && drafts.count > 0)
        rc = score_reference(g, &drafts);
    for (size_t i = 0; rc >= 0 && i < drafts.count; i++)
        rc = pack(g, out, &drafts.items[i]);
    free(drafts.items);
    return rc;
}

int gather_examples(gather *g, examples *out)
{
    sluice_record *records[RECORDS_A_CALL];
    int rc = examples_open(g->host, out);
    for (bool more = true; rc >= 0 && more;) {
        size_t count = 0;
        while (count < RECORDS_A_CALL && (rc = sluice_next(g->host, &records[count])) == SLUICE_OK)
            count++;
        more = rc == SLUICE_OK;
        if (rc >= 0)
            rc = gather_records(g, out, records, count);
        for (size_t i = 0; i < count; i++)
            sluice_release(g->host, records[i]);
        g->records += count;
        if (rc >= 0 && sluice_cancelled(g->host))
            rc = SLUICE_CANCELLED;
    }
    return rc < 0 ? rc : examples_seal(out);
}
