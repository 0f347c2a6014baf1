/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedded world: short questions whose answers a program can check, in several families and wordings.
 *
 * A question's content (family and operands, not its wording) decides by its hash which split it belongs to, so the
 * base model's corpus, the prompts of preference training, validation and test share no question, however it is worded.
 */
#ifndef TASKS_WORLD_H
#define TASKS_WORLD_H

#include <stddef.h>
#include <stdint.h>

enum world_split { WORLD_CORPUS = 0, WORLD_TRAIN = 1, WORLD_VALIDATION = 2, WORLD_TEST = 3, WORLD_SPLITS = 4 };

enum world_family {
    WORLD_ADD = 0,
    WORLD_SUBTRACT = 1,
    WORLD_LARGER = 2,
    WORLD_REVERSE = 3,
    WORLD_SORT = 4,
    WORLD_COUNT = 5,
    WORLD_COPY = 6,
    WORLD_LETTER = 7,
    WORLD_FAMILIES = 8
};

extern const char *const world_family_names[WORLD_FAMILIES + 1]; /* NULL-terminated */
extern const char *const world_split_names[WORLD_SPLITS + 1];

typedef struct world_question {
    int family;
    uint64_t content; /* hash of family and operands; operands of a sum count in either order as one */
    char prompt[96];
    char answer[32]; /* the right one */
    char wrong[32];  /* a mistake a careless reader could make; differs from `answer` */
} world_question;

/* A stream of random words that depends on its key and place alone. */
typedef struct world_random {
    uint64_t key[2], counter[2];
    uint32_t words[4];
    unsigned used;
} world_random;

void world_random_at(world_random *, uint64_t seed, uint64_t purpose, uint64_t index);
/* Uniform in [0, bound), bound ≥ 1. */
uint32_t world_below(world_random *, uint32_t bound);

enum world_split world_split_of(uint64_t content);

/* Draws a question of one of `families` (count of them, ids in the array) that belongs to `split`. */
void world_draw(world_random *, const int *families, size_t count, enum world_split split, world_question *out);

#endif
