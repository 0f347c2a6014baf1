/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Causal attention (Vaswani et al. 2017, eq. 1) over packed segments and over cached pages. Both gather one query's
 * keys and values by absolute position and hand them to attend(), so they agree to the bit.
 */
#include "reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One query against keys k[first … n-1], values alike: out[head_dim], the log of the softmax's sum returned. */
static float attend(E *out, double *score, const E *q, const E *const *k, const E *const *v, size_t first, size_t n,
                    const kn_attention *a)
{
    const size_t hd = a->head_dim;
    double max = -INFINITY, sum = 0;
    for (size_t j = first; j < n; j++) {
        double s = 0;
        for (size_t i = 0; i < hd; i++)
            s += (double)get(q, i) * get(k[j], i);
        s *= a->scale;
        if (a->softcap > 0)
            s = a->softcap * tanh(s / a->softcap);
        score[j] = s;
        max = s > max ? s : max;
    }
    for (size_t j = first; j < n; j++) {
        score[j] = exp(score[j] - max);
        sum += score[j];
    }
    for (size_t i = 0; i < hd; i++) {
        double o = 0;
        for (size_t j = first; j < n; j++)
            o += score[j] * get(v[j], i);
        put(out, i, o / sum);
    }
    return (float)(max + log(sum));
}

/* Room for n keys: scores, and pointers to keys and values. */
typedef struct attend_room {
    double *score;
    const E **k, **v;
} attend_room;

static bool room_new(attend_room *r, size_t n)
{
    r->score = malloc(n * sizeof(*r->score));
    r->k = malloc(n * sizeof(*r->k));
    r->v = malloc(n * sizeof(*r->v));
    return r->score && r->k && r->v;
}

static void room_free(attend_room *r)
{
    free(r->score);
    free(r->k);
    free(r->v);
}

static int attend_segment(E *out, float *lse, const E *qkv, const kn_segment *s, const kn_attention *a)
{
    const size_t hd = a->head_dim, width = (a->heads + 2 * (size_t)a->kv_heads) * hd, group = a->heads / a->kv_heads;
    const size_t keys = s->prefix_count + s->count;
    attend_room room;
    int status = room_new(&room, keys + 1) ? KN_OK : KN_NO_MEMORY;
    for (size_t h = 0; status == KN_OK && h < a->heads; h++) {
        for (size_t j = 0; j < keys; j++) {
            const E *row = qkv + kn_ref_key_row(s, j) * width;
            room.k[j] = row + (a->heads + h / group) * hd;
            room.v[j] = row + (a->heads + a->kv_heads + h / group) * hd;
        }
        for (size_t i = 0; i < s->count; i++) {
            const size_t t = s->row + i, at = s->prefix_count + i;
            const float l = attend(out + (t * a->heads + h) * hd, room.score, qkv + t * width + h * hd, room.k, room.v,
                                   kn_ref_first_key(a, at), at + 1, a);
            if (lse)
                lse[t * a->heads + h] = l;
        }
    }
    room_free(&room);
    return status;
}

int REF(attention)(kn_device *device, void *out, float *lse, const void *qkv, const kn_segment *segment,
                   size_t segments, size_t T, const kn_attention *a)
{
    if (!kn_ref_attention_ok(a) || !kn_ref_segments_ok(segment, segments, T))
        return KN_BAD_ARGUMENT;
    for (size_t i = 0; i < segments; i++) {
        const int status = attend_segment(out, lse, qkv, &segment[i], a);
        if (status != KN_OK)
            return status;
    }
    return KN_OK;
}

static int attend_cached(E *out, const E *qkv, kn_cache *c, size_t layer, const kn_cached_rows *s)
{
    const kn_attention *a = &c->shape;
    const size_t hd = a->head_dim, width = (a->heads + 2 * (size_t)a->kv_heads) * hd, group = a->heads / a->kv_heads;
    const size_t keys = s->position + s->count, both = 2 * a->kv_heads * hd;
    for (size_t i = 0; i < s->count; i++) {
        const size_t at = s->position + i;
        E *to = REF(cache_at)(c, layer, s->pages[at / KN_PAGE], at % KN_PAGE);
        memcpy(to, qkv + (s->row + i) * width + a->heads * hd, both * sizeof(E));
    }
    attend_room room;
    int status = room_new(&room, keys + 1) ? KN_OK : KN_NO_MEMORY;
    for (size_t h = 0; status == KN_OK && h < a->heads; h++) {
        for (size_t j = 0; j < keys; j++) {
            const E *kv = REF(cache_at)(c, layer, s->pages[j / KN_PAGE], j % KN_PAGE);
            room.k[j] = kv + h / group * hd;
            room.v[j] = kv + (a->kv_heads + h / group) * hd;
        }
        for (size_t i = 0; i < s->count; i++) {
            const size_t t = s->row + i, at = s->position + i;
            attend(out + (t * a->heads + h) * hd, room.score, qkv + t * width + h * hd, room.k, room.v,
                   kn_ref_first_key(a, at), at + 1, a);
        }
    }
    room_free(&room);
    return status;
}

/* Queries and keys of an entry. */
static void turn(kn_device *device, E *qkv, const kn_attention *a, const kn_cached_rows *s, const kn_rotary *by)
{
    const size_t turned = a->heads + (size_t)a->kv_heads, width = (turned + a->kv_heads) * a->head_dim;
    for (size_t i = 0; i < s->count; i++) {
        const uint32_t at = (uint32_t)(s->position + i);
        REF(rope)(device, qkv + (s->row + i) * width, width, &at, by->cos, by->sin, 1, turned, a->head_dim, false);
    }
}

int REF(attention_cached)(kn_device *device, void *out, void *qkv, kn_cache *c, size_t layer,
                          const kn_cached_rows *rows, size_t sequences, size_t T, const kn_rotary *rotary)
{
    if (layer >= c->layers || (rotary && c->shape.head_dim % 2 != 0))
        return KN_BAD_ARGUMENT;
    for (size_t i = 0; i < sequences; i++) {
        if (rows[i].row > T || rows[i].count > T - rows[i].row)
            return KN_BAD_ARGUMENT;
        for (size_t p = 0; p * KN_PAGE < rows[i].position + rows[i].count; p++)
            if (rows[i].pages[p] >= c->pages)
                return KN_BAD_ARGUMENT;
    }
    for (size_t i = 0; i < sequences; i++) {
        if (rotary)
            turn(device, qkv, &c->shape, &rows[i], rotary);
        const int status = attend_cached(out, qkv, c, layer, &rows[i]);
        if (status != KN_OK)
            return status;
    }
    return KN_OK;
}
