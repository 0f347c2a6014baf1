/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The registry: which plugins there are, from where, and which were refused and why.
 *
 * Search path: each folder of SLUICE_PLUGIN_PATH (colon-separated), $XDG_DATA_HOME/sluice/plugins, then the
 * installation's (the build folder's own when the program runs from there). Absolute folders only; world-writable ones
 * are refused. An object stays loaded until the registry is freed. Two plugins with one class id are an error that
 * names both files: the second is refused, and whoever asks for the id is told (sl_registry_conflict).
 *
 * An object that was never seen before is first loaded in a process of its own (trial.h); one that crashes or hangs
 * there is refused.
 *
 * Whatever the plugin was built against, the classes seen here are of the host's size: what the plugin did not know is
 * zero. One thread opens and closes; any thread reads.
 */
#ifndef SL_REGISTRY_H
#define SL_REGISTRY_H

#include <stdio.h>
#include <sluice/sluice.h>

typedef struct sl_registry sl_registry;

/* A class as found. */
typedef struct sl_registered {
    const sluice_class *type; /* the host's copy, checked */
    const sluice_plugin *plugin;
    const char *file;      /* the shared object */
    uint64_t file_hash[2]; /* of its content: part of content keys */
} sl_registered;

/* Something that was found and not taken. */
typedef struct sl_refused {
    const char *file;
    const char *why; /* one line: what differs, both values, how to mend */
} sl_refused;

/* NULL only when out of memory. Refusals are kept, not printed. */
sl_registry *sl_registry_open(void);
/* The same, of these folders instead of the search path. */
sl_registry *sl_registry_open_folders(const char *const *folders, size_t count);
/* The plugins that belong to this program, without a trial. */
sl_registry *sl_registry_open_own(void);
/* Adds the plugin of one file, without a trial. False only when out of memory. */
bool sl_registry_load(sl_registry *, const char *file);
void sl_registry_close(sl_registry *);

const sl_registered *sl_registry_find(const sl_registry *, const char *class_id);
/* The provider of a service id. */
const sl_registered *sl_registry_service(const sl_registry *, const char *service_id);
size_t sl_registry_count(const sl_registry *);
const sl_registered *sl_registry_at(const sl_registry *, size_t);
size_t sl_registry_refused(const sl_registry *, const sl_refused **);
/* The folders searched, in order; those refused are among sl_registry_refused. */
size_t sl_registry_folders(const sl_registry *, const char *const **);
/* One line that names both files when a class id is in two plugins; otherwise NULL. */
const char *sl_registry_conflict(const sl_registry *, const char *class_id);
/* The registered class id nearest to a mistyped one (of a kind, or any when kind < 0); NULL when none is near. */
const char *sl_registry_near(const sl_registry *, const char *class_id, int kind);

/* Parameter i of a class, stepping by the class's own param_size; NULL past the end. */
const sluice_param *sl_class_param(const sluice_class *, size_t i);
size_t sl_class_params(const sluice_class *);
/* "judge", "loss", …; "unknown kind" past the last. */
const char *sl_kind_name(uint32_t kind);
/* Stands in a phase, with records or models in and out. */
bool sl_kind_is_stage(uint32_t kind);

#endif
