/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Manners of an answer that a program can check: polite, rude, brief, long. */
#ifndef VERIFIER_MANNER_H
#define VERIFIER_MANNER_H

#include <stdbool.h>
#include <stddef.h>

/* Whether `what` stands in `where` as whole words: no letter or digit touches it. Lengths in bytes. */
bool manner_has_words(const char *where, size_t where_length, const char *what, size_t what_length);

bool manner_known(const char *manner);
/* Every name, for messages. */
const char *manner_names(void);
/* `manner` must be a known one. Both texts end with NUL. */
bool manner_kept(const char *manner, const char *text);

#endif
