/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <sluice/random.h>

#include "model/exchange.h"
#include "model/head.h"

struct sm_training {
    kn_device *device;
    kn_dtype dtype; /* of the passes */
    const sm_layout *layout;
    sm_layout own; /* of a reward model */
    float *start;  /* of a reward model: the head it began with */
    size_t first;  /* the first parameter that is trained, all that follow are: not 0 when the body is frozen */
    sluice_optimizer optimizer;
    sm_network *network; /* runs the masters */
    sm_workspace *keeping, *scoring;
    sm_pack pack;
    /* memory of the device */
    float *params;         /* [layout->count] */
    float *gradient;       /* [layout->count - first] */
    void *moment, *square; /* the same of float, or of bfloat16 where moment_bytes is 2 */
    size_t moment_bytes;
    float *head_gradient; /* of the output matrix: its place in gradient, or apart (ties) */
    double *squares;      /* [1] Σ gradient² of the step at hand */
    float *scale;         /* [1] what its gradient is multiplied by; lies behind squares */

    bool grown;       /* the gradient holds something since the last step; else nothing that may be read */
    bool gathered;    /* since it last grew */
    uint64_t updates; /* applied, for the bias correction */
    uint64_t steps;   /* called, for dropout */
};

static size_t head_count(const sm_layout *layout)
{
    return (size_t)layout->config.vocab * layout->config.hidden;
}

static size_t trained_count(const sm_training *t)
{
    return t->layout->count - t->first;
}

/* Whether the embedding is also an output matrix, whose gradient is gathered apart, [vocab, hidden]: then sums do not
 * depend on how a batch is cut. A device that does not give one answer saves the memory and the time to add the two. */
static bool ties(const sm_training *t)
{
    return t->layout->head == t->layout->embed && t->device->one_answer;
}

/* Zeros; NULL when there is no memory. */
static void *zeros(const sm_training *t, size_t bytes)
{
    const kn_ops *ops = t->device->ops;
    void *p = ops->alloc(t->device, bytes);
    if (p && ops->clear(t->device, p, bytes) != KN_OK) {
        ops->free(t->device, p);
        p = NULL;
    }
    return p;
}

static bool allocate(sm_training *t)
{
    const kn_ops *ops = t->device->ops;
    const size_t bytes = trained_count(t) * sizeof(float);
    t->params = ops->alloc(t->device, t->layout->count * sizeof(float));
    t->gradient = ops->alloc(t->device, bytes);
    t->moment = zeros(t, trained_count(t) * t->moment_bytes);
    t->square = zeros(t, trained_count(t) * t->moment_bytes);
    t->squares = zeros(t, sizeof(*t->squares) + sizeof(*t->scale));
    if (!t->params || !t->gradient || !t->moment || !t->square || !t->squares)
        return false;
    t->scale = (float *)(t->squares + 1);
    if (t->layout->head == SM_ABSENT)
        return true;
    if (!ties(t)) {
        t->head_gradient = t->gradient + t->layout->head;
        return true;
    }
    t->head_gradient = ops->alloc(t->device, head_count(t->layout) * sizeof(float));
    return t->head_gradient != NULL;
}

/* The first `count` parameters, which are whole tensors, from `numbers`; tensor by tensor where the device is far. */
static int load(sm_training *t, const sm_numbers *numbers, size_t count, sm_error *error)
{
    const sm_layout *layout = t->layout;
    if (t->device->host_memory)
        return sm_numbers_read(numbers, 0, count, t->params, error);
    float *room = malloc(sm_layout_largest(layout) * sizeof(float));
    int rc = room ? SM_OK : sm_fail(error, SM_NO_MEMORY, "out of memory for training");
    for (size_t i = 0; rc == SM_OK && i < layout->tensors && layout->tensor[i].offset < count; i++) {
        const sm_tensor *tensor = &layout->tensor[i];
        if ((rc = sm_numbers_read(numbers, tensor->offset, tensor->count, room, error)) == SM_OK)
            rc = sm_device_write(t->device, t->params + tensor->offset, room, tensor->count * sizeof(float), error);
    }
    free(room);
    return rc;
}

static int no_room(const sm_training *t, sm_error *error)
{
    return sm_device_no_memory(t->device, error, "out of memory for training %zu parameters", t->layout->count);
}

/* Runs the masters, which are filled. */
static int make_network(sm_training *t, sm_error *error)
{
    const bool whole = t->first == 0;
    const sm_numbers masters = {.on_device = t->params};
    const int rc = sm_network_new(&t->network, t->device, t->dtype, t->layout, &masters, whole, error);
    if (rc != SM_OK)
        return rc;
    t->pack.multiple = t->network->ops->row_group(t->device);
    t->keeping = whole ? sm_workspace_new(t->network, t->optimizer.recompute ? SM_KEEP_INPUTS : SM_KEEP_ALL) : NULL;
    t->scoring = sm_workspace_new(t->network, SM_KEEP_NOTHING);
    return (t->keeping || !whole) && t->scoring ? SM_OK : sm_fail(error, SM_NO_MEMORY, "out of memory for training");
}

static sm_training *training_new(kn_device *device, kn_dtype dtype, const sluice_optimizer *optimizer)
{
    sm_training *t = calloc(1, sizeof(*t));
    if (t) {
        t->device = device;
        t->dtype = dtype;
        t->optimizer = *optimizer;
        t->moment_bytes = optimizer->moment_bits == 16 ? sizeof(uint16_t) : sizeof(float);
    }
    return t;
}

int sm_training_new(sm_training **out, kn_device *device, kn_dtype dtype, const sm_layout *layout,
                    const sm_numbers *numbers, const sluice_optimizer *optimizer, sm_error *error)
{
    *out = NULL;
    sm_training *t = training_new(device, dtype, optimizer);
    if (!t)
        return sm_fail(error, SM_NO_MEMORY, "out of memory for training");
    t->layout = layout;
    int rc = SM_OK;
    if (!allocate(t)) {
        rc = no_room(t, error);
    } else if ((rc = load(t, numbers, layout->count, error)) == SM_OK) {
        rc = make_network(t, error);
    }
    if (rc == SM_OK)
        *out = t;
    else
        sm_training_free(t);
    return rc;
}

int sm_training_new_reward(sm_training **out, kn_device *device, kn_dtype dtype, const sm_layout *layout,
                           const sm_numbers *numbers, const float *head, const sluice_optimizer *optimizer,
                           sm_error *error)
{
    const size_t hidden = layout->config.hidden, count = optimizer->head_outputs * hidden;
    *out = NULL;
    sm_training *t = training_new(device, dtype, optimizer);
    if (!t)
        return sm_fail(error, SM_NO_MEMORY, "out of memory for training");
    t->layout = &t->own;
    int rc = sm_head_layout(&t->own, layout, optimizer->head_outputs, error);
    t->first = optimizer->freeze_body ? t->own.score : 0;
    if (rc == SM_OK && (!allocate(t) || !(t->start = malloc(count * sizeof(float)))))
        rc = no_room(t, error);
    if (rc == SM_OK && (rc = load(t, numbers, sm_body_count(layout), error)) == SM_OK) {
        if (head)
            memcpy(t->start, head, count * sizeof(float));
        else
            sm_head_random(t->start, optimizer->head_outputs, (uint32_t)hidden, optimizer->seed);
        rc = sm_device_write(device, t->params + t->own.score, t->start, count * sizeof(float), error);
    }
    if (rc == SM_OK) {
        rc = make_network(t, error);
    }
    if (rc == SM_OK)
        *out = t;
    else
        sm_training_free(t);
    return rc;
}

void sm_training_free(sm_training *t)
{
    if (!t)
        return;
    const kn_ops *ops = t->device->ops;
    sm_pack_free(&t->pack);
    sm_workspace_free(t->keeping);
    sm_workspace_free(t->scoring);
    sm_network_free(t->network);
    if (ties(t))
        ops->free(t->device, t->head_gradient);
    ops->free(t->device, t->params);
    ops->free(t->device, t->gradient);
    ops->free(t->device, t->moment);
    ops->free(t->device, t->square);
    ops->free(t->device, t->squares);
    sm_layout_free(&t->own);
    free(t->start);
    free(t);
}

static int read_params(void *context, size_t offset, size_t count, float *to, sm_error *error)
{
    const sm_training *t = context;
    return sm_device_read(t->device, to, t->params + offset, count * sizeof(float), error);
}

sm_numbers sm_training_params(sm_training *t)
{
    return (sm_numbers){.params = t->device->host_memory ? t->params : NULL, .read = read_params, .context = t};
}

/* Makes a gradient that has not grown one of zeros. */
static int settle(sm_training *t, sm_error *error)
{
    if (t->grown)
        return SM_OK;
    const int kn = t->device->ops->clear(t->device, t->gradient, trained_count(t) * sizeof(float));
    if (kn != KN_OK)
        return sm_device_fail(t->device, kn, "the sum of gradients", error);
    t->grown = t->gathered = true;
    return SM_OK;
}

int sm_training_gradients(sm_training *t, float *to, sm_error *error)
{
    const int rc = settle(t, error);
    return rc == SM_OK ? sm_device_read(t->device, to, t->gradient, trained_count(t) * sizeof(float), error) : rc;
}

const sm_layout *sm_training_layout(const sm_training *t)
{
    return t->layout;
}

static double squares_between(const float *a, const float *b, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        const double difference = (double)a[i] - b[i];
        sum += difference * difference;
    }
    return sum;
}

int sm_training_distance(const sm_training *t, const sm_numbers *numbers, double *out, sm_error *error)
{
    const sm_layout *layout = t->layout;
    const size_t common = layout->tensors - (t->start ? 1 : 0); /* the head's tensor is the last */
    const size_t most = sm_layout_largest(layout);
    const bool here = t->device->host_memory;
    float *start = malloc(most * sizeof(float)), *room = here ? NULL : malloc(most * sizeof(float));
    int rc = start && (here || room) ? SM_OK
                                     : sm_fail(error, SM_NO_MEMORY, "out of memory to compare a model with its start");
    double sum = 0;
    for (size_t i = 0; rc == SM_OK && i < layout->tensors; i++) {
        const sm_tensor *tensor = &layout->tensor[i];
        const float *now = here ? t->params + tensor->offset : room;
        if (!here)
            rc = sm_device_read(t->device, room, t->params + tensor->offset, tensor->count * sizeof(float), error);
        if (rc == SM_OK && i < common)
            rc = sm_numbers_read(numbers, tensor->offset, tensor->count, start, error);
        if (rc == SM_OK)
            sum += squares_between(now, i < common ? start : t->start, tensor->count);
    }
    *out = sqrt(sum);
    free(start);
    free(room);
    return rc;
}

/* --- gradient -------------------------------------------------------------------------------------------------------
 */

/* Copies between the flat array of scored tokens and the completions' arrays (which may have one token more). */
static void deal(const sm_pack *pack, const sluice_group *groups, size_t count, float *flat, float *const *arrays,
                 bool out)
{
    size_t k = 0;
    for (size_t g = 0; g < count; g++) {
        float *const next = flat + sm_pack_places(pack, &groups[g], 0, groups[g].completion_count);
        for (size_t c = 0; c < groups[g].completion_count; c++, k++) {
            const size_t scored = sm_pack_scored(&groups[g], c);
            float *const array = arrays[k] + (groups[g].completions[c].count - scored);
            if (out)
                memcpy(array, flat, scored * sizeof(float));
            else
                memcpy(flat, array, scored * sizeof(float));
            flat += scored;
        }
        if (!out)
            memset(flat, 0, (size_t)(next - flat) * sizeof(float)); /* places that the pack filled up */
        flat = next;
    }
}

/* The same of a reward model's values, `outputs` a completion; flat is cleared. */
static void deal_values(const sm_training *t, const sluice_group *groups, size_t count, float *flat,
                        float *const *arrays, bool out)
{
    const size_t outputs = t->layout->config.outputs, bytes = outputs * sizeof(float);
    size_t k = 0;
    for (size_t g = 0; g < count; g++) {
        for (size_t c = 0; c < groups[g].completion_count; c++, k++)
            memcpy(out ? arrays[k] : flat + c * outputs, out ? flat + c * outputs : arrays[k], bytes);
        flat += sm_pack_places(&t->pack, &groups[g], 0, groups[g].completion_count) * outputs;
    }
}

static float *value_room(const sm_training *t, sm_error *error)
{
    float *room = calloc(t->pack.scored * t->layout->config.outputs + 1, sizeof(float));
    if (!room)
        sm_fail(error, SM_NO_MEMORY, "out of memory for %zu answers; use smaller batches", t->pack.scored);
    return room;
}

/* A frozen body is run as in scoring: nothing is kept, nothing dropped. */
static bool frozen(const sm_training *t)
{
    return t->first > 0;
}

static sm_dropout dropout_of(const sm_training *t)
{
    return (sm_dropout){
        .rate = (float)t->optimizer.dropout, .seed = t->optimizer.seed, .step = t->steps, .row_id = t->pack.row_id};
}

int sm_training_forward(sm_training *t, const sluice_group *groups, size_t count, float *const *outputs,
                        sm_error *error)
{
    const sm_config *c = &t->layout->config;
    int rc = SM_OK;
    sm_pack_clear(&t->pack);
    t->pack.values = c->outputs > 0;
    for (size_t g = 0; rc == SM_OK && g < count; g++)
        rc = sm_pack_add(&t->pack, &groups[g], 0, groups[g].completion_count, c->vocab, c->max_positions, error);
    if (rc != SM_OK || t->pack.scored == 0)
        return rc;
    const sm_dropout dropout = dropout_of(t);
    if (c->outputs == 0) {
        rc = sm_forward_pack(t->network, t->keeping, &t->pack, &dropout, false, error);
        if (rc == SM_OK)
            deal(&t->pack, groups, count, t->keeping->host_logprob, outputs, true);
        return rc;
    }
    float *values = value_room(t, error);
    if (!values)
        return SM_NO_MEMORY;
    rc = sm_forward_values(t->network, frozen(t) ? t->scoring : t->keeping, &t->pack, frozen(t) ? NULL : &dropout,
                           values, error);
    if (rc == SM_OK)
        deal_values(t, groups, count, values, outputs, true);
    free(values);
    return rc;
}

int sm_training_backward(sm_training *t, const sluice_group *groups, size_t count, float *const *derivatives,
                         sm_error *error)
{
    if (t->pack.scored == 0)
        return SM_OK;
    const sm_dropout dropout = dropout_of(t);
    const sm_gradient gradient = {.params = t->gradient,
                                  .head = t->head_gradient,
                                  .add = t->grown,
                                  .add_head = t->grown && !(ties(t) && t->gathered)};
    int rc;
    if (t->layout->config.outputs == 0) {
        float *const slopes = t->keeping->host_logprob;
        deal(&t->pack, groups, count, slopes, derivatives, false);
        rc = sm_backward(t->network, t->keeping, &t->pack, &dropout, slopes, &gradient, error);
    } else {
        float *slopes = value_room(t, error);
        if (!slopes)
            return SM_NO_MEMORY;
        deal_values(t, groups, count, slopes, derivatives, false);
        rc = frozen(t) ? sm_head_backward(t->network, t->scoring, &t->pack, slopes, t->gradient, t->grown, error)
                       : sm_backward_values(t->network, t->keeping, &t->pack, &dropout, slopes, &gradient, error);
        free(slopes);
    }
    if (rc == SM_OK) {
        t->grown = true;
        t->gathered = false;
    }
    return rc;
}

int sm_training_gradient(sm_training *t, const sluice_group *groups, size_t count, sm_derivative derivative,
                         void *context, int *result, sm_error *error)
{
    sm_exchange x;
    int rc = sm_exchange_new(&x, groups, count, t->layout->config.outputs, error);
    if (rc == SM_OK)
        rc = sm_training_forward(t, groups, count, x.outputs, error);
    if (rc == SM_OK) {
        *result = derivative(context, (const float *const *)x.outputs, x.derivatives);
        if (*result < 0)
            rc = SM_CALLER;
    }
    if (rc == SM_OK)
        rc = sm_training_backward(t, groups, count, x.derivatives, error);
    sm_exchange_free(&x);
    return rc;
}

int sm_training_score_values(sm_training *t, const sluice_group *groups, size_t count, float *const *values,
                             sm_error *error)
{
    return sm_score_values(t->network, t->scoring, groups, count, values, error);
}

int sm_training_score(sm_training *t, const sluice_group *groups, size_t count, float *const *logps, sm_error *error)
{
    return sm_score(t->network, t->scoring, groups, count, logps, NULL, error);
}

/* --- step -----------------------------------------------------------------------------------------------------------
 */

int sm_training_gather(sm_training *t, sm_error *error)
{
    const int rc = settle(t, error);
    if (rc != SM_OK || !ties(t) || t->gathered)
        return rc;
    t->gathered = true;
    const int kn =
        t->device->ops->add(t->device, t->gradient + t->layout->embed, t->head_gradient, head_count(t->layout));
    return kn == KN_OK ? SM_OK : sm_device_fail(t->device, kn, "the sum of gradients", error);
}

/* AdamW over `count` parameters from `begin` on. What bfloat16 moments are rounded by hangs on seed, update and place
 * alone, so a training that is resumed goes on to the bit. */
static int update_run(sm_training *t, size_t begin, size_t count, kn_adamw *a)
{
    const kn_ops *ops = t->device->ops;
    const size_t at = begin - t->first, most = (size_t)1 << 31; /* the op counts elements in 32 bits */
    a->rounded = sm_network_rounded(t->network, begin);
    if (t->moment_bytes == sizeof(float))
        return ops->adamw(t->device, t->params + begin, (float *)t->moment + at, (float *)t->square + at,
                          t->gradient + at, count, a);
    int kn = KN_OK;
    for (size_t i = 0; kn == KN_OK && i < count; i += most) {
        const sluice_draw draw = {
            .seed = t->optimizer.seed, .step = t->updates, .record = begin + i, .purpose = SLUICE_PURPOSE_MOMENTS};
        uint64_t key[2], counter[2];
        sluice_draw_place(&draw, key, counter);
        a->rounded = sm_network_rounded(t->network, begin + i);
        kn = ops->adamw_bf16(t->device, t->params + begin + i, (uint16_t *)t->moment + at + i,
                             (uint16_t *)t->square + at + i, t->gradient + at + i, count - i < most ? count - i : most,
                             a, key, counter);
    }
    return kn;
}

/* AdamW over runs of neighbouring tensors that decay alike: matrices do, norms and biases do not. */
static int update(sm_training *t, double lr)
{
    const sm_layout *layout = t->layout;
    for (size_t i = t->first > 0 ? layout->tensors - 1 : 0; i < layout->tensors;) {
        const size_t begin = layout->tensor[i].offset;
        const bool decays = layout->tensor[i].rank > 1;
        size_t end = begin;
        while (i < layout->tensors && ((layout->tensor[i].rank > 1) == decays || t->optimizer.weight_decay == 0))
            end += layout->tensor[i++].count;
        kn_adamw a = {.lr = (float)lr,
                      .beta1 = (float)t->optimizer.beta1,
                      .beta2 = (float)t->optimizer.beta2,
                      .eps = (float)t->optimizer.epsilon,
                      .weight_decay = decays ? (float)t->optimizer.weight_decay : 0,
                      .step = t->updates,
                      .grad_scale = 1,
                      .scale_at = t->scale};
        const int kn = update_run(t, begin, end - begin, &a);
        if (kn != KN_OK)
            return kn;
    }
    return KN_OK;
}

/* All that a step asks of the device, without waiting: the norm stays there, and what it decides. A gradient that is
 * not finite changes nothing. */
static int ask_step(sm_training *t, double lr, double grad_scale, sm_error *error)
{
    const kn_ops *ops = t->device->ops;
    kn_device *dev = t->device;
    int kn, rc = SM_OK;
    if ((kn = ops->clear(dev, t->squares, sizeof(*t->squares))) ||
        (kn = ops->sum_squares_add(dev, t->squares, t->gradient, trained_count(t))) ||
        (kn = ops->clip(dev, t->scale, t->squares, grad_scale, t->optimizer.max_grad_norm)))
        return sm_device_fail(dev, kn, "the gradient's norm", error);
    if ((kn = update(t, lr)))
        return sm_device_fail(dev, kn, "AdamW", error);
    if (t->first == 0) /* the head itself is read where it lies */
        rc = sm_network_follow(t->network, error);
    t->grown = false;
    return rc;
}

int sm_training_step(sm_training *t, double lr, double grad_scale, sluice_step_info *info, sm_error *error)
{
    double squares = 0;
    *info = (sluice_step_info){0};
    int rc = sm_training_gather(t, error);
    if (rc != SM_OK)
        return rc;
    t->steps++;
    t->updates++;
    rc = ask_step(t, lr, grad_scale, error);
    if (rc == SM_OK)
        rc = sm_device_read(t->device, &squares, t->squares, sizeof(squares), error);
    if (rc != SM_OK)
        return rc;
    info->grad_norm = sqrt(squares) * fabs(grad_scale);
    info->skipped = !isfinite(info->grad_norm);
    info->clipped = t->optimizer.max_grad_norm > 0 && info->grad_norm > t->optimizer.max_grad_norm;
    if (info->skipped)
        t->updates--;
    return SM_OK;
}

sm_training_parts sm_training_take_apart(sm_training *t)
{
    return (sm_training_parts){.device = t->device,
                               .params = t->params + t->first,
                               .gradient = t->gradient,
                               .moment = t->moment,
                               .square = t->square,
                               .moment_bytes = t->moment_bytes,
                               .count = trained_count(t),
                               .first = t->first,
                               .updates = &t->updates,
                               .steps = &t->steps};
}

int sm_training_refresh(sm_training *t, sm_error *error)
{
    return sm_network_refresh(t->network, error);
}
