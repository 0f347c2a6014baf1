/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Services: what one plugin provides to all the others by string id ("sluice.model/1"): the model runtime, device
 * backends.
 *
 * A provider is a plugin like any other. The host makes it when somebody first asks for its id, on that thread, keeps
 * it for the run, and hands out the pointer that `get` returned: a table of functions that starts with its size. What a
 * service's functions may be called from is said in its own header (model.h).
 */
#ifndef SLUICE_SERVICE_H
#define SLUICE_SERVICE_H

#include <sluice/plugin.h>
#include <sluice/host.h>

typedef struct sluice_service_class {
    sluice_class base;              /* kind SLUICE_SERVICE; params come from the pipeline file's `runtime` group */
    const char *service;            /* "sluice.model/1" */
    const void *(*get)(void *self); /* after init; valid until fini */
    /* What decides results beside the inputs (instruction set, library version, dtype): part of every content key of
     * stages that use this service. Borrowed. NULL = nothing. */
    const char *(*numerics)(void *self);
} sluice_service_class;

#define SLUICE_SERVICE_CLASS(id, summary, state, params) \
    SLUICE_BASE(sluice_service_class, SLUICE_SERVICE, id, summary, state, params)

#endif
