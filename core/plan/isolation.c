/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A stage in a process of its own: isolate, limits, on_crash and seccomp. */
#include "core/plan/build.h"

#include <string.h>

static const char *const crash_rules[] = {"stop", "retry", "skip-record", NULL};

const char *sl_crash_rule_name(int rule)
{
    return crash_rules[rule];
}

static void read_bool(sl_builder *b, const sl_setting *s, const char *stage, bool *out)
{
    if (s && s->kind != SL_BOOLEAN)
        sl_mistake(b->mistakes, s, stage, "'%s' is %s; true or false is wanted", s->name, sl_setting_kind_name(s));
    else if (s)
        *out = s->boolean;
}

static void read_rule(sl_builder *b, const sl_setting *s, const char *stage, int *out)
{
    const char *text;
    if (!s || !sl_build_text(b, s, stage, "on_crash", &text))
        return;
    sl_near near = {.wanted = text};
    for (int i = 0; crash_rules[i]; i++) {
        if (strcmp(crash_rules[i], text) == 0) {
            *out = i;
            return;
        }
        sl_near_offer(&near, crash_rules[i]);
    }
    const char *hint = sl_build_hint(b, &near);
    sl_mistake(b->mistakes, s, stage, "'on_crash' is \"%s\"; write \"stop\", \"retry\" or \"skip-record\"%s", text,
               hint);
}

/* "2G", "512M", or a number of bytes; 0 when it is none. */
static uint64_t read_size(const sl_setting *s)
{
    static const char units[] = "KMGT";
    if (s->kind == SL_INTEGER)
        return s->integer > 0 ? (uint64_t)s->integer : 0;
    if (s->kind != SL_TEXT)
        return 0;
    const size_t digits = strspn(s->text, "0123456789");
    const char *unit = s->text[digits] ? strchr(units, s->text[digits]) : units + 3;
    uint64_t size = 0;
    if (digits == 0 || digits > 6 || !unit || (s->text[digits] && s->text[digits + 1]))
        return 0;
    for (size_t i = 0; i < digits; i++)
        size = size * 10 + (uint64_t)(s->text[i] - '0');
    return s->text[digits] ? size << (10 * (unit - units + 1)) : size;
}

static void read_limits(sl_builder *b, const sl_setting *limits, const char *stage, sl_isolation *out)
{
    const uint64_t least = 16 << 20;
    if (limits && limits->kind != SL_GROUP) {
        sl_mistake(b->mistakes, limits, stage, "'limits' is %s; write limits = { memory = \"2G\"; seconds = 600; }",
                   sl_setting_kind_name(limits));
        return;
    }
    for (const sl_setting *s = limits ? limits->first : NULL; s; s = s->next) {
        sl_near near = {.wanted = s->name};
        sl_near_offer(&near, "memory");
        sl_near_offer(&near, "seconds");
        if (strcmp(s->name, "memory") == 0) {
            out->memory = read_size(s);
            if (out->memory < least)
                sl_mistake(b->mistakes, s, stage, "'memory' is no size of 16M or more; write memory = \"2G\"");
        } else if (strcmp(s->name, "seconds") == 0) {
            out->seconds = s->kind == SL_INTEGER || s->kind == SL_FLOAT ? s->number : 0;
            if (!(out->seconds > 0 && out->seconds <= 1e9))
                sl_mistake(b->mistakes, s, stage, "'seconds' is no number above 0; write seconds = 600");
        } else {
            sl_mistake(b->mistakes, s, stage, "'%s' is no limit; memory and seconds are%s", s->name,
                       sl_build_hint(b, &near));
        }
    }
}

/* What cannot be done in another process. */
static void check_class(sl_builder *b, const sl_stage *stage, const sl_setting *at, const sl_setting *rule)
{
    const sluice_stage_class *type = (const sluice_stage_class *)(const void *)stage->object.type->type;
    bool in_process = type->base.traits & SLUICE_IN_PROCESS;
    const char *id = stage->id;
    for (size_t i = 0; !in_process && i < stage->part_count; i++)
        if (stage->parts[i].type && stage->parts[i].type->type->traits & SLUICE_IN_PROCESS) {
            in_process = true;
            id = stage->parts[i].type->type->id;
        }
    bool measures = false;
    for (size_t i = 0; i < stage->object.value_count; i++)
        measures |= stage->object.values[i].param->type == SLUICE_TYPE_METRICS;
    if (measures)
        sl_mistake(b->mistakes, at, stage->name,
                   "'%s' cannot run in a process of its own: it asks for the numbers of other stages; remove isolate = "
                   "true",
                   stage->id);
    else if (in_process)
        sl_mistake(b->mistakes, at, stage->name,
                   "'%s' cannot run in a process of its own: it trains in the runtime's memory, or works at each token "
                   "or on the device itself; remove isolate = true",
                   id);
    else if (stage->isolation.on_crash == SL_CRASH_SKIP && (type->run || type->next))
        sl_mistake(b->mistakes, rule, stage->name,
                   "on_crash = \"skip-record\" is not possible with '%s', which %s; write \"retry\" or \"stop\"",
                   stage->id, type->next ? "makes its records" : "takes records as it likes");
}

void sl_build_isolation(sl_builder *b, sl_stage *stage, const sl_setting *group)
{
    static const char *const others[] = {"limits", "on_crash", "seccomp"};
    sl_isolation *out = &stage->isolation;
    const sl_setting *isolate = sl_setting_member(group, "isolate"), *rule = sl_setting_member(group, "on_crash");
    read_bool(b, isolate, stage->name, &out->on);
    read_rule(b, rule, stage->name, &out->on_crash);
    read_limits(b, sl_setting_member(group, "limits"), stage->name, out);
    read_bool(b, sl_setting_member(group, "seccomp"), stage->name, &out->confined);
    if (out->on) {
        check_class(b, stage, isolate, rule);
        return;
    }
    for (size_t i = 0; !isolate && i < sizeof others / sizeof *others; i++) /* isolate = false switches all of it off */
        if (sl_setting_member(group, others[i]))
            sl_mistake(b->mistakes, sl_setting_member(group, others[i]), stage->name,
                       "'%s' is for a stage in a process of its own; add isolate = true", others[i]);
    *out = (sl_isolation){0};
}
