/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/test-plugin/subject.h"

#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/registry/validate.h"
#include "tools/test-plugin/model.h"
#include "tools/test-plugin/samples.h"

/* ---- loading */

bool tp_subject_open(tp_subject *s, const char *file, char *why, size_t size)
{
    sl_why reason;
    s->file = file;
    s->arena = sl_arena_new();
    s->handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (s->handle == NULL || s->arena == NULL) {
        snprintf(why, size, "cannot be loaded: %s", s->handle == NULL ? dlerror() : "out of memory");
        return false;
    }
    s->plugin = dlsym(s->handle, SLUICE_ENTRY);
    if (s->plugin == NULL) {
        snprintf(why, size, "exports no %s: end its source with SLUICE_PLUGIN(…) and rebuild", SLUICE_ENTRY);
        return false;
    }
    if (!sl_stamp_fits(s->plugin, &reason)) {
        snprintf(why, size, "%s", reason.text);
        return false;
    }
    for (; s->plugin->classes[s->class_count] != NULL; s->class_count++) {
        if (s->class_count == TP_MOST_CLASSES) {
            snprintf(why, size, "it has more than %d classes, or their table does not end", TP_MOST_CLASSES);
            return false;
        }
        s->classes[s->class_count] =
            sl_class_adopt(s->plugin->classes[s->class_count], &s->plugin->stamp, s->arena, &reason);
        if (s->classes[s->class_count] == NULL) {
            snprintf(why, size, "%s", reason.text);
            return false;
        }
    }
    if (s->class_count == 0)
        snprintf(why, size, "it has no classes: name them in SLUICE_PLUGIN and rebuild");
    return s->class_count > 0;
}

void tp_subject_close(tp_subject *s)
{
    sl_registry_close(s->registry);
    sl_arena_free(s->arena);
    if (s->handle != NULL)
        dlclose(s->handle);
}

/* ---- values */

static const char *const two_judges[] = {TP_JUDGE_A, TP_JUDGE_B};
static const char *const some_words[] = {"one", "two"};

/* A number within a parameter's bounds, for one that has no default. */
static double inside(const sluice_param *p)
{
    const double low = fmax(p->min, p->above), high = fmin(p->max, p->below);
    const bool whole = p->type == SLUICE_TYPE_INT;
    if (low < 1 && high > 1)
        return 1;
    if (isfinite(low) && isfinite(high))
        return whole ? ceil(low) + (ceil(low) == p->above) : (low + high) / 2;
    return isfinite(low) ? low + (p->above == low) : high - (p->below == high);
}

static void set_default(const tp_subject *s, tp_value *v)
{
    static const double ones[] = {1, 1};
    const sluice_param *p = v->param;
    v->number = p->required && (p->type == SLUICE_TYPE_INT || p->type == SLUICE_TYPE_DOUBLE) ? inside(p) : p->value;
    v->integer = isfinite(v->number) ? (int64_t)v->number : 0;
    v->text = p->text;
    v->set = p->required;
    if (!p->required)
        return;
    switch (p->type) {
    case SLUICE_TYPE_STRING:
        v->text = v->text != NULL ? v->text : "text";
        break;
    case SLUICE_TYPE_STAGE:
        v->text = v > s->values && v[-1].text == two_judges[0] ? two_judges[1] : two_judges[0];
        break;
    case SLUICE_TYPE_FILE:
        v->text = s->type->kind == SLUICE_SINK ? TP_OUTPUT "/file" : TP_INPUT;
        break;
    case SLUICE_TYPE_STAGES:
        v->texts = two_judges;
        v->count = 2;
        break;
    case SLUICE_TYPE_STRINGS:
        v->texts = some_words;
        v->count = 2;
        break;
    case SLUICE_TYPE_DOUBLES:
        v->numbers = ones;
        v->count = 2;
        break;
    case SLUICE_TYPE_MODELS:
        v->count = 2;
        break;
    default:
        break;
    }
}

/* "a,b" as a list. */
static bool read_list(tp_subject *s, tp_value *v, const char *text)
{
    char *copy = sl_arena_strdup(s->arena, text);
    const char **texts = sl_arena_alloc(s->arena, (strlen(text) + 2) * sizeof *texts);
    double *numbers = sl_arena_alloc(s->arena, (strlen(text) + 2) * sizeof *numbers);
    if (copy == NULL || texts == NULL || numbers == NULL)
        return false;
    v->count = 0;
    for (char *word = strtok(copy, ","); word != NULL; word = strtok(NULL, ",")) {
        char *end;
        texts[v->count] = word;
        numbers[v->count++] = strtod(word, &end);
        if (v->param->type == SLUICE_TYPE_DOUBLES && (end == word || *end != '\0'))
            return false;
    }
    v->texts = texts;
    v->numbers = numbers;
    return true;
}

static bool read_value(tp_subject *s, tp_value *v, const char *text)
{
    const sluice_param *p = v->param;
    char *end;
    switch (p->type) {
    case SLUICE_TYPE_BOOL:
        v->number = strcmp(text, "true") == 0;
        return v->number != 0 || strcmp(text, "false") == 0;
    case SLUICE_TYPE_INT:
    case SLUICE_TYPE_DOUBLE:
        v->number = strtod(text, &end);
        v->integer = (int64_t)v->number;
        return end != text && *end == '\0' && isfinite(v->number) && v->number >= p->min && v->number <= p->max &&
               v->number > p->above && v->number < p->below;
    case SLUICE_TYPE_CHOICE:
        for (v->number = 0; p->choices[(int)v->number] != NULL; v->number++)
            if (strcmp(p->choices[(int)v->number], text) == 0)
                return true;
        return false;
    case SLUICE_TYPE_DOUBLES:
    case SLUICE_TYPE_STRINGS:
    case SLUICE_TYPE_STAGES:
        return read_list(s, v, text);
    case SLUICE_TYPE_MODEL:
    case SLUICE_TYPE_SLOT:
    case SLUICE_TYPE_MODELS:
    case SLUICE_TYPE_METRICS:
        return false; /* the suite has models of its own */
    default:
        v->text = text;
        return true;
    }
}

/* "name=value" or "class.name=value"; those of other classes are passed over. */
static bool apply(tp_subject *s, const char *setting, char *why, size_t size)
{
    const char *equals = strchr(setting, '=');
    const size_t id = strlen(s->type->id);
    if (equals != NULL && strncmp(setting, s->type->id, id) == 0 && setting[id] == '.')
        setting += id + 1;
    for (size_t i = 0; equals != NULL && i < s->value_count; i++) {
        const char *name = s->values[i].param->name;
        if (strlen(name) != (size_t)(equals - setting) || memcmp(name, setting, strlen(name)) != 0)
            continue;
        if (read_value(s, &s->values[i], equals + 1))
            return true;
        snprintf(why, size, "--set %s: not a value that '%s' can have", setting, name);
        return false;
    }
    return true;
}

bool tp_subject_choose(tp_subject *s, const char *id, char *why, size_t size)
{
    s->type = NULL;
    for (size_t i = 0; i < s->class_count; i++)
        if (strcmp(s->classes[i]->id, id) == 0)
            s->type = s->classes[i];
    if (s->type == NULL || sl_class_params(s->type) > TP_MOST_PARAMS) {
        snprintf(why, size, s->type == NULL ? "it has no class '%s'" : "class '%s' has too many parameters", id);
        return false;
    }
    s->value_count = sl_class_params(s->type);
    for (size_t i = 0; i < s->value_count; i++) {
        s->values[i] = (tp_value){.param = sl_class_param(s->type, i)};
        set_default(s, &s->values[i]);
    }
    for (size_t i = 0; i < s->setting_count; i++)
        if (!apply(s, s->settings[i], why, size))
            return false;
    return tp_subject_find_part(s, why, size);
}

bool tp_subject_find_part(tp_subject *s, char *why, size_t size)
{
    const tp_value *v = NULL;
    for (size_t i = 0; i < s->value_count; i++)
        if (s->values[i].param->type == SLUICE_TYPE_CLASS)
            v = &s->values[i];
    s->part = NULL;
    if (v == NULL || (v->text == NULL && !v->param->required))
        return true;
    for (size_t i = 0; i < s->class_count; i++)
        if (s->classes[i]->kind == v->param->kind && (v->text == NULL || strcmp(s->classes[i]->id, v->text) == 0))
            s->part = s->classes[i];
    if (s->part == NULL && s->registry == NULL)
        s->registry = sl_registry_open();
    for (size_t i = 0; s->part == NULL && s->registry != NULL && i < sl_registry_count(s->registry); i++) {
        const sluice_class *type = sl_registry_at(s->registry, i)->type;
        if (type->kind == v->param->kind && (v->text == NULL || strcmp(type->id, v->text) == 0))
            s->part = type;
    }
    if (s->part == NULL)
        snprintf(why, size, "needs a class of kind %s%s%s for '%s', and none is installed: --set %s=ID",
                 sl_kind_name(v->param->kind), v->text != NULL ? ", " : "", v->text != NULL ? v->text : "",
                 v->param->name, v->param->name);
    return s->part != NULL;
}

const char *tp_subject_text(const tp_subject *s, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < s->value_count && used < size; i++) {
        const tp_value *v = &s->values[i];
        const bool number = v->param->type <= SLUICE_TYPE_DOUBLE;
        const char *between = used > 0 ? ", " : "";
        if ((number || v->param->type == SLUICE_TYPE_CHOICE) && v->number == v->param->value)
            continue;
        if (number)
            used += (size_t)snprintf(text + used, size - used, "%s%s = %.17g", between, v->param->name, v->number);
        else if (v->param->type == SLUICE_TYPE_CHOICE)
            used += (size_t)snprintf(text + used, size - used, "%s%s = \"%s\"", between, v->param->name,
                                     v->param->choices[(int)v->number]);
        else if (v->text != NULL && (v->param->text == NULL || strcmp(v->text, v->param->text) != 0))
            used += (size_t)snprintf(text + used, size - used, "%s%s = \"%.40s\"", between, v->param->name, v->text);
    }
    if (used == 0)
        snprintf(text, size, "every parameter at its default");
    return text;
}

/* ---- objects */

static const sluice_model_ref models[] = {
    {.slot = "policy", .version = 0, .path = TP_MODELS "/0", .dtype = "float32", .text = "policy@0", .next = -1},
    {.slot = "policy", .version = 1, .path = TP_MODELS "/1", .dtype = "float32", .text = "policy@1", .next = -1}};
static const sluice_model_ref slot = {
    .slot = "policy", .version = 1, .path = TP_MODELS "/1", .dtype = "float32", .text = "policy", .next = 2};
static const sluice_model_ref *const both_models[] = {&models[1], &models[0]};

/* One of them was not reported. */
static const sluice_measure measures[] = {{&models[0], "eval", "accuracy", 0, 0.25},
                                          {&models[1], "eval", "accuracy", 1, 0.75},
                                          {&models[0], "eval", "accuracy", 2, NAN}};
static const sluice_measure *const measure_items[] = {&measures[0], &measures[1], &measures[2]};
static const sluice_measures three_measures = {measure_items, 3};

static void write_member(const tp_value *v, void *self, const sluice_part *part, size_t *given)
{
    void *at = (char *)self + v->param->offset;
    switch (v->param->type) {
    case SLUICE_TYPE_BOOL:
        *(bool *)at = v->number != 0;
        return;
    case SLUICE_TYPE_INT:
        *(int64_t *)at = v->integer;
        return;
    case SLUICE_TYPE_DOUBLE:
        *(double *)at = v->number;
        return;
    case SLUICE_TYPE_CHOICE:
        *(int *)at = (int)v->number;
        return;
    case SLUICE_TYPE_STRING:
    case SLUICE_TYPE_STAGE:
    case SLUICE_TYPE_FILE:
        *(const char **)at = v->text;
        return;
    case SLUICE_TYPE_DOUBLES:
        *(sluice_doubles *)at = (sluice_doubles){v->numbers, v->count};
        return;
    case SLUICE_TYPE_STRINGS:
    case SLUICE_TYPE_STAGES:
        *(sluice_strings *)at = (sluice_strings){v->texts, v->count};
        return;
    case SLUICE_TYPE_MODEL: /* the first gets the newer version */
        *(const sluice_model_ref **)at = v->set ? &models[(*given)++ % 2 == 0] : NULL;
        return;
    case SLUICE_TYPE_SLOT:
        *(const sluice_model_ref **)at = v->set ? &slot : NULL;
        return;
    case SLUICE_TYPE_MODELS:
        *(sluice_models *)at = (sluice_models){both_models, v->count <= 2 ? v->count : 2};
        return;
    case SLUICE_TYPE_METRICS:
        *(const sluice_measures **)at = v->set ? &three_measures : NULL;
        return;
    case SLUICE_TYPE_CLASS:
        *(const sluice_part **)at = part->type != NULL ? part : NULL;
        return;
    default:
        return;
    }
}

static int begin_part(tp_object *o, const tp_subject *s, const sluice_host *host)
{
    size_t given = 0;
    o->part = (sluice_part){.type = s->part, .self = calloc(1, s->part->state_size + 1)};
    if (o->part.self == NULL)
        return SLUICE_NO_MEMORY;
    for (size_t i = 0; i < sl_class_params(s->part); i++) {
        tp_value v = {.param = sl_class_param(s->part, i)};
        set_default(s, &v);
        write_member(&v, o->part.self, &o->part, &given);
    }
    o->part_begun = true;
    return s->part->init != NULL ? s->part->init(o->part.self, host) : SLUICE_OK;
}

int tp_object_begin(tp_object *o, const tp_subject *s, const sluice_host *host)
{
    size_t given = 0;
    *o = (tp_object){.self = calloc(1, s->type->state_size + 1)};
    int rc = o->self != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
    if (rc >= 0 && s->part != NULL)
        rc = begin_part(o, s, host);
    for (size_t i = 0; rc >= 0 && i < s->value_count; i++)
        write_member(&s->values[i], o->self, &o->part, &given);
    const sluice_metrics_class *sink = s->type->kind == SLUICE_METRICS_SINK ? (const void *)s->type : NULL;
    if (rc >= 0 && sink != NULL && sink->folder != NULL)
        sink->folder(o->self, TP_OUTPUT);
    if (rc >= 0) {
        o->begun = true;
        rc = s->type->init != NULL ? s->type->init(o->self, host) : SLUICE_OK;
    }
    if (rc < 0)
        tp_object_end(o, s);
    return rc;
}

void tp_object_end(tp_object *o, const tp_subject *s)
{
    if (o->begun && s->type->fini != NULL)
        s->type->fini(o->self);
    if (o->part_begun && s->part->fini != NULL)
        s->part->fini(o->part.self);
    free(o->part.self);
    free(o->self);
    *o = (tp_object){0};
}
