/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* sluice graph: a pipeline file drawn, for Graphviz or as SVG. */
#include "core/cli/cli.h"
#include "core/run/internal.h"
#include "tools/report/page.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "sluice graph FILE [--set KEY=VALUE …] [--format dot|svg] [--out FILE]\n\n"
    "Draws a pipeline file: its phases and stages, the records that go from stage to stage, and the versions of "
    "models\n"
    "that stages read and publish. Files and models need not exist.\n\n"
    "  --set KEY=VALUE   overrides a setting, as in `sluice run`\n"
    "  --format dot|svg  in Graphviz' language, or drawn (default: by the end of --out, otherwise dot)\n"
    "  --out FILE        writes a file instead of standard output\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage or mistakes in the file.\n\n"
    "Example:\n"
    "  sluice graph pipelines/cream.cfg --out cream.svg\n";

static int write_graph(const sl_command *command, const sl_plan *plan, bool svg, const char *out)
{
    char *text = NULL, error[SL_ERROR_SIZE] = "out of memory";
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    int rc = memory != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
    if (rc >= 0 && svg)
        rc = rp_draw_plan(memory, plan, true);
    else if (rc >= 0)
        sl_plan_graph(plan, memory);
    if (memory != NULL && (ferror(memory) | fclose(memory)) != 0)
        rc = SLUICE_NO_MEMORY;
    if (rc >= 0 && out != NULL)
        rc = sl_file_write(out, text, size, error);
    else if (rc >= 0 && (fwrite(text, 1, size, stdout) != size || fflush(stdout) != 0)) {
        snprintf(error, sizeof error, "writing to standard output failed: %s", strerror(errno));
        rc = SLUICE_IO;
    }
    free(text);
    return rc < 0 ? sl_fail(command, SL_EXIT_FAILED, "%s", error) : SL_EXIT_OK;
}

static int graph(const sl_command *command, const char *file, const sl_words *set, bool svg, const char *out)
{
    size_t mistakes = 0;
    sl_registry *registry = sl_registry_open();
    if (registry == NULL)
        return sl_fail(command, SL_EXIT_FAILED, "out of memory");
    sl_plan *plan = sl_plan_read(file, set->items, set->count, registry, stderr, false, &mistakes);
    const int code = plan != NULL ? write_graph(command, plan, svg, out) : SL_EXIT_USAGE;
    sl_plan_free(plan);
    sl_registry_close(registry);
    return code;
}

int main(int argc, char **argv)
{
    static const sl_command command = {"graph", "", help, NULL};
    sl_words set = {0}, files = {0};
    const char *format = NULL, *out = NULL;
    const sl_option options[] = {{.name = "set", .kind = SL_WORDS, .to = &set},
                                 {.name = "format", .kind = SL_WORD, .to = &format},
                                 {.name = "out", .kind = SL_WORD, .to = &out},
                                 {0}};
    int code = sl_options_read(&command, argc - 1, argv + 1, options, &files);
    if (code < 0 && files.count != 1)
        code = sl_usage(&command, "one pipeline file is wanted, %zu are given", files.count);
    if (code < 0 && out != NULL && out[0] == '\0')
        code = sl_usage(&command, "--out is empty; name a file");
    if (code < 0 && format == NULL) {
        const char *end = out != NULL ? strrchr(out, '.') : NULL;
        format = end != NULL && strcmp(end, ".svg") == 0 ? "svg" : "dot";
    }
    if (code < 0 && strcmp(format, "svg") != 0 && strcmp(format, "dot") != 0)
        code = sl_usage(&command, "there is no format '%s'; write dot or svg", format);
    if (code < 0)
        code = graph(&command, files.items[0], &set, strcmp(format, "svg") == 0, out);
    sl_words_free(&set);
    sl_words_free(&files);
    return code;
}
