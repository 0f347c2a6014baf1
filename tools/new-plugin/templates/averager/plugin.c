/* @ID@: a trained model drawn back towards another: theta = (1 - share) theta_anchor + share theta_trained, tensor by
 * tensor (WiSE-FT: Wortsman et al. 2022, arXiv 2109.01903). What training taught mostly stays, what it broke mostly
 * heals. */
#include <sluice/model.h>
#include <sluice/stage.h>

struct averager {
    const sluice_model_ref *model, *anchor;
    double share;

    const sluice_host *host;
};

static const sluice_param params[] = {
    SLUICE_SLOT(struct averager, model, .required = true,
                .doc = "The trained version; the result is published as the next one of its slot."),
    SLUICE_MODEL(struct averager, anchor, .required = true, .doc = "The version it is drawn back to, \"policy@0\"."),
    SLUICE_DOUBLE(struct averager, share, .value = 0.5, .above = 0, .below = 1,
                  .doc = "How much the trained version counts."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {{"share", NULL, "How much the trained version counted."},
                                             {NULL, NULL, NULL}};

static int init(void *self, const sluice_host *host)
{
    struct averager *averager = self;
    averager->host = host;
    if (averager->model->random || averager->anchor->random)
        return sluice_error(host, SLUICE_BAD_MODEL,
                            "%s is random and has no weights in a file; average trained versions",
                            averager->model->random ? averager->model->text : averager->anchor->text);
    return SLUICE_OK;
}

static int run(void *self)
{
    struct averager *averager = self;
    const sluice_model_service *service = sluice_service(averager->host, SLUICE_MODEL_SERVICE);
    const char *const folders[] = {averager->anchor->path, averager->model->path};
    const double weights[] = {1 - averager->share, averager->share};
    const char *dir;
    if (!service)
        return sluice_error(averager->host, SLUICE_BAD_PLUGIN,
                            "no plugin provides " SLUICE_MODEL_SERVICE "; `sluice plugins` shows what was found");
    int rc = sluice_publish_begin(averager->host, averager->model, &dir);
    if (rc >= 0)
        rc = service->merge(service, averager->host, SLUICE_MERGE_WEIGHTED, folders, weights, 2, dir, "float32");
    return rc < 0 ? rc : sluice_publish_commit(averager->host, averager->model);
}

static int finish(void *self)
{
    struct averager *averager = self;
    sluice_metric(averager->host, "share", averager->share);
    return SLUICE_OK;
}

static const sluice_stage_class averager_class = {
    SLUICE_STAGE_CLASS(SLUICE_AVERAGER, "@ID@", "Draws a trained model back towards another", struct averager, params),
    .base.traits = SLUICE_NO_OUTPUT,
    .base.doc =
        "theta = (1 - share) theta_anchor + share theta_model, tensor by tensor, in float32 (Wortsman et al. 2022). "
        "Both versions must be of one architecture.",
    .base.metrics = metrics,
    .base.init = init,
    .run = run,
    .finish = finish,
};
SLUICE_PLUGIN("@NAME@", "1.0", "MIT", &averager_class.base);
