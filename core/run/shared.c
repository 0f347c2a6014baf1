/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A run and the store. An entry holds a job's .done file, its stream and the model versions that it published, under
 * the names done, stream.zst and models/<slot>@<version>/…. A sink has no entry: what it makes lies at a place of the
 * user's. Nor has a stage that is in_memory.
 */
#include "core/run/internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool sl_shared_open(sl_execution *run, const char *option, char *error)
{
    char path[PATH_MAX];
    if (!sl_store_place(option, run->plan->store, path, &run->store_by_default) ||
        sl_store_open(path, true, &run->store, error, SL_ERROR_SIZE) == SLUICE_OK)
        return true;
    if (!run->store_by_default)
        return false;
    /* Nobody asked for it: the run does without. */
    sl_console_line(&run->console, access(path, F_OK) == 0 ? SLUICE_LOG_WARNING : SLUICE_LOG_INFO, "%s", error);
    return true;
}

void sl_shared_bound(sl_execution *run)
{
    sl_store_gc gc = {.before = INT64_MIN, .most = SL_STORE_BOUND};
    if (run->store != NULL && run->store_by_default && atomic_exchange(&run->store_used, false))
        sl_store_collect(run->store, &gc);
}

void sl_shared_close(sl_execution *run)
{
    sl_store_close(run->store);
    run->store = NULL;
}

static bool is_shared(const sl_job *job)
{
    return job->run->store != NULL && job->type->base.kind != SLUICE_SINK && !job->stage->in_memory;
}

bool sl_shared_claim(sl_job *job)
{
    if (!is_shared(job) || job->claimed)
        return true;
    job->claimed = sl_store_claim(job->run->store, job->key);
    return job->claimed || job->run->fresh; /* who wants it computed afresh waits for nobody */
}

void sl_shared_release(sl_job *job)
{
    if (job->claimed)
        sl_store_release(job->run->store, job->key);
    job->claimed = false;
}

/* --- from the store -------------------------------------------------------------------------------------------------
 */

struct fetch {
    sl_job *job;
    sl_arena *arena;
    char error[SL_ERROR_SIZE];
};

static const char *make_way(struct fetch *f, char *path)
{
    char *slash = path != NULL ? strrchr(path, '/') : NULL;
    if (slash == NULL)
        return NULL;
    *slash = '\0';
    const int rc = sl_folder_make(path, f->error);
    *slash = '/';
    unlink(path); /* of a run that was killed here */
    return rc < 0 ? NULL : path;
}

static const char *where(void *context, const char *name)
{
    struct fetch *f = context;
    static const char models[] = "models/";
    const size_t length = strcspn(strncmp(name, models, sizeof models - 1) == 0 ? name + sizeof models - 1 : "", "/");
    if (strcmp(name, "done") == 0)
        return make_way(f, sl_job_path(f->job, ".done.tmp", f->arena));
    if (strcmp(name, "stream.zst") == 0)
        return make_way(f, sl_job_path(f->job, ".zst.tmp", f->arena));
    if (length == 0)
        return NULL;
    name += sizeof models - 1;
    return make_way(f, sl_arena_printf(f->arena, "%s/models/.%.*s.tmp-%ld%s", f->job->run->folder, (int)length, name,
                                       (long)getpid(), name + length));
}

static int clear_version(void *context, const sl_model_use *use)
{
    struct fetch *f = context;
    const char *hidden = sl_version_hidden(f->job->run, use->slot, use->next, f->arena);
    return hidden != NULL ? sl_folder_remove(hidden) : SLUICE_NO_MEMORY;
}

static int name_version(void *context, const sl_model_use *use)
{
    struct fetch *f = context;
    const char *hidden = sl_version_hidden(f->job->run, use->slot, use->next, f->arena);
    const char *final = sl_version_path(f->job->run, use->slot, use->next, f->arena);
    if (hidden != NULL && final != NULL && sl_version_name(f->job, hidden, final, f->arena) == 0)
        return SLUICE_OK;
    snprintf(f->error, sizeof f->error, "cannot write %s: %s", final != NULL ? final : "a model", strerror(errno));
    return SLUICE_IO;
}

static int name_file(struct fetch *f, const char *suffix)
{
    const char *final = sl_job_path(f->job, suffix, f->arena);
    const char *hidden = final != NULL ? sl_arena_printf(f->arena, "%s.tmp", final) : NULL;
    if (hidden != NULL && sl_folder_sync(hidden) == SLUICE_OK && rename(hidden, final) == 0 &&
        sl_parent_sync(final) == 0)
        return SLUICE_OK;
    snprintf(f->error, sizeof f->error, "cannot write %s: %s", final != NULL ? final : "a stream", strerror(errno));
    return SLUICE_IO;
}

/* All of it is there under hidden names; the .done file gets its own last. */
static int give_names(struct fetch *f)
{
    sl_job *job = f->job;
    const char *inputs = sl_job_path(job, ".inputs", f->arena), *done = sl_job_path(job, ".done", f->arena);
    if (inputs == NULL || done == NULL)
        return SLUICE_NO_MEMORY;
    unlink(done); /* until it is replaced, nothing is vouched for */
    int rc = sl_version_visit(job, true, name_version, f);
    if (rc == SLUICE_OK && sl_stage_has_output(job->stage))
        rc = name_file(f, ".zst");
    if (rc == SLUICE_OK)
        rc = sl_file_write(inputs, job->inputs.data, job->inputs.size, f->error);
    return rc == SLUICE_OK ? name_file(f, ".done") : rc;
}

/* What was brought in vain. */
static void forget(struct fetch *f)
{
    static const char *const files[] = {".done.tmp", ".zst.tmp"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *path = sl_job_path(f->job, files[i], f->arena);
        if (path != NULL)
            unlink(path);
    }
    sl_version_visit(f->job, true, clear_version, f);
}

bool sl_shared_fetch(sl_job *job)
{
    sl_execution *run = job->run;
    struct fetch f = {.job = job, .arena = sl_arena_new(), .error = "out of memory"};
    char place[96];
    int rc = SLUICE_END;
    if (f.arena == NULL)
        return false;
    if (is_shared(job) && !run->fresh && run->explain) {
        rc = sl_store_check(run->store, job->key, f.error, sizeof f.error);
    } else if (is_shared(job) && !run->fresh) {
        rc = sl_version_visit(job, true, clear_version, &f);
        if (rc == SLUICE_OK)
            rc = sl_store_take(run->store, job->key, where, &f, f.error, sizeof f.error);
        if (rc == SLUICE_OK)
            rc = give_names(&f);
        if (rc != SLUICE_OK)
            forget(&f);
    }
    if (rc == SLUICE_CORRUPT) {
        job->damage = sl_arena_strdup(run->arena, f.error);
        if (!run->explain)
            sl_console_line(&run->console, SLUICE_LOG_WARNING,
                            "stage '%s' (%s): its entry in the store %s is damaged (%s): removed, and computed again",
                            job->stage->name, sl_job_where(job, place, sizeof place), sl_store_path(run->store),
                            f.error);
    } else if (rc < 0) {
        sl_console_line(&run->console, SLUICE_LOG_WARNING, "stage '%s' (%s): not taken from the store: %s",
                        job->stage->name, sl_job_where(job, place, sizeof place), f.error);
    }
    job->stored = rc == SLUICE_OK;
    sl_arena_free(f.arena);
    return job->stored;
}

/* --- into the store -------------------------------------------------------------------------------------------------
 */

struct put {
    sl_job *job;
    sl_store_file *files;
    size_t count, room;
    int64_t bytes;
};

static int add_file(struct put *p, const char *name, const char *path)
{
    struct stat s;
    sl_store_file *more = sl_items_grow(p->files, p->count, &p->room, sizeof *more);
    if (more == NULL)
        return SLUICE_NO_MEMORY;
    p->files = more;
    if (name == NULL || path == NULL)
        return SLUICE_NO_MEMORY;
    p->bytes += stat(path, &s) == 0 ? s.st_size : 0;
    p->files[p->count++] = (sl_store_file){name, path};
    return SLUICE_OK;
}

static int add_folder(struct put *p, const char *name, const char *path)
{
    sl_arena *arena = p->job->arena;
    DIR *dir = name != NULL && path != NULL ? opendir(path) : NULL;
    int rc = dir != NULL ? SLUICE_OK : SLUICE_IO;
    for (const struct dirent *e; rc == SLUICE_OK && (e = readdir(dir)) != NULL;) {
        struct stat s;
        if (e->d_name[0] == '.')
            continue;
        const char *inner = sl_arena_printf(arena, "%s/%s", name, e->d_name);
        const char *place = sl_arena_printf(arena, "%s/%s", path, e->d_name);
        if (place == NULL || lstat(place, &s) != 0)
            rc = SLUICE_IO;
        else if (S_ISDIR(s.st_mode))
            rc = add_folder(p, inner, place);
        else if (S_ISREG(s.st_mode))
            rc = add_file(p, inner, place);
    }
    if (dir != NULL)
        closedir(dir);
    return rc;
}

static int add_version(void *context, const sl_model_use *use)
{
    struct put *p = context;
    const sl_execution *run = p->job->run;
    return add_folder(
        p, sl_arena_printf(p->job->arena, "models/%s@%lld", run->plan->slots[use->slot].name, (long long)use->next),
        sl_version_path(run, use->slot, use->next, p->job->arena));
}

void sl_shared_put(sl_job *job)
{
    sl_execution *run = job->run;
    struct put p = {.job = job};
    char error[SL_ERROR_SIZE] = "what it left cannot be read";
    if (!is_shared(job) || !job->claimed || run->store_failed)
        return;
    /* Records that crashed their stage were left out: another run has the right to try them. */
    const char *quarantine = sl_job_path(job, ".quarantine.zst", job->arena);
    if (quarantine == NULL || sl_path_exists(quarantine))
        return;
    int rc = add_file(&p, "done", sl_job_path(job, ".done", job->arena));
    if (rc == SLUICE_OK && sl_stage_has_output(job->stage))
        rc = add_file(&p, "stream.zst", sl_job_path(job, ".zst", job->arena));
    if (rc == SLUICE_OK)
        rc = sl_version_visit(job, true, add_version, &p);
    if (rc == SLUICE_OK && run->store_by_default && p.bytes > SL_STORE_BOUND)
        sl_console_line(&run->console, SLUICE_LOG_INFO, "stage '%s': too large for the default store",
                        job->stage->name);
    else if (rc == SLUICE_OK)
        rc = sl_store_put(run->store, job->key, (const char *)job->inputs.data, p.files, p.count, run->fresh, error,
                          sizeof error);
    if (rc == SLUICE_OK)
        run->store_used = true;
    else if (!atomic_exchange(&run->store_failed, true))
        sl_console_line(&run->console, SLUICE_LOG_WARNING,
                        "stage '%s': %s; the run goes on and puts nothing more into the store", job->stage->name,
                        error);
    sl_shared_release(job);
    free(p.files);
}
