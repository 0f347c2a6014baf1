/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A record's candidates and what is said of each: scores, rankings, log-probabilities, rewards, segments. */
#include "core/stream/record_internal.h"

#include <math.h>
#include <string.h>

size_t sl_candidate_count(const sluice_record *r)
{
    return sl_of(r)->candidate_count;
}

int sl_get_candidate(const sluice_record *r, size_t index, sluice_candidate *out)
{
    if (index >= sl_of(r)->candidate_count)
        return SLUICE_BAD_RECORD;
    *out = sl_of(r)->candidates[index].public;
    return SLUICE_OK;
}

static bool has_nan(const float *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (isnan(values[i]))
            return true;
    return false;
}

static int copy_array(sl_record *r, const void *from, size_t size, const void **copy)
{
    void *to = sl_arena_take(r->arena, size);
    if (!to)
        return SLUICE_NO_MEMORY;
    if (size)
        memcpy(to, from, size);
    *copy = to;
    return SLUICE_OK;
}

/* A copy of a candidate that is to stand at `index`. */
static int take(sl_record *r, size_t index, const sluice_candidate *given, sluice_candidate *copy)
{
    *copy = *given;
    if (given->finish < SLUICE_FINISH_NONE || given->finish > SLUICE_FINISH_ERROR || given->parent < -1 ||
        given->parent >= (int64_t)index || (given->token_count && !given->tokens) ||
        (given->logprobs && (!given->tokens || has_nan(given->logprobs, given->token_count))))
        return SLUICE_BAD_RECORD;
    const size_t size = (size_t)given->token_count * 4;
    int rc = SLUICE_OK;
    if (given->text && !(copy->text = sl_record_text(r, given->text)))
        rc = SLUICE_NO_MEMORY;
    if (rc == SLUICE_OK && given->tag && !(copy->tag = sl_record_text(r, given->tag)))
        rc = SLUICE_NO_MEMORY;
    if (rc == SLUICE_OK && given->tokens)
        rc = copy_array(r, given->tokens, size, (const void **)&copy->tokens);
    if (rc == SLUICE_OK && given->logprobs)
        rc = copy_array(r, given->logprobs, size, (const void **)&copy->logprobs);
    return rc;
}

/* Every judge's array grows with the candidates. */
static int grow_named(sl_record *r, sl_named *named, size_t capacity)
{
    for (size_t i = 0; i < named->count; i++) {
        void *grown = sl_arena_take(r->arena, capacity * 4);
        if (!grown)
            return SLUICE_NO_MEMORY;
        memcpy(grown, named->values[i], r->candidate_count * 4);
        named->values[i] = grown;
    }
    return SLUICE_OK;
}

int sl_add_candidate(sluice_record *public, const sluice_candidate *given)
{
    sl_record *r = sl_mine(public);
    const size_t index = r->candidate_count;
    if (index >= SL_MAX_CANDIDATES)
        return SLUICE_BAD_RECORD;
    sluice_candidate copy;
    int rc = take(r, index, given, &copy);
    if (rc < 0)
        return rc;
    size_t capacity = r->candidate_capacity;
    if (index == capacity) {
        rc = sl_grow(r->arena, (void **)&r->candidates, index, &capacity, sizeof *r->candidates);
        if (rc == SLUICE_OK)
            rc = grow_named(r, &r->scores, capacity);
        if (rc == SLUICE_OK)
            rc = grow_named(r, &r->rankings, capacity);
        if (rc < 0)
            return rc;
        r->candidate_capacity = capacity;
    }
    for (size_t i = 0; i < r->scores.count; i++)
        ((float *)r->scores.values[i])[index] = NAN;
    for (size_t i = 0; i < r->rankings.count; i++)
        ((uint32_t *)r->rankings.values[i])[index] = UINT32_MAX;
    r->candidates[index] = (sl_candidate){.public = copy, .reward = NAN, .advantage = NAN};
    r->candidate_count++;
    return SLUICE_OK;
}

int sl_set_candidate(sluice_record *public, size_t index, const sluice_candidate *given)
{
    sl_record *r = sl_mine(public);
    if (index >= r->candidate_count)
        return SLUICE_BAD_RECORD;
    sl_candidate *c = &r->candidates[index];
    sluice_candidate copy;
    int rc = take(r, index, given, &copy);
    if (rc < 0)
        return rc;
    const bool same = copy.token_count == c->public.token_count && !copy.tokens == !c->public.tokens &&
                      (!copy.tokens || memcmp(copy.tokens, c->public.tokens, (size_t)copy.token_count * 4) == 0);
    if (!same) { /* what was said of other tokens does not hold of these */
        c->logps = (sl_named){0};
        c->segments = NULL;
        c->segment_unknowns = NULL;
        c->segment_count = 0;
    }
    c->public = copy;
    return SLUICE_OK;
}

const float *sl_scores(const sluice_record *r, const char *judge)
{
    return sl_named_find(&sl_of(r)->scores, judge);
}

/* A new judge's array, every place filled with `absent`'s bits. */
static int new_judge(sl_record *r, sl_named *named, const char *judge, uint32_t absent, void **array)
{
    const char *name;
    int rc = sl_record_name(r, judge, &name);
    if (rc < 0)
        return rc;
    uint32_t *values = sl_arena_take(r->arena, r->candidate_capacity * 4);
    if (!values)
        return SLUICE_NO_MEMORY;
    for (size_t i = 0; i < r->candidate_count; i++)
        values[i] = absent;
    *array = values;
    return sl_named_put(r->arena, named, name, values);
}

int sl_set_score(sluice_record *public, const char *judge, size_t index, float score)
{
    sl_record *r = sl_mine(public);
    if (index >= r->candidate_count || !isfinite(score))
        return SLUICE_BAD_RECORD;
    void *values = judge ? sl_named_find(&r->scores, judge) : NULL;
    if (!values) {
        const float nan = NAN;
        uint32_t absent;
        memcpy(&absent, &nan, 4);
        int rc = new_judge(r, &r->scores, judge, absent, &values);
        if (rc < 0)
            return rc;
    }
    ((float *)values)[index] = score;
    return SLUICE_OK;
}

size_t sl_judges(const sluice_record *r, const char *const **names)
{
    *names = sl_of(r)->scores.names;
    return sl_of(r)->scores.count;
}

const float *sl_logps(const sluice_record *public, size_t index, const char *version, size_t *count)
{
    const sl_record *r = sl_of(public);
    const float *values = index < r->candidate_count ? sl_named_find(&r->candidates[index].logps, version) : NULL;
    *count = values ? r->candidates[index].public.token_count : 0;
    return values;
}

int sl_set_logps(sluice_record *public, size_t index, const char *version, const float *logps, size_t count)
{
    sl_record *r = sl_mine(public);
    if (index >= r->candidate_count || count != r->candidates[index].public.token_count || (count && !logps) ||
        has_nan(logps, count))
        return SLUICE_BAD_RECORD;
    sl_candidate *c = &r->candidates[index];
    void *values = version ? sl_named_find(&c->logps, version) : NULL;
    if (!values) {
        const char *name;
        int rc = sl_record_name(r, version, &name);
        if (rc < 0)
            return rc;
        values = sl_arena_take(r->arena, count * sizeof(float));
        if (!values)
            return SLUICE_NO_MEMORY;
        rc = sl_named_put(r->arena, &c->logps, name, values);
        if (rc < 0)
            return rc;
    }
    if (count)
        memcpy(values, logps, count * sizeof(float));
    return SLUICE_OK;
}

const uint32_t *sl_ranking(const sluice_record *r, const char *judge)
{
    return sl_named_find(&sl_of(r)->rankings, judge);
}

int sl_set_ranking(sluice_record *public, const char *judge, const uint32_t *rank)
{
    sl_record *r = sl_mine(public);
    if (r->candidate_count == 0 || !rank)
        return SLUICE_BAD_RECORD;
    void *values = judge ? sl_named_find(&r->rankings, judge) : NULL;
    if (!values) {
        int rc = new_judge(r, &r->rankings, judge, UINT32_MAX, &values);
        if (rc < 0)
            return rc;
    }
    memcpy(values, rank, r->candidate_count * sizeof *rank);
    return SLUICE_OK;
}

int sl_reward(const sluice_record *r, size_t index, double *reward, double *advantage)
{
    if (index >= sl_of(r)->candidate_count)
        return SLUICE_BAD_RECORD;
    const sl_candidate *c = &sl_of(r)->candidates[index];
    *reward = c->reward;
    *advantage = c->advantage;
    return isnan(c->reward) && isnan(c->advantage) ? SLUICE_END : SLUICE_OK;
}

int sl_set_reward(sluice_record *r, size_t index, double reward, double advantage)
{
    if (index >= sl_of(r)->candidate_count || isinf(reward) || isinf(advantage))
        return SLUICE_BAD_RECORD;
    sl_mine(r)->candidates[index].reward = reward;
    sl_mine(r)->candidates[index].advantage = advantage;
    return SLUICE_OK;
}

int sl_segments(const sluice_record *r, size_t index, const sluice_segment **segments, size_t *count)
{
    if (index >= sl_of(r)->candidate_count)
        return SLUICE_BAD_RECORD;
    *segments = sl_of(r)->candidates[index].segments;
    *count = sl_of(r)->candidates[index].segment_count;
    return SLUICE_OK;
}

int sl_set_segments(sluice_record *public, size_t index, const sluice_segment *given, size_t count)
{
    sl_record *r = sl_mine(public);
    if (index >= r->candidate_count || count > UINT32_MAX)
        return SLUICE_BAD_RECORD;
    sl_candidate *c = &r->candidates[index];
    sluice_segment *copy = sl_arena_alloc(r->arena, count * sizeof *copy);
    if (!copy)
        return SLUICE_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        if (given[i].begin > given[i].end || given[i].end > c->public.token_count)
            return SLUICE_BAD_RECORD;
        copy[i] = given[i];
        int rc = sl_record_name(r, given[i].role, &copy[i].role);
        if (rc < 0)
            return rc;
    }
    c->segments = count ? copy : NULL;
    c->segment_unknowns = NULL;
    c->segment_count = count;
    return SLUICE_OK;
}

/* Where each candidate goes; UINT32_MAX = nowhere. NULL with *rc when the indices are wrong or memory is out. */
static uint32_t *destinations(sl_record *r, const uint32_t *indices, size_t count, int *rc)
{
    uint32_t *to = sl_arena_take(r->arena, r->candidate_count * sizeof *to);
    *rc = to ? SLUICE_OK : SLUICE_NO_MEMORY;
    for (size_t i = 0; to && i < r->candidate_count; i++)
        to[i] = UINT32_MAX;
    for (size_t i = 0; to && i < count; i++) {
        if (indices[i] >= r->candidate_count || to[indices[i]] != UINT32_MAX) {
            *rc = SLUICE_BAD_RECORD;
            return NULL;
        }
        to[indices[i]] = (uint32_t)i;
    }
    return to;
}

/* Rank = how many of those that stay rank higher. `ranks` is in the old order, out in the new. */
static void close_up(const uint32_t *ranks, const uint32_t *indices, size_t count, uint32_t *out)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t above = 0, rank = ranks[indices[i]];
        for (size_t j = 0; j < count; j++)
            above += ranks[indices[j]] < rank;
        out[i] = rank == UINT32_MAX ? UINT32_MAX : above;
    }
}

static void keep_pairs(sl_record *r, const uint32_t *to)
{
    size_t kept = 0;
    for (size_t i = 0; i < r->pair_count; i++) {
        sl_pair pair = r->pairs[i];
        pair.public.chosen = to[pair.public.chosen];
        pair.public.rejected = to[pair.public.rejected];
        if (pair.public.chosen != UINT32_MAX && pair.public.rejected != UINT32_MAX)
            r->pairs[kept++] = pair;
    }
    r->pair_count = kept;
}

int sl_keep_candidates(sluice_record *public, const uint32_t *indices, size_t count)
{
    sl_record *r = sl_mine(public);
    int rc;
    if (r->candidate_count == 0)
        return count == 0 ? SLUICE_OK : SLUICE_BAD_RECORD;
    const uint32_t *to = destinations(r, indices, count, &rc);
    if (!to)
        return rc;
    sl_candidate *candidates = sl_arena_alloc(r->arena, r->candidate_capacity * sizeof *candidates);
    uint32_t *values = sl_arena_take(r->arena, count * sizeof *values);
    if (!candidates || !values)
        return SLUICE_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        int32_t *parent = &candidates[i].public.parent;
        candidates[i] = r->candidates[indices[i]];
        if (*parent >= 0)
            *parent = to[*parent] < i ? (int32_t)to[*parent] : -1;
    }
    for (size_t k = 0; k < r->scores.count; k++) {
        for (size_t i = 0; i < count; i++)
            values[i] = ((const uint32_t *)r->scores.values[k])[indices[i]];
        memcpy(r->scores.values[k], values, count * sizeof *values);
    }
    for (size_t k = 0; k < r->rankings.count; k++) {
        close_up(r->rankings.values[k], indices, count, values);
        memcpy(r->rankings.values[k], values, count * sizeof *values);
    }
    keep_pairs(r, to);
    r->candidates = candidates;
    r->candidate_count = count;
    return SLUICE_OK;
}
