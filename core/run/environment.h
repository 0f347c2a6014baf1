/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What a bug report needs, and what a run keeps in environment.txt: versions, the machine, plugins. */
#ifndef SL_ENVIRONMENT_H
#define SL_ENVIRONMENT_H

#include <stdio.h>
#include "core/registry/registry.h"

/* A line each, without a clock; what services compute with is said by sl_services_numerics. */
void sl_environment_print(const sl_registry *, FILE *);

#endif
