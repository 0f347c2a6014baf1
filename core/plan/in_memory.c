/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * in_memory = true: the records of a stage go on without a stream on disk. The stage gives them in their order and
 * waits for the slowest reader; so it and those who read it take one record after another, once, in this process, and
 * wait for nobody else. What cannot is refused here, with the way out.
 */
#include "core/plan/build.h"

static const sluice_stage_class *class_of(const sl_stage *stage)
{
    return (const sluice_stage_class *)(const void *)stage->object.type->type;
}

/* Why the stage itself cannot; NULL when it can. */
static const char *giver_fault(const sl_stage *stage)
{
    const sluice_stage_class *type = class_of(stage);
    if (type->base.traits & SLUICE_NO_OUTPUT)
        return "gives no records";
    if (type->run && type->base.kind != SLUICE_SOURCE)
        return "may give its records in another order than they came, which only a stream mends";
    return stage->isolation.on ? "has a process of its own, which may have to begin again" : NULL;
}

/* Why a reader of it cannot. */
static const char *taker_fault(const sl_stage *stage)
{
    const sluice_stage_class *type = class_of(stage);
    if (type->observe)
        return "reads its input twice";
    if (type->run)
        return "takes its input as it likes, perhaps twice";
    if (stage->isolation.on)
        return "has a process of its own, which may have to begin again";
    return stage->after_count > 0 ? "begins only after another stage, while this one would wait for it" : NULL;
}

void sl_build_in_memory(sl_builder *b, sl_phase *phase)
{
    for (size_t i = 0; i < phase->stage_count; i++) {
        sl_stage *stage = &phase->stages[i];
        const sl_setting *at = sl_setting_member(stage->at, "in_memory");
        size_t takers = 0;
        if (!at)
            continue;
        if (at->kind != SL_BOOLEAN) {
            sl_mistake(b->mistakes, at, stage->name, "'in_memory' is %s; true or false is wanted",
                       sl_setting_kind_name(at));
            continue;
        }
        if (!at->boolean)
            continue;
        stage->in_memory = true;
        if (giver_fault(stage)) {
            sl_mistake(b->mistakes, at, stage->name, "'%s' cannot be in_memory: it %s; remove in_memory = true",
                       stage->id, giver_fault(stage));
            continue;
        }
        for (size_t j = 0; j < phase->stage_count; j++) {
            const sl_stage *taker = &phase->stages[j];
            for (size_t f = 0; f < taker->from_count; f++) {
                if (taker->from[f] != stage)
                    continue;
                takers++;
                if (taker_fault(taker))
                    sl_mistake(b->mistakes, at, stage->name,
                               "cannot be in_memory, for '%s' %s; remove in_memory = true here", taker->name,
                               taker_fault(taker));
            }
        }
        if (takers == 0)
            sl_mistake(b->mistakes, at, stage->name,
                       "cannot be in_memory, for no stage reads it and its records would be lost; remove "
                       "in_memory = true");
    }
}
