/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The table at the end of a run, and the sentence on what it says.
 *
 * A row is a version of a model. An evaluator's numbers go to the version it evaluated; those of the rankers,
 * regularizers and trainers of an iteration to the version that the iteration published. Columns are those metrics, of
 * the ones people look at first, that anybody reported. A second slot with as many trained versions (a control) stands
 * beside the first. Evaluators that held a judge against pairs (pair_accuracy) have a table of their own.
 */
#ifndef SL_TABLE_H
#define SL_TABLE_H

#include <stdio.h>
#include <sluice/sluice.h>

/* What one stage reported in one iteration. */
typedef struct sl_table_entry {
    uint32_t kind; /* sluice_kind */
    const char *stage, *phase;
    int64_t iteration, repeat; /* from 0 */
    const char *slot;          /* that the stage evaluated or published; NULL = none */
    int64_t version;
    bool publishes;
    const sluice_number *numbers;
    size_t count;
} sl_table_entry;

/* What is told of it, in order: tables, each a heading and rows, then perhaps the sentence. Everything borrowed for the
 * call. */
typedef struct sl_table_listener {
    /* titles[0] is that of the versions; widths: bytes of a column's longest cell */
    void (*begin)(void *context, size_t columns, const char *const *titles, const size_t *widths);
    void (*row)(void *context, size_t columns, const char *const *cells);
    void (*end)(void *context);
    void (*sentence)(void *context, const char *text);
} sl_table_listener;

/* Entries in the plan's order. Tells nothing when nobody reported a number. */
void sl_table_tell(const sl_table_entry *, size_t count, const sl_table_listener *, void *context);
/* The same, as text. */
void sl_table_print(const sl_table_entry *, size_t count, FILE *);

#endif
