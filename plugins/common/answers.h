/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What the plugins that ask a model about answers have in common: token ids for texts, log-probabilities under a
 * version.
 *
 * Everything found in a record is taken and everything computed is written into it, so that nobody computes twice. All
 * functions report errors through the host and are called from the stage's thread.
 */
#ifndef PLUGINS_ANSWERS_H
#define PLUGINS_ANSWERS_H

#include <sluice/host.h>
#include <sluice/model.h>
#include <sluice/record.h>

/* A model as a stage uses it. */
typedef struct answers_model {
    const sluice_host *host;
    const sluice_model_service *service;
    sluice_model *model;
    sluice_model_info info;
    char version[256]; /* as records name it: "policy@1" */
} answers_model;

int answers_open(const sluice_host *, const sluice_model_ref *, answers_model *);
/* Also of one that was never opened. */
void answers_close(answers_model *);

/* Do two models read text alike? What cannot be asked for is tried on a text with letters, digits, marks and bytes; a
 * model without a tokenizer is not asked. */
int answers_same_tokens(const answers_model *, const answers_model *, bool *same);
/* A reference scores the very tokens of the model's answers: an error where they mean something else to it. */
int answers_check_reference(const answers_model *, const answers_model *reference);

/* Gives the prompt its token ids, and each candidate that has text only its own: prompt and answer are encoded
 * separately, as in sampling, and an answer read from a file ends with the stop token. */
int answers_encode(const answers_model *, sluice_record *, bool raw);

/* One candidate of a record. */
typedef struct answers_item {
    sluice_record *record;
    uint32_t candidate;
} answers_item;

/* Computes and writes into the records the log-probabilities of these answers' tokens under the model; those of one
 * record stand together. All have token ids and fit the context. */
int answers_score(const answers_model *, const answers_item *, size_t count);

/* The outputs of a reward model's head for these answers, values[i · m->info.head_outputs …] for items[i]; those of one
 * record stand together. All have token ids and fit the context. */
int answers_values(const answers_model *, const answers_item *, size_t count, float *values);

/* An error that names the first answer which exceeds `context` with its prompt. */
int answers_check_lengths(const answers_model *, const sluice_record *, size_t context);

/* Has the candidate token ids (empty answers have none to score), and do they fit a context after its prompt? */
bool answers_fit(const sluice_record *, size_t candidate, size_t context);
/* The same for all candidates of these records that fit `context` and whose log-probabilities nobody computed yet. Adds
 * to the counts of those found and computed. */
int answers_complete(const answers_model *, sluice_record *const *records, size_t count, size_t context,
                     uint64_t *found, uint64_t *computed);

/* Copies what an interrupted run of this stage had computed of a record (sluice_earlier): the log-probabilities under
 * these models that the record lacks. Adds to *copied how many answers, once for each model. Once a record, in the
 * order of the input. */
int answers_copy_earlier(const answers_model *const *, size_t count, sluice_record *, uint64_t *copied);

/* Sum over the answer's tokens under a version, in double; false when nobody computed it. */
bool answers_sum(const sluice_record *, uint32_t candidate, const char *version, double *sum);

#endif
