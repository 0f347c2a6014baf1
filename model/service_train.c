/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Training, as the service offers it. */
#include "model/service_parts.h"

#include <stdlib.h>
#include <string.h>

#include "model/replicas.h"
#include "model/train_state.h"

struct sluice_training {
    const sluice_host *host;
    sm_version *version;
    sm_replicas *replicas;
};

/* The head a reward model's training starts from, in new memory: head_from's, else the model's own, else NULL for a
 * random one. */
static int starting_head(const sluice_model *model, const sluice_optimizer *o, float **head)
{
    const sluice_model *from = o->head_from ? o->head_from : model;
    const sm_checkpoint *c = from->version->checkpoint;
    *head = NULL;
    if (!o->head_from && service_outputs(model) == 0)
        return SLUICE_OK;
    const int rc = service_need_reward_head(from);
    if (rc != SLUICE_OK)
        return rc;
    if (service_outputs(from) != o->head_outputs)
        return sluice_error(
            model->host, SLUICE_BAD_MODEL,
            "%s has a head of %u output%s, and %u are asked for; leave head out, or set it where the head is "
            "begun",
            from->version->path, service_outputs(from), service_outputs(from) == 1 ? "" : "s", o->head_outputs);
    if (c->layout.config.hidden != model->version->checkpoint->layout.config.hidden)
        return sluice_error(model->host, SLUICE_BAD_MODEL,
                            "the head of %s is for hidden states of %u numbers, and those of %s have %u",
                            from->version->path, c->layout.config.hidden, model->version->path,
                            model->version->checkpoint->layout.config.hidden);
    const size_t count = (size_t)o->head_outputs * c->layout.config.hidden;
    const sm_numbers numbers = sm_version_numbers(from->version);
    sm_error error;
    int status = SM_OK;
    if (!(*head = malloc(count * sizeof(**head))))
        status = sm_fail(&error, SM_NO_MEMORY, "out of memory for training");
    else
        status = sm_numbers_read(&numbers, c->layout.score, count, *head, &error);
    return service_report(model->host, status, &error, 0);
}

/* As the caller knows it: a plugin built against an older header gives fewer fields. */
static sluice_optimizer whole_optimizer(const sluice_optimizer *given)
{
    sluice_optimizer o = {0};
    memcpy(&o, given, given->size < sizeof(o) ? given->size : sizeof(o));
    return o;
}

static int model_train_begin(sluice_model *model, const sluice_optimizer *given, sluice_training **out)
{
    const sluice_optimizer optimizer = whole_optimizer(given);
    sm_version *v = model->version;
    const sm_layout *layout = &v->checkpoint->layout;
    const sm_numbers numbers = sm_version_numbers(v);
    float *head = NULL;
    const sm_devices devices = service_devices(model->service);
    sm_error error;
    *out = NULL;
    int rc = optimizer.head_outputs > 0 ? starting_head(model, &optimizer, &head) : service_need_language_head(model);
    sluice_training *t = rc == SLUICE_OK ? calloc(1, sizeof(*t)) : NULL;
    if (!t) {
        free(head);
        return rc != SLUICE_OK ? rc : sluice_error(model->host, SLUICE_NO_MEMORY, "out of memory for training");
    }
    t->host = model->host;
    sm_version_rest(v); /* training needs the memory of what the version was sampled or scored with */
    rc = sm_replicas_new(&t->replicas, &devices, v->dtype, layout, &numbers, head, &optimizer, &error);
    free(head);
    if (rc != SM_OK) {
        free(t);
        return service_report(model->host, rc, &error, 0);
    }
    sm_version_keep(v); /* training outlives the handle it began from */
    t->version = v;
    *out = t;
    return SLUICE_OK;
}

/* Is it the kind of training that the call is for? */
static int check_training(const sluice_training *t, bool reward)
{
    if ((sm_training_layout(sm_replicas_first(t->replicas))->config.outputs > 0) == reward)
        return SLUICE_OK;
    return sluice_error(t->host, SLUICE_BAD_PARAMETER, "this training is of a %s, which has no %s",
                        reward ? "language model" : "reward model", reward ? "values" : "log-probabilities");
}

static int train_gradient(sluice_training *t, const sluice_group *groups, size_t count, sm_derivative derivative,
                          void *context)
{
    sm_error error;
    int callers = 0, rc = check_training(t, false);
    if (rc != SLUICE_OK)
        return rc;
    rc = sm_replicas_gradient(t->replicas, groups, count, derivative, context, &callers, &error);
    return service_report(t->host, rc, &error, callers);
}

static int train_values(sluice_training *t, const sluice_group *groups, size_t count, sm_derivative derivative,
                        void *context)
{
    sm_error error;
    int callers = 0, rc = check_training(t, true);
    if (rc != SLUICE_OK)
        return rc;
    rc = sm_replicas_gradient(t->replicas, groups, count, derivative, context, &callers, &error);
    return service_report(t->host, rc, &error, callers);
}

static int train_step(sluice_training *t, double lr, double grad_scale, sluice_step_info *info)
{
    sm_error error;
    return service_report(t->host, sm_replicas_step(t->replicas, lr, grad_scale, info, &error), &error, 0);
}

static int train_score(sluice_training *t, const sluice_group *groups, size_t count, float *const *logps)
{
    sm_error error;
    const int rc = check_training(t, false);
    return rc != SLUICE_OK
               ? rc
               : service_report(t->host, sm_replicas_score(t->replicas, groups, count, logps, &error), &error, 0);
}

static int train_score_values(sluice_training *t, const sluice_group *groups, size_t count, float *const *values)
{
    sm_error error;
    const int rc = check_training(t, true);
    return rc != SLUICE_OK
               ? rc
               : service_report(t->host, sm_replicas_score(t->replicas, groups, count, values, &error), &error, 0);
}

static int train_distance(sluice_training *t, double *out)
{
    const sm_numbers numbers = sm_version_numbers(t->version);
    sm_error error;
    return service_report(t->host, sm_training_distance(sm_replicas_first(t->replicas), &numbers, out, &error), &error,
                          0);
}

static int train_save(sluice_training *t, const char *dir)
{
    sm_training *first = sm_replicas_first(t->replicas);
    const sm_numbers params = sm_training_params(first);
    sm_error error;
    int rc = sm_replicas_compare(t->replicas, &error);
    if (rc == SM_OK)
        rc = sm_checkpoint_save(dir, sm_training_layout(first), &params, KN_F32, t->version->path, &error);
    return service_report(t->host, rc, &error, 0);
}

static int train_suspend(sluice_training *t, const char *path)
{
    sm_error error;
    return service_report(t->host, sm_training_suspend(sm_replicas_first(t->replicas), path, &error), &error, 0);
}

static int train_resume(sluice_training *t, const char *path)
{
    sm_error error;
    return service_report(t->host, sm_replicas_resume(t->replicas, path, &error), &error, 0);
}

static void train_end(sluice_training *t)
{
    if (!t)
        return;
    sm_replicas_free(t->replicas);
    sm_version_close(t->version);
    free(t);
}

void service_add_training(sluice_model_service *service)
{
    service->train_begin = model_train_begin;
    service->train_gradient = train_gradient;
    service->train_values = train_values;
    service->train_step = train_step;
    service->train_score = train_score;
    service->train_score_values = train_score_values;
    service->train_distance = train_distance;
    service->train_save = train_save;
    service->train_suspend = train_suspend;
    service->train_resume = train_resume;
    service->train_end = train_end;
}
