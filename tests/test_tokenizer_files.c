/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokenizer files: what is refused, and how; names of special tokens from the files beside tokenizer.json.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "model/tokenizer.h"

static char scratch[] = "/tmp/sluice-tokenizer-XXXXXX";

static void write_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    if (!text) {
        unlink(path);
        return;
    }
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

/* A tokenizer.json around these members; a model of the letters a, b and ab unless there is one. */
static int load_scratch(const char *members, sm_tokenizer **tokenizer, sm_error *error)
{
    char text[8192];
    snprintf(text, sizeof text, "{%s%s%s}", members, *members ? "," : "",
             strstr(members, "\"model\"")
                 ? "\"version\":\"1.0\""
                 : "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"<e>\":3},"
                   "\"merges\":[\"a b\"]}");
    write_file("tokenizer.json", text);
    return sm_tokenizer_load(tokenizer, scratch, error);
}

#define MODEL(text) "\"model\":{\"type\":\"BPE\"," text "}"
#define ADDED(id, content)                                                                                \
    "{\"id\":" id ",\"content\":\"" content "\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false," \
    "\"normalized\":false,\"special\":true}"
#define SPLIT(regex)                                                                                         \
    "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"Isolated\"," \
    "\"invert\":false}"

static void refuses_what_it_cannot_do_in_one_line(void **state)
{
    static const struct {
        const char *members, *message;
    } cases[] = {
        {"\"model\":3", "model: must be an object"},
        {"\"model\":{\"vocab\":{}}", "\"type\" must be a string"},
        {"\"model\":{\"type\":\"Unigram\"}", "type \"Unigram\" is not supported"},
        {MODEL("\"vocab\":[],\"merges\":[]"), "\"vocab\" must be an object"},
        {MODEL("\"vocab\":{},\"merges\":[]"), "\"vocab\" must be an object"},
        {MODEL("\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]"), "have the same id 0"},
        {MODEL("\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]"), "duplicate"},
        {MODEL("\"vocab\":{\"a\":0,\"b\":2},\"merges\":[]"), "no holes"},
        {MODEL("\"vocab\":{\"a\":-1},\"merges\":[]"), "whole number"},
        {MODEL("\"vocab\":{\"a\":4294967296},\"merges\":[]"), "whole number"},
        {MODEL("\"vocab\":{\"a\":0.5},\"merges\":[]"), "whole number"},
        {MODEL("\"vocab\":{\"a\":\"0\"},\"merges\":[]"), "whole number"},
        {MODEL("\"vocab\":{\"a\":0}"), "\"merges\" must be a list"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[3]"), "merge 0 must be two tokens"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[\"a\"]"), "merge 0 must be two tokens"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]"), "merge 0 must be two tokens"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[[\"a\",1]]"), "merge 0 must be two tokens"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"a\",\"a\"]]"), "merge 0 must be two tokens"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[\"a a\"]"), "not in the vocabulary"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1"), "\"dropout\" is not supported"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\""), "is not supported"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[],\"byte_fallback\":1"), "must be true or false"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":1"), "\"unk_token\" must be a string"},
        {"\"version\":\"2.0\"", "version \"2.0\""},
        {"\"added_tokens\":{}", "\"added_tokens\" must be a list"},
        {"\"added_tokens\":[3]", "must be an object"},
        {"\"added_tokens\":[{\"content\":\"x\"}]", "\"id\" must be a whole number"},
        {"\"added_tokens\":[" ADDED("9", "<x>") "]", "says id 9, but its id is 4"},
        {"\"added_tokens\":[" ADDED("0", "ab") "]", "says id 0, but its id is 2"},
        {"\"added_tokens\":[" ADDED("4", "") "]", "an added token of 0 bytes"},
        {"\"normalizer\":{\"type\":\"Lowercase\"}", "normalizer: type \"Lowercase\" is not supported"},
        {"\"normalizer\":[]", "normalizer: must be an object"},
        {"\"normalizer\":{\"type\":\"Prepend\"}", "\"prepend\" must be a string"},
        {"\"normalizer\":{\"type\":\"Replace\",\"content\":\"\"}", "\"pattern\" must be"},
        {"\"normalizer\":{\"type\":\"Replace\",\"content\":\"\",\"pattern\":{\"String\":\"\"}}", "empty pattern"},
        {"\"pre_tokenizer\":{\"type\":\"Whitespace\"}", "pre_tokenizer: type \"Whitespace\" is not supported"},
        {"\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"__\"}", "must be one character"},
        {"\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"often\"}",
         "\"prepend_scheme\" must be"},
        {"\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},\"behavior\":\"Torn\",\"invert\":false}",
         "no behavior \"Torn\""},
        {SPLIT("(a"), "regular expression"},
        {SPLIT("\\\\w+"), "this escape at byte 0 is not supported"},
        {SPLIT("a\\\\h"), "this escape at byte 1 is not supported"},
        {SPLIT("[a&&b]"), "an intersection of classes"},
        {SPLIT("[a[b]]"), "a class inside a class"},
        {SPLIT("\\\\p{Greek}"), "no general category"},
        {SPLIT("[^\\\\P{L}]"), "a negated property inside a class"},
        {SPLIT("a(?i)b"), "this kind of group"},
        {SPLIT("(?P<n>a)"), "this kind of group"},
        {SPLIT("a{2}+"), "a repetition of a repetition"},
        {SPLIT("[a"), "an unfinished class"},
        {"\"post_processor\":{\"type\":\"BertProcessing\"}", "post_processor: type \"BertProcessing\""},
        {"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}", "lacks the Sequence A"},
        {"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<e>\"}}]}",
         "needs a list of \"ids\""},
        {"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<e>\"}},"
         "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<e>\":{\"ids\":[4]}}}",
         "its id is not below 4"},
        {"\"decoder\":{\"type\":\"WordPiece\"}", "decoder: type \"WordPiece\" is not supported"},
        {"\"decoder\":{\"type\":\"Strip\",\"content\":\" \",\"start\":-1,\"stop\":0}", "\"start\" must be"},
        {"\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"ByteLevel\"}]}",
         "ByteLevel after Fuse"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sm_error error = {0};
        sm_tokenizer *tokenizer;
        int code = load_scratch(cases[i].members, &tokenizer, &error);
        if (code == SM_OK || !strstr(error.text, cases[i].message)) {
            fail_msg("%s\n  gave \"%s\"\n  not  \"%s\"", cases[i].members, error.text, cases[i].message);
        }
        assert_null(tokenizer);
        assert_null(strchr(error.text, '\n'));
        assert_non_null(strstr(error.text, "tokenizer.json"));
    }
}

static void refuses_deep_large_and_missing_files(void **state)
{
    sm_error error;
    sm_tokenizer *tokenizer;
    char deep[4096] = "\"decoder\":";
    for (int i = 0; i < 20; i++) {
        strcat(deep, "{\"type\":\"Sequence\",\"decoders\":[");
    }
    strcat(deep, "{\"type\":\"Fuse\"}");
    for (int i = 0; i < 20; i++) {
        strcat(deep, "]}");
    }
    assert_int_equal(load_scratch(deep, &tokenizer, &error), SM_FORMAT);
    assert_non_null(strstr(error.text, "nested"));

    char *brackets = malloc(1 << 20);
    memset(brackets, '[', (1 << 20) - 1);
    brackets[(1 << 20) - 1] = '\0';
    write_file("tokenizer.json", brackets);
    free(brackets);
    assert_int_equal(sm_tokenizer_load(&tokenizer, scratch, &error), SM_FORMAT);
    write_file("tokenizer.json", "{\"a\": \"\xff\"}");
    assert_int_equal(sm_tokenizer_load(&tokenizer, scratch, &error), SM_FORMAT);
    write_file("tokenizer.json", "");
    assert_int_equal(sm_tokenizer_load(&tokenizer, scratch, &error), SM_FORMAT);

    char path[256];
    snprintf(path, sizeof path, "%s/tokenizer.json", scratch);
    assert_int_equal(truncate(path, (off_t)1 << 33), 0);
    assert_int_equal(sm_tokenizer_load(&tokenizer, scratch, &error), SM_FORMAT);
    write_file("tokenizer.json", NULL);
    assert_int_equal(sm_tokenizer_load(&tokenizer, scratch, &error), SM_IO);
    assert_int_equal(sm_tokenizer_load(&tokenizer, "/nowhere", &error), SM_IO);
    assert_int_equal(sm_tokenizer_load(&tokenizer, "/nowhere", NULL), SM_IO);
}

static void names_come_from_the_other_files(void **state)
{
    sm_error error;
    sm_tokenizer *tokenizer;
    size_t count;
    write_file("tokenizer_config.json",
               "{\"bos_token\":null,\"eos_token\":{\"content\":\"<e>\",\"lstrip\":false},\"pad_token\":\"[PAD]\","
               "\"add_bos_token\":true,\"add_eos_token\":true,\"clean_up_tokenization_spaces\":true,"
               "\"added_tokens_decoder\":{\"5\":{\"content\":\"<y>\",\"special\":false},"
               "\"4\":{\"content\":\"<x>\",\"special\":true}}}");
    write_file("special_tokens_map.json", "{\"eos_token\":\"<x>\",\"bos_token\":\"<x>\"}");
    write_file("generation_config.json", "{\"eos_token_id\":[3,4]}");
    assert_int_equal(load_scratch("", &tokenizer, &error), SM_OK);
    assert_int_equal(sm_tokenizer_size(tokenizer), 6);
    assert_int_equal(sm_tokenizer_eos(tokenizer), 3);
    assert_int_equal(sm_tokenizer_bos(tokenizer), 4);
    assert_int_equal(sm_tokenizer_pad(tokenizer), SM_NO_TOKEN);
    assert_true(sm_tokenizer_is_special(tokenizer, 3));
    assert_true(sm_tokenizer_is_special(tokenizer, 4));
    assert_false(sm_tokenizer_is_special(tokenizer, 5));
    const uint32_t *stop = sm_tokenizer_stop_ids(tokenizer, &count);
    assert_int_equal(count, 2);
    assert_int_equal(stop[1], 4);
    sm_tokens tokens = {0};
    static const uint32_t expected[] = {2, 3, 5, 3};
    assert_int_equal(sm_encode(tokenizer, "ab<e><y>", 8, SM_PARSE_SPECIAL | SM_ADD_SPECIAL, &tokens, &error), SM_OK);
    assert_int_equal(tokens.count, 4);
    assert_memory_equal(tokens.ids, expected, sizeof expected);
    sm_tokens_free(&tokens);
    sm_tokenizer_free(tokenizer);

    static const struct {
        const char *file, *text, *message;
    } cases[] = {
        {"tokenizer_config.json", "{\"eos_token\":\"<none>\"}", "which is not in tokenizer.json"},
        {"tokenizer_config.json", "{\"eos_token\":7}", "must be a string"},
        {"tokenizer_config.json", "[]", "tokenizer_config.json"},
        {"tokenizer_config.json", "{\"added_tokens_decoder\":{\"x\":{\"content\":\"<x>\"}}}",
         "must be an id and a token"},
        {"tokenizer_config.json", "{\"added_tokens_decoder\":{\"7\":{\"content\":\"<x>\"}}}", "its id is 4"},
        {"generation_config.json", "{\"eos_token_id\":\"3\"}", "must be an id or a list of ids"},
        {"generation_config.json", "{\"eos_token_id\":[-1]}", "must be an id or a list of ids"},
    };
    write_file("special_tokens_map.json", NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_file("tokenizer_config.json", NULL);
        write_file("generation_config.json", NULL);
        write_file(cases[i].file, cases[i].text);
        assert_int_not_equal(load_scratch("", &tokenizer, &error), SM_OK);
        assert_non_null(strstr(error.text, cases[i].message));
        assert_non_null(strstr(error.text, cases[i].file));
    }
}

static int make_scratch(void **state)
{
    return mkdtemp(scratch) ? 0 : -1;
}

static int remove_scratch(void **state)
{
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                        "generation_config.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        write_file(files[i], NULL);
    }
    return rmdir(scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_it_cannot_do_in_one_line),
        cmocka_unit_test(refuses_deep_large_and_missing_files),
        cmocka_unit_test(names_come_from_the_other_files),
    };
    return cmocka_run_group_tests_name("tokenizer files", tests, make_scratch, remove_scratch);
}
