/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * CBOR in its deterministic form (RFC 8949 §4.2.1), and no other: definite lengths, shortest heads, shortest floats
 * that keep the value, map keys sorted by the bytes of their encoding and hence unique. Typed arrays (RFC 8746) for
 * numbers.
 *
 * A reader of the strict form needs no table of keys seen, and equal content has equal bytes. Only what a stream can
 * hold is admitted: integers of 64 bits, byte and text strings (UTF-8), arrays, maps (keys: text or integers), tags,
 * false, true, null, undefined, floats.
 */
#ifndef SL_CBOR_H
#define SL_CBOR_H

#include "core/base/buffer.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "typed arrays are copied as they lie in memory");

enum sl_cbor_major {
    SL_CBOR_UINT = 0,
    SL_CBOR_NINT = 1,
    SL_CBOR_BYTES = 2,
    SL_CBOR_TEXT = 3,
    SL_CBOR_ARRAY = 4,
    SL_CBOR_MAP = 5,
    SL_CBOR_TAG = 6,
    SL_CBOR_SIMPLE = 7
};
/* RFC 8746, little-endian. */
enum sl_cbor_tag { SL_CBOR_U32 = 70, SL_CBOR_F32 = 85, SL_CBOR_F64 = 86 };

/* A value may nest this deep. */
enum { SL_CBOR_DEPTH = 64 };

/* Writing. `result` keeps the first error, so that a run of puts is checked once at its end. */
typedef struct sl_cbor_writer {
    sl_buffer *out;
    int result;
} sl_cbor_writer;

void sl_cbor_put_head(sl_cbor_writer *, enum sl_cbor_major, uint64_t value);
void sl_cbor_put_int(sl_cbor_writer *, int64_t);
void sl_cbor_put_bool(sl_cbor_writer *, bool);
void sl_cbor_put_double(sl_cbor_writer *, double);
void sl_cbor_put_text(sl_cbor_writer *, const char *, size_t size);
/* size = bytes of the whole array. */
void sl_cbor_put_typed(sl_cbor_writer *, enum sl_cbor_tag, const void *, size_t size);
void sl_cbor_put_raw(sl_cbor_writer *, const void *, size_t size);

/* Reading. Every call refuses what is not deterministic or runs past the end: it then returns false and `error` (a
 * literal) says why; `at` is left where the error is. */
typedef struct sl_cbor_reader {
    const uint8_t *at, *end;
    const char *error;
} sl_cbor_reader;

bool sl_cbor_head(sl_cbor_reader *, enum sl_cbor_major *, uint64_t *value);
/* A head of this major type; for strings, the bytes lie whole at reader->at and are not yet passed. */
bool sl_cbor_expect(sl_cbor_reader *, enum sl_cbor_major, uint64_t *value);
/* A text string, well-formed; borrowed from the input, not terminated. */
bool sl_cbor_text(sl_cbor_reader *, const char **, size_t *size);
bool sl_cbor_bool(sl_cbor_reader *, bool *);
/* An integer or a float. */
bool sl_cbor_number(sl_cbor_reader *, double *);
/* A typed array: its bytes, unaligned; size is a multiple of the element's. */
bool sl_cbor_typed(sl_cbor_reader *, enum sl_cbor_tag, const uint8_t **, size_t *size);
/* Passes one value of any kind, checked to its last byte. */
bool sl_cbor_skip(sl_cbor_reader *);
/* Passes a map's key; `previous` (the key before it, or NULL) must sort before it. */
bool sl_cbor_key(sl_cbor_reader *, const uint8_t *previous, size_t previous_size);
/* Which of two encoded keys sorts first, as memcmp. */
int sl_cbor_compare(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size);

/* One checked value as JSON: typed arrays as arrays, byte strings as base64url (RFC 8949 §6.1), undefined and
 * non-finite numbers as null, integer keys as strings, tags left out. */
int sl_cbor_to_json(const uint8_t *value, size_t size, sl_buffer *);

#endif
