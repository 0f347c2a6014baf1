/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/describe/describe.h"

#include <string.h>

void ds_text(const sl_registered *r, FILE *out)
{
    const sluice_class *c = r->type;
    char first[512], second[512];
    fprintf(out, "%s (%s): %s\n", c->id, sl_kind_name(c->kind), c->summary);
    fprintf(out, "plugin %s %s, %s, %s\n", r->plugin->id, r->plugin->version, r->plugin->license, r->file);
    if (c->doc) {
        fputs("\n", out);
        ds_wrap(c->doc, "", out);
    }
    if (c->reads || c->adds || *ds_traits(c->traits))
        fputs("\n", out);
    if (c->reads)
        ds_fields("reads ", c->reads, out);
    if (c->adds)
        ds_fields("adds  ", c->adds, out);
    if (*ds_traits(c->traits))
        fprintf(out, "%s\n", ds_traits(c->traits));
    fputs(sl_class_params(c) ? "\nparameters\n" : "\nno parameters\n", out);
    for (size_t i = 0; i < sl_class_params(c); i++) {
        const sluice_param *p = sl_class_param(c, i);
        ds_default(p, first, sizeof first);
        ds_allowed(p, second, sizeof second);
        fprintf(out, "  %s: %s, %s%s%s\n", p->name, ds_type(p), first, *second ? "; " : "", second);
        if (p->doc)
            ds_wrap(p->doc, "      ", out);
    }
    for (const sluice_metric_info *m = c->metrics; m && m->name; m++) {
        fprintf(out, "%s  %s%s%s%s\n", m == c->metrics ? "\nmetrics\n" : "", m->name, m->unit ? " (" : "",
                m->unit ? m->unit : "", m->unit ? ")" : "");
        if (m->doc)
            ds_wrap(m->doc, "      ", out);
    }
}
