/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <zstd.h>
#include <sluice/random.h>
#include "plugins/jsonl/lines.h"

struct place {
    int64_t offset;
    uint64_t number;
};

struct lines {
    const sluice_host *host;
    char *path;
    FILE *file;
    char *text;
    size_t room;
    uint64_t number;      /* of the line read last, while reading straight through */
    uint64_t skip, left;  /* straight through: lines to leave out, lines still to give */
    struct place *places; /* NULL = straight through */
    size_t count, next;
};

static bool blank(const char *text, size_t length)
{
    return strspn(text, " \t\r\n") >= length;
}

/* Unpacks the whole file into an unlinked one, so that lines can be read in any order. */
static int unpack(lines *l)
{
    int rc = SLUICE_IO, fd = sluice_scratch(l->host);
    FILE *plain = fd < 0 ? NULL : fdopen(fd, "w+b");
    ZSTD_DStream *stream = ZSTD_createDStream();
    size_t in_room = ZSTD_DStreamInSize(), out_room = ZSTD_DStreamOutSize(), got, state = 0;
    char *in = malloc(in_room), *out = malloc(out_room);
    if (!plain || !stream || !in || !out) {
        sluice_error(l->host, rc, "cannot unpack %s: %s", l->path, plain ? "out of memory" : "no scratch file");
        goto done;
    }
    while ((got = fread(in, 1, in_room, l->file)) > 0) {
        ZSTD_inBuffer source = {in, got, 0};
        ZSTD_outBuffer target = {out, out_room, 0};
        do {
            target.pos = 0;
            state = ZSTD_decompressStream(stream, &target, &source);
            if (ZSTD_isError(state)) {
                rc = sluice_error(l->host, SLUICE_BAD_FILE, "%s is damaged: %s", l->path, ZSTD_getErrorName(state));
                goto done;
            }
            if (fwrite(out, 1, target.pos, plain) != target.pos) {
                sluice_error(l->host, rc, "cannot unpack %s: %s", l->path, strerror(errno));
                goto done;
            }
        } while (source.pos < source.size || target.pos == out_room);
    }
    if (ferror(l->file))
        sluice_error(l->host, rc, "cannot read %s: %s", l->path, strerror(errno));
    else if (state != 0)
        rc = sluice_error(l->host, SLUICE_BAD_FILE, "%s ends in the middle of its compressed data; copy it again",
                          l->path);
    else if (fflush(plain) != 0 || fseeko(plain, 0, SEEK_SET) != 0)
        sluice_error(l->host, rc, "cannot unpack %s: %s", l->path, strerror(errno));
    else
        rc = SLUICE_OK;
done:
    if (rc == SLUICE_OK) {
        fclose(l->file);
        l->file = plain;
    } else if (plain) {
        fclose(plain);
    }
    ZSTD_freeDStream(stream);
    free(in);
    free(out);
    return rc;
}

/* What the file is, by its first bytes: names mislead. */
static int unwrap(lines *l)
{
    unsigned char head[4] = {0};
    size_t got = fread(head, 1, sizeof head, l->file);
    if (got == 0 && ferror(l->file))
        return sluice_error(l->host, SLUICE_IO, "cannot read %s: %s", l->path, strerror(errno));
    rewind(l->file);
    uint32_t magic = head[0] | (uint32_t)head[1] << 8 | (uint32_t)head[2] << 16 | (uint32_t)head[3] << 24;
    if (magic == ZSTD_MAGICNUMBER || (magic & ZSTD_MAGIC_SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START)
        return unpack(l);
    if (head[0] == 0x1f && head[1] == 0x8b)
        return sluice_error(l->host, SLUICE_BAD_FILE, "%s is compressed by gzip; unpack it with gunzip, or use zstd",
                            l->path);
    return SLUICE_OK;
}

/* One line into l->text; *length without the line's end. */
static int read_line(lines *l, size_t *length)
{
    errno = 0;
    ssize_t got = getline(&l->text, &l->room, l->file);
    if (got < 0) {
        if (ferror(l->file) || errno == ENOMEM)
            return sluice_error(l->host, SLUICE_IO, "cannot read %s: %s", l->path, strerror(errno));
        return SLUICE_END;
    }
    while (got > 0 && (l->text[got - 1] == '\n' || l->text[got - 1] == '\r'))
        l->text[--got] = 0;
    *length = (size_t)got;
    return SLUICE_OK;
}

/* The places of all lines that `skip` and `limit` leave. */
static int index_lines(lines *l, uint64_t skip, uint64_t limit)
{
    size_t room = 0, length;
    for (uint64_t number = 1;; number++) {
        int64_t offset = ftello(l->file);
        int rc = read_line(l, &length);
        if (rc == SLUICE_END || (limit > 0 && l->count == limit))
            break;
        if (rc < 0)
            return rc;
        if (blank(l->text, length))
            continue;
        if (skip > 0) {
            skip--;
            continue;
        }
        if (l->count == room) {
            room = room ? 2 * room : 1024;
            struct place *grown = realloc(l->places, room * sizeof *grown);
            if (!grown)
                return sluice_error(l->host, SLUICE_NO_MEMORY, "out of memory for the places of %zu lines of %s", room,
                                    l->path);
            l->places = grown;
        }
        l->places[l->count++] = (struct place){offset, number};
    }
    return SLUICE_OK;
}

/* Fisher and Yates, by counting. */
static void shuffle(struct place *places, size_t count, uint64_t seed)
{
    sluice_draw place = {.seed = seed, .purpose = SLUICE_PURPOSE_SHUFFLE};
    uint64_t key[2], counter[2];
    uint32_t bits[4];
    sluice_draw_place(&place, key, counter);
    for (size_t i = count; i > 1; i--) {
        counter[1] = i;
        sluice_philox(key, counter, bits);
        size_t j = sluice_uniform_below(bits[0], bits[1], i);
        struct place swap = places[i - 1];
        places[i - 1] = places[j];
        places[j] = swap;
    }
}

static int choose(lines *l, const lines_choice *choice)
{
    int rc = index_lines(l, choice->skip, choice->limit);
    if (rc < 0)
        return rc;
    if (l->count < choice->parts)
        return sluice_error(l->host, SLUICE_BAD_FILE,
                            "%s has %zu records, too few for %" PRIu64 " parts; give it more, or split = \"all\"",
                            l->path, l->count, choice->parts);
    size_t begin = (size_t)((unsigned __int128)l->count * choice->part / choice->parts);
    size_t end = (size_t)((unsigned __int128)l->count * (choice->part + 1) / choice->parts);
    l->next = begin;
    l->count = end;
    if (choice->shuffle)
        shuffle(l->places + begin, end - begin, choice->seed);
    clearerr(l->file);
    return SLUICE_OK;
}

int lines_open(const sluice_host *host, const char *path, const lines_choice *choice, lines **out)
{
    int rc = SLUICE_OK;
    lines *l = calloc(1, sizeof *l);
    *out = NULL;
    if (!l || !(l->path = strdup(path))) {
        free(l);
        return sluice_error(host, SLUICE_NO_MEMORY, "out of memory");
    }
    l->host = host;
    l->skip = choice->skip;
    l->left = choice->limit ? choice->limit : UINT64_MAX;
    l->file = fopen(path, "rb");
    if (!l->file)
        rc = sluice_error(host, SLUICE_BAD_FILE, "cannot open %s: %s", path, strerror(errno));
    if (rc == SLUICE_OK)
        rc = unwrap(l);
    if (rc == SLUICE_OK && (choice->parts > 1 || choice->shuffle))
        rc = choose(l, choice);
    if (rc < 0) {
        lines_close(l);
        return rc;
    }
    *out = l;
    return SLUICE_OK;
}

/* The next line in the file's own order. */
static int next_straight(lines *l, size_t *length)
{
    if (l->left == 0)
        return SLUICE_END;
    for (;;) {
        int rc = read_line(l, length);
        if (rc != SLUICE_OK)
            return rc;
        l->number++;
        if (blank(l->text, *length))
            continue;
        if (l->skip == 0)
            break;
        l->skip--;
    }
    l->left--;
    return SLUICE_OK;
}

static int next_chosen(lines *l, size_t *length)
{
    if (l->next == l->count)
        return SLUICE_END;
    const struct place *place = &l->places[l->next++];
    if (fseeko(l->file, place->offset, SEEK_SET) != 0)
        return sluice_error(l->host, SLUICE_IO, "cannot read %s: %s", l->path, strerror(errno));
    l->number = place->number;
    int rc = read_line(l, length);
    return rc == SLUICE_END ? sluice_error(l->host, SLUICE_IO, "%s became shorter while it was read", l->path) : rc;
}

int lines_next(lines *l, const char **text, size_t *length, uint64_t *number)
{
    int rc = l->places ? next_chosen(l, length) : next_straight(l, length);
    if (rc != SLUICE_OK)
        return rc;
    *text = l->text;
    *number = l->number;
    if (l->number == 1 && *length >= 3 && memcmp(l->text, "\xef\xbb\xbf", 3) == 0) { /* a byte order mark */
        *text += 3;
        *length -= 3;
    }
    return SLUICE_OK;
}

uint64_t lines_count(const lines *l)
{
    return l->places ? l->count - l->next : 0;
}

void lines_close(lines *l)
{
    if (!l)
        return;
    if (l->file)
        fclose(l->file);
    free(l->places);
    free(l->text);
    free(l->path);
    free(l);
}
