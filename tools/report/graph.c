/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The pipeline as a drawing. A phase is a frame and a column; its stages are boxes in rows by their distance from the
 * sources; records go down. To the right of a phase's boxes stands a rail for each slot that it uses: arrows leave it
 * for the stages that read the model and come to it from the stage that publishes the next version. Above the frames
 * the slots' lanes carry the versions from phase to phase.
 */
#include "tools/report/page.h"

#include <stdlib.h>
#include <string.h>

enum {
    BOX_W = 156,
    BOX_H = 40,
    GAP_X = 14,
    GAP_Y = 30,
    PAD = 16,
    HEAD = 40, /* a frame's title, and the pills of the versions it starts from */
    FOOT = 34, /* the pills of those it ends with */
    RAIL = 24,
    LANE = 24,
    BETWEEN = 18,
    PILL_H = 17,
    NAME = 21, /* letters that fit into a box */
    MOST_SLOTS = 16
};

typedef struct placed {
    int row, column;
    int x, y; /* of the box */
} placed;

typedef struct frame {
    const sl_phase *phase;
    placed *stages;
    int rows, columns; /* boxes beside each other, at most */
    int x, y, width, height;
    bool uses[MOST_SLOTS], publishes[MOST_SLOTS];
    int rail[MOST_SLOTS];                       /* x */
    int64_t start[MOST_SLOTS], end[MOST_SLOTS]; /* versions */
} frame;

typedef struct drawing {
    FILE *out;
    const sl_plan *plan;
    size_t slots;
    frame *frames;
    int width, height, lanes;
} drawing;

/* ---- layout */

/* Rows by the longest way from a source; then a source goes down to just above its first reader. */
static void set_rows(frame *f)
{
    const sl_phase *phase = f->phase;
    for (size_t pass = 0; pass < phase->stage_count; pass++)
        for (size_t s = 0; s < phase->stage_count; s++) {
            const sl_stage *stage = &phase->stages[s];
            for (size_t k = 0; k < stage->from_count + stage->after_count; k++) {
                const sl_stage *before = k < stage->from_count ? stage->from[k] : stage->after[k - stage->from_count];
                const int row = f->stages[before->index].row + 1;
                if (row > f->stages[s].row)
                    f->stages[s].row = row;
            }
        }
    for (size_t s = 0; s < phase->stage_count; s++) {
        int reader = -1;
        if (phase->stages[s].from_count + phase->stages[s].after_count > 0)
            continue;
        for (size_t t = 0; t < phase->stage_count; t++)
            for (size_t k = 0; k < phase->stages[t].from_count; k++)
                if (phase->stages[t].from[k]->index == s && (reader < 0 || f->stages[t].row < reader))
                    reader = f->stages[t].row;
        if (reader > 0)
            f->stages[s].row = reader - 1;
    }
}

static void set_places(frame *f, int top)
{
    f->rows = f->columns = 1;
    for (size_t s = 0; s < f->phase->stage_count; s++) {
        placed *p = &f->stages[s];
        for (size_t t = 0; t < s; t++)
            p->column += f->stages[t].row == p->row;
        f->rows = p->row + 1 > f->rows ? p->row + 1 : f->rows;
        f->columns = p->column + 1 > f->columns ? p->column + 1 : f->columns;
    }
    for (size_t s = 0; s < f->phase->stage_count; s++) {
        placed *p = &f->stages[s];
        p->x = f->x + PAD + p->column * (BOX_W + GAP_X);
        p->y = top + HEAD + p->row * (BOX_H + GAP_Y);
    }
}

static void set_slots(drawing *d, frame *f, int64_t *newest)
{
    const int64_t last = f->phase->repeat - 1;
    for (size_t slot = 0; slot < d->slots; slot++)
        f->start[slot] = f->end[slot] = newest[slot];
    for (size_t s = 0; s < f->phase->stage_count; s++) {
        const sl_object *o = &f->phase->stages[s].object;
        for (size_t v = 0; v < o->value_count; v++)
            for (size_t k = 0; o->values[v].models != NULL && k < o->values[v].count; k++) {
                const sl_model_use *use = &o->values[v].models[(size_t)last * o->values[v].count + k];
                if (use->slot >= d->slots)
                    continue;
                f->uses[use->slot] = true;
                if (use->next >= 0) {
                    f->publishes[use->slot] = true;
                    f->end[use->slot] = use->next > f->end[use->slot] ? use->next : f->end[use->slot];
                }
            }
    }
    for (size_t slot = 0; slot < d->slots; slot++)
        newest[slot] = f->end[slot];
}

static bool lay_out(drawing *d, sl_arena *arena)
{
    int64_t newest[MOST_SLOTS] = {0};
    int x = 1;
    d->slots = d->plan->slot_count < MOST_SLOTS ? d->plan->slot_count : MOST_SLOTS;
    d->lanes = (int)d->slots * LANE;
    d->frames = sl_arena_alloc(arena, (d->plan->phase_count + 1) * sizeof *d->frames);
    for (size_t p = 0; d->frames != NULL && p < d->plan->phase_count; p++) {
        frame *f = &d->frames[p];
        f->phase = &d->plan->phases[p];
        f->stages = sl_arena_alloc(arena, (f->phase->stage_count + 1) * sizeof *f->stages);
        if (f->stages == NULL)
            return false;
        f->x = x;
        f->y = d->lanes + 8;
        set_rows(f);
        set_places(f, f->y);
        set_slots(d, f, newest);
        f->width = 2 * PAD + f->columns * (BOX_W + GAP_X) - GAP_X;
        int lanes_up = 0;
        for (size_t s = 0; s < d->slots; s++) {
            if (!f->uses[s])
                continue;
            f->width += RAIL;
            f->rail[s] = f->x + f->width - PAD;
            lanes_up += f->publishes[s];
        }
        f->height = HEAD + f->rows * (BOX_H + GAP_Y) - GAP_Y + FOOT;
        x = f->x + f->width + BETWEEN + 10 * lanes_up;
        d->height = f->y + f->height > d->height ? f->y + f->height : d->height;
    }
    d->width = x;
    d->height += 2;
    return d->frames != NULL;
}

/* ---- drawing */

static void write_pill(const drawing *d, size_t slot, int64_t version, int right, int middle)
{
    char text[96];
    const char *name = d->plan->slots[slot].name;
    const int length = (int)strlen(name) > 14 ? 14 : (int)strlen(name);
    snprintf(text, sizeof text, "%.*s%s@%lld", length, name, strlen(name) > 14 ? "…" : "", (long long)version);
    const int width = 12 + (int)(7.4 * (double)(length + 2 + (version > 9)));
    fprintf(d->out, "<rect class=\"pill f%zu\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"8\"/>", slot % 8,
            right - width, middle - PILL_H / 2, width, PILL_H);
    fprintf(d->out, "<text class=\"label\" text-anchor=\"middle\" x=\"%d\" y=\"%d\">", right - width / 2, middle + 4);
    rp_text(d->out, text);
    fputs("</text>\n", d->out);
}

static void write_box(const drawing *d, const sl_stage *stage, const placed *at)
{
    char id[256];
    size_t used = (size_t)snprintf(id, sizeof id, "%s", stage->id);
    for (size_t i = 0; i < stage->part_count && used < sizeof id; i++)
        if (stage->parts[i].type != NULL)
            used += (size_t)snprintf(id + used, sizeof id - used, " (%s)", stage->parts[i].type->type->id);
    if (stage->in_memory && used < sizeof id)
        snprintf(id + used, sizeof id - used, ", in memory");
    fprintf(d->out, "<g><rect class=\"box\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"6\"/>", at->x, at->y,
            BOX_W, BOX_H);
    fprintf(d->out, "<text class=\"name\" x=\"%d\" y=\"%d\">", at->x + 10, at->y + 17);
    rp_text_cut(d->out, stage->name, NAME);
    fprintf(d->out, "</text><text x=\"%d\" y=\"%d\">", at->x + 10, at->y + 32);
    rp_text_cut(d->out, id, NAME + 2);
    fputs("</text><title>", d->out);
    rp_printf(d->out, "%s: %s", stage->name, id);
    for (size_t v = 0; v < stage->object.value_count; v++) {
        const sl_value *value = &stage->object.values[v];
        if (value->models != NULL && value->text != NULL)
            rp_printf(d->out, "; %s %s", value->param->name, value->text);
    }
    fputs("</title></g>\n", d->out);
}

/* Records go down; what skips a row goes around the boxes between, on their left. */
static void write_edge(const drawing *d, const placed *from, const placed *to, bool after)
{
    const int x0 = from->x + BOX_W / 2, y0 = from->y + BOX_H, x1 = to->x + BOX_W / 2, y1 = to->y - 1;
    const char *kind = after ? "edge after" : "edge";
    if (to->row == from->row + 1)
        fprintf(d->out, "<path class=\"%s\" marker-end=\"url(#arrow)\" d=\"M%d %dC%d %d %d %d %d %d\"/>\n", kind, x0,
                y0, x0, y0 + GAP_Y / 2, x1, y1 - GAP_Y / 2, x1, y1);
    else
        fprintf(d->out,
                "<path class=\"%s\" marker-end=\"url(#arrow)\" d=\"M%d %dC%d %d %d %d %d %dL%d %dC%d %d %d %d %d "
                "%d\"/>\n",
                kind, x0 - 40, y0, x0 - 40, y0 + 12, from->x - 8, y0 + 6, from->x - 8, y0 + 20, from->x - 8, y1 - 20,
                from->x - 8, y1 - 6, x1 - 40, y1 - 12, x1 - 40, y1);
}

/* From the rail into the box of a stage that reads, or from the box of the one that publishes to the rail. */
static void write_uses(const drawing *d, const frame *f, const sl_stage *stage)
{
    const placed *at = &f->stages[stage->index];
    bool reads[MOST_SLOTS] = {false}, publishes[MOST_SLOTS] = {false};
    for (size_t v = 0; v < stage->object.value_count; v++) {
        const sl_value *value = &stage->object.values[v];
        for (size_t k = 0; value->models != NULL && k < value->count; k++)
            if (value->models[k].slot < d->slots)
                *(value->models[k].next >= 0 ? &publishes[value->models[k].slot] : &reads[value->models[k].slot]) =
                    true;
    }
    int taken = 0;
    for (size_t s = 0; s < d->slots; s++) {
        const int x = at->x + BOX_W - 12 - 9 * taken, above = at->y - 9 - 3 * taken, below = at->y + BOX_H + 9;
        if (!reads[s] && !publishes[s])
            continue;
        fprintf(d->out, "<path class=\"rail c%zu\" d=\"M%d %dH%dV%d\"/><path class=\"f%zu\" d=\"M%d %dl-3.2-5h6.4z\"/>",
                s % 8, f->rail[s], above, x, at->y - 4, s % 8, x, at->y);
        fputc('\n', d->out);
        if (publishes[s])
            fprintf(d->out,
                    "<path class=\"rail c%zu\" d=\"M%d %dV%dH%d\"/><circle class=\"f%zu\" cx=\"%d\" cy=\"%d\" "
                    "r=\"3.4\"/>\n",
                    s % 8, x, at->y + BOX_H, below, f->rail[s], s % 8, f->rail[s], below);
        taken++;
    }
}

static bool used_later(const drawing *d, size_t phase, size_t slot)
{
    for (size_t p = phase + 1; p < d->plan->phase_count; p++)
        if (d->frames[p].uses[slot])
            return true;
    return false;
}

/* The rail of a slot in a frame, with its versions; and the way of the new one back to the lane. */
static void write_rail(const drawing *d, size_t phase, size_t slot, int *up)
{
    const frame *f = &d->frames[phase];
    const int lane = 12 + (int)slot * LANE, x = f->rail[slot], foot = f->y + f->height - FOOT / 2;
    const int end = f->publishes[slot] ? foot : f->y + f->height - FOOT;
    fprintf(d->out, "<path class=\"rail c%zu\" d=\"M%d %dV%d\"/>\n", slot % 8, x, lane, end);
    if (!f->publishes[slot])
        return;
    if (used_later(d, phase, slot)) {
        const int gap = f->x + f->width + 8 + 10 * (*up)++;
        fprintf(d->out, "<path class=\"rail c%zu\" d=\"M%d %dH%dV%d\"/>\n", slot % 8, x, foot, gap, lane);
    }
    write_pill(d, slot, f->end[slot], x + 8, foot);
}

/* From the slot's name to the last frame that uses it; a version that a phase publishes joins it behind that phase. */
static void write_lane(const drawing *d, size_t slot)
{
    const int lane = 12 + (int)slot * LANE;
    int from = -1, to = -1;
    for (size_t p = 0; p < d->plan->phase_count; p++) {
        const frame *f = &d->frames[p];
        if (!f->uses[slot])
            continue;
        if (from < 0)
            from = f->x;
        to = f->rail[slot];
    }
    if (from < 0)
        return;
    fprintf(d->out, "<path class=\"rail c%zu\" d=\"M%d %dH%d\"/>\n", slot % 8, from, lane, to);
}

static void write_frame(const drawing *d, size_t phase)
{
    const frame *f = &d->frames[phase];
    int up = 0;
    fprintf(d->out, "<rect class=\"frame\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"10\"/>", f->x, f->y,
            f->width, f->height);
    fprintf(d->out, "<text class=\"title\" x=\"%d\" y=\"%d\">", f->x + PAD, f->y + 24);
    rp_text_cut(d->out, f->phase->name, NAME);
    if (f->phase->repeat > 1)
        fprintf(d->out, " ×%lld", (long long)f->phase->repeat);
    fputs("</text>\n", d->out);
    for (size_t s = 0; s < d->slots; s++)
        if (f->uses[s])
            write_rail(d, phase, s, &up);
    for (size_t s = 0; s < f->phase->stage_count; s++) {
        const sl_stage *stage = &f->phase->stages[s];
        for (size_t k = 0; k < stage->from_count; k++)
            write_edge(d, &f->stages[stage->from[k]->index], &f->stages[s], false);
        for (size_t k = 0; k < stage->after_count; k++)
            write_edge(d, &f->stages[stage->after[k]->index], &f->stages[s], true);
        write_uses(d, f, stage);
    }
    for (size_t s = 0; s < f->phase->stage_count; s++)
        write_box(d, &f->phase->stages[s], &f->stages[s]);
}

static void write_start_pills(const drawing *d)
{
    for (size_t s = 0; s < d->slots; s++)
        for (size_t p = 0; p < d->plan->phase_count; p++) {
            const frame *f = &d->frames[p];
            if (!f->uses[s])
                continue;
            write_pill(d, s, f->start[s], f->rail[s] + 8, 12 + (int)s * LANE);
        }
}

/* What the drawing shows, for whoever cannot see it. */
static void write_label(const drawing *d)
{
    fputs(" role=\"img\" aria-label=\"", d->out);
    for (size_t p = 0; p < d->plan->phase_count; p++) {
        const sl_phase *phase = &d->plan->phases[p];
        rp_printf(d->out, "%sphase %s", p > 0 ? "; " : "Pipeline: ", phase->name);
        if (phase->repeat > 1)
            fprintf(d->out, ", %lld times", (long long)phase->repeat);
        for (size_t s = 0; s < phase->stage_count; s++)
            rp_printf(d->out, "%s %s (%s)", s > 0 ? "," : ":", phase->stages[s].name, phase->stages[s].id);
    }
    fputs("\">\n", d->out);
}

int rp_draw_plan(FILE *out, const sl_plan *plan, bool alone)
{
    drawing d = {.out = out, .plan = plan};
    sl_arena *arena = sl_arena_new();
    if (arena == NULL || !lay_out(&d, arena)) {
        sl_arena_free(arena);
        return SLUICE_NO_MEMORY;
    }
    fprintf(out, "<svg%s width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\"",
            alone ? " xmlns=\"http://www.w3.org/2000/svg\"" : "", d.width, d.height, d.width, d.height);
    write_label(&d);
    if (alone)
        fprintf(out, "<style>\n%s</style>\n", rp_drawing_style);
    fputs("<defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" "
          "markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0.5L8 4L0 7.5z\" fill=\"var(--soft)\"/></marker></defs>\n",
          out);
    for (size_t s = 0; s < d.slots; s++)
        write_lane(&d, s);
    for (size_t p = 0; p < d.plan->phase_count; p++)
        write_frame(&d, p);
    write_start_pills(&d);
    fputs("</svg>\n", out);
    sl_arena_free(arena);
    return SLUICE_OK;
}

void rp_write_graph(FILE *out, const rp_run *run)
{
    if (run->plan == NULL) {
        fputs("<p class=\"soft\">The pipeline file cannot be understood here.</p>\n", out);
        return;
    }
    fputs("<div class=\"scroll\" tabindex=\"0\">", out);
    rp_draw_plan(out, run->plan, false);
    fputs("</div>\n<p class=\"soft\">Grey arrows: records, dashed where a stage only waits for another. "
          "Coloured: versions of a model, read from the rail and published to it.</p>\n",
          out);
}
