/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/report/chart.h"
#include "tools/report/page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The drawing's own units: at 340 wide its letters keep their size on a phone. */
static const double width = 340, height = 204, left = 44, right = 8, top = 8, bottom = 34;
enum { MOST_DRAWN = 400, MOST_ROWS = 40, MOST_TICKS = 32 };

typedef struct axis {
    double low, high;
    double step; /* between ticks */
} axis;

static const char *const dashes[] = {"none", "6 3", "2 3", "8 3 2 3"};

/* 1, 2 or 5 times a power of ten, so that about `count` of them make up the range. */
static double nice_step(double range, int count)
{
    const double rough = range / count, power = pow(10, floor(log10(rough))), lead = rough / power;
    return power * (lead < 1.5 ? 1 : lead < 3.5 ? 2 : lead < 7.5 ? 5 : 10);
}

static void widen(axis *a, double value)
{
    if (!isfinite(value))
        return;
    a->low = value < a->low ? value : a->low;
    a->high = value > a->high ? value : a->high;
}

static axis x_axis(const rp_chart *chart)
{
    axis a = {INFINITY, -INFINITY, 1};
    for (size_t s = 0; s < chart->count; s++)
        for (size_t i = 0; i < chart->series[s].count; i++)
            widen(&a, chart->series[s].points[i].x);
    const double range = a.high - a.low;
    a.step = range > 0 ? nice_step(range, chart->whole_x ? 6 : 4) : 1;
    if (a.step < 1)
        a.step = 1;
    const double pad = chart->whole_x ? 0.06 * range : 0.01 * range;
    a.low -= range > 0 ? pad : 0.5;
    a.high += range > 0 ? pad : 0.5;
    return a;
}

static axis y_axis(const rp_chart *chart)
{
    axis a = {INFINITY, -INFINITY, 1};
    for (size_t s = 0; s < chart->count; s++)
        for (size_t i = 0; i < chart->series[s].count; i++) {
            const rp_point *p = &chart->series[s].points[i];
            widen(&a, p->y);
            widen(&a, p->low);
            widen(&a, p->high);
        }
    const double size = fmax(fabs(a.low), fabs(a.high)), range = a.high - a.low;
    /* what differs by rounding alone is one value: ticks closer than numbers can be would never end */
    const double pad = range > 1e-9 * size ? 0.06 * range : size > 0 ? 0.1 * size : 1;
    const bool positive = a.low >= 0, share = chart->share && a.high <= 1;
    a.low = positive && a.low - pad < 0 ? 0 : a.low - pad;
    a.high = share && a.high + pad > 1 ? 1 : a.high + pad;
    a.step = nice_step(a.high - a.low, 4);
    return a;
}

static double at_x(const axis *a, double x)
{
    return left + (width - left - right) * (x - a->low) / (a->high - a->low);
}

static double at_y(const axis *a, double y)
{
    return height - bottom - (height - top - bottom) * (y - a->low) / (a->high - a->low);
}

static const char *tick_text(double value, double step, bool share, char text[RP_NUMBER])
{
    if (fabs(value) < step * 1e-6)
        value = 0;
    if (share)
        snprintf(text, RP_NUMBER, "%.*f %%", step < 0.0099 ? 1 : 0, 100 * value);
    else if (fabs(value) >= 10000)
        snprintf(text, RP_NUMBER, value == floor(value / 1000) * 1000 ? "%.0fk" : "%.1fk", value / 1000);
    else
        snprintf(text, RP_NUMBER, "%.4g", value);
    return text;
}

static void write_axes(FILE *out, const rp_chart *chart, const axis *x, const axis *y)
{
    char text[RP_NUMBER];
    int ticks = 0; /* counted: at 2^54 a step of 1 leads nowhere */
    for (double v = ceil(y->low / y->step - 1e-9) * y->step; v <= y->high + y->step * 1e-9 && ticks < MOST_TICKS;
         v += y->step, ticks++) {
        fprintf(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", left, width - right,
                at_y(y, v), at_y(y, v));
        fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", left - 6, at_y(y, v) + 3.5,
                tick_text(v, y->step, chart->share, text));
    }
    ticks = 0;
    for (double v = ceil(x->low / x->step - 1e-9) * x->step; v <= x->high + x->step * 1e-9 && ticks < MOST_TICKS;
         v += x->step, ticks++)
        fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n", at_x(x, v), height - bottom + 15,
                tick_text(v, x->step, false, text));
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", width - right, height - 3);
    rp_text(out, chart->x_title);
    fputs("</text>\n", out);
}

/* At most MOST_DRAWN points, each the mean of those it stands for; the caller frees. */
static rp_point *thin(const rp_series *s, size_t *count)
{
    const size_t each = (s->count + MOST_DRAWN - 1) / MOST_DRAWN;
    rp_point *points = calloc(s->count + 1, sizeof *points);
    *count = 0;
    for (size_t i = 0; points != NULL && each > 0 && i < s->count; i += each) {
        const size_t n = i + each < s->count ? each : s->count - i;
        rp_point p = {0, 0, 0, 0};
        for (size_t k = i; k < i + n; k++) {
            p.x += s->points[k].x / (double)n;
            p.y += s->points[k].y / (double)n;
            p.low += s->points[k].low / (double)n;
            p.high += s->points[k].high / (double)n;
        }
        points[(*count)++] = p;
    }
    return points;
}

/* An exponential mean over about a twelfth of the points, its start corrected as Adam corrects its moments. */
static void smooth(rp_point *points, size_t count)
{
    const double keep = 1 - 2 / ((double)count / 12 + 1);
    double mean = 0, weight = 0;
    for (size_t i = 0; i < count; i++) {
        mean = keep * mean + (1 - keep) * points[i].y;
        weight = keep * weight + (1 - keep);
        points[i].y = mean / weight;
    }
}

static void write_path(FILE *out, const rp_point *points, size_t count, const axis *x, const axis *y)
{
    fputs(" d=\"", out);
    for (size_t i = 0; i < count; i++)
        fprintf(out, "%c%.1f %.1f", i == 0 ? 'M' : 'L', at_x(x, points[i].x), at_y(y, points[i].y));
    fputs("\"/>\n", out);
}

static void write_band(FILE *out, const rp_point *points, size_t count, size_t colour, const axis *x, const axis *y)
{
    char between = 'M';
    fprintf(out, "<path class=\"band f%zu\" d=\"", colour);
    for (size_t i = 0; i < count; i++, between = 'L')
        fprintf(out, "%c%.1f %.1f", between, at_x(x, points[i].x),
                at_y(y, isnan(points[i].high) ? points[i].y : points[i].high));
    for (size_t i = count; i-- > 0;)
        fprintf(out, "L%.1f %.1f", at_x(x, points[i].x), at_y(y, isnan(points[i].low) ? points[i].y : points[i].low));
    fputs("Z\"/>\n", out);
}

/* Marks differ by form: circle, square, triangle, diamond. */
static void write_mark(FILE *out, size_t form, size_t colour, double x, double y)
{
    static const char *const forms[] = {"", "m-3.2-3.2h6.4v6.4h-6.4z", "m0-4l3.8 6.6h-7.6z",
                                        "m0-4.4l4.4 4.4-4.4 4.4-4.4-4.4z"};
    if (form % 4 == 0)
        fprintf(out, "<circle class=\"f%zu\" r=\"3.4\" cx=\"%.1f\" cy=\"%.1f\">", colour, x, y);
    else
        fprintf(out, "<path class=\"f%zu\" d=\"M%.1f %.1f%s\">", colour, x, y, forms[form % 4]);
}

static void value_text(FILE *out, const rp_chart *chart, const rp_point *p)
{
    char text[RP_NUMBER];
    const char *(*say)(double, char *) = chart->share ? rp_percent_text : rp_number_text;
    rp_text(out, say(p->y, text));
    if (isnan(p->low) || isnan(p->high))
        return;
    rp_printf(out, " [%s, ", say(p->low, text));
    rp_printf(out, "%s]", say(p->high, text));
}

/* Points with whiskers, each beside those of the other series so that they do not hide each other. */
static void write_points(FILE *out, const rp_chart *chart, size_t s, const axis *x, const axis *y)
{
    const rp_series *series = &chart->series[s];
    const double aside = 3.5 * ((double)s - 0.5 * (double)(chart->count - 1));
    char text[RP_NUMBER];
    for (size_t i = 0; i < series->count; i++) {
        const rp_point *p = &series->points[i];
        const double cx = at_x(x, p->x) + aside;
        if (!chart->interval && !isnan(p->low) && !isnan(p->high))
            fprintf(out, "<path class=\"bar c%zu\" d=\"M%.1f %.1fV%.1fm-2.5 0h5M%.1f %.1fh5\"/>", s % RP_COLOURS, cx,
                    at_y(y, p->low), at_y(y, p->high), cx - 2.5, at_y(y, p->low));
        write_mark(out, s, s % RP_COLOURS, cx, at_y(y, p->y));
        fputs("<title>", out);
        rp_text(out, series->label);
        rp_printf(out, ", %s %s: ", chart->x_title, rp_number_text(p->x, text));
        value_text(out, chart, p);
        fprintf(out, "</title></%s>\n", s % 4 == 0 ? "circle" : "path");
    }
}

static void write_series(FILE *out, const rp_chart *chart, size_t s, const axis *x, const axis *y)
{
    const size_t colour = s % RP_COLOURS;
    size_t count;
    rp_point *points = thin(&chart->series[s], &count);
    if (points == NULL)
        return;
    const bool noisy = chart->smooth && count >= 12;
    if (chart->interval)
        write_band(out, points, count, colour, x, y);
    if (noisy) {
        fprintf(out, "<path class=\"raw c%zu\"", colour);
        write_path(out, points, count, x, y);
        smooth(points, count);
    }
    const double aside = chart->whole_x ? 3.5 * ((double)s - 0.5 * (double)(chart->count - 1)) : 0;
    fprintf(out, "<path class=\"curve c%zu\" stroke-dasharray=\"%s\" transform=\"translate(%.1f 0)\"", colour,
            dashes[s % 4], aside);
    write_path(out, points, count, x, y);
    free(points);
    if (chart->whole_x || count < 12)
        write_points(out, chart, s, x, y);
}

/* What the chart shows, for whoever cannot see it. */
static void write_label(FILE *out, const rp_chart *chart)
{
    char text[RP_NUMBER];
    fputs(" aria-label=\"Chart of ", out);
    rp_text(out, chart->title);
    for (size_t s = 0; s < chart->count; s++) {
        const rp_series *series = &chart->series[s];
        if (series->count == 0)
            continue;
        const rp_point *first = &series->points[0], *last = &series->points[series->count - 1];
        rp_printf(out, "%s %s: from ", s == 0 ? ":" : ";", series->label);
        value_text(out, chart, first);
        rp_printf(out, " at %s ", chart->x_title);
        rp_text(out, rp_number_text(first->x, text));
        fputs(" to ", out);
        value_text(out, chart, last);
        rp_printf(out, " at %s", rp_number_text(last->x, text));
    }
    fputs(". The numbers stand below as a table.\"", out);
}

static void write_key(FILE *out, const rp_chart *chart)
{
    for (size_t s = 0; chart->count > 1 && s < chart->count; s++) {
        fprintf(out,
                "<span class=\"key\"><svg viewBox=\"0 0 22 10\" aria-hidden=\"true\"><path class=\"curve c%zu\" "
                "stroke-dasharray=\"%s\" d=\"M1 5h20\"/>",
                s % RP_COLOURS, dashes[s % 4]);
        if (chart->whole_x) {
            write_mark(out, s, s % RP_COLOURS, 11, 5);
            fprintf(out, "</%s>", s % 4 == 0 ? "circle" : "path");
        }
        fputs("</svg>", out);
        rp_text_cut(out, chart->series[s].label, 40);
        fputs("</span>", out);
    }
}

static const rp_point *point_at(const rp_series *series, double x)
{
    for (size_t i = 0; i < series->count; i++)
        if (series->points[i].x == x)
            return &series->points[i];
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Every x that any series has, or some of them evenly spread. */
static void write_table(FILE *out, const rp_chart *chart)
{
    size_t total = 0, count = 0;
    char text[RP_NUMBER];
    for (size_t s = 0; s < chart->count; s++)
        total += chart->series[s].count;
    double *xs = calloc(total + 1, sizeof *xs);
    if (xs == NULL)
        return;
    for (size_t s = 0; s < chart->count; s++)
        for (size_t i = 0; i < chart->series[s].count; i++)
            xs[count++] = chart->series[s].points[i].x;
    qsort(xs, count, sizeof *xs, by_value);
    total = count;
    count = 0;
    for (size_t i = 0; i < total; i++)
        if (count == 0 || xs[i] != xs[count - 1])
            xs[count++] = xs[i];
    const size_t each = (count + MOST_ROWS - 1) / MOST_ROWS;
    rp_details_begin(out, each > 1 ? "Numbers (some of them)" : "Numbers");
    fputs("<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th scope=\"col\">", out);
    rp_text(out, chart->x_title);
    for (size_t s = 0; s < chart->count; s++) {
        fputs("</th><th scope=\"col\">", out);
        rp_text_cut(out, chart->series[s].label, 60);
    }
    fputs("</th></tr></thead><tbody>\n", out);
    for (size_t i = 0; each > 0 && i < count; i = i + each < count || i + 1 == count ? i + each : count - 1) {
        fprintf(out, "<tr><th scope=\"row\">%s</th>", rp_number_text(xs[i], text));
        for (size_t s = 0; s < chart->count; s++) {
            const rp_point *p = point_at(&chart->series[s], xs[i]);
            fputs("<td>", out);
            if (p != NULL)
                value_text(out, chart, p);
            fputs("</td>", out);
        }
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
    rp_details_end(out);
    free(xs);
}

void rp_chart_write(FILE *out, const rp_chart *chart)
{
    const axis x = x_axis(chart), y = y_axis(chart);
    fputs("<figure><figcaption><h3>", out);
    rp_text(out, chart->title);
    fputs("</h3>", out);
    write_key(out, chart);
    fprintf(out, "</figcaption>\n<svg class=\"chart\" viewBox=\"0 0 %.0f %.0f\" role=\"img\"", width, height);
    write_label(out, chart);
    fputs(">\n", out);
    write_axes(out, chart, &x, &y);
    for (size_t s = 0; s < chart->count; s++)
        write_series(out, chart, s, &x, &y);
    fputs("</svg>\n", out);
    write_table(out, chart);
    fputs("</figure>\n", out);
}
