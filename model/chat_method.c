/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Methods of strings and dicts, with Python's results, and functions.
 */
#include "model/chat_call.h"

#include <string.h>

/* --- parts of a string --- */

static void push(chat_run *run, chat_value list, size_t capacity, chat_value item)
{
    if (!run->failed && list.list->count < capacity) {
        list.list->items[list.list->count++] = item;
    }
}

/* An empty list with room for the parts of a string. */
static chat_value parts_of(chat_run *run, chat_string text, size_t *capacity)
{
    *capacity = text.length + 2;
    chat_value list = chat_new_list(run, *capacity);
    if (!run->failed) {
        list.list->count = 0;
    }
    return list;
}

static chat_value split_at_space(chat_run *run, chat_string text, int64_t limit)
{
    size_t capacity;
    chat_value list = parts_of(run, text, &capacity);
    text = chat_strip(text, NULL, true, limit < 0);
    while (text.length && !run->failed) {
        size_t end = 0, size;
        while (end < text.length && !chat_is_space(sm_utf8_decode(text.bytes + end, &size))) {
            end += size;
        }
        if (limit == 0) {
            end = text.length;
        }
        limit -= limit > 0;
        push(run, list, capacity, chat_text(chat_part(text, 0, end)));
        text = chat_strip(chat_part(text, end, text.length), NULL, true, false);
    }
    return list;
}

static chat_value split(chat_run *run, chat_string text, chat_string separator, int64_t limit)
{
    size_t capacity, done = 0;
    chat_value list = parts_of(run, text, &capacity);
    for (size_t at; limit != 0 && (at = chat_find(text, separator, done)) != SIZE_MAX; limit--) {
        push(run, list, capacity, chat_text(chat_part(text, done, at)));
        done = at + separator.length;
    }
    push(run, list, capacity, chat_text(chat_part(text, done, text.length)));
    return list;
}

/* At most `limit` cuts from the right; all of them when it is negative. */
static chat_value split_from_right(chat_run *run, chat_string text, chat_string separator, int64_t limit)
{
    chat_value all = split(run, text, separator, -1);
    if (run->failed || limit < 0 || all.list->count <= (uint64_t)limit + 1) {
        return all;
    }
    size_t joined = all.list->count - (size_t)limit, end = 0;
    for (size_t i = 0; i < joined; i++) {
        end += all.list->items[i].text.length + (i ? separator.length : 0);
    }
    chat_value list = chat_new_list(run, (size_t)limit + 1);
    if (!run->failed) {
        list.list->items[0] = chat_text(chat_part(text, 0, end));
        memcpy(list.list->items + 1, all.list->items + joined, (size_t)limit * sizeof(chat_value));
    }
    return list;
}

static bool begins(chat_string text, chat_string part, bool at_end)
{
    return part.length <= text.length &&
           chat_same(at_end ? chat_part(text, text.length - part.length, text.length) : chat_part(text, 0, part.length),
                     part);
}

/* startswith and endswith, with one string or several. */
static chat_value begins_or_ends(chat_run *run, const chat_arguments *a, chat_string text, bool at_end)
{
    const chat_value *part = a->count == 1 ? chat_argument(a, 0, "") : NULL;
    if (part && part->kind == CHAT_STRING) {
        return chat_bool(begins(text, part->text, at_end));
    }
    if (!part || part->kind != CHAT_LIST) {
        return chat_wrong(run, a, part ? *part : chat_undefined());
    }
    for (size_t i = 0; i < part->list->count; i++) {
        if (part->list->items[i].kind == CHAT_STRING && begins(text, part->list->items[i].text, at_end)) {
            return chat_bool(true);
        }
    }
    return chat_bool(false);
}

/* --- methods --- */

static const char *const methods[] = {"strip",    "lstrip",  "rstrip", "split", "rsplit", "splitlines", "startswith",
                                      "endswith", "replace", "upper",  "lower", "title",  "capitalize", "find",
                                      "count",    "join",    "get",    "items", "keys",   "values"};

bool chat_known_method(chat_string name)
{
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        if (chat_is(name, methods[i])) {
            return true;
        }
    }
    return false;
}

static chat_value split_method(chat_run *run, const chat_arguments *a, chat_string text, bool from_right)
{
    chat_string separator;
    int64_t limit = chat_number_argument(run, a, 1, "maxsplit", -1);
    if (chat_text_argument(run, a, 0, "sep", false, &separator) && !separator.length) {
        return chat_wrong(run, a, chat_text(separator));
    }
    if (run->failed) {
        return chat_undefined();
    }
    const chat_value *given = chat_argument(a, 0, "sep");
    if (given && given->kind == CHAT_STRING) {
        return from_right ? split_from_right(run, text, separator, limit) : split(run, text, separator, limit);
    }
    if (from_right && limit >= 0) {
        chat_fail(run, a->line, SM_UNSUPPORTED, "rsplit at blanks with a limit is not supported");
        return chat_undefined();
    }
    return split_at_space(run, text, limit);
}

static chat_value split_lines(chat_run *run, chat_string text)
{
    size_t capacity, done = 0;
    chat_value list = parts_of(run, text, &capacity);
    for (size_t i = 0; i < text.length; i++) {
        if (text.bytes[i] == '\n' || text.bytes[i] == '\r') {
            push(run, list, capacity, chat_text(chat_part(text, done, i)));
            i += text.bytes[i] == '\r' && i + 1 < text.length && text.bytes[i + 1] == '\n';
            done = i + 1;
        }
    }
    if (done < text.length) {
        push(run, list, capacity, chat_text(chat_part(text, done, text.length)));
    }
    return list;
}

static chat_value find_or_count(chat_run *run, const chat_arguments *a, chat_string text, bool count)
{
    chat_string part;
    if (a->count != 1 || !chat_text_argument(run, a, 0, "", true, &part) || !part.length) {
        return chat_wrong(run, a, chat_text(text));
    }
    if (count) {
        int64_t found = 0;
        for (size_t at = 0; (at = chat_find(text, part, at)) != SIZE_MAX; at += part.length) {
            found++;
        }
        return chat_int(found);
    }
    size_t at = chat_find(text, part, 0);
    return at == SIZE_MAX ? chat_int(-1) : chat_length(run, a, chat_text(chat_part(text, 0, at)));
}

static chat_value string_method(chat_run *run, chat_string text, const chat_arguments *a)
{
    chat_string name = a->callee, one, two;
    if (chat_is(name, "strip") || chat_is(name, "lstrip") || chat_is(name, "rstrip")) {
        bool given = chat_text_argument(run, a, 0, "", false, &one);
        return chat_text(chat_strip(text, given ? &one : NULL, name.bytes[0] != 'r', name.bytes[0] != 'l'));
    }
    if (chat_is(name, "split") || chat_is(name, "rsplit")) {
        return split_method(run, a, text, name.bytes[0] == 'r');
    }
    if (chat_is(name, "splitlines") && !a->count) {
        return split_lines(run, text);
    }
    if (chat_is(name, "startswith") || chat_is(name, "endswith")) {
        return begins_or_ends(run, a, text, name.bytes[0] == 'e');
    }
    if (chat_is(name, "replace")) {
        return chat_text_argument(run, a, 0, "", true, &one) && chat_text_argument(run, a, 1, "", true, &two)
                   ? chat_replace(run, a->line, text, one, two, chat_number_argument(run, a, 2, "count", -1))
                   : chat_undefined();
    }
    if (chat_is(name, "find") || chat_is(name, "count")) {
        return find_or_count(run, a, text, name.bytes[0] == 'c');
    }
    if (chat_is(name, "join") && a->count == 1) {
        return chat_join(run, a, a->values[0], text);
    }
    if (!a->count &&
        (chat_is(name, "upper") || chat_is(name, "lower") || chat_is(name, "title") || chat_is(name, "capitalize"))) {
        return chat_change_case(run, text,
                                name.bytes[0] == 'u'   ? CHAT_UPPER
                                : name.bytes[0] == 'l' ? CHAT_LOWER
                                : name.bytes[0] == 't' ? CHAT_TITLE
                                                       : CHAT_CAPITAL);
    }
    return chat_wrong(run, a, chat_text(text));
}

chat_value chat_call_method(chat_run *run, chat_value object, const chat_arguments *a)
{
    chat_string name = a->callee, key;
    if (object.kind == CHAT_STRING) {
        return string_method(run, object.text, a);
    }
    if (object.kind == CHAT_DICT && chat_is(name, "get")) {
        const chat_value *absent = chat_argument(a, 1, "");
        if (!chat_text_argument(run, a, 0, "", true, &key)) {
            return chat_undefined();
        }
        const chat_value *value = chat_dict_find(object.dict, key);
        return value ? *value : absent ? *absent : (chat_value){.kind = CHAT_NONE};
    }
    if (object.kind == CHAT_DICT && !a->count &&
        (chat_is(name, "items") || chat_is(name, "keys") || chat_is(name, "values"))) {
        return chat_entries(run, a, object,
                            name.bytes[0] == 'i'   ? CHAT_ITEMS
                            : name.bytes[0] == 'k' ? CHAT_KEYS
                                                   : CHAT_VALUES);
    }
    return chat_wrong(run, a, object);
}

/* --- functions --- */

bool chat_known_function(chat_string name)
{
    return chat_is(name, "raise_exception") || chat_is(name, "namespace") || chat_is(name, "range") ||
           chat_is(name, "strftime_now");
}

static chat_value range(chat_run *run, const chat_arguments *a)
{
    int64_t from = 0, to = chat_number_argument(run, a, 0, "", 0), step = chat_number_argument(run, a, 2, "", 1);
    if (a->count > 1) {
        from = to;
        to = chat_number_argument(run, a, 1, "", 0);
    }
    int64_t limit = 100000; /* as jinja2's sandbox */
    if (run->failed || !a->count || a->count > 3 || step == 0 || from > limit || from < -limit || to > limit ||
        to < -limit || step > limit || step < -limit) {
        return chat_wrong(run, a, chat_undefined());
    }
    int64_t count = step > 0 ? (to - from + step - 1) / step : (from - to - step - 1) / -step;
    chat_value list = chat_new_list(run, count > 0 ? (size_t)count : 0);
    for (int64_t i = 0; !run->failed && i < count; i++) {
        list.list->items[i] = chat_int(from + i * step);
    }
    return list;
}

chat_value chat_call_function(chat_run *run, const chat_arguments *a)
{
    if (chat_is(a->callee, "raise_exception")) {
        chat_string text = a->count ? chat_to_text(run, a->line, a->values[0]) : chat_literal("");
        chat_fail(run, a->line, SM_BAD_ARGUMENT, "the chat template says: %.*s",
                  (int)(text.length < 400 ? text.length : 400), text.bytes);
        return chat_undefined();
    }
    if (chat_is(a->callee, "range")) {
        return range(run, a);
    }
    if (chat_is(a->callee, "strftime_now")) {
        /* A text that changes with the day would make no run repeatable: to a template this function is undefined, and
         * those that ask for it have a fixed date to fall back on. */
        chat_fail(run, a->line, SM_UNSUPPORTED, "strftime_now() is not supported: texts must not depend on the clock");
        return chat_undefined();
    }
    chat_dict *space = chat_alloc(run, sizeof *space);
    for (size_t i = 0; i < a->count && !run->failed; i++) {
        if (!a->names[i].length) {
            chat_wrong(run, a, a->values[i]);
            break;
        }
        chat_dict_set(run, space, a->names[i], a->values[i]);
    }
    return run->failed ? chat_undefined() : (chat_value){.kind = CHAT_NAMESPACE, .dict = space};
}
