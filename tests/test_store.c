/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The store by itself: entries come back as they were put or not at all, claims exclude each other, collecting takes
 * what is longest unused. */
#define _GNU_SOURCE /* utimensat */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/store/store.h"
#include "tests/folders.h"

static char *home;
static char error[1024];

static char *in(const char *name)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", home, name);
    return path;
}

static sl_store *open_store(void)
{
    sl_store *store;
    if (sl_store_open(in("store"), true, &store, error, sizeof error) != SLUICE_OK)
        fail_msg("%s", error);
    return store;
}

static void put(sl_store *store, const char *inputs, size_t size, uint8_t key[SL_HASH_SIZE])
{
    char *bytes = malloc(size), *source;
    memset(bytes, 'x', size);
    file_write(home, "source", bytes, size);
    file_write(home, "config", "{}\n", 3);
    source = strdup(in("source"));
    const sl_store_file files[] = {{"stream.zst", source}, {"models/policy@1/config.json", in("config")}};
    sl_hash_bytes(inputs, strlen(inputs), key);
    assert_true(sl_store_claim(store, key));
    assert_int_equal(sl_store_put(store, key, inputs, files, 2, false, error, sizeof error), SLUICE_OK);
    sl_store_release(store, key);
    unlink(source);
    unlink(in("config"));
    free(source);
    free(bytes);
}

static const char *where(void *context, const char *name)
{
    size_t *count = context;
    ++*count;
    char *path = in(strrchr(name, '/') != NULL ? "out.config" : "out.stream");
    unlink(path);
    return path;
}

static int take(sl_store *store, const uint8_t key[SL_HASH_SIZE])
{
    size_t count = 0;
    return sl_store_take(store, key, where, &count, error, sizeof error);
}

static void comes_back(void **state)
{
    (void)state;
    sl_store *store = open_store();
    uint8_t key[SL_HASH_SIZE];
    put(store, "stage\ta\nseed\t1\n", 1000, key);
    assert_int_equal(take(store, key), SLUICE_OK);
    size_t size;
    char *text = file_read(in("out.stream"), &size);
    assert_int_equal(size, 1000);
    free(text);
    text = file_read(in("out.config"), NULL);
    assert_string_equal(text, "{}\n");
    free(text);
    key[0] ^= 1;
    assert_int_equal(take(store, key), SLUICE_END);
    key[0] ^= 1;
    assert_int_equal(sl_store_remove(store, key), SLUICE_OK);
    assert_int_equal(take(store, key), SLUICE_END);
    assert_int_equal(access(in("out.stream"), F_OK), 0);
    sl_store_close(store);
}

static char *entry_file(const uint8_t key[SL_HASH_SIZE], const char *name)
{
    static char path[PATH_MAX + 256];
    char hex[SL_HEX_SIZE];
    sl_hex(key, SL_HASH_SIZE, hex);
    snprintf(path, sizeof path, "%s/store/%.2s/%s/%s", home, hex, hex, name);
    return path;
}

/* Every byte of every file of an entry, and every length short of the whole. */
static void damage_is_found(void **state)
{
    (void)state;
    static const char *const names[] = {"stream.zst", "models/policy@1/config.json", "inputs", "files"};
    sl_store *store = open_store();
    uint8_t key[SL_HASH_SIZE];
    put(store, "stage\ta\nseed\t2\n", 40, key);
    for (size_t f = 0; f < sizeof names / sizeof *names; f++) {
        const char *path = entry_file(key, names[f]);
        size_t size;
        char *bytes = file_read(path, &size);
        chmod(path, 0644);
        const int fd = open(path, O_RDWR);
        assert_true(fd >= 0);
        for (size_t i = 0; i < size; i++) {
            char byte = (char)(bytes[i] ^ (1 << i % 8));
            assert_int_equal(pwrite(fd, &byte, 1, (off_t)i), 1);
            assert_int_equal(sl_store_check(store, key, error, sizeof error), SLUICE_CORRUPT);
            assert_int_equal(pwrite(fd, &bytes[i], 1, (off_t)i), 1);
            assert_int_equal(ftruncate(fd, (off_t)i), 0);
            assert_int_equal(sl_store_check(store, key, error, sizeof error), SLUICE_CORRUPT);
            assert_int_equal(pwrite(fd, bytes, size, 0), (ssize_t)size);
        }
        assert_int_equal(sl_store_check(store, key, error, sizeof error), SLUICE_OK);
        close(fd);
        free(bytes);
    }
    assert_int_equal(unlink(entry_file(key, "stream.zst")), 0);
    assert_int_equal(take(store, key), SLUICE_CORRUPT);
    assert_string_equal(error, "stream.zst is missing");
    assert_int_equal(take(store, key), SLUICE_END); /* it was removed */
    sl_store_close(store);
}

static void claims_exclude(void **state)
{
    (void)state;
    sl_store *a = open_store(), *b = open_store();
    uint8_t key[SL_HASH_SIZE] = {1, 2, 3}, other[SL_HASH_SIZE] = {4, 5, 6};
    assert_true(sl_store_claim(a, key));
    assert_true(sl_store_claim(a, key));
    assert_false(sl_store_claim(b, key));
    assert_true(sl_store_claim(b, other));
    sl_store_release(a, key);
    assert_true(sl_store_claim(b, key));
    assert_false(sl_store_claim(a, key));
    sl_store_close(b); /* as at the end of a process */
    assert_true(sl_store_claim(a, key));
    assert_true(sl_store_claim(a, other));
    sl_store_close(a);
}

static void set_used(const uint8_t key[SL_HASH_SIZE], time_t when)
{
    const struct timespec times[2] = {{.tv_sec = when}, {.tv_sec = when}};
    assert_int_equal(utimensat(AT_FDCWD, entry_file(key, "files"), times, 0), 0);
}

static void collecting(void **state)
{
    (void)state;
    sl_store *store = open_store();
    uint8_t a[SL_HASH_SIZE], b[SL_HASH_SIZE], c[SL_HASH_SIZE];
    put(store, "stage\ta\n", 10000, a);
    put(store, "stage\tb\n", 10000, b);
    put(store, "stage\tc\n", 10000, c);
    set_used(a, 3000);
    set_used(b, 1000);
    set_used(c, 2000);
    sl_store_gc gc = {.before = 1000, .most = -1};
    assert_int_equal(sl_store_collect(store, &gc), SLUICE_OK);
    assert_int_equal(gc.removed, 0);
    gc.before = 1001;
    assert_int_equal(sl_store_collect(store, &gc), SLUICE_OK);
    assert_int_equal(gc.removed, 1);
    assert_true(gc.freed >= 10000);
    assert_int_equal(sl_store_check(store, b, error, sizeof error), SLUICE_END);
    gc = (sl_store_gc){.before = INT64_MIN, .most = 15000};
    assert_int_equal(sl_store_collect(store, &gc), SLUICE_OK);
    assert_int_equal(gc.removed, 1);
    assert_int_equal(sl_store_check(store, c, error, sizeof error), SLUICE_END);
    assert_int_equal(sl_store_check(store, a, error, sizeof error), SLUICE_OK);
    /* What a run has as well frees nothing: its entry costs next to nothing and stays. */
    assert_int_equal(take(store, a), SLUICE_OK);
    gc.most = 1000;
    assert_int_equal(sl_store_collect(store, &gc), SLUICE_OK);
    assert_int_equal(gc.removed, 0);
    sl_store_close(store);
}

/* Written by a process that is gone: removed; by one that lives: left. */
static void orphans(void **state)
{
    (void)state;
    sl_store *a = open_store(), *b = open_store();
    uint8_t key[SL_HASH_SIZE] = {7};
    char hex[SL_HEX_SIZE], path[PATH_MAX + 64];
    sl_hex(key, SL_HASH_SIZE, hex);
    snprintf(path, sizeof path, "%s/store/new/%s", home, hex);
    assert_int_equal(mkdir(path, 0700), 0);
    sl_store_gc gc = {.before = INT64_MIN, .most = -1};
    assert_true(sl_store_claim(b, key));
    assert_int_equal(sl_store_collect(a, &gc), SLUICE_OK);
    assert_int_equal(access(path, F_OK), 0);
    sl_store_release(b, key);
    assert_int_equal(sl_store_collect(a, &gc), SLUICE_OK);
    assert_int_not_equal(access(path, F_OK), 0);
    sl_store_close(a);
    sl_store_close(b);
}

static void who_says_where(void **state)
{
    (void)state;
    char path[PATH_MAX];
    bool by_default;
    setenv("XDG_CACHE_HOME", "/cache", 1);
    unsetenv("SLUICE_STORE");
    assert_true(sl_store_place(NULL, NULL, path, &by_default));
    assert_string_equal(path, "/cache/sluice/store");
    assert_true(by_default);
    assert_true(sl_store_place(NULL, "file", path, &by_default));
    assert_string_equal(path, "file");
    setenv("SLUICE_STORE", "environment", 1);
    assert_true(sl_store_place(NULL, "file", path, &by_default));
    assert_string_equal(path, "environment");
    assert_true(sl_store_place("option", "file", path, &by_default));
    assert_string_equal(path, "option");
    assert_false(by_default);
    assert_false(sl_store_place("off", "file", path, &by_default));
    unsetenv("SLUICE_STORE");
    setenv("XDG_CACHE_HOME", "relative", 1);
    setenv("HOME", "/home/me", 1);
    assert_true(sl_store_place(NULL, NULL, path, &by_default));
    assert_string_equal(path, "/home/me/.cache/sluice/store");
}

/* Several begin one store at once: none of them takes another's first steps for a folder of other things. */
static void begun_by_several(void **state)
{
    (void)state;
    enum { ROUNDS = 40, SEVERAL = 4 };
    for (int round = 0; round < ROUNDS; round++) {
        char name[32];
        int failed = 0, status;
        snprintf(name, sizeof name, "begun-%d", round);
        const char *path = in(name);
        for (int i = 0; i < SEVERAL; i++) {
            sl_store *store;
            if (fork() == 0)
                _exit(sl_store_open(path, true, &store, error, sizeof error) == SLUICE_OK ? 0 : 1);
        }
        for (int i = 0; i < SEVERAL; i++)
            failed += wait(&status) < 0 || status != 0;
        assert_int_equal(failed, 0);
    }
}

static int set_up(void **state)
{
    (void)state;
    home = folder_new();
    return home != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    folder_remove(home);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(comes_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(damage_is_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(claims_exclude, set_up, tear_down),
        cmocka_unit_test_setup_teardown(collecting, set_up, tear_down),
        cmocka_unit_test_setup_teardown(orphans, set_up, tear_down),
        cmocka_unit_test_setup_teardown(begun_by_several, set_up, tear_down),
        cmocka_unit_test(who_says_where),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
