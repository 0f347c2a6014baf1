/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/version.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "model/json_file.h"

#define MAX_TEMPLATE_FILE ((size_t)16 << 20)

struct sm_versions {
    kn_device *device;
    pthread_mutex_t lock;
    sm_version *first;
};

sm_versions *sm_versions_new(kn_device *device)
{
    sm_versions *v = calloc(1, sizeof(*v));
    if (v) {
        v->device = device;
        pthread_mutex_init(&v->lock, NULL);
    }
    return v;
}

void sm_versions_free(sm_versions *v)
{
    if (!v)
        return;
    pthread_mutex_destroy(&v->lock);
    free(v);
}

kn_device *sm_versions_device(const sm_versions *v)
{
    return v->device;
}

/* --- loading --------------------------------------------------------------------------------------------------------
 */

static sm_version *version_new(sm_versions *owner)
{
    sm_version *v = calloc(1, sizeof(*v));
    if (v) {
        v->owner = owner;
        v->users = 1;
        pthread_mutex_init(&v->lock, NULL);
    }
    return v;
}

static void version_free(sm_version *v)
{
    sm_workspace_free(v->spare);
    sm_network_free(v->network);
    if (!v->origin) {
        if (v->chat)
            sm_chat_free(v->chat);
        if (v->tokenizer)
            sm_tokenizer_free(v->tokenizer);
    }
    sm_checkpoint_free(v->checkpoint);
    pthread_mutex_destroy(&v->lock);
    free(v->path);
    free(v);
}

/* What names the chat template: the bytes of its file, or its value in tokenizer_config.json. */
static int hash_template(sm_version *v, sm_error *error)
{
    char *file = sm_path(v->path, "chat_template.jinja"), *text = NULL;
    size_t length = 0;
    int rc = SM_OK;
    if (!file)
        return sm_fail(error, SM_NO_MEMORY, "out of memory for a model");
    if (access(file, F_OK) == 0) {
        rc = sm_file_read(file, MAX_TEMPLATE_FILE, &text, &length, error);
        free(file);
    } else {
        free(file);
        if (!(file = sm_path(v->path, "tokenizer_config.json")))
            return sm_fail(error, SM_NO_MEMORY, "out of memory for a model");
        json_t *config = sm_json_read(file, MAX_TEMPLATE_FILE, error);
        free(file);
        if (!config)
            return error->code;
        text = json_dumps(json_object_get(config, "chat_template"), JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
        length = text ? strlen(text) : 0;
        json_decref(config);
    }
    if (rc == SM_OK)
        v->template_hash = XXH3_64bits(text, length);
    free(text);
    return rc;
}

/* A checkpoint without tokenizer.json is a model of bare token ids; one with a bad tokenizer.json is refused. */
static int load_tokenizer(sm_version *v, sm_error *error)
{
    char *file = sm_path(v->path, "tokenizer.json");
    if (!file)
        return sm_fail(error, SM_NO_MEMORY, "out of memory for a model");
    const bool there = access(file, F_OK) == 0;
    free(file);
    if (!there)
        return SM_OK;
    int rc = sm_tokenizer_load(&v->tokenizer, v->path, error);
    if (rc == SM_OK)
        rc = sm_chat_load(&v->chat, v->path, v->tokenizer, error);
    return rc == SM_OK && v->chat ? hash_template(v, error) : rc;
}

static int load(sm_version *v, sm_error *error)
{
    int rc = v->random ? sm_checkpoint_open_random(&v->checkpoint, v->path, v->seed, error)
                       : sm_checkpoint_open(&v->checkpoint, v->path, error);
    if (rc == SM_OK)
        rc = load_tokenizer(v, error);
    return rc;
}

/* The same folder, not one that took its name or its number after it was removed. */
static bool is_folder(const sm_version *v, const char *path, const struct stat *s)
{
    return strcmp(v->path, path) == 0 && v->device_number == s->st_dev && v->inode == s->st_ino &&
           v->changed.tv_sec == s->st_mtim.tv_sec && v->changed.tv_nsec == s->st_mtim.tv_nsec;
}

static sm_version *find(const sm_versions *versions, const char *path, const struct stat *s, kn_dtype dtype,
                        bool random, uint64_t seed)
{
    for (sm_version *v = versions->first; v; v = v->next)
        if (is_folder(v, path, s) && v->dtype == dtype && v->random == random && v->seed == seed)
            return v;
    return NULL;
}

int sm_version_open(sm_versions *versions, const char *dir, kn_dtype dtype, bool random, uint64_t seed,
                    sm_version **out, sm_error *error)
{
    struct stat s;
    char *path = realpath(dir, NULL);
    *out = NULL;
    if (!path || stat(path, &s) != 0 || !S_ISDIR(s.st_mode)) {
        free(path);
        return sm_fail(error, SM_IO, "%s: no such folder; give the path of a Hugging Face checkpoint folder", dir);
    }
    int rc = SM_OK;
    dtype = sm_device_dtype(versions->device, dtype);
    pthread_mutex_lock(&versions->lock);
    sm_version *v = find(versions, path, &s, dtype, random, random ? seed : 0);
    if (v) {
        v->users++;
        free(path);
    } else if (!(v = version_new(versions))) {
        free(path);
        rc = sm_fail(error, SM_NO_MEMORY, "out of memory for a model");
    } else {
        v->path = path;
        v->dtype = dtype;
        v->random = random;
        v->seed = random ? seed : 0;
        v->device_number = s.st_dev;
        v->inode = s.st_ino;
        v->changed = s.st_mtim;
        rc = load(v, error);
        if (rc == SM_OK) {
            v->next = versions->first;
            versions->first = v;
        } else {
            version_free(v);
        }
    }
    pthread_mutex_unlock(&versions->lock);
    if (rc == SM_OK)
        *out = v;
    return rc;
}

/* A checkpoint of the origin's numbers, in memory of its own. */
static int copy_checkpoint(sm_version *v, sm_error *error)
{
    const sm_checkpoint *from = v->origin->checkpoint;
    const sm_numbers numbers = sm_version_numbers(v->origin);
    sm_checkpoint *c = v->checkpoint = calloc(1, sizeof(*c));
    if (!c)
        return sm_fail(error, SM_NO_MEMORY, "out of memory for a copy of %s", v->origin->path);
    c->stored = from->stored;
    int rc = sm_layout_init(&c->layout, &from->layout.config, error);
    if (rc != SM_OK)
        return rc;
    c->params = aligned_alloc(64, (c->layout.count * sizeof(float) + 63) / 64 * 64);
    if (!c->params)
        return sm_fail(error, SM_NO_MEMORY, "out of memory for a copy of %s", v->origin->path);
    return sm_numbers_read(&numbers, 0, c->layout.count, c->params, error);
}

int sm_version_copy(sm_version *origin, sm_version **out, sm_error *error)
{
    *out = NULL;
    sm_version *v = version_new(origin->owner);
    int rc = SM_OK;
    if (!v || !(v->path = strdup(origin->path))) {
        rc = sm_fail(error, SM_NO_MEMORY, "out of memory for a copy of %s", origin->path);
    } else {
        v->dtype = origin->dtype;
        v->tokenizer = origin->tokenizer;
        v->chat = origin->chat;
        v->template_hash = origin->template_hash;
        v->origin = origin;
        rc = copy_checkpoint(v, error);
    }
    if (rc != SM_OK) {
        if (v)
            version_free(v);
        return rc;
    }
    sm_version_keep(origin);
    *out = v;
    return SM_OK;
}

void sm_version_keep(sm_version *v)
{
    pthread_mutex_lock(&v->owner->lock);
    v->users++;
    pthread_mutex_unlock(&v->owner->lock);
}

void sm_version_close(sm_version *v)
{
    while (v) {
        sm_versions *owner = v->owner;
        sm_version *origin = v->origin;
        pthread_mutex_lock(&owner->lock);
        const bool last = --v->users == 0;
        if (last && !origin) {
            sm_version **at = &owner->first;
            while (*at != v)
                at = &(*at)->next;
            *at = v->next;
        }
        pthread_mutex_unlock(&owner->lock);
        if (!last)
            return;
        version_free(v);
        v = origin; /* a copy lets go of what it was made from */
    }
}

/* --- use ------------------------------------------------------------------------------------------------------------
 */

/* Packs the weights: of a copy from its flat array, which may change; else straight from the files. */
static int pack(sm_version *v, sm_error *error)
{
    const sm_checkpoint *c = v->checkpoint;
    const sm_numbers numbers = v->origin ? (sm_numbers){.params = c->params} : sm_checkpoint_numbers(c);
    return sm_network_new(&v->network, v->owner->device, v->dtype, &c->layout, &numbers, false, error);
}

int sm_version_begin(sm_version *v, sm_network **network, sm_workspace **workspace, sm_error *error)
{
    int rc = SM_OK;
    pthread_mutex_lock(&v->lock);
    if (!v->network)
        rc = pack(v, error);
    else if (v->origin)
        rc = sm_network_refresh(v->network, error);
    *network = v->network;
    *workspace = v->spare;
    v->spare = NULL;
    if (rc == SM_OK && !*workspace && !(*workspace = sm_workspace_new(*network, SM_KEEP_NOTHING)))
        rc = sm_fail(error, SM_NO_MEMORY, "out of memory");
    if (rc == SM_OK)
        v->running++;
    else
        sm_workspace_free(*workspace);
    pthread_mutex_unlock(&v->lock);
    return rc;
}

void sm_version_end(sm_version *v, sm_workspace *workspace)
{
    pthread_mutex_lock(&v->lock);
    sm_workspace *spare = v->spare;
    v->spare = workspace;
    v->running--;
    pthread_mutex_unlock(&v->lock);
    sm_workspace_free(spare);
}

void sm_version_rest(sm_version *v)
{
    pthread_mutex_lock(&v->lock);
    if (v->running == 0) {
        sm_workspace_free(v->spare);
        sm_network_free(v->network);
        v->spare = NULL;
        v->network = NULL;
    }
    pthread_mutex_unlock(&v->lock);
}

/* Under the lock, for the flat array may be filled meanwhile. */
static int read_numbers(void *context, size_t offset, size_t count, float *to, sm_error *error)
{
    sm_version *v = context;
    pthread_mutex_lock(&v->lock);
    const int rc = sm_checkpoint_read(v->checkpoint, offset, count, to, error);
    pthread_mutex_unlock(&v->lock);
    return rc;
}

sm_numbers sm_version_numbers(sm_version *v)
{
    return (sm_numbers){.read = read_numbers, .context = v};
}

int sm_version_params(sm_version *v, float **params, sm_error *error)
{
    pthread_mutex_lock(&v->lock);
    const int rc = sm_checkpoint_params(v->checkpoint, error);
    *params = v->checkpoint->params;
    pthread_mutex_unlock(&v->lock);
    return rc;
}

const char *sm_version_numerics(const sm_version *v)
{
    const kn_device *device = v->owner->device;
    return (v->dtype == KN_BF16 ? device->ops_bf16 : device->ops)->numerics(device);
}

/* Of the parameters, in the order of the flat array. */
static int hash_numbers(const sm_checkpoint *c, uint64_t half[2], sm_error *error)
{
    const sm_layout *layout = &c->layout;
    XXH3_state_t *state = XXH3_createState();
    float *values = malloc(sm_layout_largest(layout) * sizeof(float));
    int rc = SM_OK;
    if (!state || !values)
        rc = sm_fail(error, SM_NO_MEMORY, "out of memory for a model");
    else
        XXH3_128bits_reset(state);
    for (size_t i = 0; rc == SM_OK && i < layout->tensors; i++) {
        rc = sm_checkpoint_read(c, layout->tensor[i].offset, layout->tensor[i].count, values, error);
        if (rc == SM_OK)
            XXH3_128bits_update(state, values, layout->tensor[i].count * sizeof(float));
    }
    if (rc == SM_OK) {
        const XXH128_hash_t h = XXH3_128bits_digest(state);
        half[0] = h.high64;
        half[1] = h.low64;
    }
    XXH3_freeState(state);
    free(values);
    return rc;
}

int sm_version_hash(sm_version *v, uint8_t hash[16], sm_error *error)
{
    int rc = SM_OK;
    pthread_mutex_lock(&v->lock);
    if (!v->hashed || v->origin) {
        uint64_t half[2];
        rc = v->origin || v->random ? hash_numbers(v->checkpoint, half, error)
                                    : sm_checkpoint_hash(half, v->path, error);
        for (size_t i = 0; rc == SM_OK && i < 16; i++)
            v->hash[i] = (uint8_t)(half[i / 8] >> (56 - 8 * (i % 8)));
        v->hashed = rc == SM_OK;
    }
    memcpy(hash, v->hash, sizeof(v->hash));
    pthread_mutex_unlock(&v->lock);
    return rc;
}

static bool first_time(sm_version *v, bool *told)
{
    pthread_mutex_lock(&v->lock);
    const bool first = !*told;
    *told = true;
    pthread_mutex_unlock(&v->lock);
    return first;
}

bool sm_version_tell_no_template(sm_version *v)
{
    return first_time(v, &v->told_no_template);
}

bool sm_version_tell_numerics(sm_version *v)
{
    return first_time(v, &v->told_numerics);
}

bool sm_version_tell_other_type(sm_version *v)
{
    return first_time(v, &v->told_other_type);
}
