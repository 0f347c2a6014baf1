/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/cli/cli.h"
#include "core/base/near.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const sl_command *const commands[] = {&sl_command_run,    &sl_command_check,  &sl_command_plugins,
                                             &sl_command_cat,    &sl_command_doctor, &sl_command_recover,
                                             &sl_command_sample, &sl_command_score,  &sl_command_average,
                                             &sl_command_export, &sl_command_env};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_extension(void *context, const char *name, const char *summary)
{
    (void)context;
    printf("  %-12s %s\n", name, summary);
}

struct suggestion {
    sl_near near;
    char name[64]; /* of an extension: names are borrowed for the visit */
};

static void offer_extension(void *context, const char *name, const char *summary)
{
    struct suggestion *s = context;
    (void)summary;
    sl_near_offer(&s->near, name);
    if (s->near.best != name)
        return;
    snprintf(s->name, sizeof s->name, "%s", name);
    s->near.best = s->name;
}

static int help(void)
{
    puts("sluice runs pipelines that align language models: sample, judge, rank, regularize, train.\n\n"
         "  sluice COMMAND [OPTIONS]           sluice COMMAND --help\n");
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %-12s %s\n", commands[i]->name, commands[i]->summary);
    sl_extensions_visit(print_extension, NULL);
    puts("\nExit codes: 0 done, 1 failed, 2 wrong usage or a mistake in a pipeline file, 3 wrong or damaged data,\n"
         "130 stopped by Ctrl-C.\n\n"
         "Example:\n"
         "  sluice run pipelines/quickstart.cfg\n"
         "  sluice run pipelines/cream.cfg --set models.policy.path=DIR --set phases.align.repeat=1");
    return SL_EXIT_OK;
}

static int unknown(const char *name)
{
    struct suggestion found = {.near = {.wanted = name}};
    for (size_t i = 0; i < COMMANDS; i++)
        sl_near_offer(&found.near, commands[i]->name);
    sl_extensions_visit(offer_extension, &found);
    fprintf(stderr, "sluice: there is no command '%s'", name);
    if (found.near.best)
        fprintf(stderr, "; did you mean '%s'?\n", found.near.best);
    else
        fputs("; see sluice --help\n", stderr);
    return SL_EXIT_USAGE;
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        help();
        return SL_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("sluice " SLUICE_VERSION);
        return SL_EXIT_OK;
    }
    const bool asked = strcmp(argv[1], "help") == 0;
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || (asked && argc == 2))
        return help();
    const char *name = argv[asked ? 2 : 1];
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i]->name, name) != 0)
            continue;
        if (!asked)
            return commands[i]->run(commands[i], argc - 2, argv + 2);
        fputs(commands[i]->help, stdout);
        return SL_EXIT_OK;
    }
    const int code = sl_extension_run(name, asked ? 0 : argc - 2, argv + 2, asked);
    return code >= 0 ? code : unknown(name);
}

/* Where standard input, output or error is closed, the next file opened would take its number, and what is meant for
 * the terminal would go into a stream. */
static void fill_standard_files(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    fill_standard_files();
    const int code = dispatch(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "sluice: writing to standard output failed: %s\n", strerror(errno));
        return code == SL_EXIT_OK ? SL_EXIT_FAILED : code;
    }
    return code;
}
