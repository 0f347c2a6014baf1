/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Training a table: gradients by hand, plain descent. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/test-plugin/model_parts.h"

enum { V = TP_VOCABULARY, FLOATS = sizeof(struct tp_table) / sizeof(float) };

struct sluice_training {
    const sluice_host *host;
    size_t outputs; /* of the head */
    struct tp_table now, gradient, start;
};

double tp_table_distance(const struct tp_table *a, const struct tp_table *b)
{
    double sum = 0;
    for (size_t i = 0; i < FLOATS; i++)
        sum += pow((double)((const float *)a)[i] - (double)((const float *)b)[i], 2);
    return sqrt(sum);
}

int tp_train_begin(sluice_model *model, const sluice_optimizer *optimizer, sluice_training **out)
{
    sluice_training *t = calloc(1, sizeof *t);
    if (t == NULL)
        return sluice_error(model->host, SLUICE_NO_MEMORY, "out of memory");
    if (optimizer->head_outputs > TP_HEADS) {
        free(t);
        return sluice_error(model->host, SLUICE_UNSUPPORTED, "the table has at most %d outputs", TP_HEADS);
    }
    t->host = model->host;
    t->outputs = optimizer->head_outputs;
    t->now = t->start = model->table;
    *out = t;
    return SLUICE_OK;
}

/* An array a completion: of `outputs` floats, or of one a token. */
static float **arrays(const sluice_group *groups, size_t count, size_t outputs, size_t *made)
{
    size_t total = 0;
    for (size_t g = 0; g < count; g++)
        total += groups[g].completion_count;
    float **all = calloc(total + 1, sizeof *all);
    *made = 0;
    for (size_t g = 0; all != NULL && g < count; g++)
        for (size_t c = 0; c < groups[g].completion_count; c++)
            all[(*made)++] = calloc(outputs > 0 ? outputs : groups[g].completions[c].count + 1, sizeof(float));
    return all;
}

static void arrays_free(float **all, size_t count)
{
    for (size_t i = 0; all != NULL && i < count; i++)
        free(all[i]);
    free(all);
}

/* d log pi(token | last) / d w[last][j] = [j = token] - pi(j | last) */
static void add_tokens(sluice_training *t, const sluice_group *groups, size_t count, float *const *d)
{
    double sums[V];
    size_t k = 0;
    tp_table_sums(&t->now, sums);
    for (size_t g = 0; g < count; g++)
        for (size_t c = 0; c < groups[g].completion_count; c++, k++) {
            const sluice_span *span = &groups[g].completions[c];
            uint32_t last = groups[g].prompt.count > 0 ? groups[g].prompt.tokens[groups[g].prompt.count - 1] : V;
            for (size_t i = 0; i < span->count; last = span->tokens[i++])
                for (uint32_t j = 0; last != V && j < V; j++)
                    t->gradient.w[last][j] += (float)((double)d[k][i] * ((j == span->tokens[i]) -
                                                                         exp((double)t->now.w[last][j] - sums[last])));
        }
}

static void add_values(sluice_training *t, const sluice_group *groups, size_t count, float *const *d)
{
    size_t k = 0;
    for (size_t g = 0; g < count; g++)
        for (size_t c = 0; c < groups[g].completion_count; c++, k++)
            for (size_t h = 0; h < t->outputs; h++)
                t->gradient.head[h][tp_last_token(&groups[g], &groups[g].completions[c])] += d[k][h];
}

static int gradient(sluice_training *t, const sluice_group *groups, size_t count, bool heads,
                    int (*derivative)(void *, const float *const *, float *const *), void *context)
{
    size_t made = 0;
    if (!tp_groups_fit(t->host, groups, count))
        return SLUICE_BAD_RECORD;
    float **out = arrays(groups, count, heads ? t->outputs : 0, &made);
    float **d = arrays(groups, count, heads ? t->outputs : 0, &made);
    int rc = out != NULL && d != NULL ? SLUICE_OK : sluice_error(t->host, SLUICE_NO_MEMORY, "out of memory");
    if (rc >= 0 && heads)
        tp_table_values(&t->now, t->outputs, groups, count, out);
    else if (rc >= 0)
        tp_table_score(&t->now, groups, count, out);
    if (rc >= 0)
        rc = derivative(context, (const float *const *)out, d);
    if (rc >= 0 && heads)
        add_values(t, groups, count, d);
    else if (rc >= 0)
        add_tokens(t, groups, count, d);
    arrays_free(out, made);
    arrays_free(d, made);
    return rc;
}

int tp_train_gradient(sluice_training *t, const sluice_group *groups, size_t count,
                      int (*derivative)(void *, const float *const *, float *const *), void *context)
{
    return gradient(t, groups, count, false, derivative, context);
}

int tp_train_values(sluice_training *t, const sluice_group *groups, size_t count,
                    int (*derivative)(void *, const float *const *, float *const *), void *context)
{
    return gradient(t, groups, count, true, derivative, context);
}

int tp_train_step(sluice_training *t, double lr, double scale, sluice_step_info *info)
{
    double norm = 0;
    float *w = (float *)&t->now, *g = (float *)&t->gradient;
    for (size_t i = 0; i < FLOATS; i++)
        norm += (double)g[i] * (double)g[i] * scale * scale;
    *info = (sluice_step_info){.grad_norm = sqrt(norm), .skipped = !isfinite(norm)};
    for (size_t i = 0; !info->skipped && i < FLOATS; i++)
        w[i] -= (float)(lr * scale * (double)g[i]);
    memset(&t->gradient, 0, sizeof t->gradient);
    return SLUICE_OK;
}

int tp_train_score(sluice_training *t, const sluice_group *groups, size_t count, float *const *logps)
{
    if (!tp_groups_fit(t->host, groups, count))
        return SLUICE_BAD_RECORD;
    tp_table_score(&t->now, groups, count, logps);
    return SLUICE_OK;
}

int tp_train_score_values(sluice_training *t, const sluice_group *groups, size_t count, float *const *values)
{
    if (!tp_groups_fit(t->host, groups, count))
        return SLUICE_BAD_RECORD;
    tp_table_values(&t->now, t->outputs, groups, count, values);
    return SLUICE_OK;
}

int tp_train_save(sluice_training *t, const char *folder)
{
    return tp_table_save(&t->now, folder)
               ? SLUICE_OK
               : sluice_error(t->host, SLUICE_IO, "cannot write into %s: %s", folder, strerror(errno));
}

void tp_train_end(sluice_training *t)
{
    free(t);
}

int tp_train_distance(sluice_training *t, double *out)
{
    *out = tp_table_distance(&t->now, &t->start);
    return SLUICE_OK;
}

int tp_train_suspend(sluice_training *t, const char *path)
{
    FILE *out = fopen(path, "wbe");
    const bool whole = out != NULL && fwrite(&t->now, sizeof t->now, 1, out) == 1 &&
                       fwrite(&t->gradient, sizeof t->gradient, 1, out) == 1;
    if ((out != NULL && fclose(out) != 0) || !whole)
        return sluice_error(t->host, SLUICE_IO, "cannot write %s: %s", path, strerror(errno));
    return SLUICE_OK;
}

int tp_train_resume(sluice_training *t, const char *path)
{
    sluice_training read = *t;
    FILE *in = fopen(path, "rbe");
    const bool whole = in != NULL && fread(&read.now, sizeof read.now, 1, in) == 1 &&
                       fread(&read.gradient, sizeof read.gradient, 1, in) == 1;
    if (in != NULL)
        fclose(in);
    if (!whole)
        return sluice_error(t->host, SLUICE_BAD_FILE, "%s is not whole", path);
    *t = read;
    return SLUICE_OK;
}
