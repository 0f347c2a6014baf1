/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Model versions on disk. Version 0 is the user's folder, read where it lies; a published one is
 * models/<slot>@<version>. A stage writes into models/.<slot>@<version>.tmp-…, and commit gives that its name once all
 * of it is on the disk. In it then lies .key, the key of the job that published it: after a change of the file, or of
 * how often a phase runs, the same version may be another stage's.
 */
#include "core/run/internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct sl_publication {
    sl_publication *next;
    size_t slot;
    int64_t version;
    char *folder; /* being written; NULL once committed */
};

char *sl_version_path(const sl_execution *run, size_t slot, int64_t version, sl_arena *arena)
{
    const sl_slot *s = &run->plan->slots[slot];
    if (version == 0)
        return sl_arena_strdup(arena, s->path);
    return sl_arena_printf(arena, "%s/models/%s@%lld", run->folder, s->name, (long long)version);
}

char *sl_version_hidden(const sl_execution *run, size_t slot, int64_t version, sl_arena *arena)
{
    return sl_arena_printf(arena, "%s/models/.%s@%lld.tmp-%ld", run->folder, run->plan->slots[slot].name,
                           (long long)version, (long)getpid());
}

static int write_key(const sl_job *job, const char *path)
{
    char hex[SL_HEX_SIZE];
    FILE *file = fopen(path, "we");
    sl_hex(job->key, sizeof job->key, hex);
    const bool written = file != NULL && fprintf(file, "%s\n", hex) > 0;
    return file != NULL && fclose(file) == 0 && written ? 0 : -1;
}

bool sl_version_is_of(const sl_job *job, const char *folder, sl_arena *arena)
{
    char hex[SL_HEX_SIZE];
    sl_buffer text = {0};
    const char *path = sl_arena_printf(arena, "%s/.key", folder);
    sl_hex(job->key, sizeof job->key, hex);
    const bool same = path != NULL && sl_file_read(path, &text) == SLUICE_OK && text.size == sizeof hex &&
                      memcmp(text.data, hex, sizeof hex - 1) == 0;
    sl_buffer_free(&text);
    return same;
}

int sl_version_name(const sl_job *job, const char *hidden, const char *final, sl_arena *arena)
{
    const char *old = sl_arena_printf(arena, "%s-old", hidden), *key = sl_arena_printf(arena, "%s/.key", hidden);
    if (old == NULL || key == NULL) {
        errno = ENOMEM;
        return -1;
    }
    if (write_key(job, key) != 0)
        return -1;
    const bool replaced = rename(final, old) == 0; /* of an earlier run with other settings */
    if (sl_folder_sync(hidden) < 0 || rename(hidden, final) != 0 || sl_parent_sync(final) < 0)
        return -1;
    if (replaced)
        sl_folder_remove(old);
    return 0;
}

const sluice_model_ref *sl_version_ref(const sl_job *job, const sl_model_use *use, const char *text, sl_arena *arena)
{
    const sl_slot *slot = &job->run->plan->slots[use->slot];
    sluice_model_ref *ref = sl_arena_alloc(arena, sizeof *ref);
    if (ref == NULL)
        return NULL;
    ref->slot = slot->name;
    ref->version = use->version;
    ref->path = sl_version_path(job->run, use->slot, use->version, arena);
    ref->dtype = slot->dtype;
    ref->text = text;
    ref->next = use->next;
    ref->random = slot->random && use->version == 0;
    ref->seed = sluice_mix(job->run->plan->seed, sluice_random_name(slot->name, strlen(slot->name)));
    return ref->path != NULL ? ref : NULL;
}

sl_job *sl_job_of(const sl_execution *run, const sl_stage *stage, int64_t iteration)
{
    sl_job *first = run->jobs;
    while (first->stage != stage)
        first++;
    return first + (size_t)iteration * stage->phase->stage_count;
}

static int visit_object(const sl_job *job, const sl_object *object, bool published, sl_version_visitor *each,
                        void *context)
{
    for (size_t v = 0; v < object->value_count; v++) {
        const sl_value *value = &object->values[v];
        const uint32_t type = value->param->type;
        for (size_t i = 0; !published && i < value->measure_count; i++) {
            const int rc = each(context, &value->measures[i].use);
            if (rc != SLUICE_OK)
                return rc;
        }
        if (value->models == NULL || (published && type != SLUICE_TYPE_SLOT))
            continue;
        const size_t count = type == SLUICE_TYPE_MODELS ? value->count : 1;
        for (size_t i = 0; i < count; i++) {
            const int rc = each(context, &value->models[(size_t)job->iteration * count + i]);
            if (rc != SLUICE_OK)
                return rc;
        }
    }
    return SLUICE_OK;
}

int sl_version_visit(const sl_job *job, bool published, sl_version_visitor *each, void *context)
{
    int rc = visit_object(job, &job->stage->object, published, each, context);
    for (size_t p = 0; rc == SLUICE_OK && p < job->stage->part_count; p++)
        rc = visit_object(job, &job->stage->parts[p], published, each, context);
    return rc;
}

static int note_publisher(void *context, const sl_model_use *use)
{
    sl_job *job = context;
    const sl_slot *slot = &job->run->plan->slots[use->slot];
    if (use->next >= 1 && use->next <= slot->last)
        job->run->publishers[use->slot][use->next] = job;
    return SLUICE_OK;
}

int sl_version_index(sl_execution *run)
{
    const sl_plan *plan = run->plan;
    run->publishers = sl_arena_alloc(run->arena, (plan->slot_count + 1) * sizeof *run->publishers);
    for (size_t s = 0; run->publishers != NULL && s < plan->slot_count; s++) {
        run->publishers[s] = sl_arena_alloc(run->arena, (size_t)(plan->slots[s].last + 1) * sizeof **run->publishers);
        if (run->publishers[s] == NULL)
            return SLUICE_NO_MEMORY;
    }
    for (size_t j = 0; run->publishers != NULL && j < run->job_count; j++)
        sl_version_visit(&run->jobs[j], true, note_publisher, &run->jobs[j]);
    return run->publishers != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
}

sl_job *sl_version_publisher(const sl_execution *run, size_t slot, int64_t version)
{
    return version >= 1 && version <= run->plan->slots[slot].last ? run->publishers[slot][version] : NULL;
}

static size_t slot_of(const sl_job *job, const sluice_model_ref *ref)
{
    size_t slot = 0;
    while (slot < job->run->plan->slot_count && strcmp(job->run->plan->slots[slot].name, ref->slot) != 0)
        slot++;
    return slot;
}

static sl_publication *publication(const sl_job *job, const sluice_model_ref *ref)
{
    sl_publication *p = job->publications;
    while (p != NULL && (p->version != ref->next || p->slot != slot_of(job, ref)))
        p = p->next;
    return p;
}

int sl_version_begin(sl_job *job, const sluice_model_ref *ref, const char **dir)
{
    const sluice_host *host = &job->host.public;
    char error[SL_ERROR_SIZE];
    if (ref == NULL || ref->next < 1 || slot_of(job, ref) == job->run->plan->slot_count)
        return sluice_error(host, SLUICE_BAD_PARAMETER, "publishes through a parameter that is no slot");
    if (publication(job, ref) != NULL)
        return sluice_error(host, SLUICE_BAD_PARAMETER, "publishes %s@%lld twice", ref->slot, (long long)ref->next);
    sl_publication *p = sl_arena_alloc(job->arena, sizeof *p);
    char *folder = sl_version_hidden(job->run, slot_of(job, ref), ref->next, job->arena);
    if (p == NULL || folder == NULL)
        return sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
    if (sl_folder_remove(folder) < 0 || sl_folder_make(folder, error) < 0)
        return sluice_error(host, SLUICE_IO, "cannot create the folder of %s@%lld: %m", ref->slot,
                            (long long)ref->next);
    *p = (sl_publication){job->publications, slot_of(job, ref), ref->next, folder};
    job->publications = p;
    *dir = folder;
    return SLUICE_OK;
}

static bool is_empty(const char *folder)
{
    DIR *dir = opendir(folder);
    size_t entries = 0;
    while (dir != NULL && readdir(dir) != NULL)
        entries++;
    if (dir != NULL)
        closedir(dir);
    return entries <= 2;
}

int sl_version_commit(sl_job *job, const sluice_model_ref *ref)
{
    const sluice_host *host = &job->host.public;
    sl_publication *p = publication(job, ref);
    if (p == NULL || p->folder == NULL)
        return sluice_error(host, SLUICE_BAD_PARAMETER, "commits a version that it did not begin");
    if (is_empty(p->folder))
        return sluice_error(host, SLUICE_BAD_MODEL, "wrote nothing into %s@%lld", ref->slot, (long long)ref->next);
    const char *final = sl_version_path(job->run, p->slot, p->version, job->arena);
    if (final == NULL)
        return sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
    if (sl_version_name(job, p->folder, final, job->arena) != 0)
        return sluice_error(host, SLUICE_IO, "cannot publish %s: %m", final);
    p->folder = NULL;
    sl_console_line(job->host.console, SLUICE_LOG_INFO, "stage '%s' published %s@%lld", job->stage->name, ref->slot,
                    (long long)ref->next);
    return SLUICE_OK;
}

static int was_published(void *context, const sl_model_use *use)
{
    const sl_job *job = context;
    for (const sl_publication *p = job->publications; p != NULL; p = p->next)
        if (p->slot == use->slot && p->version == use->next && p->folder == NULL)
            return SLUICE_OK;
    return sluice_error(&job->host.public, SLUICE_FAILED, "ended without publishing %s@%lld",
                        job->run->plan->slots[use->slot].name, (long long)use->next);
}

int sl_version_finish(sl_job *job)
{
    return sl_version_visit(job, true, was_published, job);
}

void sl_version_discard(sl_job *job)
{
    for (const sl_publication *p = job->publications; p != NULL; p = p->next)
        if (p->folder != NULL)
            sl_folder_remove(p->folder);
    job->publications = NULL;
}

static int reads_version(void *context, const sl_model_use *use)
{
    const sl_model_use *wanted = context;
    return use->slot == wanted->slot && use->version == wanted->version ? SLUICE_END : SLUICE_OK;
}

static bool is_finished(const sl_job *job)
{
    return job->state == SL_JOB_DONE || job->state == SL_JOB_REUSED;
}

void sl_version_prune(sl_execution *run)
{
    const sl_plan *plan = run->plan;
    sl_arena *arena = sl_arena_new();
    for (size_t s = 0; arena != NULL && s < plan->slot_count; s++) {
        int64_t newest = 0;
        for (int64_t v = 1; v <= plan->slots[s].last; v++) {
            const sl_job *publisher = sl_version_publisher(run, s, v);
            if (publisher != NULL && is_finished(publisher))
                newest = v;
        }
        for (int64_t v = 1; plan->slots[s].keep_versions > 0 && v <= newest - plan->slots[s].keep_versions; v++) {
            sl_model_use wanted = {.slot = s, .version = v};
            bool needed = false;
            for (size_t j = 0; j < run->job_count && !needed; j++)
                needed = !is_finished(&run->jobs[j]) &&
                         sl_version_visit(&run->jobs[j], false, reads_version, &wanted) == SLUICE_END;
            char *path = sl_version_path(run, s, v, arena);
            if (needed || path == NULL || !sl_path_exists(path))
                continue;
            if (sl_folder_remove(path) == SLUICE_OK)
                sl_console_line(&run->console, SLUICE_LOG_INFO, "removed %s: nothing reads it any more", path);
        }
    }
    sl_arena_free(arena);
}

bool sl_version_subject(const sl_job *job, sl_model_use *use, bool *publishes)
{
    const sl_object *object = &job->stage->object;
    const sl_value *found = NULL;
    for (size_t v = 0; v < object->value_count; v++) {
        const sl_value *value = &object->values[v];
        if (value->models == NULL || value->param->type == SLUICE_TYPE_MODELS)
            continue;
        if (found == NULL || value->param->type == SLUICE_TYPE_SLOT)
            found = value;
    }
    if (found == NULL)
        return false;
    *use = found->models[job->iteration];
    *publishes = found->param->type == SLUICE_TYPE_SLOT;
    if (*publishes)
        use->version = use->next;
    return true;
}
