/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A record's free fields: names with values kept as CBOR. */
#include "core/stream/record_internal.h"

#include <string.h>

#include "core/base/json.h"

/* Where a key stands, or would: shorter ones first, as CBOR sorts them. */
static size_t place_of(const sl_record *r, const char *key, bool *found)
{
    const size_t size = strlen(key);
    size_t low = 0, high = r->meta_count;
    while (low < high) {
        const size_t middle = (low + high) / 2, other = strlen(r->meta[middle].name);
        const int order = size != other ? (size < other ? -1 : 1) : strcmp(key, r->meta[middle].name);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    *found = false;
    return low;
}

static const sl_meta *find(const sluice_record *r, const char *key)
{
    bool found;
    const size_t place = place_of(sl_of(r), key, &found);
    return found ? &sl_of(r)->meta[place] : NULL;
}

static int put(sl_record *r, const char *key, const sl_buffer *value)
{
    const char *name;
    int rc = sl_record_name(r, key, &name);
    uint8_t *copy = rc == SLUICE_OK ? sl_arena_take(r->arena, value->size + 1) : NULL;
    if (!copy)
        return rc < 0 ? rc : SLUICE_NO_MEMORY;
    memcpy(copy, value->data, value->size);
    copy[value->size] = '\0';
    const sl_meta meta = {name, copy, value->size};
    bool found;
    const size_t place = place_of(r, key, &found);
    if (found) {
        r->meta[place] = meta;
        return SLUICE_OK;
    }
    rc = sl_grow(r->arena, (void **)&r->meta, r->meta_count, &r->meta_capacity, sizeof meta);
    if (rc < 0)
        return rc;
    memmove(r->meta + place + 1, r->meta + place, (r->meta_count - place) * sizeof meta);
    r->meta[place] = meta;
    r->meta_count++;
    return SLUICE_OK;
}

const char *sl_meta_text(const sluice_record *r, const char *key)
{
    const sl_meta *meta = find(r, key);
    if (!meta)
        return NULL;
    sl_cbor_reader in = {meta->value, meta->value + meta->size, NULL};
    const char *text;
    size_t size;
    /* The value's last byte is the text's, and a NUL follows it. A text with a NUL inside is none that C can hold. */
    return sl_cbor_text(&in, &text, &size) && strlen(text) == size ? text : NULL;
}

int sl_meta_number(const sluice_record *r, const char *key, double *value)
{
    const sl_meta *meta = find(r, key);
    if (!meta)
        return SLUICE_END;
    sl_cbor_reader in = {meta->value, meta->value + meta->size, NULL};
    if (sl_cbor_number(&in, value))
        return SLUICE_OK;
    bool flag;
    if (!sl_cbor_bool(&in, &flag))
        return SLUICE_END;
    *value = flag;
    return SLUICE_OK;
}

/* Ends a value begun with `w`: stores it and frees the buffer. */
static int finish(sluice_record *r, const char *key, sl_cbor_writer *w)
{
    int rc = w->result;
    if (rc == SLUICE_OK)
        rc = put(sl_mine(r), key, w->out);
    sl_buffer_free(w->out);
    return rc;
}

int sl_set_meta_text(sluice_record *r, const char *key, const char *value)
{
    if (!value)
        return SLUICE_BAD_RECORD;
    const char *text = sl_record_text(sl_mine(r), value);
    if (!text)
        return SLUICE_NO_MEMORY;
    sl_buffer bytes = {0};
    sl_cbor_writer w = {&bytes, SLUICE_OK};
    sl_cbor_put_text(&w, text, strlen(text));
    return finish(r, key, &w);
}

int sl_set_meta_number(sluice_record *r, const char *key, double value)
{
    sl_buffer bytes = {0};
    sl_cbor_writer w = {&bytes, SLUICE_OK};
    sl_cbor_put_double(&w, value);
    return finish(r, key, &w);
}

int sl_set_meta_bool(sluice_record *r, const char *key, bool value)
{
    sl_buffer bytes = {0};
    sl_cbor_writer w = {&bytes, SLUICE_OK};
    sl_cbor_put_bool(&w, value);
    return finish(r, key, &w);
}

int sl_set_meta_json(sluice_record *r, const char *key, const char *json)
{
    sl_buffer bytes = {0};
    sl_cbor_writer w = {&bytes, SLUICE_OK};
    char error[128];
    w.result = json ? sl_json_to_cbor(json, strlen(json), &bytes, error, sizeof error) : SLUICE_BAD_RECORD;
    return finish(r, key, &w);
}
