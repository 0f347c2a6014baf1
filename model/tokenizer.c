/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

void sm_tokenizer_free(sm_tokenizer *t)
{
    if (!t) {
        return;
    }
    sm_bpe_free(&t->bpe);
    sm_added_free(&t->added);
    sm_normalizer_free(&t->normalizer);
    sm_splitter_free(&t->splitter);
    sm_frame_free(&t->frame);
    sm_unsplitter_free(&t->unsplitter);
    free(t->added_index);
    free(t->special);
    free(t->skipped);
    sm_tokens_free(&t->special_ids);
    sm_tokens_free(&t->stop_ids);
    free(t);
}

/* --- what it knows --- */

uint32_t sm_tokenizer_size(const sm_tokenizer *t)
{
    return t->size;
}

static const char *vocabulary_text(const sm_tokenizer *t, uint32_t id, size_t *length)
{
    *length = t->bpe.offset[id + 1] - t->bpe.offset[id] - 1;
    return t->bpe.bytes + t->bpe.offset[id];
}

const char *sm_token_for_decoder(const sm_tokenizer *t, uint32_t id, size_t *length)
{
    if (id >= t->size) {
        return NULL;
    }
    if (t->added_index[id] == SM_NO_TOKEN) {
        return vocabulary_text(t, id, length);
    }
    const sm_added_token *token = &t->added.tokens[t->added_index[id]];
    bool normal = token->normalized_content.bytes != NULL;
    *length = normal ? token->normalized_content.length : token->length;
    return normal ? token->normalized_content.bytes : token->content;
}

const char *sm_tokenizer_token_text(const sm_tokenizer *t, uint32_t id, size_t *length)
{
    size_t unused;
    length = length ? length : &unused;
    if (id < t->size && t->added_index[id] != SM_NO_TOKEN) {
        *length = t->added.tokens[t->added_index[id]].length;
        return t->added.tokens[t->added_index[id]].content;
    }
    return sm_token_for_decoder(t, id, length);
}

uint32_t sm_tokenizer_find(const sm_tokenizer *t, const char *text, size_t length)
{
    const sm_added_token *token = sm_added_find(&t->added, text, length);
    return token ? token->id : sm_bpe_find(&t->bpe, text, length);
}

uint32_t sm_tokenizer_bos(const sm_tokenizer *t)
{
    return t->bos;
}

uint32_t sm_tokenizer_eos(const sm_tokenizer *t)
{
    return t->eos;
}

uint32_t sm_tokenizer_pad(const sm_tokenizer *t)
{
    return t->pad;
}

uint32_t sm_tokenizer_unk(const sm_tokenizer *t)
{
    return t->unk;
}

const uint32_t *sm_tokenizer_special(const sm_tokenizer *t, size_t *count)
{
    *count = t->special_ids.count;
    return t->special_ids.ids;
}

bool sm_tokenizer_is_special(const sm_tokenizer *t, uint32_t id)
{
    return id < t->size && sm_bit(t->special, id);
}

const uint32_t *sm_tokenizer_stop_ids(const sm_tokenizer *t, size_t *count)
{
    *count = t->stop_ids.count;
    return t->stop_ids.ids;
}

/* --- encoding --- */

typedef struct encoding {
    const sm_tokenizer *tokenizer;
    bool guarded;   /* all of the text */
    bool continues; /* SM_CONTINUE */
    sm_parts parts, inner;
    sm_normal normal;
    sm_split_work split;
    sm_bpe_work bpe;
    sm_tokens *out;
    sm_error *error;
} encoding;

static int push(encoding *e, const uint32_t *ids, size_t count)
{
    return sm_tokens_append(e->out, ids, count) < 0 ? sm_fail(e->error, SM_NO_MEMORY, "out of memory") : SM_OK;
}

/* Normalized text without added tokens. */
static int encode_plain(encoding *e, const char *text, size_t length, bool at_start)
{
    const sm_tokenizer *t = e->tokenizer;
    int code = sm_split(&t->splitter, text, length, at_start, &e->split, e->error);
    const sm_words *words = &e->split.words;
    size_t begin = 0;
    for (size_t i = 0; code == SM_OK && i < words->count; i++) {
        size_t end = words->items[i].end;
        code = sm_bpe_encode(&t->bpe, &e->bpe, words->text.bytes + begin, end - begin, e->out, e->error);
        begin = end;
    }
    return code;
}

/* Text between the added tokens that are found before normalizing: normalize, then find the others. */
static int encode_part(encoding *e, const char *text, size_t length, const uint8_t *guard, bool at_start)
{
    const sm_tokenizer *t = e->tokenizer;
    if (t->normalizer.count) {
        int code = sm_normalize(&t->normalizer, text, length, guard, e->continues && at_start, &e->normal, e->error);
        if (code != SM_OK) {
            return code;
        }
        text = e->normal.text.bytes;
        length = e->normal.text.length;
        guard = guard ? (const uint8_t *)e->normal.guard.bytes : NULL;
        at_start = at_start && !e->normal.lead_lost;
    }
    int code = sm_added_split(&t->added, &t->added.normalized, text, length, guard, e->guarded, &e->inner, e->error);
    for (size_t i = 0; code == SM_OK && i < e->inner.count; i++) {
        sm_part part = e->inner.items[i];
        code = part.id != SM_NO_TOKEN
                   ? push(e, &part.id, 1)
                   : encode_plain(e, text + part.start, part.end - part.start, at_start && part.start == 0);
    }
    return code;
}

int sm_encode_guarded(const sm_tokenizer *t, const char *text, size_t length, const uint8_t *guard, unsigned flags,
                      sm_tokens *out, sm_error *error)
{
    size_t valid = sm_utf8_valid(text, length);
    if (valid < length) {
        return sm_fail(error, SM_BAD_ARGUMENT, "a text is not UTF-8 at byte %zu", valid);
    }
    if (length > SM_MAX_TEXT) {
        return sm_fail(error, SM_BAD_ARGUMENT, "a text of %zu bytes; at most %zu can be encoded at once", length,
                       SM_MAX_TEXT);
    }
    encoding e = {.tokenizer = t,
                  .guarded = !(flags & SM_PARSE_SPECIAL),
                  .continues = (flags & SM_CONTINUE) != 0,
                  .out = out,
                  .error = error};
    size_t before = out->count;
    guard = e.guarded ? NULL : guard;
    int code = flags & SM_ADD_SPECIAL ? push(&e, t->frame.before.ids, t->frame.before.count) : SM_OK;
    code = code != SM_OK ? code
                         : sm_added_split(&t->added, &t->added.plain, text, length, guard, e.guarded, &e.parts, error);
    for (size_t i = 0; code == SM_OK && i < e.parts.count; i++) {
        sm_part part = e.parts.items[i];
        code = part.id != SM_NO_TOKEN ? push(&e, &part.id, 1)
                                      : encode_part(&e, text + part.start, part.end - part.start,
                                                    guard ? guard + part.start : NULL, part.start == 0);
    }
    if (code == SM_OK && flags & SM_ADD_SPECIAL) {
        code = push(&e, t->frame.after.ids, t->frame.after.count);
    }
    if (code != SM_OK) {
        out->count = before;
    }
    free(e.parts.items);
    free(e.inner.items);
    sm_normal_free(&e.normal);
    sm_split_work_free(&e.split);
    sm_bpe_work_free(&e.bpe);
    return code;
}

int sm_encode(const sm_tokenizer *tokenizer, const char *text, size_t length, unsigned flags, sm_tokens *out,
              sm_error *error)
{
    return sm_encode_guarded(tokenizer, text, length, NULL, flags, out, error);
}
