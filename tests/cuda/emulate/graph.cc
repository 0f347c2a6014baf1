/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * Capture: work asked of a stream becomes nodes of a graph, each with the nodes that it follows; events carry that over
 * to other streams. A launch executes all nodes in an order that the seed sets, within what they follow. */
#include "runtime.h"

#include <algorithm>
#include <pthread.h>
#include <set>
#include <string.h>

namespace emulate_cuda
{

struct Node {
    Work work;
    std::vector<int> follows;
};

/* What a graph and those made of it share: memory that the capture allocated and freed again. */
struct Memory {
    std::vector<void *> blocks;
    ~Memory()
    {
        for (void *p : blocks) {
            give(p);
        }
    }
};

struct Graph {
    std::vector<Node> nodes;
    std::shared_ptr<Memory> memory = std::make_shared<Memory>();
};

struct Capture {
    Graph graph;
    std::shared_ptr<Stream> origin;
    std::vector<std::shared_ptr<Stream>> streams;
    cudaStreamCaptureMode mode;
    pthread_t thread;
    bool spoilt;
};

cudaError_t forbid_in_capture()
{
    cudaError_t error = cudaSuccess;
    for (const auto &weak : rt.captures) {
        const auto c = weak.lock();
        if (c != nullptr && (c->mode == cudaStreamCaptureModeGlobal || (c->mode == cudaStreamCaptureModeThreadLocal &&
                                                                        pthread_equal(c->thread, pthread_self())))) {
            c->spoilt = true;
            error = cudaErrorStreamCaptureUnsupported;
        }
    }
    return error;
}

cudaError_t add_node(const std::shared_ptr<Stream> &stream, Work work)
{
    Capture &c = *stream->capture;
    if (c.spoilt) {
        return cudaErrorStreamCaptureInvalidated;
    }
    c.graph.nodes.push_back(Node{std::move(work), stream->tail});
    stream->tail = {(int)c.graph.nodes.size() - 1};
    return cudaSuccess;
}

cudaError_t capture_free(const std::shared_ptr<Stream> &stream, void *p)
{
    size_t at;
    Block *b = block_of(p, &at);
    if (!b->async || b->born.stream != nullptr) { /* not of this capture: a launch would free it again and again */
        stream->capture->spoilt = true;
        return cudaErrorStreamCaptureUnsupported;
    }
    b->freeing = true;
    stream->capture->graph.memory->blocks.push_back(p);
    const size_t bytes = b->size;
    return add_node(stream, Work{"a free", [p, bytes] { std::fill_n(inside(p), bytes, (char)0xff); }, {}});
}

cudaError_t join_capture(const std::shared_ptr<Stream> &stream, const std::shared_ptr<Capture> &capture,
                         const std::vector<int> &nodes)
{
    if (stream->capture != nullptr && stream->capture != capture) {
        return cudaErrorStreamCaptureMerge;
    }
    if (stream->capture == nullptr) {
        if (std::find(capture->streams.begin(), capture->streams.end(), capture->origin) == capture->streams.end()) {
            return cudaErrorCapturedEvent; /* that capture has ended */
        }
        stream->capture = capture;
        stream->tail.clear();
        capture->streams.push_back(stream);
    }
    for (int node : nodes) {
        if (std::find(stream->tail.begin(), stream->tail.end(), node) == stream->tail.end()) {
            stream->tail.push_back(node);
        }
    }
    return cudaSuccess;
}

/* Whether the origin's last nodes follow, however far, the last ones of all the other streams. */
static bool joined(const Capture &c)
{
    std::set<int> before;
    std::vector<int> open = c.origin->tail;
    while (!open.empty()) {
        const int n = open.back();
        open.pop_back();
        if (before.insert(n).second) {
            for (int m : c.graph.nodes[(size_t)n].follows) {
                open.push_back(m);
            }
        }
    }
    for (const auto &s : c.streams) {
        for (int n : s->tail) {
            if (before.count(n) == 0) {
                return false;
            }
        }
    }
    return true;
}

static void run_graph(const Graph &graph)
{
    std::vector<bool> done(graph.nodes.size());
    for (size_t left = done.size(); left > 0; left--) {
        size_t chosen = 0;
        uint64_t count = 0;
        for (size_t i = 0; i < done.size(); i++) {
            bool ready = !done[i];
            for (int n : graph.nodes[i].follows) {
                ready = ready && done[(size_t)n];
            }
            const uint64_t seed = settings.seed;
            if (ready && (count++ == 0 || seed == 1 || (seed > 1 && draw() % count == 0))) {
                chosen = i;
            }
            if (ready && seed == 0) {
                break;
            }
        }
        done[chosen] = true;
        if (broken() == cudaSuccess) {
            graph.nodes[chosen].work.run();
        }
    }
}

static bool same_shape(const Graph &a, const Graph &b)
{
    if (a.nodes.size() != b.nodes.size()) {
        return false;
    }
    for (size_t i = 0; i < a.nodes.size(); i++) {
        if (a.nodes[i].follows != b.nodes[i].follows || strcmp(a.nodes[i].work.what, b.nodes[i].work.what) != 0) {
            return false;
        }
    }
    return true;
}

/* What a test asked for. */
static cudaError_t refusal(bool capture)
{
    return settings.refuse_graph != 0 && (settings.refuse_graph >= cudaErrorStreamCaptureUnsupported) == capture
               ? (cudaError_t)settings.refuse_graph
               : cudaSuccess;
}

} // namespace emulate_cuda

using namespace emulate_cuda;

struct CUgraph_st {
    Graph graph;
};

struct CUgraphExec_st {
    std::shared_ptr<const Graph> graph; /* what is queued keeps its own */
};

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode)
{
    EMULATE_BEGIN();
    const std::shared_ptr<Stream> stream = stream_of(handle);
    if (stream == nullptr) {
        return answer(cudaErrorInvalidResourceHandle);
    }
    if (stream == rt.cards[(size_t)stream->device].legacy) {
        return answer(cudaErrorStreamCaptureUnsupported);
    }
    if (stream->capture != nullptr) {
        return answer(cudaErrorIllegalState);
    }
    rt.counts.captures++;
    auto c = std::make_shared<Capture>();
    c->origin = stream;
    c->streams.push_back(stream);
    c->mode = mode;
    c->thread = pthread_self();
    c->spoilt = false;
    stream->capture = c;
    stream->tail.clear();
    rt.captures.push_back(c);
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *graph)
{
    EMULATE_BEGIN();
    *graph = nullptr;
    const std::shared_ptr<Stream> stream = stream_of(handle);
    if (stream == nullptr) {
        return answer(cudaErrorInvalidResourceHandle);
    }
    const std::shared_ptr<Capture> c = stream->capture;
    if (c == nullptr) {
        return answer(cudaErrorIllegalState);
    }
    if (c->origin != stream) {
        c->spoilt = true;
        return answer(cudaErrorStreamCaptureUnmatched);
    }
    if (c->mode != cudaStreamCaptureModeRelaxed && !pthread_equal(c->thread, pthread_self())) {
        c->spoilt = true;
        return answer(cudaErrorStreamCaptureWrongThread);
    }
    const cudaError_t error = c->spoilt     ? cudaErrorStreamCaptureInvalidated
                              : !joined(*c) ? cudaErrorStreamCaptureUnjoined
                                            : refusal(true);
    for (const auto &s : c->streams) {
        s->capture = nullptr;
        s->tail.clear();
    }
    c->streams.clear();
    c->origin = nullptr;
    for (size_t i = 0; i < rt.captures.size(); i++) {
        if (rt.captures[i].lock() == c || rt.captures[i].expired()) {
            rt.captures.erase(rt.captures.begin() + (long)i--);
        }
    }
    if (error == cudaSuccess) {
        *graph = new CUgraph_st{std::move(c->graph)};
    }
    return answer(error);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus *status)
{
    EMULATE_BEGIN();
    const std::shared_ptr<Stream> stream = stream_of(handle);
    if (stream == nullptr) {
        return answer(cudaErrorInvalidResourceHandle);
    }
    *status = stream->capture == nullptr ? cudaStreamCaptureStatusNone
              : stream->capture->spoilt  ? cudaStreamCaptureStatusInvalidated
                                         : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    EMULATE_BEGIN();
    if (graph == nullptr) {
        return answer(cudaErrorInvalidValue);
    }
    if (refusal(false) != cudaSuccess) {
        return answer(refusal(false));
    }
    *exec = new CUgraphExec_st{std::make_shared<Graph>(graph->graph)};
    return cudaSuccess;
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph, cudaGraphExecUpdateResultInfo *info)
{
    EMULATE_BEGIN();
    const bool memory = !exec->graph->memory->blocks.empty() || !graph->graph.memory->blocks.empty();
    const bool same = !memory && same_shape(*exec->graph, graph->graph);
    info->errorNode = info->errorFromNode = nullptr;
    info->result = same     ? cudaGraphExecUpdateSuccess
                   : memory ? cudaGraphExecUpdateError
                            : cudaGraphExecUpdateErrorTopologyChanged;
    if (same) {
        exec->graph = std::make_shared<Graph>(graph->graph);
    }
    return answer(same ? cudaSuccess : cudaErrorGraphExecUpdateFailure);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t)
{
    EMULATE_BEGIN();
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle)
{
    EMULATE_BEGIN();
    const std::shared_ptr<Stream> stream = stream_of(handle);
    if (stream == nullptr || exec == nullptr) {
        return answer(cudaErrorInvalidResourceHandle);
    }
    rt.counts.graph_launches++;
    const std::shared_ptr<const Graph> graph = exec->graph;
    return answer(enqueue(stream, Work{"a graph", [graph] { run_graph(*graph); }, {}}));
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    EMULATE_BEGIN();
    if (nodes != nullptr) {
        return answer(cudaErrorNotSupported);
    }
    *count = graph->graph.nodes.size();
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    EMULATE_BEGIN();
    delete exec;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    EMULATE_BEGIN();
    delete graph;
    return cudaSuccess;
}

} // extern "C"
