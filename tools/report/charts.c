/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* From curves to charts: which of them share one, in which order, under which names. */
#include "tools/report/curves.h"
#include "tools/report/page.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_SERIES = 24 };

/* Curves that are read beside each other. */
static const struct shared {
    const char *metric, *title, *part;
} shared[] = {{"rewards/chosen", "rewards", "chosen"},
              {"rewards/rejected", "rewards", "rejected"},
              {"logps/chosen", "log-probabilities", "chosen"},
              {"logps/rejected", "log-probabilities", "rejected"}};

/* What people look at first; the rest follows as it comes. */
static const char *const first_titles[] = {
    "accuracy",        "label_accuracy", "consistency",       "kl",       "perplexity", "loss", "rewards/accuracies",
    "rewards/margins", "rewards",        "log-probabilities", "grad_norm"};

static const struct shared *shared_of(const char *metric)
{
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++)
        if (strcmp(shared[i].metric, metric) == 0)
            return &shared[i];
    return NULL;
}

static const char *title_of(const rp_curve *curve)
{
    const struct shared *s = shared_of(curve->metric);
    return s != NULL ? s->title : curve->metric;
}

static size_t rank(const char *title)
{
    size_t i = 0;
    while (i < sizeof first_titles / sizeof *first_titles && strcmp(first_titles[i], title) != 0)
        i++;
    return i;
}

/* A curve, the set it is of, and where it came; a chart is the curves from `begin` up to `end` of such a list. */
typedef struct entry {
    const rp_curve *curve;
    size_t set, order;
} entry;

typedef struct plan {
    const entry *begin, *end;
} plan;

static int chart_order(const rp_curve *a, const rp_curve *b)
{
    const int titles = strcmp(title_of(a), title_of(b));
    return titles != 0 ? titles : strcmp(a->family, b->family);
}

static int by_chart(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    const int order = chart_order(x->curve, y->curve);
    return order != 0 ? order : x->order < y->order ? -1 : 1;
}

static int by_rank(const void *a, const void *b)
{
    const plan *x = a, *y = b;
    const size_t i = rank(title_of(x->begin->curve)), j = rank(title_of(y->begin->curve));
    if (i != j)
        return i < j ? -1 : 1;
    return x->begin->order < y->begin->order ? -1 : x->begin->order > y->begin->order;
}

/* The charts of all sets, in entries; the caller frees both. */
static plan *plan_charts(const rp_curves *sets, size_t count, bool training, entry **entries, size_t *charts)
{
    size_t total = 0, n = 0;
    for (size_t s = 0; s < count; s++)
        total += sets[s].count;
    plan *plans = calloc(total + 1, sizeof *plans);
    entry *all = *entries = calloc(total + 1, sizeof *all);
    *charts = 0;
    if (plans == NULL || all == NULL)
        return plans;
    for (size_t s = 0; s < count; s++)
        for (size_t i = 0; i < sets[s].count; i++)
            if (sets[s].items[i].training == training) {
                all[n] = (entry){&sets[s].items[i], s, n};
                n++;
            }
    qsort(all, n, sizeof *all, by_chart);
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && chart_order(all[i].curve, all[end].curve) == 0;)
            end++;
        plans[(*charts)++] = (plan){&all[i], &all[end]};
    }
    qsort(plans, *charts, sizeof *plans, by_rank);
    return plans;
}

static bool several_families(const plan *plans, size_t charts)
{
    for (size_t i = 1; i < charts; i++)
        if (strcmp(plans[i].begin->curve->family, plans[0].begin->curve->family) != 0)
            return true;
    return false;
}

/* "align-cream · policy · chosen": whatever of it tells curves of this page apart. */
static const char *label_of(const rp_curve *curve, const char *set, bool one_series, char *text, size_t size)
{
    const struct shared *s = shared_of(curve->metric);
    const char *parts[] = {set, one_series && (set != NULL || s != NULL) ? NULL : curve->series,
                           s != NULL ? s->part : NULL};
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < 3; i++)
        if (parts[i] != NULL && used < size)
            used += (size_t)snprintf(text + used, size - used, "%s%s", used > 0 ? " · " : "", parts[i]);
    return text;
}

static bool one_series(const plan *chart)
{
    for (const entry *e = chart->begin; e < chart->end; e++)
        if (strcmp(e->curve->series, chart->begin->curve->series) != 0)
            return false;
    return true;
}

/* A line needs two points; what never changes says nothing. */
static bool is_worth(const rp_series *series, size_t count)
{
    bool two = false, any = false;
    for (size_t s = 0; s < count; s++) {
        two = two || series[s].count > 1;
        for (size_t i = 0; i < series[s].count; i++)
            any = any || series[s].points[i].y != series[0].points[0].y;
    }
    return two && any;
}

static bool write_chart(FILE *out, const rp_curves *sets, const char *const *labels, const plan *chart_plan,
                        bool families)
{
    static char texts[MOST_SERIES][256];
    rp_series series[MOST_SERIES];
    char title[128];
    size_t n = 0;
    bool over_seeds = false;
    const rp_curve *first = chart_plan->begin->curve;
    const bool alone = one_series(chart_plan);
    for (const entry *e = chart_plan->begin; e < chart_plan->end && n < MOST_SERIES; e++) {
        if (e->curve->count == 0)
            continue;
        over_seeds = over_seeds || sets[e->set].seeds > 1;
        series[n] =
            (rp_series){label_of(e->curve, labels != NULL ? labels[e->set] : NULL, alone, texts[n], sizeof texts[n]),
                        e->curve->points, e->curve->count};
        n++;
    }
    if (!is_worth(series, n))
        return false;
    const bool told = first->training && families && first->family[0] != '\0';
    snprintf(title, sizeof title, "%s%s%s%s", title_of(first), told ? " (" : "", told ? first->family : "",
             told ? ")" : "");
    const rp_chart chart = {.title = title,
                            .x_title = first->training ? "step" : "version",
                            .share = rp_is_share(first->metric),
                            .whole_x = !first->training,
                            .smooth = first->training && strcmp(first->metric, "learning_rate") != 0,
                            .interval = over_seeds,
                            .series = series,
                            .count = n};
    rp_chart_write(out, &chart);
    return true;
}

bool rp_charts_write(FILE *out, const rp_curves *sets, const char *const *labels, size_t count, bool training)
{
    size_t charts;
    bool any = false;
    entry *entries;
    plan *plans = plan_charts(sets, count, training, &entries, &charts);
    const bool families = several_families(plans, charts);
    fputs("<div class=\"charts\">\n", out);
    for (size_t i = 0; plans != NULL && i < charts; i++)
        any = write_chart(out, sets, labels, &plans[i], families) || any;
    fputs("</div>\n", out);
    free(plans);
    free(entries);
    return any;
}
