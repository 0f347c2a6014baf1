/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Numbers that stages of earlier phases reported, as a later stage asks for them: "stage/metric". */
#include "core/plan/build.h"

#include <string.h>

/* The slot that a class with METRICS publishes, by which the versions are chosen that the numbers are about. */
static const sl_model_use *published_slot(const sl_stage *stage)
{
    for (size_t i = 0; i < stage->object.value_count; i++)
        if (stage->object.values[i].param->type == SLUICE_TYPE_SLOT && stage->object.values[i].models)
            return &stage->object.values[i].models[0];
    return NULL;
}

/* The version of a slot (NULL: of any) that a stage publishes, or else reads, in an iteration. */
static bool own_version(const sl_stage *stage, int64_t iteration, const sl_model_use *slot, sl_model_use *out)
{
    const sl_value *found = NULL;
    for (size_t i = 0; i < stage->object.value_count; i++) {
        const sl_value *v = &stage->object.values[i];
        if (!v->models || v->param->type == SLUICE_TYPE_MODELS || (slot && v->models[0].slot != slot->slot))
            continue;
        if (!found || v->param->type == SLUICE_TYPE_SLOT)
            found = v;
    }
    if (!found)
        return false;
    *out = found->models[iteration];
    if (found->param->type == SLUICE_TYPE_SLOT)
        out->version = out->next;
    out->next = -1;
    return true;
}

/* Whom a stage's numbers are about: a verifier's, the model whose answers it verified. */
static bool subject(const sl_stage *stage, int64_t iteration, const sl_model_use *slot, sl_model_use *out)
{
    while (stage && !own_version(stage, iteration, slot, out))
        stage = stage->from_count > 0 ? stage->from[0] : NULL;
    return stage != NULL;
}

static bool reports(sl_builder *b, const sl_stage *asks, const sl_setting *at, const sl_stage *stage,
                    const char *metric)
{
    const sluice_metric_info *m = stage->object.type->type->metrics;
    sl_near near = {.wanted = metric};
    for (; m && m->name; m++) {
        /* "pair_accuracy/GROUP" stands for one of each group. */
        const size_t fixed = strcspn(m->name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
        if (strcmp(m->name, metric) == 0 || (m->name[fixed] && fixed > 0 && strncmp(m->name, metric, fixed) == 0))
            return true;
        sl_near_offer(&near, m->name);
    }
    sl_mistake(b->mistakes, at, asks->name,
               "'%s' (class '%s') reports no '%s'%s; `sluice describe %s` lists its numbers", stage->name, stage->id,
               metric, sl_build_hint(b, &near), stage->id);
    return false;
}

/* The stage of an earlier phase that a name means, and where its metric begins; NULL after a mistake. */
static const sl_stage *measured(sl_builder *b, const sl_stage *asks, const sl_value *v, const char *name,
                                const char **metric)
{
    const sl_setting *at = v->at ? v->at : asks->at;
    const size_t length = strcspn(name, "/");
    sl_near near = {.wanted = sl_arena_printf(b->arena, "%.*s", (int)length, name)};
    if (!near.wanted) {
        b->no_memory = true;
        return NULL;
    }
    if (name[length] != '/' || length == 0 || name[length + 1] == '\0') {
        sl_mistake(b->mistakes, at, asks->name, "%s: '%s' is no metric; write \"STAGE/METRIC\", \"eval/accuracy\"",
                   v->param->name, name);
        return NULL;
    }
    *metric = name + length + 1;
    for (size_t p = 0; p <= asks->phase->index; p++)
        for (size_t s = 0; s < b->plan->phases[p].stage_count; s++) {
            const sl_stage *stage = &b->plan->phases[p].stages[s];
            if (strcmp(stage->name, near.wanted) == 0 && p < asks->phase->index)
                return reports(b, asks, at, stage, *metric) ? stage : NULL;
            if (strcmp(stage->name, near.wanted) == 0) {
                sl_mistake(b->mistakes, at, asks->name,
                           "%s: '%s' stands in this very phase, whose numbers are not all there yet; put '%s' into a "
                           "phase after it",
                           v->param->name, stage->name, asks->name);
                return NULL;
            }
            if (p < asks->phase->index)
                sl_near_offer(&near, stage->name);
        }
    sl_mistake(b->mistakes, at, asks->name, "%s: no stage '%s' stands in a phase before '%s'%s", v->param->name,
               near.wanted, asks->phase->name, sl_build_hint(b, &near));
    return NULL;
}

static void resolve(sl_builder *b, const sl_stage *asks, sl_value *v)
{
    const sl_model_use *slot = published_slot(asks);
    const sl_stage **stages = sl_build_alloc(b, v->count, sizeof *stages);
    const char **metrics = sl_build_alloc(b, v->count, sizeof *metrics);
    size_t count = 0;
    for (size_t i = 0; stages && metrics && i < v->count; i++) {
        stages[i] = measured(b, asks, v, v->texts[i], &metrics[i]);
        count += stages[i] ? (size_t)stages[i]->phase->repeat : 0;
    }
    v->measures = sl_build_alloc(b, count, sizeof *v->measures);
    for (size_t i = 0; v->measures && i < v->count; i++)
        for (int64_t t = 0; stages[i] && t < stages[i]->phase->repeat; t++) {
            sl_measure *m = &v->measures[v->measure_count];
            *m = (sl_measure){.stage = stages[i], .iteration = t, .metric = metrics[i]};
            if (!subject(stages[i], t, slot, &m->use)) {
                sl_mistake(b->mistakes, v->at ? v->at : asks->at, asks->name,
                           "%s: the numbers of '%s' are about no version of '%s'; name a stage that evaluates it, or "
                           "one after a sampler of it",
                           v->param->name, stages[i]->name, slot ? b->plan->slots[slot->slot].name : "any model");
                break;
            }
            v->measure_count++;
        }
}

void sl_build_measures(sl_builder *b, sl_phase *phase)
{
    for (size_t i = 0; i < phase->stage_count; i++)
        for (size_t j = 0; j < phase->stages[i].object.value_count; j++)
            if (phase->stages[i].object.values[j].param->type == SLUICE_TYPE_METRICS)
                resolve(b, &phase->stages[i], &phase->stages[i].object.values[j]);
}
