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

static void write_row(FILE *out, const total *t, double longest)
{
    const rp_timing *s = &t->sum;
    const double records = s->records > 0 ? s->records : s->records_in;
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
    fprintf(out, "</span></td><td>%s</td>", records > 0 ? rp_number_text(records, text) : "");
    fprintf(out, "<td>%s</td>", s->tokens > 0 ? rp_number_text(s->tokens, text) : "");
    fprintf(out, "<td>%s</td>", s->tokens > 0 && s->busy > 0 ? rp_number_text(round(s->tokens / s->busy), text) : "");
    fprintf(out, "<td>%s</td></tr>\n", bytes_text(s->bytes_compressed, text));
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
    fputs("<p class=\"soft\">All iterations of a phase together; the pale part of a bar is waiting for records of the "
          "stage before. Tokens a second count busy time. A stage that was reused shows the time it took when it "
          "ran.</p>\n<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th scope=\"col\">stage</th>"
          "<th scope=\"col\" class=\"left\">phase</th><th scope=\"col\">time</th><th scope=\"col\" class=\"left\">busy "
          "and waiting</th><th scope=\"col\">records</th><th scope=\"col\">tokens</th><th scope=\"col\">tokens/s</th>"
          "<th scope=\"col\">on disk</th></tr></thead><tbody>\n",
          out);
    for (size_t i = 0; i < count; i++)
        write_row(out, &totals[i], longest);
    fputs("</tbody></table></div>\n", out);
    free(totals);
}
