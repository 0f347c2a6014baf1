/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The page of one run, from top to bottom. */
#include "tools/report/curves.h"
#include "tools/report/page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void write_facts(FILE *out, const rp_run *run)
{
    char text[RP_NUMBER];
    const double seconds = rp_seconds(run->started, run->ended);
    fputs("<ul class=\"facts\">", out);
    if (run->plan != NULL)
        fprintf(out, "<li>seed %llu</li>", (unsigned long long)run->plan->seed);
    if (run->version != NULL) {
        fputs("<li>sluice ", out);
        rp_text(out, run->version);
        fputs("</li>", out);
    }
    if (run->started != NULL) {
        fputs("<li><time>", out);
        rp_printf(out, "%.10s %.5s UTC", run->started, run->started + 11);
        fputs("</time></li>", out);
    }
    if (run->state == RP_DONE && isfinite(seconds))
        fprintf(out, "<li>took %s</li>", rp_duration_text(seconds, text));
    fputs("<li>", out);
    rp_text(out, run->folder);
    fputs("</li></ul>\n", out);
}

static void write_state(FILE *out, const rp_run *run)
{
    if (run->state == RP_DONE)
        return;
    fputs("<div class=\"note\" role=\"note\"><strong>", out);
    fputs(run->state == RP_RUNNING ? "This run is going on." : "This run is not finished.", out);
    fputs("</strong> ", out);
    if (run->jobs > 0)
        fprintf(out, "%zu of %zu stages have ended, over all iterations; the page shows what is there. ",
                run->jobs_done, run->jobs);
    if (run->state == RP_STOPPED && run->last != NULL) {
        fputs("Its log ends with: ", out);
        rp_text_cut(out, run->last, 400);
    }
    fputs("</div>\n", out);
}

static void write_notes(FILE *out, const rp_run *run)
{
    if (run->notes.count == 0)
        return;
    fputs("<div class=\"note\" role=\"note\"><strong>Not all of this run could be read.</strong><ul>\n", out);
    for (size_t i = 0; i < run->notes.count; i++) {
        fputs("<li>", out);
        rp_text(out, run->notes.items[i]);
        fputs("</li>\n", out);
    }
    fputs("</ul></div>\n", out);
}

static void write_warnings(FILE *out, const rp_run *run)
{
    if (run->warnings.count == 0)
        return;
    rp_section_begin(out, "warnings", "Warnings");
    fputs("<ul>\n", out);
    for (size_t i = 0; i < run->warnings.count; i++) {
        fputs("<li>", out);
        rp_text(out, run->warnings.items[i]);
        fputs("</li>\n", out);
    }
    fputs("</ul>\n", out);
    rp_section_end(out);
}

/* Every number of a whole stage, as in metrics.jsonl. */
static void write_all_numbers(FILE *out, const rp_run *run)
{
    char text[RP_NUMBER];
    rp_details_begin(out, "All numbers of whole stages");
    fputs("<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th scope=\"col\">stage</th><th scope=\"col\" "
          "class=\"left\">phase</th><th scope=\"col\" class=\"left\">numbers</th></tr></thead><tbody>\n",
          out);
    for (size_t i = 0; i < run->line_count; i++) {
        const rp_line *line = &run->lines[i];
        if (line->step >= 0)
            continue;
        fputs("<tr><th scope=\"row\">", out);
        rp_text(out, line->stage);
        fputs("</th><td class=\"left\">", out);
        rp_printf(out, "%s %lld", line->phase, (long long)line->iteration);
        fputs("</td><td class=\"left\">", out);
        for (size_t k = 0; k < line->count; k++) {
            rp_printf(out, "%s%s ", k > 0 ? " · " : "", line->numbers[k].name);
            fputs(rp_number_text(line->numbers[k].value, text), out);
        }
        fputs("</td></tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
    rp_details_end(out);
}

static void write_text_file(FILE *out, const char *summary, const char *text)
{
    if (text == NULL)
        return;
    rp_details_begin(out, summary);
    fputs("<pre tabindex=\"0\">", out);
    rp_text(out, text);
    fputs("</pre>\n", out);
    rp_details_end(out);
}

/* A section that is left out when there is nothing to draw. */
static void write_curves(FILE *out, const rp_curves *curves, bool training, const char *id, const char *title)
{
    char *text = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    if (memory == NULL)
        return;
    const bool any = rp_charts_write(memory, curves, NULL, 1, training);
    if (fclose(memory) == 0 && any) {
        rp_section_begin(out, id, title);
        fputs(text, out);
        rp_section_end(out);
    }
    free(text);
}

static void write_body(FILE *out, rp_run *run)
{
    rp_curves curves;
    sl_arena *arena = sl_arena_new();
    rp_section_begin(out, "results", "Results");
    rp_write_results(out, run);
    rp_section_end(out);
    if (arena != NULL && rp_curves_read(run, arena, &curves) >= 0) {
        write_curves(out, &curves, false, "versions", "From version to version");
        write_curves(out, &curves, true, "training", "Training");
    }
    sl_arena_free(arena);
    rp_section_begin(out, "samples", "Samples");
    rp_write_samples(out, run);
    rp_section_end(out);
    rp_section_begin(out, "pipeline", "Pipeline");
    rp_write_graph(out, run);
    write_text_file(out, "The resolved pipeline file", run->pipeline);
    rp_section_end(out);
    rp_section_begin(out, "timing", "Time");
    rp_write_timing(out, run);
    rp_section_end(out);
    write_warnings(out, run);
    rp_section_begin(out, "more", "Environment and numbers");
    write_text_file(out, "Environment", run->environment);
    write_all_numbers(out, run);
    rp_section_end(out);
}

void rp_write_run(FILE *out, rp_run *run, const char *title)
{
    char *body = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&body, &size); /* first: what it cannot read is said above it */
    if (memory == NULL)
        return;
    write_body(memory, run);
    rp_page_begin(out, title != NULL ? title : run->name);
    fputs("<header><h1>", out);
    rp_text(out, title != NULL ? title : run->name);
    fputs("</h1>\n", out);
    write_facts(out, run);
    fputs("</header>\n", out);
    write_state(out, run);
    write_notes(out, run);
    if (fclose(memory) == 0)
        fputs(body, out);
    free(body);
    rp_page_end(out);
}
