/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops.h"

kn_device *kn_cpu_new(int threads, const char *isa, const char **why)
{
    kn_device *device = kn_reference_new();
    if (!device && why)
        *why = "out of memory";
    return device;
}

void kn_cpu_free(kn_device *device)
{
    kn_reference_free(device);
}
