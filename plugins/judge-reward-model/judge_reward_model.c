/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* judge-reward-model: the values that reward models give an answer, as one score. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/stage.h>
#include "plugins/common/answers.h"
#include "plugins/common/counts.h"

enum combine { COMBINE_MEAN, COMBINE_MIN, COMBINE_MEDIAN, COMBINE_LOWER };
enum too_long { TOO_LONG_ERROR, TOO_LONG_SKIP };

/* What the metrics say of the records so far. */
struct counts {
    uint64_t scored, skipped;
    double sum, spread;
};

struct judge {
    sluice_models models;
    int combine, too_long;
    double penalty;
    bool members, raw;

    const sluice_host *host;
    answers_model *opened; /* [models.count] */
    size_t context;        /* the smallest */
    size_t outputs;        /* of all heads together */
    uint64_t records;
    struct counts counts;
    counts_keeper keeper; /* of an ensemble whose members' scores are not kept: its spread cannot be read from scores */
};

static const char *const combinations[] = {"mean", "min", "median", "lower", NULL};
static const char *const long_rules[] = {"error", "skip", NULL};

static const sluice_param params[] = {
    SLUICE_MODELS(struct judge, models, .required = true, .head = true,
                  .doc = "The reward model, or the members of an ensemble: (\"first@1\", \"second@1\")."),
    SLUICE_CHOICE(struct judge, combine, .value = COMBINE_MEAN, .choices = combinations,
                  .doc = "What of several outputs becomes the score: their mean, smallest, median, or the mean less "
                         "penalty standard deviations."),
    SLUICE_DOUBLE(struct judge, penalty, .value = 1, .min = 0,
                  .doc = "Standard deviations taken off the mean with combine = \"lower\"."),
    SLUICE_BOOL(struct judge, members, .value = 0,
                .doc = "Keep each output's score as well, under the names STAGE/0, STAGE/1 and so on."),
    SLUICE_CHOICE(struct judge, too_long, .value = TOO_LONG_ERROR, .choices = long_rules,
                  .doc =
                      "What to do with an answer that exceeds the context with its prompt: stop, or give it no score."),
    SLUICE_BOOL(struct judge, raw, .value = 0, .doc = "Feed prompts as they are, without the chat template."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"scored", "candidates", "Answers that got a score."},
    {"skipped", "candidates", "Answers without a score: empty ones, and those too long for the models."},
    {"mean_score", NULL, "Mean of the scores."},
    {"spread", NULL, "Mean standard deviation between the outputs for an answer; only where there are several."},
    {0}};

static int same_text(const struct judge *judge, const answers_model *a, const answers_model *b)
{
    const char *what = NULL;
    bool same = true;
    if (a->info.vocabulary != b->info.vocabulary)
        what = "vocabularies";
    else if (a->info.template_hash != b->info.template_hash)
        what = "chat templates";
    int rc = what ? SLUICE_OK : answers_same_tokens(a, b, &same);
    if (!same)
        what = "tokenizers";
    if (rc < 0 || !what)
        return rc;
    return sluice_error(judge->host, SLUICE_BAD_MODEL,
                        "%s and %s have different %s; the members of an ensemble must read the same tokens", a->version,
                        b->version, what);
}

static int restore(struct judge *judge)
{
    void *bytes;
    size_t size;
    int rc = counts_begin(&judge->keeper, judge->host, &bytes, &size);
    if (bytes && size == sizeof judge->counts)
        memcpy(&judge->counts, bytes, size);
    else if (bytes)
        rc = counts_damaged(judge->host);
    free(bytes);
    return rc;
}

static int init(void *self, const sluice_host *host)
{
    struct judge *judge = self;
    judge->host = host;
    if (judge->models.count == 0)
        return sluice_error(host, SLUICE_BAD_PARAMETER, "models is empty; name a reward model");
    judge->opened = calloc(judge->models.count, sizeof *judge->opened);
    if (!judge->opened)
        return sluice_error(host, SLUICE_NO_MEMORY, "out of memory for %zu models", judge->models.count);
    judge->context = SIZE_MAX;
    for (size_t i = 0; i < judge->models.count; i++) {
        answers_model *m = &judge->opened[i];
        int rc = answers_open(host, judge->models.items[i], m);
        if (rc >= 0 && m->info.head_outputs == 0)
            rc = sluice_error(host, SLUICE_BAD_MODEL,
                              "%s is a language model without a reward head; train one from it (trainer, loss = "
                              "\"bradley-terry\") or name a reward model's folder (…ForSequenceClassification)",
                              m->version);
        if (rc >= 0 && i > 0)
            rc = same_text(judge, &judge->opened[0], m);
        if (rc < 0)
            return rc;
        judge->outputs += m->info.head_outputs;
        judge->context = m->info.context < judge->context ? m->info.context : judge->context;
    }
    return judge->outputs > 1 && !judge->members ? restore(judge) : SLUICE_OK;
}

static void fini(void *self)
{
    struct judge *judge = self;
    for (size_t i = 0; judge->opened && i < judge->models.count; i++)
        answers_close(&judge->opened[i]);
    free(judge->opened);
}

/* How much of a text can be compared: a character that was cut at its end stands there as U+FFFD. */
static size_t whole_length(const char *text)
{
    size_t length = strlen(text);
    while (length >= 3 && memcmp(text + length - 3, "\xEF\xBF\xBD", 3) == 0)
        length -= 3;
    return length;
}

/* A model's own sample carries token ids and the text they meant, which shows another tokenizer. Two may agree about
 * the digits of one answer and not about the words of the next. */
static int compare_tokens(struct judge *judge, const sluice_record *record)
{
    const answers_model *m = &judge->opened[0];
    for (size_t c = 0; m->info.has_tokenizer && c < sluice_record_candidates(record); c++) {
        sluice_candidate candidate;
        sluice_text text = {0};
        int rc = sluice_record_candidate(record, c, &candidate);
        if (rc < 0)
            return rc;
        if (!candidate.logprobs || !candidate.text || candidate.token_count == 0)
            continue;
        for (uint32_t t = 0; t < candidate.token_count; t++)
            if (candidate.tokens[t] >= m->info.vocabulary)
                return sluice_record_error(
                    judge->host, record, SLUICE_BAD_MODEL,
                    "candidate %zu has token %u, and the vocabulary of %s has %u; a reward model "
                    "needs the tokenizer of the model that answered",
                    c, candidate.tokens[t], m->version, m->info.vocabulary);
        rc = m->service->decode(m->model, candidate.tokens, candidate.token_count, false, &text);
        if (rc >= 0 && strncmp(text.text, candidate.text, whole_length(candidate.text)) != 0)
            rc = sluice_record_error(judge->host, record, SLUICE_BAD_MODEL,
                                     "the tokens of candidate %zu mean another text to %s than was recorded; a reward "
                                     "model needs the tokenizer of the model that answered",
                                     c, m->version);
        free(text.text);
        if (rc < 0)
            return rc;
    }
    return SLUICE_OK;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The score of n outputs, and their standard deviation. Sorts them. */
static double combine(const struct judge *judge, double *values, size_t n, double *deviation)
{
    double mean = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        mean += values[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (values[i] - mean) * (values[i] - mean) / (double)n;
    *deviation = sqrt(squares);
    qsort(values, n, sizeof *values, by_value);
    switch (judge->combine) {
    case COMBINE_MIN:
        return values[0];
    case COMBINE_MEDIAN:
        return (values[(n - 1) / 2] + values[n / 2]) / 2;
    case COMBINE_LOWER:
        return mean - judge->penalty * *deviation;
    default:
        return mean;
    }
}

/* A batch's answers that get a score, and what all heads say: [count, outputs]. Those that an interrupted run had asked
 * about need no asking: `open` are the others, and where they stand. */
struct asked {
    answers_item *items, *open;
    size_t *places;
    size_t count, open_count;
    float *values, *room;
    bool counted; /* a checkpoint holds what is to be counted of them */
};

/* The name of one output's score. */
static const char *member_name(const struct judge *judge, size_t output, char name[300])
{
    snprintf(name, 300, "%s/%zu", sluice_stage_name(judge->host), output);
    return name;
}

/* All outputs for an answer, as the interrupted run had them; false when they are not all known. Of an ensemble only
 * the combined score is, unless members are kept. */
static bool copy_earlier(const struct judge *judge, const sluice_record *earlier, size_t candidate, float *row)
{
    char name[300];
    for (size_t o = 0; o < judge->outputs; o++) {
        const char *from = judge->members ? member_name(judge, o, name) : sluice_stage_name(judge->host);
        const float *scores = earlier ? sluice_record_scores(earlier, from) : NULL;
        if (!scores || isnan(scores[candidate]) || (judge->outputs > 1 && !judge->members))
            return false;
        row[o] = scores[candidate];
    }
    return true;
}

/* Of an ensemble the combined scores alone were put out; what was counted of them the checkpoint holds. */
static int copy_scores(const struct judge *judge, sluice_record *record, const sluice_record *earlier)
{
    const char *name = sluice_stage_name(judge->host);
    const float *scores = sluice_record_scores(earlier, name);
    int rc = SLUICE_OK;
    for (size_t c = 0; scores && rc >= 0 && c < sluice_record_candidates(record); c++)
        if (!isnan(scores[c]))
            rc = sluice_record_set_score(record, name, c, scores[c]);
    return rc;
}

static int collect(struct judge *judge, sluice_record *const *records, size_t count, struct asked *a)
{
    int rc = SLUICE_OK;
    size_t candidates = 0;
    for (size_t i = 0; i < count; i++)
        candidates += sluice_record_candidates(records[i]);
    a->items = calloc(candidates + 1, sizeof *a->items);
    a->open = calloc(candidates + 1, sizeof *a->open);
    a->places = calloc(candidates + 1, sizeof *a->places);
    a->values = calloc(candidates * judge->outputs + 1, sizeof *a->values);
    a->room = calloc(candidates * judge->outputs + 1, sizeof *a->room);
    if (!a->items || !a->open || !a->places || !a->values || !a->room)
        return sluice_error(judge->host, SLUICE_NO_MEMORY, "out of memory for %zu answers", candidates);
    for (size_t i = 0; i < count; i++) {
        const sluice_record *earlier = sluice_earlier(judge->host, records[i]);
        if (earlier && sluice_record_candidates(earlier) != sluice_record_candidates(records[i]))
            earlier = NULL;
        if (earlier && a->counted) {
            if ((rc = copy_scores(judge, records[i], earlier)) < 0)
                return rc;
            continue;
        }
        for (size_t c = 0; c < sluice_record_candidates(records[i]); c++) {
            if (!answers_fit(records[i], c, judge->context)) {
                judge->counts.skipped++;
                continue;
            }
            a->items[a->count] = (answers_item){records[i], (uint32_t)c};
            if (!copy_earlier(judge, earlier, c, a->values + a->count * judge->outputs)) {
                a->open[a->open_count] = a->items[a->count];
                a->places[a->open_count++] = a->count;
            }
            a->count++;
        }
    }
    return SLUICE_OK;
}

/* Every member's outputs, side by side in a row an answer. */
static int ask(struct judge *judge, struct asked *a)
{
    int rc = SLUICE_OK;
    size_t at = 0;
    for (size_t m = 0; rc >= 0 && m < judge->models.count; m++) {
        const size_t own = judge->opened[m].info.head_outputs;
        rc = answers_values(&judge->opened[m], a->open, a->open_count, a->room);
        for (size_t i = 0; rc >= 0 && i < a->open_count; i++)
            memcpy(a->values + a->places[i] * judge->outputs + at, a->room + i * own, own * sizeof *a->values);
        at += own;
    }
    return rc;
}

static int score(struct judge *judge, const answers_item *item, const float *row, double *sorted)
{
    char name[300];
    int rc = SLUICE_OK;
    for (size_t o = 0; rc >= 0 && o < judge->outputs; o++) {
        if (!isfinite(row[o]))
            return sluice_record_error(judge->host, item->record, SLUICE_BAD_MODEL,
                                       "output %zu of the reward model is %g for candidate %u, which is no score; the "
                                       "model is damaged",
                                       o, (double)row[o], item->candidate);
        sorted[o] = row[o];
        if (judge->members)
            rc = sluice_record_set_score(item->record, member_name(judge, o, name), item->candidate, row[o]);
    }
    if (rc < 0)
        return rc;
    double deviation;
    const double value = combine(judge, sorted, judge->outputs, &deviation);
    judge->counts.scored++;
    judge->counts.sum += value;
    judge->counts.spread += deviation;
    return sluice_record_set_score(item->record, sluice_stage_name(judge->host), item->candidate, (float)value);
}

/* Records that are all covered by a checkpoint, or none of them. */
static int score_all(struct judge *judge, sluice_record *const *records, size_t count, bool counted)
{
    struct asked a = {.counted = counted};
    int rc = SLUICE_OK;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        if ((rc = compare_tokens(judge, records[i])) >= 0)
            rc = answers_encode(&judge->opened[0], records[i], judge->raw);
        if (rc >= 0 && judge->too_long == TOO_LONG_ERROR)
            rc = answers_check_lengths(&judge->opened[0], records[i], judge->context);
    }
    if (rc >= 0)
        rc = collect(judge, records, count, &a);
    if (rc >= 0)
        rc = ask(judge, &a);
    double *sorted = malloc(judge->outputs * sizeof *sorted);
    if (rc >= 0 && !sorted)
        rc = sluice_error(judge->host, SLUICE_NO_MEMORY, "out of memory for %zu outputs", judge->outputs);
    for (size_t i = 0; rc >= 0 && i < a.count; i++)
        rc = score(judge, &a.items[i], a.values + i * judge->outputs, sorted);
    free(sorted);
    free(a.items);
    free(a.open);
    free(a.places);
    free(a.values);
    free(a.room);
    return rc;
}

static int process_batch(void *self, sluice_record *const *records, bool *keep, size_t count)
{
    struct judge *judge = self;
    const uint64_t left = judge->keeper.records > judge->records ? judge->keeper.records - judge->records : 0;
    const size_t before = left < count ? (size_t)left : count;
    int rc = SLUICE_OK;
    /* All records of earlier batches were put out by now. */
    if (judge->outputs > 1 && !judge->members && counts_due(&judge->keeper, judge->records))
        rc = counts_save(&judge->keeper, judge->host, judge->records, &judge->counts, sizeof judge->counts);
    const struct counts counts = judge->counts;
    if (rc >= 0)
        rc = score_all(judge, records, before, true);
    if (before > 0)
        judge->counts = counts;
    if (rc >= 0)
        rc = score_all(judge, records + before, count - before, false);
    judge->records += count;
    int64_t total = sluice_input_count(judge->host);
    sluice_progress(judge->host, judge->records, total > 0 ? (uint64_t)total : 0, "records");
    return rc;
}

static int finish(void *self)
{
    struct judge *judge = self;
    sluice_number numbers[4] = {{"scored", (double)judge->counts.scored},
                                {"skipped", (double)judge->counts.skipped},
                                {"mean_score", judge->counts.sum / (double)judge->counts.scored},
                                {"spread", judge->counts.spread / (double)judge->counts.scored}};
    sluice_metrics(judge->host, -1, numbers, judge->counts.scored == 0 ? 2 : judge->outputs == 1 ? 3 : 4);
    return SLUICE_OK;
}

static const sluice_stage_class judge_class = {
    SLUICE_STAGE_CLASS(SLUICE_JUDGE, "judge-reward-model", "Score answers by reward models", struct judge, params),
    .base.reads = SLUICE_FIELD_PROMPT | SLUICE_FIELD_CANDIDATES,
    .base.adds = SLUICE_FIELD_SCORES,
    .base.traits = SLUICE_USES_DEVICE,
    .base.doc = "A reward model is a head on a language model's body, r = W h, where h is the hidden state of the "
                "answer's last token (its stop token, where it ended by itself) after the final norm; transformers' "
                "LlamaForSequenceClassification, MistralFor… and Qwen2For….\n"
                "Several models are an ensemble (all outputs of all models side by side); so is one model with a head "
                "of several outputs. combine = \"lower\" is the mean less penalty standard deviations (over the "
                "outputs, 1/n), which distrusts answers on which the members disagree, after Coste et al. 2023 (arXiv "
                "2310.02743, section 3), who take the variance.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .process_batch = process_batch,
    .finish = finish,
};
SLUICE_PLUGIN("judge-reward-model", "1.0", "Apache-2.0", &judge_class.base);
