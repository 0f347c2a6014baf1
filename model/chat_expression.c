/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens to a tree: expressions, with jinja2's ranks of operators.
 */
#include "model/chat_parser.h"

#include <stdio.h>
#include <string.h>

static chat_node *unary(chat_parser *p, bool with_filters);

/* --- tokens --- */

const char *chat_describe(const chat_token *token, char to[48])
{
    switch (token->kind) {
    case CHAT_TOKEN_END:
        return "the end of the template";
    case CHAT_TOKEN_BLOCK_END:
        return "\"%}\"";
    case CHAT_TOKEN_PRINT_END:
        return "\"}}\"";
    case CHAT_TOKEN_STRING:
        return "a string";
    default:
        snprintf(to, 48, "\"%.*s\"", (int)(token->text.length < 40 ? token->text.length : 40), token->text.bytes);
        return to;
    }
}

void chat_unexpected(chat_parser *p, const char *wanted)
{
    char text[48];
    chat_fail(p->run, p->token->line, SM_FORMAT, "found %s where %s was expected", chat_describe(p->token, text),
              wanted);
}

bool chat_at_operator(const chat_parser *p, const char *text)
{
    return p->token->kind == CHAT_TOKEN_OPERATOR && chat_is(p->token->text, text);
}

bool chat_at_name(const chat_parser *p, const char *text)
{
    return p->token->kind == CHAT_TOKEN_NAME && chat_is(p->token->text, text);
}

void chat_next(chat_parser *p)
{
    if (p->token->kind != CHAT_TOKEN_END) {
        p->token++;
    }
}

bool chat_take_operator(chat_parser *p, const char *text)
{
    bool there = chat_at_operator(p, text);
    if (there) {
        chat_next(p);
    }
    return there;
}

bool chat_take_name(chat_parser *p, const char *text)
{
    bool there = chat_at_name(p, text);
    if (there) {
        chat_next(p);
    }
    return there;
}

void chat_expect_operator(chat_parser *p, const char *text)
{
    char quoted[8];
    if (!chat_take_operator(p, text)) {
        snprintf(quoted, sizeof quoted, "\"%s\"", text);
        chat_unexpected(p, quoted);
    }
}

chat_string chat_expect_name(chat_parser *p)
{
    chat_string text = p->token->text;
    if (p->token->kind != CHAT_TOKEN_NAME) {
        chat_unexpected(p, "a name");
        return chat_literal("");
    }
    chat_next(p);
    return text;
}

bool chat_enter(chat_parser *p)
{
    if (!p->run->failed && ++p->nesting > CHAT_MAX_DEPTH) {
        chat_fail(p->run, p->token->line, SM_UNSUPPORTED, "more than %d levels of nesting", CHAT_MAX_DEPTH);
    }
    return !p->run->failed;
}

/* --- expressions --- */

/* Never NULL, so that parsing can go on to where it notices the failure. */
static chat_node *new_node(chat_parser *p, chat_node_kind kind, int line, chat_node *a, chat_node *b, chat_node *c)
{
    static chat_node nothing = {.kind = CHAT_CONSTANT};
    chat_node *node = chat_alloc(p->run, sizeof *node);
    if (!node) {
        return &nothing;
    }
    *node = (chat_node){.kind = kind, .line = line, .a = a, .b = b, .c = c};
    chat_node *parts[] = {a, b, c};
    for (size_t i = 0; i < 3; i++) {
        if (parts[i] && parts[i]->depth >= node->depth) {
            node->depth = parts[i]->depth + 1;
        }
    }
    /* Chains like a + b + c grow without nesting in the source. */
    if (node->depth > 4 * CHAT_MAX_DEPTH) {
        chat_fail(p->run, line, SM_UNSUPPORTED, "an expression of more than %d operations in a row",
                  4 * CHAT_MAX_DEPTH);
    }
    return node;
}

static void add_item(chat_parser *p, chat_node *node, chat_node *item, chat_string name)
{
    size_t capacity = 4;
    while (capacity < node->count) {
        capacity *= 2;
    }
    if (node->count == 0 || node->count == capacity) {
        capacity = node->count ? 2 * capacity : capacity;
        chat_node **items = chat_alloc(p->run, capacity * sizeof *items);
        chat_string *names = chat_alloc(p->run, capacity * sizeof *names);
        if (!items || !names) {
            return;
        }
        if (node->count) {
            memcpy(items, node->items, node->count * sizeof *items);
            memcpy(names, node->names, node->count * sizeof *names);
        }
        node->items = items;
        node->names = names;
    }
    node->items[node->count] = item;
    node->names[node->count++] = name;
    if (item->depth >= node->depth) {
        node->depth = item->depth + 1;
    }
}

static chat_node *constant(chat_parser *p, int line, chat_value value)
{
    chat_node *node = new_node(p, CHAT_CONSTANT, line, NULL, NULL, NULL);
    if (!p->run->failed) {
        node->value = value;
    }
    return node;
}

/* (a, b, name=c), behind its opening parenthesis. */
static void arguments(chat_parser *p, chat_node *call)
{
    bool named = false;
    while (!p->run->failed && !chat_take_operator(p, ")")) {
        chat_string name = {0};
        if (p->token->kind == CHAT_TOKEN_NAME && p->token[1].kind == CHAT_TOKEN_OPERATOR &&
            chat_is(p->token[1].text, "=")) {
            name = p->token->text;
            named = true;
            p->token += 2;
        } else if (named) {
            chat_unexpected(p, "a named argument");
        }
        if (chat_at_operator(p, "*") || chat_at_operator(p, "**")) {
            chat_fail(p->run, p->token->line, SM_UNSUPPORTED, "unpacked arguments are not supported");
        }
        add_item(p, call, chat_parse_expression(p), name);
        if (!chat_at_operator(p, ")")) {
            chat_expect_operator(p, ",");
        }
    }
}

/* The rest of a list or a tuple; a tuple is a list that nobody can change, as all lists are here. */
static chat_node *list(chat_parser *p, int line, const char *end, chat_node *first)
{
    chat_node *node = new_node(p, CHAT_NEW_LIST, line, NULL, NULL, NULL);
    if (first) {
        add_item(p, node, first, (chat_string){0});
    }
    while (!p->run->failed && !chat_take_operator(p, end)) {
        add_item(p, node, chat_parse_expression(p), (chat_string){0});
        if (!chat_at_operator(p, end)) {
            chat_expect_operator(p, ",");
        }
    }
    return node;
}

static chat_node *dict(chat_parser *p, int line)
{
    chat_node *node = new_node(p, CHAT_NEW_DICT, line, NULL, NULL, NULL);
    while (!p->run->failed && !chat_take_operator(p, "}")) {
        add_item(p, node, chat_parse_expression(p), (chat_string){0});
        chat_expect_operator(p, ":");
        add_item(p, node, chat_parse_expression(p), (chat_string){0});
        if (!chat_at_operator(p, "}")) {
            chat_expect_operator(p, ",");
        }
    }
    return node;
}

static chat_node *parenthesis(chat_parser *p, int line)
{
    if (chat_take_operator(p, ")")) {
        return new_node(p, CHAT_NEW_LIST, line, NULL, NULL, NULL);
    }
    chat_node *node = chat_parse_expression(p);
    if (chat_take_operator(p, ",")) {
        return list(p, line, ")", node);
    }
    chat_expect_operator(p, ")");
    return node;
}

static chat_node *string(chat_parser *p, int line)
{
    chat_builder text = {0};
    chat_string one = p->token->text;
    chat_next(p);
    if (p->token->kind != CHAT_TOKEN_STRING) {
        return constant(p, line, chat_text(one));
    }
    chat_put(p->run, &text, one);
    for (; p->token->kind == CHAT_TOKEN_STRING; chat_next(p)) {
        chat_put(p->run, &text, p->token->text);
    }
    one = chat_built(&text);
    one.guard = NULL;
    return constant(p, line, chat_text(one));
}

static chat_node *name(chat_parser *p, int line)
{
    static const struct {
        const char *name;
        chat_value value;
    } constants[] = {
        {"true", {.kind = CHAT_BOOL, .number = 1}},
        {"True", {.kind = CHAT_BOOL, .number = 1}},
        {"false", {.kind = CHAT_BOOL, .number = 0}},
        {"False", {.kind = CHAT_BOOL, .number = 0}},
        {"none", {.kind = CHAT_NONE}},
        {"None", {.kind = CHAT_NONE}},
    };
    chat_string text = chat_expect_name(p);
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (chat_is(text, constants[i].name)) {
            return constant(p, line, constants[i].value);
        }
    }
    chat_node *node = new_node(p, CHAT_NAME, line, NULL, NULL, NULL);
    if (!p->run->failed) {
        node->text = text;
    }
    return node;
}

static chat_node *primary(chat_parser *p)
{
    int line = p->token->line;
    switch (p->token->kind) {
    case CHAT_TOKEN_NAME:
        return name(p, line);
    case CHAT_TOKEN_STRING:
        return string(p, line);
    case CHAT_TOKEN_INT: {
        chat_node *node = constant(p, line, chat_int(p->token->number));
        chat_next(p);
        return node;
    }
    default:
        if (chat_take_operator(p, "(")) {
            return parenthesis(p, line);
        }
        if (chat_take_operator(p, "[")) {
            return list(p, line, "]", NULL);
        }
        if (chat_take_operator(p, "{")) {
            return dict(p, line);
        }
        chat_unexpected(p, "an expression");
        return new_node(p, CHAT_CONSTANT, line, NULL, NULL, NULL);
    }
}

/* [index] or [from:to:step], behind its opening bracket. */
static chat_node *subscript(chat_parser *p, chat_node *object, int line)
{
    chat_node *bound[3] = {NULL, NULL, NULL};
    bool slice = false;
    for (size_t i = 0; i < 3; i++) {
        if (!chat_at_operator(p, ":") && !chat_at_operator(p, "]")) {
            bound[i] = chat_parse_expression(p);
        }
        if (i == 2 || !chat_take_operator(p, ":")) {
            break;
        }
        slice = true;
    }
    if (!slice && !bound[0]) {
        chat_unexpected(p, "an index");
    }
    chat_expect_operator(p, "]");
    chat_node *node = new_node(p, slice ? CHAT_SLICE : CHAT_ITEM, line, object, bound[0], bound[1]);
    if (!p->run->failed) {
        node->d = bound[2];
    }
    return node;
}

static void refuse(chat_parser *p, int line, const char *kind, chat_string text)
{
    chat_fail(p->run, line, SM_UNSUPPORTED, "the %s \"%.*s\" is not supported", kind,
              (int)(text.length < 40 ? text.length : 40), text.bytes);
}

/* .name, .method(…), [index], and calls of the known functions. */
static chat_node *postfix(chat_parser *p, chat_node *node)
{
    while (!p->run->failed) {
        int line = p->token->line;
        if (chat_take_operator(p, ".")) {
            chat_string text = chat_expect_name(p);
            bool call = chat_take_operator(p, "(");
            node = new_node(p, call ? CHAT_METHOD : CHAT_ATTRIBUTE, line, node, NULL, NULL);
            if (p->run->failed) {
                break;
            }
            node->text = text;
            if (call && !chat_known_method(text)) {
                refuse(p, line, "method", text);
            } else if (call) {
                arguments(p, node);
            }
        } else if (chat_take_operator(p, "[")) {
            node = subscript(p, node, line);
        } else if (chat_at_operator(p, "(")) {
            if (node->kind != CHAT_NAME) {
                chat_fail(p->run, line, SM_UNSUPPORTED, "calling what is no name is not supported");
            } else if (!chat_known_function(node->text)) {
                refuse(p, line, "function", node->text);
            } else {
                chat_next(p);
                chat_string text = node->text;
                node = new_node(p, CHAT_FUNCTION, line, NULL, NULL, NULL);
                if (!p->run->failed) {
                    node->text = text;
                    arguments(p, node);
                }
            }
        } else {
            break;
        }
    }
    return node;
}

static chat_node *filter(chat_parser *p, chat_node *value, int line)
{
    chat_string text = chat_expect_name(p);
    chat_node *node = new_node(p, CHAT_FILTER, line, value, NULL, NULL);
    if (p->run->failed) {
        return node;
    }
    node->text = text;
    if (!chat_known_filter(text)) {
        refuse(p, line, "filter", text);
    } else if (chat_take_operator(p, "(")) {
        arguments(p, node);
    }
    return node;
}

/* is [not] name, with its argument in parentheses or behind a blank. */
static chat_node *test(chat_parser *p, chat_node *value, int line)
{
    bool negated = chat_take_name(p, "not");
    chat_string text = chat_expect_name(p);
    chat_node *node = new_node(p, CHAT_TEST, line, value, NULL, NULL);
    if (p->run->failed) {
        return node;
    }
    node->text = text;
    bool operand = p->token->kind == CHAT_TOKEN_STRING || p->token->kind == CHAT_TOKEN_INT ||
                   (p->token->kind == CHAT_TOKEN_NAME && !chat_at_name(p, "else") && !chat_at_name(p, "or") &&
                    !chat_at_name(p, "and") && !chat_at_name(p, "is") && !chat_at_name(p, "if") &&
                    !chat_at_name(p, "in") && !chat_at_name(p, "not"));
    if (!chat_known_test(text)) {
        refuse(p, line, "test", text);
    } else if (chat_take_operator(p, "(")) {
        arguments(p, node);
    } else if (operand || chat_at_operator(p, "[") || chat_at_operator(p, "{")) {
        add_item(p, node, postfix(p, primary(p)), (chat_string){0});
    }
    return negated ? new_node(p, CHAT_NOT, line, node, NULL, NULL) : node;
}

static chat_node *filters_and_tests(chat_parser *p, chat_node *node)
{
    while (!p->run->failed) {
        int line = p->token->line;
        if (chat_take_operator(p, "|")) {
            node = filter(p, node, line);
        } else if (chat_take_name(p, "is")) {
            node = test(p, node, line);
        } else if (chat_at_operator(p, "(")) {
            chat_fail(p->run, line, SM_UNSUPPORTED, "calling what is no name is not supported");
        } else {
            break;
        }
    }
    return node;
}

static chat_node *unary(chat_parser *p, bool with_filters)
{
    int line = p->token->line;
    chat_node *node;
    if (!chat_enter(p)) {
        return primary(p);
    }
    if (chat_take_operator(p, "-")) {
        node = new_node(p, CHAT_NEGATE, line, unary(p, false), NULL, NULL);
    } else if (chat_take_operator(p, "+")) {
        node = unary(p, false);
    } else {
        node = primary(p);
    }
    node = postfix(p, node);
    node = with_filters ? filters_and_tests(p, node) : node;
    p->nesting--;
    return node;
}

/* Left-associative operators of one rank; the next rank binds tighter. Ranks: + and -; ~; * / // %. */
static chat_node *binary(chat_parser *p, int rank)
{
    static const char *const operators[][5] = {{"+", "-", NULL}, {"~", NULL}, {"*", "//", "/", "%", NULL}};
    chat_node *node = rank == 2 ? unary(p, true) : binary(p, rank + 1);
    for (size_t i = 0; !p->run->failed && operators[rank][i];) {
        int line = p->token->line;
        if (chat_take_operator(p, operators[rank][i])) {
            chat_node *right = rank == 2 ? unary(p, true) : binary(p, rank + 1);
            node = new_node(p, CHAT_BINARY, line, node, right, NULL);
            if (!p->run->failed) {
                node->text = chat_literal(operators[rank][i]);
            }
            i = 0;
        } else {
            i++;
        }
    }
    if (rank == 2 && chat_at_operator(p, "**")) {
        chat_fail(p->run, p->token->line, SM_UNSUPPORTED, "powers are not supported");
    }
    return node;
}

static const char *take_comparison(chat_parser *p)
{
    static const char *const operators[] = {"==", "!=", ">=", "<=", ">", "<"};
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (chat_take_operator(p, operators[i])) {
            return operators[i];
        }
    }
    if (chat_take_name(p, "in")) {
        return "in";
    }
    if (chat_at_name(p, "not") && p->token[1].kind == CHAT_TOKEN_NAME && chat_is(p->token[1].text, "in")) {
        p->token += 2;
        return "not in";
    }
    return NULL;
}

/* a < b < c is a < b and b < c. */
static chat_node *comparison(chat_parser *p)
{
    chat_node *left = binary(p, 0), *all = NULL;
    while (!p->run->failed) {
        int line = p->token->line;
        const char *text = take_comparison(p);
        if (!text) {
            break;
        }
        chat_node *right = binary(p, 0);
        chat_node *node = new_node(p, CHAT_BINARY, line, left, right, NULL);
        if (!p->run->failed) {
            node->text = chat_literal(text);
        }
        all = all ? new_node(p, CHAT_AND, line, all, node, NULL) : node;
        left = right;
    }
    return all ? all : left;
}

static chat_node *negation(chat_parser *p)
{
    int line = p->token->line;
    if (!chat_at_name(p, "not") || !chat_enter(p)) {
        return comparison(p);
    }
    chat_next(p);
    chat_node *node = new_node(p, CHAT_NOT, line, negation(p), NULL, NULL);
    p->nesting--;
    return node;
}

static chat_node *conjunction(chat_parser *p)
{
    chat_node *node = negation(p);
    for (int line = p->token->line; !p->run->failed && chat_take_name(p, "and"); line = p->token->line) {
        node = new_node(p, CHAT_AND, line, node, negation(p), NULL);
    }
    return node;
}

chat_node *chat_parse_condition(chat_parser *p)
{
    chat_node *node = conjunction(p);
    for (int line = p->token->line; !p->run->failed && chat_take_name(p, "or"); line = p->token->line) {
        node = new_node(p, CHAT_OR, line, node, conjunction(p), NULL);
    }
    return node;
}

chat_node *chat_parse_expression(chat_parser *p)
{
    if (!chat_enter(p)) {
        return primary(p);
    }
    chat_node *node = chat_parse_condition(p);
    for (int line = p->token->line; !p->run->failed && chat_take_name(p, "if"); line = p->token->line) {
        chat_node *condition = chat_parse_condition(p);
        node = new_node(p, CHAT_IF_ELSE, line, node, condition,
                        chat_take_name(p, "else") ? chat_parse_expression(p) : NULL);
    }
    p->nesting--;
    return node;
}
