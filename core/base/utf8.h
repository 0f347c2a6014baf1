/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef SL_UTF8_H
#define SL_UTF8_H

#include <stddef.h>

/* The offset of the first byte that does not belong to a well-formed sequence; `size` when all is well. */
size_t sl_utf8_check(const void *bytes, size_t size);

#endif
