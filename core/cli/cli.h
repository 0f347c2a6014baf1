/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The `sluice` program: one file a subcommand, and what they share. */
#ifndef SL_CLI_H
#define SL_CLI_H

#include <stdio.h>
#include <sluice/sluice.h>
#include "core/registry/registry.h"

/* What the program exits with; in every --help. */
enum sl_exit { SL_EXIT_OK = 0, SL_EXIT_FAILED = 1, SL_EXIT_USAGE = 2, SL_EXIT_DAMAGED = 3, SL_EXIT_CANCELLED = 130 };
int sl_exit_of(int result);

typedef struct sl_command {
    const char *name, *summary;
    const char *help;                                             /* usage, options, an example */
    int (*run)(const struct sl_command *, int argc, char **argv); /* argv without the program and the command */
} sl_command;

extern const sl_command sl_command_run, sl_command_check, sl_command_plugins, sl_command_cat, sl_command_sample,
    sl_command_score, sl_command_average, sl_command_export, sl_command_env, sl_command_doctor, sl_command_recover;

/* Commands that are programs of their own, in the order of their names. */
void sl_extensions_visit(void (*visit)(void *context, const char *name, const char *summary), void *context);
/* Becomes the program of a command, with these arguments (help: and --help). Returns -1 when there is none of that
 * name, otherwise, after a word on stderr, what to exit with. */
int sl_extension_run(const char *name, int argc, char **argv, bool help);

/* Words given one after another. Freed by the caller. */
typedef struct sl_words {
    const char **items; /* borrowed from argv */
    size_t count;
} sl_words;

/* An option of a command. `to`: FLAG bool, WORD const char *, WORDS sl_words (given several times), INTEGER int64_t,
 * NUMBER double. */
typedef struct sl_option {
    const char *name; /* without dashes */
    char letter;      /* 0 = none */
    enum sl_option_kind { SL_FLAG, SL_WORD, SL_WORDS, SL_OPTION_INTEGER, SL_OPTION_NUMBER } kind;
    void *to;
    double min, max;
} sl_option;

/* Reads options (a table that ends with a nameless one) and leaves the other words in `rest`. Returns -1 to go on,
 * otherwise what to exit with: --help was printed, or a mistake was said. Frees nothing: see sl_words_free. */
int sl_options_read(const sl_command *, int argc, char **argv, const sl_option *, sl_words *rest);
void sl_words_free(sl_words *);

/* "sluice run: …; see sluice run --help" on stderr. Returns SL_EXIT_USAGE. */
int sl_usage(const sl_command *, const char *format, ...) SLUICE_PRINTF(2, 3);
/* "sluice run: …" on stderr. Returns `code`. */
int sl_fail(const sl_command *, int code, const char *format, ...) SLUICE_PRINTF(3, 4);

#endif
