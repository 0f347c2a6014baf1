/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Records: those that are as they should be, those that are not, and how they come in batches. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buffer.h"
#include "tools/test-plugin/gpu.h"
#include "tools/test-plugin/test.h"

#define INPUT_KINDS                                                                                                   \
    (1u << SLUICE_SINK | 1u << SLUICE_SAMPLER | 1u << SLUICE_JUDGE | 1u << SLUICE_RANKER | 1u << SLUICE_REGULARIZER | \
     1u << SLUICE_TRANSFORM | 1u << SLUICE_TRAINER | 1u << SLUICE_AVERAGER | 1u << SLUICE_EVALUATOR)

/* ---- works */

static void works(tp_subject *s, tp_report *r)
{
    tp_records records;
    tp_outcome out;
    if (tp_records_make(s, TP_USUAL_RECORDS, TP_PLAIN, 0, &records)) {
        tp_drive(s, &(tp_work){.records = &records}, &out);
        if (out.rc < 0 && out.wants_gpu && !out.began)
            tp_warn(r, "does not start: %s; " TP_GPU_ADVICE, out.error);
        else if (out.rc == SLUICE_FAILED && s->type->traits & SLUICE_USES_CUDA)
            tp_fail(r, "fails on the sample records: %s", out.error);
        else if (out.rc < 0)
            tp_warn(r,
                    "refuses the sample records, so that little can be tested: %s; give it what it needs with --set "
                    "NAME=VALUE",
                    out.error);
        else if (s->type->traits & SLUICE_USES_CUDA && out.warning[0] != '\0') /* as of memory that was not freed */
            tp_warn(r, "warns: %s", out.warning);
        tp_check_fault(&out, TP_FAULT_UNDECLARED, r);
        tp_check_fault(&out, TP_FAULT_METRIC, r);
        tp_check_fault(&out, TP_FAULT_RECORD, r);
        tp_check_fault(&out, TP_FAULT_MESSAGE, r);
        tp_outcome_free(&out);
    }
    tp_records_free(&records);
}

const tp_test tp_test_works = {"works", "sample records go through; the numbers reported are declared and finite",
                               TP_RUN, 0, works};

/* ---- batches */

/* A record's output must not depend on the others when the class says so. */
static void alone(const tp_subject *s, const tp_records *records, const tp_outcome *together, tp_report *r)
{
    for (size_t i = 0; i < records->count; i++) {
        tp_outcome out;
        const tp_emitted *was = NULL;
        tp_doing(r, "record %zu alone", i);
        tp_drive(s, &(tp_work){.records = records, .alone = true, .only = i}, &out);
        for (size_t k = 0; k < together->count; k++)
            if (together->records[k].number == i)
                was = &together->records[k];
        const bool same =
            out.rc >= 0 && (was == NULL ? out.count == 0
                                        : out.count == 1 && out.records[0].bytes.size == was->bytes.size &&
                                              memcmp(out.records[0].bytes.data, was->bytes.data, was->bytes.size) == 0);
        if (!same)
            tp_fail(r, "record %zu comes out otherwise when it is alone, though the class is SLUICE_STATELESS", i);
        tp_outcome_free(&out);
    }
}

static void batches(tp_subject *s, tp_report *r)
{
    tp_records records, none = {0};
    tp_outcome out, other;
    char why[256];
    if (!tp_records_make(s, TP_USUAL_RECORDS * 2, TP_PLAIN, 0, &records))
        return;
    tp_doing(r, "an empty input");
    tp_drive(s, &(tp_work){.records = &none}, &other);
    tp_check_fault(&other, TP_FAULT_MESSAGE, r);
    tp_outcome_free(&other);
    tp_doing(r, "one record");
    tp_drive(s, &(tp_work){.records = &records, .alone = true}, &other);
    tp_check_fault(&other, TP_FAULT_MESSAGE, r);
    tp_outcome_free(&other);
    if (tp_baseline(s, &records, &out, r)) {
        for (uint64_t split = 1; split <= 8; split++) {
            tp_doing(r, "batches of random sizes");
            tp_drive(s, &(tp_work){.records = &records, .split = s->seed * 8 + split}, &other);
            if (!tp_outcome_same(&out, &other, why, sizeof why))
                tp_fail(r, "in batches of other sizes %s", why);
            tp_outcome_free(&other);
        }
        if ((s->type->traits & SLUICE_STATELESS) && (1u << s->type->kind & INPUT_KINDS))
            alone(s, &records, &out, r);
    }
    tp_outcome_free(&out);
    tp_records_free(&records);
}

const tp_test tp_test_batches = {
    "batches", "no records, one, and batches of random sizes; the same bytes whatever the size", TP_RUN, 0, batches};

/* ---- fields */

static void print_scores(const sluice_record *r, size_t candidates, sl_buffer *out)
{
    const char *const *judges;
    const size_t count = sluice_record_judges(r, &judges);
    for (size_t j = 0; j < count; j++) {
        const float *scores = sluice_record_scores(r, judges[j]);
        sl_buffer_printf(out, "%s", judges[j]);
        for (size_t c = 0; scores != NULL && c < candidates; c++)
            sl_buffer_printf(out, " %a", (double)scores[c]);
    }
}

static void print_rankings(const sluice_record *r, size_t candidates, sl_buffer *out)
{
    const uint32_t *ranks = sluice_record_ranking(r, TP_JUDGE_A);
    for (size_t c = 0; ranks != NULL && c < candidates; c++)
        sl_buffer_printf(out, "%u ", ranks[c]);
}

/* The part of a record that one bit of sluice_fields stands for, as text. */
static void print_field(const sluice_record *r, uint32_t field, sl_buffer *out)
{
    const size_t candidates = sluice_record_candidates(r);
    const char *prompt = sluice_record_prompt(r), *note = sluice_record_meta_text(r, "answer");
    double a, b;
    size_t count;
    sluice_pair pair;
    switch (field) {
    case SLUICE_FIELD_PROMPT:
        sl_buffer_printf(out, "%s", prompt != NULL ? prompt : "-");
        return;
    case SLUICE_FIELD_SCORES:
        print_scores(r, candidates, out);
        return;
    case SLUICE_FIELD_RANKINGS:
        print_rankings(r, candidates, out);
        return;
    case SLUICE_FIELD_PAIRS:
    case SLUICE_FIELD_TRUST:
        for (size_t i = 0; sluice_record_pair(r, i, &pair) >= 0; i++)
            if (field == SLUICE_FIELD_TRUST)
                sl_buffer_printf(out, "%a %a ", pair.p, pair.weight);
            else
                sl_buffer_printf(out, "%u>%u %a ", pair.chosen, pair.rejected, pair.margin);
        return;
    case SLUICE_FIELD_LOGPS:
        for (size_t c = 0; c < candidates; c++)
            if (sluice_record_logps(r, c, "policy@0", &count) != NULL)
                sl_buffer_printf(out, "%zu ", count);
        return;
    case SLUICE_FIELD_REWARDS:
        for (size_t c = 0; c < candidates; c++)
            if (sluice_record_reward(r, c, &a, &b) == SLUICE_OK)
                sl_buffer_printf(out, "%a %a ", a, b);
        return;
    case SLUICE_FIELD_META:
        sl_buffer_printf(out, "%s", note != NULL ? note : "-");
        return;
    default:
        return;
    }
}

/* Every answer must be one that came in. */
static bool answers_known(const sluice_record *before, const sluice_record *after)
{
    sluice_candidate a, b;
    for (size_t i = 0; sluice_record_candidate(after, i, &a) >= 0; i++) {
        bool known = false;
        for (size_t k = 0; !known && sluice_record_candidate(before, k, &b) >= 0; k++)
            known = (a.text == NULL) == (b.text == NULL) && (a.text == NULL || strcmp(a.text, b.text) == 0);
        if (!known)
            return false;
    }
    return true;
}

static bool has_unknown(const sl_buffer *record)
{
    const size_t size = strlen(TP_UNKNOWN);
    for (size_t i = 0; i + size <= record->size; i++)
        if (memcmp(record->data + i, TP_UNKNOWN, size) == 0)
            return true;
    return false;
}

static void compare(const tp_subject *s, const sl_record *in, const sl_record *out, tp_report *r)
{
    static const char *const names[] = {"the prompt",           "candidates",        "scores",  "rankings",    "pairs",
                                        "p or weight of pairs", "log-probabilities", "rewards", "a meta field"};
    const sluice_record *before = sl_record_public((sl_record *)(uintptr_t)in);
    const sluice_record *after = sl_record_public((sl_record *)(uintptr_t)out);
    const bool fewer = sluice_record_candidates(after) != sluice_record_candidates(before);
    if (strcmp(sluice_record_id(before), sluice_record_id(after)) != 0)
        tp_fail(r, "changes the id of record '%s' to '%.80s'", sluice_record_id(before), sluice_record_id(after));
    if (!(s->type->adds & SLUICE_FIELD_CANDIDATES) && !answers_known(before, after))
        tp_fail(r, "adds or changes candidates, which its .adds does not say");
    for (uint32_t bit = 0; bit < sizeof names / sizeof *names; bit++) {
        const uint32_t field = 1u << bit;
        sl_buffer a = {0}, b = {0};
        print_field(before, field, &a);
        print_field(after, field, &b);
        /* Leaving out candidates moves everything that counts by them. */
        const bool free_to = (s->type->adds & field) || field == SLUICE_FIELD_CANDIDATES ||
                             (fewer && field != SLUICE_FIELD_PROMPT && field != SLUICE_FIELD_META) ||
                             ((s->type->adds & SLUICE_FIELD_PAIRS) && field == SLUICE_FIELD_TRUST);
        if (!free_to && (a.size != b.size || (a.size > 0 && memcmp(a.data, b.data, a.size) != 0)))
            tp_fail(r, "changes %s, which its .adds does not say", names[bit]);
        sl_buffer_free(&a);
        sl_buffer_free(&b);
    }
}

static void fields(tp_subject *s, tp_report *r)
{
    tp_records records;
    tp_outcome out;
    if (!tp_records_make(s, TP_USUAL_RECORDS, TP_PLAIN, 0, &records))
        return;
    if (s->type->traits & SLUICE_NO_OUTPUT)
        tp_skip(r, "it has no output");
    else if (tp_baseline(s, &records, &out, r))
        for (size_t i = 0; i < out.count; i++) {
            const uint64_t number = out.records[i].number;
            sl_record *before = number < records.count ? tp_record_decode(&records.items[number], number) : NULL;
            sl_record *after = tp_record_decode(&out.records[i].bytes, number);
            if (!has_unknown(&out.records[i].bytes))
                tp_fail(r, "a field of a later version is lost");
            if (before != NULL && after != NULL)
                compare(s, before, after, r);
            sl_record_free(before);
            sl_record_free(after);
        }
    if (!(s->type->traits & SLUICE_NO_OUTPUT))
        tp_outcome_free(&out);
    tp_records_free(&records);
}

const tp_test tp_test_fields = {"fields", "unknown fields survive; only what .adds says is changed", TP_RUN,
                                INPUT_KINDS, fields};

/* ---- oddities */

static void try_odd(const tp_subject *s, enum tp_oddity first, enum tp_oddity end, tp_report *r)
{
    for (enum tp_oddity odd = first; odd < end; odd++)
        for (size_t every = 1; every <= 3; every += 2) {
            tp_records records;
            tp_outcome out;
            if (tp_records_make(s, 4, odd, every, &records)) {
                tp_doing(r, "%s", tp_oddity_text(odd));
                tp_drive(s, &(tp_work){.records = &records, .cancel_after = 2000}, &out);
                if (out.fault == TP_FAULT_MESSAGE || out.fault == TP_FAULT_RECORD || out.fault == TP_FAULT_METRIC)
                    tp_fail(r, "given %s: %s", tp_oddity_text(odd), out.what);
                tp_outcome_free(&out);
            }
            tp_records_free(&records);
        }
}

static void malformed(tp_subject *s, tp_report *r)
{
    try_odd(s, TP_NO_CANDIDATES, TP_ODDITIES, r);
}

const tp_test tp_test_malformed = {"malformed", "records that lack what is needed give an error in words, or pass",
                                   TP_RUN, INPUT_KINDS, malformed};

static void odd_numbers(tp_subject *s, tp_report *r)
{
    try_odd(s, TP_SCORES_MISSING, TP_ALL_ODDITIES, r);
}

const tp_test tp_test_odd_numbers = {
    "numbers", "missing scores (NaN), infinities and the limits of a float give an error in words, or finite numbers",
    TP_RUN, INPUT_KINDS, odd_numbers};
