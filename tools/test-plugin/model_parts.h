/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What asking a table (model.c) and training it (model_train.c) share. */
#ifndef TP_MODEL_PARTS_H
#define TP_MODEL_PARTS_H

#include <limits.h>
#include "tools/test-plugin/model.h"

/* Floats only: gradients and averages go over it as over one array. */
struct tp_table {
    float w[TP_VOCABULARY][TP_VOCABULARY];
    float head[TP_HEADS][TP_VOCABULARY];
};

struct sluice_model {
    const sluice_host *host;
    bool heads;
    struct tp_table table;
};

void tp_table_draw(struct tp_table *, int64_t version);
bool tp_table_read(struct tp_table *, const char *path);
/* Into folder/weights. */
bool tp_table_save(const struct tp_table *, const char *folder);
double tp_table_distance(const struct tp_table *, const struct tp_table *);
/* Log of the sum of exponentials of each row. */
void tp_table_sums(const struct tp_table *, double *sums);
void tp_table_score(const struct tp_table *, const sluice_group *, size_t count, float *const *logps);
void tp_table_values(const struct tp_table *, size_t outputs, const sluice_group *, size_t count, float *const *values);
/* Known token ids, within the context; false after an error to the host. */
bool tp_groups_fit(const sluice_host *, const sluice_group *, size_t count);
/* The token that a head looks at. */
uint32_t tp_last_token(const sluice_group *, const sluice_span *);

int tp_train_begin(sluice_model *, const sluice_optimizer *, sluice_training **);
int tp_train_gradient(sluice_training *, const sluice_group *, size_t count,
                      int (*derivative)(void *, const float *const *, float *const *), void *context);
int tp_train_values(sluice_training *, const sluice_group *, size_t count,
                    int (*derivative)(void *, const float *const *, float *const *), void *context);
int tp_train_step(sluice_training *, double lr, double scale, sluice_step_info *);
int tp_train_score(sluice_training *, const sluice_group *, size_t count, float *const *logps);
int tp_train_score_values(sluice_training *, const sluice_group *, size_t count, float *const *values);
int tp_train_save(sluice_training *, const char *folder);
void tp_train_end(sluice_training *);
int tp_train_distance(sluice_training *, double *);
int tp_train_suspend(sluice_training *, const char *path);
int tp_train_resume(sluice_training *, const char *path);

#endif
