/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "core/stream/ids.h"
#include "core/stream/stream.h"

int sl_stream_verify(const char *path, uint64_t *records, char *error, size_t error_size)
{
    sl_stream_reader *reader;
    sl_record *record;
    sl_ids ids = {0};
    *records = 0;
    int rc = sl_stream_open(path, false, &reader, error, error_size);
    if (rc < 0)
        return rc;
    while ((rc = sl_stream_next(reader, &record)) == SLUICE_OK) {
        const char *id = sluice_record_id(sl_record_public(record));
        rc = sl_ids_add(&ids, id);
        if (rc == SLUICE_BAD_RECORD) {
            snprintf(error, error_size, "%s: record id '%s' comes twice, again as record %" PRIu64, path, id, *records);
            rc = SLUICE_CORRUPT;
        } else if (rc < 0) {
            snprintf(error, error_size, "%s: out of memory", path);
        }
        sl_record_free(record);
        if (rc < 0)
            goto out;
        (*records)++;
    }
    if (rc == SLUICE_END)
        rc = SLUICE_OK;
    else
        snprintf(error, error_size, "%s", sl_stream_reader_error(reader));
out:
    sl_ids_free(&ids);
    sl_stream_reader_close(reader);
    return rc;
}
