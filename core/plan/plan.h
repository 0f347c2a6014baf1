/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The checked plan: a pipeline file with every name resolved, every parameter typed and in range, every model version
 * known.
 *
 * Reading goes file → tree of settings (libconfig, plus `--set`) → plan. Every mistake is collected, not only the
 * first. A plan is immutable once made; one thread makes it, any thread reads it.
 */
#ifndef SL_PLAN_H
#define SL_PLAN_H

#include <stdio.h>
#include <sluice/sluice.h>
#include "core/registry/registry.h"

/* A parameter's resolved value. Strings and lists belong to the plan. */
typedef struct sl_value {
    const sluice_param *param;
    bool given;    /* set in the file or by --set; otherwise the default */
    double number; /* bool, int, double, choice index (ints beyond 2^53 in `integer`) */
    int64_t integer;
    const char *text; /* string, choice, stage, file (absolute), class id; model and slot as written; NULL = not set */
    double *numbers;  /* doubles */
    const char **texts;          /* strings; models as written */
    size_t count;                /* of numbers or texts; of models in one iteration (0 where none was given) */
    struct sl_model_use *models; /* model, slot: 1; models: count. One set an iteration: [iteration * count + i] */
    struct sl_measure *measures; /* metrics: those of all names in all iterations */
    size_t measure_count;
    int line;                    /* 0 where defaulted or from --set */
    const struct sl_setting *at; /* where it was said; NULL where defaulted */
} sl_value;

/* A model reference resolved for one iteration. */
typedef struct sl_model_use {
    size_t slot; /* index into plan->slots */
    int64_t version;
    int64_t next; /* what a SLOT parameter will publish; -1 otherwise */
} sl_model_use;

/* A number of a stage of an earlier phase, in one of its iterations, and the version that it is about. */
typedef struct sl_measure {
    const struct sl_stage *stage;
    int64_t iteration;
    const char *metric;
    sl_model_use use;
} sl_measure;

/* A stage's class with its resolved parameters, or a part's (a trainer's loss). */
typedef struct sl_object {
    const sl_registered *type;
    sl_value *values; /* one a parameter of the class, in its order */
    size_t value_count;
} sl_object;

/* What is done when a stage's own process crashes, hangs or talks nonsense. */
enum sl_crash_rule { SL_CRASH_STOP, SL_CRASH_RETRY, SL_CRASH_SKIP };

/* A stage in a process of its own. */
typedef struct sl_isolation {
    bool on;
    bool confined;   /* by a filter of system calls */
    int on_crash;    /* sl_crash_rule */
    uint64_t memory; /* bytes of address space; 0 = no limit */
    double seconds;  /* that it may be silent; 0 = no limit */
} sl_isolation;

typedef struct sl_stage {
    const char *name;
    const char *id; /* of the class */
    sl_object object;
    sl_object *parts; /* one for each CLASS parameter, in order */
    size_t part_count;
    struct sl_stage **from; /* producers whose streams it reads (0 or 1 for most; `from = ["a", "b"]` joins by record id
                               is refused) */
    size_t from_count;
    struct sl_stage **after; /* stages that must be finished before it starts */
    size_t after_count;
    sl_isolation isolation;
    bool in_memory; /* its records are handed on in memory; there is no stream */
    struct sl_phase *phase;
    size_t index; /* within the phase, file order */
    int line;
    const char *file;
    const struct sl_setting *at;
} sl_stage;

typedef struct sl_phase {
    const char *name;
    int64_t repeat;
    sl_stage *stages;
    size_t stage_count;
    size_t index;
    int line;
} sl_phase;

typedef struct sl_slot {
    const char *name;
    const char *path; /* absolute folder of version 0 */
    const char *dtype;
    bool random;           /* init = "random" */
    bool reward;           /* version 0 is a reward model */
    int64_t keep_versions; /* 0 = all */
    int64_t last;          /* highest version the plan publishes */
    int line;
} sl_slot;

typedef struct sl_plan {
    const char *file; /* as given */
    const char *name;
    uint64_t seed;
    const char *out;       /* run folder from the file, NULL = runs/<name> */
    const char **variants; /* names in `ablation`, in the file's order */
    size_t variant_count;
    const char *variant; /* the one that this plan is of; NULL = the file itself */
    uint64_t *seeds;     /* of a sweep */
    size_t seed_count;
    const char *store; /* of stage outputs, "off" for none; NULL = the user's (core/store/store.h) */
    sl_slot *slots;
    size_t slot_count;
    sl_phase *phases;
    size_t phase_count;
    sl_object *runtime; /* parameters of service classes, by class */
    size_t runtime_count;
    sl_object *sinks; /* of metrics, in the file's order */
    size_t sink_count;
    struct sl_arena *arena;
} sl_plan;

/* Reads and checks. overrides: "stage.param=value", "models.policy.path=DIR", "phases.align.repeat=3",
 * "runtime.threads=2", "seed=7", "variant=plain" (of the file's ablation). Paths in the file are relative to its folder
 * where they exist there, otherwise to the current one; paths of overrides are relative to the current folder. An
 * override that swaps a class (trust.use=keep, train.loss=sft) leaves out what the file said to the class before, with
 * a note. Mistakes go to `out`, one line each (file:line: stage 'x': what; how to mend). Returns the plan, or NULL when
 * there was any mistake. `resolve_files` = false leaves the existence of files and models unchecked. */
sl_plan *sl_plan_read(const char *file, const char *const *overrides, size_t count, sl_registry *, FILE *out,
                      bool resolve_files, size_t *mistakes);
void sl_plan_free(sl_plan *);

/* The fields a stage adds to its records: its class's, and those of its choices. */
uint32_t sl_stage_adds(const sl_stage *);
/* The fields it reads: its class's, and what its loss works on. */
uint32_t sl_stage_reads(const sl_stage *);
/* Does what it puts out hang on how many times its phase runs? */
bool sl_stage_reads_repeat(const sl_stage *);
/* May it go without `from`? */
bool sl_stage_input_optional(const sl_stage *);
/* "skip-record" */
const char *sl_crash_rule_name(int rule);
/* The value of a parameter of the stage's class; NULL when there is none of that name. */
const sl_value *sl_stage_value(const sl_stage *, const char *param);

/* The plan as a table with every model version resolved. */
void sl_plan_print(const sl_plan *, FILE *);
/* The resolved pipeline file: reading it again gives the same plan. */
int sl_plan_write(const sl_plan *, FILE *);
/* The graph in Graphviz' language. */
void sl_plan_graph(const sl_plan *, FILE *);

#endif
