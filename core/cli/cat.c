/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/cli/cli.h"
#include "core/stream/cat.h"

#include <unistd.h>

static const char help[] = "sluice cat STREAM [--limit N] [--follow]\n\n"
                           "Prints the records of a stream as lines of JSON. A damaged or unfinished stream is printed "
                           "as far as it is whole.\n\n"
                           "  --limit N  at most N records\n"
                           "  --follow   waits for more records of a stream that is being written\n\n"
                           "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the stream is damaged.\n\n"
                           "Example:\n"
                           "  sluice cat runs/cream/streams/align-1/trust.zst --limit 1\n";

static int command_cat(const sl_command *command, int argc, char **argv)
{
    sl_words rest = {0};
    int64_t limit = -1;
    bool follow = false;
    const sl_option options[] = {
        {"limit", 0, SL_OPTION_INTEGER, &limit, 0, 1e15}, {.name = "follow", .kind = SL_FLAG, .to = &follow}, {0}};
    int code = sl_options_read(command, argc, argv, options, &rest);
    if (code < 0 && rest.count != 1)
        code = sl_usage(command, "one stream is wanted, %zu are given", rest.count);
    if (code < 0) {
        char error[512];
        const int rc = sl_cat(rest.items[0], limit, follow, stdout, error, sizeof error);
        const bool there = access(rest.items[0], F_OK) == 0;
        code = rc < 0 ? sl_fail(command, sl_exit_of(rc), "%s%s", error,
                                there ? "" : "; streams lie in RUN/streams/PHASE-ITERATION/")
                      : SL_EXIT_OK;
    }
    sl_words_free(&rest);
    return code;
}

const sl_command sl_command_cat = {"cat", "prints the records of a stream as lines of JSON", help, command_cat};
