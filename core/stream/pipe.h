/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * An edge between stages that is never on disk: records go from hand to hand, in their order, through a bounded queue
 * for each reader. The writer waits for the slowest of them, so memory is bounded: PIPE_RECORDS records or PIPE_BYTES
 * a reader (one record where it is larger), twice. What a stream refuses (a record without an id, an id that comes
 * twice) is refused here too.
 *
 * Threads: one writes (give, close), one reads at each end; cancel comes from any. Ends are opened before the first
 * record and closed before the pipe is freed.
 */
#ifndef SL_PIPE_H
#define SL_PIPE_H

#include "core/stream/record.h"

typedef struct sl_pipe sl_pipe;
typedef struct sl_pipe_end sl_pipe_end;

/* `beside`: where ids too many for memory go (ids.h); copied. NULL when out of memory. */
sl_pipe *sl_pipe_new(const char *beside);
/* A reader more. NULL when out of memory. */
sl_pipe_end *sl_pipe_open(sl_pipe *);
/* Hands a record to every reader, and with SLUICE_OK takes it. Waits while one of them has no room. SLUICE_BAD_RECORD,
 * SLUICE_CORRUPT (another record's id had come twice), SLUICE_CANCELLED, SLUICE_IO, SLUICE_NO_MEMORY. */
int sl_pipe_give(sl_pipe *, sl_record *);
/* After the last record; readers then come to SLUICE_END. SLUICE_BAD_RECORD when an id came twice. */
int sl_pipe_close(sl_pipe *);
/* Wakes all who wait; they get SLUICE_CANCELLED. */
void sl_pipe_cancel(sl_pipe *);
/* What went wrong, one line; "" when nothing did. The writer's thread. */
const char *sl_pipe_error(const sl_pipe *);
void sl_pipe_free(sl_pipe *);

/* The next record, the caller's; SLUICE_END after the last, SLUICE_CANCELLED. There is no way back. */
int sl_pipe_take(sl_pipe_end *, sl_record **);
/* Records in all once they are known, else -1. */
int64_t sl_pipe_count(sl_pipe_end *);

#endif
