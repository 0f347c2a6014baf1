/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/stage/setup.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

static const char *text(sl_message *m, sl_arena *arena)
{
    const char *borrowed = sl_get_text(m);
    return borrowed != NULL ? sl_arena_strdup(arena, borrowed) : NULL;
}

/* Models are packed for one iteration; where they are looked up they stand for all before it as well. */
static bool unpack_value(sl_message *m, const sl_setup *s, sl_value *v)
{
    sl_arena *arena = s->run.arena;
    size_t size;
    v->number = sl_get_double(m);
    v->integer = (int64_t)sl_get(m);
    v->text = text(m, arena);
    const void *numbers = sl_get_bytes(m, sizeof *v->numbers, &size);
    v->count = size / sizeof *v->numbers;
    v->numbers = sl_arena_alloc(arena, size + 1);
    const size_t texts = sl_get_count(m, 8);
    v->texts = sl_arena_alloc(arena, (texts + 1) * sizeof *v->texts);
    if (v->numbers == NULL || v->texts == NULL)
        return false;
    if (size > 0)
        memcpy(v->numbers, numbers, size);
    for (size_t i = 0; i < texts; i++)
        v->texts[i] = text(m, arena);
    if (texts > 0)
        v->count = texts;
    const size_t models = sl_get_count(m, 24), before = (size_t)s->job.iteration * models;
    sl_model_use *all = models > 0 ? sl_arena_alloc(arena, (before + models) * sizeof *all) : NULL;
    for (size_t i = 0; all != NULL && i < models; i++) {
        all[before + i].slot = (size_t)sl_get(m);
        all[before + i].version = (int64_t)sl_get(m);
        all[before + i].next = (int64_t)sl_get(m);
        m->bad = m->bad || all[before + i].slot >= s->plan.slot_count;
    }
    v->models = all;
    return !m->bad && (models == 0 || all != NULL);
}

static bool unpack_object(sl_message *m, const sl_setup *s, sl_object *object, char *error)
{
    const char *id = sl_get_text(m);
    if (id == NULL)
        return !m->bad;
    const char *file = sl_get_text(m);
    const uint64_t hash[2] = {sl_get(m), sl_get(m)};
    object->value_count = sl_get_count(m, 48);
    if (file == NULL || !sl_registry_load(s->registry, file))
        return false;
    object->type = sl_registry_find(s->registry, id);
    const sl_refused *refused;
    const size_t count = sl_registry_refused(s->registry, &refused);
    if (object->type == NULL)
        snprintf(error, SL_ERROR_SIZE, "its process cannot load %s: %s", file,
                 count > 0 ? refused[count - 1].why : "the class is not there");
    else if (memcmp(object->type->file_hash, hash, sizeof hash) != 0)
        snprintf(error, SL_ERROR_SIZE, "%s has changed since the run began; run again", file);
    if (error[0] != '\0' || sl_class_params(object->type->type) != object->value_count)
        return false;
    object->values = sl_arena_alloc(s->run.arena, (object->value_count + 1) * sizeof *object->values);
    bool fits = object->values != NULL;
    for (size_t i = 0; fits && i < object->value_count; i++) {
        object->values[i].param = sl_class_param(object->type->type, i);
        fits = unpack_value(m, s, &object->values[i]);
    }
    return fits;
}

static bool limit_memory(uint64_t bytes, char *error)
{
    const struct rlimit limit = {bytes, bytes};
    if (bytes == 0 || setrlimit(RLIMIT_AS, &limit) == 0)
        return true;
    snprintf(error, SL_ERROR_SIZE, "the limit of memory cannot be set: %s", strerror(errno));
    return false;
}

/* Phase, stage, seeds and slots. */
static bool unpack_place(sl_message *m, sl_setup *s)
{
    sl_arena *arena = s->run.arena;
    s->job.careful = sl_get(m);
    s->run.folder = text(m, arena);
    s->phase.name = text(m, arena);
    s->phase.repeat = (int64_t)sl_get(m);
    s->job.iteration = (int64_t)sl_get(m);
    s->stage.name = text(m, arena);
    s->stage.file = text(m, arena);
    s->stage.line = (int)sl_get(m);
    s->producer_stage.name = text(m, arena);
    s->seed = sl_get(m);
    s->run_seed = sl_get(m);
    s->plan.seed = sl_get(m);
    s->plan.slot_count = sl_get_count(m, 32);
    s->plan.slots = sl_arena_alloc(arena, (s->plan.slot_count + 1) * sizeof *s->plan.slots);
    for (size_t i = 0; s->plan.slots != NULL && i < s->plan.slot_count; i++) {
        s->plan.slots[i].name = text(m, arena);
        s->plan.slots[i].path = text(m, arena);
        s->plan.slots[i].dtype = text(m, arena);
        s->plan.slots[i].random = sl_get(m) != 0;
    }
    return !m->bad && s->plan.slots != NULL && s->run.folder != NULL && s->stage.name != NULL &&
           s->phase.name != NULL && s->job.iteration >= 0 && s->job.iteration < s->phase.repeat;
}

/* What belongs together points to each other. */
static void link_up(sl_setup *s)
{
    s->plan.phases = &s->phase;
    s->plan.phase_count = 1;
    s->stage.phase = s->producer_stage.phase = &s->phase;
    s->run.plan = &s->plan;
    s->producer.stage = &s->producer_stage;
    s->job.run = &s->run;
    s->job.stage = &s->stage;
    s->job.arena = s->run.arena;
    s->job.producer = s->producer_stage.name != NULL ? &s->producer : NULL;
}

bool sl_setup_unpack(sl_message *m, sl_setup *s, char error[SL_ERROR_SIZE])
{
    memset(s, 0, sizeof *s);
    s->run.arena = sl_arena_new();
    s->registry = sl_registry_open_folders(NULL, 0);
    error[0] = '\0';
    const char *version = sl_get_text(m);
    if (version == NULL || strcmp(version, SLUICE_VERSION) != 0) {
        snprintf(error, SL_ERROR_SIZE, "sluice is %s and its sluice-stage " SLUICE_VERSION "; install both anew",
                 version != NULL ? version : "of no version");
        return false;
    }
    const uint64_t memory = sl_get(m);
    const bool confined = sl_get(m) != 0;
    bool fits = s->run.arena != NULL && s->registry != NULL && unpack_place(m, s) && limit_memory(memory, error) &&
                (!confined || sl_confine(error));
    const size_t objects = fits ? sl_get_count(m, 8) : 0;
    s->stage.part_count = objects > 0 ? objects - 1 : 0;
    s->stage.parts = fits ? sl_arena_alloc(s->run.arena, objects * sizeof *s->stage.parts + 1) : NULL;
    fits = fits && s->stage.parts != NULL && unpack_object(m, s, &s->stage.object, error);
    for (size_t p = 0; fits && p < s->stage.part_count; p++)
        fits = unpack_object(m, s, &s->stage.parts[p], error);
    if (!fits || s->stage.object.type == NULL) {
        if (error[0] == '\0')
            snprintf(error, SL_ERROR_SIZE, "its process cannot take the stage over: out of memory");
        return false;
    }
    s->stage.id = s->stage.object.type->type->id;
    s->job.type = (const sluice_stage_class *)s->stage.object.type->type;
    link_up(s);
    return true;
}
