/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * What a test can ask of the emulated device, and see of it. The same settings are read from the environment when the
 * first call is made: EMULATED_CUDA="seed=3,memory=64M,fail_launch=12,launch_error=700".
 * EMULATED_CUDA_SHARED=FILE: the cards are those of all processes that name the file.
 * EMULATED_CUDA_COUNTS=FILE: when the program ends, a line with the counts is appended. EMULATED_CUDA_KERNELS=FILE: the
 * kernels that it carried out, one a line. */
#ifndef EMULATE_CONTROL_H
#define EMULATE_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct emulate_settings {
    /* The order of threads, blocks and streams, and when copies land. 0: threads in rising order, everything as late as
     * it may happen; 1: one warp far ahead of the others, work done at once where it may be; others at random, even
     * ones with changing warps far ahead. */
    uint64_t seed;
    int threads;    /* of the processor, that run blocks; more than one finds races between blocks (TSan) */
    bool fatal;     /* a fault found in a kernel ends the process (the default), or else the call that waits fails */
    int devices;    /* 0: no device */
    size_t memory;  /* bytes of each card */
    int capability; /* 10 · major + minor */
    int multiprocessors;     /* of each card */
    int driver;              /* version that the driver supports, as 13000; 0: no driver */
    int64_t fail_launch;     /* the n-th kernel from now, 1 the next, fails when it runs; 0: none */
    int launch_error;        /* with this cudaError_t; 700, an illegal address, by default */
    int64_t signal_launch;   /* the n-th kernel from now begins with a signal to the process; 0: none */
    int signal;              /* which; 9 by default, as of kill -9 */
    int64_t fail_allocation; /* the n-th allocation of device memory from now finds none; 0: none */
    int64_t refusals;        /* so many in a row; 0: all from that one on. A call that finds none asks a second time */
    int64_t fail_pinned;     /* the same for pinned host memory */
    int fail_device;         /* the device that fail_launch and fail_allocation count on; -1: any */
    size_t small;            /* bytes of the last card; 0: as the others have */
    int other;               /* cards from this one on are of another kind; 0: all are of one */
    int nccl;                /* version of NCCL, as 22809; 0: there is none */
    int64_t fail_nccl;       /* the n-th collective call from now fails in the middle, and its ranks wait for ever */
    int closed;              /* the card whose pools cannot be opened to others; -1: none */
    bool exclusive;          /* a card is the process's that came first (EMULATED_CUDA_SHARED) */
    int refuse_graph;        /* the cudaError_t that each graph is refused with: from 900 when its capture ends, below
                                when it is instantiated; 0: none */
    int patience;            /* milliseconds that a collective waits for a rank while nothing else happens */
    int code;                /* the architecture that kernels were compiled for; 0: the card's */
} emulate_settings;

typedef struct emulate_counts {
    int contexts;            /* primary contexts ever made */
    int streams;             /* alive, without the default ones */
    int events;              /* alive */
    int allocations, pinned; /* alive, of device memory and of pinned host memory */
    uint64_t taken;          /* allocations of device memory asked for, as fail_allocation counts them */
    size_t bytes, most;      /* of device memory in use, and the most there was */
    uint64_t launches;       /* kernels queued, those inside graphs not counted */
    uint64_t graph_launches;
    uint64_t captures;  /* begun */
    uint64_t ran;       /* kernels, those inside graphs too: as fail_launch and signal_launch count them */
    uint64_t products;  /* of matrices */
    uint64_t copies;    /* between host and device */
    uint64_t pageable;  /* of them, with host memory that is not pinned: these wait on a device */
    int communicators;  /* of NCCL, alive */
    uint64_t sums;      /* by NCCL, over all cards */
    uint64_t following; /* kernels asked for that may begin before the one before them has ended */
    uint64_t waits;     /* calls in which the host waited for a stream, an event or the device */
} emulate_counts;

/* The settings in force, to be changed by the caller between calls of the runtime. */
emulate_settings *emulate(void);
emulate_counts emulate_count(void);
/* The device as after boot, with default settings: memory, streams and errors are forgotten. */
void emulate_reset(void);
/* The last fault found in a kernel, in one line; "" when there was none. */
const char *emulate_fault(void);

#ifdef __cplusplus
}
#endif

#endif
