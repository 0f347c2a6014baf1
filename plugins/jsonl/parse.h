/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * One line of JSON as an example: the forms that TRL accepts.
 *
 *     prompt                        a prompt alone
 *     prompt, completion            with an answer
 *     prompt, chosen, rejected      with a preference
 *     chosen, rejected              whole dialogues: what both begin with is the prompt
 *     messages                      a dialogue; where it ends with the assistant, that is the answer
 *
 * Wherever a text may stand, messages may too ({"role", "content"}).
 */
#ifndef JSONL_PARSE_H
#define JSONL_PARSE_H

#include <jansson.h>
#include <sluice/record.h>

enum parse_form { PARSE_AUTO, PARSE_PROMPT, PARSE_COMPLETION, PARSE_PREFERENCE };

/* Names of the fields. */
typedef struct parse_fields {
    const char *id, *prompt, *completion, *chosen, *rejected, *messages;
} parse_fields;

/* Start from {0}. Texts are borrowed from `root`, or owned by the example: all valid until parse_free. */
typedef struct parse_example {
    json_t *root;
    char id[256];             /* empty: the line has none */
    const char *prompt;       /* NULL when it is messages */
    sluice_message *messages; /* malloc'ed */
    size_t message_count;
    const char *answers[2]; /* the completion; or chosen, rejected */
    size_t answer_count;
    char *owned; /* a prompt cut out of a dialogue */
    bool consumed_prompt, consumed_completion, consumed_preference, consumed_messages; /* the other fields are meta */
} parse_example;

/* SLUICE_BAD_RECORD with `error` filled (one line, no full stop) when the line is none of the forms. */
int parse_line(const char *text, size_t length, enum parse_form, const parse_fields *, parse_example *, char *error,
               size_t error_size);
/* Into an empty record. `id` stands in where the line has none. */
int parse_fill(const parse_example *, const parse_fields *, const char *id, sluice_record *);
void parse_free(parse_example *);

#endif
