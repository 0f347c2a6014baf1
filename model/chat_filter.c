/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Filters and tests: those that chat templates use, with jinja2's results.
 */
#include "model/chat_call.h"

static chat_value end_item(chat_run *run, const chat_arguments *a, chat_value value, bool last)
{
    chat_value items = chat_items(run, a->line, value);
    if (run->failed || !items.list->count) {
        return chat_undefined();
    }
    return items.list->items[last ? items.list->count - 1 : 0];
}

static chat_value reversed(chat_run *run, const chat_arguments *a, chat_value value)
{
    chat_value items = chat_items(run, a->line, value), out = chat_new_list(run, run->failed ? 0 : items.list->count);
    chat_builder text = {0};
    for (size_t i = 0; !run->failed && i < items.list->count; i++) {
        out.list->items[i] = items.list->items[items.list->count - 1 - i];
        if (value.kind == CHAT_STRING) {
            chat_put(run, &text, out.list->items[i].text);
        }
    }
    return value.kind == CHAT_STRING ? chat_text(chat_built(&text)) : out;
}

/* selectattr(name[, test[, argument]]), select([test[, argument]]) and their opposites. */
static chat_value choose(chat_run *run, const chat_arguments *a, chat_value value, bool by_attribute, bool keep)
{
    size_t skipped = by_attribute ? 1 : 0;
    chat_string name = {0}, test = {0};
    if (by_attribute && !chat_text_argument(run, a, 0, "", true, &name)) {
        return chat_undefined();
    }
    bool tested = chat_text_argument(run, a, skipped, "", false, &test);
    if (tested && !chat_known_test(test)) {
        chat_fail(run, a->line, SM_UNSUPPORTED, "the test \"%.*s\" is not supported",
                  (int)(test.length < 40 ? test.length : 40), test.bytes);
    }
    chat_value items = chat_items(run, a->line, value), out = chat_new_list(run, run->failed ? 0 : items.list->count);
    if (run->failed) {
        return out;
    }
    out.list->count = 0;
    chat_arguments rest = {.line = a->line, .callee = test};
    if (a->count > skipped + 1) {
        rest.values = a->values + skipped + 1;
        rest.names = a->names + skipped + 1;
        rest.count = a->count - skipped - 1;
    }
    for (size_t i = 0; i < items.list->count && !run->failed; i++) {
        chat_value item = items.list->items[i];
        chat_value tried = by_attribute ? chat_attribute(run, a->line, item, name) : item;
        bool passes = tested ? chat_call_test(run, tried, &rest) : chat_truth(tried);
        if (passes == keep) {
            out.list->items[out.list->count++] = item;
        }
    }
    return out;
}

/* map(attribute="name"[, default=…]), or map("filter", …). */
static chat_value map(chat_run *run, const chat_arguments *a, chat_value value)
{
    const chat_value *attribute = NULL, *absent = NULL;
    chat_string filter = {0};
    for (size_t i = 0; i < a->count; i++) {
        attribute = chat_is(a->names[i], "attribute") ? &a->values[i] : attribute;
        absent = chat_is(a->names[i], "default") ? &a->values[i] : absent;
    }
    if (attribute ? attribute->kind != CHAT_STRING
                  : !chat_text_argument(run, a, 0, "", true, &filter) || !chat_known_filter(filter)) {
        return chat_wrong(run, a, value);
    }
    chat_value items = chat_items(run, a->line, value), out = chat_new_list(run, run->failed ? 0 : items.list->count);
    chat_arguments rest = {a->values + 1, a->names + 1, a->count - 1, a->line, filter};
    for (size_t i = 0; !run->failed && i < items.list->count; i++) {
        chat_value item = items.list->items[i];
        item = attribute ? chat_attribute(run, a->line, item, attribute->text) : chat_call_filter(run, item, &rest);
        out.list->items[i] = item.kind == CHAT_UNDEFINED && absent ? *absent : item;
    }
    return out;
}

/* --- filters --- */

/* clang-format off */
#define FILTERS(X)                                                                                                     \
    X(trim) X(length) X(count) X(upper) X(lower) X(capitalize) X(title) X(default) X(d) X(tojson) X(join) X(first)     \
    X(last) X(list) X(string) X(int) X(replace) X(reverse) X(items) X(selectattr) X(rejectattr) X(select) X(reject)    \
    X(map) X(safe)
/* clang-format on */

enum filter {
#define ENTRY(name) FILTER_##name,
    FILTERS(ENTRY) FILTERS_END
#undef ENTRY
};

static enum filter find_filter(chat_string name)
{
    static const char *const names[] = {
#define ENTRY(name) #name,
        FILTERS(ENTRY)
#undef ENTRY
    };
    enum filter i = 0;
    while (i < FILTERS_END && !chat_is(name, names[i])) {
        i++;
    }
    return i;
}

bool chat_known_filter(chat_string name)
{
    return find_filter(name) != FILTERS_END;
}

static chat_value to_int(chat_run *run, const chat_arguments *a, chat_value value)
{
    int64_t number = 0;
    if (value.kind != CHAT_STRING) {
        return chat_int(value.kind == CHAT_INT || value.kind == CHAT_BOOL
                            ? value.number
                            : chat_number_argument(run, a, 0, "default", 0));
    }
    chat_string text = chat_strip(value.text, NULL, true, true);
    bool negative = text.length && text.bytes[0] == '-', good = false;
    for (size_t i = text.length && (negative || text.bytes[0] == '+'); i < text.length; i++) {
        int digit = text.bytes[i] - '0';
        good = digit >= 0 && digit <= 9 && !__builtin_mul_overflow(number, 10, &number) &&
               !__builtin_add_overflow(number, digit, &number);
        if (!good) {
            break;
        }
    }
    return chat_int(!good ? chat_number_argument(run, a, 0, "default", 0) : negative ? -number : number);
}

static chat_value to_json(chat_run *run, const chat_arguments *a, chat_value value)
{
    chat_builder out = {0};
    const chat_value *ascii = chat_argument(a, SIZE_MAX, "ensure_ascii"),
                     *indent = chat_argument(a, SIZE_MAX, "indent");
    const chat_value *sorted = chat_argument(a, SIZE_MAX, "sort_keys");
    if (chat_argument(a, 0, "") || chat_argument(a, SIZE_MAX, "separators") || (ascii && chat_truth(*ascii)) ||
        (sorted && chat_truth(*sorted)) ||
        (indent && indent->kind != CHAT_NONE &&
         (indent->kind != CHAT_INT || indent->number < 0 || indent->number > 64))) {
        chat_fail(run, a->line, SM_UNSUPPORTED, "tojson with these arguments is not supported; indent is");
        return chat_undefined();
    }
    chat_to_json(run, a->line, &out, value, indent && indent->kind == CHAT_INT ? (int)indent->number : -1, 0);
    return chat_text(chat_built(&out));
}

static chat_value join_filter(chat_run *run, const chat_arguments *a, chat_value value)
{
    chat_string separator = chat_literal("");
    const chat_value *attribute = chat_argument(a, 1, "attribute");
    chat_text_argument(run, a, 0, "d", false, &separator);
    if (!attribute) {
        return chat_join(run, a, value, separator);
    }
    chat_string name = chat_literal("attribute");
    return chat_join(run, a, map(run, &(chat_arguments){(chat_value *)attribute, &name, 1, a->line, a->callee}, value),
                     separator);
}

/* Filters that work on text: whatever comes is text, as {{ }} would print it. */
static chat_value text_filter(chat_run *run, enum filter which, chat_value value, const chat_arguments *a)
{
    chat_string text = chat_to_text(run, a->line, value), one, two;
    switch (which) {
    case FILTER_trim:
        return chat_text(chat_text_argument(run, a, 0, "chars", false, &one) ? chat_strip(text, &one, true, true)
                                                                             : chat_strip(text, NULL, true, true));
    case FILTER_upper:
        return chat_change_case(run, text, CHAT_UPPER);
    case FILTER_lower:
        return chat_change_case(run, text, CHAT_LOWER);
    case FILTER_capitalize:
        return chat_change_case(run, text, CHAT_CAPITAL);
    case FILTER_title:
        return chat_change_case(run, text, CHAT_TITLE_WORDS);
    case FILTER_replace:
        return chat_text_argument(run, a, 0, "old", true, &one) && chat_text_argument(run, a, 1, "new", true, &two)
                   ? chat_replace(run, a->line, text, one, two, chat_number_argument(run, a, 2, "count", -1))
                   : chat_undefined();
    default:
        return chat_text(text);
    }
}

chat_value chat_call_filter(chat_run *run, chat_value value, const chat_arguments *a)
{
    enum filter which = find_filter(a->callee);
    const chat_value *given;
    switch (which) {
    case FILTER_length:
    case FILTER_count:
        return chat_length(run, a, value);
    case FILTER_default:
    case FILTER_d:
        given = chat_argument(a, 1, "boolean");
        if (value.kind != CHAT_UNDEFINED && !(given && chat_truth(*given) && !chat_truth(value))) {
            return value;
        }
        given = chat_argument(a, 0, "default_value");
        return given ? *given : chat_text(chat_literal(""));
    case FILTER_tojson:
        return to_json(run, a, value);
    case FILTER_join:
        return join_filter(run, a, value);
    case FILTER_first:
    case FILTER_last:
        return end_item(run, a, value, which == FILTER_last);
    case FILTER_list:
        return chat_items(run, a->line, value);
    case FILTER_int:
        return to_int(run, a, value);
    case FILTER_reverse:
        return reversed(run, a, value);
    case FILTER_items:
        return chat_entries(run, a, value, CHAT_ITEMS);
    case FILTER_selectattr:
    case FILTER_rejectattr:
        return choose(run, a, value, true, which == FILTER_selectattr);
    case FILTER_select:
    case FILTER_reject:
        return choose(run, a, value, false, which == FILTER_select);
    case FILTER_map:
        return map(run, a, value);
    default:
        return text_filter(run, which, value, a);
    }
}

/* --- tests --- */

static const char *const tests[] = {"defined", "undefined", "none",    "boolean",  "true",     "false", "integer",
                                    "number",  "string",    "mapping", "sequence", "iterable", "odd",   "even",
                                    "eq",      "equalto",   "==",      "ne",       "in"};

bool chat_known_test(chat_string name)
{
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        if (chat_is(name, tests[i])) {
            return true;
        }
    }
    return false;
}

bool chat_call_test(chat_run *run, chat_value value, const chat_arguments *a)
{
    chat_string name = a->callee;
    chat_kind kind = value.kind;
    bool number = kind == CHAT_INT || kind == CHAT_BOOL;
    if (chat_is(name, "defined") || chat_is(name, "undefined")) {
        return (kind == CHAT_UNDEFINED) == chat_is(name, "undefined");
    }
    if (chat_is(name, "none")) {
        return kind == CHAT_NONE;
    }
    if (chat_is(name, "boolean")) {
        return kind == CHAT_BOOL;
    }
    if (chat_is(name, "true") || chat_is(name, "false")) {
        return kind == CHAT_BOOL && (value.number != 0) == chat_is(name, "true");
    }
    if (chat_is(name, "integer")) {
        return kind == CHAT_INT;
    }
    if (chat_is(name, "number")) {
        return number;
    }
    if (chat_is(name, "string")) {
        return kind == CHAT_STRING;
    }
    if (chat_is(name, "mapping")) {
        return kind == CHAT_DICT;
    }
    if (chat_is(name, "sequence") || chat_is(name, "iterable")) {
        return kind == CHAT_STRING || kind == CHAT_LIST || kind == CHAT_DICT || kind == CHAT_UNDEFINED;
    }
    const chat_value *other = chat_argument(a, 0, "");
    if (chat_is(name, "odd") || chat_is(name, "even")) {
        if (!number) {
            chat_wrong(run, a, value);
        }
        return number && (value.number % 2 != 0) == chat_is(name, "odd");
    }
    if (!other) {
        chat_wrong(run, a, value);
        return false;
    }
    if (chat_is(name, "in")) {
        return chat_contains(run, a->line, *other, value);
    }
    return chat_equal(value, *other) != chat_is(name, "ne");
}
