/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * Device memory: one file a card, mapped twice. The first mapping has the addresses that programs know; it is closed
 * to everybody but kernels at work, so that a device pointer followed by the host ends the process with a clear
 * message. The emulator's own accesses go through the second. What nobody owns is full of 0xff, a NaN in every type:
 * so is new memory, freed memory, and the zones between blocks, which are looked at after each kernel. */
#include "runtime.h"
#include "sanitizer.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

namespace emulate_cuda
{

enum { QUARANTINE = 32 << 20 }; /* bytes of freed memory that are not used again at once */

/* ---- who touches what it must not ---- */

static struct sigaction before;

static Card *card_around(const void *p)
{
    for (Card &card : rt.cards) {
        const char *c = static_cast<const char *>(p);
        if (card.view != nullptr && c >= card.view && c < card.view + card.span) {
            return &card;
        }
    }
    return nullptr;
}

static void say_where(char *text, size_t size, const Card *card, size_t offset)
{
    auto next = card->blocks.upper_bound(offset);
    if (next != card->blocks.begin()) {
        const auto block = std::prev(next);
        if (offset < block->first + block->second.size) {
            snprintf(text, size, "byte %zu of a block of %zu", offset - block->first, block->second.size);
            return;
        }
        snprintf(text, size, "%zu bytes behind the end of a block of %zu", offset - block->first - block->second.size,
                 block->second.size);
        return;
    }
    snprintf(text, size, "no block's");
}

/* Runs on a stack of its own: a fiber's may be the one that is full. */
static void on_fault(int number, siginfo_t *info, void *)
{
    const char *p = static_cast<const char *>(info->si_addr);
    char text[512] = "", where_text[128];
    const Card *card = card_around(p);
    const Worker *w = worker;
    if (w != nullptr) {
        const Fiber *f = w->current;
        const char *what = p < reinterpret_cast<const char *>(65536) ? "follows a null pointer"
                           : w->prologue && card != nullptr
                               ? "touches the device's memory before it has waited for the kernel before it"
                               : "touches no memory at all";
        if (w->stacks != nullptr && p >= w->stacks && p < w->stacks + (size_t)MAX_THREADS * (STACK + GUARD)) {
            what = "has used its whole stack";
        }
        snprintf(text, sizeof text,
                 "emulated CUDA: %s: block (%u,%u,%u) thread (%u,%u,%u) %s (address %p), after %s at %s:%d\n",
                 name_of(rt.kernel).c_str(), w->block.x, w->block.y, w->block.z, f->index.x, f->index.y, f->index.z,
                 what, info->si_addr, f->what, f->at.file, f->at.line);
    } else if (card != nullptr) {
        say_where(where_text, sizeof where_text, card, (size_t)(p - card->view));
        snprintf(text, sizeof text, "emulated CUDA: the host touches device memory at %p, %s\n", info->si_addr,
                 where_text);
    }
    if (write(STDERR_FILENO, text, strlen(text)) < 0) {
        _exit(2);
    }
    sigaction(number, &before, nullptr); /* the access is tried again, and ends as it would have */
}

static void watch()
{
    static bool watching;
    if (watching) {
        return;
    }
    watching = true;
    static char stack[64 * 1024];
    stack_t alternative = {};
    alternative.ss_sp = stack;
    alternative.ss_size = sizeof stack;
#ifndef EMULATE_ASAN /* which has one */
    sigaltstack(&alternative, nullptr);
#endif
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &before);
}

/* ---- cards ---- */

bool make_card(Card *card, size_t memory)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    /* Room for the zones, and for what lies between blocks. */
    card->span = (memory + memory / 4 + ((size_t)64 << 20) + page - 1) / page * page;
    card->file = memfd_create("emulated device memory", MFD_CLOEXEC);
    if (card->file < 0 || ftruncate(card->file, (off_t)card->span) != 0) {
        return false;
    }
    void *view = mmap(nullptr, card->span, PROT_NONE, MAP_SHARED | MAP_NORESERVE, card->file, 0);
    void *own = mmap(nullptr, card->span, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, card->file, 0);
    if (view == MAP_FAILED || own == MAP_FAILED) {
        return false;
    }
    card->view = static_cast<char *>(view);
    card->inside = static_cast<char *>(own);
    card->free_rooms[0] = card->span;
    ASAN_POISON_MEMORY_REGION(card->view, card->span);
    watch();
    return true;
}

void drop_card(Card *card)
{
    if (card->view != nullptr) {
        ASAN_UNPOISON_MEMORY_REGION(card->view, card->span);
        munmap(card->view, card->span);
        munmap(card->inside, card->span);
    }
    if (card->file >= 0) {
        close(card->file);
    }
    for (cudaMemPool_t pool : card->pools) {
        delete pool;
    }
}

static void protect(int how)
{
    for (const Card &card : rt.cards) {
        if (card.view != nullptr && mprotect(card.view, card.span, how) != 0) {
            perror("emulated CUDA: mprotect");
            abort();
        }
    }
}

void open_memory()
{
    if (!rt.open) {
        rt.open = true;
        protect(PROT_READ | PROT_WRITE);
    }
}

void close_memory()
{
    if (rt.open) {
        rt.open = false;
        protect(PROT_NONE);
    }
}

/* ---- whose an address is ---- */

Where where(const void *p, int *device)
{
    for (size_t i = 0; i < rt.cards.size(); i++) {
        if (card_around(p) == &rt.cards[i]) {
            *device = (int)i;
            return DEVICE;
        }
    }
    char *c = static_cast<char *>(const_cast<void *>(p));
    auto next = rt.pinned.upper_bound(c);
    if (next != rt.pinned.begin() && c < std::prev(next)->first + std::prev(next)->second.first) {
        *device = current_device();
        return PINNED;
    }
    *device = -1;
    return PAGEABLE;
}

char *inside(const void *p)
{
    const Card *card = card_around(p);
    char *c = static_cast<char *>(const_cast<void *>(p));
    return card == nullptr ? c : card->inside + (c - card->view);
}

static Block *find(Card *card, size_t offset, size_t *within)
{
    auto next = card->blocks.upper_bound(offset);
    if (next == card->blocks.begin()) {
        return nullptr;
    }
    const auto block = std::prev(next);
    if (offset >= block->first + (block->second.size != 0 ? block->second.size : 1)) {
        return nullptr;
    }
    *within = offset - block->first;
    return &block->second;
}

Block *block_of(const void *p, size_t *within)
{
    Card *card = card_around(p);
    return card == nullptr ? nullptr : find(card, (size_t)(static_cast<const char *>(p) - card->view), within);
}

static bool born(const Block *b, const Stream *by)
{
    return b->born.stream == nullptr || b->born.stream.get() == by || b->born.stream->done >= b->born.ticket;
}

bool usable(const void *p, size_t size, const Stream *by, std::string *why)
{
    int device;
    size_t at = 0;
    if (size == 0 || where(p, &device) != DEVICE) {
        return true;
    }
    const Block *b = block_of(p, &at);
    char text[160];
    if (b == nullptr) {
        snprintf(text, sizeof text, "%p is in no block of device memory that is alive", p);
    } else if (at + size > b->size) {
        snprintf(text, sizeof text, "bytes %zu to %zu of a block of %zu", at, at + size, b->size);
    } else if (!born(b, by)) {
        snprintf(text, sizeof text, "a block that another stream allocates, which was not waited for");
    } else {
        return true;
    }
    *why = text;
    return false;
}

bool host_pointer(uint64_t word)
{
    /* Two small numbers side by side may look like an address in the shadow that ASan or TSan keeps below here. */
#ifdef EMULATE_ASAN
    const uint64_t lowest = 0x10007fff8000;
#elif defined(EMULATE_TSAN)
    const uint64_t lowest = 0x550000000000;
#else
    const uint64_t lowest = 65536;
#endif
    int device;
    if (word < lowest || word >> 47 != 0 || where(reinterpret_cast<void *>(word), &device) != PAGEABLE) {
        return false;
    }
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char resident;
    return mincore(reinterpret_cast<void *>(word / page * page), 1, &resident) == 0;
}

bool stale_pointer(uint64_t word, const Stream *by, std::string *why)
{
    const char *p = reinterpret_cast<const char *>(word);
    Card *card = card_around(p);
    if (card == nullptr) {
        return false;
    }
    size_t at;
    const size_t offset = (size_t)(p - card->view);
    const Block *b = find(card, offset, &at);
    if (b != nullptr) {
        if (!born(b, by)) {
            *why = "a block that another stream allocates, which was not waited for";
            return true;
        }
        return false;
    }
    for (const auto &freed : card->quarantine) {
        if (offset >= freed.first && offset < freed.first + freed.second.size) {
            *why = "a block that was freed before";
            return true;
        }
    }
    return false; /* behind an end, or of long ago */
}

/* ---- blocks ---- */

static bool all_ones(const char *p, size_t size)
{
    static const std::vector<char> ones(4096, (char)0xff);
    while (size != 0) {
        const size_t n = size < ones.size() ? size : ones.size();
        if (memcmp(p, ones.data(), n) != 0) {
            return false;
        }
        p += n;
        size -= n;
    }
    return true;
}

bool zones_untouched(std::string *why)
{
    for (const Card &card : rt.cards) {
        for (const auto &b : card.blocks) {
            const size_t end = b.first + b.second.size;
            if (!all_ones(card.inside + b.first - ZONE, ZONE) ||
                !all_ones(card.inside + end, b.first + b.second.room + ZONE - end)) {
                char text[128];
                snprintf(text, sizeof text, "it wrote beside a block of %zu bytes", b.second.size);
                *why = text;
                return false;
            }
        }
    }
    return true;
}

static void leave_quarantine(Card *card)
{
    const auto freed = card->quarantine.front();
    card->quarantine.erase(card->quarantine.begin());
    if (!all_ones(card->inside + freed.first, freed.second.room)) {
        fault("a block of %zu bytes was written to after it was freed", freed.second.size);
        memset(card->inside + freed.first, 0xff, freed.second.room);
    }
    size_t at = freed.first - ZONE, size = freed.second.room + 2 * ZONE;
    auto next = card->free_rooms.lower_bound(at);
    if (next != card->free_rooms.end() && next->first == at + size) {
        size += next->second;
        next = card->free_rooms.erase(next);
    }
    if (next != card->free_rooms.begin() && std::prev(next)->first + std::prev(next)->second == at) {
        at = std::prev(next)->first;
        size += std::prev(next)->second;
        card->free_rooms.erase(std::prev(next));
    }
    card->free_rooms[at] = size;
}

static void *place(Card *card, size_t size, size_t room, cudaMemPool_t pool)
{
    for (auto hole = card->free_rooms.begin(); hole != card->free_rooms.end(); ++hole) {
        if (hole->second < room + 2 * ZONE) {
            continue;
        }
        const size_t at = hole->first + ZONE, end = at + room + ZONE;
        if (hole->second > room + 2 * ZONE) {
            card->free_rooms[end] = hole->first + hole->second - end;
        }
        card->free_rooms.erase(hole);
        if (end > card->touched) {
            memset(card->inside + card->touched, 0xff, end - card->touched);
            card->touched = end;
        }
        card->blocks[at] = Block{size, room, false, false, pool, Point()};
        ASAN_UNPOISON_MEMORY_REGION(card->view + at, size);
        return card->view + at;
    }
    return nullptr;
}

static int number_of(const Card *card)
{
    return (int)(card - rt.cards.data());
}

size_t unused(const Card *card)
{
    const size_t total = memory_of_device(number_of(card)), own = total / 64; /* what a context takes for itself */
    size_t held = card->used + own + Shared().others(number_of(card));
    for (const cudaMemPool_t pool : card->pools) {
        held += pool->used;
    }
    return held < total ? total - held : 0;
}

void tell_others(const Card *card)
{
    size_t held = card->used + memory_of_device(number_of(card)) / 64;
    for (const cudaMemPool_t pool : card->pools) {
        held += pool->reserved;
    }
    Shared().tell(number_of(card), held);
}

void release_kept(int device)
{
    if ((size_t)device >= rt.cards.size() || !rt.cards[(size_t)device].context) {
        return;
    }
    const Card &card = rt.cards[(size_t)device];
    for (const cudaMemPool_t pool : card.pools) {
        const size_t keeps = pool->used > pool->threshold ? pool->used : pool->threshold;
        pool->reserved = keeps < pool->reserved ? keeps : pool->reserved;
    }
    tell_others(&card);
}

/* Counts down to the allocation that fails, and those after it that fail as well. */
static bool refuses(int device)
{
    int64_t &nth = settings.fail_allocation;
    if ((settings.fail_device >= 0 && settings.fail_device != device) || nth == 0 || --nth > 0) {
        return false;
    }
    const bool again = settings.refusals != 1;
    settings.refusals -= settings.refusals > 1;
    nth += again;
    return true;
}

bool out_of_luck(int64_t *nth)
{
    return *nth > 0 && --*nth == 0;
}

void *take(Card *card, int device, size_t size, cudaMemPool_t pool)
{
    const size_t room = (size + ZONE - 1) / ZONE * ZONE + (size == 0 ? (size_t)ZONE : 0);
    rt.counts.taken++;
    if (refuses(device)) {
        return nullptr;
    }
    const Shared until_it_is_told;
    if (room > unused(card) || (pool != nullptr && pool->most != 0 && pool->used + room > pool->most)) {
        return nullptr;
    }
    void *p = place(card, size, room, pool);
    while (p == nullptr && !card->quarantine.empty()) {
        leave_quarantine(card);
        p = place(card, size, room, pool);
    }
    if (p == nullptr) {
        return nullptr;
    }
    if (pool == nullptr) {
        card->used += room;
    } else {
        pool->used += room;
        pool->used_high = pool->used > pool->used_high ? pool->used : pool->used_high;
        pool->reserved = pool->used > pool->reserved ? pool->used : pool->reserved;
        pool->reserved_high = pool->reserved > pool->reserved_high ? pool->reserved : pool->reserved_high;
    }
    tell_others(card);
    rt.counts.bytes += room;
    rt.counts.most = rt.counts.bytes > rt.counts.most ? rt.counts.bytes : rt.counts.most;
    return p;
}

void give(void *p)
{
    Card *card = card_around(p);
    if (card == nullptr) { /* the device was reset meanwhile */
        return;
    }
    const size_t at = (size_t)(static_cast<char *>(p) - card->view);
    const Block block = card->blocks[at];
    card->blocks.erase(at);
    memset(card->inside + at, 0xff, block.room);
    ASAN_POISON_MEMORY_REGION(p, block.room);
    (block.pool != nullptr ? block.pool->used : card->used) -= block.room;
    rt.counts.bytes -= block.room;
    card->quarantine.push_back({at, block});
    size_t held = 0;
    for (const auto &freed : card->quarantine) {
        held += freed.second.room;
    }
    while (held > QUARANTINE && !card->quarantine.empty()) {
        held -= card->quarantine.front().second.room;
        leave_quarantine(card);
    }
}

} // namespace emulate_cuda
