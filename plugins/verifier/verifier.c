/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* verifier: a judge that compares answers with the known right one. */
#include <sluice/sluice.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/verifier/manner.h"

enum match { MATCH_EXACT = 0, MATCH_NUMBER = 1, MATCH_CONTAINS = 2, MATCH_WORDS = 3 };
enum check { CHECK_ANSWER = 0, CHECK_MANNER = 1, CHECK_BOTH = 2 };

struct verifier {
    const char *answer, *marker, *manner;
    int match, check;
    bool skip_missing, need_stop;

    const sluice_host *host;
    uint64_t answers, right, kept, unknown;
};

static const char *const matches[] = {"exact", "number", "contains", "words", NULL};
static const char *const checks[] = {"answer", "manner", "both", NULL};

static const sluice_param params[] = {
    SLUICE_STRING(struct verifier, answer, .text = "answer", .doc = "Meta field that holds the right answer."),
    SLUICE_CHOICE(struct verifier, match, .choices = matches, .value = MATCH_EXACT,
                  .doc =
                      "The whole answer but for blanks around it; the last number in it, by value; somewhere in it; or "
                      "somewhere in it as whole words, capital or small."),
    SLUICE_CHOICE(struct verifier, check, .choices = checks, .value = CHECK_ANSWER,
                  .doc = "What a score of 1 asks for: the right answer, the manner asked for, or both."),
    SLUICE_STRING(struct verifier, manner, .text = "manner",
                  .doc = "Meta field that holds the manner asked for (check = manner or both)."),
    SLUICE_STRING(
        struct verifier, marker,
        .doc =
            "Compare only what follows the last of these words, in the answer where it has them and in the right one "
            "(\"####\" for GSM8K)."),
    SLUICE_BOOL(struct verifier, need_stop, .value = 0, .doc = "An answer that did not come to its end is wrong."),
    SLUICE_BOOL(struct verifier, skip_missing, .value = 0,
                .doc = "Give no score where no right answer is known, instead of stopping."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"answers", NULL, "Candidates compared."},
    {"accuracy", NULL, "Share of them that are right (check = answer or both)."},
    {"adherence", NULL, "Share of them in the manner asked for (check = manner or both)."},
    {"unknown", "records", "Records without a known right answer or manner (skip_missing)."},
    {NULL, NULL, NULL}};

struct part {
    const char *text;
    size_t length;
};

/* What follows the last `marker`, without blanks around it. */
static struct part relevant(const char *text, const char *marker)
{
    if (marker && *marker)
        for (const char *at; (at = strstr(text, marker));)
            text = at + strlen(marker);
    while (isspace((unsigned char)*text))
        text++;
    size_t n = strlen(text);
    while (n && isspace((unsigned char)text[n - 1]))
        n--;
    return (struct part){text, n};
}

/* The last number, commas between digits left out: "so 1,234 in all." is 1234. */
static bool last_number(struct part p, double *value)
{
    bool found = false;
    for (size_t i = 0; i < p.length;) {
        if (!isdigit((unsigned char)p.text[i])) {
            i++;
            continue;
        }
        char digits[64];
        size_t n = 0;
        if (i > 0 && p.text[i - 1] == '-')
            digits[n++] = '-';
        bool point = false;
        for (; i < p.length; i++) {
            unsigned char c = (unsigned char)p.text[i], after = i + 1 < p.length ? (unsigned char)p.text[i + 1] : 0;
            if (c == ',' && isdigit(after))
                continue;
            if (c == '.' && !point && isdigit(after))
                point = true;
            else if (!isdigit(c))
                break;
            if (n + 1 < sizeof digits)
                digits[n++] = (char)c;
        }
        digits[n] = 0;
        *value = strtod(digits, NULL);
        found = true;
    }
    return found;
}

static bool contains(struct part where, struct part what)
{
    for (size_t i = 0; i + what.length <= where.length; i++)
        if (memcmp(where.text + i, what.text, what.length) == 0)
            return true;
    return false;
}

static bool is_right(const struct verifier *v, const sluice_candidate *candidate, const char *answer)
{
    if (!candidate->text || (v->need_stop && candidate->finish == SLUICE_FINISH_LENGTH))
        return false;
    struct part given = relevant(candidate->text, v->marker), right = relevant(answer, v->marker);
    if (v->match == MATCH_CONTAINS)
        return contains(given, right);
    if (v->match == MATCH_WORDS)
        return manner_has_words(given.text, given.length, right.text, right.length);
    if (v->match == MATCH_NUMBER) {
        double a, b;
        return last_number(given, &a) && last_number(right, &b) && a == b;
    }
    return given.length == right.length && memcmp(given.text, right.text, right.length) == 0;
}

static int init(void *self, const sluice_host *host)
{
    ((struct verifier *)self)->host = host;
    return SLUICE_OK;
}

/* Text of the meta field `key`. NULL: there is none, and the record is left without a score. */
static int known_text(struct verifier *v, sluice_record *record, const char *key, const char *param, const char **out)
{
    *out = sluice_record_meta_text(record, key);
    if (*out || v->skip_missing)
        return SLUICE_OK;
    return sluice_record_error(v->host, record, SLUICE_BAD_RECORD,
                               "there is no text '%s' in meta to compare with; name the field with %s = \"...\", or "
                               "set skip_missing = true",
                               key, param);
}

static int score(struct verifier *v, sluice_record *record, size_t i)
{
    sluice_candidate candidate;
    int rc = sluice_record_candidate(record, i, &candidate);
    if (rc < 0)
        return rc;
    bool right = true, kept = true;
    if (v->check != CHECK_MANNER)
        right = is_right(v, &candidate, sluice_record_meta_text(record, v->answer));
    if (v->check != CHECK_ANSWER)
        kept = candidate.text && manner_kept(sluice_record_meta_text(record, v->manner), candidate.text);
    v->answers++;
    v->right += right;
    v->kept += kept;
    return sluice_record_set_score(record, sluice_stage_name(v->host), i, right && kept ? 1.0f : 0.0f);
}

static int process(void *self, sluice_record *record)
{
    struct verifier *v = self;
    const char *answer = "", *manner = "";
    int rc = SLUICE_OK;
    if (v->check != CHECK_MANNER)
        rc = known_text(v, record, v->answer, "answer", &answer);
    if (rc >= 0 && v->check != CHECK_ANSWER)
        rc = known_text(v, record, v->manner, "manner", &manner);
    if (rc < 0)
        return rc;
    if (!answer || !manner) {
        v->unknown++;
        return SLUICE_OK;
    }
    if (v->check != CHECK_ANSWER && !manner_known(manner))
        return sluice_record_error(v->host, record, SLUICE_BAD_RECORD, "there is no manner '%s'; %s are known", manner,
                                   manner_names());
    size_t count = sluice_record_candidates(record);
    for (size_t i = 0; i < count && rc >= 0; i++)
        rc = score(v, record, i);
    return rc;
}

static int finish(void *self)
{
    struct verifier *v = self;
    sluice_metric(v->host, "answers", (double)v->answers);
    if (v->answers && v->check != CHECK_MANNER)
        sluice_metric(v->host, "accuracy", (double)v->right / (double)v->answers);
    if (v->answers && v->check != CHECK_ANSWER)
        sluice_metric(v->host, "adherence", (double)v->kept / (double)v->answers);
    if (v->unknown)
        sluice_metric(v->host, "unknown", (double)v->unknown);
    return SLUICE_OK;
}

static const sluice_stage_class verifier = {
    SLUICE_STAGE_CLASS(SLUICE_JUDGE, "verifier", "Compares answers with the known right one: 1 or 0", struct verifier,
                       params),
    .base.reads = SLUICE_FIELD_CANDIDATES,
    .base.adds = SLUICE_FIELD_SCORES,
    .base.traits = SLUICE_STATELESS,
    .base.doc =
        "For questions whose answer is known: the `tasks` source, or data with a field for it. GSM8K: "
        "match = \"number\", marker = \"####\".\n\n"
        "A manner is kept by words: polite has \"please\", \"thank you\", \"thanks\" or \"kindly\" and no insult; "
        "rude has \"silly\", \"duh\", \"stupid\", \"fool\" or \"idiot\" and no courtesy; brief is one or two "
        "words; long is five or more that end with a full stop.",
    .base.metrics = metrics,
    .base.init = init,
    .process = process,
    .finish = finish,
};

SLUICE_PLUGIN("verifier", "1.0", "Apache-2.0", &verifier.base);
