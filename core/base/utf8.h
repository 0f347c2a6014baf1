/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef SL_UTF8_H
#define SL_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* The offset of the first byte that does not belong to a well-formed sequence; `size` when all is well. */
size_t sl_utf8_check(const void *bytes, size_t size);
/* Copies, replacing each byte that belongs to no well-formed sequence by U+FFFD. `out` holds 3·size bytes at most.
 * Returns the bytes written. */
size_t sl_utf8_repair(const void *bytes, size_t size, char *out);
/* Writes a code point (a surrogate or one beyond U+10FFFF as U+FFFD) as 1 to 4 bytes. */
size_t sl_utf8_put(uint32_t code, char out[4]);

#endif
