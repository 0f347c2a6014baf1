/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#ifndef SL_STORE_INTERNAL_H
#define SL_STORE_INTERNAL_H

#include "core/store/store.h"

struct sl_store {
    char path[PATH_MAX];
    int lock; /* STORE/sluice-store: a byte a key is locked by who claims it */
    _Atomic unsigned moved;
};

enum { SL_STORE_PATH = PATH_MAX + 320 };

/* STORE/XX/KEY, and STORE/new/KEY. */
void sl_store_entry_path(const sl_store *, const uint8_t key[SL_HASH_SIZE], char path[SL_STORE_PATH]);
void sl_store_new_path(const sl_store *, const uint8_t key[SL_HASH_SIZE], char path[SL_STORE_PATH]);
/* Out of sight at once, then removed. */
int sl_store_discard(sl_store *, const char *path);

/* link.c: TO becomes the content of FROM; TO must not be there. 0, or -1 with errno set. */
int sl_store_link(const char *from, const char *to);

#endif
