/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* One test in a process of its own, with a time limit. */
#ifndef TP_PROCESS_H
#define TP_PROCESS_H

#include <signal.h>

#include "tools/test-plugin/test.h"

/* What all tests of a file share. */
typedef struct tp_suite {
    const char *file; /* absolute */
    const char *const *settings;
    size_t setting_count;
    uint64_t seed;
    double timeout;     /* seconds a test may take */
    const char *folder; /* the suite's own; each test gets one in it */
} tp_suite;

/* What a file says of itself, read in a process of its own. Lies in shared memory. */
typedef struct tp_survey {
    char id[128], version[64];
    size_t count;
    struct {
        char id[64];
        uint32_t kind;
    } classes[TP_MOST_CLASSES];
} tp_survey;

/* Set by a signal: the test that runs is ended, and no other is begun. */
extern volatile sig_atomic_t tp_interrupted;

/* How many entries a folder has, . and .. among them; 0 when it cannot be read. */
long tp_entries(const char *folder);
/* The folder of this process's threads. */
#define TP_THREADS "/proc/self/task"

/* Memory that a child's writes can be read from; NULL when there is none. */
void *tp_shared(size_t size);
/* Runs a test (class_id: of a test that is TP_RUN) and fills the report, crash or not. Returns the seconds it took. */
double tp_run(const tp_suite *, const tp_test *, const char *class_id, tp_report *);
/* False when the file could not be read. */
bool tp_look(const tp_suite *, tp_survey *, tp_report *);

#endif
