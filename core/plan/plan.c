/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/plan/build.h"
#include "core/base/file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_STAGES = 256, MOST_REPEATS = 10000 };

void *sl_build_alloc(sl_builder *b, size_t count, size_t size)
{
    void *memory = sl_arena_alloc(b->arena, count * size + 1);
    b->no_memory |= !memory;
    return memory;
}

const char *sl_build_hint(sl_builder *b, const sl_near *near)
{
    const char *text = near->best ? sl_arena_printf(b->arena, "; did you mean '%s'?", near->best) : "";
    return text ? text : "";
}

bool sl_build_name_fits(const char *name)
{
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
    return length > 0 && length < 64 && name[length] == '\0' && name[0] != '-';
}

/* Every member of a group must be one of these keys. */
static void check_keys(sl_builder *b, const sl_setting *group, const char *const *keys, const char *where)
{
    for (const sl_setting *s = group->first; s; s = s->next) {
        sl_near near = {.wanted = s->name};
        bool known = false;
        for (size_t i = 0; keys[i]; i++) {
            known |= strcmp(keys[i], s->name) == 0;
            sl_near_offer(&near, keys[i]);
        }
        if (!known)
            sl_mistake(b->mistakes, s, NULL, "'%s' is no setting of %s%s", s->name, where, sl_build_hint(b, &near));
    }
}

/* A model's folder of version 0. */
static void check_folder(sl_builder *b, const sl_slot *slot, const sl_setting *at)
{
    struct stat st;
    char *config = sl_arena_printf(b->arena, "%s/config.json", slot->path);
    char *weights = sl_arena_printf(b->arena, "%s/model.safetensors", slot->path);
    char *shards = sl_arena_printf(b->arena, "%s/model.safetensors.index.json", slot->path);
    if (!config || !weights || !shards)
        return;
    if (stat(slot->path, &st) < 0 || !S_ISDIR(st.st_mode))
        sl_mistake(b->mistakes, at, NULL, "model '%s': there is no folder '%s'; name a Hugging Face checkpoint folder",
                   slot->name, slot->path);
    else if (access(config, R_OK) < 0)
        sl_mistake(b->mistakes, at, NULL, "model '%s': '%s' has no config.json; name a Hugging Face checkpoint folder",
                   slot->name, slot->path);
    else if (!slot->random && access(weights, R_OK) < 0 && access(shards, R_OK) < 0)
        sl_mistake(
            b->mistakes, at, NULL,
            "model '%s': '%s' has no model.safetensors; name a folder as save_pretrained() writes it, or start with "
            "init = \"random\"",
            slot->name, slot->path);
}

/* One spelling of each type, for what a stage computes depends on it. */
static const char *read_dtype(sl_builder *b, const sl_slot *slot, const sl_setting *at, const char *text)
{
    static const char *const names[][2] = {
        {"float32", "float32"}, {"fp32", "float32"}, {"bfloat16", "bfloat16"}, {"bf16", "bfloat16"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i][0]) == 0)
            return names[i][1];
    sl_mistake(b->mistakes, at, NULL,
               "model '%s': nothing is computed in dtype '%s'; write \"float32\" or \"bf16\" (checkpoints stored in "
               "float32, bfloat16 and float16 are read)",
               slot->name, text);
    return "float32";
}

/* Its config.json names an architecture with a head; whether the head's weights are there the runtime says. */
static bool is_reward_model(sl_builder *b, const char *folder)
{
    sl_buffer text = {0};
    const char *path = sl_arena_printf(b->arena, "%s/config.json", folder);
    const bool found = path && sl_file_read(path, &text) == SLUICE_OK && text.data &&
                       strstr((const char *)text.data, "ForSequenceClassification");
    sl_buffer_free(&text);
    return found;
}

static void read_slot(sl_builder *b, sl_slot *slot, const sl_setting *group)
{
    static const char *const keys[] = {"path", "dtype", "init", "keep_versions", NULL};
    slot->name = group->name;
    slot->dtype = "float32";
    slot->line = group->line;
    if (group->kind != SL_GROUP) {
        sl_mistake(b->mistakes, group, NULL, "model '%s' is %s; write %s = { path = \"…\"; }", slot->name,
                   sl_setting_kind_name(group), slot->name);
        return;
    }
    check_keys(b, group, keys, "a model");
    const sl_setting *path = sl_setting_member(group, "path"), *dtype = sl_setting_member(group, "dtype");
    const sl_setting *init = sl_setting_member(group, "init"), *keep = sl_setting_member(group, "keep_versions");
    const char *text;
    if (dtype && sl_build_text(b, dtype, NULL, "dtype", &text))
        slot->dtype = read_dtype(b, slot, dtype, text);
    if (init && sl_build_text(b, init, NULL, "init", &text)) {
        slot->random = strcmp(text, "random") == 0;
        if (!slot->random)
            sl_mistake(b->mistakes, init, NULL, "model '%s': init can only be \"random\"; remove it to load weights",
                       slot->name);
    }
    if (keep)
        sl_build_integer(b, keep, NULL, "keep_versions", 0, INT32_MAX, &slot->keep_versions);
    if (!path) {
        sl_mistake(b->mistakes, group, NULL, "model '%s' has no path; add path = \"…\", its Hugging Face folder",
                   slot->name);
    } else if (sl_build_text(b, path, NULL, "path", &slot->path)) {
        slot->path = sl_build_path(b, path, slot->path, false);
        char *real = slot->path ? realpath(slot->path, NULL) : NULL;
        if (real)
            slot->path = sl_arena_strdup(b->arena, real);
        free(real);
        if (slot->path && b->resolve_files)
            check_folder(b, slot, path);
        slot->reward = slot->path && is_reward_model(b, slot->path);
    }
}

static void read_models(sl_builder *b)
{
    const sl_setting *models = sl_setting_member(b->root, "models");
    if (!models)
        return;
    if (models->kind != SL_GROUP) {
        sl_mistake(b->mistakes, models, NULL, "models is %s; write models = { policy = { path = \"…\"; }; }",
                   sl_setting_kind_name(models));
        return;
    }
    b->plan->slots = sl_build_alloc(b, models->count, sizeof(sl_slot));
    for (const sl_setting *s = models->first; b->plan->slots && s; s = s->next) {
        if (!sl_build_name_fits(s->name))
            sl_mistake(b->mistakes, s, NULL, "'%s' cannot name a model; use letters, digits, - and _, 63 at most",
                       s->name);
        read_slot(b, &b->plan->slots[b->plan->slot_count++], s);
    }
}

/* A name used twice: the second is told where the first stands. */
static void check_stage_name(sl_builder *b, const sl_stage *stage)
{
    for (size_t i = 0; i <= stage->phase->index; i++) {
        const sl_phase *phase = &b->plan->phases[i];
        for (size_t j = 0; j < phase->stage_count && &phase->stages[j] != stage; j++)
            if (*stage->name && strcmp(phase->stages[j].name, stage->name) == 0)
                sl_mistake(b->mistakes, stage->at, NULL,
                           "a stage is called '%s' already, in line %d; names are unique in a file", stage->name,
                           phase->stages[j].line);
    }
}

/* Reads the stages of a phase; false when one of them has no class, so that edges cannot be followed. */
static bool read_stages(sl_builder *b, sl_phase *phase, const sl_setting *group)
{
    sl_setting *stages = sl_setting_member(group, "stages");
    bool fits = true;
    if (!stages || (stages->kind != SL_LIST && stages->kind != SL_GROUP) || stages->count == 0) {
        sl_mistake(b->mistakes, stages ? stages : group, NULL,
                   "phase '%s' has no stages; write stages = ( { … }, { … } )", phase->name);
        return false;
    }
    size_t count = stages->kind == SL_LIST ? stages->count : 1;
    if (count > MOST_STAGES) {
        sl_mistake(b->mistakes, stages, NULL, "phase '%s' has %zu stages; %d is the most", phase->name, count,
                   MOST_STAGES);
        return false;
    }
    phase->stages = sl_build_alloc(b, count, sizeof *phase->stages);
    for (const sl_setting *s = sl_setting_first_group(stages); phase->stages && s && phase->stage_count < count;
         s = s->next) {
        if (s->kind != SL_GROUP) {
            sl_mistake(b->mistakes, s, NULL, "a stage is %s; write { name = \"…\"; use = \"…\"; }",
                       sl_setting_kind_name(s));
            fits = false;
            continue;
        }
        sl_stage *stage = &phase->stages[phase->stage_count];
        stage->phase = phase;
        stage->index = phase->stage_count++;
        fits &= sl_build_stage(b, stage, s);
        check_stage_name(b, stage);
    }
    return fits && phase->stages;
}

static bool read_phase(sl_builder *b, sl_phase *phase, const sl_setting *group)
{
    static const char *const keys[] = {"name", "repeat", "stages", "steps", NULL};
    const sl_setting *name = sl_setting_member(group, "name"), *repeat = sl_setting_member(group, "repeat");
    const sl_setting *steps = sl_setting_member(group, "steps");
    phase->repeat = 1;
    phase->line = group->line;
    phase->name = "main";
    check_keys(b, group, keys, "a phase");
    if (name && sl_build_text(b, name, NULL, "name", &phase->name) && !sl_build_name_fits(phase->name))
        sl_mistake(b->mistakes, name, NULL, "'%s' cannot name a phase; use letters, digits, - and _, 63 at most",
                   phase->name);
    for (size_t i = 0; i < phase->index; i++)
        if (strcmp(b->plan->phases[i].name, phase->name) == 0)
            sl_mistake(b->mistakes, name ? name : group, NULL,
                       "a phase is called '%s' already, in line %d; give each a name", phase->name,
                       b->plan->phases[i].line);
    if (repeat)
        sl_build_integer(b, repeat, NULL, "repeat", 1, MOST_REPEATS, &phase->repeat);
    if (steps)
        sl_mistake(b->mistakes, steps, NULL,
                   "phase '%s': steps makes a phase of online training, which this version does not have; write repeat",
                   phase->name);
    return read_stages(b, phase, group);
}

static void read_phases(sl_builder *b)
{
    sl_setting *phases = sl_setting_member(b->root, "phases");
    if (!phases || (phases->kind != SL_LIST && phases->kind != SL_GROUP) || phases->count == 0) {
        sl_mistake(b->mistakes, phases, NULL,
                   "there are no phases; write phases = ( { name = \"…\"; stages = ( … ); } )");
        return;
    }
    size_t count = phases->kind == SL_LIST ? phases->count : 1;
    b->plan->phases = sl_build_alloc(b, count, sizeof(sl_phase));
    int64_t *newest = sl_build_alloc(b, b->plan->slot_count, sizeof *newest);
    bool counting = true; /* versions can be counted as long as all phases before are right */
    const sl_setting *group = sl_setting_first_group(phases);
    for (size_t i = 0; b->plan->phases && newest && i < count; i++, group = group->next) {
        if (group->kind != SL_GROUP) {
            sl_mistake(b->mistakes, group, NULL, "a phase is %s; write { name = \"…\"; stages = ( … ); }",
                       sl_setting_kind_name(group));
            counting = false;
            continue;
        }
        sl_phase *phase = &b->plan->phases[b->plan->phase_count];
        phase->index = b->plan->phase_count++;
        counting &= read_phase(b, phase, group);
        /* Names that lead nowhere are said beside all other mistakes; what follows needs all of them right. */
        counting &= sl_build_edges(b, phase);
        if (counting)
            sl_build_in_memory(b, phase);
        counting &= sl_build_references(b, phase);
        bool *before = sl_build_alloc(b, phase->stage_count * phase->stage_count, sizeof *before);
        if (counting && before && (counting = sl_build_graph(b, phase, before)))
            sl_build_versions(b, phase, before, newest);
        if (counting)
            sl_build_measures(b, phase);
    }
    for (size_t i = 0; newest && i < b->plan->slot_count; i++)
        b->plan->slots[i].last = newest[i];
}

static void read_runtime(sl_builder *b)
{
    const sl_setting *runtime = sl_setting_member(b->root, "runtime");
    b->plan->runtime = sl_build_alloc(b, sl_registry_count(b->registry), sizeof(sl_object));
    if (runtime && runtime->kind != SL_GROUP) {
        sl_mistake(b->mistakes, runtime, NULL, "runtime is %s; write runtime = { threads = 2; }",
                   sl_setting_kind_name(runtime));
        runtime = NULL;
    }
    for (size_t i = 0; b->plan->runtime && i < sl_registry_count(b->registry); i++)
        if (sl_registry_at(b->registry, i)->type->kind == SLUICE_SERVICE)
            sl_build_object(b, sl_registry_at(b->registry, i), runtime, NULL,
                            &b->plan->runtime[b->plan->runtime_count++]);
    for (const sl_setting *s = runtime ? runtime->first : NULL; s; s = s->next) {
        sl_near near = {.wanted = s->name};
        bool known = false;
        for (size_t i = 0; i < b->plan->runtime_count; i++)
            for (size_t j = 0; j < b->plan->runtime[i].value_count; j++) {
                known |= strcmp(b->plan->runtime[i].values[j].param->name, s->name) == 0;
                sl_near_offer(&near, b->plan->runtime[i].values[j].param->name);
            }
        if (!known)
            sl_mistake(b->mistakes, s, NULL, "no service has the setting '%s'%s", s->name, sl_build_hint(b, &near));
    }
}

static void read_header(sl_builder *b)
{
    static const char *const keys[] = {"sluice",   "name",  "seed",    "out",     "models", "phases", "runtime",
                                       "ablation", "seeds", "variant", "metrics", "store",  NULL};
    const sl_setting *version = sl_setting_member(b->root, "sluice"), *name = sl_setting_member(b->root, "name");
    const sl_setting *seed = sl_setting_member(b->root, "seed"), *out = sl_setting_member(b->root, "out");
    const sl_setting *store = sl_setting_member(b->root, "store");
    int64_t number = 0;
    check_keys(b, b->root, keys, "a pipeline file");
    if (!version)
        sl_mistake(b->mistakes, NULL, NULL, "the version of the language is missing; begin with sluice = 1;");
    else if (version->kind != SL_INTEGER || version->integer != 1)
        sl_mistake(b->mistakes, version, NULL, "this sluice reads version 1 of the language only; write sluice = 1;");
    if (!name)
        sl_mistake(b->mistakes, NULL, NULL, "the pipeline has no name; add name = \"…\";");
    else if (sl_build_text(b, name, NULL, "name", &b->plan->name) && !sl_build_name_fits(b->plan->name))
        sl_mistake(b->mistakes, name, NULL,
                   "'%s' cannot name a pipeline; use letters, digits, - and _, 63 at most (a folder is named by it)",
                   b->plan->name);
    if (seed && sl_build_integer(b, seed, NULL, "seed", 0, INT64_MAX, &number))
        b->plan->seed = (uint64_t)number;
    if (out)
        sl_build_text(b, out, NULL, "out", &b->plan->out);
    if (store)
        sl_build_text(b, store, NULL, "store", &b->plan->store);
}

static void build(sl_builder *b)
{
    read_header(b);
    read_models(b);
    read_runtime(b);
    sl_build_sinks(b);
    read_phases(b);
    sl_build_files(b);
    if (b->no_memory)
        sl_mistake(b->mistakes, NULL, NULL, "out of memory");
}

static void read_seeds(sl_builder *b)
{
    const sl_setting *seeds = sl_setting_member(b->root, "seeds");
    int64_t number = 0;
    if (seeds && (seeds->kind != SL_LIST || seeds->count == 0)) {
        sl_mistake(b->mistakes, seeds, NULL, "seeds is %s; write a list of integers: seeds = [1, 2, 3]",
                   seeds->kind == SL_LIST ? "empty" : sl_setting_kind_name(seeds));
        return;
    }
    b->plan->seeds = sl_build_alloc(b, seeds ? seeds->count : 0, sizeof *b->plan->seeds);
    for (const sl_setting *s = seeds && b->plan->seeds ? seeds->first : NULL; s; s = s->next)
        if (sl_build_integer(b, s, NULL, "seeds", 0, INT64_MAX, &number))
            b->plan->seeds[b->plan->seed_count++] = (uint64_t)number;
}

/* Puts a variant's settings over a copy of the tree; NULL after a mistake. */
static const sl_setting *apply_variant(sl_builder *b, const sl_setting *variant)
{
    sl_setting *root = sl_setting_copy(b->root, b->arena);
    size_t before = sl_mistakes_count(b->mistakes);
    if (variant->kind != SL_GROUP)
        sl_mistake(b->mistakes, variant, NULL, "variant '%s' is %s; write %s = { stage = { param = value; }; }",
                   variant->name, sl_setting_kind_name(variant), variant->name);
    for (const sl_setting *s = root && variant->kind == SL_GROUP ? variant->first : NULL; s; s = s->next) {
        sl_setting *stage = sl_setting_stage(root, s->name);
        if (!stage || s->kind != SL_GROUP) {
            const sl_near near = {.best = stage ? NULL : sl_setting_near_stage(root, s->name)};
            sl_mistake(b->mistakes, s, NULL, "variant '%s': '%s' is %s%s", variant->name, s->name,
                       stage ? sl_setting_kind_name(s) : "no stage",
                       near.best ? sl_build_hint(b, &near) : "; write STAGE = { param = value; }");
            continue;
        }
        for (const sl_setting *p = s->first; p; p = p->next) {
            sl_setting *member = sl_setting_copy(p, b->arena);
            if (member) {
                member->level = 2;
                sl_setting_put(stage, member);
            }
        }
    }
    return sl_mistakes_count(b->mistakes) == before ? root : NULL;
}

static const sl_setting *read_ablation(sl_builder *b)
{
    const sl_setting *ablation = sl_setting_member(b->root, "ablation");
    if (ablation && ablation->kind != SL_GROUP) {
        sl_mistake(b->mistakes, ablation, NULL,
                   "ablation is %s; write ablation = { VARIANT = { STAGE = { param = value; }; }; }",
                   sl_setting_kind_name(ablation));
        return NULL;
    }
    b->plan->variants = sl_build_alloc(b, ablation ? ablation->count : 0, sizeof *b->plan->variants);
    for (const sl_setting *s = ablation && b->plan->variants ? ablation->first : NULL; s; s = s->next)
        b->plan->variants[b->plan->variant_count++] = s->name;
    return ablation;
}

/* `variant = NAME` makes the plan that of the variant. */
static void choose_variant(sl_builder *b, const sl_setting *ablation)
{
    const sl_setting *chosen = sl_setting_member(b->root, "variant"), *variant = NULL;
    sl_near near = {0};
    if (!chosen || !sl_build_text(b, chosen, NULL, "variant", &b->plan->variant))
        return;
    near.wanted = b->plan->variant;
    for (const sl_setting *s = ablation ? ablation->first : NULL; s && !variant; s = s->next) {
        if (strcmp(s->name, near.wanted) == 0)
            variant = s;
        sl_near_offer(&near, s->name);
    }
    if (!variant) {
        sl_mistake(b->mistakes, chosen, NULL, "the file's ablation has no variant '%s'%s", near.wanted,
                   sl_build_hint(b, &near));
        return;
    }
    const sl_setting *root = apply_variant(b, variant);
    if (root)
        b->root = root;
}

/* Every variant of the ablation must be a right plan as well: it is built, and thrown away. */
static void check_variants(sl_builder *b, const sl_setting *ablation)
{
    for (const sl_setting *s = ablation ? ablation->first : NULL; s; s = s->next) {
        sl_plan plan = {.file = b->plan->file, .arena = b->arena};
        sl_builder variant = *b;
        variant.plan = &plan;
        variant.root = apply_variant(b, s);
        if (!variant.root)
            continue;
        sl_mistakes_variant(b->mistakes, s->name);
        build(&variant);
        sl_mistakes_variant(b->mistakes, NULL);
    }
}

static const char *folder_of(sl_arena *arena, const char *file)
{
    const char *slash = strrchr(file, '/');
    char *here = realpath(slash ? sl_arena_printf(arena, "%.*s/", (int)(slash - file), file) : ".", NULL);
    const char *folder = here ? sl_arena_strdup(arena, here) : ".";
    free(here);
    return folder;
}

sl_plan *sl_plan_read(const char *file, const char *const *overrides, size_t count, sl_registry *registry, FILE *out,
                      bool resolve_files, size_t *mistakes)
{
    sl_arena *arena = sl_arena_new();
    sl_plan *plan = arena ? sl_arena_alloc(arena, sizeof *plan) : NULL;
    sl_mistakes *found = plan ? sl_mistakes_new(file, arena) : NULL;
    *mistakes = 1;
    if (!found) {
        fprintf(out, "%s: out of memory\n", file);
        sl_arena_free(arena);
        return NULL;
    }
    plan->arena = arena;
    plan->file = sl_arena_strdup(arena, file);
    sl_setting *root = sl_settings_read(file, arena, found);
    if (root) {
        sl_builder b = {plan, arena, registry, found, root, folder_of(arena, file), resolve_files, false};
        for (size_t i = 0; i < count; i++) {
            const char *text = sl_arena_strdup(arena, overrides[i]);
            if (text)
                sl_override(root, text, arena, found);
        }
        const sl_setting *ablation = read_ablation(&b);
        choose_variant(&b, ablation);
        build(&b);
        read_seeds(&b);
        if (sl_mistakes_count(found) == 0 && !plan->variant)
            check_variants(&b, ablation);
    }
    *mistakes = sl_mistakes_count(found);
    sl_mistakes_print(found, out);
    sl_mistakes_free(found);
    if (*mistakes > 0) {
        sl_plan_free(plan);
        return NULL;
    }
    return plan;
}

void sl_plan_free(sl_plan *plan)
{
    if (plan)
        sl_arena_free(plan->arena);
}
