/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "core/stream/ids.h"
#include "core/stream/stream.h"

int sl_stream_verify(const char *path, uint64_t *records, char *error, size_t error_size)
{
    sl_stream_reader *reader;
    sl_record *record;
    sl_ids ids = {.beside = path};
    *records = 0;
    int rc = sl_stream_open(path, false, &reader, error, error_size);
    if (rc < 0)
        return rc;
    while ((rc = sl_stream_next(reader, &record)) == SLUICE_OK) {
        rc = sl_ids_add(&ids, sluice_record_id(sl_record_public(record)));
        sl_record_free(record);
        if (rc < 0)
            break;
        (*records)++;
    }
    const bool read = rc == SLUICE_END;
    if (read)
        rc = sl_ids_settle(&ids);
    if (rc == SLUICE_BAD_RECORD) {
        snprintf(error, error_size, "%s: record id '%s' comes twice among the first %" PRIu64, path, ids.twice,
                 *records + !read);
        rc = SLUICE_CORRUPT;
    } else if (rc < 0) {
        const char *why = sl_stream_reader_error(reader);
        snprintf(error, error_size, "%s", why[0] ? why : "the ids cannot be compared: no memory, or no temporary file");
    }
    sl_ids_free(&ids);
    sl_stream_reader_close(reader);
    return rc;
}
