/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/random.h>
#include "plugins/common/answers.h"

#define TOKENS_A_CALL 16384 /* tokens given to the model at once: bounds memory, changes no result */

int answers_open(const sluice_host *host, const sluice_model_ref *ref, answers_model *m)
{
    m->host = host;
    m->info.size = sizeof m->info;
    m->service = sluice_service(host, SLUICE_MODEL_SERVICE);
    if (!m->service)
        return sluice_error(
            host, SLUICE_BAD_PLUGIN,
            "no plugin provides %s; is model.so in the plugin path? (sluice plugins shows what was found)",
            SLUICE_MODEL_SERVICE);
    snprintf(m->version, sizeof m->version, "%s@%lld", ref->slot, (long long)ref->version);
    int rc = m->service->open(m->service, host, ref, &m->model);
    return rc < 0 ? rc : m->service->info(m->model, &m->info);
}

void answers_close(answers_model *m)
{
    if (m->model)
        m->service->close(m->model);
    m->model = NULL;
}

int answers_same_tokens(const answers_model *a, const answers_model *b, bool *same)
{
    static const char text[] = "User: 12 + 30 = ? Answer the question, it\xE2\x80\x99s \"easy\".\n\tfor(i=0;) \xC3\xA9";
    const uint32_t whole = SLUICE_ENCODE_START | SLUICE_ENCODE_STOP;
    sluice_ids x = {0}, y = {0};
    int rc = SLUICE_OK;
    *same = true;
    if (a->info.has_tokenizer && b->info.has_tokenizer &&
        (rc = a->service->encode(a->model, text, strlen(text), whole, &x)) >= 0 &&
        (rc = b->service->encode(b->model, text, strlen(text), whole, &y)) >= 0)
        *same = x.count == y.count && memcmp(x.items, y.items, x.count * sizeof *x.items) == 0;
    free(x.items);
    free(y.items);
    return rc;
}

int answers_check_reference(const answers_model *m, const answers_model *reference)
{
    bool same = true;
    if (m->info.vocabulary != reference->info.vocabulary)
        return sluice_error(m->host, SLUICE_BAD_MODEL,
                            "%s has %u tokens in its vocabulary and the reference %s %u; they must share one",
                            m->version, m->info.vocabulary, reference->version, reference->info.vocabulary);
    const int rc = answers_same_tokens(m, reference, &same);
    if (rc < 0 || same)
        return rc;
    return sluice_error(
        m->host, SLUICE_BAD_MODEL,
        "%s and the reference %s have different tokenizers; a reference scores the model's own tokens, so "
        "name one that reads them alike",
        m->version, reference->version);
}

static int encode_prompt(const answers_model *m, sluice_record *record, bool raw)
{
    sluice_ids ids = {0};
    size_t count;
    if (sluice_record_prompt_tokens(record, &count))
        return SLUICE_OK;
    int rc = m->service->encode_prompt(m->model, record, raw, &ids);
    if (rc >= 0)
        rc = sluice_record_set_prompt_tokens(record, ids.items, ids.count, raw ? 0 : m->info.template_hash);
    free(ids.items);
    return rc;
}

static int encode_candidate(const answers_model *m, sluice_record *record, size_t index)
{
    sluice_candidate candidate;
    sluice_ids ids = {0};
    int rc = sluice_record_candidate(record, index, &candidate);
    if (rc < 0 || candidate.tokens || candidate.token_count > 0)
        return rc;
    if (!candidate.text)
        return sluice_record_error(m->host, record, SLUICE_BAD_RECORD, "candidate %zu has neither tokens nor text",
                                   index);
    rc = m->service->encode(m->model, candidate.text, strlen(candidate.text),
                            SLUICE_ENCODE_CONTINUE | SLUICE_ENCODE_STOP, &ids);
    if (rc >= 0) {
        candidate.tokens = ids.items;
        candidate.token_count = (uint32_t)ids.count;
        candidate.finish = SLUICE_FINISH_STOP;
        rc = sluice_record_set_candidate(record, index, &candidate);
    }
    free(ids.items);
    return rc;
}

int answers_encode(const answers_model *m, sluice_record *record, bool raw)
{
    int rc = encode_prompt(m, record, raw);
    for (size_t i = 0; rc >= 0 && i < sluice_record_candidates(record); i++)
        rc = encode_candidate(m, record, i);
    return rc;
}

/* Up to a call's worth of answers as groups, one a record. Spans and groups borrow the records' tokens. */
struct call {
    size_t outputs; /* of a reward model's head, a number each; 0 = a number a token */
    sluice_group *groups;
    sluice_span *spans;
    float **results;
    size_t group_count, answer_count, tokens;
};

static void call_free(struct call *c)
{
    for (size_t i = 0; c->results && i < c->answer_count; i++)
        free(c->results[i]);
    free(c->groups);
    free(c->spans);
    free(c->results);
}

/* Takes answers from the front of items, until the call is full. */
static int call_fill(const answers_model *m, struct call *c, const answers_item *items, size_t count)
{
    const sluice_record *record = NULL;
    c->groups = calloc(count, sizeof *c->groups);
    c->spans = calloc(count, sizeof *c->spans);
    c->results = calloc(count, sizeof *c->results);
    if (!c->groups || !c->spans || !c->results)
        return sluice_error(m->host, SLUICE_NO_MEMORY, "out of memory for %zu answers", count);
    for (size_t i = 0; i < count && (i == 0 || c->tokens < TOKENS_A_CALL); i++) {
        sluice_candidate candidate;
        int rc = sluice_record_candidate(items[i].record, items[i].candidate, &candidate);
        if (rc < 0)
            return sluice_record_error(m->host, items[i].record, rc, "there is no candidate %u", items[i].candidate);
        if (items[i].record != record) {
            sluice_group *group = &c->groups[c->group_count++];
            const char *id = sluice_record_id(record = items[i].record);
            group->prompt.tokens = sluice_record_prompt_tokens(record, &group->prompt.count);
            group->completions = &c->spans[i];
            group->key = sluice_random_name(id, strlen(id));
            c->tokens += group->prompt.count;
        }
        c->groups[c->group_count - 1].completion_count++;
        c->spans[i] = (sluice_span){candidate.tokens, candidate.token_count};
        c->results[i] = malloc((c->outputs ? c->outputs : candidate.token_count + 1) * sizeof(float));
        if (!c->results[i])
            return sluice_error(m->host, SLUICE_NO_MEMORY, "out of memory for an answer of %u tokens",
                                candidate.token_count);
        c->answer_count++;
        c->tokens += candidate.token_count;
    }
    return SLUICE_OK;
}

int answers_score(const answers_model *m, const answers_item *items, size_t count)
{
    int rc = SLUICE_OK;
    for (size_t done = 0; rc >= 0 && done < count;) {
        struct call c = {0};
        rc = call_fill(m, &c, items + done, count - done);
        if (rc >= 0)
            rc = m->service->score(m->model, c.groups, c.group_count, c.results, NULL);
        for (size_t i = 0; rc >= 0 && i < c.answer_count; i++)
            rc = sluice_record_set_logps(items[done + i].record, items[done + i].candidate, m->version, c.results[i],
                                         c.spans[i].count);
        sluice_tokens(m->host, c.tokens);
        done += c.answer_count;
        call_free(&c);
    }
    return rc;
}

int answers_values(const answers_model *m, const answers_item *items, size_t count, float *values)
{
    const size_t outputs = m->info.head_outputs;
    int rc = SLUICE_OK;
    for (size_t done = 0; rc >= 0 && done < count;) {
        struct call c = {.outputs = outputs};
        rc = call_fill(m, &c, items + done, count - done);
        if (rc >= 0)
            rc = m->service->score_values(m->model, c.groups, c.group_count, c.results);
        for (size_t i = 0; rc >= 0 && i < c.answer_count; i++)
            memcpy(values + (done + i) * outputs, c.results[i], outputs * sizeof *values);
        sluice_tokens(m->host, c.tokens);
        done += c.answer_count;
        call_free(&c);
    }
    return rc;
}

int answers_check_lengths(const answers_model *m, const sluice_record *record, size_t context)
{
    size_t prompt = 0;
    sluice_record_prompt_tokens(record, &prompt);
    for (size_t i = 0; i < sluice_record_candidates(record); i++) {
        sluice_candidate candidate;
        int rc = sluice_record_candidate(record, i, &candidate);
        if (rc < 0)
            return rc;
        if (prompt + candidate.token_count > context)
            return sluice_record_error(
                m->host, record, SLUICE_BAD_RECORD,
                "candidate %zu has %u tokens after a prompt of %zu, more than the model's context of %zu; set "
                "too_long = \"skip\" to leave such answers without a score",
                i, candidate.token_count, prompt, context);
    }
    return SLUICE_OK;
}

bool answers_fit(const sluice_record *record, size_t candidate, size_t context)
{
    sluice_candidate c;
    size_t prompt = 0;
    sluice_record_prompt_tokens(record, &prompt);
    return sluice_record_candidate(record, candidate, &c) >= 0 && c.token_count > 0 &&
           prompt + c.token_count <= context;
}

int answers_complete(const answers_model *m, sluice_record *const *records, size_t count, size_t context,
                     uint64_t *found, uint64_t *computed)
{
    answers_item *items = NULL;
    size_t missing = 0, room = 0, tokens;
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < sluice_record_candidates(records[i]); c++) {
            if (!answers_fit(records[i], c, context))
                continue;
            if (sluice_record_logps(records[i], c, m->version, &tokens)) {
                ++*found;
                continue;
            }
            if (missing == room) {
                answers_item *grown = realloc(items, (room = 2 * room + 64) * sizeof *grown);
                if (!grown) {
                    free(items);
                    return sluice_error(m->host, SLUICE_NO_MEMORY, "out of memory for %zu answers", room);
                }
                items = grown;
            }
            items[missing++] = (answers_item){records[i], (uint32_t)c};
        }
    *computed += missing;
    int rc = answers_score(m, items, missing);
    free(items);
    return rc;
}

int answers_copy_earlier(const answers_model *const *models, size_t count, sluice_record *record, uint64_t *copied)
{
    const sluice_record *earlier = sluice_earlier(models[0]->host, record);
    const size_t candidates = sluice_record_candidates(record);
    int rc = SLUICE_OK;
    if (!earlier || sluice_record_candidates(earlier) != candidates)
        return SLUICE_OK;
    for (size_t m = 0; m < count; m++)
        for (size_t c = 0; rc >= 0 && c < candidates; c++) {
            const char *version = models[m]->version;
            size_t tokens;
            sluice_candidate candidate;
            if (sluice_record_logps(record, c, version, &tokens))
                continue;
            const float *logps = sluice_record_logps(earlier, c, version, &tokens);
            rc = sluice_record_candidate(record, c, &candidate);
            if (rc < 0 || !logps || tokens != candidate.token_count)
                continue;
            rc = sluice_record_set_logps(record, c, version, logps, tokens);
            ++*copied;
        }
    return rc;
}

bool answers_sum(const sluice_record *record, uint32_t candidate, const char *version, double *sum)
{
    size_t count;
    const float *logps = sluice_record_logps(record, candidate, version, &count);
    if (!logps)
        return false;
    *sum = 0;
    for (size_t i = 0; i < count; i++)
        *sum += logps[i];
    return true;
}
