/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What the registry takes, what it refuses, and what it says then. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/near.h"
#include "core/registry/registry.h"
#include "core/registry/trial.h"

/* A folder with copies of test plugins. */
typedef struct place {
    char path[64];
} place;

static place make_place(void)
{
    place p = {"/tmp/sluice-registry-XXXXXX"};
    assert_non_null(mkdtemp(p.path));
    return p;
}

/* Copies the first `part` per cent of a built test plugin. */
static void put(const place *p, const char *from, const char *as, int part)
{
    char path[PATH_MAX];
    const char *build = getenv("SLUICE_BUILD");
    snprintf(path, sizeof path, "%s/tests/plugins/%s.so", build ? build : ".", from);
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    snprintf(path, sizeof path, "%s/%s.so", p->path, as);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fseek(in, 0, SEEK_END), 0);
    long left = ftell(in) * part / 100;
    rewind(in);
    char bytes[4096];
    while (left > 0) {
        size_t count = fread(bytes, 1, (size_t)left < sizeof bytes ? (size_t)left : sizeof bytes, in);
        assert_true(count > 0);
        assert_int_equal(fwrite(bytes, 1, count, out), count);
        left -= (long)count;
    }
    fclose(in);
    fclose(out);
}

static sl_registry *open_place(const place *p)
{
    const char *folders[] = {p->path};
    sl_registry *r = sl_registry_open_folders(folders, 1);
    assert_non_null(r);
    return r;
}

static void remove_place(const place *p)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", p->path);
    assert_int_equal(system(command), 0);
}

/* One odd plugin alone: it is refused and the reason holds all of `words` (separated by |). */
static void refused_for(const char *odd, int part, const char *words)
{
    place p = make_place();
    put(&p, odd, odd, part);
    sl_registry *r = open_place(&p);
    const sl_refused *refused;
    assert_int_equal(sl_registry_count(r), 0);
    assert_int_equal(sl_registry_refused(r, &refused), 1);
    char copy[256];
    snprintf(copy, sizeof copy, "%s", words);
    for (char *word = strtok(copy, "|"); word; word = strtok(NULL, "|"))
        if (!strstr(refused[0].why, word))
            fail_msg("%s: '%s' is not in: %s", odd, word, refused[0].why);
    assert_null(strchr(refused[0].why, '\n'));
    sl_registry_close(r);
    remove_place(&p);
}

static void test_takes_a_plugin(void **state)
{
    (void)state;
    place p = make_place();
    put(&p, "odd_good", "good", 100);
    sl_registry *r = open_place(&p);
    const sl_registered *found = sl_registry_find(r, "odd/stage");
    assert_non_null(found);
    assert_string_equal(found->plugin->version, "1.0");
    assert_true(strstr(found->file, "/good.so") != NULL);
    assert_true(found->file_hash[0] != 0 && found->file_hash[1] != 0);
    assert_string_equal(sl_class_param(found->type, 0)->name, "share");
    assert_null(sl_class_param(found->type, 1));
    assert_null(sl_registry_find(r, "odd"));
    assert_string_equal(sl_registry_near(r, "odd/stgae", -1), "odd/stage");
    assert_null(sl_registry_near(r, "odd/stgae", SLUICE_JUDGE));
    assert_null(sl_registry_near(r, "something", -1));
    sl_registry_close(r);
    remove_place(&p);
}

static void test_refuses_with_a_reason(void **state)
{
    (void)state;
    refused_for("odd_other_abi", 100, "stamp.abi|2 in the plugin|1 here|rebuild");
    refused_for("odd_other_magic", 100, "magic|0x1234|rebuild");
    refused_for("odd_no_entry", 100, "sluice_plugin_entry|SLUICE_PLUGIN");
    refused_for("odd_bad_offset", 100, "odd/stage|share|outside");
    refused_for("odd_no_function", 100, "odd/stage|process");
    refused_for("odd_bad_default", 100, "default 2|share|bounds");
    refused_for("odd_large_class", 100, "odd/stage|size|rebuild");
    refused_for("odd_twice", 100, "share|twice");
    refused_for("odd_unresolved", 100, "cannot be loaded|sluice_of_no_library");
    refused_for("odd_reserved", 100, "'from'|every stage");
    refused_for("odd_open_table", 100, "do not end|SLUICE_PARAMS_END");
    refused_for("odd_other_kind", 100, "kind is 77|update");
    refused_for("odd_larger_stamp", 100, "stamp.param_size|newer");
}

static void test_refuses_truncated_files(void **state)
{
    (void)state;
    for (int part = 0; part < 100; part += 9)
        refused_for("odd_good", part, part == 0 ? "empty" : "");
}

static void test_older_class_is_filled_with_zeros(void **state)
{
    (void)state;
    place p = make_place();
    put(&p, "odd_old", "old", 100);
    sl_registry *r = open_place(&p);
    const sl_registered *found = sl_registry_find(r, "odd/stage");
    assert_non_null(found);
    const sluice_stage_class *type = (const void *)found->type;
    assert_int_equal(type->base.size, sizeof *type);
    assert_non_null(type->process);
    assert_null(type->finish);
    sl_registry_close(r);
    remove_place(&p);
}

static void test_two_plugins_of_one_id(void **state)
{
    (void)state;
    place p = make_place();
    put(&p, "odd_good", "a", 100);
    put(&p, "odd_twin", "b", 100);
    put(&p, "odd_good", "c", 100); /* the same bytes once more are no conflict */
    sl_registry *r = open_place(&p);
    const sl_refused *refused;
    assert_int_equal(sl_registry_count(r), 1);
    assert_int_equal(sl_registry_refused(r, &refused), 1);
    const char *conflict = sl_registry_conflict(r, "odd/stage");
    assert_non_null(conflict);
    assert_string_equal(conflict, refused[0].why);
    assert_non_null(strstr(conflict, "/a.so"));
    assert_non_null(strstr(conflict, "/b.so"));
    assert_null(sl_registry_conflict(r, "odd"));
    sl_registry_close(r);
    remove_place(&p);
}

static void test_folders(void **state)
{
    (void)state;
    place p = make_place(), open = make_place();
    put(&p, "odd_good", "good", 100);
    put(&open, "odd_good", "good", 100);
    assert_int_equal(chmod(open.path, 0777), 0);
    const char *folders[] = {"relative/path", open.path, "/nowhere/at/all", p.path};
    sl_registry *r = sl_registry_open_folders(folders, 4);
    const sl_refused *refused;
    const char *const *searched;
    assert_int_equal(sl_registry_refused(r, &refused), 3);
    assert_non_null(strstr(refused[0].why, "absolute"));
    assert_non_null(strstr(refused[1].why, "everybody may write"));
    assert_non_null(strstr(refused[2].why, "no such folder"));
    assert_int_equal(sl_registry_folders(r, &searched), 1);
    assert_string_equal(searched[0], p.path);
    assert_non_null(sl_registry_find(r, "odd/stage"));
    sl_registry_close(r);
    remove_place(&p);
    remove_place(&open);
}

static void test_search_path(void **state)
{
    (void)state;
    place p = make_place();
    char path[128];
    put(&p, "odd_good", "good", 100);
    snprintf(path, sizeof path, ":%s:", p.path);
    assert_int_equal(setenv("SLUICE_PLUGIN_PATH", path, 1), 0);
    sl_registry *r = sl_registry_open();
    assert_non_null(r);
    assert_non_null(sl_registry_find(r, "odd/stage"));
    sl_registry_close(r);
    unsetenv("SLUICE_PLUGIN_PATH");
    remove_place(&p);
}

static void test_services_and_description(void **state)
{
    (void)state;
    place p = make_place();
    put(&p, "fakes", "fakes", 100);
    sl_registry *r = open_place(&p);
    assert_non_null(sl_registry_service(r, "sluice.model/1"));
    assert_string_equal(sl_registry_service(r, "sluice.model/1")->type->id, "model");
    assert_null(sl_registry_service(r, "sluice.model/2"));
    assert_string_equal(sl_kind_name(SLUICE_REGULARIZER), "regularizer");
    sl_registry_close(r);
    remove_place(&p);
}

static void test_near_names(void **state)
{
    (void)state;
    assert_int_equal(sl_name_distance("temprature", "temperature"), 1);
    assert_int_equal(sl_name_distance("from", "form"), 1);
    assert_int_equal(sl_name_distance("Lr", "lr"), 0);
    assert_int_equal(sl_name_distance("", "abc"), 3);
    sl_near near = {.wanted = "lr"};
    sl_near_offer(&near, "beta");
    sl_near_offer(&near, "n");
    assert_null(near.best);
}

/* A plugin that takes its process with it when it is loaded is set aside, and not even tried the next time. */
static void test_sets_aside(void **state)
{
    (void)state;
    place cache = make_place();
    const char *old = getenv("XDG_CACHE_HOME");
    char *kept = old ? strdup(old) : NULL;
    assert_int_equal(setenv("XDG_CACHE_HOME", cache.path, 1), 0);
    assert_int_equal(setenv("SLUICE_PLUGIN_TIMEOUT", "0.3", 1), 0);
    for (int time = 0; time < 2; time++) {
        refused_for("odd_crashes", 100, "set aside|signal 6|--retry|20");
        refused_for("odd_leaves", 100, "set aside|exit code 3|--retry");
        refused_for("odd_hangs", 100, "set aside|hung for 0.3 seconds|--retry");
        assert_int_equal(setenv("SLUICE_PLUGIN_TIMEOUT", "100", 1), 0); /* the second time must not wait */
    }
    assert_int_equal(setenv("SLUICE_PLUGIN_TIMEOUT", "0.3", 1), 0);
    assert_int_equal(sl_trials_forget(), 3);
    assert_int_equal(sl_trials_forget(), 0);
    refused_for("odd_hangs", 100, "set aside|hung");
    unsetenv("SLUICE_PLUGIN_TIMEOUT");
    if (kept)
        setenv("XDG_CACHE_HOME", kept, 1);
    else
        unsetenv("XDG_CACHE_HOME");
    free(kept);
    remove_place(&cache);
}

/* A damaged cache, or one that cannot be written, costs trials and nothing else. */
static void test_odd_caches(void **state)
{
    (void)state;
    place cache = make_place(), p = make_place();
    char path[128];
    const char *old = getenv("XDG_CACHE_HOME");
    char *kept = old ? strdup(old) : NULL;
    assert_int_equal(setenv("XDG_CACHE_HOME", cache.path, 1), 0);
    put(&p, "odd_good", "good", 100);
    snprintf(path, sizeof path, "%s/sluice", cache.path);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/sluice/plugins", cache.path);
    static const char *const texts[] = {"", "rubbish\n", "sluice plugin trials 1, sluice 0\nxx 1 2\n",
                                        "\xff\xfe\n\n\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        FILE *out = fopen(path, "w");
        assert_non_null(out);
        fputs(texts[i], out);
        fclose(out);
        sl_registry *r = open_place(&p);
        assert_non_null(sl_registry_find(r, "odd/stage"));
        sl_registry_close(r);
    }
    assert_int_equal(setenv("XDG_CACHE_HOME", "/proc/nowhere", 1), 0);
    sl_registry *r = open_place(&p);
    assert_non_null(sl_registry_find(r, "odd/stage"));
    sl_registry_close(r);
    if (kept)
        setenv("XDG_CACHE_HOME", kept, 1);
    else
        unsetenv("XDG_CACHE_HOME");
    free(kept);
    remove_place(&cache);
    remove_place(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takes_a_plugin),
        cmocka_unit_test(test_refuses_with_a_reason),
        cmocka_unit_test(test_refuses_truncated_files),
        cmocka_unit_test(test_older_class_is_filled_with_zeros),
        cmocka_unit_test(test_two_plugins_of_one_id),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_search_path),
        cmocka_unit_test(test_services_and_description),
        cmocka_unit_test(test_near_names),
        cmocka_unit_test(test_sets_aside),
        cmocka_unit_test(test_odd_caches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
