/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What filters and methods have in common: their arguments, and the work that both can be asked for.
 */
#include "model/chat_call.h"

#include <string.h>
#include <utf8proc.h>

/* --- arguments --- */

/* The argument at `position`, or named `name`; NULL if it was not given. */
const chat_value *chat_argument(const chat_arguments *a, size_t position, const char *name)
{
    size_t positional = 0;
    for (size_t i = 0; i < a->count; i++) {
        if (a->names[i].length ? chat_is(a->names[i], name) : positional++ == position) {
            return &a->values[i];
        }
    }
    return NULL;
}

chat_value chat_wrong(chat_run *run, const chat_arguments *a, chat_value value)
{
    chat_fail(run, a->line, SM_FORMAT, "\"%.*s\" does not work on %s, or not with these arguments",
              (int)a->callee.length, a->callee.bytes, chat_kind_name(value));
    return chat_undefined();
}

/* A string argument; false, and a failure if it must be there, when it is not one. */
bool chat_text_argument(chat_run *run, const chat_arguments *a, size_t position, const char *name, bool needed,
                        chat_string *out)
{
    const chat_value *value = chat_argument(a, position, name);
    if (value && value->kind == CHAT_STRING) {
        *out = value->text;
        return true;
    }
    if (needed || (value && value->kind != CHAT_NONE)) {
        chat_wrong(run, a, value ? *value : chat_undefined());
    }
    return false;
}

int64_t chat_number_argument(chat_run *run, const chat_arguments *a, size_t position, const char *name, int64_t absent)
{
    const chat_value *value = chat_argument(a, position, name);
    if (!value) {
        return absent;
    }
    if (value->kind != CHAT_INT && value->kind != CHAT_BOOL) {
        chat_wrong(run, a, *value);
        return absent;
    }
    return value->number;
}

/* --- strings --- */

/* Letters one by one: the few whose other case is two letters stay as they are. */
chat_value chat_change_case(chat_run *run, chat_string text, enum chat_letters how)
{
    chat_builder out = {0};
    bool first = true;
    for (size_t at = 0, size; at < text.length && !run->failed; at += size) {
        char bytes[4];
        uint32_t c = sm_utf8_decode(text.bytes + at, &size);
        bool up = how == CHAT_UPPER || (how != CHAT_LOWER && first);
        utf8proc_int32_t to = up ? utf8proc_toupper((utf8proc_int32_t)c) : utf8proc_tolower((utf8proc_int32_t)c);
        size_t length = sm_utf8_encode((uint32_t)to, bytes);
        uint8_t guard[4];
        memset(guard, text.guard ? text.guard[at] : 0, sizeof guard);
        chat_put(run, &out, (chat_string){bytes, guard, length});
        utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
        bool letter = category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LM;
        bool opens = chat_is_space(c) || (c < 0x80 && c && strchr("-({[<", (int)c));
        first = how == CHAT_TITLE ? !letter : how == CHAT_TITLE_WORDS && opens;
    }
    return chat_text(chat_built(&out));
}

chat_value chat_replace(chat_run *run, int line, chat_string text, chat_string from, chat_string to, int64_t count)
{
    chat_builder out = {0};
    size_t done = 0;
    if (!from.length) {
        chat_fail(run, line, SM_UNSUPPORTED, "replacing an empty string is not supported");
    }
    while (count-- != 0 && !run->failed) {
        size_t at = chat_find(text, from, done);
        if (at == SIZE_MAX) {
            break;
        }
        chat_put(run, &out, chat_part(text, done, at));
        chat_put(run, &out, to);
        done = at + from.length;
    }
    chat_put(run, &out, chat_part(text, done, text.length));
    return chat_text(chat_built(&out));
}

chat_value chat_join(chat_run *run, const chat_arguments *a, chat_value items, chat_string separator)
{
    chat_builder out = {0};
    items = chat_items(run, a->line, items);
    for (size_t i = 0; !run->failed && i < items.list->count; i++) {
        chat_put(run, &out, i ? separator : chat_literal(""));
        chat_put(run, &out, chat_to_text(run, a->line, items.list->items[i]));
    }
    return chat_text(chat_built(&out));
}

chat_value chat_length(chat_run *run, const chat_arguments *a, chat_value value)
{
    if (value.kind == CHAT_DICT) {
        return chat_int((int64_t)value.dict->count);
    }
    if (value.kind == CHAT_STRING) {
        int64_t count = 0;
        for (size_t at = 0; at < value.text.length; at += sm_utf8_size(value.text.bytes[at])) {
            count++;
        }
        return chat_int(count);
    }
    if (value.kind != CHAT_LIST && value.kind != CHAT_UNDEFINED) {
        return chat_wrong(run, a, value);
    }
    return chat_int(value.kind == CHAT_LIST ? (int64_t)value.list->count : 0);
}

chat_value chat_entries(chat_run *run, const chat_arguments *a, chat_value value, enum chat_entry_parts which)
{
    if (value.kind != CHAT_DICT) {
        return value.kind == CHAT_UNDEFINED ? chat_new_list(run, 0) : chat_wrong(run, a, value);
    }
    chat_value list = chat_new_list(run, value.dict->count);
    size_t i = 0;
    for (const chat_entry *entry = value.dict->first; !run->failed && entry; entry = entry->next, i++) {
        if (which != CHAT_ITEMS) {
            list.list->items[i] = which == CHAT_KEYS ? chat_text(entry->key) : entry->value;
            continue;
        }
        chat_value pair = chat_new_list(run, 2);
        if (!run->failed) {
            pair.list->items[0] = chat_text(entry->key);
            pair.list->items[1] = entry->value;
            list.list->items[i] = pair;
        }
    }
    return list;
}
