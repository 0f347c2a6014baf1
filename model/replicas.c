/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/replicas.h"

#include <pthread.h>
#include <stdlib.h>
#include <xxhash.h>

#include "model/exchange.h"
#include "model/train_state.h"

typedef struct replica replica;
typedef int (*job)(replica *r, const void *with);

struct replica {
    kn_device *device;
    sm_training *training;
    uint64_t tokens; /* that it was dealt in this step */
    /* what it was dealt in this call */
    sluice_group *groups;
    size_t count;
    float **outputs, **derivatives; /* of its completions */
    size_t completions;
    uint64_t hash; /* of its weights */

    job job;
    const void *with;
    pthread_t thread;
    int rc;
    sm_error error;
};

struct sm_replicas {
    kn_collective *together;
    size_t count;
    uint64_t steps;
    replica replica[];
};

/* --- at once on all -------------------------------------------------------------------------------------------------
 */

static void *run(void *arg)
{
    replica *r = arg;
    r->rc = r->job(r, r->with);
    return NULL;
}

/* The job on every device at once; jobs do not wait for each other. The error of the first that failed. */
static int on_all(sm_replicas *s, job what, const void *with, sm_error *error)
{
    bool started[SM_MOST_DEVICES];
    for (size_t i = s->count; i-- > 0;) {
        replica *r = &s->replica[i];
        r->job = what;
        r->with = with;
        started[i] = i > 0 && pthread_create(&r->thread, NULL, run, r) == 0;
        if (!started[i])
            run(r);
    }
    int rc = SM_OK;
    for (size_t i = 0; i < s->count; i++) {
        replica *r = &s->replica[i];
        if (started[i])
            pthread_join(r->thread, NULL);
        if (rc == SM_OK && r->rc != SM_OK) {
            rc = r->rc;
            *error = r->error;
        }
    }
    return rc;
}

/* --- making ---------------------------------------------------------------------------------------------------------
 */

typedef struct beginning {
    kn_dtype dtype;
    const sm_layout *layout;
    const sm_numbers *numbers;
    const float *head;
    const sluice_optimizer *optimizer;
} beginning;

static int begin(replica *r, const void *with)
{
    const beginning *b = with;
    if (b->optimizer->head_outputs > 0)
        return sm_training_new_reward(&r->training, r->device, b->dtype, b->layout, b->numbers, b->head, b->optimizer,
                                      &r->error);
    return sm_training_new(&r->training, r->device, b->dtype, b->layout, b->numbers, b->optimizer, &r->error);
}

int sm_replicas_new(sm_replicas **out, const sm_devices *devices, kn_dtype dtype, const sm_layout *layout,
                    const sm_numbers *numbers, const float *head, const sluice_optimizer *optimizer, sm_error *error)
{
    const beginning b = {dtype, layout, numbers, head, optimizer};
    sm_replicas *s = calloc(1, sizeof(*s) + devices->count * sizeof(s->replica[0]));
    *out = NULL;
    if (!s)
        return sm_fail(error, SM_NO_MEMORY, "out of memory for training");
    s->together = devices->together;
    s->count = devices->count;
    for (size_t i = 0; i < s->count; i++)
        s->replica[i].device = devices->device[i];
    const int rc = on_all(s, begin, &b, error);
    if (rc == SM_OK)
        *out = s;
    else
        sm_replicas_free(s);
    return rc;
}

void sm_replicas_free(sm_replicas *s)
{
    for (size_t i = 0; s && i < s->count; i++)
        sm_training_free(s->replica[i].training);
    free(s);
}

sm_training *sm_replicas_first(sm_replicas *s)
{
    return s->replica[0].training;
}

/* --- dealing --------------------------------------------------------------------------------------------------------
 */

static void take_back(sm_replicas *s)
{
    for (size_t i = 0; i < s->count; i++) {
        replica *r = &s->replica[i];
        free(r->groups);
        free(r->outputs);
        r->groups = NULL;
        r->outputs = r->derivatives = NULL;
        r->count = r->completions = 0;
    }
}

static bool make_room(sm_replicas *s, size_t groups, size_t completions)
{
    bool ok = true;
    for (size_t i = 0; i < s->count; i++) {
        replica *r = &s->replica[i];
        r->groups = malloc((groups + 1) * sizeof(*r->groups));
        r->outputs = malloc((2 * completions + 1) * sizeof(*r->outputs));
        r->derivatives = r->outputs ? r->outputs + completions : NULL;
        ok = ok && r->groups && r->outputs;
    }
    return ok;
}

/* The one with the fewest tokens so far. */
static replica *next(sm_replicas *s)
{
    replica *least = &s->replica[0];
    for (size_t i = 1; i < s->count; i++)
        if (s->replica[i].tokens < least->tokens)
            least = &s->replica[i];
    return least;
}

/* Taken back in any case. derivatives may be NULL. */
static int deal(sm_replicas *s, const sluice_group *groups, size_t count, float *const *outputs,
                float *const *derivatives, sm_error *error)
{
    size_t completions = 0, k = 0;
    for (size_t g = 0; g < count; g++)
        completions += groups[g].completion_count;
    if (!make_room(s, count, completions))
        return sm_fail(error, SM_NO_MEMORY, "out of memory for a batch of %zu records; use smaller batches", count);
    for (size_t g = 0; g < count; g++) {
        replica *r = next(s);
        r->groups[r->count++] = groups[g];
        r->tokens += groups[g].prompt.count;
        for (size_t c = 0; c < groups[g].completion_count; c++, k++) {
            r->tokens += groups[g].completions[c].count;
            r->outputs[r->completions] = outputs[k];
            r->derivatives[r->completions++] = derivatives ? derivatives[k] : NULL;
        }
    }
    return SM_OK;
}

/* --- gradient -------------------------------------------------------------------------------------------------------
 */

static int forward(replica *r, const void *with)
{
    (void)with;
    return sm_training_forward(r->training, r->groups, r->count, r->outputs, &r->error);
}

static int backward(replica *r, const void *with)
{
    (void)with;
    return sm_training_backward(r->training, r->groups, r->count, r->derivatives, &r->error);
}

static size_t outputs_of(const sm_replicas *s)
{
    return sm_training_layout(s->replica[0].training)->config.outputs;
}

int sm_replicas_gradient(sm_replicas *s, const sluice_group *groups, size_t count, sm_derivative derivative,
                         void *context, int *result, sm_error *error)
{
    sm_exchange x;
    if (s->count == 1)
        return sm_training_gradient(s->replica[0].training, groups, count, derivative, context, result, error);
    int rc = sm_exchange_new(&x, groups, count, outputs_of(s), error);
    if (rc == SM_OK)
        rc = deal(s, groups, count, x.outputs, x.derivatives, error);
    if (rc == SM_OK)
        rc = on_all(s, forward, NULL, error);
    if (rc == SM_OK) {
        *result = derivative(context, (const float *const *)x.outputs, x.derivatives);
        if (*result < 0)
            rc = SM_CALLER;
    }
    if (rc == SM_OK)
        rc = on_all(s, backward, NULL, error);
    take_back(s);
    sm_exchange_free(&x);
    return rc;
}

/* --- step -----------------------------------------------------------------------------------------------------------
 */

static int gather(replica *r, const void *with)
{
    (void)with;
    return sm_training_gather(r->training, &r->error);
}

/* Every replica's gradient becomes the sum of all. */
static int sum_gradients(sm_replicas *s, sm_error *error)
{
    float *gradient[SM_MOST_DEVICES];
    const int rc = on_all(s, gather, NULL, error);
    if (rc != SM_OK)
        return rc;
    for (size_t i = 0; i < s->count; i++)
        gradient[i] = sm_training_take_apart(s->replica[i].training).gradient;
    const int kn = s->together->sum(s->together, gradient, sm_training_take_apart(s->replica[0].training).count);
    if (kn == KN_OK)
        return SM_OK;
    const char *why = s->together->error(s->together);
    if (why)
        return sm_fail(error, SM_DEVICE, "the sum of gradients over %zu devices failed: %s; run again to resume",
                       s->count, why);
    return sm_device_fail(s->replica[0].device, kn, "the sum of gradients", error);
}

typedef struct stride {
    double lr, grad_scale;
    sluice_step_info *info; /* of the first */
    const replica *first;
} stride;

static int step(replica *r, const void *with)
{
    const stride *o = with;
    sluice_step_info others;
    return sm_training_step(r->training, o->lr, o->grad_scale, r == o->first ? o->info : &others, &r->error);
}

int sm_replicas_step(sm_replicas *s, double lr, double grad_scale, sluice_step_info *info, sm_error *error)
{
    const stride o = {lr, grad_scale, info, &s->replica[0]};
    int rc = s->count > 1 ? sum_gradients(s, error) : SM_OK;
    if (rc == SM_OK)
        rc = on_all(s, step, &o, error);
    for (size_t i = 0; i < s->count; i++)
        s->replica[i].tokens = 0;
    s->steps++;
    return rc;
}

/* --- the rest -------------------------------------------------------------------------------------------------------
 */

static int score(replica *r, const void *with)
{
    (void)with;
    return sm_training_layout(r->training)->config.outputs > 0
               ? sm_training_score_values(r->training, r->groups, r->count, r->outputs, &r->error)
               : sm_training_score(r->training, r->groups, r->count, r->outputs, &r->error);
}

int sm_replicas_score(sm_replicas *s, const sluice_group *groups, size_t count, float *const *outputs, sm_error *error)
{
    uint64_t tokens[SM_MOST_DEVICES];
    for (size_t i = 0; i < s->count; i++) /* does not count for the step at hand */
        tokens[i] = s->replica[i].tokens;
    int rc = deal(s, groups, count, outputs, NULL, error);
    if (rc == SM_OK)
        rc = on_all(s, score, NULL, error);
    take_back(s);
    for (size_t i = 0; i < s->count; i++)
        s->replica[i].tokens = tokens[i];
    return rc;
}

static int resume(replica *r, const void *with)
{
    return sm_training_resume(r->training, with, &r->error);
}

int sm_replicas_resume(sm_replicas *s, const char *path, sm_error *error)
{
    return on_all(s, resume, path, error);
}

enum { PIECE = 1 << 20 }; /* floats */

static int hash_weights(replica *r, const void *with)
{
    (void)with;
    const size_t count = sm_training_layout(r->training)->count;
    const sm_numbers weights = sm_training_params(r->training);
    float *room = malloc(PIECE * sizeof(*room));
    int rc = room ? SM_OK : sm_fail(&r->error, SM_NO_MEMORY, "out of memory to compare replicas");
    r->hash = 0;
    for (size_t at = 0; rc == SM_OK && at < count; at += PIECE) {
        const size_t n = count - at < PIECE ? count - at : PIECE;
        rc = sm_numbers_read(&weights, at, n, room, &r->error);
        if (rc == SM_OK)
            r->hash = XXH3_64bits_withSeed(room, n * sizeof(*room), r->hash);
    }
    free(room);
    return rc;
}

int sm_replicas_compare(sm_replicas *s, sm_error *error)
{
    int rc = s->count > 1 ? on_all(s, hash_weights, NULL, error) : SM_OK;
    for (size_t i = 1; rc == SM_OK && i < s->count; i++)
        if (s->replica[i].hash != s->replica[0].hash)
            rc =
                sm_fail(error, SM_DEVICE,
                        "after %llu steps the model on device %zu of %zu is not the one on the first: a device, or the "
                        "link between them, computes wrongly; nothing was saved. Run again to resume, with "
                        "runtime.devices=1 if it persists",
                        (unsigned long long)s->steps, i + 1, s->count);
    return rc;
}
