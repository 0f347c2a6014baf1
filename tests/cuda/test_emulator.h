/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * What the emulator's own tests share: a list of cases, each begun on a fresh device; ends of a process that are
 * expected run in a child. */
#ifndef TEST_EMULATOR_H
#define TEST_EMULATOR_H

#include <stdio.h>
#include <stdlib.h>

#include <functional>

struct Case {
    const char *name;
    void (*run)();
};

/* Ends the program with the place when it does not hold. */
#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                        \
        }                                                                   \
    } while (0)
#define DONE(call) CHECK((call) == cudaSuccess)

/* A child that does this dies with this message. */
void dies(const char *message, const std::function<void()> &act);
/* In how many of the first n seeds, each on a fresh device that goes on after faults, does act say that it saw one? */
int found_in(int n, const std::function<bool()> &act);
/* The last fault holds this text. */
bool fault_says(const char *text);

extern const Case fault_cases[], runtime_cases[]; /* ended by a name of NULL */

#endif
