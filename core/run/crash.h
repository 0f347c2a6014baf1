/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The last words of a process that crashes: which stage, which record, where. What the streams' journals hold is safe
 * already, so the same command goes on; the process still ends by the signal that came.
 */
#ifndef SL_CRASH_H
#define SL_CRASH_H

#include "core/run/internal.h"

/* Takes SIGSEGV, SIGABRT, SIGBUS, SIGFPE and SIGILL. `log` gets the line and a backtrace, `terminal` (-1 = none) the
 * line and `advice`; both descriptors and the text must stay. With a terminal an exit from within a job's thread is
 * told of likewise, and ends the process with 1. The main thread's. */
void sl_crash_watch(int log, int terminal, const char *advice);
void sl_crash_unwatch(void);

/* This thread drives this job from now on, with a stack for the case that its own is full; until leave. */
void sl_crash_enter(const sl_job *);
void sl_crash_leave(void);

#endif
