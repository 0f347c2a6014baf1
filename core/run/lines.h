/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Reading a line of metrics.jsonl or timing.jsonl: a flat JSON object of strings, numbers, null and booleans. */
#ifndef SL_LINES_H
#define SL_LINES_H

#include <sluice/abi.h>

enum { SL_LINE_TEXT = 256 }; /* names and strings: what is longer is cut */

/* A member: `text` is its string, borrowed for the call, or NULL; then `value` is its number (null: NaN; true: 1). A
 * result other than SLUICE_OK ends the reading and is returned. */
typedef int sl_line_visitor(void *context, const char *name, const char *text, double value);

/* Visits the members of the object in [line, end) in their order. `*end` is readable and no part of a number (a newline
 * or NUL). SLUICE_CORRUPT when it is no such object; the members before the damage were visited. */
int sl_line_read(const char *line, const char *end, sl_line_visitor *visit, void *context);

#endif
