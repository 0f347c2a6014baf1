/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "onednn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef HAVE_ONEDNN

kn_onednn *kn_onednn_new(void)
{
    return NULL;
}

void kn_onednn_free(kn_onednn *o)
{
}

void kn_onednn_name(char *name, size_t size)
{
    name[0] = 0;
}

kn_onednn_side *kn_onednn_side_new(kn_onednn *o, size_t K, size_t N, size_t row_stride, size_t column_stride)
{
    return NULL;
}

void kn_onednn_side_free(kn_onednn_side *s)
{
}

int kn_onednn_side_set(kn_onednn_side *s, const float *w)
{
    return KN_UNSUPPORTED;
}

int kn_onednn_product(kn_cpu *cpu, const kn_onednn_side *s, float *y, const float *x, const float *bias,
                      const float *residual, bool accumulate, size_t T)
{
    return KN_UNSUPPORTED;
}

#else

#include <oneapi/dnnl/dnnl.h>

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t shape; /* a handle */
static const_dnnl_memory_desc_t in(const shape *s)
{
    return *s;
}
#else
typedef dnnl_memory_desc_t shape; /* a struct */
static const dnnl_memory_desc_t *in(const shape *s)
{
    return s;
}
#endif

struct kn_onednn {
    dnnl_engine_t engine;
};

/* A product that overwrites its result, or adds to it. */
typedef struct flavour {
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t primitive;
    size_t scratch_bytes;
} flavour;

struct kn_onednn_side {
    kn_onednn *onednn;
    size_t K, N, row_stride, column_stride;
    flavour write, add;
    dnnl_memory_t weights; /* in the layout that the primitives ask for */
    void *packed;
};

/* --- what differs between 2.x and 3.x --- */

static bool make_shape(shape *s, size_t rows, size_t columns, size_t row_stride, size_t column_stride, bool any)
{
    const dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    const dnnl_dims_t strides = {(dnnl_dim_t)row_stride, (dnnl_dim_t)column_stride};
#if DNNL_VERSION_MAJOR >= 3
    return (any ? dnnl_memory_desc_create_with_tag(s, 2, dims, dnnl_f32, dnnl_format_tag_any)
                : dnnl_memory_desc_create_with_strides(s, 2, dims, dnnl_f32, strides)) == dnnl_success;
#else
    return (any ? dnnl_memory_desc_init_by_tag(s, 2, dims, dnnl_f32, dnnl_format_tag_any)
                : dnnl_memory_desc_init_by_strides(s, 2, dims, dnnl_f32, strides)) == dnnl_success;
#endif
}

static void drop_shape(shape *s)
{
#if DNNL_VERSION_MAJOR >= 3
    dnnl_memory_desc_destroy(*s);
#endif
}

static dnnl_status_t make_desc(dnnl_primitive_desc_t *desc, dnnl_engine_t engine, const shape *x, const shape *w,
                               const shape *y, const_dnnl_primitive_attr_t attr)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_matmul_primitive_desc_create(desc, engine, in(x), in(w), NULL, in(y), attr);
#else
    dnnl_matmul_desc_t matmul;
    const dnnl_status_t status = dnnl_matmul_desc_init(&matmul, x, w, NULL, y);
    return status == dnnl_success ? dnnl_primitive_desc_create(desc, &matmul, attr, engine, NULL) : status;
#endif
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef);
#else
    return dnnl_post_ops_append_sum(ops, 1.0f);
#endif
}

static size_t shape_bytes(const_dnnl_primitive_desc_t desc, dnnl_query_t what)
{
#if DNNL_VERSION_MAJOR >= 3
    const const_dnnl_memory_desc_t s = dnnl_primitive_desc_query_md(desc, what, 0);
#else
    const dnnl_memory_desc_t *s = dnnl_primitive_desc_query_md(desc, what, 0);
#endif
    return s ? dnnl_memory_desc_get_size(s) : 0;
}

/* --- building --- */

kn_onednn *kn_onednn_new(void)
{
    kn_onednn *o = calloc(1, sizeof(*o));
    if (o && dnnl_engine_create(&o->engine, dnnl_cpu, 0) != dnnl_success) {
        free(o);
        return NULL;
    }
    return o;
}

void kn_onednn_free(kn_onednn *o)
{
    if (!o)
        return;
    dnnl_engine_destroy(o->engine);
    free(o);
}

void kn_onednn_name(char *name, size_t size)
{
    const dnnl_version_t *v = dnnl_version();
    snprintf(name, size, "onednn%d.%d.%d-isa%x", v->major, v->minor, v->patch, (unsigned)dnnl_get_effective_cpu_isa());
}

static bool make_flavour(flavour *f, dnnl_engine_t engine, const shape *x, const shape *w, const shape *y, bool add)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    bool ok = dnnl_primitive_attr_create(&attr) == dnnl_success &&
              dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) == dnnl_success;
    if (ok && add)
        ok = dnnl_post_ops_create(&ops) == dnnl_success && append_sum(ops) == dnnl_success &&
             dnnl_primitive_attr_set_post_ops(attr, ops) == dnnl_success;
    ok = ok && make_desc(&f->desc, engine, x, w, y, attr) == dnnl_success &&
         dnnl_primitive_create(&f->primitive, f->desc) == dnnl_success;
    if (ok)
        f->scratch_bytes = shape_bytes(f->desc, dnnl_query_scratchpad_md);
    if (ops)
        dnnl_post_ops_destroy(ops);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    return ok;
}

static bool make_weights(kn_onednn_side *s)
{
#if DNNL_VERSION_MAJOR >= 3
    const const_dnnl_memory_desc_t layout = dnnl_primitive_desc_query_md(s->write.desc, dnnl_query_weights_md, 0);
#else
    const dnnl_memory_desc_t *layout = dnnl_primitive_desc_query_md(s->write.desc, dnnl_query_weights_md, 0);
#endif
    s->packed = kn_memory_new(dnnl_memory_desc_get_size(layout));
    if (!s->packed || dnnl_memory_create(&s->weights, layout, s->onednn->engine, s->packed) != dnnl_success)
        return false;
    memset(s->packed, 0, dnnl_memory_desc_get_size(layout));
    /* The adding flavour is asked for the very same layout. */
    shape x, y;
    if (!make_shape(&x, KN_ONEDNN_ROWS, s->K, s->K, 1, false))
        return false;
    bool ok = make_shape(&y, KN_ONEDNN_ROWS, s->N, s->N, 1, false);
    if (ok) {
        const shape same = (shape)
#if DNNL_VERSION_MAJOR >= 3
            layout;
#else
            *layout;
#endif
        ok = make_flavour(&s->add, s->onednn->engine, &x, &same, &y, true);
        drop_shape(&y);
    }
    drop_shape(&x);
    return ok;
}

kn_onednn_side *kn_onednn_side_new(kn_onednn *o, size_t K, size_t N, size_t row_stride, size_t column_stride)
{
    kn_onednn_side *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    *s = (kn_onednn_side){.onednn = o, .K = K, .N = N, .row_stride = row_stride, .column_stride = column_stride};
    shape x, w, y;
    bool ok = false;
    if (make_shape(&x, KN_ONEDNN_ROWS, K, K, 1, false)) {
        if (make_shape(&w, K, N, 0, 0, true)) {
            if (make_shape(&y, KN_ONEDNN_ROWS, N, N, 1, false)) {
                ok = make_flavour(&s->write, o->engine, &x, &w, &y, false);
                drop_shape(&y);
            }
            drop_shape(&w);
        }
        drop_shape(&x);
    }
    if (!ok || !make_weights(s)) {
        kn_onednn_side_free(s);
        return NULL;
    }
    return s;
}

static void drop_flavour(flavour *f)
{
    if (f->primitive)
        dnnl_primitive_destroy(f->primitive);
    if (f->desc)
        dnnl_primitive_desc_destroy(f->desc);
}

void kn_onednn_side_free(kn_onednn_side *s)
{
    if (!s)
        return;
    if (s->weights)
        dnnl_memory_destroy(s->weights);
    drop_flavour(&s->write);
    drop_flavour(&s->add);
    free(s->packed);
    free(s);
}

int kn_onednn_side_set(kn_onednn_side *s, const float *w)
{
    shape plain;
    dnnl_memory_t from = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_stream_t stream = NULL;
    dnnl_engine_t engine = s->onednn->engine;
    if (!make_shape(&plain, s->K, s->N, s->row_stride, s->column_stride, false))
        return KN_NO_MEMORY;
#if DNNL_VERSION_MAJOR >= 3
    const_dnnl_memory_desc_t to = NULL;
#else
    const dnnl_memory_desc_t *to = NULL;
#endif
    bool ok = dnnl_memory_create(&from, in(&plain), engine, (void *)w) == dnnl_success &&
              dnnl_memory_get_memory_desc(s->weights, &to) == dnnl_success &&
              dnnl_reorder_primitive_desc_create(&desc, in(&plain), engine, to, engine, NULL) == dnnl_success &&
              dnnl_primitive_create(&reorder, desc) == dnnl_success &&
              dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) == dnnl_success;
    if (ok) {
        const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, s->weights}};
        ok = dnnl_primitive_execute(reorder, stream, 2, args) == dnnl_success &&
             dnnl_stream_wait(stream) == dnnl_success;
    }
    if (stream)
        dnnl_stream_destroy(stream);
    if (reorder)
        dnnl_primitive_destroy(reorder);
    if (desc)
        dnnl_primitive_desc_destroy(desc);
    if (from)
        dnnl_memory_destroy(from);
    drop_shape(&plain);
    return ok ? KN_OK : KN_NO_MEMORY;
}

/* --- running --- */

typedef struct product_job {
    const kn_onednn_side *side;
    float *y;
    const float *x, *bias, *residual;
    bool add;
    size_t T, room; /* bytes of scratch a worker */
    char *scratch;
    int *status; /* a tile */
} product_job;

/* The library's threads are not wanted inside ours: its OpenMP runtime, where it has one, is told so on each thread. */
extern void omp_set_num_threads(int) __attribute__((weak));

static void one_thread(void)
{
    static __thread bool done;
    if (!done && omp_set_num_threads)
        omp_set_num_threads(1);
    done = true;
}

static bool run_tile(const product_job *j, const flavour *f, const float *x, float *y, void *scratch)
{
    const kn_onednn_side *s = j->side;
    dnnl_memory_t mx = NULL, my = NULL, ms = NULL;
    dnnl_stream_t stream = NULL;
    dnnl_engine_t engine = s->onednn->engine;
    bool ok = dnnl_memory_create(&mx, dnnl_primitive_desc_query_md(f->desc, dnnl_query_src_md, 0), engine, (void *)x) ==
                  dnnl_success &&
              dnnl_memory_create(&my, dnnl_primitive_desc_query_md(f->desc, dnnl_query_dst_md, 0), engine, y) ==
                  dnnl_success &&
              dnnl_memory_create(&ms, dnnl_primitive_desc_query_md(f->desc, dnnl_query_scratchpad_md, 0), engine,
                                 scratch) == dnnl_success &&
              dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) == dnnl_success;
    if (ok) {
        const dnnl_exec_arg_t args[] = {
            {DNNL_ARG_SRC, mx}, {DNNL_ARG_WEIGHTS, s->weights}, {DNNL_ARG_DST, my}, {DNNL_ARG_SCRATCHPAD, ms}};
        ok = dnnl_primitive_execute(f->primitive, stream, 4, args) == dnnl_success &&
             dnnl_stream_wait(stream) == dnnl_success;
    }
    if (stream)
        dnnl_stream_destroy(stream);
    if (ms)
        dnnl_memory_destroy(ms);
    if (my)
        dnnl_memory_destroy(my);
    if (mx)
        dnnl_memory_destroy(mx);
    return ok;
}

static void product_piece(void *arg, size_t index, unsigned worker)
{
    const product_job *j = arg;
    const kn_onednn_side *s = j->side;
    const size_t row = index * KN_ONEDNN_ROWS, rows = kn_min(KN_ONEDNN_ROWS, j->T - row);
    const flavour *f = j->add ? &s->add : &s->write;
    char *at = j->scratch + worker * j->room;
    float *x_tile = (float *)at, *y_tile = x_tile + KN_ONEDNN_ROWS * s->K;
    void *scratch = y_tile + KN_ONEDNN_ROWS * s->N;
    const float *x = j->x + row * s->K;
    float *y = j->y + row * s->N;
    one_thread();
    if (j->bias || j->residual)
        for (size_t r = 0; r < rows; r++)
            for (size_t n = 0; n < s->N; n++)
                y[r * s->N + n] = (j->bias ? j->bias[n] : 0) + (j->residual ? j->residual[(row + r) * s->N + n] : 0);
    if (rows == KN_ONEDNN_ROWS) {
        j->status[index] = run_tile(j, f, x, y, scratch) ? KN_OK : KN_NO_MEMORY;
        return;
    }
    memset(x_tile, 0, KN_ONEDNN_ROWS * s->K * sizeof(float));
    memset(y_tile, 0, KN_ONEDNN_ROWS * s->N * sizeof(float));
    memcpy(x_tile, x, rows * s->K * sizeof(float));
    memcpy(y_tile, y, j->add ? rows * s->N * sizeof(float) : 0);
    j->status[index] = run_tile(j, f, x_tile, y_tile, scratch) ? KN_OK : KN_NO_MEMORY;
    memcpy(y, y_tile, rows * s->N * sizeof(float));
}

int kn_onednn_product(kn_cpu *cpu, const kn_onednn_side *s, float *y, const float *x, const float *bias,
                      const float *residual, bool accumulate, size_t T)
{
    const size_t tiles = kn_ceil(T, KN_ONEDNN_ROWS);
    const size_t library =
        s->write.scratch_bytes > s->add.scratch_bytes ? s->write.scratch_bytes : s->add.scratch_bytes;
    product_job j = {
        .side = s, .y = y, .x = x, .bias = bias, .residual = residual, .T = T, .add = accumulate || bias || residual};
    j.room = (KN_ONEDNN_ROWS * (s->K + s->N) * sizeof(float) + library + 63) / 64 * 64;
    j.scratch = kn_scratch_take(cpu, j.room * kn_threads(cpu) + tiles * sizeof(int));
    if (!j.scratch)
        return KN_NO_MEMORY;
    j.status = (int *)(j.scratch + j.room * kn_threads(cpu));
    kn_run(cpu, tiles, 2.0 * (double)T * (double)s->K * (double)s->N / 100, product_piece, &j);
    int status = KN_OK;
    for (size_t i = 0; i < tiles; i++)
        status = j.status[i] != KN_OK ? j.status[i] : status;
    kn_scratch_give(cpu, j.scratch);
    return status;
}

#endif
