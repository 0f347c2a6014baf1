/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * One block of a kernel: each CUDA thread is a fiber, all fibers of a block run in one thread of the processor, in an
 * order that the seed sets, and give way to each other at barriers and warp collectives alone. */
#ifndef EMULATE_FIBER_H
#define EMULATE_FIBER_H

#include <stddef.h>
#include <stdint.h>
#include <functional>

#include <cuda_runtime.h>

#include "control.h"
#include "sanitizer.h"
#include "vector_types.h"

#if !defined(__x86_64__) && !defined(EMULATE_UCONTEXT)
#define EMULATE_UCONTEXT 1
#endif
#ifdef EMULATE_UCONTEXT
#include <ucontext.h>
#endif

namespace emulate_cuda
{

enum {
    MAX_THREADS = 1024,      /* of a block */
    MAX_SHARED = 227 * 1024, /* bytes of shared memory of a block */
    MAX_VARIABLES = 32,      /* shared variables of a kernel */
    MAX_COPIES = 512,        /* asynchronous copies of a thread that have not landed */
    RED = 64,                /* bytes between shared variables, watched */
    ARENA = MAX_SHARED + (MAX_VARIABLES + 2) * 2 * RED,
    STACK = 256 * 1024,
    GUARD = 4096,
};

/* Where in the kernel something is asked for. A function learns it from its last parameters, EMULATE_PLACE, and passes
 * it on as EMULATE_HERE. */
struct Place {
    const char *file;
    int line;
};
#define EMULATE_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define EMULATE_HERE  (emulate_cuda::Place{file, line})

struct Copy {
    void *to;
    const void *from; /* nullptr: zeros */
    int bytes, group;
};

struct Stack {
    char *base;
    Stack *next;
};

enum State { NOT_STARTED, READY, AT_BARRIER, IN_WARP, ENDED };

struct Fiber {
    void *sp, *fake_stack, *tsan;
    Stack *stack;
    uint3 index;
    int number; /* within the block */
    State state;
    const char *what; /* it waits in, */
    Place at;
    void *brought; /* to the collective */
    bool vote[2];
    int group, copies;    /* of cp.async: the group that is open, and how many have not landed */
    bool fenced, changed; /* it has passed a __threadfence, an atomic */
#ifdef EMULATE_UCONTEXT
    ucontext_t context;
#endif
};

/* A meeting of a warp's lanes or of the block. */
struct Meeting {
    uint32_t mask, here, generation;
    const char *what;
    Place at;
    char sync[2];
};

struct Variable {
    const void *key;
    size_t at, size;
};

struct Worker {
    Fiber main, *current, fiber[MAX_THREADS];
    int threads, ended, arrived, ready[MAX_THREADS], variables;
    bool prologue; /* threads go no further than wait_for_former */
    unsigned head, tail;
    uint64_t random, seed;
    uint3 block;
    dim3 block_size, grid;
    const std::function<void()> *body;
    Meeting barrier, warp[MAX_THREADS / 32][32];
    void *together; /* to TSan: all threads of a prologue */
    char *stacks, *arena, begin, end, dynamic, fence_sync;
    Stack stack[MAX_THREADS], *free_stack;
    size_t used, payload, room, main_size; /* room: bytes of shared memory that the launch may have */
    Variable variable[MAX_VARIABLES];
    Copy (*copy)[MAX_COPIES]; /* of each thread, allocated when the first is made */
    char fault[1024];
};

extern __thread Worker *worker; /* nullptr outside kernels */
/* What was written before a __threadfence, and then an atomic, is there for whoever comes to an atomic later and then
 * to a fence: TSan is told that much. */
void passes_fence();
void passes_atomic();

/* Ends the block with a fault, in printf's manner; does not return to the kernel. */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Random bits of the block, for choices that the seed makes. */
uint64_t random_bits();
void barrier(const char *what, Place at);
/* A barrier that counts the threads that say yes. */
int vote(bool yes, const char *what, Place at);
/* The lanes of mask meet; the last one runs `act` on the warp's fibers. order: memory is ordered too. */
typedef void (*Act)(Fiber *warp, uint32_t mask);
void meet(uint32_t mask, void *brought, Act act, bool order, const char *what, Place at);
/* The block's shared variable of that key; filled with 0xff, a NaN in every type, when the block begins. */
void *shared(const void *key, size_t size, size_t align);
/* The copies of the current thread that have not landed. */
Copy *copies();

/* An address that an instruction takes for shared memory must lie in a shared variable. */
void check_shared_address(const void *p, size_t size, const char *what, Place at);

/* Runs a grid now. Returns false when a fault was found (emulate_fault). prologue: of some blocks only what comes
 * before they wait for the kernel before them, while the device's memory is closed: so nothing but shared memory
 * changes. */
bool run_grid(const void *kernel, Place launched, dim3 grid, dim3 block, size_t dynamic, bool prologue,
              const std::function<void()> &body);
/* Where a thread waits for the kernel before its own: griddepcontrol.wait. */
void wait_for_former(Place at);

/* One argument of a kernel, to be looked through for pointers that the device cannot follow. */
struct Argument {
    const void *bytes;
    size_t size;
};

/* Queues a kernel; body runs it for one thread. Checks the shape and the arguments now. follows: see kn_launch. */
cudaError_t queue_kernel(const void *kernel, Place launched, bool follows, dim3 grid, dim3 block, size_t dynamic,
                         cudaStream_t stream, const Argument *arguments, int count, std::function<void()> body);

} // namespace emulate_cuda

#endif
