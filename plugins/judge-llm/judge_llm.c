/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * judge-llm: a language model that is asked about answers: for points in words (Yuan et al. 2024, 2401.10020), which of
 * two is better (Zheng et al. 2023, 2306.05685; Lee et al. 2023, 2309.00267), or whether one is right.
 */
#include <stdlib.h>
#include <string.h>
#include "plugins/judge-llm/judge.h"
#include "plugins/judge-llm/prompts.h" /* prompt_score, prompt_pairwise, prompt_question: made from prompts/ */

static const char *const modes[] = {"score", "pairwise", "question", "pairs", NULL};
static const uint32_t mode_adds[] = {SLUICE_FIELD_SCORES, SLUICE_FIELD_SCORES, SLUICE_FIELD_SCORES, SLUICE_FIELD_TRUST};
static const char *const order_rules[] = {"both", "first", NULL};
static const char *const label_rules[] = {"soft", "flip", "hard", NULL};
static const char *const long_rules[] = {"error", "skip", "left", NULL};

static const sluice_param params[] = {
    SLUICE_MODEL(struct judge, model, .required = true, .doc = "The judge; the policy itself where it rewards itself."),
    SLUICE_CHOICE(struct judge, mode, .value = MODE_SCORE, .choices = modes, .choice_adds = mode_adds,
                  .doc =
                      "What it is asked: points in words, each answer against others, a question about one answer, or "
                      "which answer of each pair that is there already is better."),
    SLUICE_FILE(struct judge, prompt,
                .doc = "The text that asks, a file of your own; none = the mode's own, as in prompts/score.txt, "
                       "pairwise.txt and question.txt."),
    SLUICE_BOOL(struct judge, raw, .value = 0, .doc = "Feed what is asked as plain text, without the chat template."),
    SLUICE_STRINGS(struct judge, labels,
                   .doc = "The two answers whose probabilities are compared; none given = [\"A\", \"B\"], or [\"yes\", "
                          "\"no\"] for a question, of which the first speaks for the answer."),
    SLUICE_CHOICE(struct judge, orders, .value = ORDERS_BOTH, .choices = order_rules,
                  .doc =
                      "Whether two answers are shown in both orders, which cancels a liking for a place or a label, or "
                      "only the earlier, or the chosen, first."),
    SLUICE_INT(struct judge, opponents, .value = 8, .min = 2, .max = 65536, .unit = "candidates",
               .doc = "How many others an answer meets (mode = pairwise), an even number where it is not all of them."),
    SLUICE_CHOICE(
        struct judge, label, .value = LABEL_SOFT, .choices = label_rules,
        .doc = "What becomes of a pair (mode = pairs): its p alone changes; it is turned over where p would fall "
               "below 1/2; or turned over and trusted fully."),
    SLUICE_INT(struct judge, samples, .value = 3, .min = 1, .max = 4096, .unit = "answers",
               .doc = "How often the judge answers about a candidate (mode = score)."),
    SLUICE_DOUBLE(struct judge, temperature, .value = 0.7, .min = 0,
                  .doc = "Divides the judge's logits (mode = score); 0 takes the likeliest token."),
    SLUICE_DOUBLE(struct judge, top_p, .value = 0.9, .above = 0, .max = 1,
                  .doc = "Keep the judge's likeliest tokens that together have this probability (mode = score)."),
    SLUICE_INT(struct judge, max_tokens, .value = 256, .min = 1, .max = 4294967295.0, .unit = "tokens",
               .doc = "Longest answer of the judge, stop token included (mode = score)."),
    SLUICE_STRING(struct judge, marker, .text = "Score:",
                  .doc = "The words before the points, in capitals or not; the last that a number follows counts."),
    SLUICE_DOUBLE(struct judge, lowest, .value = 0, .doc = "Fewest points; a number below is no score."),
    SLUICE_DOUBLE(struct judge, highest, .value = 5, .doc = "Most points; a number above is no score."),
    SLUICE_CHOICE(struct judge, too_long, .value = TOO_LONG_ERROR, .choices = long_rules,
                  .doc = "What to do where the question exceeds the judge's context: stop, give no score, or cut the "
                         "record's prompt on the left."),
    SLUICE_INT(struct judge, slots, .value = 0, .min = 0, .max = 65536, .unit = "answers", .speed_only = true,
               .doc = "Answers of the judge generated at once; 0 = chosen by the runtime."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"scored", "candidates", "Answers that got a score."},
    {"unscored", "candidates", "Answers without a score: nothing the judge said could be read, or too long."},
    {"mean_score", NULL, "Mean of the scores."},
    {"samples", "answers", "Answers that the judge gave in words."},
    {"unparsed", "answers", "Of them, those without a number after the marker."},
    {"out_of_range", "answers", "Of them, those with a number below lowest or above highest."},
    {"compared", "questions", "Questions answered by the probabilities of the labels."},
    {"first_label", NULL, "Mean probability of the first label; with both orders 1/2 where no place is preferred."},
    {"label_mass", NULL,
     "Mean probability of the two labels together: where it is small the judge would have said something else."},
    {"order_disagreement", NULL,
     "Of the pairs asked in both orders, the fraction whose winner changes with the order."},
    {"pairs", "pairs", "Pairs whose p was set."},
    {"against", NULL, "Fraction of them in which the judge prefers the rejected answer."},
    {"mean_p", NULL, "Mean probability that the judge gives to the chosen answer."},
    {"skipped", "questions", "Questions that were too long for the judge."},
    {"cut", "questions", "Questions for which the record's prompt was cut on the left."},
    {0}};

static int check_params(struct judge *judge)
{
    static const char *const letters[] = {"A", "B"}, *const words[] = {"yes", "no"};
    const sluice_host *host = judge->host;
    if (judge->labels.count == 0)
        judge->labels = (sluice_strings){judge->mode == MODE_QUESTION ? words : letters, 2};
    if (judge->labels.count != 2)
        return sluice_error(host, SLUICE_BAD_PARAMETER, "labels: %zu are given; two are compared", judge->labels.count);
    if (!judge->marker || !*judge->marker)
        return sluice_error(host, SLUICE_BAD_PARAMETER, "marker is empty; name the words before the points");
    if (!(judge->lowest < judge->highest))
        return sluice_error(host, SLUICE_BAD_PARAMETER, "lowest = %g is not below highest = %g", judge->lowest,
                            judge->highest);
    if (judge->mode == MODE_SCORE && judge->temperature == 0 && judge->samples > 1)
        sluice_log(host, SLUICE_LOG_WARNING,
                   "temperature = 0 lets the judge say the same %lld times; set samples = 1 or a temperature",
                   (long long)judge->samples);
    return SLUICE_OK;
}

static int check_model(struct judge *judge)
{
    const sluice_model_info *info = &judge->opened.info;
    const sluice_host *host = judge->host;
    if (!info->has_tokenizer)
        return sluice_error(host, SLUICE_BAD_MODEL,
                            "the judge %s has no tokenizer, and a judge is asked in text; add tokenizer.json to its "
                            "folder",
                            judge->opened.version);
    if (info->head_outputs > 0)
        return sluice_error(host, SLUICE_BAD_MODEL,
                            "%s is a reward model and cannot be asked in words; use judge-reward-model",
                            judge->opened.version);
    judge->plain = judge->raw || !info->has_template;
    if (judge->plain && !judge->raw)
        sluice_log(host, SLUICE_LOG_INFO, "%s has no chat template: it is asked in plain text", judge->opened.version);
    return SLUICE_OK;
}

/* The text that asks, and what the judge's answer begins with. */
static int read_template(struct judge *judge)
{
    static const char *const own[] = {prompt_score, prompt_pairwise, prompt_question, prompt_pairwise};
    bool two = judge->mode == MODE_PAIRWISE || judge->mode == MODE_PAIRS;
    int rc = template_read(judge->host, judge->prompt, own[judge->mode], modes[judge->mode], two, &judge->asks);
    if (rc < 0 || !judge->asks.begins_answer)
        return rc;
    judge->begun = template_fill_section(&judge->asks, judge->asks.section_count - 1, NULL);
    return judge->begun ? SLUICE_OK : sluice_error(judge->host, SLUICE_NO_MEMORY, "out of memory for a prompt");
}

static int init(void *self, const sluice_host *host)
{
    struct judge *judge = self;
    judge->host = host;
    int rc = check_params(judge);
    if (rc >= 0)
        rc = read_template(judge);
    if (rc >= 0)
        rc = answers_open(host, judge->model, &judge->opened);
    if (rc >= 0)
        rc = check_model(judge);
    if (rc >= 0)
        rc = ask_prepare(judge);
    if (rc >= 0)
        rc = resume_begin(judge);
    if (rc >= 0 && judge->answer_room >= judge->opened.info.context)
        rc = sluice_error(host, SLUICE_BAD_PARAMETER,
                          "an answer of %zu tokens leaves no room for a question in the judge's context of %u%s",
                          judge->answer_room, judge->opened.info.context,
                          judge->mode == MODE_SCORE ? "; lower max_tokens" : "");
    return rc;
}

static void fini(void *self)
{
    struct judge *judge = self;
    template_free(&judge->asks);
    free(judge->begun);
    free(judge->label_ids[0].items);
    free(judge->label_ids[1].items);
    answers_close(&judge->opened);
}

static int judge_some(struct judge *judge, sluice_record *const *records, size_t count)
{
    switch (judge->mode) {
    case MODE_PAIRWISE:
        return judge_pairwise(judge, records, count);
    case MODE_PAIRS:
        return judge_pairs(judge, records, count);
    default:
        return judge_each(judge, records, count);
    }
}

/* Records that are in the counts already: what was put out for them is copied, and what is lost of it is asked about
 * once more without being counted. */
static int judge_again(struct judge *judge, sluice_record *const *records, size_t count)
{
    const struct counts counts = judge->counts;
    sluice_record **open = calloc(count, sizeof(sluice_record *));
    size_t open_count;
    if (!open)
        return sluice_error(judge->host, SLUICE_NO_MEMORY, "out of memory for %zu records", count);
    int rc = resume_copy(judge, records, count, open, &open_count);
    if (rc >= 0 && open_count > 0)
        rc = judge_some(judge, open, open_count);
    judge->counts = counts;
    free(open);
    return rc;
}

static int process_batch(void *self, sluice_record *const *records, bool *keep, size_t count)
{
    struct judge *judge = self;
    const uint64_t left = judge->keeper.records > judge->records ? judge->keeper.records - judge->records : 0;
    const size_t known = left < count ? (size_t)left : count;
    int rc = resume_save(judge);
    if (rc >= 0 && known > 0)
        rc = judge_again(judge, records, known);
    if (rc >= 0 && known < count)
        rc = judge_some(judge, records + known, count - known);
    judge->records += count;
    int64_t total = sluice_input_count(judge->host);
    sluice_progress(judge->host, judge->records, total > 0 ? (uint64_t)total : 0, "records");
    return rc;
}

static void warn(const struct judge *judge)
{
    if (judge->mode == MODE_SCORE && judge->counts.sampled > 0 &&
        judge->counts.unparsed + judge->counts.out_of_range == judge->counts.sampled)
        sluice_log(
            judge->host, SLUICE_LOG_WARNING,
            "none of the judge's %llu answers had a score from %g to %g after \"%s\", so no candidate has one; the "
            "log shows an answer",
            (unsigned long long)judge->counts.sampled, judge->lowest, judge->highest, judge->marker);
    if (judge->mode == MODE_PAIRS && judge->records > 0 && judge->counts.pairs + judge->counts.skipped == 0)
        sluice_log(judge->host, SLUICE_LOG_WARNING, "no record had a pair; put a ranker before this stage");
    if (judge->counts.compared > 0 && judge->counts.mass / (double)judge->counts.compared < 0.01)
        sluice_log(
            judge->host, SLUICE_LOG_WARNING,
            "the judge gives the labels '%s' and '%s' together a probability of %.2g: it would say something else; "
            "look at prompt and labels",
            judge->labels.items[0], judge->labels.items[1], judge->counts.mass / (double)judge->counts.compared);
}

static int finish(void *self)
{
    struct judge *judge = self;
    sluice_number numbers[15];
    size_t n = 0;
    bool pairs = judge->mode == MODE_PAIRS;
    if (!pairs) {
        numbers[n++] = (sluice_number){"scored", (double)judge->counts.scored};
        numbers[n++] = (sluice_number){"unscored", (double)judge->counts.unscored};
    }
    if (judge->counts.scored > 0)
        numbers[n++] = (sluice_number){"mean_score", judge->counts.sum / (double)judge->counts.scored};
    if (judge->mode == MODE_SCORE) {
        numbers[n++] = (sluice_number){"samples", (double)judge->counts.sampled};
        numbers[n++] = (sluice_number){"unparsed", (double)judge->counts.unparsed};
        numbers[n++] = (sluice_number){"out_of_range", (double)judge->counts.out_of_range};
    } else {
        numbers[n++] = (sluice_number){"compared", (double)judge->counts.compared};
    }
    if (judge->counts.compared > 0) {
        numbers[n++] = (sluice_number){"first_label", judge->counts.first / (double)judge->counts.compared};
        numbers[n++] = (sluice_number){"label_mass", judge->counts.mass / (double)judge->counts.compared};
    }
    if (judge->counts.both > 0)
        numbers[n++] =
            (sluice_number){"order_disagreement", (double)judge->counts.disagreed / (double)judge->counts.both};
    if (pairs)
        numbers[n++] = (sluice_number){"pairs", (double)judge->counts.pairs};
    if (judge->counts.pairs > 0) {
        numbers[n++] = (sluice_number){"against", (double)judge->counts.against / (double)judge->counts.pairs};
        numbers[n++] = (sluice_number){"mean_p", judge->counts.q / (double)judge->counts.pairs};
    }
    numbers[n++] = (sluice_number){"skipped", (double)judge->counts.skipped};
    numbers[n++] = (sluice_number){"cut", (double)judge->counts.cut};
    sluice_metrics(judge->host, -1, numbers, n);
    warn(judge);
    return SLUICE_OK;
}

static const sluice_stage_class judge_class = {
    SLUICE_STAGE_CLASS(SLUICE_JUDGE, "judge-llm", "Ask a language model about answers, in words or by A and B",
                       struct judge, params),
    .base.reads = SLUICE_FIELD_PROMPT | SLUICE_FIELD_CANDIDATES,
    .base.adds = 0,
    .base.traits = SLUICE_USES_DEVICE,
    .base.doc =
        "mode = score: the judge answers in words, `samples` times, and the score is the mean of the numbers it gives "
        "(the additive 5-point prompt of self-rewarding language models, Yuan et al. 2024). What counts is the last "
        "number after the marker; \"4\", \"4/5\", \"3.5\", \"**4**\" and \"<4>\" are numbers, \"4th\", \"1e9\" and "
        "words are "
        "none, nor is a number at the end of an answer cut at max_tokens, which may lack digits. A number out of range "
        "is "
        "no score, and a candidate about which nothing could be read has none: it is never 0.\n\n"
        "mode = pairwise: each answer meets the others, and its score is its mean probability of being the better one. "
        "The "
        "judge does not speak: p is the softmax over the log-probabilities of the two labels as its answer, of several "
        "tokens their sum. Both orders are asked and their mean taken, which a liking for a place draws towards 1/2 "
        "and cannot turn.\n\n"
        "mode = question: a question about one answer, and the score is the first label's probability.\n\n"
        "mode = pairs: soft labels for pairs that are there, from a ranker or from data (RLAIF, Lee et al. 2023; the "
        "baseline of RLCD, 2307.12950, which asks one order only): q = P(chosen is better) joins the pair's p as p*q + "
        "(1-p)*(1-q), which is q where nobody doubted the pair. For a loss that reads p a pair turned over with 1-p is "
        "the "
        "same pair.\n\n"
        "Equal answers of a record are judged once. The texts of prompt and answers reach the judge as text: what "
        "looks "
        "like a special token in them is none. Judge and policy may have different tokenizers. A dialogue becomes text "
        "as "
        "\"role: ...\", a blank line between messages.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .batch = 256,
    .process_batch = process_batch,
    .finish = finish,
};
SLUICE_PLUGIN("judge-llm", "1.0", "Apache-2.0", &judge_class.base);
