/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "plugins/judge-llm/judge.h"

static int no_memory(const struct judge *judge)
{
    return sluice_error(judge->host, SLUICE_NO_MEMORY, "out of memory for the judge's work");
}

/* Equal answers of a record are judged once: same[c] is the first candidate with c's text. */
static int find_equal(const struct judge *judge, const sluice_record *record, uint32_t *same, size_t count)
{
    for (uint32_t c = 0; c < count; c++) {
        sluice_candidate x, y;
        int rc = sluice_record_candidate(record, c, &x);
        if (rc < 0)
            return rc;
        same[c] = c;
        for (uint32_t d = 0; x.text && d < c; d++)
            if (same[d] == d && sluice_record_candidate(record, d, &y) >= 0 && y.text && strcmp(x.text, y.text) == 0) {
                same[c] = d;
                break;
            }
    }
    return SLUICE_OK;
}

static int set_score(struct judge *judge, sluice_record *record, size_t candidate, double score)
{
    if (isnan(score)) {
        judge->counts.unscored++;
        return SLUICE_OK;
    }
    judge->counts.scored++;
    judge->counts.sum += score;
    int rc = sluice_record_set_score(record, sluice_stage_name(judge->host), candidate, (float)score);
    return rc < 0 ? sluice_record_error(judge->host, record, rc, "candidate %zu has the score %g, which is none",
                                        candidate, score)
                  : rc;
}

/* --- one answer at a time --- */

/* What the judge gave: the probability of the first label, or the mean of the scores that could be read. NaN = none. */
static double result_of(const struct judge *judge, const struct asked *asked)
{
    double sum = 0;
    size_t count = 0;
    if (asked->left_out)
        return NAN;
    if (judge->mode != MODE_SCORE)
        return asked->first;
    for (int64_t i = 0; i < judge->samples; i++)
        if (!isnan(asked->said[i])) {
            sum += asked->said[i];
            count++;
        }
    return count ? sum / (double)count : NAN;
}

/* Results stand in the list in the order of the records and their different answers. */
static int set_each(struct judge *judge, const struct asked_list *list, size_t *at, sluice_record *record,
                    const uint32_t *same, size_t count)
{
    double *score = malloc((count + 1) * sizeof *score);
    int rc = score ? SLUICE_OK : no_memory(judge);
    for (size_t c = 0; rc >= 0 && c < count; c++) {
        score[c] = same[c] == c ? result_of(judge, &list->items[(*at)++]) : score[same[c]];
        rc = set_score(judge, record, c, score[c]);
    }
    free(score);
    return rc;
}

int judge_each(struct judge *judge, sluice_record *const *records, size_t count)
{
    struct asked_list list = {0};
    size_t total = 0, at = 0, base = 0;
    for (size_t i = 0; i < count; i++)
        total += sluice_record_candidates(records[i]);
    uint32_t *same = malloc((total + 1) * sizeof *same);
    int rc = same ? SLUICE_OK : no_memory(judge);
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        size_t n = sluice_record_candidates(records[i]);
        rc = find_equal(judge, records[i], same + base, n);
        for (uint32_t c = 0; rc >= 0 && c < n; c++)
            if (same[base + c] == c)
                rc = ask_add(judge, &list, records[i], c, c);
        base += n;
    }
    if (rc >= 0)
        rc = judge->mode == MODE_SCORE ? ask_words(judge, &list) : ask_labels(judge, &list);
    base = 0;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        size_t n = sluice_record_candidates(records[i]);
        rc = set_each(judge, &list, &at, records[i], same + base, n);
        base += n;
    }
    free(same);
    ask_free(&list);
    return rc;
}

/* --- two answers at a time --- */

/* Two candidates of a record: where the list has them, a first and in the other order. */
struct match {
    size_t record;
    uint32_t a, b;
    size_t forth, back; /* NONE = not asked in this order */
};
#define NONE SIZE_MAX

struct matches {
    struct match *items;
    size_t count, room;
};

static int ask_match(struct judge *judge, struct asked_list *list, struct matches *matches, sluice_record *record,
                     size_t number, uint32_t a, uint32_t b)
{
    if (matches->count == matches->room) {
        size_t room = 2 * matches->room + 64;
        struct match *grown = realloc(matches->items, room * sizeof *grown);
        if (!grown)
            return no_memory(judge);
        matches->items = grown;
        matches->room = room;
    }
    struct match *match = &matches->items[matches->count++];
    *match = (struct match){number, a, b, list->count, NONE};
    int rc = ask_add(judge, list, record, a, b);
    if (rc >= 0 && judge->orders == ORDERS_BOTH) {
        match->back = list->count;
        rc = ask_add(judge, list, record, b, a);
    }
    return rc;
}

/* P(a is better than b); both orders: the mean, in which a liking for a label or a place cancels. NaN = too long. */
static double outcome(struct judge *judge, const struct asked_list *list, const struct match *match)
{
    const struct asked *forth = &list->items[match->forth];
    if (match->back == NONE)
        return forth->left_out ? NAN : forth->first;
    const struct asked *back = &list->items[match->back];
    if (forth->left_out || back->left_out)
        return NAN;
    judge->counts.both++;
    judge->counts.disagreed += (forth->first > 0.5) != (back->first < 0.5);
    return (forth->first + 1 - back->first) / 2;
}

/* Every other, or the `opponents` next to it in a circle: candidates come in no order that means anything. */
static bool meets(const struct judge *judge, size_t count, size_t a, size_t b)
{
    size_t apart = b - a < count - (b - a) ? b - a : count - (b - a);
    return (uint64_t)judge->opponents >= count - 1 || apart <= (uint64_t)judge->opponents / 2;
}

static int add_record(struct judge *judge, struct asked_list *list, struct matches *matches, sluice_record *record,
                      size_t number, uint32_t *same, size_t count)
{
    int rc = find_equal(judge, record, same, count);
    /* Equal answers make the same match as their first: those that meet there are all asked already or not needed. */
    for (uint32_t a = 0; rc >= 0 && a < count; a++)
        for (uint32_t b = a + 1; rc >= 0 && b < count; b++) {
            uint32_t x = same[a] < same[b] ? same[a] : same[b], y = same[a] < same[b] ? same[b] : same[a];
            bool asked = x == y || !meets(judge, count, a, b);
            for (size_t m = matches->count; !asked && m > 0 && matches->items[m - 1].record == number; m--)
                asked = matches->items[m - 1].a == x && matches->items[m - 1].b == y;
            if (!asked)
                rc = ask_match(judge, list, matches, record, number, x, y);
        }
    return rc;
}

/* Adds P(a wins) to both candidates' sums. */
static void add_outcome(double p, double *sum, uint32_t *met, size_t a, size_t b)
{
    if (isnan(p))
        return;
    sum[a] += p;
    sum[b] += 1 - p;
    met[a]++;
    met[b]++;
}

/* A candidate's score is its mean probability of winning; equal answers draw. wins[x · count + y] = P(x beats y). */
static int score_record(struct judge *judge, sluice_record *record, const double *wins, const uint32_t *same,
                        size_t count)
{
    double *sum = calloc(count + 1, sizeof *sum);
    uint32_t *met = calloc(count + 1, sizeof *met);
    int rc = sum && met ? SLUICE_OK : no_memory(judge);
    for (size_t a = 0; rc >= 0 && a < count; a++)
        for (size_t b = a + 1; b < count; b++)
            if (meets(judge, count, a, b))
                add_outcome(same[a] == same[b] ? 0.5 : wins[same[a] * count + same[b]], sum, met, a, b);
    for (size_t c = 0; rc >= 0 && c < count; c++)
        rc = set_score(judge, record, c, met[c] ? sum[c] / met[c] : NAN);
    free(sum);
    free(met);
    return rc;
}

static int set_record(struct judge *judge, const struct asked_list *list, const struct matches *matches, size_t *at,
                      sluice_record *record, size_t number, const uint32_t *same)
{
    size_t count = sluice_record_candidates(record);
    double *wins = malloc((count * count + 1) * sizeof *wins);
    if (!wins)
        return no_memory(judge);
    for (size_t i = 0; i < count * count; i++)
        wins[i] = NAN;
    for (; *at < matches->count && matches->items[*at].record == number; ++*at) {
        const struct match *match = &matches->items[*at];
        double p = outcome(judge, list, match);
        wins[match->a * count + match->b] = p;
        wins[match->b * count + match->a] = 1 - p;
    }
    int rc = score_record(judge, record, wins, same, count);
    free(wins);
    return rc;
}

int judge_pairwise(struct judge *judge, sluice_record *const *records, size_t count)
{
    struct asked_list list = {0};
    struct matches matches = {0};
    size_t total = 0, at = 0, base = 0;
    for (size_t i = 0; i < count; i++)
        total += sluice_record_candidates(records[i]);
    uint32_t *same = malloc((total + 1) * sizeof *same);
    int rc = same ? SLUICE_OK : no_memory(judge);
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        size_t n = sluice_record_candidates(records[i]);
        rc = add_record(judge, &list, &matches, records[i], i, same + base, n);
        base += n;
    }
    if (rc >= 0)
        rc = ask_labels(judge, &list);
    base = 0;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        rc = set_record(judge, &list, &matches, &at, records[i], i, same + base);
        base += sluice_record_candidates(records[i]);
    }
    free(same);
    free(matches.items);
    ask_free(&list);
    return rc;
}

/* --- pairs that are there already --- */

/* Writes what the judge thinks of the pair, q = P(chosen is better), beside what others think of it. */
static int set_pair(struct judge *judge, sluice_record *record, size_t index, double q)
{
    sluice_pair pair;
    int rc = sluice_pair_doubt(record, index, q, 1);
    if (rc >= 0)
        rc = sluice_record_pair(record, index, &pair);
    if (rc < 0)
        return rc;
    judge->counts.pairs++;
    judge->counts.q += q;
    judge->counts.against += q < 0.5;
    if (judge->label == LABEL_SOFT)
        return SLUICE_OK;
    if (pair.p < 0.5)
        pair = (sluice_pair){pair.rejected, pair.chosen, 1 - pair.p, pair.weight, -pair.margin};
    if (judge->label == LABEL_HARD && pair.p > 0.5)
        pair.p = 1;
    return sluice_record_set_pair(record, index, &pair);
}

int judge_pairs(struct judge *judge, sluice_record *const *records, size_t count)
{
    struct asked_list list = {0};
    struct matches matches = {0};
    size_t at = 0;
    int rc = SLUICE_OK;
    for (size_t i = 0; rc >= 0 && i < count; i++)
        for (size_t k = 0; rc >= 0 && k < sluice_record_pairs(records[i]); k++) {
            sluice_pair pair;
            if ((rc = sluice_record_pair(records[i], k, &pair)) >= 0)
                rc = ask_match(judge, &list, &matches, records[i], i, pair.chosen, pair.rejected);
        }
    if (rc >= 0)
        rc = ask_labels(judge, &list);
    for (size_t i = 0; rc >= 0 && i < count; i++)
        for (size_t k = 0; rc >= 0 && k < sluice_record_pairs(records[i]); k++) {
            double p = outcome(judge, &list, &matches.items[at++]);
            if (!isnan(p))
                rc = set_pair(judge, records[i], k, p);
        }
    free(matches.items);
    ask_free(&list);
    return rc;
}
