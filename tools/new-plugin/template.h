/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Templates: text files in which @ID@, @NAME@, @KIND@ and @MODELS@ stand for what the user named, and a line
 * "@INCLUDE file@" for a file of the kind's own folder.
 */
#ifndef NP_TEMPLATE_H
#define NP_TEMPLATE_H

#include "core/base/buffer.h"

typedef struct np_names {
    const char *kind;   /* "judge" */
    const char *own;    /* the kind's folder of templates: "judge", "cuda-judge" */
    const char *id;     /* "vendor/name" */
    const char *name;   /* "name" */
    const char *models; /* folder of the models that come with sluice, as it stands between quotes in a pipeline file */
    const char *folder; /* of the templates */
} np_names;

/* Appends the template `folder/part/file`, filled in. SLUICE_OK, or a negative result with `error` saying why. */
int np_template_fill(const np_names *, const char *part, const char *file, sl_buffer *out, char *error, size_t size);

#endif
