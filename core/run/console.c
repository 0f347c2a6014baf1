/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/run/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

double sl_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void sl_time_now(char *text)
{
    struct timespec t;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &utc);
    const size_t n = strftime(text, SL_TIME_SIZE, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + n, SL_TIME_SIZE - n, ".%03dZ", (int)(t.tv_nsec / 1000000));
}

void sl_console_init(sl_console *console, FILE *terminal)
{
    memset(console, 0, sizeof *console);
    pthread_mutex_init(&console->lock, NULL);
    console->terminal = terminal;
    console->prefix = "sluice: ";
    const char *kind = getenv("TERM");
    console->live = terminal != NULL && isatty(fileno(terminal)) && kind != NULL && strcmp(kind, "dumb") != 0;
}

size_t sl_console_width(const sl_console *console)
{
    struct winsize size;
    if (console->terminal != NULL && ioctl(fileno(console->terminal), TIOCGWINSZ, &size) == 0 && size.ws_col > 20)
        return size.ws_col - 1u;
    return 79;
}

int sl_console_open(sl_console *console, const char *path, char *error)
{
    console->file = fopen(path, "ae");
    if (console->file != NULL)
        return SLUICE_OK;
    snprintf(error, SL_ERROR_SIZE, "cannot write %s: %s", path, strerror(errno));
    return SLUICE_IO;
}

/* The foot is wiped before a line is written and stands again after it. */
static void wipe(sl_console *console)
{
    if (console->drawn > 0)
        fprintf(console->terminal, "\033[%zuA\033[J", console->drawn);
    console->drawn = 0;
}

static void stand(sl_console *console)
{
    if (console->foot == NULL)
        return;
    for (const char *c = console->foot; *c != '\0'; c++)
        console->drawn += *c == '\n';
    fputs(console->foot, console->terminal);
}

static void write_line(sl_console *console, const char *prefix, const char *line, bool shown)
{
    char now[SL_TIME_SIZE];
    sl_time_now(now);
    pthread_mutex_lock(&console->lock);
    if (console->file != NULL) {
        fprintf(console->file, "%s %s\n", now, line);
        fflush(console->file);
    }
    if (shown && console->terminal != NULL) {
        wipe(console);
        fprintf(console->terminal, "%s%s\n", prefix, line);
        stand(console);
        fflush(console->terminal);
    }
    pthread_mutex_unlock(&console->lock);
}

void sl_console_line(sl_console *console, int level, const char *format, ...)
{
    char line[2 * SL_ERROR_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    write_line(console, console->prefix, line, level >= SLUICE_LOG_WARNING);
}

void sl_console_say(sl_console *console, const char *format, ...)
{
    char line[2 * SL_ERROR_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    write_line(console, "", line, true);
}

void sl_console_draw(sl_console *console, const char *lines)
{
    pthread_mutex_lock(&console->lock);
    free(console->foot);
    console->foot = lines != NULL && lines[0] != '\0' ? strdup(lines) : NULL;
    if (console->terminal != NULL) {
        wipe(console);
        stand(console);
        fflush(console->terminal);
    }
    pthread_mutex_unlock(&console->lock);
}

void sl_console_close(sl_console *console)
{
    sl_console_draw(console, NULL);
    if (console->file != NULL)
        fclose(console->file);
    console->file = NULL;
    pthread_mutex_destroy(&console->lock);
}
