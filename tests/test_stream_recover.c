/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Salvage: every record of every undamaged chunk comes back, whatever happened to the others. */
#include "core/stream/recover.h"
#include "tests/streams.h"

enum { COUNT = 40 };

typedef struct damaged {
    uint8_t *bytes;
    size_t size;
    size_t begins[COUNT], first[COUNT + 1]; /* of each chunk: its header in the file, its first record */
    size_t chunks;
} damaged;

static uint32_t get(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

static damaged load(const char *path)
{
    damaged d = {0};
    d.bytes = read_bytes(path, &d.size);
    size_t at = 8 + get(d.bytes + 4), records = 0;
    for (; get(d.bytes + at) == 0x184D2A51; at += 8 + get(d.bytes + at + 4) + get(d.bytes + at + 40)) {
        d.begins[d.chunks] = at;
        d.first[d.chunks++] = records;
        records += get(d.bytes + at + 32);
    }
    d.first[d.chunks] = records;
    assert_int_equal(records, COUNT);
    assert_true(d.chunks >= 5);
    return d;
}

/* The new stream holds exactly the records not in [from, to). */
static void expect_without(const char *path, size_t from, size_t to)
{
    sl_stream_reader *r;
    sl_record *record;
    char error[512];
    size_t i = 0, position = 0;
    OK(sl_stream_open(path, false, &r, error, sizeof error));
    while (sl_stream_next(r, &record) == SLUICE_OK) {
        if (i == from)
            i = to;
        assert_record(record, i++, position++);
        sl_record_free(record);
    }
    if (i == from)
        i = to;
    assert_int_equal(i, COUNT);
    static const uint8_t zeros[16];
    assert_memory_equal(sl_stream_reader_info(r)->key, zeros, 16);
    sl_stream_reader_close(r);
}

static void test_a_flipped_byte_costs_its_chunk(void **state)
{
    (void)state;
    const char *path = in_folder("whole.zst"), *hurt = in_folder("hurt.zst"), *to = in_folder("to.zst");
    char error[512];
    sl_salvage s;
    write_stream(path, COUNT);
    damaged d = load(path);
    OK(sl_stream_recover(path, to, &s, error, sizeof error));
    assert_true(s.complete);
    assert_int_equal(s.records, COUNT);
    expect_without(to, COUNT, COUNT);
    for (size_t c = 0; c < d.chunks; c++)
        for (size_t offset = 0; offset < 90; offset += 7) { /* in the chunk's header and in its frame */
            remove(to);
            d.bytes[d.begins[c] + offset] ^= 0x10;
            write_bytes(hurt, d.bytes, d.size);
            OK(sl_stream_recover(hurt, to, &s, error, sizeof error));
            assert_false(s.complete);
            assert_int_equal(s.records, COUNT - (d.first[c + 1] - d.first[c]));
            assert_int_equal(s.missing, c == 0 || c + 1 == d.chunks ? 0 : d.first[c + 1] - d.first[c]);
            assert_true(s.lost_bytes > 0);
            expect_without(to, d.first[c], d.first[c + 1]);
            d.bytes[d.begins[c] + offset] ^= 0x10;
        }
    free(d.bytes);
    remove(to);
}

static void test_cut_and_headless(void **state)
{
    (void)state;
    const char *path = in_folder("whole.zst"), *hurt = in_folder("hurt.zst"), *to = in_folder("to.zst");
    char error[512];
    sl_salvage s;
    write_stream(path, COUNT);
    damaged d = load(path);
    for (size_t size = 0; size < d.size; size += 97) {
        size_t whole = 0;
        while (whole < d.chunks && (whole + 1 < d.chunks ? d.begins[whole + 1] : d.size) <= size)
            whole++;
        remove(to);
        write_bytes(hurt, d.bytes, size);
        const int rc = sl_stream_recover(hurt, to, &s, error, sizeof error);
        if (s.records == 0) {
            assert_int_equal(rc, SLUICE_CORRUPT);
            assert_false(exists(to));
            assert_non_null(strstr(error, hurt));
        } else {
            assert_int_equal(rc, SLUICE_OK);
            assert_false(s.complete);
            assert_true(s.records >= d.first[whole]);
            expect_without(to, s.records, COUNT);
        }
    }
    memset(d.bytes, 0xff, 40); /* without its header */
    remove(to);
    write_bytes(hurt, d.bytes, d.size);
    OK(sl_stream_recover(hurt, to, &s, error, sizeof error));
    assert_int_equal(s.records, COUNT);
    assert_int_equal(sl_stream_recover(hurt, to, &s, error, sizeof error), SLUICE_BAD_PARAMETER); /* TO is there */
    assert_non_null(strstr(error, "already"));
    free(d.bytes);
    remove(to);
}

/* A writer that died: its last records are in the journal only. */
static void test_unfinished(void **state)
{
    (void)state;
    const char *path = in_folder("dying.zst"), *to = in_folder("to.zst");
    char error[512], part[600];
    sl_salvage s;
    sl_stream_writer *w = create(path, &small_chunks);
    for (size_t i = 0; i < 31; i++)
        append(w, i, i);
    snprintf(part, sizeof part, "%s.part", path);
    await_journal(part, 31);
    OK(sl_stream_recover(part, to, &s, error, sizeof error));
    assert_int_equal(s.records, 31);
    assert_false(s.complete);
    sl_stream_writer_free(w);
    remove(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_flipped_byte_costs_its_chunk),
        cmocka_unit_test(test_cut_and_headless),
        cmocka_unit_test(test_unfinished),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
