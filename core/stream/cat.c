/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/stream/cat.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/stream/stream.h"

/* Of a stage that came to its end without a stream there is a note all the same. */
static bool is_not_kept(const char *path)
{
    const char *ending = strrchr(path, '.');
    sl_buffer note = {0};
    const bool noted = ending && strcmp(ending, ".zst") == 0 && access(path, F_OK) != 0 &&
                       sl_buffer_printf(&note, "%.*s.done", (int)(ending - path), path) == SLUICE_OK &&
                       access((const char *)note.data, F_OK) == 0;
    sl_buffer_free(&note);
    return noted;
}

/* A stream that a run has not finished lies under another name; `cat` finds it by the one people know. */
static int open_any(const char *path, bool follow, sl_stream_reader **reader, char *error, size_t error_size)
{
    sl_buffer part = {0};
    if (!follow && access(path, F_OK) != 0 && sl_buffer_printf(&part, "%s.part", path) == SLUICE_OK &&
        access((const char *)part.data, F_OK) == 0)
        path = (const char *)part.data;
    int rc = sl_stream_open(path, follow, reader, error, error_size);
    sl_buffer_free(&part);
    if (rc < 0 && is_not_kept(path))
        snprintf(error, error_size, "%s: this stage keeps no stream: it writes none, or has in_memory = true", path);
    return rc;
}

static int print(const sl_record *record, bool flush, FILE *out, sl_buffer *line)
{
    line->size = 0;
    int rc = sl_record_to_json(record, line);
    if (rc == SLUICE_OK)
        rc = sl_buffer_append(line, "\n", 1);
    if (rc == SLUICE_OK && (fwrite(line->data, 1, line->size, out) != line->size || (flush && fflush(out) != 0)))
        rc = SLUICE_IO;
    return rc;
}

int sl_cat(const char *path, int64_t limit, bool follow, FILE *out, char *error, size_t error_size)
{
    sl_stream_reader *reader;
    sl_buffer line = {0};
    int rc = open_any(path, follow, &reader, error, error_size);
    if (rc < 0)
        return rc;
    for (int64_t printed = 0; limit < 0 || printed < limit; printed++) {
        sl_record *record;
        rc = sl_stream_next(reader, &record);
        if (rc != SLUICE_OK) {
            if (rc < 0)
                snprintf(error, error_size, "%s", sl_stream_reader_error(reader));
            break;
        }
        rc = print(record, follow, out, &line);
        sl_record_free(record);
        if (rc < 0)
            break;
    }
    if (fflush(out) != 0 && rc >= 0)
        rc = SLUICE_IO;
    if (rc == SLUICE_IO && sl_stream_reader_error(reader)[0] == '\0')
        snprintf(error, error_size, "cannot write the records: %s", strerror(errno));
    if (rc == SLUICE_NO_MEMORY)
        snprintf(error, error_size, "%s: out of memory", path);
    sl_stream_reader_close(reader);
    sl_buffer_free(&line);
    return rc == SLUICE_END ? SLUICE_OK : rc;
}
