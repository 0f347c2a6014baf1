/* @ID@: prompts from a plain text file, a line each. Empty lines are left out. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/stage.h>

struct source {
    const char *path;
    int64_t limit;

    const sluice_host *host;
    FILE *file;
    char *line; /* grown by getline */
    size_t room;
    uint64_t number, records;
};

static const sluice_param params[] = {
    SLUICE_FILE(struct source, path, .required = true, .doc = "The file: UTF-8 text, one prompt a line."),
    SLUICE_INT(struct source, limit, .value = 0, .min = 0, .unit = "records",
               .doc = "Take no more than that; 0 = all."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {{"records", "records", "Prompts read."}, {NULL, NULL, NULL}};

static int init(void *self, const sluice_host *host)
{
    struct source *source = self;
    source->host = host;
    source->file = fopen(source->path, "r");
    if (!source->file)
        return sluice_error(host, SLUICE_BAD_FILE, "cannot open %s: %s", source->path, strerror(errno));
    return SLUICE_OK;
}

static void fini(void *self)
{
    struct source *source = self;
    if (source->file)
        fclose(source->file);
    free(source->line);
}

/* The next line that is not empty, without its end. */
static int read_line(struct source *source)
{
    ssize_t length;
    do {
        errno = 0;
        length = getline(&source->line, &source->room, source->file);
        if (length < 0 && (ferror(source->file) || errno == ENOMEM))
            return sluice_error(source->host, SLUICE_IO, "cannot read %s: %s", source->path, strerror(errno));
        if (length < 0)
            return SLUICE_END;
        source->number++;
        if (strlen(source->line) != (size_t)length)
            return sluice_error(source->host, SLUICE_BAD_FILE, "%s:%llu: a zero byte; is it a text file?", source->path,
                                (unsigned long long)source->number);
        while (length > 0 && strchr("\r\n", source->line[length - 1]))
            source->line[--length] = '\0';
    } while (length == 0);
    return SLUICE_OK;
}

static int next(void *self, sluice_record *record)
{
    struct source *source = self;
    char id[32];
    if (source->limit > 0 && source->records == (uint64_t)source->limit)
        return SLUICE_END;
    int rc = read_line(source);
    if (rc != SLUICE_OK)
        return rc;
    snprintf(id, sizeof id, "line-%llu", (unsigned long long)source->number); /* unique in the stream */
    rc = sluice_record_set_id(record, id);
    if (rc >= 0)
        rc = sluice_record_set_prompt(record, source->line);
    if (rc < 0)
        return sluice_error(source->host, rc, "%s:%llu: the line is refused; is it UTF-8?", source->path,
                            (unsigned long long)source->number);
    source->records++;
    sluice_progress(source->host, source->records, (uint64_t)source->limit, "records");
    return SLUICE_OK;
}

static int finish(void *self)
{
    struct source *source = self;
    sluice_metric(source->host, "records", (double)source->records);
    return SLUICE_OK;
}

static const sluice_stage_class source_class = {
    SLUICE_STAGE_CLASS(SLUICE_SOURCE, "@ID@", "Prompts from a text file, a line each", struct source, params),
    .base.adds = SLUICE_FIELD_PROMPT,
    .base.doc = "The id of a record is line-N, N counted from 1 over all lines of the file.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .next = next,
    .finish = finish,
};
SLUICE_PLUGIN("@NAME@", "1.0", "MIT", &source_class.base);
