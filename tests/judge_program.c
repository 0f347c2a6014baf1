/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A judge as users write them, for the tests of judge-command, and every way in which it may go wrong:
 *
 *   judge_program MODE [NUMBER]
 *
 * It answers each question with scores made from the texts of its candidates; MODE says what else it does.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint32_t draws;

/* Numbers that differ from start to start. */
static unsigned draw(unsigned below)
{
    draws = (draws ^ (draws >> 15)) * 2246822519u + 3266489917u;
    return (draws >> 8) % below;
}

static int is(const char *mode, const char *name)
{
    return strcmp(mode, name) == 0;
}

static void id_of(const char *line, char *id, size_t size)
{
    const char *at = strstr(line, "\"id\":\"") + 6;
    snprintf(id, size, "%.*s", (int)strcspn(at, "\""), at);
}

/* "[s, s, …]": of each text its length and first byte as it stands in the line. */
static void scores_of(const char *line, char *out, size_t size)
{
    size_t n = (size_t)snprintf(out, size, "[");
    for (const char *at = line; (at = strstr(at, "\"text\":\"")) && n + 32 < size;) {
        at += 8;
        size_t length = 0;
        while (at[length] != '"')
            length += at[length] == '\\' ? 2 : 1;
        n += (size_t)snprintf(out + n, size - n, "%s%.9g", n > 1 ? "," : "",
                              (double)length + (unsigned char)at[0] / 256.0);
        at += length;
    }
    snprintf(out + n, size - n, "]");
}

/* One of the ways to go in the middle of the work. */
static void die(const char *id, const char *scores)
{
    switch (draw(9)) {
    case 0:
        exit(0);
    case 1:
        fprintf(stderr, "Traceback\nValueError: unlucky with %s\n", id);
        exit(3);
    case 2:
        raise(SIGKILL);
        break;
    case 3:
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
        break;
    case 4: /* half a line */
        printf("{\"id\": \"%s\", \"sco", id);
        fflush(stdout);
        exit(0);
    case 5: /* an answer, then the end */
        printf("{\"id\": \"%s\", \"scores\": %s}\n", id, scores);
        fflush(stdout);
        _exit(1);
    case 6: /* a whole answer but for its line end */
        printf("{\"id\": \"%s\", \"scores\": %s}", id, scores);
        fflush(stdout);
        exit(0);
    case 7: /* its output alone */
        close(1);
        for (;;)
            pause();
    default: /* leaves a child that holds the output open */
        if (fork() == 0)
            for (;;)
                pause();
        _exit(7);
    }
}

static int answer(const char *mode, long number, const char *line, long count)
{
    static char held[2][65536];
    static char id[4096], scores[60000];
    id_of(line, id, sizeof id);
    scores_of(line, scores, sizeof scores);
    if (is(mode, "random") && draw(100) < (unsigned)number)
        die(id, scores);
    if (is(mode, "at") && count == number)
        exit(5);
    if (is(mode, "culprit") && strcmp(id, "r7") == 0) {
        fprintf(stderr, "loading\nKeyError: 'seven'\n\n");
        exit(4);
    }
    if (is(mode, "hang") && strcmp(id, "r7") == 0)
        for (;;)
            pause();
    if (is(mode, "orphan") && count == number) { /* a child that nobody waits for */
        pid_t pid = fork();
        if (pid == 0)
            for (;;)
                pause();
        FILE *file = fopen("orphan.pid", "w");
        fprintf(file, "%ld\n", (long)pid);
        fclose(file);
    }
    if (is(mode, "stderr"))
        for (int i = 0; i < 2000; i++)
            fprintf(stderr, "warning %d: this is said rather often, for no good reason at all\n", i);
    if (is(mode, "chatter"))
        printf("Loading model …\n");
    if (is(mode, "blank"))
        printf("\n  \n");
    if (is(mode, "nan"))
        return printf("{\"id\": \"%s\", \"scores\": [NaN]}\n", id);
    if (is(mode, "string"))
        return printf("{\"id\": \"%s\", \"scores\": [\"1\", \"2\"]}\n", id);
    if (is(mode, "huge"))
        return printf("{\"id\": \"%s\", \"scores\": [1e300, 0]}\n", id);
    if (is(mode, "big")) /* a whole number beyond 64 bits, as Python prints it */
        return printf("{\"id\": \"%s\", \"scores\": [1000000000000000000000000000000, 0]}\n", id);
    if (is(mode, "nulls"))
        return printf("{\"id\": \"%s\", \"scores\": [null, null]}\n", id);
    if (is(mode, "few"))
        return printf("{\"id\": \"%s\", \"scores\": [1]}\n", id);
    if (is(mode, "nothing"))
        return printf("{\"id\": \"%s\"}\n", id);
    if (is(mode, "nobody"))
        return printf("{\"id\": \"nobody\", \"scores\": [1, 2]}\n");
    if (is(mode, "anonymous"))
        return printf("{\"scores\": [1, 2]}\n");
    if (is(mode, "number"))
        return printf("42\n");
    if (is(mode, "nested"))
        return printf("{\"id\": \"%s\", \"scores\": {\"clear\": 3}}\n", id);
    if (is(mode, "null"))
        return printf("{\"id\": \"%s\", \"scores\": [null, 2]}\n", id);
    if (is(mode, "named"))
        return printf("{\"id\": \"%s\", \"scores\": {\"clear\": [1, 2], \"short\": [null, -3.5]}}\n", id);
    if (is(mode, "refuse") && strcmp(id, "r3") == 0)
        return printf("{\"id\": \"%s\", \"error\": \"no such colour\"}\n", id);
    if (is(mode, "flood"))
        for (;;)
            printf("[1, 2, 3, 4, 5, 6, 7, 8, 9");
    if (is(mode, "pairs")) { /* each two answers in reversed order */
        snprintf(held[count % 2], sizeof held[0], "{\"id\": \"%s\", \"scores\": %s}\n", id, scores);
        return count % 2 == 0 ? printf("%s%s", held[0], held[1]) : 0;
    }
    printf("{\"id\": \"%s\", \"scores\": %s}\n", id, scores);
    if (is(mode, "twice"))
        printf("{\"id\": \"%s\", \"scores\": %s}\n", id, scores);
    return 0;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "good";
    long number = argc > 2 ? strtol(argv[2], NULL, 10) : 0, count = 0;
    char *line = NULL;
    size_t room = 0;
    draws = (uint32_t)getpid() * 2654435761u;
    if (is(mode, "dead"))
        return 9;
    if (is(mode, "deaf")) /* never reads */
        for (;;)
            pause();
    if (is(mode, "descriptors")) /* only the three */
        for (int fd = 3; fd < 256; fd++)
            if (fcntl(fd, F_GETFD) >= 0) {
                fprintf(stderr, "descriptor %d is open\n", fd);
                return 1;
            }
    while (getline(&line, &room, stdin) > 0) {
        answer(mode, number, line, ++count);
        fflush(stdout);
    }
    free(line);
    if (is(mode, "stays"))
        for (;;)
            pause();
    return is(mode, "sour") ? 6 : 0;
}
