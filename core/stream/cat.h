/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What `sluice cat` does: the records of a stream as lines of JSON. */
#ifndef SL_CAT_H
#define SL_CAT_H

#include <stdio.h>
#include <sluice/abi.h>

/* Prints at most `limit` records (< 0: all) of a finished, growing or damaged stream; with `follow` it waits for more,
 * and each line is flushed. Prints what is whole, then fails: SLUICE_CORRUPT and one line in `error`. SLUICE_IO when
 * `out` fails. */
int sl_cat(const char *path, int64_t limit, bool follow, FILE *out, char *error, size_t error_size);

#endif
