/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* From settings to a plan: what the parts of the reader share. */
#ifndef SL_BUILD_H
#define SL_BUILD_H

#include "core/plan/plan.h"
#include "core/plan/setting.h"
#include "core/base/near.h"

typedef struct sl_builder {
    sl_plan *plan;
    sl_arena *arena; /* the plan's */
    sl_registry *registry;
    sl_mistakes *mistakes;
    const sl_setting *root;
    const char *folder; /* of the pipeline file */
    bool resolve_files;
    bool no_memory;
} sl_builder;

/* Zeroed; remembers when there is none. */
void *sl_build_alloc(sl_builder *, size_t count, size_t size);
/* "; did you mean 'x'?", or "" when near has nothing. */
const char *sl_build_hint(sl_builder *, const sl_near *near);
/* A name of a stage, phase or pipeline: letters, digits, - _ and . ; it becomes part of file names. */
bool sl_build_name_fits(const char *);

/* A setting as text, number or integer; false with a mistake when it is none. `what` names it in the message. */
bool sl_build_text(sl_builder *, const sl_setting *, const char *stage, const char *what, const char **out);
bool sl_build_integer(sl_builder *, const sl_setting *, const char *stage, const char *what, int64_t least,
                      int64_t most, int64_t *out);
/* Absolute form of a path in a setting; `made`: it need not be there, as the run makes it. */
const char *sl_build_path(sl_builder *, const sl_setting *, const char *path, bool made);

/* Reads one parameter's value from its setting, NULL = not given (owner: where its absence is a mistake). */
void sl_build_value(sl_builder *, const sluice_class *, const sluice_param *, const sl_setting *,
                    const sl_setting *owner, const char *stage, sl_value *out);
/* All of a class's parameters from the members of a group. */
void sl_build_object(sl_builder *, const sl_registered *, const sl_setting *group, const char *stage, sl_object *out);
/* The class of an id: of any stage kind (kind < 0), or of this one; NULL after a mistake. `stage` may be NULL. */
const sl_registered *sl_build_class(sl_builder *, const char *id, int kind, const sl_setting *at, const char *stage);
/* Reads the metrics sinks. */
void sl_build_sinks(sl_builder *);
/* Reads a stage's name, class, parts and parameters; edges come later. False when its class is unknown. */
bool sl_build_stage(sl_builder *, sl_stage *, const sl_setting *group);
/* Reads isolate, limits, on_crash and seccomp, and refuses what cannot be isolated.
 */
void sl_build_isolation(sl_builder *, sl_stage *, const sl_setting *group);
/* Reads in_memory of a phase's stages, whose edges are known, and refuses what cannot be. */
void sl_build_in_memory(sl_builder *, sl_phase *);
/* Finds the stages and the model slots that a phase's stages name. False after a mistake: what follows needs them. */
bool sl_build_edges(sl_builder *, sl_phase *);
bool sl_build_references(sl_builder *, sl_phase *);
/* Finds cycles, follows fields. False when the graph is broken. before[i * n + j]: stage j is upstream of stage i by
 * from and after. */
bool sl_build_graph(sl_builder *, sl_phase *, bool *before);
/* Resolves model versions of a phase; newest[slot] is what each slot is at its start, and afterwards at its end. */
void sl_build_versions(sl_builder *, sl_phase *, const bool *before, int64_t *newest);
/* Finds the numbers of earlier phases that a phase's stages ask for; versions are resolved by then. */
void sl_build_measures(sl_builder *, sl_phase *);
/* Refuses a file that two stages write, or that one writes and one of the same or an earlier phase reads. */
void sl_build_files(sl_builder *);

#endif
