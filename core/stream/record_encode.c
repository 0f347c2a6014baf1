/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A record as deterministic CBOR; doc/stream-format.md has the layout. */
#include <math.h>
#include <string.h>

#include "core/stream/record_internal.h"

/* A map being written: known keys in their order, the unknown ones put between them where they sort. */
typedef struct map {
    sl_cbor_writer *w;
    const sl_key *keys;
    const sl_unknowns *unknown;
    size_t next; /* of the unknown ones */
} map;

static map begin(sl_cbor_writer *w, const sl_key *keys, size_t known, const sl_unknowns *unknown)
{
    static const sl_unknowns none;
    if (!unknown)
        unknown = &none;
    sl_cbor_put_head(w, SL_CBOR_MAP, known + unknown->count);
    return (map){w, keys, unknown, 0};
}

static void key(map *m, int which)
{
    const sl_key *k = &m->keys[which];
    for (; m->next < m->unknown->count; m->next++) {
        const sl_unknown *u = &m->unknown->items[m->next];
        if (sl_cbor_compare(u->bytes, u->key_size, (const uint8_t *)k->bytes, k->size) > 0)
            break;
        sl_cbor_put_raw(m->w, u->bytes, u->size);
    }
    sl_cbor_put_raw(m->w, k->bytes, k->size);
}

static void end(map *m)
{
    for (; m->next < m->unknown->count; m->next++)
        sl_cbor_put_raw(m->w, m->unknown->items[m->next].bytes, m->unknown->items[m->next].size);
}

static void text(sl_cbor_writer *w, const char *s)
{
    sl_cbor_put_text(w, s, strlen(s));
}

static void named(sl_cbor_writer *w, const sl_named *n, enum sl_cbor_tag tag, size_t count)
{
    sl_cbor_put_head(w, SL_CBOR_MAP, n->count);
    for (size_t i = 0; i < n->count; i++) {
        text(w, n->names[i]);
        sl_cbor_put_typed(w, tag, n->values[i], count * 4);
    }
}

/* A judge that scored nothing of what is left is no judge of this record. */
static bool scored(const sl_record *r, size_t judge)
{
    const float *values = r->scores.values[judge];
    for (size_t i = 0; i < r->candidate_count; i++)
        if (!isnan(values[i]))
            return true;
    return false;
}

static void scores(sl_cbor_writer *w, const sl_record *r, size_t judges)
{
    sl_cbor_put_head(w, SL_CBOR_MAP, judges);
    for (size_t i = 0; i < r->scores.count; i++)
        if (scored(r, i)) {
            text(w, r->scores.names[i]);
            sl_cbor_put_typed(w, SL_CBOR_F32, r->scores.values[i], r->candidate_count * 4);
        }
}

static void segments(sl_cbor_writer *w, const sl_candidate *c)
{
    sl_cbor_put_head(w, SL_CBOR_ARRAY, c->segment_count);
    for (size_t i = 0; i < c->segment_count; i++) {
        const sluice_segment *s = &c->segments[i];
        map m = begin(w, sl_segment_keys, 4, c->segment_unknowns ? &c->segment_unknowns[i] : NULL);
        key(&m, KEY_END);
        sl_cbor_put_int(w, s->end);
        key(&m, KEY_ROLE);
        text(w, s->role);
        key(&m, KEY_BEGIN);
        sl_cbor_put_int(w, s->begin);
        key(&m, KEY_TRAINED);
        sl_cbor_put_bool(w, s->trained);
        end(&m);
    }
}

static void candidate(sl_cbor_writer *w, const sl_candidate *c)
{
    const sluice_candidate *p = &c->public;
    const size_t known = !!p->tag + !!p->text + (c->logps.count > 0) + (p->finish != SLUICE_FINISH_NONE) +
                         (p->parent >= 0) + !isnan(c->reward) + !!p->tokens + !!p->logprobs + (c->segment_count > 0) +
                         !isnan(c->advantage);
    map m = begin(w, sl_candidate_keys, known, &c->unknown);
    if (p->tag) {
        key(&m, KEY_TAG);
        text(w, p->tag);
    }
    if (p->text) {
        key(&m, KEY_TEXT);
        text(w, p->text);
    }
    if (c->logps.count) {
        key(&m, KEY_LOGPS);
        named(w, &c->logps, SL_CBOR_F32, p->token_count);
    }
    if (p->finish != SLUICE_FINISH_NONE) {
        key(&m, KEY_FINISH);
        text(w, sl_finish_names[p->finish]);
    }
    if (p->parent >= 0) {
        key(&m, KEY_PARENT);
        sl_cbor_put_int(w, p->parent);
    }
    if (!isnan(c->reward)) {
        key(&m, KEY_REWARD);
        sl_cbor_put_double(w, c->reward);
    }
    if (p->tokens) {
        key(&m, KEY_TOKENS);
        sl_cbor_put_typed(w, SL_CBOR_U32, p->tokens, (size_t)p->token_count * 4);
    }
    if (p->logprobs) {
        key(&m, KEY_LOGPROBS);
        sl_cbor_put_typed(w, SL_CBOR_F32, p->logprobs, (size_t)p->token_count * 4);
    }
    if (c->segment_count) {
        key(&m, KEY_SEGMENTS);
        segments(w, c);
    }
    if (!isnan(c->advantage)) {
        key(&m, KEY_ADVANTAGE);
        sl_cbor_put_double(w, c->advantage);
    }
    end(&m);
}

/* p and weight are left out where they are 1, the margin where there is none: absent is the common case. */
static void pair(sl_cbor_writer *w, const sl_pair *given)
{
    const sluice_pair *p = &given->public;
    const size_t known = 2u + (p->p != 1) + (p->weight != 1) + !isnan(p->margin);
    map m = begin(w, sl_pair_keys, known, &given->unknown);
    if (p->p != 1) {
        key(&m, KEY_P);
        sl_cbor_put_double(w, p->p);
    }
    key(&m, KEY_CHOSEN);
    sl_cbor_put_int(w, p->chosen);
    if (!isnan(p->margin)) {
        key(&m, KEY_MARGIN);
        sl_cbor_put_double(w, p->margin);
    }
    if (p->weight != 1) {
        key(&m, KEY_WEIGHT);
        sl_cbor_put_double(w, p->weight);
    }
    key(&m, KEY_REJECTED);
    sl_cbor_put_int(w, p->rejected);
    end(&m);
}

static void messages(sl_cbor_writer *w, const sl_record *r)
{
    sl_cbor_put_head(w, SL_CBOR_ARRAY, r->message_count);
    for (size_t i = 0; i < r->message_count; i++) {
        map m = begin(w, sl_message_keys, 2, r->message_unknowns ? &r->message_unknowns[i] : NULL);
        key(&m, KEY_MESSAGE_ROLE);
        text(w, r->messages[i].role);
        key(&m, KEY_CONTENT);
        text(w, r->messages[i].content);
        end(&m);
    }
}

static void meta(sl_cbor_writer *w, const sl_record *r)
{
    sl_cbor_put_head(w, SL_CBOR_MAP, r->meta_count);
    for (size_t i = 0; i < r->meta_count; i++) {
        text(w, r->meta[i].name);
        sl_cbor_put_raw(w, r->meta[i].value, r->meta[i].size);
    }
}

int sl_record_encode(const sl_record *r, sl_buffer *out)
{
    if (!r->id)
        return SLUICE_BAD_RECORD;
    const size_t before = out->size;
    sl_cbor_writer writer = {out, SLUICE_OK}, *w = &writer;
    size_t judges = 0;
    for (size_t i = 0; i < r->scores.count; i++)
        judges += scored(r, i);
    const size_t known = 1u + (r->meta_count > 0) + (r->step >= 0) + (r->pair_count > 0) + !!r->prompt + (judges > 0) +
                         (r->message_count > 0) + (r->rankings.count > 0) + (r->template_hash != 0) +
                         (r->candidate_count > 0) + !!r->prompt_tokens;
    map m = begin(w, sl_record_keys, known, &r->unknown);
    key(&m, KEY_ID);
    text(w, r->id);
    if (r->meta_count) {
        key(&m, KEY_META);
        meta(w, r);
    }
    if (r->step >= 0) {
        key(&m, KEY_STEP);
        sl_cbor_put_int(w, r->step);
    }
    if (r->pair_count) {
        key(&m, KEY_PAIRS);
        sl_cbor_put_head(w, SL_CBOR_ARRAY, r->pair_count);
        for (size_t i = 0; i < r->pair_count; i++)
            pair(w, &r->pairs[i]);
    }
    if (r->prompt) {
        key(&m, KEY_PROMPT);
        text(w, r->prompt);
    }
    if (judges) {
        key(&m, KEY_SCORES);
        scores(w, r, judges);
    }
    if (r->message_count) {
        key(&m, KEY_MESSAGES);
        messages(w, r);
    }
    if (r->rankings.count) {
        key(&m, KEY_RANKINGS);
        named(w, &r->rankings, SL_CBOR_U32, r->candidate_count);
    }
    if (r->template_hash) {
        key(&m, KEY_TEMPLATE);
        sl_cbor_put_head(w, SL_CBOR_UINT, r->template_hash);
    }
    if (r->candidate_count) {
        key(&m, KEY_CANDIDATES);
        sl_cbor_put_head(w, SL_CBOR_ARRAY, r->candidate_count);
        for (size_t i = 0; i < r->candidate_count; i++)
            candidate(w, &r->candidates[i]);
    }
    if (r->prompt_tokens) {
        key(&m, KEY_PROMPT_TOKENS);
        sl_cbor_put_typed(w, SL_CBOR_U32, r->prompt_tokens, r->prompt_token_count * 4);
    }
    end(&m);
    if (w->result < 0)
        out->size = before;
    return w->result;
}
