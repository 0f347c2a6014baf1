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

/* A chart to be: its first curve, and where it came. */
typedef struct plan {
    const rp_curve *first;
    size_t order;
} plan;

static bool same_chart(const rp_curve *a, const rp_curve *b)
{
    return a->training == b->training && strcmp(title_of(a), title_of(b)) == 0 && strcmp(a->family, b->family) == 0;
}

static int by_rank(const void *a, const void *b)
{
    const plan *x = a, *y = b;
    const size_t i = rank(title_of(x->first)), j = rank(title_of(y->first));
    if (i != j)
        return i < j ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* The charts of all sets; the caller frees. */
static plan *plan_charts(const rp_curves *sets, size_t count, bool training, size_t *charts)
{
    size_t total = 0;
    for (size_t s = 0; s < count; s++)
        total += sets[s].count;
    plan *plans = calloc(total + 1, sizeof *plans);
    *charts = 0;
    for (size_t s = 0; plans != NULL && s < count; s++)
        for (size_t i = 0; i < sets[s].count; i++) {
            const rp_curve *curve = &sets[s].items[i];
            bool known = curve->training != training;
            for (size_t k = 0; k < *charts; k++)
                known = known || same_chart(plans[k].first, curve);
            if (!known) {
                plans[*charts] = (plan){curve, *charts};
                ++*charts;
            }
        }
    if (plans != NULL)
        qsort(plans, *charts, sizeof *plans, by_rank);
    return plans;
}

static bool several_families(const rp_curves *sets, size_t count, const rp_curve *of)
{
    for (size_t s = 0; s < count; s++)
        for (size_t i = 0; i < sets[s].count; i++)
            if (sets[s].items[i].training && strcmp(sets[s].items[i].family, of->family) != 0)
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

static bool one_series(const rp_curves *sets, size_t count, const rp_curve *of)
{
    for (size_t s = 0; s < count; s++)
        for (size_t i = 0; i < sets[s].count; i++)
            if (same_chart(&sets[s].items[i], of) && strcmp(sets[s].items[i].series, of->series) != 0)
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

static bool write_chart(FILE *out, const rp_curves *sets, const char *const *labels, size_t count,
                        const rp_curve *first)
{
    static char texts[MOST_SERIES][256];
    rp_series series[MOST_SERIES];
    char title[128];
    size_t n = 0;
    bool over_seeds = false;
    const bool alone = one_series(sets, count, first);
    for (size_t s = 0; s < count; s++)
        for (size_t i = 0; i < sets[s].count && n < MOST_SERIES; i++) {
            const rp_curve *curve = &sets[s].items[i];
            if (!same_chart(curve, first) || curve->count == 0)
                continue;
            over_seeds = over_seeds || sets[s].seeds > 1;
            series[n] =
                (rp_series){label_of(curve, labels != NULL ? labels[s] : NULL, alone, texts[n], sizeof texts[n]),
                            curve->points, curve->count};
            n++;
        }
    if (!is_worth(series, n))
        return false;
    const bool told = first->training && several_families(sets, count, first) && first->family[0] != '\0';
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
    plan *plans = plan_charts(sets, count, training, &charts);
    fputs("<div class=\"charts\">\n", out);
    for (size_t i = 0; plans != NULL && i < charts; i++)
        any = write_chart(out, sets, labels, count, plans[i].first) || any;
    fputs("</div>\n", out);
    free(plans);
    return any;
}
