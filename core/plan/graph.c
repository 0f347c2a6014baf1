/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The edges of a phase: who reads whom, in what order, and whether each finds the record fields it reads. */
#include "core/plan/build.h"
#include "core/registry/describe.h"

#include <string.h>

static sl_stage *stage_called(const sl_phase *phase, const char *name)
{
    for (size_t i = 0; i < phase->stage_count; i++)
        if (strcmp(phase->stages[i].name, name) == 0)
            return &phase->stages[i];
    return NULL;
}

/* The names of stages that a parameter gives: one, or as many as its list has. */
static size_t named_count(const sl_value *v)
{
    if (v->param->type == SLUICE_TYPE_STAGES)
        return v->count;
    return v->param->type == SLUICE_TYPE_STAGE && v->text ? 1 : 0;
}

static const char *named_text(const sl_value *v, size_t i)
{
    return v->param->type == SLUICE_TYPE_STAGES ? v->texts[i] : v->text;
}

/* The stage that a parameter names; "judge/name" is one of the scores that `judge` gives. */
static sl_stage *stage_named(const sl_phase *phase, const char *name)
{
    size_t length = strcspn(name, "/");
    for (size_t i = 0; i < phase->stage_count; i++)
        if (strncmp(phase->stages[i].name, name, length) == 0 && phase->stages[i].name[length] == '\0')
            return &phase->stages[i];
    return NULL;
}

/* Says that there is no such stage here, with the reason that is the likeliest. */
static void no_stage(sl_builder *b, const sl_phase *phase, const sl_stage *stage, const char *what, const char *name,
                     const sl_setting *at)
{
    if (sl_setting_stage(b->root, name)) {
        sl_mistake(b->mistakes, at, stage->name,
                   "%s names '%s', which belongs to another phase; records flow within a phase only", what, name);
        return;
    }
    sl_near near = {.wanted = name};
    for (size_t i = 0; i < phase->stage_count; i++)
        if (&phase->stages[i] != stage)
            sl_near_offer(&near, phase->stages[i].name);
    sl_mistake(b->mistakes, at, stage->name, "%s names '%s', but phase '%s' has no such stage%s", what, name,
               phase->name, sl_build_hint(b, &near));
}

/* The stages named by `from` or `after`: a string or a list of strings. */
static bool read_edges(sl_builder *b, sl_phase *phase, sl_stage *stage, const char *key, sl_stage ***out, size_t *count)
{
    const sl_setting *s = sl_setting_member(stage->at, key);
    const sl_setting *item = s && s->kind == SL_LIST ? s->first : s;
    size_t most = !s ? 0 : s->kind == SL_LIST ? s->count : 1;
    bool fits = true;
    *out = sl_build_alloc(b, most, sizeof **out);
    for (size_t i = 0; *out && i < most; i++, item = item->next) {
        const char *name;
        if (!sl_build_text(b, item, stage->name, key, &name)) {
            fits = false;
            continue;
        }
        sl_stage *other = stage_called(phase, name);
        if (!other) {
            no_stage(b, phase, stage, key, name, item->line || item->set ? item : s);
            fits = false;
        } else {
            (*out)[(*count)++] = other;
        }
    }
    return fits && *out;
}

static bool check_input(sl_builder *b, const sl_phase *phase, const sl_stage *stage)
{
    const sl_setting *from = sl_setting_member(stage->at, "from");
    const sluice_class *type = stage->object.type->type;
    if (type->kind == SLUICE_SOURCE && from) {
        sl_mistake(b->mistakes, from, stage->name, "a source makes its records itself; remove from");
        return false;
    }
    if (stage->from_count > 1) {
        sl_mistake(b->mistakes, from, stage->name, "from names %zu stages; only one can be read in this version",
                   stage->from_count);
        return false;
    }
    for (size_t i = 0; i < stage->from_count; i++)
        if (stage->from[i]->object.type->type->traits & SLUICE_NO_OUTPUT) {
            const sl_stage *end = stage->from[i];
            sl_mistake(b->mistakes, from, stage->name, "'%s' (%s) sends no records on; %s%s%s", end->name, end->id,
                       end->from_count ? "read '" : "write after instead of from",
                       end->from_count ? end->from[0]->name : "",
                       end->from_count ? "', or write after instead of from" : "");
            return false;
        }
    if (stage->from_count == 0 && !from && !sl_stage_input_optional(stage)) {
        sl_mistake(b->mistakes, stage->at, stage->name, "'%s' reads records, and has no from; add from = \"%s\"",
                   stage->id, stage->index > 0 ? phase->stages[stage->index - 1].name : "…");
        return false;
    }
    return true;
}

/* Depth-first; state: 0 new, 1 on the path, 2 done. Fills a row of both closures. */
typedef struct walk {
    sl_builder *b;
    sl_phase *phase;
    bool *before; /* by from and after */
    bool *feeds;  /* by from alone */
    unsigned char *state;
    sl_stage **path;
    size_t depth;
} walk;

static void add_row(const walk *w, bool *rows, const sl_stage *stage, const sl_stage *other)
{
    size_t n = w->phase->stage_count;
    bool *to = rows + stage->index * n, *from = rows + other->index * n;
    to[other->index] = true;
    for (size_t i = 0; i < n; i++)
        to[i] |= from[i];
}

static void say_cycle(const walk *w, const sl_stage *back)
{
    char text[512] = "";
    size_t i = w->depth;
    while (i > 0 && w->path[i - 1] != back)
        i--;
    for (i = i ? i - 1 : 0; i < w->depth; i++) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "'%s' ← ", w->path[i]->name);
    }
    size_t used = strlen(text);
    snprintf(text + used, sizeof text - used, "'%s'", back->name);
    sl_mistake(w->b->mistakes, back->at, back->name, "waits for itself: %s; cut one from or after", text);
}

static bool visit(walk *w, sl_stage *stage)
{
    w->state[stage->index] = 1;
    w->path[w->depth++] = stage;
    bool fits = true;
    for (size_t i = 0; i < stage->from_count + stage->after_count && fits; i++) {
        bool from = i < stage->from_count;
        sl_stage *other = from ? stage->from[i] : stage->after[i - stage->from_count];
        if (w->state[other->index] == 1) {
            say_cycle(w, other);
            fits = false;
        } else if (w->state[other->index] == 0) {
            fits = visit(w, other);
        }
        if (!fits)
            break;
        add_row(w, w->before, stage, other);
        if (from)
            add_row(w, w->feeds, stage, other);
    }
    w->depth--;
    w->state[stage->index] = 2;
    return fits;
}

/* "ranker (a ranker), …": classes that add a field to the records they read. */
static void name_adders(const sl_builder *b, uint32_t field, char *text, size_t size)
{
    size_t found = 0;
    text[0] = '\0';
    for (size_t i = 0; i < sl_registry_count(b->registry) && found < 3; i++) {
        const sluice_class *type = sl_registry_at(b->registry, i)->type;
        if (!(type->adds & field) || (type->reads & field) || type->kind == SLUICE_SOURCE ||
            type->kind == SLUICE_KIND_LOSS)
            continue;
        size_t used = strlen(text);
        snprintf(text + used, size - used, "%s'%s' (a %s)", found ? " or " : "", type->id, sl_kind_name(type->kind));
        found++;
    }
    if (found == 0)
        snprintf(text, size, "a source that has them");
}

static void check_fields(sl_builder *b, const sl_phase *phase, const sl_stage *stage, const bool *feeds)
{
    if (stage->from_count == 0)
        return;
    uint32_t there = 0;
    for (size_t i = 0; i < phase->stage_count; i++)
        if (feeds[stage->index * phase->stage_count + i])
            there |= sl_stage_adds(&phase->stages[i]);
    uint32_t missing = sl_stage_reads(stage) & ~there;
    /* Every record has a prompt, free fields and, once paired, p and weight. */
    missing &= ~(uint32_t)(SLUICE_FIELD_META | SLUICE_FIELD_PROMPT);
    if (there & SLUICE_FIELD_PAIRS)
        missing &= ~(uint32_t)SLUICE_FIELD_TRUST;
    if (!missing)
        return;
    char adders[256];
    name_adders(b, missing & (~missing + 1), adders, sizeof adders);
    sl_mistake(b->mistakes, stage->at, stage->name, "%s '%s' reads %s, which no stage before it adds; put %s before it",
               sl_kind_name(stage->object.type->type->kind), stage->id, sl_field_name(missing), adders);
}

static void check_named(sl_builder *b, const sl_phase *phase, const sl_stage *stage, const sl_value *v,
                        const char *name, const bool *feeds, const bool *before)
{
    const sl_stage *other = stage_named(phase, name);
    const sl_setting *at = v->at ? v->at : stage->at;
    size_t n = phase->stage_count;
    bool scores = sl_stage_reads(stage) & SLUICE_FIELD_SCORES;
    if (!other)
        return;
    if (!(scores ? feeds : before)[stage->index * n + other->index]) {
        sl_mistake(b->mistakes, at, stage->name, "%s names '%s', which does not come before it; %s", v->param->name,
                   name, scores ? "let its records pass through that stage (from)" : "order them by from or after");
    } else if (scores && !(sl_stage_adds(other) & SLUICE_FIELD_SCORES)) {
        sl_mistake(b->mistakes, at, stage->name, "%s names '%s' (%s), which gives no scores; name a judge",
                   v->param->name, name, sl_kind_name(other->object.type->type->kind));
    }
}

/* Whether the stages that a stage's parameters name are there. */
static bool check_names(sl_builder *b, const sl_phase *phase, const sl_stage *stage)
{
    bool fits = true;
    for (size_t i = 0; i < stage->object.value_count; i++) {
        const sl_value *v = &stage->object.values[i];
        for (size_t j = 0; j < named_count(v); j++) {
            if (stage_named(phase, named_text(v, j)))
                continue;
            no_stage(b, phase, stage, v->param->name, named_text(v, j), v->at ? v->at : stage->at);
            fits = false;
        }
    }
    return fits;
}

bool sl_build_edges(sl_builder *b, sl_phase *phase)
{
    bool fits = true;
    for (size_t i = 0; i < phase->stage_count; i++) {
        sl_stage *stage = &phase->stages[i];
        fits &= read_edges(b, phase, stage, "from", &stage->from, &stage->from_count);
        fits &= read_edges(b, phase, stage, "after", &stage->after, &stage->after_count);
        fits &= check_names(b, phase, stage);
    }
    return fits;
}

bool sl_build_graph(sl_builder *b, sl_phase *phase, bool *before)
{
    size_t n = phase->stage_count;
    bool fits = true;
    bool *feeds = sl_build_alloc(b, n * n, sizeof *feeds);
    unsigned char *state = sl_build_alloc(b, n, 1);
    sl_stage **path = sl_build_alloc(b, n, sizeof *path);
    if (!feeds || !state || !path)
        return false;
    for (size_t i = 0; i < n; i++)
        fits &= check_input(b, phase, &phase->stages[i]);
    walk w = {b, phase, before, feeds, state, path, 0};
    for (size_t i = 0; i < n; i++)
        if (state[i] == 0 && !visit(&w, &phase->stages[i]))
            return false;
    if (!fits)
        return false; /* what follows would only repeat it */
    for (size_t i = 0; i < n; i++) {
        const sl_stage *stage = &phase->stages[i];
        check_fields(b, phase, stage, feeds);
        for (size_t j = 0; j < stage->object.value_count; j++) {
            const sl_value *v = &stage->object.values[j];
            for (size_t k = 0; k < named_count(v); k++)
                check_named(b, phase, stage, v, named_text(v, k), feeds, before);
        }
    }
    return true;
}
