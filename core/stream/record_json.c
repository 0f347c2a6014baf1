/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A record as one line of JSON, in the order in which people read it: what was asked, what was answered, what is
 * thought of it. The keys are those of the CBOR. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/base/json.h"
#include "core/stream/record_internal.h"

/* `result` keeps the first error; `first` says that no comma is wanted before the next entry. */
typedef struct json_printer {
    sl_buffer *out;
    int result;
    bool first;
} json_printer;

static void check(json_printer *p, int rc)
{
    if (p->result == SLUICE_OK)
        p->result = rc;
}

static void raw(json_printer *p, const char *s)
{
    check(p, sl_buffer_append(p->out, s, strlen(s)));
}

static void open(json_printer *p, const char *bracket)
{
    raw(p, bracket);
    p->first = true;
}

static void close(json_printer *p, const char *bracket)
{
    raw(p, bracket);
    p->first = false;
}

static void comma(json_printer *p)
{
    if (!p->first)
        raw(p, ",");
    p->first = false;
}

static void string(json_printer *p, const char *s)
{
    check(p, sl_json_string(p->out, s, strlen(s)));
}

static void key(json_printer *p, const char *name)
{
    comma(p);
    string(p, name);
    raw(p, ":");
}

static void text_entry(json_printer *p, const char *name, const char *value)
{
    key(p, name);
    string(p, value);
}

static void integer_entry(json_printer *p, const char *name, int64_t value)
{
    key(p, name);
    check(p, sl_buffer_printf(p->out, "%" PRId64, value));
}

static void double_entry(json_printer *p, const char *name, double value)
{
    key(p, name);
    check(p, sl_json_double(p->out, value));
}

static void floats(json_printer *p, const float *values, size_t count)
{
    open(p, "[");
    for (size_t i = 0; i < count; i++) {
        comma(p);
        check(p, sl_json_float(p->out, values[i]));
    }
    close(p, "]");
}

static void integers(json_printer *p, const uint32_t *values, size_t count, bool ranks)
{
    open(p, "[");
    for (size_t i = 0; i < count; i++) {
        comma(p);
        if (ranks && values[i] == UINT32_MAX)
            raw(p, "null");
        else
            check(p, sl_buffer_printf(p->out, "%" PRIu32, values[i]));
    }
    close(p, "]");
}

static void unknowns(json_printer *p, const sl_unknowns *u)
{
    for (size_t i = 0; u && i < u->count; i++) {
        const sl_unknown *item = &u->items[i];
        const bool is_text = item->bytes[0] >> 5 == SL_CBOR_TEXT;
        comma(p);
        raw(p, is_text ? "" : "\"");
        check(p, sl_cbor_to_json(item->bytes, item->key_size, p->out));
        raw(p, is_text ? ":" : "\":");
        check(p, sl_cbor_to_json(item->bytes + item->key_size, item->size - item->key_size, p->out));
    }
}

static void prompt(json_printer *p, const sl_record *r)
{
    if (r->prompt)
        text_entry(p, "prompt", r->prompt);
    if (r->message_count) {
        key(p, "messages");
        open(p, "[");
        for (size_t i = 0; i < r->message_count; i++) {
            comma(p);
            open(p, "{");
            text_entry(p, "role", r->messages[i].role);
            text_entry(p, "content", r->messages[i].content);
            unknowns(p, r->message_unknowns ? &r->message_unknowns[i] : NULL);
            close(p, "}");
        }
        close(p, "]");
    }
    if (r->prompt_tokens) {
        key(p, "prompt_tokens");
        integers(p, r->prompt_tokens, r->prompt_token_count, false);
    }
    if (r->template_hash) { /* 64 bits are more than a reader of JSON keeps of a number */
        key(p, "template");
        check(p, sl_buffer_printf(p->out, "\"%016" PRIx64 "\"", r->template_hash));
    }
}

static void segments(json_printer *p, const sl_candidate *c)
{
    key(p, "segments");
    open(p, "[");
    for (size_t i = 0; i < c->segment_count; i++) {
        comma(p);
        open(p, "{");
        text_entry(p, "role", c->segments[i].role);
        integer_entry(p, "begin", c->segments[i].begin);
        integer_entry(p, "end", c->segments[i].end);
        key(p, "trained");
        raw(p, c->segments[i].trained ? "true" : "false");
        unknowns(p, c->segment_unknowns ? &c->segment_unknowns[i] : NULL);
        close(p, "}");
    }
    close(p, "]");
}

/* "scores": {"judge": [ … ]}; nothing where there are none. */
static void named_floats(json_printer *p, const char *name, const sl_named *named, size_t count)
{
    if (named->count == 0)
        return;
    key(p, name);
    open(p, "{");
    for (size_t i = 0; i < named->count; i++) {
        key(p, named->names[i]);
        floats(p, named->values[i], count);
    }
    close(p, "}");
}

static void candidate(json_printer *p, const sl_candidate *c)
{
    const sluice_candidate *s = &c->public;
    comma(p);
    open(p, "{");
    if (s->parent >= 0)
        integer_entry(p, "parent", s->parent);
    if (s->tag)
        text_entry(p, "tag", s->tag);
    if (s->text)
        text_entry(p, "text", s->text);
    if (s->finish != SLUICE_FINISH_NONE)
        text_entry(p, "finish", sl_finish_names[s->finish]);
    if (!isnan(c->reward))
        double_entry(p, "reward", c->reward);
    if (!isnan(c->advantage))
        double_entry(p, "advantage", c->advantage);
    if (s->tokens) {
        key(p, "tokens");
        integers(p, s->tokens, s->token_count, false);
    }
    if (s->logprobs) {
        key(p, "logprobs");
        floats(p, s->logprobs, s->token_count);
    }
    named_floats(p, "logps", &c->logps, s->token_count);
    if (c->segment_count)
        segments(p, c);
    unknowns(p, &c->unknown);
    close(p, "}");
}

static void opinions(json_printer *p, const sl_record *r)
{
    named_floats(p, "scores", &r->scores, r->candidate_count);
    if (r->rankings.count) {
        key(p, "rankings");
        open(p, "{");
        for (size_t i = 0; i < r->rankings.count; i++) {
            key(p, r->rankings.names[i]);
            integers(p, r->rankings.values[i], r->candidate_count, true);
        }
        close(p, "}");
    }
    if (r->pair_count) {
        key(p, "pairs");
        open(p, "[");
        for (size_t i = 0; i < r->pair_count; i++) {
            const sluice_pair *s = &r->pairs[i].public;
            comma(p);
            open(p, "{");
            integer_entry(p, "chosen", s->chosen);
            integer_entry(p, "rejected", s->rejected);
            double_entry(p, "p", s->p);
            double_entry(p, "weight", s->weight);
            if (!isnan(s->margin))
                double_entry(p, "margin", s->margin);
            unknowns(p, &r->pairs[i].unknown);
            close(p, "}");
        }
        close(p, "]");
    }
}

int sl_record_to_json(const sl_record *r, sl_buffer *out)
{
    json_printer printer = {out, SLUICE_OK, true}, *p = &printer;
    open(p, "{");
    if (r->id)
        text_entry(p, "id", r->id);
    if (r->step >= 0)
        integer_entry(p, "step", r->step);
    prompt(p, r);
    if (r->candidate_count) {
        key(p, "candidates");
        open(p, "[");
        for (size_t i = 0; i < r->candidate_count; i++)
            candidate(p, &r->candidates[i]);
        close(p, "]");
    }
    opinions(p, r);
    if (r->meta_count) {
        key(p, "meta");
        open(p, "{");
        for (size_t i = 0; i < r->meta_count; i++) {
            key(p, r->meta[i].name);
            check(p, sl_cbor_to_json(r->meta[i].value, r->meta[i].size, out));
        }
        close(p, "}");
    }
    unknowns(p, &r->unknown);
    close(p, "}");
    return p->result;
}
