/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Parameters: at their bounds, beyond them, of other types, at random; and init and fini. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sluice/random.h>
#include "core/plan/plan.h"
#include "core/run/internal.h"
#include "tools/test-plugin/test.h"

/* Enough for a class to come to whatever it does with a value, and an end for those that are told to do it 10^6 times.
 */
enum { FEW_RECORDS = 2, OCCASIONS = 300 };

static void drive_few(const tp_subject *s, tp_report *r)
{
    tp_records records;
    tp_outcome out;
    char text[256];
    tp_doing(r, "%s", tp_subject_text(s, text, sizeof text));
    if (tp_records_make(s, FEW_RECORDS, TP_PLAIN, 0, &records)) {
        tp_drive(s, &(tp_work){.records = &records, .cancel_after = OCCASIONS}, &out);
        if (out.fault == TP_FAULT_MESSAGE)
            tp_fail(r, "with %s: %s", text, out.what);
        tp_outcome_free(&out);
    }
    tp_records_free(&records);
}

/* ---- life */

static void life(tp_subject *s, tp_report *r)
{
    tp_records records;
    tp_outcome out;
    if (!tp_records_make(s, FEW_RECORDS, TP_PLAIN, 0, &records))
        return;
    tp_doing(r, "init and fini where the host offers no services");
    tp_drive(s, &(tp_work){.records = &records, .no_services = true}, &out);
    tp_check_fault(&out, TP_FAULT_MESSAGE, r);
    tp_outcome_free(&out);
    tp_doing(r, "fini right after init");
    for (int i = 0; i < 3; i++) {
        tp_drive(s, &(tp_work){.records = &records, .cancel_after = 1}, &out);
        tp_check_fault(&out, TP_FAULT_MESSAGE, r);
        tp_outcome_free(&out);
    }
    tp_records_free(&records);
}

const tp_test tp_test_life = {"life", "init may fail and fini come at once, any number of times", TP_RUN, 0, life};

/* ---- bounds: at them the class, beyond them the description */

/* The outermost values that are allowed; how many. */
static size_t outermost(const sluice_param *p, double values[4])
{
    const bool whole = p->type == SLUICE_TYPE_INT;
    size_t n = 0;
    if (isfinite(p->min) && p->min > p->above)
        values[n++] = p->min;
    if (isfinite(p->above) && p->above >= p->min)
        values[n++] = whole ? floor(p->above) + 1 : nextafter(p->above, INFINITY);
    if (isfinite(p->max) && p->max < p->below)
        values[n++] = p->max;
    if (isfinite(p->below) && p->below <= p->max)
        values[n++] = whole ? ceil(p->below) - 1 : nextafter(p->below, -INFINITY);
    return n;
}

static void at_bounds(tp_subject *s, size_t index, tp_report *r)
{
    tp_value *v = &s->values[index], before = *v;
    double values[4];
    if (v->param->type == SLUICE_TYPE_INT || v->param->type == SLUICE_TYPE_DOUBLE) {
        const size_t count = outermost(v->param, values);
        for (size_t i = 0; i < count; i++) {
            v->number = values[i];
            v->integer = values[i] < 9e18 ? (int64_t)values[i] : INT64_MAX;
            drive_few(s, r);
        }
    } else if (v->param->type == SLUICE_TYPE_BOOL || v->param->type == SLUICE_TYPE_CHOICE) {
        const bool is_bool = v->param->type == SLUICE_TYPE_BOOL;
        for (v->number = 0; is_bool ? v->number < 2 : v->param->choices[(int)v->number] != NULL; v->number++)
            drive_few(s, r);
    }
    *v = before;
}

/* How many mistakes sluice check finds in a file whose one stage says `name = value`. */
static size_t mistakes(const tp_subject *s, sl_registry *found, const char *name, const char *value)
{
    char text[1024], error[SL_ERROR_SIZE], *said = NULL;
    size_t count = 0, said_size;
    const bool sink = s->type->kind == SLUICE_METRICS_SINK, service = s->type->kind == SLUICE_SERVICE;
    FILE *out = open_memstream(&said, &said_size);
    const int length = service ? snprintf(text, sizeof text, "name = \"t\"; runtime = { %s = %s; };\n", name, value)
                       : sink ? snprintf(text, sizeof text, "name = \"t\"; metrics = ( { use = \"%s\"; %s = %s; } );\n",
                                         s->type->id, name, value)
                       : s->type->kind == SLUICE_KIND_LOSS
                           ? 0
                           : snprintf(text, sizeof text,
                                      "name = \"t\"; phases = ( { name = \"p\"; stages = ( { name = \"x\"; use = "
                                      "\"%s\"; %s = %s; } ); } );\n",
                                      s->type->id, name, value);
    if (out != NULL && length > 0 && length < (int)sizeof text &&
        sl_file_write("check.cfg", text, (size_t)length, error) >= 0)
        sl_plan_free(sl_plan_read("check.cfg", NULL, 0, found, out, false, &count));
    if (out != NULL)
        fclose(out);
    free(said);
    return count;
}

static void refuses(const tp_subject *s, sl_registry *found, const sluice_param *p, const char *good, const char *bad,
                    tp_report *r)
{
    tp_doing(r, "sluice check with %s = %s", p->name, bad);
    if (mistakes(s, found, p->name, bad) <= mistakes(s, found, p->name, good))
        tp_fail(r, "sluice check takes %s = %s: give '%s' its bounds", p->name, bad, p->name);
}

static void beyond_bounds(const tp_subject *s, sl_registry *found, const sluice_param *p, tp_report *r)
{
    char good[64], bad[64];
    const bool whole = p->type == SLUICE_TYPE_INT;
    switch (p->type) {
    case SLUICE_TYPE_BOOL:
        refuses(s, found, p, "true", "\"perhaps\"", r);
        return;
    case SLUICE_TYPE_CHOICE:
        snprintf(good, sizeof good, "\"%.60s\"", p->choices[0]);
        refuses(s, found, p, good, "\"no-such-choice\"", r);
        refuses(s, found, p, good, "[1, 2]", r);
        return;
    case SLUICE_TYPE_STRING:
        refuses(s, found, p, "\"x\"", "[1, 2]", r);
        return;
    case SLUICE_TYPE_INT:
    case SLUICE_TYPE_DOUBLE:
        break;
    default:
        return;
    }
    double values[4];
    const size_t count = outermost(p, values);
    snprintf(good, sizeof good, whole ? "%.0fL" : "%.17e", count > 0 ? values[0] : isfinite(p->value) ? p->value : 1);
    refuses(s, found, p, good, "\"a word\"", r);
    refuses(s, found, p, good, "[1, 2]", r);
    for (size_t i = 0; i < count; i++) {
        const bool upper = values[i] == values[count - 1] && (isfinite(p->max) || isfinite(p->below)) &&
                           values[i] >= fmin(p->max, p->below) - 1;
        const double outside =
            whole ? values[i] + (upper ? 1 : -1) : values[i] + (upper ? 1 : -1) * fmax(1e-6, fabs(values[i]) * 1e-6);
        snprintf(bad, sizeof bad, whole ? "%.0fL" : "%.17e", outside);
        if (fabs(outside) < 9e15)
            refuses(s, found, p, good, bad, r);
    }
}

static sl_registry *own_registry(void)
{
    char folder[PATH_MAX];
    const char *const folders[] = {folder};
    if (getcwd(folder, sizeof folder - 8) == NULL)
        return NULL;
    strcat(folder, "/found");
    return sl_registry_open_folders(folders, 1);
}

static void bounds(tp_subject *s, tp_report *r)
{
    for (size_t i = 0; i < s->value_count; i++)
        at_bounds(s, i, r);
    sl_registry *found = s->type->kind != SLUICE_KIND_LOSS && tp_copy_plugin(s) ? own_registry() : NULL;
    for (size_t i = 0; found != NULL && i < s->value_count; i++)
        beyond_bounds(s, found, s->values[i].param, r);
    sl_registry_close(found);
}

const tp_test tp_test_bounds = {"bounds",
                                "parameters at their bounds work or are refused in words; beyond them, and of "
                                "another type, sluice check refuses them",
                                TP_RUN, 0, bounds};

/* ---- random combinations */

static uint64_t draw(const tp_subject *s, size_t round, size_t what)
{
    return sluice_mix(sluice_mix(s->seed, round), what);
}

static double draw_number(const sluice_param *p, uint64_t h)
{
    double values[4];
    const size_t count = outermost(p, values);
    const double low = fmax(fmax(p->min, p->above), -10), high = fmin(fmin(p->max, p->below), fmax(low, 0) + 20);
    if (h % 4 == 0 && !p->required)
        return p->value;
    if (h % 4 == 1 && count > 0 && fabs(values[h / 4 % count]) < 1e6)
        return values[h / 4 % count];
    const double u = low + (high - low) * ((double)(1 + (h >> 40)) / (double)(1 << 24) / 1.01);
    const double number = p->type == SLUICE_TYPE_INT ? floor(u) : u;
    return number >= p->min && number > p->above && number <= p->max && number < p->below ? number : p->value;
}

static void draw_value(tp_value *v, uint64_t h)
{
    static const char *const texts[] = {"", "x", "no such thing", TP_JUDGE_A, "kind", "{prompt} %s \""};
    static const char *const judges[] = {TP_JUDGE_A, TP_JUDGE_B, "no-such-judge"};
    static const double numbers[] = {0.5, 1, 2};
    switch (v->param->type) {
    case SLUICE_TYPE_BOOL:
        v->number = (double)(h % 2);
        break;
    case SLUICE_TYPE_CHOICE: {
        size_t count = 0;
        while (v->param->choices[count] != NULL)
            count++;
        v->number = (double)(h % count);
        break;
    }
    case SLUICE_TYPE_INT:
    case SLUICE_TYPE_DOUBLE:
        v->number = draw_number(v->param, h);
        v->integer = (int64_t)v->number;
        break;
    case SLUICE_TYPE_STRING:
        v->text = h % 3 == 0 ? v->text : texts[h / 3 % (sizeof texts / sizeof *texts)];
        break;
    case SLUICE_TYPE_STAGE:
        v->text = !v->param->required && h % 3 == 0 ? NULL : judges[h / 3 % 2];
        break;
    case SLUICE_TYPE_DOUBLES:
        v->numbers = numbers;
        v->count = v->param->required || h % 2 ? 1 + h / 2 % 3 : 0;
        break;
    case SLUICE_TYPE_MODEL:
        v->set = v->param->required || h % 2;
        break;
    default:
        break;
    }
}

static void random_parameters(tp_subject *s, tp_report *r)
{
    enum { ROUNDS = 60 };
    tp_value before[TP_MOST_PARAMS];
    memcpy(before, s->values, sizeof before);
    for (size_t round = 0; round < ROUNDS && s->value_count > 0; round++) {
        for (size_t i = 0; i < s->value_count; i++) {
            s->values[i] = before[i];
            draw_value(&s->values[i], draw(s, round, i));
        }
        drive_few(s, r);
    }
    memcpy(s->values, before, sizeof before);
}

const tp_test tp_test_random_parameters = {
    "parameters", "sixty random combinations of parameters work or are refused in words", TP_RUN, 0, random_parameters};
