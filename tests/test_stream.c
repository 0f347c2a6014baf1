/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Streams: order, followers, passes, files that other programs read, and what is left when writing fails. */
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/stream/cat.h"
#include "tests/streams.h"

static sl_stream_reader *open_stream(const char *path, bool follow)
{
    sl_stream_reader *r;
    char error[512] = "";
    if (sl_stream_open(path, follow, &r, error, sizeof error) != SLUICE_OK)
        fail_msg("%s", error);
    return r;
}

static void what_is_written_is_read(void **state)
{
    const char *path = in_folder("a.zst");
    size_t count;
    write_stream(path, 200);
    assert_false(exists(in_folder("a.zst.part")));
    assert_false(exists(in_folder("a.zst.journal")));
    sl_stream_reader *r = open_stream(path, false);
    assert_int_equal(sl_stream_count(r), 200);
    assert_string_equal(sl_stream_reader_info(r)->stage, "sampler");
    assert_string_equal(sl_stream_reader_info(r)->schema, SL_STREAM_SCHEMA);
    assert_memory_equal(sl_stream_reader_info(r)->key, test_info.key, 16);
    for (int pass = 0; pass < 2; pass++) {
        assert_int_equal(read_on(r, 0, &count), SLUICE_END);
        assert_int_equal(count, 200);
        OK(sl_stream_rewind(r));
    }
    sl_stream_reader_close(r);
    uint64_t records;
    char error[512];
    OK(sl_stream_verify(path, &records, error, sizeof error));
    assert_int_equal(records, 200);
}

static void an_empty_stream_is_one(void **state)
{
    const char *path = in_folder("empty.zst");
    size_t count;
    write_stream(path, 0);
    sl_stream_reader *r = open_stream(path, false);
    assert_int_equal(sl_stream_count(r), 0);
    assert_int_equal(read_on(r, 0, &count), SLUICE_END);
    sl_stream_reader_close(r);
}

/* As `zstd -dc FILE` does it: every frame in turn, the skippable ones passed over. */
static void zstd_reads_the_whole_file(void **state)
{
    const char *path = in_folder("z.zst");
    size_t size;
    write_stream(path, 100);
    uint8_t *file = read_bytes(path, &size);
    sl_buffer expected = {0}, got = {0};
    for (size_t i = 0; i < 100; i++) {
        sl_record *record = make_record(i);
        OK(sl_record_encode(record, &expected));
        sl_record_free(record);
    }
    ZSTD_DStream *stream = ZSTD_createDStream();
    ZSTD_inBuffer in = {file, size, 0};
    uint8_t slice[777];
    while (in.pos < in.size) {
        ZSTD_outBuffer out = {slice, sizeof slice, 0};
        assert_false(ZSTD_isError(ZSTD_decompressStream(stream, &out, &in)));
        OK(sl_buffer_append(&got, slice, out.pos));
    }
    ZSTD_freeDStream(stream);
    assert_int_equal(got.size, expected.size);
    assert_memory_equal(got.data, expected.data, got.size);
    sl_buffer_free(&got);
    sl_buffer_free(&expected);
    free(file);
}

static void any_order_gives_the_same_bytes(void **state)
{
    enum { COUNT = 300 };
    size_t size, other_size;
    write_stream(in_folder("ordered.zst"), COUNT);
    uint8_t *ordered = read_bytes(in_folder("ordered.zst"), &size);

    /* In whole reverse; within windows, with every third number skipped. */
    sl_stream_writer *w = create(in_folder("reversed.zst"), &small_chunks);
    for (size_t i = COUNT; i > 0; i--)
        append(w, i - 1, i - 1);
    OK(sl_stream_close(w));
    sl_stream_writer_free(w);
    uint8_t *other = read_bytes(in_folder("reversed.zst"), &other_size);
    assert_int_equal(size, other_size);
    assert_memory_equal(ordered, other, size);
    free(other);

    w = create(in_folder("windows.zst"), &small_chunks);
    for (size_t window = 0; window < COUNT / 2; window += 10) /* 10 records take 15 numbers */
        for (size_t k = 15; k > 0; k--) {
            const size_t number = window / 10 * 15 + (k - 1);
            if ((k - 1) % 3 == 2)
                OK(sl_stream_skip(w, number));
            else
                append(w, window + (k - 1) / 3 * 2 + (k - 1) % 3, number);
        }
    for (size_t i = COUNT / 2; i < COUNT; i++)
        append(w, i, i + COUNT / 4);
    assert_int_equal(sl_stream_written(w), COUNT);
    OK(sl_stream_close(w));
    assert_int_equal(sl_stream_bytes(w, true), size);
    sl_stream_writer_free(w);
    other = read_bytes(in_folder("windows.zst"), &other_size);
    assert_int_equal(size, other_size);
    assert_memory_equal(ordered, other, size);
    free(other);
    free(ordered);
}

/* A long wait for record 0 keeps the others in the journal, which is written anew when most of it is stale. */
static void what_waits_is_kept_on_disk(void **state)
{
    sl_stream_writer *w = create(in_folder("wait.zst"), &small_chunks);
    for (size_t i = 1; i < 5000; i++)
        append(w, i, i);
    assert_int_equal(sl_stream_written(w), 0);
    append(w, 0, 0);
    assert_int_equal(sl_stream_written(w), 5000);
    OK(sl_stream_close(w));
    sl_stream_writer_free(w);
    size_t count;
    sl_stream_reader *r = open_stream(in_folder("wait.zst"), false);
    assert_int_equal(read_on(r, 0, &count), SLUICE_END);
    assert_int_equal(count, 5000);
    sl_stream_reader_close(r);
}

static void large_records_wait_and_tidy_the_journal(void **state)
{
    enum { SIZE = 1 << 20, COUNT = 60 };
    char *text = malloc(SIZE + 1), id[16];
    assert_non_null(text);
    memset(text, 'x', SIZE);
    text[SIZE] = '\0';
    sl_stream_writer *w = create(in_folder("large.zst"), &small_chunks);
    append(w, COUNT, COUNT); /* waits through all of it */
    for (size_t i = 0; i < COUNT; i++) {
        sl_record *record = sl_record_new();
        snprintf(id, sizeof id, "l%zu", i);
        text[i] = 'y';
        OK(sluice_record_set_id(sl_record_public(record), id));
        OK(sluice_record_set_prompt(sl_record_public(record), text));
        OK(sl_stream_append(w, record, i ^ 1)); /* neighbours swapped */
        sl_record_free(record);
    }
    size_t size;
    uint8_t *journal = read_bytes(in_folder("large.zst.journal"), &size);
    free(journal);
    assert_true(size < (size_t)24 * SIZE);
    OK(sl_stream_close(w));
    sl_stream_reader *r;
    OK(sl_stream_follow(w, &r));
    sl_stream_writer_free(w);
    sl_record *record;
    for (size_t i = 0; i < COUNT; i++) {
        OK(sl_stream_next(r, &record));
        snprintf(id, sizeof id, "l%zu", i ^ 1);
        assert_string_equal(sluice_record_id(sl_record_public(record)), id);
        assert_int_equal(strlen(sluice_record_prompt(sl_record_public(record))), SIZE);
        sl_record_free(record);
    }
    OK(sl_stream_next(r, &record));
    assert_record(record, COUNT, COUNT);
    sl_record_free(record);
    assert_int_equal(sl_stream_next(r, &record), SLUICE_END);
    sl_stream_reader_close(r);
    free(text);
}

typedef struct follower {
    sl_stream_reader *reader;
    pthread_t thread;
    size_t count;
    int passes, end;
    long pause_ns; /* after each record */
} follower;

static void *follow(void *argument)
{
    follower *f = argument;
    for (int pass = 0; pass < f->passes; pass++) {
        sl_record *record;
        for (f->count = 0; (f->end = sl_stream_next(f->reader, &record)) == SLUICE_OK; f->count++) {
            char id[32];
            snprintf(id, sizeof id, "r%zu", f->count);
            if (strcmp(sluice_record_id(sl_record_public(record)), id) != 0 ||
                sluice_record_number(sl_record_public(record)) != f->count)
                f->end = SLUICE_FAILED;
            sl_record_free(record);
            if (f->end != SLUICE_OK)
                return NULL;
            if (f->pause_ns)
                nanosleep(&(struct timespec){.tv_nsec = f->pause_ns}, NULL);
        }
        sl_stream_rewind(f->reader);
    }
    return NULL;
}

/* One keeps up, one lags behind the window so that it reads the file, one makes two passes. */
static void followers_get_every_record(void **state)
{
    enum { COUNT = 3000 };
    sl_stream_writer *w = create(in_folder("followed.zst"), &small_chunks);
    follower f[3] = {{.passes = 1}, {.passes = 1, .pause_ns = 20000}, {.passes = 2}};
    for (int i = 0; i < 3; i++) {
        OK(sl_stream_follow(w, &f[i].reader));
        pthread_create(&f[i].thread, NULL, follow, &f[i]);
    }
    for (size_t i = 0; i < COUNT; i++)
        append(w, i, i);
    OK(sl_stream_close(w));
    sl_stream_writer_free(w);
    for (int i = 0; i < 3; i++) {
        pthread_join(f[i].thread, NULL);
        assert_int_equal(f[i].end, SLUICE_END);
        assert_int_equal(f[i].count, COUNT);
        assert_int_equal(sl_stream_count(f[i].reader), COUNT);
        sl_stream_reader_close(f[i].reader);
    }
}

static void a_follower_sees_a_record_at_once(void **state)
{
    sl_stream_writer *w = create(in_folder("once.zst"), &small_chunks);
    sl_stream_reader *inside, *outside;
    sl_record *record;
    OK(sl_stream_follow(w, &inside));
    outside = open_stream(in_folder("once.zst"), true);
    for (size_t i = 0; i < 60; i++) { /* through several chunks; every record is there before the next is written */
        append(w, i, i);
        OK(sl_stream_next(inside, &record));
        assert_record(record, i, i);
        sl_record_free(record);
        OK(sl_stream_next(outside, &record));
        assert_record(record, i, i);
        sl_record_free(record);
    }
    assert_int_equal(sl_stream_count(inside), -1);
    OK(sl_stream_rewind(outside)); /* again, now partly from chunks */
    for (size_t i = 0; i < 60; i++) {
        OK(sl_stream_next(outside, &record));
        assert_record(record, i, i);
        sl_record_free(record);
    }
    OK(sl_stream_close(w));
    assert_int_equal(sl_stream_next(inside, &record), SLUICE_END);
    assert_int_equal(sl_stream_next(outside, &record), SLUICE_END);
    sl_stream_writer_free(w);
    sl_stream_reader_close(inside);
    sl_stream_reader_close(outside);
}

static void cancelling_wakes_those_who_wait(void **state)
{
    sl_stream_writer *w = create(in_folder("cancelled.zst"), &small_chunks);
    follower f = {.passes = 1};
    OK(sl_stream_follow(w, &f.reader));
    pthread_create(&f.thread, NULL, follow, &f);
    append(w, 0, 0);
    sl_stream_cancel(w);
    pthread_join(f.thread, NULL);
    assert_int_equal(f.end, SLUICE_CANCELLED);
    sl_stream_abandon(w);
    sl_stream_writer_free(w);
    sl_stream_reader_close(f.reader);
    assert_false(exists(in_folder("cancelled.zst")));
    assert_false(exists(in_folder("cancelled.zst.part")));
    assert_false(exists(in_folder("cancelled.zst.journal")));
}

/* A child writes and is killed; what it appended a moment before is all there, also what no chunk held. */
static void a_killed_writer_loses_no_record(void **state)
{
    const char *path = in_folder("killed.zst");
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        sl_stream_writer *w = create(path, &small_chunks);
        for (size_t i = 0; i < 57; i++)
            append(w, i, i);
        append(w, 58, 58); /* waits for 57: not yet in the stream */
        if (write(ready[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    char error[512], busy[512];
    sl_stream_writer *second;
    assert_int_equal(sl_stream_create(path, &test_info, &second, busy, sizeof busy), SLUICE_IO);
    assert_non_null(strstr(busy, "another run"));
    await_journal(in_folder("killed.zst.part"), 57);
    sl_stream_reader *outside = open_stream(path, true);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    size_t count;
    assert_int_equal(read_on(outside, 0, &count), SLUICE_CORRUPT);
    assert_int_equal(count, 57);
    assert_non_null(strstr(sl_stream_reader_error(outside), "not finished"));
    sl_stream_reader_close(outside);
    assert_false(exists(path));
    sl_stream_reader *r = open_stream(in_folder("killed.zst.part"), false);
    assert_int_equal(read_on(r, 0, &count), SLUICE_CORRUPT);
    assert_int_equal(count, 57);
    sl_stream_reader_close(r);

    FILE *out = tmpfile();
    assert_int_equal(sl_cat(path, -1, false, out, error, sizeof error), SLUICE_CORRUPT);
    rewind(out);
    size_t lines = 0;
    for (int c; (c = fgetc(out)) != EOF;)
        lines += c == '\n';
    assert_int_equal(lines, 57);
    fclose(out);
    write_stream(path, 3); /* and running again starts afresh */
    out = tmpfile();
    OK(sl_cat(path, 2, false, out, error, sizeof error));
    fclose(out);
}

static void wrong_use_is_named(void **state)
{
    sl_stream_writer *w = create(in_folder("wrong.zst"), &small_chunks);
    sl_record *record = make_record(5);
    append(w, 5, 0);
    assert_int_equal(sl_stream_append(w, record, 1), SLUICE_BAD_RECORD);
    assert_non_null(strstr(sl_stream_writer_error(w), "'r5' comes twice"));
    assert_int_equal(sl_stream_close(w), SLUICE_BAD_RECORD);
    sl_stream_writer_free(w);

    w = create(in_folder("wrong.zst"), &small_chunks);
    append(w, 0, 0);
    assert_int_equal(sl_stream_append(w, record, 0), SLUICE_BAD_RECORD);
    sl_stream_writer_free(w);

    w = create(in_folder("wrong.zst"), &small_chunks);
    append(w, 0, 1);
    append(w, 1, 1);
    assert_int_equal(sl_stream_append(w, record, 0), SLUICE_BAD_RECORD);
    assert_non_null(strstr(sl_stream_writer_error(w), "given twice"));
    sl_stream_writer_free(w);

    w = create(in_folder("wrong.zst"), &small_chunks);
    append(w, 0, 0);
    append(w, 2, 2);
    assert_int_equal(sl_stream_close(w), SLUICE_FAILED);
    assert_non_null(strstr(sl_stream_writer_error(w), "position 1 never came"));
    sl_stream_writer_free(w);
    sl_record_free(record);

    assert_false(exists(in_folder("wrong.zst")));
    assert_false(exists(in_folder("wrong.zst.part")));
    sl_stream_reader *r;
    char error[512];
    assert_int_equal(sl_stream_open(in_folder("wrong.zst"), false, &r, error, sizeof error), SLUICE_BAD_FILE);
    assert_int_equal(sl_stream_create(in_folder("no/such/folder"), &test_info, &w, error, sizeof error), SLUICE_IO);
    assert_null(w);
}

/* The disk is full at every byte in turn: files may not grow beyond a limit. */
static void a_full_disk_leaves_nothing_behind(void **state)
{
    struct rlimit old, limit;
    size_t size;
    write_stream(in_folder("fits.zst"), 20);
    free(read_bytes(in_folder("fits.zst"), &size));
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    limit = old;
    for (size_t room = 0; room < size; room += 13) {
        char error[512] = "";
        sl_stream_writer *w;
        limit.rlim_cur = room;
        setrlimit(RLIMIT_FSIZE, &limit);
        int rc = sl_stream_create_limited(in_folder("full.zst"), &test_info, &small_chunks, &w, error, sizeof error);
        for (size_t i = 0; rc == SLUICE_OK && i < 20; i++) {
            sl_record *record = make_record(i);
            rc = sl_stream_append(w, record, i);
            sl_record_free(record);
        }
        if (rc == SLUICE_OK)
            rc = sl_stream_close(w);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_equal(rc, SLUICE_IO);
        const char *why = w ? sl_stream_writer_error(w) : error;
        assert_non_null(strstr(why, "cannot"));
        assert_null(strchr(why, '\n'));
        sl_stream_writer_free(w);
        assert_false(exists(in_folder("full.zst")));
        assert_false(exists(in_folder("full.zst.part")));
        assert_false(exists(in_folder("full.zst.journal")));
    }
    signal(SIGXFSZ, SIG_DFL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(an_empty_stream_is_one),
        cmocka_unit_test(zstd_reads_the_whole_file),
        cmocka_unit_test(any_order_gives_the_same_bytes),
        cmocka_unit_test(what_waits_is_kept_on_disk),
        cmocka_unit_test(large_records_wait_and_tidy_the_journal),
        cmocka_unit_test(followers_get_every_record),
        cmocka_unit_test(a_follower_sees_a_record_at_once),
        cmocka_unit_test(cancelling_wakes_those_who_wait),
        cmocka_unit_test(a_killed_writer_loses_no_record),
        cmocka_unit_test(wrong_use_is_named),
        cmocka_unit_test(a_full_disk_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
