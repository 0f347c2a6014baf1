/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* sluice store: what lies in a store, and less of it. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "core/cli/cli.h"
#include "core/store/store.h"
#include "tools/store/quantity.h"

static const char help[] =
    "sluice store ls | du | gc [--older-than AGE] [--max-size SIZE] | rm KEY…   [--store DIR]\n\n"
    "The store keeps what finished stages put out, streams and models, under keys made of all that determined it; "
    "runs\n"
    "take from it what they would compute again. It is $XDG_CACHE_HOME/sluice/store (~/.cache/sluice/store) unless\n"
    "--store or SLUICE_STORE names another. What a run folder and the store both have lies on the disk once, where "
    "the\n"
    "file system can; ALONE is what the store has alone, and what removing would free.\n\n"
    "  ls                the entries: key, size, alone, when last used, phase, iteration and stage\n"
    "  du                the store's place and its sizes\n"
    "  gc                removes what killed runs left half-written, and with\n"
    "   --older-than AGE  entries that no run used for so long: 30d, 12h, 45m\n"
    "   --max-size SIZE   the longest unused, until so much is the store's alone: 500M, 10G\n"
    "  rm KEY…           removes entries; the first digits of a key are enough\n\n"
    "Nothing of it touches a run folder. The default store is held at 10 GiB of its own by every run.\n\n"
    "Exit codes: 0 done, 1 failed (no such store or entry, cannot write), 2 wrong usage.\n\n"
    "Example:\n"
    "  sluice store gc --older-than 30d\n";

typedef struct totals {
    size_t entries;
    int64_t bytes, alone;
} totals;

static int count(void *context, const sl_store_entry *entry)
{
    totals *t = context;
    t->entries++;
    t->bytes += entry->bytes;
    t->alone += entry->alone;
    return SLUICE_OK;
}

static int print_entry(void *context, const sl_store_entry *entry)
{
    const int64_t *now = context;
    char key[SL_HEX_SIZE], a[ST_TEXT], b[ST_TEXT], c[ST_TEXT], phase[64], stage[64], iteration[24], id[64];
    sl_hex(entry->key, sizeof entry->key, key);
    sl_store_input(entry->inputs, "phase", phase, sizeof phase);
    sl_store_input(entry->inputs, "iteration", iteration, sizeof iteration);
    sl_store_input(entry->inputs, "stage", stage, sizeof stage);
    sl_store_input(entry->inputs, "class", id, sizeof id);
    printf("%.16s  %10s  %10s  %11s  ", key, st_size(entry->bytes, a), st_size(entry->alone, b),
           st_age(*now - entry->used, c));
    if (stage[0] != '\0')
        printf("%s %s %s (%s)\n", phase, iteration, stage, id);
    else
        puts("damaged");
    return SLUICE_OK;
}

static int list(sl_store *store)
{
    int64_t now = (int64_t)time(NULL);
    printf("%-16s  %10s  %10s  %11s  %s\n", "KEY", "SIZE", "ALONE", "UNUSED FOR", "STAGE");
    sl_store_visit(store, print_entry, &now);
    return SL_EXIT_OK;
}

static int measure(sl_store *store)
{
    totals t = {0};
    char a[ST_TEXT], b[ST_TEXT];
    sl_store_visit(store, count, &t);
    printf("store    %s\nentries  %zu\nsize     %s\nalone    %s\n", sl_store_path(store), t.entries,
           st_size(t.bytes, a), st_size(t.alone, b));
    return SL_EXIT_OK;
}

static int collect(const sl_command *command, sl_store *store, const char *older, const char *most)
{
    sl_store_gc gc = {.before = INT64_MIN, .most = -1};
    int64_t age;
    char a[ST_TEXT];
    if (older != NULL && !st_read_time(older, &age))
        return sl_usage(command, "--older-than is '%s'; write a time: 30d, 12h, 45m", older);
    if (most != NULL && !st_read_size(most, &gc.most))
        return sl_usage(command, "--max-size is '%s'; write a size: 500M, 10G", most);
    if (older != NULL)
        gc.before = (int64_t)time(NULL) - age;
    if (sl_store_collect(store, &gc) != SLUICE_OK)
        return sl_fail(command, SL_EXIT_FAILED, "cannot remove from %s: %s", sl_store_path(store), strerror(errno));
    printf("%zu entr%s removed, %s freed\n", gc.removed, gc.removed == 1 ? "y" : "ies", st_size(gc.freed, a));
    return SL_EXIT_OK;
}

typedef struct search {
    const char *wanted;
    size_t found;
    uint8_t key[SL_HASH_SIZE];
} search;

static int compare(void *context, const sl_store_entry *entry)
{
    search *s = context;
    char key[SL_HEX_SIZE];
    sl_hex(entry->key, sizeof entry->key, key);
    if (strncmp(key, s->wanted, strlen(s->wanted)) == 0) {
        s->found++;
        memcpy(s->key, entry->key, sizeof s->key);
    }
    return SLUICE_OK;
}

static int remove_keys(const sl_command *command, sl_store *store, const char *const *keys, size_t keys_given)
{
    if (keys_given == 0)
        return sl_usage(command, "rm wants a key; sluice store ls shows them");
    for (size_t i = 0; i < keys_given; i++) {
        search s = {.wanted = keys[i]};
        if (strlen(keys[i]) < 4)
            return sl_usage(command, "'%s' is too short; give at least 4 digits of the key", keys[i]);
        sl_store_visit(store, compare, &s);
        if (s.found != 1)
            return sl_fail(command, SL_EXIT_FAILED,
                           s.found == 0 ? "%s has no entry %s; sluice store ls shows them"
                                        : "%s has several entries %s…; give more digits",
                           sl_store_path(store), keys[i]);
        if (sl_store_remove(store, s.key) < 0)
            return sl_fail(command, SL_EXIT_FAILED, "cannot remove %s from %s: %s", keys[i], sl_store_path(store),
                           strerror(errno));
    }
    return SL_EXIT_OK;
}

static int act(const sl_command *command, const sl_words *words, const char *where, const char *older, const char *most)
{
    char path[PATH_MAX], error[1024];
    bool by_default;
    sl_store *store;
    const char *verb = words->items[0];
    const bool gc = strcmp(verb, "gc") == 0, rm = strcmp(verb, "rm") == 0;
    if (!gc && !rm && strcmp(verb, "ls") != 0 && strcmp(verb, "du") != 0)
        return sl_usage(command, "there is no '%s'; it is ls, du, gc or rm", verb);
    if (!rm && words->count > 1)
        return sl_usage(command, "%s takes no '%s'", verb, words->items[1]);
    if (!gc && (older != NULL || most != NULL))
        return sl_usage(command, "--older-than and --max-size belong to gc");
    if (!sl_store_place(where, NULL, path, &by_default))
        return sl_fail(command, SL_EXIT_FAILED,
                       "no store is named: SLUICE_STORE is off, or there is no home; give --store DIR");
    if (sl_store_open(path, false, &store, error, sizeof error) < 0)
        return sl_fail(command, SL_EXIT_FAILED, "%s", error);
    int code = SL_EXIT_OK;
    if (gc)
        code = collect(command, store, older, most);
    else if (rm)
        code = remove_keys(command, store, words->items + 1, words->count - 1);
    else
        code = verb[0] == 'l' ? list(store) : measure(store);
    sl_store_close(store);
    return code;
}

int main(int argc, char **argv)
{
    static const sl_command command = {.name = "store", .help = help};
    sl_words words = {0};
    const char *where = NULL, *older = NULL, *most = NULL;
    const sl_option options[] = {{.name = "store", .kind = SL_WORD, .to = &where},
                                 {.name = "older-than", .kind = SL_WORD, .to = &older},
                                 {.name = "max-size", .kind = SL_WORD, .to = &most},
                                 {0}};
    int code = sl_options_read(&command, argc - 1, argv + 1, options, &words);
    if (code < 0 && words.count == 0)
        code = sl_usage(&command, "say what to do: ls, du, gc or rm");
    if (code < 0)
        code = act(&command, &words, where, older, most);
    sl_words_free(&words);
    if (fflush(stdout) != 0 && code == SL_EXIT_OK)
        code = sl_fail(&command, SL_EXIT_FAILED, "cannot write: %s", strerror(errno));
    return code;
}
