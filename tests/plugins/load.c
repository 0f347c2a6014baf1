/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Stages that do next to nothing, for measuring what the engine itself costs: tests/test_load.sh, doc/results/load.md.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sluice/random.h>
#include <sluice/sluice.h>

/* ---- load/records: preference records of about 1 KB as CBOR: a prompt, five candidates, two judges' scores, a pair */

enum { CANDIDATES = 5, PROMPT = 300, ANSWER = 80, WORDS = 2048 };

struct records {
    int64_t count, made;
    char words[WORDS][12];
    const sluice_host *host;
};

static const sluice_param records_params[] = {
    SLUICE_INT(struct records, count, .value = 1000, .min = 0, .doc = "How many."), SLUICE_PARAMS_END};

static int records_init(void *self, const sluice_host *host)
{
    static const char letters[] = "etaoinshrdlucmfwypvbgkqjxz";
    struct records *r = self;
    r->host = host;
    for (uint64_t w = 0; w < WORDS; w++) {
        size_t length = 0;
        for (uint64_t x = sluice_mix(w, 7) >> 40; x > 0 && length < 9; x /= 19)
            r->words[w][length++] = letters[x % 26];
        r->words[w][length] = ' ';
    }
    return SLUICE_OK;
}

/* Frequent words more often, as in text: a uniform number squared. */
static void put_text(const struct records *r, uint64_t *x, char *text, size_t size)
{
    size_t used = 0;
    while (used + 12 < size) {
        *x = sluice_mix(*x, 1);
        const uint64_t u = *x >> 43; /* 21 bits */
        const char *word = r->words[u * u * WORDS >> 42 & (WORDS - 1)];
        const size_t length = strlen(word);
        memcpy(text + used, word, length);
        used += length;
    }
    text[used] = '\0';
}

static int records_next(void *self, sluice_record *record)
{
    struct records *r = self;
    char text[PROMPT];
    if (r->made == r->count)
        return SLUICE_END;
    uint64_t x = sluice_mix(sluice_seed(r->host), (uint64_t)r->made);
    snprintf(text, sizeof text, "record-%09lld", (long long)r->made++);
    int rc = sluice_record_set_id(record, text);
    put_text(r, &x, text, PROMPT);
    rc |= sluice_record_set_prompt(record, text);
    for (size_t c = 0; c < CANDIDATES; c++) {
        put_text(r, &x, text, ANSWER);
        rc |= sluice_record_add_candidate(
            record, &(sluice_candidate){.text = text, .finish = SLUICE_FINISH_STOP, .parent = -1});
        rc |= sluice_record_set_score(record, "load/now", c, (float)(sluice_mix(x, c) >> 52));
        rc |= sluice_record_set_score(record, "load/before", c, (float)(sluice_mix(x, c + 9) >> 52));
    }
    rc |= sluice_record_add_pair(record, &(sluice_pair){0, 1, 1, 1, 0});
    return rc == SLUICE_OK ? rc : SLUICE_NO_MEMORY;
}

static const sluice_stage_class records_class = {
    SLUICE_STAGE_CLASS(SLUICE_SOURCE, "load/records", "Makes preference records of 1 KB", struct records,
                       records_params),
    .base.adds = SLUICE_FIELD_PROMPT | SLUICE_FIELD_CANDIDATES | SLUICE_FIELD_SCORES | SLUICE_FIELD_PAIRS,
    .base.init = records_init,
    .next = records_next,
};

/* ---- load/null, load/end: records go through, or end here */

struct pass {
    int64_t pause;
};

static const sluice_param pass_params[] = {SLUICE_INT(struct pass, pause, .value = 0, .min = 0, .speed_only = true,
                                                      .unit = "microseconds", .doc = "Before each record."),
                                           SLUICE_PARAMS_END};

static int pass_process(void *self, sluice_record *record)
{
    const struct pass *p = self;
    (void)record;
    if (p->pause > 0)
        usleep((useconds_t)p->pause);
    return SLUICE_OK;
}

static const sluice_stage_class null_class = {
    SLUICE_STAGE_CLASS(SLUICE_TRANSFORM, "load/null", "Changes nothing", struct pass, pass_params),
    .process = pass_process,
};

static const sluice_stage_class end_class = {
    SLUICE_STAGE_CLASS(SLUICE_SINK, "load/end", "Keeps nothing", struct pass, pass_params),
    .base.traits = SLUICE_NO_OUTPUT,
    .process = pass_process,
};

SLUICE_PLUGIN("load", "1.0", "Apache-2.0", &records_class.base, &null_class.base, &end_class.base);
