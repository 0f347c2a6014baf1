/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What is tested: a plugin as loaded, one of its classes, and a value for each of the class's parameters.
 *
 * Values start from the defaults; what is required and has none gets something plausible: a judge of the sample
 * records, a small model, a file. `--set NAME=VALUE` says better. One thread.
 */
#ifndef TP_SUBJECT_H
#define TP_SUBJECT_H

#include <sluice/sluice.h>
#include "core/base/buffer.h"
#include "core/registry/registry.h"

enum { TP_MOST_CLASSES = 64, TP_MOST_PARAMS = 128 };

/* A parameter's value, whatever its type. Texts are borrowed for the subject's life. */
typedef struct tp_value {
    const sluice_param *param;
    double number; /* bool, int, double, index of a choice */
    int64_t integer;
    const char *text;         /* string, stage, file, class id; NULL = not set */
    const char *const *texts; /* strings, stages */
    const double *numbers;    /* doubles */
    size_t count;             /* of texts, numbers or models */
    bool set;                 /* model, slot: given */
} tp_value;

typedef struct tp_subject {
    const char *file;
    void *handle;
    const sluice_plugin *plugin;
    const sluice_class *classes[TP_MOST_CLASSES]; /* the host's copies, checked */
    size_t class_count;
    sl_arena *arena;

    const sluice_class *type; /* the one tested; NULL in tests of the whole plugin */
    tp_value values[TP_MOST_PARAMS];
    size_t value_count;
    const sluice_class *part; /* for a parameter of type CLASS; NULL = none */
    bool heads;               /* models are reward models */
    const char *const *settings;
    size_t setting_count;
    uint64_t seed;
    sl_registry *registry; /* opened when a part is needed from elsewhere */
} tp_subject;

/* Loads and checks. False with one line in `why`. */
bool tp_subject_open(tp_subject *, const char *file, char *why, size_t size);
void tp_subject_close(tp_subject *);
/* Chooses a class and gives every parameter a value. False with one line in `why`. */
bool tp_subject_choose(tp_subject *, const char *id, char *why, size_t size);
/* Finds the class that a CLASS parameter names: in this plugin, else among those installed. Uses values[]; false with
 * one line in `why`. */
bool tp_subject_find_part(tp_subject *, char *why, size_t size);
/* All values as "name = value, …", for messages: those that are not the default. */
const char *tp_subject_text(const tp_subject *, char *text, size_t size);

/* An object made from the values: state, written members, parts. */
typedef struct tp_object {
    void *self;
    sluice_part part;
    bool begun, part_begun;
} tp_object;

/* Calls init, parts first. On failure everything is undone. */
int tp_object_begin(tp_object *, const tp_subject *, const sluice_host *);
void tp_object_end(tp_object *, const tp_subject *);

#endif
