/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of one size that are taken by one thread and given back by another, over and over: the memory of records that
 * travel between stages. malloc would lock the heap of the thread that took each; here threads exchange sixty-four at a
 * time. Any thread. What is kept for the next to take is bounded (POOL_MOST blocks, and some a thread).
 */
#ifndef SL_POOL_H
#define SL_POOL_H

#include <stddef.h>

enum { SL_POOL_SIZE = 4096 };

/* SL_POOL_SIZE bytes, not cleared, aligned as by malloc. NULL when out of memory. */
void *sl_pool_take(void);
void sl_pool_give(void *);

/* From now on each block is malloc's and goes back to it, for a program that watches what becomes of memory. Before any
 * other thread. */
void sl_pool_off(void);

#endif
