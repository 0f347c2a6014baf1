/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/run/table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum format { SHARE, PLAIN };

/* Metrics that become columns, in this order. `as` names the same column for a metric of another name. */
static const struct column {
    const char *metric, *title;
    enum format format;
    int digits;
    uint32_t kinds; /* whose number it is: bits 1 << sluice_kind */
    bool training;  /* of interest where nobody evaluated */
} columns[] = {
#define OF(kind) (1u << (kind))
    {"accuracy", "accuracy (95 %)", SHARE, 1, OF(SLUICE_EVALUATOR), false},
    {"label_accuracy", "label accuracy", SHARE, 1, OF(SLUICE_EVALUATOR) | OF(SLUICE_RANKER) | OF(SLUICE_REGULARIZER),
     false},
    {"consistency", "consistency", PLAIN, 3, OF(SLUICE_REGULARIZER), false},
    {"kl", "KL to start", PLAIN, 3, OF(SLUICE_EVALUATOR), false},
    {"perplexity", "perplexity", PLAIN, 3, OF(SLUICE_EVALUATOR), false},
    {"mean_length", "length", PLAIN, 1, OF(SLUICE_EVALUATOR), false},
    {"rewards/accuracies", "reward accuracy", SHARE, 1, OF(SLUICE_TRAINER), false},
    {"pairs", "pairs", PLAIN, 0, OF(SLUICE_RANKER), true},
    {"train_loss", "training loss", PLAIN, 4, OF(SLUICE_TRAINER), true},
#undef OF
};
enum { COLUMNS = sizeof columns / sizeof *columns, CELL = 40, LABEL = 160 };

typedef struct row {
    const char *slot, *phase;
    const char *trainer;                                /* the stage whose training loss it is */
    int64_t version, iteration, repeat;                 /* version 0 has no phase */
    double value[COLUMNS], low[COLUMNS], high[COLUMNS]; /* NaN = absent */
} row;

typedef struct table {
    row *rows;
    size_t count;
} table;

static double number(const sl_table_entry *entry, const char *metric, const char *end)
{
    const size_t n = strlen(metric);
    for (size_t i = 0; i < entry->count; i++)
        if (strncmp(entry->numbers[i].name, metric, n) == 0 && strcmp(entry->numbers[i].name + n, end) == 0)
            return entry->numbers[i].value;
    return NAN;
}

static row *row_of(table *t, const char *slot, int64_t version)
{
    for (size_t i = 0; i < t->count; i++)
        if (strcmp(t->rows[i].slot, slot) == 0 && t->rows[i].version == version)
            return &t->rows[i];
    row *r = &t->rows[t->count++];
    *r = (row){.slot = slot, .version = version};
    for (int c = 0; c < COLUMNS; c++)
        r->value[c] = r->low[c] = r->high[c] = NAN;
    return r;
}

/* The publication of the entry's phase and iteration. */
static const sl_table_entry *publication(const sl_table_entry *entries, size_t count, const sl_table_entry *of)
{
    for (size_t i = 0; i < count; i++)
        if (entries[i].publishes && strcmp(entries[i].phase, of->phase) == 0 && entries[i].iteration == of->iteration)
            return &entries[i];
    return NULL;
}

static int by_version(const void *a, const void *b)
{
    const row *x = a, *y = b;
    return x->version < y->version ? -1 : x->version > y->version;
}

static bool fill(table *t, const sl_table_entry *entries, size_t count)
{
    t->rows = calloc(count + 1, sizeof *t->rows);
    t->count = 0;
    for (size_t i = 0; t->rows != NULL && i < count; i++) {
        const sl_table_entry *entry = &entries[i], *about = entry;
        if (entry->kind != SLUICE_EVALUATOR || entry->slot == NULL)
            about = publication(entries, count, entry);
        if (about == NULL)
            continue;
        bool any = false;
        for (int c = 0; c < COLUMNS; c++)
            any = any || ((columns[c].kinds & (1u << entry->kind)) && !isnan(number(entry, columns[c].metric, "")));
        if (!any)
            continue;
        row *r = row_of(t, about->slot, about->version);
        if (about->version > 0 && (r->phase == NULL || entry->publishes)) {
            r->phase = entry->phase;
            r->iteration = entry->iteration;
            r->repeat = entry->repeat;
        }
        for (int c = 0; c < COLUMNS; c++) {
            const double value = number(entry, columns[c].metric, "");
            /* A regularizer comes after the ranker and may have exchanged labels: its word is the last. */
            if (!(columns[c].kinds & (1u << entry->kind)) || isnan(value) ||
                (!isnan(r->value[c]) && entry->kind != SLUICE_REGULARIZER))
                continue;
            r->value[c] = value;
            if (entry->kind == SLUICE_TRAINER)
                r->trainer = entry->stage;
            r->low[c] = number(entry, columns[c].metric, "/low");
            r->high[c] = number(entry, columns[c].metric, "/high");
        }
    }
    return t->rows != NULL;
}

static bool has_column(const table *t, int c)
{
    for (size_t i = 0; t != NULL && i < t->count; i++)
        if (!isnan(t->rows[i].value[c]))
            return true;
    return false;
}

static bool was_evaluated(const table *t)
{
    for (int c = 0; c < COLUMNS; c++)
        if ((columns[c].kinds & (1u << SLUICE_EVALUATOR)) && has_column(t, c))
            return true;
    return false;
}

/* The rows of one slot, oldest version first; the caller frees. Where somebody evaluated, training's own numbers step
 * back. */
static table of_slot(const table *all, const char *slot)
{
    table t = {calloc(all->count + 1, sizeof *t.rows), 0};
    for (size_t i = 0; t.rows != NULL && i < all->count; i++)
        if (strcmp(all->rows[i].slot, slot) == 0)
            t.rows[t.count++] = all->rows[i];
    if (t.rows == NULL)
        return t;
    const bool evaluated = was_evaluated(&t);
    size_t kept = 0;
    for (size_t i = 0; i < t.count; i++) {
        bool any = false;
        for (int c = 0; c < COLUMNS; c++) {
            if (evaluated && columns[c].training)
                t.rows[i].value[c] = NAN;
            any = any || !isnan(t.rows[i].value[c]);
        }
        if (any)
            t.rows[kept++] = t.rows[i];
    }
    t.count = kept;
    qsort(t.rows, t.count, sizeof *t.rows, by_version);
    return t;
}

static size_t trained(const table *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->count; i++)
        n += t->rows[i].version > 0;
    return n;
}

static const row *with_version(const table *t, int64_t version)
{
    for (size_t i = 0; i < t->count; i++)
        if (t->rows[i].version == version)
            return &t->rows[i];
    return NULL;
}

static void cell(const row *r, int c, char *text)
{
    const struct column *column = &columns[c];
    if (r == NULL || isnan(r->value[c])) {
        snprintf(text, CELL, "-");
    } else if (column->format == SHARE) {
        int n = snprintf(text, CELL, "%.*f", column->digits, 100 * r->value[c]);
        if (!isnan(r->low[c]) && !isnan(r->high[c]))
            n += snprintf(text + n, (size_t)(CELL - n), " [%.1f, %.1f]", 100 * r->low[c], 100 * r->high[c]);
        else
            snprintf(text + n, (size_t)(CELL - n), " %%");
    } else {
        snprintf(text, CELL, "%.*f", column->digits, r->value[c]);
    }
}

static void label(const row *r, char *text, size_t size)
{
    int n = snprintf(text, size, "%s@%lld", r->slot, (long long)r->version);
    if (r->phase != NULL && n > 0 && (size_t)n < size && r->repeat > 1)
        snprintf(text + n, size - (size_t)n, "  %s %lld/%lld", r->phase, (long long)r->iteration + 1,
                 (long long)r->repeat);
    else if (r->phase != NULL && n > 0 && (size_t)n < size)
        snprintf(text + n, size - (size_t)n, "  %s", r->phase);
}

/* One column: its title and one cell a row. The first is that of the versions. */
typedef struct told_column {
    char title[64];
    char (*cells)[LABEL];
    size_t width;
} told_column;

static size_t widest(const told_column *p, size_t rows)
{
    size_t width = strlen(p->title);
    for (size_t i = 0; i < rows; i++)
        width = strlen(p->cells[i]) > width ? strlen(p->cells[i]) : width;
    return width;
}

/* The columns of a table and of the control beside it; `columns` has room for all. Returns how many. */
static size_t collect(const table *main, const table *beside, told_column *told)
{
    size_t count = 0;
    for (int side = 0; side < 2; side++)
        for (int c = side == 0 ? -1 : 0; c < COLUMNS; c++) {
            const table *t = side == 0 ? main : beside;
            if (c >= 0 && !has_column(t, c))
                continue;
            if (side == 1 && c > 1) /* of the control only what the claim is about: right answers, right labels */
                continue;
            told_column *p = &told[count];
            if (c < 0)
                snprintf(p->title, sizeof p->title, "version");
            else
                snprintf(p->title, sizeof p->title, "%s%s%s", side == 1 ? t->rows[0].slot : "", side == 1 ? ": " : "",
                         columns[c].title);
            p->cells = calloc(main->count + 1, sizeof *p->cells);
            if (p->cells == NULL)
                return count;
            for (size_t i = 0; i < main->count; i++) {
                if (c < 0)
                    label(&main->rows[i], p->cells[i], LABEL);
                else
                    cell(side == 0 ? &main->rows[i] : with_version(t, main->rows[i].version), c, p->cells[i]);
            }
            p->width = widest(p, main->count);
            count++;
        }
    return count;
}

static void tell_rows(const table *main, const table *beside, const sl_table_listener *listener, void *context)
{
    told_column told[2 * COLUMNS + 1];
    const char *texts[2 * COLUMNS + 1];
    size_t widths[2 * COLUMNS + 1];
    const size_t count = collect(main, beside, told);
    for (size_t c = 0; c < count; c++) {
        texts[c] = told[c].title;
        widths[c] = told[c].width;
    }
    listener->begin(context, count, texts, widths);
    for (size_t i = 0; i < main->count; i++) {
        for (size_t c = 0; c < count; c++)
            texts[c] = told[c].cells[i];
        listener->row(context, count, texts);
    }
    listener->end(context);
    for (size_t c = 0; c < count; c++)
        free(told[c].cells);
}

/* How often judges preferred the better answer: a row for each evaluator and iteration that says so. */
static void tell_judges(const sl_table_entry *entries, size_t count, const sl_table_listener *listener, void *context)
{
    enum { STAGE, PAIRS, RIGHT, PARTS };
    static const char *const titles[PARTS] = {"evaluation", "pairs", "judge right (95 %)"};
    size_t widths[PARTS];
    for (int part = 0; part < PARTS; part++)
        widths[part] = strlen(titles[part]);
    for (int pass = 0; pass < 2; pass++) { /* widths, then rows */
        size_t rows = 0;
        for (size_t i = 0; i < count; i++) {
            const sl_table_entry *e = &entries[i];
            const double right = number(e, "pair_accuracy", ""), pairs = number(e, "pairs_judged", "");
            const double low = number(e, "pair_accuracy", "/low"), high = number(e, "pair_accuracy", "/high");
            char stage[LABEL], judged[CELL], share[CELL];
            if (e->kind != SLUICE_EVALUATOR || e->stage == NULL || isnan(right) || isnan(low) || isnan(high))
                continue;
            if (e->repeat > 1)
                snprintf(stage, sizeof stage, "%s  %s %lld/%lld", e->stage, e->phase, (long long)e->iteration + 1,
                         (long long)e->repeat);
            else
                snprintf(stage, sizeof stage, "%s  %s", e->stage, e->phase);
            snprintf(judged, sizeof judged, "%.0f", pairs);
            snprintf(share, sizeof share, "%.1f [%.1f, %.1f]", 100 * right, 100 * low, 100 * high);
            const char *const cells[PARTS] = {stage, judged, share};
            for (int part = 0; part < PARTS; part++)
                widths[part] = strlen(cells[part]) > widths[part] ? strlen(cells[part]) : widths[part];
            if (pass == 1 && rows == 0)
                listener->begin(context, PARTS, titles, widths);
            if (pass == 1)
                listener->row(context, PARTS, cells);
            rows++;
        }
        if (pass == 1 && rows > 0)
            listener->end(context);
    }
}

static const row *edge(const table *t, int c, bool last)
{
    const row *found = NULL;
    for (size_t i = 0; i < t->count; i++)
        if (!isnan(t->rows[i].value[c]) && (found == NULL || last))
            found = &t->rows[i];
    return found;
}

/* The first row that can be compared with the last: losses of one training stage only, as another has another loss or
 * other data. */
static const row *comparable(const table *t, int c, const row *last)
{
    for (size_t i = 0; last != NULL && columns[c].kinds == 1u << SLUICE_TRAINER && i < t->count; i++)
        if (!isnan(t->rows[i].value[c]) && strcmp(t->rows[i].trainer, last->trainer) == 0)
            return &t->rows[i];
    return edge(t, c, false);
}

static const char *overlap(const row *a, const row *b, int c)
{
    if (isnan(a->low[c]) || isnan(b->low[c]))
        return "";
    return a->low[c] <= b->high[c] && b->low[c] <= a->high[c] ? " (their 95 % intervals overlap)"
                                                              : " (their 95 % intervals do not overlap)";
}

/* "Accuracy rose from 58.0 (policy@0) to 66.1 (policy@3), 8.1 points over 3 trained versions (…)." */
static void sentence(const table *t, const table *control, FILE *out)
{
    static const struct {
        const char *metric, *name;
    } told[] = {{"accuracy", "Accuracy"}, {"perplexity", "Perplexity"}, {"train_loss", "The training loss"}};
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
        int c = 0;
        while (strcmp(columns[c].metric, told[i].metric) != 0)
            c++;
        const row *to = edge(t, c, true), *from = comparable(t, c, to);
        if (from == NULL || from == to)
            continue;
        const double scale = columns[c].format == SHARE ? 100 : 1, change = scale * (to->value[c] - from->value[c]);
        const char *unit = scale == 100 ? " points" : "";
        fprintf(out, "%s %s from %.*f (%s@%lld) to %.*f (%s@%lld), %.*f%s%s.", told[i].name,
                change > 0   ? "rose"
                : change < 0 ? "fell"
                             : "went",
                columns[c].digits, scale * from->value[c], from->slot, (long long)from->version, columns[c].digits,
                scale * to->value[c], to->slot, (long long)to->version, columns[c].digits, fabs(change), unit,
                overlap(from, to, c));
        const row *other = control != NULL ? edge(control, c, true) : NULL;
        if (other != NULL) {
            const double gap = scale * (other->value[c] - to->value[c]);
            fprintf(out, " %s@%lld ended at %.*f, %.*f%s %s%s.", other->slot, (long long)other->version,
                    columns[c].digits, scale * other->value[c], columns[c].digits, fabs(gap), unit,
                    gap < 0 ? "below it" : "above it", overlap(to, other, c));
        }
        fputc('\n', out);
        return;
    }
}

/* "best: policy@5 is policy@3, the best of 4 versions (0.612)." for each stage that chose among versions. */
static void tell_kept(const sl_table_entry *entries, size_t count, const sl_table_listener *listener, void *context)
{
    for (size_t i = 0; i < count; i++) {
        const sl_table_entry *e = &entries[i];
        const double kept = number(e, "kept_version", ""), versions = number(e, "versions", "");
        char text[512];
        if (e->slot == NULL || !e->publishes || isnan(kept) || isnan(versions))
            continue;
        snprintf(text, sizeof text, "%s: %s@%lld is %s@%.0f, the best of %.0f version%s (%.6g).\n", e->stage, e->slot,
                 (long long)e->version, e->slot, kept, versions, versions == 1 ? "" : "s", number(e, "kept_value", ""));
        listener->sentence(context, text);
    }
}

static void tell_sentence(const table *t, const table *control, const sl_table_listener *listener, void *context)
{
    char *text = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    if (memory == NULL)
        return;
    sentence(t, control, memory);
    if (fclose(memory) == 0 && size > 0)
        listener->sentence(context, text);
    free(text);
}

void sl_table_tell(const sl_table_entry *entries, size_t count, const sl_table_listener *listener, void *context)
{
    table all;
    if (fill(&all, entries, count) && all.count > 0) {
        const char *main_slot = all.rows[0].slot, *beside_slot = NULL;
        table main = of_slot(&all, main_slot), beside = {NULL, 0};
        for (size_t i = 0; i < all.count && beside_slot == NULL; i++) {
            if (strcmp(all.rows[i].slot, main_slot) == 0)
                continue;
            table other = of_slot(&all, all.rows[i].slot);
            if (trained(&other) == trained(&main) && edge(&other, 0, true) != NULL) {
                beside_slot = all.rows[i].slot;
                beside = other;
            } else {
                free(other.rows);
            }
        }
        const table *control = beside_slot != NULL ? &beside : NULL;
        tell_rows(&main, control, listener, context);
        for (size_t i = 0; i < all.count; i++) { /* what stands beside nothing has a table of its own */
            const char *slot = all.rows[i].slot;
            bool first = strcmp(slot, main_slot) != 0 && (beside_slot == NULL || strcmp(slot, beside_slot) != 0);
            for (size_t k = 0; k < i && first; k++)
                first = strcmp(all.rows[k].slot, slot) != 0;
            if (!first)
                continue;
            table other = of_slot(&all, slot);
            tell_rows(&other, NULL, listener, context);
            free(other.rows);
        }
        tell_judges(entries, count, listener, context);
        tell_sentence(&main, control, listener, context);
        free(main.rows);
        free(beside.rows);
    } else {
        tell_judges(entries, count, listener, context);
    }
    tell_kept(entries, count, listener, context);
    free(all.rows);
}

/* ---- as text: the versions to the left, numbers to the right of their columns. */

typedef struct printer {
    FILE *out;
    size_t widths[2 * COLUMNS + 1];
} printer;

static void print_row(void *context, size_t count, const char *const *cells)
{
    const printer *p = context;
    for (size_t c = 0; c < count; c++)
        fprintf(p->out, c == 0 ? "%-*s" : "  %*s", (int)p->widths[c], cells[c]);
    fputc('\n', p->out);
}

static void print_heading(void *context, size_t count, const char *const *titles, const size_t *widths)
{
    printer *p = context;
    memcpy(p->widths, widths, count * sizeof *widths);
    fputc('\n', p->out);
    print_row(p, count, titles);
}

static void print_end(void *context)
{
    (void)context;
}

static void print_sentence(void *context, const char *text)
{
    const printer *p = context;
    fprintf(p->out, "\n%s", text);
}

void sl_table_print(const sl_table_entry *entries, size_t count, FILE *out)
{
    static const sl_table_listener listener = {print_heading, print_row, print_end, print_sentence};
    printer p = {.out = out};
    sl_table_tell(entries, count, &listener, &p);
}
