/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a checkpoint's tokenizer files and putting the parts together.
 */
#include <config.h>

#include "model/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

#define TOKENIZER_LIMIT ((size_t)128 << 20)
#define CONFIG_LIMIT    ((size_t)16 << 20)

/* Puts "DIR/FILE: " before a part's message. */
static int in_file(const char *dir, const char *name, int code, sm_error *error)
{
    if (code == SM_OK || !error) {
        return code;
    }
    char text[sizeof error->text];
    memcpy(text, error->text, sizeof text);
    return sm_fail(error, code, "%.300s/%s: %s", dir, name, text);
}

/* A config gives a special token as a string or as an object with its flags. */
static const json_t *content_of(const json_t *value)
{
    const json_t *content = json_is_object(value) ? json_object_get(value, "content") : value;
    return json_is_string(content) ? content : NULL;
}

/* A token that a config calls special is one, if the vocabulary has it. */
static int make_special(sm_tokenizer *t, const json_t *value, sm_error *error)
{
    const json_t *content = content_of(value);
    sm_added_token flags = {.special = true};
    if (!content) {
        return SM_OK;
    }
    const char *text = json_string_value(content);
    size_t length = json_string_length(content);
    sm_added_token *known = sm_added_find(&t->added, text, length);
    if (known) {
        /* As in transformers, a token that is there keeps its flags. */
        return SM_OK;
    }
    if (sm_bpe_find(&t->bpe, text, length) == SM_NO_TOKEN) {
        return SM_OK;
    }
    if (json_is_object(value)) {
        int code = sm_json_bool_or(value, "lstrip", text, &flags.lstrip, error);
        code = code != SM_OK ? code : sm_json_bool_or(value, "rstrip", text, &flags.rstrip, error);
        code = code != SM_OK ? code : sm_json_bool_or(value, "single_word", text, &flags.single_word, error);
        code = code != SM_OK ? code : sm_json_bool_or(value, "normalized", text, &flags.normalized, error);
        if (code != SM_OK) {
            return code;
        }
    }
    return sm_added_add(&t->added, &t->bpe, &t->size, text, length, flags, SM_NO_TOKEN, error);
}

typedef struct decoder_entry {
    unsigned long id;
    const char *key;
    const json_t *value;
} decoder_entry;

static int by_id(const void *a, const void *b)
{
    unsigned long left = ((const decoder_entry *)a)->id, right = ((const decoder_entry *)b)->id;
    return (left > right) - (left < right);
}

static int add_decoder_entry(sm_tokenizer *t, const decoder_entry *entry, sm_error *error)
{
    const json_t *value = entry->value, *content = content_of(value);
    sm_added_token flags = {0};
    int code = sm_json_bool_or(value, "special", entry->key, &flags.special, error);
    flags.normalized = !flags.special;
    code = code != SM_OK ? code : sm_json_bool_or(value, "lstrip", entry->key, &flags.lstrip, error);
    code = code != SM_OK ? code : sm_json_bool_or(value, "rstrip", entry->key, &flags.rstrip, error);
    code = code != SM_OK ? code : sm_json_bool_or(value, "single_word", entry->key, &flags.single_word, error);
    code = code != SM_OK ? code : sm_json_bool_or(value, "normalized", entry->key, &flags.normalized, error);
    return code != SM_OK ? code
                         : sm_added_add(&t->added, &t->bpe, &t->size, json_string_value(content),
                                        json_string_length(content), flags, (uint32_t)entry->id, error);
}

/* added_tokens_decoder: { "id": {"content": …, flags} }, taken in order of the ids. Its flags go before those of
 * tokenizer.json. */
static int parse_added_decoder(sm_tokenizer *t, const json_t *config, sm_error *error)
{
    const json_t *list = json_object_get(config, "added_tokens_decoder");
    const char *key;
    json_t *value;
    if (!list || json_is_null(list)) {
        return SM_OK;
    }
    size_t limit = json_object_size(list), count = 0;
    if (!json_is_object(list) || limit > SM_MAX_ADDED) {
        return sm_fail(error, SM_FORMAT, "\"added_tokens_decoder\" must be an object of at most %d tokens",
                       SM_MAX_ADDED);
    }
    decoder_entry *entries = calloc(limit + 1, sizeof *entries);
    int code = entries ? SM_OK : sm_fail(error, SM_NO_MEMORY, "out of memory");
    json_object_foreach((json_t *)list, key, value)
    {
        char *end = NULL;
        unsigned long id = strtoul(key, &end, 10);
        if (code == SM_OK &&
            (end == key || *end || id > SM_MAX_TOKENS || !json_is_object(value) || !content_of(value))) {
            code = sm_fail(error, SM_FORMAT, "added_tokens_decoder: entry \"%.60s\" must be an id and a token", key);
        }
        if (code == SM_OK) {
            entries[count++] = (decoder_entry){id, key, value};
        }
    }
    if (code == SM_OK) {
        qsort(entries, count, sizeof *entries, by_id);
    }
    for (size_t i = 0; code == SM_OK && i < count; i++) {
        code = add_decoder_entry(t, &entries[i], error);
    }
    free(entries);
    return code;
}

static const char *const names[] = {"bos_token", "eos_token", "pad_token", "unk_token"};

static uint32_t *named(sm_tokenizer *t, size_t which)
{
    return which == 0 ? &t->bos : which == 1 ? &t->eos : which == 2 ? &t->pad : &t->unk;
}

static int parse_names(sm_tokenizer *t, const json_t *config, sm_error *error)
{
    static const char *const lists[] = {"additional_special_tokens", "extra_special_tokens"};
    int code = SM_OK;
    for (size_t i = 0; code == SM_OK && i < sizeof names / sizeof *names; i++) {
        const json_t *value = json_object_get(config, names[i]);
        const json_t *content = content_of(value);
        if (!value || json_is_null(value)) {
            continue;
        }
        if (!content) {
            return sm_fail(error, SM_FORMAT, "\"%s\" must be a string, or an object with \"content\"", names[i]);
        }
        code = make_special(t, value, error);
        if (*named(t, i) == SM_NO_TOKEN) {
            *named(t, i) = sm_tokenizer_find(t, json_string_value(content), json_string_length(content));
        }
        if (code == SM_OK && i < 2 && *named(t, i) == SM_NO_TOKEN) {
            code = sm_fail(error, SM_MISMATCH, "\"%s\" is \"%.60s\", which is not in tokenizer.json", names[i],
                           json_string_value(content));
        }
    }
    for (size_t i = 0; code == SM_OK && i < 2; i++) {
        const json_t *list = json_object_get(config, lists[i]);
        for (size_t j = 0; code == SM_OK && j < json_array_size(list); j++) {
            code = make_special(t, json_array_get(list, j), error);
        }
    }
    return code;
}

static int parse_config(sm_tokenizer *t, const json_t *config, sm_error *error)
{
    bool clean = false, even_bpe = false, add_bos = false, add_eos = false;
    int code = sm_json_bool_or(config, "clean_up_tokenization_spaces", "clean-up", &clean, error);
    code = code != SM_OK
               ? code
               : sm_json_bool_or(config, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
                                 "clean-up", &even_bpe, error);
    /* Alone, the first is ignored for BPE, as transformers does. */
    if (code == SM_OK && clean && even_bpe) {
        code = sm_fail(error, SM_UNSUPPORTED, "\"clean_up_tokenization_spaces_for_bpe…\" is not supported; remove it");
    }
    code = code != SM_OK ? code : parse_added_decoder(t, config, error);
    code = code != SM_OK ? code : parse_names(t, config, error);
    code = code != SM_OK ? code : sm_json_bool_or(config, "add_bos_token", "start token", &add_bos, error);
    code = code != SM_OK ? code : sm_json_bool_or(config, "add_eos_token", "end token", &add_eos, error);
    /* The template in tokenizer.json decides; these speak where it has none. */
    if (code == SM_OK && !t->frame.templated &&
        ((add_bos && t->bos != SM_NO_TOKEN && sm_tokens_push(&t->frame.before, t->bos) < 0) ||
         (add_eos && t->eos != SM_NO_TOKEN && sm_tokens_push(&t->frame.after, t->eos) < 0))) {
        code = sm_fail(error, SM_NO_MEMORY, "out of memory");
    }
    return code;
}

static int push_stop(sm_tokenizer *t, const json_t *id, sm_error *error)
{
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX) {
        return sm_fail(error, SM_FORMAT, "\"eos_token_id\" must be an id or a list of ids");
    }
    return sm_tokens_push(&t->stop_ids, (uint32_t)json_integer_value(id)) < 0
               ? sm_fail(error, SM_NO_MEMORY, "out of memory")
               : SM_OK;
}

static int parse_generation(sm_tokenizer *t, const json_t *config, sm_error *error)
{
    const json_t *eos = json_object_get(config, "eos_token_id"), *bos = json_object_get(config, "bos_token_id");
    int code = SM_OK;
    if (t->stop_ids.count) {
        return SM_OK;
    }
    if (json_is_array(eos) && json_array_size(eos) <= 1024) {
        for (size_t i = 0; code == SM_OK && i < json_array_size(eos); i++) {
            code = push_stop(t, json_array_get(eos, i), error);
        }
    } else if (eos && !json_is_null(eos)) {
        code = push_stop(t, eos, error);
    }
    /* Names in tokenizer_config.json come first; a folder without it still has its start and end. */
    if (code == SM_OK && t->eos == SM_NO_TOKEN && t->stop_ids.count && t->stop_ids.ids[0] < t->size) {
        t->eos = t->stop_ids.ids[0];
    }
    if (code == SM_OK && t->bos == SM_NO_TOKEN && json_is_integer(bos) && json_integer_value(bos) >= 0 &&
        json_integer_value(bos) < t->size) {
        t->bos = (uint32_t)json_integer_value(bos);
    }
    return code;
}

/* Reads `dir`/`name`, if it is there, and gives it to `parse`. */
static int read_optional(sm_tokenizer *t, const char *dir, const char *name,
                         int (*parse)(sm_tokenizer *, const json_t *, sm_error *), sm_error *error)
{
    json_t *config = NULL;
    bool missing;
    int code = sm_read_json(dir, name, CONFIG_LIMIT, &config, &missing, error);
    if (code == SM_OK && !missing) {
        code = in_file(dir, name, parse(t, config, error), error);
    }
    json_decref(config);
    return code;
}

/* Added tokens that are searched in normalized text are searched, and decoded, in their own normalized form. */
static int normalize_added(sm_tokenizer *t, sm_error *error)
{
    int code = SM_OK;
    for (size_t i = 0; code == SM_OK && i < t->added.count; i++) {
        sm_added_token *token = &t->added.tokens[i];
        sm_normal normal = {0};
        if (!token->normalized || !t->normalizer.count) {
            continue;
        }
        code = sm_normalize(&t->normalizer, token->content, token->length, NULL, false, &normal, error);
        if (code == SM_OK &&
            (normal.text.length != token->length || memcmp(normal.text.bytes, token->content, token->length) != 0)) {
            token->normalized_content = normal.text;
            normal.text = (sm_text){0};
        }
        sm_normal_free(&normal);
    }
    return code;
}

/* Tables by id, once all tokens are there. */
static int index_tokens(sm_tokenizer *t, sm_error *error)
{
    size_t words = t->size / 64 + 1;
    t->added_index = malloc(((size_t)t->size + 1) * sizeof *t->added_index);
    t->special = calloc(words, sizeof *t->special);
    t->skipped = calloc(words, sizeof *t->skipped);
    if (!t->added_index || !t->special || !t->skipped) {
        return sm_fail(error, SM_NO_MEMORY, "out of memory");
    }
    memset(t->added_index, 0xff, ((size_t)t->size + 1) * sizeof *t->added_index);
    for (size_t i = 0; i < t->added.count; i++) {
        const sm_added_token *token = &t->added.tokens[i];
        size_t length;
        t->added_index[token->id] = (uint32_t)i;
        const char *text = sm_token_for_decoder(t, token->id, &length);
        const sm_added_token *same = sm_added_find(&t->added, text, length);
        if (same && same->special) {
            t->skipped[token->id / 64] |= (uint64_t)1 << token->id % 64;
        }
        if (token->special) {
            t->special[token->id / 64] |= (uint64_t)1 << token->id % 64;
        }
    }
    for (uint32_t id = 0; id < t->size; id++) {
        if (sm_bit(t->special, id) && sm_tokens_push(&t->special_ids, id) < 0) {
            return sm_fail(error, SM_NO_MEMORY, "out of memory");
        }
    }
    t->bpe.special = t->special;
    return SM_OK;
}

static int parse_file(sm_tokenizer *t, const json_t *root, sm_error *error)
{
    const char *version = json_string_value(json_object_get(root, "version"));
    if (version && strcmp(version, "1.0") != 0) {
        return sm_fail(error, SM_UNSUPPORTED, "version \"%.60s\" is not supported; 1.0 is", version);
    }
    int code = sm_bpe_parse_vocabulary(&t->bpe, json_object_get(root, "model"), error);
    t->size = t->bpe.size;
    code = code != SM_OK ? code
                         : sm_added_parse(&t->added, &t->bpe, &t->size, json_object_get(root, "added_tokens"), error);
    code = code != SM_OK ? code : sm_normalizer_parse(&t->normalizer, json_object_get(root, "normalizer"), error);
    code = code != SM_OK ? code : sm_splitter_parse(&t->splitter, json_object_get(root, "pre_tokenizer"), error);
    code = code != SM_OK ? code : sm_frame_parse(&t->frame, json_object_get(root, "post_processor"), t->size, error);
    return code != SM_OK ? code : sm_unsplitter_parse(&t->unsplitter, json_object_get(root, "decoder"), error);
}

int sm_tokenizer_load(sm_tokenizer **out, const char *dir, sm_error *error)
{
    static const char file[] = "tokenizer.json";
    sm_error own; /* the parts read the code back from their error */
    error = error ? error : &own;
    *out = NULL;
    json_t *root = NULL;
    sm_tokenizer *t = calloc(1, sizeof *t);
    if (!t) {
        return sm_fail(error, SM_NO_MEMORY, "out of memory");
    }
    t->bos = t->eos = t->pad = t->unk = SM_NO_TOKEN;
    int code = sm_read_json(dir, file, TOKENIZER_LIMIT, &root, NULL, error);
    if (code == SM_OK) {
        code = in_file(dir, file, parse_file(t, root, error), error);
    }
    if (code == SM_OK) {
        t->unk = t->bpe.unk;
        code = read_optional(t, dir, "tokenizer_config.json", parse_config, error);
    }
    code = code != SM_OK ? code : read_optional(t, dir, "special_tokens_map.json", parse_names, error);
    code = code != SM_OK ? code : read_optional(t, dir, "generation_config.json", parse_generation, error);
    code = code != SM_OK ? code : read_optional(t, dir, "config.json", parse_generation, error);
    if (code == SM_OK && !t->stop_ids.count && t->eos != SM_NO_TOKEN && sm_tokens_push(&t->stop_ids, t->eos) < 0) {
        code = sm_fail(error, SM_NO_MEMORY, "out of memory");
    }
    if (code == SM_OK) {
        code = normalize_added(t, error);
        code = code != SM_OK ? code : index_tokens(t, error);
        code = code != SM_OK ? code : sm_added_build(&t->added, error);
        code = code != SM_OK ? code : sm_bpe_parse_merges(&t->bpe, json_object_get(root, "model"), error);
        code = in_file(dir, file, code, error);
    }
    json_decref(root);
    if (code != SM_OK) {
        sm_tokenizer_free(t);
        return code;
    }
    *out = t;
    return SM_OK;
}
