/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/dry-run/dry.h"
#include "tools/report/data.h"

#include <string.h>

enum { MOST_NUMBERS = 6, MOST_TEXT = 240 };

struct reading {
    sl_arena *arena;
    dr_parts *parts;
    bool no_memory;
};

static void keep(struct reading *r, const char *path, const sl_buffer *value)
{
    dr_part *items = rp_grow(r->arena, r->parts->items, r->parts->count, sizeof *items);
    const char *name = sl_arena_strdup(r->arena, path);
    char *text =
        sl_arena_printf(r->arena, "%.*s", (int)value->size, value->data != NULL ? (const char *)value->data : "");
    r->no_memory = r->no_memory || items == NULL || name == NULL || text == NULL;
    if (r->no_memory)
        return;
    r->parts->items = items;
    items[r->parts->count++] = (dr_part){name, text};
}

/* Past a string that starts at its quote. */
static const char *skip_string(const char *c)
{
    for (c++; *c != '"' && *c != '\0'; c++)
        if (*c == '\\' && c[1] != '\0')
            c++;
    return *c == '"' ? c + 1 : c;
}

/* Past any value. */
static const char *skip_value(const char *c)
{
    int depth = 0;
    do {
        if (*c == '"') {
            c = skip_string(c);
            continue;
        }
        depth += (*c == '{' || *c == '[') - (*c == '}' || *c == ']');
        if (depth < 0 || *c == '\0')
            return c;
        c++;
    } while (depth > 0 || (*c != '\0' && strchr(",]}", *c) == NULL));
    return c;
}

static void put(sl_buffer *out, const char *from, size_t size)
{
    (void)sl_buffer_append(out, from, size);
}

static void put_text(sl_buffer *out, const char *from, size_t size)
{
    if (size <= MOST_TEXT) {
        put(out, from, size);
        return;
    }
    size_t cut = MOST_TEXT;
    while (cut > 0 && (((unsigned char)from[cut] & 0xC0) == 0x80 || from[cut - 1] == '\\'))
        cut--;
    put(out, from, cut);
    sl_buffer_printf(out, "…\" (%zu bytes)", size - 2);
}

static bool is_leaf(const char *c)
{
    return *c != '{' && (*c != '[' || (c[1] != '{' && c[1] != '['));
}

/* A number, a word, a text, or a list of such. */
static const char *read_leaf(struct reading *r, const char *c, const char *path)
{
    const char *end = skip_value(c);
    sl_buffer value = {0};
    if (*c != '[') {
        *c == '"' ? put_text(&value, c, (size_t)(end - c)) : put(&value, c, (size_t)(end - c));
    } else {
        size_t count = 0;
        for (const char *item = c + 1, *next; item < end - 1; item = *next == ',' ? next + 1 : next) {
            next = skip_value(item);
            if (count++ >= MOST_NUMBERS)
                continue;
            put(&value, "  ", count > 1 ? 2 : 0);
            *item == '"' ? put_text(&value, item, (size_t)(next - item)) : put(&value, item, (size_t)(next - item));
        }
        if (count > MOST_NUMBERS)
            sl_buffer_printf(&value, "  … (%zu)", count);
    }
    keep(r, path, &value);
    sl_buffer_free(&value);
    return end;
}

/* The host writes this JSON: well-formed, without blanks. Its nesting is bounded (SL_CBOR_DEPTH). */
static const char *read_value(struct reading *r, const char *c, const char *path)
{
    char inner[512];
    if (is_leaf(c))
        return read_leaf(r, c, path);
    const bool object = *c++ == '{';
    for (size_t i = 0; *c != '}' && *c != ']' && *c != '\0'; i++) {
        if (object) {
            const char *end = skip_string(c);
            snprintf(inner, sizeof inner, "%s%s%.*s", path, path[0] != '\0' ? "." : "", (int)(end - c - 2), c + 1);
            c = *end == ':' ? end + 1 : end;
        } else {
            snprintf(inner, sizeof inner, "%s[%zu]", path, i);
        }
        c = read_value(r, c, inner);
        if (*c == ',')
            c++;
    }
    return *c != '\0' ? c + 1 : c;
}

int dr_parts_read(const char *json, sl_arena *arena, dr_parts *parts)
{
    struct reading r = {arena, parts, false};
    *parts = (dr_parts){0};
    read_value(&r, json, "");
    return r.no_memory ? SLUICE_NO_MEMORY : SLUICE_OK;
}

static bool has(const dr_parts *parts, const dr_part *part)
{
    for (size_t i = 0; parts != NULL && i < parts->count; i++)
        if (strcmp(parts->items[i].path, part->path) == 0)
            return strcmp(parts->items[i].value, part->value) == 0;
    return false;
}

size_t dr_parts_print(const dr_parts *parts, const dr_parts *before, FILE *out)
{
    size_t printed = 0;
    for (size_t i = 0; i < parts->count; i++) {
        if (has(before, &parts->items[i]))
            continue;
        fprintf(out, "    %-28s %s\n", parts->items[i].path, parts->items[i].value);
        printed++;
    }
    return printed;
}
