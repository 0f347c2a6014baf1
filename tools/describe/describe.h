/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What a class says of itself, as text for the terminal, as Markdown, JSON and a manual page. */
#ifndef DS_DESCRIBE_H
#define DS_DESCRIBE_H

#include <stdio.h>
#include "core/registry/registry.h"

/* One class each. Errors of writing are the stream's. */
void ds_text(const sl_registered *, FILE *);
void ds_markdown(const sl_registered *, FILE *); /* a section, its heading of the second level */
void ds_json(const sl_registered *, FILE *);     /* an object */
void ds_man(const sl_registered *, FILE *);      /* a page of section 7 */

/* ---- words.c */
/* "integer", "list of models", "loss" (for a class of that kind). */
const char *ds_type(const sluice_param *);
/* "default 0.1", "required", "not set". */
void ds_default(const sluice_param *, char *text, size_t size);
/* Choices, range, unit: what may be written; "" when anything may. */
void ds_allowed(const sluice_param *, char *text, size_t size);
/* Words broken into lines, each after `indent`; an empty line stays one. */
void ds_wrap(const char *text, const char *indent, FILE *);
/* The title, then the fields' names and a line end. */
void ds_fields(const char *title, uint32_t set, FILE *);
/* How a class looks at its stream; "" when there is nothing to say. */
const char *ds_traits(uint32_t traits);

#endif
