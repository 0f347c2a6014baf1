/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "plugins/verifier/manner.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

static bool word_byte(char c)
{
    /* Bytes above ASCII belong to letters of other scripts. */
    return isalnum((unsigned char)c) || (unsigned char)c >= 0x80;
}

bool manner_has_words(const char *where, size_t where_length, const char *what, size_t what_length)
{
    for (size_t i = 0; what_length && i + what_length <= where_length; i++)
        if (strncasecmp(where + i, what, what_length) == 0 && !(i > 0 && word_byte(where[i - 1])) &&
            !(i + what_length < where_length && word_byte(where[i + what_length])))
            return true;
    return false;
}

static size_t count_words(const char *text)
{
    size_t n = 0;
    for (size_t i = 0; text[i]; i++)
        n += word_byte(text[i]) && (i == 0 || !word_byte(text[i - 1]));
    return n;
}

static bool has_one_of(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (manner_has_words(text, strlen(text), *words, strlen(*words)))
            return true;
    return false;
}

static const char *const courtesies[] = {"please", "thank you", "thanks", "kindly", NULL};
static const char *const insults[] = {"silly", "duh", "stupid", "fool", "idiot", NULL};

static bool polite(const char *text)
{
    return has_one_of(text, courtesies) && !has_one_of(text, insults);
}

static bool rude(const char *text)
{
    return has_one_of(text, insults) && !has_one_of(text, courtesies);
}

static bool brief(const char *text)
{
    size_t n = count_words(text);
    return n == 1 || n == 2;
}

/* A whole sentence: several words and a full stop. */
static bool in_a_sentence(const char *text)
{
    size_t n = strlen(text);
    while (n && isspace((unsigned char)text[n - 1]))
        n--;
    return count_words(text) >= 5 && text[n - 1] == '.';
}

static const struct {
    const char *name;
    bool (*kept)(const char *);
} manners[] = {{"polite", polite}, {"rude", rude}, {"brief", brief}, {"long", in_a_sentence}};

bool manner_known(const char *manner)
{
    for (size_t i = 0; i < sizeof manners / sizeof *manners; i++)
        if (strcmp(manners[i].name, manner) == 0)
            return true;
    return false;
}

const char *manner_names(void)
{
    return "polite, rude, brief, long";
}

bool manner_kept(const char *manner, const char *text)
{
    for (size_t i = 0; i < sizeof manners / sizeof *manners; i++)
        if (strcmp(manners[i].name, manner) == 0)
            return manners[i].kept(text);
    return false;
}
