/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What an interrupted writer left of a stream, for whoever writes the same stream again and would rather copy than
 * compute. The leftovers of PATH (PATH.part, PATH.journal) move to PATH.earlier.part and PATH.earlier.journal, so that
 * a new writer can begin PATH; of two leftovers the larger is kept. They are taken only when their key is the same:
 * then they hold what the new writer will write. One thread at a time.
 */
#ifndef SL_EARLIER_H
#define SL_EARLIER_H

#include "core/stream/stream.h"

typedef struct sl_earlier sl_earlier;

/* Before sl_stream_create. *out is NULL when there is nothing to take. SLUICE_NO_MEMORY is the only error. */
int sl_earlier_take(const char *path, const uint8_t key[16], sl_earlier **out);
/* The record with this id, the `number`-th of the input, as the interrupted writer emitted it: borrowed until the next
 * call; NULL when there is none. Asked for in the order of the input. */
const sl_record *sl_earlier_find(sl_earlier *, const char *id, uint64_t number);
/* `done`: the stream is whole, the leftovers are not wanted any more. Accepts NULL. */
void sl_earlier_close(sl_earlier *, bool done);

/* Removes leftovers of PATH that were taken. */
void sl_earlier_forget(const char *path);

#endif
