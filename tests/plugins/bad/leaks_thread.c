/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Leaves a thread running, and with it what the C library keeps for one.
 * Caught by: memory=FAILED threads=FAILED */
#include <pthread.h>
#include <unistd.h>
#include "tests/plugins/bad/bad.h"

struct state {
    int unused;
};

static void *wait_forever(void *unused)
{
    for (;;)
        pause();
    return unused;
}

static int init(void *self, const sluice_host *host)
{
    pthread_t thread;
    return pthread_create(&thread, NULL, wait_forever, NULL) == 0 ? SLUICE_OK
                                                                  : sluice_error(host, SLUICE_NO_MEMORY, "no thread");
}

static int process(void *self, sluice_record *record)
{
    return doubt(record, 0.9);
}

static const sluice_stage_class bad = {GOOD("bad/class", struct state, no_params), .base.init = init,
                                       .process = process};
BAD_PLUGIN(bad);
