/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Content keys: 128 bits over all that determines what a stage puts out. Equal key, equal bytes; so what lies in the
 * run's folder under the same key is not computed again.
 *
 * In a key: class and the file that holds it, resolved parameters (but for those that change speed alone), the key of
 * the input, the keys of the model versions read (of version 0 the content of its folder), the content of files, seed,
 * names of phase and stage, iteration and repeat (randomness and splits hang on them), and for stages that use a model
 * what the services say decides their numbers. Not in it: paths, times, the machine's name, the number of threads.
 */
#include "core/run/internal.h"

#include <errno.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

/* A file's content hash, valid while size and time of change stay. */
struct sl_content {
    struct sl_content *next;
    const char *path;
    struct stat stat;
    uint8_t hash[16];
};

void sl_hex(const uint8_t *bytes, size_t count, char *text)
{
    for (size_t i = 0; i < count; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

static void canonical(XXH128_hash_t hash, uint8_t out[16])
{
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, hash);
    memcpy(out, c.digest, 16);
}

/* Everything is added with its length, so that no two different sequences give the same bytes. */
static void add(XXH3_state_t *hash, const void *bytes, size_t size)
{
    const uint64_t n = size;
    XXH3_128bits_update(hash, &n, sizeof n);
    if (size > 0)
        XXH3_128bits_update(hash, bytes, size);
}

static void add_text(XXH3_state_t *hash, const char *text)
{
    const uint8_t present = text != NULL;
    add(hash, &present, 1);
    if (present)
        add(hash, text, strlen(text));
}

static void add_integer(XXH3_state_t *hash, int64_t value)
{
    add(hash, &value, sizeof value);
}

static int hash_file(sl_execution *run, const char *path, const struct stat *now, uint8_t out[16])
{
    for (const struct sl_content *c = run->contents; c != NULL; c = c->next)
        if (strcmp(c->path, path) == 0 && c->stat.st_size == now->st_size && c->stat.st_ino == now->st_ino &&
            c->stat.st_mtim.tv_sec == now->st_mtim.tv_sec && c->stat.st_mtim.tv_nsec == now->st_mtim.tv_nsec) {
            memcpy(out, c->hash, 16);
            return SLUICE_OK;
        }
    FILE *file = fopen(path, "rbe");
    XXH3_state_t *hash = XXH3_createState();
    const size_t chunk = 1 << 20;
    void *bytes = malloc(chunk);
    int rc = file == NULL ? SLUICE_IO : hash == NULL || bytes == NULL ? SLUICE_NO_MEMORY : SLUICE_OK;
    if (rc >= 0)
        XXH3_128bits_reset(hash);
    for (size_t n; rc >= 0 && (n = fread(bytes, 1, chunk, file)) > 0;)
        XXH3_128bits_update(hash, bytes, n);
    if (rc >= 0 && ferror(file))
        rc = SLUICE_IO;
    if (rc >= 0)
        canonical(XXH3_128bits_digest(hash), out);
    if (file != NULL)
        fclose(file);
    XXH3_freeState(hash);
    free(bytes);
    struct sl_content *c = rc >= 0 ? sl_arena_alloc(run->arena, sizeof *c) : NULL;
    if (c != NULL && (c->path = sl_arena_strdup(run->arena, path)) != NULL) {
        c->next = run->contents;
        c->stat = *now;
        memcpy(c->hash, out, 16);
        run->contents = c;
    }
    return rc;
}

/* Of a checkpoint folder, what decides the model: weights, settings, tokenizer, template. */
static int is_model_file(const struct dirent *entry)
{
    static const char *const ends[] = {".json", ".safetensors", ".model", ".jinja", ".txt"};
    const size_t n = strlen(entry->d_name);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (entry->d_name[0] != '.' && n > strlen(ends[i]) && strcmp(entry->d_name + n - strlen(ends[i]), ends[i]) == 0)
            return 1;
    return 0;
}

static int is_plain(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* A file's content, or names and contents of a folder's files. What is not there counts as that. */
static int add_content(sl_execution *run, XXH3_state_t *hash, const char *path, bool model, char *error)
{
    struct stat s;
    uint8_t content[16];
    if (path == NULL || stat(path, &s) != 0) {
        add_text(hash, NULL);
        return SLUICE_OK;
    }
    int rc = SLUICE_OK;
    if (!S_ISDIR(s.st_mode)) {
        rc = S_ISREG(s.st_mode) ? hash_file(run, path, &s, content) : SLUICE_BAD_FILE;
        if (rc >= 0)
            add(hash, content, sizeof content);
    } else {
        struct dirent **entries = NULL;
        const int count = scandir(path, &entries, model ? is_model_file : is_plain, by_name);
        if (count < 0)
            rc = SLUICE_IO;
        for (int i = 0; i < count; i++) {
            char *file = sl_arena_printf(run->arena, "%s/%s", path, entries[i]->d_name);
            if (rc >= 0 && file == NULL)
                rc = SLUICE_NO_MEMORY;
            if (rc >= 0 && stat(file, &s) == 0 && S_ISREG(s.st_mode)) {
                add_text(hash, entries[i]->d_name);
                rc = hash_file(run, file, &s, content);
                add(hash, content, rc >= 0 ? sizeof content : 0);
            }
            free(entries[i]);
        }
        free(entries);
    }
    if (rc < 0)
        snprintf(error, SL_ERROR_SIZE, "cannot read %s: %s", path,
                 rc == SLUICE_BAD_FILE ? "neither a file nor a folder" : strerror(errno));
    return rc;
}

struct reader {
    sl_execution *run;
    sl_job *job;
    XXH3_state_t *hash;
    char *error;
};

static int compute(sl_execution *, sl_job *, char *error);

static int add_version(void *context, const sl_model_use *use)
{
    const struct reader *r = context;
    const sl_slot *slot = &r->run->plan->slots[use->slot];
    add_text(r->hash, slot->name); /* "policy@1" labels what stages write into records */
    add_integer(r->hash, use->version);
    add_integer(r->hash, use->next);
    add_text(r->hash, slot->dtype);
    add_integer(r->hash, slot->random);
    if (use->version == 0)
        return add_content(r->run, r->hash, slot->path, true, r->error);
    sl_job *publisher = sl_version_publisher(r->run, use->slot, use->version);
    if (publisher == NULL || publisher == r->job) {
        snprintf(r->error, SL_ERROR_SIZE, "stage '%s' (%s:%d): nothing publishes %s@%lld before it",
                 r->job->stage->name, r->job->stage->file, r->job->stage->line, slot->name, (long long)use->version);
        return SLUICE_BAD_MODEL;
    }
    const int rc = compute(r->run, publisher, r->error);
    add(r->hash, publisher->key, sizeof publisher->key);
    return rc;
}

static int add_object(struct reader *r, const sl_object *object)
{
    int rc = SLUICE_OK;
    const bool sink = object->type->type->kind == SLUICE_SINK;
    add_text(r->hash, object->type->type->id);
    add(r->hash, object->type->file_hash, sizeof object->type->file_hash);
    for (size_t v = 0; rc >= 0 && v < object->value_count; v++) {
        const sl_value *value = &object->values[v];
        const sluice_param *param = value->param;
        if (param->speed_only)
            continue;
        add_text(r->hash, param->name);
        add_integer(r->hash, param->type);
        switch (param->type) {
        case SLUICE_TYPE_BOOL:
        case SLUICE_TYPE_DOUBLE:
            add(r->hash, &value->number, sizeof value->number);
            break;
        case SLUICE_TYPE_INT:
            add_integer(r->hash, value->integer);
            break;
        case SLUICE_TYPE_CHOICE:
            add_text(r->hash, param->choices[(int)value->number]);
            break;
        case SLUICE_TYPE_FILE: /* a sink's file is what it makes: its place counts, not what lies there */
            if (sink)
                add_text(r->hash, value->text);
            else
                rc = add_content(r->run, r->hash, value->text, false, r->error);
            break;
        case SLUICE_TYPE_DOUBLES:
            add(r->hash, value->numbers, value->count * sizeof *value->numbers);
            break;
        case SLUICE_TYPE_STRINGS:
        case SLUICE_TYPE_STAGES:
        case SLUICE_TYPE_MODELS:
            add_integer(r->hash, (int64_t)value->count);
            for (size_t i = 0; i < value->count; i++)
                add_text(r->hash, value->texts[i]);
            break;
        default:
            add_text(r->hash, value->text);
        }
    }
    return rc;
}

static int any_version(void *context, const sl_model_use *use)
{
    (void)context, (void)use;
    return SLUICE_END;
}

static bool uses_model(const sl_job *job)
{
    return (job->type->base.traits & SLUICE_USES_DEVICE) != 0 ||
           sl_version_visit(job, false, any_version, NULL) == SLUICE_END;
}

/* Asked once, before any stage runs: services that stages ask for later do not change keys. */
static int add_numerics(struct reader *r)
{
    int rc = SLUICE_OK;
    if (r->run->numerics.size == 0) {
        sl_services_get(&r->run->services, SLUICE_MODEL_SERVICE);
        rc = sl_services_numerics(&r->run->services, &r->run->numerics);
        if (rc >= 0)
            rc = sl_buffer_append(&r->run->numerics, "", 1);
    }
    add(r->hash, r->run->numerics.data, r->run->numerics.size);
    return rc;
}

static int compute(sl_execution *run, sl_job *job, char *error)
{
    if (job->keyed)
        return SLUICE_OK;
    struct reader r = {run, job, XXH3_createState(), error};
    if (r.hash == NULL)
        return SLUICE_NO_MEMORY;
    XXH3_128bits_reset(r.hash);
    add_text(r.hash, "sluice.key/1");
    add_integer(r.hash, SLUICE_ABI);
    add_integer(r.hash, (int64_t)run->plan->seed);
    add_text(r.hash, job->stage->phase->name);
    add_text(r.hash, job->stage->name);
    add_integer(r.hash, job->iteration);
    add_integer(r.hash, job->stage->phase->repeat);
    if (job->stage->isolation.on_crash ==
        SL_CRASH_SKIP) /* its output may lack records; other isolation changes nothing */
        add_text(r.hash, sl_crash_rule_name(SL_CRASH_SKIP));
    int rc = add_object(&r, &job->stage->object);
    for (size_t p = 0; rc >= 0 && p < job->stage->part_count; p++)
        if (job->stage->parts[p].type != NULL)
            rc = add_object(&r, &job->stage->parts[p]);
    if (rc >= 0)
        rc = sl_version_visit(job, false, add_version, &r);
    if (rc >= 0 && job->producer != NULL) {
        rc = compute(run, job->producer, error);
        add(r.hash, job->producer->key, sizeof job->producer->key);
    }
    if (rc >= 0 && uses_model(job))
        rc = add_numerics(&r);
    if (rc >= 0) {
        uint8_t key[16];
        canonical(XXH3_128bits_digest(r.hash), key);
        job->decided = job->decided && memcmp(key, job->key, sizeof key) == 0;
        memcpy(job->key, key, sizeof key);
        job->keyed = true;
    }
    XXH3_freeState(r.hash);
    return rc;
}

int sl_key_compute(sl_execution *run, size_t first, size_t count, char *error)
{
    int rc = SLUICE_OK;
    for (size_t j = first; j < first + count; j++)
        run->jobs[j].keyed = false;
    snprintf(error, SL_ERROR_SIZE, "out of memory");
    for (size_t j = first; rc >= 0 && j < first + count; j++)
        rc = compute(run, &run->jobs[j], error);
    return rc;
}

/* Without these a checkpoint is none; what a user put beside them is the user's. */
static int is_needed(const struct dirent *entry)
{
    const char *end = strrchr(entry->d_name, '.');
    return strcmp(entry->d_name, "config.json") == 0 || strcmp(entry->d_name, "tokenizer.json") == 0 ||
           (end != NULL && end != entry->d_name && strcmp(end, ".safetensors") == 0);
}

struct listing {
    const sl_job *job;
    XXH3_state_t *hash;
    bool gone;
};

/* Names and sizes alone: that a version's files are whole can be seen without reading gigabytes again. */
static int add_listing(void *context, const sl_model_use *use)
{
    struct listing *l = context;
    sl_execution *run = l->job->run;
    sl_arena *arena = sl_arena_new();
    struct dirent **entries = NULL;
    struct stat s;
    const char *path = arena != NULL ? sl_version_path(run, use->slot, use->next, arena) : NULL;
    const int count = path != NULL ? scandir(path, &entries, is_needed, by_name) : -1;
    l->gone = l->gone || count < 0;
    for (int i = 0; i < count; i++) {
        const char *file = sl_arena_printf(arena, "%s/%s", path, entries[i]->d_name);
        add_text(l->hash, entries[i]->d_name);
        add_integer(l->hash, file != NULL && stat(file, &s) == 0 ? s.st_size : -1);
        free(entries[i]);
    }
    free(entries);
    sl_arena_free(arena);
    return SLUICE_OK;
}

static bool hash_versions(const sl_job *job, uint8_t out[16])
{
    struct listing listing = {job, XXH3_createState(), false};
    if (listing.hash == NULL)
        return false;
    XXH3_128bits_reset(listing.hash);
    sl_version_visit(job, true, add_listing, &listing);
    canonical(XXH3_128bits_digest(listing.hash), out);
    XXH3_freeState(listing.hash);
    return !listing.gone;
}

bool sl_key_output(const sl_job *job, uint8_t out[16])
{
    char error[SL_ERROR_SIZE];
    memset(out, 0, 16);
    if (sl_version_visit(job, true, any_version, NULL) == SLUICE_END)
        return hash_versions(job, out);
    /* What an earlier iteration wrote is overwritten by the next. */
    const bool stays = job->type->base.kind == SLUICE_SINK && job->iteration + 1 == job->stage->phase->repeat;
    XXH3_state_t *hash = stays ? XXH3_createState() : NULL;
    if (hash == NULL)
        return true;
    XXH3_128bits_reset(hash);
    const sl_object *object = &job->stage->object;
    for (size_t v = 0; v < object->value_count; v++)
        if (object->values[v].param->type == SLUICE_TYPE_FILE && object->values[v].text != NULL)
            add_content(job->run, hash, object->values[v].text, false, error);
    canonical(XXH3_128bits_digest(hash), out);
    XXH3_freeState(hash);
    return true;
}

/* The .done file's first line: {"key":"<32 hex>","output":"<32 hex>","records":N} */
static bool is_done(sl_job *job, sl_arena *arena)
{
    char expected[128], key[33], output[33], error[SL_ERROR_SIZE];
    uint8_t written[16];
    const char *path = sl_job_path(job, ".done", arena);
    sl_buffer text = {0};
    const bool there = sl_key_output(job, written);
    sl_hex(job->key, 16, key);
    sl_hex(written, 16, output);
    /* Of a version that was removed because nothing reads it any more, there is nothing to compare. */
    const int n = snprintf(expected, sizeof expected, "{\"key\":\"%s\",\"output\":\"%s\",\"records\":", key, output);
    bool done = path != NULL && sl_file_read(path, &text) == SLUICE_OK && text.size > (size_t)n &&
                memcmp(text.data, expected, there ? (size_t)n : sizeof "{\"key\":\"" - 1 + 32) == 0;
    const char *lines = done ? strchr((const char *)text.data, '\n') : NULL;
    done = done && lines != NULL && sl_metrics_restore(job, lines + 1) == SLUICE_OK;
    if (done)
        atomic_store(&job->out, strtoull((const char *)text.data + n, NULL, 10));
    sl_buffer_free(&text);
    if (!done || !sl_stage_has_output(job->stage))
        return done;
    sl_stream_reader *reader;
    path = sl_job_path(job, ".zst", arena);
    if (path == NULL || sl_stream_open(path, false, &reader, error, sizeof error) < 0)
        return false;
    /* A count is known only when the index is there and whole. */
    done = sl_stream_count(reader) >= 0 && memcmp(sl_stream_reader_info(reader)->key, job->key, 16) == 0;
    sl_stream_reader_close(reader);
    return done;
}

struct need {
    sl_execution *run;
    sl_arena *arena;
    bool changed;
};

/* A job that must run needs the versions it reads; one that was pruned is made again. */
static int need_version(void *context, const sl_model_use *use)
{
    struct need *need = context;
    sl_job *publisher = sl_version_publisher(need->run, use->slot, use->version);
    const char *path = sl_version_path(need->run, use->slot, use->version, need->arena);
    if (publisher != NULL && publisher->reuse && path != NULL && !sl_path_exists(path)) {
        publisher->reuse = false;
        need->changed = true;
    }
    return SLUICE_OK;
}

static int newest_is_there(void *context, const sl_model_use *use)
{
    struct need *need = context;
    const char *path = sl_version_path(need->run, use->slot, use->next, need->arena);
    const bool newest = use->next == need->run->plan->slots[use->slot].last;
    return newest && path != NULL && !sl_path_exists(path) ? SLUICE_END : SLUICE_OK;
}

/* A sink whose iteration before must write its file again comes after it, so that the last iteration's stays. */
static bool overwritten(const sl_job *job)
{
    return job->type->base.kind == SLUICE_SINK && job->iteration > 0 && !(job - job->stage->phase->stage_count)->reuse;
}

void sl_key_reuse(sl_execution *run, size_t first, size_t count)
{
    struct need need = {run, sl_arena_new(), true};
    if (need.arena == NULL)
        return;
    for (size_t j = first; j < first + count; j++) {
        sl_job *job = &run->jobs[j];
        if (job->decided)
            continue;
        job->decided = true;
        job->reuse = is_done(job, need.arena) && sl_version_visit(job, true, newest_is_there, &need) == SLUICE_OK;
    }
    while (need.changed) {
        need.changed = false;
        for (size_t j = first; j < first + count; j++)
            if (run->jobs[j].reuse && overwritten(&run->jobs[j]))
                run->jobs[j].reuse = false;
        for (size_t j = first + count; j-- > first;)
            if (!run->jobs[j].reuse)
                sl_version_visit(&run->jobs[j], false, need_version, &need);
    }
    sl_arena_free(need.arena);
}
