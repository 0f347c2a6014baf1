/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Everything a plugin author may include, in the order it is best read. */
#ifndef SLUICE_H
#define SLUICE_H

#include <sluice/abi.h>
#include <sluice/param.h>
#include <sluice/plugin.h>
#include <sluice/host.h>
#include <sluice/record.h>
#include <sluice/stage.h>
#include <sluice/loss.h>
#include <sluice/metrics.h>
#include <sluice/service.h>
#include <sluice/model.h>
#include <sluice/device.h>
#include <sluice/cuda.h>
#include <sluice/random.h>

#endif
