/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The service "sluice.model/1": language models for whoever needs one.
 *
 *     const sluice_model_service *models = sluice_service(host, SLUICE_MODEL_SERVICE);
 *     sluice_model *model;
 *     int rc = models->open(models, host, ref, &model);
 *
 * Handles, flat arrays and lengths only. Stages that open the same version share one copy in memory. Any thread may
 * call; calls on one training object come from one thread. Errors: a negative sluice_result, the reason already
 * reported through the `host` given to open.
 *
 * Token ids are u32. Log-probabilities are natural logarithms at temperature 1 over the whole vocabulary. On the CPU
 * every result is bit-identical whatever the batch, the order and the number of threads: a candidate's recorded
 * log-probabilities equal a later `score` of the same tokens.
 */
#ifndef SLUICE_MODEL_H
#define SLUICE_MODEL_H

#include <sluice/abi.h>
#include <sluice/host.h>
#include <sluice/param.h>
#include <sluice/record.h>

#define SLUICE_MODEL_SERVICE "sluice.model/1"

typedef struct sluice_model sluice_model;
typedef struct sluice_training sluice_training;

/* A growable array that a service fills. Start from {0}; `items` is malloc'ed, the caller frees it. */
typedef struct sluice_ids {
    uint32_t *items;
    size_t count, capacity;
} sluice_ids;

typedef struct sluice_text {
    char *text; /* NUL-terminated; malloc'ed, the caller frees it */
    size_t length, capacity;
} sluice_text;

typedef struct sluice_model_info {
    uint32_t size; /* set by the caller */
    uint32_t vocabulary, context, layers, hidden;
    uint64_t parameters;
    const uint32_t *stop_ids; /* end-of-sequence ids, as the checkpoint says; borrowed */
    size_t stop_count;
    int64_t start_id;  /* start token, -1 = none */
    bool has_template; /* a chat template is there */
    bool has_tokenizer;
    uint64_t template_hash;   /* 0 without a template */
    const char *numerics;     /* instruction set, library, tile, dtype */
    uint8_t content_hash[16]; /* of weights, config and tokenizer */
    uint32_t head_outputs;    /* k of a reward model's head ("score.weight" [k, hidden]); 0 = a language model */
    uint32_t
        devices; /* a training deals the groups of a call out to so many: micro-batches that large keep them busy */
} sluice_model_info;

enum sluice_encode_flags {
    SLUICE_ENCODE_START = 1u << 0,   /* put the start token the tokenizer would add in front */
    SLUICE_ENCODE_SPECIAL = 1u << 1, /* "<s>" in the text is that special token; otherwise it is plain text */
    SLUICE_ENCODE_STOP = 1u << 2,    /* end with the stop token */
    /* The text goes on from another, an answer from its prompt: where the tokenizer would put a space in front of every
     * text, one that begins with a space gets no second. */
    SLUICE_ENCODE_CONTINUE = 1u << 3
};

/* A finished candidate; everything borrowed for the call. */
typedef struct sluice_generated {
    void *user;         /* the prompt's */
    uint32_t candidate; /* 0 … n-1 */
    const uint32_t *tokens;
    const float *logprobs;
    uint32_t token_count;
    int32_t finish;   /* sluice_finish */
    const char *text; /* decoded without special tokens; cut before a stop string */
} sluice_generated;

typedef struct sluice_generate_prompt {
    const uint32_t *tokens; /* borrowed until the last of its candidates is done */
    size_t token_count;
    uint64_t key; /* randomness of this prompt: a hash of the record's id */
    void *user;
} sluice_generate_prompt;

typedef struct sluice_generation {
    uint32_t size;
    uint32_t candidates; /* per prompt */
    uint32_t max_tokens;
    uint32_t top_k;                                       /* 0 = off */
    double temperature, top_p, min_p, repetition_penalty; /* 0 = greedy; 1, 0 and 1 = off */
    const char *const *stop;                              /* stop strings */
    size_t stop_count;
    uint64_t seed;
    uint32_t slots; /* candidates decoded at once, 0 = chosen by the runtime: speed, never the answer */
    void *context;
    /* Caller's thread. prompt: the next one, SLUICE_END after the last. Prompts are asked for as slots come free. */
    int (*prompt)(void *context, sluice_generate_prompt *);
    /* Caller's thread, once a candidate, in any order. */
    int (*done)(void *context, const sluice_generated *);
    /* Optional, per token, before the choice: may change logits[vocabulary]. SLUICE_END stops the candidate. */
    int (*hook)(void *context, void *user, uint32_t candidate, const uint32_t *tokens, size_t count, float *logits);
} sluice_generation;

/* A prompt and completions that continue it: the prompt's rows are computed once. Frozen.
 * With an empty prompt a completion's first token has no log-probability: 0 is given and its derivative ignored. */
typedef struct sluice_span {
    const uint32_t *tokens;
    size_t count;
} sluice_span;

typedef struct sluice_group {
    sluice_span prompt;
    const sluice_span *completions;
    size_t completion_count;
    uint64_t key; /* for dropout: a hash of the record's id */
} sluice_group;

typedef struct sluice_optimizer {
    uint32_t size;
    double beta1, beta2, epsilon, weight_decay; /* AdamW; norms and biases do not decay */
    double max_grad_norm;                       /* 0 = no clipping */
    double dropout;                             /* on attention and feed-forward outputs */
    uint64_t seed;
    /* A reward model: the output is a head of k values on the last layer's normed hidden state of a completion's last
     * token; what is saved is a LlamaForSequenceClassification. 0 = a language model. The head is `head_from`'s when
     * that is given (same k and hidden size), else the opened model's own, else drawn from N(0, 0.02²) by `seed`. */
    uint32_t head_outputs;
    sluice_model *head_from; /* borrowed for train_begin */
    bool freeze_body;        /* only the head learns (linear probing); needs head_outputs */
    bool recompute;          /* keep one row a layer and compute the rest again in the backward pass: memory, never the
                                result */
    uint64_t moment_bits;    /* of AdamW's two moments: 16 = bfloat16, rounded at random by `seed` so that the expected
                                value is the unrounded one; 0 or 32 = float32 */
} sluice_optimizer;

typedef struct sluice_step_info {
    double grad_norm; /* before clipping */
    bool clipped;
    bool skipped; /* the gradient was not finite: nothing was changed */
} sluice_step_info;

typedef struct sluice_tensor {
    const char *name; /* as in the checkpoint */
    const size_t *shape;
    size_t rank, count;
    float *data; /* writable only in a copy */
} sluice_tensor;

enum sluice_merge_method {
    SLUICE_MERGE_MEAN = 0,
    SLUICE_MERGE_WEIGHTED = 1,
    SLUICE_MERGE_RUNNING = 2,
    SLUICE_MERGE_SLERP = 3
};

typedef struct sluice_model_service {
    uint32_t size;

    /* Opens (or shares) a version; close each open once. */
    int (*open)(const struct sluice_model_service *, const sluice_host *, const sluice_model_ref *, sluice_model **);
    void (*close)(sluice_model *);
    int (*info)(sluice_model *, sluice_model_info *);

    /* Appends ids. Bad UTF-8 is SLUICE_BAD_RECORD with its byte offset in the message. */
    int (*encode)(sluice_model *, const char *text, size_t length, uint32_t flags, sluice_ids *);
    /* Chat template over messages, then encoded; a model without a template gets the contents as plain text (the run's
     * log says so once). add_generation_prompt as in transformers. */
    int (*encode_messages)(sluice_model *, const sluice_message *, size_t count, bool add_generation_prompt,
                           sluice_ids *);
    /* Replaces text. Special tokens are left out unless keep_special. */
    int (*decode)(sluice_model *, const uint32_t *, size_t count, bool keep_special, sluice_text *);
    /* The prompt of a record, as sampling and training feed it: ids already in the record are taken, messages go
     * through the template, plain text becomes one user message where there is a template (raw = false), else start
     * token + text. */
    int (*encode_prompt)(sluice_model *, const sluice_record *, bool raw, sluice_ids *);

    int (*generate)(sluice_model *, const sluice_generation *);
    /* logps[k] is the k-th completion's array over all groups in order, token by token; entropy likewise or NULL. */
    int (*score)(sluice_model *, const sluice_group *, size_t count, float *const *logps, float *const *entropy);

    /* Training starts from a version's weights (float32 masters) and never changes the opened version. */
    int (*train_begin)(sluice_model *, const sluice_optimizer *, sluice_training **);
    /* Adds the gradient of these groups. `derivative` is called once, on the caller's thread, when the
     * log-probabilities of `count` groups are known: it fills d_logps (cleared) with d loss / d log-probability, laid
     * out like logps. Memory for activations grows with the tokens given, so callers cut batches into micro-batches;
     * the sum does not depend on the cut. */
    int (*train_gradient)(sluice_training *, const sluice_group *, size_t count,
                          int (*derivative)(void *context, const float *const *logps, float *const *d_logps),
                          void *context);
    /* One AdamW update with the gradient times grad_scale; clears the gradient. */
    int (*train_step)(sluice_training *, double lr, double grad_scale, sluice_step_info *);
    /* Log-probabilities under the weights as they are now. */
    int (*train_score)(sluice_training *, const sluice_group *, size_t count, float *const *logps);
    /* Writes a whole Hugging Face folder into dir (from publish_begin), float32. */
    int (*train_save)(sluice_training *, const char *dir);
    void (*train_end)(sluice_training *);

    /* Tensors by name, in the checkpoint's order. A copy has writable data and can be saved. */
    size_t (*tensor_count)(sluice_model *);
    int (*tensor)(sluice_model *, size_t index, sluice_tensor *);
    int (*copy)(sluice_model *, sluice_model **);
    int (*save)(sluice_model *, const char *dir);
    /* Streams several folders of one architecture into their average, tensor by tensor, float32 sums in the order
     * given. WEIGHTED: Σ w_i θ_i / Σ w_i. RUNNING: ema ← (1 - weights[0])·ema + weights[0]·θ along the list. SLERP:
     * folders[0] is the base θ₀, the others become θ₀ + weights[0]·slerp of their differences from it, layer by layer,
     * computed on the device of the run (WARP; for more than two by recursion with 1/k).
     * dtype: "float32" (NULL too), "bfloat16", "float16", or "original": what the first folder was trained from. */
    int (*merge)(const struct sluice_model_service *, const sluice_host *, int method, const char *const *folders,
                 const double *weights, size_t count, const char *dir, const char *dtype);
    /* ‖a − b‖ over all tensors: did training change anything? */
    int (*distance)(sluice_model *, sluice_model *, double *);

    /* --- reward models (info.head_outputs = k > 0) --- */
    /* values[c] is the c-th completion's array [k] over all groups in order: the head's outputs at its last token (the
     * prompt's last where the completion is empty). SLUICE_BAD_MODEL for a model without a head. */
    int (*score_values)(sluice_model *, const sluice_group *, size_t count, float *const *values);
    /* As train_gradient, for a training with head_outputs: `derivative` gets the values and fills d_values (cleared)
     * with d loss / d value, both laid out as score_values does. */
    int (*train_values)(sluice_training *, const sluice_group *, size_t count,
                        int (*derivative)(void *context, const float *const *values, float *const *d_values),
                        void *context);
    /* The head's outputs under the weights as they are now. */
    int (*train_score_values)(sluice_training *, const sluice_group *, size_t count, float *const *values);
    /* ‖weights now − weights training started from‖, a new head's first values included. */
    int (*train_distance)(sluice_training *, double *);

    /* --- going on after an interruption --- */
    /* Between two steps: writes all that a training needs to go on (masters, moments, counters) into a new file, on the
     * disk when it returns. */
    int (*train_suspend)(sluice_training *, const char *path);
    /* Right after train_begin with the same model and optimizer: goes on from there, to the bit. SLUICE_BAD_FILE when
     * the file is not whole or of another training; then the training is as it was. */
    int (*train_resume)(sluice_training *, const char *path);
} sluice_model_service;

#endif
