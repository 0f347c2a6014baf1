/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Pipeline files: what is said about wrong ones (tests/plans), and what right ones mean. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/plan/plan.h"
#include "core/plan/setting.h"

/* libconfig 1.5 loses the strings of a file that it refuses; the leak checker is told so. */
SLUICE_EXPORT const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libconfig.so\n";
}

static sl_registry *registry;

/* The registry holds the test's classes alone, whatever else lies beside them. */
static int open_registry(void **state)
{
    (void)state;
    char folder[] = "/tmp/sluice-fakes-XXXXXX", link[64], target[PATH_MAX];
    const char *build = getenv("SLUICE_BUILD"), *folders[] = {folder};
    snprintf(target, sizeof target, "%s/tests/plugins/fakes.so", build ? build : ".");
    char *real = realpath(target, NULL);
    if (!real || !mkdtemp(folder))
        return -1;
    snprintf(link, sizeof link, "%s/fakes.so", folder);
    int rc = symlink(real, link);
    registry = rc == 0 ? sl_registry_open_folders(folders, 1) : NULL;
    unlink(link);
    rmdir(folder);
    free(real);
    return registry && sl_registry_find(registry, "trainer") ? 0 : -1;
}

static int close_registry(void **state)
{
    (void)state;
    sl_registry_close(registry);
    return 0;
}

static void plans_path(char *path, size_t size, const char *name)
{
    const char *data = getenv("SLUICE_TEST_DATA");
    snprintf(path, size, "%s/plans/%s", data ? data : "tests", name);
}

/* Reads a plan; what was said goes to *said (freed by the caller). */
static sl_plan *read_file(const char *path, const char *const *set, size_t count, char **said, size_t *mistakes)
{
    size_t size;
    FILE *out = open_memstream(said, &size);
    assert_non_null(out);
    sl_plan *plan = sl_plan_read(path, set, count, registry, out, true, mistakes);
    fclose(out);
    assert_true((plan != NULL) == (*mistakes == 0));
    return plan;
}

static sl_plan *read_plan(const char *name, const char *const *set, size_t count, char **said)
{
    char path[PATH_MAX];
    size_t mistakes;
    plans_path(path, sizeof path, name);
    return read_file(path, set, count, said, &mistakes);
}

/* A right file with these overrides. */
static sl_plan *good(const char *name, const char *const *set, size_t count)
{
    char *said;
    sl_plan *plan = read_plan(name, set, count, &said);
    if (!plan)
        fail_msg("%s", said);
    free(said);
    return plan;
}

/* good-cream.cfg with one override is wrong, and the first line said holds `fragment`. */
static void wrong_set(const char *set, const char *fragment)
{
    char *said;
    sl_plan *plan = read_plan("good-cream.cfg", &set, 1, &said);
    if (plan || !strstr(said, fragment))
        fail_msg("--set %s: '%s' is not in: %s", set, fragment, said);
    assert_int_equal(strncmp(said, "--set ", 6), 0);
    free(said);
}

static const sl_stage *stage_of(const sl_plan *plan, const char *name)
{
    for (size_t i = 0; i < plan->phase_count; i++)
        for (size_t j = 0; j < plan->phases[i].stage_count; j++)
            if (strcmp(plan->phases[i].stages[j].name, name) == 0)
                return &plan->phases[i].stages[j];
    fail_msg("no stage '%s'", name);
    return NULL;
}

static const sl_value *value_of(const sl_plan *plan, const char *stage, const char *param)
{
    const sl_value *v = sl_stage_value(stage_of(plan, stage), param);
    assert_non_null(v);
    return v;
}

/* One file against its first line: "# expect: LINE: fragment" or "# expect: ok". */
static bool as_expected(const char *name)
{
    char path[PATH_MAX], expected[512], where[PATH_MAX + 32];
    plans_path(path, sizeof path, name);
    FILE *in = fopen(path, "r");
    assert_non_null(in);
    assert_non_null(fgets(expected, sizeof expected, in));
    fclose(in);
    expected[strcspn(expected, "\n")] = '\0';
    assert_int_equal(strncmp(expected, "# expect: ", 10), 0);
    char *said, *fragment;
    size_t mistakes;
    sl_plan *plan = read_file(path, NULL, 0, &said, &mistakes);
    long line = strtol(expected + 10, &fragment, 10);
    bool fits;
    if (strcmp(expected, "# expect: ok") == 0) {
        fits = plan && !*said;
    } else {
        fragment += strspn(fragment, ": ");
        if (line > 0)
            snprintf(where, sizeof where, "%s:%ld: ", path, line);
        else
            snprintf(where, sizeof where, "%s: ", path);
        char *end = strchr(said, '\n');
        if (end)
            *end = '\0'; /* the first mistake is the one that counts */
        fits = !plan && strncmp(said, where, strlen(where)) == 0 && strstr(said, fragment);
    }
    if (!fits)
        print_error("%s\n  expected %s\n  said     %s\n", name, expected + 10, said);
    free(said);
    sl_plan_free(plan);
    return fits;
}

static int is_plan(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);
    return length > 4 && strcmp(entry->d_name + length - 4, ".cfg") == 0;
}

static void test_corpus(void **state)
{
    (void)state;
    char path[PATH_MAX];
    struct dirent **entries;
    int failures = 0;
    plans_path(path, sizeof path, "");
    int count = scandir(path, &entries, is_plan, alphasort);
    assert_true(count >= 62);
    for (int i = 0; i < count; i++) {
        failures += !as_expected(entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    assert_int_equal(failures, 0);
}

static void test_every_mistake_is_found(void **state)
{
    (void)state;
    const char *set[] = {"answers.n=0",  "trust.measure=kendal", "train.lr=fast",         "nobody.x=1",   "seed=-1",
                         "pairs.by=nwo", "train.from=trsut",     "before.model=polcy@-1", "policy.path=x"};
    enum { COUNT = sizeof set / sizeof *set };
    char *said;
    assert_null(read_plan("good-cream.cfg", set, COUNT, &said));
    for (size_t i = 0; i < COUNT; i++)
        if (!strstr(said, set[i]))
            fail_msg("nothing about %s: %s", set[i], said);
    free(said);
}

static void test_versions(void **state)
{
    (void)state;
    sl_plan *plan = good("good-cream.cfg", NULL, 0);
    assert_int_equal(plan->slots[0].last, 4);
    const sl_value *tune = value_of(plan, "tune", "model");
    assert_int_equal(tune->models[0].version, 0);
    assert_int_equal(tune->models[0].next, 1);
    for (int64_t t = 0; t < 3; t++) {
        assert_int_equal(value_of(plan, "answers", "model")->models[t].version, t + 1);
        assert_int_equal(value_of(plan, "now", "reference")->models[t].version, 0);
        assert_int_equal(value_of(plan, "before", "model")->models[t].version, t);
        assert_int_equal(value_of(plan, "train", "model")->models[t].version, t + 1);
        assert_int_equal(value_of(plan, "train", "model")->models[t].next, t + 2);
        assert_int_equal(value_of(plan, "eval", "model")->models[t].version, t + 2);
        assert_int_equal(value_of(plan, "eval", "model")->models[t].next, -1);
    }
    assert_int_equal(value_of(plan, "train", "reference")->count, 0);
    sl_plan_free(plan);
}

static void test_versions_in_a_chain(void **state)
{
    (void)state;
    sl_plan *plan = good("good-single.cfg", NULL, 0);
    assert_int_equal(value_of(plan, "first", "model")->models[0].next, 1);
    assert_int_equal(value_of(plan, "second", "model")->models[0].version, 1);
    assert_int_equal(value_of(plan, "second", "model")->models[0].next, 2);
    const sl_value *models = value_of(plan, "merge", "models");
    assert_int_equal(models->count, 2);
    assert_int_equal(models->models[0].version, 2);
    assert_int_equal(models->models[1].version, 0);
    assert_int_equal(value_of(plan, "merge", "model")->models[0].next, 3);
    assert_int_equal(value_of(plan, "more", "model")->models[0].version, 3);
    assert_int_equal(plan->slots[0].last, 3);
    assert_int_equal(plan->slots[1].last, 0);
    assert_true(plan->slots[1].random);
    sl_plan_free(plan);
}

static void test_values(void **state)
{
    (void)state;
    sl_plan *plan = good("good-single.cfg", NULL, 0);
    assert_true(plan->seed == 4294967296ULL);
    assert_int_equal(plan->slots[0].keep_versions, 2);
    const sl_stage *first = stage_of(plan, "first");
    assert_int_equal(first->part_count, 1);
    assert_string_equal(first->parts[0].type->type->id, "dpo");
    assert_true(first->parts[0].values[0].number == 1 && first->parts[0].values[0].given); /* an integer for a float */
    assert_true(stage_of(plan, "second")->parts[0].values[0].number == 0.1);
    assert_int_equal(value_of(plan, "first", "epochs")->integer, 2);
    assert_string_equal(value_of(plan, "first", "schedule")->text, "linear");
    assert_true(value_of(plan, "merge", "weights")->numbers[1] == 0.5);
    assert_string_equal(value_of(plan, "more", "stop")->texts[0], "\n");
    assert_int_equal(value_of(plan, "more", "raw")->integer, 1);
    assert_int_equal(value_of(plan, "keep-them", "path")->text[0], '/');
    assert_int_equal(plan->runtime[0].values[0].integer, 2);
    assert_int_equal(stage_of(plan, "merge")->after_count, 2);
    assert_true(sl_stage_adds(stage_of(plan, "pairs")) & SLUICE_FIELD_PAIRS);
    sl_plan_free(plan);
}

static void test_overrides(void **state)
{
    (void)state;
    char path[PATH_MAX], model[PATH_MAX + 32];
    plans_path(path, sizeof path, "model");
    snprintf(model, sizeof model, "models.policy.path=%s", path);
    const char *set[] = {model,
                         "phases.align.repeat=5",
                         "answers.temperature=1",
                         "answers.n=2",
                         "answers.n=3",
                         "seed=9",
                         "name=other",
                         "answers.stop=[a, \"b,c\"]",
                         "runtime.threads=3",
                         "train.loss=sft",
                         "trust.measure=spearman",
                         "answers.raw=true",
                         "seeds=[4,5]"};
    sl_plan *plan = good("good-cream.cfg", set, 9);
    assert_int_equal(plan->phases[1].repeat, 5);
    assert_int_equal(plan->slots[0].last, 6);
    assert_true(value_of(plan, "answers", "temperature")->number == 1);
    assert_int_equal(value_of(plan, "answers", "n")->integer, 3); /* the last one wins */
    assert_true(plan->seed == 9);
    assert_string_equal(plan->name, "other");
    const sl_value *stop = value_of(plan, "answers", "stop");
    assert_int_equal(stop->count, 2);
    assert_string_equal(stop->texts[0], "a");
    assert_string_equal(stop->texts[1], "b,c");
    assert_int_equal(plan->runtime[0].values[0].integer, 3);
    sl_plan_free(plan);
    char *said;
    plan =
        read_plan("good-cream.cfg", set, 13, &said); /* a loss that has no beta: the file's is left out, with a note */
    if (!plan)
        fail_msg("%s", said);
    assert_non_null(strstr(said, "note: stage 'train': 'beta' is left out"));
    assert_string_equal(stage_of(plan, "train")->parts[0].type->type->id, "sft");
    assert_string_equal(value_of(plan, "trust", "measure")->text, "spearman");
    free(said);
    sl_plan_free(plan);
}

static void test_swapping_a_class(void **state)
{
    (void)state;
    char *said;
    const char *keep = "trust.use=keep", *smooth[] = {"trust.use=label-smoothing", "trust.epsilon=0.2"};
    sl_plan *plan = read_plan("good-cream.cfg", &keep, 1, &said);
    assert_non_null(plan);
    assert_non_null(strstr(said, "note: stage 'trust': 'measure' is left out: 'keep' does not have it"));
    assert_string_equal(stage_of(plan, "trust")->id, "keep");
    free(said);
    sl_plan_free(plan);
    plan = good("good-cream.cfg", smooth, 2);
    assert_true(value_of(plan, "trust", "epsilon")->number == 0.2);
    sl_plan_free(plan);
    /* What --set itself says to the new class is not forgiven, nor what the old one never had. */
    const char *both[] = {"trust.use=keep", "trust.epsilon=0.2"};
    assert_null(read_plan("good-cream.cfg", both, 2, &said));
    assert_non_null(strstr(said, "--set trust.epsilon=0.2: stage 'trust': 'keep' has no parameter 'epsilon'"));
    free(said);
}

static void test_wrong_overrides(void **state)
{
    (void)state;
    wrong_set("trust", "write key=value");
    wrong_set("=5", "write key=value");
    wrong_set("trsut.use=keep", "no stage 'trsut'; did you mean 'trust'?");
    wrong_set("align.repeat=1", "write phases.align.repeat");
    wrong_set("trust.use=keap", "did you mean 'keep'?");
    wrong_set("answers.m=5", "has no parameter 'm'");
    wrong_set("models.polcy.path=x", "no model 'polcy'; did you mean 'policy'?");
    wrong_set("models.policy.path=/nowhere", "there is no folder '/nowhere'");
    wrong_set("phases.algin.repeat=2", "no phase 'algin'; did you mean 'align'?");
    wrong_set("phases.align.repeat=0", "it must be from 1");
    wrong_set("phases=5", "is a group");
    wrong_set("models.policy=5", "no such setting");
    wrong_set("a.b.c.d=5", "no such setting");
    wrong_set("sede=5", "did you mean 'seed'?");
    wrong_set("answers.stop=a,b", "'stop' takes a list, and 'a,b' is one word; write stop=[a,b]");
    wrong_set("answers.limits.memori=1G", "'memori' is no limit; memory and seconds are; did you mean 'memory'?");
    wrong_set("answers.limts.memory=1G", "has no parameter 'limts'");
    wrong_set("answers.n.x=1", "'n' is an integer and no group");
    wrong_set("answers.n=[1,2]", "a list; an integer is wanted");
    wrong_set("answers.n=", "an integer is wanted");
    wrong_set("answers.temperature=nan", "a number is wanted");
    wrong_set("runtime.thread=2", "did you mean 'threads'?");
    wrong_set("\xff\xfe=1", "no UTF-8");
}

/* What sl_plan_write wrote reads back as the same plan: it is written the same again. */
static void round_trip(const char *name)
{
    char path[] = "/tmp/sluice-plan-XXXXXX", *first = NULL, *second = NULL, *said;
    size_t first_size, second_size, mistakes;
    sl_plan *plan = good(name, NULL, 0);
    FILE *out = open_memstream(&first, &first_size);
    assert_int_equal(sl_plan_write(plan, out), SLUICE_OK);
    fclose(out);
    sl_plan_free(plan);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, first, first_size), first_size);
    close(fd);
    plan = read_file(path, NULL, 0, &said, &mistakes);
    if (!plan)
        fail_msg("%s", said);
    out = open_memstream(&second, &second_size);
    assert_int_equal(sl_plan_write(plan, out), SLUICE_OK);
    fclose(out);
    assert_string_equal(first, second);
    assert_non_null(strstr(first, "temperature = ")); /* defaults are there */
    sl_plan_free(plan);
    unlink(path);
    free(first);
    free(second);
    free(said);
}

static void test_written_file_reads_the_same(void **state)
{
    (void)state;
    round_trip("good-cream.cfg");
    round_trip("good-single.cfg");
}

static void test_print_and_graph(void **state)
{
    (void)state;
    sl_plan *plan = good("good-cream.cfg", NULL, 0);
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    sl_plan_print(plan, out);
    fclose(out);
    assert_non_null(strstr(text, "versions 0 to 4"));
    assert_non_null(strstr(text, "phase align, 3 times"));
    assert_non_null(strstr(text, "trainer (dpo)"));
    assert_non_null(strstr(text, "policy@3→4"));
    assert_non_null(strstr(text, "after train"));
    free(text);
    out = open_memstream(&text, &size);
    sl_plan_graph(plan, out);
    fclose(out);
    assert_int_equal(strncmp(text, "digraph \"test\" {", 16), 0);
    assert_non_null(strstr(text, "\"pairs\" -> \"trust\";"));
    assert_non_null(strstr(text, "\"train\" -> \"eval\" [style=dashed];"));
    free(text);
    sl_plan_free(plan);
}

/* Right files with bytes deleted, doubled and changed: whatever is said, nothing crashes, and a mistake is a line. */
static void test_mangled_files(void **state)
{
    (void)state;
    static const char *const names[] = {"good-cream.cfg", "good-single.cfg"};
    static const char marks[] = "{}()[];=\",@#/\\\n 0-9eL\xff";
    char path[PATH_MAX], mangled[] = "/tmp/sluice-mangled-XXXXXX";
    uint64_t random = 12345;
    int fd = mkstemp(mangled);
    assert_true(fd >= 0);
    for (int round = 0; round < 6000; round++) {
        char text[8192];
        plans_path(path, sizeof path, names[round % 2]);
        FILE *in = fopen(path, "r");
        assert_non_null(in);
        size_t size = fread(text, 1, sizeof text / 2, in);
        fclose(in);
        for (int edits = 1 + round % 4; edits > 0; edits--) {
            random = random * 6364136223846793005ULL + 1442695040888963407ULL;
            size_t at = (size_t)(random >> 33) % size, length = 1 + (size_t)(random >> 20) % (round % 5 ? 3 : 60);
            length = length < size - at ? length : size - at;
            switch ((random >> 60) % 3) {
            case 0:
                memmove(text + at, text + at + length, size - at - length);
                size -= length;
                break;
            case 1:
                memmove(text + at + length, text + at, size - at);
                size += length;
                break;
            default:
                text[at] = marks[(random >> 40) % (sizeof marks - 1)];
            }
        }
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, text, size, 0), size);
        char *said;
        size_t mistakes, lines = 0;
        sl_plan_free(read_file(mangled, NULL, 0, &said, &mistakes));
        for (const char *s = said; *s; s++)
            lines += *s == '\n';
        assert_true(lines >= mistakes);
        free(said);
    }
    close(fd);
    unlink(mangled);
}

/* Weights in shards are named by their index; without either a folder has none. */
static void test_shards(void **state)
{
    (void)state;
    char folder[] = "/tmp/sluice-shards-XXXXXX", set[PATH_MAX];
    static const char *const files[] = {"config.json", "model.safetensors.index.json"};
    assert_non_null(mkdtemp(folder));
    snprintf(set, sizeof set, "models.policy.path=%s", folder);
    for (size_t i = 0; i < 2; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        wrong_set(set, i == 0 ? "has no config.json" : "has no model.safetensors");
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fclose(file);
    }
    const char *const sets[] = {set};
    sl_plan_free(good("good-cream.cfg", sets, 1));
    for (size_t i = 0; i < 2; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    rmdir(folder);
}

static void test_unreadable_files(void **state)
{
    (void)state;
    char *said;
    assert_null(read_plan("no-such-file.cfg", NULL, 0, &said));
    assert_non_null(strstr(said, "cannot be read: No such file"));
    free(said);
    assert_null(read_plan("model", NULL, 0, &said)); /* a folder */
    assert_non_null(strstr(said, "cannot be read"));
    free(said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corpus),
        cmocka_unit_test(test_every_mistake_is_found),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_versions_in_a_chain),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_swapping_a_class),
        cmocka_unit_test(test_wrong_overrides),
        cmocka_unit_test(test_written_file_reads_the_same),
        cmocka_unit_test(test_print_and_graph),
        cmocka_unit_test(test_mangled_files),
        cmocka_unit_test(test_unreadable_files),
        cmocka_unit_test(test_shards),
    };
    return cmocka_run_group_tests(tests, open_registry, close_registry);
}
