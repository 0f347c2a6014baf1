/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What filters (chat_filter.c) and methods (chat_method.c) share (chat_call.c).
 */
#ifndef MODEL_CHAT_CALL_H
#define MODEL_CHAT_CALL_H

#include "model/chat_parts.h"

/* The argument at `position` among those without a name, or named `name`; NULL if it was not given. */
const chat_value *chat_argument(const chat_arguments *a, size_t position, const char *name);
/* A string argument; false, and a failure if it must be there, when it is not one. */
bool chat_text_argument(chat_run *run, const chat_arguments *a, size_t position, const char *name, bool needed,
                        chat_string *out);
int64_t chat_number_argument(chat_run *run, const chat_arguments *a, size_t position, const char *name, int64_t absent);
/* Fails: the callee does not work on this. */
chat_value chat_wrong(chat_run *run, const chat_arguments *a, chat_value value);

/* CHAT_TITLE as str.title has it (a letter behind none is large), CHAT_TITLE_WORDS as the filter (behind a blank, a
 * dash or an opening bracket). */
enum chat_letters { CHAT_UPPER, CHAT_LOWER, CHAT_CAPITAL, CHAT_TITLE, CHAT_TITLE_WORDS };
chat_value chat_change_case(chat_run *run, chat_string text, enum chat_letters how);
/* The first `count` of them, or all when it is negative. */
chat_value chat_replace(chat_run *run, int line, chat_string text, chat_string from, chat_string to, int64_t count);
chat_value chat_join(chat_run *run, const chat_arguments *a, chat_value items, chat_string separator);
chat_value chat_length(chat_run *run, const chat_arguments *a, chat_value value);
enum chat_entry_parts { CHAT_KEYS, CHAT_VALUES, CHAT_ITEMS };
chat_value chat_entries(chat_run *run, const chat_arguments *a, chat_value value, enum chat_entry_parts which);

#endif
