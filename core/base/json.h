/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* JSON: writing its strings and numbers, and reading it into CBOR. The C locale whatever the program's is. */
#ifndef SL_JSON_H
#define SL_JSON_H

#include "core/base/buffer.h"

/* A string in quotes. Bytes that are no UTF-8 become U+FFFD; text above ASCII stays as it is. */
int sl_json_string(sl_buffer *, const char *, size_t size);
/* The fewest digits that read back as the same number, laid out as Python's repr does (1.0, 0.0001, 1e-05, 1e+16); null
 * when it is not finite. */
int sl_json_double(sl_buffer *, double);
/* The fewest digits that read back as the same float. */
int sl_json_float(sl_buffer *, float);

/* Reads one JSON text (RFC 8259, strict; UTF-8) and appends it as deterministic CBOR. Integers beyond 64 bits become
 * floats, as in other readers; a lone surrogate becomes U+FFFD. SLUICE_BAD_PARAMETER with one line in `error` for
 * malformed text, a duplicate key, a number beyond a float's range, or nesting beyond SL_CBOR_DEPTH. */
int sl_json_to_cbor(const char *text, size_t size, sl_buffer *, char *error, size_t error_size);

#endif
