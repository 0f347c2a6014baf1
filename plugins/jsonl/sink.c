/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>
#include "plugins/jsonl/classes.h"

#define BLOCK 131072

enum form { FORM_RECORDS, FORM_PROMPT, FORM_COMPLETION, FORM_PREFERENCE };

struct sink {
    const char *path;
    int form;
    bool meta;

    const sluice_host *host;
    char *part; /* the name it has until it is whole */
    int fd;
    bool open;
    ZSTD_CStream *stream; /* NULL = plain */
    char *in, *out;       /* BLOCK bytes each: collected lines, compressed bytes */
    size_t filled;
    uint64_t lines;
};

static const char *const forms[] = {"records", "prompt", "completion", "preference", NULL};

static const sluice_param params[] = {
    SLUICE_FILE(struct sink, path, .required = true,
                .doc = "The file to write; a name that ends in .zst is compressed by zstd."),
    SLUICE_CHOICE(struct sink, form, .value = FORM_RECORDS, .choices = forms,
                  .doc =
                      "Whole records, or lines as TRL reads them: prompts, one line a candidate, or one line a pair."),
    SLUICE_BOOL(struct sink, meta, .value = 1,
                .doc =
                    "Write the record's meta fields beside these, but for those whose names are taken (form = records "
                    "has them in any case)."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {{"lines", "lines", "Lines written."}, {0}};

/* What a killed run left under the part's name is written over; a lock tells it from that of a run at work. */
static int open_part(struct sink *sink)
{
    struct stat ours, named;
    do {
        sink->fd = open(sink->part, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
        if (sink->fd >= 0 && flock(sink->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
            close(sink->fd);
            return sluice_error(sink->host, SLUICE_IO,
                                "%s is being written by another run; wait for it, or give another path", sink->path);
        }
        if (sink->fd < 0)
            return sluice_error(sink->host, SLUICE_IO,
                                "cannot write %s: %s; give a path in a folder that exists and can be written",
                                sink->path, strerror(errno));
        sink->open = fstat(sink->fd, &ours) == 0 && stat(sink->part, &named) == 0 && ours.st_dev == named.st_dev &&
                     ours.st_ino == named.st_ino;
        if (!sink->open) /* the other run finished between the two calls, and took the file along */
            close(sink->fd);
    } while (!sink->open);
    if (ftruncate(sink->fd, 0) == 0)
        return SLUICE_OK;
    return sluice_error(sink->host, SLUICE_IO, "cannot write %s: %s", sink->part, strerror(errno));
}

static int init(void *self, const sluice_host *host)
{
    struct sink *sink = self;
    size_t length = strlen(sink->path);
    sink->host = host;
    sink->in = malloc(BLOCK);
    sink->out = malloc(BLOCK);
    sink->part = malloc(length + sizeof ".part");
    if (!sink->in || !sink->out || !sink->part)
        return sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
    snprintf(sink->part, length + sizeof ".part", "%s.part", sink->path);
    if (length > 4 && strcmp(sink->path + length - 4, ".zst") == 0) {
        sink->stream = ZSTD_createCStream();
        if (!sink->stream)
            return sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
        ZSTD_CCtx_setParameter(sink->stream, ZSTD_c_checksumFlag, 1);
    }
    return open_part(sink);
}

static void fini(void *self)
{
    struct sink *sink = self;
    if (sink->open) { /* not finished: nothing half-written stays */
        close(sink->fd);
        unlink(sink->part);
    }
    ZSTD_freeCStream(sink->stream);
    free(sink->in);
    free(sink->out);
    free(sink->part);
}

static int write_all(struct sink *sink, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t written = write(sink->fd, bytes, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return sluice_error(sink->host, SLUICE_IO, "cannot write %s: %s", sink->path, strerror(errno));
        bytes += written;
        size -= (size_t)written;
    }
    return SLUICE_OK;
}

static int flush(struct sink *sink, bool last)
{
    size_t size = sink->filled;
    sink->filled = 0;
    if (!sink->stream)
        return write_all(sink, sink->in, size);
    ZSTD_inBuffer in = {sink->in, size, 0};
    size_t left;
    do {
        ZSTD_outBuffer out = {sink->out, BLOCK, 0};
        left = ZSTD_compressStream2(sink->stream, &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
        if (ZSTD_isError(left))
            return sluice_error(sink->host, SLUICE_FAILED, "cannot compress %s: %s", sink->path,
                                ZSTD_getErrorName(left));
        int rc = write_all(sink, sink->out, out.pos);
        if (rc < 0)
            return rc;
    } while (last ? left > 0 : in.pos < in.size);
    return SLUICE_OK;
}

static int add(struct sink *sink, const char *bytes, size_t size)
{
    while (size > 0) {
        size_t now = size < BLOCK - sink->filled ? size : BLOCK - sink->filled;
        memcpy(sink->in + sink->filled, bytes, now);
        sink->filled += now;
        bytes += now;
        size -= now;
        if (sink->filled == BLOCK) {
            int rc = flush(sink, false);
            if (rc < 0)
                return rc;
        }
    }
    return SLUICE_OK;
}

/* Takes `text`. */
static int add_line(struct sink *sink, char *text)
{
    if (!text)
        return sluice_error(sink->host, SLUICE_NO_MEMORY, "out of memory");
    int rc = add(sink, text, strlen(text));
    free(text);
    sink->lines++;
    return rc < 0 ? rc : add(sink, "\n", 1);
}

/* The record's meta fields, put beside what the line has. */
static int add_meta(struct sink *sink, const sluice_record *record, json_t *object)
{
    char *text = sluice_record_json(record);
    json_t *whole = text ? json_loads(text, 0, NULL) : NULL, *meta = json_object_get(whole, "meta");
    int rc = !text || !whole || (meta && json_object_update_missing(object, meta) != 0) ? SLUICE_NO_MEMORY : SLUICE_OK;
    free(text);
    json_decref(whole);
    return rc < 0 ? sluice_error(sink->host, rc, "out of memory") : SLUICE_OK;
}

static int add_object(struct sink *sink, const sluice_record *record, json_t *object)
{
    if (object && sink->meta) {
        int rc = add_meta(sink, record, object);
        if (rc < 0) {
            json_decref(object);
            return rc;
        }
    }
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return add_line(sink, text);
}

/* Answers stand as texts beside a text and as messages beside messages. */
static json_t *answer(const char *text, bool messages)
{
    return messages ? json_pack("[{s:s, s:s}]", "role", "assistant", "content", text) : json_string(text);
}

/* {"id", "prompt"}; `repeat` > 0 tells lines of one record apart. NULL when out of memory. */
static json_t *prompt_object(const sluice_record *record, size_t repeat)
{
    const sluice_message *messages;
    size_t count = sluice_record_messages(record, &messages);
    json_t *prompt =
        count ? json_array() : json_string(sluice_record_prompt(record) ? sluice_record_prompt(record) : "");
    for (size_t i = 0; i < count; i++)
        json_array_append_new(prompt,
                              json_pack("{s:s, s:s}", "role", messages[i].role, "content", messages[i].content));
    json_t *id =
        repeat ? json_sprintf("%s#%zu", sluice_record_id(record), repeat) : json_string(sluice_record_id(record));
    return json_pack("{s:o, s:o}", "id", id, "prompt", prompt);
}

static int text_of(struct sink *sink, const sluice_record *record, size_t index, const char **text)
{
    sluice_candidate candidate;
    int rc = sluice_record_candidate(record, index, &candidate);
    if (rc < 0)
        return sluice_record_error(sink->host, record, rc, "there is no candidate %zu", index);
    if (!candidate.text)
        return sluice_record_error(sink->host, record, SLUICE_BAD_RECORD, "candidate %zu has no text", index);
    *text = candidate.text;
    return SLUICE_OK;
}

static int add_completions(struct sink *sink, const sluice_record *record)
{
    const sluice_message *messages;
    bool chat = sluice_record_messages(record, &messages) > 0;
    for (size_t i = 0; i < sluice_record_candidates(record); i++) {
        const char *text;
        int rc = text_of(sink, record, i, &text);
        if (rc < 0)
            return rc;
        json_t *line = prompt_object(record, i);
        if (line)
            json_object_set_new(line, "completion", answer(text, chat));
        if ((rc = add_object(sink, record, line)) < 0)
            return rc;
    }
    return SLUICE_OK;
}

static int add_preferences(struct sink *sink, const sluice_record *record)
{
    const sluice_message *messages;
    bool chat = sluice_record_messages(record, &messages) > 0;
    for (size_t i = 0; i < sluice_record_pairs(record); i++) {
        sluice_pair pair;
        const char *chosen, *rejected;
        int rc = sluice_record_pair(record, i, &pair);
        if (rc < 0 || (rc = text_of(sink, record, pair.chosen, &chosen)) < 0 ||
            (rc = text_of(sink, record, pair.rejected, &rejected)) < 0)
            return rc;
        json_t *line = prompt_object(record, i);
        if (line) {
            json_object_set_new(line, "chosen", answer(chosen, chat));
            json_object_set_new(line, "rejected", answer(rejected, chat));
        }
        if ((rc = add_object(sink, record, line)) < 0)
            return rc;
    }
    return SLUICE_OK;
}

static int process(void *self, sluice_record *record)
{
    struct sink *sink = self;
    switch (sink->form) {
    case FORM_RECORDS:
        return add_line(sink, sluice_record_json(record));
    case FORM_PROMPT:
        return add_object(sink, record, prompt_object(record, 0));
    case FORM_COMPLETION:
        return add_completions(sink, record);
    default:
        return add_preferences(sink, record);
    }
}

static int finish(void *self)
{
    struct sink *sink = self;
    int rc = flush(sink, true);
    if (rc < 0)
        return rc;
    if (fsync(sink->fd) != 0 || rename(sink->part, sink->path) != 0)
        return sluice_error(sink->host, SLUICE_IO, "cannot write %s: %s", sink->path, strerror(errno));
    sink->open = false;
    close(sink->fd);
    sluice_metric(sink->host, "lines", (double)sink->lines);
    return SLUICE_OK;
}

const sluice_stage_class jsonl_sink_class = {
    SLUICE_STAGE_CLASS(SLUICE_SINK, "jsonl-sink", "Write records to a file of JSON lines", struct sink, params),
    .base.reads = SLUICE_FIELD_PROMPT,
    .base.traits = SLUICE_NO_OUTPUT,
    .base.doc =
        "The file appears under its name when it is whole. form = \"records\" writes everything (as `sluice "
        "cat` prints it); the "
        "others write what TRL and jsonl-source read: {prompt}, {prompt, completion} for each candidate, "
        "{prompt, chosen, "
        "rejected} for each pair. Further lines of one record get #1, #2, … after its id. A repeated phase leaves "
        "the file of its last iteration.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .process = process,
    .finish = finish,
};
