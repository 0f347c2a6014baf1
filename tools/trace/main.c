/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* sluice trace: when each stage of a run worked, for a trace viewer. */
#include "core/base/json.h"
#include "core/cli/cli.h"
#include "core/run/internal.h"
#include "core/run/lines.h"
#include "tools/report/data.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "sluice trace RUN [--out FILE]\n\n"
    "Writes when each stage of a run worked, from the run's timing.jsonl, as JSON that Perfetto (ui.perfetto.dev) and\n"
    "Chrome (chrome://tracing) show: a track a stage, a slice an iteration, with records, tokens, bytes and how long "
    "it\n"
    "waited. Also of a run that goes on or was stopped.\n\n"
    "  --out FILE  writes a file instead of standard output\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no line of timing.jsonl can be read.\n\n"
    "Example:\n"
    "  sluice trace runs/quickstart --out quickstart.json\n";

enum { MOST_NUMBERS = 32 };

/* A line of timing.jsonl. */
typedef struct slice {
    char phase[SL_LINE_TEXT], stage[SL_LINE_TEXT], start[SL_LINE_TEXT], at[SL_LINE_TEXT];
    double iteration, seconds;
    struct {
        char name[64];
        double value;
    } numbers[MOST_NUMBERS];
    size_t count;
} slice;

/* Stages and phases in the order in which they were met: their places in the list are their tracks' numbers. */
typedef struct trace {
    sl_arena *arena;
    FILE *out;
    rp_texts phases, stages;
    const char *first; /* the first time: where the trace begins */
    size_t events;
} trace;

static int read_member(void *context, const char *name, const char *text, double value)
{
    slice *s = context;
    const struct {
        const char *name;
        char *to;
    } texts[] = {{"phase", s->phase}, {"stage", s->stage}, {"start", s->start}, {"at", s->at}};
    for (size_t i = 0; text != NULL && i < sizeof texts / sizeof *texts; i++)
        if (strcmp(texts[i].name, name) == 0)
            snprintf(texts[i].to, SL_LINE_TEXT, "%s", text);
    if (text != NULL)
        return SLUICE_OK;
    if (strcmp(name, "iteration") == 0)
        s->iteration = value;
    else if (strcmp(name, "seconds") == 0)
        s->seconds = value;
    else if (s->count < MOST_NUMBERS && strcmp(name, "reused") != 0) {
        snprintf(s->numbers[s->count].name, sizeof s->numbers[0].name, "%.63s", name);
        s->numbers[s->count++].value = value;
    }
    return SLUICE_OK;
}

static void put_text(FILE *out, const char *text)
{
    sl_buffer bytes = {0};
    if (sl_json_string(&bytes, text, strlen(text)) >= 0)
        fwrite(bytes.data, 1, bytes.size, out);
    sl_buffer_free(&bytes);
}

/* Its number, from 1; `added` when it was not there. */
static size_t number_of(trace *t, rp_texts *list, const char *name, bool *added)
{
    *added = false;
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i], name) == 0)
            return i + 1;
    const char **items = rp_grow(t->arena, list->items, list->count, sizeof *items);
    const char *kept = sl_arena_strdup(t->arena, name);
    if (items == NULL || kept == NULL)
        return 0;
    list->items = items;
    items[list->count++] = kept;
    *added = true;
    return list->count;
}

static void begin_event(trace *t, const char *kind, size_t phase, size_t stage)
{
    fprintf(t->out, "%s\n{\"ph\":\"%s\",\"pid\":%zu,\"tid\":%zu", t->events++ > 0 ? "," : "", kind, phase, stage);
}

static void name_track(trace *t, const char *what, const char *name, size_t phase, size_t stage)
{
    begin_event(t, "M", phase, stage);
    fprintf(t->out, ",\"name\":\"%s\",\"args\":{\"name\":", what);
    put_text(t->out, name);
    fputs("}}", t->out);
}

static bool write_slice(trace *t, const slice *s)
{
    const bool reused = s->start[0] == '\0';
    const char *start = reused ? s->at : s->start;
    bool new_phase, new_stage;
    if (t->first == NULL)
        t->first = sl_arena_strdup(t->arena, start);
    const double since = rp_seconds(t->first, start);
    if (!isfinite(since) || (!reused && !isfinite(s->seconds)))
        return false;
    const size_t phase = number_of(t, &t->phases, s->phase, &new_phase),
                 stage = number_of(t, &t->stages, s->stage, &new_stage);
    if (new_phase)
        name_track(t, "process_name", s->phase, phase, 0);
    if (new_stage)
        name_track(t, "thread_name", s->stage, phase, stage);
    begin_event(t, reused ? "i" : "X", phase, stage);
    fprintf(t->out, ",\"ts\":%.0f", since * 1e6);
    fprintf(t->out, reused ? ",\"s\":\"t\",\"name\":\"reused\"" : ",\"dur\":%.0f,\"name\":", s->seconds * 1e6);
    if (!reused) {
        char name[SL_LINE_TEXT + 32];
        snprintf(name, sizeof name, "%s %.0f", s->stage, s->iteration);
        put_text(t->out, name);
    }
    fputs(",\"args\":{", t->out);
    for (size_t i = 0; i < s->count; i++) {
        sl_buffer number = {0};
        sl_json_double(&number, s->numbers[i].value);
        fputs(i > 0 ? "," : "", t->out);
        put_text(t->out, s->numbers[i].name);
        fprintf(t->out, ":%.*s", (int)number.size, (const char *)number.data);
        sl_buffer_free(&number);
    }
    fputs("}}", t->out);
    return true;
}

/* Lines that cannot be read are left out; returns how many. */
static size_t write_trace(trace *t, const char *text)
{
    size_t damaged = 0;
    fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[", t->out);
    for (const char *line = text, *end; *line != '\0'; line = *end != '\0' ? end + 1 : end) {
        slice s = {.seconds = NAN};
        end = strchr(line, '\n');
        if (end == NULL)
            end = line + strlen(line);
        if (sl_line_read(line, end, read_member, &s) != SLUICE_OK || s.stage[0] == '\0' || !write_slice(t, &s))
            damaged++;
    }
    fputs("\n]}\n", t->out);
    return damaged;
}

static int trace_run(const sl_command *command, const char *folder, const char *out)
{
    char path[PATH_MAX], error[SL_ERROR_SIZE] = "out of memory", *json = NULL;
    size_t size = 0, damaged = 0;
    sl_buffer text = {0};
    snprintf(path, sizeof path, "%s/timing.jsonl", folder);
    if (sl_file_read(path, &text) < 0)
        return sl_fail(command, SL_EXIT_FAILED, "there is no %s; name the folder of a run (runs/NAME)", path);
    trace t = {.arena = sl_arena_new(), .out = open_memstream(&json, &size)};
    int rc = t.arena != NULL && t.out != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
    if (rc >= 0)
        damaged = write_trace(&t, text.data != NULL ? (const char *)text.data : "");
    if (t.out != NULL && (ferror(t.out) | fclose(t.out)) != 0)
        rc = SLUICE_NO_MEMORY;
    const bool empty = rc >= 0 && t.events == 0;
    if (rc >= 0 && !empty && out != NULL)
        rc = sl_file_write(out, json, size, error);
    else if (rc >= 0 && !empty && (fwrite(json, 1, size, stdout) != size || fflush(stdout) != 0)) {
        snprintf(error, sizeof error, "writing to standard output failed: %s", strerror(errno));
        rc = SLUICE_IO;
    }
    free(json);
    sl_buffer_free(&text);
    sl_arena_free(t.arena);
    if (rc < 0)
        return sl_fail(command, SL_EXIT_FAILED, "%s", error);
    if (empty)
        return damaged > 0 ? sl_fail(command, SL_EXIT_DAMAGED, "%s: no line can be read", path)
                           : sl_fail(command, SL_EXIT_FAILED, "%s is empty: no stage has ended yet", path);
    if (damaged > 0)
        fprintf(stderr, "sluice trace: %s: %zu line%s damaged and left out\n", path, damaged,
                damaged == 1 ? " is" : "s are");
    return SL_EXIT_OK;
}

int main(int argc, char **argv)
{
    static const sl_command command = {"trace", "", help, NULL};
    sl_words folders = {0};
    const char *out = NULL;
    const sl_option options[] = {{.name = "out", .kind = SL_WORD, .to = &out}, {0}};
    int code = sl_options_read(&command, argc - 1, argv + 1, options, &folders);
    if (code < 0 && folders.count != 1)
        code = sl_usage(&command, "one run's folder is wanted, %zu are given", folders.count);
    if (code < 0 && out != NULL && out[0] == '\0')
        code = sl_usage(&command, "--out is empty; name a file");
    if (code < 0)
        code = trace_run(&command, folders.items[0], out);
    sl_words_free(&folders);
    return code;
}
