/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/describe/describe.h"
#include "core/registry/describe.h"

#include <math.h>
#include <string.h>

enum { LINE = 100 };

const char *ds_type(const sluice_param *p)
{
    static const char *const names[] = {"",
                                        "true or false",
                                        "integer",
                                        "number",
                                        "text",
                                        "choice",
                                        "stage",
                                        "model",
                                        "slot",
                                        "file",
                                        "class",
                                        "list of numbers",
                                        "list of texts",
                                        "list of models",
                                        "list of stages",
                                        "list of metrics"};
    return p->type == SLUICE_TYPE_CLASS ? sl_kind_name(p->kind) : names[p->type];
}

void ds_default(const sluice_param *p, char *text, size_t size)
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

void ds_allowed(const sluice_param *p, char *text, size_t size)
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

void ds_wrap(const char *text, const char *indent, FILE *out)
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

void ds_fields(const char *title, uint32_t set, FILE *out)
{
    fputs(title, out);
    for (uint32_t bit = 1; bit <= SLUICE_FIELD_META; bit <<= 1)
        if (set & bit) {
            set &= ~bit;
            fprintf(out, "%s%s", sl_field_name(bit), set ? ", " : "");
        }
    fputs("\n", out);
}

const char *ds_traits(uint32_t set)
{
    if (set & SLUICE_WHOLE_STREAM)
        return "sees the whole stream before it changes the first record";
    return set & SLUICE_STATELESS ? "looks at one record at a time" : "";
}
