/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Words for what classes are described by. */
#ifndef SL_DESCRIBE_H
#define SL_DESCRIBE_H

#include <sluice/plugin.h>

/* "at least 0 and below 0.5", "" when anything goes. */
void sl_param_range(const sluice_param *, char *text, size_t size);
/* The name of one record field (a bit of sluice_fields), "none" for none. */
const char *sl_field_name(uint32_t fields);

#endif
