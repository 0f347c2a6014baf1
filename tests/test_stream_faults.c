/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Every allocation and every call on files of a stream's life is made to fail, each in turn: no crash, no leak (under
 * AddressSanitizer), an error of one line, nothing under the final name.
 *
 * The linker sends the library's calls here (--wrap).
 */
#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/streams.h"

static _Atomic long calls;
static long failing; /* the call that fails; 0 = none */
static int failing_errno;

static bool fails(void)
{
    if (!failing || ++calls != failing)
        return false;
    errno = failing_errno;
    return true;
}

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
ssize_t __real_pwritev(int, const struct iovec *, int, off_t);
ssize_t __real_pread(int, void *, size_t, off_t);
int __real_fsync(int);
int __real_rename(const char *, const char *);
void *__wrap_malloc(size_t);
void *__wrap_calloc(size_t, size_t);
void *__wrap_realloc(void *, size_t);
ssize_t __wrap_pwritev(int, const struct iovec *, int, off_t);
ssize_t __wrap_pread(int, void *, size_t, off_t);
int __wrap_fsync(int);
int __wrap_rename(const char *, const char *);

void *__wrap_malloc(size_t size)
{
    return failing_errno == ENOMEM && fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return failing_errno == ENOMEM && fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return failing_errno == ENOMEM && fails() ? NULL : __real_realloc(old, size);
}

/* EINTR stands for a call that is interrupted once and then does half of what it was asked. */
ssize_t __wrap_pwritev(int fd, const struct iovec *pieces, int count, off_t offset)
{
    if (failing_errno == EINTR && ++calls % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    if (failing_errno == EINTR && pieces->iov_len > 1)
        return __real_pwritev(fd, &(struct iovec){pieces->iov_base, pieces->iov_len / 2}, 1, offset);
    return failing_errno != ENOMEM && fails() ? -1 : __real_pwritev(fd, pieces, count, offset);
}

ssize_t __wrap_pread(int fd, void *to, size_t size, off_t offset)
{
    if (failing_errno == EINTR && ++calls % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    if (failing_errno == EINTR && size > 1)
        return __real_pread(fd, to, size / 2, offset);
    return failing_errno != ENOMEM && fails() ? -1 : __real_pread(fd, to, size, offset);
}

int __wrap_fsync(int fd)
{
    return failing_errno == EIO && fails() ? -1 : __real_fsync(fd);
}

int __wrap_rename(const char *from, const char *to)
{
    return failing_errno == EIO && fails() ? -1 : __real_rename(from, to);
}

enum { COUNT = 32 };

static void say(char *error, size_t size, const char *text)
{
    snprintf(error, size, "%s", text);
}

/* Out of order, so that the journal is read as well. */
static int write_all(const char *path, sl_record *const *records, char *error, size_t size)
{
    sl_stream_writer *w;
    int rc = sl_stream_create_limited(path, &test_info, &small_chunks, &w, error, size);
    for (size_t i = 0; i < COUNT && rc == SLUICE_OK; i++)
        rc = sl_stream_append(w, records[i ^ 3], i ^ 3);
    if (rc == SLUICE_OK)
        rc = sl_stream_close(w);
    if (w && rc < 0)
        say(error, size, sl_stream_writer_error(w));
    sl_stream_writer_free(w);
    return rc;
}

static int read_all(const char *path, size_t *count, char *error, size_t size)
{
    sl_stream_reader *r;
    sl_record *record;
    sl_buffer json = {0};
    *count = 0;
    int rc = sl_stream_open(path, false, &r, error, size);
    if (rc < 0)
        return rc;
    while ((rc = sl_stream_next(r, &record)) == SLUICE_OK) {
        rc = sl_record_to_json(record, &json);
        json.size = 0;
        sl_record_free(record);
        if (rc < 0) {
            say(error, size, "printing");
            break;
        }
        (*count)++;
    }
    if (rc < 0 && sl_stream_reader_error(r)[0])
        say(error, size, sl_stream_reader_error(r));
    sl_buffer_free(&json);
    sl_stream_reader_close(r);
    return rc == SLUICE_END ? SLUICE_OK : rc;
}

/* Fails call 1, 2, … until one run needs no more calls than that. */
static void fail_each(int number)
{
    sl_record *records[COUNT];
    char error[512];
    size_t count;
    for (size_t i = 0; i < COUNT; i++)
        records[i] = make_record(i);
    char path[160], part[160], journal[160];
    snprintf(path, sizeof path, "%s", in_folder("faults.zst"));
    snprintf(part, sizeof part, "%s", in_folder("faults.zst.part"));
    snprintf(journal, sizeof journal, "%s", in_folder("faults.zst.journal"));
    bool done = false; /* a failure may do no harm: syncing the folder after the file has its name */
    for (long n = 1; !done; n++) {
        error[0] = '\0';
        calls = 0;
        failing = n, failing_errno = number;
        int rc = write_all(path, records, error, sizeof error);
        done = calls < n;
        failing = failing_errno = 0;
        if (rc != SLUICE_OK) {
            assert_false(exists(path));
            assert_int_not_equal(error[0], '\0');
            assert_null(strchr(error, '\n'));
        }
        assert_false(exists(part));
        assert_false(exists(journal));
        if (rc == SLUICE_OK) {
            OK(read_all(path, &count, error, sizeof error));
            assert_int_equal(count, COUNT);
            unlink(path);
        }
        assert_true(rc == SLUICE_OK || !done);
        assert_true(n < 100000);
    }
    write_stream(path, COUNT);
    done = false;
    for (long n = 1; !done; n++) {
        error[0] = '\0';
        calls = 0;
        failing = n, failing_errno = number;
        int rc = read_all(path, &count, error, sizeof error);
        done = calls < n;
        failing = failing_errno = 0;
        if (rc == SLUICE_OK)
            assert_int_equal(count, COUNT);
        else
            assert_int_not_equal(error[0], '\0');
        assert_true(rc == SLUICE_OK || !done);
    }
    unlink(path);
    for (size_t i = 0; i < COUNT; i++)
        sl_record_free(records[i]);
}

static void every_allocation_may_fail(void **state)
{
    fail_each(ENOMEM);
}

static void every_call_on_files_may_fail(void **state)
{
    fail_each(EIO);
    fail_each(ENOSPC);
}

static void short_and_interrupted_calls_are_gone_on_with(void **state)
{
    sl_record *records[COUNT];
    char error[512];
    size_t count, size, other_size;
    for (size_t i = 0; i < COUNT; i++)
        records[i] = make_record(i);
    write_stream(in_folder("long.zst"), COUNT);
    calls = 0;
    failing = 0, failing_errno = EINTR;
    OK(write_all(in_folder("short.zst"), records, error, sizeof error));
    OK(read_all(in_folder("short.zst"), &count, error, sizeof error));
    failing_errno = 0;
    assert_int_equal(count, COUNT);
    uint8_t *a = read_bytes(in_folder("long.zst"), &size), *b = read_bytes(in_folder("short.zst"), &other_size);
    assert_int_equal(size, other_size);
    assert_memory_equal(a, b, size);
    free(a);
    free(b);
    for (size_t i = 0; i < COUNT; i++)
        sl_record_free(records[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(every_call_on_files_may_fail),
        cmocka_unit_test(short_and_interrupted_calls_are_gone_on_with),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
