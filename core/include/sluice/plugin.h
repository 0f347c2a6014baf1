/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What a shared object must export to be a plugin, and what every class says of itself.
 *
 * One data symbol, `sluice_plugin_entry`, made by SLUICE_PLUGIN(id, version, licence, &class, …). It carries the ABI
 * stamp and points to the classes. A class is a stage, a loss or a service; it is plain data plus functions that take
 * the state struct as `self`. Ids are `name` for sluice's own and `vendor/name` for everybody else's.
 *
 * Life of an object made from a class: the host clears `state_size` bytes, writes the parameters, calls `init` (may be
 * NULL), uses it from one thread, calls `fini` (may be NULL; also after a failed init), frees the bytes.
 *
 * A plugin never calls exit, never writes to stdout or stderr, and keeps no borrowed pointer past the call.
 */
#ifndef SLUICE_PLUGIN_H
#define SLUICE_PLUGIN_H

#include <sluice/abi.h>
#include <sluice/param.h>

typedef enum sluice_kind {
    SLUICE_KIND_LOSS = 0,
    SLUICE_SOURCE = 1,
    SLUICE_SINK = 2,
    SLUICE_SAMPLER = 3,
    SLUICE_JUDGE = 4,
    SLUICE_RANKER = 5,
    SLUICE_REGULARIZER = 6,
    SLUICE_TRANSFORM = 7,
    SLUICE_TRAINER = 8,
    SLUICE_AVERAGER = 9,
    SLUICE_EVALUATOR = 10,
    SLUICE_SERVICE = 11,     /* a provider: the model runtime, a device backend */
    SLUICE_METRICS_SINK = 12 /* gets every line of metrics.jsonl as it is written (metrics.h) */
} sluice_kind;

/* Record fields a class reads and adds: `sluice check` follows them along the graph. */
enum sluice_fields {
    SLUICE_FIELD_PROMPT = 1u << 0,
    SLUICE_FIELD_CANDIDATES = 1u << 1,
    SLUICE_FIELD_SCORES = 1u << 2,
    SLUICE_FIELD_RANKINGS = 1u << 3,
    SLUICE_FIELD_PAIRS = 1u << 4,
    SLUICE_FIELD_TRUST = 1u << 5,   /* p and weight of pairs */
    SLUICE_FIELD_LOGPS = 1u << 6,   /* log-probabilities under a named version */
    SLUICE_FIELD_REWARDS = 1u << 7, /* reward and advantage */
    SLUICE_FIELD_META = 1u << 8
};

enum sluice_traits {
    SLUICE_STATELESS = 1u << 0,    /* a record's output depends on that record alone */
    SLUICE_WHOLE_STREAM = 1u << 1, /* has `observe`: sees every record before it changes the first */
    SLUICE_USES_DEVICE = 1u << 2,
    SLUICE_NEEDS_INPUT = 1u << 3, /* an empty input stream is an error, not an empty result */
    SLUICE_NO_OUTPUT = 1u << 4,   /* ends a chain: has no output stream */
    /* Cannot run in a process of its own (isolate = true): it needs a training of the runtime, its per-token hook,
     * iterating or copying tensors, or the device itself. */
    SLUICE_IN_PROCESS = 1u << 5,
    /* Asks sluice_repeat: what comes out hangs on how many times the phase runs, so raising `repeat` computes the
     * iterations anew that were there. Without it, asking is an error. */
    SLUICE_READS_REPEAT = 1u << 6,
    /* Asks for sluice.cuda/1: the GPU's name is part of its content key, wherever models are computed. Without it,
     * asking is an error. */
    SLUICE_USES_CUDA = 1u << 7
};

struct sluice_host; /* host.h */

/* A number a class reports, as metrics.jsonl and `describe` name it. */
typedef struct sluice_metric_info {
    const char *name; /* "consistency"; NULL ends the table */
    const char *unit; /* NULL where there is none */
    const char *doc;  /* one sentence */
} sluice_metric_info;

/* The first member of every class struct, called `base`. */
typedef struct sluice_class {
    uint32_t size; /* of the whole class struct, sluice_stage_class for instance */
    uint32_t kind; /* sluice_kind */
    const char *id;
    const char *summary; /* one line, no full stop */
    size_t state_size;
    const sluice_param *params;        /* ends with SLUICE_PARAMS_END */
    uint32_t param_size;               /* sizeof(sluice_param) as the plugin knows it */
    uint32_t reads, adds;              /* sluice_fields */
    uint32_t traits;                   /* sluice_traits */
    const char *doc;                   /* paragraphs: method, paper and equation, deviations; may be NULL */
    const sluice_metric_info *metrics; /* may be NULL */

    /* Stage's thread, once, after the parameters are set. `host` stays valid until fini has returned. */
    int (*init)(void *self, const struct sluice_host *host);
    /* Stage's thread, once. Frees what init and the other calls made. */
    void (*fini)(void *self);
} sluice_class;

#define SLUICE_BASE(class_type, kind_, id_, summary_, state_, params_)                                       \
    .base.size = (uint32_t)sizeof(class_type), .base.kind = kind_, .base.id = id_, .base.summary = summary_, \
    .base.state_size = sizeof(state_), .base.params = params_, .base.param_size = (uint32_t)sizeof(sluice_param)

/* What the host compares before anything else. A field that differs is named in the refusal. */
typedef struct sluice_stamp {
    uint32_t size;         /* sizeof(sluice_stamp) */
    uint32_t abi;          /* SLUICE_ABI */
    uint32_t pointer_size; /* sizeof(void *) */
    uint32_t byte_order;   /* 0x01020304 as the plugin stores it */
    uint32_t class_size;   /* sizeof(sluice_class): may be smaller than the host's, never larger */
    uint32_t param_size;   /* likewise */
} sluice_stamp;

#define SLUICE_MAGIC 0x31656369756c73ULL /* "sluice1" */

typedef struct sluice_plugin {
    uint64_t magic; /* SLUICE_MAGIC */
    sluice_stamp stamp;
    const char *id; /* the plugin's own name; classes have ids of their own */
    const char *version;
    const char *license;                /* SPDX identifier */
    const sluice_class *const *classes; /* NULL-terminated */
} sluice_plugin;

#define SLUICE_ENTRY "sluice_plugin_entry"

#define SLUICE_PLUGIN(id_, version_, license_, ...)                                                                    \
    static const sluice_class *const sluice_plugin_classes[] = {__VA_ARGS__, NULL};                                    \
    SLUICE_EXPORT extern const sluice_plugin sluice_plugin_entry;                                                      \
    const sluice_plugin sluice_plugin_entry = {.magic = SLUICE_MAGIC,                                                  \
                                               .stamp = {sizeof(sluice_stamp), SLUICE_ABI, sizeof(void *), 0x01020304, \
                                                         sizeof(sluice_class), sizeof(sluice_param)},                  \
                                               .id = id_,                                                              \
                                               .version = version_,                                                    \
                                               .license = license_,                                                    \
                                               .classes = sluice_plugin_classes}

#endif
