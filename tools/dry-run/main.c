/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/run/run.h"
#include "tools/dry-run/dry.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const char help[] =
    "sluice dry-run FILE [--set KEY=VALUE …] [--records N] [-j N]\n\n"
    "Sends one record through every stage and prints after each what it added or changed, and the numbers that the\n"
    "stage reported. Stages, models and programs are the real ones; phases run once, trainers see each example once.\n"
    "Where the record makes no pair to train on, more are taken (4, 16, … 256) and the one that came farthest is "
    "shown.\n"
    "All of it happens in a temporary folder, sinks' files included.\n\n"
    "  --set KEY=VALUE  overrides a setting, as in `sluice run`\n"
    "  --records N      how many records each source gives (1, and more where they are needed)\n"
    "  -j, --threads N  threads of the model runtime\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage or a mistake in the file, 3 wrong or damaged data, 130 stopped.\n\n"
    "Example:\n"
    "  sluice dry-run pipelines/cream.cfg --set models.policy.path=DIR\n";

enum { MOST_RECORDS = 256 };

typedef struct dry {
    const sl_command *command;
    const char *file;
    sl_registry *registry;
    sl_arena *arena;
    char folder[PATH_MAX];
    const char **settings;
    size_t count, capacity;
} dry;

static bool add(dry *d, const char *setting)
{
    if (setting == NULL || d->count == d->capacity)
        return false;
    d->settings[d->count++] = setting;
    return true;
}

static bool has_param(const sl_stage *stage, const char *name)
{
    return sl_stage_value(stage, name) != NULL;
}

/* A sink writes into the temporary folder, and whoever reads that file later reads it there. */
static bool move_file(dry *d, const sl_plan *plan, const sl_stage *sink, const sl_value *file)
{
    const char *slash = strrchr(file->text, '/');
    const char *moved =
        sl_arena_printf(d->arena, "%s/%s-%s", d->folder, sink->name, slash != NULL ? slash + 1 : file->text);
    char error[SL_ERROR_SIZE];
    bool fine = moved != NULL && sl_file_write(moved, "", 0, error) >= 0; /* a reader's file must be there */
    for (size_t p = 0; fine && p < plan->phase_count; p++)
        for (size_t s = 0; fine && s < plan->phases[p].stage_count; s++) {
            const sl_stage *stage = &plan->phases[p].stages[s];
            for (size_t v = 0; fine && v < stage->object.value_count; v++) {
                const sl_value *value = &stage->object.values[v];
                if (value->param->type == SLUICE_TYPE_FILE && value->text != NULL &&
                    strcmp(value->text, file->text) == 0)
                    fine = add(d, sl_arena_printf(d->arena, "%s.%s=%s", stage->name, value->param->name, moved));
            }
        }
    return fine;
}

/* What makes the plan small and harmless. */
static bool shrink(dry *d, const sl_plan *plan)
{
    bool fine = true;
    for (size_t p = 0; fine && p < plan->phase_count; p++)
        for (size_t s = 0; fine && s < plan->phases[p].stage_count; s++) {
            const sl_stage *stage = &plan->phases[p].stages[s];
            const uint32_t kind = stage->object.type->type->kind;
            if (stage->in_memory) /* to be shown, it must be there */
                fine = add(d, sl_arena_printf(d->arena, "%s.in_memory=false", stage->name));
            if (fine && kind == SLUICE_TRAINER && has_param(stage, "epochs"))
                fine = add(d, sl_arena_printf(d->arena, "%s.epochs=1", stage->name));
            for (size_t v = 0; fine && kind == SLUICE_SINK && v < stage->object.value_count; v++)
                if (stage->object.values[v].param->type == SLUICE_TYPE_FILE && stage->object.values[v].text != NULL)
                    fine = move_file(d, plan, stage, &stage->object.values[v]);
        }
    return fine;
}

/* Each phase once; a file whose later phases name versions by number keeps its repeats. */
static sl_plan *read_small(dry *d, const sl_plan *plan)
{
    const size_t before = d->count;
    size_t mistakes;
    FILE *nowhere = fopen("/dev/null", "we");
    bool fine = nowhere != NULL;
    for (size_t p = 0; fine && p < plan->phase_count; p++)
        fine = add(d, sl_arena_printf(d->arena, "phases.%s.repeat=1", plan->phases[p].name));
    sl_plan *small = fine ? sl_plan_read(d->file, d->settings, d->count, d->registry, nowhere, true, &mistakes) : NULL;
    if (small == NULL && fine) {
        d->count = before;
        small = sl_plan_read(d->file, d->settings, d->count, d->registry, stderr, true, &mistakes);
    }
    if (nowhere != NULL)
        fclose(nowhere);
    return small;
}

static void print_words(FILE *said, bool failed, FILE *out)
{
    char line[SL_ERROR_SIZE];
    rewind(said);
    if (failed)
        fputc('\n', out);
    while (fgets(line, sizeof line, said) != NULL)
        fputs(line, out);
}

/* Would more records help? */
static bool wants_more(FILE *said)
{
    static const char *const signs[] = {"got no records", "reached the trainer", "no record has scores"};
    char line[SL_ERROR_SIZE];
    rewind(said);
    while (fgets(line, sizeof line, said) != NULL)
        for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
            if (strstr(line, signs[i]) != NULL)
                return true;
    return false;
}

/* In a process of its own, as a run is one a process, and what it says is told only when it is the last try. */
static int run_once(const dry *d, const sl_plan *plan, int64_t records, const char *folder, FILE *said)
{
    int status;
    const pid_t parent = getpid();
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(SL_RUN_STOPPED);
        dup2(fileno(said), 2);
        const sl_run_options options = {.out = folder, .store = "off", .records = records, .quiet = true};
        const int code = sl_run(plan, d->registry, &options);
        fflush(stderr);
        _exit(code);
    }
    if (child < 0)
        return SL_RUN_FAILED;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : SL_RUN_FAILED;
}

static int run_and_show(const dry *d, const sl_plan *plan, int64_t records)
{
    const bool given = records > 0;
    for (int64_t most = given ? records : 1;; most *= 4) {
        const char *folder = sl_arena_printf(d->arena, "%s/run-%lld", d->folder, (long long)most);
        FILE *said = folder != NULL ? tmpfile() : NULL;
        if (said == NULL)
            return sl_fail(d->command, SL_EXIT_FAILED, "no temporary file can be made");
        const int code = run_once(d, plan, most, folder, said);
        if (code != SL_RUN_DONE && code != SL_RUN_STOPPED && !given && most < MOST_RECORDS && wants_more(said)) {
            fclose(said);
            continue;
        }
        printf("%lld record%s from each source\n", (long long)most, most == 1 ? "" : "s");
        if (dr_show(plan, folder, stdout) < 0)
            fprintf(stderr, "sluice %s: out of memory\n", d->command->name);
        fflush(stdout);
        print_words(said, code != SL_RUN_DONE, stderr);
        fclose(said);
        return code;
    }
}

static int dry_run(dry *d, const sl_words *set, const char *threads, int64_t records)
{
    size_t mistakes;
    d->registry = sl_registry_open();
    d->arena = sl_arena_new();
    d->capacity = set->count + 4096;
    d->settings = d->arena != NULL ? sl_arena_alloc(d->arena, d->capacity * sizeof *d->settings) : NULL;
    if (d->registry == NULL || d->settings == NULL)
        return sl_fail(d->command, SL_EXIT_FAILED, "out of memory");
    for (size_t i = 0; i < set->count; i++)
        d->settings[d->count++] = set->items[i];
    if (threads != NULL)
        d->settings[d->count++] = threads;
    sl_plan *plan = sl_plan_read(d->file, d->settings, d->count, d->registry, stderr, true, &mistakes);
    if (plan == NULL)
        return SL_EXIT_USAGE;
    const char *place = getenv("TMPDIR");
    snprintf(d->folder, sizeof d->folder, "%.*s/sluice-dry-XXXXXX", PATH_MAX - 64,
             place != NULL && place[0] != '\0' ? place : "/tmp");
    int code = -1;
    if (mkdtemp(d->folder) == NULL) {
        code = sl_fail(d->command, SL_EXIT_FAILED, "cannot make %.200s: %s", d->folder, strerror(errno));
    } else {
        sl_plan *small = shrink(d, plan) ? read_small(d, plan) : NULL;
        code = small != NULL ? run_and_show(d, small, records)
                             : sl_fail(d->command, SL_EXIT_FAILED, "the file cannot be made smaller");
        sl_plan_free(small);
        sl_folder_remove(d->folder);
    }
    sl_plan_free(plan);
    return code;
}

int main(int argc, char **argv)
{
    static const sl_command command = {"dry-run", "", help, NULL};
    dry d = {.command = &command};
    sl_words set = {0}, files = {0};
    int64_t records = 0, threads = 0;
    char setting[64];
    const sl_option options[] = {{.name = "set", .kind = SL_WORDS, .to = &set},
                                 {"records", 0, SL_OPTION_INTEGER, &records, 1, 1 << 20},
                                 {"threads", 'j', SL_OPTION_INTEGER, &threads, 1, 4096},
                                 {0}};
    int code = sl_options_read(&command, argc - 1, argv + 1, options, &files);
    if (code < 0 && files.count != 1)
        code = sl_usage(&command, "one pipeline file is wanted, %zu are given", files.count);
    snprintf(setting, sizeof setting, "runtime.threads=%lld", (long long)threads);
    if (code < 0) {
        d.file = files.items[0];
        /* A signal ends the run in its process; this one stays to clear up. */
        signal(SIGINT, SIG_IGN);
        signal(SIGTERM, SIG_IGN);
        code = dry_run(&d, &set, threads > 0 ? setting : NULL, records);
    }
    sl_registry_close(d.registry);
    sl_arena_free(d.arena);
    sl_words_free(&set);
    sl_words_free(&files);
    return code;
}
