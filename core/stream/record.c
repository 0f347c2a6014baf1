/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A record's life, its prompt and its pairs; the table that plugins call. */
#include "core/stream/record_internal.h"

#include <math.h>
#include <string.h>

#include "core/base/utf8.h"

#define KEY(head, text)         \
    {                           \
        head text, sizeof(text) \
    }
const sl_key sl_record_keys[RECORD_KEYS] = {
    KEY("\x62", "id"),       KEY("\x64", "meta"),       KEY("\x64", "step"),          KEY("\x65", "pairs"),
    KEY("\x66", "prompt"),   KEY("\x66", "scores"),     KEY("\x68", "messages"),      KEY("\x68", "rankings"),
    KEY("\x68", "template"), KEY("\x6a", "candidates"), KEY("\x6d", "prompt_tokens"),
};
const sl_key sl_candidate_keys[CANDIDATE_KEYS] = {
    KEY("\x63", "tag"),      KEY("\x64", "text"),      KEY("\x65", "logps"),  KEY("\x66", "finish"),
    KEY("\x66", "parent"),   KEY("\x66", "reward"),    KEY("\x66", "tokens"), KEY("\x68", "logprobs"),
    KEY("\x68", "segments"), KEY("\x69", "advantage"),
};
const sl_key sl_pair_keys[PAIR_KEYS] = {
    KEY("\x61", "p"), KEY("\x66", "chosen"), KEY("\x66", "margin"), KEY("\x66", "weight"), KEY("\x68", "rejected"),
};
const sl_key sl_segment_keys[SEGMENT_KEYS] = {
    KEY("\x63", "end"),
    KEY("\x64", "role"),
    KEY("\x65", "begin"),
    KEY("\x67", "trained"),
};
const sl_key sl_message_keys[MESSAGE_KEYS] = {KEY("\x64", "role"), KEY("\x67", "content")};

const char *const sl_finish_names[4] = {"none", "stop", "length", "error"};

int sl_grow(sl_arena *arena, void **array, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return SLUICE_OK;
    const size_t more = *capacity ? *capacity * 2 : 4;
    void *grown = sl_arena_alloc(arena, more * size);
    if (!grown)
        return SLUICE_NO_MEMORY;
    if (count)
        memcpy(grown, *array, count * size);
    *array = grown;
    *capacity = more;
    return SLUICE_OK;
}

/* Where a name stands or would stand: shorter names first, equally long ones by their bytes, as CBOR orders keys. */
static size_t named_place(const sl_named *named, const char *name, bool *there)
{
    const size_t size = strlen(name);
    size_t low = 0, high = named->count;
    *there = false;
    while (low < high && !*there) {
        const size_t middle = low + (high - low) / 2, its = strlen(named->names[middle]);
        const int order = its != size ? (its < size ? -1 : 1) : strcmp(named->names[middle], name);
        *there = order == 0;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return high;
}

void *sl_named_find(const sl_named *named, const char *name)
{
    bool there;
    const size_t place = named_place(named, name, &there);
    return there ? named->values[place] : NULL;
}

int sl_named_put(sl_arena *arena, sl_named *named, const char *name, void *values)
{
    bool there;
    size_t capacity = named->capacity;
    int rc = sl_grow(arena, (void **)&named->names, named->count, &capacity, sizeof *named->names);
    if (rc == SLUICE_OK)
        rc = sl_grow(arena, (void **)&named->values, named->count, &named->capacity, sizeof *named->values);
    if (rc < 0)
        return rc;
    const size_t place = named_place(named, name, &there), behind = named->count - place;
    memmove(named->names + place + 1, named->names + place, behind * sizeof *named->names);
    memmove(named->values + place + 1, named->values + place, behind * sizeof *named->values);
    named->names[place] = name;
    named->values[place] = values;
    named->count++;
    return SLUICE_OK;
}

char *sl_record_text(sl_record *r, const char *text)
{
    const size_t size = strlen(text);
    const bool good = sl_utf8_check(text, size) == size;
    char *copy = size < SIZE_MAX / 4 ? sl_arena_take(r->arena, good ? size + 1 : 3 * size + 1) : NULL;
    if (!copy)
        return NULL;
    if (good)
        return memcpy(copy, text, size + 1);
    copy[sl_utf8_repair(text, size, copy)] = '\0';
    return copy;
}

int sl_record_name(sl_record *r, const char *name, const char **copy)
{
    const size_t size = name ? strlen(name) : 0;
    if (size == 0 || sl_utf8_check(name, size) != size)
        return SLUICE_BAD_RECORD;
    *copy = sl_arena_strdup(r->arena, name);
    return *copy ? SLUICE_OK : SLUICE_NO_MEMORY;
}

static const char *id(const sluice_record *r)
{
    return sl_of(r)->id;
}

static int set_id(sluice_record *r, const char *name)
{
    return sl_record_name(sl_mine(r), name, &sl_mine(r)->id);
}

static uint64_t number(const sluice_record *r)
{
    return sl_of(r)->number;
}

static const char *prompt(const sluice_record *r)
{
    return sl_of(r)->prompt;
}

/* Token ids belong to the prompt they were made of: a new prompt has none. */
static void forget_prompt(sl_record *r)
{
    r->prompt = NULL;
    r->messages = NULL;
    r->message_unknowns = NULL;
    r->message_count = 0;
    r->prompt_tokens = NULL;
    r->prompt_token_count = 0;
    r->template_hash = 0;
}

static int set_prompt(sluice_record *public, const char *text)
{
    sl_record *r = sl_mine(public);
    if (!text)
        return SLUICE_BAD_RECORD;
    const char *copy = sl_record_text(r, text);
    if (!copy)
        return SLUICE_NO_MEMORY;
    forget_prompt(r);
    r->prompt = copy;
    return SLUICE_OK;
}

static size_t messages(const sluice_record *r, const sluice_message **out)
{
    *out = sl_of(r)->messages;
    return sl_of(r)->message_count;
}

static int set_messages(sluice_record *public, const sluice_message *given, size_t count)
{
    sl_record *r = sl_mine(public);
    if (count == 0 || count > UINT32_MAX)
        return SLUICE_BAD_RECORD;
    sluice_message *copy = sl_arena_alloc(r->arena, count * sizeof *copy);
    if (!copy)
        return SLUICE_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        int rc = sl_record_name(r, given[i].role, &copy[i].role);
        if (rc < 0)
            return rc;
        if (!given[i].content)
            return SLUICE_BAD_RECORD;
        copy[i].content = sl_record_text(r, given[i].content);
        if (!copy[i].content)
            return SLUICE_NO_MEMORY;
    }
    forget_prompt(r);
    r->messages = copy;
    r->message_count = count;
    return SLUICE_OK;
}

static const uint32_t *prompt_tokens(const sluice_record *r, size_t *count)
{
    *count = sl_of(r)->prompt_token_count;
    return sl_of(r)->prompt_tokens;
}

static int set_prompt_tokens(sluice_record *public, const uint32_t *tokens, size_t count, uint64_t template_hash)
{
    sl_record *r = sl_mine(public);
    if ((!tokens && count) || count > UINT32_MAX)
        return SLUICE_BAD_RECORD;
    uint32_t *copy = sl_arena_take(r->arena, count * sizeof *copy);
    if (!copy)
        return SLUICE_NO_MEMORY;
    if (count)
        memcpy(copy, tokens, count * sizeof *copy);
    r->prompt_tokens = copy;
    r->prompt_token_count = count;
    r->template_hash = template_hash;
    return SLUICE_OK;
}

static size_t pair_count(const sluice_record *r)
{
    return sl_of(r)->pair_count;
}

static int get_pair(const sluice_record *r, size_t index, sluice_pair *out)
{
    if (index >= sl_of(r)->pair_count)
        return SLUICE_BAD_RECORD;
    *out = sl_of(r)->pairs[index].public;
    return SLUICE_OK;
}

bool sl_pair_valid(const sl_record *r, const sluice_pair *pair)
{
    return pair->chosen < r->candidate_count && pair->rejected < r->candidate_count && pair->chosen != pair->rejected &&
           pair->p >= 0 && pair->p <= 1 && pair->weight >= 0 && isfinite(pair->weight) && !isinf(pair->margin);
}

static int add_pair(sluice_record *public, const sluice_pair *pair)
{
    sl_record *r = sl_mine(public);
    if (!sl_pair_valid(r, pair))
        return SLUICE_BAD_RECORD;
    int rc = sl_grow(r->arena, (void **)&r->pairs, r->pair_count, &r->pair_capacity, sizeof *r->pairs);
    if (rc == SLUICE_OK)
        r->pairs[r->pair_count++] = (sl_pair){.public = *pair};
    return rc;
}

static int set_pair(sluice_record *public, size_t index, const sluice_pair *pair)
{
    sl_record *r = sl_mine(public);
    if (index >= r->pair_count || !sl_pair_valid(r, pair))
        return SLUICE_BAD_RECORD;
    r->pairs[index].public = *pair;
    return SLUICE_OK;
}

static int clear_pairs(sluice_record *r)
{
    sl_mine(r)->pair_count = 0;
    return SLUICE_OK;
}

static int64_t step(const sluice_record *r)
{
    return sl_of(r)->step;
}

static int set_step(sluice_record *r, int64_t value)
{
    if (value < -1)
        return SLUICE_BAD_RECORD;
    sl_mine(r)->step = value;
    return SLUICE_OK;
}

static char *json(const sluice_record *r)
{
    sl_buffer out = {0};
    int rc = sl_record_to_json(sl_of(r), &out);
    if (rc == SLUICE_OK)
        rc = sl_buffer_append(&out, "", 1);
    if (rc < 0)
        sl_buffer_free(&out);
    return (char *)out.data;
}

static const sluice_record_api table = {
    .size = sizeof table,
    .id = id,
    .set_id = set_id,
    .prompt = prompt,
    .set_prompt = set_prompt,
    .messages = messages,
    .set_messages = set_messages,
    .prompt_tokens = prompt_tokens,
    .set_prompt_tokens = set_prompt_tokens,
    .candidate_count = sl_candidate_count,
    .candidate = sl_get_candidate,
    .add_candidate = sl_add_candidate,
    .set_candidate = sl_set_candidate,
    .scores = sl_scores,
    .set_score = sl_set_score,
    .logps = sl_logps,
    .set_logps = sl_set_logps,
    .ranking = sl_ranking,
    .set_ranking = sl_set_ranking,
    .pair_count = pair_count,
    .pair = get_pair,
    .add_pair = add_pair,
    .set_pair = set_pair,
    .clear_pairs = clear_pairs,
    .reward = sl_reward,
    .set_reward = sl_set_reward,
    .meta_text = sl_meta_text,
    .meta_number = sl_meta_number,
    .set_meta_text = sl_set_meta_text,
    .set_meta_number = sl_set_meta_number,
    .set_meta_bool = sl_set_meta_bool,
    .number = number,
    .judges = sl_judges,
    .segments = sl_segments,
    .set_segments = sl_set_segments,
    .step = step,
    .set_step = set_step,
    .json = json,
    .set_meta_json = sl_set_meta_json,
    .keep_candidates = sl_keep_candidates,
};

sl_record *sl_record_new_sized(size_t first)
{
    sl_arena *arena = sl_arena_new_sized(sizeof(sl_record) + first);
    if (!arena)
        return NULL;
    sl_record *r = sl_arena_alloc(arena, sizeof *r);
    if (!r) {
        sl_arena_free(arena);
        return NULL;
    }
    r->public.api = &table;
    r->arena = arena;
    r->step = -1;
    return r;
}

sl_record *sl_record_new(void)
{
    return sl_record_new_sized(1024);
}

void sl_record_free(sl_record *r)
{
    if (r)
        sl_arena_free(r->arena);
}

sluice_record *sl_record_public(sl_record *r)
{
    return &r->public;
}

sl_record *sl_record_from_public(sluice_record *r)
{
    return sl_mine(r);
}

void sl_record_set_number(sl_record *r, uint64_t value)
{
    r->number = value;
}

int sl_record_copy(const sl_record *r, sl_record **copy)
{
    /* By way of its encoding, which keeps everything; only what has no id yet cannot be encoded. */
    sl_buffer bytes = {0};
    size_t used;
    char error[128];
    *copy = NULL;
    int rc = sl_record_encode(r, &bytes);
    if (rc == SLUICE_OK)
        rc = sl_record_decode(bytes.data, bytes.size, copy, &used, error, sizeof error);
    if (rc == SLUICE_OK)
        (*copy)->number = r->number;
    sl_buffer_free(&bytes);
    return rc;
}

uint64_t sl_record_tokens(const sl_record *record)
{
    uint64_t tokens = record->prompt_token_count;
    for (size_t i = 0; i < record->candidate_count; i++)
        tokens += record->candidates[i].public.token_count;
    return tokens;
}

size_t sl_record_bytes(const sl_record *record)
{
    return sl_arena_bytes(record->arena);
}
