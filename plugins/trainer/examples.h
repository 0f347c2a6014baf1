/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Training examples packed into a scratch file: written once, then read in any order for as many epochs as wanted.
 * Memory holds 8 bytes an example; the file is mapped, so the system keeps of it what fits.
 */
#ifndef TRAINER_EXAMPLES_H
#define TRAINER_EXAMPLES_H

#include <stdio.h>
#include <sluice/host.h>

/* One example: a pair (2 answers: chosen, rejected) or a sequence (1). Arrays follow in the file and are borrowed from
 * the map. */
typedef struct example {
    uint64_t key; /* a hash of the record's id */
    const char *id;
    double p, weight, margin;
    double reference[2], sampler[2];                        /* pairs: sums over the answer */
    uint32_t id_size, prompt_count, answer_count, count[2]; /* id_size: with its NUL */
    uint32_t has_reference, has_sampler;                    /* sequences: per-token arrays are there */
    const uint32_t *prompt, *answer[2];
    const float *mask;                            /* sequences: [count[0]] */
    const float *token_reference, *token_sampler; /* sequences: [count[0]], or NULL */
} example;

typedef struct examples {
    const sluice_host *host;
    FILE *file;
    uint64_t *offset; /* [count] */
    size_t count, room;
    uint64_t size; /* bytes written */
    char *map;
    uint64_t tokens; /* of all examples, prompts included */
} examples;

int examples_open(const sluice_host *, examples *);
int examples_add(examples *, const example *);
/* After the last add, before the first get. */
int examples_seal(examples *);
void examples_get(const examples *, size_t index, example *);
/* Also of {0}. */
void examples_close(examples *);

#endif
