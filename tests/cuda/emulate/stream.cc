/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * Streams and events. Nothing runs when it is asked for, unless the seed says so: work waits in its stream until the
 * host waits for it, and among streams whose next work may run, the seed chooses. So a missing event, or a pinned
 * buffer filled again too early, gives wrong results here. */
#include "runtime.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

struct CUevent_st {
    emulate_cuda::Point at;                         /* of the last record; stream null: never recorded */
    std::shared_ptr<emulate_cuda::Capture> capture; /* of the last record, when it was in a capture */
    std::vector<int> nodes;
    std::shared_ptr<double> time; /* when the last record was reached */
    bool timed;
};

namespace emulate_cuda
{

std::shared_ptr<Stream> new_stream(int device, bool blocking)
{
    auto s = std::make_shared<Stream>();
    s->device = device;
    s->blocking = blocking;
    rt.streams.push_back(s);
    return s;
}

std::shared_ptr<Stream> stream_of(cudaStream_t handle)
{
    cudaError_t error;
    if (handle == nullptr || handle == cudaStreamLegacy || handle == cudaStreamPerThread) {
        const Card *card = card_of_device(current_device(), &error);
        return card == nullptr ? nullptr : card->legacy;
    }
    auto found = rt.handles.find(handle);
    return found == rt.handles.end() ? nullptr : found->second;
}

/* ---- execution ---- */

/* The stream that must go on before s can: s itself, or what its next work waits for. nullptr when that is another
 * thread of the host, or nothing that will ever be. */
static Stream *needed(Stream *s, int depth = 0)
{
    if (s->queue.empty() || depth > 64) {
        return nullptr;
    }
    for (const Point &p : s->queue.front().after) {
        if (p.stream->done < p.ticket) {
            return needed(p.stream.get(), depth + 1);
        }
    }
    if (Assembly *m = assembly_of(s)) {
        for (const auto &other : m->stream) {
            if (other == nullptr || m->lost) {
                return nullptr;
            }
            if (other.get() != s && assembly_of(other.get()) != m) {
                return needed(other.get(), depth + 1);
            }
        }
    }
    return s;
}

static bool may_run(Stream *s)
{
    return needed(s) == s;
}

static void run_next(Stream *s)
{
    Assembly *m = s->queue.front().assembly.get();
    const bool runs = m == nullptr ? broken(s->device) == cudaSuccess : assembly_of(s) == m;
    Work work = std::move(s->queue.front());
    s->queue.pop_front();
    if (runs) {
        const int before = rt.working;
        rt.working = s->device;
        work.run();
        rt.working = before;
    }
    if (runs && m != nullptr) {
        m->over = true;
    }
    s->done++;
    rt.progress++;
}

static void forget_destroyed()
{
    for (size_t i = 0; i < rt.streams.size(); i++) {
        if (rt.streams[i]->destroyed && rt.streams[i]->queue.empty()) {
            rt.streams.erase(rt.streams.begin() + (long)i--);
        }
    }
}

/* Some stream that can go on: with seed 1 the last one made that is not `but`; at random above. */
static Stream *any(const Stream *but)
{
    Stream *chosen = nullptr;
    uint64_t count = 0;
    for (const auto &s : rt.streams) {
        if (s->queue.empty() || !may_run(s.get())) {
            continue;
        }
        if (settings.seed == 1 ? s.get() != but || chosen == nullptr : draw() % ++count == 0) {
            chosen = s.get();
        }
    }
    return chosen;
}

void run_until(const std::shared_ptr<Stream> &stream, uint64_t ticket)
{
    if (stream->done >= ticket) {
        return;
    }
    while (stream->done < ticket) {
        Stream *next = settings.seed == 0 ? needed(stream.get()) : any(stream.get());
        if (next != nullptr) {
            run_next(next);
            continue;
        }
        close_memory();
        Assembly *m = assembly_of(stream.get());
        if (m == nullptr || !given_up(stream.get(), m)) {
            let_others();
        }
    }
    close_memory();
    forget_destroyed();
}

/* As far as it goes without waiting for other threads of the host. */
static void run_along(const std::shared_ptr<Stream> &stream)
{
    for (Stream *next; !stream->queue.empty() && (next = any(stream.get())) != nullptr;) {
        run_next(next);
    }
    close_memory();
    forget_destroyed();
}

void run_all()
{
    const std::vector<std::shared_ptr<Stream>> streams = rt.streams;
    for (const auto &s : streams) {
        run_until(s, s->issued);
    }
    forget_destroyed();
}

cudaError_t enqueue(const std::shared_ptr<Stream> &stream, Work work)
{
    if (stream->capture != nullptr) {
        return add_node(stream, std::move(work));
    }
    const auto &legacy = rt.cards[(size_t)stream->device].legacy;
    if (stream == legacy) { /* in step with all streams that are not made without blocking */
        for (const auto &s : rt.streams) {
            if (s->blocking && s->device == stream->device) {
                if (s->capture != nullptr) {
                    return cudaErrorStreamCaptureImplicit;
                }
                work.after.push_back(Point{s, s->issued});
            }
        }
    } else if (stream->blocking) {
        work.after.push_back(Point{legacy, legacy->issued});
    }
    stream->queue.push_back(std::move(work));
    stream->issued++;
    const uint64_t seed = settings.seed;
    rt.progress++;
    if (seed == 1) {
        run_along(stream);
    }
    if (seed > 1 && seed % 2 == 1 && draw() % 2 == 0) { /* even seeds only mix what waits */
        if (Stream *s = any(nullptr)) {
            run_next(s);
            close_memory();
        }
    }
    return cudaSuccess;
}

/* ---- copies ---- */

static bool fits(Where to, Where from, cudaMemcpyKind kind)
{
    switch (kind) {
    case cudaMemcpyHostToHost:
        return to != DEVICE && from != DEVICE;
    case cudaMemcpyHostToDevice:
        return to == DEVICE && from != DEVICE;
    case cudaMemcpyDeviceToHost:
        return to != DEVICE && from == DEVICE;
    case cudaMemcpyDeviceToDevice:
        return to == DEVICE && from == DEVICE;
    default:
        return true;
    }
}

static void move(void *to, const void *from, size_t pitch, size_t pitch_from, size_t width, size_t height,
                 const Stream *by)
{
    std::string why;
    if (width == 0 || height == 0) {
        return;
    }
    if (!usable(to, (height - 1) * pitch + width, by, &why)) {
        fault("a copy writes to %s", why.c_str());
        return;
    }
    if (!usable(from, (height - 1) * pitch_from + width, by, &why)) {
        fault("a copy reads %s", why.c_str());
        return;
    }
    for (size_t i = 0; i < height; i++) {
        memmove(inside(to) + i * pitch, inside(from) + i * pitch_from, width);
    }
}

/* Whether page-locked memory that a copy was asked with is still there when it is made. */
static bool still_pinned(const void *p, Where then)
{
    int device;
    if (then != PINNED || where(p, &device) == PINNED) {
        return true;
    }
    fault("a copy comes to page-locked memory at %p that was freed before", p);
    return false;
}

static cudaError_t copy(void *to, size_t pitch, const void *from, size_t pitch_from, size_t width, size_t height,
                        cudaMemcpyKind kind, const std::shared_ptr<Stream> &stream)
{
    int device;
    const Where there = where(to, &device), here = where(from, &device);
    if (!fits(there, here, kind)) {
        return kind == cudaMemcpyDefault ? cudaErrorInvalidMemcpyDirection : cudaErrorInvalidValue;
    }
    if (height > 1 && (width > pitch || width > pitch_from)) {
        return cudaErrorInvalidValue;
    }
    const bool pageable = there == PAGEABLE || here == PAGEABLE;
    if ((there == DEVICE) != (here == DEVICE)) {
        rt.counts.copies++;
        rt.counts.pageable += pageable;
    }
    if (pageable && stream->capture != nullptr) {
        return cudaErrorStreamCaptureUnsupported;
    }
    cudaError_t error;
    if (here == PAGEABLE && there == DEVICE && height == 1 && width <= 65536) { /* staged before the call returns */
        const std::vector<char> bytes(static_cast<const char *>(from), static_cast<const char *>(from) + width);
        return enqueue(stream,
                       Work{"a copy", [=] { move(to, bytes.data(), width, width, width, 1, stream.get()); }, {}});
    }
    error = enqueue(stream, Work{"a copy",
                                 [=] {
                                     if (still_pinned(to, there) && still_pinned(from, here)) {
                                         move(to, from, pitch, pitch_from, width, height, stream.get());
                                     }
                                 },
                                 {}});
    if (pageable && error == cudaSuccess) {
        run_until(stream, stream->issued);
        error = broken(stream->device);
    }
    return error;
}

} // namespace emulate_cuda

using namespace emulate_cuda;

/* One piece of work, if any can be done now. */
static void run_some(Stream *stream)
{
    Stream *next = needed(stream);
    if (next != nullptr) {
        run_next(next);
        close_memory();
    } else if (Assembly *m = assembly_of(stream)) {
        given_up(stream, m);
    }
}

#define EMULATE_STREAM(handle)                                \
    EMULATE_BEGIN();                                          \
    const std::shared_ptr<Stream> stream = stream_of(handle); \
    if (stream == nullptr)                                    \
    return answer(handle == nullptr ? cudaErrorNoDevice : cudaErrorInvalidResourceHandle)

extern "C" {

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, cudaMemcpyKind kind, cudaStream_t handle)
{
    EMULATE_STREAM(handle);
    return answer(copy(to, size, from, size, size, 1, kind, stream));
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t size, cudaMemcpyKind kind)
{
    EMULATE_STREAM(nullptr);
    cudaError_t error = forbid_in_capture();
    if (error == cudaSuccess) {
        error = copy(to, size, from, size, size, 1, kind, stream);
    }
    if (error == cudaSuccess && kind != cudaMemcpyDeviceToDevice) {
        rt.counts.waits++;
        run_until(stream, stream->issued);
        error = broken(stream->device);
    }
    return answer(error);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t pitch, const void *from, size_t pitch_from, size_t width, size_t height,
                              cudaMemcpyKind kind, cudaStream_t handle)
{
    EMULATE_STREAM(handle);
    return answer(copy(to, pitch, from, pitch_from, width, height, kind, stream));
}

cudaError_t cudaMemcpy2D(void *to, size_t pitch, const void *from, size_t pitch_from, size_t width, size_t height,
                         cudaMemcpyKind kind)
{
    EMULATE_STREAM(nullptr);
    cudaError_t error = forbid_in_capture();
    if (error == cudaSuccess) {
        error = copy(to, pitch, from, pitch_from, width, height, kind, stream);
    }
    if (error == cudaSuccess) {
        rt.counts.waits++;
        run_until(stream, stream->issued);
        error = broken(stream->device);
    }
    return answer(error);
}

cudaError_t cudaMemcpyPeerAsync(void *to, int, const void *from, int, size_t size, cudaStream_t handle)
{
    return cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToDevice, handle);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t handle)
{
    EMULATE_STREAM(handle);
    int device;
    if (where(to, &device) == PAGEABLE) {
        return answer(cudaErrorInvalidValue);
    }
    return answer(enqueue(stream, Work{"a memset",
                                       [=] {
                                           std::string why;
                                           if (!usable(to, size, stream.get(), &why)) {
                                               fault("a memset writes to %s", why.c_str());
                                               return;
                                           }
                                           memset(inside(to), value, size);
                                       },
                                       {}}));
}

cudaError_t cudaMemset(void *to, int value, size_t size)
{
    return cudaMemsetAsync(to, value, size, nullptr);
}

/* ---- streams ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *handle, unsigned int flags)
{
    EMULATE_BEGIN();
    cudaError_t error;
    if (card_of_device(current_device(), &error) == nullptr) {
        return answer(error);
    }
    static uintptr_t next = 0x100; /* no address, so that nobody follows it */
    *handle = reinterpret_cast<cudaStream_t>(next += 0x10);
    rt.handles[*handle] = new_stream(current_device(), (flags & cudaStreamNonBlocking) == 0);
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *handle)
{
    return cudaStreamCreateWithFlags(handle, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *handle, unsigned int flags, int)
{
    return cudaStreamCreateWithFlags(handle, flags);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t handle)
{
    EMULATE_STREAM(handle);
    stream->destroyed = true; /* its work goes on */
    rt.handles.erase(handle);
    forget_destroyed();
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    EMULATE_STREAM(handle);
    const cudaError_t error = stream->capture != nullptr ? forbid_in_capture() : cudaSuccess;
    if (error != cudaSuccess) {
        return answer(error);
    }
    rt.counts.waits++;
    run_until(stream, stream->issued);
    release_kept(stream->device);
    return answer(broken(stream->device));
}

cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    EMULATE_STREAM(handle);
    if (stream->capture != nullptr) {
        return answer(cudaErrorStreamCaptureUnsupported);
    }
    if (stream->done < stream->issued && (settings.seed == 0 || draw() % 4 != 0)) {
        run_some(stream.get()); /* who asks often enough sees the end */
    }
    if (broken(stream->device) != cudaSuccess) {
        return answer(broken(stream->device));
    }
    return stream->done < stream->issued ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void *user)
{
    EMULATE_STREAM(handle);
    return answer(enqueue(stream, Work{"a function of the host",
                                       [=] {
                                           close_memory();
                                           function(user);
                                       },
                                       {}}));
}

/* ---- events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags)
{
    EMULATE_BEGIN();
    cudaError_t error;
    if (card_of_device(current_device(), &error) == nullptr) {
        return answer(error);
    }
    *event = new CUevent_st{{}, nullptr, {}, nullptr, (flags & cudaEventDisableTiming) == 0};
    rt.counts.events++;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    EMULATE_BEGIN();
    if (event == nullptr) {
        return answer(cudaErrorInvalidResourceHandle);
    }
    delete event;
    rt.counts.events--;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle)
{
    EMULATE_STREAM(handle);
    if (event == nullptr) {
        return answer(cudaErrorInvalidResourceHandle);
    }
    if (stream->capture != nullptr) {
        event->capture = stream->capture;
        event->nodes = stream->tail;
        event->at = Point();
        return cudaSuccess;
    }
    event->capture = nullptr;
    event->time = std::make_shared<double>(0);
    const std::shared_ptr<double> time = event->time;
    event->at = Point{stream, stream->issued + 1};
    return answer(enqueue(stream, Work{"an event",
                                       [time] {
                                           timespec now;
                                           clock_gettime(CLOCK_MONOTONIC, &now);
                                           *time = (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
                                       },
                                       {}}));
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned int)
{
    EMULATE_STREAM(handle);
    if (event == nullptr) {
        return answer(cudaErrorInvalidResourceHandle);
    }
    if (event->capture != nullptr) {
        return answer(join_capture(stream, event->capture, event->nodes));
    }
    if (event->at.stream == nullptr) {
        return cudaSuccess;
    }
    if (stream->capture != nullptr) {
        return answer(cudaErrorStreamCaptureIsolation);
    }
    return answer(enqueue(stream, Work{"a wait", [] {}, {event->at}}));
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    EMULATE_BEGIN();
    if (event == nullptr) {
        return answer(cudaErrorInvalidResourceHandle);
    }
    if (event->capture != nullptr) {
        return answer(cudaErrorCapturedEvent);
    }
    if (event->at.stream != nullptr) {
        rt.counts.waits++;
        run_until(event->at.stream, event->at.ticket);
        release_kept(event->at.stream->device);
        return answer(broken(event->at.stream->device));
    }
    return answer(broken());
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    EMULATE_BEGIN();
    if (event == nullptr) {
        return answer(cudaErrorInvalidResourceHandle);
    }
    if (event->capture != nullptr) {
        return answer(cudaErrorCapturedEvent);
    }
    const Point at = event->at;
    if (at.stream != nullptr && at.stream->done < at.ticket) {
        run_some(at.stream.get()); /* who asks often enough sees the end */
    }
    if (at.stream != nullptr && broken(at.stream->device) != cudaSuccess) {
        return answer(broken(at.stream->device));
    }
    return at.stream != nullptr && at.stream->done < at.ticket ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to)
{
    EMULATE_BEGIN();
    if (!from->timed || !to->timed || from->at.stream == nullptr || to->at.stream == nullptr) {
        return answer(cudaErrorInvalidResourceHandle);
    }
    if (from->at.stream->done < from->at.ticket || to->at.stream->done < to->at.ticket) {
        return cudaErrorNotReady;
    }
    *milliseconds = (float)(*to->time - *from->time);
    return cudaSuccess;
}

} // extern "C"
