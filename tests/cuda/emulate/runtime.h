/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * The inside of the emulated runtime: what its files share. One lock guards everything; public functions take it by
 * `Call`. Work is queued on streams, with its arguments by value, and executed when something waits for it, in an order
 * that the seed sets; the processor sees device memory only through the emulator's own second mapping of it. */
#ifndef EMULATE_RUNTIME_H
#define EMULATE_RUNTIME_H

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <cuda_runtime.h>

#include "control.h"
#include "fiber.h"

struct CUmemPoolHandle_st {
    int device;
    size_t most, threshold, used, used_high, reserved, reserved_high;
    std::vector<bool> open_to; /* by device: other cards may read and write what it gives */
};

namespace emulate_cuda
{

struct Stream;
struct Capture;
struct Assembly;

/* A point in a stream's work. */
struct Point {
    std::shared_ptr<Stream> stream;
    uint64_t ticket;
};

/* One piece of queued work. */
struct Work {
    const char *what; /* kind of work it is */
    std::function<void()> run;
    std::vector<Point> after;                     /* not before these */
    std::shared_ptr<Assembly> assembly = nullptr; /* not before other cards' streams are at theirs: then run does all */
};

/* Work that several cards do together, as one sum over all of them: each has it in a stream, and it begins when all are
 * there (nccl.cc). */
struct Assembly {
    std::string what;                            /* in messages */
    std::vector<std::shared_ptr<Stream>> stream; /* by rank; null: has not come */
    std::vector<bool> gone;                      /* ranks that gave up, and go on without it */
    bool over = false;                           /* it is done */
    bool lost = false;                           /* it never will be */
    uint64_t progress = 0;                       /* of the runtime, and since when it has made no more */
    double since = 0;
};

struct Stream {
    int device = 0;
    bool blocking = false; /* in step with the default stream */
    bool destroyed = false;
    uint64_t issued = 0, done = 0;
    std::deque<Work> queue; /* of tickets done + 1 … issued */
    std::shared_ptr<Capture> capture;
    std::vector<int> tail; /* the nodes that the next captured work follows */
};

/* A piece of device memory. */
struct Block {
    size_t size; /* asked for */
    size_t room; /* taken, without the zones around it */
    bool freeing, async;
    cudaMemPool_t pool;
    Point born; /* in stream order; stream null: at once */
};

enum { ZONE = 256 }; /* bytes beside each block, watched; also every block's alignment */

struct Card {
    bool context = false;
    char *view = nullptr, *inside = nullptr; /* what programs see, and the emulator's own mapping */
    size_t span = 0;                         /* bytes of both */
    size_t touched = 0;                      /* bytes from the start that were ever used */
    size_t used = 0;                         /* by cudaMalloc */
    int file = -1;
    std::map<size_t, Block> blocks;      /* by offset */
    std::map<size_t, size_t> free_rooms; /* offset, bytes with both zones */
    std::vector<std::pair<size_t, Block>> quarantine;
    std::vector<cudaMemPool_t> pools; /* the first is the default one */
    cudaMemPool_t current_pool = nullptr;
    std::shared_ptr<Stream> legacy;
    std::vector<bool> peers;
};

struct Runtime {
    bool begun = false;
    std::vector<Card> cards;
    std::vector<std::shared_ptr<Stream>> streams; /* with the default ones */
    std::map<cudaStream_t, std::shared_ptr<Stream>> handles;
    std::map<char *, std::pair<size_t, bool>> pinned; /* bytes, and whether it was only registered */
    std::map<int, cudaError_t> broken;                /* sticky errors, by device */
    int working = -1;                                 /* the device whose work runs; -1: the host's call */
    uint64_t progress = 0;                            /* work queued and done */
    emulate_counts counts = {};
    uint64_t random = 0, random_of = 0; /* and the seed that it came from */
    int open = 0;                       /* how often device memory was opened */
    const void *kernel = nullptr;       /* at work, or the last one */
    std::vector<std::weak_ptr<Capture>> captures;
    int buffers = -1; /* whether NCCL keeps off the arrays of other cards; -1: it has not read its variable yet */
};

extern Runtime &rt; /* never destroyed: what the card still holds at the end is no leak */
extern emulate_settings settings;
extern std::set<const void *> carried_out; /* kernels, since the program began */

/* Every public function begins with one: takes the lock, reads the settings at the first call, and knows a pending
 * sticky error. */
struct Call {
    Call();
    ~Call();
};
/* Notes the thread's last error. */
cudaError_t answer(cudaError_t);
/* ---- device.cc ---- */
int current_device(); /* the thread's */
void choose_device(int ordinal);
/* The card, with its context made; nullptr and *error when there is none. */
Card *card_of_device(int device, cudaError_t *error);
size_t memory_of_device(int device); /* bytes */
/* The sticky error of a device: of the one whose work runs, else of the thread's. */
cudaError_t &broken();
cudaError_t &broken(int device);
#define EMULATE_BEGIN()                        \
    emulate_cuda::Call call;                   \
    if (emulate_cuda::broken() != cudaSuccess) \
    return emulate_cuda::answer(emulate_cuda::broken())

/* Bytes of shared memory that a block may ask for, by compute capability. */
int shared_most();

/* symbol.cc: what a function is called. */
std::string name_of(const void *function);

/* A fault of the program under test that no CUDA error tells: ends the process, or breaks the device. */
void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));
void note_fault(const char *text);
/* Of idle blocks: a process that forks afterwards has no more than one thread to TSan. */
void forget_fibers();
/* Lets other threads of the host call, within a call that waits. */
void let_others();
uint64_t draw();

/* ---- card.cc ---- */
bool make_card(Card *, size_t memory);
void drop_card(Card *);
/* Opens device memory to kernels; who lets work run closes it again before the host goes on. */
void open_memory();
void close_memory();
enum Where { DEVICE, PINNED, PAGEABLE };
Where where(const void *p, int *device);
/* The emulator's own address of device memory, or p itself. */
char *inside(const void *p);
/* The live block around p, or nullptr. */
Block *block_of(const void *p, size_t *offset_in_block);
/* Whether [p, p + size) is one live block's or pinned; says what is wrong with it otherwise. */
bool usable(const void *p, size_t size, const Stream *by, std::string *why);
/* Whether an argument's word points where kernels must not go; host memory is seen at once, freed memory when they
 * run. */
bool host_pointer(uint64_t word);
bool stale_pointer(uint64_t word, const Stream *by, std::string *why);
/* After a kernel: nobody wrote between the blocks. */
bool zones_untouched(std::string *why);
/* Counts down to a fault that a test asked for. */
bool out_of_luck(int64_t *nth);
/* How many bytes of the card nobody holds: no other process, and no block of ours. */
size_t unused(const Card *);
/* A block, or nullptr when there is no room. */
void *take(Card *, int device, size_t size, cudaMemPool_t);
void give(void *p); /* now: poisons it */

/* What the card's user holds of it, with what pools keep, told to other processes. */
void tell_others(const Card *);
/* After waiting: pools give back what they keep above their thresholds. */
void release_kept(int device);

/* ---- share.cc ---- */
/* While one lives no other process takes or gives memory. */
struct Shared {
    Shared();
    ~Shared();
    size_t others(int device) const; /* bytes that other processes hold */
    void tell(int device, size_t held) const;
};

/* ---- stream.cc ---- */
std::shared_ptr<Stream> stream_of(cudaStream_t);
std::shared_ptr<Stream> new_stream(int device, bool blocking);
/* Queues work on a stream, or adds it to the graph that the stream captures. */
cudaError_t enqueue(const std::shared_ptr<Stream> &, Work);
/* The assembly that the stream's next work waits for; nullptr when there is none, or it is done without it (nccl.cc).
 */
Assembly *assembly_of(const Stream *);
/* Whether nothing has happened for so long that the assembly, for which the stream waits, will never be. Says so once.
 */
bool given_up(const Stream *, Assembly *);
/* Executes until the stream has done the ticket, which may need other threads of the host; an assembly that some rank
 * never comes to is a fault. */
void run_until(const std::shared_ptr<Stream> &, uint64_t ticket);
void run_all();
/* Refuses what no capture allows, and spoils the captures that see it. */
cudaError_t forbid_in_capture();

/* ---- graph.cc ---- */
cudaError_t add_node(const std::shared_ptr<Stream> &, Work);
/* The stream follows nodes of a capture, and becomes part of it. */
cudaError_t join_capture(const std::shared_ptr<Stream> &, const std::shared_ptr<Capture> &,
                         const std::vector<int> &nodes);
cudaError_t capture_free(const std::shared_ptr<Stream> &, void *p);

} // namespace emulate_cuda

#endif
