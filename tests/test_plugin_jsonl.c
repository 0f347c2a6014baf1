/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* JSON lines: every form, parts and order, what is wrong with a line said with its number, and the way back out. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>
#include <cmocka.h>
#include <zstd.h>

#include "tests/fake_host.h"

static char folder[] = "/tmp/sluice-jsonl-XXXXXX";
static char path[256];

static const char *in_folder(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static const char *write_bytes(const char *name, const void *bytes, size_t size)
{
    FILE *file = fopen(in_folder(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
    return path;
}

static const char *write_text(const char *text)
{
    return write_bytes("in.jsonl", text, strlen(text));
}

static fake_host *source(const char *file)
{
    fake_host *f = fake_open("jsonl", "jsonl-source");
    fake_set_text(f, "path", file);
    return f;
}

/* Reads one line and returns the host with its record. */
static fake_host *read_one(const char *text)
{
    fake_host *f = source(write_text(text));
    int rc = fake_run(f);
    if (rc != SLUICE_OK)
        print_message("%s: %s\n", text, f->error);
    assert_int_equal(rc, SLUICE_OK);
    assert_int_equal(f->output_count, 1);
    return f;
}

static const char *answer(const sluice_record *record, size_t index)
{
    sluice_candidate candidate;
    assert_int_equal(sluice_record_candidate(record, index, &candidate), SLUICE_OK);
    assert_int_equal(candidate.token_count, 0);
    return candidate.text;
}

static void every_form(void **state)
{
    fake_host *f = read_one("{\"prompt\": \"caf\\u00e9?\", \"id\": 7, \"level\": 3, \"tags\": [1, \"x\"], \"note\": "
                            "\"n\", \"no\": null}\n");
    const sluice_record *r = f->output[0];
    double level;
    assert_string_equal(sluice_record_prompt(r), "café?");
    assert_string_equal(sluice_record_id(r), "7");
    assert_int_equal(sluice_record_meta_number(r, "level", &level), SLUICE_OK);
    assert_true(level == 3 && sluice_record_candidates(r) == 0);
    assert_string_equal(sluice_record_meta_text(r, "note"), "n");
    assert_null(sluice_record_meta_text(r, "no"));
    char *json = sluice_record_json(r);
    assert_non_null(strstr(json, "[1,\"x\"]"));
    free(json);
    fake_close(f);

    f = read_one("\n{\"prompt\": \"p\", \"completion\": \" a\"}"); /* a blank line before, none at the end */
    r = f->output[0];
    assert_string_equal(sluice_record_id(r), "line-2");
    assert_true(sluice_record_candidates(r) == 1 && sluice_record_pairs(r) == 0);
    assert_string_equal(answer(r, 0), " a");
    fake_close(f);

    f = read_one("{\"prompt\": \"p\", \"chosen\": \"yes\", \"rejected\": \"no\"}\r\n");
    r = f->output[0];
    sluice_pair pair;
    assert_int_equal(sluice_record_pair(r, 0, &pair), SLUICE_OK);
    assert_true(pair.chosen == 0 && pair.rejected == 1 && pair.p == 1 && pair.weight == 1);
    assert_string_equal(answer(r, 0), "yes");
    assert_string_equal(answer(r, 1), "no");
    fake_close(f);
}

static void messages_anywhere(void **state)
{
    const sluice_message *m;
    fake_host *f = read_one(
        "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": \"u\"}, "
        "{\"role\": \"assistant\", \"content\": \"a\"}]}");
    assert_int_equal(sluice_record_messages(f->output[0], &m), 2);
    assert_string_equal(m[1].content, "u");
    assert_string_equal(answer(f->output[0], 0), "a");
    fake_close(f);

    f = read_one("{\"messages\": [{\"role\": \"user\", \"content\": \"u\"}]}");
    assert_true(sluice_record_messages(f->output[0], &m) == 1 && sluice_record_candidates(f->output[0]) == 0);
    fake_close(f);

    f = read_one("{\"prompt\": [{\"role\": \"user\", \"content\": \"u\"}], \"chosen\": [{\"role\": \"assistant\", "
                 "\"content\": \"y\"}], "
                 "\"rejected\": [{\"role\": \"assistant\", \"content\": \"n\"}]}");
    assert_int_equal(sluice_record_messages(f->output[0], &m), 1);
    assert_string_equal(answer(f->output[0], 1), "n");
    fake_close(f);

    /* TRL's extract_prompt: the turns both dialogues begin with; a prompt in words beside them is not used. */
    f = read_one(
        "{\"prompt\": \"x\", \"chosen\": [{\"role\": \"user\", \"content\": \"u\"}, {\"role\": \"assistant\", "
        "\"content\": \"y\"}], "
        "\"rejected\": [{\"role\": \"user\", \"content\": \"u\"}, {\"role\": \"assistant\", \"content\": \"n\"}]}");
    assert_int_equal(sluice_record_messages(f->output[0], &m), 1);
    assert_string_equal(answer(f->output[0], 0), "y");
    assert_null(sluice_record_meta_text(f->output[0], "prompt"));
    fake_close(f);
}

static void implicit_prompts(void **state)
{
    const struct {
        const char *chosen, *rejected, *prompt, *first, *second;
    } cases[] = {
        {"The sky is blue.", "The sky is green.", "The sky is", " blue.", " green."},
        {"The sky is black", "The sky is blue", "The sky is bl", "ack", "ue"}, /* inside a word, as TRL */
        {"ab", "abc", "a", "b", "bc"},
        {"x\xc3\xa9", "x\xc3\xa8", "x", "\xc3\xa9", "\xc3\xa8"}, /* é and è share a byte, no character */
        {"\\n\\nHuman: hi\\n\\nAssistant: Hello you", "\\n\\nHuman: hi\\n\\nAssistant: Hello",
         "\n\nHuman: hi\n\nAssistant:", " Hello you", " Hello"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[512];
        snprintf(line, sizeof line, "{\"chosen\": \"%s\", \"rejected\": \"%s\"}", cases[i].chosen, cases[i].rejected);
        fake_host *f = read_one(line);
        assert_string_equal(sluice_record_prompt(f->output[0]), cases[i].prompt);
        assert_string_equal(answer(f->output[0], 0), cases[i].first);
        assert_string_equal(answer(f->output[0], 1), cases[i].second);
        fake_close(f);
    }
}

static void fields_and_forms_by_name(void **state)
{
    const char *file = write_text("{\"question\": \"q\", \"answer\": \"a\", \"key\": \"k\", \"completion\": \"c\"}");
    fake_host *f = source(file);
    fake_set_text(f, "prompt_field", "question");
    fake_set_text(f, "completion_field", "answer");
    fake_set_text(f, "id_field", "key");
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_string_equal(answer(f->output[0], 0), "a");
    assert_string_equal(sluice_record_id(f->output[0]), "k");
    assert_string_equal(sluice_record_meta_text(f->output[0], "completion"), "c");
    fake_close(f);

    f = source(file);
    fake_set_text(f, "prompt_field", "question");
    fake_set_text(f, "form", "prompt");
    assert_int_equal(fake_run(f), SLUICE_OK);
    assert_int_equal(sluice_record_candidates(f->output[0]), 0);
    assert_string_equal(sluice_record_meta_text(f->output[0], "answer"), "a"); /* not read, so kept */
    fake_close(f);

    const char *const wrong[] = {"completion", "preference"};
    for (size_t i = 0; i < 2; i++) {
        f = source(write_text("{\"prompt\": \"p\"}"));
        fake_set_text(f, "form", wrong[i]);
        assert_int_equal(fake_run(f), SLUICE_BAD_RECORD);
        fake_close(f);
    }
}

/* Each of these lines is refused, with the file, its number and the reason. */
static void bad_lines(void **state)
{
    static const struct {
        const char *line, *says;
    } cases[] = {
        {"{\"prompt\": \"a\xff\"}", "byte 14 of the line (0xff) is no UTF-8"},
        {"{\"prompt\": \"\xc0\xaf\"}", "no UTF-8"},
        {"{\"prompt\": \"\xed\xa0\x80\"}", "no UTF-8"},
        {"{\"prompt\": \"\xe2\x82\"}", "no UTF-8"},
        {"{\"prompt\": \"\\ud800\"}", "not JSON"},
        {"{\"prompt\": \"a\\u0000b\"}", "not JSON"},
        {"{\"prompt\": \"a\"", "not JSON"},
        {"{\"prompt\": \"a\"} x", "not JSON"},
        {"{\"prompt\": \"a\", \"prompt\": \"b\"}", "not JSON"},
        {"{prompt: 1}", "not JSON"},
        {"nonsense", "not JSON"},
        {"[1, 2]", "a list, where an object was expected"},
        {"\"text\"", "not JSON"},
        {"12", "not JSON"},
        {"{}", "there is no 'prompt'"},
        {"{\"completion\": \"a\"}", "a completion needs its prompt"},
        {"{\"prompt\": 5}", "'prompt' is a number"},
        {"{\"prompt\": {\"a\": 1}}", "'prompt' is an object"},
        {"{\"prompt\": null}", "there is no 'prompt'"},
        {"{\"prompt\": true}", "'prompt' is true"},
        {"{\"prompt\": []}", "empty list"},
        {"{\"prompt\": [\"a\"]}", "message 1 is a text"},
        {"{\"prompt\": [{\"role\": \"user\"}]}", "the content of message 1 is missing"},
        {"{\"prompt\": [{\"content\": \"a\"}]}", "the role of message 1 is missing"},
        {"{\"prompt\": [{\"role\": \"user\", \"content\": [1]}]}", "the content of message 1 is a list"},
        {"{\"prompt\": \"p\", \"completion\": 1}", "'completion' is a number"},
        {"{\"prompt\": \"p\", \"completion\": [{\"role\": \"user\", \"content\": \"a\"}]}",
         "one message of the assistant"},
        {"{\"prompt\": \"p\", \"chosen\": \"a\"}", "'rejected' is missing beside 'chosen'"},
        {"{\"rejected\": \"a\"}", "'chosen' is missing beside 'rejected'"},
        {"{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": [{\"role\": \"assistant\", \"content\": \"b\"}]}",
         "of one kind"},
        {"{\"chosen\": \"a\", \"rejected\": \"b\"}", "begin differently"},
        {"{\"chosen\": [{\"role\": \"user\", \"content\": \"a\"}], \"rejected\": [{\"role\": \"user\", \"content\": "
         "\"b\"}]}",
         "no message before the answer"},
        {"{\"messages\": \"m\"}", "a text, not a list of messages"},
        {"{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}", "no message before the answer"},
        {"{\"id\": \"\", \"prompt\": \"p\"}", "'id' is empty"},
        {"{\"id\": [1], \"prompt\": \"p\"}", "'id' is a list"},
        {"{\"id\": 1.5, \"prompt\": \"p\"}", "not a text or a whole number"},
        {"{\"id\": \"first\", \"prompt\": \"p\"}", "stands in line 1 already"},
    };
    char text[1024], where[300];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text, "{\"id\": \"first\", \"prompt\": \"p\"}\n\n%s\n{\"prompt\": \"last\"}\n",
                 cases[i].line);
        fake_host *f = source(write_text(text));
        snprintf(where, sizeof where, "%s:3: ", path);
        assert_int_equal(fake_run(f), SLUICE_BAD_RECORD);
        if (!strstr(f->error, where) || !strstr(f->error, cases[i].says))
            fail_msg("%s\n  said: %s\n  expected: %s", cases[i].line, f->error, cases[i].says);
        fake_close(f);

        f = source(path);
        fake_set_text(f, "on_error", "skip");
        assert_int_equal(fake_run(f), SLUICE_OK);
        assert_true(f->output_count == 2 && fake_metric(f, "skipped") == 1 && fake_metric(f, "records") == 2);
        assert_non_null(strstr(f->warning, where));
        fake_close(f);
    }
}

static void bad_files(void **state)
{
    fake_host *f = source(in_folder("absent.jsonl"));
    assert_int_equal(fake_start(f), SLUICE_BAD_FILE);
    assert_non_null(strstr(f->error, "absent.jsonl"));
    fake_close(f);
    f = source(folder);
    assert_true(fake_run(f) < 0);
    fake_close(f);
    f = source(write_text("\n \n"));
    assert_int_equal(fake_run(f), SLUICE_BAD_FILE);
    assert_non_null(strstr(f->error, "no records"));
    fake_close(f);
    f = source(write_bytes("in.gz", "\x1f\x8b\x08\0\0", 5));
    assert_int_equal(fake_start(f), SLUICE_BAD_FILE);
    assert_non_null(strstr(f->error, "gunzip"));
    fake_close(f);
    f = source(write_text("oops\n"));
    fake_set_text(f, "on_error", "skip");
    assert_int_equal(fake_run(f), SLUICE_BAD_FILE);
    assert_non_null(strstr(f->error, "every line was skipped"));
    fake_close(f);
}

/* Ids are the numbers 0 … n-1. */
static const char *numbered(size_t n)
{
    static char text[65536];
    size_t used = 0;
    for (size_t i = 0; i < n; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "{\"id\": %zu, \"prompt\": \"p%zu\"}\n", i, i);
    return text;
}

static void parts_are_disjoint_and_whole(void **state)
{
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        int met[103] = {0}, moved = 0;
        const char *file = write_text(numbered(103));
        for (int64_t it = 0; it < 4; it++) {
            fake_host *f = source(file);
            fake_set_text(f, "split", "by-iteration");
            fake_set_number(f, "shuffle", shuffle);
            f->iteration_value = it;
            f->repeat_value = 4;
            assert_int_equal(fake_run(f), SLUICE_OK);
            assert_true(f->output_count == 25 || f->output_count == 26);
            int last = -1;
            for (size_t i = 0; i < f->output_count; i++) {
                int id = atoi(sluice_record_id(f->output[i]));
                assert_true(id >= 103 * it / 4 && id < 103 * (it + 1) / 4); /* contiguous */
                met[id]++;
                moved += id < last;
                last = id;
            }
            fake_close(f);
        }
        for (int i = 0; i < 103; i++)
            assert_int_equal(met[i], 1);
        assert_int_equal(moved > 20, shuffle);
    }
    fake_host *f = source(write_text(numbered(3)));
    fake_set_text(f, "split", "by-iteration");
    f->repeat_value = 4;
    assert_int_equal(fake_start(f), SLUICE_BAD_FILE);
    assert_non_null(strstr(f->error, "too few for 4 parts"));
    fake_close(f);
}

static void skip_and_limit(void **state)
{
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        fake_host *f = source(write_text(numbered(50)));
        fake_set_number(f, "skip", 10);
        fake_set_number(f, "limit", 20);
        fake_set_number(f, "shuffle", shuffle);
        assert_int_equal(fake_run(f), SLUICE_OK);
        assert_int_equal(f->output_count, 20);
        int sum = 0;
        for (size_t i = 0; i < 20; i++)
            sum += atoi(sluice_record_id(f->output[i]));
        assert_int_equal(sum, 20 * 10 + 190);
        fake_close(f);
    }
    fake_host *f = source(write_text(numbered(5)));
    fake_set_number(f, "skip", 9);
    assert_int_equal(fake_run(f), SLUICE_BAD_FILE);
    fake_close(f);
}

static void compressed_files(void **state)
{
    const char *text = numbered(500);
    size_t size = strlen(text), room = ZSTD_compressBound(size), half = size / 2;
    char *packed = malloc(2 * room);
    size_t first = ZSTD_compress(packed, room, text, half, 3); /* two frames, cut in the middle of a line */
    size_t second = ZSTD_compress(packed + first, room, text + half, size - half, 3);
    const char *file = write_bytes("in.data", packed, first + second); /* known by its bytes, not its name */
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        fake_host *f = source(file);
        fake_set_number(f, "shuffle", shuffle);
        assert_int_equal(fake_run(f), SLUICE_OK);
        assert_int_equal(f->output_count, 500);
        fake_close(f);
    }
    fake_host *f = source(write_bytes("cut.zst", packed, first + second - 3));
    assert_int_equal(fake_start(f), SLUICE_BAD_FILE);
    assert_non_null(strstr(f->error, "ends in the middle"));
    fake_close(f);
    packed[first / 2] ^= 0x40;
    f = source(write_bytes("flipped.zst", packed, first + second));
    (void)fake_start(f); /* without a checksum zstd may not notice; it must not crash */
    fake_close(f);
    free(packed);
}

/* ---- out again */

static void fill_sink(fake_host *f)
{
    for (int i = 0; i < 3; i++) {
        char id[24];
        snprintf(id, sizeof id, "r%d", i);
        sluice_record *r = fake_record(f, id, i == 2 ? NULL : "p\n\"q\"");
        if (i == 2) {
            const sluice_message m = {"user", "u"};
            assert_int_equal(sluice_record_set_messages(r, &m, 1), SLUICE_OK);
        }
        fake_candidate(r, "good", NULL, 0);
        fake_candidate(r, "bad", NULL, 0);
        sluice_pair pair = {.chosen = 0, .rejected = 1, .p = 1, .weight = 1, .margin = NAN};
        assert_int_equal(sluice_record_add_pair(r, &pair), SLUICE_OK);
    }
}

static void written_forms_are_read_back(void **state)
{
    static const struct {
        const char *form, *name;
        size_t lines, candidates;
    } cases[] = {{"prompt", "o1.jsonl", 3, 0}, {"completion", "o2.jsonl", 6, 1}, {"preference", "o3.jsonl.zst", 3, 2}};
    for (size_t i = 0; i < 3; i++) {
        char file[256];
        snprintf(file, sizeof file, "%s/%s", folder, cases[i].name);
        fake_host *f = fake_open("jsonl", "jsonl-sink");
        fake_set_text(f, "path", file);
        fake_set_text(f, "form", cases[i].form);
        fill_sink(f);
        assert_int_equal(fake_start(f), SLUICE_OK);
        assert_int_equal(access(file, F_OK), -1); /* not before it is whole */
        assert_int_equal(fake_run(f), SLUICE_OK);
        assert_true(fake_metric(f, "lines") == (double)cases[i].lines);
        fake_close(f);
        f = source(file);
        assert_int_equal(fake_run(f), SLUICE_OK);
        assert_int_equal(f->output_count, cases[i].lines);
        assert_string_equal(sluice_record_prompt(f->output[0]), "p\n\"q\"");
        const sluice_message *m;
        assert_int_equal(sluice_record_messages(f->output[cases[i].lines - 1], &m), 1);
        assert_int_equal(sluice_record_candidates(f->output[cases[i].lines - 1]), cases[i].candidates);
        if (cases[i].candidates == 2)
            assert_string_equal(answer(f->output[2], 0), "good");
        fake_close(f);
    }
    char file[256];
    snprintf(file, sizeof file, "%s/records.jsonl", folder);
    fake_host *f = fake_open("jsonl", "jsonl-sink");
    fake_set_text(f, "path", file);
    fill_sink(f);
    assert_int_equal(fake_run(f), SLUICE_OK);
    fake_close(f);
    FILE *in = fopen(file, "r");
    char line[4096];
    size_t lines = 0;
    while (fgets(line, sizeof line, in))
        lines += strstr(line, "\"r") != NULL;
    fclose(in);
    assert_int_equal(lines, 3);
}

static void nothing_half_written(void **state)
{
    char file[256], part[300];
    snprintf(file, sizeof file, "%s/stopped.jsonl", folder);
    fake_host *f = fake_open("jsonl", "jsonl-sink");
    fake_set_text(f, "path", file);
    fake_set_text(f, "form", "completion");
    fill_sink(f);
    const uint32_t token = 3;
    fake_candidate(f->input[2], NULL, &token, 1); /* no text: cannot be written */
    assert_int_equal(fake_run(f), SLUICE_BAD_RECORD);
    fake_close(f);
    snprintf(part, sizeof part, "%s.part", file);
    assert_true(access(file, F_OK) != 0 && access(part, F_OK) != 0);
    /* What a killed run left is no obstacle; a run at work is. */
    FILE *left = fopen(part, "w");
    fputs("longer than what is written now, by far: {}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}\n",
          left);
    fclose(left);
    f = fake_open("jsonl", "jsonl-sink");
    fake_set_text(f, "path", file);
    fake_set_text(f, "form", "prompt");
    assert_int_equal(fake_start(f), SLUICE_OK);
    fake_host *second = fake_open("jsonl", "jsonl-sink");
    fake_set_text(second, "path", file);
    assert_int_equal(fake_start(second), SLUICE_IO);
    fake_close(second);
    assert_int_equal(access(part, F_OK), 0);
    assert_int_equal(fake_run(f), SLUICE_OK);
    fake_close(f);
    struct stat written;
    assert_int_equal(stat(file, &written), 0);
    assert_int_equal(written.st_size, 0);
    assert_true(access(part, F_OK) != 0);
    f = fake_open("jsonl", "jsonl-sink");
    fake_set_text(f, "path", "/nonexistent/folder/x.jsonl");
    assert_int_equal(fake_start(f), SLUICE_IO);
    fake_close(f);
}

static int make_folder(void **state)
{
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form),
        cmocka_unit_test(messages_anywhere),
        cmocka_unit_test(implicit_prompts),
        cmocka_unit_test(fields_and_forms_by_name),
        cmocka_unit_test(bad_lines),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(parts_are_disjoint_and_whole),
        cmocka_unit_test(skip_and_limit),
        cmocka_unit_test(compressed_files),
        cmocka_unit_test(written_forms_are_read_back),
        cmocka_unit_test(nothing_half_written),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
