/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * One life of an object: made from the subject's values, driven over records (a loss: over batches of numbers, a
 * metrics sink: over lines), ended. As the engine does it, but in memory, and with what a test wants to go wrong.
 *
 * Every record is decoded just before the call that gets it and freed right after; so are all other borrowed things.
 * One thread, the caller's, which must be in the test's own folder.
 */
#ifndef TP_DRIVE_H
#define TP_DRIVE_H

#include "tools/test-plugin/samples.h"

/* What is driven, and how. Zero is the plain way. */
typedef struct tp_work {
    const tp_records *records;
    uint64_t split; /* 0: batches as the engine cuts them; else the seed of random cuts */
    size_t only;    /* with `alone`: the one record that is given */
    bool alone;
    size_t cancel_after; /* the run is cancelled at the so-manieth occasion to notice; 0 = never */
    bool no_services;
    const struct tp_outcome *earlier; /* what an interrupted run had put out … */
    size_t earlier_count;             /* … for this many records */
    const char *checkpoints;          /* folder of them; NULL = the host has none */
    size_t die_at_commit;             /* the process is killed after the so-manieth checkpoint; 0 = never */
} tp_work;

/* What a class must not do whatever it is given. */
enum tp_fault {
    TP_FAULT_NONE,
    TP_FAULT_UNDECLARED, /* a number, or a dependence on `repeat`, that it does not declare */
    TP_FAULT_METRIC,     /* a number that is not finite */
    TP_FAULT_MESSAGE,    /* an error without words, of several lines, or not said at all */
    TP_FAULT_CANCEL,     /* went on after it was told to stop */
    TP_FAULT_RECORD      /* emitted what it may not */
};

typedef struct tp_emitted {
    uint64_t number;
    sl_buffer bytes;
} tp_emitted;

typedef struct tp_outcome {
    int rc;
    tp_emitted *records; /* in the input's order */
    size_t count, room;
    sl_buffer numbers; /* metrics, and what losses gave, as text */
    sl_buffer files;   /* names and contents of what was written */
    size_t occasions;  /* how often a run could have noticed that it is cancelled */
    size_t commits;
    char error[1024];
    char warning[512]; /* the first that was logged */
    bool wants_gpu;    /* it asked for sluice.cuda/1 … */
    bool began;        /* … and came to life */
    enum tp_fault fault;
    char what[512]; /* about the fault */
} tp_outcome;

/* Fills the outcome; nothing of it needs to be set. */
void tp_drive(const tp_subject *, const tp_work *, tp_outcome *);
void tp_outcome_free(tp_outcome *);
/* Are they the same bytes? If not, one line in `why`. */
bool tp_outcome_same(const tp_outcome *, const tp_outcome *, char *why, size_t size);

#endif
