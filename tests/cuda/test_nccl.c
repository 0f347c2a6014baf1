/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Several GPUs over the emulated runtime: sums by NCCL against those of the host, what cannot be joined says why, what
 * fails in the middle ends for all of them, and nothing is left behind. Then the emulator's own NCCL: misuse of every
 * kind is found and named.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "emulate/control.h"
#include "kernels/cuda/cuda.h"

#include <nccl.h>

enum { MOST = 4 };

static int fresh(void **state)
{
    (void)state;
    unsetenv("NCCL_P2P_DIRECT_DISABLE");
    emulate_reset();
    emulate()->devices = MOST;
    return 0;
}

typedef struct cards {
    kn_device *device[MOST];
    float *x[MOST];
    size_t count, n;
} cards;

/* Element i of device d: sums of them round, so their order shows. */
static float element(size_t d, size_t i)
{
    return (float)((double)(i * 2654435761u % 1000003) / 1000003 - 0.3 * (double)d) * (d == 1 ? 1e-3f : 1);
}

static cards cards_new(size_t count, size_t n)
{
    cards c = {.count = count, .n = n};
    float *host = malloc(n * sizeof(*host));
    for (size_t d = 0; d < count; d++) {
        const char *why = NULL;
        c.device[d] = kn_cuda_new((int)d, &why);
        if (!c.device[d])
            fail_msg("%s", why);
        c.x[d] = c.device[d]->ops->alloc(c.device[d], n * sizeof(float));
        for (size_t i = 0; i < n; i++)
            host[i] = element(d, i);
        assert_int_equal(c.device[d]->ops->write(c.device[d], c.x[d], host, n * sizeof(float)), KN_OK);
    }
    free(host);
    return c;
}

static void cards_end(cards *c)
{
    for (size_t d = 0; d < c->count; d++) {
        c->device[d]->ops->free(c->device[d], c->x[d]);
        kn_cuda_free(c->device[d]);
    }
    const emulate_counts left = emulate_count();
    assert_int_equal(left.allocations + left.pinned + left.streams + left.events + left.communicators, 0);
    assert_int_equal(left.bytes, 0);
}

static kn_collective *join(const cards *c)
{
    const char *why = NULL;
    kn_collective *group = kn_nccl_join(c->device, c->count, &why);
    if (!group)
        fail_msg("%s", why);
    return group;
}

static float *read_card(const cards *c, size_t d)
{
    float *host = malloc(c->n * sizeof(*host));
    assert_int_equal(c->device[d]->ops->read(c->device[d], host, c->x[d], c->n * sizeof(float)), KN_OK);
    return host;
}

/* --- sums -----------------------------------------------------------------------------------------------------------
 */

/* Work is asked of each card before and after, so that a sum out of its turn shows. */
static void sum_as_the_host_does(void **state)
{
    static const size_t sizes[] = {1, 33, 1000, 300000};
    for (uint64_t seed = 0; seed < 6; seed++)
        for (size_t count = 2; count <= MOST; count++)
            for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
                fresh(state);
                emulate()->seed = seed;
                float *seen[2] = {NULL, NULL};
                for (int by_host = 0; by_host < 2; by_host++) {
                    cards c = cards_new(count, sizes[s]);
                    kn_collective *group = by_host ? kn_collective_host(c.device, c.count) : join(&c);
                    for (size_t d = 0; d < count; d++)
                        assert_int_equal(c.device[d]->ops->add(c.device[d], c.x[d], c.x[d], c.n), KN_OK);
                    assert_int_equal(group->sum(group, c.x, c.n), KN_OK);
                    for (size_t d = 0; d < count; d++)
                        assert_int_equal(c.device[d]->ops->add(c.device[d], c.x[d], c.x[d], c.n), KN_OK);
                    seen[by_host] = read_card(&c, 0);
                    for (size_t d = 1; d < count; d++) {
                        float *other = read_card(&c, d);
                        assert_memory_equal(other, seen[by_host], c.n * sizeof(float));
                        free(other);
                    }
                    assert_null(group->error(group));
                    group->free(group);
                    cards_end(&c);
                }
                for (size_t i = 0; i < sizes[s]; i++) { /* and as it should be */
                    double sum = 0;
                    for (size_t d = 0; d < count; d++)
                        sum += 4.0 * (double)element(d, i);
                    assert_true(fabs(sum - (double)seen[0][i]) < 1e-5);
                }
                assert_memory_equal(seen[0], seen[1], sizes[s] * sizeof(float));
                free(seen[0]);
                free(seen[1]);
            }
}

static void one_call_for_all(void **state)
{
    (void)state;
    cards c = cards_new(3, 1000);
    kn_collective *group = join(&c);
    assert_string_equal(group->name, "nccl2.28.9");
    assert_int_equal(group->count, 3);
    assert_int_equal(emulate_count().communicators, 3);
    for (int i = 0; i < 5; i++)
        assert_int_equal(group->sum(group, c.x, c.n), KN_OK);
    assert_int_equal(group->sum(group, c.x, 0), KN_OK);
    assert_int_equal(emulate_count().sums, 5);
    group->free(group);
    cards_end(&c);
}

/* Where one GPU's memory stays its own NCCL takes buffers, and the sums are the same. */
static void a_closed_pool_is_gone_round(void **state)
{
    float *seen[2];
    for (int closed = 0; closed < 2; closed++) {
        fresh(state);
        emulate()->closed = closed ? 1 : -1;
        cards c = cards_new(3, 1000);
        kn_collective *group = join(&c);
        if (closed) {
            assert_string_equal(group->note, "sums over GPUs go through buffers of NCCL, which may be slower: GPU 1's "
                                             "memory cannot be opened to GPU 0 (operation not supported)");
            assert_string_equal(getenv("NCCL_P2P_DIRECT_DISABLE"), "1");
        } else {
            assert_null(group->note);
            assert_null(getenv("NCCL_P2P_DIRECT_DISABLE"));
        }
        assert_int_equal(group->sum(group, c.x, c.n), KN_OK);
        seen[closed] = read_card(&c, 2);
        assert_string_equal(group->name, "nccl2.28.9");
        assert_int_equal(cudaGetLastError(), cudaSuccess);
        group->free(group);
        cards_end(&c);
    }
    assert_memory_equal(seen[0], seen[1], 1000 * sizeof(float));
    free(seen[0]);
    free(seen[1]);
    /* Who asked for buffers hears nothing of it. */
    emulate_reset();
    emulate()->devices = 2;
    emulate()->closed = 0;
    cards c = cards_new(2, 8);
    kn_collective *group = join(&c);
    assert_null(group->note);
    assert_int_equal(group->sum(group, c.x, c.n), KN_OK);
    group->free(group);
    cards_end(&c);
}

/* --- what cannot be joined ------------------------------------------------------------------------------------------
 */

static void refused(const char *words)
{
    cards c = cards_new(2, 8);
    const char *why = NULL;
    assert_null(kn_nccl_join(c.device, 2, &why));
    if (!strstr(why, words) || strchr(why, '\n'))
        fail_msg("'%s' does not say '%s'", why, words);
    cards_end(&c);
}

static void what_cannot_be_joined_says_why(void **state)
{
    char text[96];
    emulate()->nccl = 0;
    refused("no NCCL: libnccl.so.2 cannot be opened; install libnccl2");
    emulate()->nccl = 21403;
    refused("NCCL 2.14.3, too old: 2.18 is needed");
    kn_nccl_describe(text, sizeof(text));
    assert_string_equal(text, "NCCL 2.14.3, too old: 2.18 is needed");
    fresh(state);
    emulate()->other = 1;
    refused("GPU 1 is of another kind (another device) than GPU 0 (emulated device)");
}

/* A pool that is not opened because its GPU stopped, or where the user forbids the way round. */
static void a_closed_pool_that_cannot_be_gone_round_says_why(void **state)
{
    emulate()->closed = 0;
    setenv("NCCL_P2P_DIRECT_DISABLE", "0", 1);
    refused("GPU 0's memory cannot be opened to GPU 1 (operation not supported), and NCCL_P2P_DIRECT_DISABLE=0");
    fresh(state);
    emulate()->closed = 0;
    cards c = cards_new(2, 8);
    const char *why = NULL;
    emulate()->fail_device = 1;
    emulate()->fail_launch = 1;
    c.device[1]->ops->add(c.device[1], c.x[1], c.x[1], 8);
    float got[8];
    assert_int_equal(c.device[1]->ops->read(c.device[1], got, c.x[1], sizeof(got)), KN_DEVICE_FAILED);
    assert_null(kn_nccl_join(c.device, 2, &why));
    assert_non_null(strstr(why, "2 GPUs cannot be joined: an illegal memory access was encountered"));
    assert_null(getenv("NCCL_P2P_DIRECT_DISABLE"));
    for (size_t d = 0; d < 2; d++) {
        c.device[d]->ops->free(c.device[d], c.x[d]);
        kn_cuda_free(c.device[d]);
    }
}

/* --- what fails in the middle ---------------------------------------------------------------------------------------
 */

static void fails_for_all(cards *c, kn_collective *group, const char *words)
{
    assert_int_equal(group->sum(group, c->x, c->n), KN_DEVICE_FAILED);
    const char *why = group->error(group);
    assert_non_null(why);
    if (!strstr(why, words) || strchr(why, '\n'))
        fail_msg("'%s' does not say '%s'", why, words);
    assert_int_equal(group->sum(group, c->x, c->n), KN_DEVICE_FAILED); /* it is over */
    assert_string_equal(group->error(group), why);
    assert_int_equal(emulate_count().communicators, 0);
    group->free(group);
}

/* One card stops in what precedes the sum; the others, which wait for it, are let go and still work. */
static void a_card_that_fails_ends_the_sum(void **state)
{
    for (uint64_t seed = 0; seed < 4; seed++)
        for (size_t which = 0; which < 3; which++) {
            fresh(state);
            emulate()->seed = seed;
            cards c = cards_new(3, 1000);
            kn_collective *group = join(&c);
            emulate()->fail_device = (int)which;
            emulate()->fail_launch = 1;
            for (size_t d = 0; d < 3; d++)
                c.device[d]->ops->add(c.device[d], c.x[d], c.x[d], c.n);
            char words[64];
            snprintf(words, sizeof(words), "GPU %zu (emulated device) failed", which);
            fails_for_all(&c, group, words);
            for (size_t d = 0; d < 3; d++) {
                assert_int_equal(c.device[d]->ops->error(c.device[d]) != NULL, d == which);
                if (d != which)
                    assert_int_equal(c.device[d]->ops->add(c.device[d], c.x[d], c.x[d], c.n), KN_OK);
            }
            for (size_t d = 0; d < 3; d++) {
                c.device[d]->ops->free(c.device[d], c.x[d]);
                kn_cuda_free(c.device[d]);
            }
        }
}

static void cards_that_lose_each_other_end_the_sum(void **state)
{
    for (uint64_t seed = 0; seed < 4; seed++) {
        fresh(state);
        emulate()->seed = seed;
        cards c = cards_new(2, 1000);
        kn_collective *group = join(&c);
        assert_int_equal(group->sum(group, c.x, c.n), KN_OK);
        emulate()->fail_nccl = 2;
        fails_for_all(&c, group, "NCCL failed in a sum over GPUs: unhandled system error");
        cards_end(&c);
    }
}

/* --- the emulator: what is wrong in how NCCL is used ----------------------------------------------------------------
 */

typedef struct ranks {
    ncclComm_t comm[2];
    cudaStream_t stream[2];
    float *x[2];
} ranks;

static ranks ranks_new(void)
{
    static const int devices[] = {0, 1};
    ranks r;
    emulate_reset();
    emulate()->devices = 2;
    emulate()->fatal = false;
    emulate()->patience = 50;
    assert_int_equal(ncclCommInitAll(r.comm, 2, devices), ncclSuccess);
    for (int d = 0; d < 2; d++) {
        assert_int_equal(cudaSetDevice(d), cudaSuccess);
        assert_int_equal(cudaStreamCreateWithFlags(&r.stream[d], cudaStreamNonBlocking), cudaSuccess);
        assert_int_equal(cudaMalloc((void **)&r.x[d], 64 * sizeof(float)), cudaSuccess);
    }
    return r;
}

static ncclResult_t rank_sums(const ranks *r, int rank, void *x, size_t n, cudaStream_t stream)
{
    return ncclAllReduce(x, x, n, ncclFloat32, ncclSum, r->comm[rank], stream);
}

static void found(const char *words)
{
    if (!strstr(emulate_fault(), words))
        fail_msg("'%s' does not say '%s'", emulate_fault(), words);
}

static void misuse_is_found(void **state)
{
    (void)state;
    ranks r = ranks_new();
    ncclGroupStart();
    assert_int_equal(rank_sums(&r, 0, r.x[0], 64, r.stream[0]), ncclSuccess);
    assert_int_equal(rank_sums(&r, 1, r.x[1], 63, r.stream[1]), ncclInvalidArgument);
    ncclGroupEnd();
    found("sum 1 of 64 numbers, which rank 0 asks for: rank 1 gives 63 numbers");

    r = ranks_new();
    rank_sums(&r, 0, r.x[0], 64, r.stream[0]);
    rank_sums(&r, 1, r.x[1], 64, r.stream[1]);
    found("one thread calls for ranks 0 and 1 without a group");

    r = ranks_new();
    ncclGroupStart();
    rank_sums(&r, 0, r.x[1], 64, r.stream[0]);
    ncclGroupEnd();
    found("rank 0 of a sum is given memory that is not of its device, 0");

    r = ranks_new();
    float host[64];
    ncclGroupStart();
    rank_sums(&r, 1, host, 64, r.stream[1]);
    ncclGroupEnd();
    found("rank 1 of a sum is given memory that is not of its device, 1");

    r = ranks_new();
    ncclGroupStart();
    rank_sums(&r, 0, r.x[0], 64, r.stream[1]);
    ncclGroupEnd();
    found("a stream of another device than its own, 0");

    r = ranks_new();
    ncclGroupStart();
    rank_sums(&r, 0, r.x[0], 65, r.stream[0]);
    rank_sums(&r, 1, r.x[1], 65, r.stream[1]);
    ncclGroupEnd();
    assert_int_not_equal(cudaStreamSynchronize(r.stream[0]), cudaSuccess);
    found("rank 0 gives bytes 0 to 260 of a block of 256");

    r = ranks_new();
    const cudaMemPoolProps properties = {.allocType = cudaMemAllocationTypePinned,
                                         .location = {.type = cudaMemLocationTypeDevice, .id = 1}};
    cudaMemPool_t pool;
    float *pooled;
    assert_int_equal(cudaMemPoolCreate(&pool, &properties), cudaSuccess);
    assert_int_equal(cudaMallocFromPoolAsync((void **)&pooled, 64 * sizeof(float), pool, r.stream[1]), cudaSuccess);
    ncclGroupStart();
    rank_sums(&r, 0, r.x[0], 64, r.stream[0]);
    rank_sums(&r, 1, pooled, 64, r.stream[1]);
    ncclGroupEnd();
    assert_int_not_equal(cudaStreamSynchronize(r.stream[0]), cudaSuccess);
    found("rank 1 gives memory of a pool that device 0 may not use");

    r = ranks_new();
    assert_int_equal(ncclAllReduce(r.x[0], r.x[0], 8, ncclFloat16, ncclSum, r.comm[0], r.stream[0]),
                     ncclInvalidArgument);
    static const int twice[] = {1, 1};
    assert_int_equal(ncclCommInitAll(r.comm, 2, twice), ncclInvalidUsage);
}

/* A wait for a rank that never comes ends, and says so. */
static void a_missing_rank_is_named(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 3; seed++) {
        const ranks r = ranks_new();
        emulate()->seed = seed;
        assert_int_equal(rank_sums(&r, 0, r.x[0], 64, r.stream[0]), ncclSuccess);
        assert_int_not_equal(cudaStreamSynchronize(r.stream[0]), cudaSuccess);
        found("sum 1 of 64 numbers, which rank 0 asks for: rank 1 of 2 never comes");
    }
}

/* Nothing is summed before the streams are waited for, so that a host that reads too early sees it. */
static void sums_are_late(void **state)
{
    (void)state;
    const ranks r = ranks_new();
    float *seen, *given;
    assert_int_equal(cudaMallocHost((void **)&seen, 64 * sizeof(float)), cudaSuccess);
    assert_int_equal(cudaMallocHost((void **)&given, 64 * sizeof(float)), cudaSuccess);
    for (int i = 0; i < 64; i++)
        given[i] = (float)i;
    for (int d = 0; d < 2; d++)
        assert_int_equal(cudaMemcpyAsync(r.x[d], given, 64 * sizeof(float), cudaMemcpyHostToDevice, r.stream[d]),
                         cudaSuccess);
    ncclGroupStart();
    for (int d = 0; d < 2; d++)
        assert_int_equal(rank_sums(&r, d, r.x[d], 64, r.stream[d]), ncclSuccess);
    ncclGroupEnd();
    assert_int_equal(cudaMemcpyAsync(seen, r.x[1], 64 * sizeof(float), cudaMemcpyDeviceToHost, r.stream[1]),
                     cudaSuccess);
    assert_true(isnan(seen[5]));
    assert_int_equal(emulate_count().sums, 0);
    assert_int_equal(cudaStreamSynchronize(r.stream[1]), cudaSuccess);
    assert_int_equal(emulate_count().sums, 1);
    assert_true(seen[5] == 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(sum_as_the_host_does, fresh),
        cmocka_unit_test_setup(one_call_for_all, fresh),
        cmocka_unit_test_setup(a_closed_pool_is_gone_round, fresh),
        cmocka_unit_test_setup(what_cannot_be_joined_says_why, fresh),
        cmocka_unit_test_setup(a_closed_pool_that_cannot_be_gone_round_says_why, fresh),
        cmocka_unit_test_setup(a_card_that_fails_ends_the_sum, fresh),
        cmocka_unit_test_setup(cards_that_lose_each_other_end_the_sum, fresh),
        cmocka_unit_test_setup(misuse_is_found, fresh),
        cmocka_unit_test_setup(a_missing_rank_is_named, fresh),
        cmocka_unit_test_setup(sums_are_late, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
