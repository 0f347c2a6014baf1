/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Lists that attention's plans are made of, in host memory. */
#ifndef KERNELS_CUDA_ATTENTION_LIST_CUH
#define KERNELS_CUDA_ATTENTION_LIST_CUH

#include "attention.cuh"

#include <algorithm>
#include <stdlib.h>

/* A growing array of the host. Running out of memory is kept until somebody asks. */
template <class T> struct attend_list {
    T *at = NULL;
    size_t count = 0, room = 0;
    bool failed = false;

    ~attend_list()
    {
        free(at);
    }
    void add(const T &item)
    {
        if (count == room && !failed) {
            const size_t more = room ? 2 * room : 64;
            T *grown = (T *)realloc(at, more * sizeof(T));
            if (grown == NULL) {
                failed = true;
                return;
            }
            at = grown;
            room = more;
        }
        if (!failed)
            at[count++] = item;
    }
    /* On the device. */
    const T *upload(kn_cuda *c) const
    {
        if (failed)
            kn_cuda_refuse(c, KN_NO_MEMORY);
        return c->status == KN_OK && count > 0 ? (const T *)kn_cuda_upload(c, at, count * sizeof(T)) : NULL;
    }
};

/* An item of work and how long it takes, in some unit. */
template <class T> struct attend_weighed {
    uint64_t cost;
    T item;
};

/* The items, longest first (those of one length as they came): the last blocks to start are then short ones. */
template <class T> void attend_longest_first(attend_list<T> &sorted, attend_list<attend_weighed<T>> &work)
{
    typedef attend_weighed<T> item;
    sorted.failed = sorted.failed || work.failed;
    for (size_t i = 0; i < work.count; i++) /* the place among equals, for a sort that is not stable */
        work.at[i].cost = work.at[i].cost << 32 | (UINT32_MAX - (uint32_t)i);
    std::sort(work.at, work.at + work.count, [](const item &x, const item &y) { return x.cost > y.cost; });
    for (size_t i = 0; i < work.count; i++)
        sorted.add(work.at[i].item);
}

/* The tiles of one sequence's queries; `number` is its place among the attend_rows. */
static inline void attend_list_tiles(attend_list<attend_weighed<attend_tile>> &work, const attend_rows &s,
                                     uint32_t number, const attend_shape &a, uint32_t tile_rows)
{
    const uint32_t end = s.count * a.group;
    for (uint32_t first = 0; first < end; first += tile_rows) {
        const uint32_t last = (end - first < tile_rows ? end : first + tile_rows) - 1;
        const int64_t from = (int64_t)s.before + first / a.group + 1 - a.window;
        const int64_t keys = (int64_t)s.before + last / a.group + 1 - (from > 0 ? from : 0);
        work.add({(uint64_t)keys, {number, first}});
    }
}

#endif
