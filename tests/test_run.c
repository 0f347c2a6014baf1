/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The runner, with small stages: order, bounds, errors, reuse, a kill in the middle, locks, published versions. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "core/run/internal.h"
#include "core/run/host.h"
#include "core/run/run.h"

static sl_registry *registry;
static char home[64]; /* a folder for all tests */

static char *text_of(const char *path)
{
    sl_buffer text = {0};
    if (sl_file_read(path, &text) < 0) {
        sl_buffer_free(&text);
        return strdup("");
    }
    return (char *)text.data;
}

static char *in(const char *format, ...)
{
    static char paths[64][512];
    static int next;
    char *path = paths[next++ % 64];
    va_list args;
    va_start(args, format);
    const int n = snprintf(path, 512, "%s/", home);
    vsnprintf(path + n, (size_t)(512 - n), format, args);
    va_end(args);
    return path;
}

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

/* Runs a pipeline given as text with overrides, in folder `out`; what stderr got lies in `said` until the next run. */
static char said[65536];

static int run_in(const char *out, const char *pipeline, bool fresh, size_t count, const char *const *overrides)
{
    const char *file = in("pipeline.cfg"), *errors = in("stderr.txt");
    size_t mistakes = 0;
    write_text(file, pipeline);
    fflush(stderr);
    const int saved = dup(2), to = open(errors, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644);
    dup2(to, 2);
    sl_plan *plan = sl_plan_read(file, overrides, count, registry, stderr, false, &mistakes);
    const sl_run_options options = {.out = out, .fresh = fresh, .quiet = false};
    fflush(stdout);
    const int saved_out = dup(1);
    dup2(to, 1);
    const int code = plan != NULL ? sl_run(plan, registry, &options) : -1;
    fflush(stdout);
    fflush(stderr);
    dup2(saved_out, 1);
    dup2(saved, 2);
    close(saved), close(saved_out), close(to);
    sl_plan_free(plan);
    char *text = text_of(errors);
    snprintf(said, sizeof said, "%s", text);
    free(text);
    return code;
}

#define RUN(out, pipeline, ...)                                                                         \
    run_in(out, pipeline, false, sizeof((const char *const[]){NULL, __VA_ARGS__}) / sizeof(char *) - 1, \
           (const char *const[]){NULL, __VA_ARGS__} + 1)

static void assert_exit(int code, int expected)
{
    if (code != expected)
        fail_msg("exit code %d, not %d:\n%s", code, expected, said);
}

static void assert_says(const char *what)
{
    if (strstr(said, what) == NULL)
        fail_msg("expected \"%s\" in:\n%s", what, said);
}

static void assert_not_says(const char *what)
{
    if (strstr(said, what) != NULL)
        fail_msg("did not expect \"%s\" in:\n%s", what, said);
}

static void assert_same_file(const char *a, const char *b)
{
    sl_buffer x = {0}, y = {0};
    if (sl_file_read(a, &x) < 0 || sl_file_read(b, &y) < 0)
        fail_msg("cannot read %s or %s", a, b);
    if (x.size != y.size || memcmp(x.data, y.data, x.size) != 0)
        fail_msg("%s (%zu bytes) and %s (%zu bytes) differ", a, x.size, b, y.size);
    sl_buffer_free(&x);
    sl_buffer_free(&y);
}

static size_t entries(const char *folder, const char *containing)
{
    size_t count = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;)
        count += strstr(e->d_name, containing) != NULL;
    if (dir != NULL)
        closedir(dir);
    return count;
}

static char chain[2048]; /* chain_form with the folder in it */
static const char chain_form[] =
    "sluice = 1; name = \"chain\"; seed = 7;\n"
    "phases = ( { name = \"main\"; stages = (\n"
    "  { name = \"numbers\"; use = \"test/count\"; records = 1000; },\n"
    "  { name = \"mark\"; use = \"test/mark\"; from = \"numbers\"; value = 2.5; drop = 4; },\n"
    "  { name = \"share\"; use = \"test/share\"; from = \"mark\"; },\n"
    "  { name = \"turn\"; use = \"test/backwards\"; from = \"share\"; },\n"
    "  { name = \"list\"; use = \"test/list\"; from = \"turn\"; path = \"%s/list.txt\"; }\n"
    "); } );\n";

/* Every shape of stage in a row: what was dropped or released is left out, the rest keeps its order. */
static void every_shape_keeps_order(void **state)
{
    (void)state;
    char *out = in("order");
    assert_exit(RUN(out, chain), SL_RUN_DONE);
    char *list = text_of(in("list.txt"));
    const char *line = list;
    int position = 0;
    for (int i = 0; i < 1000; i++) {
        char expected[32];
        if (i % 4 == 3)
            continue; /* the mark stage drops every fourth */
        if (position++ % 10 == 9)
            continue; /* and the one that turns releases every tenth of what is left */
        const int n = snprintf(expected, sizeof expected, "r%d 2.5\n", i);
        if (strncmp(line, expected, (size_t)n) != 0)
            fail_msg("expected %s at %.20s", expected, line);
        line += n;
    }
    assert_string_equal(line, "");
    free(list);
    uint64_t records = 0;
    char error[SL_ERROR_SIZE] = "";
    char path[600];
    snprintf(path, sizeof path, "%s/streams/main-1/turn.zst", out);
    assert_int_equal(sl_stream_verify(path, &records, error, sizeof error), SLUICE_OK);
    assert_int_equal(records, 675);
}

/* What is released before anything is emitted, and before the input's end, is left out. */
static void left_out_before_the_end(void **state)
{
    (void)state;
    char *out = in("hold"), path[600];
    assert_exit(RUN(out, chain, "numbers.records=10", "turn.use=test/hold", "turn.from=numbers"), SL_RUN_DONE);
    uint64_t records = 0;
    char error[SL_ERROR_SIZE] = "";
    snprintf(path, sizeof path, "%s/streams/main-1/turn.zst", out);
    assert_int_equal(sl_stream_verify(path, &records, error, sizeof error), SLUICE_OK);
    assert_int_equal(records, 6); /* 0, 3, 6 and 9 are not there */
}

/* Equal numbers, equal bytes: metrics without a clock, in the plan's order; null for what is not finite, and a warning.
 */
static void metrics_are_reproducible(void **state)
{
    (void)state;
    char *one = in("metrics-1"), *two = in("metrics-2");
    assert_exit(RUN(one, chain), SL_RUN_DONE);
    assert_says("sluice: warning: main: stage 'mark': metric 'nothing' is no number: null is written instead\n");
    assert_exit(RUN(two, chain, "mark.pause=100"), SL_RUN_DONE);
    assert_same_file(in("metrics-1/metrics.jsonl"), in("metrics-2/metrics.jsonl"));
    assert_same_file(in("metrics-1/streams/main-1/turn.zst"), in("metrics-2/streams/main-1/turn.zst"));
    char *text = text_of(in("metrics-1/metrics.jsonl"));
    assert_non_null(strstr(text, "{\"phase\":\"main\",\"iteration\":1,\"stage\":\"mark\",\"seen\":1000.0,"
                                 "\"third\":333.3333333333333,\"nothing\":null}\n"));
    assert_true(strstr(text, "\"mark\"") < strstr(text, "\"share\""));
    free(text);
}

static void second_run_reuses(void **state)
{
    (void)state;
    char *out = in("reuse");
    assert_exit(RUN(out, chain), SL_RUN_DONE);
    char *before = text_of(in("reuse/metrics.jsonl"));
    assert_exit(RUN(out, chain), SL_RUN_DONE);
    char *after = text_of(in("reuse/metrics.jsonl"));
    assert_string_equal(before, after);
    assert_not_says("started");
    static const char *const stages[] = {"numbers", "mark", "share", "turn", "list"};
    for (size_t i = 0; i < 5; i++) {
        char line[64];
        snprintf(line, sizeof line, "main         %-12s reused", stages[i]);
        assert_says(line);
    }
    /* A stream that was lost is made again, and its numbers stand there once. */
    assert_int_equal(unlink(in("reuse/streams/main-1/share.zst")), 0);
    assert_exit(RUN(out, chain), SL_RUN_DONE);
    assert_says("share        started");
    char *again = text_of(in("reuse/metrics.jsonl"));
    assert_string_equal(before, again);
    free(again);
    /* A parameter that changes speed alone changes no key. */
    assert_exit(RUN(out, chain, "mark.pause=1"), SL_RUN_DONE);
    assert_not_says("started");
    /* Another value: this stage and what follows, nothing before. */
    assert_exit(RUN(out, chain, "share.use=test/mark"), SL_RUN_DONE);
    assert_says("mark         reused");
    assert_says("share        started");
    assert_says("turn         started");
    assert_says("list         started");
    /* A sink's file that was lost or changed is written again. */
    write_text(in("list.txt"), "something else");
    assert_exit(RUN(out, chain, "share.use=test/mark"), SL_RUN_DONE);
    assert_says("turn         reused");
    assert_says("list         started");
    assert_exit(RUN(out, chain, "seed=8"), SL_RUN_DONE);
    assert_not_says("reused");
    assert_exit(run_in(out, chain, true, 0, NULL), SL_RUN_DONE);
    assert_not_says("reused");
    free(before);
    free(after);
}

static void errors_name_stage_and_record(void **state)
{
    (void)state;
    char *out = in("errors"), expected[1024];
    /* One line of well-formed text without control characters, whatever a plugin puts into it. */
    assert_exit(RUN(out, chain, "mark.fail=r500"), SL_RUN_DAMAGED);
    snprintf(expected, sizeof expected,
             "sluice: stage 'mark' (%s:4), record 'r500': refused on purpose; mend   , ?, ??\n", in("pipeline.cfg"));
    assert_says(expected);
    assert_exit(RUN(out, chain, "mark.silent=r7"), SL_RUN_DAMAGED);
    assert_says("record 'r7': a record is wrong");
    /* What was finished before the error is kept; what was not has no final name. */
    assert_exit(RUN(out, chain, "mark.fail=r999"), SL_RUN_DAMAGED);
    assert_false(sl_path_exists(in("errors/streams/main-1/mark.zst")));
    /* Two records of one id. */
    assert_exit(RUN(out, chain, "numbers.twice=77"), SL_RUN_DAMAGED);
    assert_says("stage 'numbers'");
    assert_says("'r0'");
    assert_exit(RUN(out, chain), SL_RUN_DONE);
}

static const char training[] =
    "sluice = 1; name = \"training\"; seed = 3;\n"
    "models = { policy = { path = \"base\"; }; };\n"
    "phases = (\n"
    "  { name = \"start\"; stages = ( { name = \"before\"; use = \"test/weigh\"; model = \"policy\"; } ); },\n"
    "  { name = \"align\"; repeat = 3; stages = (\n"
    "    { name = \"numbers\"; use = \"test/count\"; records = 50; pause = 100; },\n"
    "    { name = \"trust\"; use = \"test/share\"; from = \"numbers\"; },\n"
    "    { name = \"train\"; use = \"test/train\"; from = \"trust\"; model = \"policy\"; },\n"
    "    { name = \"questions\"; use = \"test/count\"; records = 5; },\n"
    "    { name = \"tried\"; use = \"test/mark\"; from = \"questions\"; after = \"train\"; },\n"
    "    { name = \"eval\"; use = \"test/weigh\"; from = \"tried\"; model = \"policy\"; }\n"
    "  ); } );\n";

static void versions_are_published_and_read(void **state)
{
    (void)state;
    char *out = in("training");
    write_text(in("four-hundred"), "400\n");
    assert_exit(RUN(out, training), SL_RUN_DONE);
    char *weights = text_of(in("training/models/policy@3/model.safetensors"));
    assert_string_equal(weights, "400\n"); /* 100 + 3 iterations × 2 epochs × 50 records */
    free(weights);
    assert_int_equal(entries(in("training/models"), ".policy"), 0);
    char *text = text_of(in("training/metrics.jsonl"));
    assert_non_null(strstr(
        text, "{\"phase\":\"start\",\"iteration\":1,\"stage\":\"before\",\"model\":\"policy@0\",\"accuracy\":0.1,"));
    assert_non_null(strstr(
        text, "{\"phase\":\"align\",\"iteration\":3,\"stage\":\"eval\",\"model\":\"policy@3\",\"accuracy\":0.4,"));
    assert_non_null(strstr(text, "{\"phase\":\"align\",\"iteration\":1,\"stage\":\"train\",\"step\":11,\"loss\":"));
    free(text);
    assert_says("policy@0");
    assert_says("40.0 [39.0, 41.0]");
    assert_says(
        "Accuracy rose from 10.0 (policy@0) to 40.0 (policy@3), 30.0 points (their 95 % intervals do not overlap).");
    /* Other weights of the start: everything that read them is computed again, the sources are not. */
    write_text(in("base/model.safetensors"), "200\n");
    assert_exit(RUN(out, training), SL_RUN_DONE);
    assert_says("numbers      reused");
    assert_says("trust        reused");
    assert_not_says("train        reused");
    write_text(in("base/model.safetensors"), "100\n");
    /* A version that lost bytes is made again; what a user put beside its files stays, and changes nothing. */
    assert_exit(RUN(out, training), SL_RUN_DONE);
    write_text(in("training/models/policy@3/notes.txt"), "mine");
    assert_exit(RUN(out, training), SL_RUN_DONE);
    assert_not_says("started");
    assert_true(sl_path_exists(in("training/models/policy@3/notes.txt")));
    write_text(in("training/models/policy@3/model.safetensors"), "4");
    assert_exit(RUN(out, training), SL_RUN_DONE);
    assert_says("align 3/3    train        started");
    assert_says("align 2/3    train        reused");
    assert_same_file(in("training/models/policy@3/model.safetensors"), in("four-hundred"));
    /* A trainer that publishes nothing has failed, and leaves nothing. */
    assert_exit(RUN(in("forgetful"), training, "train.forget=true"), SL_RUN_FAILED);
    assert_says("stage 'train'");
    assert_says("ended without publishing policy@1");
    assert_exit(RUN(in("forgetful"), training, "numbers.records=0"), SL_RUN_DAMAGED);
    assert_says("got no records from 'trust'");
}

static void old_versions_are_pruned(void **state)
{
    (void)state;
    assert_exit(RUN(in("pruned"), training, "models.policy.keep_versions=1"), SL_RUN_DONE);
    assert_int_equal(entries(in("pruned/models"), "policy@"), 1);
    assert_true(sl_path_exists(in("pruned/models/policy@3/model.safetensors")));
    assert_exit(RUN(in("pruned"), training, "models.policy.keep_versions=1"), SL_RUN_DONE);
    assert_not_says("started");
    /* What the last iteration needs is made again. */
    assert_int_equal(sl_folder_remove(in("pruned/models/policy@3")), SLUICE_OK);
    assert_exit(RUN(in("pruned"), training, "models.policy.keep_versions=1"), SL_RUN_DONE);
    assert_true(sl_path_exists(in("pruned/models/policy@3/model.safetensors")));
    assert_says("align 1/3    numbers      reused");
    assert_says("align 1/3    train        started");
}

/* Ends a child that runs the pipeline by `signal` once `path` is there; returns the child's status. */
static int interrupted_run(const char *out, const char *pipeline, const char *path, int number)
{
    const pid_t child = fork();
    if (child == 0) {
        const int code =
            run_in(out, pipeline, false, 2, (const char *const[]){"numbers.pause=2000", "train.pause=2000"});
        _exit(code);
    }
    for (int i = 0; i < 5000 && !sl_path_exists(path); i++)
        usleep(1000);
    usleep(30 * 1000);
    kill(child, number);
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}

static void assert_same_run(const char *a, const char *b)
{
    static const char *const files[] = {"metrics.jsonl",
                                        "streams/align-1/numbers.zst",
                                        "streams/align-1/trust.zst",
                                        "streams/align-2/trust.zst",
                                        "streams/align-3/trust.zst",
                                        "models/policy@3/model.safetensors"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        assert_same_file(in("%s/%s", a, files[i]), in("%s/%s", b, files[i]));
}

static void killed_run_goes_on(void **state)
{
    (void)state;
    assert_exit(RUN(in("whole"), training), SL_RUN_DONE);
    static const char *const moments[] = {"streams/align-1/numbers.zst.part", "streams/align-2/trust.zst.part",
                                          "models/policy@2"};
    for (size_t i = 0; i < sizeof moments / sizeof *moments; i++) {
        const int status = interrupted_run(in("killed-%zu", i), training, in("killed-%zu/%s", i, moments[i]), SIGKILL);
        assert_true(WIFSIGNALED(status));
        assert_exit(RUN(in("killed-%zu", i), training), SL_RUN_DONE);
        if (i > 0)
            assert_says("reused");
        char name[32];
        snprintf(name, sizeof name, "killed-%zu", i);
        assert_same_run("whole", name);
        assert_int_equal(entries(in("%s/streams/align-2", name), ".part"), 0);
        assert_int_equal(entries(in("%s/streams/align-2", name), ".journal"), 0);
    }
}

static void first_signal_stops_cleanly(void **state)
{
    (void)state;
    const int status = interrupted_run(in("stopped"), training, in("stopped/models/policy@1"), SIGINT);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), SL_RUN_STOPPED);
    char *text = text_of(in("stderr.txt"));
    assert_non_null(strstr(text, "the same command again goes on from there"));
    free(text);
    assert_exit(RUN(in("stopped"), training), SL_RUN_DONE);
    assert_says("align 1/3    train        reused");
    assert_int_equal(entries(in("stopped/streams/align-2"), ".part"), 0);
    assert_int_equal(entries(in("stopped/streams/align-2"), ".journal"), 0);
    assert_exit(RUN(in("whole-2"), training), SL_RUN_DONE);
    assert_same_run("stopped", "whole-2");
}

static void folder_in_use_is_refused(void **state)
{
    (void)state;
    mkdir(in("locked"), 0777);
    const int fd = open(in("locked/.lock"), O_RDWR | O_CREAT, 0666);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_exit(RUN(in("locked"), chain), SL_RUN_FAILED);
    assert_says("is in use by another run");
    close(fd);
    assert_exit(RUN(in("locked"), chain), SL_RUN_DONE);
}

static void unwritable_folder_is_said(void **state)
{
    (void)state;
    write_text(in("a-file"), "");
    assert_exit(RUN(in("a-file/run"), chain), SL_RUN_FAILED);
    assert_says("sluice: cannot create the folder");
    assert_exit(RUN("/proc/sluice-run", chain), SL_RUN_FAILED);
    assert_says("sluice: cannot create the folder /proc/sluice-run");
}

/* --fresh removes what has the form of ours and nothing else. */
static void fresh_leaves_strangers_alone(void **state)
{
    (void)state;
    assert_exit(RUN(in("fresh"), training), SL_RUN_DONE);
    mkdir(in("fresh/models/mine"), 0777);
    write_text(in("fresh/models/mine/model.safetensors"), "mine");
    mkdir(in("fresh/streams/other-1"), 0777);
    assert_exit(run_in(in("fresh"), training, true, 0, NULL), SL_RUN_DONE);
    assert_not_says("reused");
    assert_true(sl_path_exists(in("fresh/models/mine/model.safetensors")));
    assert_true(sl_path_exists(in("fresh/streams/other-1")));
}

static long peak_kilobytes(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

/* Peak memory of a process after a run of so many records of half a kilobyte, whose second stage starts late. */
static long peak_after(const char *records, const char *out)
{
    int ends[2];
    long peak = -1;
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        const int code = RUN(out, chain, records, "numbers.payload=512", "mark.first_pause=1000000");
        peak = code == SL_RUN_DONE ? peak_kilobytes() : -1;
        _exit(write(ends[1], &peak, sizeof peak) != sizeof peak);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &peak, sizeof peak), sizeof peak);
    waitpid(child, NULL, 0);
    close(ends[0]);
    assert_true(peak > 0);
    return peak;
}

/* A producer far ahead of its consumer costs disk, not memory: four times the records, 75 MiB more, and all that grows
 * is the streams' tables of ids. */
static void memory_is_bounded(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    print_message("not measured: the sanitizer keeps memory of its own\n");
    skip();
#endif
    const long few = peak_after("numbers.records=50000", in("few")),
               many = peak_after("numbers.records=200000", in("many"));
    print_message("peak of 50,000 records %ld KiB, of 200,000 %ld KiB\n", few, many);
    assert_true(many - few < 37 * 1024);
}

static void free_host_serves_commands(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *errors = open_memstream(&text, &size);
    assert_null(sl_free_host_open(registry, (const char *const[]){"no_such_setting=3"}, 1, errors));
    fflush(errors);
    assert_non_null(strstr(text, "no_such_setting=3: no service has this setting"));
    sl_free_host *host = sl_free_host_open(registry, NULL, 0, errors);
    assert_non_null(host);
    const sluice_host *public = sl_free_host_public(host);
    assert_null(sluice_service(public, "no.such.service/1"));
    void (*function)(void); /* the table has no holes: functions follow the size */
    for (size_t at = offsetof(sluice_host_api, verror); at < sizeof(sluice_host_api); at += sizeof function) {
        memcpy(&function, (const char *)public->api + at, sizeof function);
        assert_non_null(function);
    }
    assert_int_equal(sluice_error(public, SLUICE_BAD_FILE, "no\nnews"), SLUICE_BAD_FILE);
    assert_false(sluice_cancelled(public));
    fflush(errors);
    assert_non_null(strstr(text, "sluice: no news\n"));
    const int fd = sluice_scratch(public);
    assert_true(fd >= 0);
    close(fd);
    sl_free_host_close(host);
    fclose(errors);
    free(text);
}

/* What test/hear wrote against metrics.jsonl: the same lines in the same order, `most` of them, marked; then `end`. */
static void assert_heard(const char *file, size_t most, const char *mark, const char *end)
{
    char *heard = text_of(in("heard/%s", file)), *lines = text_of(in("heard/metrics.jsonl")), *at = heard;
    for (char *to = lines, *line; (line = strsep(&to, "\n")) && *line && most-- > 0; at = strchr(at, '\n') + 1) {
        char phase[32], stage[32], expected[128];
        int iteration, step = -1;
        assert_true(sscanf(line, "{\"phase\":\"%31[^\"]\",\"iteration\":%d,\"stage\":\"%31[^\"]\",\"step\":%d", phase,
                           &iteration, stage, &step) >= 3);
        snprintf(expected, sizeof expected, "%s %s %d %d%s: ", phase, stage, iteration, step, mark);
        if (strncmp(at, expected, strlen(expected)) != 0)
            fail_msg("\"%.60s\" where \"%s\" was expected", at, expected);
    }
    assert_string_equal(at, end);
    free(heard);
    free(lines);
}

static void metrics_sinks_hear_every_line(void **state)
{
    char pipeline[sizeof training + 256], *out = in("heard");
    snprintf(pipeline, sizeof pipeline,
             "%smetrics = ( { use = \"test/hear\"; }, { use = \"test/hear\"; file = \"few.txt\"; most = 2; },\n"
             "  { use = \"test/hear\"; file = \"nowhere/there.txt\"; } );\n",
             training);
    for (int run = 0; run < 2; run++) {
        assert_exit(RUN(out, pipeline), SL_RUN_DONE);
        assert_heard("heard.txt", 1000, run == 0 ? "" : " reused", "finished\n");
        assert_heard("few.txt", 2, run == 0 ? "" : " reused", ""); /* it failed: not even the end is said */
        assert_says("metrics sink 'test/hear' gets no more numbers: deaf on purpose; the run goes on without it");
        assert_says("metrics sink 'test/hear' gets no more numbers: cannot write ");
    }
    assert_exit(RUN(out, pipeline, "numbers.twice=7"), SL_RUN_DAMAGED); /* its end is said as well */
    assert_heard("heard.txt", 1000, " reused", "finished\n");
}

static int set_up(void **state)
{
    (void)state;
    snprintf(home, sizeof home, "/tmp/sluice-run-XXXXXX");
    if (mkdtemp(home) == NULL)
        return -1;
    char path[512];
    snprintf(path, sizeof path, "%s/tests/plugins", getenv("SLUICE_BUILD") != NULL ? getenv("SLUICE_BUILD") : ".");
    setenv("SLUICE_PLUGIN_PATH", path, 1);
    setenv("XDG_CACHE_HOME", home, 1);
    registry = sl_registry_open();
    mkdir(in("base"), 0777);
    write_text(in("base/config.json"), "{}");
    write_text(in("base/model.safetensors"), "100\n");
    snprintf(chain, sizeof chain, chain_form, home);
    return registry != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    sl_registry_close(registry);
    return sl_folder_remove(home);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_keeps_order),
        cmocka_unit_test(left_out_before_the_end),
        cmocka_unit_test(metrics_are_reproducible),
        cmocka_unit_test(second_run_reuses),
        cmocka_unit_test(errors_name_stage_and_record),
        cmocka_unit_test(versions_are_published_and_read),
        cmocka_unit_test(old_versions_are_pruned),
        cmocka_unit_test(killed_run_goes_on),
        cmocka_unit_test(first_signal_stops_cleanly),
        cmocka_unit_test(folder_in_use_is_refused),
        cmocka_unit_test(unwritable_folder_is_said),
        cmocka_unit_test(fresh_leaves_strangers_alone),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(free_host_serves_commands),
        cmocka_unit_test(metrics_sinks_hear_every_line),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
