/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said between the stage and the program: a record as a line of JSON, an answer as a line of JSON.
 *
 * A question: {"id", "prompt" or "messages", "candidates": [{"text", "finish", "length", "tag"}], "scores": {JUDGE:
 * [...]}, "meta": {...}}, keys without a value left out, in ASCII (everything else as \u escapes).
 * An answer: {"id", "scores": [number or null, ...]}, one a candidate; {"id", "scores": {NAME: [...]}}; or {"id",
 * "error": "..."}.
 */
#ifndef JUDGE_COMMAND_EXCHANGE_H
#define JUDGE_COMMAND_EXCHANGE_H

#include <sluice/record.h>

/* The record as a line with its line end; the caller frees it. NULL when out of memory. */
char *exchange_question(const sluice_record *, size_t *length);

typedef struct exchange_answer {
    void *root;        /* everything borrowed lives until exchange_free */
    const char *id;    /* which record it is about */
    const char *error; /* what the program says is wrong with it; NULL = nothing */
} exchange_answer;

/* Reads a line's form. False with one line of why (it names no record). Free it in both cases. */
bool exchange_read(exchange_answer *, const char *line, size_t length, char *why, size_t size);
/* Writes an answer's scores into its record, as `judge` and as `judge/NAME`; *given counts scores, *sum adds them up.
 * SLUICE_BAD_RECORD with why when they do not fit: the record is then as before, or partly scored. */
int exchange_score(const exchange_answer *, sluice_record *, const char *judge, uint64_t *given, double *sum, char *why,
                   size_t size);
void exchange_free(exchange_answer *);

#endif
