/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Sample texts: what the first and the last evaluated version of each slot answered to the same prompts, with the marks
 * of the judge that the evaluator takes for the truth.
 */
#include "core/stream/stream.h"
#include "tools/report/page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPTS = 6, ANSWERS = 4, MOST_SLOTS = 4, MOST_BYTES = 700, MOST_SEARCHED = 20000 };

/* One evaluation: an evaluator in one iteration, and the stream that it read. */
typedef struct look {
    const sl_stage *evaluator;
    int64_t iteration; /* from 1 */
    size_t slot;
    int64_t version;
    const char *path, *truth; /* truth NULL: nothing is known to be right */
} look;

static bool look_at(rp_run *run, const sl_stage *stage, int64_t iteration, look *to)
{
    const sl_value *model = sl_stage_value(stage, "model"), *truth = sl_stage_value(stage, "truth");
    if (stage->from_count == 0 || model == NULL || model->models == NULL)
        return false;
    const sl_model_use *use = &model->models[(iteration - 1) * (int64_t)model->count];
    *to = (look){stage, iteration, use->slot, use->version, NULL, truth != NULL ? truth->text : NULL};
    to->path = rp_stream_path(run, stage->from[0], iteration);
    return to->path != NULL;
}

/* The first and the last evaluation of a slot in the plan's order; how many there are, two at most counted. */
static int first_and_last(rp_run *run, size_t slot, look *first, look *last)
{
    int count = 0;
    for (size_t p = 0; p < run->plan->phase_count; p++)
        for (int64_t i = 1; i <= run->plan->phases[p].repeat; i++)
            for (size_t s = 0; s < run->plan->phases[p].stage_count; s++) {
                const sl_stage *stage = &run->plan->phases[p].stages[s];
                look found;
                if (stage->object.type->type->kind != SLUICE_EVALUATOR || !look_at(run, stage, i, &found) ||
                    found.slot != slot)
                    continue;
                *(count == 0 ? first : last) = found;
                count = count < 2 ? count + 1 : 2;
            }
    return count;
}

static void close_records(sl_record **records, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sl_record_free(records[i]);
}

static bool same_prompt(sl_record *a, sl_record *b)
{
    const sluice_record *x = sl_record_public(a), *y = sl_record_public(b);
    const char *p = sluice_record_prompt(x), *q = sluice_record_prompt(y);
    const sluice_message *m, *n;
    const size_t i = sluice_record_messages(x, &m), j = sluice_record_messages(y, &n);
    if (p != NULL || q != NULL)
        return p != NULL && q != NULL && strcmp(p, q) == 0;
    for (size_t k = 0; i == j && k < i; k++)
        if (strcmp(m[k].content, n[k].content) != 0)
            return false;
    return i == j && i > 0;
}

/* The first records of a stream; with `as`, those with the same prompts, each in the place of its like. */
static size_t read_records(rp_run *run, const look *from, sl_record **records, sl_record *const *as, size_t count)
{
    char error[640] = "";
    sl_stream_reader *reader;
    size_t found = 0;
    if (sl_stream_open(from->path, false, &reader, error, sizeof error) < 0) {
        rp_note(run, "A stream cannot be read (%s); samples of it are missing.", error);
        return 0;
    }
    int rc = SLUICE_OK;
    sl_record *record;
    for (size_t n = 0; found < count && n < MOST_SEARCHED && (rc = sl_stream_next(reader, &record)) == SLUICE_OK; n++) {
        size_t place = as == NULL ? found : 0;
        while (as != NULL && place < count && (records[place] != NULL || !same_prompt(as[place], record)))
            place++;
        if (place < count) {
            records[place] = record;
            found++;
        } else {
            sl_record_free(record);
        }
    }
    if (rc < 0)
        rp_note(run, "The stream %s is not whole (%s); samples come from its whole part.", from->path,
                sl_stream_reader_error(reader));
    sl_stream_reader_close(reader);
    return found;
}

static void write_prompt(FILE *out, const sluice_record *record)
{
    const sluice_message *messages;
    const char *prompt = sluice_record_prompt(record);
    const size_t count = prompt == NULL ? sluice_record_messages(record, &messages) : 0;
    fputs("<p class=\"prompt\">", out);
    if (prompt != NULL)
        rp_text_cut(out, prompt, MOST_BYTES);
    for (size_t i = 0; i < count; i++) {
        rp_printf(out, "%s%s: ", i > 0 ? "\n" : "", messages[i].role);
        rp_text_cut(out, messages[i].content, MOST_BYTES);
    }
    fputs("</p>\n", out);
}

static void write_answers(FILE *out, const rp_run *run, const look *from, sl_record *record)
{
    fprintf(out, "<div><h3>");
    rp_printf(out, "%s@%lld", run->plan->slots[from->slot].name, (long long)from->version);
    fputs("</h3><ul>\n", out);
    const sluice_record *r = record != NULL ? sl_record_public(record) : NULL;
    const float *scores = r != NULL && from->truth != NULL ? sluice_record_scores(r, from->truth) : NULL;
    const size_t count = r != NULL ? sluice_record_candidates(r) : 0;
    for (size_t i = 0; i < count && i < ANSWERS; i++) {
        sluice_candidate c;
        if (sluice_record_candidate(r, i, &c) < 0)
            continue;
        const bool known = scores != NULL && !isnan(scores[i]);
        fputs("<li>", out);
        if (known && scores[i] >= 0.5f)
            fputs("<span class=\"sign right\" title=\"right\" role=\"img\" aria-label=\"right\">✓</span>", out);
        else if (known)
            fputs("<span class=\"sign wrong\" title=\"wrong\" role=\"img\" aria-label=\"wrong\">✗</span>", out);
        else
            fputs("<span class=\"sign soft\" aria-hidden=\"true\">·</span>", out);
        fputs("<span class=\"answer\">", out);
        if (c.text == NULL || c.text[0] == '\0')
            fputs("<span class=\"soft\">(nothing)</span>", out);
        else
            rp_text_cut(out, c.text, MOST_BYTES);
        fputs("</span></li>\n", out);
    }
    if (count == 0)
        fputs("<li class=\"soft\">no answer to this prompt is there</li>\n", out);
    if (count > ANSWERS)
        fprintf(out, "<li class=\"soft\">and %zu more</li>\n", count - ANSWERS);
    fputs("</ul></div>\n", out);
}

/* The first slot stands open, the others are there to be unfolded. */
static bool write_slot(FILE *out, rp_run *run, size_t slot, bool folded)
{
    look first, last;
    sl_record *before[PROMPTS] = {NULL}, *after[PROMPTS] = {NULL};
    const int looks = first_and_last(run, slot, &first, &last);
    const size_t count = looks > 0 ? read_records(run, &first, before, NULL, PROMPTS) : 0;
    if (looks > 1 && count > 0)
        read_records(run, &last, after, before, count);
    char title[200];
    snprintf(title, sizeof title, "%s%s: the first prompts that its evaluation drew", run->plan->slots[slot].name,
             looks > 1 ? " before and after" : "");
    if (count > 0 && folded) {
        rp_details_begin(out, title);
    } else if (count > 0) {
        fputs("<p class=\"soft\">", out);
        rp_printf(out, "%s.", title);
        fputs("</p>\n", out);
    }
    for (size_t i = 0; i < count; i++) {
        fputs("<div class=\"sample\">\n", out);
        write_prompt(out, sl_record_public(before[i]));
        fputs("<div class=\"pair\">\n", out);
        write_answers(out, run, &first, before[i]);
        if (looks > 1)
            write_answers(out, run, &last, after[i]);
        fputs("</div></div>\n", out);
    }
    if (count > 0 && folded)
        rp_details_end(out);
    close_records(before, PROMPTS);
    close_records(after, PROMPTS);
    return count > 0;
}

void rp_write_samples(FILE *out, rp_run *run)
{
    bool any = false;
    for (size_t s = 0; run->plan != NULL && s < run->plan->slot_count && s < MOST_SLOTS; s++)
        any = write_slot(out, run, s, any) || any;
    if (!any)
        fputs("<p class=\"soft\">No evaluator was given a model whose answers it read in this run, or its stream is no "
              "longer there.</p>\n",
              out);
}
