/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* jsonl: JSON lines in and out, in the forms that TRL reads and writes. */
#include "plugins/jsonl/classes.h"

SLUICE_PLUGIN("jsonl", "1.0", "Apache-2.0", &jsonl_source_class.base, &jsonl_sink_class.base);
