/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The ABI stands still: where every member lies, a plugin built against the frozen headers of version 1 loads, one
 * built against newer headers than the host's is refused with the field that differs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <sluice/sluice.h>
#include "core/registry/registry.h"

typedef struct row {
    const char *what;
    long long now, then;
} row;

static const row rows[] = {
#define SIZE(type, n)       {"size of " #type, (long long)sizeof(type), n},
#define AT(type, member, n) {"offset of " #type "." #member, (long long)offsetof(type, member), n},
#define VALUE(name, n)      {"value of " #name, (long long)name, n},
#include "tests/abi/layout.h"
#undef SIZE
#undef AT
#undef VALUE
};

static void test_layout(void **state)
{
    size_t wrong = 0;
    if (sizeof(void *) != 8)
        skip();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].now != rows[i].then) {
            print_error("%s is %lld, was %lld\n", rows[i].what, rows[i].now, rows[i].then);
            wrong++;
        }
    assert_int_equal(wrong, 0);
}

static sl_registry *open_abi(void)
{
    char folder[4096];
    const char *const folders[] = {folder};
    assert_non_null(getenv("SLUICE_BUILD"));
    snprintf(folder, sizeof folder, "%s/tests/abi", getenv("SLUICE_BUILD"));
    sl_registry *registry = sl_registry_open_folders(folders, 1);
    assert_non_null(registry);
    return registry;
}

static void test_frozen(void **state)
{
    static const char *const ids[] = {"abi/doubt", "abi/hinge", "abi/count"};
    sl_registry *registry = open_abi();
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        const sl_registered *found = sl_registry_find(registry, ids[i]);
        assert_non_null(found);
        assert_non_null(strstr(found->file, "/frozen.so"));
        assert_int_equal(found->plugin->stamp.abi, 1);
        for (size_t p = 0; p < sl_class_params(found->type); p++)
            assert_non_null(sl_class_param(found->type, p)->doc);
    }
    sl_registry_close(registry);
}

/* What is said of a refused file. */
static const char *refusal(const sl_registry *registry, const char *name)
{
    const sl_refused *refused;
    const size_t count = sl_registry_refused(registry, &refused);
    for (size_t i = 0; i < count; i++)
        if (strstr(refused[i].file, name) != NULL)
            return refused[i].why;
    fail_msg("%s was not refused", name);
    return NULL;
}

static void test_newer(void **state)
{
    static const char *const cases[][2] = {{"/newer_abi.so", "stamp.abi is 2 in the plugin, 1 here"},
                                           {"/newer_class.so", "stamp.class_size is "},
                                           {"/newer_param.so", "stamp.param_size is "},
                                           {"/newer_stage.so", "class 'abi/doubt': size is "}};
    sl_registry *registry = open_abi();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *why = refusal(registry, cases[i][0]);
        if (strstr(why, cases[i][1]) == NULL)
            fail_msg("%s is refused with '%s'", cases[i][0], why);
        assert_non_null(strstr(why, "sluice")); /* how to mend it */
    }
    sl_registry_close(registry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_newer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
