/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The table that ends a run, of the numbers in its folder. */
#include "core/run/table.h"
#include "tools/report/page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void begin_table(void *out, size_t columns, const char *const *titles, const size_t *widths)
{
    (void)widths;
    fputs("<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>", out);
    for (size_t c = 0; c < columns; c++) {
        fputs("<th scope=\"col\">", out);
        rp_text(out, titles[c]);
        fputs("</th>", out);
    }
    fputs("</tr></thead><tbody>\n", out);
}

static void write_row(void *out, size_t columns, const char *const *cells)
{
    for (size_t c = 0; c < columns; c++) {
        fputs(c == 0 ? "<tr><th scope=\"row\">" : "<td>", out);
        rp_text(out, cells[c]);
        fputs(c == 0 ? "</th>" : "</td>", out);
    }
    fputs("</tr>\n", out);
}

static void end_table(void *out)
{
    fputs("</tbody></table></div>\n", out);
}

static void write_sentence(void *out, const char *text)
{
    fputs("<p class=\"lead\">", out);
    rp_text(out, text);
    fputs("</p>\n", out);
}

/* What choosing among N answers is worth, as a stage reports it at step = N. */
static void write_best_of(FILE *out, const rp_run *run)
{
    static const char *const titles[] = {"chosen by", "among", "right (%)", "best of them (%)", "KL at most"};
    size_t rows = 0;
    for (size_t i = 0; i < run->line_count; i++) {
        const rp_line *line = &run->lines[i];
        const double right = rp_number(line, "best_of", ""), oracle = rp_number(line, "oracle", "");
        char who[160], cells[4][32];
        if (line->step < 1 || isnan(right))
            continue;
        snprintf(who, sizeof who, line->iteration > 1 ? "%.100s, iteration %lld" : "%.100s", line->stage,
                 (long long)line->iteration);
        snprintf(cells[0], sizeof cells[0], "%lld", (long long)line->step);
        snprintf(cells[1], sizeof cells[1], "%.1f", 100 * right);
        cells[2][0] = '\0';
        if (!isnan(oracle))
            snprintf(cells[2], sizeof cells[2], "%.1f", 100 * oracle);
        snprintf(cells[3], sizeof cells[3], "%.3f", rp_number(line, "kl", ""));
        if (rows++ == 0)
            begin_table(out, sizeof titles / sizeof *titles, titles, NULL);
        write_row(out, 5, (const char *const[]){who, cells[0], cells[1], cells[2], cells[3]});
    }
    if (rows > 0)
        end_table(out);
}

void rp_write_results(FILE *out, const rp_run *run)
{
    static const sl_table_listener listener = {begin_table, write_row, end_table, write_sentence};
    sl_table_entry *entries = calloc(run->line_count + 1, sizeof *entries);
    size_t count = 0;
    for (size_t i = 0; entries != NULL && i < run->line_count; i++) {
        const rp_line *line = &run->lines[i];
        const sl_stage *stage = line->step < 0 ? rp_stage(run, line->phase, line->stage) : NULL;
        char slot[64];
        if (stage == NULL || line->iteration < 1)
            continue;
        const uint32_t kind = stage->object.type->type->kind;
        sl_table_entry entry = {.kind = kind,
                                .stage = line->stage,
                                .phase = line->phase,
                                .iteration = line->iteration - 1,
                                .repeat = stage->phase->repeat,
                                .numbers = line->numbers,
                                .count = line->count};
        entry.version = rp_version(line->model, slot);
        if (entry.version >= 0) {
            entry.slot = sl_arena_strdup(run->arena, slot);
            entry.publishes = kind == SLUICE_TRAINER || kind == SLUICE_AVERAGER;
        }
        entries[count++] = entry;
    }
    const long before = ftell(out);
    if (entries != NULL)
        sl_table_tell(entries, count, &listener, out);
    write_best_of(out, run);
    if (ftell(out) == before)
        fputs("<p class=\"soft\">No stage has reported a number that the table shows.</p>\n", out);
    free(entries);
}
