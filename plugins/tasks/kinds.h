/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What is asked about a question of the embedded world: its answer, or something else that a program can check too.
 *
 * A judge's conversations have one fixed wording a kind, so that a prompt file (prompts/embedded-*.txt) can repeat it
 * exactly. They show an answer as the assistant's own turn: a model that can answer has then worked out what it would
 * say where the shown answer stands, which is what it has to compare with.
 */
#ifndef TASKS_KINDS_H
#define TASKS_KINDS_H

#include <sluice/record.h>

#include "plugins/tasks/world.h"

enum world_kind {
    WORLD_ANSWER = 0,   /* the question itself */
    WORLD_QUESTION = 1, /* is this answer right: "yes" or "no" */
    WORLD_SCORE = 2,    /* "Score: 5" for a right answer, "Score: 0" for a wrong one */
    WORLD_PAIRWISE = 3, /* which of two answers is right: "A" or "B" */
    WORLD_AGAIN = 4,    /* look again at a first answer: the right one, whether the first was or not */
    WORLD_MANNER = 5,   /* the answer in a manner that the prompt names */
    WORLD_KINDS = 6
};

enum world_manner { WORLD_POLITE = 0, WORLD_RUDE = 1, WORLD_BRIEF = 2, WORLD_LONG = 3, WORLD_MANNERS = 4 };

extern const char *const world_kind_names[WORLD_KINDS + 1]; /* NULL-terminated */
extern const char *const world_manner_names[WORLD_MANNERS + 1];

enum { WORLD_TURNS = 5 };

/* Pointers lead into the task itself or to constants: it must stay where it was made. */
typedef struct world_task {
    int kind;
    world_question question;
    sluice_message messages[WORLD_TURNS]; /* the conversation, the user speaks last */
    size_t turns;                         /* 0: `prompt` is plain text and there are no messages */
    char prompt[128];
    char right[64], wrong[64]; /* a completion as it should be, and one that is not */
    const char *answer;        /* what a verifier compares with: `right`, or for a manner the answer within it */
    const char *first;         /* the answer shown (the first of two); NULL = none */
    const char *second;        /* the second of two; NULL = none */
    bool first_right;          /* whether `first` is right */
    const char *manner;        /* NULL = none is asked for */
} world_task;

/* Asks about `task->question`, which the caller has drawn. An answer shown is wrong with probability `mistaken`; the
 * manner is one of `manners` (manner_count of them, ids in the array; at least one for WORLD_MANNER). */
void world_ask(world_random *, enum world_kind, double mistaken, const int *manners, size_t manner_count, world_task *);

#endif
