/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The service sluice.model/1 over a table: the next token depends on the one before it alone, log pi(next | last) =
 * log-softmax of a row of 258 numbers. Bytes are tokens; 256 ends an answer and 257 starts a prompt. Small enough to
 * work out every expectation by hand: gradients are exact, a step is plain gradient descent.
 *
 * With `head_outputs` set every version is a reward model: output o of an answer is the sum of w[token][o] over its
 * tokens.
 */
#ifndef TESTS_FAKE_MODEL_H
#define TESTS_FAKE_MODEL_H

#include <sluice/model.h>

#define FAKE_VOCABULARY 258
#define FAKE_STOP       256
#define FAKE_START      257

typedef struct fake_models {
    sluice_model_service service; /* first */
    uint32_t context;
    int64_t other_template; /* the version that has another chat template; 0 = none */
    int64_t other_tokens;   /* the version whose tokenizer calls each byte otherwise; 0 = none */
    int64_t broken;         /* the version whose outputs are no numbers; 0 = none */
    /* what was asked of it */
    size_t scored, gradients, steps, open;
    /* the weights that were saved last, and the folder they went to */
    double saved[FAKE_VOCABULARY][FAKE_VOCABULARY];
    char saved_dir[256];
    /* a step's gradient, as it was applied: gradient times grad_scale */
    double applied[FAKE_VOCABULARY][FAKE_VOCABULARY];
    double last_lr;
    int merged_method;
    size_t merged;
    double merged_weight;
    bool gradient_not_finite;
    sluice_optimizer optimizer; /* of the last training */
    int64_t started, head_from; /* the versions that it and its head started from; -1 = no head was given */
    bool no_tokenizer, has_template, score_not_finite;
    uint32_t head_outputs; /* of a reward model's head; 0 = a language model */
    /* what generate answers in turn, instead of drawing letters: texts, of which those that begin with "…" are cut */
    const char *const *says;
    size_t say_count, said;
    char asked[4096]; /* the text of the last prompt that was generated from or scored, without the fake's own tokens */
    char roles[256];  /* of the messages that were encoded last, a blank after each */
} fake_models;

fake_models *fake_models_new(void);
void fake_models_free(fake_models *); /* everything opened must be closed by then */

/* log pi of a token after another under the weights of a version. */
double fake_logp(int64_t version, uint32_t last, uint32_t token);

/* Output o of a reward model for an answer of letters that ends with a stop token. */
double fake_value(int64_t version, const char *text, uint32_t o);

/* A ref to version `version` of slot "policy". */
sluice_model_ref fake_ref(int64_t version);

#endif
