/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Records from hand to hand: in order, to several readers, within bounds, and to an end in every case. */
#include <pthread.h>
#include <unistd.h>

#include "tests/streams.h"
#include "core/stream/pipe.h"

enum { MANY = 5000 };

struct reader {
    pthread_t thread;
    sl_pipe_end *end;
    useconds_t pause;
    _Atomic size_t count; /* that came as they should */
    int rc;
};

static void *read_all(void *argument)
{
    struct reader *r = argument;
    sl_record *record;
    while ((r->rc = sl_pipe_take(r->end, &record)) == SLUICE_OK) {
        char id[32];
        snprintf(id, sizeof id, "r%zu", r->count);
        r->count += strcmp(sluice_record_id(sl_record_public(record)), id) == 0;
        sl_record_free(record);
        if (r->pause > 0)
            usleep(r->pause);
    }
    return NULL;
}

static void start(struct reader *r, sl_pipe *p, useconds_t pause)
{
    *r = (struct reader){.end = sl_pipe_open(p), .pause = pause};
    assert_non_null(r->end);
    assert_int_equal(pthread_create(&r->thread, NULL, read_all, r), 0);
}

static void give(sl_pipe *p, size_t i)
{
    OK(sl_pipe_give(p, make_record(i)));
}

static void all_come_in_order_to_each(void **state)
{
    (void)state;
    struct reader fast, slow;
    sl_pipe *p = sl_pipe_new(in_folder("x"));
    start(&fast, p, 0);
    slow.end = sl_pipe_open(p); /* begins when the writer waits for it already */
    slow = (struct reader){.end = slow.end, .pause = 20};
    for (size_t i = 0; i < 200; i++)
        give(p, i);
    assert_int_equal(pthread_create(&slow.thread, NULL, read_all, &slow), 0);
    for (size_t i = 200; i < MANY; i++)
        give(p, i);
    assert_int_equal(sl_pipe_count(fast.end), -1);
    OK(sl_pipe_close(p));
    pthread_join(fast.thread, NULL);
    pthread_join(slow.thread, NULL);
    assert_int_equal(fast.rc, SLUICE_END);
    assert_int_equal(slow.rc, SLUICE_END);
    assert_int_equal(fast.count, MANY);
    assert_int_equal(slow.count, MANY);
    assert_int_equal(sl_pipe_count(slow.end), MANY);
    sl_pipe_free(p);
}

/* A slow writer's record does not wait for the next. */
static void one_comes_alone(void **state)
{
    (void)state;
    struct reader r;
    sl_pipe *p = sl_pipe_new(in_folder("x"));
    start(&r, p, 0);
    for (size_t i = 0; i < 3; i++) {
        usleep(5000);
        give(p, i);
    }
    for (int i = 0; i < 2000 && r.count < 3; i++)
        usleep(1000);
    assert_int_equal(r.count, 3);
    OK(sl_pipe_close(p));
    pthread_join(r.thread, NULL);
    sl_pipe_free(p);
}

struct writer {
    sl_pipe *pipe;
    size_t size; /* of each prompt */
    size_t given;
    int rc;
};

static void *write_on(void *argument)
{
    struct writer *w = argument;
    char *text = calloc(1, w->size + 1);
    memset(text, 'x', w->size);
    while (w->rc == SLUICE_OK) {
        sl_record *record = make_record(w->given);
        sluice_record_set_prompt(sl_record_public(record), text);
        w->rc = sl_pipe_give(w->pipe, record);
        if (w->rc < 0)
            sl_record_free(record);
        else
            __atomic_add_fetch(&w->given, 1, __ATOMIC_SEQ_CST);
    }
    free(text);
    return NULL;
}

/* A reader that never reads: the writer waits, and a cancel wakes it. */
static void a_lagging_reader_holds_the_writer(void **state)
{
    static const struct {
        size_t size, most;
    } cases[] = {{10, 256}, {1 << 20, 4}, {8 << 20, 1}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pthread_t thread;
        struct writer w = {.pipe = sl_pipe_new(in_folder("x")), .size = cases[i].size};
        sl_pipe_end *end = sl_pipe_open(w.pipe);
        sl_record *record;
        assert_int_equal(pthread_create(&thread, NULL, write_on, &w), 0);
        size_t before = 1, now = 0;
        while (now != before || now == 0) {
            before = now;
            usleep(50000);
            now = __atomic_load_n(&w.given, __ATOMIC_SEQ_CST);
        }
        assert_true(now <= cases[i].most);
        sl_pipe_cancel(w.pipe);
        pthread_join(thread, NULL);
        assert_int_equal(w.rc, SLUICE_CANCELLED);
        assert_int_equal(sl_pipe_take(end, &record), SLUICE_CANCELLED);
        sl_pipe_free(w.pipe);
    }
}

static void a_waiting_reader_is_woken(void **state)
{
    (void)state;
    for (int cancel = 0; cancel < 2; cancel++) {
        struct reader r;
        sl_pipe *p = sl_pipe_new(in_folder("x"));
        start(&r, p, 0);
        usleep(10000);
        if (cancel)
            sl_pipe_cancel(p);
        else
            OK(sl_pipe_close(p));
        pthread_join(r.thread, NULL);
        assert_int_equal(r.rc, cancel ? SLUICE_CANCELLED : SLUICE_END);
        sl_pipe_free(p);
    }
}

static void an_id_comes_once(void **state)
{
    (void)state;
    sl_pipe *p = sl_pipe_new(in_folder("x")); /* nobody reads it */
    for (size_t i = 0; i < 60000; i++)
        give(p, i);
    sl_record *record = make_record(59999);
    assert_int_equal(sl_pipe_give(p, record), SLUICE_BAD_RECORD);
    sl_record_free(record);
    assert_non_null(strstr(sl_pipe_error(p), "'r59999' comes twice"));
    give(p, 5); /* its first is not in memory any more */
    assert_int_equal(sl_pipe_close(p), SLUICE_BAD_RECORD);
    assert_non_null(strstr(sl_pipe_error(p), "'r5' comes twice"));
    record = sl_record_new();
    assert_int_equal(sl_pipe_give(p, record), SLUICE_BAD_RECORD);
    assert_non_null(strstr(sl_pipe_error(p), "no id"));
    sl_record_free(record);
    sl_pipe_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_come_in_order_to_each),
        cmocka_unit_test(one_comes_alone),
        cmocka_unit_test(a_lagging_reader_holds_the_writer),
        cmocka_unit_test(a_waiting_reader_is_woken),
        cmocka_unit_test(an_id_comes_once),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
