/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * One test of the suite, and what it reports. A test runs in a process of its own, in an empty folder of its own, with
 * the plugin loaded and a class chosen; what it prints is caught, and it may be killed at any moment.
 */
#ifndef TP_TEST_H
#define TP_TEST_H

#include "tools/test-plugin/drive.h"

enum tp_verdict { TP_PASSED, TP_SKIPPED, TP_WARNING, TP_FAILED, TP_CRASHED, TP_HUNG };

/* Lies in memory that the process which waits can read. */
typedef struct tp_report {
    volatile int verdict; /* the worst so far */
    volatile int finished;
    char why[640];   /* of the worst; one line */
    char doing[320]; /* what was being tried, for crashes */
} tp_report;

void tp_doing(tp_report *, const char *format, ...) SLUICE_PRINTF(2, 3);
/* Each keeps the first reason of its rank. */
void tp_skip(tp_report *, const char *format, ...) SLUICE_PRINTF(2, 3);
void tp_warn(tp_report *, const char *format, ...) SLUICE_PRINTF(2, 3);
void tp_fail(tp_report *, const char *format, ...) SLUICE_PRINTF(2, 3);

enum tp_scope {
    TP_FILE,   /* the file, not loaded yet */
    TP_PLUGIN, /* the plugin, loaded */
    TP_RUN     /* each of its classes, driven over sample records */
};

/* Where the caught output of this test's process lies, in its folder. */
#define TP_STDOUT "printed"
#define TP_STDERR "said"

typedef struct tp_test {
    const char *name, *summary;
    enum tp_scope scope;
    uint32_t kinds; /* of classes, a bit (1 << kind) each; 0 = all */
    void (*run)(tp_subject *, tp_report *);
} tp_test;

extern const tp_test *const tp_tests[]; /* NULL-terminated, in the order they are run */

extern const tp_test tp_test_loads, tp_test_symbols, tp_test_description, tp_test_registry; /* file */
extern const tp_test tp_test_life, tp_test_bounds, tp_test_random_parameters;               /* parameters */
extern const tp_test tp_test_works, tp_test_batches, tp_test_fields, tp_test_malformed,
    tp_test_odd_numbers;                                                                                 /* records */
extern const tp_test tp_test_cancel, tp_test_resume, tp_test_same_seed, tp_test_borrowed, tp_test_speed; /* runs */
extern const tp_test tp_test_quiet, tp_test_memory, tp_test_threads, tp_test_descriptors;                /* leaks */
extern const tp_test tp_test_derivative, tp_test_extremes;                                               /* losses */

/* Drives plainly and says so when the class refuses the sample records: then there is nothing to compare with, and the
 * test is skipped. The outcome is to be freed in any case. */
bool tp_baseline(const tp_subject *, const tp_records *, tp_outcome *, tp_report *);
/* Reports a fault of this kind. */
void tp_check_fault(const tp_outcome *, enum tp_fault, tp_report *);

/* What a drive in a process of its own came to. */
typedef struct tp_apart {
    int status; /* as waitpid says */
    int rc;     /* SLUICE_FAILED where it was not done */
    size_t occasions;
} tp_apart;
/* Drives in a process of its own, which has a GPU only where this one has not asked for it yet. False when it was not
 * done after so many seconds (longer where a GPU has to start), and was killed for that. */
bool tp_drive_apart(const tp_subject *, const tp_work *, int seconds, tp_apart *);
/* Copies the plugin to found/plugin.so, alone in its folder. */
bool tp_copy_plugin(const tp_subject *);

enum { TP_USUAL_RECORDS = 12 };

#endif
