/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Several runs on one page: variants of an experiment, each over its seeds. */
#include "tools/report/curves.h"
#include "tools/report/page.h"
#include "tools/report/variants.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void write_runs(FILE *out, const rp_variant *variants, size_t count)
{
    static const char *const states[] = {"finished", "going on", "not finished"};
    char text[RP_NUMBER];
    fputs("<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th scope=\"col\">run</th><th scope=\"col\" "
          "class=\"left\">variant</th><th scope=\"col\">seed</th><th scope=\"col\" class=\"left\">state</th>"
          "<th scope=\"col\">took</th><th scope=\"col\">sluice</th></tr></thead><tbody>\n",
          out);
    for (size_t v = 0; v < count; v++)
        for (size_t i = 0; i < variants[v].count; i++) {
            const rp_run *run = variants[v].runs[i];
            fputs("<tr><th scope=\"row\">", out);
            rp_text(out, run->folder);
            fputs("</th><td class=\"left\">", out);
            rp_text(out, variants[v].label);
            fputs("</td><td>", out);
            if (run->plan != NULL)
                fprintf(out, "%llu", (unsigned long long)run->plan->seed);
            fprintf(out, "</td><td class=\"left\">%s</td><td>%s</td><td>", states[run->state],
                    run->state == RP_DONE ? rp_duration_text(rp_seconds(run->started, run->ended), text) : "");
            rp_text(out, run->version != NULL ? run->version : "");
            fputs("</td></tr>\n", out);
        }
    fputs("</tbody></table></div>\n", out);
}

static void write_notes(FILE *out, rp_run *const *runs, size_t count)
{
    bool any = false, differ = false;
    for (size_t i = 0; i < count; i++) {
        any = any || runs[i]->notes.count > 0 || runs[i]->state != RP_DONE;
        const char *a = runs[0]->environment, *b = runs[i]->environment;
        differ = differ || (a != NULL && b != NULL && strcmp(a, b) != 0);
    }
    if (!any && !differ)
        return;
    fputs("<div class=\"note\" role=\"note\"><strong>To keep in mind.</strong><ul>\n", out);
    if (differ)
        fputs("<li>The runs were not all made in one environment (version, machine or plugins differ).</li>\n", out);
    for (size_t i = 0; i < count; i++) {
        if (runs[i]->state != RP_DONE) {
            fputs("<li>", out);
            rp_printf(out, "%s %s.", runs[i]->folder, runs[i]->state == RP_RUNNING ? "is going on" : "is not finished");
            fputs("</li>\n", out);
        }
        for (size_t k = 0; k < runs[i]->notes.count; k++) {
            fputs("<li>", out);
            rp_printf(out, "%s: %s", runs[i]->folder, runs[i]->notes.items[k]);
            fputs("</li>\n", out);
        }
    }
    fputs("</ul></div>\n", out);
}

/* The first curve of this metric and slot. */
static const rp_curve *curve_of(const rp_curves *curves, const char *metric, const char *series)
{
    for (size_t i = 0; i < curves->count; i++)
        if (!curves->items[i].training && strcmp(curves->items[i].metric, metric) == 0 &&
            strcmp(curves->items[i].series, series) == 0)
            return &curves->items[i];
    return NULL;
}

static void write_cell(FILE *out, const rp_curve *curve)
{
    char text[RP_NUMBER];
    fputs("<td>", out);
    if (curve != NULL && curve->count > 0) {
        const rp_point *p = &curve->points[curve->count - 1];
        const char *(*say)(double, char *) = rp_is_share(curve->metric) ? rp_percent_text : rp_number_text;
        fputs(say(p->y, text), out);
        if (!isnan(p->low) && !isnan(p->high)) {
            fprintf(out, " <span class=\"soft\">[%s, ", say(p->low, text));
            fprintf(out, "%s]</span>", say(p->high, text));
        }
    }
    fputs("</td>", out);
}

/* Metrics and slots in the order in which anybody has them; at most `most`. */
static size_t collect(const rp_curves *sets, size_t count, bool series, const char **items, size_t most)
{
    size_t n = 0;
    for (size_t s = 0; s < count; s++)
        for (size_t i = 0; i < sets[s].count; i++) {
            const rp_curve *c = &sets[s].items[i];
            const char *item = series ? c->series : c->metric;
            bool known = c->training || c->count == 0;
            for (size_t k = 0; k < n; k++)
                known = known || strcmp(items[k], item) == 0;
            if (!known && n < most)
                items[n++] = item;
        }
    return n;
}

static bool has_any(const rp_curves *curves, const char *series)
{
    for (size_t i = 0; i < curves->count; i++)
        if (!curves->items[i].training && curves->items[i].count > 0 && strcmp(curves->items[i].series, series) == 0)
            return true;
    return false;
}

static void write_last(FILE *out, const rp_variant *variants, const rp_curves *sets, size_t count)
{
    const char *metrics[16], *series[16];
    const size_t columns = collect(sets, count, false, metrics, 16), slots = collect(sets, count, true, series, 16);
    if (columns == 0) {
        fputs("<p class=\"soft\">No run has reported numbers of a version.</p>\n", out);
        return;
    }
    fputs("<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th scope=\"col\">variant</th><th scope=\"col\" "
          "class=\"left\">model</th><th scope=\"col\">seeds</th>",
          out);
    for (size_t c = 0; c < columns; c++) {
        fputs("<th scope=\"col\">", out);
        rp_text(out, metrics[c]);
        fputs("</th>", out);
    }
    fputs("</tr></thead><tbody>\n", out);
    for (size_t v = 0; v < count; v++)
        for (size_t s = 0; s < slots; s++) {
            if (!has_any(&sets[v], series[s]))
                continue;
            fputs("<tr><th scope=\"row\">", out);
            rp_text(out, variants[v].label);
            fputs("</th><td class=\"left\">", out);
            rp_text(out, series[s]);
            fprintf(out, "</td><td>%zu</td>", variants[v].count);
            for (size_t c = 0; c < columns; c++)
                write_cell(out, curve_of(&sets[v], metrics[c], series[s]));
            fputs("</tr>\n", out);
        }
    fputs("</tbody></table></div>\n<p class=\"soft\">The last version of each. Over two seeds and more: the mean with "
          "its 95 % interval (Student's t); of one run: its own interval, where it reported one.</p>\n",
          out);
}

static int read_sets(const rp_variant *variants, size_t count, sl_arena *arena, rp_curves *sets)
{
    int rc = SLUICE_OK;
    for (size_t v = 0; rc >= 0 && v < count; v++) {
        rp_curves *each = sl_arena_alloc(arena, variants[v].count * sizeof *each);
        rc = each != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
        for (size_t i = 0; rc >= 0 && i < variants[v].count; i++)
            rc = rp_curves_read(variants[v].runs[i], arena, &each[i]);
        if (rc >= 0)
            rc = rp_curves_mean(each, variants[v].count, arena, &sets[v]);
    }
    return rc;
}

int rp_write_comparison(FILE *out, rp_run *const *runs, size_t count, const char *title)
{
    sl_arena *arena = sl_arena_new();
    size_t variants = 0;
    rp_variant *found = arena != NULL ? rp_variants_of(runs, count, arena, &variants) : NULL;
    rp_curves *sets = found != NULL ? sl_arena_alloc(arena, (variants + 1) * sizeof *sets) : NULL;
    const char **labels = found != NULL ? sl_arena_alloc(arena, (variants + 1) * sizeof *labels) : NULL;
    int rc = sets != NULL && labels != NULL ? read_sets(found, variants, arena, sets) : SLUICE_NO_MEMORY;
    for (size_t v = 0; rc >= 0 && v < variants; v++)
        labels[v] = found[v].label;
    if (rc >= 0) {
        rp_page_begin(out, title != NULL ? title : "Runs compared");
        fputs("<header><h1>", out);
        rp_text(out, title != NULL ? title : "Runs compared");
        fprintf(out, "</h1>\n<ul class=\"facts\"><li>%zu runs</li><li>%zu variant%s</li></ul></header>\n", count,
                variants, variants == 1 ? "" : "s");
        write_notes(out, runs, count);
        rp_section_begin(out, "results", "Results");
        write_last(out, found, sets, variants);
        rp_section_end(out);
        rp_section_begin(out, "versions", "From version to version");
        if (!rp_charts_write(out, sets, variants > 1 ? labels : NULL, variants, false))
            fputs("<p class=\"soft\">Nothing to draw.</p>\n", out);
        rp_section_end(out);
        rp_section_begin(out, "training", "Training");
        if (!rp_charts_write(out, sets, variants > 1 ? labels : NULL, variants, true))
            fputs("<p class=\"soft\">Nothing to draw.</p>\n", out);
        rp_section_end(out);
        rp_section_begin(out, "runs", "Runs");
        write_runs(out, found, variants);
        rp_section_end(out);
        rp_page_end(out);
    }
    sl_arena_free(arena);
    return rc;
}
