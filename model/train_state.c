/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/train_state.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

typedef struct state_head {
    char mark[16];
    uint64_t count, first, updates, steps;
    uint64_t sum; /* XXH3 of the arrays, seeded with that of what precedes it here */
} state_head;

static const char mark[16] = "sluice training";

static uint64_t sum_of(const state_head *head, const float *const arrays[3])
{
    uint64_t sum = XXH3_64bits(head, offsetof(state_head, sum));
    for (int i = 0; i < 3; i++)
        sum = XXH3_64bits_withSeed(arrays[i], head->count * sizeof(float), sum);
    return sum;
}

static bool write_all(int fd, const void *bytes, size_t size)
{
    for (size_t done = 0; done < size;) {
        const ssize_t n = write(fd, (const char *)bytes + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

int sm_training_suspend(sm_training *training, const char *path, sm_error *error)
{
    const sm_training_parts p = sm_training_take_apart(training);
    const float *const arrays[3] = {p.params, p.moment, p.square};
    state_head head = {.count = p.count, .first = p.first, .updates = *p.updates, .steps = *p.steps};
    memcpy(head.mark, mark, sizeof(mark));
    head.sum = sum_of(&head, arrays);
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    bool whole = fd >= 0 && write_all(fd, &head, sizeof(head));
    for (int i = 0; whole && i < 3; i++)
        whole = write_all(fd, arrays[i], p.count * sizeof(float));
    whole = whole && fsync(fd) == 0;
    const int problem = errno;
    if (fd >= 0)
        whole = close(fd) == 0 && whole;
    if (whole)
        return SM_OK;
    if (fd >= 0)
        unlink(path);
    return sm_fail(error, SM_IO, "cannot write the state of the training to %s: %s", path, strerror(problem));
}

int sm_training_resume(sm_training *training, const char *path, sm_error *error)
{
    const sm_training_parts p = sm_training_take_apart(training);
    const size_t array = p.count * sizeof(float), size = sizeof(state_head) + 3 * array;
    struct stat st;
    state_head head;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *map = fd >= 0 && fstat(fd, &st) == 0 && st.st_size >= 0 && (uint64_t)st.st_size == size
                    ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0)
                    : MAP_FAILED;
    if (fd >= 0)
        close(fd);
    if (map == MAP_FAILED)
        return sm_fail(error, SM_FORMAT, "%s does not hold the state of this training", path);
    memcpy(&head, map, sizeof(head));
    const float *from = (const float *)(const void *)((const char *)map + sizeof(head));
    const float *const arrays[3] = {from, from + p.count, from + 2 * p.count};
    const bool fits = memcmp(head.mark, mark, sizeof(mark)) == 0 && head.count == p.count && head.first == p.first &&
                      head.sum == sum_of(&head, arrays);
    if (fits) {
        memcpy(p.params, arrays[0], array);
        memcpy(p.moment, arrays[1], array);
        memcpy(p.square, arrays[2], array);
        *p.updates = head.updates;
        *p.steps = head.steps;
    }
    munmap(map, size);
    return fits ? sm_training_refresh(training, error)
                : sm_fail(error, SM_FORMAT, "%s does not hold the state of this training, or is damaged", path);
}
