/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#ifndef PLUGINS_COPY_H
#define PLUGINS_COPY_H

#include <sluice/host.h>

/* Copies what makes a model of a folder (weights, settings, tokenizer, template) into another, an empty one. Shares the
 * bytes where the file system can. */
int copy_model(const sluice_host *, const char *from, const char *to);

#endif
