/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Sizes and times as people write and read them. */
#ifndef STORE_QUANTITY_H
#define STORE_QUANTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ST_TEXT = 32 };

/* "500M", "10G", "1.5T" or plain bytes; units of 1024. */
bool st_read_size(const char *text, int64_t *bytes);
/* "30d", "12h", "45m", "10s": seconds. */
bool st_read_time(const char *text, int64_t *seconds);
/* "1.5 GiB". */
const char *st_size(int64_t bytes, char text[ST_TEXT]);
/* "3 days". */
const char *st_age(int64_t seconds, char text[ST_TEXT]);

#endif
