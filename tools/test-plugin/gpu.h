/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The services for plugins that compute on the device, sluice.cuda/1 and sluice.device/1: the real ones, of the plugins
 * on the search path, so that a GPU is used where there is one, and the emulated device where SLUICE_PLUGIN_PATH names
 * it.
 *
 * Made when a class first asks and kept as long as the test's process. A process forked from one that has them gets
 * none: no CUDA context outlives a fork.
 */
#ifndef TP_GPU_H
#define TP_GPU_H

#include <stdbool.h>

/* Is it one of the two? */
bool tp_gpu_knows(const char *id);
/* NULL where there is none. */
const void *tp_gpu_service(const char *id);
/* How many threads belong to the services. */
long tp_gpu_threads(void);
/* What to do where sluice.cuda/1 is missing or does not start. */
#define TP_GPU_ADVICE                                                                                                \
    "it needs a GPU (sluice.cuda/1); where there is none run it on the emulated device: build it with NVCC=SOURCE/"  \
    "tests/cuda/nvcc and test it with SLUICE_PLUGIN_PATH=BUILD/tests/cuda/plugins, SOURCE and BUILD being sluice's " \
    "(doc/gpu.md)"

#endif
