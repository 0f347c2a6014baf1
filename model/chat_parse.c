/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens to a tree: statements.
 */
#include "model/chat_parser.h"

#include <string.h>

static chat_statement *body(chat_parser *p, const char *const *ends);

static chat_statement *new_statement(chat_parser *p, chat_statement_kind kind, int line)
{
    static chat_statement nothing = {.kind = CHAT_DATA};
    chat_statement *statement = chat_alloc(p->run, sizeof *statement);
    if (!statement) {
        return &nothing;
    }
    statement->kind = kind;
    statement->line = line;
    return statement;
}

static void block_end(chat_parser *p)
{
    if (p->token->kind != CHAT_TOKEN_BLOCK_END) {
        chat_unexpected(p, "\"%}\"");
    }
    chat_next(p);
}

/* The name that ends a body, and the tag's end. */
static void end_block(chat_parser *p, const char *text)
{
    if (!chat_take_name(p, text)) {
        chat_unexpected(p, text);
    }
    block_end(p);
}

static const char *const if_ends[] = {"elif", "else", "endif", NULL};
static const char *const endif_ends[] = {"endif", NULL};
static const char *const for_ends[] = {"else", "endfor", NULL};
static const char *const endfor_ends[] = {"endfor", NULL};
static const char *const set_ends[] = {"endset", NULL};
static const char *const generation_ends[] = {"endgeneration", NULL};

static chat_statement *parse_if(chat_parser *p, int line)
{
    chat_statement *first = new_statement(p, CHAT_IF, line), *last = first;
    for (;;) {
        chat_node *condition = chat_parse_expression(p);
        block_end(p);
        chat_statement *inside = body(p, if_ends);
        if (p->run->failed) {
            return first;
        }
        last->expression = condition;
        last->body = inside;
        int at = p->token->line;
        if (chat_take_name(p, "elif")) {
            last->other = new_statement(p, CHAT_IF, at);
            last = last->other;
            continue;
        }
        if (chat_take_name(p, "else")) {
            block_end(p);
            inside = body(p, endif_ends);
            if (p->run->failed) {
                return first;
            }
            last->other = inside;
        }
        end_block(p, "endif");
        return first;
    }
}

static chat_statement *parse_for(chat_parser *p, int line)
{
    chat_statement *s = new_statement(p, CHAT_FOR, line);
    chat_string targets[2];
    size_t count = 1;
    bool bracket = chat_take_operator(p, "(");
    targets[0] = chat_expect_name(p);
    if (chat_take_operator(p, ",")) {
        targets[count++] = chat_expect_name(p);
    }
    if (bracket) {
        chat_expect_operator(p, ")");
    }
    if (!chat_take_name(p, "in")) {
        chat_unexpected(p, "\"in\"");
    }
    /* Without the inline if: here "if" begins the loop's own condition. */
    chat_node *items = chat_parse_condition(p), *condition = chat_take_name(p, "if") ? chat_parse_expression(p) : NULL;
    if (chat_at_name(p, "recursive")) {
        chat_fail(p->run, line, SM_UNSUPPORTED, "recursive loops are not supported");
    }
    block_end(p);
    p->loops++;
    chat_statement *inside = body(p, for_ends), *other = NULL;
    p->loops--;
    if (chat_take_name(p, "else")) {
        block_end(p);
        other = body(p, endfor_ends);
    }
    end_block(p, "endfor");
    if (!p->run->failed) {
        memcpy(s->targets, targets, sizeof targets);
        s->target_count = count;
        s->expression = items;
        s->filter = condition;
        s->body = inside;
        s->other = other;
    }
    return s;
}

static chat_statement *parse_set(chat_parser *p, int line)
{
    chat_statement *s = new_statement(p, CHAT_SET, line);
    chat_string text = chat_expect_name(p), attribute = {0};
    chat_node *value = NULL;
    chat_statement *inside = NULL;
    if (chat_take_operator(p, ".")) {
        attribute = chat_expect_name(p);
    }
    if (chat_take_operator(p, "=")) {
        value = chat_parse_expression(p);
        if (chat_at_operator(p, ",")) {
            chat_fail(p->run, line, SM_UNSUPPORTED, "setting a tuple without parentheses is not supported");
        }
        block_end(p);
    } else if (p->token->kind == CHAT_TOKEN_BLOCK_END && !attribute.length) {
        block_end(p);
        inside = body(p, set_ends);
        end_block(p, "endset");
    } else {
        chat_unexpected(p, "\"=\"");
    }
    if (!p->run->failed) {
        s->kind = value ? CHAT_SET : CHAT_SET_BLOCK;
        s->text = text;
        s->attribute = attribute;
        s->expression = value;
        s->body = inside;
    }
    return s;
}

static chat_statement *parse_block(chat_parser *p)
{
    int line = p->token->line;
    chat_statement *s = NULL;
    if (chat_take_name(p, "if")) {
        return parse_if(p, line);
    }
    if (chat_take_name(p, "for")) {
        return parse_for(p, line);
    }
    if (chat_take_name(p, "set")) {
        return parse_set(p, line);
    }
    if (chat_take_name(p, "generation")) {
        /* transformers' own tag, which marks the assistant's text. */
        block_end(p);
        chat_statement *inside = body(p, generation_ends);
        end_block(p, "endgeneration");
        s = new_statement(p, CHAT_SCOPE, line);
        if (!p->run->failed) {
            s->body = inside;
        }
        return s;
    }
    if (p->loops && (chat_at_name(p, "break") || chat_at_name(p, "continue"))) {
        s = new_statement(p, chat_at_name(p, "break") ? CHAT_BREAK : CHAT_CONTINUE, line);
        chat_next(p);
        block_end(p);
        return s;
    }
    char text[48];
    chat_fail(p->run, line, SM_UNSUPPORTED,
              "the statement %s is not supported here; if, for, set, break, continue and generation are",
              chat_describe(p->token, text));
    return NULL;
}

/* Statements up to a tag that begins with one of `ends`, which is left standing; without ends, to the last. */
static chat_statement *body(chat_parser *p, const char *const *ends)
{
    chat_statement *first = NULL, **link = &first;
    if (!chat_enter(p)) {
        return NULL;
    }
    while (!p->run->failed) {
        chat_statement *s;
        const chat_token *token = p->token;
        chat_next(p);
        if (token->kind == CHAT_TOKEN_END) {
            if (ends) {
                chat_fail(p->run, token->line, SM_FORMAT, "the template ends where \"%s\" was expected",
                          ends[1] ? ends[2] ? ends[2] : ends[1] : ends[0]);
            }
            break;
        }
        if (token->kind == CHAT_TOKEN_DATA) {
            s = new_statement(p, CHAT_DATA, token->line);
            s->text = token->text;
        } else if (token->kind == CHAT_TOKEN_PRINT) {
            s = new_statement(p, CHAT_PRINT, token->line);
            chat_node *value = chat_parse_expression(p);
            if (p->token->kind != CHAT_TOKEN_PRINT_END) {
                chat_unexpected(p, "\"}}\"");
            }
            chat_next(p);
            if (!p->run->failed) {
                s->expression = value;
            }
        } else {
            bool end = false;
            for (size_t i = 0; ends && ends[i]; i++) {
                end |= chat_at_name(p, ends[i]);
            }
            if (end) {
                break;
            }
            s = parse_block(p);
        }
        if (!p->run->failed) {
            *link = s;
            link = &s->next;
        }
    }
    p->nesting--;
    return first;
}

chat_statement *chat_parse_template(chat_run *run, const chat_tokens *tokens)
{
    chat_parser p = {run, tokens->items, 0, 0};
    return run->failed ? NULL : body(&p, NULL);
}
