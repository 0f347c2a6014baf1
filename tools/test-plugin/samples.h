/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Sample records: sums as prompts, four answers each, two judges' scores, pairs, log-probabilities, and fields that
 * only a later sluice would know. Those fields that the class adds are left out. Records are kept encoded; a test
 * decodes as many as it needs, as often as it likes.
 */
#ifndef TP_SAMPLES_H
#define TP_SAMPLES_H

#include "core/stream/record.h"
#include "tools/test-plugin/subject.h"

#define TP_JUDGE_A "judge-a"
#define TP_JUDGE_B "judge-b"
/* In the test's own folder. */
#define TP_OUTPUT "out"    /* what the class writes */
#define TP_MODELS "models" /* folders 0 and 1 */
#define TP_INPUT  "sample.jsonl"

/* The key of a field that no sluice of today knows. */
#define TP_UNKNOWN "zz-field-of-a-later-version"

typedef struct tp_records {
    sl_buffer *items;
    size_t count;
} tp_records;

/* How a record is odd. */
enum tp_oddity {
    TP_PLAIN,
    TP_NO_CANDIDATES,
    TP_ONE_CANDIDATE,
    TP_NO_PROMPT,
    TP_EMPTY_PROMPT,
    TP_LONG_PROMPT,
    TP_MESSAGES,
    TP_NO_TEXT,
    TP_NO_TOKENS,
    TP_EMPTY_ANSWERS,
    TP_UNKNOWN_TOKENS,
    TP_BAD_UTF8,
    TP_MANY_CANDIDATES,
    TP_NO_PAIRS,
    TP_NO_SCORES,
    TP_NO_META,
    TP_OTHER_META,
    TP_NO_LOGPROBS,
    TP_ODDITIES,
    /* Of numbers. */
    TP_SCORES_MISSING = TP_ODDITIES,
    TP_SCORES_EQUAL,
    TP_SCORES_HUGE,
    TP_SCORES_TINY,
    TP_LOGPS_INFINITE,
    TP_LOGPS_NAN,
    TP_PAIRS_EXTREME,
    TP_REWARDS_EXTREME,
    TP_ALL_ODDITIES
};

/* "a record without candidates" */
const char *tp_oddity_text(enum tp_oddity);

/* Records 0 … count-1 for a class and its values; every `odd_every`-th from the second on is odd (0 = none). False when
 * out of memory. */
bool tp_records_make(const tp_subject *, size_t count, enum tp_oddity, size_t odd_every, tp_records *);
void tp_records_free(tp_records *);
/* NULL when it cannot be decoded. */
sl_record *tp_record_decode(const sl_buffer *, uint64_t number);

/* The folders and files that parameters name, in the current folder. */
bool tp_samples_write_files(const tp_subject *);

#endif
