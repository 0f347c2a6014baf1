/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* best-version: of the versions that a phase made, the one for which a number is best. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/stage.h>
#include "plugins/common/copy.h"

enum better { BETTER_HIGHER, BETTER_LOWER };

struct best {
    const sluice_model_ref *model;
    const sluice_measures *by;
    int better;

    const sluice_host *host;
    const sluice_measure *kept;
    size_t measured;
};

static const char *const betters[] = {"higher", "lower", NULL};

static const sluice_param params[] = {
    SLUICE_SLOT(struct best, model, .required = true, .doc = "The slot whose next version the best one becomes."),
    SLUICE_METRICS(struct best, by, .required = true,
                   .doc = "The numbers to go by, of stages of earlier phases: \"eval/accuracy\", or a list of them."),
    SLUICE_CHOICE(struct best, better, .value = BETTER_HIGHER, .choices = betters,
                  .doc = "Which number is the better one."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {{"kept_version", NULL, "The version that was best."},
                                             {"kept_value", NULL, "Its number."},
                                             {"versions", "versions", "Versions with a number, of which it is one."},
                                             {0}};

static int init(void *self, const sluice_host *host)
{
    ((struct best *)self)->host = host;
    return SLUICE_OK;
}

/* Of equals the earlier stays: it took less training. */
static void choose(struct best *best)
{
    for (size_t i = 0; i < best->by->count; i++) {
        const sluice_measure *m = best->by->items[i];
        if (!isfinite(m->value))
            continue;
        best->measured++;
        if (!best->kept ||
            (best->better == BETTER_HIGHER ? m->value > best->kept->value : m->value < best->kept->value))
            best->kept = m;
    }
}

/* "kept policy@2 as policy@4: of policy@1 0.52, policy@2 0.61, policy@3 0.6 (marks/accuracy) it is the highest" */
static int tell(const struct best *best)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    for (size_t i = 0; out && i < best->by->count; i++) {
        const sluice_measure *m = best->by->items[i];
        fprintf(out, "%s%s ", i > 0 ? ", " : "", m->model->text);
        fprintf(out, isfinite(m->value) ? "%.6g" : "nothing", m->value);
        if (i + 1 == best->by->count || strcmp(m->stage, best->by->items[i + 1]->stage) != 0 ||
            strcmp(m->metric, best->by->items[i + 1]->metric) != 0)
            fprintf(out, " (%s/%s)", m->stage, m->metric);
    }
    if (!out || fclose(out) != 0) {
        free(text);
        return sluice_error(best->host, SLUICE_NO_MEMORY, "out of memory");
    }
    sluice_log(best->host, SLUICE_LOG_INFO, "kept %s as %s@%lld: of %s it is the %s", best->kept->model->text,
               best->model->slot, (long long)best->model->next, text,
               best->better == BETTER_HIGHER ? "highest" : "lowest");
    free(text);
    return SLUICE_OK;
}

static int run(void *self)
{
    struct best *best = self;
    const char *dir;
    choose(best);
    if (!best->kept)
        return sluice_error(best->host, SLUICE_FAILED,
                            "none of the %zu versions has a number to go by: the stages that `by` names reported none",
                            best->by->count);
    if (best->kept->model->random)
        return sluice_error(best->host, SLUICE_BAD_MODEL,
                            "the best is %s, which is random and has no weights in a file; leave it out of `by`",
                            best->kept->model->text);
    int rc = tell(best);
    if (rc >= 0)
        rc = sluice_publish_begin(best->host, best->model, &dir);
    if (rc >= 0)
        rc = copy_model(best->host, best->kept->model->path, dir);
    return rc < 0 ? rc : sluice_publish_commit(best->host, best->model);
}

static int finish(void *self)
{
    const struct best *best = self;
    const sluice_number numbers[] = {{"kept_version", (double)best->kept->model->version},
                                     {"kept_value", best->kept->value},
                                     {"versions", (double)best->measured}};
    sluice_metrics(best->host, -1, numbers, sizeof numbers / sizeof *numbers);
    return SLUICE_OK;
}

static const sluice_stage_class best_class = {
    SLUICE_STAGE_CLASS(SLUICE_AVERAGER, "best-version", "Publish the version for which a number is best", struct best,
                       params),
    .base.traits = SLUICE_NO_OUTPUT,
    .base.doc =
        "Early stopping over the iterations of a phase, by any number: that of an evaluator, of a verifier behind a "
        "sampler, or what a trainer measured. Each number is about the version that its stage, or else the nearest "
        "stage upstream of it, reads or publishes; the version with the best number becomes the slot's next one, file "
        "by file, and what follows goes on with it. Of equals the earlier is kept. Choose on questions that nothing "
        "else is reported on: the best of several is better there by luck too.",
    .base.metrics = metrics,
    .base.init = init,
    .run = run,
    .finish = finish,
};
SLUICE_PLUGIN("best-version", "1.0", "Apache-2.0", &best_class.base);
