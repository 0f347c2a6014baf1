/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What `sample`, `score` and `average` share: the model service, and a checkpoint opened by its folder. */
#ifndef SL_CLI_MODEL_H
#define SL_CLI_MODEL_H

#include "core/base/buffer.h"
#include "core/cli/cli.h"
#include "core/run/host.h"

typedef struct sl_models {
    sl_registry *registry;
    sl_free_host *owner;
    const sluice_host *host;
    const sluice_model_service *service;
} sl_models;

/* Finds the service; threads 0 = as many as it likes. SL_EXIT_OK, or what to exit with after a message. */
int sl_models_open(const sl_command *, int64_t threads, sl_models *);
void sl_models_close(sl_models *);
/* Opens the checkpoint in a folder. A sluice_result; the reason of a failure was printed. */
/* Removes what export or average, killed while it wrote the folder `out`, left beside it. */
void sl_models_sweep(const char *out);
int sl_models_load(const sl_command *, const sl_models *, const char *folder, sluice_model **);
/* Encodes a prompt as sampling does: chat template unless raw, start token. */
int sl_models_prompt(const sl_models *, sluice_model *, const char *text, bool raw, sluice_ids *);
/* "[1,2]", appended; logprobs NaN-free. */
int sl_json_tokens(sl_buffer *, const uint32_t *, size_t count);
int sl_json_logprobs(sl_buffer *, const float *, size_t count);

#endif
