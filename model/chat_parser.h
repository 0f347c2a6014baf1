/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The parser of chat templates: what its two halves, statements (chat_parse.c) and expressions (chat_expression.c),
 * share. The grammar is jinja2's, as far as chat templates use it. What is not known is refused here, with its line, so
 * that a template that loads does not stop half-way for want of a feature.
 */
#ifndef MODEL_CHAT_PARSER_H
#define MODEL_CHAT_PARSER_H

#include "model/chat_parts.h"

typedef struct chat_parser {
    chat_run *run;
    const chat_token *token; /* the next one */
    int nesting;             /* of statements and expressions being parsed */
    int loops;               /* around the statement being parsed */
} chat_parser;

/* Fails: what stands here is not what is `wanted`. */
void chat_unexpected(chat_parser *p, const char *wanted);
const char *chat_describe(const chat_token *token, char to[48]);
bool chat_at_operator(const chat_parser *p, const char *text);
bool chat_at_name(const chat_parser *p, const char *text);
void chat_next(chat_parser *p);
/* Moves on if that is what stands here. */
bool chat_take_operator(chat_parser *p, const char *text);
bool chat_take_name(chat_parser *p, const char *text);
/* Fails if it is not. */
void chat_expect_operator(chat_parser *p, const char *text);
chat_string chat_expect_name(chat_parser *p);
/* One level deeper; the caller takes it back (nesting--) when it was granted. */
bool chat_enter(chat_parser *p);

/* Never NULL, also after a failure. */
chat_node *chat_parse_expression(chat_parser *p);
/* The same without "a if b else c". */
chat_node *chat_parse_condition(chat_parser *p);

#endif
