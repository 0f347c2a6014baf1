/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* metrics = ( { use = "tensorboard"; … } ): who gets a run's numbers beside metrics.jsonl. */
#include "core/plan/build.h"

#include <string.h>

enum { MOST_SINKS = 64 };

static void check_keys(sl_builder *b, const sl_object *sink, const sl_setting *group)
{
    const char *id = sink->type->type->id;
    for (const sl_setting *s = group->first; s; s = s->next) {
        sl_near near = {.wanted = s->name};
        bool known = strcmp(s->name, "use") == 0;
        sl_near_offer(&near, "use");
        for (size_t i = 0; i < sink->value_count; i++) {
            known |= strcmp(sink->values[i].param->name, s->name) == 0;
            sl_near_offer(&near, sink->values[i].param->name);
        }
        if (!known)
            sl_mistake(b->mistakes, s, NULL, "'%s' has no parameter '%s'; %s%s%s", id, s->name,
                       near.best ? "did you mean '" : "`sluice describe ", near.best ? near.best : id,
                       near.best ? "'?" : "` lists those it has");
    }
}

static void read_sink(sl_builder *b, const sl_setting *group)
{
    const sl_setting *use = group->kind == SL_GROUP ? sl_setting_member(group, "use") : NULL;
    const char *id = NULL;
    if (group->kind != SL_GROUP)
        sl_mistake(b->mistakes, group, NULL, "a metrics sink is %s; write { use = \"…\"; }",
                   sl_setting_kind_name(group));
    else if (!use)
        sl_mistake(b->mistakes, group, NULL, "a metrics sink has no class; add use = \"…\"");
    if (!use || !sl_build_text(b, use, NULL, "use", &id))
        return;
    const sl_registered *type = sl_build_class(b, id, SLUICE_METRICS_SINK, use, NULL);
    if (!type)
        return;
    sl_object *sink = &b->plan->sinks[b->plan->sink_count++];
    sl_build_object(b, type, group, NULL, sink);
    check_keys(b, sink, group);
}

void sl_build_sinks(sl_builder *b)
{
    sl_setting *sinks = sl_setting_member(b->root, "metrics");
    if (!sinks)
        return;
    if (sinks->kind != SL_LIST && sinks->kind != SL_GROUP) {
        sl_mistake(b->mistakes, sinks, NULL, "metrics is %s; write metrics = ( { use = \"…\"; } )",
                   sl_setting_kind_name(sinks));
        return;
    }
    const size_t count = sinks->kind == SL_LIST ? sinks->count : 1;
    if (count > MOST_SINKS) {
        sl_mistake(b->mistakes, sinks, NULL, "there are %zu metrics sinks; %d is the most", count, MOST_SINKS);
        return;
    }
    b->plan->sinks = sl_build_alloc(b, count, sizeof(sl_object));
    const sl_setting *group = sl_setting_first_group(sinks);
    for (size_t i = 0; b->plan->sinks && i < count; i++, group = group->next)
        read_sink(b, group);
}
