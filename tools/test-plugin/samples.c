/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/test-plugin/samples.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base/cbor.h"
#include "tools/test-plugin/model.h"

const char *tp_oddity_text(enum tp_oddity oddity)
{
    static const char *const texts[] = {
        [TP_PLAIN] = "a plain record",
        [TP_NO_CANDIDATES] = "a record without candidates",
        [TP_ONE_CANDIDATE] = "a record with one candidate",
        [TP_NO_PROMPT] = "a record without a prompt",
        [TP_EMPTY_PROMPT] = "a record with an empty prompt",
        [TP_LONG_PROMPT] = "a record with a prompt of 100,000 bytes",
        [TP_MESSAGES] = "a record whose prompt is messages",
        [TP_NO_TEXT] = "candidates without text",
        [TP_NO_TOKENS] = "candidates without tokens",
        [TP_EMPTY_ANSWERS] = "candidates with neither text nor tokens",
        [TP_UNKNOWN_TOKENS] = "token ids beyond any vocabulary",
        [TP_BAD_UTF8] = "control characters and quotes in texts",
        [TP_MANY_CANDIDATES] = "a record with 300 candidates",
        [TP_NO_PAIRS] = "a record without pairs",
        [TP_NO_SCORES] = "a record without scores",
        [TP_NO_META] = "a record without meta fields",
        [TP_OTHER_META] = "meta fields of other types",
        [TP_NO_LOGPROBS] = "candidates without log-probabilities",
        [TP_SCORES_MISSING] = "scores of some candidates only (NaN for the others)",
        [TP_SCORES_EQUAL] = "equal scores",
        [TP_SCORES_HUGE] = "scores at the limits of a float",
        [TP_SCORES_TINY] = "scores of the smallest size, and negative zero",
        [TP_LOGPS_INFINITE] = "log-probabilities of minus infinity",
        [TP_LOGPS_NAN] = "log-probabilities that are NaN",
        [TP_PAIRS_EXTREME] = "pairs with p = 0, weight = 0 and huge margins",
        [TP_REWARDS_EXTREME] = "rewards at the limits of a double",
    };
    return texts[oddity];
}

/* ---- one record */

typedef struct making {
    const tp_subject *subject;
    sluice_record *record;
    size_t number;
    enum tp_oddity odd;
    uint32_t have; /* fields */
} making;

static double plain_score(size_t number, size_t candidate, size_t judge)
{
    return (double)((candidate * 7 + number * 5 + judge * 3) % 11) / 2 - (double)candidate * 0.25;
}

static float score_of(const making *m, size_t candidate, size_t judge)
{
    switch (m->odd) {
    case TP_SCORES_EQUAL:
        return 1;
    case TP_SCORES_HUGE:
        return candidate % 2 ? FLT_MAX : -FLT_MAX;
    case TP_SCORES_TINY:
        return candidate % 2 ? FLT_TRUE_MIN : -0.0F;
    default:
        return (float)plain_score(m->number, candidate, judge);
    }
}

static int add_candidate(const making *m, size_t index)
{
    char text[32];
    uint32_t tokens[32];
    float logprobs[32];
    snprintf(text, sizeof text, m->odd == TP_BAD_UTF8 ? "\x01 \"\\ \x7f %zu" : "%zu",
             index == 0 ? 2 * m->number + 3 : 2 * m->number + 3 + index);
    const size_t length = m->odd == TP_EMPTY_ANSWERS ? 0 : strlen(text);
    for (size_t i = 0; i < length + 1; i++) {
        tokens[i] = i < length ? (unsigned char)text[i] : TP_STOP;
        if (m->odd == TP_UNKNOWN_TOKENS)
            tokens[i] = UINT32_MAX - (uint32_t)i;
        logprobs[i] = m->odd == TP_LOGPS_INFINITE ? -INFINITY : m->odd == TP_LOGPS_NAN ? NAN : -1.5F - (float)i / 8;
    }
    const bool bare = m->odd == TP_NO_TOKENS || m->odd == TP_EMPTY_ANSWERS;
    const sluice_candidate candidate = {
        .text = m->odd == TP_NO_TEXT || m->odd == TP_EMPTY_ANSWERS ? NULL : text,
        .tokens = bare ? NULL : tokens,
        .logprobs = bare || m->odd == TP_NO_LOGPROBS ? NULL : logprobs,
        .token_count = bare ? 0 : (uint32_t)length + 1,
        .finish = SLUICE_FINISH_STOP,
        .parent = -1,
    };
    int rc = sluice_record_add_candidate(m->record, &candidate);
    if (rc >= 0 && !bare && (m->have & SLUICE_FIELD_LOGPS) && m->odd != TP_NO_LOGPROBS)
        rc = sluice_record_set_logps(m->record, index, "policy@0", logprobs, length + 1);
    return rc;
}

/* The judges that parameters name, and our own two. */
static const char *judge_name(const making *m, size_t index)
{
    if (index < 2)
        return index == 0 ? TP_JUDGE_A : TP_JUDGE_B;
    index -= 2;
    for (size_t i = 0; i < m->subject->value_count; i++) {
        const tp_value *v = &m->subject->values[i];
        const bool one = v->param->type == SLUICE_TYPE_STAGE && v->text != NULL;
        const size_t count = v->param->type == SLUICE_TYPE_STAGES ? v->count : one;
        if (index < count)
            return one ? v->text : v->texts[index];
        index -= count;
    }
    return NULL;
}

static int add_scores(const making *m, size_t candidates)
{
    const char *judge;
    int rc = SLUICE_OK;
    for (size_t j = 0; (judge = judge_name(m, j)) != NULL; j++)
        for (size_t c = 0; rc >= 0 && c < candidates; c++)
            if (m->odd != TP_SCORES_MISSING || c == 0)
                rc = sluice_record_set_score(m->record, judge, c, score_of(m, c, j));
    return rc;
}

static int add_pairs(const making *m, size_t candidates)
{
    int rc = SLUICE_OK;
    for (uint32_t c = 1; rc >= 0 && c < candidates && c < 3; c++) {
        const bool extreme = m->odd == TP_PAIRS_EXTREME;
        const sluice_pair pair = {.chosen = 0,
                                  .rejected = c,
                                  .p = extreme ? (double)(c % 2) : 1,
                                  .weight = extreme && c == 1 ? 0 : 1,
                                  .margin = extreme ? (c % 2 ? DBL_MAX : -DBL_MAX) : NAN};
        rc = sluice_record_add_pair(m->record, &pair);
    }
    return rc;
}

static int add_rest(const making *m, size_t candidates)
{
    uint32_t ranks[512];
    int rc = SLUICE_OK;
    for (size_t c = 0; c < candidates; c++)
        ranks[c] = (uint32_t)c;
    if ((m->have & SLUICE_FIELD_RANKINGS) && candidates > 0)
        rc = sluice_record_set_ranking(m->record, TP_JUDGE_A, ranks);
    for (size_t c = 0; rc >= 0 && (m->have & SLUICE_FIELD_REWARDS) && c < candidates; c++)
        rc = sluice_record_set_reward(
            m->record, c, m->odd == TP_REWARDS_EXTREME ? (c % 2 ? DBL_MAX : -DBL_MAX) : 1.0 / (double)(c + 1),
            m->odd == TP_REWARDS_EXTREME ? DBL_MAX : 0.5 - (double)c);
    return rc;
}

static int set_prompt(const making *m)
{
    char text[96];
    if (m->odd == TP_NO_PROMPT)
        return SLUICE_OK;
    if (m->odd == TP_LONG_PROMPT) {
        char *longer = malloc(100001);
        if (longer == NULL)
            return SLUICE_NO_MEMORY;
        memset(longer, 'x', 100000);
        longer[100000] = '\0';
        const int rc = sluice_record_set_prompt(m->record, longer);
        free(longer);
        return rc;
    }
    snprintf(text, sizeof text, "%zu + %zu =%s", m->number + 1, m->number + 2,
             m->odd == TP_BAD_UTF8 ? " \x01\t\"\\\x7f {{}} %s%n" : "");
    if (m->odd == TP_MESSAGES) {
        const sluice_message messages[] = {{"system", "Be short."}, {"user", text}};
        return sluice_record_set_messages(m->record, messages, 2);
    }
    return sluice_record_set_prompt(m->record, m->odd == TP_EMPTY_PROMPT ? "" : text);
}

static int set_meta(const making *m)
{
    char text[24];
    if (m->odd == TP_NO_META)
        return SLUICE_OK;
    int rc = sluice_record_set_meta_number(m->record, "position", (double)m->number);
    if (rc >= 0)
        rc = sluice_record_set_meta_text(m->record, "kind", "sum");
    snprintf(text, sizeof text, "%zu", 2 * m->number + 3);
    if (rc >= 0 && m->odd == TP_OTHER_META)
        return sluice_record_set_meta_json(m->record, "answer", "[{\"a\": null}, [1, 2.5], \"x\"]");
    return rc >= 0 ? sluice_record_set_meta_text(m->record, "answer", text) : rc;
}

/* Which fields a record has before the class sees it: all but those that it makes. */
static uint32_t fields_before(const sluice_class *type)
{
    uint32_t have = ~(type->adds & ~type->reads);
    if (!(have & SLUICE_FIELD_CANDIDATES))
        have &= ~(uint32_t)(SLUICE_FIELD_SCORES | SLUICE_FIELD_RANKINGS | SLUICE_FIELD_PAIRS | SLUICE_FIELD_LOGPS |
                            SLUICE_FIELD_REWARDS);
    return have;
}

static int fill(const making *m)
{
    char id[32];
    snprintf(id, sizeof id, "sample-%zu", m->number);
    int rc = sluice_record_set_id(m->record, id);
    if (rc >= 0)
        rc = set_prompt(m);
    if (rc >= 0)
        rc = set_meta(m);
    size_t count = m->odd == TP_NO_CANDIDATES     ? 0
                   : m->odd == TP_ONE_CANDIDATE   ? 1
                   : m->odd == TP_MANY_CANDIDATES ? 300
                                                  : 4;
    if (!(m->have & SLUICE_FIELD_CANDIDATES))
        count = 0;
    for (size_t c = 0; rc >= 0 && c < count; c++)
        rc = add_candidate(m, c);
    /* A judge reads the answers, not what other judges made of them, unless it says so. */
    if (rc >= 0 && (m->have & SLUICE_FIELD_SCORES) && m->odd != TP_NO_SCORES)
        rc = add_scores(m, count);
    if (rc >= 0 && (m->have & SLUICE_FIELD_PAIRS) && m->odd != TP_NO_PAIRS)
        rc = add_pairs(m, count);
    return rc >= 0 ? add_rest(m, count) : rc;
}

/* Appends a field of a later version to an encoded record: its key sorts behind all of ours. */
static int add_unknown(sl_buffer *record)
{
    sl_cbor_writer out = {.out = record};
    if (record->size == 0 || record->data[0] < 0xA0 || record->data[0] >= 0xB6)
        return SLUICE_FAILED;
    record->data[0]++;
    sl_cbor_put_text(&out, TP_UNKNOWN, strlen(TP_UNKNOWN));
    sl_cbor_put_head(&out, SL_CBOR_ARRAY, 2);
    sl_cbor_put_int(&out, -7);
    sl_cbor_put_text(&out, "kept", 4);
    return out.result;
}

bool tp_records_make(const tp_subject *s, size_t count, enum tp_oddity odd, size_t odd_every, tp_records *out)
{
    *out = (tp_records){.items = calloc(count + 1, sizeof *out->items)};
    int rc = out->items != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        sl_record *record = sl_record_new();
        if (record == NULL)
            break;
        const making m = {.subject = s,
                          .record = sl_record_public(record),
                          .number = i,
                          .odd = odd_every > 0 && i % odd_every == odd_every - 1 ? odd : TP_PLAIN,
                          .have = fields_before(s->type)};
        rc = fill(&m);
        if (rc >= 0)
            rc = sl_record_encode(record, &out->items[i]);
        if (rc >= 0)
            rc = add_unknown(&out->items[i]);
        sl_record_free(record);
        out->count += rc >= 0;
    }
    return out->items != NULL && out->count == count;
}

void tp_records_free(tp_records *records)
{
    for (size_t i = 0; i < records->count; i++)
        sl_buffer_free(&records->items[i]);
    free(records->items);
    *records = (tp_records){0};
}

sl_record *tp_record_decode(const sl_buffer *bytes, uint64_t number)
{
    sl_record *record = NULL;
    char error[256];
    size_t used;
    if (sl_record_decode(bytes->data, bytes->size, &record, &used, error, sizeof error) < 0)
        return NULL;
    sl_record_set_number(record, number);
    return record;
}

/* ---- files */

static bool write_input(void)
{
    FILE *out = fopen(TP_INPUT, "we");
    for (int i = 0; out != NULL && i < 20; i++)
        fprintf(out,
                "{\"id\": \"line-%d\", \"prompt\": \"%d + %d =\", \"chosen\": \"%d\", \"rejected\": \"%d\", "
                "\"completion\": \"%d\", \"answer\": \"%d\", \"note\": {\"a\": [1, null]}}\n",
                i, i, i + 1, 2 * i + 1, 2 * i + 2, 2 * i + 1, 2 * i + 1);
    return out != NULL && fclose(out) == 0;
}

bool tp_samples_write_files(const tp_subject *s)
{
    bool asks = false, reads = false;
    for (size_t i = 0; i < s->value_count; i++) {
        const uint32_t type = s->values[i].param->type;
        asks = asks || type == SLUICE_TYPE_MODEL || type == SLUICE_TYPE_SLOT || type == SLUICE_TYPE_MODELS ||
               type == SLUICE_TYPE_METRICS;
        reads = reads || (type == SLUICE_TYPE_FILE && s->type->kind != SLUICE_SINK);
    }
    bool made = mkdir(TP_OUTPUT, 0700) == 0 || errno == EEXIST;
    if (made && asks)
        made = mkdir(TP_MODELS, 0700) == 0 && mkdir(TP_MODELS "/0", 0700) == 0 && mkdir(TP_MODELS "/1", 0700) == 0 &&
               tp_model_write(TP_MODELS "/0", 0) && tp_model_write(TP_MODELS "/1", 1);
    return made && (!reads || write_input());
}
