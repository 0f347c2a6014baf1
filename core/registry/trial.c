/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/registry/trial.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/file.h"
#include "core/base/program.h"

extern char **environ;

/* The cache's first line; another version's verdicts are not taken over. */
#define HEAD "sluice plugin trials 1, sluice " SLUICE_VERSION "\n"

/* Verdicts kept; beyond that the oldest are dropped. */
enum { MOST_VERDICTS = 4096 };

typedef struct verdict {
    uint64_t hash[2];
    int64_t when;  /* seconds since 1970 */
    char said[64]; /* "ok", or what happened */
} verdict;

struct sl_trials {
    char path[PATH_MAX];    /* of the cache; empty = none */
    char program[PATH_MAX]; /* that makes the trial; empty = none, everything passes */
    verdict *items;
    size_t count, room;
    bool changed;
};

/* --- the cache ------------------------------------------------------------------------------------------------------
 */

static bool cache_path(char path[PATH_MAX])
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length = -1;
    if (cache && cache[0] == '/')
        length = snprintf(path, PATH_MAX, "%s/sluice/plugins", cache);
    else if (home && home[0] == '/')
        length = snprintf(path, PATH_MAX, "%s/.cache/sluice/plugins", home);
    if (length > 0 && length < PATH_MAX)
        return true;
    path[0] = '\0';
    return false;
}

static verdict *add(sl_trials *t)
{
    verdict *items = sl_items_grow(t->items, t->count, &t->room, sizeof *items);
    if (!items)
        return NULL;
    t->items = items;
    return &t->items[t->count++];
}

/* Lines that make no sense are passed over: a damaged cache costs trials, nothing else. */
static void read_cache(sl_trials *t)
{
    FILE *in = t->path[0] ? fopen(t->path, "re") : NULL;
    char line[256];
    if (in && fgets(line, sizeof line, in) && strcmp(line, HEAD) == 0)
        while (t->count < MOST_VERDICTS && fgets(line, sizeof line, in)) {
            verdict v;
            int at = 0;
            if (sscanf(line, "%16" SCNx64 "%16" SCNx64 " %" SCNd64 " %n", &v.hash[0], &v.hash[1], &v.when, &at) != 3 ||
                at == 0)
                continue;
            line[strcspn(line, "\n")] = '\0';
            snprintf(v.said, sizeof v.said, "%.63s", line + at);
            verdict *kept = v.said[0] ? add(t) : NULL;
            if (kept)
                *kept = v;
        }
    if (in)
        fclose(in);
}

static bool make_parents(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        const bool made = mkdir(path, 0700) == 0 || errno == EEXIST;
        *slash = '/';
        if (!made)
            return false;
    }
    return true;
}

/* Whole under its name or not at all; two programs at once cost one of them its new verdicts. */
static int write_cache(sl_trials *t)
{
    char hidden[PATH_MAX + 32];
    snprintf(hidden, sizeof hidden, "%s.tmp-%ld", t->path, (long)getpid());
    if (!t->path[0] || !make_parents(t->path))
        return -1;
    FILE *out = fopen(hidden, "we");
    if (!out)
        return -1;
    fputs(HEAD, out);
    for (size_t i = t->count > MOST_VERDICTS ? t->count - MOST_VERDICTS : 0; i < t->count; i++)
        fprintf(out, "%016" PRIx64 "%016" PRIx64 " %" PRId64 " %s\n", t->items[i].hash[0], t->items[i].hash[1],
                t->items[i].when, t->items[i].said);
    const bool whole = !ferror(out);
    if (fclose(out) == 0 && whole && rename(hidden, t->path) == 0)
        return 0;
    unlink(hidden);
    return -1;
}

/* --- the trial ------------------------------------------------------------------------------------------------------
 */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double patience(void)
{
    const char *text = getenv("SLUICE_PLUGIN_TIMEOUT");
    const double seconds = text ? strtod(text, NULL) : 0;
    return seconds > 0 && seconds < 3600 ? seconds : 10;
}

/* Waits for the child's end; kills it when it takes too long. */
static void wait_for(pid_t child, char *said, size_t size)
{
    const double until = now() + patience();
    int status = 0;
    pid_t ended;
    for (long pause = 200000; (ended = waitpid(child, &status, WNOHANG)) == 0 || (ended < 0 && errno == EINTR);) {
        if (now() > until) {
            kill(child, SIGKILL);
            while (waitpid(child, &status, 0) < 0 && errno == EINTR)
                ;
            snprintf(said, size, "hung for %g seconds", patience());
            return;
        }
        nanosleep(&(struct timespec){.tv_nsec = pause}, NULL);
        pause = pause < 20000000 ? pause * 2 : pause;
    }
    if (ended > 0 && WIFSIGNALED(status))
        snprintf(said, size, "crashed: signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else if (ended > 0 && WEXITSTATUS(status) != 0)
        snprintf(said, size, "ended the process with exit code %d", WEXITSTATUS(status));
    else
        snprintf(said, size,
                 "ok"); /* or the child was reaped by somebody else's handler: nothing is known against it */
}

/* False when no trial could be made. */
static bool try_out(const sl_trials *t, const char *file, char *said, size_t size)
{
    posix_spawn_file_actions_t actions;
    pid_t child;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return false;
    bool made = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0) == 0 &&
                posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0) == 0 &&
                posix_spawn_file_actions_adddup2(&actions, 1, 2) == 0;
    char *const argv[] = {(char *)t->program, (char *)file, NULL};
    made = made && posix_spawn(&child, t->program, &actions, NULL, argv, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    if (made)
        wait_for(child, said, size);
    return made;
}

bool sl_trial_passes(sl_trials *t, const char *file, const uint64_t hash[2], sl_why *why)
{
    const verdict *v = NULL;
    for (size_t i = 0; i < t->count && !v; i++)
        if (memcmp(t->items[i].hash, hash, sizeof t->items[i].hash) == 0)
            v = &t->items[i];
    if (!v) {
        verdict made = {.hash = {hash[0], hash[1]}, .when = (int64_t)time(NULL)};
        if (!t->program[0] || !try_out(t, file, made.said, sizeof made.said))
            return true;
        verdict *kept = add(t);
        if (!kept)
            return true;
        *kept = made;
        t->changed = true;
        v = kept;
    }
    if (strcmp(v->said, "ok") == 0)
        return true;
    char when[32] = "";
    struct tm utc;
    if (gmtime_r(&(time_t){(time_t)v->when}, &utc))
        strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    snprintf(
        why->text, sizeof why->text,
        "set aside, because it %s when it was first loaded (%s); mend it and build it again, or try this one again "
        "with sluice plugins --retry",
        v->said, when);
    return false;
}

/* --- opening and closing --------------------------------------------------------------------------------------------
 */

sl_trials *sl_trials_open(void)
{
    sl_trials *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    cache_path(t->path);
    if (!sl_program_find("try", t->program))
        t->program[0] = '\0';
    read_cache(t);
    return t;
}

void sl_trials_close(sl_trials *t)
{
    if (!t)
        return;
    if (t->changed)
        write_cache(t);
    free(t->items);
    free(t);
}

int sl_trials_forget(void)
{
    sl_trials *t = sl_trials_open();
    if (!t) {
        errno = ENOMEM;
        return SLUICE_NO_MEMORY;
    }
    size_t kept = 0;
    for (size_t i = 0; i < t->count; i++)
        if (strcmp(t->items[i].said, "ok") == 0)
            t->items[kept++] = t->items[i];
    const int forgotten = (int)(t->count - kept);
    t->count = kept;
    const int rc = forgotten > 0 ? write_cache(t) : 0;
    const int problem = errno;
    sl_trials_close(t);
    errno = problem;
    return rc < 0 ? SLUICE_IO : forgotten;
}
