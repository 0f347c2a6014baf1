/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A reader's state: for the files reader*.c only. */
#ifndef SL_READER_H
#define SL_READER_H

#include "core/stream/journal.h"
#include "core/stream/edge.h"

/* The file of a reader that follows no writer of its own process. */
typedef struct sl_stream_file {
    int fd;
    char *path;   /* what was opened */
    bool growing; /* PATH.part: its end is not final */
    bool follow;  /* wait for more */
    sl_arena *arena;
    sl_stream_info info;
    uint64_t start;  /* of the first chunk */
    uint64_t offset; /* of the next chunk or the index */
    uint64_t fold;   /* of the chunks read, as the index has them */
    int64_t count;   /* of records, when the index is there and whole; else -1 */
    sl_journal_reader journal;
    char *journal_path;
    sl_buffer record; /* from the journal */
} sl_stream_file;

struct sl_stream_reader {
    sl_edge *edge;       /* follows a writer of this process … */
    sl_stream_file file; /* … or reads a file */
    uint64_t sequence;   /* of the chunk to take next */
    uint64_t ordinal;    /* position of the record to hand out next */
    sl_block *block;     /* being read: the edge's, or `own` */
    sl_block *own;       /* for chunks that are loaded from a file */
    size_t at, visible;  /* in the block */
    uint64_t position;   /* in the stream, of the record at `at` */
    sl_loader loader;
    int failed; /* the first error's code; a rewind forgets it */
    char error[640];
};

int SLUICE_PRINTF(3, 4) sl_reader_fail(sl_stream_reader *, int code, const char *format, ...);
/* Loads a chunk whose header is known, to be read from its start. */
int sl_reader_load(sl_stream_reader *, int fd, const char *path, const sl_chunk *);
/* The next records of a file: SLUICE_OK with a block, or with one record in file.record (*single); SLUICE_END; an
 * error. */
int sl_file_advance(sl_stream_reader *, bool *single);
void sl_file_rewind(sl_stream_file *);
void sl_file_close(sl_stream_file *);

#endif
