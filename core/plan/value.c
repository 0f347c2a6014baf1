/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Parameters: from a setting to a typed value in range. */
#include "core/plan/build.h"
#include "core/registry/describe.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct reading {
    sl_builder *b;
    const sluice_class *type;
    const sluice_param *param;
    const char *stage;
} reading;

static void expected(const reading *r, const sl_setting *at, const char *what)
{
    sl_mistake(r->b->mistakes, at, r->stage, "'%s' is %s; %s is wanted", r->param->name, sl_setting_kind_name(at),
               what);
}

/* Text of a string setting, or of whatever scalar stood in --set. */
static const char *text_of(const sl_setting *s)
{
    return s->kind == SL_LIST || s->kind == SL_GROUP ? NULL : s->text;
}

bool sl_build_text(sl_builder *b, const sl_setting *s, const char *stage, const char *what, const char **out)
{
    const char *text = text_of(s);
    if (!text)
        sl_mistake(b->mistakes, s, stage, "'%s' is %s; a string in quotes is wanted", what, sl_setting_kind_name(s));
    else if (!*text)
        sl_mistake(b->mistakes, s, stage, "'%s' is empty", what);
    else
        *out = text;
    return text && *text;
}

bool sl_build_integer(sl_builder *b, const sl_setting *s, const char *stage, const char *what, int64_t least,
                      int64_t most, int64_t *out)
{
    if (s->kind != SL_INTEGER)
        sl_mistake(b->mistakes, s, stage, "'%s' is %s; an integer is wanted", what, sl_setting_kind_name(s));
    else if (s->integer < least || s->integer > most)
        sl_mistake(b->mistakes, s, stage, "'%s' is %lld; it must be from %lld to %lld", what, (long long)s->integer,
                   (long long)least, (long long)most);
    else
        *out = s->integer;
    return s->kind == SL_INTEGER && s->integer >= least && s->integer <= most;
}

const char *sl_build_path(sl_builder *b, const sl_setting *at, const char *path, bool made)
{
    char current[PATH_MAX];
    if (path[0] == '/')
        return path;
    const char *beside = sl_arena_printf(b->arena, "%s/%s", b->folder, path);
    const char *here = getcwd(current, sizeof current) ? sl_arena_printf(b->arena, "%s/%s", current, path) : beside;
    if (!beside || !here)
        return path;
    if (at && at->level == 1)
        return here;
    if (access(beside, F_OK) == 0)
        return beside;
    return made || access(here, F_OK) == 0 ? here : beside;
}

static bool in_range(const reading *r, const sl_setting *at, double value)
{
    const sluice_param *p = r->param;
    if (value >= p->min && value <= p->max && value > p->above && value < p->below)
        return true;
    char range[160];
    sl_param_range(p, range, sizeof range);
    sl_mistake(r->b->mistakes, at, r->stage, "'%s' is %.15g; it must be %s%s%s", p->name, value, range,
               p->unit ? " " : "", p->unit ? p->unit : "");
    return false;
}

static void read_number(const reading *r, const sl_setting *s, sl_value *v)
{
    if (r->param->type == SLUICE_TYPE_INT) {
        if (s->kind == SL_FLOAT && s->number == floor(s->number) && fabs(s->number) < 9e15) {
            v->integer = (int64_t)s->number; /* 1e6 is a fine way to write an integer */
        } else if (s->kind == SL_INTEGER) {
            v->integer = s->integer;
        } else {
            expected(r, s, "an integer");
            return;
        }
        v->number = (double)v->integer;
        in_range(r, s, v->number);
    } else if (s->kind != SL_FLOAT && s->kind != SL_INTEGER) {
        expected(r, s, "a number");
    } else if (!isfinite(s->number)) {
        sl_mistake(r->b->mistakes, s, r->stage, "'%s' is too large for a number", r->param->name);
    } else {
        v->number = s->number;
        in_range(r, s, s->number);
    }
}

static void read_choice(const reading *r, const sl_setting *s, sl_value *v)
{
    const char *text = text_of(s);
    if (!text) {
        expected(r, s, "a string in quotes");
        return;
    }
    char all[512] = "";
    sl_near near = {.wanted = text};
    for (size_t i = 0; r->param->choices[i]; i++) {
        if (strcmp(r->param->choices[i], text) == 0) {
            v->integer = (int64_t)i;
            v->number = (double)i;
            v->text = r->param->choices[i];
            return;
        }
        sl_near_offer(&near, r->param->choices[i]);
        size_t used = strlen(all);
        snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", r->param->choices[i]);
    }
    sl_mistake(r->b->mistakes, s, r->stage, "'%s' cannot be '%s'; choose one of %s%s", r->param->name, text, all,
               sl_build_hint(r->b, &near));
}

/* --set x=a,b, which is one word: almost always two were meant. "a,b" in quotes is one. */
static bool looks_like_list(const sl_setting *s)
{
    const char *written = s->set && s->kind == SL_TEXT ? strchr(s->set, '=') : NULL;
    return written && strchr(written, ',') && written[1 + strspn(written + 1, " \t")] != '"';
}

/* A scalar stands for a list of one. */
static void read_list(const reading *r, const sl_setting *s, sl_value *v)
{
    if (looks_like_list(s)) {
        sl_mistake(r->b->mistakes, s, r->stage,
                   "'%s' takes a list, and '%s' is one word; write %s=[%s], or \"%s\" in quotes where one is meant",
                   r->param->name, s->text, r->param->name, s->text, s->text);
        return;
    }
    bool numbers = r->param->type == SLUICE_TYPE_DOUBLES;
    const sl_setting *item = s->kind == SL_LIST ? s->first : s;
    size_t count = s->kind == SL_LIST ? s->count : 1;
    v->numbers = numbers ? sl_build_alloc(r->b, count, sizeof *v->numbers) : NULL;
    v->texts = numbers ? NULL : sl_build_alloc(r->b, count, sizeof *v->texts);
    if (r->b->no_memory)
        return;
    for (; v->count < count; item = item->next, v->count++) {
        if (numbers) {
            sl_value one = {0};
            read_number(r, item, &one);
            v->numbers[v->count] = one.number;
        } else if (!(v->texts[v->count] = text_of(item))) {
            expected(r, item, s->kind == SL_LIST ? "a list of strings" : "a string or a list of them");
            v->texts[v->count] = "";
        }
    }
}

static void read_file(const reading *r, const sl_setting *s, sl_value *v)
{
    struct stat st;
    if (!sl_build_text(r->b, s, r->stage, r->param->name, &v->text))
        return;
    v->text = sl_build_path(r->b, s, v->text, r->type->kind == SLUICE_SINK);
    /* A sink's file is about to be made. */
    if (r->b->resolve_files && v->text && r->type->kind != SLUICE_SINK && stat(v->text, &st) < 0)
        sl_mistake(r->b->mistakes, s, r->stage,
                   "'%s': there is no file '%s'; correct the path (relative ones start at the "
                   "pipeline file's folder, in --set at the current one)",
                   r->param->name, v->text);
    else if (r->b->resolve_files && v->text && r->type->kind != SLUICE_SINK && access(v->text, R_OK) < 0)
        sl_mistake(r->b->mistakes, s, r->stage, "'%s': '%s' cannot be read; change its permissions", r->param->name,
                   v->text);
}

static void read_given(const reading *r, const sl_setting *s, sl_value *v)
{
    switch (r->param->type) {
    case SLUICE_TYPE_BOOL:
        v->number = s->boolean;
        v->integer = s->boolean;
        if (s->kind != SL_BOOLEAN)
            expected(r, s, "true or false");
        break;
    case SLUICE_TYPE_INT:
    case SLUICE_TYPE_DOUBLE:
        read_number(r, s, v);
        break;
    case SLUICE_TYPE_CHOICE:
        read_choice(r, s, v);
        break;
    case SLUICE_TYPE_STRING:
        v->text = text_of(s);
        if (!v->text)
            expected(r, s, "a string in quotes");
        break;
    case SLUICE_TYPE_FILE:
        read_file(r, s, v);
        break;
    case SLUICE_TYPE_DOUBLES:
    case SLUICE_TYPE_STRINGS:
    case SLUICE_TYPE_STAGES:
    case SLUICE_TYPE_MODELS:
    case SLUICE_TYPE_METRICS:
        read_list(r, s, v);
        break;
    default: /* names of stages, models and classes: resolved later */
        sl_build_text(r->b, s, r->stage, r->param->name, &v->text);
        v->count = v->text && (r->param->type == SLUICE_TYPE_MODEL || r->param->type == SLUICE_TYPE_SLOT);
    }
}

static void take_default(const reading *r, sl_value *v)
{
    const sluice_param *p = r->param;
    v->number = p->value;
    if (p->type == SLUICE_TYPE_BOOL || p->type == SLUICE_TYPE_INT || p->type == SLUICE_TYPE_CHOICE)
        v->integer = (int64_t)p->value;
    if (p->type == SLUICE_TYPE_CHOICE)
        v->text = p->choices[v->integer];
    else if (p->type == SLUICE_TYPE_FILE)
        v->text = p->text ? sl_build_path(r->b, NULL, p->text, r->type->kind == SLUICE_SINK) : NULL;
    else if (p->type != SLUICE_TYPE_MODELS && p->type != SLUICE_TYPE_STRINGS && p->type != SLUICE_TYPE_STAGES &&
             p->type != SLUICE_TYPE_METRICS)
        v->text = p->text;
    v->count = v->text && (p->type == SLUICE_TYPE_MODEL || p->type == SLUICE_TYPE_SLOT);
}

void sl_build_value(sl_builder *b, const sluice_class *type, const sluice_param *param, const sl_setting *s,
                    const sl_setting *owner, const char *stage, sl_value *out)
{
    reading r = {b, type, param, stage};
    *out = (sl_value){.param = param, .given = s != NULL, .line = s ? s->line : 0, .at = s};
    if (s) {
        read_given(&r, s, out);
        return;
    }
    if (param->required)
        sl_mistake(b->mistakes, owner, stage, "'%s' is missing, which class '%s' needs; add it (%s)", param->name,
                   type->id, param->doc ? param->doc : "see sluice describe");
    else
        take_default(&r, out);
}

void sl_build_object(sl_builder *b, const sl_registered *type, const sl_setting *group, const char *stage,
                     sl_object *out)
{
    out->type = type;
    size_t count = sl_class_params(type->type);
    out->values = sl_build_alloc(b, count, sizeof *out->values);
    if (!out->values)
        return;
    for (out->value_count = 0; out->value_count < count; out->value_count++) {
        const sluice_param *p = sl_class_param(type->type, out->value_count);
        sl_build_value(b, type->type, p, group ? sl_setting_member(group, p->name) : NULL, group, stage,
                       &out->values[out->value_count]);
    }
}
