/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What a writer and the readers of its process share: for the files writer.c, edge.c and reader*.c only. */
#ifndef SL_EDGE_H
#define SL_EDGE_H

#include <pthread.h>

#include "core/stream/chunk.h"

/* Where chunks are cut, and how many ids lie in memory (ids.h). Only tests use others than the format's. */
typedef struct sl_limits {
    size_t least, most, ids;
} sl_limits;

/* Blocks kept in memory behind the open one, for those who read a little later than it is written: 8 an edge, and of
 * many edges together no more than SL_WINDOWS, but one each. */
enum { SL_WINDOW = 8, SL_WINDOWS = 64 };

typedef struct sl_edge {
    atomic_uint references;
    atomic_bool cancelled;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    bool closed;
    sl_chunk *chunks; /* sealed and in the file */
    size_t chunk_count, chunk_capacity;
    size_t full_count;           /* chunks, and blocks that will be */
    sl_block *open;              /* being filled; NULL once closed */
    sl_block *recent[SL_WINDOW]; /* block c in recent[c % SL_WINDOW], unless it is in the file and too large to keep */
    uint64_t records, raw_bytes, file_bytes;
    uint64_t wake; /* readers sleep until there are so many records */
    /* Set once. */
    int fd; /* the growing, later the finished file: read by offset */
    char *path;
    size_t most;
    sl_arena *arena;
    sl_stream_info info;
} sl_edge;

/* With one reference; takes fd. NULL when out of memory (fd is then the caller's still). */
sl_edge *sl_edge_new(const char *path, int fd, const sl_stream_info *, size_t most);
sl_edge *sl_edge_share(sl_edge *);
void sl_edge_release(sl_edge *);

/* Writer: an empty open block with room for `size` bytes. */
int sl_edge_room(sl_edge *, size_t size);
/* Writer: the record whose bytes were put behind the open block's size is there. */
void sl_edge_publish(sl_edge *, size_t size);
/* Writer: the open block is full, and a fresh one is opened. *full = it, shared. At most SL_WINDOW - 1 wait to be
 * sealed. */
int sl_edge_hand(sl_edge *, sl_block **full);
/* Sealer: the first block that waits is now this chunk of the file. */
int sl_edge_sealed(sl_edge *, const sl_chunk *);
void sl_edge_close(sl_edge *);
void sl_edge_cancel(sl_edge *);

/* What the writer shares. */
sl_edge *sl_writer_edge(sl_stream_writer *);

/* Creates a stream with other limits. */
int sl_stream_create_limited(const char *path, const sl_stream_info *, const sl_limits *, sl_stream_writer **,
                             char *error, size_t error_size);

#endif
