/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* judge-command: a program of the user's, in any language, as a judge: how a Python reward function is used. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sluice/stage.h>
#include "plugins/judge-command/exchange.h"
#include "plugins/judge-command/process.h"

#define BATCH 64   /* records a call gets, so the most that can be in flight */
#define SLICE 0.1  /* seconds after which a cancelled run is noticed */
#define GRACE 0.2  /* seconds to end by itself that a program gets whose output has ended */
#define WHY   1024 /* bytes of a reason */

enum on_error { ON_ERROR_STOP, ON_ERROR_DROP };

struct judge {
    sluice_strings command, arguments;
    const char *script, *version;
    double timeout;
    int64_t restarts, window;
    int on_error;

    const sluice_host *host;
    const char **argv;
    char *script_path; /* owned: the script as it stands in argv */
    char *name;        /* the command line in messages, cut */
    process process;
    uint64_t records, scored, absent, refused, starts;
    double sum;
};

/* One record of a batch. */
struct item {
    enum { WAITING, ASKED, DONE } state;
    int64_t deaths; /* of the program, while this record alone was asked */
};

/* A batch on its way through the program. */
struct exchange {
    struct judge *judge;
    sluice_record *const *records;
    bool *keep;
    struct item items[BATCH];
    size_t count, done, asked; /* records; of them finished; in flight */
    size_t careful;            /* records before this one are asked alone: one of them ended the program */
    size_t writing;            /* the record whose question is being written */
    char *question;            /* what of it is not written yet; NULL = nothing */
    size_t written, length;
    double deadline;
};

static const char *const error_rules[] = {"stop", "drop", NULL};

static const sluice_param params[] = {
    SLUICE_STRINGS(struct judge, command,
                   .doc = "The program and its first arguments: ( \"python3\" ). No shell reads it; write ( \"sh\", "
                          "\"-c\", \"…\" ) for one."),
    SLUICE_FILE(struct judge, script,
                .doc = "A file that follows `command`, or is the program itself where there is none; its content "
                       "decides whether finished scores are used again."),
    SLUICE_STRINGS(struct judge, arguments, .doc = "Arguments after the script."),
    SLUICE_STRING(struct judge, version,
                  .doc = "Any text: change it when the program changed in a way that `script` does not show (a module "
                         "it imports, a service it asks)."),
    SLUICE_DOUBLE(struct judge, timeout, .value = 60, .above = 0, .max = 1e6, .unit = "seconds", .speed_only = true,
                  .doc = "How long the program may take until its next answer, its start included; then it is killed "
                         "and started again."),
    SLUICE_INT(struct judge, restarts, .value = 2, .min = 0, .max = 1000, .speed_only = true,
               .doc = "How often a record on which the program ended or hung is asked again before the run stops."),
    SLUICE_INT(struct judge, window, .value = 16, .min = 1, .max = BATCH, .unit = "records", .speed_only = true,
               .doc = "How many records may wait for their answers at once."),
    SLUICE_CHOICE(struct judge, on_error, .value = ON_ERROR_STOP, .choices = error_rules,
                  .doc = "What to do with a record for which the program answers with an error: stop the run, or leave "
                         "the record out."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"records", "records", "Records judged."},
    {"scored", "candidates", "Scores given; several of one candidate count each."},
    {"absent", "candidates", "Scores left out by the program (null)."},
    {"refused", "records", "Records that the program answered with an error (on_error = drop)."},
    {"mean_score", NULL, "Mean of the scores."},
    {0}};

/* The command line as messages show it. */
static char *join(const char *const *argv)
{
    size_t room = 160, n = 0;
    char *text = malloc(room);
    for (size_t i = 0; text && argv[i] && n < room; i++)
        n += (size_t)snprintf(text + n, room - n, "%s%s", i > 0 ? " " : "", argv[i]);
    if (text && n >= room)
        memcpy(text + room - 4, "...", 4);
    return text;
}

static int init(void *self, const sluice_host *host)
{
    struct judge *judge = self;
    size_t n = 0;
    judge->host = host;
    judge->process.in = judge->process.out = judge->process.err = -1;
    if (judge->command.count == 0 && !judge->script)
        return sluice_error(host, SLUICE_BAD_PARAMETER,
                            "there is no program; set command = ( \"python3\" ) and script = \"reward.py\"");
    for (size_t i = 0; i < judge->command.count; i++)
        if (judge->command.items[i][0] == '\0' && i == 0)
            return sluice_error(host, SLUICE_BAD_PARAMETER, "command begins with an empty text; name a program");
    judge->argv = calloc(judge->command.count + judge->arguments.count + 2, sizeof *judge->argv);
    if (!judge->argv)
        return sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < judge->command.count; i++)
        judge->argv[n++] = judge->command.items[i];
    if (judge->script) {
        size_t room = strlen(judge->script) + 3;
        if (!(judge->script_path = malloc(room)))
            return sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
        /* A bare name would be searched for in PATH. */
        snprintf(judge->script_path, room, "%s%s", strchr(judge->script, '/') ? "" : "./", judge->script);
        judge->argv[n++] = judge->script_path;
    }
    for (size_t i = 0; i < judge->arguments.count; i++)
        judge->argv[n++] = judge->arguments.items[i];
    judge->name = join(judge->argv);
    return judge->name ? SLUICE_OK : sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
}

static void fini(void *self)
{
    struct judge *judge = self;
    process_kill(&judge->process, 0);
    free(judge->process.lines);
    free(judge->argv);
    free(judge->script_path);
    free(judge->name);
}

static int start(struct exchange *x)
{
    struct judge *judge = x->judge;
    int rc = process_start(&judge->process, judge->host, judge->argv);
    judge->starts += rc >= 0;
    x->deadline = process_now() + judge->timeout;
    return rc;
}

/* Asks as many records as may be in flight, and writes what the program takes of the questions. */
static int ask(struct exchange *x)
{
    struct judge *judge = x->judge;
    for (;;) {
        if (!x->question) {
            size_t next = 0;
            while (next < x->count && x->items[next].state != WAITING)
                next++;
            size_t most = next < x->careful ? 1 : (size_t)judge->window;
            if (next == x->count || x->asked >= most)
                return SLUICE_OK;
            x->question = exchange_question(x->records[next], &x->length);
            if (!x->question)
                return sluice_record_error(judge->host, x->records[next], SLUICE_NO_MEMORY,
                                           "out of memory for the question to the program");
            if (x->asked++ == 0)
                x->deadline = process_now() + judge->timeout;
            x->items[next].state = ASKED;
            x->writing = next;
            x->written = 0;
        }
        ssize_t wrote = process_write(&judge->process, x->question + x->written, x->length - x->written);
        if (wrote <= 0) /* it takes no more now; when it has closed its stdin its end is waited for */
            return SLUICE_OK;
        x->written += (size_t)wrote;
        if (x->written == x->length) {
            free(x->question);
            x->question = NULL;
        }
    }
}

/* The record an answer is about; x->count when no such question is open. */
static size_t find(const struct exchange *x, const char *id)
{
    size_t i = 0;
    while (i < x->count && (x->items[i].state != ASKED || (x->question && i == x->writing) ||
                            strcmp(sluice_record_id(x->records[i]), id) != 0))
        i++;
    return i;
}

static int take_answer(struct exchange *x, const char *line, size_t length)
{
    struct judge *judge = x->judge;
    const char *name = sluice_stage_name(judge->host);
    exchange_answer answer;
    char why[WHY];
    int rc = SLUICE_OK;
    if (line[strspn(line, " \t")] == '\0' && strlen(line) == length)
        return SLUICE_OK;
    if (!exchange_read(&answer, line, length, why, sizeof why)) {
        exchange_free(&answer);
        return sluice_error(judge->host, SLUICE_FAILED, "the program '%s' %s", judge->name, why);
    }
    size_t i = find(x, answer.id);
    if (i == x->count) {
        rc = sluice_error(
            judge->host, SLUICE_FAILED,
            "the program '%s' answered '%.80s', which it was not asked, or has answered already; print one line "
            "a question, with its id",
            judge->name, answer.id);
    } else if (answer.error && judge->on_error == ON_ERROR_STOP) {
        rc = sluice_record_error(
            judge->host, x->records[i], SLUICE_BAD_RECORD,
            "the program '%s' refused this record: %.300s; on_error = \"drop\" leaves such records out", judge->name,
            answer.error);
    } else if (answer.error) {
        sluice_log(judge->host, SLUICE_LOG_INFO, "record '%s' was refused: %.300s", answer.id, answer.error);
        judge->refused++;
        x->keep[i] = false;
    } else {
        uint64_t before = judge->scored, all = sluice_record_candidates(x->records[i]);
        rc = exchange_score(&answer, x->records[i], name, &judge->scored, &judge->sum, why, sizeof why);
        if (rc < 0)
            rc =
                sluice_record_error(judge->host, x->records[i], SLUICE_FAILED, "the program '%s' %s", judge->name, why);
        else if (judge->scored - before < all)
            judge->absent += all - (judge->scored - before);
    }
    exchange_free(&answer);
    if (rc < 0)
        return rc;
    x->items[i].state = DONE;
    x->done++;
    x->asked--;
    x->deadline = process_now() + judge->timeout;
    return SLUICE_OK;
}

/* The program has ended, or is to end because it hangs. Every open question will be asked again; when there was but
 * one, its record is to blame, and only so often. `what` is what it did, and its exit status follows where it ended. */
static int died(struct exchange *x, const char *what, bool hung)
{
    struct judge *judge = x->judge;
    char status[80], words[PROCESS_WORDS_MAX + 40] = "", why[WHY];
    process_status_text(process_kill(&judge->process, hung ? 0 : GRACE), status, sizeof status);
    if (judge->process.last_words[0] != '\0')
        snprintf(words, sizeof words, "; its last words: %s", judge->process.last_words);
    snprintf(why, sizeof why, "%s%s%s", what, hung ? "" : status, words);
    free(x->question);
    x->question = NULL;
    for (size_t i = 0; i < x->count; i++) {
        struct item *item = &x->items[i];
        if (item->state != ASKED)
            continue;
        item->state = WAITING;
        if (x->asked == 1 && ++item->deaths > judge->restarts)
            return sluice_record_error(
                judge->host, x->records[i], SLUICE_FAILED,
                "the program '%s' did not answer for this record in %lld attempt%s: it %s; what it said is "
                "in log.txt, and once it is mended the same command goes on",
                judge->name, (long long)item->deaths, item->deaths == 1 ? "" : "s", why);
        x->careful = i + 1;
    }
    x->asked = 0;
    sluice_log(judge->host, SLUICE_LOG_WARNING, "the program '%s' %s; it is started again", judge->name, why);
    return SLUICE_OK;
}

/* All whole lines there are. */
static int take_answers(struct exchange *x)
{
    struct judge *judge = x->judge;
    char *line;
    size_t length;
    for (;;) {
        int rc = SLUICE_OK;
        switch (process_line(&judge->process, &line, &length)) {
        case PROCESS_LINE:
            rc = take_answer(x, line, length);
            break;
        case PROCESS_NOTHING:
            return SLUICE_OK;
        case PROCESS_CLOSED:
            if (x->done == x->count)
                return SLUICE_OK;
            return died(x, length > 0 ? "ended in the middle of a line, with " : "ended with ", false);
        case PROCESS_TOO_LONG:
            return sluice_error(judge->host, SLUICE_FAILED,
                                "the program '%s' printed a line of more than %zu MiB; an answer is one short line",
                                judge->name, PROCESS_LINE_MAX >> 20);
        default:
            return sluice_error(judge->host, SLUICE_NO_MEMORY, "out of memory for the program's answers");
        }
        if (rc < 0 || x->done == x->count)
            return rc;
        if (sluice_cancelled(judge->host))
            return SLUICE_CANCELLED;
    }
}

static int talk(struct exchange *x)
{
    struct judge *judge = x->judge;
    process *p = &judge->process;
    char what[160];
    int rc = SLUICE_OK;
    x->deadline = process_now() + judge->timeout;
    while (rc >= 0 && x->done < x->count) {
        if (sluice_cancelled(judge->host))
            return SLUICE_CANCELLED;
        if (p->pid == 0 && (rc = start(x)) < 0)
            return rc;
        if ((rc = ask(x)) < 0)
            return rc;
        const bool ended = process_ended(p); /* looked at first: what it printed before it ended is then there */
        process_wait(p, x->question != NULL, ended ? 0 : SLICE);
        const size_t before = x->done;
        if ((rc = take_answers(x)) < 0 || p->pid == 0 || x->done > before)
            continue;
        if (ended) { /* and a child of its holds its output open */
            rc = died(x, "ended with ", false);
        } else if (process_now() > x->deadline) {
            snprintf(what, sizeof what, "gave no answer for %g seconds (timeout; does it flush what it prints?)",
                     judge->timeout);
            rc = died(x, what, true);
        }
    }
    return rc;
}

/* The scores that the program had given before the run was interrupted. SLUICE_END when there are none. */
static int take_earlier(struct judge *judge, sluice_record *record)
{
    const sluice_record *earlier = sluice_earlier(judge->host, record);
    const size_t all = sluice_record_candidates(record);
    const char *stage = sluice_stage_name(judge->host), *const * names;
    const size_t length = strlen(stage);
    const uint64_t before = judge->scored;
    int rc = SLUICE_OK;
    if (!earlier || sluice_record_candidates(earlier) != all)
        return SLUICE_END;
    const size_t count = sluice_record_judges(earlier, &names);
    for (size_t j = 0; j < count; j++) {
        if (strncmp(names[j], stage, length) != 0 || (names[j][length] != '\0' && names[j][length] != '/'))
            continue;
        const float *scores = sluice_record_scores(earlier, names[j]);
        for (size_t c = 0; scores && rc >= 0 && c < all; c++)
            if (!isnan(scores[c])) {
                rc = sluice_record_set_score(record, names[j], c, scores[c]);
                judge->scored++;
                judge->sum += scores[c];
            }
    }
    if (judge->scored - before < all)
        judge->absent += all - (judge->scored - before);
    return rc;
}

static int process_batch(void *self, sluice_record *const *records, bool *keep, size_t count)
{
    struct judge *judge = self;
    int rc = SLUICE_OK;
    for (size_t first = 0; rc >= 0 && first < count; first += BATCH) {
        struct exchange x = {.judge = judge,
                             .records = records + first,
                             .keep = keep + first,
                             .count = count - first < BATCH ? count - first : BATCH};
        for (size_t i = 0; rc >= 0 && i < x.count; i++) {
            rc = SLUICE_OK; /* nothing to judge is judged at once */
            if (sluice_record_candidates(x.records[i]) > 0)
                rc = take_earlier(judge, x.records[i]);
            if (rc == SLUICE_OK) {
                x.items[i].state = DONE;
                x.done++;
            }
        }
        if (rc >= 0)
            rc = talk(&x);
        free(x.question);
        judge->records += x.done;
    }
    int64_t total = sluice_input_count(judge->host);
    sluice_progress(judge->host, judge->records, total > 0 ? (uint64_t)total : 0, "records");
    return rc;
}

static int finish(void *self)
{
    struct judge *judge = self;
    sluice_number numbers[5] = {{"records", (double)judge->records},
                                {"scored", (double)judge->scored},
                                {"absent", (double)judge->absent},
                                {"refused", (double)judge->refused},
                                {"mean_score", judge->sum / (double)judge->scored}};
    if (judge->process.pid != 0 && !process_finish(&judge->process, judge->timeout < 5 ? judge->timeout : 5))
        sluice_log(judge->host, SLUICE_LOG_WARNING,
                   "the program '%s' does not end when its stdin is closed; it was killed", judge->name);
    else if (judge->process.pid != 0) {
        char text[80];
        int status = process_kill(&judge->process, 0);
        process_status_text(status, text, sizeof text);
        if (status != 0)
            sluice_log(judge->host, SLUICE_LOG_WARNING, "the program '%s' ended with %s after its last answer",
                       judge->name, text);
    }
    if (judge->scored == 0 && judge->absent > 0)
        sluice_log(judge->host, SLUICE_LOG_WARNING,
                   "the program '%s' gave null for all candidates of %llu records, so none has a score", judge->name,
                   (unsigned long long)judge->records);
    if (judge->starts > 1)
        sluice_log(judge->host, SLUICE_LOG_INFO, "the program '%s' was started %llu times", judge->name,
                   (unsigned long long)judge->starts);
    sluice_metrics(judge->host, -1, numbers, judge->scored > 0 ? 5 : 4);
    return SLUICE_OK;
}

static const sluice_stage_class judge_class = {
    SLUICE_STAGE_CLASS(SLUICE_JUDGE, "judge-command", "Scores from a program of yours: JSON lines in, scores out",
                       struct judge, params),
    .base.reads = SLUICE_FIELD_CANDIDATES,
    .base.adds = SLUICE_FIELD_SCORES,
    .base.traits = SLUICE_STATELESS,
    .base.doc =
        "The program is started once, in the folder the run was started in. For each record it reads a line of JSON "
        "from its stdin, {\"id\": …, \"prompt\": … or \"messages\": […], \"candidates\": [{\"text\": …, \"finish\": …, "
        "\"length\": tokens}, …], \"scores\": {JUDGE: […]}, \"meta\": {…}} in ASCII, and prints a line, {\"id\": …, "
        "\"scores\": [a number or null a candidate]}, in any order. null is no score. {\"scores\": {\"clear\": […], "
        "\"short\": […]}} gives several, which later stages name STAGE/clear and STAGE/short. {\"id\": …, \"error\": "
        "\"…\"} refuses a record. When stdin ends, it should end.\n\n"
        "What it prints on stderr goes into the run's log. When it ends or hangs it is started again and asked again "
        "what it has not answered; the records that were open then are asked one at a time, so that the one to blame "
        "is known. An answer that is no answer stops the run.\n\n"
        "Scores that were made once are used again while command, script, arguments and version are the same: the "
        "program must answer the same to the same question.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .batch = BATCH,
    .process_batch = process_batch,
    .finish = finish,
};
SLUICE_PLUGIN("judge-command", "1.0", "Apache-2.0", &judge_class.base);
