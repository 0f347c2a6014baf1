/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What the files of the plugin "model" share. Functions return a sluice_result, reported already. */
#ifndef MODEL_SERVICE_PARTS_H
#define MODEL_SERVICE_PARTS_H

#include <sluice/sluice.h>
#include <sluice/model.h>

#include "model/version.h"

struct sluice_model {
    const sluice_host *host;
    sm_version *version;
};

/* Passes the library's line on; `callers` is what a function of the caller returned, if that is what ended the work. */
int service_report(const sluice_host *host, int status, const sm_error *error, int callers);

/* Outputs of a reward model's head, 0 for a language model; and whether it is the one kind or the other. */
uint32_t service_outputs(const sluice_model *model);
int service_need_language_head(const sluice_model *model);
int service_need_reward_head(const sluice_model *model);

/* Sets the functions train_…. */
void service_add_training(sluice_model_service *service);

#endif
