/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The stage's side: the program sluice-stage. Its host and its records are those of the run at the other end of
 * descriptor 3. Any thread may ask; one question is answered after the other, and while a generation runs the run's own
 * questions are answered by the thread that started it.
 */
#ifndef STAGE_H
#define STAGE_H

#include <sluice/model.h>
#include "tools/stage/setup.h"

enum { SL_CHILD_SOCKET = 3 };

/* ---- channel.c. When the run is gone the process ends. */
void sl_child_send(sl_message *); /* and frees it */
void sl_child_receive(sl_message *);
/* Sends, frees, and waits for REPLY; its result. The line of an error becomes the job's. The caller frees `reply`,
 * which is read from behind the result on. */
int sl_child_ask(sl_message *question, sl_message *reply);
/* How far the stage is, when that was not said for a while, or in any case. */
void sl_child_progress(bool now);

/* The job of this process: there is one. Set once, before anything else is called. */
extern sl_job *sl_child_job;

/* ---- host.c */
void sl_child_host(sl_job *);
extern const sl_passage sl_child_passage;

/* ---- model.c */
const sluice_model_service *sl_child_models(void);
/* A message of the run within a generation. */
void sl_child_answer(sl_message *);

#endif
