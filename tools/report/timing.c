/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* How long each stage took, over all iterations of its phase. */
#include "tools/report/page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct total {
    rp_timing sum;
    size_t times;
} total;

static size_t add_up(const rp_run *run, total *totals)
{
    size_t count = 0;
    for (size_t i = 0; i < run->timing_count; i++) {
        const rp_timing *t = &run->timings[i];
        size_t k = 0;
        while (k < count && (strcmp(totals[k].sum.stage, t->stage) != 0 || strcmp(totals[k].sum.phase, t->phase) != 0))
            k++;
        if (k == count)
            totals[count++] = (total){.sum = {.phase = t->phase, .stage = t->stage}};
        rp_timing *sum = &totals[k].sum;
        sum->seconds += t->seconds;
        sum->busy += t->busy;
        sum->waiting += t->waiting;
        sum->writing += t->writing;
        sum->tokens_in += t->tokens_in;
        sum->tokens_out += t->tokens_out;
        sum->bytes += t->bytes;
        sum->memory = fmax(sum->memory, t->memory);
        sum->records_in += t->records_in;
        sum->records += t->records;
        sum->tokens += t->tokens;
        sum->bytes_compressed += t->bytes_compressed;
        totals[k].times++;
    }
    return count;
}

static const char *bytes_text(double bytes, char text[RP_NUMBER])
{
    if (bytes <= 0)
        text[0] = '\0';
    else if (bytes < 1e6)
        snprintf(text, RP_NUMBER, "%.0f kB", ceil(bytes / 1e3));
    else
        snprintf(text, RP_NUMBER, "%.1f MB", bytes / 1e6);
    return text;
}

/* A cell that is empty where there is nothing to count. */
static void write_count(FILE *out, double count)
{
    char text[RP_NUMBER];
    fprintf(out, "<td>%s</td>", count > 0 ? rp_number_text(count, text) : "");
}

static void write_bytes(FILE *out, double bytes)
{
    char text[RP_NUMBER];
    fprintf(out, "<td>%s</td>", bytes_text(bytes, text));
}

static void write_row(FILE *out, const total *t, double longest)
{
    const rp_timing *s = &t->sum;
    char text[RP_NUMBER];
    fputs("<tr><th scope=\"row\">", out);
    rp_text(out, s->stage);
    fputs("</th><td class=\"left\">", out);
    rp_text(out, s->phase);
    if (t->times > 1)
        fprintf(out, " ×%zu", t->times);
    fprintf(out, "</td><td>%s</td>", rp_duration_text(s->seconds, text));
    fprintf(out, "<td><span class=\"meter\" role=\"img\" aria-label=\"busy %s, ", rp_duration_text(s->busy, text));
    fprintf(out, "waiting %s\">", rp_duration_text(s->waiting, text));
    if (longest > 0)
        fprintf(out, "<i class=\"busy\" style=\"width:%.1f%%\"></i><i class=\"waiting\" style=\"width:%.1f%%\"></i>",
                100 * fmax(0, s->busy) / longest, 100 * fmax(0, s->waiting) / longest);
    fprintf(out, "</span></td><td>%s</td>", s->writing >= 0.05 ? rp_duration_text(s->writing, text) : "");
    write_count(out, s->records_in);
    write_count(out, s->records);
    write_count(out, s->tokens_in);
    write_count(out, s->tokens_out);
    write_count(out, s->tokens);
    write_count(out, s->tokens > 0 && s->busy > 0 ? round(s->tokens / s->busy) : 0);
    write_bytes(out, s->bytes);
    write_bytes(out, s->bytes_compressed);
    write_bytes(out, s->memory);
    fputs("</tr>\n", out);
}

void rp_write_timing(FILE *out, const rp_run *run)
{
    total *totals = calloc(run->timing_count + 1, sizeof *totals);
    const size_t count = totals != NULL ? add_up(run, totals) : 0;
    double longest = 0;
    for (size_t i = 0; i < count; i++)
        longest = fmax(longest, totals[i].sum.seconds);
    if (count == 0) {
        fputs("<p class=\"soft\">No stage has ended yet.</p>\n", out);
        free(totals);
        return;
    }
    static const char *const titles[] = {"writing", "in",       "out",         "tokens in", "tokens out",
                                         "tokens",  "tokens/s", "packed from", "on disk",   "memory"};
    fputs("<p class=\"soft\">All iterations of a phase together; the pale part of a bar is waiting for records of the "
          "stage before. Writing is packing and writing the output; in and out are records, tokens in and out those of "
          "prompts and answers in them, tokens those that a model computed, a second of busy time. Memory is the most "
          "that the process held until then. A stage that was reused shows the time it took when it ran.</p>\n"
          "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th scope=\"col\">stage</th><th scope=\"col\" "
          "class=\"left\">phase</th><th scope=\"col\">time</th><th scope=\"col\" class=\"left\">busy and waiting</th>",
          out);
    for (size_t i = 0; i < sizeof titles / sizeof *titles; i++)
        fprintf(out, "<th scope=\"col\">%s</th>", titles[i]);
    fputs("</tr></thead><tbody>\n", out);
    for (size_t i = 0; i < count; i++)
        write_row(out, &totals[i], longest);
    fputs("</tbody></table></div>\n", out);
    free(totals);
}
