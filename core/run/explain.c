/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a stage is reused or run: its inputs (key.c) beside those that the folder has of its last run, or, in a new
 * folder, beside the most alike of its stage in the store.
 */
#include "core/run/internal.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_REASONS = 4, MOST_VALUE = 40 };

/* The next line of inputs: its name and value, not ended. False past the last. */
struct line {
    const char *name, *value, *end;
    size_t name_size, value_size;
};

static bool next_line(const char **text, struct line *line)
{
    const char *tab = strchr(*text, '\t'), *end = tab != NULL ? strchr(tab, '\n') : NULL;
    if (end == NULL)
        return false;
    *line = (struct line){
        .name = *text, .value = tab + 1, .name_size = (size_t)(tab - *text), .value_size = (size_t)(end - tab - 1)};
    *text = end + 1;
    return true;
}

static bool same(const char *a, size_t a_size, const char *b, size_t b_size)
{
    return a_size == b_size && memcmp(a, b, a_size) == 0;
}

static bool find_line(const char *text, const struct line *wanted, struct line *found)
{
    while (next_line(&text, found))
        if (same(found->name, found->name_size, wanted->name, wanted->name_size))
            return true;
    return false;
}

/* How many lines of `text` are not in `other`. */
static size_t differences(const char *text, const char *other)
{
    struct line line, was;
    size_t count = 0;
    while (next_line(&text, &line))
        count += !find_line(other, &line, &was) || !same(line.value, line.value_size, was.value, was.value_size);
    return count;
}

static const char *shown(const struct line *line, sl_arena *arena)
{
    const bool cut = line->value_size > MOST_VALUE;
    const char *text =
        sl_arena_printf(arena, "%.*s%s", (int)(cut ? MOST_VALUE : line->value_size), line->value, cut ? "…" : "");
    return text != NULL ? text : "";
}

static const char *reason(const struct line *now, const struct line *was, sl_arena *arena)
{
    static const struct {
        const char *prefix, *format; /* of what follows the prefix */
    } forms[] = {{"plugin of ", "the plugin of '%s' changed"},
                 {"content of ", "the content of %s changed"},
                 {"model ", "%s changes"},
                 {"numbers of ", "the numbers of %s change"},
                 {"input ", "its input '%s' changes"},
                 {"service ", "the service '%s' computes with other numbers"}};
    const char *name = sl_arena_printf(arena, "%.*s", (int)now->name_size, now->name);
    static const char parameter[] = "parameter ";
    for (size_t i = 0; name != NULL && i < sizeof forms / sizeof *forms; i++)
        if (strncmp(name, forms[i].prefix, strlen(forms[i].prefix)) == 0) {
            const char *format = forms[i].format, *at = strstr(format, "%s");
            return sl_arena_printf(arena, "%.*s%s%s", (int)(at - format), format, name + strlen(forms[i].prefix),
                                   at + 2);
        }
    if (name != NULL && strncmp(name, parameter, sizeof parameter - 1) == 0)
        name += sizeof parameter - 1;
    return sl_arena_printf(arena, "%s: %s → %s", name, shown(was, arena), shown(now, arena));
}

/* The lines that both have and that differ; where there is none, those that only one has. */
static void print_reasons(const char *now, const char *was, sl_arena *arena, FILE *out)
{
    struct line line, other;
    size_t count = 0;
    for (const char *text = now; next_line(&text, &line);) {
        if (!find_line(was, &line, &other) || same(line.value, line.value_size, other.value, other.value_size))
            continue;
        if (count++ < MOST_REASONS) {
            const char *why = reason(&line, &other, arena);
            fprintf(out, "%s%s", count > 1 ? "; " : "", why != NULL ? why : "out of memory");
        }
    }
    if (count > MOST_REASONS)
        fprintf(out, "; and %zu more", count - MOST_REASONS);
    if (count > 0)
        return;
    for (const char *text = now; next_line(&text, &line);)
        if (!find_line(was, &line, &other) && count++ < MOST_REASONS)
            fprintf(out, "%s%.*s is new", count > 1 ? "; " : "", (int)line.name_size, line.name);
    for (const char *text = was; next_line(&text, &line);)
        if (!find_line(now, &line, &other) && count++ < MOST_REASONS)
            fprintf(out, "%s%.*s is gone", count > 1 ? "; " : "", (int)line.name_size, line.name);
    if (count == 0)
        fputs("what it left is gone or not whole", out);
}

struct search {
    const sl_job *job;
    sl_arena *arena;
    const char *best;
    size_t least;
    int64_t used;
};

static bool is_same_stage(const char *a, const char *b)
{
    static const char *const names[] = {"phase", "stage", "iteration"};
    bool equal = true;
    for (size_t i = 0; equal && i < sizeof names / sizeof *names; i++) {
        struct line x, y, wanted = {.name = names[i], .name_size = strlen(names[i])};
        equal = find_line(a, &wanted, &x) && find_line(b, &wanted, &y) &&
                same(x.value, x.value_size, y.value, y.value_size);
    }
    return equal;
}

static int compare_entry(void *context, const sl_store_entry *entry)
{
    struct search *s = context;
    const char *inputs = (const char *)s->job->inputs.data;
    if (!is_same_stage(inputs, entry->inputs))
        return SLUICE_OK;
    const size_t count = differences(inputs, entry->inputs);
    if (s->best == NULL || count < s->least || (count == s->least && entry->used > s->used)) {
        s->best = sl_arena_strdup(s->arena, entry->inputs);
        s->least = count;
        s->used = entry->used;
    }
    return SLUICE_OK;
}

/* What the job is compared with; NULL = nothing. */
static const char *earlier_inputs(const sl_job *job, sl_arena *arena)
{
    const char *path = sl_job_path(job, ".inputs", arena), *found = NULL;
    sl_buffer text = {0};
    if (path != NULL && sl_file_read(path, &text) == SLUICE_OK && text.size > 0)
        found = sl_arena_strdup(arena, (const char *)text.data);
    sl_buffer_free(&text);
    struct search search = {.job = job, .arena = arena};
    if (found == NULL && job->run->store != NULL)
        sl_store_visit(job->run->store, compare_entry, &search);
    return found != NULL ? found : search.best;
}

/* A run that was interrupted while it computed this very output left a part of it. */
static bool goes_on(const sl_job *job, sl_arena *arena)
{
    static const char *const parts[] = {".zst.part", ".zst.earlier.part"};
    char error[SL_ERROR_SIZE];
    bool found = false;
    for (size_t i = 0; !found && i < sizeof parts / sizeof *parts; i++) {
        const char *path = sl_job_path(job, parts[i], arena);
        sl_stream_reader *reader;
        if (path == NULL || sl_stream_open(path, false, &reader, error, sizeof error) < 0)
            continue;
        found = memcmp(sl_stream_reader_info(reader)->key, job->key, sizeof job->key) == 0;
        sl_stream_reader_close(reader);
    }
    return found;
}

static void print_why(const sl_job *job, sl_arena *arena, FILE *out)
{
    const char *was = earlier_inputs(job, arena);
    if (job->reader != NULL)
        fprintf(out, "'%s' needs its records, which stay in memory alone", job->reader->stage->name);
    else if (job->run->fresh)
        fputs("--fresh", out);
    else if (job->damage != NULL)
        fprintf(out, "its entry in the store is damaged (%s)", job->damage);
    else if (goes_on(job, arena))
        fputs("goes on where it was interrupted", out);
    else if (was == NULL)
        fputs("nothing like it was run before", out);
    else
        print_reasons((const char *)job->inputs.data, was, arena, out);
}

int sl_explain(sl_execution *run, FILE *out)
{
    char where[96];
    int widest_place = 5, widest_name = 5;
    size_t runs = 0;
    for (size_t j = 0; j < run->job_count; j++) {
        const int place = (int)strlen(sl_job_where(&run->jobs[j], where, sizeof where));
        const int name = (int)strlen(run->jobs[j].stage->name);
        widest_place = place > widest_place ? place : widest_place;
        widest_name = name > widest_name ? name : widest_name;
    }
    for (size_t j = 0; j < run->job_count; j++) {
        const sl_job *job = &run->jobs[j];
        sl_arena *arena = sl_arena_new();
        if (arena == NULL)
            return SLUICE_NO_MEMORY;
        fprintf(out, "%-*s  %-*s  ", widest_place, sl_job_where(job, where, sizeof where), widest_name,
                job->stage->name);
        if (job->reuse) {
            fprintf(out, "reused, from %s%s\n", job->stored ? "the store" : "this folder",
                    job->unread ? "; its records, in memory alone, are not needed" : "");
        } else {
            fputs("runs: ", out);
            print_why(job, arena, out);
            fputc('\n', out);
            runs++;
        }
        sl_arena_free(arena);
    }
    fprintf(out, "%zu of %zu run; the folder is %s, the store %s\n", runs, run->job_count, run->folder,
            run->store != NULL ? sl_store_path(run->store) : "off");
    return SLUICE_OK;
}
