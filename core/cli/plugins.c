/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* `plugins`: what is installed. */
#include "core/cli/cli.h"
#include "core/registry/trial.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char plugins_help[] =
    "sluice plugins [--retry]\n\n"
    "Lists the classes that are installed, from which file, and the plugins that were refused with the reason.\n"
    "They are looked for in the folders of SLUICE_PLUGIN_PATH (colon-separated, absolute), in\n"
    "~/.local/share/sluice/plugins, and in sluice's own folder. A plugin that was never seen before is first loaded\n"
    "in a process of its own; one that crashes or hangs there is set aside until its file changes.\n\n"
    "  --retry  tries those set aside once more\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage.\n\n"
    "Example:\n"
    "  SLUICE_PLUGIN_PATH=$PWD sluice plugins\n";

static int by_kind(const void *a, const void *b)
{
    const sluice_class *x = (*(const sl_registered *const *)a)->type, *y = (*(const sl_registered *const *)b)->type;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    return strcmp(x->id, y->id);
}

static void list(const sl_registry *registry, const sl_registered **sorted, size_t count)
{
    int widths[3] = {2, 4, 7};
    for (size_t i = 0; i < count; i++) {
        const char *cells[] = {sorted[i]->type->id, sl_kind_name(sorted[i]->type->kind), sorted[i]->plugin->version};
        for (int c = 0; c < 3; c++)
            widths[c] = (int)strlen(cells[c]) > widths[c] ? (int)strlen(cells[c]) : widths[c];
    }
    if (count == 0)
        puts("No plugins were found: `make install` puts sluice's own into place, SLUICE_PLUGIN_PATH names other "
             "folders.");
    else
        printf("%-*s  %-*s  %-*s  file\n", widths[0], "id", widths[1], "kind", widths[2], "version");
    for (size_t i = 0; i < count; i++)
        printf("%-*s  %-*s  %-*s  %s\n", widths[0], sorted[i]->type->id, widths[1], sl_kind_name(sorted[i]->type->kind),
               widths[2], sorted[i]->plugin->version, sorted[i]->file);
    const sl_refused *refused;
    const size_t refusals = sl_registry_refused(registry, &refused);
    for (size_t i = 0; i < refusals; i++)
        printf("%srefused: %s: %s\n", i ? "" : "\n", refused[i].file, refused[i].why);
}

static int command_plugins(const sl_command *command, int argc, char **argv)
{
    sl_words rest = {0};
    bool retry = false;
    const sl_option options[] = {{.name = "retry", .kind = SL_FLAG, .to = &retry}, {0}};
    int code = sl_options_read(command, argc, argv, options, &rest);
    if (code < 0 && rest.count > 0)
        code = sl_usage(command, "'%s' is not wanted", rest.items[0]);
    sl_words_free(&rest);
    if (code < 0 && retry && sl_trials_forget() < 0)
        code = sl_fail(command, SL_EXIT_FAILED, "the list of plugins set aside cannot be written: %s", strerror(errno));
    if (code >= 0)
        return code;
    sl_registry *registry = sl_registry_open();
    const size_t count = registry ? sl_registry_count(registry) : 0;
    const sl_registered **sorted = malloc((count + 1) * sizeof *sorted);
    if (!registry || !sorted) {
        code = sl_fail(command, SL_EXIT_FAILED, "out of memory");
    } else {
        for (size_t i = 0; i < count; i++)
            sorted[i] = sl_registry_at(registry, i);
        qsort(sorted, count, sizeof *sorted, by_kind);
        list(registry, sorted, count);
        code = SL_EXIT_OK;
    }
    free(sorted);
    sl_registry_close(registry);
    return code;
}

const sl_command sl_command_plugins = {"plugins", "lists what is installed, and what was refused and why", plugins_help,
                                       command_plugins};
