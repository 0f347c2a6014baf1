/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "compare.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/bf16.h"
#include "sluice/random.h"

void *compare_memory(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    if (!p) {
        fprintf(stderr, "test_ops: out of memory\n");
        exit(2);
    }
    return p;
}

uint32_t *compare_tokens(size_t n, uint32_t below, uint64_t seed)
{
    uint32_t *x = compare_memory(n * sizeof(*x));
    const uint64_t key[2] = {seed, 0}, counter[2] = {0, 0};
    for (size_t i = 0; i < n; i++)
        x[i] = sluice_random_item(key, counter, (uint32_t)i) % below;
    return x;
}

/* --- twins --- */

static size_t size_of(kn_dtype type)
{
    return type == KN_F32 ? sizeof(float) : sizeof(uint16_t);
}

static void must(const side *s, int status, const char *what)
{
    if (status == KN_OK)
        return;
    const char *why = s->ops->error(s->device);
    fprintf(stderr, "test_ops: cannot %s: status %d%s%s\n", what, status, why ? ", " : "", why ? why : "");
    exit(2);
}

twin twin_of(compare *c, kn_dtype type, const float *values, size_t n)
{
    twin t = {.n = n, .type = type};
    uint16_t *narrow = compare_memory(n * sizeof(*narrow));
    for (size_t i = 0; i < n && type == KN_BF16; i++)
        narrow[i] = kn_narrow(values[i]);
    for (int i = 0; i < SIDES; i++) {
        const side *s = &c->side[i];
        t.at[i] = s->ops->alloc(s->device, n ? n * size_of(type) : 1);
        if (!t.at[i])
            must(s, KN_NO_MEMORY, "allocate");
        must(s, s->ops->write(s->device, t.at[i], type == KN_F32 ? (const void *)values : narrow, n * size_of(type)),
             "write");
    }
    free(narrow);
    return t;
}

static float *numbers(size_t n, float scale, uint64_t seed)
{
    float *x = compare_memory(n * sizeof(*x));
    const uint64_t key[2] = {seed, 0}, counter[2] = {0, 0};
    for (size_t i = 0; i < n; i++)
        x[i] = scale * (2 * sluice_uniform_float(sluice_random_item(key, counter, (uint32_t)i)) - 1);
    return x;
}

twin twin_random(compare *c, kn_dtype type, size_t n, float scale, uint64_t seed)
{
    float *x = numbers(n, scale, seed);
    const twin t = twin_of(c, type, x, n);
    free(x);
    return t;
}

void twin_free(compare *c, twin *t)
{
    for (int i = 0; i < SIDES; i++)
        c->side[i].ops->free(c->side[i].device, t->at[i]);
    *t = (twin){0};
}

float *twin_read(compare *c, const twin *t, int which)
{
    const side *s = &c->side[which];
    float *x = compare_memory(t->n * sizeof(*x));
    void *raw = t->type == KN_F32 ? (void *)x : compare_memory(t->n * sizeof(uint16_t));
    must(s, s->ops->read(s->device, raw, t->at[which], t->n * size_of(t->type)), "read");
    if (t->type == KN_BF16) {
        for (size_t i = 0; i < t->n; i++)
            x[i] = kn_widen(((const uint16_t *)raw)[i]);
        free(raw);
    }
    return x;
}

void matrices_new(compare *c, kn_matrix *m[SIDES], size_t out, size_t in, float scale, uint64_t seed)
{
    twin w = twin_random(c, KN_F32, out * in, scale, seed);
    for (int i = 0; i < SIDES; i++) {
        const side *s = &c->side[i];
        m[i] = s->ops->matrix_new(s->device, out, in, true);
        if (!m[i])
            must(s, KN_NO_MEMORY, "make a matrix");
        must(s, s->ops->matrix_set(s->device, m[i], w.at[i]), "set a matrix");
    }
    twin_free(c, &w);
}

void matrices_free(compare *c, kn_matrix *m[SIDES])
{
    for (int i = 0; i < SIDES; i++)
        c->side[i].ops->matrix_free(c->side[i].device, m[i]);
}

/* --- findings --- */

static finding *finding_of(compare *c, const char *op)
{
    for (unsigned i = 0; i < c->finds; i++)
        if (c->found[i].type == c->type && strcmp(c->found[i].op, op) == 0)
            return &c->found[i];
    if (c->finds == sizeof(c->found) / sizeof(c->found[0])) {
        fprintf(stderr, "test_ops: more ops than expected\n");
        exit(2);
    }
    finding *f = &c->found[c->finds++];
    *f = (finding){.op = op, .type = c->type};
    return f;
}

__attribute__((format(printf, 3, 4))) static void fails(const compare *c, finding *f, const char *format, ...)
{
    if (f->failures++ > 0)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(f->first, sizeof(f->first), format, args);
    va_end(args);
    if (c->first) {
        printf("%s is **wrong**: %s\n", f->op, f->first);
        exit(1);
    }
}

static double largest_of(const float *x, size_t n)
{
    double largest = 1e-30;
    for (size_t i = 0; i < n; i++)
        largest = fabs((double)x[i]) > largest ? fabs((double)x[i]) : largest;
    return largest;
}

/* The distance of bfloat16 numbers about x. */
static double unit_of(float x)
{
    int exponent;
    frexp(x, &exponent);
    return ldexp(1, (x == 0 || exponent < -125 ? -125 : exponent) - 8);
}

static void compare_arrays(compare *c, const char *op, const float *a, const float *b, size_t n, double tolerance,
                           bool each)
{
    finding *f = finding_of(c, op);
    f->cases++;
    const double largest = each ? 1 : largest_of(b, n);
    for (size_t i = 0; i < n; i++) {
        if (memcmp(&a[i], &b[i], sizeof(float)) == 0)
            continue;
        const double allowed = each ? tolerance * unit_of(b[i]) : tolerance * largest;
        const double error = fabs((double)a[i] - b[i]), share = allowed > 0 ? error / allowed : INFINITY;
        f->worst = share > f->worst ? share : f->worst;
        if (!(error <= allowed)) {
            f->worst = share > f->worst || isnan(share) ? share : f->worst;
            fails(c, f, "element %zu of %zu is %.9g, expected %.9g (largest %.3g)", i, n, (double)a[i], (double)b[i],
                  largest_of(b, n));
            return;
        }
    }
}

void compare_host(compare *c, const char *op, const float *device, const float *reference, size_t n, double tolerance)
{
    compare_arrays(c, op, device, reference, n, tolerance, false);
}

void compare_same(compare *c, const char *op, const twin *a, const twin *b)
{
    for (int i = 0; i < SIDES; i++) {
        float *x = twin_read(c, a, i), *y = twin_read(c, b, i);
        compare_host(c, op, x, y, a->n, 0);
        free(x);
        free(y);
    }
}

void compare_twin(compare *c, const char *op, const twin *t, limit l)
{
    float *a = twin_read(c, t, DEVICE), *b = twin_read(c, t, REFERENCE);
    const bool narrow = c->type == KN_BF16, each = narrow && l == WITHIN_ROUNDING && t->type == KN_BF16;
    const double tolerance = l == WITHIN_NOTHING ? 0 : each ? 2 : narrow && l == WITHIN_SUM ? 0x1p-7 : 1e-5;
    compare_arrays(c, op, a, b, t->n, tolerance, each);
    free(a);
    free(b);
}

void compare_true(compare *c, const char *op, bool holds, const char *what)
{
    finding *f = finding_of(c, op);
    f->cases++;
    if (!holds)
        fails(c, f, "does not hold: %s", what);
}
