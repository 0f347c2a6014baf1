/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Records in memory and as CBOR. The public view of a record is sluice/record.h; this is what stands behind it.
 *
 * A record owns all its memory (one arena). One thread at a time.
 */
#ifndef SL_RECORD_H
#define SL_RECORD_H

#include <sluice/record.h>
#include "core/base/buffer.h"

typedef struct sl_record sl_record; /* its first member is the public `sluice_record` */

/* Empty, number 0. NULL when out of memory. */
sl_record *sl_record_new(void);
void sl_record_free(sl_record *);
sluice_record *sl_record_public(sl_record *);
sl_record *sl_record_from_public(sluice_record *);
void sl_record_set_number(sl_record *, uint64_t number);
/* Tokens of its prompt and of all its candidates. */
uint64_t sl_record_tokens(const sl_record *);
/* Memory that it takes. */
size_t sl_record_bytes(const sl_record *);
/* A record of its own with the same content and number. SLUICE_BAD_RECORD when it has no id. */
int sl_record_copy(const sl_record *, sl_record **);

/* Deterministic CBOR (RFC 8949 §4.2; typed arrays RFC 8746), one item, appended. SLUICE_BAD_RECORD when it has no id.
 */
int sl_record_encode(const sl_record *, sl_buffer *);
/* Decodes one item; unknown keys are kept and written again. *used = bytes read. Values nest at most SL_CBOR_DEPTH
 * deep; memory is at most 16 times `size` plus 64 KiB. SLUICE_BAD_RECORD with one line in `error` (what, at which
 * byte). */
int sl_record_decode(const uint8_t *bytes, size_t size, sl_record **, size_t *used, char *error, size_t error_size);
/* One line of JSON, without newline. */
int sl_record_to_json(const sl_record *, sl_buffer *);

#endif
