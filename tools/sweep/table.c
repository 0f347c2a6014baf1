/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* From the runs' metrics to means with intervals, and to differences paired by seed. */
#include "tools/report/data.h"
#include "tools/report/interval.h"
#include "tools/sweep/sweep.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool is_wanted(const sl_words *metrics, const rp_run *run, const rp_line *line, const char *name)
{
    const size_t n = strlen(line->stage);
    for (size_t i = 0; i < metrics->count; i++)
        if (strncmp(metrics->items[i], line->stage, n) == 0 && metrics->items[i][n] == '/' &&
            strcmp(metrics->items[i] + n + 1, name) == 0)
            return true;
    const sl_stage *stage = metrics->count == 0 ? rp_stage(run, line->phase, line->stage) : NULL;
    if (stage == NULL)
        return false;
    const uint32_t kind = stage->object.type->type->kind;
    if (kind == SLUICE_RANKER || kind == SLUICE_REGULARIZER)
        return strcmp(name, "label_accuracy") == 0;
    return kind == SLUICE_EVALUATOR && ends_with(name, "accuracy");
}

static sw_row *row_of(sw_table *table, const rp_line *line, const char *metric)
{
    sl_arena *arena = table->sweep->arena;
    const sw_sweep *sweep = table->sweep;
    for (size_t i = 0; i < table->count; i++) {
        sw_row *row = &table->rows[i];
        if (row->iteration == line->iteration && strcmp(row->phase, line->phase) == 0 &&
            strcmp(row->stage, line->stage) == 0 && strcmp(row->metric, metric) == 0)
            return row;
    }
    sw_row *rows = rp_grow(arena, table->rows, table->count, sizeof *rows);
    if (rows == NULL)
        return NULL;
    table->rows = rows;
    sw_row *row = &rows[table->count];
    *row = (sw_row){.phase = sl_arena_strdup(arena, line->phase),
                    .stage = sl_arena_strdup(arena, line->stage),
                    .metric = sl_arena_strdup(arena, metric),
                    .iteration = line->iteration,
                    .cells = sl_arena_alloc(arena, sweep->variant_count * sizeof *row->cells)};
    if (row->phase == NULL || row->stage == NULL || row->metric == NULL || row->cells == NULL)
        return NULL;
    for (size_t v = 0; v < sweep->variant_count; v++) {
        row->cells[v].values = sl_arena_alloc(arena, sweep->seed_count * sizeof(double));
        if (row->cells[v].values == NULL)
            return NULL;
        for (size_t s = 0; s < sweep->seed_count; s++)
            row->cells[v].values[s] = NAN;
    }
    table->count++;
    return row;
}

static int read_run(sw_table *table, size_t r, const sl_words *metrics)
{
    char error[SL_ERROR_SIZE];
    const sw_sweep *sweep = table->sweep;
    int rc = SLUICE_OK;
    rp_run *run = rp_run_open(sweep->runs[r].folder, sweep->registry, error);
    for (size_t l = 0; run != NULL && l < run->line_count; l++) {
        const rp_line *line = &run->lines[l];
        for (size_t n = 0; rc >= 0 && line->step < 0 && n < line->count; n++) {
            if (!is_wanted(metrics, run, line, line->numbers[n].name))
                continue;
            sw_row *row = row_of(table, line, line->numbers[n].name);
            if (row != NULL)
                row->cells[r / sweep->seed_count].values[r % sweep->seed_count] = line->numbers[n].value;
            else
                rc = SLUICE_NO_MEMORY;
        }
    }
    rp_run_close(run);
    return rc;
}

static void settle(sw_row *row, size_t variants, size_t seeds, double *values)
{
    for (size_t v = 0; v < variants; v++) {
        sw_cell *cell = &row->cells[v];
        for (size_t s = 0; s < seeds; s++)
            if (isfinite(cell->values[s]))
                values[cell->count++] = cell->values[s];
        cell->half = rp_half_interval(values, cell->count, &cell->mean);
        for (size_t s = 0; v > 0 && s < seeds; s++)
            if (isfinite(cell->values[s]) && isfinite(row->cells[0].values[s]))
                values[cell->pairs++] = cell->values[s] - row->cells[0].values[s];
        cell->change_half = rp_half_interval(values, cell->pairs, &cell->change);
    }
}

/* Rows of one metric of a stage come together, in the order in which the first of them was met. */
static void sort(sw_table *table)
{
    for (size_t i = 1; i < table->count; i++)
        for (size_t k = i; k > 0; k--) {
            const sw_row *a = &table->rows[k - 1], *b = &table->rows[k];
            bool before = false; /* is there one of b's kind before a, and is a of another? */
            if (strcmp(a->phase, b->phase) == 0 && strcmp(a->stage, b->stage) == 0 &&
                strcmp(a->metric, b->metric) == 0) {
                before = a->iteration > b->iteration;
            } else {
                for (size_t j = 0; j + 1 < k; j++)
                    before = before || (strcmp(table->rows[j].phase, b->phase) == 0 &&
                                        strcmp(table->rows[j].stage, b->stage) == 0 &&
                                        strcmp(table->rows[j].metric, b->metric) == 0);
            }
            if (!before)
                break;
            const sw_row keep = table->rows[k];
            table->rows[k] = table->rows[k - 1];
            table->rows[k - 1] = keep;
        }
}

int sw_table_read(sw_sweep *sweep, const sl_words *metrics, sw_table *table)
{
    double *values = sl_arena_alloc(sweep->arena, sweep->seed_count * sizeof *values);
    int rc = values != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
    *table = (sw_table){.sweep = sweep};
    for (size_t r = 0; rc >= 0 && r < sweep->run_count; r++)
        if (sweep->runs[r].state == SW_DONE)
            rc = read_run(table, r, metrics);
    for (size_t i = 0; rc >= 0 && i < table->count; i++)
        settle(&table->rows[i], sweep->variant_count, sweep->seed_count, values);
    sort(table);
    return rc;
}
