/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Content keys: 128 bits over all that determines what a stage puts out. Equal key, equal bytes; so what lies in the
 * run's folder or in the store under the same key is not computed again.
 *
 * What determines it is written down as text, the job's *inputs*, a line each: a name, a tab, a value. The key is the
 * hash of that text; the text itself is kept beside the output, so that what differs from an earlier run can be said.
 *
 * In it: sluice's version, class and the content of the file that holds it, resolved parameters (but for those that
 * change speed alone), the key of the input, the keys of the model versions read (of version 0 the content of its
 * folder), the content of files, seed, names of phase and stage, iteration (randomness hangs on them), how often the
 * phase runs (of stages that ask for it: a split among its iterations), and for stages that use a model what the
 * services say decides their numbers. Not in it: paths, times, the machine's name, the number of threads.
 */
#include "core/run/internal.h"
#include "core/base/json.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sluice/cuda.h>

/* A file's content hash, valid while size and time of change stay. */
struct sl_content {
    struct sl_content *next;
    const char *path;
    struct stat stat;
    uint8_t hash[SL_HASH_SIZE];
};

static int hash_file(sl_execution *run, const char *path, const struct stat *now, uint8_t out[SL_HASH_SIZE])
{
    for (const struct sl_content *c = run->contents; c != NULL; c = c->next)
        if (strcmp(c->path, path) == 0 && c->stat.st_size == now->st_size && c->stat.st_ino == now->st_ino &&
            c->stat.st_mtim.tv_sec == now->st_mtim.tv_sec && c->stat.st_mtim.tv_nsec == now->st_mtim.tv_nsec) {
            memcpy(out, c->hash, SL_HASH_SIZE);
            return SLUICE_OK;
        }
    const int rc = sl_hash_file(path, out);
    struct sl_content *c = rc >= 0 ? sl_arena_alloc(run->arena, sizeof *c) : NULL;
    if (c != NULL && (c->path = sl_arena_strdup(run->arena, path)) != NULL) {
        c->next = run->contents;
        c->stat = *now;
        memcpy(c->hash, out, SL_HASH_SIZE);
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

/* Names and contents of a folder's files, as lines. */
static int list_folder(sl_execution *run, const char *path, bool model, sl_buffer *out)
{
    struct dirent **entries = NULL;
    const int count = scandir(path, &entries, model ? is_model_file : is_plain, by_name);
    int rc = count < 0 ? SLUICE_IO : SLUICE_OK;
    for (int i = 0; i < count; i++) {
        char *file = sl_arena_printf(run->arena, "%s/%s", path, entries[i]->d_name);
        struct stat s;
        uint8_t hash[SL_HASH_SIZE];
        char hex[SL_HEX_SIZE];
        if (rc >= 0 && file == NULL)
            rc = SLUICE_NO_MEMORY;
        if (rc >= 0 && stat(file, &s) == 0 && S_ISREG(s.st_mode)) {
            rc = hash_file(run, file, &s, hash);
            sl_hex(hash, rc >= 0 ? sizeof hash : 0, hex);
            if (rc >= 0)
                rc = sl_buffer_printf(out, "%s %s\n", hex, entries[i]->d_name);
        }
        free(entries[i]);
    }
    free(entries);
    return rc;
}

/* Of a file's content, or of names and contents of a folder's files; "nothing" for what is not there. */
static int content_of(sl_execution *run, const char *path, bool model, char hex[SL_HEX_SIZE], char *error)
{
    struct stat s;
    uint8_t hash[SL_HASH_SIZE];
    sl_buffer list = {0};
    int rc = SLUICE_OK;
    snprintf(hex, SL_HEX_SIZE, "nothing");
    if (path == NULL || stat(path, &s) != 0)
        return SLUICE_OK;
    if (S_ISDIR(s.st_mode)) {
        rc = list_folder(run, path, model, &list);
        sl_hash_bytes(list.data, list.size, hash);
    } else {
        rc = S_ISREG(s.st_mode) ? hash_file(run, path, &s, hash) : SLUICE_BAD_FILE;
    }
    sl_buffer_free(&list);
    if (rc < 0)
        snprintf(error, SL_ERROR_SIZE, "cannot read %s: %s", path,
                 rc == SLUICE_BAD_FILE ? "neither a file nor a folder" : strerror(errno));
    else
        sl_hex(hash, sizeof hash, hex);
    return rc;
}

struct reader {
    sl_execution *run;
    sl_job *job;
    sl_buffer *text;
    char *error;
};

static int compute(sl_execution *, sl_job *, char *error);

static int add_version(void *context, const sl_model_use *use)
{
    const struct reader *r = context;
    const sl_slot *slot = &r->run->plan->slots[use->slot];
    char hex[SL_HEX_SIZE];
    int rc = SLUICE_OK;
    if (use->version == 0) {
        rc = content_of(r->run, slot->path, true, hex, r->error);
    } else {
        sl_job *publisher = sl_version_publisher(r->run, use->slot, use->version);
        if (publisher == NULL || publisher == r->job) {
            snprintf(r->error, SL_ERROR_SIZE, "stage '%s' (%s:%d): nothing publishes %s@%lld before it",
                     r->job->stage->name, r->job->stage->file, r->job->stage->line, slot->name,
                     (long long)use->version);
            return SLUICE_BAD_MODEL;
        }
        rc = compute(r->run, publisher, r->error);
        sl_hex(publisher->key, sizeof publisher->key, hex);
    }
    /* The name and number label what stages write into records. */
    return rc >= 0
               ? sl_buffer_printf(r->text, "model %s@%lld\t%s%s, next %lld, %s\n", slot->name, (long long)use->version,
                                  slot->dtype, slot->random ? ", random" : "", (long long)use->next, hex)
               : rc;
}

static int add_string(sl_buffer *out, const char *text)
{
    return text != NULL ? sl_json_string(out, text, strlen(text)) : sl_buffer_printf(out, "none");
}

/* What --set would take, in one line. */
static int add_value(sl_buffer *out, const sl_value *value)
{
    const sluice_param *param = value->param;
    int rc = SLUICE_OK;
    switch (param->type) {
    case SLUICE_TYPE_BOOL:
        return sl_buffer_printf(out, "%s", value->number != 0 ? "true" : "false");
    case SLUICE_TYPE_DOUBLE:
        return sl_json_double(out, value->number);
    case SLUICE_TYPE_INT:
        return sl_buffer_printf(out, "%lld", (long long)value->integer);
    case SLUICE_TYPE_CHOICE:
        return add_string(out, param->choices[(int)value->number]);
    case SLUICE_TYPE_DOUBLES:
        for (size_t i = 0; rc >= 0 && i < value->count; i++) {
            rc = i > 0 ? sl_buffer_append(out, " ", 1) : SLUICE_OK;
            rc = rc >= 0 ? sl_json_double(out, value->numbers[i]) : rc;
        }
        return rc;
    case SLUICE_TYPE_STRINGS:
    case SLUICE_TYPE_STAGES:
    case SLUICE_TYPE_MODELS:
    case SLUICE_TYPE_METRICS:
        for (size_t i = 0; rc >= 0 && i < value->count; i++) {
            rc = i > 0 ? sl_buffer_append(out, " ", 1) : SLUICE_OK;
            rc = rc >= 0 ? add_string(out, value->texts[i]) : rc;
        }
        return rc;
    default:
        return add_string(out, value->text);
    }
}

static int add_object(struct reader *r, const sl_object *object)
{
    const sl_registered *type = object->type;
    const bool sink = type->type->kind == SLUICE_SINK;
    int rc = sl_buffer_printf(r->text, "plugin of %s\t%016llx%016llx\n", type->type->id,
                              (unsigned long long)type->file_hash[0], (unsigned long long)type->file_hash[1]);
    for (size_t v = 0; rc >= 0 && v < object->value_count; v++) {
        const sl_value *value = &object->values[v];
        const sluice_param *param = value->param;
        char hex[SL_HEX_SIZE];
        if (param->speed_only)
            continue;
        /* A sink's file is what it makes: its place counts, not what lies there. */
        if (param->type == SLUICE_TYPE_FILE && !sink) {
            rc = content_of(r->run, value->text, false, hex, r->error);
            if (rc >= 0)
                rc = sl_buffer_printf(r->text, "content of %s\t%s\n", param->name, hex);
            continue;
        }
        rc = sl_buffer_printf(r->text, "parameter %s\t", param->name);
        if (rc >= 0)
            rc = add_value(r->text, value);
        if (rc >= 0)
            rc = sl_buffer_append(r->text, "\n", 1);
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
    return (job->type->base.traits & (SLUICE_USES_DEVICE | SLUICE_USES_CUDA)) != 0 ||
           sl_version_visit(job, false, any_version, NULL) == SLUICE_END;
}

/* A line a service. Asked once, before any stage runs: services that stages ask for later do not change keys. */
static int add_numerics(struct reader *r)
{
    sl_buffer *numerics = &r->run->numerics;
    int rc = SLUICE_OK;
    if (numerics->size == 0) {
        const void *model = sl_services_get(&r->run->services, SLUICE_MODEL_SERVICE);
        if (model == NULL && sl_registry_service(r->run->services.registry, SLUICE_MODEL_SERVICE) != NULL) {
            r->error[0] = '\0'; /* it has said why it did not start */
            return SLUICE_FAILED;
        }
        rc = sl_services_numerics(&r->run->services, numerics);
        if (rc >= 0)
            rc = sl_buffer_append(numerics, "", 1);
    }
    for (const char *line = (const char *)numerics->data, *end; rc >= 0 && (end = strchr(line, '\n')) != NULL;
         line = end + 1) {
        const int id = (int)strcspn(line, " ");
        rc = sl_buffer_printf(r->text, "service %.*s\t%.*s\n", id, line, (int)(end - line) - id - 1, line + id + 1);
    }
    return rc;
}

/* A class with kernels of its own: its GPU, also where models are computed on the processor. After add_numerics, so
 * that who else runs changes no other key. */
static int add_gpu(struct reader *r)
{
    const char *name = NULL;
    if (sl_services_get(&r->run->services, SLUICE_CUDA_SERVICE) != NULL)
        name = sl_services_numerics_of(&r->run->services, SLUICE_CUDA_SERVICE);
    return sl_buffer_printf(r->text, "gpu\t%s\n", name != NULL ? name : "");
}

/* Numbers of other stages are as the stages that reported them. */
static int add_measures(struct reader *r, const sl_object *object)
{
    int rc = SLUICE_OK;
    for (size_t v = 0; v < object->value_count; v++)
        for (size_t i = 0; rc >= 0 && i < object->values[v].measure_count; i++) {
            const sl_measure *m = &object->values[v].measures[i];
            sl_job *reporter = sl_job_of(r->run, m->stage, m->iteration);
            char hex[SL_HEX_SIZE];
            rc = compute(r->run, reporter, r->error);
            sl_hex(reporter->key, sizeof reporter->key, hex);
            if (rc >= 0)
                rc = sl_buffer_printf(r->text, "numbers of %s, iteration %lld\t%s %s\n", m->stage->name,
                                      (long long)m->iteration + 1, m->metric, hex);
        }
    return rc;
}

static int compute(sl_execution *run, sl_job *job, char *error)
{
    if (job->keyed)
        return SLUICE_OK;
    struct reader r = {run, job, &job->inputs, error};
    job->inputs.size = 0;
    int rc = sl_buffer_printf(r.text,
                              "sluice\t%s, ABI %d\nseed\t%llu\nphase\t%s\nstage\t%s\niteration\t%lld\n"
                              "class\t%s\n",
                              SLUICE_VERSION, SLUICE_ABI, (unsigned long long)run->plan->seed, job->stage->phase->name,
                              job->stage->name, (long long)job->iteration + 1, job->type->base.id);
    if (rc >= 0 && sl_stage_reads_repeat(job->stage))
        rc = sl_buffer_printf(r.text, "repeat\t%lld\n", (long long)job->stage->phase->repeat);
    /* Then the output may lack records; other isolation changes nothing. */
    if (rc >= 0 && job->stage->isolation.on_crash == SL_CRASH_SKIP)
        rc = sl_buffer_printf(r.text, "on_crash\t%s\n", sl_crash_rule_name(SL_CRASH_SKIP));
    if (rc >= 0)
        rc = add_object(&r, &job->stage->object);
    for (size_t p = 0; rc >= 0 && p < job->stage->part_count; p++)
        if (job->stage->parts[p].type != NULL)
            rc = add_object(&r, &job->stage->parts[p]);
    if (rc >= 0)
        rc = sl_version_visit(job, false, add_version, &r);
    if (rc >= 0)
        rc = add_measures(&r, &job->stage->object);
    if (rc >= 0 && job->producer != NULL) {
        char hex[SL_HEX_SIZE];
        rc = compute(run, job->producer, error);
        sl_hex(job->producer->key, sizeof job->producer->key, hex);
        if (rc >= 0)
            rc = sl_buffer_printf(r.text, "input %s\t%s\n", job->producer->stage->name, hex);
    }
    if (rc >= 0 && uses_model(job))
        rc = add_numerics(&r);
    if (rc >= 0 && (job->type->base.traits & SLUICE_USES_CUDA))
        rc = add_gpu(&r);
    if (rc >= 0) /* to be read as a string too */
        rc = sl_buffer_append(r.text, "", 1);
    if (rc >= 0) {
        uint8_t key[SL_HASH_SIZE];
        sl_hash_bytes(r.text->data, --r.text->size, key);
        job->decided = job->decided && memcmp(key, job->key, sizeof key) == 0;
        memcpy(job->key, key, sizeof key);
        job->keyed = true;
    }
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
    sl_buffer text;
    bool gone;
};

/* Whose it is, names and sizes alone: that a version's files are whole can be seen without reading gigabytes again. */
static int add_listing(void *context, const sl_model_use *use)
{
    struct listing *l = context;
    sl_arena *arena = sl_arena_new();
    struct dirent **entries = NULL;
    struct stat s;
    const char *path = arena != NULL ? sl_version_path(l->job->run, use->slot, use->next, arena) : NULL;
    const int count = path != NULL ? scandir(path, &entries, is_needed, by_name) : -1;
    l->gone = l->gone || count < 0;
    if (count >= 0 && !sl_version_is_of(l->job, path, arena) && sl_buffer_printf(&l->text, "of another stage\n") < 0)
        l->gone = true;
    for (int i = 0; i < count; i++) {
        const char *file = sl_arena_printf(arena, "%s/%s", path, entries[i]->d_name);
        const long long size = file != NULL && stat(file, &s) == 0 ? (long long)s.st_size : -1;
        if (sl_buffer_printf(&l->text, "%lld %s\n", size, entries[i]->d_name) < 0)
            l->gone = true;
        free(entries[i]);
    }
    free(entries);
    sl_arena_free(arena);
    return SLUICE_OK;
}

bool sl_key_output(const sl_job *job, uint8_t out[SL_HASH_SIZE])
{
    char error[SL_ERROR_SIZE], hex[SL_HEX_SIZE];
    struct listing listing = {.job = job};
    memset(out, 0, SL_HASH_SIZE);
    const bool publishes = sl_version_visit(job, true, any_version, NULL) == SLUICE_END;
    /* What an earlier iteration wrote is overwritten by the next. */
    const bool stays = job->type->base.kind == SLUICE_SINK && job->iteration + 1 == job->stage->phase->repeat;
    const sl_object *object = &job->stage->object;
    if (publishes)
        sl_version_visit(job, true, add_listing, &listing);
    for (size_t v = 0; !publishes && stays && v < object->value_count; v++)
        if (object->values[v].param->type == SLUICE_TYPE_FILE && object->values[v].text != NULL) {
            content_of(job->run, object->values[v].text, false, hex, error);
            sl_buffer_printf(&listing.text, "%s\n", hex);
        }
    if (publishes || stays)
        sl_hash_bytes(listing.text.data, listing.text.size, out);
    sl_buffer_free(&listing.text);
    return !listing.gone && (stays || job->type->base.kind != SLUICE_SINK);
}
