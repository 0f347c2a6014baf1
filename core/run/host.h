/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A host without a run: for commands that ask a service something (`sample`, `score`, `average`, `env`).
 *
 * Errors and warnings go to `errors` as one line each, "sluice: …"; there are no records, no metrics, nothing to
 * publish.
 */
#ifndef SL_HOST_H
#define SL_HOST_H

#include <stdio.h>
#include <sluice/sluice.h>
#include "core/base/buffer.h"
#include "core/registry/registry.h"

typedef struct sl_free_host sl_free_host;

/* settings: "threads=2": a parameter of any service class, as in a pipeline file's `runtime`. A setting that no service
 * has or that is no value of its type is said on `errors` and NULL returned. The registry must outlive the host. */
sl_free_host *sl_free_host_open(sl_registry *, const char *const *settings, size_t count, FILE *errors);
/* For sluice_service() and the services' functions. Any thread. */
const sluice_host *sl_free_host_public(const sl_free_host *);
/* What the services made so far say decides their numbers: a line each, appended. */
int sl_free_host_numerics(sl_free_host *, sl_buffer *);
/* Ends the services that were made. */
void sl_free_host_close(sl_free_host *);

#endif
