/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A plan for reading: a table, and a graph. */
#include "core/plan/plan.h"
#include "core/base/buffer.h"

#include <string.h>

enum { MOST_SHOWN = 4 }; /* iterations of a phase that get a column of their own */

/* Columns on a terminal: bytes that do not continue a UTF-8 sequence. */
static int width(const char *text)
{
    int count = 0;
    for (; *text; text++)
        count += ((unsigned char)*text & 0xC0) != 0x80;
    return count;
}

static void cell(FILE *out, const char *text, int columns)
{
    fprintf(out, "%s%*s", text, columns - width(text) + 2, "");
}

static const char *text_of(sl_buffer *b)
{
    return sl_buffer_append(b, "", 1) == SLUICE_OK ? (const char *)b->data : "";
}

/* "policy@1→2 reference policy@0": what a stage reads and publishes in one iteration. */
static void models(const sl_plan *plan, const sl_stage *stage, int64_t iteration, sl_buffer *text)
{
    for (size_t i = 0; i < stage->object.value_count; i++) {
        const sl_value *v = &stage->object.values[i];
        for (size_t k = 0; v->models && k < v->count; k++) {
            const sl_model_use *use = &v->models[(size_t)iteration * v->count + k];
            sl_buffer_printf(text, "%s%s@%lld", text->size ? " " : "", plan->slots[use->slot].name,
                             (long long)use->version);
            if (use->next >= 0)
                sl_buffer_printf(text, "→%lld", (long long)use->next);
        }
        for (size_t k = 0; k < v->measure_count; k++)
            sl_buffer_printf(text, "%s%s@%lld", k > 0 ? " " : " of ", plan->slots[v->measures[k].use.slot].name,
                             (long long)v->measures[k].use.version);
    }
}

static void class_text(const sl_stage *stage, sl_buffer *text)
{
    sl_buffer_printf(text, "%s", stage->id);
    for (size_t i = 0; i < stage->part_count; i++)
        if (stage->parts[i].type)
            sl_buffer_printf(text, " (%s)", stage->parts[i].type->type->id);
    if (stage->isolation.on)
        sl_buffer_printf(text, ", isolated");
    if (stage->in_memory)
        sl_buffer_printf(text, ", in memory");
}

static void edges_text(const sl_stage *stage, sl_buffer *text)
{
    for (size_t i = 0; i < stage->from_count; i++)
        sl_buffer_printf(text, "%s%s", text->size ? ", " : "", stage->from[i]->name);
    for (size_t i = 0; i < stage->after_count; i++)
        sl_buffer_printf(text, "%safter %s", text->size ? ", " : "", stage->after[i]->name);
    if (text->size == 0)
        sl_buffer_printf(text, "-");
}

/* Column c of a stage: name, class, inputs, then one column an iteration. */
static const char *column(const sl_plan *plan, const sl_stage *stage, int c, sl_buffer *text)
{
    text->size = 0;
    if (c == 0)
        sl_buffer_printf(text, "%s", stage->name);
    else if (c == 1)
        class_text(stage, text);
    else if (c == 2)
        edges_text(stage, text);
    else
        models(plan, stage, c - 3, text);
    return text_of(text);
}

static const char *heading(const sl_phase *phase, int c, sl_buffer *text)
{
    static const char *const names[] = {"stage", "class", "from"};
    text->size = 0;
    if (c < 3)
        sl_buffer_printf(text, "%s", names[c]);
    else if (phase->repeat == 1)
        sl_buffer_printf(text, "models");
    else
        sl_buffer_printf(text, "iteration %d", c - 2);
    return text_of(text);
}

static void print_phase(const sl_plan *plan, const sl_phase *phase, sl_buffer *text, FILE *out)
{
    int shown = phase->repeat > MOST_SHOWN ? MOST_SHOWN : (int)phase->repeat, widths[3 + MOST_SHOWN] = {0};
    for (int c = 0; c < 3 + shown; c++) {
        widths[c] = width(heading(phase, c, text));
        for (size_t i = 0; i < phase->stage_count; i++) {
            int w = width(column(plan, &phase->stages[i], c, text));
            widths[c] = w > widths[c] ? w : widths[c];
        }
    }
    fprintf(out, "\nphase %s", phase->name);
    if (phase->repeat > 1)
        fprintf(out, ", %lld times", (long long)phase->repeat);
    fputs("\n", out);
    for (size_t row = 0; row <= phase->stage_count; row++) {
        fputs("  ", out);
        for (int c = 0; c < 3 + shown; c++) {
            const char *words = row == 0 ? heading(phase, c, text) : column(plan, &phase->stages[row - 1], c, text);
            if (c + 1 < 3 + shown)
                cell(out, words, widths[c]);
            else
                fprintf(out, "%s%s\n", words, row == 0 && phase->repeat > shown ? "  …" : "");
        }
    }
}

/* "metrics to tensorboard, path events": its class and what the file says of it in words. */
static void print_sink(const sl_object *sink, FILE *out)
{
    fprintf(out, "metrics to %s", sink->type->type->id);
    for (size_t i = 0; i < sink->value_count; i++)
        if (sink->values[i].text)
            fprintf(out, ", %s %s", sink->values[i].param->name, sink->values[i].text);
    fputs("\n", out);
}

void sl_plan_print(const sl_plan *plan, FILE *out)
{
    sl_buffer text = {0};
    fprintf(out, "%s (%s), seed %llu\n", plan->name, plan->file, (unsigned long long)plan->seed);
    for (size_t i = 0; i < plan->slot_count; i++) {
        const sl_slot *s = &plan->slots[i];
        fprintf(out, "model %s: %s%s, %s, versions 0", s->name, s->path, s->random ? " (random weights)" : "",
                s->dtype);
        if (s->last > 0)
            fprintf(out, " to %lld", (long long)s->last);
        fputs("\n", out);
    }
    for (size_t i = 0; i < plan->sink_count; i++)
        print_sink(&plan->sinks[i], out);
    for (size_t i = 0; i < plan->phase_count; i++)
        print_phase(plan, &plan->phases[i], &text, out);
    sl_buffer_free(&text);
}

static void graph_edges(const sl_stage *stage, FILE *out)
{
    for (size_t i = 0; i < stage->from_count; i++)
        fprintf(out, "    \"%s\" -> \"%s\"%s;\n", stage->from[i]->name, stage->name,
                stage->from[i]->in_memory ? " [style=dotted, label=\"in memory\"]" : "");
    for (size_t i = 0; i < stage->after_count; i++)
        fprintf(out, "    \"%s\" -> \"%s\" [style=dashed];\n", stage->after[i]->name, stage->name);
}

void sl_plan_graph(const sl_plan *plan, FILE *out)
{
    sl_buffer text = {0};
    fprintf(out, "digraph \"%s\" {\n  rankdir=LR;\n  compound=true;\n  node [shape=box, fontname=\"sans-serif\"];\n",
            plan->name);
    for (size_t i = 0; i < plan->phase_count; i++) {
        const sl_phase *phase = &plan->phases[i];
        fprintf(out, "  subgraph \"cluster_%s\" {\n    label=\"%s", phase->name, phase->name);
        if (phase->repeat > 1)
            fprintf(out, ", %lld times", (long long)phase->repeat);
        fputs("\";\n", out);
        for (size_t j = 0; j < phase->stage_count; j++) {
            const sl_stage *stage = &phase->stages[j];
            fprintf(out, "    \"%s\" [label=\"%s", stage->name, stage->name);
            fprintf(out, "\\n%s", column(plan, stage, 1, &text));
            const char *used = column(plan, stage, 3, &text);
            fprintf(out, "%s%s\"];\n", *used ? "\\n" : "", used);
        }
        for (size_t j = 0; j < phase->stage_count; j++)
            graph_edges(&phase->stages[j], out);
        fputs("  }\n", out);
        /* Phases run one after the other. */
        if (i > 0 && plan->phases[i - 1].stage_count > 0)
            fprintf(out, "  \"%s\" -> \"%s\" [style=dotted, ltail=\"cluster_%s\", lhead=\"cluster_%s\"];\n",
                    plan->phases[i - 1].stages[plan->phases[i - 1].stage_count - 1].name, phase->stages[0].name,
                    plan->phases[i - 1].name, phase->name);
    }
    fputs("}\n", out);
    sl_buffer_free(&text);
}
