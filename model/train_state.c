/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/train_state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

typedef struct state_head {
    char mark[16];
    uint64_t count, first, updates, steps, moment_bytes;
    uint64_t sum; /* XXH3 of the arrays, seeded with that of what precedes it here */
} state_head;

static const char mark[16] = "sluice training";

/* An array of the device as the host sees it, a piece at a time: where it lies, or read into the room. */
enum { PIECE = 1 << 24 }; /* bytes */

typedef struct walk {
    const sm_training_parts *parts;
    char *room; /* NULL where the device's memory is host memory */
    sm_error *error;
} walk;

static int see(const walk *w, const char *at, size_t bytes, const char **out)
{
    *out = w->room ? w->room : at;
    return w->room ? sm_device_read(w->parts->device, w->room, at, bytes, w->error) : SM_OK;
}

static size_t piece(size_t bytes, size_t from)
{
    return bytes - from < PIECE ? bytes - from : PIECE;
}

/* Parameters and both moments, one after the other. */
enum { ARRAYS = 3 };

static size_t bytes_of(const sm_training_parts *p, int array)
{
    return p->count * (array == 0 ? sizeof(float) : p->moment_bytes);
}

static char *array_of(const sm_training_parts *p, int array)
{
    return array == 0 ? (char *)p->params : array == 1 ? (char *)p->moment : (char *)p->square;
}

/* Of the arrays in host memory. */
static uint64_t sum_of(const state_head *head, const sm_training_parts *p, const char *arrays)
{
    uint64_t sum = XXH3_64bits(head, offsetof(state_head, sum));
    for (int i = 0; i < ARRAYS; arrays += bytes_of(p, i), i++)
        sum = XXH3_64bits_withSeed(arrays, bytes_of(p, i), sum);
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

/* Writes the arrays after the place of the head, and works out the head's sum. */
static int write_arrays(const walk *w, int fd, state_head *head, XXH3_state_t *state)
{
    head->sum = XXH3_64bits(head, offsetof(state_head, sum));
    for (int i = 0; i < ARRAYS; i++) {
        const size_t size = bytes_of(w->parts, i);
        XXH3_64bits_reset_withSeed(state, head->sum);
        for (size_t at = 0; at < size; at += PIECE) {
            const size_t count = piece(size, at);
            const char *bytes;
            const int rc = see(w, array_of(w->parts, i) + at, count, &bytes);
            if (rc != SM_OK)
                return rc;
            XXH3_64bits_update(state, bytes, count);
            if (!write_all(fd, bytes, count))
                return SM_IO;
        }
        head->sum = XXH3_64bits_digest(state);
    }
    return SM_OK;
}

int sm_training_suspend(sm_training *training, const char *path, sm_error *error)
{
    const sm_training_parts p = sm_training_take_apart(training);
    const bool here = p.device->host_memory;
    state_head head = {
        .count = p.count, .first = p.first, .updates = *p.updates, .steps = *p.steps, .moment_bytes = p.moment_bytes};
    XXH3_state_t *state = XXH3_createState();
    const walk w = {&p, here ? NULL : malloc(PIECE), error};
    int rc = state && (here || w.room) ? SM_OK : sm_fail(error, SM_NO_MEMORY, "out of memory to write %s", path);
    memcpy(head.mark, mark, sizeof(mark));
    const int fd = rc == SM_OK ? open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666) : -1;
    if (rc == SM_OK)
        rc = fd >= 0 && lseek(fd, sizeof(head), SEEK_SET) >= 0 ? write_arrays(&w, fd, &head, state) : SM_IO;
    if (rc == SM_OK && (lseek(fd, 0, SEEK_SET) < 0 || !write_all(fd, &head, sizeof(head)) || fsync(fd) != 0))
        rc = SM_IO;
    const int problem = errno;
    if (fd >= 0 && close(fd) != 0 && rc == SM_OK)
        rc = SM_IO;
    XXH3_freeState(state);
    free(w.room);
    if (rc != SM_OK && fd >= 0)
        unlink(path);
    return rc == SM_IO
               ? sm_fail(error, SM_IO, "cannot write the state of the training to %s: %s", path, strerror(problem))
               : rc;
}

/* Takes the arrays over. */
static int take(const sm_training_parts *p, const char *arrays, sm_error *error)
{
    int rc = SM_OK;
    for (int i = 0; i < ARRAYS; arrays += bytes_of(p, i), i++)
        for (size_t at = 0; rc == SM_OK && at < bytes_of(p, i); at += PIECE)
            rc = sm_device_write(p->device, array_of(p, i) + at, arrays + at, piece(bytes_of(p, i), at), error);
    return rc;
}

int sm_training_resume(sm_training *training, const char *path, sm_error *error)
{
    const sm_training_parts p = sm_training_take_apart(training);
    const size_t size = sizeof(state_head) + bytes_of(&p, 0) + bytes_of(&p, 1) + bytes_of(&p, 2);
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
    const char *arrays = (const char *)map + sizeof(head);
    const bool fits = memcmp(head.mark, mark, sizeof(mark)) == 0 && head.count == p.count && head.first == p.first &&
                      head.moment_bytes == p.moment_bytes && head.sum == sum_of(&head, &p, arrays);
    int rc = fits ? take(&p, arrays, error)
                  : sm_fail(error, SM_FORMAT, "%s does not hold the state of this training, or is damaged", path);
    munmap(map, size);
    if (rc != SM_OK)
        return rc;
    *p.updates = head.updates;
    *p.steps = head.steps;
    return sm_training_refresh(training, error);
}
