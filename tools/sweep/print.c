/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The table as Markdown, CSV and JSON. */
#include "core/base/json.h"
#include "tools/report/page.h"
#include "tools/sweep/sweep.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CELL = 64 };

/* Rows [first, next) are the iterations of one metric of a stage. */
static size_t next_metric(const sw_table *table, size_t first)
{
    const sw_row *a = &table->rows[first];
    size_t next = first + 1;
    while (next < table->count && strcmp(table->rows[next].stage, a->stage) == 0 &&
           strcmp(table->rows[next].metric, a->metric) == 0 && strcmp(table->rows[next].phase, a->phase) == 0)
        next++;
    return next;
}

/* ---- Markdown */

/* "66.1 ± 0.4", "+2.0 ± 0.9"; of one run without interval. */
static const char *cell_text(const sw_row *row, double value, double half, size_t count, bool sign, char text[CELL])
{
    const bool share = rp_is_share(row->metric);
    const double scale = share ? 100 : 1;
    int n = 0;
    if (count == 0)
        snprintf(text, CELL, "–");
    else if (share)
        n = snprintf(text, CELL, sign ? "%+.1f" : "%.1f", scale * value);
    else
        n = snprintf(text, CELL, sign ? "%+.4g" : "%.4g", value);
    if (count > 1 && n > 0)
        snprintf(text + n, (size_t)(CELL - n), share ? " ± %.1f" : " ± %.2g", scale * half);
    return text;
}

/* One table: its cells as text first, so that columns can be made as wide as they must be. */
typedef struct sheet {
    char (*cells)[CELL];
    size_t rows, columns;
} sheet;

static char *at(const sheet *s, size_t row, size_t column)
{
    return s->cells[row * s->columns + column];
}

static size_t letters(const char *text)
{
    size_t n = 0;
    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xC0) != 0x80;
    return n;
}

static void pad(FILE *out, size_t count, char with)
{
    while (count-- > 0)
        fputc(with, out);
}

static size_t width_of(const sheet *s, size_t column)
{
    size_t width = 3;
    for (size_t r = 0; r < s->rows; r++)
        width = letters(at(s, r, column)) > width ? letters(at(s, r, column)) : width;
    return width;
}

/* Names to the left, numbers to the right. */
static void print_sheet(const sheet *s, FILE *out)
{
    for (size_t r = 0; r < s->rows; r++) {
        fputc('|', out);
        for (size_t c = 0; c < s->columns; c++) {
            const char *text = at(s, r, c);
            const size_t gap = width_of(s, c) - letters(text);
            fputc(' ', out);
            pad(out, c > 0 ? gap : 0, ' ');
            fputs(text, out);
            pad(out, c == 0 ? gap : 0, ' ');
            fputs(" |", out);
        }
        fputc('\n', out);
        for (size_t c = 0; r == 0 && c < s->columns; c++) {
            fputs(c == 0 ? "|" : "", out);
            pad(out, width_of(s, c) + (c == 0 ? 2 : 1), '-');
            fputs(c == 0 ? "|" : ":|", out);
        }
        if (r == 0)
            fputc('\n', out);
    }
}

/* Columns: the variant, each iteration, and the last iteration's difference to the first variant. */
static void fill(const sw_table *table, size_t first, size_t next, sheet *s)
{
    const sw_sweep *sweep = table->sweep;
    const sw_row *last = &table->rows[next - 1];
    const bool differs = sweep->variant_count > 1;
    snprintf(at(s, 0, 0), CELL, "variant");
    for (size_t i = first; i < next; i++)
        snprintf(at(s, 0, i - first + 1), CELL, "%s %lld", table->rows[i].phase, (long long)table->rows[i].iteration);
    if (differs)
        snprintf(at(s, 0, next - first + 1), CELL, "%.20s %lld − %.30s", last->phase, (long long)last->iteration,
                 sweep->variants[0]);
    for (size_t v = 0; v < sweep->variant_count; v++) {
        snprintf(at(s, v + 1, 0), CELL, "%.60s", sweep->variants[v]);
        for (size_t i = first; i < next; i++) {
            const sw_cell *c = &table->rows[i].cells[v];
            cell_text(&table->rows[i], c->mean, c->half, c->count, false, at(s, v + 1, i - first + 1));
        }
        const sw_cell *c = &last->cells[v];
        if (differs && v > 0)
            cell_text(last, c->change, c->change_half, c->pairs, true, at(s, v + 1, next - first + 1));
    }
}

void sw_table_print(const sw_table *table, FILE *out)
{
    const sw_sweep *sweep = table->sweep;
    size_t done = 0;
    for (size_t r = 0; r < sweep->run_count; r++)
        done += sweep->runs[r].state == SW_DONE;
    fprintf(
        out,
        "%zu of %zu runs: %zu variant%s, %zu seed%s. Means ± half the 95 %% interval (Student's t); differences are "
        "paired by seed.\n",
        done, sweep->run_count, sweep->variant_count, sweep->variant_count == 1 ? "" : "s", sweep->seed_count,
        sweep->seed_count == 1 ? "" : "s");
    if (table->count == 0)
        fputs("\nNo run reported a number that is asked for.\n", out);
    for (size_t first = 0, next; first < table->count; first = next) {
        const sw_row *row = &table->rows[first];
        next = next_metric(table, first);
        sheet s = {.rows = sweep->variant_count + 1, .columns = next - first + 1 + (sweep->variant_count > 1)};
        s.cells = calloc(s.rows * s.columns, sizeof *s.cells);
        if (s.cells == NULL)
            return;
        fill(table, first, next, &s);
        fprintf(out, "\n%s/%s%s\n\n", row->stage, row->metric, rp_is_share(row->metric) ? " (%)" : "");
        print_sheet(&s, out);
        free(s.cells);
    }
}

/* ---- CSV */

static void csv_number(FILE *out, double value)
{
    sl_buffer text = {0};
    if (isfinite(value) && sl_json_double(&text, value) >= 0)
        fprintf(out, ",%.*s", (int)text.size, (const char *)text.data);
    else
        fputc(',', out);
    sl_buffer_free(&text);
}

static void csv_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text != '\0'; text++)
        fputs(*text == '"' ? "\"\"" : (char[]){*text, '\0'}, out);
    fputc('"', out);
}

static void print_csv(const sw_table *table, FILE *out)
{
    const sw_sweep *sweep = table->sweep;
    fputs("stage,metric,phase,iteration,variant,runs,mean,low,high,pairs,difference,difference_low,difference_high\n",
          out);
    for (size_t i = 0; i < table->count; i++)
        for (size_t v = 0; v < sweep->variant_count; v++) {
            const sw_row *row = &table->rows[i];
            const sw_cell *c = &row->cells[v];
            csv_text(out, row->stage);
            fputc(',', out);
            csv_text(out, row->metric);
            fputc(',', out);
            csv_text(out, row->phase);
            fprintf(out, ",%lld,", (long long)row->iteration);
            csv_text(out, sweep->variants[v]);
            fprintf(out, ",%zu", c->count);
            csv_number(out, c->mean);
            csv_number(out, c->mean - c->half);
            csv_number(out, c->mean + c->half);
            fprintf(out, ",%zu", c->pairs);
            csv_number(out, c->change);
            csv_number(out, c->change - c->change_half);
            csv_number(out, c->change + c->change_half);
            fputc('\n', out);
        }
}

/* ---- JSON */

static void json_text(FILE *out, const char *text)
{
    sl_buffer bytes = {0};
    sl_json_string(&bytes, text, strlen(text));
    fwrite(bytes.data, 1, bytes.size, out);
    sl_buffer_free(&bytes);
}

static void json_number(FILE *out, const char *name, double value)
{
    sl_buffer bytes = {0};
    sl_json_double(&bytes, value);
    fprintf(out, "%s%.*s", name, (int)bytes.size, (const char *)bytes.data);
    sl_buffer_free(&bytes);
}

static void json_cell(const sw_table *table, const sw_cell *c, bool first, FILE *out)
{
    const sw_sweep *sweep = table->sweep;
    fprintf(out, "{\"runs\":%zu", c->count);
    json_number(out, ",\"mean\":", c->mean);
    json_number(out, ",\"low\":", c->mean - c->half);
    json_number(out, ",\"high\":", c->mean + c->half);
    if (!first) {
        fprintf(out, ",\"difference\":{\"pairs\":%zu", c->pairs);
        json_number(out, ",\"mean\":", c->change);
        json_number(out, ",\"low\":", c->change - c->change_half);
        json_number(out, ",\"high\":", c->change + c->change_half);
        fputc('}', out);
    }
    fputs(",\"values\":{", out);
    for (size_t s = 0; s < sweep->seed_count; s++) {
        fprintf(out, "%s\"%llu\":", s > 0 ? "," : "", (unsigned long long)sweep->seeds[s]);
        json_number(out, "", c->values[s]);
    }
    fputs("}}", out);
}

static void print_json(const sw_table *table, FILE *out)
{
    static const char *const states[] = {"waiting", "running", "done", "failed", "stopped"};
    const sw_sweep *sweep = table->sweep;
    fputs("{\"runs\":[", out);
    for (size_t r = 0; r < sweep->run_count; r++) {
        const sw_run *run = &sweep->runs[r];
        fputs(r > 0 ? ",\n  {\"variant\":" : "\n  {\"variant\":", out);
        json_text(out, run->variant);
        fprintf(out, ",\"seed\":%llu,\"folder\":", (unsigned long long)run->seed);
        json_text(out, run->name);
        fprintf(out, ",\"state\":\"%s\"}", states[run->state]);
    }
    fputs("],\n \"rows\":[", out);
    for (size_t i = 0; i < table->count; i++) {
        const sw_row *row = &table->rows[i];
        fputs(i > 0 ? ",\n  {\"stage\":" : "\n  {\"stage\":", out);
        json_text(out, row->stage);
        fputs(",\"metric\":", out);
        json_text(out, row->metric);
        fputs(",\"phase\":", out);
        json_text(out, row->phase);
        fprintf(out, ",\"iteration\":%lld,\"variants\":{", (long long)row->iteration);
        for (size_t v = 0; v < sweep->variant_count; v++) {
            fputs(v > 0 ? ",\n    " : "\n    ", out);
            json_text(out, sweep->variants[v]);
            fputc(':', out);
            json_cell(table, &row->cells[v], v == 0, out);
        }
        fputs("}}", out);
    }
    fputs("]}\n", out);
}

int sw_table_write(const sw_table *table, char *error)
{
    static const struct {
        const char *name;
        void (*print)(const sw_table *, FILE *);
    } forms[] = {{"table.json", print_json}, {"table.csv", print_csv}, {"table.md", sw_table_print}};
    int rc = SLUICE_OK;
    for (size_t i = 0; rc >= 0 && i < sizeof forms / sizeof *forms; i++) {
        char *text = NULL;
        size_t size = 0;
        FILE *memory = open_memstream(&text, &size);
        const char *path = sl_arena_printf(table->sweep->arena, "%s/%s", table->sweep->folder, forms[i].name);
        rc = memory != NULL && path != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
        snprintf(error, SL_ERROR_SIZE, "out of memory");
        if (rc >= 0)
            forms[i].print(table, memory);
        if (memory != NULL && (ferror(memory) | fclose(memory)) != 0)
            rc = SLUICE_NO_MEMORY;
        if (rc >= 0)
            rc = sl_file_write(path, text, size, error);
        free(text);
    }
    return rc;
}
