/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/isolate/isolate.h"

#include <string.h>
#include <unistd.h>

/* Copies what lies there; *there is set when a record of this id is among it. */
static int copy_old(sl_stream_writer *to, const char *path, const char *id, uint64_t *count, bool *there)
{
    char error[SL_ERROR_SIZE];
    sl_stream_reader *reader;
    sl_record *record;
    int rc = SLUICE_OK;
    if (sl_stream_open(path, false, &reader, error, sizeof error) < 0)
        return SLUICE_OK;
    while (rc >= 0 && sl_stream_next(reader, &record) == SLUICE_OK) {
        *there = *there || strcmp(sluice_record_id(sl_record_public(record)), id) == 0;
        rc = sl_stream_append(to, record, (*count)++);
        sl_record_free(record);
    }
    sl_stream_reader_close(reader);
    return rc;
}

int sl_quarantine_add(sl_job *job, sl_record *record, const char *what, char *error)
{
    const char *path = sl_job_path(job, ".quarantine.zst", job->arena);
    sl_stream_info info = {.schema = SL_STREAM_SCHEMA, .stage = job->stage->name};
    sl_stream_writer *writer = NULL;
    uint64_t count = 0;
    bool there = false;
    memcpy(info.key, job->key, sizeof info.key);
    snprintf(error, SL_ERROR_SIZE, "out of memory");
    int rc = path != NULL ? sl_stream_create(path, &info, &writer, error, SL_ERROR_SIZE) : SLUICE_NO_MEMORY;
    if (rc < 0)
        return rc;
    rc = copy_old(writer, path, sluice_record_id(sl_record_public(record)), &count, &there);
    if (rc >= 0 && !there)
        rc = sluice_record_set_meta_text(sl_record_public(record), "quarantine", what);
    if (rc >= 0 && !there)
        rc = sl_stream_append(writer, record, count);
    if (rc >= 0)
        rc = sl_stream_close(writer);
    if (rc < 0)
        snprintf(error, SL_ERROR_SIZE, "%s", sl_stream_writer_error(writer));
    sl_stream_abandon(writer);
    sl_stream_writer_free(writer);
    return rc;
}

void sl_quarantine_forget(const sl_job *job)
{
    const char *path = sl_job_path(job, ".quarantine.zst", job->arena);
    if (path != NULL)
        unlink(path);
}
