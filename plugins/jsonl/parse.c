/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plugins/jsonl/parse.h"

struct parser {
    const parse_fields *fields;
    parse_example *example;
    char *error;
    size_t error_size;
};

static int SLUICE_PRINTF(2, 3) bad(struct parser *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(p->error, p->error_size, format, args);
    va_end(args);
    return SLUICE_BAD_RECORD;
}

static const char *type_name(const json_t *value)
{
    static const char *const names[] = {"an object", "a list", "a text", "a number",
                                        "a number",  "true",   "false",  "null"};
    return value ? names[json_typeof(value)] : "missing";
}

/* Byte offset of the first byte that is no UTF-8 (RFC 3629), or `length`. */
static size_t utf8_valid(const unsigned char *s, size_t length)
{
    size_t i = 0;
    while (i < length) {
        unsigned char c = s[i];
        size_t more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : (c & 0xf0) == 0xe0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : 4;
        if (more == 4 || i + more >= length)
            return i;
        for (size_t k = 1; k <= more; k++)
            if ((s[i + k] & 0xc0) != 0x80)
                return i;
        if ((c == 0xe0 && s[i + 1] < 0xa0) || (c == 0xed && s[i + 1] >= 0xa0) || (c == 0xf0 && s[i + 1] < 0x90) ||
            (c == 0xf4 && s[i + 1] >= 0x90))
            return i;
        i += more + 1;
    }
    return length;
}

static int check_messages(struct parser *p, const char *field, const json_t *list)
{
    size_t index;
    json_t *message;
    if (json_array_size(list) == 0)
        return bad(p, "'%s' is an empty list of messages", field);
    json_array_foreach(list, index, message)
    {
        const char *const keys[] = {"role", "content"};
        if (!json_is_object(message))
            return bad(p, "'%s': message %zu is %s, not an object with role and content", field, index + 1,
                       type_name(message));
        for (size_t k = 0; k < 2; k++)
            if (!json_is_string(json_object_get(message, keys[k])))
                return bad(p, "'%s': the %s of message %zu is %s, not a text", field, keys[k], index + 1,
                           type_name(json_object_get(message, keys[k])));
    }
    return SLUICE_OK;
}

/* The field's value when it is a text or messages; *value = NULL when absent (or null). */
static int get(struct parser *p, const char *field, const json_t **value)
{
    *value = json_object_get(p->example->root, field);
    if (json_is_null(*value))
        *value = NULL;
    if (!*value || json_is_string(*value))
        return SLUICE_OK;
    if (json_is_array(*value))
        return check_messages(p, field, *value);
    return bad(p, "'%s' is %s, not a text or a list of messages", field, type_name(*value));
}

/* The first `count` messages of a list become the prompt. */
static int take_messages(struct parser *p, const json_t *list, size_t count)
{
    parse_example *e = p->example;
    if (count == 0)
        return bad(p, "there is no message before the answer");
    e->messages = malloc(count * sizeof *e->messages);
    if (!e->messages)
        return bad(p, "out of memory");
    for (size_t i = 0; i < count; i++) {
        const json_t *message = json_array_get(list, i);
        e->messages[i].role = json_string_value(json_object_get(message, "role"));
        e->messages[i].content = json_string_value(json_object_get(message, "content"));
    }
    e->message_count = count;
    return SLUICE_OK;
}

static int take_prompt(struct parser *p, const json_t *value)
{
    p->example->consumed_prompt = true;
    if (json_is_array(value))
        return take_messages(p, value, json_array_size(value));
    p->example->prompt = json_string_value(value);
    return SLUICE_OK;
}

/* An answer: a text, or from message `begin` on exactly one message of the assistant. */
static int take_answer(struct parser *p, const char *field, const json_t *value, size_t begin)
{
    parse_example *e = p->example;
    if (json_is_array(value)) {
        const json_t *message = json_array_get(value, begin);
        size_t count = json_array_size(value) - begin;
        if (count != 1 || strcmp(json_string_value(json_object_get(message, "role")), "assistant") != 0)
            return bad(
                p, "the answer in '%s' must be one message of the assistant; it is %zu message%s, the first of '%s'",
                field, count, count == 1 ? "" : "s", json_string_value(json_object_get(message, "role")));
        value = json_object_get(message, "content");
    }
    e->answers[e->answer_count++] = json_string_value(value);
    return SLUICE_OK;
}

/* messages: all but a last one of the assistant are the prompt. */
static int take_dialogue(struct parser *p, const json_t *list, enum parse_form form)
{
    size_t count = json_array_size(list);
    bool answered =
        strcmp(json_string_value(json_object_get(json_array_get(list, count - 1), "role")), "assistant") == 0;
    p->example->consumed_messages = true;
    if (!answered && form == PARSE_COMPLETION)
        return bad(p, "'%s' does not end with a message of the assistant", p->fields->messages);
    int rc = take_messages(p, list, answered ? count - 1 : count);
    if (rc == SLUICE_OK && answered && form != PARSE_PROMPT)
        rc = take_answer(p, p->fields->messages, list, count - 1);
    return rc;
}

/* Whole dialogues as messages: the common beginning is the prompt (TRL's extract_prompt). */
static int split_messages(struct parser *p, const json_t *chosen, const json_t *rejected)
{
    size_t n = json_array_size(chosen), m = json_array_size(rejected), common = 0, least = n < m ? n : m;
    while (common + 1 < least && json_equal(json_array_get(chosen, common), json_array_get(rejected, common)))
        common++;
    int rc = take_messages(p, chosen, common);
    if (rc == SLUICE_OK)
        rc = take_answer(p, p->fields->chosen, chosen, common);
    if (rc == SLUICE_OK)
        rc = take_answer(p, p->fields->rejected, rejected, common);
    return rc;
}

/* Length of the prompt that two texts begin with. Turns marked "\n\nAssistant:" end it after the last such mark (as in
 * the code of DPO's authors); any other text is split where the two begin to differ, before a blank that precedes it
 * (as TRL does). */
static size_t common_text(const char *a, const char *b)
{
    static const char mark[] = "\n\nAssistant:";
    size_t common = 0, turn = 0;
    while (a[common] && a[common] == b[common])
        common++;
    for (size_t i = 0; i + sizeof mark - 1 <= common; i++)
        if (memcmp(a + i, mark, sizeof mark - 1) == 0)
            turn = i + sizeof mark - 1;
    if (turn > 0)
        return turn;
    if (common > 0 && (!a[common] || !b[common])) /* one begins the other: leave both something */
        common--;
    while (common > 0 && ((unsigned char)a[common] & 0xc0) == 0x80) /* never within a character */
        common--;
    return common > 0 && a[common - 1] == ' ' ? common - 1 : common;
}

static int split_texts(struct parser *p, const char *chosen, const char *rejected)
{
    parse_example *e = p->example;
    size_t common = common_text(chosen, rejected);
    if (common == 0)
        return bad(p, "'%s' and '%s' begin differently, so there is no prompt; give one in '%s'", p->fields->chosen,
                   p->fields->rejected, p->fields->prompt);
    e->owned = strndup(chosen, common);
    if (!e->owned)
        return bad(p, "out of memory");
    e->prompt = e->owned;
    e->answers[0] = chosen + common;
    e->answers[1] = rejected + common;
    e->answer_count = 2;
    return SLUICE_OK;
}

static int take_preference(struct parser *p, const json_t *prompt, const json_t *chosen, const json_t *rejected)
{
    const parse_fields *f = p->fields;
    if (!chosen || !rejected)
        return bad(p, "'%s' is missing beside '%s'", chosen ? f->rejected : f->chosen,
                   chosen ? f->chosen : f->rejected);
    if (json_typeof(chosen) != json_typeof(rejected))
        return bad(p, "'%s' is %s and '%s' %s; both must be of one kind", f->chosen, type_name(chosen), f->rejected,
                   type_name(rejected));
    p->example->consumed_preference = true;
    /* As in TRL: dialogues beside a prompt that is plain text hold the prompt themselves. */
    if (json_is_array(chosen) && !json_is_array(prompt)) {
        p->example->consumed_prompt = true;
        return split_messages(p, chosen, rejected);
    }
    if (!prompt)
        return split_texts(p, json_string_value(chosen), json_string_value(rejected));
    int rc = take_prompt(p, prompt);
    if (rc == SLUICE_OK)
        rc = take_answer(p, f->chosen, chosen, 0);
    if (rc == SLUICE_OK)
        rc = take_answer(p, f->rejected, rejected, 0);
    return rc;
}

static int take(struct parser *p, enum parse_form form)
{
    const parse_fields *f = p->fields;
    const json_t *prompt, *completion = NULL, *chosen = NULL, *rejected = NULL, *messages;
    int rc = get(p, f->prompt, &prompt);
    if (rc == SLUICE_OK)
        rc = get(p, f->messages, &messages);
    if (rc == SLUICE_OK && (form == PARSE_AUTO || form == PARSE_COMPLETION))
        rc = get(p, f->completion, &completion);
    if (rc == SLUICE_OK && (form == PARSE_AUTO || form == PARSE_PREFERENCE))
        rc = get(p, f->chosen, &chosen);
    if (rc == SLUICE_OK && (form == PARSE_AUTO || form == PARSE_PREFERENCE))
        rc = get(p, f->rejected, &rejected);
    if (rc < 0)
        return rc;
    if (form == PARSE_PREFERENCE || chosen || rejected)
        return take_preference(p, prompt, chosen, rejected);
    if (json_is_string(messages))
        return bad(p, "'%s' is a text, not a list of messages", f->messages);
    if (!prompt && messages && !completion)
        return take_dialogue(p, messages, form);
    if (!prompt)
        return bad(p, "there is no '%s'; the fields are %s", f->prompt,
                   completion ? "incomplete: a completion needs its prompt"
                              : "named by prompt_field, messages_field, chosen_field");
    if (form == PARSE_COMPLETION && !completion)
        return bad(p, "there is no '%s'", f->completion);
    if ((rc = take_prompt(p, prompt)) < 0 || !completion)
        return rc;
    p->example->consumed_completion = true;
    return take_answer(p, f->completion, completion, 0);
}

static int take_id(struct parser *p)
{
    const json_t *id = json_object_get(p->example->root, p->fields->id);
    size_t room = sizeof p->example->id;
    int written = 0;
    if (json_is_string(id))
        written = snprintf(p->example->id, room, "%s", json_string_value(id));
    else if (json_is_integer(id))
        written = snprintf(p->example->id, room, "%" JSON_INTEGER_FORMAT, json_integer_value(id));
    else if (id && !json_is_null(id))
        return bad(p, "'%s' is %s, not a text or a whole number", p->fields->id, type_name(id));
    if ((size_t)written >= room)
        return bad(p, "'%s' has %d bytes; %zu is the most", p->fields->id, written, room - 1);
    return json_is_string(id) && written == 0 ? bad(p, "'%s' is empty", p->fields->id) : SLUICE_OK;
}

int parse_line(const char *text, size_t length, enum parse_form form, const parse_fields *fields,
               parse_example *example, char *error, size_t error_size)
{
    struct parser p = {fields, example, error, error_size};
    json_error_t json;
    size_t valid = utf8_valid((const unsigned char *)text, length);
    if (valid < length)
        return bad(&p, "byte %zu of the line (0x%02x) is no UTF-8", valid + 1, (unsigned char)text[valid]);
    example->root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &json);
    if (!example->root) {
        char *control = json.text; /* the text may quote a piece of the line, with line breaks */
        for (; *control; control++)
            if ((unsigned char)*control < ' ')
                *control = ' ';
        return bad(&p, "not JSON: %s, at column %d", json.text, json.column);
    }
    if (!json_is_object(example->root))
        return bad(&p, "%s, where an object was expected, {\"prompt\": …}", type_name(example->root));
    int rc = take_id(&p);
    return rc < 0 ? rc : take(&p, form);
}

static bool consumed(const parse_example *e, const parse_fields *f, const char *key)
{
    return strcmp(key, f->id) == 0 || (e->consumed_prompt && strcmp(key, f->prompt) == 0) ||
           (e->consumed_completion && strcmp(key, f->completion) == 0) ||
           (e->consumed_preference && (strcmp(key, f->chosen) == 0 || strcmp(key, f->rejected) == 0)) ||
           (e->consumed_messages && strcmp(key, f->messages) == 0);
}

static int fill_meta(const parse_example *e, const parse_fields *f, sluice_record *record)
{
    const char *key;
    json_t *value;
    json_object_foreach(e->root, key, value)
    {
        if (consumed(e, f, key) || json_is_null(value))
            continue;
        char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        int rc = text ? sluice_record_set_meta_json(record, key, text) : SLUICE_NO_MEMORY;
        free(text);
        if (rc < 0)
            return rc;
    }
    return SLUICE_OK;
}

int parse_fill(const parse_example *e, const parse_fields *f, const char *id, sluice_record *record)
{
    int rc = sluice_record_set_id(record, e->id[0] ? e->id : id);
    if (rc >= 0)
        rc = e->prompt ? sluice_record_set_prompt(record, e->prompt)
                       : sluice_record_set_messages(record, e->messages, e->message_count);
    for (size_t i = 0; rc >= 0 && i < e->answer_count; i++) {
        sluice_candidate candidate = {.text = e->answers[i], .finish = SLUICE_FINISH_NONE, .parent = -1};
        rc = sluice_record_add_candidate(record, &candidate);
    }
    if (rc >= 0 && e->answer_count == 2) {
        sluice_pair pair = {.chosen = 0, .rejected = 1, .p = 1, .weight = 1, .margin = NAN};
        rc = sluice_record_add_pair(record, &pair);
    }
    return rc < 0 ? rc : fill_meta(e, f, record);
}

void parse_free(parse_example *e)
{
    json_decref(e->root);
    free(e->messages);
    free(e->owned);
    memset(e, 0, sizeof *e);
}
