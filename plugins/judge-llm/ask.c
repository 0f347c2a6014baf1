/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plugins/judge-llm/judge.h"

#define MOST_TEXT     ((size_t)64 << 20) /* bytes of a prompt */
#define LONGEST_TOKEN 1024               /* bytes */
#define TOKENS_A_CALL 16384              /* tokens given to the model at once: bounds memory, changes no result */

static int no_memory(const struct judge *judge, const sluice_record *record)
{
    return sluice_record_error(judge->host, record, SLUICE_NO_MEMORY, "out of memory for the judge's prompt");
}

/* --- labels --- */

static int prepare_label(struct judge *judge, size_t i)
{
    const char *label = judge->labels.items[i];
    int rc = judge->opened.service->encode(judge->opened.model, label, strlen(label), SLUICE_ENCODE_CONTINUE,
                                           &judge->label_ids[i]);
    if (rc >= 0 && judge->label_ids[i].count == 0)
        rc = sluice_error(judge->host, SLUICE_BAD_PARAMETER, "labels: '%s' has no token of the judge's; choose a word",
                          label);
    return rc;
}

int ask_prepare(struct judge *judge)
{
    if (judge->mode == MODE_SCORE) {
        judge->answer_room = (size_t)judge->max_tokens;
        return SLUICE_OK;
    }
    int rc = prepare_label(judge, 0);
    if (rc >= 0)
        rc = prepare_label(judge, 1);
    if (rc < 0)
        return rc;
    const sluice_ids *a = &judge->label_ids[0], *b = &judge->label_ids[1];
    size_t shorter = a->count < b->count ? a->count : b->count;
    /* The longer could never be likelier than the shorter that it begins with. */
    if (memcmp(a->items, b->items, shorter * sizeof *a->items) == 0)
        return sluice_error(judge->host, SLUICE_BAD_PARAMETER,
                            "labels: '%s' and '%s' %s for this judge; choose words that begin differently",
                            judge->labels.items[0], judge->labels.items[1],
                            a->count == b->count ? "are the same tokens" : "begin with the same tokens");
    judge->answer_room = a->count > b->count ? a->count : b->count;
    return SLUICE_OK;
}

/* --- texts --- */

/* The record's prompt as text: a dialogue of several messages as "role: …" with blank lines between. malloc'ed. */
static int prompt_text(const struct judge *judge, const sluice_record *record, char **out)
{
    const sluice_message *messages;
    const char *text = sluice_record_prompt(record);
    size_t count = sluice_record_messages(record, &messages), length = 1, at = 0;
    if (!text && count == 0)
        return sluice_record_error(judge->host, record, SLUICE_BAD_RECORD,
                                   "there is no prompt as text, which is what a judge reads; give prompt or messages");
    if (!text && count == 1)
        text = messages[0].content;
    if (text)
        return (*out = strdup(text)) ? SLUICE_OK : no_memory(judge, record);
    for (size_t i = 0; i < count; i++)
        length += strlen(messages[i].role) + strlen(messages[i].content) + 4;
    if (!(*out = malloc(length)))
        return no_memory(judge, record);
    for (size_t i = 0; i < count; i++)
        at += (size_t)snprintf(*out + at, length - at, "%s%s: %s", i ? "\n\n" : "", messages[i].role,
                               messages[i].content);
    return SLUICE_OK;
}

static int candidate_text(const struct judge *judge, const sluice_record *record, uint32_t index, const char **out)
{
    sluice_candidate candidate;
    int rc = sluice_record_candidate(record, index, &candidate);
    if (rc < 0)
        return rc;
    *out = candidate.text;
    return candidate.text ? SLUICE_OK
                          : sluice_record_error(judge->host, record, SLUICE_BAD_RECORD,
                                                "candidate %u has no text, which is what a judge reads", index);
}

/* --- token ids --- */

/* Without a chat template the contents stand one after the other, each on a line of its own. */
static int encode_plain(const struct judge *judge, const sluice_message *messages, size_t count, sluice_ids *out)
{
    size_t length = 0, at = 0;
    for (size_t i = 0; i < count; i++)
        length += strlen(messages[i].content) + 1;
    char *text = malloc(length + 1);
    if (!text)
        return sluice_error(judge->host, SLUICE_NO_MEMORY, "out of memory for the judge's prompt");
    for (size_t i = 0; i < count; i++)
        at += (size_t)snprintf(text + at, length + 1 - at, "%s%s", i ? "\n" : "", messages[i].content);
    /* No SLUICE_ENCODE_SPECIAL: whatever an answer says, it stays text. */
    int rc = judge->opened.service->encode(judge->opened.model, text, at, SLUICE_ENCODE_START, out);
    free(text);
    return rc;
}

/* The template guards the contents of messages: whatever an answer says, it stays text. */
static int encode_chat(const struct judge *judge, const sluice_message *messages, size_t count, sluice_ids *out)
{
    const sluice_model_service *service = judge->opened.service;
    const template *t = &judge->asks;
    int rc = service->encode_messages(judge->opened.model, messages, count - t->begins_answer, true, out);
    if (rc >= 0 && t->begins_answer) {
        const char *begun = messages[count - 1].content;
        rc = service->encode(judge->opened.model, begun, strlen(begun), SLUICE_ENCODE_CONTINUE, out);
    }
    return rc;
}

/* Replaces the ids. */
static int encode(const struct judge *judge, const sluice_record *record, const template_texts *texts, sluice_ids *out)
{
    size_t count = judge->asks.section_count;
    sluice_message *messages = malloc(count * sizeof *messages);
    if (!messages || template_fill(&judge->asks, texts, messages) < 0) {
        free(messages);
        return no_memory(judge, record);
    }
    out->count = 0;
    int rc = judge->plain ? encode_plain(judge, messages, count, out) : encode_chat(judge, messages, count, out);
    for (size_t i = 0; i < count; i++)
        free((char *)(uintptr_t)messages[i].content);
    free(messages);
    return rc;
}

/* Encodes anew with as much of the record's prompt as leaves room, its end; none of it may be too much still. */
static int encode_cut(const struct judge *judge, const sluice_record *record, template_texts *texts, size_t room,
                      sluice_ids *out)
{
    const char *prompt = texts->place[PLACE_PROMPT];
    size_t low = 0, high = strlen(prompt); /* from `low` it is too long; from `high` nobody knows, or it fits */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        texts->place[PLACE_PROMPT] = prompt + middle;
        while ((*texts->place[PLACE_PROMPT] & 0xc0) == 0x80) /* not within a character */
            texts->place[PLACE_PROMPT]++;
        int rc = encode(judge, record, texts, out);
        if (rc < 0)
            return rc;
        if (out->count <= room)
            high = middle;
        else
            low = middle;
    }
    texts->place[PLACE_PROMPT] = prompt + high;
    while ((*texts->place[PLACE_PROMPT] & 0xc0) == 0x80)
        texts->place[PLACE_PROMPT]++;
    return encode(judge, record, texts, out);
}

/* Is a text longer than any context holds? Such a one is not even counted in tokens, for which the runtime sets a limit
 * of its own. */
static bool is_endless(const template_texts *texts)
{
    size_t size = 0;
    for (size_t i = 0; i < PLACES; i++)
        size += texts->place[i] ? strlen(texts->place[i]) : 0;
    return size > MOST_TEXT;
}

static int leave_out(struct judge *judge, struct asked *asked)
{
    asked->prompt.count = 0;
    asked->left_out = true;
    judge->counts.skipped++;
    return SLUICE_OK;
}

static int fit(struct judge *judge, struct asked *asked, template_texts *texts)
{
    size_t context = judge->opened.info.context, room = context - judge->answer_room;
    if (judge->too_long == TOO_LONG_LEFT && is_endless(texts)) { /* of the prompt only its end can matter */
        const char **prompt = &texts->place[PLACE_PROMPT];
        const size_t size = strlen(*prompt),
                     most = room < MOST_TEXT / 2 / LONGEST_TOKEN ? room * LONGEST_TOKEN : MOST_TEXT / 2;
        *prompt += size > most ? size - most : 0;
        while ((**prompt & 0xc0) == 0x80)
            ++*prompt;
    }
    if (judge->too_long != TOO_LONG_ERROR && is_endless(texts))
        return leave_out(judge, asked);
    int rc = encode(judge, asked->record, texts, &asked->prompt);
    if (rc < 0 || asked->prompt.count <= room)
        return rc;
    if (judge->too_long == TOO_LONG_ERROR)
        return sluice_record_error(
            judge->host, asked->record, SLUICE_BAD_RECORD,
            "asking the judge about candidate %u takes %zu tokens and %zu for its answer, more than its context of "
            "%zu; set too_long = \"skip\" to give no score, or \"left\" to cut the record's prompt on the left",
            asked->a, asked->prompt.count, judge->answer_room, context);
    if (judge->too_long == TOO_LONG_LEFT) {
        rc = encode_cut(judge, asked->record, texts, room, &asked->prompt);
        if (rc < 0)
            return rc;
        judge->counts.cut += asked->prompt.count <= room;
    }
    asked->left_out = asked->prompt.count > room;
    judge->counts.skipped += asked->left_out;
    return SLUICE_OK;
}

int ask_add(struct judge *judge, struct asked_list *list, sluice_record *record, uint32_t a, uint32_t b)
{
    template_texts texts = {{NULL}};
    char *prompt = NULL;
    if (list->count == list->room) {
        size_t room = 2 * list->room + 64;
        struct asked *grown = realloc(list->items, room * sizeof *grown);
        if (!grown)
            return no_memory(judge, record);
        list->items = grown;
        list->room = room;
    }
    struct asked *asked = &list->items[list->count++];
    *asked = (struct asked){.record = record, .a = a, .b = b};
    int rc = prompt_text(judge, record, &prompt);
    texts.place[PLACE_PROMPT] = prompt;
    if (rc >= 0)
        rc = candidate_text(judge, record, a, &texts.place[PLACE_A]);
    if (rc >= 0)
        rc = candidate_text(judge, record, b, &texts.place[PLACE_B]);
    texts.place[PLACE_ANSWER] = texts.place[PLACE_A];
    if (rc >= 0)
        rc = fit(judge, asked, &texts);
    free(prompt);
    if (rc >= 0 && asked->prompt.count == 0 && !asked->left_out)
        rc = sluice_record_error(judge->host, record, SLUICE_BAD_RECORD,
                                 "what the judge is asked has no token; put words of your own into its prompt");
    return rc;
}

void ask_free(struct asked_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->items[i].prompt.items);
        free(list->items[i].said);
    }
    free(list->items);
    *list = (struct asked_list){0};
}

/* --- probabilities of labels --- */

static double sum_of(const float *logps, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += logps[i];
    return sum;
}

/* P(first) against the second: softmax over the labels' summed log-probabilities. */
static int weigh(struct judge *judge, struct asked *asked, double first, double second)
{
    asked->first = 1 / (1 + exp(second - first));
    if (!isfinite(first) || !isfinite(second) || isnan(asked->first))
        return sluice_record_error(
            judge->host, asked->record, SLUICE_BAD_MODEL,
            "the judge gives the labels '%s' and '%s' the log-probabilities %g and %g; are its weights whole?",
            judge->labels.items[0], judge->labels.items[1], first, second);
    judge->counts.compared++;
    judge->counts.first += asked->first;
    judge->counts.mass += exp(first) + exp(second);
    return SLUICE_OK;
}

/* As many from the front as are a call's worth; *taken says how far it came. */
static int ask_some(struct judge *judge, struct asked *items, size_t count, size_t *taken)
{
    const sluice_ids *label = judge->label_ids;
    const size_t width = label[0].count + label[1].count;
    const sluice_span spans[2] = {{label[0].items, label[0].count}, {label[1].items, label[1].count}};
    sluice_group *groups = calloc(count, sizeof *groups);
    float *values = malloc(count * width * sizeof *values), **logps = malloc(2 * count * sizeof *logps);
    size_t asked = 0, tokens = 0, n = 0;
    int rc = groups && values && logps ? SLUICE_OK : no_memory(judge, NULL);
    for (; rc >= 0 && n < count && (asked == 0 || tokens < TOKENS_A_CALL); n++) {
        if (items[n].left_out)
            continue;
        groups[asked] = (sluice_group){
            .prompt = {items[n].prompt.items, items[n].prompt.count}, .completions = spans, .completion_count = 2};
        logps[2 * asked] = values + asked * width;
        logps[2 * asked + 1] = logps[2 * asked] + label[0].count;
        tokens += items[n].prompt.count + width;
        asked++;
    }
    if (rc >= 0 && asked > 0)
        rc = judge->opened.service->score(judge->opened.model, groups, asked, logps, NULL);
    for (size_t i = 0, k = 0; rc >= 0 && i < n; i++)
        if (!items[i].left_out) {
            rc =
                weigh(judge, &items[i], sum_of(logps[2 * k], label[0].count), sum_of(logps[2 * k + 1], label[1].count));
            k++;
        }
    sluice_tokens(judge->host, tokens);
    *taken = n;
    free(groups);
    free(values);
    free(logps);
    return rc;
}

int ask_labels(struct judge *judge, struct asked_list *list)
{
    int rc = SLUICE_OK;
    for (size_t done = 0, taken = 0; rc >= 0 && done < list->count; done += taken) {
        if (sluice_cancelled(judge->host))
            return SLUICE_CANCELLED;
        rc = ask_some(judge, list->items + done, list->count - done, &taken);
    }
    return rc;
}
