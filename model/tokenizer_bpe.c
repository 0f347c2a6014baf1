/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909): of all neighbouring pairs the one of lowest rank is
 * merged, the leftmost first, until none is left. A heap of candidates over a linked list of symbols keeps a word of n
 * characters at O(n log n).
 */
#include "model/tokenizer_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

struct sm_symbol {
    uint32_t id;
    int32_t previous, next; /* -1 at the ends */
    bool gone;              /* merged into the symbol at its left */
};

struct sm_candidate {
    uint32_t rank, position, id;
};

static uint32_t table_size(size_t entries)
{
    uint32_t size = 16;
    while (size < entries * 2) {
        size *= 2;
    }
    return size;
}

uint32_t sm_bpe_find(const sm_bpe *bpe, const char *text, size_t length)
{
    for (uint32_t slot = (uint32_t)XXH3_64bits(text, length);; slot++) {
        uint32_t id = bpe->slots[slot & bpe->slot_mask];
        if (id == SM_NO_TOKEN) {
            return SM_NO_TOKEN;
        }
        uint32_t begin = bpe->offset[id];
        if (bpe->offset[id + 1] - begin - 1 == length && memcmp(bpe->bytes + begin, text, length) == 0) {
            return id;
        }
    }
}

static uint64_t mix(uint64_t pair)
{
    pair *= 0x9e3779b97f4a7c15u;
    return pair ^ pair >> 32;
}

static const sm_merge *find_merge(const sm_bpe *bpe, uint32_t left, uint32_t right)
{
    uint64_t pair = (uint64_t)left << 32 | right;
    for (uint64_t slot = mix(pair);; slot++) {
        const sm_merge *merge = &bpe->merges[slot & bpe->merge_mask];
        if (merge->id == SM_NO_TOKEN) {
            return NULL;
        }
        if (merge->pair == pair) {
            return merge;
        }
    }
}

static void index_single_characters(sm_bpe *bpe)
{
    char text[8];
    for (uint32_t i = 0; i < 256; i++) {
        snprintf(text, sizeof text, "<0x%02X>", i);
        bpe->byte_ids[i] = sm_bpe_find(bpe, text, 6);
    }
    for (uint32_t i = 0; i < sizeof bpe->direct / sizeof *bpe->direct; i++) {
        bpe->direct[i] = sm_bpe_find(bpe, text, sm_utf8_encode(i, text));
    }
}

static int parse_options(sm_bpe *bpe, const json_t *model, sm_error *error)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *affix = json_object_get(model, affixes[i]);
        if (affix && !json_is_null(affix) && !(json_is_string(affix) && json_string_length(affix) == 0)) {
            return sm_fail(error, SM_UNSUPPORTED, "model: \"%s\" is not supported", affixes[i]);
        }
    }
    const json_t *dropout = json_object_get(model, "dropout");
    if (dropout && !json_is_null(dropout) && !(json_is_number(dropout) && json_number_value(dropout) == 0)) {
        return sm_fail(error, SM_UNSUPPORTED, "model: \"dropout\" is not supported; set it to null");
    }
    int code = sm_json_bool_or(model, "fuse_unk", "model", &bpe->fuse_unk, error);
    code = code != SM_OK ? code : sm_json_bool_or(model, "byte_fallback", "model", &bpe->byte_fallback, error);
    return code != SM_OK ? code : sm_json_bool_or(model, "ignore_merges", "model", &bpe->ignore_merges, error);
}

static int parse_unk(sm_bpe *bpe, const json_t *model, sm_error *error)
{
    const json_t *unk = json_object_get(model, "unk_token");
    bpe->unk = SM_NO_TOKEN;
    if (!unk || json_is_null(unk)) {
        return SM_OK;
    }
    if (!json_is_string(unk)) {
        return sm_fail(error, SM_FORMAT, "model: \"unk_token\" must be a string or null");
    }
    bpe->unk = sm_bpe_find(bpe, json_string_value(unk), json_string_length(unk));
    bpe->unk_missing = bpe->unk == SM_NO_TOKEN;
    return SM_OK;
}

/* Puts the texts in order of their ids into one block, which shows whether the ids are 0 … n-1, each once. */
static int lay_out(sm_bpe *bpe, const json_t *vocabulary, const char **texts, sm_error *error)
{
    const char *key;
    json_t *value;
    size_t bytes = 0;
    json_object_foreach((json_t *)vocabulary, key, value)
    {
        if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) >= bpe->size) {
            return sm_fail(error, SM_FORMAT,
                           "model: the id of token \"%.60s\" must be a whole number below the vocabulary's size %u "
                           "(ids may have no holes)",
                           key, bpe->size);
        }
        const char **text = &texts[json_integer_value(value)];
        if (*text) {
            return sm_fail(error, SM_FORMAT, "model: tokens \"%.60s\" and \"%.60s\" have the same id %lld", *text, key,
                           (long long)json_integer_value(value));
        }
        *text = key;
        bytes += strlen(key) + 1;
    }
    if (bytes > UINT32_MAX / 2 || !(bpe->bytes = malloc(bytes + 1))) {
        return sm_fail(error, SM_NO_MEMORY, "model: out of memory for a vocabulary of %zu bytes", bytes);
    }
    uint32_t at = 0;
    for (uint32_t id = 0; id < bpe->size; id++) {
        size_t length = strlen(texts[id]);
        memcpy(bpe->bytes + at, texts[id], length + 1);
        bpe->offset[id] = at;
        at += (uint32_t)length + 1;
        uint32_t slot = (uint32_t)XXH3_64bits(texts[id], length) & bpe->slot_mask;
        while (bpe->slots[slot] != SM_NO_TOKEN) {
            slot = (slot + 1) & bpe->slot_mask;
        }
        bpe->slots[slot] = id;
    }
    bpe->offset[bpe->size] = at;
    return SM_OK;
}

int sm_bpe_parse_vocabulary(sm_bpe *bpe, const json_t *model, sm_error *error)
{
    const char *type = sm_json_type(model, "model", error);
    if (!type) {
        return error->code;
    }
    if (strcmp(type, "BPE") != 0) {
        return sm_fail(error, SM_UNSUPPORTED, "model: type \"%.60s\" is not supported; BPE is", type);
    }
    int code = parse_options(bpe, model, error);
    if (code != SM_OK) {
        return code;
    }
    const json_t *vocabulary = json_object_get(model, "vocab");
    if (!json_is_object(vocabulary) || json_object_size(vocabulary) == 0) {
        return sm_fail(error, SM_FORMAT, "model: \"vocab\" must be an object of tokens and their ids");
    }
    if (json_object_size(vocabulary) > SM_MAX_TOKENS) {
        return sm_fail(error, SM_UNSUPPORTED, "model: %zu tokens; at most %u are supported",
                       json_object_size(vocabulary), SM_MAX_TOKENS);
    }
    bpe->size = (uint32_t)json_object_size(vocabulary);
    uint32_t slots = table_size(bpe->size);
    bpe->slot_mask = slots - 1;
    bpe->slots = malloc(slots * sizeof *bpe->slots);
    bpe->offset = calloc((size_t)bpe->size + 1, sizeof *bpe->offset);
    const char **texts = calloc(bpe->size, sizeof *texts);
    if (!bpe->slots || !bpe->offset || !texts) {
        code = sm_fail(error, SM_NO_MEMORY, "model: out of memory for %u tokens", bpe->size);
    } else {
        memset(bpe->slots, 0xff, slots * sizeof *bpe->slots);
        code = lay_out(bpe, vocabulary, texts, error);
    }
    free(texts);
    if (code != SM_OK) {
        return code;
    }
    index_single_characters(bpe);
    return parse_unk(bpe, model, error);
}

/* The two halves of a merge: ["a", "b"], or the older "a b". */
static int merge_halves(const json_t *entry, size_t index, const char *half[2], size_t length[2], sm_error *error)
{
    if (json_is_array(entry) && json_array_size(entry) == 2) {
        for (size_t i = 0; i < 2; i++) {
            const json_t *text = json_array_get(entry, i);
            half[i] = json_string_value(text);
            length[i] = json_string_length(text);
        }
        if (half[0] && half[1]) {
            return SM_OK;
        }
    } else if (json_is_string(entry)) {
        const char *text = json_string_value(entry), *end = text + json_string_length(entry);
        const char *space = memchr(text, ' ', (size_t)(end - text));
        if (space && !memchr(space + 1, ' ', (size_t)(end - space - 1))) {
            half[0] = text;
            length[0] = (size_t)(space - text);
            half[1] = space + 1;
            length[1] = (size_t)(end - space - 1);
            return SM_OK;
        }
    }
    return sm_fail(error, SM_FORMAT, "model: merge %zu must be two tokens, [\"a\", \"b\"] or \"a b\"", index);
}

static int parse_merge(sm_bpe *bpe, const json_t *entry, size_t index, uint32_t rank, sm_text *joined, sm_error *error)
{
    const char *half[2] = {NULL, NULL};
    size_t length[2] = {0, 0};
    int code = merge_halves(entry, index, half, length, error);
    if (code != SM_OK) {
        return code;
    }
    joined->length = 0;
    if (sm_text_append(joined, half[0], length[0]) < 0 || sm_text_append(joined, half[1], length[1]) < 0) {
        return sm_fail(error, SM_NO_MEMORY, "model: out of memory");
    }
    uint32_t left = sm_bpe_find(bpe, half[0], length[0]), right = sm_bpe_find(bpe, half[1], length[1]);
    uint32_t id = sm_bpe_find(bpe, joined->bytes, joined->length);
    if (left == SM_NO_TOKEN || right == SM_NO_TOKEN || id == SM_NO_TOKEN) {
        return sm_fail(error, SM_FORMAT, "model: merge %zu (\"%.60s\"): it, or a part of it, is not in the vocabulary",
                       index, joined->bytes);
    }
    if (sm_bit(bpe->special, id)) {
        return SM_OK;
    }
    uint64_t pair = (uint64_t)left << 32 | right, slot = mix(pair) & bpe->merge_mask;
    while (bpe->merges[slot].id != SM_NO_TOKEN && bpe->merges[slot].pair != pair) {
        slot = (slot + 1) & bpe->merge_mask;
    }
    /* Of merges that are there twice the last counts. */
    bpe->merges[slot] = (sm_merge){pair, rank, id};
    return SM_OK;
}

int sm_bpe_parse_merges(sm_bpe *bpe, const json_t *model, sm_error *error)
{
    const json_t *merges = json_object_get(model, "merges");
    if (!json_is_array(merges)) {
        return sm_fail(error, SM_FORMAT, "model: \"merges\" must be a list");
    }
    size_t count = json_array_size(merges);
    if (count > 4 * (size_t)SM_MAX_TOKENS) {
        return sm_fail(error, SM_UNSUPPORTED, "model: %zu merges; at most %u are supported", count, 4 * SM_MAX_TOKENS);
    }
    uint32_t slots = table_size(count);
    bpe->merge_mask = slots - 1;
    bpe->merges = malloc(slots * sizeof *bpe->merges);
    if (!bpe->merges) {
        return sm_fail(error, SM_NO_MEMORY, "model: out of memory for %zu merges", count);
    }
    memset(bpe->merges, 0xff, slots * sizeof *bpe->merges);
    sm_text joined = {0};
    int code = SM_OK;
    uint32_t rank = 0;
    for (size_t i = 0; code == SM_OK && i < count; i++) {
        const json_t *entry = json_array_get(merges, i);
        if (json_is_string(entry) && strncmp(json_string_value(entry), "#version", 8) == 0) {
            continue;
        }
        code = parse_merge(bpe, entry, i, rank++, &joined, error);
    }
    sm_text_free(&joined);
    return code;
}

void sm_bpe_free(sm_bpe *bpe)
{
    free(bpe->bytes);
    free(bpe->offset);
    free(bpe->slots);
    free(bpe->merges);
    *bpe = (sm_bpe){0};
}

void sm_bpe_work_free(sm_bpe_work *work)
{
    free(work->symbols);
    free(work->heap);
    *work = (sm_bpe_work){0};
}

static bool before(const struct sm_candidate *a, const struct sm_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->position < b->position;
}

static void sift_up(struct sm_candidate *heap, size_t at)
{
    struct sm_candidate item = heap[at];
    while (at && before(&item, &heap[(at - 1) / 2])) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = item;
}

static struct sm_candidate heap_pop(struct sm_candidate *heap, size_t *count)
{
    struct sm_candidate top = heap[0], item = heap[--*count];
    size_t at = 0;
    for (size_t child = 1; child < *count; child = 2 * at + 1) {
        if (child + 1 < *count && before(&heap[child + 1], &heap[child])) {
            child++;
        }
        if (!before(&heap[child], &item)) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = item;
    return top;
}

/* Room for a word of `length` bytes: a symbol each at most, and never more candidates than three a symbol (one at the
 * start, two for each merge). */
static int make_room(sm_bpe_work *work, size_t length, sm_error *error)
{
    if (length > work->symbol_capacity) {
        size_t capacity = length < 256 ? 256 : length;
        struct sm_symbol *symbols = realloc(work->symbols, capacity * sizeof *symbols);
        if (symbols) {
            work->symbols = symbols;
        }
        struct sm_candidate *heap = realloc(work->heap, 3 * capacity * sizeof *heap);
        if (heap) {
            work->heap = heap;
        }
        if (!symbols || !heap) {
            return sm_fail(error, SM_NO_MEMORY, "out of memory for a word of %zu bytes", length);
        }
        work->symbol_capacity = capacity;
    }
    return SM_OK;
}

static void add_symbol(sm_bpe_work *work, size_t *count, uint32_t id)
{
    work->symbols[*count] = (struct sm_symbol){id, (int32_t)*count - 1, (int32_t)*count + 1, false};
    ++*count;
}

/* A character's own token; or its bytes' tokens; or the unknown token, which waits until the next known character, so
 * that neighbouring unknown ones can be fused. */
static int first_symbols(const sm_bpe *bpe, sm_bpe_work *work, const char *word, size_t length, size_t *count,
                         sm_error *error)
{
    bool unknown = false;
    size_t size;
    for (size_t at = 0; at < length; at += size) {
        uint32_t c = sm_utf8_decode(word + at, &size);
        uint32_t id = c < sizeof bpe->direct / sizeof *bpe->direct ? bpe->direct[c] : sm_bpe_find(bpe, word + at, size);
        if (id != SM_NO_TOKEN) {
            if (unknown) {
                add_symbol(work, count, bpe->unk);
                unknown = false;
            }
            add_symbol(work, count, id);
            continue;
        }
        bool bytes = bpe->byte_fallback;
        for (size_t i = 0; bytes && i < size; i++) {
            bytes = bpe->byte_ids[(unsigned char)word[at + i]] != SM_NO_TOKEN;
        }
        for (size_t i = 0; bytes && i < size; i++) {
            add_symbol(work, count, bpe->byte_ids[(unsigned char)word[at + i]]);
        }
        if (bytes || (bpe->unk == SM_NO_TOKEN && !bpe->unk_missing)) {
            continue;
        }
        if (bpe->unk_missing) {
            return sm_fail(error, SM_FORMAT,
                           "a character (U+%04X) is not in the vocabulary, nor is the tokenizer's own unk_token", c);
        }
        if (unknown && !bpe->fuse_unk) {
            add_symbol(work, count, bpe->unk);
        }
        unknown = true;
    }
    if (unknown) {
        add_symbol(work, count, bpe->unk);
    }
    if (*count) {
        work->symbols[*count - 1].next = -1;
    }
    return SM_OK;
}

static void consider(const sm_bpe *bpe, sm_bpe_work *work, size_t *candidates, int32_t left)
{
    int32_t right = work->symbols[left].next;
    const sm_merge *merge = find_merge(bpe, work->symbols[left].id, work->symbols[right].id);
    if (merge) {
        work->heap[*candidates] = (struct sm_candidate){merge->rank, (uint32_t)left, merge->id};
        sift_up(work->heap, (*candidates)++);
    }
}

static void merge_all(const sm_bpe *bpe, sm_bpe_work *work, size_t count)
{
    struct sm_symbol *symbols = work->symbols;
    size_t candidates = 0;
    for (size_t i = 0; i + 1 < count; i++) {
        consider(bpe, work, &candidates, (int32_t)i);
    }
    while (candidates) {
        struct sm_candidate best = heap_pop(work->heap, &candidates);
        struct sm_symbol *left = &symbols[best.position];
        if (left->gone || left->next < 0) {
            continue;
        }
        struct sm_symbol *right = &symbols[left->next];
        const sm_merge *merge = find_merge(bpe, left->id, right->id);
        if (!merge || merge->id != best.id) {
            continue; /* one of the two has been merged with another neighbour since */
        }
        left->id = best.id;
        left->next = right->next;
        right->gone = true;
        if (right->next >= 0) {
            symbols[right->next].previous = (int32_t)best.position;
        }
        if (left->previous >= 0) {
            consider(bpe, work, &candidates, left->previous);
        }
        if (left->next >= 0) {
            consider(bpe, work, &candidates, (int32_t)best.position);
        }
    }
}

int sm_bpe_encode(const sm_bpe *bpe, sm_bpe_work *work, const char *word, size_t length, sm_tokens *out,
                  sm_error *error)
{
    if (bpe->ignore_merges) {
        uint32_t id = sm_bpe_find(bpe, word, length);
        if (id != SM_NO_TOKEN && !sm_bit(bpe->special, id)) {
            return sm_tokens_push(out, id) < 0 ? sm_fail(error, SM_NO_MEMORY, "out of memory") : SM_OK;
        }
    }
    size_t count = 0;
    int code = make_room(work, length, error);
    if (code == SM_OK) {
        code = first_symbols(bpe, work, word, length, &count, error);
    }
    if (code != SM_OK) {
        return code;
    }
    merge_all(bpe, work, count);
    for (size_t i = 0; i < count; i++) {
        if (!work->symbols[i].gone && sm_tokens_push(out, work->symbols[i].id) < 0) {
            return sm_fail(error, SM_NO_MEMORY, "out of memory");
        }
    }
    return SM_OK;
}
