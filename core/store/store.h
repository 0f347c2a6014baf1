/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The store: outputs of finished stages under their content keys, shared by all runs of a user.
 *
 * An entry is a folder XX/KEY (XX: the key's first two digits) with the files that a stage left, `inputs` (the text
 * whose hash is the key: all that determined the output, a line each) and `files` (size and hash of each file, and of
 * this list itself). It is written under new/ and renamed, so it is whole or not there; one that was damaged later is
 * found when it is taken, because every file is read and compared then.
 *
 * Files come and go as reflinks where the file system can (Btrfs, XFS), else as hard links, else as copies. What is
 * hard-linked is made read-only: nobody may change it in place, in the store or in a run. Removing a run or an entry
 * removes one name of such a file; the others keep it.
 *
 * Any number of processes may use one store at once. Who computes an output can claim its key, and others can wait for
 * it; a claim ends with the process. Nothing here waits.
 *
 * To let several runs share their stages, give them the same store (`sluice run … --store DIR`): runs one after another
 * take what the earlier ones left, runs at the same time wait for a stage that another one is just computing, so that
 * what they share is computed once.
 */
#ifndef SL_STORE_H
#define SL_STORE_H

#include <limits.h>
#include "core/base/buffer.h"
#include "core/base/hash.h"

typedef struct sl_store sl_store;

/* The default store keeps at most this much that no run has any more. */
#define SL_STORE_BOUND (INT64_C(10) << 30)

/* Which store: what the command line says, else SLUICE_STORE, else what the pipeline file says (both may be NULL), else
 * $XDG_CACHE_HOME/sluice/store (~/.cache/sluice/store). False = none: "off" was said, or there is no home.
 * *by_default: nobody named it. */
bool sl_store_place(const char *option, const char *file, char path[PATH_MAX], bool *by_default);

/* Opens a store; `make`: creates it where it is missing. One line in `error` when it cannot be used: not there, another
 * user's, writable by everybody, or a folder with other things in it. One thread at a time for all that follows,
 * except claim, release and put. */
int sl_store_open(const char *path, bool make, sl_store **, char *error, size_t error_size);
void sl_store_close(sl_store *);
const char *sl_store_path(const sl_store *);

/* Whoever computes KEY's output. False: another process does. */
bool sl_store_claim(sl_store *, const uint8_t key[SL_HASH_SIZE]);
void sl_store_release(sl_store *, const uint8_t key[SL_HASH_SIZE]);

/* A file of an entry: its name there ("stream.zst", "models/policy@1/config.json") and its place outside. */
typedef struct sl_store_file {
    const char *name, *path;
} sl_store_file;

/* Adds an entry; the caller has the claim. `inputs` hashes to the key. An entry that is there already stays, unless
 * `replace`. SLUICE_IO with one line in `error`. */
int sl_store_put(sl_store *, const uint8_t key[SL_HASH_SIZE], const char *inputs, const sl_store_file *, size_t count,
                 bool replace, char *error, size_t error_size);

/* Where a file of an entry is to go: a path that is free, its folder made; borrowed until the next call. NULL: nowhere.
 */
typedef const char *sl_store_where(void *context, const char *name);
/* Brings the files of an entry to their places and compares all of them with what was stored. SLUICE_END: there is no
 * such entry. SLUICE_CORRUPT: it is damaged; `error` says which file and how, and the entry is removed. SLUICE_IO: the
 * files cannot be written. What was brought before an error is left to the caller. */
int sl_store_take(sl_store *, const uint8_t key[SL_HASH_SIZE], sl_store_where *, void *context, char *error,
                  size_t error_size);
/* The same comparison without bringing or removing anything. */
int sl_store_check(sl_store *, const uint8_t key[SL_HASH_SIZE], char *error, size_t error_size);

typedef struct sl_store_entry {
    uint8_t key[SL_HASH_SIZE];
    const char *inputs;   /* its text; "" when damaged */
    int64_t bytes, alone; /* of its files; of those that no run has (reflinks count as such) */
    int64_t made, used;   /* seconds since 1970 */
} sl_store_entry;

/* Every entry, by key; pointers are valid during the call. A result other than SLUICE_OK ends the visit and is
 * returned. */
typedef int sl_store_visitor(void *context, const sl_store_entry *);
int sl_store_visit(sl_store *, sl_store_visitor *, void *context);

/* SLUICE_END: there is no such entry. */
int sl_store_remove(sl_store *, const uint8_t key[SL_HASH_SIZE]);

typedef struct sl_store_gc {
    int64_t before; /* removes entries last used before this second; INT64_MIN = none */
    int64_t most;   /* removes the longest unused until at most so many bytes are the store's alone; -1 = no bound */
    size_t removed;
    int64_t freed; /* bytes that were the store's alone */
} sl_store_gc;

/* Also removes what killed processes left half-written. */
int sl_store_collect(sl_store *, sl_store_gc *);

/* The value of a line of an entry's inputs ("stage", "seed"), of at most size - 1 bytes; "" when there is none. */
void sl_store_input(const char *inputs, const char *name, char *value, size_t size);

#endif
