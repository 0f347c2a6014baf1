/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What the environment asks of the backend, read once when a device is opened. A value that says nothing is refused:
 * taken for another it would slow a run, or change its bits, without a word. SLUICE_CUDA_MEMORY is memory.c's. */
#include "kernels/cuda/cuda.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *value_of(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* "1" or "0"; *on stays as it is where the variable is unset or empty. */
static const char *read_switch(const char *name, bool *on)
{
    const char *value = value_of(name);
    if (!value)
        return NULL;
    if (strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
        return kn_cuda_say("%s=%.32s is neither 0 nor 1; write one of them, or unset it", name, value);
    *on = *value == '1';
    return NULL;
}

static const char *read_products(kn_cuda_settings *s)
{
    const char *value = value_of("SLUICE_CUDA_PRODUCTS");
    s->own = value && strcmp(value, "own") == 0;
    s->timed = value && strcmp(value, "timed") == 0;
    if (value && !s->own && !s->timed)
        return kn_cuda_say("SLUICE_CUDA_PRODUCTS=%.32s is no way to multiply; write own or timed, or unset it", value);
    return NULL;
}

static const char *read_logits(kn_cuda_settings *s)
{
    const char *value = value_of("SLUICE_CUDA_LOGITS_BYTES");
    char *end;
    if (!value)
        return NULL;
    errno = 0;
    const unsigned long long n = strtoull(value, &end, 10);
    if (*value < '0' || *value > '9' || *end || errno != 0 || n == 0 || n > SIZE_MAX)
        return kn_cuda_say("SLUICE_CUDA_LOGITS_BYTES=%.32s is no number of bytes; write digits, as 268435456, or unset "
                           "it",
                           value);
    s->logits_bytes = (size_t)n;
    return NULL;
}

const char *kn_cuda_read_settings(kn_cuda_settings *s)
{
    *s = (kn_cuda_settings){.overlaps = true};
    const char *why = read_switch("SLUICE_CUDA_WAIT", &s->waits);
    why = why ? why : read_switch("SLUICE_CUDA_INVARIANT", &s->invariant);
    why = why ? why : read_switch("SLUICE_CUDA_OVERLAP", &s->overlaps);
    why = why ? why : read_products(s);
    return why ? why : read_logits(s);
}
