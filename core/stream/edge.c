/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/stream/edge.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_uint living; /* edges of this process */

sl_edge *sl_edge_new(const char *path, int fd, const sl_stream_info *info, size_t most)
{
    sl_edge *edge = calloc(1, sizeof *edge);
    sl_arena *arena = sl_arena_new();
    if (!edge || !arena)
        goto failed;
    edge->info = *info;
    edge->path = sl_arena_strdup(arena, path);
    edge->info.schema = sl_arena_strdup(arena, info->schema);
    edge->info.stage = sl_arena_strdup(arena, info->stage);
    edge->open = sl_block_new(most);
    if (!edge->path || !edge->info.schema || !edge->info.stage || !edge->open)
        goto failed;
    atomic_fetch_add(&living, 1);
    atomic_init(&edge->references, 1);
    atomic_init(&edge->cancelled, false);
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_mutex_init(&edge->lock, NULL);
    pthread_cond_init(&edge->changed, &clock);
    pthread_condattr_destroy(&clock);
    edge->wake = UINT64_MAX;
    edge->fd = fd;
    edge->most = most;
    edge->arena = arena;
    return edge;
failed:
    if (edge)
        sl_block_release(edge->open);
    sl_arena_free(arena);
    free(edge);
    return NULL;
}

sl_edge *sl_edge_share(sl_edge *edge)
{
    atomic_fetch_add(&edge->references, 1);
    return edge;
}

void sl_edge_release(sl_edge *edge)
{
    if (!edge || atomic_fetch_sub(&edge->references, 1) != 1)
        return;
    atomic_fetch_sub(&living, 1);
    for (int i = 0; i < SL_WINDOW; i++)
        sl_block_release(edge->recent[i]);
    sl_block_release(edge->open);
    free(edge->chunks);
    close(edge->fd);
    pthread_cond_destroy(&edge->changed);
    pthread_mutex_destroy(&edge->lock);
    sl_arena_free(edge->arena);
    free(edge);
}

int sl_edge_room(sl_edge *edge, size_t size)
{
    if (edge->open->capacity - edge->open->size >= size)
        return SLUICE_OK;
    sl_block *larger = sl_block_new(size);
    if (!larger)
        return SLUICE_NO_MEMORY;
    pthread_mutex_lock(&edge->lock);
    larger->sequence = edge->open->sequence;
    larger->first = edge->open->first;
    sl_block_release(edge->open); /* empty: no reader has it */
    edge->open = larger;
    pthread_mutex_unlock(&edge->lock);
    return SLUICE_OK;
}

/* Under the lock. */
static void wake(sl_edge *edge)
{
    edge->wake = UINT64_MAX;
    pthread_cond_broadcast(&edge->changed);
}

void sl_edge_publish(sl_edge *edge, size_t size)
{
    pthread_mutex_lock(&edge->lock);
    edge->open->size += size;
    edge->open->records++;
    edge->records++;
    edge->raw_bytes += size;
    if (edge->records >= edge->wake)
        wake(edge);
    pthread_mutex_unlock(&edge->lock);
}

/* Takes what is older out of the window, unless it is still to be sealed: one of them, to be used again, or NULL. Under
 * the lock. */
static sl_block *leave_window(sl_edge *edge)
{
    const unsigned each = SL_WINDOWS / atomic_load(&living);
    const size_t window = each > SL_WINDOW ? SL_WINDOW : each > 0 ? each : 1;
    sl_block *left = NULL;
    for (int i = 0; i < SL_WINDOW; i++) {
        sl_block *b = edge->recent[i];
        if (!b || b->sequence + window > edge->full_count || b->sequence >= edge->chunk_count)
            continue;
        sl_block_release(left);
        left = b;
        edge->recent[i] = NULL;
    }
    return left;
}

/* A block for the next chunk: the one that leaves the window, when nobody reads it any more. Under the lock. */
static sl_block *next_block(sl_edge *edge)
{
    sl_block *left = leave_window(edge);
    if (left && left->capacity == edge->most && atomic_load(&left->references) == 1) {
        left->size = 0;
        left->records = 0;
        return left;
    }
    sl_block_release(left);
    return sl_block_new(edge->most);
}

int sl_edge_hand(sl_edge *edge, sl_block **full)
{
    pthread_mutex_lock(&edge->lock);
    sl_block *fresh = next_block(edge);
    if (fresh) {
        edge->recent[edge->full_count % SL_WINDOW] = edge->open;
        *full = sl_block_share(edge->open);
        fresh->sequence = ++edge->full_count;
        fresh->first = edge->records;
        edge->open = fresh;
        wake(edge);
    }
    pthread_mutex_unlock(&edge->lock);
    return fresh ? SLUICE_OK : SLUICE_NO_MEMORY;
}

int sl_edge_sealed(sl_edge *edge, const sl_chunk *chunk)
{
    int rc = SLUICE_OK;
    pthread_mutex_lock(&edge->lock);
    sl_block **slot = &edge->recent[edge->chunk_count % SL_WINDOW];
    if (edge->chunk_count == edge->chunk_capacity) {
        const size_t capacity = edge->chunk_capacity ? edge->chunk_capacity * 2 : 64;
        sl_chunk *grown = realloc(edge->chunks, capacity * sizeof *grown);
        if (!grown) {
            rc = SLUICE_NO_MEMORY;
            goto out;
        }
        edge->chunks = grown;
        edge->chunk_capacity = capacity;
    }
    edge->chunks[edge->chunk_count++] = *chunk;
    edge->file_bytes = chunk->offset + SL_CHUNK_HEAD + chunk->frame_size;
    if ((*slot)->capacity > edge->most) {
        sl_block_release(*slot);
        *slot = NULL;
    }
out:
    pthread_mutex_unlock(&edge->lock);
    return rc;
}

void sl_edge_close(sl_edge *edge)
{
    pthread_mutex_lock(&edge->lock);
    edge->closed = true;
    sl_block_release(edge->open); /* empty: the last chunk is sealed */
    edge->open = NULL;
    wake(edge);
    pthread_mutex_unlock(&edge->lock);
}

void sl_edge_cancel(sl_edge *edge)
{
    pthread_mutex_lock(&edge->lock);
    atomic_store(&edge->cancelled, true);
    wake(edge);
    pthread_mutex_unlock(&edge->lock);
}
