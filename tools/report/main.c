/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* sluice report: what a run left in its folder, as one HTML file. */
#include "core/cli/cli.h"
#include "core/run/internal.h"
#include "tools/report/page.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "sluice report RUN… [--out FILE.html] [--title TEXT]\n\n"
    "Writes what a run left in its folder as one HTML file that needs nothing else: results, curves, sample texts\n"
    "before and after, the pipeline, time, environment. Also of a run that goes on or was stopped. Of several runs "
    "one\n"
    "page beside each other: those that differ in the seed alone are one variant, with its mean and 95 % interval.\n\n"
    "  --out FILE    the file (default: report.html in the run's folder; of several, comparison.html here, and each\n"
    "                run's own in its folder)\n"
    "  --title TEXT  the page's heading (default: the pipeline's name)\n\n"
    "Exit codes: 0 done, 1 failed (no such folder, no run's folder, cannot write), 2 wrong usage.\n\n"
    "Example:\n"
    "  sluice report runs/quickstart\n"
    "  sluice report runs/cream-*  --out cream.html --title \"CREAM, five seeds\"\n";

/* Writes a whole page or none. */
static int write_page(const sl_command *command, const char *path, rp_run *const *runs, size_t count, const char *title)
{
    char *text = NULL, error[SL_ERROR_SIZE];
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    int rc = memory != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
    if (rc >= 0 && count == 1)
        rp_write_run(memory, runs[0], title);
    else if (rc >= 0)
        rc = rp_write_comparison(memory, runs, count, title);
    if (memory != NULL && (ferror(memory) || fclose(memory) != 0))
        rc = SLUICE_NO_MEMORY;
    snprintf(error, sizeof error, "out of memory");
    if (rc >= 0)
        rc = sl_file_write(path, text, size, error);
    free(text);
    if (rc < 0)
        return sl_fail(command, SL_EXIT_FAILED, "%s", error);
    printf("%s\n", path);
    return SL_EXIT_OK;
}

static int write_own(const sl_command *command, rp_run *run, const char *title)
{
    char *path = sl_arena_printf(run->arena, "%s/report.html", run->folder);
    return path != NULL ? write_page(command, path, &run, 1, title) : sl_fail(command, SL_EXIT_FAILED, "out of memory");
}

static int report(const sl_command *command, const sl_words *folders, const char *out, const char *title)
{
    char error[SL_ERROR_SIZE];
    int code = -1;
    sl_registry *registry = sl_registry_open();
    rp_run **runs = calloc(folders->count, sizeof *runs);
    if (registry == NULL || runs == NULL)
        code = sl_fail(command, SL_EXIT_FAILED, "out of memory");
    for (size_t i = 0; code < 0 && i < folders->count; i++) {
        runs[i] = rp_run_open(folders->items[i], registry, error);
        if (runs[i] == NULL)
            code = sl_fail(command, SL_EXIT_FAILED, "%s", error);
    }
    if (code < 0 && folders->count == 1) {
        code = out != NULL ? write_page(command, out, runs, 1, title) : write_own(command, runs[0], title);
    } else if (code < 0) {
        for (size_t i = 0; code <= 0 && i < folders->count; i++)
            code = write_own(command, runs[i], NULL);
        if (code == SL_EXIT_OK)
            code = write_page(command, out != NULL ? out : "comparison.html", runs, folders->count, title);
    }
    for (size_t i = 0; runs != NULL && i < folders->count; i++)
        rp_run_close(runs[i]);
    free(runs);
    sl_registry_close(registry);
    return code;
}

int main(int argc, char **argv)
{
    static const sl_command command = {"report", "", help, NULL};
    sl_words folders = {0};
    const char *out = NULL, *title = NULL;
    const sl_option options[] = {
        {.name = "out", .kind = SL_WORD, .to = &out}, {.name = "title", .kind = SL_WORD, .to = &title}, {0}};
    int code = sl_options_read(&command, argc - 1, argv + 1, options, &folders);
    if (code < 0 && folders.count == 0)
        code = sl_usage(&command, "name the folder of a run");
    if (code < 0 && out != NULL && out[0] == '\0')
        code = sl_usage(&command, "--out is empty; name a file");
    if (code < 0)
        code = report(&command, &folders, out, title);
    sl_words_free(&folders);
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == SL_EXIT_OK)
        code = sl_fail(&command, SL_EXIT_FAILED, "writing to standard output failed: %s", strerror(errno));
    return code;
}
