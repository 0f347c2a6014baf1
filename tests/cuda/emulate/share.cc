/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * Cards in common with other processes. EMULATED_CUDA_SHARED=FILE: processes that name one file use the same cards, so
 * what the pools of one keep another does not find, and an exclusive card is the first one's. The file has an entry a
 * process: its number, and how much of each card it holds. A process that ended, however it did, holds nothing. */
#include "runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

namespace emulate_cuda
{

enum { PROCESSES = 64, CARDS = 8 };

struct Holder {
    pid_t process;
    size_t held[CARDS]; /* 0: it has no context there */
};

static int file = -1, depth;
static Holder *holders;

static bool alive(const Holder &h)
{
    return h.process != 0 && (kill(h.process, 0) == 0 || errno != ESRCH);
}

static void open_file(const char *name)
{
    const size_t size = PROCESSES * sizeof(Holder);
    file = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    void *p = file >= 0 && ftruncate(file, (off_t)size) == 0
                  ? mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
                  : MAP_FAILED;
    if (p == MAP_FAILED) {
        perror("EMULATED_CUDA_SHARED");
        exit(2);
    }
    holders = static_cast<Holder *>(p);
}

Shared::Shared()
{
    const char *name = getenv("EMULATED_CUDA_SHARED");
    if (name != nullptr && holders == nullptr) {
        open_file(name);
    }
    if (depth++ == 0 && holders != nullptr) {
        flock(file, LOCK_EX);
    }
}

Shared::~Shared()
{
    if (--depth == 0 && holders != nullptr) {
        flock(file, LOCK_UN);
    }
}

size_t Shared::others(int device) const
{
    size_t held = 0;
    for (int i = 0; holders != nullptr && i < PROCESSES && device < CARDS; i++) {
        if (holders[i].process != getpid() && alive(holders[i])) {
            held += holders[i].held[device];
        }
    }
    return held;
}

void Shared::tell(int device, size_t held) const
{
    Holder *own = nullptr;
    for (int i = 0; holders != nullptr && i < PROCESSES; i++) {
        if (holders[i].process == getpid()) {
            own = &holders[i];
            break;
        }
        if (own == nullptr && !alive(holders[i])) {
            own = &holders[i];
        }
    }
    if (own == nullptr || device >= CARDS) {
        return;
    }
    if (own->process != getpid()) {
        *own = Holder{getpid(), {}};
    }
    own->held[device] = held;
}

} // namespace emulate_cuda
