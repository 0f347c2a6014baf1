/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Damaged streams: cut at every byte, a bit flipped at every byte, and files made to deceive. */
#include <sys/resource.h>

#include <xxhash.h>

#include "tests/streams.h"

enum { COUNT = 40 };

typedef struct layout {
    uint8_t *bytes;
    size_t size, ends[COUNT]; /* where each chunk ends */
    size_t records[COUNT];    /* that are whole by then */
    size_t chunks;
} layout;

static uint64_t get(const uint8_t *from, size_t width)
{
    uint64_t value = 0;
    for (size_t i = width; i > 0; i--)
        value = value << 8 | from[i - 1];
    return value;
}

static void put(uint8_t *to, uint64_t value, size_t width)
{
    for (size_t i = 0; i < width; i++, value >>= 8)
        to[i] = (uint8_t)value;
}

/* By the format's description alone, not by the code under test. */
static layout lay_out(const char *path)
{
    layout l = {0};
    size_t total = 0;
    l.bytes = read_bytes(path, &l.size);
    assert_int_equal(get(l.bytes, 4), 0x184D2A50);
    size_t at = 8 + get(l.bytes + 4, 4);
    while (get(l.bytes + at, 4) == 0x184D2A51) {
        total += get(l.bytes + at + 32, 4);
        at += 8 + get(l.bytes + at + 4, 4) + get(l.bytes + at + 40, 4);
        l.ends[l.chunks] = at;
        l.records[l.chunks++] = total;
    }
    assert_int_equal(get(l.bytes + at, 4), 0x184D2A52);
    assert_int_equal(at + 8 + get(l.bytes + at + 4, 4), l.size);
    assert_int_equal(total, COUNT);
    assert_true(l.chunks >= 5);
    return l;
}

static size_t whole_before(const layout *l, size_t offset)
{
    size_t records = 0;
    for (size_t i = 0; i < l->chunks && l->ends[i] <= offset; i++)
        records = l->records[i];
    return records;
}

/* Reads a damaged file: exactly `expected` records, then an error of one line that names the file. */
static void expect_damage(const char *path, size_t expected)
{
    sl_stream_reader *r;
    size_t count;
    char error[512] = "";
    int rc = sl_stream_open(path, false, &r, error, sizeof error);
    if (rc < 0) {
        assert_int_equal(rc, SLUICE_BAD_FILE);
        assert_int_equal(expected, 0);
    } else {
        assert_int_equal(read_on(r, 0, &count), SLUICE_CORRUPT);
        assert_int_equal(count, expected);
        snprintf(error, sizeof error, "%s", sl_stream_reader_error(r));
        sl_stream_reader_close(r);
    }
    assert_non_null(strstr(error, path));
    assert_null(strchr(error, '\n'));
    uint64_t records;
    assert_int_not_equal(sl_stream_verify(path, &records, error, sizeof error), SLUICE_OK);
    assert_int_equal(records, expected);
}

static void a_cut_at_every_byte_leaves_the_whole_chunks(void **state)
{
    write_stream(in_folder("whole.zst"), COUNT);
    layout l = lay_out(in_folder("whole.zst"));
    for (size_t cut = 0; cut < l.size; cut++) {
        write_bytes(in_folder("cut.zst"), l.bytes, cut);
        expect_damage(in_folder("cut.zst"), whole_before(&l, cut));
    }
    print_message("cut at each of %zu bytes, %zu chunks\n", l.size, l.chunks);
    free(l.bytes);
}

static void a_flipped_bit_is_found_at_every_byte(void **state)
{
    write_stream(in_folder("whole.zst"), COUNT);
    layout l = lay_out(in_folder("whole.zst"));
    for (size_t at = 0; at < l.size; at++) {
        const uint8_t bit = (uint8_t)(1 << (at * 5 + at / 8) % 8);
        l.bytes[at] ^= bit;
        write_bytes(in_folder("flipped.zst"), l.bytes, l.size);
        expect_damage(in_folder("flipped.zst"), whole_before(&l, at));
        l.bytes[at] ^= bit;
    }
    print_message("a bit flipped in each of %zu bytes\n", l.size);
    /* Chunks that changed places, one left out, one twice, something behind the end. */
    uint8_t *moved = malloc(2 * l.size);
    assert_non_null(moved);
    const size_t a = l.ends[1], b = l.ends[2], c = l.ends[3];
    memcpy(moved, l.bytes, l.size);
    memcpy(moved + a, l.bytes + b, c - b);
    memcpy(moved + a + (c - b), l.bytes + a, b - a);
    write_bytes(in_folder("moved.zst"), moved, l.size);
    expect_damage(in_folder("moved.zst"), l.records[1]);
    memcpy(moved, l.bytes, a);
    memcpy(moved + a, l.bytes + b, l.size - b);
    write_bytes(in_folder("moved.zst"), moved, l.size - (b - a));
    expect_damage(in_folder("moved.zst"), l.records[1]);
    memcpy(moved, l.bytes, b);
    memcpy(moved + b, l.bytes + a, l.size - a);
    write_bytes(in_folder("moved.zst"), moved, l.size + (b - a));
    expect_damage(in_folder("moved.zst"), l.records[2]);
    memcpy(moved, l.bytes, l.size);
    moved[l.size] = 0;
    write_bytes(in_folder("moved.zst"), moved, l.size + 1);
    expect_damage(in_folder("moved.zst"), COUNT);
    free(moved);
    free(l.bytes);
}

/* A file of one chunk whose header says what it is told to say, with sums that fit. */
static void write_bomb(const char *path, const uint8_t *frame, size_t frame_size, uint32_t records, uint32_t raw_size)
{
    sl_buffer out = {0};
    uint8_t head[SL_CHUNK_HEAD];
    OK(sl_header_pack(&test_info, &out));
    const sl_chunk chunk = {.records = records,
                            .raw_size = raw_size,
                            .frame_size = (uint32_t)frame_size,
                            .frame_sum = XXH3_64bits(frame, frame_size)};
    sl_chunk_pack(&chunk, head);
    OK(sl_buffer_append(&out, head, sizeof head));
    OK(sl_buffer_append(&out, frame, frame_size));
    write_bytes(path, out.data, out.size);
    sl_buffer_free(&out);
}

static void bombs_are_refused_before_they_are_unpacked(void **state)
{
    /* A gibibyte of zeros in some dozen kilobytes. */
    const size_t size = (size_t)1 << 30, slice = 1 << 20;
    const char *path = in_folder("bomb.zst");
    uint8_t *zeros = calloc(1, slice);
    sl_buffer frame = {0};
    OK(sl_buffer_reserve(&frame, 1 << 20));
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_CCtx_setPledgedSrcSize(context, size);
    ZSTD_outBuffer out = {frame.data, frame.capacity, 0};
    for (size_t done = 0; done < size; done += slice) {
        ZSTD_inBuffer in = {zeros, slice, 0};
        const ZSTD_EndDirective end = done + slice == size ? ZSTD_e_end : ZSTD_e_continue;
        assert_false(ZSTD_isError(ZSTD_compressStream2(context, &out, &in, end)));
    }
    ZSTD_freeCCtx(context);
    free(zeros);

    struct rlimit old, limit; /* a reader that believed the headers would run out of memory, and say so */
    getrlimit(RLIMIT_DATA, &old);
    limit = old;
#ifndef __SANITIZE_ADDRESS__
    limit.rlim_cur = (rlim_t)256 << 20;
#endif
    setrlimit(RLIMIT_DATA, &limit);
    static const uint32_t sizes[][2] = {{1, 1 << 30},   {1000000, 1 << 30}, {2, 2 << 20},
                                        {1, 100 << 20}, {1, 1 << 20},       {0, 100}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        write_bomb(path, frame.data, out.pos, sizes[i][0], sizes[i][1]);
        expect_damage(path, 0);
    }
    /* A frame larger than the file. */
    write_bomb(path, frame.data, out.pos, 1, 1000);
    size_t whole;
    uint8_t *bytes = read_bytes(path, &whole);
    uint8_t *head = bytes + whole - out.pos - SL_CHUNK_HEAD;
    put(head + 40, 200 << 20, 4);
    put(head + 56, XXH3_64bits(head, 56), 8);
    write_bytes(path, bytes, whole);
    expect_damage(path, 0);
    setrlimit(RLIMIT_DATA, &old);
    free(bytes);
    sl_buffer_free(&frame);
}

/* Whole chunks, with sums that fit, of what is no record. */
static void chunks_of_something_else_are_refused(void **state)
{
    static const struct {
        const char *bytes;
        uint32_t size, records;
    } raw[] = {{"\xa1\x62id\x61x\xa1\x62id\x61y", 12, 1},
               {"\xa1\x62id\x61x", 6, 2},
               {"hello", 5, 1},
               {"\xa1\x62id\x61", 5, 1}};
    for (size_t i = 0; i < sizeof raw / sizeof *raw; i++) {
        uint8_t frame[128];
        const size_t size = ZSTD_compress(frame, sizeof frame, raw[i].bytes, raw[i].size, 3);
        write_bomb(in_folder("other.zst"), frame, size, raw[i].records, raw[i].size);
        sl_stream_reader *r;
        sl_record *record;
        char error[512];
        int rc;
        OK(sl_stream_open(in_folder("other.zst"), false, &r, error, sizeof error));
        while ((rc = sl_stream_next(r, &record)) == SLUICE_OK)
            sl_record_free(record);
        assert_int_equal(rc, SLUICE_CORRUPT);
        assert_int_equal(sl_stream_next(r, &record), SLUICE_CORRUPT);
        sl_stream_reader_close(r);
    }
}

static void ids_that_come_twice_are_found(void **state)
{
    static const char raw[] = "\xa1\x62id\x61x\xa1\x62id\x61x";
    uint8_t frame[128];
    uint64_t records;
    char error[512];
    const size_t size = ZSTD_compress(frame, sizeof frame, raw, sizeof raw - 1, 3);
    write_bomb(in_folder("twice.zst"), frame, size, 2, sizeof raw - 1);
    assert_int_equal(sl_stream_verify(in_folder("twice.zst"), &records, error, sizeof error), SLUICE_CORRUPT);
    assert_non_null(strstr(error, "'x' comes twice"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cut_at_every_byte_leaves_the_whole_chunks),
        cmocka_unit_test(a_flipped_bit_is_found_at_every_byte),
        cmocka_unit_test(bombs_are_refused_before_they_are_unpacked),
        cmocka_unit_test(chunks_of_something_else_are_refused),
        cmocka_unit_test(ids_that_come_twice_are_found),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
