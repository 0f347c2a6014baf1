/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/describe/describe.h"
#include "core/base/json.h"
#include "core/registry/describe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* null where there is none. */
static void string(const char *text, FILE *out)
{
    sl_buffer json = {0};
    if (!text)
        fputs("null", out);
    else if (sl_json_string(&json, text, strlen(text)) == SLUICE_OK)
        fwrite(json.data, 1, json.size, out);
    sl_buffer_free(&json);
}

static void number(double value, FILE *out)
{
    sl_buffer json = {0};
    if (sl_json_double(&json, value) == SLUICE_OK)
        fwrite(json.data, 1, json.size, out);
    sl_buffer_free(&json);
}

static void member(const char *key, const char *text, FILE *out)
{
    fprintf(out, "\"%s\": ", key);
    string(text, out);
    fputs(", ", out);
}

static void field_names(const char *key, uint32_t set, FILE *out)
{
    fprintf(out, "\"%s\": [", key);
    for (uint32_t bit = 1; bit <= SLUICE_FIELD_META; bit <<= 1)
        if (set & bit)
            fprintf(out, "%s\"%s\"", set & (bit - 1) ? ", " : "", sl_field_name(bit));
    fputs("], ", out);
}

static void default_value(const sluice_param *p, FILE *out)
{
    fputs("\"default\": ", out);
    if (p->required)
        fputs("null", out);
    else if (p->type == SLUICE_TYPE_BOOL)
        fputs(p->value != 0 ? "true" : "false", out);
    else if (p->type == SLUICE_TYPE_INT && isfinite(p->value))
        fprintf(out, "%.0f", p->value);
    else if (p->type == SLUICE_TYPE_DOUBLE || p->type == SLUICE_TYPE_INT)
        number(p->value, out);
    else
        string(p->type == SLUICE_TYPE_CHOICE ? p->choices[(size_t)p->value] : p->text, out);
    fputs(", ", out);
}

/* Only the bounds there are: "min" and "max" are allowed themselves, "above" and "below" are not. */
static void bounds(const sluice_param *p, FILE *out)
{
    const struct {
        const char *name;
        double value;
    } all[] = {{"min", p->min}, {"above", p->above}, {"max", p->max}, {"below", p->below}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (isfinite(all[i].value)) {
            fprintf(out, "\"%s\": ", all[i].name);
            number(all[i].value, out);
            fputs(", ", out);
        }
}

static void parameter(const sluice_param *p, FILE *out)
{
    fputs("{", out);
    member("name", p->name, out);
    member("type", ds_type(p), out);
    fprintf(out, "\"required\": %s, ", p->required ? "true" : "false");
    default_value(p, out);
    if (p->type == SLUICE_TYPE_CHOICE) {
        fputs("\"choices\": [", out);
        for (size_t i = 0; p->choices[i]; i++) {
            fputs(i ? ", " : "", out);
            string(p->choices[i], out);
        }
        fputs("], ", out);
    }
    if (p->type == SLUICE_TYPE_INT || p->type == SLUICE_TYPE_DOUBLE || p->type == SLUICE_TYPE_DOUBLES)
        bounds(p, out);
    member("unit", p->unit, out);
    fprintf(out, "\"speed_only\": %s, \"doc\": ", p->speed_only ? "true" : "false");
    string(p->doc, out);
    fputs("}", out);
}

void ds_json(const sl_registered *r, FILE *out)
{
    const sluice_class *c = r->type;
    fputs("{", out);
    member("id", c->id, out);
    member("kind", sl_kind_name(c->kind), out);
    member("summary", c->summary, out);
    member("doc", c->doc, out);
    member("plugin", r->plugin->id, out);
    member("version", r->plugin->version, out);
    member("license", r->plugin->license, out);
    member("file", r->file, out);
    field_names("reads", c->reads, out);
    field_names("adds", c->adds, out);
    fprintf(out, "\"stateless\": %s, \"whole_stream\": %s, \"parameters\": [",
            c->traits & SLUICE_STATELESS ? "true" : "false", c->traits & SLUICE_WHOLE_STREAM ? "true" : "false");
    for (size_t i = 0; i < sl_class_params(c); i++) {
        fputs(i ? ", " : "", out);
        parameter(sl_class_param(c, i), out);
    }
    fputs("], \"metrics\": [", out);
    for (const sluice_metric_info *m = c->metrics; m && m->name; m++) {
        fputs(m == c->metrics ? "{" : ", {", out);
        member("name", m->name, out);
        member("unit", m->unit, out);
        fputs("\"doc\": ", out);
        string(m->doc, out);
        fputs("}", out);
    }
    fputs("]}\n", out);
}
