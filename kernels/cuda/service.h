/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The plugin "cuda": what its two services share. */
#ifndef KN_CUDA_SERVICE_H
#define KN_CUDA_SERVICE_H

#include <sluice/service.h>

#include "kernels/backend.h"
#include "kernels/cuda/cuda.h"

extern const sluice_service_class kn_cuda_backend_class; /* service.c: KN_BACKEND_CUDA */
extern const sluice_service_class kn_cuda_stage_class;   /* stage.c: SLUICE_CUDA_SERVICE */

#endif
