/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * judge-llm's state, and how its parts fit together: template.c reads what is asked, ask.c puts it to the judge in
 * token ids and reads the probabilities of two labels, words.c lets it answer in words and reads the score, modes.c
 * makes scores and trust of that. Stage's thread; errors through the host.
 */
#ifndef JUDGE_LLM_JUDGE_H
#define JUDGE_LLM_JUDGE_H

#include <sluice/stage.h>
#include "plugins/common/answers.h"
#include "plugins/common/counts.h"
#include "plugins/judge-llm/template.h"

enum mode { MODE_SCORE, MODE_PAIRWISE, MODE_QUESTION, MODE_PAIRS };
enum orders { ORDERS_BOTH, ORDERS_FIRST };
enum label { LABEL_SOFT, LABEL_FLIP, LABEL_HARD };
enum too_long { TOO_LONG_ERROR, TOO_LONG_SKIP, TOO_LONG_LEFT };

/* One thing asked: a candidate by itself (b = a), or candidate a shown first and b second. */
struct asked {
    sluice_record *record;
    uint32_t a, b;
    sluice_ids prompt;
    bool left_out; /* too long */
    double first;  /* labels: probability of the first against the second */
    float *said;   /* words: [samples] the scores that were read, NaN where none was */
};

struct asked_list {
    struct asked *items;
    size_t count, room;
};

/* What the metrics say of the records so far. */
struct counts {
    uint64_t skipped, cut;                    /* without a judgement, shortened: too long */
    uint64_t scored, unscored;                /* candidates */
    uint64_t sampled, unparsed, out_of_range; /* words */
    uint64_t compared, both, disagreed;       /* labels: asked; pairs in both orders; whose orders differ */
    uint64_t pairs, against;
    double sum, first, mass, q;
    bool told; /* an answer that could not be read was shown in the log */
};

struct judge {
    const sluice_model_ref *model;
    const char *prompt, *marker;
    sluice_strings labels;
    int mode, orders, label, too_long;
    int64_t samples, max_tokens, opponents, slots;
    double temperature, top_p, lowest, highest;
    bool raw;

    const sluice_host *host;
    answers_model opened;
    template asks;
    char *begun;             /* text that the judge's answer begins with, from the template; NULL = nothing */
    sluice_ids label_ids[2]; /* token ids of the two labels */
    size_t answer_room;      /* tokens to leave for the judge's answer */
    bool plain;              /* no chat template */

    uint64_t records; /* asked about */
    struct counts counts;
    counts_keeper keeper;
};

/* --- ask.c --- */

/* Encodes the labels and sets answer_room. */
int ask_prepare(struct judge *);
/* Adds what is to be asked, in token ids, or left out where it is too long. */
int ask_add(struct judge *, struct asked_list *, sluice_record *, uint32_t a, uint32_t b);
void ask_free(struct asked_list *);
/* Fills `first` of all that are not left out. */
int ask_labels(struct judge *, struct asked_list *);

/* --- words.c --- */

/* Fills `said` of all that are not left out. */
int ask_words(struct judge *, struct asked_list *);

/* How an answer in words reads. */
enum reading { READ_SCORE, READ_NOTHING, READ_OUT_OF_RANGE };
/* The number after the last `marker` that a number follows. `cut`: the answer did not come to its end, so a number at
 * its end may lack digits and is none. */
enum reading words_read(const char *text, const char *marker, double lowest, double highest, bool cut, double *score);

/* --- resume.c --- */

/* The counts of an interrupted run, where there are any. */
int resume_begin(struct judge *);
/* Keeps the counts, once a second at most; called when all records so far have been put out. */
int resume_save(struct judge *);
/* Copies into records that the counts cover what the interrupted run had put out for them; `open`, with room for all,
 * gets those of which nothing is left. */
int resume_copy(struct judge *, sluice_record *const *, size_t count, sluice_record **open, size_t *open_count);

/* --- modes.c: one call's records --- */

int judge_each(struct judge *, sluice_record *const *, size_t count);     /* score and question */
int judge_pairwise(struct judge *, sluice_record *const *, size_t count); /* each against others */
int judge_pairs(struct judge *, sluice_record *const *, size_t count);    /* the records' pairs */

#endif
