/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "model/chat_parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- memory and errors --- */

struct chat_block {
    struct chat_block *next;
    size_t used, size;
    max_align_t bytes[];
};

void *chat_alloc(chat_run *run, size_t size)
{
    chat_arena *arena = &run->arena;
    size = (size + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    if (run->failed) {
        return NULL;
    }
    if (size > arena->limit || arena->used > arena->limit - size) {
        chat_fail(run, 0, SM_UNSUPPORTED, "the chat template needs more than %zu MiB of memory", arena->limit >> 20);
        return NULL;
    }
    struct chat_block *block = arena->blocks;
    if (!block || block->size - block->used < size) {
        size_t room = size > 16384 ? size : 16384;
        block = malloc(sizeof *block + room);
        if (!block) {
            chat_fail(run, 0, SM_NO_MEMORY, "out of memory");
            return NULL;
        }
        *block = (struct chat_block){arena->blocks, 0, room};
        arena->blocks = block;
    }
    char *memory = (char *)block->bytes + block->used;
    block->used += size;
    arena->used += size;
    return memset(memory, 0, size);
}

void chat_arena_free(chat_arena *arena)
{
    while (arena->blocks) {
        struct chat_block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
    arena->used = 0;
}

void chat_fail(chat_run *run, int line, int code, const char *format, ...)
{
    char text[512];
    if (run->failed) {
        return;
    }
    run->failed = true;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (line) {
        sm_fail(run->error, code, "%s:%d: %s", run->name, line, text);
    } else {
        sm_fail(run->error, code, "%s: %s", run->name, text);
    }
}

/* --- strings --- */

chat_string chat_literal(const char *text)
{
    return (chat_string){text, NULL, strlen(text)};
}

bool chat_same(chat_string a, chat_string b)
{
    return a.length == b.length && (!a.length || memcmp(a.bytes, b.bytes, a.length) == 0);
}

bool chat_is(chat_string text, const char *literal)
{
    return chat_same(text, chat_literal(literal));
}

size_t chat_find(chat_string text, chat_string part, size_t from)
{
    if (from > text.length || part.length > text.length - from) {
        return SIZE_MAX;
    }
    if (!part.length) {
        return from;
    }
    const char *found = memmem(text.bytes + from, text.length - from, part.bytes, part.length);
    return found ? (size_t)(found - text.bytes) : SIZE_MAX;
}

bool chat_is_space(uint32_t c)
{
    return sm_utf8_is_space(c) || (c >= 0x1c && c <= 0x1f);
}

static bool is_stripped(const char *character, size_t size, const chat_string *characters)
{
    size_t unused;
    if (!characters) {
        return chat_is_space(sm_utf8_decode(character, &unused));
    }
    return chat_find(*characters, (chat_string){character, NULL, size}, 0) != SIZE_MAX;
}

chat_string chat_strip(chat_string text, const chat_string *characters, bool left, bool right)
{
    size_t start = 0, end = text.length;
    while (left && start < end) {
        size_t size = sm_utf8_size(text.bytes[start]);
        if (!is_stripped(text.bytes + start, size, characters)) {
            break;
        }
        start += size;
    }
    while (right && end > start) {
        size_t last = end - 1;
        while (last > start && ((unsigned char)text.bytes[last] & 0xc0) == 0x80) {
            last--;
        }
        if (!is_stripped(text.bytes + last, end - last, characters)) {
            break;
        }
        end = last;
    }
    return chat_part(text, start, end);
}

void chat_put(chat_run *run, chat_builder *b, chat_string text)
{
    if (run->failed || !text.length) {
        return;
    }
    if (text.length > b->capacity - b->length) {
        size_t capacity = b->capacity ? b->capacity : 256;
        while (capacity - b->length < text.length) {
            capacity *= 2;
        }
        char *bytes = chat_alloc(run, 2 * capacity);
        if (!bytes) {
            return;
        }
        if (b->length) {
            memcpy(bytes, b->bytes, b->length);
            memcpy(bytes + capacity, b->guard, b->length);
        }
        b->bytes = bytes;
        b->guard = (uint8_t *)bytes + capacity;
        b->capacity = capacity;
    }
    memcpy(b->bytes + b->length, text.bytes, text.length);
    if (text.guard) {
        memcpy(b->guard + b->length, text.guard, text.length);
    } else {
        memset(b->guard + b->length, 0, text.length);
    }
    b->length += text.length;
}

chat_string chat_built(const chat_builder *builder)
{
    return (chat_string){builder->bytes ? builder->bytes : "", builder->guard, builder->length};
}

/* --- lists and dicts --- */

chat_value chat_new_list(chat_run *run, size_t count)
{
    chat_list *list = chat_alloc(run, sizeof *list);
    chat_value *items = count < SIZE_MAX / sizeof *items ? chat_alloc(run, (count + !count) * sizeof *items) : NULL;
    if (!list || !items) {
        return chat_undefined();
    }
    *list = (chat_list){items, count};
    return (chat_value){.kind = CHAT_LIST, .list = list};
}

chat_value *chat_dict_find(const chat_dict *dict, chat_string key)
{
    for (chat_entry *entry = dict->first; entry; entry = entry->next) {
        if (chat_same(entry->key, key)) {
            return &entry->value;
        }
    }
    return NULL;
}

void chat_dict_set(chat_run *run, chat_dict *dict, chat_string key, chat_value value)
{
    chat_value *there = chat_dict_find(dict, key);
    if (there) {
        *there = value;
        return;
    }
    chat_entry *entry = chat_alloc(run, sizeof *entry);
    if (!entry) {
        return;
    }
    *entry = (chat_entry){key, value, NULL};
    if (dict->last) {
        dict->last->next = entry;
    } else {
        dict->first = entry;
    }
    dict->last = entry;
    dict->count++;
}

/* --- any value --- */

const char *chat_kind_name(chat_value value)
{
    static const char *const names[] = {
        [CHAT_UNDEFINED] = "an undefined value",
        [CHAT_NONE] = "none",
        [CHAT_BOOL] = "a boolean",
        [CHAT_INT] = "a number",
        [CHAT_STRING] = "a string",
        [CHAT_LIST] = "a list",
        [CHAT_DICT] = "a dict",
        [CHAT_NAMESPACE] = "a namespace",
        [CHAT_LOOP] = "a loop",
    };
    return names[value.kind];
}

bool chat_truth(chat_value value)
{
    switch (value.kind) {
    case CHAT_UNDEFINED:
    case CHAT_NONE:
        return false;
    case CHAT_BOOL:
    case CHAT_INT:
        return value.number != 0;
    case CHAT_STRING:
        return value.text.length != 0;
    case CHAT_LIST:
        return value.list->count != 0;
    case CHAT_DICT:
        return value.dict->count != 0;
    default:
        return true;
    }
}

static bool same_items(const chat_list *a, const chat_list *b)
{
    bool same = a->count == b->count;
    for (size_t i = 0; same && i < a->count; i++) {
        same = chat_equal(a->items[i], b->items[i]);
    }
    return same;
}

static bool same_entries(const chat_dict *a, const chat_dict *b)
{
    bool same = a->count == b->count;
    for (const chat_entry *entry = a->first; same && entry; entry = entry->next) {
        const chat_value *other = chat_dict_find(b, entry->key);
        same = other && chat_equal(entry->value, *other);
    }
    return same;
}

/* Values of different kinds differ, but true is 1. Lists and dicts are as deep as a template can nest them. */
bool chat_equal(chat_value a, chat_value b)
{
    if ((a.kind == CHAT_BOOL || a.kind == CHAT_INT) && (b.kind == CHAT_BOOL || b.kind == CHAT_INT)) {
        return a.number == b.number;
    }
    if (a.kind != b.kind) {
        return false;
    }
    switch (a.kind) {
    case CHAT_STRING:
        return chat_same(a.text, b.text);
    case CHAT_LIST:
        return same_items(a.list, b.list);
    case CHAT_DICT:
        return same_entries(a.dict, b.dict);
    case CHAT_NAMESPACE:
        return a.dict == b.dict;
    default:
        return true;
    }
}

chat_string chat_to_text(chat_run *run, int line, chat_value value)
{
    char *digits;
    switch (value.kind) {
    case CHAT_UNDEFINED:
        return chat_literal("");
    case CHAT_NONE:
        return chat_literal("None");
    case CHAT_BOOL:
        return chat_literal(value.number ? "True" : "False");
    case CHAT_INT:
        digits = chat_alloc(run, 24);
        if (!digits) {
            return chat_literal("");
        }
        snprintf(digits, 24, "%lld", (long long)value.number);
        return chat_literal(digits);
    case CHAT_STRING:
        return value.text;
    default:
        chat_fail(run, line, SM_UNSUPPORTED, "printing %s is not supported; use tojson", chat_kind_name(value));
        return chat_literal("");
    }
}

/* --- JSON --- */

static void put_json_string(chat_run *run, chat_builder *out, chat_string text)
{
    size_t done = 0;
    chat_put(run, out, chat_literal("\""));
    for (size_t i = 0; i < text.length && !run->failed; i++) {
        static const char plain[] = "\"\\\n\r\t\b\f", escaped[] = "\"\\nrtbf";
        unsigned char c = (unsigned char)text.bytes[i];
        const char *special = c ? strchr(plain, c) : NULL;
        if (c >= 0x20 && !special) {
            continue;
        }
        char escape[8];
        if (special) {
            snprintf(escape, sizeof escape, "\\%c", escaped[special - plain]);
        } else {
            snprintf(escape, sizeof escape, "\\u%04x", c);
        }
        chat_put(run, out, chat_part(text, done, i));
        chat_put(run, out, chat_literal(escape));
        done = i + 1;
    }
    chat_put(run, out, chat_part(text, done, text.length));
    chat_put(run, out, chat_literal("\""));
}

static void put_json_break(chat_run *run, chat_builder *out, int indent, int depth)
{
    if (indent >= 0) {
        chat_put(run, out, chat_literal("\n"));
        for (int i = 0; i < indent * depth; i++) {
            chat_put(run, out, chat_literal(" "));
        }
    }
}

void chat_to_json(chat_run *run, int line, chat_builder *out, chat_value value, int indent, int depth)
{
    const char *comma = indent < 0 ? ", " : ",";
    if (run->failed) {
        return;
    }
    switch (value.kind) {
    case CHAT_NONE:
        chat_put(run, out, chat_literal("null"));
        return;
    case CHAT_BOOL:
        chat_put(run, out, chat_literal(value.number ? "true" : "false"));
        return;
    case CHAT_INT:
        chat_put(run, out, chat_to_text(run, line, value));
        return;
    case CHAT_STRING:
        put_json_string(run, out, value.text);
        return;
    case CHAT_LIST:
        chat_put(run, out, chat_literal("["));
        for (size_t i = 0; i < value.list->count; i++) {
            chat_put(run, out, chat_literal(i ? comma : ""));
            put_json_break(run, out, indent, depth + 1);
            chat_to_json(run, line, out, value.list->items[i], indent, depth + 1);
        }
        if (value.list->count) {
            put_json_break(run, out, indent, depth);
        }
        chat_put(run, out, chat_literal("]"));
        return;
    case CHAT_DICT:
        chat_put(run, out, chat_literal("{"));
        for (const chat_entry *entry = value.dict->first; entry; entry = entry->next) {
            chat_put(run, out, chat_literal(entry != value.dict->first ? comma : ""));
            put_json_break(run, out, indent, depth + 1);
            put_json_string(run, out, entry->key);
            chat_put(run, out, chat_literal(": "));
            chat_to_json(run, line, out, entry->value, indent, depth + 1);
        }
        if (value.dict->count) {
            put_json_break(run, out, indent, depth);
        }
        chat_put(run, out, chat_literal("}"));
        return;
    default:
        chat_fail(run, line, SM_FORMAT, "tojson of %s", chat_kind_name(value));
    }
}
