/* @ID@: answers as a table of tab-separated values: id, prompt, number of the answer, answer. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sluice/stage.h>

struct sink {
    const char *path;

    const sluice_host *host;
    char *part; /* the name the file has until it is whole */
    FILE *file;
    uint64_t lines;
};

static const sluice_param params[] = {SLUICE_FILE(struct sink, path, .required = true, .doc = "The file to write."),
                                      SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {{"lines", "lines", "Lines written, the heading not counted."},
                                             {NULL, NULL, NULL}};

static int cannot_write(const struct sink *sink)
{
    return sluice_error(sink->host, SLUICE_IO, "cannot write %s: %s", sink->path, strerror(errno));
}

static int init(void *self, const sluice_host *host)
{
    struct sink *sink = self;
    const size_t room = strlen(sink->path) + sizeof ".part";
    sink->host = host;
    sink->part = malloc(room);
    if (!sink->part)
        return sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
    snprintf(sink->part, room, "%s.part", sink->path);
    sink->file = fopen(sink->part, "w");
    if (!sink->file)
        return cannot_write(sink);
    return fputs("id\tprompt\tnumber\tanswer\n", sink->file) < 0 ? cannot_write(sink) : SLUICE_OK;
}

/* A file that is not whole does not stay. */
static void fini(void *self)
{
    struct sink *sink = self;
    if (sink->file) {
        fclose(sink->file);
        unlink(sink->part);
    }
    free(sink->part);
}

/* Tabs, line ends and backslashes as \t, \n, \r and \\: one record is one line, whatever it holds. */
static void put(const char *text, FILE *file)
{
    static const char special[] = "\t\n\r\\", letters[] = "tnr\\";
    for (; *text; text++) {
        const char *found = strchr(special, *text);
        if (found)
            fputc('\\', file);
        fputc(found ? letters[found - special] : *text, file);
    }
}

/* The prompt as text, or the last of its messages. */
static const char *prompt_of(const sluice_record *record)
{
    const sluice_message *messages;
    const size_t count = sluice_record_messages(record, &messages);
    const char *text = count > 0 ? messages[count - 1].content : sluice_record_prompt(record);
    return text ? text : "";
}

static int process(void *self, sluice_record *record)
{
    struct sink *sink = self;
    for (size_t i = 0; i < sluice_record_candidates(record); i++) {
        sluice_candidate candidate;
        const int rc = sluice_record_candidate(record, i, &candidate);
        if (rc < 0)
            return rc;
        put(sluice_record_id(record), sink->file);
        fputc('\t', sink->file);
        put(prompt_of(record), sink->file);
        fprintf(sink->file, "\t%zu\t", i);
        put(candidate.text ? candidate.text : "", sink->file);
        fputc('\n', sink->file);
        sink->lines++;
    }
    return ferror(sink->file) ? cannot_write(sink) : SLUICE_OK;
}

/* On the disk first, then under its name: nobody ever sees half of it. */
static int finish(void *self)
{
    struct sink *sink = self;
    if (fflush(sink->file) != 0 || fsync(fileno(sink->file)) != 0 || rename(sink->part, sink->path) != 0)
        return cannot_write(sink);
    fclose(sink->file);
    sink->file = NULL;
    sluice_metric(sink->host, "lines", (double)sink->lines);
    return SLUICE_OK;
}

static const sluice_stage_class sink_class = {
    SLUICE_STAGE_CLASS(SLUICE_SINK, "@ID@", "Write answers as tab-separated values", struct sink, params),
    .base.reads = SLUICE_FIELD_PROMPT | SLUICE_FIELD_CANDIDATES,
    .base.traits = SLUICE_NO_OUTPUT,
    .base.doc =
        "One line an answer: id, prompt (of messages the last), number of the answer from 0, answer. Tabs, line ends "
        "and backslashes are written \\t, \\n, \\r, \\\\. The file appears under its name when it is whole.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .process = process,
    .finish = finish,
};
SLUICE_PLUGIN("@NAME@", "1.0", "MIT", &sink_class.base);
