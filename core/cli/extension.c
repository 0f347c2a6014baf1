/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Commands that are programs of their own: `sluice NAME` starts sluice-NAME from the folder of such programs. */
#include "core/cli/cli.h"
#include "core/base/program.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char prefix[] = "sluice-";
enum { PREFIX = sizeof prefix - 1 };

/* What our own say in the list of commands; others are listed by name. */
static const char *const summaries[][2] = {
    {"describe", "prints a class: what it does, its parameters"},
    {"dry-run", "sends one record through every stage and prints what each did to it"},
    {"graph", "draws a pipeline file, for Graphviz or as SVG"},
    {"new-plugin", "writes a small plugin that builds and passes its test, to begin with"},
    {"report", "writes a run, or several beside each other, as one HTML page"},
    {"store", "what finished stages left for other runs: ls, du, gc, rm"},
    {"test-plugin", "tests a plugin: parameters, records, cancelling, resuming, memory, and more"},
    {"sweep", "runs an ablation: all variants of a file with all its seeds, and a table"},
    {"trace", "writes when each stage of a run worked, for a trace viewer"}};

/* Started by sluice itself, not by people. */
static bool is_internal(const char *name)
{
    return strcmp(name, "try") == 0 || strcmp(name, "stage") == 0;
}

static int is_program(const struct dirent *entry)
{
    char path[PATH_MAX];
    return strncmp(entry->d_name, prefix, PREFIX) == 0 && !is_internal(entry->d_name + PREFIX) &&
           strchr(entry->d_name, '.') == NULL && sl_program_find(entry->d_name + PREFIX, path);
}

static const char *summary_of(const char *name)
{
    for (size_t i = 0; i < sizeof summaries / sizeof *summaries; i++)
        if (strcmp(summaries[i][0], name) == 0)
            return summaries[i][1];
    return "a program of its own: see its --help";
}

void sl_extensions_visit(void (*visit)(void *context, const char *name, const char *summary), void *context)
{
    char folder[PATH_MAX];
    struct dirent **entries;
    sl_program_folder(folder);
    const int count = scandir(folder, &entries, is_program, alphasort);
    for (int i = 0; i < count; i++) {
        visit(context, entries[i]->d_name + PREFIX, summary_of(entries[i]->d_name + PREFIX));
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

int sl_extension_run(const char *name, int argc, char **argv, bool help)
{
    char path[PATH_MAX], flag[] = "--help";
    if (name[0] == '\0' || strchr(name, '/') != NULL || is_internal(name) || !sl_program_find(name, path))
        return -1;
    char **words = calloc((size_t)argc + 3, sizeof *words);
    if (words == NULL) {
        fputs("sluice: out of memory\n", stderr);
        return SL_EXIT_FAILED;
    }
    words[0] = path;
    memcpy(words + 1, argv, (size_t)argc * sizeof *words);
    if (help)
        words[argc + 1] = flag;
    execv(path, words);
    fprintf(stderr, "sluice: %s cannot be started: %s\n", path, strerror(errno));
    free(words);
    return SL_EXIT_FAILED;
}
