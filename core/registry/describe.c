/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/registry/describe.h"

#include <math.h>
#include <string.h>

enum { LINE = 100 };

const char *sl_field_name(uint32_t fields)
{
    static const char *const names[] = {"prompt", "candidates", "scores",  "rankings", "pairs",
                                        "trust",  "logps",      "rewards", "meta"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (fields & (1u << i))
            return names[i];
    return "none";
}

void sl_param_range(const sluice_param *p, char *text, size_t size)
{
    const struct {
        double bound;
        const char *word;
    } bounds[] = {{p->min, "at least"}, {p->above, "above"}, {p->max, "at most"}, {p->below, "below"}};
    text[0] = '\0';
    for (size_t i = 0; i < 4; i++) {
        const size_t used = strlen(text);
        if (isfinite(bounds[i].bound))
            snprintf(text + used, size - used, "%s%s %.15g", used ? " and " : "", bounds[i].word, bounds[i].bound);
    }
}

static const char *type_name(const sluice_param *p)
{
    static const char *const names[] = {
        "",       "true or false",   "integer",       "number",         "text",
        "choice", "stage",           "model",         "slot",           "file",
        "class",  "list of numbers", "list of texts", "list of models", "list of stages"};
    return p->type == SLUICE_TYPE_CLASS ? sl_kind_name(p->kind) : names[p->type];
}

/* "default 0.1", "required", "not set". */
static void default_text(const sluice_param *p, char *text, size_t size)
{
    if (p->required) {
        snprintf(text, size, "required");
        return;
    }
    switch (p->type) {
    case SLUICE_TYPE_BOOL:
        snprintf(text, size, "default %s", p->value != 0 ? "true" : "false");
        break;
    case SLUICE_TYPE_INT:
    case SLUICE_TYPE_DOUBLE:
        snprintf(text, size, isfinite(p->value) ? "default %.15g" : "not set", p->value);
        break;
    case SLUICE_TYPE_CHOICE:
        snprintf(text, size, "default %s", p->choices[(size_t)p->value]);
        break;
    default:
        snprintf(text, size, p->text ? "default \"%s\"" : "not set", p->text);
    }
}

/* Choices, range, unit: what may be written. */
static void allowed_text(const sluice_param *p, char *text, size_t size)
{
    text[0] = '\0';
    if (p->type == SLUICE_TYPE_CHOICE) {
        for (size_t i = 0; p->choices[i]; i++) {
            const size_t used = strlen(text);
            snprintf(text + used, size - used, "%s%s", i ? " | " : "", p->choices[i]);
        }
        return;
    }
    if (p->type == SLUICE_TYPE_INT || p->type == SLUICE_TYPE_DOUBLE || p->type == SLUICE_TYPE_DOUBLES)
        sl_param_range(p, text, size);
    const size_t used = strlen(text);
    if (p->unit)
        snprintf(text + used, size - used, "%s%s", used ? ", in " : "in ", p->unit);
}

/* Words broken into lines of LINE columns, each after `indent`; an empty line stays one. */
static void wrap(const char *text, const char *indent, FILE *out)
{
    size_t column = 0;
    while (*text) {
        if (*text == '\n' || *text == ' ') {
            if (text[0] == '\n' && text[1] == '\n') {
                fputs(column ? "\n\n" : "\n", out);
                column = 0;
                text++;
            }
            text++;
            continue;
        }
        const size_t length = strcspn(text, " \n");
        if (column > 0 && column + 1 + length > LINE) {
            fputs("\n", out);
            column = 0;
        }
        column += (size_t)fprintf(out, "%s%.*s", column ? " " : indent, (int)length, text);
        text += length;
    }
    if (column > 0)
        fputs("\n", out);
}

static void fields(const char *title, uint32_t set, FILE *out)
{
    fputs(title, out);
    for (uint32_t bit = 1; bit <= SLUICE_FIELD_META; bit <<= 1)
        if (set & bit) {
            set &= ~bit;
            fprintf(out, "%s%s", sl_field_name(bit), set ? ", " : "");
        }
    fputs("\n", out);
}

static const char *traits(uint32_t set)
{
    if (set & SLUICE_WHOLE_STREAM)
        return "sees the whole stream before it changes the first record";
    return set & SLUICE_STATELESS ? "looks at one record at a time" : "";
}

static void describe_text(const sl_registered *r, FILE *out)
{
    const sluice_class *c = r->type;
    char first[512], second[512];
    fprintf(out, "%s (%s): %s\n", c->id, sl_kind_name(c->kind), c->summary);
    fprintf(out, "plugin %s %s, %s, %s\n", r->plugin->id, r->plugin->version, r->plugin->license, r->file);
    if (c->doc) {
        fputs("\n", out);
        wrap(c->doc, "", out);
    }
    if (c->reads || c->adds || *traits(c->traits))
        fputs("\n", out);
    if (c->reads)
        fields("reads ", c->reads, out);
    if (c->adds)
        fields("adds  ", c->adds, out);
    if (*traits(c->traits))
        fprintf(out, "%s\n", traits(c->traits));
    fputs(sl_class_params(c) ? "\nparameters\n" : "\nno parameters\n", out);
    for (size_t i = 0; i < sl_class_params(c); i++) {
        const sluice_param *p = sl_class_param(c, i);
        default_text(p, first, sizeof first);
        allowed_text(p, second, sizeof second);
        fprintf(out, "  %s: %s, %s%s%s\n", p->name, type_name(p), first, *second ? "; " : "", second);
        if (p->doc)
            wrap(p->doc, "      ", out);
    }
    for (const sluice_metric_info *m = c->metrics; m && m->name; m++) {
        fprintf(out, "%s  %s%s%s%s\n", m == c->metrics ? "\nmetrics\n" : "", m->name, m->unit ? " (" : "",
                m->unit ? m->unit : "", m->unit ? ")" : "");
        if (m->doc)
            wrap(m->doc, "      ", out);
    }
}

/* A cell of a Markdown table: a bar would end it. */
static void cell(const char *text, FILE *out)
{
    for (; *text; text++)
        fprintf(out, *text == '|' ? "\\%c" : "%c", *text);
    fputs(" | ", out);
}

static void describe_markdown(const sl_registered *r, FILE *out)
{
    const sluice_class *c = r->type;
    char text[512];
    fprintf(out, "## %s\n\n%s (%s).\n", c->id, c->summary, sl_kind_name(c->kind));
    if (c->doc) {
        fputs("\n", out);
        wrap(c->doc, "", out);
    }
    if (c->reads)
        fields("\nReads ", c->reads, out);
    if (c->adds)
        fields("\nAdds ", c->adds, out);
    if (sl_class_params(c))
        fputs("\n| parameter | type | default | allowed | |\n| --- | --- | --- | --- | --- |\n", out);
    for (size_t i = 0; i < sl_class_params(c); i++) {
        const sluice_param *p = sl_class_param(c, i);
        fprintf(out, "| `%s` | %s | ", p->name, type_name(p));
        default_text(p, text, sizeof text);
        cell(strncmp(text, "default ", 8) == 0 ? text + 8 : text, out);
        allowed_text(p, text, sizeof text);
        cell(text, out);
        cell(p->doc ? p->doc : "", out);
        fputs("\n", out);
    }
    if (c->metrics && c->metrics->name)
        fputs("\n| metric | unit | |\n| --- | --- | --- |\n", out);
    for (const sluice_metric_info *m = c->metrics; m && m->name; m++) {
        fprintf(out, "| `%s` | %s | ", m->name, m->unit ? m->unit : "");
        cell(m->doc ? m->doc : "", out);
        fputs("\n", out);
    }
}

void sl_describe(const sl_registered *r, bool markdown, FILE *out)
{
    (markdown ? describe_markdown : describe_text)(r, out);
}
