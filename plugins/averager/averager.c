/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* averager: the weights of several versions as one model (WARM: Rame et al. 2024, arXiv 2401.12187; slerp, and running
 * for its reference: WARP, Rame et al. 2024, arXiv 2406.16768). */
#include <stdlib.h>
#include <string.h>
#include <sluice/stage.h>
#include <sluice/model.h>

struct averager {
    const sluice_model_ref *model, *base;
    sluice_models models;
    int method;
    sluice_doubles weights;
    double rate, eta;

    const sluice_host *host;
};

static const char *const methods[] = {"mean", "weighted", "running", "slerp", NULL}; /* sluice_merge_method */

static const sluice_param params[] = {
    SLUICE_SLOT(struct averager, model, .required = true, .doc = "The slot whose next version the average becomes."),
    SLUICE_MODELS(struct averager, models, .required = true,
                  .doc = "The versions to average, [\"policy@1\", \"policy@2\"]."),
    SLUICE_CHOICE(
        struct averager, method, .value = SLUICE_MERGE_MEAN, .choices = methods,
        .doc = "The mean; the mean by weights; the running mean along the list, ema = (1 - rate) ema + rate theta; or "
               "what the models differ from base, turned into one by SLERP layer by layer."),
    SLUICE_DOUBLES(struct averager, weights, .doc = "One weight a model, for method = \"weighted\"."),
    SLUICE_DOUBLE(struct averager, rate, .value = 0.01, .above = 0, .max = 1,
                  .doc = "How much each model counts in the running mean."),
    SLUICE_MODEL(struct averager, base,
                 .doc = "slerp: the version that the models started from; the newest of `model` when not set."),
    SLUICE_DOUBLE(struct averager, eta, .value = 1, .above = 0, .max = 1,
                  .doc = "slerp: how far to go from base to the merged model (WARP's LITI, which takes 0.3)."),
    SLUICE_PARAMS_END};

/* What the merge takes besides folders: sluice_model_service.merge. */
static const double *numbers_of(const struct averager *averager)
{
    switch (averager->method) {
    case SLUICE_MERGE_RUNNING:
        return &averager->rate;
    case SLUICE_MERGE_SLERP:
        return &averager->eta;
    default:
        return averager->weights.items;
    }
}

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
    if (averager->method != SLUICE_MERGE_SLERP && (averager->base || averager->eta != 1))
        return sluice_error(host, SLUICE_BAD_PARAMETER, "%s is given, but method is \"%s\"; set method = \"slerp\"",
                            averager->base ? "base" : "eta", methods[averager->method]);
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

/* The versions' folders, for slerp after the base's. */
static int find_folders(const struct averager *averager, const char **folders)
{
    const bool based = averager->method == SLUICE_MERGE_SLERP;
    for (size_t i = 0; i < averager->models.count + based; i++) {
        const sluice_model_ref *ref = i >= based       ? averager->models.items[i - based]
                                      : averager->base ? averager->base
                                                       : averager->model;
        if (ref->random)
            return sluice_error(averager->host, SLUICE_BAD_MODEL,
                                "%s is random and has no weights in a file; average trained versions", ref->text);
        folders[i] = ref->path;
    }
    return SLUICE_OK;
}

static int run(void *self)
{
    struct averager *averager = self;
    const sluice_model_service *service = sluice_service(averager->host, SLUICE_MODEL_SERVICE);
    const size_t count = averager->models.count + (averager->method == SLUICE_MERGE_SLERP);
    const char *dir;
    if (!service)
        return sluice_error(averager->host, SLUICE_BAD_PLUGIN, "no plugin provides %s; is model.so in the plugin path?",
                            SLUICE_MODEL_SERVICE);
    const char **folders = malloc(count * sizeof *folders);
    if (!folders)
        return sluice_error(averager->host, SLUICE_NO_MEMORY, "out of memory");
    int rc = find_folders(averager, folders);
    if (rc >= 0)
        rc = sluice_publish_begin(averager->host, averager->model, &dir);
    if (rc >= 0)
        rc = service->merge(service, averager->host, averager->method, folders, numbers_of(averager), count, dir,
                            "float32");
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
    .base.traits = SLUICE_NO_OUTPUT | SLUICE_USES_DEVICE,
    .base.doc =
        "Publishes the average as the next version of a slot. All versions must be of one architecture; tensors are "
        "streamed from their files and summed in float32 in the order given. mean is WARM's; running is the "
        "exponential mean that WARP keeps as its reference.\n"
        "slerp is WARP's merge, on the run's device: with d_i what model i differs from base, s_1 = d_1 and s_k = "
        "sin((1-l) w)/sin w s_(k-1) + sin(l w)/sin w d_k with l = 1/k and w the angle between the two, which all "
        "tensors of a transformer layer share (the embedding, the last norm and the head are layers of their own); "
        "then base + eta s. Where the two are parallel or opposite (sin w < 1e-6) or one is 0 the straight line (1-l) "
        "s_(k-1) + l d_k is taken. With more than two models their order counts. mergekit's nuslerp with a base is "
        "this for two models, its slerp is not: that turns whole weights.",
    .base.metrics = metrics,
    .base.init = init,
    .run = run,
    .finish = finish,
};
SLUICE_PLUGIN("averager", "1.0", "Apache-2.0", &averager_class.base);
