/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "runtime.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

namespace emulate_cuda
{

__thread Worker *worker;
static char fence_sync; /* all of the device's memory */

#ifndef EMULATE_UCONTEXT
extern "C" void emulate_switch(void **save, void *to);
asm(".text\n.globl emulate_switch\n.hidden emulate_switch\n.type emulate_switch,@function\nemulate_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\nmov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n.size emulate_switch,.-emulate_switch\n");
#endif

/* ---- stacks ---- */

QUIET static char *map(size_t size)
{
    void *p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        abort();
    }
    return static_cast<char *>(p);
}

QUIET static void lay_stacks(Worker *w)
{
    if (w->stacks == nullptr) {
        w->stacks = map((size_t)MAX_THREADS * (STACK + GUARD));
    }
    w->free_stack = nullptr;
    for (int i = w->threads; i-- > 0;) {
        Stack &s = w->stack[i];
        char *guard = w->stacks + (size_t)i * (STACK + GUARD);
        if (s.base == nullptr) {
            mprotect(guard, GUARD, PROT_NONE);
        }
        s.base = guard + GUARD;
        ASAN_UNPOISON_MEMORY_REGION(s.base, STACK);
        s.next = w->free_stack;
        w->free_stack = &s;
    }
}

/* ---- switching ---- */

static void entry();

/* A fiber that begins gets a stack: those of ended ones are used again, so that kernels without barriers stay in the
 * processor's cache. To TSan each fiber has its own, always the same. */
QUIET static void begin(Worker *w, Fiber *f)
{
#ifdef EMULATE_TSAN
    Stack *s = &w->stack[f->number];
#else
    Stack *s = w->free_stack;
    w->free_stack = s->next;
#endif
    f->stack = s;
    f->state = READY;
#ifdef EMULATE_UCONTEXT
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = s->base;
    f->context.uc_stack.ss_size = STACK;
    f->context.uc_link = nullptr;
    makecontext(&f->context, reinterpret_cast<void (*)()>(entry), 0);
#else
    void **sp = reinterpret_cast<void **>(s->base + STACK) - 8; /* six registers, the return address, 0 */
    for (int k = 0; k < 8; k++) {
        sp[k] = k == 6 ? reinterpret_cast<void *>(entry) : nullptr;
    }
    f->sp = sp;
#endif
}

QUIET static void go(Fiber *to)
{
    Worker *w = worker;
    Fiber *me = w->current;
    if (me == to) {
        return;
    }
    if (to->state == NOT_STARTED) {
        begin(w, to);
    }
    w->current = to;
    if (me->state == ENDED && !w->prologue) { /* nobody takes it before the switch is done */
#ifndef EMULATE_TSAN
        me->stack->next = w->free_stack;
        w->free_stack = me->stack;
#endif
    }
#ifdef EMULATE_ASAN
    __sanitizer_start_switch_fiber(me->state == ENDED ? nullptr : &me->fake_stack, to->stack->base,
                                   to == &w->main ? w->main_size : (size_t)STACK);
#elif defined(EMULATE_TSAN)
    if (!w->prologue || me == &w->main || to == &w->main) {
        __tsan_switch_to_fiber(w->prologue && to != &w->main ? w->together : to->tsan, __tsan_switch_to_fiber_no_sync);
    }
#endif
#ifdef EMULATE_UCONTEXT
    swapcontext(&me->context, &to->context);
#else
    emulate_switch(&me->sp, to->sp);
#endif
#ifdef EMULATE_ASAN
    __sanitizer_finish_switch_fiber(me->fake_stack, nullptr, nullptr);
#endif
}

QUIET void fail(const char *format, ...)
{
    Worker *w = worker;
    const Fiber *f = w->current;
    if (w->fault[0] == 0) {
        const int n = snprintf(w->fault, sizeof w->fault, "block (%u,%u,%u) thread (%u,%u,%u): ", w->block.x,
                               w->block.y, w->block.z, f->index.x, f->index.y, f->index.z);
        va_list list;
        va_start(list, format);
        vsnprintf(w->fault + n, sizeof w->fault - (size_t)n, format, list);
        va_end(list);
    }
    go(&w->main);
}

QUIET uint64_t random_bits()
{
    uint64_t &r = worker->random;
    r ^= r << 13;
    r ^= r >> 7;
    r ^= r << 17;
    return r >> 11;
}

QUIET static void deadlock(Worker *w)
{
    char where[700] = "";
    size_t used = 0;
    for (int i = 0, j, groups = 0; i < w->threads && groups < 4; i = j, groups++) {
        const Fiber &f = w->fiber[i];
        for (j = i; j < w->threads && w->fiber[j].state == f.state && w->fiber[j].at.line == f.at.line; j++) {
        }
        used += (size_t)snprintf(where + used, sizeof where - used, "; threads %d-%d %s %s %.99s:%d", i, j - 1,
                                 f.state == ENDED ? "ended after" : "wait in", f.what, f.at.file, f.at.line);
    }
    fail("deadlock, the threads took different ways%s", where);
}

QUIET static void swap(int *ready, unsigned i, unsigned j)
{
    const int t = ready[i % MAX_THREADS];
    ready[i % MAX_THREADS] = ready[j % MAX_THREADS];
    ready[j % MAX_THREADS] = t;
}

/* The fiber that runs next, taken from the queue; nullptr when all have ended. */
QUIET static Fiber *choose(Worker *w)
{
    const unsigned count = w->tail - w->head;
    int *ready = w->ready;
    if (count == 0) {
        if (w->ended != w->threads) {
            deadlock(w);
        }
        return nullptr;
    }
    if (w->seed % 2 == 1 ? w->seed == 1 : w->seed > 1) {
        /* The latest first, so that one warp runs far ahead of the others; even seeds now and then change the warp. */
        const unsigned last = --w->tail;
        if (w->seed > 1 && random_bits() % 16 == 0) {
            swap(ready, last, w->head + (unsigned)(random_bits() % count));
        }
        return &w->fiber[ready[last % MAX_THREADS]];
    }
    const unsigned h = w->head++;
    if (w->seed > 1) {
        swap(ready, h, h + (unsigned)(random_bits() % count));
    }
    return &w->fiber[ready[h % MAX_THREADS]];
}

QUIET static void give_way()
{
    Fiber *next = choose(worker);
    go(next != nullptr ? next : &worker->main);
}

QUIET static void wake(Worker *w, int i)
{
    w->ready[w->tail++ % MAX_THREADS] = i;
}

QUIET static void wake_waiting(Worker *w, int i)
{
    w->fiber[i].state = READY;
    wake(w, i);
}

QUIET static void entry()
{
#ifdef EMULATE_ASAN
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    for (;;) {
        Worker *w = worker;
        Fiber *f = w->current;
        TSAN_ACQUIRE(&w->begin);
        (*w->body)();
        TSAN_RELEASE(&w->end);
        if (w->prologue) {
            fail("a thread ends without having waited for the kernel before it, which this one was launched to follow");
        }
        if (f->copies != 0) {
            fail("the kernel ends with cp.async copies that were not waited for");
        }
        f->state = ENDED;
        w->ended++;
        Fiber *next = choose(w);
#ifndef EMULATE_TSAN
        if (next != nullptr && next->state == NOT_STARTED) { /* it goes on where this one stood */
            next->stack = f->stack;
            next->state = READY;
            w->current = next;
            continue;
        }
#endif
        go(next != nullptr ? next : &w->main);
        abort(); /* nobody comes back to a fiber that ended */
    }
}

QUIET static void wait_in(Fiber *f, State state, const char *what, Place at)
{
    f->state = state;
    f->what = what;
    f->at = at;
}

/* A prologue's threads are dropped where they wait. */
QUIET void wait_for_former(Place at)
{
    Worker *w = worker;
    if (!w->prologue) {
        return;
    }
    wait_in(w->current, ENDED, "griddepcontrol.wait", at);
    w->ended++;
    give_way();
    abort();
}

QUIET void passes_fence()
{
    worker->current->fenced = true;
    if (worker->current->changed) {
        TSAN_ACQUIRE(&fence_sync);
    }
}

QUIET void passes_atomic()
{
    if (worker->current->fenced) {
        TSAN_RELEASE(&fence_sync);
    }
    worker->current->changed = true;
}

/* ---- meetings ---- */

/* Texts are mostly one and the same. */
static bool differ(const char *a, const char *b)
{
    return a != b && strcmp(a, b) != 0;
}

QUIET void barrier(const char *what, Place at)
{
    Worker *w = worker;
    Meeting &b = w->barrier;
    char *sync = &b.sync[b.generation & 1];
    if (w->arrived == 0) {
        b.at = at;
        b.what = what;
    } else if (b.at.line != at.line || differ(b.at.file, at.file) || differ(b.what, what)) {
        fail("divergent barriers: %s at %s:%d here, %s at %s:%d elsewhere", what, at.file, at.line, b.what, b.at.file,
             b.at.line);
    }
    TSAN_RELEASE(sync);
    wait_in(w->current, AT_BARRIER, what, at);
    if (++w->arrived == w->threads) {
        w->arrived = 0;
        b.generation++;
        for (int i = 0; i < w->threads; i++) {
            wake_waiting(w, i);
        }
    }
    give_way();
    TSAN_ACQUIRE(sync);
}

QUIET int vote(bool yes, const char *what, Place at)
{
    Worker *w = worker;
    const unsigned slot = w->barrier.generation & 1; /* the other is still being counted by some */
    w->current->vote[slot] = yes;
    barrier(what, at);
    int count = 0;
    for (int i = 0; i < w->threads; i++) {
        count += w->fiber[i].vote[slot];
    }
    return count;
}

QUIET void meet(uint32_t mask, void *brought, Act act, bool order, const char *what, Place at)
{
    Worker *w = worker;
    Fiber *f = w->current;
    const int lane = f->number & 31, warp = f->number >> 5;
    if ((mask >> lane & 1) == 0) {
        fail("%s at %s:%d: lane %d is not in its own mask %08x", what, at.file, at.line, lane, mask);
    }
    if (warp * 32 + 32 - __builtin_clz(mask) > w->threads) {
        fail("%s at %s:%d: mask %08x names lanes beyond the block", what, at.file, at.line, mask);
    }
    Meeting &m = w->warp[warp][__builtin_ctz(mask)];
    if (m.here == 0) {
        m.mask = mask;
        m.what = what;
        m.at = at;
    } else if (m.mask != mask || m.at.line != at.line || differ(m.what, what)) {
        fail("divergent warp: %s(%08x) at %s:%d, %s(%08x) at %s:%d elsewhere", what, mask, at.file, at.line, m.what,
             m.mask, m.at.file, m.at.line);
    }
    char *sync = &m.sync[m.generation & 1];
    if (order) {
        TSAN_RELEASE(sync);
    }
    f->brought = brought;
    m.here |= 1u << lane;
    wait_in(f, IN_WARP, what, at);
    if (m.here == mask) {
        if (act != nullptr) {
            act(w->fiber + warp * 32, mask);
        }
        m.here = 0;
        m.generation++;
        for (int i = 0; i < 32; i++) {
            if (mask >> i & 1) {
                wake_waiting(w, warp * 32 + i);
            }
        }
    }
    give_way();
    if (order) {
        TSAN_ACQUIRE(sync);
    }
}

/* ---- shared memory ---- */

QUIET void *shared(const void *key, size_t size, size_t align)
{
    Worker *w = worker;
    for (int i = 0; i < w->variables; i++) {
        if (w->variable[i].key == key) {
            return w->arena + w->variable[i].at;
        }
    }
    const size_t at = (w->used + RED + align - 1) / align * align;
    w->payload += size;
    if (w->payload > w->room || w->variables == MAX_VARIABLES) {
        fail("more than %zu bytes or %d variables of shared memory", w->room, (int)MAX_VARIABLES);
    }
    w->variable[w->variables++] = Variable{key, at, size};
    w->used = at + size;
    ASAN_UNPOISON_MEMORY_REGION(w->arena + at, size);
    return w->arena + at;
}

QUIET Copy *copies()
{
    Worker *w = worker;
    if (w->copy == nullptr) {
        w->copy = static_cast<Copy(*)[MAX_COPIES]>(malloc(sizeof(Copy[MAX_THREADS][MAX_COPIES])));
        if (w->copy == nullptr) {
            abort();
        }
    }
    return w->copy[w->current->number];
}

QUIET void check_shared_address(const void *p, size_t size, const char *what, Place at)
{
    const Worker *w = worker;
    const size_t offset = (size_t)(static_cast<const char *>(p) - w->arena);
    for (int i = 0; i < w->variables; i++) {
        const Variable &v = w->variable[i];
        if (offset >= v.at && offset + size <= v.at + v.size) {
            return;
        }
    }
    fail("%s at %s:%d: the address is not in shared memory", what, at.file, at.line);
}

/* The bytes around shared variables must still be 0xff; then all that was used becomes so again. */
QUIET static void check_shared(Worker *w)
{
#ifndef EMULATE_ASAN
    size_t at = 0;
    for (int k = 0; k <= w->variables && w->fault[0] == 0; k++) {
        const size_t end = k < w->variables ? w->variable[k].at : w->used + RED;
        for (; at < end; at++) {
            if (w->arena[at] != (char)0xff) {
                snprintf(w->fault, sizeof w->fault, "block (%u,%u,%u): write outside a shared variable", w->block.x,
                         w->block.y, w->block.z);
            }
        }
        if (k < w->variables) {
            at = w->variable[k].at + w->variable[k].size;
        }
    }
#endif
#ifndef EMULATE_TSAN
    ASAN_UNPOISON_MEMORY_REGION(w->arena, ARENA);
    memset(w->arena, 0xff, w->used + RED);
    ASAN_POISON_MEMORY_REGION(w->arena, ARENA);
#endif
}

/* ---- blocks and grids ---- */

#ifdef EMULATE_TSAN
/* Of a fiber that stays where it stands: the worker is in step with it. */
QUIET static void drop(Worker *w, void *tsan)
{
    __tsan_switch_to_fiber(tsan, 0);
    __tsan_switch_to_fiber(w->main.tsan, 0);
    __tsan_destroy_fiber(tsan);
}
#endif

/* To TSan a thread's fibers of all blocks of a worker are one, since making one costs more than most kernels: blocks
 * race where they are of two workers. A prologue's threads, which are dropped half way, are one all together. */
QUIET static void run_block(Worker *w, uint3 block, size_t dynamic)
{
    w->block = block;
    w->ended = w->arrived = w->variables = 0;
    w->head = w->tail = 0;
    w->fault[0] = 0;
    w->used = w->payload = 0;
    for (int i = 0; i < w->threads; i++) {
        w->warp[i / 32][i % 32].here = 0;
    }
#ifdef EMULATE_TSAN
    if (w->arena != nullptr) { /* what TSan knows of it is of another block */
        munmap(w->arena, ARENA);
        w->arena = nullptr;
    }
#endif
    if (w->arena == nullptr) {
        w->arena = map(ARENA);
        memset(w->arena, 0xff, ARENA);
        ASAN_POISON_MEMORY_REGION(w->arena, ARENA);
    }
    lay_stacks(w);
    w->current = &w->main;
    /* kn_launch asks for more only where the dynamic part alone takes more */
    w->room = dynamic > 48 * 1024 ? (size_t)shared_most() : 48 * 1024;
    if (dynamic != 0) {
        shared(&w->dynamic, dynamic, 128);
    }
    for (unsigned i = 0; (int)i < w->threads; i++) {
        Fiber &f = w->fiber[i];
        f.what = "start";
        f.at = Place{"", 0};
        f.number = (int)i;
        f.index =
            uint3{i % w->block_size.x, i / w->block_size.x % w->block_size.y, i / (w->block_size.x * w->block_size.y)};
        f.copies = f.group = 0;
        f.fenced = f.changed = false;
        f.fake_stack = nullptr;
        f.state = NOT_STARTED;
#ifdef EMULATE_TSAN
        if (f.tsan == nullptr && !w->prologue) {
            f.tsan = __tsan_create_fiber(0);
        }
#endif
        wake(w, (int)i);
    }
#ifdef EMULATE_TSAN
    if (w->prologue) {
        w->together = __tsan_create_fiber(0);
    }
#endif
    TSAN_RELEASE(&w->begin);
    give_way();
#ifdef EMULATE_TSAN
    if (w->prologue) {
        drop(w, w->together);
    }
    for (int i = 0; i < w->threads && w->fault[0] != 0 && !w->prologue; i++) {
        drop(w, w->fiber[i].tsan);
        w->fiber[i].tsan = nullptr;
    }
#endif
    check_shared(w);
}

namespace
{
struct Grid {
    dim3 grid, block;
    size_t dynamic;
    const std::function<void()> *body;
    uint64_t seed;
    int workers;
    bool prologue, stop;
    char fault[1024];
};

struct Start {
    Grid *grid;
    int slot;
};
} // namespace

enum { MAX_WORKERS = 16 };
static Worker *workers[MAX_WORKERS];

QUIET static void *work(void *p)
{
    const Start *start = static_cast<Start *>(p);
    Grid *g = start->grid;
    if (workers[start->slot] == nullptr) {
        workers[start->slot] = static_cast<Worker *>(calloc(1, sizeof(Worker)));
        if (workers[start->slot] == nullptr) {
            abort();
        }
    }
    Worker *w = worker = workers[start->slot];
    static __thread Stack main_stack;
#ifdef EMULATE_ASAN
    static __thread size_t main_size;
#endif
#ifdef EMULATE_ASAN
    if (main_stack.base == nullptr) {
        pthread_attr_t attributes;
        void *low;
        pthread_getattr_np(pthread_self(), &attributes);
        pthread_attr_getstack(&attributes, &low, &main_size);
        pthread_attr_destroy(&attributes);
        main_stack.base = static_cast<char *>(low);
    }
    w->main_size = main_size;
#endif
    w->main.stack = &main_stack;
    w->main.state = READY;
#ifdef EMULATE_TSAN
    w->main.tsan = __tsan_get_current_fiber();
#endif
    w->threads = (int)(g->block.x * g->block.y * g->block.z);
    w->block_size = g->block;
    w->grid = g->grid;
    w->body = g->body;
    w->seed = g->seed;
    w->prologue = g->prologue;
    const uint64_t blocks = (uint64_t)g->grid.x * g->grid.y * g->grid.z;
    /* every thread of the processor has its share, however busy it is: a race between blocks is there each time */
    for (uint64_t i = (uint64_t)start->slot; i < blocks && !__atomic_load_n(&g->stop, __ATOMIC_RELAXED);
         i += (uint64_t)g->workers) {
        const uint64_t b = g->seed == 1 ? blocks - 1 - i : i;
        if (g->prologue && b != 0 && b != blocks - 1) {
            continue;
        }
        w->random = (g->seed + 1) * 0x9e3779b97f4a7c15u ^ (b + 1) * 0xbf58476d1ce4e5b9u;
        run_block(w,
                  uint3{(unsigned)(b % g->grid.x), (unsigned)(b / g->grid.x % g->grid.y),
                        (unsigned)(b / g->grid.x / g->grid.y)},
                  g->dynamic);
        if (w->fault[0] != 0 && !__atomic_exchange_n(&g->stop, true, __ATOMIC_RELAXED)) {
            memcpy(g->fault, w->fault, sizeof g->fault);
        }
    }
    TSAN_ACQUIRE(&w->end);
    worker = nullptr;
    return nullptr;
}

void forget_fibers()
{
#ifdef EMULATE_TSAN
    for (Worker *w : workers) {
        for (int i = 0; w != nullptr && i < MAX_THREADS; i++) {
            if (w->fiber[i].tsan != nullptr) {
                __tsan_destroy_fiber(w->fiber[i].tsan);
                w->fiber[i].tsan = nullptr;
            }
        }
    }
#endif
}

static char last_fault[2048];

QUIET bool run_grid(const void *kernel, Place launched, dim3 grid, dim3 block, size_t dynamic, bool prologue,
                    const std::function<void()> &body)
{
    static Grid g;
    int n = prologue ? 1 : settings.threads;
    n = n < 1 ? 1 : n > MAX_WORKERS ? (int)MAX_WORKERS : n;
    g = Grid{grid, block, dynamic, &body, settings.seed, n, prologue, false, ""};
    Start start[MAX_WORKERS];
    pthread_t thread[MAX_WORKERS];
    for (int i = 0; i < n; i++) {
        start[i] = Start{&g, i};
    }
    for (int i = 1; i < n; i++) {
        if (pthread_create(&thread[i], nullptr, work, &start[i]) != 0) {
            abort();
        }
    }
    work(&start[0]);
    for (int i = 1; i < n; i++) {
        pthread_join(thread[i], nullptr);
    }
    if (g.fault[0] == 0) {
        return true;
    }
    snprintf(last_fault, sizeof last_fault, "%s, launched at %s:%d: %s", name_of(kernel).c_str(), launched.file,
             launched.line, g.fault);
    if (settings.fatal) {
        fprintf(stderr, "emulated CUDA: %s\n", last_fault);
        abort();
    }
    return false;
}

void note_fault(const char *text)
{
    snprintf(last_fault, sizeof last_fault, "%s", text);
}

} // namespace emulate_cuda

extern "C" const char *emulate_fault(void)
{
    return emulate_cuda::last_fault;
}
