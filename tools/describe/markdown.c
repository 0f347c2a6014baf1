/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/describe/describe.h"

#include <string.h>

/* A cell of a Markdown table: a bar would end it. */
static void cell(const char *text, FILE *out)
{
    for (; *text; text++)
        fprintf(out, *text == '|' ? "\\%c" : "%c", *text);
    fputs(" | ", out);
}

void ds_markdown(const sl_registered *r, FILE *out)
{
    const sluice_class *c = r->type;
    char text[512];
    fprintf(out, "## %s\n\n%s (%s).\n", c->id, c->summary, sl_kind_name(c->kind));
    if (c->doc) {
        fputs("\n", out);
        ds_wrap(c->doc, "", out);
    }
    if (c->reads)
        ds_fields("\nReads ", c->reads, out);
    if (c->adds)
        ds_fields("\nAdds ", c->adds, out);
    if (sl_class_params(c))
        fputs("\n| parameter | type | default | allowed | |\n| --- | --- | --- | --- | --- |\n", out);
    for (size_t i = 0; i < sl_class_params(c); i++) {
        const sluice_param *p = sl_class_param(c, i);
        fprintf(out, "| `%s` | %s | ", p->name, ds_type(p));
        ds_default(p, text, sizeof text);
        cell(strncmp(text, "default ", 8) == 0 ? text + 8 : text, out);
        ds_allowed(p, text, sizeof text);
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
