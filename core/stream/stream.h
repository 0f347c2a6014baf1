/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams: the edge between two stages, an append-only log of zstd chunks on disk (doc/stream-format.md).
 *
 * One writer, any number of readers, of this process or another. The writer seals chunks whose borders depend on
 * content alone; records that wait for their chunk lie in a small journal beside the stream, so that readers see
 * records at once. Readers get whole, verified records or an error, never anything else.
 *
 * While it grows, the stream is PATH.part with the journal PATH.journal; closing makes it PATH. The bound is on memory:
 * a writer holds the last few megabytes of what it wrote and a mebibyte of ids (ids.h), a reader that lags behind them
 * reads the file, and records that came too early wait in the journal. What grows: 48 bytes a chunk (a tenth of a byte
 * for a record of 1 KB), and 24 bytes for each record that waits for an earlier one.
 *
 * What survives: a record is in the journal a hundredth of a second after sl_stream_append, or in the file, so the end
 * of the process (kill -9) loses what came in that time at most. The disk is waited for (fsync) only by
 * sl_stream_close, before the file gets its name: after a power failure there is the whole stream or none.
 */
#ifndef SL_STREAM_H
#define SL_STREAM_H

#include "core/stream/record.h"

typedef struct sl_stream_writer sl_stream_writer;
typedef struct sl_stream_reader sl_stream_reader;

#define SL_STREAM_SCHEMA "sluice.record/1"

typedef struct sl_stream_info {
    const char *schema; /* SL_STREAM_SCHEMA */
    const char *stage;
    uint8_t key[16]; /* hash of all that determines the content */
} sl_stream_info;

/* Begins PATH afresh: an unfinished PATH.part is forgotten, a finished PATH stays until close replaces it. SLUICE_IO
 * when it cannot be written or another writer is at it. */
int sl_stream_create(const char *path, const sl_stream_info *, sl_stream_writer **, char *error, size_t error_size);
/* Appends a record as position `number` of the order; numbers may arrive out of order, each once, and sl_stream_skip
 * closes the gaps. Takes nothing. One thread at a time for append, skip, close and abandon. After an error every
 * further call returns the same error. SLUICE_BAD_RECORD: an id or number that came before, or a record above 256 MiB.
 * SLUICE_CORRUPT: another record's id, before this one, had come twice. */
int sl_stream_append(sl_stream_writer *, const sl_record *, uint64_t number);
int sl_stream_skip(sl_stream_writer *, uint64_t number);
/* Seals the last chunk, writes the index, fsyncs, renames; readers then come to SLUICE_END. SLUICE_FAILED when a number
 * below the highest never came, SLUICE_BAD_RECORD when an id came twice. On any error nothing is under the final name
 * that was not there before. */
int sl_stream_close(sl_stream_writer *);
/* Removes what was written; readers get SLUICE_CANCELLED. No effect once closed. */
void sl_stream_abandon(sl_stream_writer *);
/* The same, but what was written stays as PATH.part and PATH.journal, for sl_earlier_take (earlier.h). */
void sl_stream_leave(sl_stream_writer *);
/* Wakes all who wait on this writer's stream; they get SLUICE_CANCELLED. Any thread. */
void sl_stream_cancel(sl_stream_writer *);
/* The end of the handle, after close or abandon (else it abandons). Its readers live on. */
void sl_stream_writer_free(sl_stream_writer *);
/* What went wrong, one line; "" when nothing did. The writer's thread. */
const char *sl_stream_writer_error(const sl_stream_writer *);
/* Any thread: records placed in order; their bytes as CBOR, or as they lie on disk so far. */
uint64_t sl_stream_written(sl_stream_writer *);
uint64_t sl_stream_bytes(sl_stream_writer *, bool compressed);

/* Follows a writer of this process from the first record (blocks until there is more), also after it closed. Any
 * thread. */
int sl_stream_follow(sl_stream_writer *, sl_stream_reader **);
/* Opens a file. Without `follow` exactly PATH is read: a finished stream (sl_stream_count then knows its records), or
 * what is whole of one that was cut off, or of a PATH ending in ".part" with its journal; SLUICE_CORRUPT then comes in
 * the place of SLUICE_END. With `follow`, the stream that grows as PATH.part while its writer lives, else the finished
 * one; next waits for more until the stream is closed or its writer is gone. */
int sl_stream_open(const char *path, bool follow, sl_stream_reader **, char *error, size_t error_size);
/* One thread a reader. The next record, owned by the caller (sl_record_free); its number is its position in this
 * stream. SLUICE_END after the last; SLUICE_CORRUPT on damage, after all records before it; SLUICE_CANCELLED after
 * sl_stream_cancel. */
int sl_stream_next(sl_stream_reader *, sl_record **);
/* Back to the first record, for another pass. */
int sl_stream_rewind(sl_stream_reader *);
const char *sl_stream_reader_error(const sl_stream_reader *);
const sl_stream_info *sl_stream_reader_info(const sl_stream_reader *);
/* Records in all when known (the stream is closed), else -1. */
int64_t sl_stream_count(const sl_stream_reader *);
void sl_stream_reader_close(sl_stream_reader *);

/* Checks a whole file: header, chunks, sums, order, ids, index. SLUICE_OK, or SLUICE_CORRUPT and the first finding in
 * `error`. *records = how many whole records come before it. */
int sl_stream_verify(const char *path, uint64_t *records, char *error, size_t error_size);

#endif
