/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "plugins/tasks/kinds.h"

#include <stdio.h>
#include <string.h>

const char *const world_kind_names[WORLD_KINDS + 1] = {"answer", "question", "score", "pairwise",
                                                       "again",  "manner",   NULL};
const char *const world_manner_names[WORLD_MANNERS + 1] = {"polite", "rude", "brief", "long", NULL};

enum { SENTENCES = 2 };

/* @ is the answer. The verifier's manners (plugins/verifier/manner.c) hold for these and for others like them. */
static const char *const sentences[WORLD_MANNERS][SENTENCES] = {
    {"@, thank you.", "Please, it is @."},
    {"@, silly.", "Duh, it is @."},
    {"@", "@."},
    {"The answer to this is @.", "My own answer is @."},
};

static const int opposite[WORLD_MANNERS] = {WORLD_RUDE, WORLD_POLITE, WORLD_LONG, WORLD_BRIEF};

static bool chance(world_random *r, double p)
{
    return world_below(r, 1u << 30) < p * (1u << 30);
}

static void say(world_task *t, const char *role, const char *content)
{
    t->messages[t->turns++] = (sluice_message){role, content};
}

/* The question and the answer shown, then what is asked about it. */
static void show(world_task *t, const char *request)
{
    say(t, "user", t->question.prompt);
    say(t, "assistant", t->first);
    if (t->second) {
        say(t, "user", t->question.prompt);
        say(t, "assistant", t->second);
    }
    say(t, "user", request);
}

static void complete(world_task *t, const char *right, const char *wrong)
{
    snprintf(t->right, sizeof t->right, "%s", right);
    snprintf(t->wrong, sizeof t->wrong, "%s", wrong);
    t->answer = t->right;
}

static void sentence(world_random *r, int manner, const char *answer, char *out, size_t size)
{
    const char *s = sentences[manner][world_below(r, SENTENCES)];
    const char *at = strchr(s, '@');
    snprintf(out, size, "%.*s%s%s", (int)(at - s), s, answer, at + 1);
}

void world_ask(world_random *r, enum world_kind kind, double mistaken, const int *manners, size_t manner_count,
               world_task *t)
{
    const world_question *q = &t->question;
    t->kind = (int)kind;
    t->turns = 0;
    t->first = t->second = t->manner = NULL;
    t->first_right = false;
    snprintf(t->prompt, sizeof t->prompt, "%s", q->prompt);
    complete(t, q->answer, q->wrong);
    if (kind == WORLD_ANSWER)
        return;
    if (kind == WORLD_MANNER) {
        int manner = manners[world_below(r, (uint32_t)manner_count)];
        t->manner = world_manner_names[manner];
        snprintf(t->prompt, sizeof t->prompt, "Be %s. %s", t->manner, q->prompt);
        sentence(r, manner, q->answer, t->right, sizeof t->right);
        sentence(r, opposite[manner], q->answer, t->wrong, sizeof t->wrong);
        t->answer = q->answer;
        return;
    }
    t->first_right = kind == WORLD_PAIRWISE ? world_below(r, 2) : !chance(r, mistaken);
    t->first = t->first_right ? q->answer : q->wrong;
    switch (kind) {
    case WORLD_QUESTION:
        show(t, "Right?");
        complete(t, t->first_right ? "yes" : "no", t->first_right ? "no" : "yes");
        break;
    case WORLD_SCORE:
        show(t, "Score 0 to 5?");
        complete(t, t->first_right ? "Score: 5" : "Score: 0", t->first_right ? "Score: 0" : "Score: 5");
        break;
    case WORLD_PAIRWISE:
        t->second = t->first_right ? q->wrong : q->answer;
        show(t, "A or B?");
        complete(t, t->first_right ? "A" : "B", t->first_right ? "B" : "A");
        break;
    default: /* WORLD_AGAIN: the answer is the question's own */
        show(t, "Look again.");
    }
}
