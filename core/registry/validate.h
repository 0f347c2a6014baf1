/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What a plugin says of itself, checked before anything in it is called. */
#ifndef SL_VALIDATE_H
#define SL_VALIDATE_H

#include <stdio.h>
#include <sluice/sluice.h>
#include "core/base/buffer.h"

/* The checks below write one line to `why` and return false: what differs, both values, how to mend. */
typedef struct sl_why {
    char text[512];
} sl_why;

/* Is this file a whole shared object of this machine? dlopen maps a truncated one happily and dies on touching it. */
bool sl_object_whole(const uint8_t *bytes, size_t size, sl_why *);
bool sl_stamp_fits(const sluice_plugin *, sl_why *);
/* Copies a class of a plugin with a fitting stamp to the host's size, parameters included. NULL when it is wrong. */
const sluice_class *sl_class_adopt(const sluice_class *, const sluice_stamp *, sl_arena *, sl_why *);

#endif
