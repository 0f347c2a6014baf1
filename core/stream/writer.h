/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A writer's state, and its sealer: a thread of the writer's own that compresses full blocks, writes them to the file
 * and keeps the journal. For the files writer.c and sealer.c only.
 *
 * The stage's thread fills the edge's open block and hands full ones over; two may wait for the sealer, then it waits
 * too. What the open block holds goes into the journal a hundredth of a second after it came, together with what came
 * meanwhile: a slow stage's record at once, as it were, and of a fast one nothing, for its chunk is written before.
 */
#ifndef SL_WRITER_H
#define SL_WRITER_H

#include "core/stream/edge.h"
#include "core/stream/ids.h"
#include "core/stream/journal.h"

/* A record that came before its turn: where the journal holds it. */
typedef struct sl_waiting {
    uint64_t number, offset;
    uint32_t size;
} sl_waiting;

/* An error of a system call or of memory. */
typedef struct sl_write_fault {
    int code;   /* SLUICE_OK = none */
    int number; /* errno */
    const char *what, *path;
} sl_write_fault;

enum { SL_MOST_FULL = 2 };

struct sl_stream_writer {
    sl_edge *edge;
    sl_limits limits;
    sl_buffer record;
    sl_ids ids;
    uint64_t next; /* the number whose turn it is */
    char *part;
    int failed; /* the first error's code */
    bool done;  /* closed or abandoned */
    char error[512];

    ZSTD_CCtx *context; /* the sealer's, while it runs */
    sl_buffer frame;    /* likewise */
    pthread_t thread;
    bool running;
    pthread_mutex_t lock;         /* of what follows */
    pthread_cond_t changed;       /* more to do, or something done */
    sl_block *full[SL_MOST_FULL]; /* handed over, the first is being sealed */
    size_t full_count;
    bool ending;
    sl_write_fault fault; /* of the sealer */
    sl_journal journal;
    sl_buffer placed;          /* entries of records in the open block that the journal has not */
    struct timespec placed_at; /* when the first of them came */
    sl_waiting *heap;          /* smallest number first */
    size_t waiting_count, waiting_capacity;
    uint64_t waiting_bytes;
};

/* The stage's thread. An error is in w->fault then, the sealer's or its own. */

/* A record was put into the open block: its entry for the journal. */
int sl_sealer_note(sl_stream_writer *, uint64_t ordinal, const void *bytes, size_t size, uint64_t sum);
/* The open block is full. */
int sl_sealer_hand(sl_stream_writer *);
/* Waits until all that was handed over is in the file, and ends the thread. What was only noted goes into the journal.
 */
int sl_sealer_end(sl_stream_writer *);

#endif
