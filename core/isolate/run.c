/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Attempts at a stage in a process of its own. After a crash a new process begins with the first record again, so that
 * a stage whose state depends on all it has seen comes to the same end; what is in the output already is not put there
 * twice.
 */
#include "core/isolate/isolate.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_ATTEMPTS = 3 }; /* at one record, with on_crash = "retry" */

/* What is known of the crashes so far. */
struct crashes {
    uint64_t number; /* of the record in hand at the last; UINT64_MAX = none */
    int attempts;    /* that ended at it */
};

/* What an attempt left behind is undone, but for the output. */
static int begin_again(sl_isolate *x)
{
    sl_job *job = x->job;
    const uint64_t out = job->out;
    sl_version_discard(job);
    sl_metrics_forget(job);
    atomic_store(&job->out, out);
    atomic_store(&job->tokens, 0);
    job->position = 0;
    job->ended = false;
    if (job->input != NULL && sl_stream_rewind(job->input) < 0)
        return sluice_error(&job->host.public, SLUICE_IO, "cannot read its input again");
    return SLUICE_OK;
}

/* One process, from its start to its end. */
static int attempt(sl_isolate *x)
{
    sl_job *job = x->job;
    sl_message setup = {.kind = SL_WIRE_SETUP}, done = {0};
    int rc = sl_process_start(&x->process, job);
    if (rc < 0)
        return rc;
    sl_setup_pack(&setup, job, x->careful);
    rc = sl_process_send(&x->process, &setup);
    sl_message_free(&setup);
    if (rc >= 0)
        rc = sl_isolate_serve(x, SL_WIRE_DONE, &done);
    if (rc >= 0) {
        rc = (int)(int64_t)sl_get(&done);
        const int code = (int)(int64_t)sl_get(&done);
        const char *line = sl_get_text(&done);
        if (rc < 0 && line != NULL && job->host.error[0] == '\0') { /* with stage and record already */
            snprintf(job->host.error, sizeof job->host.error, "%s", line);
            job->host.code = code;
        }
        sl_message_free(&done);
        sl_process_end(&x->process);
    } else if (!x->process.crashed) { /* the run's own failure: of its disk, of a model */
        sl_process_crashed(&x->process, "is not wanted any more");
        x->process.crashed = false;
    }
    job->current = NULL;
    sl_isolate_close_models(x);
    return rc;
}

static int quarantine(sl_isolate *x, sl_record *record)
{
    char error[SL_ERROR_SIZE];
    const int rc = sl_quarantine_add(x->job, record, x->process.how, error);
    if (rc < 0)
        sluice_log(&x->job->host.public, SLUICE_LOG_WARNING, "the record cannot be kept in quarantine: %s", error);
    return rc;
}

static int leave_out(sl_isolate *x, uint64_t number)
{
    uint64_t *more = realloc(x->left_out, (x->left_out_count + 1) * sizeof *more);
    if (more == NULL)
        return sluice_error(&x->job->host.public, SLUICE_NO_MEMORY, "out of memory");
    x->left_out = more;
    more[x->left_out_count++] = number;
    return sl_stage_skip(x->job, number);
}

/* "record 'a'", "one of the records 'a' to 'b'", or where it stood otherwise. */
static void name_hand(const sl_isolate *x, char *text, size_t size)
{
    const char *first = x->hand_count > 0 ? sluice_record_id(sl_record_public(x->hand[0])) : NULL;
    if (x->hand_count > 1)
        snprintf(text, size, "one of the records '%.100s' to '%.100s'", first,
                 sluice_record_id(sl_record_public(x->hand[x->hand_count - 1])));
    else if (first != NULL)
        snprintf(text, size, "%s '%.200s'", x->job->type->run != NULL ? "the last record it had taken" : "record",
                 first);
    else
        snprintf(text, size, x->job->producer != NULL ? "no record in hand" : "after %llu records",
                 (unsigned long long)x->job->out);
}

/* One line of the log: what happened, and what follows. */
static void say(const sl_isolate *x, const char *hand, const char *words, const char *then)
{
    sluice_log(&x->job->host.public, SLUICE_LOG_WARNING, "%s: its process %s%s; %s", hand, x->process.how, words, then);
}

/* Stops the run. */
static int give_up(sl_isolate *x, const char *hand, const char *words, int attempts)
{
    int kept = x->hand_count > 0 ? SLUICE_OK : SLUICE_END;
    for (size_t i = 0; kept >= 0 && i < x->hand_count; i++)
        kept = quarantine(x, x->hand[i]);
    return sluice_error(&x->job->host.public, SLUICE_FAILED,
                        "%s: its process %s%s%s; log.txt has more; %sthe same command goes on from here", hand,
                        x->process.how, words, attempts > 1 ? ", three times" : "",
                        kept != SLUICE_OK    ? ""
                        : x->hand_count == 1 ? "it is kept in quarantine, and "
                                             : "they are kept in quarantine, and ");
}

/* Decides what follows a crash: SLUICE_OK for another attempt. */
static int after_crash(sl_isolate *x, struct crashes *crashes)
{
    sl_job *job = x->job;
    const int rule = job->stage->isolation.on_crash;
    char hand[320], words[SL_WORDS + 32] = "";
    if (atomic_load(&job->run->cancelled))
        return SLUICE_CANCELLED;
    job->host.error[0] = '\0'; /* whatever the models said when their question was cut off */
    name_hand(x, hand, sizeof hand);
    if (x->process.last[0] != '\0')
        snprintf(words, sizeof words, "; its last words: %s", x->process.last);
    if (rule != SL_CRASH_STOP && x->hand_count > 1) {
        say(x, hand, words, "they are given one by one to find it out");
        x->careful = sluice_record_number(sl_record_public(x->hand[x->hand_count - 1])) + 1;
        return SLUICE_OK;
    }
    sl_record *record = x->hand_count > 0 ? x->hand[0] : NULL;
    const uint64_t number = record != NULL ? sluice_record_number(sl_record_public(record)) : UINT64_MAX;
    crashes->attempts = number == crashes->number ? crashes->attempts + 1 : 1;
    crashes->number = number;
    if (rule == SL_CRASH_RETRY && crashes->attempts < MOST_ATTEMPTS) {
        say(x, hand, words, "another begins with the first record");
        return SLUICE_OK;
    }
    if (rule != SL_CRASH_SKIP || record == NULL || quarantine(x, record) < 0)
        return give_up(x, hand, words, crashes->attempts);
    say(x, hand, words, "it is left out and kept in quarantine");
    return leave_out(x, number);
}

int sl_isolate_run(sl_job *job)
{
    sl_isolate x = {.job = job};
    struct crashes crashes = {.number = UINT64_MAX};
    int rc;
    while ((rc = attempt(&x)) < 0 && x.process.crashed) {
        rc = after_crash(&x, &crashes);
        for (size_t i = 0; i < x.hand_count; i++)
            sl_record_free(x.hand[i]);
        x.hand_count = 0;
        if (rc >= 0)
            rc = begin_again(&x);
        if (rc < 0)
            break;
    }
    for (size_t i = 0; i < x.hand_count; i++)
        sl_record_free(x.hand[i]);
    if (rc >= 0 && x.left_out_count > 0)
        sluice_metric(&job->host.public, "quarantined", (double)x.left_out_count);
    else if (rc >= 0)
        sl_quarantine_forget(job);
    free(x.hand);
    free(x.placed);
    free(x.left_out);
    return rc;
}
