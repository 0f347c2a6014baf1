/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "plugins/trainer/examples.h"

int examples_open(const sluice_host *host, examples *e)
{
    int fd = sluice_scratch(host);
    e->host = host;
    e->file = fd < 0 ? NULL : fdopen(fd, "w+b");
    return e->file ? SLUICE_OK
                   : sluice_error(host, SLUICE_IO, "no scratch file for the training examples: %s", strerror(errno));
}

static void put(examples *e, const void *bytes, size_t size)
{
    if (size > 0 && fwrite(bytes, 1, size, e->file) == size)
        e->size += size;
}

int examples_add(examples *e, const example *x)
{
    const uint64_t begin = e->size;
    if (e->count == e->room) {
        size_t room = e->room ? 2 * e->room : 1024;
        uint64_t *grown = realloc(e->offset, room * sizeof *grown);
        if (!grown)
            return sluice_error(e->host, SLUICE_NO_MEMORY, "out of memory for the places of %zu examples", room);
        e->offset = grown;
        e->room = room;
    }
    put(e, x, sizeof *x);
    put(e, x->prompt, x->prompt_count * sizeof *x->prompt);
    for (uint32_t a = 0; a < x->answer_count; a++)
        put(e, x->answer[a], x->count[a] * sizeof *x->answer[a]);
    if (x->answer_count == 1)
        put(e, x->mask, x->count[0] * sizeof *x->mask);
    if (x->has_reference)
        put(e, x->token_reference, x->count[0] * sizeof *x->token_reference);
    if (x->has_sampler)
        put(e, x->token_sampler, x->count[0] * sizeof *x->token_sampler);
    put(e, x->id, x->id_size);
    static const char zeros[8];
    put(e, zeros, (size_t)(-e->size & 7)); /* the next example's doubles are aligned */
    if (ferror(e->file))
        return sluice_error(e->host, SLUICE_IO, "cannot keep the training examples in the run's folder: %s",
                            strerror(errno));
    e->offset[e->count++] = begin;
    e->tokens += x->prompt_count + x->count[0] + (x->answer_count > 1 ? x->count[1] : 0);
    return SLUICE_OK;
}

int examples_seal(examples *e)
{
    if (fflush(e->file) != 0)
        return sluice_error(e->host, SLUICE_IO, "cannot keep the training examples in the run's folder: %s",
                            strerror(errno));
    if (e->size == 0)
        return SLUICE_OK;
    e->map = mmap(NULL, e->size, PROT_READ, MAP_SHARED, fileno(e->file), 0);
    if (e->map == MAP_FAILED) {
        e->map = NULL;
        return sluice_error(e->host, SLUICE_IO, "cannot read the training examples back: %s", strerror(errno));
    }
    return SLUICE_OK;
}

void examples_get(const examples *e, size_t index, example *x)
{
    const char *at = e->map + e->offset[index];
    memcpy(x, at, sizeof *x);
    at += sizeof *x;
    x->prompt = (const uint32_t *)(const void *)at;
    at += x->prompt_count * sizeof(uint32_t);
    for (uint32_t a = 0; a < x->answer_count; a++) {
        x->answer[a] = (const uint32_t *)(const void *)at;
        at += x->count[a] * sizeof(uint32_t);
    }
    x->mask = x->answer_count == 1 ? (const float *)(const void *)at : NULL;
    at += x->answer_count == 1 ? x->count[0] * sizeof(float) : 0;
    x->token_reference = x->has_reference ? (const float *)(const void *)at : NULL;
    at += x->has_reference ? x->count[0] * sizeof(float) : 0;
    x->token_sampler = x->has_sampler ? (const float *)(const void *)at : NULL;
    at += x->has_sampler ? x->count[0] * sizeof(float) : 0;
    x->id = at;
}

void examples_close(examples *e)
{
    if (e->map)
        munmap(e->map, e->size);
    if (e->file)
        fclose(e->file);
    free(e->offset);
    memset(e, 0, sizeof *e);
}
