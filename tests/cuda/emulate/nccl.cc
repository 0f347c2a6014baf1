/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * NCCL over the emulated cards: sums over all of them, each card's part queued on a stream of its own. The k-th call of
 * every rank is one assembly: it is done when all are there and what precedes it in each stream is done. What is wrong
 * in how ranks are used is a fault: calls that differ, a rank that never comes, memory or streams of another card,
 * ranks of one thread without a group. */
#include "runtime.h"

#include <algorithm>

#include <nccl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

namespace emulate_cuda
{

/* One rank's part in a call. */
struct Part {
    const float *from;
    float *to;
    bool grouped;
    pthread_t thread;
};

struct Collective {
    size_t count;
    std::vector<Part> part; /* by rank */
    std::shared_ptr<Assembly> assembly;
};

struct Communicators {
    std::vector<int> device;                             /* by rank */
    std::map<uint64_t, std::shared_ptr<Collective>> now; /* calls that some rank has not yet come to, by number */
    std::vector<std::weak_ptr<Collective>> under_way;
};

/* ---- assemblies ---- */

Assembly *assembly_of(const Stream *s)
{
    Assembly *m = s->queue.empty() ? nullptr : s->queue.front().assembly.get();
    if (m == nullptr || m->over || broken(s->device) != cudaSuccess) {
        return nullptr;
    }
    for (size_t rank = 0; rank < m->stream.size(); rank++) {
        if (m->stream[rank].get() == s && m->gone[rank]) {
            return nullptr;
        }
    }
    return m;
}

bool given_up(const Stream *s, Assembly *m)
{
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const double seconds = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    if (m->progress != rt.progress || m->since == 0) {
        m->progress = rt.progress;
        m->since = seconds;
    }
    if (seconds - m->since < settings.patience * 1e-3) {
        return false;
    }
    for (size_t rank = 0; rank < m->stream.size(); rank++) {
        if (m->stream[rank] == nullptr) {
            rt.working = s->device;
            fault("%s: rank %zu of %zu never comes", m->what.c_str(), rank, m->stream.size());
            rt.working = -1;
            m->gone.assign(m->gone.size(), true);
            return true;
        }
    }
    return false; /* a card that stopped working keeps the others, until they are told */
}

} // namespace emulate_cuda

using namespace emulate_cuda;

struct ncclComm {
    std::shared_ptr<Communicators> all;
    size_t rank;
    uint64_t calls;
    ncclResult_t problem; /* found while it worked */
};

namespace emulate_cuda
{

static __thread int groups; /* of the thread, open */

/* A card writes to the arrays of the others where they lie: memory of a pool must be open to them. Unless it was told
 * to take buffers. */
static bool open_to_all(const Collective &c, size_t rank)
{
    if (rt.buffers != 0) {
        return true;
    }
    for (const void *p : {static_cast<const void *>(c.part[rank].from), static_cast<const void *>(c.part[rank].to)}) {
        size_t at;
        const cudaMemPool_t pool = block_of(p, &at)->pool;
        for (const auto &by : c.assembly->stream) {
            if (pool != nullptr && by->device != pool->device &&
                (pool->open_to.size() <= (size_t)by->device || !pool->open_to[(size_t)by->device])) {
                fault("%s: rank %zu gives memory of a pool that device %d may not use (cudaMemPoolSetAccess)",
                      c.assembly->what.c_str(), rank, by->device);
                return false;
            }
        }
    }
    return true;
}

/* In the order of ranks. */
static void add_up(const Collective &c)
{
    std::string why;
    for (size_t rank = 0; rank < c.part.size(); rank++) {
        const Stream *by = c.assembly->stream[rank].get();
        if (!usable(c.part[rank].from, c.count * sizeof(float), by, &why) ||
            !usable(c.part[rank].to, c.count * sizeof(float), by, &why)) {
            fault("%s: rank %zu gives %s", c.assembly->what.c_str(), rank, why.c_str());
            return;
        }
        if (!open_to_all(c, rank)) {
            return;
        }
    }
    std::vector<float> sum(c.count);
    for (size_t rank = 0; rank < c.part.size(); rank++) {
        const char *from = inside(c.part[rank].from);
        for (size_t i = 0; i < c.count; i++) {
            float x;
            memcpy(&x, from + i * sizeof x, sizeof x);
            sum[i] = rank == 0 ? x : sum[i] + x;
        }
    }
    for (const Part &part : c.part) {
        memcpy(inside(part.to), sum.data(), c.count * sizeof(float));
    }
    rt.counts.sums++;
}

/* Whether rank and stream may take part so. */
static bool allowed(const ncclComm *comm, const Stream *stream, const void *from, const void *to)
{
    const int device = comm->all->device[comm->rank];
    if (stream == nullptr || stream->device != device) {
        fault("rank %zu of a sum is given a stream of another device than its own, %d", comm->rank, device);
        return false;
    }
    if (stream->capture != nullptr) {
        fault("rank %zu of a sum is asked for while its stream is captured", comm->rank);
        return false;
    }
    for (const void *p : {from, to}) {
        int of = -1;
        if (where(p, &of) != DEVICE || of != device) {
            fault("rank %zu of a sum is given memory that is not of its device, %d", comm->rank, device);
            return false;
        }
    }
    return true;
}

static bool fits(const Collective &c, size_t rank, size_t count)
{
    for (size_t i = 0; i < c.part.size(); i++) {
        if (c.assembly->stream[i] == nullptr) {
            continue;
        }
        if (c.count != count) {
            fault("%s: rank %zu gives %zu numbers", c.assembly->what.c_str(), rank, count);
            return false;
        }
        if (pthread_equal(c.part[i].thread, pthread_self()) && (groups == 0 || !c.part[i].grouped)) {
            fault("%s: one thread calls for ranks %zu and %zu without a group", c.assembly->what.c_str(), i, rank);
            return false;
        }
    }
    return true;
}

/* Nobody waits for the rank any more, and it waits for nobody. */
static void leave(const ncclComm *comm)
{
    for (const auto &weak : comm->all->under_way) {
        if (const auto c = weak.lock()) {
            c->assembly->gone[comm->rank] = true;
        }
    }
    rt.progress++;
}

} // namespace emulate_cuda

extern "C" {

ncclResult_t ncclGetVersion(int *version)
{
    Call call;
    *version = settings.nccl;
    return settings.nccl > 0 ? ncclSuccess : ncclSystemError;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    switch (result) {
    case ncclSuccess:
        return "no error";
    case ncclUnhandledCudaError:
        return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
    case ncclSystemError:
        return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
    case ncclInvalidArgument:
        return "invalid argument (run with NCCL_DEBUG=WARN for details)";
    case ncclInvalidUsage:
        return "invalid usage (run with NCCL_DEBUG=WARN for details)";
    default:
        return "internal error";
    }
}

ncclResult_t ncclCommInitAll(ncclComm_t *comms, int count, const int *devices)
{
    Call call;
    cudaError_t error;
    for (int i = 0; i < count; i++) {
        for (int k = 0; k < i; k++) {
            if (devices[k] == devices[i]) {
                return ncclInvalidUsage;
            }
        }
        if (card_of_device(devices[i], &error) == nullptr || broken(devices[i]) != cudaSuccess) {
            return ncclUnhandledCudaError;
        }
    }
    if (rt.buffers < 0) {
        const char *value = getenv("NCCL_P2P_DIRECT_DISABLE");
        rt.buffers = value != nullptr && strtol(value, nullptr, 0) != 0;
    }
    auto all = std::make_shared<Communicators>();
    all->device.assign(devices, devices + count);
    for (int i = 0; i < count; i++) {
        comms[i] = new ncclComm{all, (size_t)i, 0, ncclSuccess};
        rt.counts.communicators++;
    }
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    Call call;
    for (const auto &weak : comm->all->under_way) {
        const auto c = weak.lock();
        if (c != nullptr && !c->assembly->over && !c->assembly->gone[comm->rank]) {
            fault("%s: rank %zu is destroyed before it is done", c->assembly->what.c_str(), comm->rank);
        }
    }
    rt.counts.communicators--;
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    Call call;
    leave(comm);
    rt.counts.communicators--;
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *result)
{
    Call call;
    *result = comm->problem;
    return ncclSuccess;
}

ncclResult_t ncclGroupStart(void)
{
    groups++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    if (groups == 0) {
        return ncclInvalidUsage;
    }
    groups--;
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *send, void *receive, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t handle)
{
    Call call;
    const std::shared_ptr<Stream> stream = stream_of(handle);
    const size_t ranks = comm->all->device.size();
    if (type != ncclFloat32 || op != ncclSum) {
        return ncclInvalidArgument; /* the backend asks for no other */
    }
    if (!allowed(comm, stream.get(), send, receive)) {
        return ncclInvalidArgument;
    }
    const uint64_t number = ++comm->calls;
    auto &c = comm->all->now[number];
    if (c == nullptr) {
        c = std::make_shared<Collective>();
        c->count = count;
        c->part.resize(ranks);
        c->assembly = std::make_shared<Assembly>();
        c->assembly->what = "sum " + std::to_string(number) + " of " + std::to_string(count) + " numbers, which rank " +
                            std::to_string(comm->rank) + " asks for";
        c->assembly->stream.resize(ranks);
        c->assembly->gone.resize(ranks);
        auto &under_way = comm->all->under_way;
        under_way.erase(std::remove_if(under_way.begin(), under_way.end(), [](const auto &w) { return w.expired(); }),
                        under_way.end());
        under_way.push_back(c);
    } else if (!fits(*c, comm->rank, count)) {
        return ncclInvalidArgument;
    }
    const std::shared_ptr<Collective> mine = c;
    mine->part[comm->rank] =
        Part{static_cast<const float *>(send), static_cast<float *>(receive), groups > 0, pthread_self()};
    mine->assembly->stream[comm->rank] = stream;
    bool all_here = true;
    for (const auto &s : mine->assembly->stream) {
        all_here = all_here && s != nullptr;
    }
    if (all_here) {
        comm->all->now.erase(number);
    }
    if (out_of_luck(&settings.fail_nccl)) { /* as if the cards had lost each other: those that wait never end */
        comm->problem = ncclSystemError;
        mine->assembly->lost = true;
    }
    const cudaError_t error = enqueue(stream, Work{"a sum over cards", [mine] { add_up(*mine); }, {}, mine->assembly});
    return error == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

} // extern "C"
