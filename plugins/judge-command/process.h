/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A program of the user's, running beside us: lines in, lines out, and what it says on stderr.
 *
 * It is started in a process group of its own, with the three standard descriptors and no other. All pipes are
 * non-blocking on our side and are served together, so that a program which reads nothing, or says too much, can stall
 * but never block us. Memory is bounded: an unfinished line of output of more than PROCESS_LINE_MAX bytes is an
 * error, and of stderr only the end is kept. One thread.
 */
#ifndef JUDGE_COMMAND_PROCESS_H
#define JUDGE_COMMAND_PROCESS_H

#include <sys/types.h>
#include <sluice/host.h>

#define PROCESS_LINE_MAX  ((size_t)4 << 20)
#define PROCESS_WORDS_MAX 512 /* of a line of stderr, the rest is cut */

typedef struct process {
    const sluice_host *host;
    pid_t pid;            /* 0 = none runs */
    int in, out, err;     /* its stdin, stdout and stderr; -1 = closed */
    char *lines;          /* what it has printed and nobody has taken */
    size_t begin, length; /* of the bytes in it */
    size_t searched;      /* of them known to hold no line end */
    size_t room;
    char words[PROCESS_WORDS_MAX]; /* the line of stderr that is being read */
    size_t words_length;
    char last_words[PROCESS_WORDS_MAX]; /* its last whole line that is not blank; "" = none */
    double log_second;                  /* lines logged are counted by the second */
    uint64_t logged, unlogged;
} process;

/* Seconds of a clock that only goes forward. */
double process_now(void);
/* argv ends with NULL; argv[0] without a slash is searched for in PATH. Errors are reported. */
int process_start(process *, const sluice_host *, const char *const *argv);
/* Waits at most `seconds` until it prints, says something or can be written to (when `writing`); takes in what it has
 * said on stderr. Reports no error. */
void process_wait(process *, bool writing, double seconds);
/* Writes as much as it takes now; the number of bytes, 0 = none now, -1 = it has closed its stdin. */
ssize_t process_write(process *, const char *bytes, size_t count);
enum process_read { PROCESS_LINE, PROCESS_NOTHING, PROCESS_CLOSED, PROCESS_TOO_LONG, PROCESS_NO_MEMORY };
/* The next line it printed, without its end, terminated by NUL; borrowed until the next call. PROCESS_NOTHING: no whole
 * line yet. PROCESS_CLOSED: its output has ended; *length is the size of a last line without an end, 0 = none. */
enum process_read process_line(process *, char **line, size_t *length);
/* Whether the program itself has ended (a child of its may still hold its output open). */
bool process_ended(const process *);
/* Closes its stdin and waits at most `seconds` for its end. False when it has not ended. */
bool process_finish(process *, double seconds);
/* Kills the process group, whatever is left of it, and collects the exit status (as waitpid gives it; 0 when none
 * runs). `grace`: seconds that a program which is about to end by itself gets. Everything is closed. */
int process_kill(process *, double grace);
/* "exit status 1", "signal 9 (Killed)". */
void process_status_text(int status, char *text, size_t size);

#endif
