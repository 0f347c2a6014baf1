/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The tensorboard sink: its files are read back by a reader of our own, frame by frame, with another CRC-32C. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "plugins/tensorboard/events.h"
#include "tests/fake_host.h"
#include "tests/folders.h"

/* Byte by byte with a table made here, where the writer goes bit by bit. */
static uint32_t crc_of(const uint8_t *bytes, size_t size)
{
    uint32_t table[256], crc = 0xffffffffu;
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int k = 0; k < 8; k++)
            table[i] = table[i] & 1 ? 0x82f63b78u ^ (table[i] >> 1) : table[i] >> 1;
    }
    for (size_t i = 0; i < size; i++)
        crc = table[(crc ^ bytes[i]) & 0xff] ^ (crc >> 8);
    return ~crc;
}

static uint64_t fixed(const uint8_t *bytes, size_t size)
{
    uint64_t value = 0;
    for (size_t i = size; i-- > 0;)
        value = value << 8 | bytes[i];
    return value;
}

static uint32_t unmask(uint32_t masked)
{
    const uint32_t rotated = masked - 0xa282ead8u;
    return (rotated >> 17) | (rotated << 15);
}

typedef struct scalar {
    char tag[64];
    int64_t step;
    double time;
    float value;
} scalar;

typedef struct file {
    size_t events, count, starts;
    char version[32];
    scalar scalars[64];
} file;

static uint64_t varint(const uint8_t **at)
{
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
        const uint8_t byte = *(*at)++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return value;
    }
}

static void read_value(file *f, const uint8_t *at, const uint8_t *end)
{
    scalar *s = &f->scalars[f->count++];
    while (at < end) {
        const uint64_t key = varint(&at);
        if (key == (1 << 3 | 2)) {
            const uint64_t n = varint(&at);
            assert_true(n < sizeof s->tag);
            memcpy(s->tag, at, n);
            at += n;
        } else {
            assert_int_equal(key, 2 << 3 | 5);
            const uint32_t bits = (uint32_t)fixed(at, 4);
            memcpy(&s->value, &bits, 4);
            at += 4;
        }
    }
    assert_ptr_equal(at, end);
}

static void read_event(file *f, const uint8_t *at, const uint8_t *end)
{
    const size_t first = f->count;
    int64_t step = 0;
    double time = 0;
    while (at < end) {
        const uint64_t key = varint(&at);
        if (key == (1 << 3 | 1)) {
            const uint64_t bits = fixed(at, 8);
            memcpy(&time, &bits, 8);
            at += 8;
        } else if (key == (2 << 3 | 0)) {
            step = (int64_t)varint(&at);
        } else {
            const uint64_t n = varint(&at);
            const uint8_t *stop = at + n;
            assert_true(stop <= end);
            if (key == (3 << 3 | 2))
                memcpy(f->version, at, n < sizeof f->version ? n : 0);
            else if (key == (7 << 3 | 2))
                f->starts += n == 2 && at[0] == 8 && at[1] == 1;
            else
                assert_int_equal(key, 5 << 3 | 2);
            while (key == (5 << 3 | 2) && at < stop) {
                assert_int_equal(varint(&at), 1 << 3 | 2);
                const uint64_t length = varint(&at);
                read_value(f, at, at + length);
                at += length;
            }
            at = stop;
        }
    }
    for (size_t i = first; i < f->count; i++) {
        f->scalars[i].step = step;
        f->scalars[i].time = time;
    }
    f->events++;
}

/* The one event file of a folder. */
static file read_folder(const char *folder)
{
    char path[512] = "";
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    size_t count = 0;
    for (struct dirent *e; (e = readdir(dir)) != NULL;)
        if (strncmp(e->d_name, "events.out.tfevents.", 20) == 0) {
            snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
            count++;
        }
    closedir(dir);
    assert_int_equal(count, 1);
    static uint8_t bytes[65536];
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    const size_t size = fread(bytes, 1, sizeof bytes, in);
    fclose(in);
    file f = {0};
    for (size_t at = 0; at < size;) {
        assert_true(at + 12 <= size);
        const uint64_t n = fixed(bytes + at, 8);
        assert_int_equal(unmask((uint32_t)fixed(bytes + at + 8, 4)), crc_of(bytes + at, 8));
        assert_true(at + 12 + n + 4 <= size);
        assert_int_equal(unmask((uint32_t)fixed(bytes + at + 12 + n, 4)), crc_of(bytes + at + 12, n));
        read_event(&f, bytes + at + 12, bytes + at + 12 + n);
        at += 12 + n + 4;
    }
    return f;
}

static void assert_scalar(const file *f, const char *tag, int64_t step, double value)
{
    size_t found = 0;
    for (size_t i = 0; i < f->count; i++)
        if (strcmp(f->scalars[i].tag, tag) == 0 && f->scalars[i].step == step) {
            assert_true(f->scalars[i].value == (float)value || (isnan(value) && isnan(f->scalars[i].value)));
            found++;
        }
    if (found != 1)
        fail_msg("%zu points of %s at step %lld", found, tag, (long long)step);
}

static int tell(fake_host *h, const char *phase, const char *stage, int64_t iteration, int64_t step, const char *name,
                double value)
{
    const sluice_number number = {name, value};
    const sluice_metrics_line line = {.size = sizeof line,
                                      .phase = phase,
                                      .stage = stage,
                                      .iteration = iteration,
                                      .step = step,
                                      .numbers = &number,
                                      .count = 1,
                                      .time = 1e9 + (double)iteration,
                                      .reused = iteration == 1};
    return ((const sluice_metrics_class *)(const void *)h->type)->line(h->self, &line);
}

static fake_host *start(const char *folder)
{
    fake_host *h = fake_open("tensorboard", "tensorboard");
    assert_int_equal(h->type->kind, SLUICE_METRICS_SINK);
    ((const sluice_metrics_class *)(const void *)h->type)->folder(h->self, folder);
    assert_int_equal(fake_start(h), SLUICE_OK);
    return h;
}

/* The value that RFC 3720, B.4 and every implementation give. */
static void crc_is_castagnolis(void **state)
{
    (void)state;
    assert_int_equal(events_crc("123456789", 9), 0xe3069283u);
    assert_int_equal(crc_of((const uint8_t *)"123456789", 9), 0xe3069283u);
    assert_int_equal(unmask(events_mask(0x12345678u)), 0x12345678u);
}

static void steps_go_on_over_iterations(void **state)
{
    char folder[300];
    fake_host *h = start(*state);
    for (int64_t i = 1; i <= 2; i++) {
        for (int64_t step = 10; step <= 30; step += 10)
            assert_int_equal(tell(h, "align", "train", i, step, "rewards/chosen", 0.5 * (double)(i * step)), SLUICE_OK);
        assert_int_equal(tell(h, "align", "train", i, -1, "train_loss", 1.0 / (double)i), SLUICE_OK);
        assert_int_equal(tell(h, "align", "eval", i, -1, "accuracy", 0.25 * (double)i), SLUICE_OK);
    }
    assert_int_equal(tell(h, "align", "train", 2, 40, "rewards/chosen", NAN), SLUICE_OK);
    fake_close(h);
    snprintf(folder, sizeof folder, "%s/tensorboard/align/train", (const char *)*state);
    file train = read_folder(folder);
    assert_string_equal(train.version, "brain.Event:2");
    assert_int_equal(train.starts, 1);
    assert_int_equal(train.events, 2 + 9);
    assert_int_equal(train.count, 9);
    for (int64_t step = 10; step <= 30; step += 10) {
        assert_scalar(&train, "rewards/chosen", step, 0.5 * (double)step);
        assert_scalar(&train, "rewards/chosen", 30 + step, (double)step);
    }
    assert_scalar(&train, "rewards/chosen", 70, NAN);
    assert_scalar(&train, "train_loss", 30, 1);
    assert_scalar(&train, "train_loss", 60, 0.5);
    assert_true(train.scalars[0].time == 1e9 + 1);
    snprintf(folder, sizeof folder, "%s/tensorboard/align/eval", (const char *)*state);
    file eval = read_folder(folder);
    assert_scalar(&eval, "accuracy", 1, 0.25);
    assert_scalar(&eval, "accuracy", 2, 0.5);
}

/* A run that goes on tells all again: one file, and no point twice; a stranger's file in the folder stays. */
static void a_rerun_doubles_nothing(void **state)
{
    char folder[300];
    snprintf(folder, sizeof folder, "%s/tensorboard/align/train", (const char *)*state);
    for (int run = 0; run < 2; run++) {
        fake_host *h = start(*state);
        assert_int_equal(tell(h, "align", "train", 1, 1, "loss", 2), SLUICE_OK);
        assert_int_equal(tell(h, "align", "train", 1, 2, "loss", 1), SLUICE_OK);
        fake_close(h);
        file f = read_folder(folder);
        assert_int_equal(f.count, 2);
        assert_scalar(&f, "loss", 1, 2);
        assert_scalar(&f, "loss", 2, 1);
    }
    file_write(folder, "events.out.tfevents.1.host.v2", "", 0);
    fake_host *h = start(*state);
    assert_int_equal(tell(h, "align", "train", 1, 1, "loss", 2), SLUICE_OK);
    fake_close(h);
    assert_int_equal(folder_count(folder), 2);
}

/* A folder that cannot be made is said, with its name; the host then tells the sink nothing more. */
static void what_cannot_be_written_is_said(void **state)
{
    file_write(*state, "tensorboard", "", 0);
    fake_host *h = start(*state);
    assert_true(tell(h, "align", "train", 1, 1, "loss", 2) < 0);
    assert_non_null(strstr(h->error, "/tensorboard/align/train"));
    fake_close(h);
}

static int make_folder(void **state)
{
    *state = folder_new();
    return 0;
}

static int remove_folder(void **state)
{
    folder_remove(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc_is_castagnolis),
        cmocka_unit_test_setup_teardown(steps_go_on_over_iterations, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_rerun_doubles_nothing, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(what_cannot_be_written_is_said, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
