/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * TensorBoard's event files: TFRecord frames (length, masked CRC-32C of the length, data, masked CRC-32C of the data)
 * that each hold an Event in protobuf's encoding. Written by hand: of protobuf's wire format it takes varints, fixed
 * numbers and length-delimited fields, and nothing else.
 */
#ifndef EVENTS_H
#define EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A growing run of bytes; free(bytes). `failed` once memory ran out: what is there is not to be written. */
typedef struct events {
    uint8_t *bytes;
    size_t size, capacity;
    bool failed;
} events;

typedef struct events_scalar {
    const char *tag;
    double value;
} events_scalar;

/* What every file begins with: version brain.Event:2, then a session's start, at which a reader forgets the points it
 * has of an earlier file in the same folder. */
void events_begin(events *, double time);
/* One event with all the numbers of a step. time: seconds since 1970, UTC. */
void events_scalars(events *, double time, int64_t step, const events_scalar *, size_t count);

/* CRC-32C (Castagnoli), and as TFRecord stores it: rotated and shifted, so that sums of data that holds sums stay
 * sound. */
uint32_t events_crc(const void *bytes, size_t size);
uint32_t events_mask(uint32_t crc);

#endif
