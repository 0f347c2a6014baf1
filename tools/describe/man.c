/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A manual page in the man macros that groff and mandoc share (man(7)). */
#include "tools/describe/describe.h"

#include <ctype.h>
#include <string.h>

/* Text in which nothing is a request or an escape; blank lines part paragraphs. `upper`: in capitals. */
static void words(const char *text, bool upper, FILE *out)
{
    bool start = true; /* of a line */
    for (; *text; text++) {
        if (text[0] == '\n' && text[1] == '\n') {
            fputs("\n.PP\n", out);
            start = true;
            text++;
            continue;
        }
        if (start && (*text == '.' || *text == '\''))
            fputs("\\&", out);
        start = *text == '\n';
        if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '-')
            fputs("\\-", out);
        else
            fputc(upper ? toupper((unsigned char)*text) : *text, out);
    }
}

/* The texts one after another, as one line. */
static void line(FILE *out, const char *const *texts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        words(texts[i] ? texts[i] : "", false, out);
    fputs("\n", out);
}
#define LINE(out, ...) \
    line(out, (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

/* An id as it stands in the name of a page: vendor/name is vendor-name. */
static void page_name(const char *id, bool upper, FILE *out)
{
    char name[80];
    snprintf(name, sizeof name, "sluice-%s", id);
    for (char *slash = strchr(name, '/'); slash; slash = strchr(slash, '/'))
        *slash = '-';
    words(name, upper, out);
}

static void fields(const char *title, uint32_t set, FILE *out)
{
    fputs(".PP\n", out);
    ds_fields(title, set, out);
}

static void parameters(const sluice_class *c, FILE *out)
{
    char first[512], second[512];
    if (sl_class_params(c) > 0)
        fputs(".SH PARAMETERS\n", out);
    for (size_t i = 0; i < sl_class_params(c); i++) {
        const sluice_param *p = sl_class_param(c, i);
        ds_default(p, first, sizeof first);
        ds_allowed(p, second, sizeof second);
        fputs(".TP\n.B ", out);
        LINE(out, p->name);
        LINE(out, p->doc, p->doc ? " (" : "(", ds_type(p), ", ", first, *second ? "; " : "", second, ")");
    }
}

static void metrics(const sluice_class *c, FILE *out)
{
    if (c->metrics && c->metrics->name)
        fputs(".SH METRICS\n", out);
    for (const sluice_metric_info *m = c->metrics; m && m->name; m++) {
        fputs(".TP\n.B ", out);
        LINE(out, m->name, m->unit ? " (" : "", m->unit, m->unit ? ")" : "");
        LINE(out, m->doc);
    }
}

void ds_man(const sl_registered *r, FILE *out)
{
    const sluice_class *c = r->type;
    fputs(".TH ", out);
    page_name(c->id, true, out);
    fprintf(out, " 7 \"\" \"sluice " SLUICE_VERSION "\" \"sluice classes\"\n.SH NAME\n");
    page_name(c->id, false, out);
    fputs(" \\- ", out);
    LINE(out, c->summary);
    fputs(".SH DESCRIPTION\n", out);
    LINE(out, "Kind ", sl_kind_name(c->kind), ", of the plugin ", r->plugin->id, " ", r->plugin->version, ".");
    if (c->doc) {
        fputs(".PP\n", out);
        LINE(out, c->doc);
    }
    if (c->reads)
        fields("Reads ", c->reads, out);
    if (c->adds)
        fields("Adds ", c->adds, out);
    if (*ds_traits(c->traits))
        fprintf(out, ".PP\nIt %s.\n", ds_traits(c->traits));
    parameters(c, out);
    metrics(c, out);
    fputs(".SH SEE ALSO\n.BR sluice (1),\n.BR sluice\\-describe (1)\n", out);
}
