/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Records: one prompt and all that has been said of it. What plugins see of them.
 *
 * A record holds a prompt (text or messages, with its token ids), candidates (answers: token ids with the sampler's
 * log-probabilities, log-probabilities under named model versions, one score a judge), rankings, pairs (chosen,
 * rejected, p, weight, margin), reward and advantage per candidate, and free typed `meta` fields. Fields a stage does
 * not know pass through it unchanged.
 *
 * Absent is absent, never zero: a missing score is NaN here and no entry in the stream.
 *
 * Ownership: everything read is borrowed until the record is changed, emitted, released or the call returns, whichever
 * is first; what is set is copied. A record is used by one thread at a time. Functions that set return a sluice_result.
 */
#ifndef SLUICE_RECORD_H
#define SLUICE_RECORD_H

#include <sluice/abi.h>

typedef struct sluice_record sluice_record;

typedef struct sluice_message {
    const char *role, *content; /* NUL-terminated UTF-8 */
} sluice_message;

/* How an answer ended. */
enum sluice_finish {
    SLUICE_FINISH_NONE = 0,
    SLUICE_FINISH_STOP = 1,
    SLUICE_FINISH_LENGTH = 2,
    SLUICE_FINISH_ERROR = 3
};

/* A run of tokens of one role inside a candidate. */
typedef struct sluice_segment {
    const char *role;
    uint32_t begin, end; /* token range */
    bool trained;
} sluice_segment;

/* One answer as a whole: for adding and for reading. Frozen; further properties have functions of their own. */
typedef struct sluice_candidate {
    /* what the tokens decode to, without special tokens, U+FFFD for bytes that are no UTF-8; NULL = none */
    const char *text;
    const uint32_t *tokens; /* the truth; never re-encoded; ends with the stop token when finish is STOP by token */
    const float *logprobs;  /* [token_count] the sampler's: natural, temperature 1, untruncated; NULL = not sampled */
    uint32_t token_count;
    int32_t finish;  /* sluice_finish */
    int32_t parent;  /* index of the attempt this one follows, -1 = none */
    const char *tag; /* how it came to be: "t=0.8 top_p=0.95"; NULL = none */
} sluice_candidate;

typedef struct sluice_pair {
    uint32_t chosen, rejected; /* candidate indices */
    double p;                  /* how probable it is that the label is right; 1 when nobody doubts it */
    double weight;             /* multiplies the loss; 1 */
    double margin;             /* NaN = none */
} sluice_pair;

typedef struct sluice_record_api {
    uint32_t size;
    const char *(*id)(const sluice_record *);
    int (*set_id)(sluice_record *, const char *);
    const char *(*prompt)(const sluice_record *);
    int (*set_prompt)(sluice_record *, const char *);
    size_t (*messages)(const sluice_record *, const sluice_message **);
    int (*set_messages)(sluice_record *, const sluice_message *, size_t);
    const uint32_t *(*prompt_tokens)(const sluice_record *, size_t *);
    int (*set_prompt_tokens)(sluice_record *, const uint32_t *, size_t, uint64_t template_hash);
    size_t (*candidate_count)(const sluice_record *);
    int (*candidate)(const sluice_record *, size_t, sluice_candidate *);
    int (*add_candidate)(sluice_record *, const sluice_candidate *);
    int (*set_candidate)(sluice_record *, size_t, const sluice_candidate *);
    const float *(*scores)(const sluice_record *, const char *judge);
    int (*set_score)(sluice_record *, const char *judge, size_t candidate, float score);
    const float *(*logps)(const sluice_record *, size_t candidate, const char *version, size_t *);
    int (*set_logps)(sluice_record *, size_t candidate, const char *version, const float *, size_t);
    const uint32_t *(*ranking)(const sluice_record *, const char *judge);
    int (*set_ranking)(sluice_record *, const char *judge, const uint32_t *rank);
    size_t (*pair_count)(const sluice_record *);
    int (*pair)(const sluice_record *, size_t, sluice_pair *);
    int (*add_pair)(sluice_record *, const sluice_pair *);
    int (*set_pair)(sluice_record *, size_t, const sluice_pair *);
    int (*clear_pairs)(sluice_record *);
    int (*reward)(const sluice_record *, size_t candidate, double *reward, double *advantage);
    int (*set_reward)(sluice_record *, size_t candidate, double reward, double advantage);
    const char *(*meta_text)(const sluice_record *, const char *key);
    int (*meta_number)(const sluice_record *, const char *key, double *);
    int (*set_meta_text)(sluice_record *, const char *key, const char *);
    int (*set_meta_number)(sluice_record *, const char *key, double);
    int (*set_meta_bool)(sluice_record *, const char *key, bool);
    uint64_t (*number)(const sluice_record *);
    size_t (*judges)(const sluice_record *, const char *const **);
    int (*segments)(const sluice_record *, size_t candidate, const sluice_segment **, size_t *);
    int (*set_segments)(sluice_record *, size_t candidate, const sluice_segment *, size_t);
    int64_t (*step)(const sluice_record *);
    int (*set_step)(sluice_record *, int64_t);
    char *(*json)(const sluice_record *); /* whole record as one line of JSON; the caller frees it */
    int (*set_meta_json)(sluice_record *, const char *key, const char *json);
    int (*keep_candidates)(sluice_record *, const uint32_t *indices, size_t count);
} sluice_record_api;

struct sluice_record {
    const sluice_record_api *api;
};

/* Unique in its stream. */
static inline const char *sluice_record_id(const sluice_record *r)
{
    return r->api->id(r);
}
static inline int sluice_record_set_id(sluice_record *r, const char *id)
{
    return r->api->set_id(r, id);
}
/* Position in the stream's input, from 0. */
static inline uint64_t sluice_record_number(const sluice_record *r)
{
    return r->api->number(r);
}
/* The prompt as plain text; NULL when it is messages. */
static inline const char *sluice_record_prompt(const sluice_record *r)
{
    return r->api->prompt(r);
}
static inline int sluice_record_set_prompt(sluice_record *r, const char *text)
{
    return r->api->set_prompt(r, text);
}
/* The prompt as chat messages; 0 when it is plain text. */
static inline size_t sluice_record_messages(const sluice_record *r, const sluice_message **messages)
{
    return r->api->messages(r, messages);
}
static inline int sluice_record_set_messages(sluice_record *r, const sluice_message *messages, size_t count)
{
    return r->api->set_messages(r, messages, count);
}
/* Token ids of the prompt as the sampler or trainer fed it; NULL when nobody has encoded it yet. */
static inline const uint32_t *sluice_record_prompt_tokens(const sluice_record *r, size_t *count)
{
    return r->api->prompt_tokens(r, count);
}
static inline int sluice_record_set_prompt_tokens(sluice_record *r, const uint32_t *tokens, size_t count,
                                                  uint64_t template_hash)
{
    return r->api->set_prompt_tokens(r, tokens, count, template_hash);
}

static inline size_t sluice_record_candidates(const sluice_record *r)
{
    return r->api->candidate_count(r);
}
/* SLUICE_BAD_RECORD when there is no such candidate. */
static inline int sluice_record_candidate(const sluice_record *r, size_t index, sluice_candidate *out)
{
    return r->api->candidate(r, index, out);
}
static inline int sluice_record_add_candidate(sluice_record *r, const sluice_candidate *candidate)
{
    return r->api->add_candidate(r, candidate);
}
static inline int sluice_record_set_candidate(sluice_record *r, size_t index, const sluice_candidate *candidate)
{
    return r->api->set_candidate(r, index, candidate);
}

/* Leaves only these candidates, in this order, with all that is said of them. Rankings close up; a pair that names a
 * candidate which has gone goes too, and so does the mention of a parent which has gone or now comes later.
 * SLUICE_BAD_RECORD when an index names no candidate or stands there twice: the record is then as before. */
static inline int sluice_record_keep_candidates(sluice_record *r, const uint32_t *indices, size_t count)
{
    return r->api->keep_candidates(r, indices, count);
}

/* One score a candidate, NaN where this judge gave none; NULL when the judge scored nothing of this record. */
static inline const float *sluice_record_scores(const sluice_record *r, const char *judge)
{
    return r->api->scores(r, judge);
}
/* A NaN is refused (SLUICE_BAD_RECORD): leave the score out instead. Infinities are refused too. */
static inline int sluice_record_set_score(sluice_record *r, const char *judge, size_t candidate, float score)
{
    return r->api->set_score(r, judge, candidate, score);
}
/* Names of the judges that scored this record. */
static inline size_t sluice_record_judges(const sluice_record *r, const char *const **names)
{
    return r->api->judges(r, names);
}

/* Log-probability of each of the candidate's tokens under a model version ("policy@0"); NULL = not computed. */
static inline const float *sluice_record_logps(const sluice_record *r, size_t candidate, const char *version,
                                               size_t *count)
{
    return r->api->logps(r, candidate, version, count);
}
static inline int sluice_record_set_logps(sluice_record *r, size_t candidate, const char *version, const float *logps,
                                          size_t count)
{
    return r->api->set_logps(r, candidate, version, logps, count);
}

/* Rank of each candidate by a judge, 0 = best, equal ranks = ties, UINT32_MAX = not ranked; NULL when there is none. */
static inline const uint32_t *sluice_record_ranking(const sluice_record *r, const char *judge)
{
    return r->api->ranking(r, judge);
}
static inline int sluice_record_set_ranking(sluice_record *r, const char *judge, const uint32_t *rank)
{
    return r->api->set_ranking(r, judge, rank);
}

static inline size_t sluice_record_pairs(const sluice_record *r)
{
    return r->api->pair_count(r);
}
static inline int sluice_record_pair(const sluice_record *r, size_t index, sluice_pair *out)
{
    return r->api->pair(r, index, out);
}
/* Indices must name candidates and differ; p in [0, 1]; weight finite and ≥ 0. */
static inline int sluice_record_add_pair(sluice_record *r, const sluice_pair *pair)
{
    return r->api->add_pair(r, pair);
}
static inline int sluice_record_set_pair(sluice_record *r, size_t index, const sluice_pair *pair)
{
    return r->api->set_pair(r, index, pair);
}
static inline int sluice_record_clear_pairs(sluice_record *r)
{
    return r->api->clear_pairs(r);
}

/* Doubts a pair further: two independent sources of doubt combine as p·q + (1-p)(1-q), weights multiply. What every
 * regularizer calls, so that several in a row compose. */
static inline int sluice_pair_doubt(sluice_record *r, size_t index, double q, double weight)
{
    sluice_pair pair;
    int rc = r->api->pair(r, index, &pair);
    if (rc < 0)
        return rc;
    pair.p = pair.p * q + (1 - pair.p) * (1 - q);
    pair.weight *= weight;
    return r->api->set_pair(r, index, &pair);
}

/* SLUICE_END when none is set. */
static inline int sluice_record_reward(const sluice_record *r, size_t candidate, double *reward, double *advantage)
{
    return r->api->reward(r, candidate, reward, advantage);
}
static inline int sluice_record_set_reward(sluice_record *r, size_t candidate, double reward, double advantage)
{
    return r->api->set_reward(r, candidate, reward, advantage);
}

/* Which part of a candidate's tokens is whose; none = all of it the assistant's, trained. */
static inline int sluice_record_segments(const sluice_record *r, size_t candidate, const sluice_segment **segments,
                                         size_t *count)
{
    return r->api->segments(r, candidate, segments, count);
}
static inline int sluice_record_set_segments(sluice_record *r, size_t candidate, const sluice_segment *segments,
                                             size_t count)
{
    return r->api->set_segments(r, candidate, segments, count);
}

/* Free typed fields. Text: NULL when absent or no text. Number: SLUICE_END when absent or no number (a bool counts as 0
 * or 1). JSON: any value, given as JSON text. */
static inline const char *sluice_record_meta_text(const sluice_record *r, const char *key)
{
    return r->api->meta_text(r, key);
}
static inline int sluice_record_meta_number(const sluice_record *r, const char *key, double *value)
{
    return r->api->meta_number(r, key, value);
}
static inline int sluice_record_set_meta_text(sluice_record *r, const char *key, const char *value)
{
    return r->api->set_meta_text(r, key, value);
}
static inline int sluice_record_set_meta_number(sluice_record *r, const char *key, double value)
{
    return r->api->set_meta_number(r, key, value);
}
static inline int sluice_record_set_meta_bool(sluice_record *r, const char *key, bool value)
{
    return r->api->set_meta_bool(r, key, value);
}
static inline int sluice_record_set_meta_json(sluice_record *r, const char *key, const char *json)
{
    return r->api->set_meta_json(r, key, json);
}

/* Step of online training this record was made in; -1 = none. */
static inline int64_t sluice_record_step(const sluice_record *r)
{
    return r->api->step(r);
}
static inline int sluice_record_set_step(sluice_record *r, int64_t step)
{
    return r->api->set_step(r, step);
}

/* The whole record as one line of JSON, as `sluice cat` prints it. The caller frees it; NULL when out of memory. */
static inline char *sluice_record_json(const sluice_record *r)
{
    return r->api->json(r);
}

#endif
