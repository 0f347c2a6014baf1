/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Model versions. A slot's version counts its publications. At a stage, "policy" is the newest version that is certain
 * to be there: the one the phase's iteration started with, plus those published upstream of the stage (by from and
 * after). "policy@N" counts from the first, "policy@-k" back from what "policy" means there.
 */
#include "core/plan/build.h"

#include <stdlib.h>
#include <string.h>

typedef struct reference {
    size_t slot;
    char form; /* 'n' newest, 'a' absolute, 'r' relative */
    int64_t number;
} reference;

/* Reads "slot", "slot@N" or "slot@-k"; false after a mistake. */
static bool read_reference(sl_builder *b, const sl_stage *stage, const sl_value *v, const char *text, reference *out)
{
    const sl_setting *at = v->at ? v->at : stage->at;
    size_t length = strcspn(text, "@");
    char *end;
    *out = (reference){.form = 'n'};
    if (text[length] == '@') {
        const char *digits = text + length + 1;
        out->form = *digits == '-' ? 'r' : 'a';
        digits += out->form == 'r';
        out->number = strtol(digits, &end, 10);
        if (*digits < '0' || *digits > '9' || *end || strlen(digits) > 9 || (out->form == 'r' && out->number == 0)) {
            sl_mistake(
                b->mistakes, at, stage->name,
                "%s: '%s' is no version; write slot (the newest), slot@0 (the first) or slot@-1 (the one before)",
                v->param->name, text);
            return false;
        }
    }
    sl_near near = {.wanted = sl_arena_printf(b->arena, "%.*s", (int)length, text)};
    for (size_t i = 0; i < b->plan->slot_count; i++) {
        if (near.wanted && strcmp(b->plan->slots[i].name, near.wanted) == 0) {
            out->slot = i;
            return true;
        }
        if (near.wanted)
            sl_near_offer(&near, b->plan->slots[i].name);
    }
    sl_mistake(b->mistakes, at, stage->name, "%s: there is no model '%.*s'%s", v->param->name, (int)length, text,
               near.best ? sl_build_hint(b, &near) : "; name it under models");
    return false;
}

static bool refers(const sl_value *v)
{
    return v->count > 0 && (v->param->type == SLUICE_TYPE_MODEL || v->param->type == SLUICE_TYPE_SLOT ||
                            v->param->type == SLUICE_TYPE_MODELS);
}

static const char *written(const sl_value *v, size_t i)
{
    return v->param->type == SLUICE_TYPE_MODELS ? v->texts[i] : v->text;
}

/* The stage's parameter that publishes a slot; NULL when it does not. */
static const sl_value *publishes(const sl_stage *stage, size_t slot)
{
    for (size_t i = 0; i < stage->object.value_count; i++) {
        const sl_value *v = &stage->object.values[i];
        if (v->param->type == SLUICE_TYPE_SLOT && v->models && v->models[0].slot == slot)
            return v;
    }
    return NULL;
}

/* Publications of a slot in one iteration that a stage may count on: those upstream of it. stage NULL: all. */
static int64_t published(const sl_phase *phase, const bool *before, const sl_stage *stage, size_t slot)
{
    int64_t count = 0;
    for (size_t i = 0; i < phase->stage_count; i++)
        if (!stage || before[stage->index * phase->stage_count + i])
            count += publishes(&phase->stages[i], slot) != NULL;
    return count;
}

/* Two publishers of a slot need an order. */
static void check_publishers(sl_builder *b, const sl_phase *phase, const bool *before, size_t slot)
{
    size_t n = phase->stage_count;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++) {
            const sl_stage *first = &phase->stages[j], *second = &phase->stages[i];
            const sl_value *v = publishes(second, slot);
            if (v && publishes(first, slot) && !before[i * n + j] && !before[j * n + i])
                sl_mistake(b->mistakes, v->at ? v->at : second->at, second->name,
                           "'%s' publishes '%s' too, in no certain order; add after = \"%s\"", first->name,
                           b->plan->slots[slot].name, first->name);
        }
}

/* A stage publishes a slot once: its versions are counted by stage. */
static void check_twice(sl_builder *b, const sl_stage *stage)
{
    for (size_t i = 0; i < stage->object.value_count; i++) {
        const sl_value *v = &stage->object.values[i];
        if (v->param->type == SLUICE_TYPE_SLOT && v->models && publishes(stage, v->models[0].slot) != v)
            sl_mistake(b->mistakes, v->at ? v->at : stage->at, stage->name, "publishes '%s' twice; name another model",
                       b->plan->slots[v->models[0].slot].name);
    }
}

/* One reference in one iteration; false after a mistake. */
static bool resolve(sl_builder *b, const sl_phase *phase, const sl_stage *stage, const sl_value *v, const char *text,
                    const reference *r, int64_t newest, int64_t iteration, sl_model_use *use)
{
    const char *slot = b->plan->slots[r->slot].name;
    const sl_setting *at = v->at ? v->at : stage->at;
    use->version = r->form == 'n' ? newest : r->form == 'a' ? r->number : newest - r->number;
    use->next = -1;
    if (use->version >= 0 && use->version <= newest)
        return true;
    if (r->form == 'a')
        sl_mistake(b->mistakes, at, stage->name,
                   "%s: '%s' is not there yet in iteration %lld of phase '%s', where the newest is '%s@%lld'",
                   v->param->name, text, (long long)iteration + 1, phase->name, slot, (long long)newest);
    else
        sl_mistake(b->mistakes, at, stage->name,
                   "%s: there is no '%s' in iteration %lld of phase '%s', where '%s' is '%s@%lld'; train it in a phase "
                   "before, "
                   "or name a version that is there",
                   v->param->name, text, (long long)iteration + 1, phase->name, slot, slot, (long long)newest);
    return false;
}

/* Of a published version only the run knows. */
static bool has_head(sl_builder *b, const sl_stage *stage, const sl_value *v, const char *text, const sl_model_use *use)
{
    const sl_slot *slot = &b->plan->slots[use->slot];
    if (!v->param->head || use->version > 0 || slot->reward || !b->resolve_files)
        return true;
    sl_mistake(b->mistakes, v->at ? v->at : stage->at, stage->name,
               "%s: '%s' is a language model without a reward head (%s/config.json names no "
               "…ForSequenceClassification); train one from it (trainer, loss = \"bradley-terry\") or name a reward "
               "model's folder",
               v->param->name, text, slot->path);
    return false;
}

/* References of all stages, slots only: who publishes what must be known before versions can be counted. */
bool sl_build_references(sl_builder *b, sl_phase *phase)
{
    bool fits = true;
    for (size_t i = 0; i < phase->stage_count; i++)
        for (size_t j = 0; j < phase->stages[i].object.value_count; j++) {
            sl_value *v = &phase->stages[i].object.values[j];
            if (!refers(v))
                continue;
            sl_model_use *uses = sl_build_alloc(b, v->count * (size_t)phase->repeat, sizeof *uses);
            if (!uses)
                return false;
            bool known = true;
            for (size_t k = 0; k < v->count; k++) {
                reference r;
                known &= read_reference(b, &phase->stages[i], v, written(v, k), &r);
                uses[k].slot = r.slot;
            }
            v->models = known ? uses : NULL;
            fits &= known;
        }
    return fits;
}

void sl_build_versions(sl_builder *b, sl_phase *phase, const bool *before, int64_t *newest)
{
    for (size_t slot = 0; slot < b->plan->slot_count; slot++)
        check_publishers(b, phase, before, slot);
    for (size_t i = 0; i < phase->stage_count; i++)
        check_twice(b, &phase->stages[i]);
    for (size_t i = 0; i < phase->stage_count; i++)
        for (size_t j = 0; j < phase->stages[i].object.value_count; j++) {
            const sl_stage *stage = &phase->stages[i];
            const sl_value *v = &stage->object.values[j];
            for (size_t k = 0; v->models && k < v->count; k++) {
                reference r;
                if (!read_reference(b, stage, v, written(v, k), &r))
                    return;
                int64_t upstream = published(phase, before, stage, r.slot),
                        all = published(phase, before, NULL, r.slot);
                for (int64_t t = 0; t < phase->repeat; t++) {
                    sl_model_use *use = &v->models[(size_t)t * v->count + k];
                    int64_t here = newest[r.slot] + t * all + upstream;
                    use->slot = r.slot;
                    if (!resolve(b, phase, stage, v, written(v, k), &r, here, t, use) ||
                        !has_head(b, stage, v, written(v, k), use))
                        break;
                    if (v->param->type == SLUICE_TYPE_SLOT)
                        use->next = here + 1;
                }
            }
        }
    for (size_t slot = 0; slot < b->plan->slot_count; slot++)
        newest[slot] += phase->repeat * published(phase, before, NULL, slot);
}
