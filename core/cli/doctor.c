/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* `doctor`: is all that a stream or a run folder holds whole? `recover`: what can be saved of a stream that is not. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/json.h"
#include "core/cli/model.h"
#include "core/run/internal.h"
#include "core/stream/recover.h"

static const char doctor_help[] =
    "sluice doctor STREAM|RUN… [--quiet]\n\n"
    "Reads every record of a stream, or everything in a run's folder (streams, notes of finished stages, metrics, "
    "model\n"
    "versions), and says what is whole, what is unfinished and what is damaged. It changes nothing.\n\n"
    "  --quiet  says only what is damaged\n\n"
    "Exit codes: 0 all is whole (a run may be unfinished), 1 something could not be read, 2 wrong usage, 3 something "
    "is\n"
    "damaged.\n\n"
    "Example:\n"
    "  sluice doctor runs/cream\n";

static const char recover_help[] =
    "sluice recover STREAM --out NEW\n\n"
    "Writes every whole record of a damaged or cut-off stream into a new one, also those behind the damage, and says\n"
    "what is lost. The old file is only read. Of a stream that was being written give the file that ends in .part; "
    "the\n"
    "records in the journal beside it are taken along. The new stream is for reading and for `path` of a source: a "
    "run\n"
    "never takes it for a finished stage's.\n\n"
    "Exit codes: 0 all records were there, 1 failed, 2 wrong usage, 3 written, but something is lost or nothing was\n"
    "found.\n\n"
    "Example:\n"
    "  sluice recover runs/cream/streams/align-1/answers.zst.part --out answers.zst\n";

typedef struct visit {
    const sl_command *command;
    bool quiet;
    int code;      /* the worst so far */
    char run[512]; /* the folder in hand */
    size_t streams, unfinished, versions;
    uint64_t records;
} visit;

static void finding(visit *v, int code, const char *format, ...) SLUICE_PRINTF(3, 4);
static void finding(visit *v, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("%s", code == SL_EXIT_OK ? "" : code == SL_EXIT_DAMAGED ? "DAMAGED " : "FAILED ");
    vprintf(format, args);
    putchar('\n');
    va_end(args);
    if (code > v->code)
        v->code = code;
}

/* One stream. `expected` records, -1 = unknown. */
static void see_stream(visit *v, const char *path, int64_t expected)
{
    char error[512];
    uint64_t records;
    const size_t length = strlen(path);
    const bool part = length > 5 && strcmp(path + length - 5, ".part") == 0;
    const int rc = sl_stream_verify(path, &records, error, sizeof error);
    v->streams++;
    v->records += records;
    if (part && (rc == SLUICE_OK || rc == SLUICE_CORRUPT)) {
        v->unfinished++;
        if (!v->quiet)
            finding(v, SL_EXIT_OK, "%s: unfinished, %" PRIu64 " records so far", path, records);
    } else if (rc == SLUICE_CORRUPT) {
        finding(v, SL_EXIT_DAMAGED, "%s (%" PRIu64 " whole records before it; sluice recover saves what can be saved)",
                error, records);
    } else if (rc < 0) {
        finding(v, SL_EXIT_FAILED, "%s", error);
    } else if (expected >= 0 && (uint64_t)expected != records) {
        finding(v, SL_EXIT_DAMAGED,
                "%s: %" PRIu64 " records, but its stage finished with %" PRId64 "; run the pipeline with --fresh", path,
                records, expected);
    } else if (!v->quiet) {
        finding(v, SL_EXIT_OK, "%s: whole, %" PRIu64 " records", path, records);
    }
}

/* The number of records in a finished stage's note, -1 when there is no note, -2 when it is damaged. `entry`: the
 * stage's stream or the note itself. */
static int64_t note_records(visit *v, const char *entry)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%.*s.done", (int)(strrchr(entry, '.') - entry), entry);
    sl_buffer text = {0};
    if (!sl_path_exists(path))
        return -1;
    int64_t records = -2;
    if (sl_file_read(path, &text) == SLUICE_OK) {
        static const char key[] = "\"records\":";
        const char *at = strstr((const char *)text.data, key);
        char *end = NULL;
        if (at && text.size > 0 && text.data[text.size - 1] == '\n')
            records = (int64_t)strtoll(at + sizeof key - 1, &end, 10);
        if (records < 0 || !end || *end != '}')
            records = -2;
    }
    sl_buffer_free(&text);
    if (records == -2)
        finding(v, SL_EXIT_DAMAGED, "%s: is no whole note of a finished stage; the next run makes its stage again",
                path);
    return records;
}

typedef void (*entry_visitor)(visit *, const char *path, const char *name);

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void each_entry(visit *v, const char *folder, entry_visitor see)
{
    struct dirent **entries;
    const int count = scandir(folder, &entries, NULL, by_name);
    if (count < 0 && errno != ENOENT)
        finding(v, SL_EXIT_FAILED, "%s: cannot be listed: %s", folder, strerror(errno));
    for (int i = 0; i < count; i++) {
        char path[PATH_MAX];
        if (entries[i]->d_name[0] != '.' &&
            snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name) < (int)sizeof path)
            see(v, path, entries[i]->d_name);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

static bool ends_in(const char *name, const char *ending)
{
    const size_t length = strlen(name), size = strlen(ending);
    return length > size && strcmp(name + length - size, ending) == 0;
}

/* A stage without a stream has one too. */
static void see_note(visit *v, const char *path)
{
    char stream[PATH_MAX];
    const int64_t records = note_records(v, path);
    snprintf(stream, sizeof stream, "%.*s.zst", (int)(strrchr(path, '.') - path), path);
    if (records > 0 && !v->quiet && !sl_path_exists(stream))
        finding(v, SL_EXIT_OK, "%s: whole, %" PRId64 " records, which were in memory alone", path, records);
}

static void see_stream_entry(visit *v, const char *path, const char *name)
{
    if (ends_in(name, ".zst.part"))
        see_stream(v, path, -1);
    else if (ends_in(name, ".zst"))
        see_stream(v, path, note_records(v, path));
    else if (ends_in(name, ".done"))
        see_note(v, path);
}

static void see_phase(visit *v, const char *path, const char *name)
{
    (void)name;
    each_entry(v, path, see_stream_entry);
}

/* Every line of a .jsonl file must be JSON; only a run that was killed may have left half a line at the end. */
static void see_lines(visit *v, const char *name)
{
    char path[PATH_MAX], error[256];
    snprintf(path, sizeof path, "%s/%s", v->run, name);
    sl_buffer text = {0}, value = {0};
    if (!sl_path_exists(path))
        return;
    if (sl_file_read(path, &text) != SLUICE_OK) {
        finding(v, SL_EXIT_FAILED, "%s: cannot be read: %s", path, strerror(errno));
        return;
    }
    size_t line = 1, at = 0;
    for (; at < text.size; line++) {
        const uint8_t *end = memchr(text.data + at, '\n', text.size - at);
        const size_t size = end ? (size_t)(end - text.data) - at : text.size - at;
        value.size = 0;
        if (!end || sl_json_to_cbor((const char *)text.data + at, size, &value, error, sizeof error) < 0) {
            finding(v, SL_EXIT_DAMAGED, "%s:%zu: %s; the next run writes it again", path, line,
                    end ? "is no JSON" : "half a line");
            break;
        }
        at += size + 1;
    }
    if (at >= text.size && !v->quiet)
        finding(v, SL_EXIT_OK, "%s: whole, %zu lines", path, line - 1);
    sl_buffer_free(&text);
    sl_buffer_free(&value);
}

/* A version is whole when it can be opened: all of its files are read for that. */
static void see_version(visit *v, const char *path, const char *name)
{
    static sl_models models; /* opened once, closed by the system: the program ends after this */
    static bool tried;
    (void)name;
    if (!tried) {
        tried = true;
        sl_models_open(v->command, 0, &models);
    }
    v->versions++;
    sluice_model *model;
    if (!models.service || sl_models_load(v->command, &models, path, &model) < 0) {
        finding(v, models.service ? SL_EXIT_DAMAGED : SL_EXIT_FAILED,
                "%s: cannot be opened (see above); the next run "
                "makes it again",
                path);
        return;
    }
    models.service->close(model);
    if (!v->quiet)
        finding(v, SL_EXIT_OK, "%s: whole", path);
}

static void see_run(visit *v, const char *folder)
{
    char path[PATH_MAX];
    snprintf(v->run, sizeof v->run, "%s", folder);
    v->streams = v->unfinished = v->versions = 0;
    v->records = 0;
    snprintf(path, sizeof path, "%s/streams", folder);
    if (!sl_path_exists(path)) {
        finding(v, SL_EXIT_FAILED, "%s: is no run's folder: it has no streams; name a run, or a stream", folder);
        return;
    }
    const int before = v->code;
    v->code = SL_EXIT_OK;
    each_entry(v, path, see_phase);
    see_lines(v, "metrics.jsonl");
    see_lines(v, "timing.jsonl");
    snprintf(path, sizeof path, "%s/models", folder);
    each_entry(v, path, see_version);
    printf("%s: %s: %zu streams with %" PRIu64 " records, %zu unfinished; %zu model versions\n", folder,
           v->code == SL_EXIT_OK ? "whole" : "not whole", v->streams, v->records, v->unfinished, v->versions);
    if (before > v->code)
        v->code = before;
}

static int command_doctor(const sl_command *command, int argc, char **argv)
{
    sl_words rest = {0};
    visit v = {.command = command};
    const sl_option options[] = {{.name = "quiet", .kind = SL_FLAG, .to = &v.quiet}, {0}};
    int code = sl_options_read(command, argc, argv, options, &rest);
    if (code < 0 && rest.count == 0)
        code = sl_usage(command, "a stream or a run's folder is wanted");
    for (size_t i = 0; code < 0 && i < rest.count; i++) {
        struct stat st;
        if (stat(rest.items[i], &st) < 0)
            finding(&v, SL_EXIT_FAILED,
                    errno == ENOENT ? "%s: %s; name a run's folder (runs/NAME), or a stream below its streams/"
                                    : "%s: %s",
                    rest.items[i], strerror(errno));
        else if (S_ISDIR(st.st_mode))
            see_run(&v, rest.items[i]);
        else
            see_stream(&v, rest.items[i], -1);
    }
    sl_words_free(&rest);
    return code < 0 ? v.code : code;
}

static int command_recover(const sl_command *command, int argc, char **argv)
{
    sl_words rest = {0};
    const char *to = NULL;
    const sl_option options[] = {{.name = "out", .kind = SL_WORD, .to = &to}, {0}};
    int code = sl_options_read(command, argc, argv, options, &rest);
    if (code < 0 && rest.count != 1)
        code = sl_usage(command, "one stream is wanted, %zu are given", rest.count);
    if (code < 0 && (!to || !*to))
        code = sl_usage(command, "--out is wanted: the new stream");
    if (code < 0) {
        sl_salvage s;
        char error[512];
        const int rc = sl_stream_recover(rest.items[0], to, &s, error, sizeof error);
        if (rc < 0) {
            const bool there = sl_path_exists(rest.items[0]);
            code =
                sl_fail(command, sl_exit_of(rc), "%s%s", error,
                        there ? "" : "; streams lie in RUN/streams/PHASE-ITERATION/, unfinished ones end in .zst.part");
        } else {
            printf("%s: %" PRIu64 " records", to, s.records);
            if (s.missing > 0)
                printf(", %" PRIu64 " lost between them", s.missing);
            if (s.repeated > 0)
                printf(", %" PRIu64 " left out because their id had come before", s.repeated);
            printf(s.complete ? "; all there were\n"
                              : "; %" PRIu64 " bytes belong to nothing whole, and whether more followed is not known\n",
                   s.lost_bytes);
            code = s.complete ? SL_EXIT_OK : SL_EXIT_DAMAGED;
        }
    }
    sl_words_free(&rest);
    return code;
}

const sl_command sl_command_doctor = {"doctor", "says whether a stream or a run is whole", doctor_help, command_doctor};
const sl_command sl_command_recover = {"recover", "saves the whole records of a damaged stream", recover_help,
                                       command_recover};
