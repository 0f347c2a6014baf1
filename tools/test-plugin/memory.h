/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The allocator that the plugin under test gets, and its clocks: memory that is counted, filled and poisoned.
 *
 * malloc and its kin are defined in this program and so stand before the C library's, for the plugin too. Under a
 * sanitizer, which has an allocator of its own that finds the same faults, everything here does nothing. Any thread.
 */
#ifndef TP_MEMORY_H
#define TP_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* What becomes of freed memory. */
enum tp_freed {
    TP_FREED_REUSED,  /* as always */
    TP_FREED_KEPT,    /* stays as it was, and is given to nobody else: reading it does no harm */
    TP_FREED_POISONED /* is overwritten and given to nobody else: reading it shows */
};

/* Is the allocator ours? */
bool tp_memory_ours(void);
/* fill: the byte that fresh memory is filled with, -1 = as it comes. */
void tp_memory_set(enum tp_freed, int fill);
/* Blocks that are allocated now. */
long tp_memory_blocks(void);
/* Moves the clock of the day by this many seconds. */
void tp_clock_shift(long seconds);

#endif
