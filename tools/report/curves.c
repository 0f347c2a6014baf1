/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/report/curves.h"
#include "tools/report/interval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/random.h>

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Counts and bounds are no curves of their own. */
static bool is_drawn(uint32_t kind, const char *metric)
{
    static const char *const of_others[] = {"label_accuracy", "consistency", "trust", "tau", "score_margin"};
    if (kind == SLUICE_EVALUATOR)
        return strcmp(metric, "questions") != 0 && !ends_with(metric, "/low") && !ends_with(metric, "/high");
    for (size_t i = 0; (kind == SLUICE_RANKER || kind == SLUICE_REGULARIZER) && i < 5; i++)
        if (strcmp(of_others[i], metric) == 0)
            return true;
    return false;
}

static bool same_name(const rp_curve *a, const rp_curve *b)
{
    return a->training == b->training && strcmp(a->metric, b->metric) == 0 && strcmp(a->series, b->series) == 0 &&
           strcmp(a->family, b->family) == 0;
}

static uint64_t hash_of(const rp_curve *curve)
{
    const char *const names[] = {curve->metric, curve->series, curve->family};
    uint64_t hash = curve->training;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        hash = sluice_mix(hash, sluice_random_name(names[i], strlen(names[i])));
    return hash;
}

/* Where the curve of this name is noted, or would be. */
static size_t *place_of(const rp_curves *curves, const rp_curve *as)
{
    size_t at = hash_of(as) & (curves->room - 1);
    while (curves->index[at] != 0 && !same_name(&curves->items[curves->index[at] - 1], as))
        at = (at + 1) & (curves->room - 1);
    return &curves->index[at];
}

/* An index with room for one more. */
static int make_index(sl_arena *arena, rp_curves *curves)
{
    if (2 * (curves->count + 1) <= curves->room)
        return SLUICE_OK;
    for (curves->room = 64; curves->room < 4 * (curves->count + 1);)
        curves->room *= 2;
    curves->index = sl_arena_alloc(arena, curves->room * sizeof *curves->index);
    for (size_t i = 0; curves->index != NULL && i < curves->count; i++)
        *place_of(curves, &curves->items[i]) = i + 1;
    return curves->index != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
}

static const rp_curve *find_curve(const rp_curves *curves, const rp_curve *as)
{
    const size_t place = curves->room > 0 ? *place_of(curves, as) : 0;
    return place > 0 ? &curves->items[place - 1] : NULL;
}

static rp_curve *curve_of(sl_arena *arena, rp_curves *curves, const char *metric, const char *series,
                          const char *family, bool training)
{
    const rp_curve wanted = {metric, series, family, training, NULL, 0};
    if (make_index(arena, curves) < 0)
        return NULL;
    size_t *place = place_of(curves, &wanted);
    if (*place > 0)
        return &curves->items[*place - 1];
    rp_curve *items = rp_grow(arena, curves->items, curves->count, sizeof *items);
    if (items == NULL)
        return NULL;
    curves->items = items;
    items[curves->count] = wanted;
    *place = ++curves->count;
    return &items[curves->count - 1];
}

/* As they come; rising() puts them in order. */
static int add_point(sl_arena *arena, rp_curve *curve, rp_point point)
{
    if (curve == NULL)
        return SLUICE_NO_MEMORY;
    if (!isfinite(point.y))
        return SLUICE_OK;
    rp_point *points = rp_grow(arena, curve->points, curve->count, sizeof *points);
    if (points == NULL)
        return SLUICE_NO_MEMORY;
    curve->points = points;
    points[curve->count++] = point;
    return SLUICE_OK;
}

typedef struct placed {
    rp_point point;
    size_t order;
} placed;

static int by_x(const void *a, const void *b)
{
    const placed *p = a, *q = b;
    if (p->point.x != q->point.x)
        return p->point.x < q->point.x ? -1 : 1;
    return p->order < q->order ? -1 : 1;
}

/* Makes x rise; of numbers said for one x the last stays, as in the table. */
static int rising(rp_curve *curve)
{
    bool rises = true;
    for (size_t i = 1; rises && i < curve->count; i++)
        rises = curve->points[i - 1].x < curve->points[i].x;
    if (rises)
        return SLUICE_OK;
    placed *all = malloc(curve->count * sizeof *all);
    if (all == NULL)
        return SLUICE_NO_MEMORY;
    for (size_t i = 0; i < curve->count; i++)
        all[i] = (placed){curve->points[i], i};
    qsort(all, curve->count, sizeof *all, by_x);
    size_t kept = 0;
    for (size_t i = 0; i < curve->count; i++) {
        kept -= kept > 0 && curve->points[kept - 1].x == all[i].point.x;
        curve->points[kept++] = all[i].point;
    }
    curve->count = kept;
    free(all);
    return SLUICE_OK;
}

/* How far a training stage has come in the lines so far. */
typedef struct progress {
    const char *phase, *stage;
    int64_t iteration;
    double before, highest; /* steps of the iterations before; the highest of this one */
} progress;

/* A line of a stage that published a version. */
typedef struct publication {
    const char *phase, *model;
    int64_t iteration;
} publication;

typedef struct reading {
    const rp_run *run;
    sl_arena *scratch;
    rp_curves *curves;
    progress *stages;
    size_t count;
    publication *published;
    size_t published_count;
} reading;

static int note_publications(reading *r)
{
    for (size_t i = 0; i < r->run->line_count; i++) {
        const rp_line *line = &r->run->lines[i];
        const sl_stage *stage = line->step < 0 ? rp_stage(r->run, line->phase, line->stage) : NULL;
        const uint32_t kind = stage != NULL ? stage->object.type->type->kind : SLUICE_SOURCE;
        if (kind != SLUICE_TRAINER && kind != SLUICE_AVERAGER)
            continue;
        publication *more = rp_grow(r->scratch, r->published, r->published_count, sizeof *more);
        if (more == NULL)
            return SLUICE_NO_MEMORY;
        r->published = more;
        more[r->published_count++] = (publication){line->phase, line->model, line->iteration};
    }
    return SLUICE_OK;
}

/* The version that this phase and iteration published, and its slot; -1 when it published none. */
static int64_t published(const reading *r, const rp_line *of, char slot[64])
{
    for (size_t i = 0; i < r->published_count; i++)
        if (r->published[i].iteration == of->iteration && strcmp(r->published[i].phase, of->phase) == 0)
            return rp_version(r->published[i].model, slot);
    return -1;
}

static int read_whole(reading *r, const rp_line *line, uint32_t kind)
{
    char slot[64] = "";
    const int64_t version = kind == SLUICE_EVALUATOR ? rp_version(line->model, slot) : published(r, line, slot);
    int rc = SLUICE_OK;
    if (version < 0)
        return rc;
    const char *series = sl_arena_strdup(r->run->arena, slot);
    for (size_t i = 0; rc >= 0 && series != NULL && i < line->count; i++) {
        const char *metric = line->numbers[i].name;
        if (!is_drawn(kind, metric))
            continue;
        rp_curve *curve = curve_of(r->scratch, r->curves, metric, series, "", false);
        rc = add_point(r->scratch, curve,
                       (rp_point){(double)version, line->numbers[i].value, rp_number(line, metric, "/low"),
                                  rp_number(line, metric, "/high")});
    }
    return series != NULL ? rc : SLUICE_NO_MEMORY;
}

/* Steps of the iterations before, the highest of each; NaN when out of memory. */
static double steps_before(reading *r, const rp_line *line)
{
    size_t i = 0;
    while (i < r->count &&
           (strcmp(r->stages[i].stage, line->stage) != 0 || strcmp(r->stages[i].phase, line->phase) != 0))
        i++;
    if (i == r->count) {
        progress *stages = rp_grow(r->scratch, r->stages, r->count, sizeof *stages);
        if (stages == NULL)
            return NAN;
        r->stages = stages;
        stages[r->count++] = (progress){line->phase, line->stage, line->iteration, 0, 0};
    }
    progress *stage = &r->stages[i];
    if (stage->iteration != line->iteration) {
        stage->before += stage->highest;
        stage->highest = 0;
        stage->iteration = line->iteration;
    }
    stage->highest = fmax(stage->highest, (double)line->step);
    return stage->before;
}

static const char *family_of(const sl_stage *stage)
{
    for (size_t i = 0; stage != NULL && i < stage->part_count; i++)
        if (stage->parts[i].type != NULL)
            return stage->parts[i].type->type->id;
    return "";
}

static int read_step(reading *r, const rp_line *line)
{
    static const char *const left_out[] = {"epoch", "num_tokens"};
    const char *family = family_of(rp_stage(r->run, line->phase, line->stage));
    const double before = steps_before(r, line);
    int rc = isnan(before) ? SLUICE_NO_MEMORY : SLUICE_OK;
    for (size_t i = 0; rc >= 0 && i < line->count; i++) {
        const char *metric = line->numbers[i].name;
        if (strcmp(metric, left_out[0]) == 0 || strcmp(metric, left_out[1]) == 0)
            continue;
        rc = add_point(r->scratch, curve_of(r->scratch, r->curves, metric, line->stage, family, true),
                       (rp_point){before + (double)line->step, line->numbers[i].value, NAN, NAN});
    }
    return rc;
}

/* The curves without the room that growing left. */
static int copy_curves(sl_arena *arena, rp_curves *curves)
{
    rp_curve *items = sl_arena_alloc(arena, (curves->count + 1) * sizeof *items);
    for (size_t i = 0; items != NULL && i < curves->count; i++) {
        if (rising(&curves->items[i]) < 0)
            return SLUICE_NO_MEMORY;
        const size_t size = curves->items[i].count * sizeof(rp_point);
        items[i] = curves->items[i];
        items[i].points = sl_arena_alloc(arena, size);
        if (items[i].points == NULL)
            return SLUICE_NO_MEMORY;
        if (size > 0)
            memcpy(items[i].points, curves->items[i].points, size);
    }
    curves->items = items;
    curves->room = 0; /* the index is to lie in this arena too */
    return items != NULL ? make_index(arena, curves) : SLUICE_NO_MEMORY;
}

int rp_curves_read(const rp_run *run, sl_arena *arena, rp_curves *curves)
{
    reading r = {.run = run, .scratch = sl_arena_new(), .curves = curves};
    int rc = r.scratch != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
    *curves = (rp_curves){.seeds = 1};
    if (rc >= 0)
        rc = note_publications(&r);
    for (size_t i = 0; rc >= 0 && i < run->line_count; i++) {
        const rp_line *line = &run->lines[i];
        const sl_stage *stage = line->step < 0 ? rp_stage(run, line->phase, line->stage) : NULL;
        if (line->step >= 0)
            rc = read_step(&r, line);
        else if (stage != NULL)
            rc = read_whole(&r, line, stage->object.type->type->kind);
    }
    rc = rc >= 0 ? copy_curves(arena, curves) : rc;
    sl_arena_free(r.scratch);
    return rc;
}

/* ---- means over seeds */

static const rp_point *point_at(const rp_curve *curve, double x)
{
    size_t low = 0, high = curve->count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (curve->points[middle].x < x)
            low = middle + 1;
        else
            high = middle;
    }
    return low < curve->count && curve->points[low].x == x ? &curve->points[low] : NULL;
}

static int mean_curve(const rp_curves *sets, size_t count, const rp_curve *first, sl_arena *arena, rp_curves *mean)
{
    double *values = sl_arena_alloc(arena, (count + 1) * sizeof *values);
    const rp_curve **curves = sl_arena_alloc(arena, (count + 1) * sizeof *curves);
    rp_curve *to = curve_of(arena, mean, first->metric, first->series, first->family, first->training);
    int rc = values != NULL && curves != NULL && to != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
    for (size_t s = 0; rc >= 0 && s < count; s++)
        curves[s] = find_curve(&sets[s], first);
    for (size_t i = 0; rc >= 0 && i < first->count; i++) {
        rp_point point = first->points[i];
        size_t found = 0;
        for (size_t s = 0; s < count; s++) {
            const rp_point *p = curves[s] != NULL ? point_at(curves[s], point.x) : NULL;
            if (p != NULL)
                values[found++] = p->y;
        }
        if (found < count)
            continue;
        const double half = rp_half_interval(values, count, &point.y);
        point.low = point.y - half;
        point.high = point.y + half;
        rc = add_point(arena, to, point);
    }
    return rc;
}

int rp_curves_mean(const rp_curves *sets, size_t count, sl_arena *arena, rp_curves *mean)
{
    int rc = SLUICE_OK;
    *mean = count == 1 ? sets[0] : (rp_curves){.seeds = count};
    for (size_t i = 0; rc >= 0 && count > 1 && i < sets[0].count; i++)
        rc = mean_curve(sets, count, &sets[0].items[i], arena, mean);
    return rc;
}
