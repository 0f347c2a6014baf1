/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/random.h>
#include "plugins/jsonl/classes.h"
#include "plugins/jsonl/lines.h"
#include "plugins/jsonl/parse.h"

#define WARNINGS 5 /* skipped lines that are named in the log; all are counted */

enum on_error { ON_ERROR_STOP, ON_ERROR_SKIP };
enum split { SPLIT_ALL, SPLIT_BY_ITERATION, SPLIT_BY_PART };

struct source {
    const char *path;
    int form, on_error, split;
    int64_t parts, skip, limit;
    bool shuffle;
    const char *id_field, *prompt_field, *completion_field, *chosen_field, *rejected_field, *messages_field;

    const sluice_host *host;
    parse_fields fields;
    lines *lines;
    uint64_t expected, records, skipped;
    struct seen *seen; /* open addressing; line 0 = free */
    size_t seen_room;
};

/* An id met before, by its hash. */
struct seen {
    uint64_t hash, line;
};

static const char *const forms[] = {"auto", "prompt", "completion", "preference", NULL};
static const uint32_t form_adds[] = {SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_PAIRS, 0, SLUICE_FIELD_CANDIDATES,
                                     SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_PAIRS};
static const char *const error_rules[] = {"stop", "skip", NULL};
static const char *const splits[] = {"all", "by-iteration", "by-part", NULL};
static const uint32_t split_traits[] = {0, SLUICE_READS_REPEAT, 0};

static const sluice_param params[] = {
    SLUICE_FILE(struct source, path, .required = true,
                .doc = "The file: one JSON object a line, plain or compressed by zstd."),
    SLUICE_CHOICE(struct source, form, .value = PARSE_AUTO, .choices = forms, .choice_adds = form_adds,
                  .doc = "What to take of a line: whatever it has, the prompt alone, a prompt with its completion, or "
                         "a preference."),
    SLUICE_CHOICE(
        struct source, on_error, .value = ON_ERROR_STOP, .choices = error_rules,
        .doc = "What to do with a line that cannot be read: stop with its number, or leave it out and count it."),
    SLUICE_CHOICE(struct source, split, .value = SPLIT_ALL, .choices = splits, .choice_traits = split_traits,
                  .doc = "The whole file in every iteration of the phase; or a part of its own for each, none shared: "
                         "of as many parts as there are iterations, or of `parts`."),
    SLUICE_INT(struct source, parts, .value = 0, .min = 0, .unit = "iterations",
               .doc = "With split = \"by-part\": of how many parts each iteration takes one. A number to grow into: "
                      "raising the phase's `repeat` leaves the parts of earlier iterations as they are."),
    SLUICE_INT(struct source, skip, .value = 0, .min = 0, .unit = "records",
               .doc = "Leave out that many at the beginning."),
    SLUICE_INT(struct source, limit, .value = 0, .min = 0, .unit = "records",
               .doc = "Take no more than that many; 0 = all."),
    SLUICE_BOOL(struct source, shuffle, .value = 0,
                .doc = "Another order, drawn from the seed (after skip, limit and split)."),
    SLUICE_STRING(struct source, id_field, .text = "id",
                  .doc = "Field of the record's id; without one the line's number is the id."),
    SLUICE_STRING(struct source, prompt_field, .text = "prompt", .doc = "Field of the prompt."),
    SLUICE_STRING(struct source, completion_field, .text = "completion", .doc = "Field of the answer."),
    SLUICE_STRING(struct source, chosen_field, .text = "chosen", .doc = "Field of the preferred answer or dialogue."),
    SLUICE_STRING(struct source, rejected_field, .text = "rejected", .doc = "Field of the other answer or dialogue."),
    SLUICE_STRING(struct source, messages_field, .text = "messages", .doc = "Field of a dialogue as messages."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {{"records", "records", "Records read."},
                                             {"skipped", "lines", "Lines left out because they could not be read."},
                                             {0}};

/* Which part of how many this iteration takes. */
static int choose_part(struct source *source, lines_choice *choice)
{
    const sluice_host *host = source->host;
    const bool named = source->split == SPLIT_BY_PART;
    if (named != (source->parts > 0))
        return sluice_error(host, SLUICE_BAD_PARAMETER,
                            named ? "split = \"by-part\" needs parts = N" : "parts goes with split = \"by-part\"");
    choice->part = source->split == SPLIT_ALL ? 0 : (uint64_t)sluice_iteration(host);
    choice->parts = named ? (uint64_t)source->parts : 1;
    if (source->split == SPLIT_BY_ITERATION)
        choice->parts = (uint64_t)sluice_repeat(host);
    if (choice->part >= choice->parts)
        return sluice_error(host, SLUICE_BAD_PARAMETER,
                            "%s is cut into %" PRIu64 " parts and this is iteration %" PRIu64
                            "; run the phase at most that often, or raise parts (then all parts are others)",
                            source->path, choice->parts, choice->part + 1);
    return SLUICE_OK;
}

static int init(void *self, const sluice_host *host)
{
    struct source *source = self;
    lines_choice choice = {.skip = (uint64_t)source->skip,
                           .limit = (uint64_t)source->limit,
                           .shuffle = source->shuffle,
                           .seed = sluice_seed(host)};
    source->host = host;
    source->fields = (parse_fields){source->id_field,     source->prompt_field,   source->completion_field,
                                    source->chosen_field, source->rejected_field, source->messages_field};
    int rc = choose_part(source, &choice);
    if (rc == SLUICE_OK)
        rc = lines_open(host, source->path, &choice, &source->lines);
    if (rc == SLUICE_OK)
        source->expected = lines_count(source->lines);
    return rc;
}

static void fini(void *self)
{
    struct source *source = self;
    lines_close(source->lines);
    free(source->seen);
}

static struct seen *find(struct seen *table, size_t room, uint64_t hash)
{
    size_t i = hash & (room - 1);
    while (table[i].line && table[i].hash != hash)
        i = (i + 1) & (room - 1);
    return &table[i];
}

/* Remembers an id; the line that had it before, or 0. */
static int remember(struct source *source, const char *id, uint64_t line, uint64_t *before)
{
    uint64_t hash = sluice_random_name(id, strlen(id));
    if (2 * (source->records + 1) > source->seen_room) {
        size_t room = source->seen_room ? 2 * source->seen_room : 1024;
        struct seen *grown = calloc(room, sizeof *grown);
        if (!grown)
            return sluice_error(source->host, SLUICE_NO_MEMORY, "out of memory for the ids of %" PRIu64 " records",
                                source->records);
        for (size_t i = 0; i < source->seen_room; i++)
            if (source->seen[i].line)
                *find(grown, room, source->seen[i].hash) = source->seen[i];
        free(source->seen);
        source->seen = grown;
        source->seen_room = room;
    }
    struct seen *place = find(source->seen, source->seen_room, hash);
    *before = place->line;
    if (!place->line)
        *place = (struct seen){hash, line};
    return SLUICE_OK;
}

/* One line into the record; SLUICE_BAD_RECORD leaves the record empty and says why in `error`. */
static int read_record(struct source *source, const char *text, size_t length, uint64_t line, sluice_record *record,
                       char *error, size_t error_size)
{
    parse_example example = {0};
    char by_line[32];
    uint64_t before = 0;
    snprintf(by_line, sizeof by_line, "line-%" PRIu64, line);
    int rc = parse_line(text, length, (enum parse_form)source->form, &source->fields, &example, error, error_size);
    if (rc == SLUICE_OK)
        rc = remember(source, example.id[0] ? example.id : by_line, line, &before);
    if (rc == SLUICE_OK && before) {
        snprintf(error, error_size, "the id '%s' stands in line %" PRIu64 " already; ids must be unique", example.id,
                 before);
        rc = SLUICE_BAD_RECORD;
    }
    if (rc == SLUICE_OK && (rc = parse_fill(&example, &source->fields, by_line, record)) < 0)
        rc = sluice_error(source->host, rc == SLUICE_BAD_RECORD ? SLUICE_FAILED : rc,
                          "%s:%" PRIu64 ": the record was refused", source->path, line);
    parse_free(&example);
    return rc;
}

static int next(void *self, sluice_record *record)
{
    struct source *source = self;
    const char *text;
    size_t length;
    uint64_t line;
    char error[512];
    for (;;) {
        int rc = lines_next(source->lines, &text, &length, &line);
        if (rc != SLUICE_OK)
            return rc;
        rc = read_record(source, text, length, line, record, error, sizeof error);
        if (rc == SLUICE_OK)
            break;
        if (rc != SLUICE_BAD_RECORD)
            return rc;
        if (source->on_error == ON_ERROR_STOP)
            return sluice_error(source->host, rc, "%s:%" PRIu64 ": %s", source->path, line, error);
        if (source->skipped++ < WARNINGS)
            sluice_log(source->host, SLUICE_LOG_WARNING, "%s:%" PRIu64 ": skipped: %s", source->path, line, error);
    }
    source->records++;
    sluice_progress(source->host, source->records, source->expected, "records");
    return SLUICE_OK;
}

static int finish(void *self)
{
    struct source *source = self;
    if (source->records == 0)
        return sluice_error(source->host, SLUICE_BAD_FILE, "%s gave no records%s", source->path,
                            source->skipped ? "; every line was skipped, see the log"
                            : source->skip  ? "; skip leaves none"
                                            : "; it is empty");
    sluice_number numbers[2] = {{"records", (double)source->records}, {"skipped", (double)source->skipped}};
    sluice_metrics(source->host, -1, numbers, 2);
    return SLUICE_OK;
}

const sluice_stage_class jsonl_source_class = {
    SLUICE_STAGE_CLASS(SLUICE_SOURCE, "jsonl-source", "Records from a file of JSON lines", struct source, params),
    .base.adds = SLUICE_FIELD_PROMPT | SLUICE_FIELD_META,
    .base.doc = "Reads the forms that TRL accepts: prompt; prompt and completion; prompt, chosen and rejected; chosen "
                "and rejected alone, whose "
                "common beginning is the prompt; messages. Wherever a text may stand a list of messages may too. A "
                "completion becomes "
                "candidate 0; chosen and rejected become candidates 0 and 1 and a pair. Fields that are not read are "
                "kept in meta.\n"
                "Text dialogues with turns marked \"\\n\\nAssistant:\" are split after the last mark that chosen and "
                "rejected share, as in the "
                "code of DPO's authors; other texts where they begin to differ, as TRL does.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .next = next,
    .finish = finish,
};
