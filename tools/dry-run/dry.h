/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* sluice dry-run: few records through the real stages, in a folder that goes away, and what each did to one of them. */
#ifndef DR_DRY_H
#define DR_DRY_H

#include "core/cli/cli.h"
#include "core/plan/plan.h"
#include "core/run/internal.h"

/* ---- parts.c: a record as lines that can be compared. */
typedef struct dr_part {
    const char *path, *value; /* "candidates[0].text", "\"4\"", shortened */
} dr_part;

typedef struct dr_parts {
    dr_part *items; /* in an arena */
    size_t count;
} dr_parts;

/* The leaves of a record's JSON, long numbers' lists and long texts shortened. Negative when out of memory. */
int dr_parts_read(const char *json, sl_arena *, dr_parts *);
/* Prints the leaves that `before` does not have, or has otherwise. Returns how many. */
size_t dr_parts_print(const dr_parts *, const dr_parts *before, FILE *);

/* ---- show.c: prints what a finished (or failed) run left of one record. */
int dr_show(const sl_plan *, const char *folder, FILE *);

#endif
