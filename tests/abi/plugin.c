/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* A plugin as somebody wrote it against version 1: a regularizer, a loss and a source. Built against the frozen headers
 * in 1/, and against headers that are newer than the host's. */
#include <math.h>
#include <stdio.h>
#include <sluice/sluice.h>

/* ---- a regularizer */

struct doubt {
    double p;
    int64_t least;
    bool weigh;
    int how;
    const char *by;
    const sluice_host *host;
    uint64_t pairs;
};

static const char *const ways[] = {"all", "first", NULL};
static const sluice_param doubt_params[] = {
    SLUICE_DOUBLE(struct doubt, p, .value = 0.9, .min = 0, .max = 1, .doc = "How far a label is trusted."),
    SLUICE_INT(struct doubt, least, .value = 1, .min = 0, .unit = "tokens", .doc = "Shorter answers are not doubted."),
    SLUICE_BOOL(struct doubt, weigh, .value = 0, .doc = "Halve the weight too."),
    SLUICE_CHOICE(struct doubt, how, .value = 0, .choices = ways, .doc = "Which pairs."),
    SLUICE_STAGE(struct doubt, by, .doc = "A judge whose scores are looked at."),
    SLUICE_PARAMS_END};
static const sluice_metric_info doubt_metrics[] = {{"pairs", "pairs", "Pairs doubted."}, {0}};

static int doubt_init(void *self, const sluice_host *host)
{
    ((struct doubt *)self)->host = host;
    sluice_log(host, SLUICE_LOG_INFO, "stage %s, iteration %lld", sluice_stage_name(host),
               (long long)sluice_iteration(host));
    return SLUICE_OK;
}

static int doubt_process(void *self, sluice_record *record)
{
    struct doubt *d = self;
    const size_t count = sluice_record_pairs(record);
    const float *scores = d->by ? sluice_record_scores(record, d->by) : NULL;
    for (size_t i = 0; i < count && (d->how == 0 || i == 0); i++) {
        sluice_pair pair;
        sluice_candidate chosen;
        int rc = sluice_record_pair(record, i, &pair);
        if (rc >= 0)
            rc = sluice_record_candidate(record, pair.chosen, &chosen);
        if (rc < 0)
            return sluice_record_error(d->host, record, rc, "pair %zu cannot be read", i);
        if (chosen.token_count < d->least || (scores && isnan(scores[pair.chosen])))
            continue;
        if ((rc = sluice_pair_doubt(record, i, d->p, d->weigh ? 0.5 : 1)) < 0)
            return rc;
        d->pairs++;
    }
    return SLUICE_OK;
}

static int doubt_finish(void *self)
{
    const struct doubt *d = self;
    sluice_metric(d->host, "pairs", (double)d->pairs);
    return SLUICE_OK;
}

static const sluice_stage_class doubt_class = {
    SLUICE_STAGE_CLASS(SLUICE_REGULARIZER, "abi/doubt", "Doubt every pair", struct doubt, doubt_params),
    .base.doc = "A regularizer of version 1.",
    .base.reads = SLUICE_FIELD_PAIRS | SLUICE_FIELD_CANDIDATES,
    .base.adds = SLUICE_FIELD_TRUST,
    .base.traits = SLUICE_STATELESS,
    .base.metrics = doubt_metrics,
    .base.init = doubt_init,
    .process = doubt_process,
    .finish = doubt_finish,
};

/* ---- a loss */

struct hinge {
    double beta, width;
};

static const sluice_param hinge_params[] = {
    SLUICE_DOUBLE(struct hinge, beta, .value = 0.1, .above = 0, .max = 100, .doc = "Strength of the pull."),
    SLUICE_DOUBLE(struct hinge, width, .value = 1, .min = 0, .doc = "Margin that is enough."), SLUICE_PARAMS_END};

static int hinge_pairs(void *self, const sluice_pairs *in, sluice_pair_grads *out)
{
    const struct hinge *h = self;
    for (size_t i = 0; i < in->count; i++) {
        const sluice_answer *c = &in->chosen[i], *r = &in->rejected[i];
        const double x = h->beta * (c->policy - c->reference - r->policy + r->reference) - in->margin[i];
        const bool active = x < h->width;
        out->loss[i] = active ? h->width - x : 0;
        out->d_chosen[i] = active ? -h->beta : 0;
        out->d_rejected[i] = active ? h->beta : 0;
    }
    return SLUICE_OK;
}

static double hinge_scale(const void *self)
{
    return ((const struct hinge *)self)->beta;
}

static const sluice_loss_class hinge_class = {
    SLUICE_CLASS("abi/hinge", "Hinge on the log-ratio", struct hinge, hinge_params),
    .base.doc = "A loss of version 1.",
    .needs = SLUICE_REFERENCE,
    .pairs = hinge_pairs,
    .reward_scale = hinge_scale,
};

/* ---- a source */

struct count {
    int64_t records;
    const sluice_host *host;
};

static const sluice_param count_params[] = {
    SLUICE_INT(struct count, records, .value = 10, .min = 0, .max = 1000, .unit = "records", .doc = "How many."),
    SLUICE_PARAMS_END};

static int count_init(void *self, const sluice_host *host)
{
    ((struct count *)self)->host = host;
    return SLUICE_OK;
}

static int count_next(void *self, sluice_record *record)
{
    const struct count *c = self;
    const uint64_t number = sluice_record_number(record);
    sluice_draw place = {.seed = sluice_seed(c->host), .record = number, .purpose = SLUICE_PURPOSE_DATA};
    uint64_t key[2], counter[2];
    uint32_t bits[4];
    char text[64];
    if (number >= (uint64_t)c->records)
        return SLUICE_END;
    sluice_draw_place(&place, key, counter);
    sluice_philox(key, counter, bits);
    snprintf(text, sizeof text, "count-%llu", (unsigned long long)number);
    int rc = sluice_record_set_id(record, text);
    snprintf(text, sizeof text, "%u + %u =", bits[0] % 10, bits[1] % 10);
    if (rc >= 0)
        rc = sluice_record_set_prompt(record, text);
    return rc >= 0 ? sluice_record_set_meta_number(record, "drawn", bits[2]) : rc;
}

static const sluice_stage_class count_class = {
    SLUICE_STAGE_CLASS(SLUICE_SOURCE, "abi/count", "Small sums", struct count, count_params),
    .base.doc = "A source of version 1.",
    .base.adds = SLUICE_FIELD_PROMPT | SLUICE_FIELD_META,
    .base.init = count_init,
    .next = count_next,
};

SLUICE_PLUGIN("abi", "1.0", "Apache-2.0", &doubt_class.base, &hinge_class.base, &count_class.base);
