/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Expressions. Strings are counted in characters, as in Python; every part of a string keeps its guard.
 */
#include "model/chat_parts.h"

#include <string.h>

/* --- characters of a string --- */

static int64_t count_characters(chat_string text)
{
    int64_t count = 0;
    for (size_t i = 0; i < text.length; i++) {
        count += ((unsigned char)text.bytes[i] & 0xc0) != 0x80;
    }
    return count;
}

/* Offset of character `index`, which may be one behind the last. */
static size_t character_at(chat_string text, int64_t index)
{
    size_t at = 0;
    while (index-- > 0 && at < text.length) {
        at += sm_utf8_size(text.bytes[at]);
    }
    return at;
}

chat_value chat_items(chat_run *run, int line, chat_value value)
{
    chat_value list = chat_undefined();
    size_t i = 0;
    switch (value.kind) {
    case CHAT_LIST:
        return value;
    case CHAT_UNDEFINED:
        return chat_new_list(run, 0);
    case CHAT_DICT:
        list = chat_new_list(run, value.dict->count);
        for (const chat_entry *entry = value.dict->first; !run->failed && entry; entry = entry->next) {
            list.list->items[i++] = chat_text(entry->key);
        }
        return list;
    case CHAT_STRING:
        list = chat_new_list(run, (size_t)count_characters(value.text));
        for (size_t at = 0, size; !run->failed && at < value.text.length; at += size) {
            size = sm_utf8_size(value.text.bytes[at]);
            list.list->items[i++] = chat_text(chat_part(value.text, at, at + size));
        }
        return list;
    default:
        chat_fail(run, line, SM_FORMAT, "%s cannot be gone over", chat_kind_name(value));
        return list;
    }
}

/* --- names, attributes, items, slices --- */

static chat_value look_up(const chat_scope *scope, chat_string name)
{
    for (; scope; scope = scope->outer) {
        chat_value *value = chat_dict_find(&scope->variables, name);
        if (value) {
            return *value;
        }
    }
    return chat_undefined();
}

static chat_value loop_attribute(chat_run *run, int line, const chat_loop *loop, chat_string name)
{
    int64_t index = (int64_t)loop->index, count = (int64_t)loop->items->count;
    const chat_value *items = loop->items->items;
    if (chat_is(name, "index")) {
        return chat_int(index + 1);
    }
    if (chat_is(name, "index0")) {
        return chat_int(index);
    }
    if (chat_is(name, "revindex")) {
        return chat_int(count - index);
    }
    if (chat_is(name, "revindex0")) {
        return chat_int(count - index - 1);
    }
    if (chat_is(name, "first")) {
        return chat_bool(index == 0);
    }
    if (chat_is(name, "last")) {
        return chat_bool(index == count - 1);
    }
    if (chat_is(name, "length")) {
        return chat_int(count);
    }
    if (chat_is(name, "previtem")) {
        return index ? items[index - 1] : chat_undefined();
    }
    if (chat_is(name, "nextitem")) {
        return index + 1 < count ? items[index + 1] : chat_undefined();
    }
    chat_fail(run, line, SM_UNSUPPORTED, "loop.%.*s is not supported", (int)name.length, name.bytes);
    return chat_undefined();
}

chat_value chat_attribute(chat_run *run, int line, chat_value object, chat_string name)
{
    chat_value *value;
    switch (object.kind) {
    case CHAT_DICT:
    case CHAT_NAMESPACE:
        value = chat_dict_find(object.dict, name);
        return value ? *value : chat_undefined();
    case CHAT_LOOP:
        return loop_attribute(run, line, object.loop, name);
    case CHAT_UNDEFINED:
        chat_fail(run, line, SM_FORMAT, "an undefined value has no \"%.*s\"",
                  (int)(name.length < 60 ? name.length : 60), name.bytes);
        return object;
    default:
        return chat_undefined();
    }
}

static chat_value item(chat_run *run, int line, chat_value object, chat_value index)
{
    if (index.kind == CHAT_STRING) {
        return chat_attribute(run, line, object, index.text);
    }
    if (object.kind == CHAT_UNDEFINED) {
        chat_fail(run, line, SM_FORMAT, "an undefined value has no items");
    } else if ((object.kind == CHAT_LIST || object.kind == CHAT_STRING) &&
               (index.kind == CHAT_INT || index.kind == CHAT_BOOL)) {
        int64_t count = object.kind == CHAT_LIST ? (int64_t)object.list->count : count_characters(object.text);
        int64_t at = index.number < 0 ? index.number + count : index.number;
        if (at >= 0 && at < count && object.kind == CHAT_LIST) {
            return object.list->items[at];
        }
        if (at >= 0 && at < count) {
            size_t start = character_at(object.text, at);
            return chat_text(chat_part(object.text, start, start + sm_utf8_size(object.text.bytes[start])));
        }
    }
    return chat_undefined();
}

/* A bound of a slice: absent, or counted from the end, or beyond. */
static int64_t bound(chat_run *run, const chat_node *node, chat_scope *scope, int64_t count, bool backwards,
                     int64_t absent)
{
    if (!node) {
        return absent;
    }
    chat_value value = chat_eval(run, node, scope);
    if (value.kind == CHAT_NONE) {
        return absent;
    }
    if (value.kind != CHAT_INT && value.kind != CHAT_BOOL) {
        chat_fail(run, node->line, SM_FORMAT, "a slice's bound is %s", chat_kind_name(value));
        return absent;
    }
    int64_t at = value.number < 0 ? value.number + count : value.number;
    int64_t low = backwards ? -1 : 0, high = backwards ? count - 1 : count;
    return at < low ? low : at > high ? high : at;
}

static chat_value slice(chat_run *run, const chat_node *node, chat_value object, chat_scope *scope)
{
    if (object.kind != CHAT_LIST && object.kind != CHAT_STRING) {
        chat_fail(run, node->line, SM_FORMAT, "%s cannot be sliced", chat_kind_name(object));
        return object;
    }
    int64_t step = 1, count = object.kind == CHAT_LIST ? (int64_t)object.list->count : count_characters(object.text);
    if (node->d) {
        chat_value value = chat_eval(run, node->d, scope);
        step = value.kind == CHAT_NONE ? 1 : value.number;
        if ((value.kind != CHAT_INT && value.kind != CHAT_NONE) || step == 0 || step > INT32_MAX || step < -INT32_MAX) {
            chat_fail(run, node->line, SM_FORMAT, "a slice's step must be a number other than 0");
        }
    }
    int64_t from = bound(run, node->b, scope, count, step < 0, step < 0 ? count - 1 : 0);
    int64_t to = bound(run, node->c, scope, count, step < 0, step < 0 ? -1 : count);
    if (run->failed) {
        return chat_undefined();
    }
    if (object.kind == CHAT_STRING && step == 1) {
        size_t start = character_at(object.text, from), end = from < to ? character_at(object.text, to) : start;
        return chat_text(chat_part(object.text, start, end));
    }
    chat_value items = chat_items(run, node->line, object), out = chat_new_list(run, (size_t)count);
    chat_builder text = {0};
    size_t kept = 0;
    for (int64_t i = from; !run->failed && (step > 0 ? i < to : i > to); i += step) {
        out.list->items[kept++] = items.list->items[i];
        if (object.kind == CHAT_STRING) {
            chat_put(run, &text, items.list->items[i].text);
        }
    }
    if (run->failed || object.kind == CHAT_STRING) {
        return chat_text(chat_built(&text));
    }
    out.list->count = kept;
    return out;
}

/* --- operators --- */

bool chat_contains(chat_run *run, int line, chat_value container, chat_value element)
{
    switch (container.kind) {
    case CHAT_STRING:
        if (element.kind == CHAT_STRING) {
            return chat_find(container.text, element.text, 0) != SIZE_MAX;
        }
        break;
    case CHAT_DICT:
        return element.kind == CHAT_STRING && chat_dict_find(container.dict, element.text);
    case CHAT_LIST:
        for (size_t i = 0; i < container.list->count; i++) {
            if (chat_equal(container.list->items[i], element)) {
                return true;
            }
        }
        return false;
    case CHAT_UNDEFINED:
        return false;
    default:
        break;
    }
    chat_fail(run, line, SM_FORMAT, "%s in %s", chat_kind_name(element), chat_kind_name(container));
    return false;
}

static bool is_number(chat_value value)
{
    return value.kind == CHAT_INT || value.kind == CHAT_BOOL;
}

static chat_value refuse(chat_run *run, const chat_node *node, chat_value a, chat_value b)
{
    chat_fail(run, node->line, SM_FORMAT, "%s %.*s %s", chat_kind_name(a), (int)node->text.length, node->text.bytes,
              chat_kind_name(b));
    return chat_undefined();
}

static chat_value compare(chat_run *run, const chat_node *node, chat_value a, chat_value b)
{
    int order;
    if (is_number(a) && is_number(b)) {
        order = (a.number > b.number) - (a.number < b.number);
    } else if (a.kind == CHAT_STRING && b.kind == CHAT_STRING) {
        size_t least = a.text.length < b.text.length ? a.text.length : b.text.length;
        order = least ? memcmp(a.text.bytes, b.text.bytes, least) : 0;
        order = order ? order : (a.text.length > b.text.length) - (a.text.length < b.text.length);
    } else {
        return refuse(run, node, a, b);
    }
    bool strict = node->text.length == 1;
    return chat_bool(node->text.bytes[0] == '<' ? order < (strict ? 0 : 1) : order > (strict ? 0 : -1));
}

static chat_value join(chat_run *run, chat_string a, chat_string b)
{
    chat_builder text = {0};
    chat_put(run, &text, a);
    chat_put(run, &text, b);
    return chat_text(chat_built(&text));
}

static chat_value add(chat_run *run, const chat_node *node, chat_value a, chat_value b)
{
    int64_t sum;
    if (a.kind == CHAT_STRING && b.kind == CHAT_STRING) {
        return join(run, a.text, b.text);
    }
    if (a.kind == CHAT_LIST && b.kind == CHAT_LIST) {
        chat_value both = chat_new_list(run, a.list->count + b.list->count);
        if (!run->failed) {
            memcpy(both.list->items, a.list->items, a.list->count * sizeof(chat_value));
            memcpy(both.list->items + a.list->count, b.list->items, b.list->count * sizeof(chat_value));
        }
        return both;
    }
    if (!is_number(a) || !is_number(b)) {
        return refuse(run, node, a, b);
    }
    if (__builtin_add_overflow(a.number, b.number, &sum)) {
        chat_fail(run, node->line, SM_UNSUPPORTED, "a number beyond 64 bits");
    }
    return chat_int(sum);
}

/* Division rounds down, and a remainder has the divisor's sign, as in Python. */
static chat_value calculate(chat_run *run, const chat_node *node, chat_value a, chat_value b)
{
    int64_t result = 0;
    bool overflow = false;
    char sign = node->text.bytes[0];
    if (!is_number(a) || !is_number(b) || (sign == '/' && node->text.length == 1)) {
        return refuse(run, node, a, b);
    }
    if (sign == '-') {
        overflow = __builtin_sub_overflow(a.number, b.number, &result);
    } else if (sign == '*') {
        overflow = __builtin_mul_overflow(a.number, b.number, &result);
    } else if (b.number == 0) {
        chat_fail(run, node->line, SM_FORMAT, "a division by zero");
    } else if (b.number == -1) {
        overflow = sign == '/' && __builtin_sub_overflow(0, a.number, &result);
    } else {
        int64_t quotient = a.number / b.number, rest = a.number % b.number;
        bool down = rest && (rest < 0) != (b.number < 0);
        result = sign == '/' ? quotient - down : rest + (down ? b.number : 0);
    }
    if (overflow) {
        chat_fail(run, node->line, SM_UNSUPPORTED, "a number beyond 64 bits");
    }
    return chat_int(result);
}

static chat_value binary(chat_run *run, const chat_node *node, chat_scope *scope)
{
    chat_value a = chat_eval(run, node->a, scope), b = chat_eval(run, node->b, scope);
    if (run->failed) {
        return chat_undefined();
    }
    switch (node->text.bytes[0]) {
    case '=':
        return chat_bool(chat_equal(a, b));
    case '!':
        return chat_bool(!chat_equal(a, b));
    case '<':
    case '>':
        return compare(run, node, a, b);
    case 'i':
        return chat_bool(chat_contains(run, node->line, b, a));
    case 'n':
        return chat_bool(!chat_contains(run, node->line, b, a));
    case '~':
        return join(run, chat_to_text(run, node->line, a), chat_to_text(run, node->line, b));
    case '+':
        return add(run, node, a, b);
    default:
        return calculate(run, node, a, b);
    }
}

/* --- the rest --- */

static chat_value new_list(chat_run *run, const chat_node *node, chat_scope *scope)
{
    chat_value list = chat_new_list(run, node->count);
    for (size_t i = 0; !run->failed && i < node->count; i++) {
        list.list->items[i] = chat_eval(run, node->items[i], scope);
    }
    return list;
}

static chat_value new_dict(chat_run *run, const chat_node *node, chat_scope *scope)
{
    chat_dict *dict = chat_alloc(run, sizeof *dict);
    for (size_t i = 0; !run->failed && i < node->count; i += 2) {
        chat_value key = chat_eval(run, node->items[i], scope), value = chat_eval(run, node->items[i + 1], scope);
        if (key.kind != CHAT_STRING) {
            chat_fail(run, node->line, SM_UNSUPPORTED, "a dict's key that is %s is not supported", chat_kind_name(key));
            break;
        }
        chat_dict_set(run, dict, key.text, value);
    }
    return run->failed ? chat_undefined() : (chat_value){.kind = CHAT_DICT, .dict = dict};
}

static chat_value call(chat_run *run, const chat_node *node, chat_scope *scope)
{
    chat_value object = node->a ? chat_eval(run, node->a, scope) : chat_undefined();
    chat_arguments arguments = {.names = node->names, .count = node->count, .line = node->line, .callee = node->text};
    arguments.values = chat_alloc(run, (node->count + 1) * sizeof *arguments.values);
    for (size_t i = 0; !run->failed && i < node->count; i++) {
        arguments.values[i] = chat_eval(run, node->items[i], scope);
    }
    if (run->failed) {
        return chat_undefined();
    }
    switch (node->kind) {
    case CHAT_FILTER:
        return chat_call_filter(run, object, &arguments);
    case CHAT_TEST:
        return chat_bool(chat_call_test(run, object, &arguments));
    case CHAT_METHOD:
        return chat_call_method(run, object, &arguments);
    default:
        return chat_call_function(run, &arguments);
    }
}

static chat_value negate(chat_run *run, const chat_node *node, chat_scope *scope)
{
    chat_value value = chat_eval(run, node->a, scope);
    if (!is_number(value) || value.number == INT64_MIN) {
        chat_fail(run, node->line, SM_FORMAT, "minus %s", chat_kind_name(value));
        return chat_undefined();
    }
    return chat_int(-value.number);
}

chat_value chat_eval(chat_run *run, const chat_node *node, chat_scope *scope)
{
    chat_value value;
    if (++run->steps > CHAT_MAX_STEPS) {
        chat_fail(run, node->line, SM_UNSUPPORTED, "the chat template takes more than %d steps", CHAT_MAX_STEPS);
    }
    if (run->failed) {
        return chat_undefined();
    }
    switch (node->kind) {
    case CHAT_CONSTANT:
        return node->value;
    case CHAT_NAME:
        return look_up(scope, node->text);
    case CHAT_ATTRIBUTE:
        return chat_attribute(run, node->line, chat_eval(run, node->a, scope), node->text);
    case CHAT_ITEM:
        value = chat_eval(run, node->a, scope);
        return item(run, node->line, value, chat_eval(run, node->b, scope));
    case CHAT_SLICE:
        return slice(run, node, chat_eval(run, node->a, scope), scope);
    case CHAT_NEW_LIST:
        return new_list(run, node, scope);
    case CHAT_NEW_DICT:
        return new_dict(run, node, scope);
    case CHAT_NOT:
        return chat_bool(!chat_truth(chat_eval(run, node->a, scope)));
    case CHAT_NEGATE:
        return negate(run, node, scope);
    case CHAT_AND:
        value = chat_eval(run, node->a, scope);
        return chat_truth(value) ? chat_eval(run, node->b, scope) : value;
    case CHAT_OR:
        value = chat_eval(run, node->a, scope);
        return chat_truth(value) ? value : chat_eval(run, node->b, scope);
    case CHAT_IF_ELSE:
        if (chat_truth(chat_eval(run, node->b, scope))) {
            return chat_eval(run, node->a, scope);
        }
        return node->c ? chat_eval(run, node->c, scope) : chat_undefined();
    case CHAT_BINARY:
        return binary(run, node, scope);
    default:
        return call(run, node, scope);
    }
}
