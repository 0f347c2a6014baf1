/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Parameters: what a user may set on a stage, described as data.
 *
 * A class lists its parameters once: name, type, default, bounds, unit and one sentence. The host checks pipeline files
 * against that list, prints it (`sluice describe`), suggests near names, and writes the resolved values into the
 * class's state struct before `init` is called. The author never parses anything.
 *
 *     struct smoothing { double epsilon; };
 *     static const sluice_param params[] = {
 *         SLUICE_DOUBLE(struct smoothing, epsilon, .value = 0.1, .min = 0, .below = 0.5,
 *                       .doc = "How often labels are wrong."),
 *         SLUICE_PARAMS_END
 *     };
 *
 * Ownership: strings and lists written into the state belong to the host and live until `fini` has returned.
 */
#ifndef SLUICE_PARAM_H
#define SLUICE_PARAM_H

#include <sluice/abi.h>

/* Each with the type of its member in the state. */
typedef enum sluice_param_type {
    SLUICE_TYPE_END = 0,
    SLUICE_TYPE_BOOL = 1,   /* bool */
    SLUICE_TYPE_INT = 2,    /* int64_t */
    SLUICE_TYPE_DOUBLE = 3, /* double; an integer in the file is fine */
    SLUICE_TYPE_STRING = 4, /* const char *, NULL when not set */
    SLUICE_TYPE_CHOICE = 5, /* int: the index into `choices` */
    /* const char *: the name of another stage of this phase (a judge whose scores are read, …). Of a judge that gives
     * several named scores one is meant by "judge/name" */
    SLUICE_TYPE_STAGE = 6,
    /* const sluice_model_ref *: a version of a model, resolved by the plan; NULL when not set */
    SLUICE_TYPE_MODEL = 7,
    /* const sluice_model_ref *: a slot this stage publishes the next version of; names the version it starts from */
    SLUICE_TYPE_SLOT = 8,
    /* const char *: a path, relative to the pipeline file; its content decides reuse; NULL when not set */
    SLUICE_TYPE_FILE = 9,
    /* const sluice_part *: another class, by id (a trainer's loss); its parameters are set on the same stage */
    SLUICE_TYPE_CLASS = 10,
    SLUICE_TYPE_DOUBLES = 11, /* sluice_doubles */
    SLUICE_TYPE_STRINGS = 12, /* sluice_strings */
    SLUICE_TYPE_MODELS = 13,  /* sluice_models: several versions, e.g. for averaging */
    SLUICE_TYPE_STAGES = 14,  /* sluice_strings: names of other stages of this phase, each as SLUICE_TYPE_STAGE */
    /* const sluice_measures *: numbers that stages of earlier phases reported, each written "stage/metric", in all
     * their iterations; NULL when not set. Where the class has a slot, about versions of that slot */
    SLUICE_TYPE_METRICS = 15
} sluice_param_type;

/* One version of a model as the plan resolved it. Owned by the host. */
typedef struct sluice_model_ref {
    const char *slot;  /* "policy" */
    int64_t version;   /* 0 is the one the file names; each publication adds one */
    const char *path;  /* the Hugging Face folder that holds it; for SLUICE_TYPE_SLOT the starting version's */
    const char *dtype; /* as the models section says: "float32" or "bfloat16" */
    const char *text;  /* as written: "policy@-1" */
    int64_t next;      /* for SLUICE_TYPE_SLOT: the version that will be published; otherwise -1 */
    bool random;       /* the folder has no weights and `init = "random"` was given: start from seeded random weights */
    uint64_t seed;     /* for `random` */
} sluice_model_ref;

/* Another class, made and configured by the host for this stage. */
typedef struct sluice_part {
    const struct sluice_class *type;
    void *self;
} sluice_part;

typedef struct sluice_doubles {
    const double *items;
    size_t count;
} sluice_doubles;

typedef struct sluice_strings {
    const char *const *items;
    size_t count;
} sluice_strings;

typedef struct sluice_models {
    const sluice_model_ref *const *items;
    size_t count;
} sluice_models;

/* A number that a stage reported, and the version it is about: that which the stage itself, or else the nearest stage
 * upstream of it, reads or publishes. Owned by the host. */
typedef struct sluice_measure {
    const sluice_model_ref *model;
    const char *stage, *metric;
    int64_t iteration; /* of its phase, from 0 */
    double value;      /* not a number where that iteration did not report it */
} sluice_measure;

typedef struct sluice_measures {
    const sluice_measure *const *items; /* in the order written, each by iteration */
    size_t count;
} sluice_measures;

/* One parameter. The host steps through a table by the class's `param_size`, so this struct may grow. */
typedef struct sluice_param {
    const char *name;
    uint32_t type;                 /* sluice_param_type */
    uint32_t offset;               /* of the member in the state struct */
    bool required;                 /* there is no default: the file must say */
    double value;                  /* default of bool, int, double; index of a choice */
    double min, max;               /* inclusive bounds of int and double (and of each item of doubles) */
    double above, below;           /* exclusive bounds */
    const char *text;              /* default of string, stage, model, slot, file and class; NULL = not set */
    const char *const *choices;    /* NULL-terminated */
    uint32_t kind;                 /* for SLUICE_TYPE_CLASS: the kind wanted (sluice_kind) */
    const char *unit;              /* "tokens", "nats", "seconds", …; NULL where there is none */
    const char *doc;               /* one sentence */
    bool speed_only;               /* changes how fast, never what comes out: not part of the content key */
    const uint32_t *choice_adds;   /* for CHOICE: record fields (sluice_fields) that each choice adds beside the class's
                                      own; NULL = none. [number of choices] */
    const uint32_t *choice_traits; /* for CHOICE: traits (sluice_traits; today SLUICE_READS_REPEAT) that each choice
                                      adds beside the class's own; NULL = none. [number of choices] */
    bool head; /* for MODEL and MODELS: reward models only; `sluice check` refuses a folder without a head */
} sluice_param;

/* clang-format off */
#define SLUICE_INFINITY __builtin_inf()
/* The bounds that nobody gave are infinite; the author's own come later in the initializer and win. */
#if defined(__clang__)
#pragma clang diagnostic ignored "-Winitializer-overrides"
#elif defined(__GNUC__) && !defined(__cplusplus)
#pragma GCC diagnostic ignored "-Woverride-init"
#endif
#define SLUICE_PARAM(state, member, kind_, ...)                                                                        \
    { .name = #member, .type = kind_, .offset = (uint32_t)offsetof(state, member), .min = -SLUICE_INFINITY,            \
      .max = SLUICE_INFINITY, .above = -SLUICE_INFINITY, .below = SLUICE_INFINITY, __VA_ARGS__ }
#define SLUICE_BOOL(state, member, ...)    SLUICE_PARAM(state, member, SLUICE_TYPE_BOOL, __VA_ARGS__)
#define SLUICE_INT(state, member, ...)     SLUICE_PARAM(state, member, SLUICE_TYPE_INT, __VA_ARGS__)
#define SLUICE_DOUBLE(state, member, ...)  SLUICE_PARAM(state, member, SLUICE_TYPE_DOUBLE, __VA_ARGS__)
#define SLUICE_STRING(state, member, ...)  SLUICE_PARAM(state, member, SLUICE_TYPE_STRING, __VA_ARGS__)
#define SLUICE_CHOICE(state, member, ...)  SLUICE_PARAM(state, member, SLUICE_TYPE_CHOICE, __VA_ARGS__)
#define SLUICE_STAGE(state, member, ...)   SLUICE_PARAM(state, member, SLUICE_TYPE_STAGE, __VA_ARGS__)
#define SLUICE_MODEL(state, member, ...)   SLUICE_PARAM(state, member, SLUICE_TYPE_MODEL, __VA_ARGS__)
#define SLUICE_SLOT(state, member, ...)    SLUICE_PARAM(state, member, SLUICE_TYPE_SLOT, __VA_ARGS__)
#define SLUICE_FILE(state, member, ...)    SLUICE_PARAM(state, member, SLUICE_TYPE_FILE, __VA_ARGS__)
#define SLUICE_PART(state, member, ...)    SLUICE_PARAM(state, member, SLUICE_TYPE_CLASS, __VA_ARGS__)
#define SLUICE_DOUBLES(state, member, ...) SLUICE_PARAM(state, member, SLUICE_TYPE_DOUBLES, __VA_ARGS__)
#define SLUICE_STRINGS(state, member, ...) SLUICE_PARAM(state, member, SLUICE_TYPE_STRINGS, __VA_ARGS__)
#define SLUICE_MODELS(state, member, ...)  SLUICE_PARAM(state, member, SLUICE_TYPE_MODELS, __VA_ARGS__)
#define SLUICE_STAGES(state, member, ...)  SLUICE_PARAM(state, member, SLUICE_TYPE_STAGES, __VA_ARGS__)
#define SLUICE_METRICS(state, member, ...) SLUICE_PARAM(state, member, SLUICE_TYPE_METRICS, __VA_ARGS__)
#define SLUICE_PARAMS_END                  { .type = SLUICE_TYPE_END }
/* clang-format on */

#endif
