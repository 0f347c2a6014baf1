/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/plan/setting.h"
#include "core/base/near.h"
#include "core/base/utf8.h"

#include <errno.h>
#include <libconfig.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST_FILE = 4 << 20 };

sl_setting *sl_setting_member(const sl_setting *group, const char *name)
{
    for (sl_setting *s = group && group->kind == SL_GROUP ? group->first : NULL; s; s = s->next)
        if (strcmp(s->name, name) == 0)
            return s;
    return NULL;
}

static void append(sl_setting *group, sl_setting *member)
{
    member->next = NULL;
    if (group->last)
        group->last->next = member;
    else
        group->first = member;
    group->last = member;
    group->count++;
}

void sl_setting_put(sl_setting *group, sl_setting *member)
{
    sl_setting *before = NULL;
    for (sl_setting *s = group->first; s; before = s, s = s->next) {
        if (!member->name || strcmp(s->name, member->name) != 0)
            continue;
        member->replaced = s->level < member->level ? s : s->replaced;
        member->next = s->next;
        if (before)
            before->next = member;
        else
            group->first = member;
        if (group->last == s)
            group->last = member;
        return;
    }
    append(group, member);
}

sl_setting *sl_setting_copy(const sl_setting *from, sl_arena *arena)
{
    sl_setting *to = sl_arena_alloc(arena, sizeof *to);
    if (!to)
        return NULL;
    *to = *from;
    to->first = to->last = to->next = NULL;
    to->count = 0;
    for (const sl_setting *s = from->first; s; s = s->next) {
        sl_setting *member = sl_setting_copy(s, arena);
        if (!member)
            return NULL;
        append(to, member);
    }
    return to;
}

const char *sl_setting_kind_name(const sl_setting *s)
{
    static const char *const names[] = {"a boolean", "an integer", "a float", "a string", "a list", "a group"};
    return names[s->kind];
}

sl_setting *sl_setting_first_group(sl_setting *list)
{
    return list && list->kind == SL_LIST ? list->first : list;
}

sl_setting *sl_setting_stage(const sl_setting *root, const char *name)
{
    for (sl_setting *p = sl_setting_first_group(sl_setting_member(root, "phases")); p; p = p->next)
        for (sl_setting *s = sl_setting_first_group(sl_setting_member(p, "stages")); s; s = s->next) {
            const sl_setting *called = sl_setting_member(s, "name");
            if (called && called->kind == SL_TEXT && strcmp(called->text, name) == 0)
                return s;
        }
    return NULL;
}

const char *sl_setting_near_stage(const sl_setting *root, const char *name)
{
    sl_near near = {.wanted = name};
    for (sl_setting *p = sl_setting_first_group(sl_setting_member(root, "phases")); p; p = p->next)
        for (sl_setting *s = sl_setting_first_group(sl_setting_member(p, "stages")); s; s = s->next) {
            const sl_setting *called = sl_setting_member(s, "name");
            if (called && called->kind == SL_TEXT)
                sl_near_offer(&near, called->text);
        }
    return near.best;
}

/* Copies libconfig's setting; NULL when out of memory. */
static sl_setting *convert(const config_setting_t *from, sl_arena *arena, sl_mistakes *mistakes)
{
    sl_setting *to = sl_arena_alloc(arena, sizeof *to);
    if (!to)
        return NULL;
    const char *name = config_setting_name(from);
    to->name = name ? sl_arena_strdup(arena, name) : NULL;
    to->line = (int)config_setting_source_line(from);
    switch (config_setting_type(from)) {
    case CONFIG_TYPE_BOOL:
        to->kind = SL_BOOLEAN;
        to->boolean = config_setting_get_bool(from);
        break;
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        to->kind = SL_INTEGER;
        to->integer = config_setting_get_int64(from);
        to->number = (double)to->integer;
        break;
    case CONFIG_TYPE_FLOAT:
        to->kind = SL_FLOAT;
        to->number = config_setting_get_float(from);
        break;
    case CONFIG_TYPE_STRING:
        to->kind = SL_TEXT;
        to->text = sl_arena_strdup(arena, config_setting_get_string(from));
        if (to->text && sl_utf8_check(to->text, strlen(to->text)) < strlen(to->text))
            sl_mistake(mistakes, to, NULL, "escapes in this string make no UTF-8; write the characters themselves");
        break;
    default:
        to->kind = config_setting_type(from) == CONFIG_TYPE_GROUP ? SL_GROUP : SL_LIST;
        for (int i = 0; i < config_setting_length(from); i++) {
            sl_setting *member = convert(config_setting_get_elem(from, (unsigned)i), arena, mistakes);
            if (!member)
                return NULL;
            append(to, member);
        }
    }
    return to;
}

/* The whole file, NUL-terminated; NULL after a mistake. */
static char *slurp(const char *file, size_t *size, sl_mistakes *mistakes)
{
    FILE *in = fopen(file, "rb");
    char *text = in ? malloc(LARGEST_FILE + 1) : NULL;
    if (text) {
        errno = 0;
        *size = fread(text, 1, LARGEST_FILE + 1, in);
        if (ferror(in)) {
            sl_mistake(mistakes, NULL, NULL, "cannot be read: %s", strerror(errno));
        } else if (*size > LARGEST_FILE) {
            sl_mistake(mistakes, NULL, NULL, "larger than %d bytes: this is no pipeline file", LARGEST_FILE);
        } else {
            text[*size] = '\0';
            if (*size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
                memset(text, ' ', 3); /* the mark some editors put in front of UTF-8 */
            fclose(in);
            return text;
        }
    } else {
        sl_mistake(mistakes, NULL, NULL, "cannot be read: %s; name a pipeline file", strerror(errno));
    }
    if (in)
        fclose(in);
    free(text);
    return NULL;
}

sl_setting *sl_settings_read(const char *file, sl_arena *arena, sl_mistakes *mistakes)
{
    size_t size;
    sl_setting *root = NULL;
    char *text = slurp(file, &size, mistakes);
    if (text && sl_scan(text, size, mistakes)) {
        config_t config;
        config_init(&config);
        if (!config_read_string(&config, text)) {
            const char *what = config_error_text(&config);
            const char *mend = strcmp(what, "duplicate setting name") == 0 ? "remove one of the two"
                               : strncmp(what, "mismatched", 10) == 0
                                   ? "write all items as the first, or use ( )"
                                   : "look just before it for a comma, = or \" that is missing, or one too many";
            sl_mistake_line(mistakes, config_error_line(&config), "%s; %s", what, mend);
        } else {
            root = convert(config_root_setting(&config), arena, mistakes);
            if (!root)
                sl_mistake(mistakes, NULL, NULL, "out of memory");
        }
        config_destroy(&config);
    }
    free(text);
    return root;
}
