/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/random.h>
#include "plugins/judge-llm/judge.h"

/* --- reading --- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool begins_with(const char *text, const char *marker)
{
    while (*marker && lower(*text) == lower(*marker)) {
        text++;
        marker++;
    }
    return !*marker;
}

/* The plain decimal number at `s`, blanks, markup and brackets before it left out: "4", "-1", "3.5", " **4**", "<4>",
 * "4/5". No number: "4th", "1e9", and where nothing comes. */
static bool number_at(const char *s, bool cut, double *value)
{
    while (*s && strchr(" \t\r\n*`\"'<([", *s))
        s++;
    const char *begin = s;
    if (*s == '-' || *s == '+')
        s++;
    if (!is_digit(*s))
        return false;
    while (is_digit(*s))
        s++;
    if (*s == '.' && is_digit(s[1]))
        for (s++; is_digit(*s);)
            s++;
    if (is_letter(*s) || (cut && (!*s || (*s == '.' && !s[1]))))
        return false;
    *value = strtod(begin, NULL);
    return true;
}

enum reading words_read(const char *text, const char *marker, double lowest, double highest, bool cut, double *score)
{
    bool found = false;
    for (const char *s = text; *s; s++)
        if (begins_with(s, marker))
            found |= number_at(s + strlen(marker), cut, score);
    if (!found)
        return READ_NOTHING;
    return *score >= lowest && *score <= highest ? READ_SCORE : READ_OUT_OF_RANGE;
}

/* --- asking --- */

struct asking {
    struct judge *judge;
    struct asked_list *list;
    size_t next;
};

static int on_prompt(void *context, sluice_generate_prompt *prompt)
{
    struct asking *asking = context;
    while (asking->next < asking->list->count && asking->list->items[asking->next].left_out)
        asking->next++;
    if (sluice_cancelled(asking->judge->host))
        return SLUICE_CANCELLED;
    if (asking->next == asking->list->count)
        return SLUICE_END;
    struct asked *asked = &asking->list->items[asking->next++];
    size_t samples = (size_t)asking->judge->samples;
    asked->said = malloc(samples * sizeof *asked->said);
    if (!asked->said)
        return sluice_error(asking->judge->host, SLUICE_NO_MEMORY, "out of memory for %zu answers of the judge",
                            samples);
    for (size_t i = 0; i < samples; i++)
        asked->said[i] = NAN;
    const char *id = sluice_record_id(asked->record);
    *prompt = (sluice_generate_prompt){.tokens = asked->prompt.items,
                                       .token_count = asked->prompt.count,
                                       .key = sluice_mix(sluice_random_name(id, strlen(id)), asked->a),
                                       .user = asked};
    return SLUICE_OK;
}

/* The first answer that cannot be read is worth seeing: usually they all are alike. */
static void show(struct judge *judge, const char *text)
{
    if (judge->counts.told)
        return;
    judge->counts.told = true;
    sluice_log(judge->host, SLUICE_LOG_INFO,
               "an answer of the judge without a score from %g to %g after \"%s\": \"%.200s\"", judge->lowest,
               judge->highest, judge->marker, text);
}

static int on_done(void *context, const sluice_generated *generated)
{
    struct judge *judge = ((struct asking *)context)->judge;
    struct asked *asked = generated->user;
    const char *said = generated->text ? generated->text : "", *begun = judge->begun ? judge->begun : "";
    size_t size = strlen(begun) + strlen(said) + 1;
    char *text = malloc(size);
    double score = 0;
    if (!text)
        return sluice_error(judge->host, SLUICE_NO_MEMORY, "out of memory for an answer of the judge");
    memcpy(text, begun, strlen(begun));
    memcpy(text + strlen(begun), said, strlen(said) + 1);
    switch (words_read(text, judge->marker, judge->lowest, judge->highest, generated->finish == SLUICE_FINISH_LENGTH,
                       &score)) {
    case READ_SCORE:
        asked->said[generated->candidate] = (float)score;
        break;
    case READ_OUT_OF_RANGE:
        judge->counts.out_of_range++;
        show(judge, text);
        break;
    default:
        judge->counts.unparsed++;
        show(judge, text);
    }
    free(text);
    judge->counts.sampled++;
    sluice_tokens(judge->host, generated->token_count);
    return SLUICE_OK;
}

int ask_words(struct judge *judge, struct asked_list *list)
{
    struct asking asking = {judge, list, 0};
    sluice_generation generation = {.size = sizeof generation,
                                    .candidates = (uint32_t)judge->samples,
                                    .max_tokens = (uint32_t)judge->max_tokens,
                                    .temperature = judge->temperature,
                                    .top_p = judge->top_p,
                                    .repetition_penalty = 1,
                                    .seed = sluice_seed(judge->host),
                                    .slots = (uint32_t)judge->slots,
                                    .context = &asking,
                                    .prompt = on_prompt,
                                    .done = on_done};
    return judge->opened.service->generate(judge->opened.model, &generation);
}
