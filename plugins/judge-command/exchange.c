/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "plugins/judge-command/exchange.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A candidate as the program sees it: its tokens' number instead of the tokens and their log-probabilities. */
static int shorten(json_t *candidate)
{
    static const char *const left_out[] = {"tokens", "logprobs", "logps", "segments"};
    const json_t *tokens = json_object_get(candidate, "tokens");
    int rc = tokens ? json_object_set_new(candidate, "length", json_integer((json_int_t)json_array_size(tokens))) : 0;
    for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++)
        json_object_del(candidate, left_out[i]);
    return rc;
}

char *exchange_question(const sluice_record *record, size_t *length)
{
    static const char *const kept[] = {"id", "prompt", "messages", "candidates", "scores", "meta"};
    char *whole = sluice_record_json(record), *line = NULL;
    json_t *all = whole ? json_loads(whole, JSON_ALLOW_NUL, NULL) : NULL, *question = json_object(), *candidate;
    size_t i, size;
    free(whole);
    int rc = all && question ? 0 : -1;
    for (i = 0; rc == 0 && i < sizeof kept / sizeof *kept; i++) {
        json_t *value = json_object_get(all, kept[i]);
        if (value)
            rc = json_object_set(question, kept[i], value);
    }
    json_array_foreach(json_object_get(question, "candidates"), i, candidate)
    {
        if (rc == 0)
            rc = shorten(candidate);
    }
    if (rc == 0 && (size = json_dumpb(question, NULL, 0, JSON_COMPACT | JSON_ENSURE_ASCII)) > 0 &&
        (line = malloc(size + 1))) {
        json_dumpb(question, line, size, JSON_COMPACT | JSON_ENSURE_ASCII);
        line[size] = '\n';
        *length = size + 1;
    }
    json_decref(all);
    json_decref(question);
    return line;
}

/* The beginning of a line as it may stand in a message. */
static void quote(const char *line, char *text, size_t size)
{
    size_t n = 0;
    for (; line[n] && n + 4 < size; n++)
        text[n] = (unsigned char)line[n] < ' ' || line[n] == 0x7f ? ' ' : line[n];
    while (n > 0 && line[n] && (line[n] & 0xc0) == 0x80) /* cut between characters */
        n--;
    snprintf(text + n, size - n, "%s", line[n] ? "…" : "");
}

bool exchange_read(exchange_answer *answer, const char *line, size_t length, char *why, size_t size)
{
    json_error_t json;
    char begin[80];
    quote(line, begin, sizeof begin);
    memset(answer, 0, sizeof *answer);
    json_t *root = answer->root = json_loadb(line, length, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &json);
    const char *first = line + strspn(line, " \t");
    if (!root && *first != '{')
        snprintf(why, size, "printed '%s' where an answer was expected; print messages to stderr", begin);
    else if (!root && (strstr(line, "NaN") || strstr(line, "Infinity")))
        snprintf(why, size, "printed '%s', which is no JSON: NaN and Infinity are no scores; write null", begin);
    else if (!root)
        snprintf(why, size, "printed '%s', which is no JSON (%s)", begin, json.text);
    else if (!json_is_object(root))
        snprintf(why, size, "printed '%s' where {\"id\": …, \"scores\": …} was expected; print messages to stderr",
                 begin);
    else if (!json_is_string(json_object_get(root, "id")))
        snprintf(why, size, "printed '%s', an answer without the \"id\" of its question", begin);
    else if (json_object_get(root, "error") && !json_is_string(json_object_get(root, "error")))
        snprintf(why, size, "printed '%s', where \"error\" is no text", begin);
    else if (!json_object_get(root, "error") && !json_object_get(root, "scores"))
        snprintf(why, size, "printed '%s', which has neither \"scores\" nor \"error\"", begin);
    else {
        answer->id = json_string_value(json_object_get(root, "id"));
        answer->error = json_string_value(json_object_get(root, "error"));
        return true;
    }
    return false;
}

/* One list of scores, one a candidate. */
static int set_scores(const json_t *list, sluice_record *record, const char *judge, uint64_t *given, double *sum,
                      char *why, size_t size)
{
    size_t count = sluice_record_candidates(record);
    if (!json_is_array(list)) {
        snprintf(why, size, "gave \"scores\" that are no list; write one number or null a candidate");
        return SLUICE_BAD_RECORD;
    }
    if (json_array_size(list) != count) {
        snprintf(why, size, "gave %zu score%s for %zu candidate%s; write one number or null a candidate",
                 json_array_size(list), json_array_size(list) == 1 ? "" : "s", count, count == 1 ? "" : "s");
        return SLUICE_BAD_RECORD;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, i);
        if (json_is_null(item))
            continue;
        float score = (float)json_number_value(item);
        if (!json_is_number(item) || !isfinite(score)) {
            snprintf(why, size, "gave candidate %zu a score that is %s; write a number or null", i,
                     json_is_number(item) ? "too large" : "no number");
            return SLUICE_BAD_RECORD;
        }
        int rc = sluice_record_set_score(record, judge, i, score);
        if (rc < 0) {
            snprintf(why, size, "gave candidate %zu the score %g, which cannot be kept", i, (double)score);
            return rc;
        }
        ++*given;
        *sum += score;
    }
    return SLUICE_OK;
}

int exchange_score(const exchange_answer *answer, sluice_record *record, const char *judge, uint64_t *given,
                   double *sum, char *why, size_t size)
{
    json_t *scores = json_object_get(answer->root, "scores"), *list;
    const char *name;
    if (!json_is_object(scores))
        return set_scores(scores, record, judge, given, sum, why, size);
    int rc = SLUICE_OK;
    json_object_foreach(scores, name, list)
    {
        char full[256];
        if (rc < 0)
            break;
        if (*name == '\0' || (size_t)snprintf(full, sizeof full, "%s/%s", judge, name) >= sizeof full) {
            snprintf(why, size, "named scores with %s; give them a short word", *name ? "a long text" : "nothing");
            rc = SLUICE_BAD_RECORD;
        } else {
            rc = set_scores(list, record, full, given, sum, why, size);
        }
    }
    return rc;
}

void exchange_free(exchange_answer *answer)
{
    json_decref(answer->root);
    answer->root = NULL;
}
