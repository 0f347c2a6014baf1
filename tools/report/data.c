/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* timegm, strptime */
#include "tools/report/data.h"

#include "core/run/internal.h"
#include "core/run/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

void *rp_grow(sl_arena *arena, void *items, size_t count, size_t size)
{
    if (count != 0 && (count < 16 || (count & (count - 1)) != 0))
        return items;
    void *more = sl_arena_alloc(arena, (count < 16 ? 16 : 2 * count) * size);
    if (more != NULL && count > 0)
        memcpy(more, items, count * size);
    return more;
}

static void add_text(rp_run *run, rp_texts *texts, const char *text)
{
    const char **items = rp_grow(run->arena, texts->items, texts->count, sizeof *items);
    if (items == NULL || text == NULL)
        return;
    texts->items = items;
    items[texts->count++] = text;
}

void rp_note(rp_run *run, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    add_text(run, &run->notes, sl_arena_strdup(run->arena, text));
}

/* The whole file as text; NULL when it is not there. A NUL byte in it ends it. */
static const char *read_text(rp_run *run, const char *name, size_t *size)
{
    sl_buffer bytes = {0};
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", run->folder, name);
    const char *text = NULL;
    if (sl_file_read(path, &bytes) == SLUICE_OK && bytes.data != NULL) {
        char *copy = sl_arena_take(run->arena, bytes.size + 1);
        if (copy != NULL)
            memcpy(copy, bytes.data, bytes.size + 1);
        text = copy;
        *size = bytes.size;
    }
    sl_buffer_free(&bytes);
    return text;
}

/* ---- metrics.jsonl and timing.jsonl */

struct reading {
    rp_run *run;
    rp_line line;
    rp_timing timing;
    bool reused;
    sluice_number *numbers; /* the line's, of the heap: the arena gets what is kept, in its size */
    size_t room;
};

static void begin_line(struct reading *r)
{
    r->line = (rp_line){.step = -1};
    r->timing = (rp_timing){0};
    r->reused = false;
}

/* The few names that all lines repeat are kept once; NULL: no memory. */
static const char *keep_name(rp_run *run, const char *name)
{
    enum { MOST_SHARED = 256 };
    for (size_t i = 0; i < run->names.count; i++)
        if (strcmp(run->names.items[i], name) == 0)
            return run->names.items[i];
    const char *kept = sl_arena_strdup(run->arena, name);
    if (run->names.count < MOST_SHARED)
        add_text(run, &run->names, kept);
    return kept;
}

static const char **text_member(struct reading *r, const char *name)
{
    if (strcmp(name, "phase") == 0)
        return &r->line.phase;
    if (strcmp(name, "stage") == 0)
        return &r->line.stage;
    return strcmp(name, "model") == 0 ? &r->line.model : NULL;
}

static int read_member(void *context, const char *name, const char *text, double value)
{
    struct reading *r = context;
    const char **to = text != NULL ? text_member(r, name) : NULL;
    if (to != NULL)
        *to = keep_name(r->run, text);
    if (text != NULL)
        return SLUICE_OK;
    if (strcmp(name, "iteration") == 0 || strcmp(name, "step") == 0) {
        const int64_t whole = value >= 0 && value < 9e15 ? (int64_t)value : 0;
        *(name[0] == 'i' ? &r->line.iteration : &r->line.step) = whole;
        return SLUICE_OK;
    }
    if (r->line.count == r->room) {
        const size_t room = 2 * r->room + 16;
        sluice_number *numbers = realloc(r->numbers, room * sizeof *numbers);
        if (numbers == NULL)
            return SLUICE_NO_MEMORY;
        r->numbers = numbers;
        r->room = room;
    }
    const char *kept = keep_name(r->run, name);
    if (kept == NULL)
        return SLUICE_NO_MEMORY;
    r->numbers[r->line.count++] = (sluice_number){kept, value};
    return SLUICE_OK;
}

static int read_timing(void *context, const char *name, const char *text, double value)
{
    struct reading *r = context;
    rp_timing *t = &r->timing;
    const struct {
        const char *name;
        double *to;
    } members[] = {{"seconds", &t->seconds},       {"busy", &t->busy},
                   {"waiting", &t->waiting},       {"writing", &t->writing},
                   {"records_in", &t->records_in}, {"records", &t->records},
                   {"tokens", &t->tokens},         {"tokens_in", &t->tokens_in},
                   {"tokens_out", &t->tokens_out}, {"bytes", &t->bytes},
                   {"memory", &t->memory},         {"bytes_compressed", &t->bytes_compressed}};
    const char **to = text != NULL ? text_member(r, name) : NULL;
    if (to != NULL)
        *to = keep_name(r->run, text);
    if (text != NULL)
        return SLUICE_OK;
    if (strcmp(name, "iteration") == 0 && value >= 1 && value < 9e15)
        t->iteration = (int64_t)value;
    r->reused |= strcmp(name, "reused") == 0;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        if (strcmp(members[i].name, name) == 0 && isfinite(value))
            *members[i].to = value;
    return SLUICE_OK;
}

static void keep_line(struct reading *r)
{
    const size_t size = r->line.count * sizeof *r->numbers;
    rp_line *lines = rp_grow(r->run->arena, r->run->lines, r->run->line_count, sizeof *lines);
    if (lines == NULL)
        return;
    r->run->lines = lines;
    r->line.numbers = sl_arena_take(r->run->arena, size);
    if (r->line.numbers == NULL)
        return;
    if (size > 0)
        memcpy(r->line.numbers, r->numbers, size);
    lines[r->run->line_count++] = r->line;
}

/* The last time that a stage ran in an iteration takes the place of those before. */
static void keep_timing(struct reading *r)
{
    rp_run *run = r->run;
    r->timing.phase = r->line.phase;
    r->timing.stage = r->line.stage;
    if (r->reused)
        return;
    for (size_t i = 0; i < run->timing_count; i++) {
        rp_timing *t = &run->timings[i];
        if (t->iteration == r->timing.iteration && strcmp(t->stage, r->timing.stage) == 0 &&
            strcmp(t->phase, r->timing.phase) == 0) {
            *t = r->timing;
            return;
        }
    }
    rp_timing *timings = rp_grow(run->arena, run->timings, run->timing_count, sizeof *timings);
    if (timings == NULL)
        return;
    run->timings = timings;
    timings[run->timing_count++] = r->timing;
}

static void read_lines(rp_run *run, const char *name, sl_line_visitor *visit, void (*keep)(struct reading *))
{
    size_t damaged = 0, first = 0, number = 1;
    char path[PATH_MAX];
    sl_buffer bytes = {0};
    struct reading r = {.run = run};
    snprintf(path, sizeof path, "%s/%s", run->folder, name);
    if (sl_file_read(path, &bytes) != SLUICE_OK || bytes.data == NULL) {
        rp_note(run, "There is no %s: its part of the page is empty.", name);
        sl_buffer_free(&bytes);
        return;
    }
    const char *text = (const char *)bytes.data;
    const size_t size = bytes.size;
    for (const char *at = text, *end; at < text + size; at = end + 1, number++) {
        end = memchr(at, '\n', size - (size_t)(at - text));
        begin_line(&r);
        const bool whole = end != NULL && sl_line_read(at, end, visit, &r) == SLUICE_OK && r.line.phase != NULL &&
                           r.line.stage != NULL;
        if (whole)
            keep(&r);
        else if (damaged++ == 0)
            first = number;
        if (end == NULL)
            break;
    }
    sl_buffer_free(&bytes);
    free(r.numbers);
    if (damaged == 1)
        rp_note(run, "Line %zu of %s is damaged, and left out here.", first, name);
    else if (damaged > 1)
        rp_note(run, "%zu lines of %s are damaged, the first is line %zu; they are left out here.", damaged, name,
                first);
}

/* ---- log.txt */

static bool is_locked(const rp_run *run)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/.lock", run->folder);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const bool locked = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    return locked;
}

/* "2026-01-31T12:00:00.000Z what": the time is 24 characters. */
enum { TIME = 24 };

static void read_log_line(rp_run *run, const char *line, size_t length)
{
    if (length < TIME + 1 || line[TIME - 1] != 'Z' || line[TIME] != ' ')
        return;
    const char *time = sl_arena_printf(run->arena, "%.*s", TIME, line);
    const char *what = sl_arena_printf(run->arena, "%.*s", (int)(length - TIME - 1), line + TIME + 1);
    if (time == NULL || what == NULL)
        return;
    if (strncmp(what, "run of ", 7) == 0) {
        run->started = time;
        run->warnings.count = 0;
        run->state = RP_STOPPED;
    }
    if (strncmp(what, "warning: ", 9) == 0)
        add_text(run, &run->warnings, what + 9);
    if (strcmp(what, "done") == 0)
        run->state = RP_DONE;
    run->ended = time;
    run->last = what;
}

static void read_log(rp_run *run)
{
    size_t size = 0;
    const char *text = read_text(run, "log.txt", &size);
    run->state = RP_STOPPED;
    if (text == NULL)
        rp_note(run, "There is no log.txt: when it ran and how it ended is unknown.");
    for (const char *at = text, *end; text != NULL && at < text + size; at = end + 1) {
        end = memchr(at, '\n', size - (size_t)(at - text));
        if (end == NULL)
            end = text + size;
        read_log_line(run, at, (size_t)(end - at));
    }
    if (is_locked(run))
        run->state = RP_RUNNING;
}

/* ---- the plan */

static void read_plan(rp_run *run, sl_registry *registry)
{
    char path[PATH_MAX], *said = NULL;
    size_t size = 0, mistakes = 0;
    FILE *memory = open_memstream(&said, &size);
    snprintf(path, sizeof path, "%s/pipeline.cfg", run->folder);
    if (memory == NULL)
        return;
    run->plan = sl_plan_read(path, NULL, 0, registry, memory, false, &mistakes);
    fclose(memory);
    if (run->plan == NULL) {
        said[strcspn(said, "\n")] = '\0';
        rp_note(run, "The pipeline file cannot be understood here (%s): table, graph and samples are left out.", said);
    } else {
        run->name = run->plan->name;
    }
    free(said);
}

static void count_jobs(rp_run *run)
{
    char path[PATH_MAX];
    for (size_t p = 0; p < run->plan->phase_count; p++)
        for (int64_t i = 1; i <= run->plan->phases[p].repeat; i++)
            for (size_t s = 0; s < run->plan->phases[p].stage_count; s++) {
                const sl_phase *phase = &run->plan->phases[p];
                snprintf(path, sizeof path, "%s/streams/%s-%lld/%s.done", run->folder, phase->name, (long long)i,
                         phase->stages[s].name);
                run->jobs++;
                run->jobs_done += sl_path_exists(path);
            }
}

static const char *version_of(rp_run *run)
{
    if (run->environment == NULL || strncmp(run->environment, "sluice", 6) != 0)
        return NULL;
    const char *at = run->environment + 6 + strspn(run->environment + 6, " ");
    return sl_arena_printf(run->arena, "%.*s", (int)strcspn(at, ",\n"), at);
}

rp_run *rp_run_open(const char *folder, sl_registry *registry, char *error)
{
    struct stat s;
    size_t size = strlen(folder), length = 0;
    while (size > 1 && folder[size - 1] == '/')
        size--;
    if (stat(folder, &s) != 0 || !S_ISDIR(s.st_mode)) {
        snprintf(error, SL_ERROR_SIZE, "there is no folder '%s'; name the folder of a run (runs/NAME)", folder);
        return NULL;
    }
    sl_arena *arena = sl_arena_new();
    rp_run *run = arena != NULL ? sl_arena_alloc(arena, sizeof *run) : NULL;
    if (run == NULL) {
        sl_arena_free(arena);
        snprintf(error, SL_ERROR_SIZE, "out of memory");
        return NULL;
    }
    run->arena = arena;
    run->folder = sl_arena_printf(arena, "%.*s", (int)size, folder);
    run->pipeline = read_text(run, "pipeline.cfg", &length);
    if (run->pipeline == NULL) {
        snprintf(error, SL_ERROR_SIZE, "'%s' is no run's folder: it has no pipeline.cfg; name the folder of a run",
                 folder);
        sl_arena_free(arena);
        return NULL;
    }
    const char *slash = strrchr(run->folder, '/');
    run->name = slash != NULL && slash[1] != '\0' ? slash + 1 : run->folder;
    read_plan(run, registry);
    if (run->plan != NULL)
        count_jobs(run);
    read_lines(run, "metrics.jsonl", read_member, keep_line);
    read_lines(run, "timing.jsonl", read_timing, keep_timing);
    read_log(run);
    run->environment = read_text(run, "environment.txt", &length);
    run->version = version_of(run);
    return run;
}

void rp_run_close(rp_run *run)
{
    if (run == NULL)
        return;
    sl_plan_free(run->plan);
    sl_arena_free(run->arena);
}

/* ---- looking things up */

const sl_stage *rp_stage(const rp_run *run, const char *phase, const char *stage)
{
    for (size_t p = 0; run->plan != NULL && p < run->plan->phase_count; p++)
        for (size_t s = 0; s < run->plan->phases[p].stage_count; s++)
            if (strcmp(run->plan->phases[p].name, phase) == 0 &&
                strcmp(run->plan->phases[p].stages[s].name, stage) == 0)
                return &run->plan->phases[p].stages[s];
    return NULL;
}

int64_t rp_version(const char *model, char slot[64])
{
    const char *at = model != NULL ? strrchr(model, '@') : NULL;
    if (at == NULL || at == model || at - model > 63 || at[1] == '\0' || strspn(at + 1, "0123456789") != strlen(at + 1))
        return -1;
    memcpy(slot, model, (size_t)(at - model));
    slot[at - model] = '\0';
    return strtoll(at + 1, NULL, 10);
}

double rp_number(const rp_line *line, const char *name, const char *end)
{
    const size_t n = strlen(name);
    for (size_t i = 0; i < line->count; i++)
        if (strncmp(line->numbers[i].name, name, n) == 0 && strcmp(line->numbers[i].name + n, end) == 0)
            return line->numbers[i].value;
    return NAN;
}

const char *rp_stream_path(rp_run *run, const sl_stage *stage, int64_t iteration)
{
    static const char *const ends[] = {"", ".part"};
    for (size_t i = 0; i < 2; i++) {
        const char *path = sl_arena_printf(run->arena, "%s/streams/%s-%lld/%s.zst%s", run->folder, stage->phase->name,
                                           (long long)iteration, stage->name, ends[i]);
        if (path != NULL && sl_path_exists(path))
            return path;
    }
    return NULL;
}

double rp_seconds(const char *from, const char *to)
{
    double seconds[2];
    const char *const times[] = {from, to};
    for (int i = 0; i < 2; i++) {
        struct tm utc = {0};
        const char *rest = times[i] != NULL ? strptime(times[i], "%Y-%m-%dT%H:%M:%S", &utc) : NULL;
        if (rest == NULL)
            return NAN;
        seconds[i] = (double)timegm(&utc) + strtod(rest, NULL);
    }
    return seconds[1] - seconds[0];
}
