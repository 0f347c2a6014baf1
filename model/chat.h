/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Chat templates: from messages to the text, and the token ids, that a model was trained on.
 *
 * A checkpoint's template is a program in Jinja. The part of the language that chat templates use is interpreted here;
 * anything else is refused, with its line, when the template is loaded. Output equals jinja2's with the settings of
 * transformers (trim_blocks, lstrip_blocks).
 *
 * What a user wrote never becomes a special token. Every byte of a rendered text knows whether the template wrote it
 * or whether it came from a message, through slicing, trimming, joining and replacing. When the text is encoded,
 * special tokens are recognized only in what the template wrote; the text is still tokenized as one, so that merges
 * across the border of the two are those of transformers.
 *
 * A loaded template never changes; any thread may render with it. Rendering is bounded in steps and memory.
 */
#ifndef MODEL_CHAT_H
#define MODEL_CHAT_H

#include "model/tokenizer.h"

typedef struct sm_chat sm_chat;

typedef struct sm_message {
    const char *role; /* "system", "user", "assistant", …: UTF-8, NUL-terminated, borrowed */
    const char *content;
    size_t content_length;
} sm_message;

typedef struct sm_chat_text {
    sm_text text;
    uint8_t *guard; /* text.length bytes: 1 where the byte came from a message, 0 where the template wrote it */
} sm_chat_text;

/* Reads the template of the checkpoint in `dir`: chat_template.jinja, or chat_template in tokenizer_config.json (a
 * string, or the one named "default" of a list). *out is NULL on failure, and also when SM_OK is returned for a
 * checkpoint that has no template: a base model, whose prompts are plain text. `tokenizer` is borrowed and must outlive
 * the chat. */
int sm_chat_load(sm_chat **out, const char *dir, const sm_tokenizer *tokenizer, sm_error *error);
/* The same for a template given as text; `name` stands for the file in messages. */
int sm_chat_parse(sm_chat **out, const char *source, size_t length, const char *name, const sm_tokenizer *tokenizer,
                  sm_error *error);
void sm_chat_free(sm_chat *chat);

/* Renders the messages; with `answer`, up to where the assistant's answer begins (add_generation_prompt). `out` starts
 * as {0} and is freed with sm_chat_text_free; it is empty after a failure. A template's own raise_exception() is an
 * error with its message. */
int sm_chat_render(const sm_chat *chat, const sm_message *messages, size_t count, bool answer, sm_chat_text *out,
                   sm_error *error);
void sm_chat_text_free(sm_chat_text *text);

/* Renders and encodes: appends the ids to `out`. No start token is added beyond what the template writes. */
int sm_chat_encode(const sm_chat *chat, const sm_message *messages, size_t count, bool answer, sm_tokens *out,
                   sm_error *error);

#endif
