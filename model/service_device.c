/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The device of a run: which one, and the service "sluice.device/1", which offers it to plugins. */
#include <sluice/device.h>

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/service_parts.h"

/* --- which one ------------------------------------------------------------------------------------------------------
 */

static int open_cpu(service_device *d, const sluice_host *host, int threads)
{
    const char *why = NULL;
    d->kn = d->all[0] = kn_cpu_new(threads, NULL, &why);
    d->count = 1;
    return d->kn ? SLUICE_OK
                 : sluice_error(host, SLUICE_FAILED, "the CPU backend cannot start: %s", why ? why : "out of memory");
}

/* NULL in d->kn and a reason where there is none. */
static void open_cuda(service_device *d, const sluice_host *host, const char **why)
{
    d->backend = sluice_service(host, KN_BACKEND_CUDA);
    *why = "no CUDA backend is installed (it is built where configure finds the CUDA toolkit; `sluice plugins` says "
           "whether one was refused)";
    if (!d->backend)
        return;
    *why = "the CUDA backend is of another version of sluice; build both anew";
    if (!kn_backend_fits(d->backend))
        return;
    d->kn = d->all[0] = d->backend->open(d->backend, 0, why);
    d->count = d->kn ? 1 : 0;
}

/* The others, and what joins them. */
static int open_more(service_device *d, const sluice_host *host, size_t devices)
{
    const size_t there = d->backend->count(d->backend);
    const char *why = NULL, *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (devices == 0)
        devices = there < SM_MOST_DEVICES ? there : SM_MOST_DEVICES;
    if (devices > there)
        return sluice_error(host, SLUICE_UNSUPPORTED,
                            "devices = %zu, and there %s %zu GPU%s%s%s%s; ask for fewer, or 0 for all there are",
                            devices, there == 1 ? "is" : "are", there, there == 1 ? "" : "s",
                            visible ? " that CUDA_VISIBLE_DEVICES=" : "", visible ? visible : "",
                            visible ? " shows" : "");
    for (; d->count < devices; d->count++)
        if (!(d->all[d->count] = d->backend->open(d->backend, d->count, &why)))
            return sluice_error(host, SLUICE_UNSUPPORTED, "devices = %zu: %s", devices, why);
    if (devices > 1 && !(d->together = d->backend->join(d->backend, d->all, devices, &why)))
        return sluice_error(host, SLUICE_UNSUPPORTED, "devices = %zu: %s", devices, why);
    return SLUICE_OK;
}

void service_device_tell(service_device *d, const sluice_host *host)
{
    const char *note = d->backend && d->backend->note ? d->backend->note(d->kn) : NULL;
    if (note && atomic_exchange(&d->told, note) != note)
        sluice_log(host, SLUICE_LOG_INFO, "%s", note);
}

static int open_gpus(service_device *d, const sluice_host *host, int devices, int threads)
{
    const int rc = devices == 1 ? SLUICE_OK : open_more(d, host, (size_t)devices);
    for (size_t i = 0; rc == SLUICE_OK && i < d->count; i++)
        d->all[i]->ops->set_threads(d->all[i], threads);
    if (rc == SLUICE_OK && d->together)
        sluice_log(host, SLUICE_LOG_INFO, "models are computed on the GPU %s, and trained on %zu of them (%s)",
                   d->backend->name(d->kn), d->count, d->together->name);
    else if (rc == SLUICE_OK)
        sluice_log(host, SLUICE_LOG_INFO, "models are computed on the GPU %s", d->backend->name(d->kn));
    if (rc == SLUICE_OK && d->together && d->together->note)
        sluice_log(host, SLUICE_LOG_INFO, "%s", d->together->note);
    if (rc == SLUICE_OK)
        service_device_tell(d, host);
    if (rc != SLUICE_OK)
        service_device_close(d);
    return rc;
}

int service_device_open(service_device *d, const sluice_host *host, int wanted, int devices, int threads)
{
    const char *why = NULL;
    *d = (service_device){0};
    if (wanted == SERVICE_CPU && devices > 1)
        return sluice_error(host, SLUICE_BAD_PARAMETER,
                            "devices = %d with device = \"cpu\": the processor is one device, whose threads are "
                            "`threads`; leave devices out",
                            devices);
    if (wanted == SERVICE_CPU)
        return open_cpu(d, host, threads);
    open_cuda(d, host, &why);
    if (d->kn)
        return open_gpus(d, host, devices, threads);
    if (devices > 1)
        return sluice_error(host, SLUICE_UNSUPPORTED, "devices = %d: %s; or leave devices out", devices, why);
    if (wanted == SERVICE_CUDA)
        return sluice_error(host, SLUICE_UNSUPPORTED, "device = \"cuda\": %s; or write device = \"cpu\"", why);
    if (d->backend) {
        snprintf(d->reason, sizeof(d->reason), "%s", why);
        sluice_log(host, SLUICE_LOG_INFO, "models are computed on the processor: %s", why);
    }
    d->backend = NULL;
    return open_cpu(d, host, threads);
}

void service_device_close(service_device *d)
{
    if (d->together)
        d->together->free(d->together);
    for (size_t i = 0; d->backend && i < d->count; i++)
        d->backend->close(d->backend, d->all[i]);
    if (d->kn && !d->backend)
        kn_cpu_free(d->kn);
    *d = (service_device){0};
}

/* --- sluice.device/1 ------------------------------------------------------------------------------------------------
 */

typedef struct provider {
    sluice_device_service table;
    const service_device *device;
    uint64_t used, high; /* bytes that stages hold, where the device does not count */
    pthread_mutex_t lock;
    char together[96]; /* what joins devices; "" until it is asked for */
} provider;

typedef struct held {
    void *p;
    size_t bytes;
} held;

struct sluice_device {
    provider *from;
    const sluice_host *host;
    kn_device *kn;
    held *held;
    size_t held_count, held_capacity;
};

static int report(const sluice_device *d, int kn, const char *what)
{
    sm_error error;
    if (kn == KN_OK)
        return SLUICE_OK;
    const int rc = sm_device_fail(d->kn, kn, what, &error);
    return service_report(d->host, rc, &error, 0);
}

static void count_bytes(provider *p, size_t taken, size_t given)
{
    const uint64_t used = __atomic_add_fetch(&p->used, taken - given, __ATOMIC_RELAXED);
    uint64_t high = __atomic_load_n(&p->high, __ATOMIC_RELAXED);
    while (used > high && !__atomic_compare_exchange_n(&p->high, &high, used, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

static void *device_alloc(sluice_device *d, size_t bytes)
{
    if (d->held_count == d->held_capacity) {
        const size_t capacity = 2 * d->held_capacity + 16;
        held *grown = realloc(d->held, capacity * sizeof(*grown));
        if (!grown) {
            sluice_error(d->host, SLUICE_NO_MEMORY, "out of memory");
            return NULL;
        }
        d->held = grown;
        d->held_capacity = capacity;
    }
    void *p = d->kn->ops->alloc(d->kn, bytes);
    if (!p) {
        report(d, KN_NO_MEMORY, "a plugin");
        return NULL;
    }
    d->held[d->held_count++] = (held){p, bytes};
    count_bytes(d->from, bytes, 0);
    return p;
}

static void device_free(sluice_device *d, void *p)
{
    size_t i = d->held_count;
    if (!p)
        return;
    while (i > 0 && d->held[i - 1].p != p)
        i--;
    if (i == 0) {
        sluice_error(d->host, SLUICE_FAILED, "memory was freed that this stage did not get, or freed twice");
        return;
    }
    count_bytes(d->from, 0, d->held[i - 1].bytes);
    d->held[i - 1] = d->held[--d->held_count];
    d->kn->ops->free(d->kn, p);
}

static int device_write(sluice_device *d, void *to, const void *from, size_t bytes)
{
    return report(d, d->kn->ops->write(d->kn, to, from, bytes), "writing");
}

static int device_read(sluice_device *d, void *to, const void *from, size_t bytes)
{
    return report(d, d->kn->ops->read(d->kn, to, from, bytes), "reading");
}

static int device_copy(sluice_device *d, void *to, const void *from, size_t bytes)
{
    return report(d, d->kn->ops->copy(d->kn, to, from, bytes), "copying");
}

static int device_clear(sluice_device *d, void *p, size_t bytes)
{
    return report(d, d->kn->ops->clear(d->kn, p, bytes), "clearing");
}

/* The op table has no product of two plain arrays: one factor becomes a matrix for the call. */
static int product_with_matrix(sluice_device *d, int layout, float *y, const float *a, const float *b, size_t m,
                               size_t n, size_t k, bool accumulate)
{
    const kn_ops *ops = d->kn->ops;
    kn_matrix *w = layout == SLUICE_NT ? ops->matrix_new(d->kn, n, k, false) : ops->matrix_new(d->kn, k, n, true);
    if (!w)
        return KN_NO_MEMORY;
    int kn = ops->matrix_set(d->kn, w, b);
    if (kn == KN_OK && layout == SLUICE_NT)
        kn = ops->linear(d->kn, y, a, w, NULL, accumulate ? y : NULL, m);
    else if (kn == KN_OK)
        kn = ops->linear_backward_input(d->kn, y, a, w, m, accumulate);
    ops->matrix_free(d->kn, w);
    return kn;
}

static int device_product(sluice_device *d, int layout, float *y, const float *a, const float *b, size_t m, size_t n,
                          size_t k, bool accumulate)
{
    const kn_ops *ops = d->kn->ops;
    int kn = KN_OK;
    if (layout < SLUICE_NT || layout > SLUICE_TN)
        return sluice_error(d->host, SLUICE_FAILED, "a product's layout is %d; use SLUICE_NT, SLUICE_NN or SLUICE_TN",
                            layout);
    if (m == 0 || n == 0)
        return SLUICE_OK;
    if (!accumulate && k == 0)
        kn = ops->clear(d->kn, y, m * n * sizeof(*y));
    if (kn == KN_OK && k > 0)
        kn = layout == SLUICE_TN ? ops->linear_backward_weight(d->kn, y, NULL, a, b, k, m, n, accumulate)
                                 : product_with_matrix(d, layout, y, a, b, m, n, k, accumulate);
    return report(d, kn, "a product of matrices");
}

static int device_axpy(sluice_device *d, float *y, float a, const float *x, size_t n)
{
    return report(d, n > 0 ? d->kn->ops->axpy(d->kn, y, a, x, n) : KN_OK, "adding");
}

/* rms_norm divides by √(Σx²/n): with weights 1/√n rows get length 1. Its eps is far below any row's but zero's. */
static int device_unit_rows(sluice_device *d, float *y, const float *x, size_t rows, size_t columns)
{
    const kn_ops *ops = d->kn->ops;
    if (rows == 0 || columns == 0)
        return SLUICE_OK;
    float *host = malloc(columns * sizeof(*host)), *w = host ? ops->alloc(d->kn, columns * sizeof(*w)) : NULL;
    int kn = w ? KN_OK : KN_NO_MEMORY;
    if (w) {
        for (size_t i = 0; i < columns; i++)
            host[i] = (float)(1 / sqrt((double)columns));
        kn = ops->write(d->kn, w, host, columns * sizeof(*w));
        if (kn == KN_OK)
            kn = ops->rms_norm(d->kn, y, NULL, x, w, rows, columns, 1e-30f);
        ops->free(d->kn, w);
    }
    free(host);
    return report(d, kn, "making rows of length 1");
}

static int device_sum_squares(sluice_device *d, double *sum, const float *x, size_t n)
{
    const kn_ops *ops = d->kn->ops;
    double *there = ops->alloc(d->kn, sizeof(*there));
    int kn = there ? ops->clear(d->kn, there, sizeof(*there)) : KN_NO_MEMORY;
    *sum = 0;
    if (kn == KN_OK && n > 0)
        kn = ops->sum_squares_add(d->kn, there, x, n);
    if (kn == KN_OK)
        kn = ops->read(d->kn, sum, there, sizeof(*sum));
    ops->free(d->kn, there);
    return report(d, kn, "a sum of squares");
}

static int device_info(sluice_device *d, sluice_device_info *out)
{
    const service_device *of = d->from->device;
    pthread_mutex_lock(&d->from->lock);
    if (of->backend && !*d->from->together) /* not before: it loads the library */
        of->backend->joins(of->backend, d->from->together, sizeof(d->from->together));
    pthread_mutex_unlock(&d->from->lock);
    const sluice_device_info all = {.size = out->size,
                                    .kind = of->backend ? of->backend->kind : "cpu",
                                    .name = of->backend ? of->backend->name(of->kn) : "the processor",
                                    .numerics = of->kn->ops->numerics(of->kn),
                                    .host_memory = of->kn->host_memory,
                                    .reason = *of->reason ? of->reason : NULL,
                                    .count = of->backend ? (uint32_t)of->backend->count(of->backend) : 1,
                                    .together = of->backend ? d->from->together : NULL};
    memcpy(out, &all, out->size < sizeof(all) ? out->size : sizeof(all));
    return SLUICE_OK;
}

static int device_memory(sluice_device *d, sluice_device_memory *out)
{
    const kn_ops *ops = d->kn->ops;
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    kn_memory_use m = {.used = d->from->used, .high = d->from->high, .reserved = d->from->used};
    int kn = KN_OK;
    if (ops->memory) {
        kn = ops->memory(d->kn, &m);
    } else {
        m.free = (size_t)(page * (uint64_t)sysconf(_SC_AVPHYS_PAGES));
        m.total = (size_t)(page * (uint64_t)sysconf(_SC_PHYS_PAGES));
    }
    const sluice_device_memory all = {.size = out->size,
                                      .used = m.used,
                                      .high = m.high,
                                      .reserved = m.reserved,
                                      .free = m.free,
                                      .total = m.total,
                                      .limit = m.limit};
    memcpy(out, &all, out->size < sizeof(all) ? out->size : sizeof(all));
    return report(d, kn, "asking for the figures of memory");
}

static int device_open(const sluice_device_service *table, const sluice_host *host, sluice_device **out)
{
    provider *p = (provider *)((char *)(uintptr_t)table - offsetof(provider, table));
    *out = calloc(1, sizeof(**out));
    if (!*out)
        return sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
    **out = (sluice_device){.from = p, .host = host, .kn = p->device->kn};
    return SLUICE_OK;
}

static void device_close(sluice_device *d)
{
    size_t bytes = 0;
    if (!d)
        return;
    for (size_t i = 0; i < d->held_count; i++) {
        bytes += d->held[i].bytes;
        d->kn->ops->free(d->kn, d->held[i].p);
    }
    if (d->held_count > 0)
        sluice_log(d->host, SLUICE_LOG_WARNING, "%zu bytes of device memory in %zu pieces were not freed", bytes,
                   d->held_count);
    count_bytes(d->from, 0, bytes);
    free(d->held);
    free(d);
}

static int provider_init(void *self, const sluice_host *host)
{
    provider *p = self;
    const sluice_model_service *models = sluice_service(host, SLUICE_MODEL_SERVICE);
    if (!models)
        return sluice_error(host, SLUICE_FAILED, "the model runtime, whose device it is, cannot start");
    p->device = service_device_of(models);
    pthread_mutex_init(&p->lock, NULL);
    p->table = (sluice_device_service){.size = sizeof(sluice_device_service),
                                       .open = device_open,
                                       .close = device_close,
                                       .info = device_info,
                                       .memory = device_memory,
                                       .alloc = device_alloc,
                                       .free = device_free,
                                       .write = device_write,
                                       .read = device_read,
                                       .copy = device_copy,
                                       .clear = device_clear,
                                       .product = device_product,
                                       .axpy = device_axpy,
                                       .unit_rows = device_unit_rows,
                                       .sum_squares = device_sum_squares};
    return SLUICE_OK;
}

static const void *provider_get(void *self)
{
    return &((provider *)self)->table;
}

static const sluice_param params[] = {SLUICE_PARAMS_END};

const sluice_service_class service_device_class = {
    SLUICE_SERVICE_CLASS("device", "the device that models are computed on, for plugins that multiply matrices",
                         provider, params),
    .base.init = provider_init,
    .base.doc = "Memory of the device, products of matrices and a few other operations, on the processor as on a GPU.",
    .service = SLUICE_DEVICE_SERVICE,
    .get = provider_get,
};
