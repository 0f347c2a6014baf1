/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Stages that go wrong on purpose: they crash, hang, leave, eat memory or write rubbish into their process's connection
 * to the run, at a record that the pipeline file names. That is no part of the key, as a crash is none: a run that goes
 * on without it has the same. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include <sluice/sluice.h>

enum how { NOTHING, SEGV, ABORT, FPE, OVERFLOW, EXIT, HANG, EAT, RUBBISH, SHOUT, NETWORK, PROGRAM, CHILD, FUZZ };
static const char *const hows[] = {"nothing", "segv",  "abort",   "fpe",     "overflow", "exit", "hang", "eat",
                                   "rubbish", "shout", "network", "program", "child",    "fuzz", NULL};

struct wild {
    const char *at, *once;
    int how;
    int64_t pause;
    const sluice_host *host;
    uint64_t seen;
};

static const sluice_param params[] = {
    SLUICE_STRING(struct wild, at, .speed_only = true,
                  .doc = "The id of the record at which it happens; \"init\" or \"finish\"."),
    SLUICE_CHOICE(struct wild, how, .value = NOTHING, .choices = hows, .speed_only = true, .doc = "What happens."),
    SLUICE_STRING(struct wild, once, .speed_only = true,
                  .doc = "A file that is made first: once it is there nothing happens any more."),
    SLUICE_INT(struct wild, pause, .value = 0, .min = 0, .speed_only = true, .doc = "Microseconds before each record."),
    SLUICE_PARAMS_END};

/* Messages that look like some (core/isolate/wire.h) and say anything. */
static int fuzz(uint64_t seed)
{
    enum { MARK = 0x6c736977, KINDS = 27 };
    for (int i = 0; i < 40; i++) {
        uint64_t frame[2 + 32];
        const uint64_t fields = (seed = sluice_mix(seed, 1)) % 32, kind = sluice_mix(seed, 2) % KINDS;
        frame[0] = MARK | kind << 32;
        frame[1] = 8 * fields;
        for (uint64_t f = 0; f < fields; f++) {
            const uint64_t any = sluice_mix(seed, 3 + f);
            frame[2 + f] = any % 4 == 0 ? any : any % 4 == 1 ? any % 64 : any % 4 == 2 ? any % 3 : 0x61616161;
        }
        if (write(3, frame, 16 + 8 * fields) < 0)
            return SLUICE_IO;
    }
    return SLUICE_OK;
}

/* What a sanitizer would report is done on purpose. */
#define WILD __attribute__((no_sanitize("address", "undefined")))

WILD static int deep(volatile int *n)
{
    volatile char more[4096];
    more[0] = (char)(*n)++;
    return *n > 0 ? deep(n) + more[0] : 0;
}

WILD static int go_wild(struct wild *w)
{
    static volatile int zero, *volatile nowhere;
    volatile int depth = 1;
    if (w->once != NULL) {
        FILE *mark = fopen(w->once, "r");
        if (mark != NULL) {
            fclose(mark);
            return SLUICE_OK;
        }
        mark = fopen(w->once, "w");
        if (mark != NULL)
            fclose(mark);
    }
    switch (w->how) {
    case SEGV:
        return *nowhere;
    case ABORT:
        abort();
    case FPE:
#if defined(__x86_64__)
        return 7 / zero;
#else
        return raise(SIGFPE) + zero;
#endif
    case OVERFLOW:
        return deep(&depth);
    case EXIT:
        exit(7);
    case HANG:
        for (;;)
            pause();
    case EAT:
        for (size_t i = 0; i < 1 << 16; i++) {
            char *some = malloc(1 << 20);
            if (some == NULL)
                return sluice_error(w->host, SLUICE_NO_MEMORY, "no memory after %zu MiB", i);
            memset(some, 1, 1 << 20);
        }
        return SLUICE_OK;
    case RUBBISH: {
        static const char bytes[] = "this is no message, and long enough to hold a head";
        return write(3, bytes, sizeof bytes) > 0 ? SLUICE_OK : SLUICE_IO;
    }
    case SHOUT:
        fputs("oh dear\n", stderr);
        abort();
    case NETWORK: {
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd >= 0)
            close(fd);
        return fd >= 0 ? SLUICE_OK : sluice_error(w->host, SLUICE_IO, "no network: %m");
    }
    case PROGRAM:
        return system("true") == 0 ? SLUICE_OK : sluice_error(w->host, SLUICE_IO, "no program");
    case CHILD: /* leaves a program running */
        return system("sleep 987654 >/dev/null 2>&1 &") == 0 ? SLUICE_OK : SLUICE_IO;
    case FUZZ:
        return fuzz(sluice_run_seed(w->host));
    default:
        return SLUICE_OK;
    }
}

static int meet(struct wild *w, const char *id)
{
    if (w->pause > 0)
        usleep((useconds_t)w->pause);
    w->seen++;
    return w->at != NULL && strcmp(id, w->at) == 0 ? go_wild(w) : SLUICE_OK;
}

static int init(void *self, const sluice_host *host)
{
    struct wild *w = self;
    w->host = host;
    return w->at != NULL && strcmp(w->at, "init") == 0 ? go_wild(w) : SLUICE_OK;
}

/* Depends on all records before: a stage that is begun again in the middle shows it. */
static int mark(struct wild *w, sluice_record *record)
{
    const int rc = sluice_record_set_meta_number(record, "seen", (double)w->seen);
    return rc < 0 ? rc : sluice_record_set_meta_number(record, "draw", (double)(sluice_seed(w->host) >> 40));
}

static int process(void *self, sluice_record *record)
{
    struct wild *w = self;
    const int rc = meet(w, sluice_record_id(record));
    return rc < 0 ? rc : mark(w, record);
}

static int process_batch(void *self, sluice_record *const *records, bool *keep, size_t count)
{
    int rc = SLUICE_OK;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        keep[i] = strlen(sluice_record_id(records[i])) % 4 != 0;
        rc = process(self, records[i]);
    }
    return rc;
}

static int run(void *self)
{
    struct wild *w = self;
    sluice_record *record;
    int rc;
    while ((rc = sluice_next(w->host, &record)) == SLUICE_OK) {
        rc = process(w, record);
        if (rc >= 0)
            rc = sluice_emit(w->host, record);
        else
            sluice_release(w->host, record);
        if (rc < 0)
            return rc;
        sluice_progress(w->host, w->seen, 0, "records");
        sluice_tokens(w->host, 3);
    }
    return rc < 0 ? rc : SLUICE_OK;
}

static int finish(void *self)
{
    struct wild *w = self;
    sluice_metric(w->host, "seen", (double)w->seen);
    sluice_log(w->host, SLUICE_LOG_INFO, "saw %llu records", (unsigned long long)w->seen);
    return w->at != NULL && strcmp(w->at, "finish") == 0 ? go_wild(w) : SLUICE_OK;
}

static const sluice_stage_class one = {
    SLUICE_STAGE_CLASS(SLUICE_TRANSFORM, "wild/one", "Goes wild at a record", struct wild, params),
    .base.adds = SLUICE_FIELD_META,
    .base.init = init,
    .process = process,
    .finish = finish,
};
static const sluice_stage_class batch = {
    SLUICE_STAGE_CLASS(SLUICE_TRANSFORM, "wild/batch", "Goes wild within a batch", struct wild, params),
    .base.adds = SLUICE_FIELD_META,
    .base.init = init,
    .process_batch = process_batch,
    .finish = finish,
};
static const sluice_stage_class driver = {
    SLUICE_STAGE_CLASS(SLUICE_TRANSFORM, "wild/run", "Goes wild while it drives itself", struct wild, params),
    .base.adds = SLUICE_FIELD_META,
    .base.init = init,
    .run = run,
    .finish = finish,
};
static const sluice_stage_class bound = {
    SLUICE_STAGE_CLASS(SLUICE_TRANSFORM, "wild/bound", "Cannot be isolated", struct wild, params),
    .base.traits = SLUICE_IN_PROCESS,
    .base.init = init,
    .process = process,
};
SLUICE_PLUGIN("wild", "1.0", "Apache-2.0", &one.base, &batch.base, &driver.base, &bound.base);
