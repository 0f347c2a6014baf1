/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Salvage: every whole record of a damaged or cut-off stream, also behind the damage, into a new stream. */
#ifndef SL_RECOVER_H
#define SL_RECOVER_H

#include "core/stream/stream.h"

typedef struct sl_salvage {
    uint64_t records;    /* written to the new stream */
    uint64_t missing;    /* positions between the first and the last of them that nothing whole was found for */
    uint64_t repeated;   /* left out because their id had come before */
    uint64_t lost_bytes; /* of the file that belong to nothing whole */
    bool complete;       /* the old stream was whole, index included */
} sl_salvage;

/* Reads PATH (a stream, or one ending in .part with its journal beside it) and writes TO, which must not be there yet.
 * The new stream has the stage's name, and a key of zeros: it is never taken for the finished output of a stage.
 * SLUICE_CORRUPT when not one whole record was found; then TO is not made. One line in `error`. */
int sl_stream_recover(const char *path, const char *to, sl_salvage *, char *error, size_t error_size);

#endif
