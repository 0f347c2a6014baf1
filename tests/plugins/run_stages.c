/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Small stages that the tests of the runner put together: one of each shape, each able to go wrong on purpose. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sluice/sluice.h>

/* ---- test/count: N records r0, r1, … */

struct count {
    int64_t records, payload, twice, pause, made;
    const sluice_host *host;
};

static const sluice_param count_params[] = {
    SLUICE_INT(struct count, records, .value = 10, .min = 0, .doc = "How many."),
    SLUICE_INT(struct count, payload, .value = 4, .min = 0, .max = 65536, .unit = "bytes",
               .doc = "Length of a prompt."),
    SLUICE_INT(struct count, twice, .value = -1, .doc = "This record repeats the id of the first."),
    SLUICE_INT(struct count, pause, .value = 0, .min = 0, .speed_only = true, .unit = "microseconds",
               .doc = "Before each."),
    SLUICE_PARAMS_END};

static int count_init(void *self, const sluice_host *host)
{
    struct count *c = self;
    c->host = host;
    return SLUICE_OK;
}

static int count_next(void *self, sluice_record *record)
{
    struct count *c = self;
    char id[32], text[65536 + 1];
    if (c->made == c->records)
        return SLUICE_END;
    snprintf(id, sizeof id, "r%lld", (long long)(c->made == c->twice ? 0 : c->made));
    uint64_t x = sluice_seed(c->host) ^ (uint64_t)c->made;
    for (int64_t i = 0; i < c->payload; i++)
        text[i] = (char)('a' + (x = sluice_mix(x, 1)) % 26);
    text[c->payload] = '\0';
    if (c->pause > 0)
        usleep((useconds_t)c->pause);
    c->made++;
    sluice_progress(c->host, (uint64_t)c->made, (uint64_t)c->records, "records");
    return sluice_record_set_id(record, id) | sluice_record_set_prompt(record, text);
}

static const sluice_stage_class count_class = {
    SLUICE_STAGE_CLASS(SLUICE_SOURCE, "test/count", "Counts", struct count, count_params),
    .base.adds = SLUICE_FIELD_PROMPT,
    .base.init = count_init,
    .next = count_next,
};

/* ---- test/mark: one record at a time */

struct mark {
    double value;
    int64_t drop, pause, first_pause, seen;
    const char *fail, *silent;
    const sluice_host *host;
};

static const sluice_param mark_params[] = {
    SLUICE_DOUBLE(struct mark, value, .value = 1, .doc = "Written into each record."),
    SLUICE_INT(struct mark, drop, .value = 0, .min = 0, .doc = "Every so-manieth record is left out; 0 = none."),
    SLUICE_INT(struct mark, pause, .value = 0, .min = 0, .speed_only = true, .doc = "Microseconds before each record."),
    SLUICE_INT(struct mark, first_pause, .value = 0, .min = 0, .speed_only = true,
               .doc = "Microseconds before the first."),
    SLUICE_STRING(struct mark, fail, .doc = "The id of a record that is refused."),
    SLUICE_STRING(struct mark, silent, .doc = "The id of a record that is refused without a word."),
    SLUICE_PARAMS_END};

static int mark_init(void *self, const sluice_host *host)
{
    struct mark *m = self;
    m->host = host;
    return SLUICE_OK;
}

static int mark_process(void *self, sluice_record *record)
{
    struct mark *m = self;
    const char *id = sluice_record_id(record);
    const int64_t pause = m->pause + (m->seen == 0 ? m->first_pause : 0);
    if (pause > 0)
        usleep((useconds_t)pause);
    m->seen++;
    if (m->fail != NULL && strcmp(id, m->fail) == 0)
        return sluice_record_error(m->host, record, SLUICE_BAD_RECORD,
                                   "refused on purpose;\nmend \xC2\x9B, \xFF, \xE2\x82");
    if (m->silent != NULL && strcmp(id, m->silent) == 0)
        return SLUICE_BAD_RECORD;
    if (m->drop > 0 && m->seen % m->drop == 0)
        return SLUICE_DROP;
    return sluice_record_set_meta_number(record, "mark", m->value);
}

static int mark_finish(void *self)
{
    struct mark *m = self;
    sluice_metric(m->host, "seen", (double)m->seen);
    sluice_metric(m->host, "third", (double)m->seen / 3);
    sluice_metric(m->host, "nothing", 0.0 / 0.0 * (double)m->seen);
    return SLUICE_OK;
}

static const sluice_stage_class mark_class = {
    SLUICE_STAGE_CLASS(SLUICE_TRANSFORM, "test/mark", "Marks each record", struct mark, mark_params),
    .base.reads = SLUICE_FIELD_PROMPT,
    .base.adds = SLUICE_FIELD_META,
    .base.init = mark_init,
    .process = mark_process,
    .finish = mark_finish,
};

/* ---- test/share: two passes; each record gets its share of all prompts' bytes */

struct share {
    double total;
    bool settled;
    const sluice_host *host;
};

static const sluice_param share_params[] = {SLUICE_PARAMS_END};

static int share_init(void *self, const sluice_host *host)
{
    ((struct share *)self)->host = host;
    return SLUICE_OK;
}

static int share_observe(void *self, const sluice_record *record)
{
    ((struct share *)self)->total += (double)strlen(sluice_record_prompt(record));
    return SLUICE_OK;
}

static int share_settle(void *self)
{
    struct share *s = self;
    s->settled = true;
    sluice_metric(s->host, "consistency", 1 / s->total);
    return SLUICE_OK;
}

static int share_process(void *self, sluice_record *record)
{
    struct share *s = self;
    if (!s->settled)
        return sluice_error(s->host, SLUICE_FAILED, "process before settle");
    return sluice_record_set_meta_number(record, "share", (double)strlen(sluice_record_prompt(record)) / s->total);
}

static const sluice_stage_class share_class = {
    SLUICE_STAGE_CLASS(SLUICE_REGULARIZER, "test/share", "Sees all before it changes one", struct share, share_params),
    .base.reads = SLUICE_FIELD_PROMPT,
    .base.adds = SLUICE_FIELD_META,
    .base.traits = SLUICE_WHOLE_STREAM,
    .base.init = share_init,
    .observe = share_observe,
    .settle = share_settle,
    .process = share_process,
};

/* ---- test/backwards: drives itself; emits by sevens in reverse order, leaves every tenth out, after a pass to count
 */

struct backwards {
    const sluice_host *host;
};

static int backwards_init(void *self, const sluice_host *host)
{
    ((struct backwards *)self)->host = host;
    return SLUICE_OK;
}

static int send(const sluice_host *host, sluice_record **held, size_t *count)
{
    int rc = SLUICE_OK;
    while (*count > 0 && rc >= 0) {
        sluice_record *record = held[--*count];
        if (sluice_record_number(record) % 10 == 9)
            sluice_release(host, record);
        else
            rc = sluice_emit(host, record);
    }
    while (*count > 0)
        sluice_release(host, held[--*count]);
    return rc;
}

static int backwards_run(void *self)
{
    const sluice_host *host = ((struct backwards *)self)->host;
    sluice_record *held[7], *record;
    size_t count = 0, all = 0;
    int rc;
    for (; (rc = sluice_next(host, &record)) == SLUICE_OK; all++)
        sluice_release(host, record);
    if (rc < 0)
        return rc;
    while ((rc = sluice_next(host, &record)) == SLUICE_OK) {
        sluice_record_set_meta_number(record, "of", (double)all);
        held[count++] = record;
        if (count == 7 && (rc = send(host, held, &count)) < 0)
            return rc;
    }
    const int last = send(host, held, &count);
    return rc < 0 ? rc : last;
}

static const sluice_stage_class backwards_class = {
    SLUICE_STAGE_CLASS(SLUICE_TRANSFORM, "test/backwards", "Emits in another order", struct backwards, share_params),
    .base.reads = SLUICE_FIELD_PROMPT,
    .base.init = backwards_init,
    .run = backwards_run,
};

/* ---- test/hold: drives itself; leaves out every third record as it comes, emits the others after the last has come */

static int hold_run(void *self)
{
    const sluice_host *host = ((struct backwards *)self)->host;
    sluice_record *held[1000], *record;
    size_t count = 0;
    int rc;
    while ((rc = sluice_next(host, &record)) == SLUICE_OK) {
        if (sluice_record_number(record) % 3 == 0 || count == sizeof held / sizeof *held)
            sluice_release(host, record);
        else
            held[count++] = record;
    }
    for (size_t i = 0; i < count; i++) {
        const int sent = rc < 0 ? rc : sluice_emit(host, held[i]);
        if (rc < 0)
            sluice_release(host, held[i]);
        rc = sent < 0 ? sent : rc;
    }
    return rc < 0 ? rc : SLUICE_OK;
}

static const sluice_stage_class hold_class = {
    SLUICE_STAGE_CLASS(SLUICE_TRANSFORM, "test/hold", "Emits at the end", struct backwards, share_params),
    .base.reads = SLUICE_FIELD_PROMPT,
    .base.init = backwards_init,
    .run = hold_run,
};

/* ---- test/train: publishes a version whose weights are the number of the one before plus the records it saw */

struct train {
    const sluice_model_ref *model;
    double lr;
    bool forget;
    int64_t pause;
    const sluice_host *host;
};

static const sluice_param train_params[] = {
    SLUICE_SLOT(struct train, model, .required = true, .doc = "What is trained."),
    SLUICE_DOUBLE(struct train, lr, .value = 1, .doc = "What a record adds."),
    SLUICE_BOOL(struct train, forget, .doc = "Ends without publishing."),
    SLUICE_INT(struct train, pause, .value = 0, .min = 0, .speed_only = true,
               .doc = "Microseconds before each record."),
    SLUICE_PARAMS_END};

static int train_init(void *self, const sluice_host *host)
{
    ((struct train *)self)->host = host;
    return SLUICE_OK;
}

static int read_weights(const sluice_host *host, const sluice_model_ref *ref, double *value)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/model.safetensors", ref->path);
    FILE *file = fopen(path, "r");
    if (file == NULL || fscanf(file, "%lf", value) != 1) {
        if (file != NULL)
            fclose(file);
        return sluice_error(host, SLUICE_BAD_MODEL, "cannot read %s", path);
    }
    fclose(file);
    return SLUICE_OK;
}

static int train_run(void *self)
{
    struct train *t = self;
    double value;
    const char *dir;
    char path[4096];
    sluice_record *record;
    int rc = read_weights(t->host, t->model, &value);
    int64_t step = 0;
    if (rc < 0)
        return rc;
    for (int epoch = 0; epoch < 2; epoch++) {
        while ((rc = sluice_next(t->host, &record)) == SLUICE_OK) {
            value += t->lr;
            sluice_release(t->host, record);
            if (t->pause > 0)
                usleep((useconds_t)t->pause);
            if (step++ % 10 == 0)
                sluice_metrics(t->host, step, (sluice_number[]){{"loss", 1 / value}, {"lr", t->lr}}, 2);
        }
        if (rc < 0)
            return rc;
    }
    sluice_metric(t->host, "loss", 1 / value);
    if (t->forget)
        return SLUICE_OK;
    if ((rc = sluice_publish_begin(t->host, t->model, &dir)) < 0)
        return rc;
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    FILE *file = fopen(path, "w");
    if (file == NULL)
        return sluice_error(t->host, SLUICE_IO, "cannot write %s", path);
    fprintf(file, "%.17g\n", value);
    fclose(file);
    return sluice_publish_commit(t->host, t->model);
}

static const sluice_stage_class train_class = {
    SLUICE_STAGE_CLASS(SLUICE_TRAINER, "test/train", "Adds", struct train, train_params),
    .base.reads = SLUICE_FIELD_PROMPT,
    .base.traits = SLUICE_NO_OUTPUT | SLUICE_NEEDS_INPUT,
    .base.init = train_init,
    .run = train_run,
};

/* ---- test/weigh: reads a version, says what it holds */

struct weigh {
    const sluice_model_ref *model;
    const sluice_host *host;
};

static const sluice_param weigh_params[] = {
    SLUICE_MODEL(struct weigh, model, .required = true, .doc = "What is weighed."), SLUICE_PARAMS_END};

static int weigh_init(void *self, const sluice_host *host)
{
    ((struct weigh *)self)->host = host;
    return SLUICE_OK;
}

static int weigh_run(void *self)
{
    struct weigh *w = self;
    double value;
    const int rc = read_weights(w->host, w->model, &value);
    if (rc < 0)
        return rc;
    value /= 1000;
    sluice_metrics(
        w->host, -1,
        (sluice_number[]){{"accuracy", value}, {"accuracy/low", value - 0.01}, {"accuracy/high", value + 0.01}}, 3);
    return SLUICE_OK;
}

static const sluice_stage_class weigh_class = {
    SLUICE_STAGE_CLASS(SLUICE_EVALUATOR, "test/weigh", "Weighs", struct weigh, weigh_params),
    .base.traits = SLUICE_NO_OUTPUT,
    .base.init = weigh_init,
    .run = weigh_run,
};

/* ---- test/list: a sink */

struct list {
    const char *path;
    FILE *file;
    const sluice_host *host;
};

static const sluice_param list_params[] = {SLUICE_FILE(struct list, path, .required = true, .doc = "Where the ids go."),
                                           SLUICE_PARAMS_END};

static int list_init(void *self, const sluice_host *host)
{
    struct list *l = self;
    l->host = host;
    l->file = fopen(l->path, "w");
    return l->file != NULL ? SLUICE_OK : sluice_error(host, SLUICE_IO, "cannot write %s: %m", l->path);
}

static void list_fini(void *self)
{
    struct list *l = self;
    if (l->file != NULL)
        fclose(l->file);
}

static int list_process(void *self, sluice_record *record)
{
    struct list *l = self;
    double mark = -1;
    sluice_record_meta_number(record, "mark", &mark);
    fprintf(l->file, "%s %g\n", sluice_record_id(record), mark);
    return SLUICE_OK;
}

static const sluice_stage_class list_class = {
    SLUICE_STAGE_CLASS(SLUICE_SINK, "test/list", "Lists ids and marks", struct list, list_params),
    .base.traits = SLUICE_NO_OUTPUT,
    .base.init = list_init,
    .base.fini = list_fini,
    .process = list_process,
};

/* ---- a metrics sink that writes down what it is told, and fails after some lines when asked to. */

struct hear {
    const char *file;
    int64_t most;
    const sluice_host *host;
    FILE *out;
    char folder[4096];
};

static const sluice_param hear_params[] = {
    SLUICE_STRING(struct hear, file, .text = "heard.txt", .doc = "A file in the run's folder."),
    SLUICE_INT(struct hear, most, .value = 1e9, .min = 0, .doc = "Lines before it fails."), SLUICE_PARAMS_END};

static void hear_folder(void *self, const char *folder)
{
    struct hear *h = self;
    snprintf(h->folder, sizeof h->folder, "%s", folder);
}

static int hear_init(void *self, const sluice_host *host)
{
    struct hear *h = self;
    char path[sizeof h->folder + 64];
    h->host = host;
    snprintf(path, sizeof path, "%s/%.32s", h->folder, h->file);
    h->out = fopen(path, "w");
    return h->out != NULL ? SLUICE_OK : sluice_error(host, SLUICE_IO, "cannot write %s: %m", path);
}

static int hear_line(void *self, const sluice_metrics_line *line)
{
    struct hear *h = self;
    if (h->most-- == 0)
        return sluice_error(h->host, SLUICE_FAILED, "deaf on purpose");
    fprintf(h->out, "%s %s %d %d%s%s:", line->phase, line->stage, (int)line->iteration, (int)line->step,
            line->reused ? " reused" : "", line->time > 1.7e9 ? "" : " at no time");
    for (size_t i = 0; i < line->count; i++)
        fprintf(h->out, " %s=%.4g", line->numbers[i].name, line->numbers[i].value);
    fputc('\n', h->out);
    return SLUICE_OK;
}

static int hear_finish(void *self)
{
    struct hear *h = self;
    fputs("finished\n", h->out);
    return SLUICE_OK;
}

static void hear_fini(void *self)
{
    struct hear *h = self;
    if (h->out != NULL)
        fclose(h->out);
}

static const sluice_metrics_class hear_class = {
    SLUICE_METRICS_CLASS("test/hear", "Writes down what it is told", struct hear, hear_params),
    .base.init = hear_init,
    .base.fini = hear_fini,
    .line = hear_line,
    .finish = hear_finish,
    .folder = hear_folder,
};

SLUICE_PLUGIN("run-stages", "1.0", "Apache-2.0", &count_class.base, &mark_class.base, &share_class.base,
              &backwards_class.base, &hold_class.base, &train_class.base, &weigh_class.base, &list_class.base,
              &hear_class.base);
