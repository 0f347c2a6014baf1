/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Deterministic CBOR to a record; whatever it holds is checked before it is believed. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/stream/record_internal.h"

typedef struct decoder {
    sl_cbor_reader in;
    sl_record *r;
    size_t budget; /* bytes that the record may still take */
    int result;
} decoder;

static bool refuse(decoder *d, const char *why)
{
    d->in.error = why;
    return false;
}

static void *take(decoder *d, size_t size)
{
    size = (size + 15) / 16 * 16; /* as the arena rounds it; sizes come from lengths that fit in the input */
    if (size > d->budget) {
        refuse(d, "the record takes too much memory for its size");
        return NULL;
    }
    d->budget -= size;
    void *at = sl_arena_take(d->r->arena, size);
    if (!at)
        d->result = SLUICE_NO_MEMORY;
    return at;
}

/* A map being read: its keys must come in order, known ones are met as their place in the table comes. */
typedef struct map {
    const sl_key *keys;
    size_t known, next;
    uint64_t left;
    const uint8_t *key;
    size_t key_size;
} map;

enum { END = -1, BAD = -2 };

static bool begin(decoder *d, map *m, const sl_key *keys, size_t known)
{
    *m = (map){.keys = keys, .known = known};
    return sl_cbor_expect(&d->in, SL_CBOR_MAP, &m->left);
}

static bool keep(decoder *d, map *m, sl_unknowns *unknown)
{
    if (!sl_cbor_skip(&d->in))
        return false;
    if (unknown->count == unknown->capacity) {
        const size_t capacity = unknown->capacity ? unknown->capacity * 2 : 2;
        sl_unknown *grown = take(d, capacity * sizeof *grown);
        if (!grown)
            return false;
        if (unknown->count)
            memcpy(grown, unknown->items, unknown->count * sizeof *grown);
        unknown->items = grown;
        unknown->capacity = capacity;
    }
    const size_t size = (size_t)(d->in.at - m->key);
    uint8_t *copy = take(d, size);
    if (!copy)
        return false;
    unknown->items[unknown->count++] = (sl_unknown){memcpy(copy, m->key, size), m->key_size, size};
    return true;
}

/* The next known key, its value next to be read; unknown entries are kept on the way. END or BAD otherwise. */
static int next(decoder *d, map *m, sl_unknowns *unknown)
{
    while (m->left > 0) {
        m->left--;
        const uint8_t *previous = m->key;
        const uint8_t *key = d->in.at;
        if (!sl_cbor_key(&d->in, previous, m->key_size))
            return BAD;
        m->key = key;
        m->key_size = (size_t)(d->in.at - key);
        for (; m->next < m->known; m->next++) {
            const sl_key *k = &m->keys[m->next];
            const int order = sl_cbor_compare(key, m->key_size, (const uint8_t *)k->bytes, k->size);
            if (order == 0)
                return (int)m->next++;
            if (order < 0)
                break;
        }
        if (!keep(d, m, unknown))
            return BAD;
    }
    return END;
}

/* A text as C has it: copied, terminated, without NUL inside. */
static bool text(decoder *d, const char **out)
{
    const char *bytes;
    size_t size;
    if (!sl_cbor_text(&d->in, &bytes, &size))
        return false;
    if (memchr(bytes, 0, size))
        return refuse(d, "a text holds a NUL");
    char *copy = take(d, size + 1);
    if (!copy)
        return false;
    memcpy(copy, bytes, size);
    copy[size] = '\0';
    *out = copy;
    return true;
}

static bool name(decoder *d, const char **out)
{
    return text(d, out) && (**out || refuse(d, "an empty name"));
}

/* An unsigned integer of at most `limit`. */
static bool integer(decoder *d, uint64_t limit, uint64_t *out)
{
    return sl_cbor_expect(&d->in, SL_CBOR_UINT, out) && (*out <= limit || refuse(d, "an integer is out of range"));
}

static bool index32(decoder *d, uint32_t *out)
{
    uint64_t value;
    if (!integer(d, UINT32_MAX, &value))
        return false;
    *out = (uint32_t)value;
    return true;
}

/* The whole of a typed array of four-byte elements, copied. */
static bool typed(decoder *d, enum sl_cbor_tag tag, const void **values, size_t *count)
{
    const uint8_t *bytes;
    size_t size;
    if (!sl_cbor_typed(&d->in, tag, &bytes, &size))
        return false;
    void *copy = take(d, size);
    if (!copy)
        return false;
    *values = memcpy(copy, bytes, size);
    *count = size / 4;
    return true;
}

/* A map from names to typed arrays. Lengths are checked by the caller, who may not know them yet: the least and the
 * greatest are handed back. */
static bool named(decoder *d, enum sl_cbor_tag tag, sl_named *out, size_t *least, size_t *most)
{
    uint64_t count;
    const uint8_t *previous = NULL;
    size_t previous_size = 0;
    *least = SIZE_MAX;
    *most = 0;
    if (!sl_cbor_expect(&d->in, SL_CBOR_MAP, &count))
        return false;
    if (count == 0)
        return refuse(d, "an empty map");
    out->names = take(d, count * sizeof *out->names);
    out->values = out->names ? take(d, count * sizeof *out->values) : NULL;
    if (!out->values)
        return false;
    out->capacity = count;
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *key = d->in.at;
        if (!sl_cbor_key(&d->in, previous, previous_size))
            return false;
        previous = key;
        previous_size = (size_t)(d->in.at - key);
        d->in.at = key;
        const void *values;
        size_t size;
        if (!name(d, &out->names[i]) || !typed(d, tag, &values, &size))
            return false;
        out->values[i] = (void *)(uintptr_t)values; /* the arrays are ours, in the arena */
        out->count++;
        *least = size < *least ? size : *least;
        *most = size > *most ? size : *most;
    }
    return true;
}

/* An array's length, and room for so many structures. */
static bool array(decoder *d, size_t size, void **items, size_t *count)
{
    uint64_t n;
    if (!sl_cbor_expect(&d->in, SL_CBOR_ARRAY, &n))
        return false;
    if (n == 0)
        return refuse(d, "an empty array");
    if (n > d->budget / size)
        return refuse(d, "the record takes too much memory for its size");
    *items = take(d, n * size);
    *count = n;
    if (*items)
        memset(*items, 0, n * size);
    return *items != NULL;
}

/* Unknown entries of an element are rare: their array is made when the first is met. */
static bool spread(decoder *d, sl_unknowns **all, size_t count, size_t index, const sl_unknowns *one)
{
    if (one->count == 0)
        return true;
    if (!*all) {
        if (count > d->budget / sizeof **all)
            return refuse(d, "the record takes too much memory for its size");
        *all = take(d, count * sizeof **all);
        if (!*all)
            return false;
        memset(*all, 0, count * sizeof **all);
    }
    (*all)[index] = *one;
    return true;
}

static bool message(decoder *d, sluice_message *out, sl_unknowns *unknown)
{
    map m;
    int which;
    if (!begin(d, &m, sl_message_keys, MESSAGE_KEYS))
        return false;
    while ((which = next(d, &m, unknown)) >= 0)
        if (!(which == KEY_MESSAGE_ROLE ? name(d, &out->role) : text(d, &out->content)))
            return false;
    return which == END && ((out->role && out->content) || refuse(d, "a message wants role and content"));
}

static bool messages(decoder *d)
{
    sl_record *r = d->r;
    if (!array(d, sizeof *r->messages, (void **)&r->messages, &r->message_count))
        return false;
    for (size_t i = 0; i < r->message_count; i++) {
        sl_unknowns unknown = {0};
        if (!message(d, &r->messages[i], &unknown) || !spread(d, &r->message_unknowns, r->message_count, i, &unknown))
            return false;
    }
    return true;
}

static bool segment(decoder *d, sluice_segment *out, sl_unknowns *unknown)
{
    map m;
    int which, seen = 0;
    if (!begin(d, &m, sl_segment_keys, SEGMENT_KEYS))
        return false;
    while ((which = next(d, &m, unknown)) >= 0) {
        seen++;
        bool good = which == KEY_END     ? index32(d, &out->end)
                    : which == KEY_ROLE  ? name(d, &out->role)
                    : which == KEY_BEGIN ? index32(d, &out->begin)
                                         : sl_cbor_bool(&d->in, &out->trained);
        if (!good)
            return false;
    }
    return which == END && (seen == SEGMENT_KEYS || refuse(d, "a segment wants role, begin, end and trained"));
}

static bool segments(decoder *d, sl_candidate *c)
{
    if (!array(d, sizeof *c->segments, (void **)&c->segments, &c->segment_count))
        return false;
    for (size_t i = 0; i < c->segment_count; i++) {
        sl_unknowns unknown = {0};
        if (!segment(d, &c->segments[i], &unknown) || !spread(d, &c->segment_unknowns, c->segment_count, i, &unknown))
            return false;
    }
    return true;
}

static bool finish(decoder *d, int32_t *out)
{
    const char *bytes;
    size_t size;
    if (!sl_cbor_text(&d->in, &bytes, &size))
        return false;
    for (int i = SLUICE_FINISH_STOP; i <= SLUICE_FINISH_ERROR; i++)
        if (strlen(sl_finish_names[i]) == size && memcmp(sl_finish_names[i], bytes, size) == 0) {
            *out = i;
            return true;
        }
    return refuse(d, "finish is none of stop, length, error");
}

static bool finite_number(decoder *d, double *out)
{
    return sl_cbor_number(&d->in, out) && (isfinite(*out) || refuse(d, "a number is not finite"));
}

static bool candidate(decoder *d, size_t position)
{
    sl_candidate *c = &d->r->candidates[position];
    sluice_candidate *p = &c->public;
    size_t tokens = 0, logprobs = 0, least = SIZE_MAX, most = 0;
    uint64_t parent;
    map m;
    int which;
    p->parent = -1;
    c->reward = c->advantage = NAN;
    if (!begin(d, &m, sl_candidate_keys, CANDIDATE_KEYS))
        return false;
    while ((which = next(d, &m, &c->unknown)) >= 0) {
        bool good = false;
        switch (which) {
        case KEY_TAG:
            good = text(d, &p->tag);
            break;
        case KEY_TEXT:
            good = text(d, &p->text);
            break;
        case KEY_LOGPS:
            good = named(d, SL_CBOR_F32, &c->logps, &least, &most);
            break;
        case KEY_FINISH:
            good = finish(d, &p->finish);
            break;
        case KEY_PARENT:
            good = integer(d, INT32_MAX, &parent) &&
                   (parent < position || refuse(d, "a candidate's parent is not before it"));
            p->parent = good ? (int32_t)parent : -1;
            break;
        case KEY_REWARD:
            good = finite_number(d, &c->reward);
            break;
        case KEY_TOKENS:
            good = typed(d, SL_CBOR_U32, (const void **)&p->tokens, &tokens);
            p->token_count = (uint32_t)tokens;
            break;
        case KEY_LOGPROBS:
            good = typed(d, SL_CBOR_F32, (const void **)&p->logprobs, &logprobs);
            break;
        case KEY_SEGMENTS:
            good = segments(d, c);
            break;
        case KEY_ADVANTAGE:
            good = finite_number(d, &c->advantage);
            break;
        }
        if (!good)
            return false;
    }
    if (which == BAD)
        return false;
    if ((p->logprobs && (!p->tokens || logprobs != tokens)) || (c->logps.count && (least != tokens || most != tokens)))
        return refuse(d, "a candidate's log-probabilities are not one a token");
    for (size_t i = 0; i < c->segment_count; i++)
        if (c->segments[i].begin > c->segments[i].end || c->segments[i].end > tokens)
            return refuse(d, "a segment lies outside its candidate's tokens");
    return true;
}

static bool candidates(decoder *d)
{
    sl_record *r = d->r;
    if (!array(d, sizeof *r->candidates, (void **)&r->candidates, &r->candidate_count))
        return false;
    if (r->candidate_count > SL_MAX_CANDIDATES)
        return refuse(d, "too many candidates");
    r->candidate_capacity = r->candidate_count;
    for (size_t i = 0; i < r->candidate_count; i++)
        if (!candidate(d, i))
            return false;
    return true;
}

static bool pair(decoder *d, sl_pair *out)
{
    sluice_pair *p = &out->public;
    map m;
    int which;
    bool chosen = false, rejected = false;
    p->p = p->weight = 1;
    p->margin = NAN;
    if (!begin(d, &m, sl_pair_keys, PAIR_KEYS))
        return false;
    while ((which = next(d, &m, &out->unknown)) >= 0) {
        bool good = false;
        switch (which) {
        case KEY_P:
            good = finite_number(d, &p->p);
            break;
        case KEY_CHOSEN:
            good = chosen = index32(d, &p->chosen);
            break;
        case KEY_MARGIN:
            good = finite_number(d, &p->margin);
            break;
        case KEY_WEIGHT:
            good = finite_number(d, &p->weight);
            break;
        case KEY_REJECTED:
            good = rejected = index32(d, &p->rejected);
            break;
        }
        if (!good)
            return false;
    }
    return which == END && ((chosen && rejected) || refuse(d, "a pair wants chosen and rejected"));
}

static bool pairs(decoder *d)
{
    sl_record *r = d->r;
    if (!array(d, sizeof *r->pairs, (void **)&r->pairs, &r->pair_count))
        return false;
    r->pair_capacity = r->pair_count;
    for (size_t i = 0; i < r->pair_count; i++)
        if (!pair(d, &r->pairs[i]))
            return false;
    return true;
}

static bool meta(decoder *d)
{
    sl_record *r = d->r;
    uint64_t count;
    const uint8_t *previous = NULL;
    size_t previous_size = 0;
    if (!sl_cbor_expect(&d->in, SL_CBOR_MAP, &count))
        return false;
    if (count == 0)
        return refuse(d, "an empty map");
    r->meta = take(d, count * sizeof *r->meta);
    if (!r->meta)
        return false;
    r->meta_capacity = count;
    for (uint64_t i = 0; i < count; i++) {
        sl_meta *item = &r->meta[i];
        const uint8_t *key = d->in.at;
        if (!sl_cbor_key(&d->in, previous, previous_size))
            return false;
        previous = key;
        previous_size = (size_t)(d->in.at - key);
        d->in.at = key;
        if (!name(d, &item->name))
            return false;
        const uint8_t *value = d->in.at;
        if (!sl_cbor_skip(&d->in))
            return false;
        item->size = (size_t)(d->in.at - value);
        uint8_t *copy = take(d, item->size + 1);
        if (!copy)
            return false;
        memcpy(copy, value, item->size);
        copy[item->size] = '\0';
        item->value = copy;
        r->meta_count++;
    }
    return true;
}

static bool record(decoder *d)
{
    sl_record *r = d->r;
    size_t scores_least = 0, scores_most = 0, ranks_least = 0, ranks_most = 0;
    uint64_t step;
    map m;
    int which;
    if (!begin(d, &m, sl_record_keys, RECORD_KEYS))
        return false;
    while ((which = next(d, &m, &r->unknown)) >= 0) {
        bool good = false;
        switch (which) {
        case KEY_ID:
            good = name(d, &r->id);
            break;
        case KEY_META:
            good = meta(d);
            break;
        case KEY_STEP:
            good = integer(d, INT64_MAX, &step);
            r->step = good ? (int64_t)step : -1;
            break;
        case KEY_PAIRS:
            good = pairs(d);
            break;
        case KEY_PROMPT:
            good = text(d, &r->prompt);
            break;
        case KEY_SCORES:
            good = named(d, SL_CBOR_F32, &r->scores, &scores_least, &scores_most);
            break;
        case KEY_MESSAGES:
            good = messages(d);
            break;
        case KEY_RANKINGS:
            good = named(d, SL_CBOR_U32, &r->rankings, &ranks_least, &ranks_most);
            break;
        case KEY_TEMPLATE:
            good = integer(d, UINT64_MAX, &r->template_hash) && (r->template_hash || refuse(d, "a template of 0"));
            break;
        case KEY_CANDIDATES:
            good = candidates(d);
            break;
        case KEY_PROMPT_TOKENS:
            good = typed(d, SL_CBOR_U32, (const void **)&r->prompt_tokens, &r->prompt_token_count);
            break;
        }
        if (!good)
            return false;
    }
    if (which == BAD)
        return false;
    const size_t count = r->candidate_count;
    if (!r->id)
        return refuse(d, "a record wants an id");
    if (r->prompt && r->message_count)
        return refuse(d, "a record has both prompt and messages");
    if (r->scores.count && (scores_least != count || scores_most != count))
        return refuse(d, "a judge's scores are not one a candidate");
    if (r->rankings.count && (ranks_least != count || ranks_most != count || count == 0))
        return refuse(d, "a ranking is not one a candidate");
    for (size_t i = 0; i < r->scores.count; i++)
        for (size_t k = 0; k < count; k++)
            if (isinf(((const float *)r->scores.values[i])[k]))
                return refuse(d, "a score is infinite");
    for (size_t i = 0; i < r->pair_count; i++)
        if (!sl_pair_valid(r, &r->pairs[i].public))
            return refuse(d, "a pair names candidates that are not there, or its p, weight or margin is out of range");
    return true;
}

int sl_record_decode(const uint8_t *bytes, size_t size, sl_record **out, size_t *used, char *error, size_t error_size)
{
    enum { FACTOR = 16, SPARE = 65536 };
    /* Most records are smaller than what follows them in the chunk: do not size the first block by that. */
    enum { FIRST = 2048 };
    decoder d = {.in = {bytes, bytes + size, NULL}};
    *out = NULL;
    d.budget = size > (SIZE_MAX - SPARE) / FACTOR ? SIZE_MAX : size * FACTOR + SPARE;
    d.r = sl_record_new_sized(size < FIRST ? size + size / 2 : FIRST);
    if (!d.r)
        return SLUICE_NO_MEMORY;
    if (record(&d)) {
        *out = d.r;
        *used = (size_t)(d.in.at - bytes);
        return SLUICE_OK;
    }
    sl_record_free(d.r);
    if (d.result < 0) {
        snprintf(error, error_size, "out of memory");
        return d.result;
    }
    snprintf(error, error_size, "%s (byte %zu of the record)", d.in.error, (size_t)(d.in.at - bytes));
    return SLUICE_BAD_RECORD;
}
