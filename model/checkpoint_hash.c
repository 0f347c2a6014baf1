/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/checkpoint.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "model/json_file.h"
#include "model/weight_files.h"

#define BLOCK ((size_t)1 << 20)

/* Everything but weights that decides what a model reads, says, or where it stops; in the order in which it is hashed.
 */
static const char *const decisive[] = {
    "added_tokens.json", "chat_template.jinja", "chat_template.json",      "config.json",     "generation_config.json",
    "merges.txt",        "tokenizer.json",      "special_tokens_map.json", "tokenizer.model", "tokenizer_config.json",
    "vocab.json",
};

/* Name, NUL, length, bytes: no two lists of files give the same sequence. */
static int hash_file(XXH3_state_t *state, const char *dir, const char *name, void *block, sm_error *error)
{
    char *path = sm_path(dir, name);
    if (!path) {
        return sm_fail(error, SM_NO_MEMORY, "%s: no memory to read it", dir);
    }
    unsigned long long size;
    int status = SM_OK;
    const int descriptor = sm_file_open(path, &size, error);
    if (descriptor < 0) {
        free(path);
        return descriptor;
    }
    const uint64_t length = size;
    XXH3_128bits_update(state, name, strlen(name) + 1);
    XXH3_128bits_update(state, &length, sizeof length);
    for (uint64_t done = 0; !status && done < length;) {
        const size_t now = length - done < BLOCK ? (size_t)(length - done) : BLOCK;
        if (!(status = sm_file_read_at(descriptor, path, block, now, done, error))) {
            XXH3_128bits_update(state, block, now);
        }
        done += now;
    }
    close(descriptor);
    free(path);
    return status;
}

static bool exists(const char *dir, const char *name)
{
    char *path = sm_path(dir, name);
    struct stat found;
    const bool there = path && stat(path, &found) == 0;
    free(path);
    return there;
}

int sm_checkpoint_hash(uint64_t hash[2], const char *dir, sm_error *error)
{
    char **weights = NULL;
    int status = sm_weight_files_names(dir, &weights, error);
    if (status) {
        return status;
    }
    XXH3_state_t *state = XXH3_createState();
    void *block = malloc(BLOCK);
    if (!state || !block) {
        status = sm_fail(error, SM_NO_MEMORY, "%s: no memory to read it", dir);
    } else {
        XXH3_128bits_reset(state);
    }
    for (size_t i = 0; !status && i < sizeof decisive / sizeof *decisive; i++) {
        if (exists(dir, decisive[i])) {
            status = hash_file(state, dir, decisive[i], block, error);
        }
    }
    for (size_t i = 0; weights[i]; i++) {
        if (!status) {
            status = hash_file(state, dir, weights[i], block, error);
        }
        free(weights[i]);
    }
    if (!status) {
        const XXH128_hash_t digest = XXH3_128bits_digest(state);
        hash[0] = digest.high64;
        hash[1] = digest.low64;
    }
    free(weights);
    free(block);
    XXH3_freeState(state);
    return status;
}
