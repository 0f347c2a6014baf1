/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * best-of-n: keeps the answers that a judge likes best, and measures what choosing among more of them is worth.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/stage.h>
#include "plugins/best-of-n/expected.h"

#define SIZES 17 /* N = 1, 2, 4, …, 65536: no record has more candidates */

struct best {
    const char *by, *truth;
    int64_t keep;

    const sluice_host *host;
    struct expected_item *items; /* of one record, worst first */
    uint32_t *kept;
    size_t room, most;                    /* of candidates; most of a record */
    uint64_t records, candidates, judged; /* judged: records with a score at least */
    uint64_t known;                       /* records whose candidates all have a truth */
    double chosen;                        /* truth of the best, summed over known */
    double best_of[SIZES], oracle[SIZES];
};

static const sluice_param params[] = {
    SLUICE_STAGE(struct best, by, .required = true, .doc = "The judge whose scores decide."),
    SLUICE_INT(struct best, keep, .value = 1, .min = 1, .unit = "candidates",
               .doc = "How many of the best are kept, best first."),
    SLUICE_STAGE(struct best, truth,
                 .doc = "A judge that knows (a verifier, 0 or 1): what the best of N is worth is reported for growing "
                        "N."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"records", "records", "Records seen."},
    {"candidates", "candidates", "Candidates they had."},
    {"accuracy", NULL, "Mean truth of the answers chosen among all; with ties, of the one that is kept."},
    {"known", "records", "Records that `truth` scored whole: those that the accuracies are means over."},
    {"best_of", NULL, "At step N: expected truth of the judge's choice among N candidates of a record."},
    {"oracle", NULL, "At step N: expected truth of the best of N candidates, what a perfect judge would reach."},
    {"kl", "nats", "At step N: log N - (N - 1) / N, how far best-of-N is from the sampler at most."},
    {0}};

static int init(void *self, const sluice_host *host)
{
    ((struct best *)self)->host = host;
    return SLUICE_OK;
}

static void fini(void *self)
{
    struct best *best = self;
    free(best->items);
    free(best->kept);
}

static bool make_room(struct best *best, size_t count)
{
    if (count <= best->room)
        return true;
    struct expected_item *items = realloc(best->items, count * sizeof *items);
    if (items)
        best->items = items;
    uint32_t *kept = realloc(best->kept, count * sizeof *kept);
    if (kept)
        best->kept = kept;
    if (!items || !kept)
        return false;
    best->room = count;
    return true;
}

/* What the choice among N of these candidates is worth, for each N; where there are fewer than N, among all. */
static void measure(struct best *best, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (isnan(best->items[i].truth))
            return;
    best->known++;
    best->chosen += best->items[count - 1].truth;
    for (size_t k = 0; k < SIZES; k++) {
        size_t n = (size_t)1 << k < count ? (size_t)1 << k : count;
        best->best_of[k] += expected_best(best->items, count, n);
        best->oracle[k] += expected_oracle(best->items, count, n);
    }
}

static int process(void *self, sluice_record *record)
{
    struct best *best = self;
    size_t count = sluice_record_candidates(record), kept = 0;
    best->records++;
    best->candidates += count;
    if (count == 0)
        return SLUICE_OK;
    if (!make_room(best, count))
        return sluice_error(best->host, SLUICE_NO_MEMORY, "out of memory for %zu candidates", count);
    const float *scores = sluice_record_scores(record, best->by);
    const float *truth = best->truth ? sluice_record_scores(record, best->truth) : NULL;
    if (!scores) /* the judge may have had a score for none of them */
        return sluice_record_keep_candidates(record, best->kept, 0);
    best->judged++;
    for (size_t i = 0; i < count; i++)
        best->items[i] = (struct expected_item){isnan(scores[i]) ? -INFINITY : (double)scores[i],
                                                truth ? (double)truth[i] : NAN, (uint32_t)i};
    expected_sort(best->items, count);
    best->most = count > best->most ? count : best->most;
    if (truth)
        measure(best, count);
    for (size_t i = count; i > 0 && kept < (size_t)best->keep && best->items[i - 1].score > -INFINITY; i--)
        best->kept[kept++] = best->items[i - 1].index;
    return sluice_record_keep_candidates(record, best->kept, kept);
}

static int finish(void *self)
{
    struct best *best = self;
    if (best->candidates > 0 && best->judged == 0)
        return sluice_error(
            best->host, SLUICE_BAD_RECORD,
            "no record has scores of '%s': it gave none, which its numbers in metrics.jsonl say, or is not before "
            "this stage in the chain; mend that judge, or put it there",
            best->by);
    sluice_number numbers[4] = {
        {"records", (double)best->records}, {"candidates", (double)best->candidates}, {"known", (double)best->known}};
    size_t count = best->truth ? 3 : 2;
    double known = (double)best->known;
    for (size_t k = 0; best->known > 0 && k < SIZES; k++) {
        size_t n = (size_t)1 << k < best->most ? (size_t)1 << k : best->most;
        const sluice_number curve[] = {{"best_of", best->best_of[k] / known},
                                       {"oracle", best->oracle[k] / known},
                                       {"kl", log((double)n) - (double)(n - 1) / (double)n}};
        sluice_metrics(best->host, (int64_t)n, curve, 3);
        if (n == best->most)
            break;
    }
    if (best->known > 0)
        numbers[count++] = (sluice_number){"accuracy", best->chosen / known};
    sluice_metrics(best->host, -1, numbers, count);
    return SLUICE_OK;
}

static const sluice_stage_class best_class = {
    SLUICE_STAGE_CLASS(SLUICE_TRANSFORM, "best-of-n", "Keep the candidates that a judge likes best", struct best,
                       params),
    .base.reads = SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_SCORES,
    .base.traits = SLUICE_STATELESS,
    .base.doc =
        "The candidates with the highest scores stay, best first, of equal ones the earlier; candidates without a "
        "score go. Log-probabilities, scores, rankings and pairs of those that stay stay too.\n\n"
        "With truth, the worth of choosing is reported at step N = 1, 2, 4, … up to the number of candidates: the mean "
        "over records of the truth of the judge's choice among N candidates, expected over all ways to take N of the "
        "record's n (Nakano et al. 2021, arXiv 2112.09332, appendix; for the oracle this is pass@N of Chen et al. "
        "2021, arXiv 2107.03374). N = 1 is a candidate taken at random. Ties count as their mean. Where a record has "
        "fewer than N, all are taken. kl is the known bound log N - (N - 1)/N (Beirami et al. 2024, arXiv 2401.01879).",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .process = process,
    .finish = finish,
};
SLUICE_PLUGIN("best-of-n", "1.0", "Apache-2.0", &best_class.base);
