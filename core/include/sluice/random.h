/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Random numbers by counting: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
 * SC 2011).
 *
 * There is no generator with a state to carry along. A number is a pure function of *what it is for*: seed, stage,
 * iteration, step, record, candidate, position, purpose. So neither batch size, nor threads, nor the order of work, nor
 * an interruption changes it, and two draws that differ in any of these are independent.
 *
 * How to draw. Fill a sluice_draw, turn it into key and counter once with sluice_draw_place, then read 128 bits at a
 * time with sluice_philox. The low 32 bits of counter[0] are left 0 and belong to whoever draws many numbers at one
 * place (one a token id, one an element): add to them.
 *
 * Header-only, no state, any thread, no errors. Results are the same on every machine.
 */
#ifndef SLUICE_RANDOM_H
#define SLUICE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* What a number is drawn for. Values are part of every result: never reuse or renumber one. */
enum sluice_purpose {
    SLUICE_PURPOSE_TOKEN = 1,   /* choosing the next token */
    SLUICE_PURPOSE_DROPOUT = 2, /* dropout masks */
    SLUICE_PURPOSE_SHUFFLE = 3, /* order of examples */
    SLUICE_PURPOSE_INIT = 4,    /* initial weights */
    SLUICE_PURPOSE_DATA = 5,    /* generated data */
    SLUICE_PURPOSE_LABEL = 6,   /* labels drawn at random */
    SLUICE_PURPOSE_CHOICE = 7,  /* any other choice of a stage */
    SLUICE_PURPOSE_MOMENTS = 8  /* which way an optimizer's bfloat16 moments are rounded */
};

/* The place of a draw. Fields that do not apply are 0. */
typedef struct sluice_draw {
    uint64_t seed;      /* of the run */
    uint64_t stage;     /* sluice_random_name of the stage's name */
    uint64_t iteration; /* of the phase, from 0 */
    uint64_t step;      /* in online training, from 0 */
    uint64_t record;    /* sluice_random_name of the record's id */
    uint64_t candidate; /* index within the record */
    uint64_t purpose;   /* enum sluice_purpose */
    uint32_t position;  /* of the token within the candidate, index of an epoch, … */
} sluice_draw;

/* 64 well-mixed bits of h and x (the finalizer of MurmurHash3 over a multiply-add). */
static inline uint64_t sluice_mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * UINT64_C(0x9e3779b97f4a7c15) + UINT64_C(0xd1b54a32d192ed03);
    h = (h ^ (h >> 33)) * UINT64_C(0xff51afd7ed558ccd);
    h = (h ^ (h >> 33)) * UINT64_C(0xc4ceb9fe1a85ec53);
    return h ^ (h >> 33);
}

/* A name (bytes, not terminated) as a number. */
static inline uint64_t sluice_random_name(const void *bytes, size_t size)
{
    const unsigned char *b = (const unsigned char *)bytes;
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (size_t i = 0; i < size; i++)
        h = (h ^ b[i]) * UINT64_C(0x100000001b3);
    return sluice_mix(h, size);
}

/* Key and counter of a place. Everything but the position goes into the key's 128 bits; the position is the high half
 * of counter[0], so walking along a candidate changes only `counter[0] = (uint64_t)position << 32`. */
static inline void sluice_draw_place(const sluice_draw *d, uint64_t key[2], uint64_t counter[2])
{
    const uint64_t part[7] = {d->seed, d->stage, d->iteration, d->step, d->record, d->candidate, d->purpose};
    uint64_t a = UINT64_C(0x736c756963650001), b = UINT64_C(0x736c756963650002);
    for (int i = 0; i < 7; i++) {
        a = sluice_mix(a, part[i]);
        b = sluice_mix(b, part[i]);
    }
    key[0] = a;
    key[1] = b;
    counter[0] = (uint64_t)d->position << 32;
    counter[1] = 0;
}

/* The plain function of the paper: 64-bit key, 128-bit counter, 128 random bits. */
static inline void sluice_philox4x32(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4])
{
    uint32_t k0 = key[0], k1 = key[1];
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* 128 random bits at a place: key[0] is Philox's key; the counter is {counter[0], counter[1] ^ key[1]}, low words
 * first. */
static inline void sluice_philox(const uint64_t key[2], const uint64_t counter[2], uint32_t out[4])
{
    const uint64_t high = counter[1] ^ key[1];
    const uint32_t k[2] = {(uint32_t)key[0], (uint32_t)(key[0] >> 32)};
    const uint32_t c[4] = {(uint32_t)counter[0], (uint32_t)(counter[0] >> 32), (uint32_t)high, (uint32_t)(high >> 32)};
    sluice_philox4x32(k, c, out);
}

/* 32 bits that belong to item `index` (a token id, an element) at a place. Philox yields four words a call; they are
 * dealt so that sixteen neighbouring items are the same word of sixteen neighbouring counters, which suits vector code.
 */
static inline uint32_t sluice_random_item(const uint64_t key[2], const uint64_t counter[2], uint32_t index)
{
    const uint32_t block = index / 64 * 16 + index % 16;
    const uint64_t at[2] = {(counter[0] & ~UINT64_C(0xffffffff)) | (uint32_t)((uint32_t)counter[0] + block),
                            counter[1]};
    uint32_t out[4];
    sluice_philox(key, at, out);
    return out[index % 64 / 16];
}

/* Bits as a float strictly between 0 and 1, with a fine grain (2^-33) near 0. */
static inline float sluice_uniform_float(uint32_t bits)
{
    const float u = (float)(bits >> 16) * 0x1p-16f + ((float)(bits & 0xffff) + 0.5f) * 0x1p-32f;
    return u < 1.0f ? u : 0x1.fffffep-1f;
}

/* 64 bits (two words) as a double strictly between 0 and 1. */
static inline double sluice_uniform_double(uint32_t high, uint32_t low)
{
    return ((double)((((uint64_t)high << 32) | low) >> 12) + 0.5) * 0x1p-52;
}

/* Uniform in 0 … n-1 (n > 0) by the multiply-shift; the bias is below n · 2^-64. */
static inline uint64_t sluice_uniform_below(uint32_t high, uint32_t low, uint64_t n)
{
    const uint64_t x = ((uint64_t)high << 32) | low;
    const uint64_t carry = ((x & 0xffffffffu) * (n & 0xffffffffu)) >> 32;
    const uint64_t a = (x >> 32) * (n & 0xffffffffu), b = (x & 0xffffffffu) * (n >> 32);
    const uint64_t middle = carry + (a & 0xffffffffu) + (b & 0xffffffffu);
    return (x >> 32) * (n >> 32) + (a >> 32) + (b >> 32) + (middle >> 32);
}

#endif
