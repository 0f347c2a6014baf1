/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Leaves a file open.
 * Caught by: descriptors=FAILED */
#include <fcntl.h>
#include "tests/plugins/bad/bad.h"

struct state {
    int file;
};

static int init(void *self, const sluice_host *host)
{
    struct state *s = self;
    s->file = open("/dev/null", O_RDONLY);
    return s->file >= 0 ? SLUICE_OK : sluice_error(host, SLUICE_IO, "cannot open /dev/null");
}

static int process(void *self, sluice_record *record)
{
    return doubt(record, 0.9);
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .base.init = init,
                                       .process = process};
BAD_PLUGIN(bad);
