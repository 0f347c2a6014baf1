/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* --set key=value: what a pipeline file says, said otherwise on the command line. */
#include "core/plan/setting.h"
#include "core/base/near.h"
#include "core/base/utf8.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A scalar: boolean, integer, float, "quoted" or bare text. Takes `text`, NUL-terminated. */
static void read_scalar(sl_setting *to, char *text)
{
    size_t length = strlen(text);
    char *end;
    to->text = text;
    if (length >= 2 && text[0] == '"' && text[length - 1] == '"') {
        to->kind = SL_TEXT;
        text[length - 1] = '\0';
        to->text = text + 1;
        return;
    }
    to->kind = SL_TEXT;
    if (strcasecmp(text, "true") == 0 || strcasecmp(text, "false") == 0) {
        to->kind = SL_BOOLEAN;
        to->boolean = strcasecmp(text, "true") == 0;
        return;
    }
    if (!strchr("+-.0123456789", text[0]) || length == 0)
        return;
    errno = 0;
    to->integer = strtoll(text, &end, 10);
    if (*end == '\0' && errno == 0) {
        to->kind = SL_INTEGER;
        to->number = (double)to->integer;
        return;
    }
    to->number = strtod(text, &end);
    if (*end == '\0' && isfinite(to->number))
        to->kind = SL_FLOAT;
}

static char *trim(char *text)
{
    while (*text == ' ' || *text == '\t')
        text++;
    size_t length = strlen(text);
    while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t'))
        text[--length] = '\0';
    return text;
}

/* "[a, b]": items are scalars, cut at commas outside quotes. */
static bool read_list(sl_setting *to, char *text, sl_arena *arena)
{
    to->kind = SL_LIST;
    text[strlen(text) - 1] = '\0';
    text = trim(text + 1);
    while (*text) {
        char *end = text;
        for (bool quoted = false; *end && (quoted || *end != ','); end++)
            quoted ^= *end == '"';
        bool more = *end == ',';
        *end = '\0';
        sl_setting *item = sl_arena_alloc(arena, sizeof *item);
        if (!item)
            return false;
        item->set = to->set;
        item->level = to->level;
        read_scalar(item, trim(text));
        sl_setting_put(to, item);
        text = trim(end + more);
    }
    return true;
}

static sl_setting *phase_called(const sl_setting *root, const char *name, sl_near *near)
{
    for (sl_setting *p = sl_setting_first_group(sl_setting_member(root, "phases")); p; p = p->next) {
        const sl_setting *called = sl_setting_member(p, "name");
        if (!called || called->kind != SL_TEXT)
            continue;
        if (strcmp(called->text, name) == 0)
            return p;
        sl_near_offer(near, called->text);
    }
    return NULL;
}

/* "; did you mean 'x'?" or nothing. */
static const char *hint(sl_arena *arena, const char *name)
{
    const char *text = name ? sl_arena_printf(arena, "; did you mean '%s'?", name) : "";
    return text ? text : "";
}

static void no_stage(const sl_setting *root, const char *name, const char *rest, const sl_setting *value,
                     sl_arena *arena, sl_mistakes *mistakes)
{
    sl_near near = {.wanted = name};
    if (phase_called(root, name, &near))
        sl_mistake(mistakes, value, NULL, "no stage '%s'; for the phase of that name write phases.%s.%s", name, name,
                   rest);
    else
        sl_mistake(mistakes, value, NULL, "no stage '%s'%s", name, hint(arena, sl_setting_near_stage(root, name)));
}

/* Of "limits.memory" the group `limits` of a stage, made where the file has none: whether a stage may have it is said
 * with the rest of what the file says. NULL after a mistake. */
static sl_setting *find_inner(sl_setting *group, char *key, char **last, const sl_setting *value, sl_arena *arena,
                              sl_mistakes *mistakes)
{
    for (char *dot; (dot = strchr(key, '.')) != NULL; key = dot + 1) {
        *dot = '\0';
        sl_setting *inner = sl_setting_member(group, key);
        if (inner && inner->kind != SL_GROUP) {
            sl_mistake(mistakes, value, NULL, "'%s' is %s and no group; leave out what follows its name", key,
                       sl_setting_kind_name(inner));
            return NULL;
        }
        if (!inner) {
            inner = sl_arena_alloc(arena, sizeof *inner);
            if (!inner)
                return NULL;
            *inner = (sl_setting){.kind = SL_GROUP, .name = key, .set = value->set, .level = value->level};
            sl_setting_put(group, inner);
        }
        group = inner;
    }
    *last = key;
    return group;
}

/* The group that holds the last part of the key; NULL after a mistake. `key` is cut at its dots. */
static sl_setting *find_group(sl_setting *root, char *key, char **last, const sl_setting *value, sl_arena *arena,
                              sl_mistakes *mistakes)
{
    char *dot = strchr(key, '.');
    if (!dot) {
        *last = key;
        return root;
    }
    *dot = '\0';
    char *rest = dot + 1, *second = strchr(rest, '.');
    if (strcmp(key, "models") == 0 && second) {
        *second = '\0';
        *last = second + 1;
        sl_setting *slot = sl_setting_member(sl_setting_member(root, "models"), rest);
        if (!slot || slot->kind != SL_GROUP) {
            sl_near near = {.wanted = rest};
            const sl_setting *models = sl_setting_member(root, "models");
            for (sl_setting *s = models && models->kind == SL_GROUP ? models->first : NULL; s; s = s->next)
                sl_near_offer(&near, s->name);
            sl_mistake(mistakes, value, NULL, "no model '%s'%s", rest, hint(arena, near.best));
            return NULL;
        }
        return slot;
    }
    if (strcmp(key, "phases") == 0 && second) {
        *second = '\0';
        *last = second + 1;
        sl_near near = {.wanted = rest};
        sl_setting *phase = phase_called(root, rest, &near);
        if (!phase)
            sl_mistake(mistakes, value, NULL, "no phase '%s'%s", rest, hint(arena, near.best));
        return phase;
    }
    *last = rest;
    if (strcmp(key, "runtime") == 0 && !second) {
        sl_setting *runtime = sl_setting_member(root, "runtime");
        if (!runtime && (runtime = sl_arena_alloc(arena, sizeof *runtime))) {
            runtime->kind = SL_GROUP;
            runtime->name = "runtime";
            runtime->set = value->set;
            runtime->level = value->level;
            sl_setting_put(root, runtime);
        }
        return runtime && runtime->kind == SL_GROUP ? runtime : NULL;
    }
    sl_setting *stage = sl_setting_stage(root, key);
    if (stage)
        return find_inner(stage, rest, last, value, arena, mistakes);
    if (second || strcmp(key, "models") == 0 || strcmp(key, "phases") == 0)
        sl_mistake(mistakes, value, NULL,
                   "no such setting; write stage.param, models.NAME.key, phases.NAME.key or runtime.key before the =");
    else if (sl_setting_member(sl_setting_member(root, "models"), key))
        sl_mistake(mistakes, value, NULL, "no stage '%s'; did you mean 'models.%s.%s'?", key, key, rest);
    else
        no_stage(root, key, rest, value, arena, mistakes);
    return NULL;
}

void sl_override(sl_setting *root, const char *text, sl_arena *arena, sl_mistakes *mistakes)
{
    sl_setting *value = sl_arena_alloc(arena, sizeof *value);
    char *key = sl_arena_strdup(arena, text), *last;
    if (!value || !key)
        return;
    value->set = text;
    value->level = 1;
    char *equals = strchr(key, '=');
    if (sl_utf8_check(text, strlen(text)) < strlen(text)) {
        value->set = "…";
        sl_mistake(mistakes, value, NULL, "no UTF-8");
        return;
    }
    if (!equals || equals == key) {
        sl_mistake(mistakes, value, NULL, "write key=value, such as trust.use=keep or models.policy.path=DIR");
        return;
    }
    *equals = '\0';
    char *written = trim(equals + 1);
    size_t length = strlen(written);
    if (length >= 2 && written[0] == '[' && written[length - 1] == ']') {
        if (!read_list(value, written, arena))
            return;
    } else {
        read_scalar(value, written);
    }
    sl_setting *group = find_group(root, trim(key), &last, value, arena, mistakes);
    if (!group)
        return;
    const sl_setting *there = sl_setting_member(group, last);
    if (there && (there->kind == SL_GROUP || (there->kind == SL_LIST && group == root && strcmp(last, "seeds") != 0))) {
        sl_mistake(mistakes, value, NULL, "'%s' is a group; name one setting in it", last);
        return;
    }
    value->name = last;
    sl_setting_put(group, value);
}
