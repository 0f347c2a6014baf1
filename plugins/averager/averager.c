/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* averager: the weights of several versions as one model (WARM: Rame et al. 2024, arXiv 2401.12187; running: WARP's
 * reference). */
#include <stdlib.h>
#include <string.h>
#include <sluice/stage.h>
#include <sluice/model.h>

struct averager {
    const sluice_model_ref *model;
    sluice_models models;
    int method;
    sluice_doubles weights;
    double rate;

    const sluice_host *host;
};

static const char *const methods[] = {"mean", "weighted", "running", NULL}; /* sluice_merge_method */

static const sluice_param params[] = {
    SLUICE_SLOT(struct averager, model, .required = true, .doc = "The slot whose next version the average becomes."),
    SLUICE_MODELS(struct averager, models, .required = true,
                  .doc = "The versions to average, [\"policy@1\", \"policy@2\"]."),
    SLUICE_CHOICE(
        struct averager, method, .value = SLUICE_MERGE_MEAN, .choices = methods,
        .doc = "The mean; the mean by weights; or the running mean along the list, ema = (1 - rate) ema + rate theta."),
    SLUICE_DOUBLES(struct averager, weights, .doc = "One weight a model, for method = \"weighted\"."),
    SLUICE_DOUBLE(struct averager, rate, .value = 0.01, .above = 0, .max = 1,
                  .doc = "How much each model counts in the running mean."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {{"models", "models", "Models averaged."}, {0}};

static int init(void *self, const sluice_host *host)
{
    struct averager *averager = self;
    size_t count = averager->models.count, weights = averager->weights.count;
    double sum = 0;
    averager->host = host;
    if (count < 2)
        return sluice_error(host, SLUICE_BAD_PARAMETER, "models names %zu version%s; an average needs two or more",
                            count, count == 1 ? "" : "s");
    if (averager->method != SLUICE_MERGE_WEIGHTED)
        return weights == 0 ? SLUICE_OK
                            : sluice_error(host, SLUICE_BAD_PARAMETER,
                                           "weights are given, but method is \"%s\"; set method = "
                                           "\"weighted\"",
                                           methods[averager->method]);
    if (weights != count)
        return sluice_error(host, SLUICE_BAD_PARAMETER,
                            "there are %zu models and %zu weight%s; give one weight a model", count, weights,
                            weights == 1 ? "" : "s");
    for (size_t i = 0; i < weights; i++)
        sum += averager->weights.items[i];
    return sum != 0 ? SLUICE_OK : sluice_error(host, SLUICE_BAD_PARAMETER, "the weights sum to 0");
}

static int run(void *self)
{
    struct averager *averager = self;
    const sluice_model_service *service = sluice_service(averager->host, SLUICE_MODEL_SERVICE);
    const double *weights = averager->method == SLUICE_MERGE_RUNNING ? &averager->rate : averager->weights.items;
    size_t count = averager->models.count;
    const char *dir;
    if (!service)
        return sluice_error(averager->host, SLUICE_BAD_PLUGIN, "no plugin provides %s; is model.so in the plugin path?",
                            SLUICE_MODEL_SERVICE);
    const char **folders = malloc(count * sizeof *folders);
    if (!folders)
        return sluice_error(averager->host, SLUICE_NO_MEMORY, "out of memory");
    int rc = SLUICE_OK;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        const sluice_model_ref *ref = averager->models.items[i];
        folders[i] = ref->path;
        if (ref->random)
            rc = sluice_error(averager->host, SLUICE_BAD_MODEL,
                              "%s is random and has no weights in a file; average trained versions", ref->text);
    }
    if (rc >= 0)
        rc = sluice_publish_begin(averager->host, averager->model, &dir);
    if (rc >= 0)
        rc = service->merge(service, averager->host, averager->method, folders, weights, count, dir, "float32");
    free(folders);
    return rc < 0 ? rc : sluice_publish_commit(averager->host, averager->model);
}

static int finish(void *self)
{
    struct averager *averager = self;
    sluice_metric(averager->host, "models", (double)averager->models.count);
    return SLUICE_OK;
}

static const sluice_stage_class averager_class = {
    SLUICE_STAGE_CLASS(SLUICE_AVERAGER, "averager", "Average the weights of several versions into a new one",
                       struct averager, params),
    .base.traits = SLUICE_NO_OUTPUT,
    .base.doc = "Publishes the average as the next version of a slot. All versions must be of one architecture; "
                "tensors are streamed from "
                "their files and summed in float32 in the order given. mean is WARM's; running is the exponential mean "
                "that WARP keeps "
                "as its reference.",
    .base.metrics = metrics,
    .base.init = init,
    .run = run,
    .finish = finish,
};
SLUICE_PLUGIN("averager", "1.0", "Apache-2.0", &averager_class.base);
