/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Versions of models in memory: one copy each, shared by all who open it.
 *
 * A version is named by its folder (after symbolic links) and, for one that starts random, its seed. It is loaded when
 * it is first opened and freed when it is last closed; weights are packed for the device when something is first
 * computed with them. Everything here may be called from any thread.
 */
#ifndef MODEL_VERSION_H
#define MODEL_VERSION_H

#include <pthread.h>
#include <sys/types.h>
#include <time.h>

#include "model/chat.h"
#include "model/checkpoint.h"
#include "model/tokenizer.h"
#include "model/transformer.h"

typedef struct sm_versions sm_versions;

typedef struct sm_version {
    /* fixed while it is open */
    sm_versions *owner;
    char *path;                /* of the folder, resolved */
    sm_checkpoint *checkpoint; /* params are written to in a copy only */
    sm_tokenizer *tokenizer;   /* NULL when the folder has none; a copy borrows its origin's */
    sm_chat *chat;             /* NULL when there is no template */
    uint64_t template_hash;    /* 0 without one */
    struct sm_version *origin; /* of a copy: the version it was made from, which it keeps open */
    bool random;
    uint64_t seed;
    dev_t device_number;
    ino_t inode;
    struct timespec changed;

    /* under owner's lock */
    size_t users;
    struct sm_version *next;

    pthread_mutex_t lock; /* for what follows */
    sm_network *network;
    sm_workspace *spare; /* of a finished call, for the next */
    bool hashed, told_no_template;
    uint8_t hash[16];
} sm_version;

sm_versions *sm_versions_new(kn_device *device); /* borrows the device; NULL when out of memory */
void sm_versions_free(sm_versions *versions);    /* after all versions are closed */
kn_device *sm_versions_device(const sm_versions *versions);

int sm_version_open(sm_versions *versions, const char *dir, bool random, uint64_t seed, sm_version **out,
                    sm_error *error);
/* A copy with parameters of its own, which only the caller knows of. */
int sm_version_copy(sm_version *origin, sm_version **out, sm_error *error);
void sm_version_keep(sm_version *version); /* one more user, who will close it */
void sm_version_close(sm_version *version);

/* The network of the version, ready to run, and a workspace for this call; give the workspace back. Parameters of a
 * copy are taken over anew each time. */
int sm_version_begin(sm_version *version, sm_network **network, sm_workspace **workspace, sm_error *error);
void sm_version_end(sm_version *version, sm_workspace *workspace);

/* XXH3-128 of what determines its behaviour (sm_checkpoint_hash); of the parameters where they came from no file. */
int sm_version_hash(sm_version *version, uint8_t hash[16], sm_error *error);

/* True the first time it is asked. */
bool sm_version_tell_no_template(sm_version *version);

#endif
