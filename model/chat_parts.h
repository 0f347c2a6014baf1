/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The interpreter of chat templates, from the inside: source → tokens (chat_lex.c) → tree (chat_parse.c) → text
 * (chat_render.c: statements; chat_eval.c: expressions; chat_call.c: filters, tests, methods, functions).
 *
 * Errors are sticky: the first one is kept, and from then on every function returns at once with a value that is safe
 * to go on with. Memory comes from an arena with a bound and is released as a whole.
 */
#ifndef MODEL_CHAT_PARTS_H
#define MODEL_CHAT_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/chat.h"
#include "model/utf8.h"

#define CHAT_MAX_SOURCE ((size_t)1 << 20)
#define CHAT_MAX_DEPTH  200               /* of the tree */
#define CHAT_MAX_MEMORY ((size_t)1 << 28) /* of one rendering */
#define CHAT_MAX_STEPS  20000000

/* --- memory and errors (chat_value.c) --- */

typedef struct chat_arena {
    struct chat_block *blocks;
    size_t used, limit;
} chat_arena;

/* What parsing and rendering share. */
typedef struct chat_run {
    chat_arena arena;
    const char *name; /* of the file, for messages */
    bool failed;
    sm_error *error;
    uint64_t steps;
} chat_run;

/* Zeroed memory, or NULL after chat_fail. */
void *chat_alloc(chat_run *run, size_t size);
void chat_arena_free(chat_arena *arena);
/* Keeps "NAME:LINE: …" unless something failed before. */
void chat_fail(chat_run *run, int line, int code, const char *format, ...) __attribute__((format(printf, 4, 5)));

/* --- values (chat_value.c) --- */

/* Text and where it came from: guard has a byte for each byte, 1 for what a message brought; NULL if nothing did. */
typedef struct chat_string {
    const char *bytes;
    const uint8_t *guard;
    size_t length;
} chat_string;

typedef enum chat_kind {
    CHAT_UNDEFINED,
    CHAT_NONE,
    CHAT_BOOL,
    CHAT_INT,
    CHAT_STRING,
    CHAT_LIST,
    CHAT_DICT,
    CHAT_NAMESPACE,
    CHAT_LOOP
} chat_kind;

typedef struct chat_value {
    chat_kind kind;
    union {
        int64_t number; /* CHAT_BOOL, CHAT_INT */
        chat_string text;
        struct chat_list *list;
        struct chat_dict *dict; /* CHAT_DICT, CHAT_NAMESPACE */
        const struct chat_loop *loop;
    };
} chat_value;

typedef struct chat_list {
    chat_value *items;
    size_t count;
} chat_list;

typedef struct chat_entry {
    chat_string key;
    chat_value value;
    struct chat_entry *next;
} chat_entry;

typedef struct chat_dict {
    chat_entry *first, *last; /* in the order of insertion */
    size_t count;
} chat_dict;

typedef struct chat_loop {
    const chat_list *items;
    size_t index;
} chat_loop;

/* Text under construction. `guard` exists from the first guarded byte on. */
typedef struct chat_builder {
    char *bytes;
    uint8_t *guard;
    size_t length, capacity;
} chat_builder;

static inline chat_value chat_undefined(void)
{
    return (chat_value){.kind = CHAT_UNDEFINED};
}

static inline chat_value chat_bool(bool truth)
{
    return (chat_value){.kind = CHAT_BOOL, .number = truth};
}

static inline chat_value chat_int(int64_t number)
{
    return (chat_value){.kind = CHAT_INT, .number = number};
}

static inline chat_value chat_text(chat_string text)
{
    return (chat_value){.kind = CHAT_STRING, .text = text};
}

static inline chat_string chat_part(chat_string text, size_t start, size_t end)
{
    return (chat_string){text.bytes + start, text.guard ? text.guard + start : NULL, end - start};
}

chat_string chat_literal(const char *text);
bool chat_same(chat_string a, chat_string b);
bool chat_is(chat_string text, const char *literal);
/* Offset of `part` in `text` at or after `from`, or SIZE_MAX. */
size_t chat_find(chat_string text, chat_string part, size_t from);
/* White space as Python's str.strip has it. */
bool chat_is_space(uint32_t code_point);
chat_string chat_strip(chat_string text, const chat_string *characters, bool left, bool right);

void chat_put(chat_run *run, chat_builder *builder, chat_string text);
chat_string chat_built(const chat_builder *builder);

chat_value chat_new_list(chat_run *run, size_t count);
chat_value *chat_dict_find(const chat_dict *dict, chat_string key);
void chat_dict_set(chat_run *run, chat_dict *dict, chat_string key, chat_value value);

const char *chat_kind_name(chat_value value);
bool chat_truth(chat_value value);
bool chat_equal(chat_value a, chat_value b);
/* What {{ value }} prints. */
chat_string chat_to_text(chat_run *run, int line, chat_value value);
/* As Python's json.dumps(value, ensure_ascii=False, indent=indent); indent < 0 for one line. */
void chat_to_json(chat_run *run, int line, chat_builder *out, chat_value value, int indent, int depth);

/* --- tokens (chat_lex.c) --- */

typedef enum chat_token_kind {
    CHAT_TOKEN_DATA,
    CHAT_TOKEN_BLOCK,     /* {% */
    CHAT_TOKEN_BLOCK_END, /* %} */
    CHAT_TOKEN_PRINT,     /* {{ */
    CHAT_TOKEN_PRINT_END, /* }} */
    CHAT_TOKEN_NAME,
    CHAT_TOKEN_STRING,
    CHAT_TOKEN_INT,
    CHAT_TOKEN_OPERATOR,
    CHAT_TOKEN_END
} chat_token_kind;

typedef struct chat_token {
    chat_token_kind kind;
    int line;
    chat_string text;
    int64_t number;
} chat_token;

typedef struct chat_tokens {
    chat_token *items; /* the last is CHAT_TOKEN_END */
    size_t count, capacity;
} chat_tokens;

void chat_lex(chat_run *run, const char *source, size_t length, chat_tokens *tokens);

/* --- tree (chat_parse.c) --- */

typedef enum chat_node_kind {
    CHAT_CONSTANT,
    CHAT_NAME,
    CHAT_ATTRIBUTE, /* a.text */
    CHAT_ITEM,      /* a[b] */
    CHAT_SLICE,     /* a[b:c:d], each of the three may be NULL */
    CHAT_NEW_LIST,
    CHAT_NEW_DICT, /* items: key, value, key, value, … */
    CHAT_NOT,
    CHAT_NEGATE,
    CHAT_AND,
    CHAT_OR,
    CHAT_IF_ELSE,  /* a if b else c */
    CHAT_BINARY,   /* a text b: arithmetic, comparison, in, ~ */
    CHAT_FILTER,   /* a | text(arguments) */
    CHAT_TEST,     /* a is text(arguments) */
    CHAT_FUNCTION, /* text(arguments) */
    CHAT_METHOD    /* a.text(arguments) */
} chat_node_kind;

typedef struct chat_node {
    chat_node_kind kind;
    int line, depth;
    chat_string text;
    chat_value value;
    struct chat_node *a, *b, *c, *d;
    struct chat_node **items;
    chat_string *names; /* beside items: the name of a named argument, or length 0 */
    size_t count;
} chat_node;

typedef enum chat_statement_kind {
    CHAT_DATA,
    CHAT_PRINT,
    CHAT_IF,
    CHAT_FOR,
    CHAT_SET,
    CHAT_SET_BLOCK,
    CHAT_SCOPE,
    CHAT_BREAK,
    CHAT_CONTINUE
} chat_statement_kind;

typedef struct chat_statement {
    chat_statement_kind kind;
    int line;
    chat_string text;       /* DATA; SET: the name, or the namespace's name */
    chat_string attribute;  /* SET ns.attribute, else length 0 */
    chat_string targets[2]; /* FOR */
    size_t target_count;
    chat_node *expression, *filter;
    struct chat_statement *body, *other; /* other: else */
    struct chat_statement *next;
} chat_statement;

chat_statement *chat_parse_template(chat_run *run, const chat_tokens *tokens);

/* --- running (chat_render.c, chat_eval.c, chat_call.c) --- */

typedef struct chat_scope {
    struct chat_scope *outer;
    chat_dict variables;
} chat_scope;

void chat_render_body(chat_run *run, const chat_statement *body, chat_scope *scope, chat_builder *out);
chat_value chat_eval(chat_run *run, const chat_node *node, chat_scope *scope);
/* a[index] and a.name, with the value already at hand. */
chat_value chat_attribute(chat_run *run, int line, chat_value object, chat_string name);
/* What a loop goes over: the items of a list, the keys of a dict, the characters of a string, nothing. */
chat_value chat_items(chat_run *run, int line, chat_value value);
bool chat_contains(chat_run *run, int line, chat_value container, chat_value item);

/* Arguments, evaluated. */
typedef struct chat_arguments {
    chat_value *values;
    const chat_string *names;
    size_t count;
    int line;
    chat_string callee;
} chat_arguments;

bool chat_known_filter(chat_string name);
bool chat_known_test(chat_string name);
bool chat_known_method(chat_string name);
bool chat_known_function(chat_string name);
chat_value chat_call_filter(chat_run *run, chat_value value, const chat_arguments *arguments);
bool chat_call_test(chat_run *run, chat_value value, const chat_arguments *arguments);
chat_value chat_call_method(chat_run *run, chat_value object, const chat_arguments *arguments);
chat_value chat_call_function(chat_run *run, const chat_arguments *arguments);

struct sm_chat {
    chat_run run; /* holds the tree's memory */
    chat_statement *body;
    const sm_tokenizer *tokenizer;
    char *name;
};

#endif
