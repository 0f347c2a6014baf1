/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The far device: its two regions of addresses, its blocks, and the ops that do not depend on the element type. */
#include "far_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "far_parts.h"

#define REGION ((size_t)4 << 30) /* addresses; memory is taken where it is touched */

enum { BORDER = 4096 }; /* blocks begin and end at such borders, with an empty page between two */

#define FAR(op) float_##op
#define INNER   ops
#define E       sizeof(float)
#include "far_ops.h"
#undef FAR
#undef INNER
#undef E
#define FAR(op) narrow_##op
#define INNER   ops_bf16
#define E       sizeof(uint16_t)
#include "far_ops.h"
#undef FAR
#undef INNER
#undef E

static void die(const char *op, const char *what, const void *p, size_t bytes)
{
    const char *bare = strchr(op, '_');
    fprintf(stderr, "far device: %s: %p of %zu bytes %s\n", bare ? bare + 1 : op, p, bytes, what);
    abort();
}

/* --- addresses --- */

static bool in_region(const char *region, const void *p, size_t bytes)
{
    const uintptr_t at = (uintptr_t)p, from = (uintptr_t)region;
    return at + bytes > from && at < from + REGION;
}

static bool within(const far_block *b, size_t at, size_t bytes)
{
    return at >= b->at && at - b->at <= b->bytes && bytes <= b->bytes - (at - b->at);
}

void *far_memory(const far_device *f, const char *op, const void *p, size_t bytes)
{
    if (!p)
        return NULL;
    if (!in_region(f->away, p, 1))
        die(op, "is given as memory of the device, and is host memory", p, bytes);
    const size_t at = (size_t)((const char *)p - f->away);
    for (size_t i = 0; i < f->blocks; i++)
        if (within(&f->block[i], at, bytes))
            return f->here + at;
    die(op, "is not within a live block of the device", p, bytes);
    return NULL;
}

const void *far_host(const far_device *f, const char *op, const void *p, size_t bytes)
{
    if (p && (in_region(f->away, p, bytes) || in_region(f->here, p, bytes)))
        die(op, "is given as host memory, and is the device's", p, bytes);
    return p;
}

void far_compare_kept(far_device *f, const char *op, float *kept, const kn_ops *inner, const void *h,
                      const kn_matrix *m, size_t rows, size_t vocab)
{
    const size_t bytes = rows * vocab * sizeof(*kept);
    float *logits = malloc(bytes);
    if (!logits || inner->logits(f->inner, logits, h, m, rows) != KN_OK || memcmp(logits, kept, bytes) != 0)
        die(op, "are no logits of these rows", kept, bytes);
    memset(kept, 0xff, bytes);
    free(logits);
    f->kept++;
}

bool far_begin(far_device *f, bool waits)
{
    pthread_mutex_lock(&f->lock);
    f->calls++;
    f->reads += waits;
    const bool works = f->left > 0;
    if (works && f->left != SIZE_MAX)
        f->left--;
    if (!works)
        pthread_mutex_unlock(&f->lock);
    return works;
}

int far_end(far_device *f, int status)
{
    pthread_mutex_unlock(&f->lock);
    return status;
}

/* --- blocks --- */

/* The first gap between live blocks that has room. */
static size_t find_room(const far_device *f, size_t needed, size_t *index)
{
    size_t at = 0, i = 0;
    while (i < f->blocks && f->block[i].at - at < needed) {
        at = f->block[i].at + (f->block[i].bytes + BORDER - 1) / BORDER * BORDER + BORDER;
        i++;
    }
    *index = i;
    return at;
}

static void *device_alloc(kn_device *d, size_t bytes)
{
    far_device *f = (far_device *)d;
    const size_t needed = (bytes + BORDER - 1) / BORDER * BORDER + BORDER;
    size_t index;
    if (!far_begin(f, false))
        return NULL;
    const size_t at = find_room(f, needed, &index);
    if (f->used > f->limit || bytes > f->limit - f->used || f->blocks == FAR_BLOCKS || needed > REGION ||
        at > REGION - needed) {
        far_end(f, KN_NO_MEMORY);
        return NULL;
    }
    memmove(&f->block[index + 1], &f->block[index], (f->blocks - index) * sizeof(*f->block));
    f->block[index] = (far_block){at, bytes};
    f->blocks++;
    f->used += bytes;
    memset(f->here + at, 0xff, bytes);
    far_end(f, KN_OK);
    return f->away + at;
}

static void device_free(kn_device *d, void *p)
{
    far_device *f = (far_device *)d;
    size_t i = 0;
    if (!p)
        return;
    pthread_mutex_lock(&f->lock);
    while (i < f->blocks && f->away + f->block[i].at != (char *)p)
        i++;
    if (i == f->blocks)
        die("_free", "is no block of the device", p, 0);
    f->used -= f->block[i].bytes;
    madvise(f->here + f->block[i].at, f->block[i].bytes, MADV_DONTNEED);
    f->blocks--;
    memmove(&f->block[i], &f->block[i + 1], (f->blocks - i) * sizeof(*f->block));
    pthread_mutex_unlock(&f->lock);
}

/* --- between the memories --- */

#define D(p, bytes)          far_memory(f, __func__, p, bytes)
#define H(p, bytes)          far_host(f, __func__, p, bytes)
#define CALL(waits, op, ...) return far_begin(f, waits) ? far_end(f, f->inner->ops->op(__VA_ARGS__)) : KN_DEVICE_FAILED

static int device_write(kn_device *d, void *to, const void *from, size_t bytes)
{
    far_device *f = (far_device *)d;
    CALL(false, write, f->inner, D(to, bytes), H(from, bytes), bytes);
}

static int device_read(kn_device *d, void *to, const void *from, size_t bytes)
{
    far_device *f = (far_device *)d;
    H(to, bytes);
    CALL(true, read, f->inner, to, D(from, bytes), bytes);
}

static int device_copy(kn_device *d, void *to, const void *from, size_t bytes)
{
    far_device *f = (far_device *)d;
    CALL(false, copy, f->inner, D(to, bytes), D(from, bytes), bytes);
}

static int device_clear(kn_device *d, void *p, size_t bytes)
{
    far_device *f = (far_device *)d;
    CALL(false, clear, f->inner, D(p, bytes), bytes);
}

static const char *device_error(kn_device *d)
{
    return ((const far_device *)d)->left > 0 ? NULL : "an illegal memory access was made up by a test";
}

/* --- ops of both tables --- */

static int device_choose(kn_device *d, kn_chosen *chosen, float *logits, const kn_choice *choice, size_t T,
                         size_t vocab)
{
    far_device *f = (far_device *)d;
    H(chosen, T * sizeof(*chosen));
    H(choice, T * sizeof(*choice));
    for (size_t t = 0; t < T; t++) {
        H(choice[t].seen, choice[t].seen_count * sizeof(*choice[t].seen));
        H(choice[t].banned, choice[t].banned_count * sizeof(*choice[t].banned));
    }
    CALL(true, choose, f->inner, chosen, D(logits, T * vocab * sizeof(float)), choice, T, vocab);
}

static int device_to_bf16(kn_device *d, uint16_t *to, const float *from, size_t n)
{
    far_device *f = (far_device *)d;
    CALL(false, to_bf16, f->inner, D(to, n * sizeof(*to)), D(from, n * sizeof(*from)), n);
}

static int device_from_bf16(kn_device *d, float *to, const uint16_t *from, size_t n)
{
    far_device *f = (far_device *)d;
    CALL(false, from_bf16, f->inner, D(to, n * sizeof(*to)), D(from, n * sizeof(*from)), n);
}

static int device_sum_squares_add(kn_device *d, double *sum, const float *x, size_t n)
{
    far_device *f = (far_device *)d;
    CALL(false, sum_squares_add, f->inner, D(sum, sizeof(*sum)), D(x, n * sizeof(*x)), n);
}

static int device_clip(kn_device *d, float *scale, const double *sum, double grad_scale, double max_norm)
{
    far_device *f = (far_device *)d;
    CALL(false, clip, f->inner, D(scale, sizeof(*scale)), D(sum, sizeof(*sum)), grad_scale, max_norm);
}

static int device_adamw(kn_device *d, float *w, float *m, float *v, const float *g, size_t n, const kn_adamw *a)
{
    far_device *f = (far_device *)d;
    const size_t bytes = n * sizeof(*w);
    H(a, sizeof(*a));
    kn_adamw inner = *a;
    inner.scale_at = D(a->scale_at, sizeof(*a->scale_at));
    inner.rounded = D(a->rounded, n * sizeof(*a->rounded));
    CALL(false, adamw, f->inner, D(w, bytes), D(m, bytes), D(v, bytes), D(g, bytes), n, &inner);
}

static int device_adamw_bf16(kn_device *d, float *w, uint16_t *m, uint16_t *v, const float *g, size_t n,
                             const kn_adamw *a, const uint64_t key[2], const uint64_t counter[2])
{
    far_device *f = (far_device *)d;
    H(a, sizeof(*a));
    kn_adamw inner = *a;
    inner.scale_at = D(a->scale_at, sizeof(*a->scale_at));
    inner.rounded = D(a->rounded, n * sizeof(*a->rounded));
    CALL(false, adamw_bf16, f->inner, D(w, n * sizeof(*w)), D(m, n * sizeof(*m)), D(v, n * sizeof(*v)),
         D(g, n * sizeof(*g)), n, &inner, H(key, 16), H(counter, 16));
}

/* --- merging --- */

static int device_mean(kn_device *d, float *to, const float *const *from, const float *weight, size_t count, size_t n)
{
    far_device *f = (far_device *)d;
    const size_t bytes = n * sizeof(float);
    H(from, count * sizeof(*from));
    H(weight, count * sizeof(*weight));
    const float **inner = malloc((count + 1) * sizeof(*inner));
    for (size_t i = 0; inner && i < count; i++)
        inner[i] = D(from[i], bytes);
    if (!inner || !far_begin(f, false)) {
        free(inner);
        return inner ? KN_DEVICE_FAILED : KN_NO_MEMORY;
    }
    const int kn = far_end(f, f->inner->ops->mean(f->inner, D(to, bytes), inner, weight, count, n));
    free(inner);
    return kn;
}

static int device_slerp_dots_add(kn_device *d, double dots[3], const float *base, const float *a, const float *b,
                                 size_t n)
{
    far_device *f = (far_device *)d;
    const size_t bytes = n * sizeof(float);
    CALL(false, slerp_dots_add, f->inner, D(dots, 3 * sizeof(*dots)), D(base, bytes), D(a, bytes), D(b, bytes), n);
}

static int device_slerp(kn_device *d, float *to, const double dots[3], const float *base, const float *a,
                        const float *b, double lambda, size_t n)
{
    far_device *f = (far_device *)d;
    const size_t bytes = n * sizeof(float);
    CALL(false, slerp, f->inner, D(to, bytes), D(dots, 3 * sizeof(*dots)), D(base, bytes), D(a, bytes), D(b, bytes),
         lambda, n);
}

/* --- the rest --- */

static int threads(const kn_device *d)
{
    const far_device *f = (const far_device *)d;
    return f->inner->ops->threads(f->inner);
}

static int set_threads(kn_device *d, int n)
{
    far_device *f = (far_device *)d;
    return f->inner->ops->set_threads(f->inner, n);
}

static void parallel(kn_device *d, size_t n, size_t grain, kn_task task, void *arg)
{
    far_device *f = (far_device *)d;
    H(arg, 1);
    f->inner->ops->parallel(f->inner, n, grain, task, arg);
}

static kn_ops with_shared(kn_ops o)
{
    o.alloc = device_alloc;
    o.free = device_free;
    o.write = device_write;
    o.read = device_read;
    o.copy = device_copy;
    o.clear = device_clear;
    o.error = device_error;
    o.threads = threads;
    o.set_threads = set_threads;
    o.parallel = parallel;
    o.choose = device_choose;
    o.to_bf16 = device_to_bf16;
    o.from_bf16 = device_from_bf16;
    o.sum_squares_add = device_sum_squares_add;
    o.clip = device_clip;
    o.adamw = device_adamw;
    o.adamw_bf16 = device_adamw_bf16;
    o.mean = device_mean;
    o.slerp_dots_add = device_slerp_dots_add;
    o.slerp = device_slerp;
    return o;
}

/* --- the whole --- */

kn_device *far_device_new(kn_device *inner)
{
    far_device *f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->away = mmap(NULL, REGION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    f->here = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (f->away == MAP_FAILED || f->here == MAP_FAILED) {
        if (f->away != MAP_FAILED)
            munmap(f->away, REGION);
        if (f->here != MAP_FAILED)
            munmap(f->here, REGION);
        free(f);
        return NULL;
    }
    pthread_mutex_init(&f->lock, NULL);
    f->inner = inner;
    f->left = f->limit = SIZE_MAX;
    f->table[0] = with_shared(float_table);
    f->table[1] = with_shared(narrow_table);
    f->base.ops = &f->table[0];
    f->base.ops_bf16 = inner->ops_bf16 ? &f->table[1] : NULL;
    f->base.one_answer = inner->one_answer;
    snprintf(f->numerics[0], sizeof(f->numerics[0]), "far-%s", inner->ops->numerics(inner));
    if (inner->ops_bf16)
        snprintf(f->numerics[1], sizeof(f->numerics[1]), "far-%s", inner->ops_bf16->numerics(inner));
    return &f->base;
}

void far_device_free(kn_device *d)
{
    far_device *f = (far_device *)d;
    if (!f)
        return;
    if (f->blocks > 0)
        die("_free", "was never freed", f->away + f->block[0].at, f->block[0].bytes);
    munmap(f->away, REGION);
    munmap(f->here, REGION);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

kn_device *far_device_inner(const kn_device *d)
{
    return ((const far_device *)d)->inner;
}

void far_device_break(kn_device *d, size_t calls)
{
    ((far_device *)d)->left = calls;
}

void far_device_limit(kn_device *d, size_t bytes)
{
    ((far_device *)d)->limit = bytes;
}

size_t far_device_calls(const kn_device *d)
{
    return ((const far_device *)d)->calls;
}

size_t far_device_kept(const kn_device *d)
{
    return ((const far_device *)d)->kept;
}

size_t far_device_reads(const kn_device *d)
{
    return ((const far_device *)d)->reads;
}
