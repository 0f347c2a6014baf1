/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What the tests of streams share: a folder of their own, records by number, files as bytes. */
#ifndef TEST_STREAMS_H
#define TEST_STREAMS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/stream/edge.h"
#include "core/stream/stream.h"

#define OK(call) assert_int_equal((call), SLUICE_OK)

/* Group fixtures: a fresh folder, and its end. */
int make_folder(void **state);
int remove_folder(void **state);
/* A path in it; overwritten by the next call but three. */
const char *in_folder(const char *name);

/* Chunks of some hundred bytes, so that a small stream has many. */
extern const sl_limits small_chunks;
extern const sl_stream_info test_info;

/* Record i: id "r<i>", a prompt of a length of its own, two candidates with tokens and log-probabilities. */
sl_record *make_record(size_t i);
void assert_record(sl_record *, size_t i, uint64_t number);

sl_stream_writer *create(const char *path, const sl_limits *);
void append(sl_stream_writer *, size_t i, uint64_t number);
/* A finished stream of `count` records with small chunks. */
void write_stream(const char *path, size_t count);
/* Reads and checks records from, from + 1, … until something else than SLUICE_OK comes, which is returned. */
int read_on(sl_stream_reader *, size_t from, size_t *count);

/* Until a stream that is being written shows `count` records to other processes; fails after some seconds. */
void await_journal(const char *part, size_t count);

uint8_t *read_bytes(const char *path, size_t *size);
void write_bytes(const char *path, const uint8_t *, size_t size);
bool exists(const char *path);

#endif
