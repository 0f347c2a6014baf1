/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A host in memory, for testing one class of a plugin by itself: it opens the shared object, sets parameters from the
 * class's own table, feeds real records, and keeps what the class reported. Whatever goes wrong here fails the test.
 */
#ifndef TESTS_FAKE_HOST_H
#define TESTS_FAKE_HOST_H

#include <stdio.h>
#include <sluice/sluice.h>

typedef struct fake_number {
    char name[48];
    int64_t step;
    double value;
} fake_number;

typedef struct fake_host {
    sluice_host public; /* first */
    void *library;
    const sluice_class *type;
    void *self;
    bool started;
    /* set by the test before fake_start */
    const char *stage_name;
    uint64_t seed_value;
    int64_t iteration_value, repeat_value;
    const sluice_model_service *models;
    char publish_dir[256];
    int cancel_after; /* the run is cancelled when the class asks for the so-manieth time; 0 = never */
    /* records: input is owned here until taken; output is what was emitted or kept */
    sluice_record **input, **output;
    size_t input_count, input_next, output_count;
    /* what was reported */
    char error[1024], warning[1024];
    fake_number numbers[4096];
    size_t number_count;
    int publications;
} fake_host;

/* Class `id` of plugins/OBJECT.so in the build folder, defaults set. */
fake_host *fake_open(const char *object, const char *id);
void fake_close(fake_host *);

/* Parameters by name; a name or type that the class does not have fails the test. */
void fake_set_number(fake_host *, const char *param, double value);       /* bool, int, double */
void fake_set_text(fake_host *, const char *param, const char *value);    /* string, stage, file; choice by its word */
void fake_set_pointer(fake_host *, const char *param, const void *value); /* model, slot, part */
void fake_set_bytes(fake_host *, const char *param, const void *value, size_t size); /* lists */

/* Calls init. */
int fake_start(fake_host *);
/* init unless done, then all records through the class as the engine would, then finish. Returns the first bad result,
 * else SLUICE_OK. */
int fake_run(fake_host *);

/* A new input record with an id and a prompt (NULL = none). */
sluice_record *fake_record(fake_host *, const char *id, const char *prompt);
/* A record that belongs to nobody; free with fake_free. */
sluice_record *fake_new(void);
void fake_free(sluice_record *);
/* Adds a candidate with text and tokens (NULL = none), and a judge's score. */
void fake_candidate(sluice_record *, const char *text, const uint32_t *tokens, size_t count);
void fake_score(sluice_record *, const char *judge, size_t candidate, double score);

/* The last value of a whole-stage number; NaN when it was not reported. */
double fake_metric(const fake_host *, const char *name);
/* The value at a step. */
double fake_step_metric(const fake_host *, const char *name, int64_t step);

#endif
