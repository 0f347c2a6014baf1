/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams: the edge between two stages, an append-only log of zstd chunks on disk (doc/stream-format.md).
 *
 * One writer, any number of readers, of this process or another. The writer seals chunks whose borders depend on content
 * alone; records that wait for their chunk lie in a small journal beside the stream, so that readers see records at once.
 * Readers get whole, verified records or an error, never anything else.
 */
#ifndef SL_STREAM_H
#define SL_STREAM_H

#include "core/stream/record.h"

typedef struct sl_stream_writer sl_stream_writer;
typedef struct sl_stream_reader sl_stream_reader;

typedef struct sl_stream_info {
    const char *schema; /* "sluice.record/1" */
    const char *stage;
    uint8_t key[16]; /* hash of all that determines the content */
} sl_stream_info;

/* Opens PATH for writing, fresh (whatever was there is replaced only when the new one is closed whole? no: the file grows in
 * place under PATH ".part" and its journal PATH ".journal"; close renames it to PATH). error: one line. */
int sl_stream_create(const char *path, const sl_stream_info *, sl_stream_writer **, char *error, size_t error_size);
/* Appends a record as position `number` of the order; numbers may arrive out of order (each once; gaps are closed by
 * sl_stream_skip). Takes nothing. Any one thread at a time. */
int sl_stream_append(sl_stream_writer *, const sl_record *, uint64_t number);
int sl_stream_skip(sl_stream_writer *, uint64_t number);
/* Seals the last chunk, writes the index, fsyncs, renames. */
int sl_stream_close(sl_stream_writer *);
/* Leaves nothing under the final name. */
void sl_stream_abandon(sl_stream_writer *);
const char *sl_stream_writer_error(const sl_stream_writer *);
uint64_t sl_stream_written(const sl_stream_writer *);      /* records */
uint64_t sl_stream_bytes(const sl_stream_writer *, bool compressed);

/* Follows a writer of this process (blocks until there is more) … */
int sl_stream_follow(sl_stream_writer *, sl_stream_reader **);
/* … or opens a finished (or, follow = true, growing) file. */
int sl_stream_open(const char *path, bool follow, sl_stream_reader **, char *error, size_t error_size);
/* The next record, owned by the caller (sl_record_free). SLUICE_END after the last; SLUICE_CORRUPT on damage;
 * SLUICE_CANCELLED after sl_stream_cancel. */
int sl_stream_next(sl_stream_reader *, sl_record **);
int sl_stream_rewind(sl_stream_reader *);
const char *sl_stream_reader_error(const sl_stream_reader *);
const sl_stream_info *sl_stream_reader_info(const sl_stream_reader *);
int64_t sl_stream_count(const sl_stream_reader *); /* records when known, else -1 */
void sl_stream_reader_close(sl_stream_reader *);
/* Wakes all who wait on this writer's stream; they get SLUICE_CANCELLED. */
void sl_stream_cancel(sl_stream_writer *);

/* Checks a whole file: chunks, sums, order, index. Prints findings to `out` when given. */
int sl_stream_verify(const char *path, uint64_t *records, char *error, size_t error_size);

#endif
