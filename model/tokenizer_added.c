/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Added tokens: those that are cut out of a text before it is tokenized. From left to right, the longest that begins
 * at a place wins.
 */
#include "model/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

sm_added_token *sm_added_find(const sm_added *added, const char *content, size_t length)
{
    for (size_t i = 0; i < added->count; i++) {
        sm_added_token *token = &added->tokens[i];
        if (token->length == length && memcmp(token->content, content, length) == 0) {
            return token;
        }
    }
    return NULL;
}

/* Many models have the marks of their turns, <|im_start|> or <｜User｜>, as added tokens that their files do not call
 * special. */
static bool is_control(const char *content, size_t length)
{
    static const char *const marks[][2] = {{"<|", "|>"}, {"<\xEF\xBD\x9C", "\xEF\xBD\x9C>"}};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        const size_t size = strlen(marks[i][0]);
        if (length > 2 * size && memcmp(content, marks[i][0], size) == 0 &&
            memcmp(content + length - size, marks[i][1], size) == 0) {
            return true;
        }
    }
    return false;
}

int sm_added_add(sm_added *added, const sm_bpe *bpe, uint32_t *size, const char *content, size_t length,
                 sm_added_token flags, uint32_t declared, sm_error *error)
{
    if (!length || length > SM_MAX_CONTENT) {
        return sm_fail(error, SM_UNSUPPORTED, "an added token of %zu bytes; 1 to %d are supported", length,
                       SM_MAX_CONTENT);
    }
    sm_added_token *token = sm_added_find(added, content, length);
    uint32_t id = token ? token->id : sm_bpe_find(bpe, content, length);
    if (id == SM_NO_TOKEN) {
        id = *size;
    }
    if (declared != SM_NO_TOKEN && declared != id) {
        return sm_fail(error, SM_FORMAT, "added token \"%.60s\" says id %u, but its id is %u: %s", content, declared,
                       id,
                       id == *size ? "ids go on after the vocabulary without holes" : "it stands in the vocabulary");
    }
    if (id == SM_MAX_TOKENS) {
        return sm_fail(error, SM_UNSUPPORTED, "more than %u tokens are not supported", SM_MAX_TOKENS);
    }
    if (!token) {
        if (added->count == added->capacity) {
            size_t capacity = added->capacity ? added->capacity * 2 : 16;
            sm_added_token *tokens = realloc(added->tokens, capacity * sizeof *tokens);
            if (!tokens) {
                return sm_fail(error, SM_NO_MEMORY, "out of memory");
            }
            added->tokens = tokens;
            added->capacity = capacity;
        }
        char *copy = malloc(length + 1);
        if (!copy) {
            return sm_fail(error, SM_NO_MEMORY, "out of memory");
        }
        memcpy(copy, content, length);
        copy[length] = '\0';
        token = &added->tokens[added->count++];
        *token = (sm_added_token){.id = id, .content = copy, .length = length, .control = is_control(content, length)};
        *size += id == *size;
    }
    token->single_word = flags.single_word;
    token->lstrip = flags.lstrip;
    token->rstrip = flags.rstrip;
    token->normalized = flags.normalized;
    token->special = token->special || flags.special;
    return SM_OK;
}

int sm_added_parse(sm_added *added, const sm_bpe *bpe, uint32_t *size, const json_t *list, sm_error *error)
{
    if (!list || json_is_null(list)) {
        return SM_OK;
    }
    if (!json_is_array(list)) {
        return sm_fail(error, SM_FORMAT, "\"added_tokens\" must be a list");
    }
    if (json_array_size(list) > SM_MAX_ADDED) {
        return sm_fail(error, SM_UNSUPPORTED, "%zu added tokens; at most %d are supported", json_array_size(list),
                       SM_MAX_ADDED);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        sm_added_token flags = {0};
        uint64_t id;
        size_t length;
        if (!json_is_object(item)) {
            return sm_fail(error, SM_FORMAT, "added_tokens: entry %zu must be an object", i);
        }
        const char *content = sm_json_string(item, "content", "added_tokens", &length, error);
        if (!content || sm_json_number(item, "id", "added_tokens", SM_MAX_TOKENS, &id, error) != SM_OK ||
            sm_json_bool(item, "single_word", "added_tokens", &flags.single_word, error) != SM_OK ||
            sm_json_bool(item, "lstrip", "added_tokens", &flags.lstrip, error) != SM_OK ||
            sm_json_bool(item, "rstrip", "added_tokens", &flags.rstrip, error) != SM_OK ||
            sm_json_bool(item, "normalized", "added_tokens", &flags.normalized, error) != SM_OK ||
            sm_json_bool(item, "special", "added_tokens", &flags.special, error) != SM_OK) {
            return error->code;
        }
        int code = sm_added_add(added, bpe, size, content, length, flags, (uint32_t)id, error);
        if (code != SM_OK) {
            return code;
        }
    }
    return SM_OK;
}

/* --- tries --- */

static uint32_t step(const sm_trie *trie, uint32_t node, unsigned char byte)
{
    uint32_t child = trie->nodes[node].child;
    while (child && trie->nodes[child].byte != byte) {
        child = trie->nodes[child].sibling;
    }
    return child;
}

static int insert(sm_trie *trie, const char *text, size_t length, uint32_t token, const char *name, sm_error *error)
{
    uint32_t node = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)text[i];
        /* Node 0 is the root, whose children stand in a table: most bytes of a text begin no added token. */
        uint32_t next = i ? step(trie, node, byte) : trie->first[byte];
        if (!next) {
            if (trie->count + 2 > trie->capacity) {
                size_t capacity = trie->capacity ? trie->capacity * 2 : 256;
                struct sm_trie_node *nodes = realloc(trie->nodes, capacity * sizeof *nodes);
                if (!nodes) {
                    return sm_fail(error, SM_NO_MEMORY, "out of memory");
                }
                trie->nodes = nodes;
                trie->capacity = capacity;
            }
            if (!trie->count) {
                trie->nodes[trie->count++] = (struct sm_trie_node){.token = SM_NO_TOKEN};
            }
            next = (uint32_t)trie->count++;
            trie->nodes[next] = (struct sm_trie_node){.token = SM_NO_TOKEN, .byte = byte};
            if (i) {
                trie->nodes[next].sibling = trie->nodes[node].child;
                trie->nodes[node].child = next;
            } else {
                trie->first[byte] = next;
            }
        }
        node = next;
    }
    if (!length || trie->nodes[node].token != SM_NO_TOKEN) {
        return sm_fail(error, SM_FORMAT, "added token \"%.60s\": normalized, it is %s", name,
                       length ? "the same as another one" : "empty");
    }
    trie->nodes[node].token = token;
    return SM_OK;
}

int sm_added_build(sm_added *added, sm_error *error)
{
    int code = SM_OK;
    bool words = false;
    for (size_t i = 0; code == SM_OK && i < added->count; i++) {
        const sm_added_token *token = &added->tokens[i];
        const sm_text *normal = &token->normalized_content;
        words |= token->single_word;
        if (token->normalized && normal->bytes) {
            code = insert(&added->normalized, normal->bytes, normal->length, (uint32_t)i, token->content, error);
        } else {
            code = insert(token->normalized ? &added->normalized : &added->plain, token->content, token->length,
                          (uint32_t)i, token->content, error);
        }
    }
    if (code == SM_OK && words) {
        /* What Unicode calls a word character (UTS 18, annex C): letters and other alphabetic ones, marks, decimal
         * digits, connectors, joiners. */
        static const char word[] = "[\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}"
                                   "\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}\\x{200c}\\x{200d}]";
        added->word = sm_pattern_regex(word, sizeof word - 1, error);
        code = added->word ? SM_OK : error->code;
    }
    return code;
}

static void trie_free(sm_trie *trie)
{
    free(trie->nodes);
}

void sm_added_free(sm_added *added)
{
    for (size_t i = 0; i < added->count; i++) {
        free(added->tokens[i].content);
        sm_text_free(&added->tokens[i].normalized_content);
    }
    free(added->tokens);
    trie_free(&added->plain);
    trie_free(&added->normalized);
    sm_pattern_free(added->word);
    *added = (sm_added){0};
}

/* --- splitting --- */

static int is_word(const sm_added *added, const char *character, bool *word, sm_error *error)
{
    sm_spans spans = {0};
    int code = sm_pattern_find(added->word, character, sm_utf8_size(*character), &spans, error);
    *word = code == SM_OK && spans.items[0].match;
    free(spans.items);
    return code;
}

/* Start of the character that ends before `at` (> 0). */
static size_t character_before(const char *text, size_t at)
{
    do {
        at--;
    } while (at && ((unsigned char)text[at] & 0xc0) == 0x80);
    return at;
}

static int stands_alone(const sm_added *added, const char *text, size_t length, size_t start, size_t end, bool *alone,
                        sm_error *error)
{
    bool before = false, after = false;
    int code = SM_OK;
    if (start) {
        code = is_word(added, text + character_before(text, start), &before, error);
    }
    if (code == SM_OK && end < length) {
        code = is_word(added, text + end, &after, error);
    }
    *alone = !before && !after;
    return code;
}

static size_t skip_space_left(const char *text, size_t at)
{
    size_t size;
    while (at) {
        size_t before = character_before(text, at);
        if (!sm_utf8_is_space(sm_utf8_decode(text + before, &size))) {
            break;
        }
        at = before;
    }
    return at;
}

static size_t skip_space_right(const char *text, size_t length, size_t at)
{
    size_t size;
    while (at < length && sm_utf8_is_space(sm_utf8_decode(text + at, &size))) {
        at += size;
    }
    return at;
}

static int push_part(sm_parts *parts, size_t start, size_t end, uint32_t id, sm_error *error)
{
    if (parts->count == parts->capacity) {
        size_t capacity = parts->capacity ? parts->capacity * 2 : 16;
        sm_part *items = realloc(parts->items, capacity * sizeof *items);
        if (!items) {
            return sm_fail(error, SM_NO_MEMORY, "out of memory");
        }
        parts->items = items;
        parts->capacity = capacity;
    }
    parts->items[parts->count++] = (sm_part){start, end, id};
    return SM_OK;
}

/* The longest added token that begins at `at`; its end, or 0. */
static size_t longest(const sm_trie *trie, const char *text, size_t length, size_t at, uint32_t *token)
{
    size_t end = 0;
    uint32_t node = trie->first[(unsigned char)text[at]];
    for (size_t next = at + 1; node; next++) {
        if (trie->nodes[node].token != SM_NO_TOKEN) {
            *token = trie->nodes[node].token;
            end = next;
        }
        node = next < length ? step(trie, node, (unsigned char)text[next]) : 0;
    }
    return end;
}

int sm_added_split(const sm_added *added, const sm_trie *trie, const char *text, size_t length, const uint8_t *guard,
                   bool guarded, sm_parts *out, sm_error *error)
{
    out->count = 0;
    size_t done = 0, at = 0;
    int code = SM_OK;
    while (code == SM_OK && trie->count && at < length) {
        uint32_t index = 0;
        size_t end = longest(trie, text, length, at, &index);
        if (!end) {
            at++;
            continue;
        }
        size_t start = at;
        at = end;
        const sm_added_token *token = &added->tokens[index];
        if ((token->special && guarded) ||
            ((token->special || token->control) && guard && memchr(guard + start, 1, end - start))) {
            /* A match that a guarded text makes alone is passed over whole, as the library does when told not to parse
             * special tokens. One that reaches over the border must not hide a token of the unguarded side. */
            bool whole = guarded || !memchr(guard + start, 0, end - start);
            at = whole ? end : start + 1;
            continue;
        }
        if (token->single_word) {
            bool alone;
            code = stands_alone(added, text, length, start, end, &alone, error);
            if (code != SM_OK || !alone) {
                continue;
            }
        }
        if (token->lstrip) {
            size_t left = skip_space_left(text, start);
            start = left > done ? left : done;
        }
        if (token->rstrip) {
            end = skip_space_right(text, length, end);
        }
        if (done < start) {
            code = push_part(out, done, start, SM_NO_TOKEN, error);
        }
        code = code != SM_OK ? code : push_part(out, start, end, token->id, error);
        done = end;
    }
    if (code == SM_OK && done < length) {
        code = push_part(out, done, length, SM_NO_TOKEN, error);
    }
    return code;
}
