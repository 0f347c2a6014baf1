/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* From a class and the plan's values to a living object: cleared state, members by type and offset, parts, init. */
#include "core/run/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *sl_result_text(int code)
{
    switch (code) {
#define CASE(name, value, text) \
    case name:                  \
        return text;
        SLUICE_RESULTS(CASE)
#undef CASE
    }
    return "failed without saying why";
}

static size_t width(uint32_t type)
{
    switch (type) {
    case SLUICE_TYPE_BOOL:
        return sizeof(bool);
    case SLUICE_TYPE_CHOICE:
        return sizeof(int);
    case SLUICE_TYPE_DOUBLES:
    case SLUICE_TYPE_STRINGS:
    case SLUICE_TYPE_STAGES:
    case SLUICE_TYPE_MODELS:
        return sizeof(sluice_doubles);
    default:
        return 8;
    }
}

/* The references of one iteration; a MODEL or SLOT parameter has one. */
static const sluice_model_ref **references(const sl_value *value, const sl_job *job, size_t count, sl_arena *arena)
{
    const sluice_model_ref **refs = sl_arena_alloc(arena, (count + 1) * sizeof *refs);
    for (size_t i = 0; refs != NULL && i < count; i++) {
        const char *text = value->param->type == SLUICE_TYPE_MODELS ? value->texts[i] : value->text;
        refs[i] = sl_version_ref(job, &value->models[(size_t)job->iteration * count + i], text, arena);
        if (refs[i] == NULL)
            return NULL;
    }
    return refs;
}

/* What the stages that it names reported; they are all finished. */
static const sluice_measures *measures(const sl_value *value, const sl_job *job, sl_arena *arena)
{
    sluice_measures *all = sl_arena_alloc(arena, sizeof *all);
    const sluice_measure **items = sl_arena_alloc(arena, (value->measure_count + 1) * sizeof *items);
    for (size_t i = 0; items != NULL && i < value->measure_count; i++) {
        const sl_measure *m = &value->measures[i];
        const sl_job *reporter = sl_job_of(job->run, m->stage, m->iteration);
        const char *text =
            sl_arena_printf(arena, "%s@%lld", job->run->plan->slots[m->use.slot].name, (long long)m->use.version);
        sluice_measure *made = sl_arena_alloc(arena, sizeof *made);
        const sluice_model_ref *model = text != NULL ? sl_version_ref(job, &m->use, text, arena) : NULL;
        if (made == NULL || model == NULL)
            return NULL;
        *made = (sluice_measure){model, m->stage->name, m->metric, m->iteration, NAN};
        for (size_t n = 0; n < reporter->number_count; n++)
            if (strcmp(reporter->numbers[n].name, m->metric) == 0)
                made->value = reporter->numbers[n].value;
        items[i] = made;
    }
    if (all == NULL || items == NULL)
        return NULL;
    *all = (sluice_measures){items, value->measure_count};
    return all;
}

static int set_member(sl_instance *instance, const sl_value *value, sl_instance *part, const sl_job *job,
                      sl_arena *arena)
{
    const sluice_param *param = value->param;
    if (param->offset + width(param->type) > instance->type->state_size)
        return SLUICE_BAD_PLUGIN;
    void *member = (char *)instance->state + param->offset;
    switch (param->type) {
    case SLUICE_TYPE_BOOL:
        *(bool *)member = value->number != 0;
        return SLUICE_OK;
    case SLUICE_TYPE_INT:
        *(int64_t *)member = value->integer;
        return SLUICE_OK;
    case SLUICE_TYPE_DOUBLE:
        *(double *)member = value->number;
        return SLUICE_OK;
    case SLUICE_TYPE_CHOICE:
        *(int *)member = (int)value->number;
        return SLUICE_OK;
    case SLUICE_TYPE_STRING:
    case SLUICE_TYPE_STAGE:
    case SLUICE_TYPE_FILE:
        *(const char **)member = value->text;
        return SLUICE_OK;
    case SLUICE_TYPE_DOUBLES:
        *(sluice_doubles *)member = (sluice_doubles){value->numbers, value->count};
        return SLUICE_OK;
    case SLUICE_TYPE_STRINGS:
    case SLUICE_TYPE_STAGES:
        *(sluice_strings *)member = (sluice_strings){value->texts, value->count};
        return SLUICE_OK;
    case SLUICE_TYPE_MODEL:
    case SLUICE_TYPE_SLOT:
    case SLUICE_TYPE_MODELS: {
        if (value->models == NULL || job == NULL)
            return SLUICE_OK;
        const size_t count = param->type == SLUICE_TYPE_MODELS ? value->count : 1;
        const sluice_model_ref **refs = references(value, job, count, arena);
        if (refs == NULL)
            return SLUICE_NO_MEMORY;
        if (param->type == SLUICE_TYPE_MODELS)
            *(sluice_models *)member = (sluice_models){refs, count};
        else
            *(const sluice_model_ref **)member = refs[0];
        return SLUICE_OK;
    }
    case SLUICE_TYPE_METRICS:
        if (value->count == 0 || job == NULL)
            return SLUICE_OK;
        *(const sluice_measures **)member = measures(value, job, arena);
        return *(const sluice_measures **)member != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
    case SLUICE_TYPE_CLASS: {
        if (part == NULL || part->type == NULL)
            return SLUICE_OK;
        sluice_part *made = sl_arena_alloc(arena, sizeof *made);
        if (made == NULL)
            return SLUICE_NO_MEMORY;
        *made = (sluice_part){part->type, part->state};
        *(const sluice_part **)member = made;
        return SLUICE_OK;
    }
    default:
        return SLUICE_BAD_PLUGIN;
    }
}

int sl_instance_begin(sl_instance *instance, const sl_object *object, const sl_object *parts, size_t part_count,
                      const sl_job *job, const sl_host *host, sl_arena *arena)
{
    const sluice_class *type = object->type->type;
    memset(instance, 0, sizeof *instance);
    instance->type = type;
    instance->state = calloc(1, type->state_size > 0 ? type->state_size : 1);
    instance->parts = part_count > 0 ? sl_arena_alloc(arena, part_count * sizeof *instance->parts) : NULL;
    int rc = instance->state != NULL && (part_count == 0 || instance->parts != NULL) ? SLUICE_OK : SLUICE_NO_MEMORY;
    for (; rc >= 0 && instance->part_count < part_count; instance->part_count++)
        if (parts[instance->part_count].type != NULL)
            rc = sl_instance_begin(&instance->parts[instance->part_count], &parts[instance->part_count], NULL, 0, job,
                                   host, arena);
    for (size_t i = 0, part = 0; rc >= 0 && i < object->value_count; i++) {
        const bool is_part = object->values[i].param->type == SLUICE_TYPE_CLASS && part < part_count;
        rc = set_member(instance, &object->values[i], is_part ? &instance->parts[part] : NULL, job, arena);
        part += is_part;
    }
    const sluice_metrics_class *sink = type->kind == SLUICE_METRICS_SINK ? (const void *)type : NULL;
    if (rc >= 0 && sink != NULL && sink->folder != NULL)
        sink->folder(instance->state, host->folder);
    if (rc >= 0 && type->init != NULL) {
        instance->begun = true;
        rc = type->init(instance->state, &host->public);
    } else if (rc >= 0) {
        instance->begun = true;
    }
    if (rc >= 0)
        return SLUICE_OK;
    if (host->error[0] == '\0' && rc != SLUICE_CANCELLED)
        sluice_error(&host->public, rc, "'%s' could not start: %s", type->id, sl_result_text(rc));
    sl_instance_end(instance);
    return rc;
}

void sl_instance_end(sl_instance *instance)
{
    if (instance->begun && instance->type->fini != NULL)
        instance->type->fini(instance->state);
    for (size_t i = instance->part_count; i-- > 0;)
        sl_instance_end(&instance->parts[i]);
    free(instance->state);
    memset(instance, 0, sizeof *instance);
}

int sl_object_defaults(const sl_registered *type, sl_arena *arena, sl_object *object)
{
    const size_t count = sl_class_params(type->type);
    *object = (sl_object){
        .type = type, .value_count = count, .values = sl_arena_alloc(arena, (count + 1) * sizeof(sl_value))};
    if (object->values == NULL)
        return SLUICE_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        const sluice_param *param = sl_class_param(type->type, i);
        object->values[i] =
            (sl_value){.param = param, .number = param->value, .integer = (int64_t)param->value, .text = param->text};
    }
    return SLUICE_OK;
}
