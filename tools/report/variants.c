/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/report/variants.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_SHOWN = 3, MOST_LABEL = 120 };

typedef struct pair {
    const char *key, *value;
} pair;

/* All settings of a run, flat. */
typedef struct settings {
    pair *items;
    size_t count;
} settings;

static void add(sl_arena *arena, settings *s, const char *key, const char *value)
{
    pair *items = rp_grow(arena, s->items, s->count, sizeof *items);
    if (items == NULL || key == NULL || value == NULL)
        return;
    s->items = items;
    items[s->count++] = (pair){key, value};
}

static const char *value_text(sl_arena *arena, const sl_value *v)
{
    char *text = sl_arena_strdup(arena, "");
    switch (v->param->type) {
    case SLUICE_TYPE_BOOL:
        return v->integer ? "true" : "false";
    case SLUICE_TYPE_INT:
        return sl_arena_printf(arena, "%lld", (long long)v->integer);
    case SLUICE_TYPE_DOUBLE:
        return sl_arena_printf(arena, "%.6g", v->number);
    case SLUICE_TYPE_DOUBLES:
    case SLUICE_TYPE_STRINGS:
    case SLUICE_TYPE_STAGES:
    case SLUICE_TYPE_MODELS:
    case SLUICE_TYPE_METRICS:
        for (size_t i = 0; text != NULL && i < v->count; i++)
            text = v->numbers != NULL ? sl_arena_printf(arena, "%s%s%.6g", text, i ? " " : "", v->numbers[i])
                                      : sl_arena_printf(arena, "%s%s%s", text, i ? " " : "", v->texts[i]);
        return text;
    default:
        return v->text != NULL ? v->text : "";
    }
}

static void add_object(sl_arena *arena, settings *s, const char *stage, const sl_object *o)
{
    for (size_t v = 0; v < o->value_count; v++)
        add(arena, s, sl_arena_printf(arena, "%s.%s", stage, o->values[v].param->name),
            value_text(arena, &o->values[v]));
}

static void flatten(const sl_plan *plan, sl_arena *arena, settings *s)
{
    for (size_t i = 0; i < plan->slot_count; i++)
        add(arena, s, sl_arena_printf(arena, "models.%s.path", plan->slots[i].name), plan->slots[i].path);
    for (size_t p = 0; p < plan->phase_count; p++) {
        const sl_phase *phase = &plan->phases[p];
        add(arena, s, sl_arena_printf(arena, "phases.%s.repeat", phase->name),
            sl_arena_printf(arena, "%lld", (long long)phase->repeat));
        for (size_t i = 0; i < phase->stage_count; i++) {
            const sl_stage *stage = &phase->stages[i];
            add(arena, s, sl_arena_printf(arena, "%s.use", stage->name), stage->id);
            add_object(arena, s, stage->name, &stage->object);
            for (size_t k = 0; k < stage->part_count; k++)
                if (stage->parts[k].type != NULL)
                    add_object(arena, s, stage->name, &stage->parts[k]);
        }
    }
}

static const char *find(const settings *s, const char *key)
{
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->items[i].key, key) == 0)
            return s->items[i].value;
    return NULL;
}

static bool same(const settings *a, const settings *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->items[i].key, b->items[i].key) != 0 || strcmp(a->items[i].value, b->items[i].value) != 0)
            return false;
    return true;
}

/* Does every variant have this key, with more than one value among them? */
static bool tells_apart(const settings *all, const size_t *first, size_t variants, const char *key)
{
    bool differs = false;
    for (size_t i = 0; i < variants; i++) {
        const char *value = find(&all[first[i]], key), *other = find(&all[first[0]], key);
        if (value == NULL || other == NULL)
            return false;
        differs = differs || strcmp(value, other) != 0;
    }
    return differs;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL && slash[1] != '\0' ? slash + 1 : path;
}

static const char *label_of(const settings *all, const size_t *first, size_t variants, size_t of, const rp_run *run,
                            sl_arena *arena)
{
    char *label = NULL;
    const settings *s = &all[first[of]];
    size_t shown = 0;
    if (variants == 1)
        return "all runs";
    for (size_t i = 0; i < s->count && shown < MOST_SHOWN; i++) {
        if (!tells_apart(all, first, variants, s->items[i].key))
            continue;
        label = sl_arena_printf(arena, "%s%s%s=%s", label != NULL ? label : "", label != NULL ? ", " : "",
                                s->items[i].key, last_part(s->items[i].value));
        shown++;
    }
    return label != NULL && strlen(label) <= MOST_LABEL ? label : last_part(run->folder);
}

rp_variant *rp_variants_of(rp_run *const *runs, size_t count, sl_arena *arena, size_t *variants)
{
    settings *all = sl_arena_alloc(arena, (count + 1) * sizeof *all);
    size_t *first = sl_arena_alloc(arena, (count + 1) * sizeof *first);
    rp_variant *found = sl_arena_alloc(arena, (count + 1) * sizeof *found);
    *variants = 0;
    if (all == NULL || first == NULL || found == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        size_t v = 0;
        if (runs[i]->plan != NULL)
            flatten(runs[i]->plan, arena, &all[i]);
        while (v < *variants && (runs[i]->plan == NULL || !same(&all[first[v]], &all[i])))
            v++;
        if (v == *variants) {
            first[(*variants)++] = i;
            found[v].runs = sl_arena_alloc(arena, count * sizeof *found[v].runs);
            if (found[v].runs == NULL)
                return NULL;
        }
        found[v].runs[found[v].count++] = runs[i];
    }
    for (size_t v = 0; v < *variants; v++)
        found[v].label = label_of(all, first, *variants, v, runs[first[v]], arena);
    return found;
}
