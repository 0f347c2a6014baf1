/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* sluice test-plugin: does a plugin keep what doc/plugin-guide.md asks of it? */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/json.h"
#include "core/base/pool.h"
#include "core/cli/cli.h"
#include "core/run/internal.h"
#include "tools/test-plugin/process.h"

static const char help[] =
    "sluice test-plugin FILE.so [--json] [--only TEST] [--set NAME=VALUE] [--seed N] [--timeout SECONDS]\n"
    "sluice test-plugin --list\n\n"
    "Tests a plugin without a pipeline: its description, its parameters at and beyond their bounds, records that are\n"
    "odd or malformed, batches of any size, being cancelled and killed, memory, threads and files. Every test runs in "
    "a\n"
    "process of its own, each class by itself, over sample records and with a small model. The verdicts:\n\n"
    "  PASSED   it does what is asked\n"
    "  SKIPPED  it does not apply: why\n"
    "  WARNING  allowed, but look at it\n"
    "  FAILED   it does not: the line says what, and how to mend it\n"
    "  CRASHED  the process died: by which signal, doing what\n"
    "  HUNG     it was not done in time\n\n"
    "  --json             one JSON object instead of lines\n"
    "  --only TEST        this test only; may be given several times\n"
    "  --list             the tests, a line each\n"
    "  --set NAME=VALUE   a parameter's value where the default does not do; CLASS.NAME=VALUE for one class; lists as\n"
    "                     a,b. Without it what is required gets something plausible: judge-a, judge-b, small models,\n"
    "                     a file of JSON lines\n"
    "  --seed N           of everything that is drawn at random (default: 1)\n"
    "  --timeout SECONDS  of each test (default: 10)\n\n"
    "Exit codes: 0 nothing failed, 1 something failed, crashed or hung, or the file cannot be read, 2 wrong usage,\n"
    "130 interrupted.\n\n"
    "Example:\n"
    "  sluice test-plugin ./my-judge.so --set marker=Score\n";

static const sl_command command = {"test-plugin", "", help, NULL};

static const char *const verdicts[] = {"PASSED", "SKIPPED", "WARNING", "FAILED", "CRASHED", "HUNG"};

typedef struct results {
    bool json;
    const sl_words *only;
    size_t count[sizeof verdicts / sizeof *verdicts];
    sl_buffer out; /* of JSON, until the end */
} results;

static bool wanted(const results *all, const char *name)
{
    bool any = all->only->count == 0;
    for (size_t i = 0; !any && i < all->only->count; i++)
        any = strcmp(all->only->items[i], name) == 0;
    return any;
}

static void put(sl_buffer *out, const char *name, const char *text)
{
    sl_buffer_printf(out, "\"%s\": ", name);
    sl_json_string(out, text, strlen(text));
}

static void interrupt(int signal)
{
    tp_interrupted = signal;
}

static void say(results *all, const char *class_id, const tp_test *test, const tp_report *r, double seconds)
{
    const char *word = verdicts[r->verdict], *why = r->verdict == TP_PASSED ? "" : r->why;
    size_t before = 0;
    for (size_t i = 0; i < sizeof verdicts / sizeof *verdicts; i++)
        before += all->count[i];
    all->count[r->verdict]++;
    if (!all->json) {
        printf("%-8s %-12s %s%s%s\n", word, test->name, class_id, why[0] != '\0' && class_id[0] != '\0' ? ": " : "",
               why);
        fflush(stdout);
        return;
    }
    sl_buffer_printf(&all->out, before > 0 ? ",\n  {" : "\n  {");
    put(&all->out, "test", test->name);
    sl_buffer_printf(&all->out, ", ");
    put(&all->out, "class", class_id);
    sl_buffer_printf(&all->out, ", ");
    put(&all->out, "verdict", word);
    sl_buffer_printf(&all->out, ", ");
    put(&all->out, "why", why);
    sl_buffer_printf(&all->out, ", \"seconds\": %.3f}", seconds);
}

static void run_one(const tp_suite *suite, results *all, const tp_test *test, const char *class_id, tp_report *r)
{
    const double seconds = tp_run(suite, test, class_id[0] != '\0' ? class_id : NULL, r);
    if (!tp_interrupted)
        say(all, class_id, test, r, seconds);
}

/* Everything that can be run: a file that does not load, or cannot be read, has no classes to test. */
static void run_all(const tp_suite *suite, results *all, tp_survey *survey, tp_report *r)
{
    const tp_report loaded = (tp_run(suite, &tp_test_loads, NULL, r), *r);
    if (!tp_interrupted && (wanted(all, tp_test_loads.name) || loaded.verdict >= TP_FAILED))
        say(all, "", &tp_test_loads, &loaded, 0);
    if (loaded.verdict >= TP_CRASHED)
        return;
    const bool readable = tp_look(suite, survey, r);
    for (const tp_test *const *t = tp_tests; *t != NULL && !tp_interrupted; t++) {
        const bool whole = (*t)->scope != TP_RUN, needs = (*t)->scope != TP_FILE;
        if (*t == &tp_test_loads ||
            !(wanted(all, (*t)->name) || (!readable && loaded.verdict < TP_FAILED && *t == &tp_test_description)) ||
            (!readable && (needs || (*t == &tp_test_description && loaded.verdict >= TP_FAILED))))
            continue;
        if (whole)
            run_one(suite, all, *t, "", r);
        for (size_t i = 0; !whole && i < survey->count && !tp_interrupted; i++)
            if ((*t)->kinds == 0 || (*t)->kinds & (1u << survey->classes[i].kind))
                run_one(suite, all, *t, survey->classes[i].id, r);
    }
}

static void finish(results *all, const char *file, const tp_survey *survey)
{
    const size_t failed = all->count[TP_FAILED] + all->count[TP_CRASHED] + all->count[TP_HUNG];
    if (!all->json) {
        printf("%s: %zu passed, %zu skipped, %zu with a warning, %zu failed\n",
               survey->id[0] != '\0' ? survey->id : file, all->count[TP_PASSED], all->count[TP_SKIPPED],
               all->count[TP_WARNING], failed);
        return;
    }
    sl_buffer head = {0};
    sl_buffer_printf(&head, "{");
    put(&head, "file", file);
    sl_buffer_printf(&head, ", ");
    put(&head, "plugin", survey->id);
    sl_buffer_printf(&head, ", ");
    put(&head, "version", survey->version);
    printf("%.*s, \"failed\": %zu, \"tests\": [%.*s\n]}\n", (int)head.size, (const char *)head.data, failed,
           (int)all->out.size, all->out.size > 0 ? (const char *)all->out.data : "");
    sl_buffer_free(&head);
}

static int list(void)
{
    for (const tp_test *const *t = tp_tests; *t != NULL; t++)
        printf("%-12s %s\n", (*t)->name, (*t)->summary);
    return SL_EXIT_OK;
}

static int check_names(const sl_words *only)
{
    for (size_t i = 0; i < only->count; i++) {
        const tp_test *const *t = tp_tests;
        while (*t != NULL && strcmp((*t)->name, only->items[i]) != 0)
            t++;
        if (*t == NULL)
            return sl_usage(&command, "there is no test '%s'; --list names them", only->items[i]);
    }
    return -1;
}

static int test_plugin(const char *name, tp_suite suite, results *all)
{
    char file[PATH_MAX], folder[PATH_MAX];
    struct stat what;
    const char *temporary = getenv("TMPDIR");
    if (realpath(name, file) == NULL)
        return sl_fail(&command, SL_EXIT_FAILED, "%s cannot be read: %s; name the .so that `make` has built", name,
                       strerror(errno));
    if (stat(file, &what) != 0 || !S_ISREG(what.st_mode)) /* a pipe would be waited for, a device has no end */
        return sl_fail(&command, SL_EXIT_FAILED, "%s is no file; name a plugin's .so", name);
    snprintf(folder, sizeof folder, "%s/sluice-test-plugin-XXXXXX", temporary != NULL ? temporary : "/tmp");
    tp_report *report = tp_shared(sizeof *report);
    tp_survey *survey = tp_shared(sizeof *survey);
    if (report == NULL || survey == NULL)
        return sl_fail(&command, SL_EXIT_FAILED, "out of memory");
    if (mkdtemp(folder) == NULL)
        return sl_fail(&command, SL_EXIT_FAILED, "cannot make a folder %s: %s", folder, strerror(errno));
    const struct sigaction on_signal = {.sa_handler = interrupt};
    sigaction(SIGINT, &on_signal, NULL);
    sigaction(SIGTERM, &on_signal, NULL);
    sigaction(SIGHUP, &on_signal, NULL);
    suite.file = file;
    suite.folder = folder;
    run_all(&suite, all, survey, report);
    sl_folder_remove(folder);
    if (tp_interrupted)
        return SL_EXIT_CANCELLED;
    finish(all, name, survey);
    return all->count[TP_FAILED] + all->count[TP_CRASHED] + all->count[TP_HUNG] > 0 ? SL_EXIT_FAILED : SL_EXIT_OK;
}

int main(int argc, char **argv)
{
    sl_words files = {0}, only = {0}, settings = {0};
    bool show = false;
    int64_t seed = 1;
    double timeout = 10;
    results all = {.only = &only};
    const sl_option options[] = {
        {.name = "json", .kind = SL_FLAG, .to = &all.json},
        {.name = "only", .kind = SL_WORDS, .to = &only},
        {.name = "list", .kind = SL_FLAG, .to = &show},
        {.name = "set", .kind = SL_WORDS, .to = &settings},
        {.name = "seed", .kind = SL_OPTION_INTEGER, .to = &seed, .min = 0, .max = 0x1p62},
        {.name = "timeout", .kind = SL_OPTION_NUMBER, .to = &timeout, .min = 0.1, .max = 86400},
        {0}};
    sl_pool_off(); /* so that a record's memory is seen to go */
    int code = sl_options_read(&command, argc - 1, argv + 1, options, &files);
    if (code < 0 && show)
        code = list();
    if (code < 0 && files.count != 1)
        code = sl_usage(&command, files.count == 0 ? "name the shared object to test" : "one shared object at a time");
    if (code < 0)
        code = check_names(&only);
    if (code < 0)
        code = test_plugin(files.items[0],
                           (tp_suite){.settings = settings.items,
                                      .setting_count = settings.count,
                                      .seed = (uint64_t)seed,
                                      .timeout = timeout},
                           &all);
    sl_buffer_free(&all.out);
    sl_words_free(&files);
    sl_words_free(&only);
    sl_words_free(&settings);
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == SL_EXIT_OK)
        code = sl_fail(&command, SL_EXIT_FAILED, "writing to standard output failed: %s", strerror(errno));
    return code;
}
