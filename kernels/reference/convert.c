/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Arrays from float32 to bfloat16 and back. */
#include "reference.h"

int kn_ref_to_bf16(kn_device *device, uint16_t *to, const float *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = kn_narrow(from[i]);
    return KN_OK;
}

int kn_ref_from_bf16(kn_device *device, float *to, const uint16_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = kn_widen(from[i]);
    return KN_OK;
}
