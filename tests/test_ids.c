/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Ids that come twice: found in the table, in a merge of runs or at the end, named, and never because hashes agree. */
#include <xxhash.h>

#include "tests/streams.h"
#include "core/stream/ids.h"

static int add(sl_ids *ids, const char *prefix, size_t i)
{
    char id[32];
    snprintf(id, sizeof id, "%s%zu", prefix, i);
    return sl_ids_add(ids, id);
}

static void settles(sl_ids *ids, const char *twice)
{
    const int rc = sl_ids_settle(ids);
    assert_int_equal(rc, twice ? SLUICE_BAD_RECORD : SLUICE_OK);
    if (twice)
        assert_string_equal(ids->twice, twice);
    sl_ids_free(ids);
}

static void in_the_table_at_once(void **state)
{
    sl_ids ids = {0};
    (void)state;
    for (size_t i = 0; i < 40000; i++)
        OK(add(&ids, "r", i));
    assert_int_equal(add(&ids, "r", 0), SLUICE_BAD_RECORD);
    assert_string_equal(ids.twice, "r0");
    assert_int_equal(ids.run_file, 0);
    settles(&ids, NULL);
}

/* Whatever lies between the two, they are found when runs are merged, or at the end. */
static void in_runs_at_last(void **state)
{
    (void)state;
    for (size_t first = 0; first < 3000; first += 271)
        for (size_t second = first + 1; second < 3000; second += 577) {
            sl_ids ids = {.beside = in_folder("x"), .most = 10};
            int rc = SLUICE_OK;
            for (size_t i = 0; i < 3000 && rc == SLUICE_OK; i++)
                rc = add(&ids, "r", i == second ? first : i);
            if (rc == SLUICE_OK)
                rc = sl_ids_settle(&ids);
            assert_int_equal(rc, SLUICE_BAD_RECORD);
            char expected[32];
            snprintf(expected, sizeof expected, "r%zu", first);
            assert_string_equal(ids.twice, expected);
            sl_ids_free(&ids);
        }
    sl_ids ids = {.beside = in_folder("x"), .most = 10};
    for (size_t i = 0; i < 30000; i++)
        OK(add(&ids, "r", i));
    assert_true(ids.run_count < 64);
    settles(&ids, NULL);
}

/* Gives the id in the table the hash of another. */
static void disguise(sl_ids *ids, const char *as)
{
    sl_id id = {0};
    for (size_t i = 0; i < ids->capacity; i++)
        if (ids->slots[i].at)
            id = ids->slots[i];
    memset(ids->slots, 0, ids->capacity * sizeof *ids->slots);
    id.hash = XXH3_64bits_withSeed(as, strlen(as), ids->seed);
    ids->slots[(id.hash >> 32) * ids->capacity >> 32] = id;
}

static void equal_hashes_are_no_equal_ids(void **state)
{
    (void)state;
    sl_ids ids = {0};
    OK(sl_ids_add(&ids, "one"));
    disguise(&ids, "other");
    OK(sl_ids_add(&ids, "other"));
    assert_int_equal(sl_ids_add(&ids, "other"), SLUICE_BAD_RECORD);
    settles(&ids, NULL);

    /* One in the file, the other in the table: the end compares them. */
    ids = (sl_ids){.beside = in_folder("x"), .most = 1};
    OK(sl_ids_add(&ids, "one"));
    disguise(&ids, "other");
    OK(sl_ids_add(&ids, "other"));
    OK(sl_ids_add(&ids, "third"));
    settles(&ids, NULL);

    ids = (sl_ids){.beside = in_folder("x"), .most = 1};
    OK(sl_ids_add(&ids, "one"));
    disguise(&ids, "other");
    OK(sl_ids_add(&ids, "other"));
    OK(sl_ids_add(&ids, "other"));
    settles(&ids, "other");
}

/* Ids longer than what is written at once, and empty ones. */
static void of_any_length(void **state)
{
    (void)state;
    sl_ids ids = {.beside = in_folder("x"), .most = 3};
    char *id = malloc(200001);
    assert_non_null(id);
    for (size_t size = 0; size <= 200000; size += 20000) {
        memset(id, 'x', size);
        id[size] = '\0';
        OK(sl_ids_add(&ids, id));
    }
    id[60000] = '\0';
    OK(sl_ids_add(&ids, id));
    settles(&ids, id);
    free(id);
}

/* A stream finds it before it has its name. */
static void a_stream_says_which(void **state)
{
    static const sl_limits limits = {256, 1024, 10};
    (void)state;
    const char *path = in_folder("late.zst");
    sl_stream_writer *w = create(path, &limits);
    for (size_t i = 0; i < 100; i++)
        append(w, i, i);
    append(w, 7, 100);
    assert_int_equal(sl_stream_close(w), SLUICE_BAD_RECORD);
    assert_non_null(strstr(sl_stream_writer_error(w), "record id 'r7' comes twice"));
    assert_false(exists(path));
    sl_stream_writer_free(w);

    /* A merge says so in the midst of it. */
    w = create(path, &limits);
    int rc = SLUICE_OK;
    for (size_t i = 0; i < 1000 && rc == SLUICE_OK; i++) {
        sl_record *record = make_record(i == 50 ? 7 : i);
        rc = sl_stream_append(w, record, i);
        sl_record_free(record);
    }
    assert_int_equal(rc, SLUICE_CORRUPT);
    assert_non_null(strstr(sl_stream_writer_error(w), "record id 'r7' comes twice"));
    sl_stream_writer_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_the_table_at_once),          cmocka_unit_test(in_runs_at_last),
        cmocka_unit_test(equal_hashes_are_no_equal_ids), cmocka_unit_test(of_any_length),
        cmocka_unit_test(a_stream_says_which),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
