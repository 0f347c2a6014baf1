/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The host behind a drive: what a class sees of the engine. */
#ifndef TP_HOST_H
#define TP_HOST_H

#include "tools/test-plugin/drive.h"

enum { TP_MOST_MADE = 64 }; /* records that a source may make before it is told to stop */

typedef struct tp_host {
    sluice_host public; /* first */
    const tp_subject *subject;
    const tp_work *work;
    tp_outcome *out;
    size_t next, made; /* of the input; of new records */
    bool cancelled;
    size_t told;        /* how often it was told so */
    sl_record *earlier; /* lent */
    char folder[64];    /* lent: of a checkpoint or a version */
} tp_host;

void tp_host_init(tp_host *, const tp_subject *, const tp_work *, tp_outcome *);
void tp_host_end(tp_host *);
/* One more occasion to notice that the run is cancelled. */
bool tp_host_cancelled(tp_host *);
/* The so-manieth record of the input, decoded; NULL past the end. Freed by the caller. */
sl_record *tp_host_input(tp_host *, size_t index);
/* Keeps what a class put out, and frees it. */
void tp_host_keep(tp_host *, sl_record *);
void tp_fault(tp_host *, enum tp_fault, const char *format, ...) SLUICE_PRINTF(3, 4);

#endif
