/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "plugins/tensorboard/events.h"

#include <stdlib.h>
#include <string.h>

/* Fields of tensorflow/core/util/event.proto and framework/summary.proto. */
enum { EVENT_TIME = 1, EVENT_STEP = 2, EVENT_VERSION = 3, EVENT_SUMMARY = 5, EVENT_SESSION = 7 };
enum { SESSION_STATUS = 1, SESSION_START = 1 };
enum { SUMMARY_VALUE = 1, VALUE_TAG = 1, VALUE_SIMPLE = 2 };
enum wire { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

uint32_t events_crc(const void *bytes, size_t size)
{
    const uint8_t *b = bytes;
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        crc ^= b[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1)));
    }
    return ~crc;
}

uint32_t events_mask(uint32_t crc)
{
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

static void put(events *e, const void *bytes, size_t size)
{
    if (e->failed)
        return;
    if (e->capacity - e->size < size) {
        const size_t capacity = 2 * (e->size + size) + 256;
        uint8_t *more = realloc(e->bytes, capacity);
        if (more == NULL) {
            e->failed = true;
            return;
        }
        e->bytes = more;
        e->capacity = capacity;
    }
    memcpy(e->bytes + e->size, bytes, size);
    e->size += size;
}

/* Both TFRecord and protobuf are little-endian, whatever the machine. */
static void put_fixed(events *e, uint64_t value, size_t size)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    put(e, bytes, size);
}

static void put_varint(events *e, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;
    for (; value >= 0x80; value >>= 7)
        bytes[n++] = (uint8_t)(value | 0x80);
    bytes[n++] = (uint8_t)value;
    put(e, bytes, n);
}

static void put_key(events *e, unsigned field, enum wire wire)
{
    put_varint(e, field << 3 | wire);
}

static void put_double(events *e, unsigned field, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(e, field, FIXED64);
    put_fixed(e, bits, 8);
}

static void put_float(events *e, unsigned field, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(e, field, FIXED32);
    put_fixed(e, bits, 4);
}

static void put_bytes(events *e, unsigned field, const void *bytes, size_t size)
{
    put_key(e, field, BYTES);
    put_varint(e, size);
    put(e, bytes, size);
}

/* A message inside another; takes it. */
static void put_message(events *e, unsigned field, events *message)
{
    e->failed |= message->failed;
    put_bytes(e, field, message->bytes, message->size);
    free(message->bytes);
}

/* Frames a whole Event; takes it. */
static void put_event(events *e, events *event)
{
    e->failed |= event->failed;
    const size_t start = e->size;
    put_fixed(e, event->size, 8);
    if (!e->failed)
        put_fixed(e, events_mask(events_crc(e->bytes + start, 8)), 4);
    put(e, event->bytes, event->size);
    put_fixed(e, events_mask(events_crc(event->bytes, event->size)), 4);
    free(event->bytes);
}

void events_begin(events *e, double time)
{
    static const char version[] = "brain.Event:2";
    events first = {0}, second = {0}, session = {0};
    put_double(&first, EVENT_TIME, time);
    put_bytes(&first, EVENT_VERSION, version, sizeof version - 1);
    put_event(e, &first);
    put_key(&session, SESSION_STATUS, VARINT);
    put_varint(&session, SESSION_START);
    put_double(&second, EVENT_TIME, time);
    put_message(&second, EVENT_SESSION, &session);
    put_event(e, &second);
}

void events_scalars(events *e, double time, int64_t step, const events_scalar *scalars, size_t count)
{
    events event = {0}, summary = {0};
    for (size_t i = 0; i < count; i++) {
        events value = {0};
        put_bytes(&value, VALUE_TAG, scalars[i].tag, strlen(scalars[i].tag));
        put_float(&value, VALUE_SIMPLE, (float)scalars[i].value);
        put_message(&summary, SUMMARY_VALUE, &value);
    }
    put_double(&event, EVENT_TIME, time);
    put_key(&event, EVENT_STEP, VARINT);
    put_varint(&event, (uint64_t)step);
    put_message(&event, EVENT_SUMMARY, &summary);
    put_event(e, &event);
}
