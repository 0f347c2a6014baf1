/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What a stage in a process of its own must know, read by tools/stage/setup.c in this order. */
#include "core/isolate/isolate.h"

static size_t models_of(const sl_value *v)
{
    return v->models == NULL ? 0 : v->param->type == SLUICE_TYPE_MODELS ? v->count : 1;
}

static void pack_value(sl_message *m, const sl_value *v, int64_t iteration)
{
    const size_t models = models_of(v);
    sl_put_double(m, v->number);
    sl_put(m, (uint64_t)v->integer);
    sl_put_text(m, v->text);
    sl_put_bytes(m, v->numbers, v->numbers != NULL ? v->count * sizeof *v->numbers : 0);
    sl_put(m, v->texts != NULL ? v->count : 0);
    for (size_t i = 0; v->texts != NULL && i < v->count; i++)
        sl_put_text(m, v->texts[i]);
    sl_put(m, models);
    for (size_t i = 0; i < models; i++) {
        const sl_model_use *use = &v->models[(size_t)iteration * models + i];
        sl_put(m, use->slot);
        sl_put(m, (uint64_t)use->version);
        sl_put(m, (uint64_t)use->next);
    }
}

static void pack_object(sl_message *m, const sl_object *object, int64_t iteration)
{
    sl_put_text(m, object->type != NULL ? object->type->type->id : NULL);
    if (object->type == NULL)
        return;
    sl_put_text(m, object->type->file);
    sl_put(m, object->type->file_hash[0]);
    sl_put(m, object->type->file_hash[1]);
    sl_put(m, object->value_count);
    for (size_t i = 0; i < object->value_count; i++)
        pack_value(m, &object->values[i], iteration);
}

void sl_setup_pack(sl_message *m, const sl_job *job, uint64_t careful)
{
    const sl_stage *stage = job->stage;
    const sl_plan *plan = job->run->plan;
    sl_put_text(m, SLUICE_VERSION);
    sl_put(m, stage->isolation.memory);
    sl_put(m, stage->isolation.confined);
    sl_put(m, careful);
    sl_put_text(m, job->run->folder);
    sl_put_text(m, stage->phase->name);
    sl_put(m, (uint64_t)stage->phase->repeat);
    sl_put(m, (uint64_t)job->iteration);
    sl_put_text(m, stage->name);
    sl_put_text(m, stage->file);
    sl_put(m, (uint64_t)stage->line);
    sl_put_text(m, job->producer != NULL ? job->producer->stage->name : NULL);
    sl_put(m, job->host.seed);
    sl_put(m, job->host.services->seed);
    sl_put(m, plan->seed);
    sl_put(m, plan->slot_count);
    for (size_t s = 0; s < plan->slot_count; s++) {
        sl_put_text(m, plan->slots[s].name);
        sl_put_text(m, plan->slots[s].path);
        sl_put_text(m, plan->slots[s].dtype);
        sl_put(m, plan->slots[s].random);
    }
    sl_put(m, 1 + stage->part_count);
    pack_object(m, &stage->object, job->iteration);
    for (size_t p = 0; p < stage->part_count; p++)
        pack_object(m, &stage->parts[p], job->iteration);
}
