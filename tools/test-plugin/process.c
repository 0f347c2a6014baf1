/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/test-plugin/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/run/internal.h"
#include "tools/test-plugin/memory.h"

/* A plugin that asks for more than this is told that there is no more. */
#define MOST_MEMORY (UINT64_C(4) << 30)

volatile sig_atomic_t tp_interrupted;

void *tp_shared(size_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return at != MAP_FAILED ? at : NULL;
}

long tp_entries(const char *folder)
{
    DIR *dir = opendir(folder);
    long count = 0;
    while (dir != NULL && readdir(dir) != NULL)
        count++;
    if (dir != NULL)
        closedir(dir);
    return count;
}

/* ---- in the child */

static bool enter(const char *folder, const char *cache)
{
    const int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct rlimit address = {RLIM_INFINITY, RLIM_INFINITY};
    getrlimit(RLIMIT_AS, &address);
    setpgid(0, 0);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    if (tp_memory_ours()) /* a sanitizer reserves far more than it uses */
        setrlimit(RLIMIT_AS, &(struct rlimit){MOST_MEMORY, address.rlim_max});
    if (chdir(folder) < 0 || in < 0 || dup2(in, 0) < 0)
        return false;
    close(in);
    fflush(NULL);
    const int out = open(TP_STDOUT, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    const int err = open(TP_STDERR, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    if (out < 0 || err < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
        return false;
    close(out);
    close(err);
    /* Verdicts about what is only being tested are nobody's business. */
    setenv("XDG_CACHE_HOME", cache, 1);
    return true;
}

/* Judges with a head and models without are told apart by what works. Apart, so that the test begins without a GPU. */
static void choose_models(tp_subject *s)
{
    enum { LONG = 600 }; /* seconds: the test has a limit of its own */
    bool asks = false;
    for (size_t i = 0; i < s->value_count; i++)
        asks = asks || s->values[i].param->type == SLUICE_TYPE_MODEL || s->values[i].param->type == SLUICE_TYPE_MODELS;
    for (int heads = 0; asks && heads < 2; heads++) {
        tp_records records;
        tp_apart how = {.rc = SLUICE_FAILED};
        s->heads = heads > 0;
        if (tp_records_make(s, 2, TP_PLAIN, 0, &records))
            tp_drive_apart(s, &(tp_work){.records = &records}, LONG, &how);
        tp_records_free(&records);
        if (how.rc >= 0)
            return;
    }
    s->heads = false;
}

static void run_test(const tp_suite *suite, const tp_test *test, const char *class_id, tp_report *r)
{
    tp_subject s = {
        .file = suite->file, .settings = suite->settings, .setting_count = suite->setting_count, .seed = suite->seed};
    char why[512];
    bool ready = true;
    tp_doing(r, "loading it");
    if (test->scope != TP_FILE && !tp_subject_open(&s, suite->file, why, sizeof why)) {
        tp_fail(r, "%s", why);
        return;
    }
    if (test->scope == TP_RUN) {
        tp_doing(r, "sample records");
        ready = tp_subject_choose(&s, class_id, why, sizeof why) && tp_samples_write_files(&s);
        if (ready)
            choose_models(&s);
        else
            tp_skip(r, "%s", why);
    }
    if (ready)
        test->run(&s, r);
    tp_doing(r, "unloading it");
    tp_subject_close(&s);
}

static void look(const tp_suite *suite, tp_survey *survey, tp_report *r)
{
    tp_subject s = {.file = suite->file};
    char why[512];
    tp_doing(r, "reading what it says of itself");
    if (!tp_subject_open(&s, suite->file, why, sizeof why)) {
        tp_fail(r, "%s", why);
        return;
    }
    snprintf(survey->id, sizeof survey->id, "%s", s.plugin->id);
    snprintf(survey->version, sizeof survey->version, "%s", s.plugin->version);
    for (size_t i = 0; i < s.class_count; i++) {
        snprintf(survey->classes[i].id, sizeof survey->classes[i].id, "%s", s.classes[i]->id);
        survey->classes[i].kind = s.classes[i]->kind;
    }
    survey->count = s.class_count;
}

/* ---- in the parent */

/* The last line that a process wrote to its standard error: what an assertion or a sanitizer said. */
static void last_words(const char *folder, char *text, size_t size)
{
    char path[PATH_MAX + 16];
    sl_buffer said = {0};
    text[0] = '\0';
    snprintf(path, sizeof path, "%s/" TP_STDERR, folder);
    if (sl_file_read(path, &said) >= 0 && said.size > 0) {
        char *start = (char *)said.data, *end = start + said.size;
        while (end > start && end[-1] == '\n')
            *--end = '\0';
        char *line = strrchr(start, '\n');
        snprintf(text, size, ": %.200s", line != NULL ? line + 1 : start);
    }
    sl_buffer_free(&said);
}

static void verdict(int status, bool hung, double timeout, const char *folder, tp_report *r)
{
    char doing[sizeof r->doing], words[256];
    last_words(folder, words, sizeof words);
    memcpy(doing, r->doing, sizeof doing);
    doing[sizeof doing - 1] = '\0';
    if (hung) {
        r->verdict = TP_HUNG;
        snprintf(r->why, sizeof r->why, "not done after %g seconds (%s)", timeout, doing);
    } else if (WIFSIGNALED(status)) {
        r->verdict = TP_CRASHED;
        snprintf(r->why, sizeof r->why, "signal %d, %s (%s)%s", WTERMSIG(status), strsignal(WTERMSIG(status)), doing,
                 words);
    } else if (!r->finished) {
        r->verdict = TP_FAILED;
        snprintf(r->why, sizeof r->why, "ended the process with exit code %d (%s)%s", WEXITSTATUS(status), doing,
                 words);
    }
}

static double in_child(const tp_suite *suite, const tp_test *test, const char *class_id, tp_survey *survey,
                       tp_report *r)
{
    char folder[PATH_MAX];
    const double start = sl_clock();
    int status = 0;
    memset(r, 0, sizeof *r);
    snprintf(folder, sizeof folder, "%s/test", suite->folder);
    sl_folder_remove(folder);
    fflush(NULL);
    const pid_t child = mkdir(folder, 0700) == 0 ? fork() : -1;
    if (child < 0) {
        tp_fail(r, "no process for the test: %s", strerror(errno));
        return 0;
    }
    if (child == 0) {
        if (!enter(folder, suite->folder))
            _exit(125);
        if (test != NULL)
            run_test(suite, test, class_id, r);
        else
            look(suite, survey, r);
        r->finished = 1;
        _exit(0);
    }
    pid_t ended;
    for (long pause = 100000; (ended = waitpid(child, &status, WNOHANG)) == 0 || (ended < 0 && errno == EINTR);) {
        if (tp_interrupted || sl_clock() - start > suite->timeout) {
            kill(-child, SIGKILL);
            kill(child, SIGKILL);
            while (waitpid(child, &status, 0) < 0 && errno == EINTR)
                ;
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = pause}, NULL);
        pause = pause < 5000000 ? pause * 2 : pause;
    }
    kill(-child, SIGKILL); /* what it left behind */
    verdict(status, ended <= 0, suite->timeout, folder, r);
    return sl_clock() - start;
}

double tp_run(const tp_suite *suite, const tp_test *test, const char *class_id, tp_report *r)
{
    return in_child(suite, test, class_id, NULL, r);
}

bool tp_look(const tp_suite *suite, tp_survey *survey, tp_report *r)
{
    memset(survey, 0, sizeof *survey);
    in_child(suite, NULL, NULL, survey, r);
    return r->verdict < TP_FAILED && survey->count > 0;
}
