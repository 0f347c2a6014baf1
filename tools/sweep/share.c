/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What runs have in common. */
#include "tools/sweep/sweep.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* ---- hashes: as core/run/key.c, but of what the plans say alone. Files are the same for all runs of a sweep. */

static void add(XXH3_state_t *hash, const void *bytes, size_t size)
{
    const uint64_t n = size;
    XXH3_128bits_update(hash, &n, sizeof n);
    if (size > 0)
        XXH3_128bits_update(hash, bytes, size);
}

static void add_text(XXH3_state_t *hash, const char *text)
{
    add(hash, text != NULL ? text : "", text != NULL ? strlen(text) + 1 : 0);
}

static void add_value(XXH3_state_t *hash, const sl_value *value)
{
    if (value->param->speed_only)
        return;
    add_text(hash, value->param->name);
    add_text(hash, value->text);
    add(hash, &value->number, sizeof value->number);
    add(hash, &value->integer, sizeof value->integer);
    add(hash, value->numbers, value->numbers != NULL ? value->count * sizeof *value->numbers : 0);
    for (size_t i = 0; value->texts != NULL && i < value->count; i++)
        add_text(hash, value->texts[i]);
}

static bool publishes(const sl_object *object, int64_t iteration, size_t slot, int64_t version)
{
    for (size_t v = 0; v < object->value_count; v++) {
        const sl_model_use *use = object->values[v].models;
        if (object->values[v].param->type == SLUICE_TYPE_SLOT && use != NULL && use[iteration].slot == slot &&
            use[iteration].next == version)
            return true;
    }
    return false;
}

static sw_job *publisher_of(sw_run *run, size_t slot, int64_t version)
{
    for (size_t j = 0; j < run->job_count; j++)
        if (publishes(&run->jobs[j].stage->object, run->jobs[j].iteration, slot, version))
            return &run->jobs[j];
    return NULL;
}

static int hash_job(sw_run *, sw_job *);

static sw_job *job_of(sw_run *run, const sl_stage *stage, int64_t iteration)
{
    sw_job *first = run->jobs;
    while (first->stage != stage)
        first++;
    return first + (size_t)iteration * stage->phase->stage_count;
}

static int add_object(sw_run *run, const sw_job *job, const sl_object *object, XXH3_state_t *hash)
{
    int rc = SLUICE_OK;
    if (object->type == NULL)
        return rc;
    add_text(hash, object->type->type->id);
    for (size_t v = 0; v < object->value_count; v++) {
        const sl_value *value = &object->values[v];
        const size_t count = value->models == NULL ? 0 : value->param->type == SLUICE_TYPE_MODELS ? value->count : 1;
        add_value(hash, value);
        for (size_t i = 0; rc >= 0 && i < value->measure_count; i++) {
            sw_job *reporter = job_of(run, value->measures[i].stage, value->measures[i].iteration);
            rc = hash_job(run, reporter);
            add(hash, reporter->hash, sizeof reporter->hash);
        }
        for (size_t i = 0; rc >= 0 && i < count; i++) {
            const sl_model_use *use = &value->models[(size_t)job->iteration * count + i];
            const sl_slot *slot = &run->plan->slots[use->slot];
            add_text(hash, slot->name);
            add_text(hash, slot->path);
            add_text(hash, slot->dtype);
            add(hash, &use->version, sizeof use->version);
            sw_job *publisher = use->version > 0 ? publisher_of(run, use->slot, use->version) : NULL;
            if (publisher != NULL) {
                rc = hash_job(run, publisher);
                add(hash, publisher->hash, sizeof publisher->hash);
            }
        }
    }
    return rc;
}

/* The job of another stage of the same phase and iteration. */
static sw_job *beside(sw_job *job, const sl_stage *stage)
{
    return job - job->stage->index + stage->index;
}

static int hash_job(sw_run *run, sw_job *job)
{
    if (job->hashed)
        return SLUICE_OK;
    XXH3_state_t *hash = XXH3_createState();
    if (hash == NULL)
        return SLUICE_NO_MEMORY;
    XXH3_128bits_reset(hash);
    add(hash, &run->seed, sizeof run->seed);
    add_text(hash, job->stage->phase->name);
    if (sl_stage_reads_repeat(job->stage))
        add(hash, &job->stage->phase->repeat, sizeof job->stage->phase->repeat);
    add_text(hash, job->stage->name);
    add(hash, &job->iteration, sizeof job->iteration);
    int rc = add_object(run, job, &job->stage->object, hash);
    for (size_t p = 0; rc >= 0 && p < job->stage->part_count; p++)
        rc = add_object(run, job, &job->stage->parts[p], hash);
    for (size_t f = 0; rc >= 0 && f < job->stage->from_count; f++) {
        sw_job *producer = beside(job, job->stage->from[f]);
        rc = hash_job(run, producer);
        add(hash, producer->hash, sizeof producer->hash);
    }
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(hash));
    memcpy(job->hash, canonical.digest, sizeof job->hash);
    job->hashed = true;
    XXH3_freeState(hash);
    return rc;
}

static const sw_job *same_job(const sw_run *run, const sw_job *as)
{
    for (size_t j = 0; j < run->job_count; j++)
        if (memcmp(run->jobs[j].hash, as->hash, sizeof as->hash) == 0)
            return &run->jobs[j];
    return NULL;
}

int sw_share_find(sw_sweep *sweep)
{
    int rc = SLUICE_OK;
    for (size_t r = 0; rc >= 0 && r < sweep->run_count; r++) {
        sw_run *run = &sweep->runs[r];
        for (size_t j = 0; rc >= 0 && j < run->job_count; j++) {
            rc = hash_job(run, &run->jobs[j]);
            size_t owner = 0;
            while (rc >= 0 && owner < r && same_job(&sweep->runs[owner], &run->jobs[j]) == NULL)
                owner++;
            run->jobs[j].owner = owner;
        }
    }
    return rc;
}

/* ---- what is there */

static void path_of(const sw_run *run, const sw_job *job, const char *end, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/streams/%s-%lld/%s%s", run->folder, job->stage->phase->name,
             (long long)job->iteration + 1, job->stage->name, end);
}

bool sw_share_done(const sw_run *run, const sw_job *job)
{
    char path[PATH_MAX];
    path_of(run, job, ".done", path);
    return access(path, F_OK) == 0;
}

/* Blocks up to the first in which the runs differ: what they share later, such as a source that reads nothing, comes
 * too late to be waited for. */
static size_t last_common_block(const sw_run *a, const sw_run *b)
{
    for (size_t j = 0; j < a->job_count; j++)
        if (same_job(b, &a->jobs[j]) == NULL)
            return a->jobs[j].block;
    return SIZE_MAX;
}

bool sw_share_awaits(const sw_sweep *sweep, const sw_run *run)
{
    for (size_t r = 0; r < sweep->run_count; r++) {
        const sw_run *other = &sweep->runs[r];
        if (other->state != SW_RUNNING || other->seed != run->seed)
            continue;
        const size_t last = last_common_block(run, other);
        for (size_t j = 0; j < run->job_count && run->jobs[j].block <= last; j++) {
            const sw_job *same = same_job(other, &run->jobs[j]);
            if (same != NULL && !sw_share_done(other, same) && !sw_share_done(run, &run->jobs[j]))
                return true;
        }
    }
    return false;
}
