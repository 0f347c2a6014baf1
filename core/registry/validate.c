/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/registry/validate.h"
#include "core/registry/registry.h"

#include <math.h>
#include <string.h>

/* No honest table is longer: one that is has lost its end. */
enum { MOST_PARAMS = 256, MOST_CHOICES = 256, MOST_METRICS = 256 };

/* Keys of a stage in a pipeline file that are the plan's own. */
static const char *const reserved[] = {"name", "use", "from", "after", "isolate", "limits", "on_crash", "seccomp"};

static bool wrong(sl_why *why, const char *format, ...) SLUICE_PRINTF(2, 3);
static bool wrong(sl_why *why, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why->text, sizeof why->text, format, args);
    va_end(args);
    return false;
}

static bool is_word(const char *s, const char *more)
{
    if (!s || !*s || strlen(s) > 63)
        return false;
    for (; *s; s++)
        if (!((*s >= 'a' && *s <= 'z') || (*s >= '0' && *s <= '9') || strchr(more, *s)))
            return false;
    return true;
}

/* `name`, or `vendor/name`. */
static bool id_fits(const char *id)
{
    return is_word(id, "-_./") && id[0] != '/' && id[strlen(id) - 1] != '/' && strchr(id, '/') == strrchr(id, '/');
}

static size_t member_size(uint32_t type)
{
    static const size_t sizes[] = {
        [SLUICE_TYPE_BOOL] = sizeof(bool),
        [SLUICE_TYPE_INT] = sizeof(int64_t),
        [SLUICE_TYPE_DOUBLE] = sizeof(double),
        [SLUICE_TYPE_STRING] = sizeof(const char *),
        [SLUICE_TYPE_CHOICE] = sizeof(int),
        [SLUICE_TYPE_STAGE] = sizeof(const char *),
        [SLUICE_TYPE_MODEL] = sizeof(const sluice_model_ref *),
        [SLUICE_TYPE_SLOT] = sizeof(const sluice_model_ref *),
        [SLUICE_TYPE_FILE] = sizeof(const char *),
        [SLUICE_TYPE_CLASS] = sizeof(const sluice_part *),
        [SLUICE_TYPE_DOUBLES] = sizeof(sluice_doubles),
        [SLUICE_TYPE_STRINGS] = sizeof(sluice_strings),
        [SLUICE_TYPE_MODELS] = sizeof(sluice_models),
        [SLUICE_TYPE_STAGES] = sizeof(sluice_strings),
        [SLUICE_TYPE_METRICS] = sizeof(const sluice_measures *),
    };
    return type < sizeof sizes / sizeof *sizes ? sizes[type] : 0;
}

static bool default_fits(const char *id, const sluice_param *p, sl_why *why)
{
    bool whole = p->type == SLUICE_TYPE_INT || p->type == SLUICE_TYPE_DOUBLE;
    if (whole || p->type == SLUICE_TYPE_DOUBLES) {
        if (!(p->min <= p->max) || !(p->above < p->below) || !(p->min < p->below) || !(p->above < p->max))
            return wrong(why,
                         "class '%s': the bounds of '%s' leave no value; describe it with SLUICE_DOUBLE or SLUICE_INT",
                         id, p->name);
    }
    if (whole && !p->required && !isnan(p->value) &&
        !(p->value >= p->min && p->value <= p->max && p->value > p->above && p->value < p->below))
        return wrong(why, "class '%s': the default %g of '%s' lies outside its own bounds", id, p->value, p->name);
    if (p->type == SLUICE_TYPE_INT && !p->required && p->value != floor(p->value))
        return wrong(why, "class '%s': the default %g of '%s' is no integer", id, p->value, p->name);
    if (p->type == SLUICE_TYPE_CHOICE) {
        size_t count = 0;
        while (p->choices && count <= MOST_CHOICES && p->choices[count])
            count++;
        if (count == 0 || count > MOST_CHOICES)
            return wrong(why, "class '%s': '%s' has no NULL-terminated list of choices", id, p->name);
        if (!p->required && (!(p->value >= 0) || p->value >= (double)count || p->value != floor(p->value)))
            return wrong(why, "class '%s': the default %g of '%s' is no index into its %zu choices", id, p->value,
                         p->name, count);
    }
    return true;
}

/* References into the run make sense on a stage; services and metrics sinks live longer, and a part gets its records
 * from its stage. */
static bool type_fits(const sluice_class *c, const sluice_param *p, sl_why *why)
{
    bool is_stage = sl_kind_is_stage(c->kind);
    bool reference = p->type == SLUICE_TYPE_STAGE || p->type == SLUICE_TYPE_MODEL || p->type == SLUICE_TYPE_SLOT ||
                     p->type == SLUICE_TYPE_MODELS || p->type == SLUICE_TYPE_STAGES || p->type == SLUICE_TYPE_METRICS ||
                     p->type == SLUICE_TYPE_CLASS;
    if (reference && !is_stage)
        return wrong(why, "class '%s': '%s' refers to a stage, model or class, which a %s cannot", c->id, p->name,
                     sl_kind_name(c->kind));
    if (p->type == SLUICE_TYPE_CLASS && p->kind > SLUICE_SERVICE)
        return wrong(why, "class '%s': '%s' asks for a class of unknown kind %u", c->id, p->name, p->kind);
    return true;
}

static bool param_fits(const sluice_class *c, size_t index, sl_why *why)
{
    const sluice_param *p = &c->params[index];
    if (!p->name)
        return wrong(why, "class '%s': parameter %zu has no name", c->id, index + 1);
    if (!is_word(p->name, "_ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
        return wrong(why, "class '%s': '%.64s' is no name of a parameter (letters, digits and _)", c->id, p->name);
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        if (strcmp(p->name, reserved[i]) == 0)
            return wrong(why, "class '%s': a parameter cannot be called '%s', which every stage has", c->id, p->name);
    for (size_t i = 0; i < index; i++)
        if (strcmp(p->name, c->params[i].name) == 0)
            return wrong(why, "class '%s': parameter '%s' is described twice", c->id, p->name);
    size_t size = member_size(p->type);
    if (size == 0)
        return wrong(why, "class '%s': '%s' has unknown type %u", c->id, p->name, p->type);
    if (p->offset > c->state_size || size > c->state_size - p->offset)
        return wrong(why, "class '%s': '%s' (offset %u, %zu bytes) lies outside the state struct of %zu bytes", c->id,
                     p->name, p->offset, size, c->state_size);
    return type_fits(c, p, why) && default_fits(c->id, p, why);
}

/* Copies the table entry by entry: theirs may be shorter than ours. */
static bool adopt_params(sluice_class *to, const sluice_class *from, sl_arena *arena, sl_why *why)
{
    if (!from->params) {
        to->params = sl_arena_alloc(arena, sizeof(sluice_param));
        to->param_size = sizeof(sluice_param);
        return to->params || wrong(why, "out of memory");
    }
    size_t count = 0;
    const char *at = (const char *)from->params;
    while (((const sluice_param *)(const void *)(at + count * from->param_size))->type != SLUICE_TYPE_END)
        if (++count > MOST_PARAMS)
            return wrong(why, "class '%s': its parameters do not end; close the table with SLUICE_PARAMS_END",
                         from->id);
    char *copy = sl_arena_alloc(arena, (count + 1) * sizeof(sluice_param));
    if (!copy)
        return wrong(why, "out of memory");
    for (size_t i = 0; i < count; i++)
        memcpy(copy + i * sizeof(sluice_param), at + i * from->param_size, from->param_size);
    to->params = (const sluice_param *)(const void *)copy;
    to->param_size = sizeof(sluice_param);
    for (size_t i = 0; i < count; i++)
        if (!param_fits(to, i, why))
            return false;
    return true;
}

static bool metrics_fit(const sluice_class *c, sl_why *why)
{
    size_t count = 0;
    while (c->metrics && c->metrics[count].name)
        if (++count > MOST_METRICS)
            return wrong(why, "class '%s': its metrics do not end; close the table with an entry without a name",
                         c->id);
    return true;
}

static bool stage_fits(const sluice_stage_class *s, sl_why *why)
{
    const char *id = s->base.id;
    bool source = s->base.kind == SLUICE_SOURCE;
    int ways = (s->next != NULL) + (s->process != NULL) + (s->process_batch != NULL) + (s->run != NULL);
    if (ways != 1)
        return wrong(why, "class '%s': exactly one of next, process, process_batch and run is wanted, it has %d", id,
                     ways);
    if (source != (s->next != NULL) && !s->run)
        return wrong(why, "class '%s': %s", id, source ? "a source needs next or run" : "only a source has next");
    if (s->observe && !s->process)
        return wrong(why, "class '%s': observe without process", id);
    if (s->settle && !s->observe)
        return wrong(why, "class '%s': settle without observe", id);
    if ((s->observe != NULL) != ((s->base.traits & SLUICE_WHOLE_STREAM) != 0))
        return wrong(why, "class '%s': the trait SLUICE_WHOLE_STREAM goes with observe, and only with it", id);
    return true;
}

static bool functions_fit(const sluice_class *c, sl_why *why)
{
    if (c->kind == SLUICE_KIND_LOSS) {
        const sluice_loss_class *loss = (const void *)c;
        return loss->pairs || loss->tokens || wrong(why, "class '%s': a loss needs pairs or tokens", c->id);
    }
    if (c->kind == SLUICE_SERVICE) {
        const sluice_service_class *service = (const void *)c;
        return (service->service && service->get) || wrong(why, "class '%s': a service needs its id and get", c->id);
    }
    if (c->kind == SLUICE_METRICS_SINK) {
        const sluice_metrics_class *sink = (const void *)c;
        return sink->line || wrong(why, "class '%s': a metrics sink needs line", c->id);
    }
    return stage_fits((const void *)c, why);
}

static size_t class_size(uint32_t kind)
{
    if (kind == SLUICE_KIND_LOSS)
        return sizeof(sluice_loss_class);
    if (kind == SLUICE_METRICS_SINK)
        return sizeof(sluice_metrics_class);
    return kind == SLUICE_SERVICE ? sizeof(sluice_service_class) : sizeof(sluice_stage_class);
}

const sluice_class *sl_class_adopt(const sluice_class *theirs, const sluice_stamp *stamp, sl_arena *arena, sl_why *why)
{
    if (!id_fits(theirs->id)) {
        wrong(why,
              "a class has no id or an odd one ('%.64s'); use lower-case letters, digits, - and one / after a vendor's "
              "name",
              theirs->id ? theirs->id : "");
        return NULL;
    }
    if (theirs->kind > SLUICE_METRICS_SINK) {
        wrong(why, "class '%s': kind is %u, this sluice knows kinds up to %d; update sluice", theirs->id, theirs->kind,
              SLUICE_METRICS_SINK);
        return NULL;
    }
    size_t ours = class_size(theirs->kind);
    if (theirs->size < stamp->class_size || theirs->size - stamp->class_size > ours - sizeof(sluice_class)) {
        wrong(
            why,
            "class '%s': size is %u in the plugin, %zu here for a %s; rebuild the plugin against this sluice's headers",
            theirs->id, theirs->size, ours, sl_kind_name(theirs->kind));
        return NULL;
    }
    if (theirs->params && theirs->param_size != stamp->param_size) {
        wrong(why, "class '%s': param_size is %u in the class, %u in the stamp; rebuild the plugin", theirs->id,
              theirs->param_size, stamp->param_size);
        return NULL;
    }
    sluice_class *copy = sl_arena_alloc(arena, ours);
    if (!copy) {
        wrong(why, "out of memory");
        return NULL;
    }
    memcpy(copy, theirs, stamp->class_size);
    memcpy((char *)copy + sizeof(sluice_class), (const char *)theirs + stamp->class_size,
           theirs->size - stamp->class_size);
    copy->size = (uint32_t)ours;
    if (!copy->summary) {
        wrong(why, "class '%s': it has no summary", copy->id);
        return NULL;
    }
    return adopt_params(copy, theirs, arena, why) && metrics_fit(copy, why) && functions_fit(copy, why) ? copy : NULL;
}
