/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tests/streams.h"

#include <unistd.h>

const sl_limits small_chunks = {.least = 400, .most = 1000};
const sl_stream_info test_info = {SL_STREAM_SCHEMA, "sampler", {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

static char folder[64];

int make_folder(void **state)
{
    strcpy(folder, "streams-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

int remove_folder(void **state)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

const char *in_folder(const char *name)
{
    static char paths[4][160];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", folder, name);
    return paths[turn];
}

sl_record *make_record(size_t i)
{
    char text[120];
    uint32_t tokens[8];
    float logprobs[8];
    sl_record *record = sl_record_new();
    assert_non_null(record);
    sluice_record *r = sl_record_public(record);
    snprintf(text, sizeof text, "r%zu", i);
    OK(sluice_record_set_id(r, text));
    snprintf(text, sizeof text, "%.*s question %zu", (int)(i * 7 % 50),
             "What is the sum of all the numbers that follow here?", i);
    OK(sluice_record_set_prompt(r, text));
    const uint32_t count = (uint32_t)(i % 8);
    for (uint32_t k = 0; k < count; k++) {
        tokens[k] = (uint32_t)(i * 31 + k);
        logprobs[k] = -(float)((i * 7919 + k * 104729) % 1000) / 100;
    }
    for (int k = 0; k < 2; k++)
        OK(sluice_record_add_candidate(r, &(sluice_candidate){.text = k ? "no" : "yes",
                                                              .tokens = tokens,
                                                              .logprobs = logprobs,
                                                              .token_count = count,
                                                              .finish = SLUICE_FINISH_STOP,
                                                              .parent = -1}));
    return record;
}

void assert_record(sl_record *record, size_t i, uint64_t number)
{
    sl_record *expected = make_record(i);
    sl_buffer a = {0}, b = {0};
    OK(sl_record_encode(record, &a));
    OK(sl_record_encode(expected, &b));
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
    assert_int_equal(sluice_record_number(sl_record_public(record)), number);
    sl_buffer_free(&a);
    sl_buffer_free(&b);
    sl_record_free(expected);
}

sl_stream_writer *create(const char *path, const sl_limits *limits)
{
    sl_stream_writer *w;
    char error[512] = "";
    if (sl_stream_create_limited(path, &test_info, limits, &w, error, sizeof error) != SLUICE_OK)
        fail_msg("%s", error);
    return w;
}

void append(sl_stream_writer *w, size_t i, uint64_t number)
{
    sl_record *record = make_record(i);
    if (sl_stream_append(w, record, number) != SLUICE_OK)
        fail_msg("%s", sl_stream_writer_error(w));
    sl_record_free(record);
}

void write_stream(const char *path, size_t count)
{
    sl_stream_writer *w = create(path, &small_chunks);
    for (size_t i = 0; i < count; i++)
        append(w, i, i);
    OK(sl_stream_close(w));
    sl_stream_writer_free(w);
}

int read_on(sl_stream_reader *r, size_t from, size_t *count)
{
    sl_record *record;
    int rc;
    for (*count = 0; (rc = sl_stream_next(r, &record)) == SLUICE_OK; (*count)++) {
        assert_record(record, from + *count, from + *count);
        sl_record_free(record);
    }
    assert_null(record);
    return rc;
}

void await_journal(const char *part, size_t count)
{
    size_t seen = 0;
    for (int i = 0; i < 500 && seen < count; i++) {
        char error[512];
        sl_stream_reader *r;
        usleep(10000);
        OK(sl_stream_open(part, false, &r, error, sizeof error));
        read_on(r, 0, &seen);
        sl_stream_reader_close(r);
    }
    assert_int_equal(seen, count);
}

uint8_t *read_bytes(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*size + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *size, file), *size);
    fclose(file);
    return bytes;
}

void write_bytes(const char *path, const uint8_t *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}
