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

void sl_log_init(sl_log *log, FILE *terminal)
{
    memset(log, 0, sizeof *log);
    pthread_mutex_init(&log->lock, NULL);
    log->terminal = terminal;
    log->prefix = "sluice: ";
    const char *kind = getenv("TERM");
    log->live = terminal != NULL && isatty(fileno(terminal)) && kind != NULL && strcmp(kind, "dumb") != 0;
}

size_t sl_log_width(const sl_log *log)
{
    struct winsize size;
    if (log->terminal != NULL && ioctl(fileno(log->terminal), TIOCGWINSZ, &size) == 0 && size.ws_col > 20)
        return size.ws_col - 1u;
    return 79;
}

int sl_log_open(sl_log *log, const char *path, char *error)
{
    log->file = fopen(path, "ae");
    if (log->file != NULL)
        return SLUICE_OK;
    snprintf(error, SL_ERROR_SIZE, "cannot write %s: %s", path, strerror(errno));
    return SLUICE_IO;
}

/* The foot is wiped before a line is written and stands again after it. */
static void wipe(sl_log *log)
{
    if (log->drawn > 0)
        fprintf(log->terminal, "\033[%zuA\033[J", log->drawn);
    log->drawn = 0;
}

static void stand(sl_log *log)
{
    if (log->foot == NULL)
        return;
    for (const char *c = log->foot; *c != '\0'; c++)
        log->drawn += *c == '\n';
    fputs(log->foot, log->terminal);
}

static void write_line(sl_log *log, const char *prefix, const char *line, bool shown)
{
    char now[SL_TIME_SIZE];
    sl_time_now(now);
    pthread_mutex_lock(&log->lock);
    if (log->file != NULL) {
        fprintf(log->file, "%s %s\n", now, line);
        fflush(log->file);
    }
    if (shown && log->terminal != NULL) {
        wipe(log);
        fprintf(log->terminal, "%s%s\n", prefix, line);
        stand(log);
        fflush(log->terminal);
    }
    pthread_mutex_unlock(&log->lock);
}

void sl_log_line(sl_log *log, int level, const char *format, ...)
{
    char line[2 * SL_ERROR_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    write_line(log, log->prefix, line, level >= SLUICE_LOG_WARNING);
}

void sl_log_say(sl_log *log, const char *format, ...)
{
    char line[2 * SL_ERROR_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    write_line(log, "", line, true);
}

void sl_log_draw(sl_log *log, const char *lines)
{
    pthread_mutex_lock(&log->lock);
    free(log->foot);
    log->foot = lines != NULL && lines[0] != '\0' ? strdup(lines) : NULL;
    if (log->terminal != NULL) {
        wipe(log);
        stand(log);
        fflush(log->terminal);
    }
    pthread_mutex_unlock(&log->lock);
}

void sl_log_close(sl_log *log)
{
    sl_log_draw(log, NULL);
    if (log->file != NULL)
        fclose(log->file);
    log->file = NULL;
    pthread_mutex_destroy(&log->lock);
}
