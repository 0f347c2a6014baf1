/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* From the streams of a small run: one record after each stage, and the numbers that stages reported. */
#include "core/run/lines.h"
#include "core/stream/record.h"
#include "tools/dry-run/dry.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a stage of a phase left. */
typedef struct left {
    dr_parts parts; /* of the record that is shown */
    bool shown;
    bool done; /* the stage came to its end */
} left;

static sl_stream_reader *open_stream(const char *folder, const sl_stage *stage)
{
    static const char *const ends[] = {"", ".part"};
    char path[PATH_MAX], error[SL_ERROR_SIZE];
    sl_stream_reader *reader = NULL;
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/streams/%s-1/%s.zst%s", folder, stage->phase->name, stage->name, ends[i]);
        if (sl_path_exists(path) && sl_stream_open(path, false, &reader, error, sizeof error) == SLUICE_OK)
            return reader;
    }
    return NULL;
}

/* Is a record of this id in the stage's stream? Its JSON into `json` where that is wanted; id NULL = the first. */
static bool find_record(const char *folder, const sl_stage *stage, const char *id, sl_buffer *json, size_t *count,
                        size_t *pairs)
{
    sl_stream_reader *reader = open_stream(folder, stage);
    sl_record *record;
    bool found = false;
    *count = *pairs = 0;
    while (reader != NULL && sl_stream_next(reader, &record) == SLUICE_OK) {
        const sluice_record *public = sl_record_public(record);
        if (!found && (id == NULL || strcmp(sluice_record_id(public), id) == 0)) {
            found = true;
            *pairs = sluice_record_pairs(public);
            if (json != NULL &&
                (json->size = 0, sl_record_to_json(record, json) < 0 || sl_buffer_append(json, "", 1) < 0))
                found = false;
        }
        ++*count;
        sl_record_free(record);
    }
    if (reader != NULL)
        sl_stream_reader_close(reader);
    return found;
}

static bool reads(const sl_stage *stage, const sl_stage *source)
{
    if (stage == source)
        return true;
    for (size_t f = 0; f < stage->from_count; f++)
        if (reads(stage->from[f], source))
            return true;
    return false;
}

static const sl_stage *source_of(const sl_stage *stage)
{
    while (stage->from_count > 0)
        stage = stage->from[0];
    return stage;
}

/* Of a source's records the one that came farthest, and there into a pair. In `id` (SL_LINE_TEXT bytes). */
static bool choose(const char *folder, const sl_stage *source, char *id)
{
    size_t best = 0, count, pairs;
    sl_stream_reader *reader = open_stream(folder, source);
    sl_record *record;
    while (reader != NULL && sl_stream_next(reader, &record) == SLUICE_OK) {
        const char *own = sluice_record_id(sl_record_public(record));
        size_t came = 0;
        for (size_t s = 0; s < source->phase->stage_count; s++) {
            const sl_stage *stage = &source->phase->stages[s];
            if (sl_stage_has_output(stage) && reads(stage, source) &&
                find_record(folder, stage, own, NULL, &count, &pairs))
                came += pairs > 0 ? 2 : 1;
        }
        if (came > best && strlen(own) < SL_LINE_TEXT) {
            best = came;
            snprintf(id, SL_LINE_TEXT, "%s", own);
        }
        sl_record_free(record);
    }
    if (reader != NULL)
        sl_stream_reader_close(reader);
    return best > 0;
}

/* ---- numbers */

struct numbers {
    const sl_stage *stage;
    FILE *out;
    char phase[SL_LINE_TEXT], name[SL_LINE_TEXT];
    size_t printed;
    bool mine;
};

static int print_number(void *context, const char *name, const char *text, double value)
{
    struct numbers *n = context;
    if (text != NULL && strcmp(name, "phase") == 0)
        snprintf(n->phase, sizeof n->phase, "%s", text);
    if (text != NULL && strcmp(name, "stage") == 0)
        snprintf(n->name, sizeof n->name, "%s", text);
    if (strcmp(name, "stage") == 0)
        n->mine = strcmp(n->phase, n->stage->phase->name) == 0 && strcmp(n->name, n->stage->name) == 0;
    if (text == NULL && n->mine && strcmp(name, "iteration") != 0)
        fprintf(n->out, "%s%s %.5g", n->printed++ > 0 ? "  " : "    ", name, value);
    return SLUICE_OK;
}

static void print_numbers(const char *folder, const sl_stage *stage, FILE *out)
{
    char path[PATH_MAX];
    sl_buffer text = {0};
    snprintf(path, sizeof path, "%s/streams/%s-1/%s.done", folder, stage->phase->name, stage->name);
    if (sl_file_read(path, &text) == SLUICE_OK && text.data != NULL)
        for (const char *line = strchr((const char *)text.data, '\n'), *end; line != NULL && line[1] != '\0';
             line = end) {
            struct numbers n = {.stage = stage, .out = out};
            end = strchr(line + 1, '\n');
            if (end == NULL || sl_line_read(line + 1, end, print_number, &n) != SLUICE_OK)
                break;
            if (n.printed > 0)
                fputc('\n', out);
        }
    sl_buffer_free(&text);
}

static bool is_done(const char *folder, const sl_stage *stage)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/streams/%s-1/%s.done", folder, stage->phase->name, stage->name);
    return sl_path_exists(path);
}

static void print_head(const sl_stage *stage, FILE *out)
{
    fprintf(out, "\n%s / %s  (%s", stage->phase->name, stage->name, stage->id);
    for (size_t p = 0; p < stage->part_count; p++)
        if (stage->parts[p].type != NULL)
            fprintf(out, ", %s", stage->parts[p].type->type->id);
    fputs(")\n", out);
}

static int show_stage(const char *folder, const sl_stage *stage, const char *id, left *all, sl_arena *arena, FILE *out)
{
    left *mine = &all[stage->index];
    size_t count = 0, pairs = 0;
    sl_buffer json = {0};
    int rc = SLUICE_OK;
    print_head(stage, out);
    mine->done = is_done(folder, stage);
    if (sl_stage_has_output(stage)) {
        mine->shown = find_record(folder, stage, id, &json, &count, &pairs);
        if (mine->shown) {
            const left *before = stage->from_count > 0 ? &all[stage->from[0]->index] : NULL;
            rc = dr_parts_read((const char *)json.data, arena, &mine->parts);
            if (rc >= 0 && dr_parts_print(&mine->parts, before != NULL ? &before->parts : NULL, out) == 0)
                fputs("    nothing changed\n", out);
        } else if (mine->done && count > 0) {
            fputs("    this record was left out\n", out);
        } else if (mine->done) {
            fputs("    no record came out\n", out);
        }
    }
    if (!mine->done)
        fputs(mine->shown ? "    did not come to its end\n" : "    did not run to its end\n", out);
    print_numbers(folder, stage, out);
    sl_buffer_free(&json);
    return rc;
}

int dr_show(const sl_plan *plan, const char *folder, FILE *out)
{
    sl_arena *arena = sl_arena_new();
    int rc = arena != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
    for (size_t p = 0; rc >= 0 && p < plan->phase_count; p++) {
        const sl_phase *phase = &plan->phases[p];
        left *all = sl_arena_alloc(arena, phase->stage_count * sizeof *all);
        rc = all != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
        for (size_t s = 0; rc >= 0 && s < phase->stage_count; s++) {
            char id[SL_LINE_TEXT];
            const bool chosen = choose(folder, source_of(&phase->stages[s]), id);
            rc = show_stage(folder, &phase->stages[s], chosen ? id : NULL, all, arena, out);
        }
    }
    sl_arena_free(arena);
    return rc;
}
