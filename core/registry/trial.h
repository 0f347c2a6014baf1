/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Trials: a plugin that was never seen before is first loaded and read in a process of its own. One that crashes or
 * hangs there is set aside, and the reason kept, so that it cannot take the program with it, now or next time.
 *
 * Verdicts lie in $XDG_CACHE_HOME/sluice/plugins (~/.cache/sluice/plugins), keyed by the content of the object: a
 * changed file is tried again by itself, an unchanged one costs a look into the cache. Without a cache folder that can
 * be written, trials are simply made each time. One thread owns a sl_trials.
 */
#ifndef SL_TRIAL_H
#define SL_TRIAL_H

#include "core/registry/validate.h"

typedef struct sl_trials sl_trials;

/* Reads the cache. NULL only when out of memory. */
sl_trials *sl_trials_open(void);
/* Keeps new verdicts, and frees. Accepts NULL. */
void sl_trials_close(sl_trials *);

/* May this object be loaded here? False with one line in `why`: which signal, when, and how to try again. */
bool sl_trial_passes(sl_trials *, const char *file, const uint64_t hash[2], sl_why *why);

/* Forgets the plugins set aside, so that they are tried again. How many, or a negative result with errno set. */
int sl_trials_forget(void);

#endif
