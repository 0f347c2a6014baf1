/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/exchange.h"

#include <stdlib.h>

int sm_exchange_new(sm_exchange *x, const sluice_group *groups, size_t count, size_t width, sm_error *error)
{
    size_t completions = 0, numbers = 0;
    for (size_t g = 0; g < count; g++) {
        completions += groups[g].completion_count;
        for (size_t c = 0; c < groups[g].completion_count; c++)
            numbers += width > 0 ? width : groups[g].completions[c].count;
    }
    x->outputs = malloc((2 * completions + 1) * sizeof(*x->outputs));
    x->memory = calloc(2 * numbers + 1, sizeof(*x->memory));
    if (!x->outputs || !x->memory)
        return sm_fail(error, SM_NO_MEMORY, "out of memory for a batch of %zu answers; use smaller batches",
                       completions);
    x->derivatives = x->outputs + completions;
    size_t k = 0, at = 0;
    for (size_t g = 0; g < count; g++)
        for (size_t c = 0; c < groups[g].completion_count; c++, k++) {
            x->outputs[k] = x->memory + at;
            x->derivatives[k] = x->memory + numbers + at;
            at += width > 0 ? width : groups[g].completions[c].count;
        }
    return SM_OK;
}

void sm_exchange_free(sm_exchange *x)
{
    free(x->outputs);
    free(x->memory);
}
