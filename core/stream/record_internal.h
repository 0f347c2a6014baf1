/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What a record is made of: for the files record*.c only. */
#ifndef SL_RECORD_INTERNAL_H
#define SL_RECORD_INTERNAL_H

#include "core/base/cbor.h"
#include "core/stream/record.h"

/* A map's entry that this version does not know, as it stood: an encoded key and its value, side by side. */
typedef struct sl_unknown {
    const uint8_t *bytes;
    size_t key_size, size;
} sl_unknown;

/* Sorted by key. */
typedef struct sl_unknowns {
    sl_unknown *items;
    size_t count, capacity;
} sl_unknowns;

/* The names of a map from judges or model versions to arrays, sorted as CBOR sorts them (shorter first), and beside
 * each name its array. */
typedef struct sl_named {
    const char **names;
    void **values;
    size_t count, capacity;
} sl_named;

/* A free field: one block with the encoded key, the encoded value, and a NUL. */
typedef struct sl_meta {
    const char *name;
    const uint8_t *value;
    size_t size;
} sl_meta;

typedef struct sl_candidate {
    sluice_candidate public;
    double reward, advantage; /* NaN = none */
    sl_named logps;           /* float[public.token_count] */
    sluice_segment *segments;
    sl_unknowns *segment_unknowns; /* one a segment, or NULL */
    size_t segment_count;
    sl_unknowns unknown;
} sl_candidate;

typedef struct sl_pair {
    sluice_pair public;
    sl_unknowns unknown;
} sl_pair;

struct sl_record {
    sluice_record public;
    uint64_t number;
    sl_arena *arena; /* the record itself lies in it */
    const char *id, *prompt;
    sluice_message *messages;
    sl_unknowns *message_unknowns; /* one a message, or NULL */
    size_t message_count;
    const uint32_t *prompt_tokens;
    size_t prompt_token_count;
    uint64_t template_hash; /* 0 = not known */
    int64_t step;           /* -1 = none */
    sl_candidate *candidates;
    size_t candidate_count, candidate_capacity;
    sl_named scores;   /* float[candidate_capacity], NaN = absent */
    sl_named rankings; /* uint32_t[candidate_capacity], UINT32_MAX = not ranked */
    sl_pair *pairs;
    size_t pair_count, pair_capacity;
    sl_meta *meta; /* sorted by key */
    size_t meta_count, meta_capacity;
    sl_unknowns unknown;
};

/* No stage has use for more, and a reader must not be made to hold a structure for each byte of a hostile record. */
enum { SL_MAX_CANDIDATES = 65536 };

/* The keys of each kind of map, encoded, in the order in which deterministic CBOR has them. */
typedef struct sl_key {
    const char *bytes; /* head and text */
    uint8_t size;
} sl_key;

enum sl_record_key {
    KEY_ID,
    KEY_META,
    KEY_STEP,
    KEY_PAIRS,
    KEY_PROMPT,
    KEY_SCORES,
    KEY_MESSAGES,
    KEY_RANKINGS,
    KEY_TEMPLATE,
    KEY_CANDIDATES,
    KEY_PROMPT_TOKENS,
    RECORD_KEYS
};
enum sl_candidate_key {
    KEY_TAG,
    KEY_TEXT,
    KEY_LOGPS,
    KEY_FINISH,
    KEY_PARENT,
    KEY_REWARD,
    KEY_TOKENS,
    KEY_LOGPROBS,
    KEY_SEGMENTS,
    KEY_ADVANTAGE,
    CANDIDATE_KEYS
};
enum sl_pair_key { KEY_P, KEY_CHOSEN, KEY_MARGIN, KEY_WEIGHT, KEY_REJECTED, PAIR_KEYS };
enum sl_segment_key { KEY_END, KEY_ROLE, KEY_BEGIN, KEY_TRAINED, SEGMENT_KEYS };
enum sl_message_key { KEY_MESSAGE_ROLE, KEY_CONTENT, MESSAGE_KEYS };

extern const sl_key sl_record_keys[RECORD_KEYS], sl_candidate_keys[CANDIDATE_KEYS], sl_pair_keys[PAIR_KEYS],
    sl_segment_keys[SEGMENT_KEYS], sl_message_keys[MESSAGE_KEYS];

/* Names of the ways an answer can end, by enum sluice_finish. */
extern const char *const sl_finish_names[4];

/* The array of a name, or NULL. */
void *sl_named_find(const sl_named *, const char *name);
/* Puts a name with its array in its place. The name is borrowed. */
int sl_named_put(sl_arena *, sl_named *, const char *name, void *values);
/* Room for one more element of `size` bytes: doubles the array. */
int sl_grow(sl_arena *, void **array, size_t count, size_t *capacity, size_t size);

/* meta (record_meta.c) */
const char *sl_meta_text(const sluice_record *, const char *key);
int sl_meta_number(const sluice_record *, const char *key, double *value);
int sl_set_meta_text(sluice_record *, const char *key, const char *value);
int sl_set_meta_number(sluice_record *, const char *key, double value);
int sl_set_meta_bool(sluice_record *, const char *key, bool value);
int sl_set_meta_json(sluice_record *, const char *key, const char *json);

/* candidates (record_candidate.c) */
size_t sl_candidate_count(const sluice_record *);
int sl_get_candidate(const sluice_record *, size_t index, sluice_candidate *);
int sl_add_candidate(sluice_record *, const sluice_candidate *);
int sl_set_candidate(sluice_record *, size_t index, const sluice_candidate *);
const float *sl_scores(const sluice_record *, const char *judge);
int sl_set_score(sluice_record *, const char *judge, size_t index, float score);
size_t sl_judges(const sluice_record *, const char *const **names);
const float *sl_logps(const sluice_record *, size_t index, const char *version, size_t *count);
int sl_set_logps(sluice_record *, size_t index, const char *version, const float *, size_t count);
const uint32_t *sl_ranking(const sluice_record *, const char *judge);
int sl_set_ranking(sluice_record *, const char *judge, const uint32_t *rank);
int sl_reward(const sluice_record *, size_t index, double *reward, double *advantage);
int sl_set_reward(sluice_record *, size_t index, double reward, double advantage);
int sl_segments(const sluice_record *, size_t index, const sluice_segment **, size_t *count);
int sl_set_segments(sluice_record *, size_t index, const sluice_segment *, size_t count);
int sl_keep_candidates(sluice_record *, const uint32_t *indices, size_t count);

static inline const sl_record *sl_of(const sluice_record *r)
{
    return (const sl_record *)r;
}
static inline sl_record *sl_mine(sluice_record *r)
{
    return (sl_record *)r;
}
/* With room for `first` bytes beside the record itself. */
sl_record *sl_record_new_sized(size_t first);
/* Indices name different candidates, p is a probability, the weight is finite and not negative, the margin finite or
 * NaN. */
bool sl_pair_valid(const sl_record *, const sluice_pair *);
/* A copy of a text, malformed bytes replaced by U+FFFD. NULL when out of memory. */
char *sl_record_text(sl_record *, const char *);
/* A copy of a name (an id, a judge, a version, a role); SLUICE_BAD_RECORD when it is empty or not UTF-8. */
int sl_record_name(sl_record *, const char *, const char **copy);

#endif
