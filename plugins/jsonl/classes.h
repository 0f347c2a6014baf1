/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The two classes of this plugin. */
#ifndef JSONL_CLASSES_H
#define JSONL_CLASSES_H

#include <sluice/stage.h>

extern const sluice_stage_class jsonl_source_class, jsonl_sink_class;

#endif
