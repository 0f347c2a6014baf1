/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/chat_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/json_file.h"

#define CONFIG_LIMIT ((size_t)16 << 20)

/* --- loading --- */

int sm_chat_parse(sm_chat **out, const char *source, size_t length, const char *name, const sm_tokenizer *tokenizer,
                  sm_error *error)
{
    *out = NULL;
    size_t valid = sm_utf8_valid(source, length);
    if (valid < length) {
        return sm_fail(error, SM_FORMAT, "%s: not UTF-8 at byte %zu", name, valid);
    }
    if (length > CHAT_MAX_SOURCE) {
        return sm_fail(error, SM_UNSUPPORTED, "%s: a chat template of %zu bytes; at most %zu are supported", name,
                       length, CHAT_MAX_SOURCE);
    }
    sm_error own;
    sm_chat *chat = calloc(1, sizeof *chat);
    if (!chat || !(chat->name = strdup(name))) {
        free(chat);
        return sm_fail(error, SM_NO_MEMORY, "out of memory");
    }
    chat->tokenizer = tokenizer;
    chat->run = (chat_run){.arena = {.limit = CHAT_MAX_MEMORY}, .name = chat->name, .error = error ? error : &own};
    chat_tokens tokens = {0};
    chat_lex(&chat->run, source, length, &tokens);
    chat->body = chat_parse_template(&chat->run, &tokens);
    if (chat->run.failed) {
        int code = chat->run.error->code;
        sm_chat_free(chat);
        return code;
    }
    *out = chat;
    return SM_OK;
}

void sm_chat_free(sm_chat *chat)
{
    if (chat) {
        chat_arena_free(&chat->run.arena);
        free(chat->name);
        free(chat);
    }
}

/* Whether the file is there; one that cannot be looked at is, so that reading it says why. */
static bool exists(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 || errno != ENOENT;
}

/* The template in a config: a string; a list of {"name", "template"} with one named "default"; or NULL for none. */
static int find_template(const json_t *config, const char *path, const json_t **out, sm_error *error)
{
    const json_t *value = json_object_get(config, "chat_template");
    *out = NULL;
    if (!value || json_is_null(value)) {
        return SM_OK;
    }
    if (json_is_string(value)) {
        *out = value;
        return SM_OK;
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *entry = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name && strcmp(name, "default") == 0 && json_is_string(json_object_get(entry, "template"))) {
            *out = json_object_get(entry, "template");
            return SM_OK;
        }
    }
    return sm_fail(error, SM_UNSUPPORTED,
                   "%s: \"chat_template\" must be a string, or a list with one named \"default\"", path);
}

static int load_config(sm_chat **out, const char *path, const sm_tokenizer *tokenizer, sm_error *error)
{
    sm_error own;
    error = error ? error : &own;
    json_t *config = sm_json_read(path, CONFIG_LIMIT, error);
    const json_t *template;
    if (!config) {
        return error->code;
    }
    int code = find_template(config, path, &template, error);
    if (code == SM_OK && template) {
        sm_text name = {0};
        if (sm_text_append(&name, path, strlen(path)) < 0 || sm_text_append(&name, ": chat_template", 15) < 0) {
            code = sm_fail(error, SM_NO_MEMORY, "out of memory");
        } else {
            code = sm_chat_parse(out, json_string_value(template), json_string_length(template), name.bytes, tokenizer,
                                 error);
        }
        sm_text_free(&name);
    }
    json_decref(config);
    return code;
}

int sm_chat_load(sm_chat **out, const char *dir, const sm_tokenizer *tokenizer, sm_error *error)
{
    *out = NULL;
    int code = SM_OK;
    char *file = sm_path(dir, "chat_template.jinja"), *config = sm_path(dir, "tokenizer_config.json");
    if (!file || !config) {
        code = sm_fail(error, SM_NO_MEMORY, "out of memory");
    } else if (exists(file)) {
        char *source = NULL;
        size_t length;
        code = sm_file_read(file, CHAT_MAX_SOURCE, &source, &length, error);
        code = code != SM_OK ? code : sm_chat_parse(out, source, length, file, tokenizer, error);
        free(source);
    } else if (exists(config)) {
        code = load_config(out, config, tokenizer, error);
    }
    free(file);
    free(config);
    return code;
}

/* --- rendering --- */

/* What a message brought is guarded. */
static chat_value from_outside(chat_run *run, const char *bytes, size_t length)
{
    size_t valid = sm_utf8_valid(bytes, length);
    if (valid < length) {
        chat_fail(run, 0, SM_BAD_ARGUMENT, "a message is not UTF-8 at byte %zu", valid);
    }
    char *copy = chat_alloc(run, 2 * length + 1);
    if (!copy) {
        return chat_undefined();
    }
    if (length) {
        memcpy(copy, bytes, length);
        memset(copy + length, 1, length);
    }
    return chat_text((chat_string){copy, (const uint8_t *)copy + length, length});
}

static chat_value message_list(chat_run *run, const sm_message *messages, size_t count)
{
    chat_value list = chat_new_list(run, count);
    for (size_t i = 0; i < count && !run->failed; i++) {
        chat_dict *dict = chat_alloc(run, sizeof *dict);
        if (dict) {
            chat_dict_set(run, dict, chat_literal("role"),
                          from_outside(run, messages[i].role, strlen(messages[i].role)));
            chat_dict_set(run, dict, chat_literal("content"),
                          from_outside(run, messages[i].content, messages[i].content_length));
            list.list->items[i] = (chat_value){.kind = CHAT_DICT, .dict = dict};
        }
    }
    return list;
}

static void set_token(chat_run *run, chat_dict *variables, const char *name, const sm_tokenizer *tokenizer, uint32_t id)
{
    size_t length;
    const char *text = sm_tokenizer_token_text(tokenizer, id, &length);
    if (text) {
        chat_dict_set(run, variables, chat_literal(name), chat_text((chat_string){text, NULL, length}));
    }
}

/* The variables that transformers gives a template; it has no tools or documents here. */
static void set_variables(chat_run *run, const sm_chat *chat, const sm_message *messages, size_t count, bool answer,
                          chat_dict *variables)
{
    const sm_tokenizer *t = chat->tokenizer;
    chat_value none = {.kind = CHAT_NONE};
    chat_dict_set(run, variables, chat_literal("messages"), message_list(run, messages, count));
    chat_dict_set(run, variables, chat_literal("add_generation_prompt"), chat_bool(answer));
    chat_dict_set(run, variables, chat_literal("tools"), none);
    chat_dict_set(run, variables, chat_literal("documents"), none);
    set_token(run, variables, "bos_token", t, sm_tokenizer_bos(t));
    set_token(run, variables, "eos_token", t, sm_tokenizer_eos(t));
    set_token(run, variables, "pad_token", t, sm_tokenizer_pad(t));
    set_token(run, variables, "unk_token", t, sm_tokenizer_unk(t));
}

int sm_chat_render(const sm_chat *chat, const sm_message *messages, size_t count, bool answer, sm_chat_text *out,
                   sm_error *error)
{
    sm_error own;
    chat_run run = {.arena = {.limit = CHAT_MAX_MEMORY}, .name = chat->name, .error = error ? error : &own};
    chat_scope scope = {0};
    chat_builder text = {0};
    *out = (sm_chat_text){0};
    set_variables(&run, chat, messages, count, answer, &scope.variables);
    chat_render_body(&run, chat->body, &scope, &text);
    if (!run.failed) {
        out->guard = malloc(text.length + 1);
        if (!out->guard || sm_text_append(&out->text, text.bytes, text.length) < 0) {
            chat_fail(&run, 0, SM_NO_MEMORY, "out of memory");
            sm_chat_text_free(out);
        } else if (text.length) {
            memcpy(out->guard, text.guard, text.length);
        }
    }
    chat_arena_free(&run.arena);
    return run.failed ? run.error->code : SM_OK;
}

void sm_chat_text_free(sm_chat_text *text)
{
    sm_text_free(&text->text);
    free(text->guard);
    *text = (sm_chat_text){0};
}

int sm_chat_encode(const sm_chat *chat, const sm_message *messages, size_t count, bool answer, sm_tokens *out,
                   sm_error *error)
{
    sm_chat_text text;
    int code = sm_chat_render(chat, messages, count, answer, &text, error);
    if (code == SM_OK) {
        code = sm_encode_guarded(chat->tokenizer, text.text.bytes, text.text.length, text.guard, SM_PARSE_SPECIAL, out,
                                 error);
        sm_chat_text_free(&text);
    }
    return code;
}
