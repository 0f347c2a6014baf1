/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A plan as a pipeline file with nothing left to guess. */
#include "core/plan/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void write_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
        if (*s == '"' || *s == '\\')
            fprintf(out, "\\%c", *s);
        else if (*s == '\n')
            fputs("\\n", out);
        else if (*s < 0x20)
            fprintf(out, "\\x%02x", *s);
        else
            fputc(*s, out);
    }
    fputc('"', out);
}

/* The shortest digits that read back as the same number, and always a float to the reader. */
static void write_double(FILE *out, double value)
{
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    fprintf(out, "%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

static void write_integer(FILE *out, int64_t value)
{
    fprintf(out, "%lld%s", (long long)value, value > INT32_MAX || value < INT32_MIN ? "L" : "");
}

static void write_items(FILE *out, const sl_value *v)
{
    fputs("( ", out);
    for (size_t i = 0; i < v->count; i++) {
        fputs(i ? ", " : "", out);
        if (v->numbers)
            write_double(out, v->numbers[i]);
        else
            write_text(out, v->texts[i]);
    }
    fputs(" )", out);
}

/* A value that was not given and has no default has no text. */
static bool is_set(const sl_value *v)
{
    switch (v->param->type) {
    case SLUICE_TYPE_BOOL:
    case SLUICE_TYPE_INT:
        return true;
    case SLUICE_TYPE_DOUBLE:
        return isfinite(v->number);
    case SLUICE_TYPE_DOUBLES:
    case SLUICE_TYPE_STRINGS:
    case SLUICE_TYPE_STAGES:
    case SLUICE_TYPE_MODELS:
    case SLUICE_TYPE_METRICS:
        return v->given;
    default:
        return v->text != NULL;
    }
}

static void write_value(FILE *out, const sl_value *v)
{
    switch (v->param->type) {
    case SLUICE_TYPE_BOOL:
        fputs(v->integer ? "true" : "false", out);
        break;
    case SLUICE_TYPE_INT:
        write_integer(out, v->integer);
        break;
    case SLUICE_TYPE_DOUBLE:
        write_double(out, v->number);
        break;
    case SLUICE_TYPE_DOUBLES:
    case SLUICE_TYPE_STRINGS:
    case SLUICE_TYPE_STAGES:
    case SLUICE_TYPE_MODELS:
    case SLUICE_TYPE_METRICS:
        write_items(out, v);
        break;
    default:
        write_text(out, v->text);
    }
}

static bool has(const sl_object *o, const char *name)
{
    for (size_t i = 0; i < o->value_count; i++)
        if (strcmp(o->values[i].param->name, name) == 0)
            return true;
    return false;
}

/* Writes an object's values but for those that objects before it in the same group have as well. */
static void write_object(FILE *out, const sl_object *o, const sl_object *first, const sl_object *more, size_t count,
                         const char *indent)
{
    for (size_t i = 0; i < o->value_count; i++) {
        const sl_value *v = &o->values[i];
        bool before = first && has(first, v->param->name);
        for (size_t j = 0; j < count; j++)
            before |= has(&more[j], v->param->name);
        if (before || !is_set(v))
            continue;
        fprintf(out, "%s%s = ", indent, v->param->name);
        write_value(out, v);
        fputs(";\n", out);
    }
}

static void write_edges(FILE *out, const char *key, sl_stage *const *stages, size_t count)
{
    if (count == 0)
        return;
    fprintf(out, "        %s = ( ", key);
    for (size_t i = 0; i < count; i++)
        fprintf(out, "%s\"%s\"", i ? ", " : "", stages[i]->name);
    fputs(" );\n", out);
}

static void write_isolation(FILE *out, const sl_isolation *i, const char *indent)
{
    if (!i->on)
        return;
    fprintf(out, "%sisolate = true;\n%son_crash = \"%s\";\n", indent, indent, sl_crash_rule_name(i->on_crash));
    if (i->memory > 0 || i->seconds > 0) {
        fprintf(out, "%slimits = {", indent);
        if (i->memory > 0)
            fprintf(out, " memory = %lluL;", (unsigned long long)i->memory);
        if (i->seconds > 0) {
            fputs(" seconds = ", out);
            write_double(out, i->seconds);
            fputc(';', out);
        }
        fputs(" };\n", out);
    }
    if (i->confined)
        fprintf(out, "%sseccomp = true;\n", indent);
}

static void write_stage(FILE *out, const sl_stage *s)
{
    static const char indent[] = "        ";
    fprintf(out, "      {\n%sname = \"%s\";\n%suse = \"%s\";\n", indent, s->name, indent, s->id);
    write_edges(out, "from", s->from, s->from_count);
    write_edges(out, "after", s->after, s->after_count);
    write_isolation(out, &s->isolation, indent);
    if (s->in_memory)
        fprintf(out, "%sin_memory = true;\n", indent);
    write_object(out, &s->object, NULL, NULL, 0, indent);
    for (size_t i = 0; i < s->part_count; i++)
        write_object(out, &s->parts[i], &s->object, s->parts, i, indent);
    fputs("      }", out);
}

static void write_sinks(FILE *out, const sl_plan *plan)
{
    if (plan->sink_count == 0)
        return;
    fputs("metrics = (\n", out);
    for (size_t i = 0; i < plan->sink_count; i++) {
        fprintf(out, "  {\n    use = \"%s\";\n", plan->sinks[i].type->type->id);
        write_object(out, &plan->sinks[i], NULL, NULL, 0, "    ");
        fprintf(out, "  }%s\n", i + 1 < plan->sink_count ? "," : "");
    }
    fputs(");\n", out);
}

int sl_plan_write(const sl_plan *plan, FILE *out)
{
    fprintf(out, "sluice = 1;\nname = \"%s\";\nseed = %lluL;\n", plan->name, (unsigned long long)plan->seed);
    if (plan->out) {
        fputs("out = ", out);
        write_text(out, plan->out);
        fputs(";\n", out);
    }
    if (plan->store) {
        fputs("store = ", out);
        write_text(out, plan->store);
        fputs(";\n", out);
    }
    fputs("models = {\n", out);
    for (size_t i = 0; i < plan->slot_count; i++) {
        const sl_slot *s = &plan->slots[i];
        fprintf(out, "  %s = { path = ", s->name);
        write_text(out, s->path);
        fprintf(out, "; dtype = \"%s\";%s", s->dtype, s->random ? " init = \"random\";" : "");
        fprintf(out, " keep_versions = %lld; };\n", (long long)s->keep_versions);
    }
    fputs("};\nruntime = {\n", out);
    for (size_t i = 0; i < plan->runtime_count; i++)
        write_object(out, &plan->runtime[i], NULL, plan->runtime, i, "  ");
    fputs("};\n", out);
    write_sinks(out, plan);
    fputs("phases = (\n", out);
    for (size_t i = 0; i < plan->phase_count; i++) {
        const sl_phase *p = &plan->phases[i];
        fprintf(out, "  {\n    name = \"%s\";\n    repeat = %lld;\n    stages = (\n", p->name, (long long)p->repeat);
        for (size_t j = 0; j < p->stage_count; j++) {
            write_stage(out, &p->stages[j]);
            fputs(j + 1 < p->stage_count ? ",\n" : "\n", out);
        }
        fprintf(out, "    );\n  }%s\n", i + 1 < plan->phase_count ? "," : "");
    }
    fputs(");\n", out);
    return ferror(out) ? SLUICE_IO : SLUICE_OK;
}
