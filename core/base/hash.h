/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* 128 bits of content (XXH3) in canonical byte order: the same on every machine. */
#ifndef SL_HASH_H
#define SL_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SL_HASH_SIZE = 16, SL_HEX_SIZE = 2 * SL_HASH_SIZE + 1 };

void sl_hash_bytes(const void *bytes, size_t size, uint8_t out[SL_HASH_SIZE]);
/* Of a file's content. SLUICE_IO with errno set when it cannot be read, or SLUICE_NO_MEMORY. */
int sl_hash_file(const char *path, uint8_t out[SL_HASH_SIZE]);
/* `text` has room for 2·count characters and NUL. */
void sl_hex(const uint8_t *bytes, size_t count, char *text);
/* The other way round, lower case only; false when TEXT is not exactly that. */
bool sl_unhex(const char *text, size_t count, uint8_t *bytes);

#endif
