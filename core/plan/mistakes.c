/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/plan/setting.h"
#include "core/base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct mistake {
    int line;
    size_t order;
    char *text;
} mistake;

struct sl_mistakes {
    const char *file, *variant;
    sl_arena *arena;
    mistake *items;
    size_t count, capacity, remarks;
};

sl_mistakes *sl_mistakes_new(const char *file, sl_arena *arena)
{
    sl_mistakes *m = calloc(1, sizeof *m);
    if (m) {
        m->file = file;
        m->arena = arena;
    }
    return m;
}

static void add(sl_mistakes *m, int line, const char *set, const char *stage, const char *mark, const char *format,
                va_list args)
{
    char what[1024], where[256] = "", of[256] = "";
    vsnprintf(what, sizeof what, format, args);
    if (line > 0)
        snprintf(where, sizeof where, ":%d", line);
    if (stage)
        snprintf(of, sizeof of, " stage '%s':", stage);
    mistake *items = sl_items_grow(m->items, m->count, &m->capacity, sizeof *items);
    if (!items)
        return;
    m->items = items;
    char *text =
        set ? sl_arena_printf(m->arena, "--set %s:%s%s %s", set, mark, of, what)
            : sl_arena_printf(m->arena, "%s%s:%s%s%s%s%s %s", m->file, where, mark, m->variant ? " variant '" : "",
                              m->variant ? m->variant : "", m->variant ? "':" : "", of, what);
    /* Of a string in the file: a mistake stays one line of text, and steers no terminal. */
    for (unsigned char *c = (unsigned char *)text; c && *c; c++)
        if (*c < 0x20 || *c == 0x7f)
            *c = '?';
    for (size_t size = text ? strlen(text) : 0, at = 0; (at += sl_utf8_check(text + at, size - at)) < size;)
        text[at] = '?';
    if (text) {
        m->items[m->count] = (mistake){line, m->count, text};
        m->count++;
    }
}

void sl_mistake(sl_mistakes *m, const sl_setting *at, const char *stage, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add(m, at ? at->line : 0, at ? at->set : NULL, stage, "", format, args);
    va_end(args);
}

void sl_mistake_line(sl_mistakes *m, int line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add(m, line, NULL, NULL, "", format, args);
    va_end(args);
}

void sl_remark(sl_mistakes *m, const sl_setting *at, const char *stage, const char *format, ...)
{
    if (m->variant)
        return;
    size_t before = m->count;
    va_list args;
    va_start(args, format);
    add(m, at ? at->line : 0, at ? at->set : NULL, stage, " note:", format, args);
    va_end(args);
    m->remarks += m->count - before;
}

void sl_mistakes_variant(sl_mistakes *m, const char *variant)
{
    m->variant = variant;
}

size_t sl_mistakes_count(const sl_mistakes *m)
{
    return m->count - m->remarks;
}

static int by_line(const void *a, const void *b)
{
    const mistake *x = a, *y = b;
    if (x->line != y->line)
        return x->line < y->line ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

void sl_mistakes_print(const sl_mistakes *m, FILE *out)
{
    if (m->count > 0)
        qsort(m->items, m->count, sizeof *m->items, by_line);
    for (size_t i = 0; i < m->count; i++)
        fprintf(out, "%s\n", m->items[i].text);
}

void sl_mistakes_free(sl_mistakes *m)
{
    if (m)
        free(m->items);
    free(m);
}
