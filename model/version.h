/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Versions of models in memory: one copy each, shared by all who open it.
 *
 * A version is named by its folder (after symbolic links), the type it is computed in and, for one that starts random,
 * its seed. It is opened once and freed when it is last closed. Its numbers are read when something is first computed
 * with them, straight into the form the device wants; a flat float32 array of them exists only where tensors are asked
 * for. Everything here may be called from any thread.
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
    sm_checkpoint *checkpoint; /* of a copy: with params, which its user may write to */
    kn_dtype dtype;            /* computed in: KN_F32 or KN_BF16 */
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
    size_t running;      /* calls between begin and end */
    bool hashed, told_no_template, told_numerics, told_other_type;
    uint8_t hash[16];
} sm_version;

sm_versions *sm_versions_new(kn_device *device); /* borrows the device; NULL when out of memory */
void sm_versions_free(sm_versions *versions);    /* after all versions are closed */
kn_device *sm_versions_device(const sm_versions *versions);

/* dtype: what the version is to be computed in; float32 where the device has no such table. */
int sm_version_open(sm_versions *versions, const char *dir, kn_dtype dtype, bool random, uint64_t seed,
                    sm_version **out, sm_error *error);
/* A copy with parameters of its own, which only the caller knows of. */
int sm_version_copy(sm_version *origin, sm_version **out, sm_error *error);
void sm_version_keep(sm_version *version); /* one more user, who will close it */
void sm_version_close(sm_version *version);

/* The network of the version, ready to run, and a workspace for this call; give the workspace back. Parameters of a
 * copy are taken over anew each time. */
int sm_version_begin(sm_version *version, sm_network **network, sm_workspace **workspace, sm_error *error);
void sm_version_end(sm_version *version, sm_workspace *workspace);

/* Gives back the memory of the packed weights if no call runs; the next begin packs them again. */
void sm_version_rest(sm_version *version);

/* Its parameters, for whoever reads them tensor by tensor; valid while the version is open. */
sm_numbers sm_version_numbers(sm_version *version);
/* The same as a flat array, read when this is first called; they stay until the version is closed. */
int sm_version_params(sm_version *version, float **params, sm_error *error);

/* "cpu-fma-own1-bf16", say: what decides its results beside weights and input. */
const char *sm_version_numerics(const sm_version *version);

/* XXH3-128 of what determines its behaviour (sm_checkpoint_hash); of the parameters where they came from no file. */
int sm_version_hash(sm_version *version, uint8_t hash[16], sm_error *error);

/* True the first time it is asked. */
bool sm_version_tell_no_template(sm_version *version);
bool sm_version_tell_numerics(sm_version *version);
bool sm_version_tell_other_type(sm_version *version);

#endif
