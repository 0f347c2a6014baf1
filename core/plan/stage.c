/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* One stage of a pipeline file: its name, its class, the classes it is made of, their parameters. */
#include "core/plan/build.h"

#include <string.h>

static const char *const own_keys[] = {"name",   "use",      "from",    "after",    "isolate",
                                       "limits", "on_crash", "seccomp", "in_memory"};

static const sluice_param *find_param(const sluice_class *type, const char *name)
{
    for (size_t i = 0; i < sl_class_params(type); i++)
        if (strcmp(sl_class_param(type, i)->name, name) == 0)
            return sl_class_param(type, i);
    return NULL;
}

/* Why the plugin that is called like the class was refused; NULL when there is none. */
static const sl_refused *refusal(const sl_builder *b, const char *id)
{
    const sl_refused *refused;
    const size_t count = sl_registry_refused(b->registry, &refused), length = strlen(id);
    for (size_t i = 0; i < count; i++) {
        const char *slash = strrchr(refused[i].file, '/');
        if (slash && strncmp(slash + 1, id, length) == 0 && strcmp(slash + 1 + length, ".so") == 0)
            return &refused[i];
    }
    return NULL;
}

const sl_registered *sl_build_class(sl_builder *b, const char *id, int kind, const sl_setting *at, const char *stage)
{
    const sl_registered *found = sl_registry_find(b->registry, id);
    const char *conflict = sl_registry_conflict(b->registry, id), *near = sl_registry_near(b->registry, id, kind);
    bool is_stage = found && sl_kind_is_stage(found->type->kind);
    if (conflict) {
        sl_mistake(b->mistakes, at, stage, "%s", conflict);
    } else if (!found && refusal(b, id)) {
        sl_mistake(b->mistakes, at, stage, "'%s' is not there because %s was refused: %s", id, refusal(b, id)->file,
                   refusal(b, id)->why);
    } else if (!found) {
        const sl_near hint = {.best = near};
        sl_mistake(b->mistakes, at, stage, "there is no class '%s'%s", id,
                   near ? sl_build_hint(b, &hint)
                        : "; `sluice plugins` lists those there are, and why others were refused");
    } else if (kind < 0 ? !is_stage : found->type->kind != (uint32_t)kind) {
        sl_mistake(b->mistakes, at, stage, "'%s' is of kind %s; %s is wanted here", id, sl_kind_name(found->type->kind),
                   kind < 0                   ? "a stage"
                   : kind == SLUICE_KIND_LOSS ? "a loss"
                                              : sl_kind_name((uint32_t)kind));
    } else {
        return found;
    }
    return NULL;
}

/* Did a class that a higher level swapped out know this parameter? One that is not installed may have. */
static bool knew(const sl_builder *b, const char *id, const char *name)
{
    const sl_registered *old = sl_registry_find(b->registry, id);
    return !old || find_param(old->type, name);
}

/* `choice` names a class (use, or a CLASS parameter): is this setting one for a class it named before? */
static bool swapped_out(const sl_builder *b, const sl_setting *choice, const char *fallback, const sl_setting *s)
{
    if (!choice || s->level >= choice->level)
        return false;
    if (!choice->replaced && fallback && knew(b, fallback, s->name))
        return true;
    for (const sl_setting *old = choice->replaced; old; old = old->replaced)
        if (old->kind == SL_TEXT && knew(b, old->text, s->name))
            return true;
    return false;
}

/* A key that neither the class nor its parts know, left over from a class that was swapped out. */
static bool forgiven(const sl_builder *b, const sl_setting *group, const sluice_class *type, const sl_setting *s)
{
    const sl_setting *use = sl_setting_member(group, "use");
    if (swapped_out(b, use, NULL, s))
        return true;
    for (size_t i = 0; i < sl_class_params(type); i++) {
        const sluice_param *p = sl_class_param(type, i);
        if (p->type == SLUICE_TYPE_CLASS && swapped_out(b, sl_setting_member(group, p->name), p->text, s))
            return true;
    }
    /* Parameters of the parts of a class that was swapped out whole. */
    for (const sl_setting *old = use && s->level < use->level ? use->replaced : NULL; old; old = old->replaced) {
        const sl_registered *was = old->kind == SL_TEXT ? sl_registry_find(b->registry, old->text) : NULL;
        for (size_t i = 0; was && i < sl_class_params(was->type); i++) {
            const sluice_param *p = sl_class_param(was->type, i);
            const sl_setting *part = sl_setting_member(group, p->name);
            const char *id = part && part->kind == SL_TEXT ? part->text : p->text;
            if (p->type == SLUICE_TYPE_CLASS && id && knew(b, id, s->name))
                return true;
        }
    }
    return false;
}

static void check_keys(sl_builder *b, const sl_stage *stage, const sl_setting *group)
{
    for (const sl_setting *s = group->first; s; s = s->next) {
        sl_near near = {.wanted = s->name};
        bool known = false;
        for (size_t i = 0; i < sizeof own_keys / sizeof *own_keys; i++) {
            known |= strcmp(own_keys[i], s->name) == 0;
            sl_near_offer(&near, own_keys[i]);
        }
        for (size_t i = 0; i <= stage->part_count; i++) {
            const sl_object *object = i == 0 ? &stage->object : &stage->parts[i - 1];
            if (!object->type)
                known = true; /* its class is wrong, which is said elsewhere: the key may be right */
            for (size_t j = 0; object->type && j < object->value_count; j++) {
                known |= strcmp(object->values[j].param->name, s->name) == 0;
                sl_near_offer(&near, object->values[j].param->name);
            }
        }
        if (known)
            continue;
        if (forgiven(b, group, stage->object.type->type, s))
            sl_remark(b->mistakes, s, stage->name, "'%s' is left out: '%s' does not have it", s->name, stage->id);
        else
            sl_mistake(b->mistakes, s, stage->name, "'%s' has no parameter '%s'; %s%s%s", stage->id, s->name,
                       near.best ? "did you mean '" : "`sluice describe ", near.best ? near.best : stage->id,
                       near.best ? "'?" : "` lists those it has");
    }
}

static void read_name(sl_builder *b, sl_stage *stage, const sl_setting *group)
{
    static const char *const words[] = {"models", "phases", "runtime"};
    const sl_setting *name = sl_setting_member(group, "name");
    stage->name = "";
    if (!name) {
        sl_mistake(b->mistakes, group, NULL, "a stage has no name; add name = \"…\"");
        return;
    }
    if (!sl_build_text(b, name, NULL, "name", &stage->name))
        return;
    if (!sl_build_name_fits(stage->name))
        sl_mistake(b->mistakes, name, NULL, "'%s' cannot name a stage; use letters, digits, - and _, 63 at most",
                   stage->name);
    for (size_t i = 0; i < 3; i++)
        if (strcmp(stage->name, words[i]) == 0)
            sl_mistake(b->mistakes, name, NULL, "a stage cannot be called '%s', which --set could not tell apart",
                       stage->name);
}

static void read_parts(sl_builder *b, sl_stage *stage, const sl_setting *group)
{
    for (size_t i = 0; i < stage->object.value_count; i++)
        stage->part_count += stage->object.values[i].param->type == SLUICE_TYPE_CLASS;
    stage->parts = sl_build_alloc(b, stage->part_count, sizeof *stage->parts);
    sl_object *part = stage->parts;
    for (size_t i = 0; part && i < stage->object.value_count; i++) {
        const sl_value *v = &stage->object.values[i];
        if (v->param->type != SLUICE_TYPE_CLASS)
            continue;
        const sl_registered *type =
            v->text ? sl_build_class(b, v->text, (int)v->param->kind, v->at ? v->at : group, stage->name) : NULL;
        if (type)
            sl_build_object(b, type, group, stage->name, part);
        part++;
    }
}

bool sl_build_stage(sl_builder *b, sl_stage *stage, const sl_setting *group)
{
    const sl_setting *use = sl_setting_member(group, "use");
    stage->line = group->line;
    stage->file = b->plan->file;
    stage->at = group;
    read_name(b, stage, group);
    if (!use) {
        sl_mistake(b->mistakes, group, stage->name,
                   "'use' is missing; add the class that does the work (see `sluice plugins`)");
        return false;
    }
    if (!sl_build_text(b, use, stage->name, "use", &stage->id))
        return false;
    const sl_registered *type = sl_build_class(b, stage->id, -1, use, stage->name);
    if (!type)
        return false;
    sl_build_object(b, type, group, stage->name, &stage->object);
    read_parts(b, stage, group);
    check_keys(b, stage, group);
    sl_build_isolation(b, stage, group);
    return true;
}

uint32_t sl_stage_adds(const sl_stage *stage)
{
    uint32_t fields = stage->object.type->type->adds;
    for (size_t i = 0; i < stage->object.value_count; i++) {
        const sl_value *v = &stage->object.values[i];
        if (v->param->type == SLUICE_TYPE_CHOICE && v->param->choice_adds)
            fields |= v->param->choice_adds[v->integer];
    }
    return fields;
}

static bool object_reads_repeat(const sl_object *object)
{
    if (!object->type)
        return false;
    /* A plugin from before there was the trait could not say so. */
    uint32_t traits = object->type->plugin->stamp.param_size < sizeof(sluice_param) ? SLUICE_READS_REPEAT
                                                                                    : object->type->type->traits;
    for (size_t i = 0; i < object->value_count; i++) {
        const sl_value *v = &object->values[i];
        if (v->param->type == SLUICE_TYPE_CHOICE && v->param->choice_traits)
            traits |= v->param->choice_traits[v->integer];
    }
    return traits & SLUICE_READS_REPEAT;
}

bool sl_stage_reads_repeat(const sl_stage *stage)
{
    bool reads = object_reads_repeat(&stage->object);
    for (size_t i = 0; !reads && i < stage->part_count; i++)
        reads = object_reads_repeat(&stage->parts[i]);
    return reads;
}

uint32_t sl_stage_reads(const sl_stage *stage)
{
    uint32_t fields = stage->object.type->type->reads;
    for (size_t i = 0; i < stage->part_count; i++) {
        const sluice_class *part = stage->parts[i].type ? stage->parts[i].type->type : NULL;
        if (!part)
            continue;
        fields |= part->reads;
        if (part->kind == SLUICE_KIND_LOSS && !part->reads) /* a loss that says nothing shows it by its functions */
            fields |=
                ((const sluice_loss_class *)(const void *)part)->pairs ? SLUICE_FIELD_PAIRS : SLUICE_FIELD_CANDIDATES;
    }
    return fields;
}

bool sl_stage_input_optional(const sl_stage *stage)
{
    const sluice_class *type = stage->object.type->type;
    if (type->kind == SLUICE_SOURCE || type->kind == SLUICE_AVERAGER)
        return true;
    if (type->traits & SLUICE_NEEDS_INPUT || !((const sluice_stage_class *)(const void *)type)->run)
        return false;
    return type->kind == SLUICE_EVALUATOR || sl_stage_reads(stage) == 0;
}

const sl_value *sl_stage_value(const sl_stage *stage, const char *param)
{
    for (size_t i = 0; i < stage->object.value_count; i++)
        if (strcmp(stage->object.values[i].param->name, param) == 0)
            return &stage->object.values[i];
    return NULL;
}
