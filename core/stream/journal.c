/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "core/stream/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/base/file.h"
#include "core/stream/format.h"

enum kind { PLACED = 1, WAITS = 2 };

/* As they lie in the file; both ends are one machine. `sum` is over what precedes it, with the salt as seed. */
typedef struct file_head {
    char mark[8];
    uint64_t version, salt, sum;
} file_head;

typedef struct entry {
    uint32_t kind, size; /* size: of the record that follows */
    uint64_t place;      /* PLACED: position in the stream; WAITS: in the input */
    uint64_t bytes_sum;  /* of the record */
    uint64_t sum;
} entry;

static const char mark[8] = "SLJOURNL";

static uint64_t head_sum(const file_head *head)
{
    return XXH3_64bits_withSeed(head, offsetof(file_head, sum), head->salt);
}

static uint64_t entry_sum(const entry *e, uint64_t salt)
{
    return XXH3_64bits_withSeed(e, offsetof(entry, sum), salt);
}

static int write_head(sl_journal *j)
{
    file_head head = {.version = 1, .salt = j->salt};
    memcpy(head.mark, mark, sizeof mark);
    head.sum = head_sum(&head);
    struct iovec piece = {&head, sizeof head};
    j->end = sizeof head;
    return sl_write_at(j->fd, &piece, 1, 0) < 0 ? SLUICE_IO : SLUICE_OK;
}

int sl_journal_create(sl_journal *j, const char *path)
{
    *j = (sl_journal){.fd = -1, .path = strdup(path)};
    if (!j->path)
        return SLUICE_NO_MEMORY;
    if (unlink(path) < 0 && errno != ENOENT)
        return SLUICE_IO;
    j->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (j->fd < 0)
        return SLUICE_IO;
    /* Nobody who writes records can know it, so no record can pass for entries. */
    if (getrandom(&j->salt, sizeof j->salt, 0) != sizeof j->salt)
        return SLUICE_IO;
    return write_head(j);
}

static int append(sl_journal *j, entry *e, const void *bytes)
{
    e->sum = entry_sum(e, j->salt);
    struct iovec pieces[2] = {{e, sizeof *e}, {(void *)(uintptr_t)bytes, e->size}};
    if (sl_write_at(j->fd, pieces, 2, j->end) < 0)
        return SLUICE_IO;
    j->end += sizeof *e + e->size;
    return SLUICE_OK;
}

int sl_journal_pack(sl_buffer *entries, uint64_t ordinal, const void *bytes, size_t size, uint64_t sum)
{
    const entry e = {.kind = PLACED, .size = (uint32_t)size, .place = ordinal, .bytes_sum = sum};
    int rc = sl_buffer_reserve(entries, sizeof e + size);
    if (rc >= 0)
        rc = sl_buffer_append(entries, &e, sizeof e);
    return rc >= 0 ? sl_buffer_append(entries, bytes, size) : rc;
}

int sl_journal_write(sl_journal *j, sl_buffer *entries)
{
    entry e;
    for (size_t at = 0; at < entries->size; at += sizeof e + e.size) {
        memcpy(&e, entries->data + at, sizeof e);
        e.sum = entry_sum(&e, j->salt);
        memcpy(entries->data + at, &e, sizeof e);
    }
    struct iovec piece = {entries->data, entries->size};
    if (sl_write_at(j->fd, &piece, 1, j->end) < 0)
        return SLUICE_IO;
    j->end += entries->size;
    return SLUICE_OK;
}

int sl_journal_wait(sl_journal *j, uint64_t number, const void *bytes, size_t size, uint64_t sum, uint64_t *offset)
{
    entry e = {.kind = WAITS, .size = (uint32_t)size, .place = number, .bytes_sum = sum};
    *offset = j->end;
    return append(j, &e, bytes);
}

/* A whole entry's head at `offset`: SLUICE_END when there is none with this salt. */
static int read_entry(int fd, uint64_t offset, uint64_t salt, entry *e)
{
    const ssize_t got = sl_read_at(fd, e, sizeof *e, offset);
    if (got < 0)
        return SLUICE_IO;
    return (size_t)got == sizeof *e && e->sum == entry_sum(e, salt) && e->size <= SL_RECORD_MOST ? SLUICE_OK
                                                                                                 : SLUICE_END;
}

static int read_bytes(int fd, uint64_t offset, const entry *e, sl_buffer *out)
{
    out->size = 0;
    int rc = sl_buffer_reserve(out, e->size);
    if (rc < 0)
        return rc;
    const ssize_t got = sl_read_at(fd, out->data, e->size, offset + sizeof *e);
    if (got < 0)
        return SLUICE_IO;
    if ((size_t)got < e->size || sl_sum(out->data, e->size) != e->bytes_sum)
        return SLUICE_END;
    out->size = e->size;
    return SLUICE_OK;
}

int sl_journal_read(const sl_journal *j, uint64_t offset, sl_buffer *out, uint64_t *sum)
{
    entry e;
    int rc = read_entry(j->fd, offset, j->salt, &e);
    if (rc == SLUICE_OK && e.kind != WAITS)
        rc = SLUICE_END;
    if (rc == SLUICE_OK)
        rc = read_bytes(j->fd, offset, &e, out);
    *sum = rc == SLUICE_OK ? e.bytes_sum : 0;
    return rc == SLUICE_END ? SLUICE_CORRUPT : rc;
}

int sl_journal_reset(sl_journal *j)
{
    if (j->end == sizeof(file_head))
        return SLUICE_OK;
    j->salt++;
    return write_head(j);
}

int sl_journal_begin(const sl_journal *j, sl_journal *fresh)
{
    char *path = malloc(strlen(j->path) + 5);
    if (!path)
        return SLUICE_NO_MEMORY;
    sprintf(path, "%s.new", j->path);
    int rc = sl_journal_create(fresh, path);
    free(path);
    return rc;
}

int sl_journal_replace(sl_journal *j, sl_journal *fresh)
{
    if (rename(fresh->path, j->path) < 0)
        return SLUICE_IO;
    free(fresh->path);
    close(j->fd);
    fresh->path = j->path;
    *j = *fresh;
    return SLUICE_OK;
}

void sl_journal_leave(sl_journal *j)
{
    if (j->fd >= 0)
        close(j->fd);
    free(j->path);
    *j = (sl_journal){.fd = -1};
}

void sl_journal_remove(sl_journal *j)
{
    if (j->fd >= 0)
        unlink(j->path);
    sl_journal_leave(j);
}

static bool head_fits(int fd, file_head *head)
{
    return sl_read_at(fd, head, sizeof *head, 0) == (ssize_t)sizeof *head &&
           memcmp(head->mark, mark, sizeof mark) == 0 && head->version == 1 && head->sum == head_sum(head);
}

int sl_journal_take(sl_journal *j, const char *path, int (*each)(void *context, uint64_t number, uint64_t offset),
                    void *context)
{
    file_head head;
    entry e;
    *j = (sl_journal){.fd = open(path, O_RDONLY | O_CLOEXEC), .path = (char *)(uintptr_t)path};
    if (j->fd < 0 || !head_fits(j->fd, &head))
        return SLUICE_END;
    j->salt = head.salt;
    int rc = SLUICE_OK;
    for (uint64_t at = sizeof head; rc == SLUICE_OK && read_entry(j->fd, at, j->salt, &e) == SLUICE_OK;
         at += sizeof e + e.size)
        if (e.kind == WAITS)
            rc = each(context, e.place, at);
    return rc;
}

void sl_journal_reader_rewind(sl_journal_reader *r)
{
    r->salt = r->at = 0;
}

void sl_journal_reader_close(sl_journal_reader *r)
{
    if (r->fd >= 0)
        close(r->fd);
    r->fd = -1;
    sl_journal_reader_rewind(r);
}

/* The file that now has the name: opened, or opened again when the writer put another in its place. */
static int refresh(sl_journal_reader *r)
{
    struct stat named, open_one;
    if (r->fd >= 0 && (stat(r->path, &named) < 0 || fstat(r->fd, &open_one) < 0 || named.st_ino != open_one.st_ino ||
                       named.st_dev != open_one.st_dev))
        sl_journal_reader_close(r);
    if (r->fd < 0)
        r->fd = open(r->path, O_RDONLY | O_CLOEXEC);
    return r->fd < 0 ? SLUICE_END : SLUICE_OK;
}

int sl_journal_next(sl_journal_reader *r, uint64_t ordinal, sl_buffer *out)
{
    file_head head;
    entry e;
    if (refresh(r) != SLUICE_OK || !head_fits(r->fd, &head))
        return SLUICE_END;
    if (head.salt != r->salt || r->at == 0) {
        r->salt = head.salt;
        r->at = sizeof head;
    }
    for (;;) {
        int rc = read_entry(r->fd, r->at, r->salt, &e);
        if (rc != SLUICE_OK)
            return rc;
        if (e.kind == PLACED && e.place >= ordinal)
            break;
        r->at += sizeof e + e.size;
    }
    int rc = e.place == ordinal ? read_bytes(r->fd, r->at, &e, out) : SLUICE_END;
    if (rc == SLUICE_OK)
        r->at += sizeof e + e.size;
    return rc;
}
