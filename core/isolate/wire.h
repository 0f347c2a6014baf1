/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages between a run and a stage in a process of its own: a head (mark, kind, size), then a body of fields.
 *
 * Whoever reads a body knows its fields by the message's kind. Every field is a multiple of 8 bytes long, so that
 * arrays lie aligned: an integer, a double, or a length and so many bytes. A body of the other process is not trusted:
 * reading past its end gives zeroes and sets `bad`.
 */
#ifndef SL_WIRE_H
#define SL_WIRE_H

#include "core/base/buffer.h"

#define SL_WIRE_MARK 0x6c736977u /* "wisl" */

/* The stage's process asks, the run answers with REPLY unless it says "no reply". Within GENERATE the run asks too. */
enum sl_wire_kind {
    SL_WIRE_SETUP,       /* run → stage: what to do (setup.c) */
    SL_WIRE_REPLY,       /* run → stage: result, error line or NULL, then what was asked for */
    SL_WIRE_DONE,        /* result, code and line of the first error. No reply */
    SL_WIRE_NEXT,        /* → number, record */
    SL_WIRE_APPEND,      /* number, record (empty where the stage has no output). No reply */
    SL_WIRE_SKIP,        /* number. No reply */
    SL_WIRE_LOG,         /* level, line. No reply */
    SL_WIRE_METRICS,     /* step, count, then name and value each. No reply */
    SL_WIRE_PROGRESS,    /* done, total, unit, tokens since the last. No reply */
    SL_WIRE_COUNT,       /* → number of input records */
    SL_WIRE_EARLIER,     /* id, number → record */
    SL_WIRE_PUBLISH,     /* slot, next, commit? → folder */
    SL_WIRE_CHECKPOINT,  /* 0 find, 1 begin, 2 commit → folder */
    SL_WIRE_OPEN,        /* reference → handle, info. This and what follows: the model service */
    SL_WIRE_CLOSE,       /* handle. No reply */
    SL_WIRE_ENCODE,      /* handle, text, flags → ids */
    SL_WIRE_MESSAGES,    /* handle, generation?, count, then role and content each → ids */
    SL_WIRE_DECODE,      /* handle, ids, special? → text */
    SL_WIRE_PROMPT,      /* handle, record, raw → ids */
    SL_WIRE_SCORE,       /* handle, entropy?, groups → log-probabilities, entropies */
    SL_WIRE_VALUES,      /* handle, groups → values */
    SL_WIRE_MERGE,       /* method, folder, dtype, count, then folder and weight each */
    SL_WIRE_DISTANCE,    /* handle, handle → double */
    SL_WIRE_GENERATE,    /* handle, settings */
    SL_WIRE_WANT_PROMPT, /* run → stage, within GENERATE: → user, key, tokens (ANSWER) */
    SL_WIRE_GENERATED,   /* run → stage, within GENERATE: a finished candidate (ANSWER) */
    SL_WIRE_ANSWER,      /* stage → run: result, then what was asked for */
    SL_WIRE_KINDS
};

/* Larger than any record; what claims more is rubbish. */
#define SL_WIRE_MOST ((uint64_t)1 << 30)
enum { SL_WIRE_HEAD = 16 };

/* A message's body, being written or read. Starts as {0}. */
typedef struct sl_message {
    uint32_t kind;
    sl_buffer body;
    size_t at;  /* of the next field to read */
    int failed; /* SLUICE_NO_MEMORY: not all of it was put */
    bool bad;   /* a read went past the end */
} sl_message;

void sl_message_free(sl_message *);

void sl_put(sl_message *, uint64_t);
void sl_put_double(sl_message *, double);
void sl_put_bytes(sl_message *, const void *, size_t size);
void sl_put_text(sl_message *, const char *); /* NULL is kept apart from "" */

uint64_t sl_get(sl_message *);
double sl_get_double(sl_message *);
/* Borrowed from the body, aligned to 8 bytes; *size is a multiple of `item`. NULL with *size 0 when it is bad. */
const void *sl_get_bytes(sl_message *, size_t item, size_t *size);
const char *sl_get_text(sl_message *);
/* A count of things that take at least `least` bytes each. */
size_t sl_get_count(sl_message *, size_t least);

/* The head of a message, and what it says. False: it is none. */
void sl_wire_head(const sl_message *, uint8_t head[SL_WIRE_HEAD]);
bool sl_wire_read_head(const uint8_t head[SL_WIRE_HEAD], uint32_t *kind, uint64_t *size);

#endif
