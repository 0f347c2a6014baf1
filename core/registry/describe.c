/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/registry/describe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

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
