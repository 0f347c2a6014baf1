/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/cli/cli.h"
#include "core/base/near.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int sl_exit_of(int result)
{
    switch (result) {
    case SLUICE_BAD_PARAMETER:
        return SL_EXIT_USAGE;
    case SLUICE_CORRUPT:
    case SLUICE_BAD_RECORD:
    case SLUICE_BAD_MODEL:
        return SL_EXIT_DAMAGED;
    case SLUICE_CANCELLED:
        return SL_EXIT_CANCELLED;
    default:
        return result < 0 ? SL_EXIT_FAILED : SL_EXIT_OK;
    }
}

static void say(const sl_command *command, const char *format, va_list args)
{
    fflush(stdout);
    fprintf(stderr, "sluice %s: ", command->name);
    vfprintf(stderr, format, args);
}

int sl_usage(const sl_command *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(command, format, args);
    va_end(args);
    fprintf(stderr, "; see sluice %s --help\n", command->name);
    return SL_EXIT_USAGE;
}

int sl_fail(const sl_command *command, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(command, format, args);
    va_end(args);
    fputs("\n", stderr);
    return code;
}

void sl_words_free(sl_words *words)
{
    free(words->items);
    *words = (sl_words){0};
}

static bool add_word(sl_words *words, const char *word)
{
    const char **items = realloc(words->items, (words->count + 1) * sizeof *items);
    if (!items)
        return false;
    words->items = items;
    words->items[words->count++] = word;
    return true;
}

/* -1, or what to exit with. */
static int take(const sl_command *command, const sl_option *option, const char *value)
{
    char *end;
    errno = 0;
    switch (option->kind) {
    case SL_FLAG:
        *(bool *)option->to = true;
        return -1;
    case SL_WORD:
        *(const char **)option->to = value;
        return -1;
    case SL_WORDS:
        return add_word(option->to, value) ? -1 : sl_fail(command, SL_EXIT_FAILED, "out of memory");
    case SL_OPTION_INTEGER: {
        const long long number = strtoll(value, &end, 10);
        if (!*value || *end || errno)
            return sl_usage(command, "--%s wants an integer, not '%s'", option->name, value);
        if ((double)number < option->min || (double)number > option->max)
            return sl_usage(command, "--%s is %lld; it must be from %.15g to %.15g", option->name, number, option->min,
                            option->max);
        *(int64_t *)option->to = number;
        return -1;
    }
    default: {
        const double number = strtod(value, &end);
        if (!*value || *end || !isfinite(number))
            return sl_usage(command, "--%s wants a number, not '%s'", option->name, value);
        if (number < option->min || number > option->max)
            return sl_usage(command, "--%s is %.15g; it must be from %.15g to %.15g", option->name, number, option->min,
                            option->max);
        *(double *)option->to = number;
        return -1;
    }
    }
}

/* The option that a word names; *value is what follows a = or a letter, or NULL. */
static const sl_option *find(const sl_option *options, const char *word, const char **value)
{
    const bool spelt = word[1] == '-';
    const char *name = word + (spelt ? 2 : 1);
    const size_t length = strcspn(name, "=");
    *value = NULL;
    for (const sl_option *o = options; o->name; o++) {
        if (spelt && strlen(o->name) == length && strncmp(o->name, name, length) == 0) {
            *value = name[length] ? name + length + 1 : NULL;
            return o;
        }
        if (!spelt && o->letter && *name == o->letter) {
            *value = name[1] ? name + 1 : NULL;
            return o;
        }
    }
    return NULL;
}

int sl_options_read(const sl_command *command, int argc, char **argv, const sl_option *options, sl_words *rest)
{
    bool plain = false; /* after -- */
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i], *value;
        if (plain || word[0] != '-' || word[1] == '\0') {
            if (!add_word(rest, word))
                return sl_fail(command, SL_EXIT_FAILED, "out of memory");
            continue;
        }
        if (strcmp(word, "--") == 0) {
            plain = true;
            continue;
        }
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            fputs(command->help, stdout);
            return SL_EXIT_OK;
        }
        const sl_option *option = find(options, word, &value);
        if (!option) {
            sl_near near = {.wanted = word + (word[1] == '-' ? 2 : 1)};
            for (const sl_option *o = options; o->name; o++)
                sl_near_offer(&near, o->name);
            if (near.best)
                return sl_usage(command, "there is no option %s; did you mean --%s?", word, near.best);
            return sl_usage(command, "there is no option %s", word);
        }
        if (option->kind == SL_FLAG && value)
            return sl_usage(command, "--%s takes no value", option->name);
        if (option->kind != SL_FLAG && !value) {
            if (i + 1 == argc)
                return sl_usage(command, "--%s wants a value", option->name);
            value = argv[++i];
        }
        const int code = take(command, option, value);
        if (code >= 0)
            return code;
    }
    return -1;
}
