/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokenizers at work: equal to the tokenizers library on 5,000 strings in every layout; streaming; special tokens; bad
 * and long text. Goldens: golden/make_tokenizer.py.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#define XXH_INLINE_ALL
#include <xxhash.h>
#include <zstd.h>

#include "model/tokenizer.h"

#define STRINGS 5000

static const char *const layouts[] = {
    "digits_prefix_space", "flags",           "gemma",      "gpt2",  "late_replace", "llama2",     "llama3",
    "metaspace_always",    "metaspace_first", "no_decoder", "o200k", "qwen2",        "some_bytes", "splits",
};
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

static struct {
    char *bytes;
    const char *text[STRINGS];
    uint32_t length[STRINGS];
} strings;

/* --- files --- */

static char *read_golden(const char *name, size_t *length)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/golden/%s", getenv("SLUICE_TEST_DATA"), name);
    FILE *file = fopen(path, "rb");
    if (!file) {
        fail_msg("%s is missing", path);
    }
    fseek(file, 0, SEEK_END);
    *length = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(*length + 1);
    assert_int_equal(fread(bytes, 1, *length, file), *length);
    fclose(file);
    return bytes;
}

static int read_strings(void **state)
{
    size_t packed;
    char *bytes = read_golden("tokenizer_strings.zst", &packed);
    size_t length = (size_t)ZSTD_getFrameContentSize(bytes, packed);
    if (ZSTD_isError(ZSTD_getFrameContentSize(bytes, packed))) {
        length = 1 << 22; /* the size is not written when the program read a pipe */
    }
    strings.bytes = malloc(length);
    length = ZSTD_decompress(strings.bytes, length, bytes, packed);
    assert_false(ZSTD_isError(length));
    free(bytes);
    size_t at = 0;
    for (size_t i = 0; i < STRINGS; i++) {
        memcpy(&strings.length[i], strings.bytes + at, 4);
        strings.text[i] = strings.bytes + at + 4;
        at += 4 + strings.length[i];
    }
    assert_int_equal(at, length);
    return 0;
}

static int free_strings(void **state)
{
    free(strings.bytes);
    return 0;
}

static sm_tokenizer *load(const char *name)
{
    char dir[4096];
    sm_error error;
    sm_tokenizer *tokenizer;
    snprintf(dir, sizeof dir, "%s/golden/tokenizers/%s", getenv("SLUICE_TEST_DATA"), name);
    if (sm_tokenizer_load(&tokenizer, dir, &error) != SM_OK) {
        fail_msg("%s", error.text);
    }
    return tokenizer;
}

/* --- digests, as in make_tokenizer.py --- */

static void digest_ids(XXH64_state_t *hash, const sm_tokenizer *tokenizer, const sm_tokens *tokens)
{
    uint32_t count = (uint32_t)tokens->count;
    XXH64_update(hash, &count, 4);
    if (count) {
        XXH64_update(hash, tokens->ids, 4 * tokens->count);
    }
    for (int skip = 0; skip < 2; skip++) {
        sm_text text = {0};
        assert_int_equal(sm_decode(tokenizer, tokens->ids, tokens->count, skip, &text, NULL), SM_OK);
        uint32_t length = (uint32_t)text.length;
        XXH64_update(hash, &length, 4);
        if (length) {
            XXH64_update(hash, text.bytes, length);
        }
        sm_text_free(&text);
    }
}

static uint64_t digest(const sm_tokenizer *tokenizer, const char *text, size_t length)
{
    static const unsigned flags[] = {SM_PARSE_SPECIAL | SM_ADD_SPECIAL, 0};
    XXH64_state_t hash;
    XXH64_reset(&hash, 0);
    sm_tokens tokens = {0};
    sm_error error;
    for (size_t i = 0; i < 2; i++) {
        tokens.count = 0;
        if (sm_encode(tokenizer, text, length, flags[i], &tokens, &error) != SM_OK) {
            fail_msg("%s", error.text);
        }
        digest_ids(&hash, tokenizer, &tokens);
    }
    uint64_t seed = XXH64(text, length, 0);
    tokens.count = 0;
    for (unsigned i = 0; i < 12; i++) {
        uint32_t id = (uint32_t)((seed >> 5 * i) * 2654435761u) % (sm_tokenizer_size(tokenizer) + 3);
        assert_int_equal(sm_tokens_push(&tokens, id), 0);
    }
    digest_ids(&hash, tokenizer, &tokens);
    sm_tokens_free(&tokens);
    return XXH64_digest(&hash);
}

/* Number of strings whose digests differ from the golden ones at `expected`. */
static size_t differences(const sm_tokenizer *tokenizer, const char *name, const char *expected)
{
    static uint64_t values[STRINGS];
    size_t wrong = 0;
    for (size_t i = 0; i < STRINGS; i++) {
        uint16_t low;
        memcpy(&low, expected + 2 * i, 2);
        values[i] = digest(tokenizer, strings.text[i], strings.length[i]);
        if ((values[i] & 0xffff) != low) {
            if (wrong++ < 3) {
                print_message("%s: string %zu differs: \"%.*s\"\n", name, i, (int)strings.length[i], strings.text[i]);
            }
        }
    }
    uint64_t all;
    memcpy(&all, expected + 2 * STRINGS, 8);
    if (!wrong && XXH64(values, sizeof values, 0) != all) {
        wrong = 1;
    }
    return wrong;
}

static void equals_the_tokenizers_library(void **state)
{
    size_t length, wrong = 0;
    char *expected = read_golden("tokenizer_expected.bin", &length);
    assert_int_equal(length, LAYOUTS * (2 * STRINGS + 8));
    for (size_t i = 0; i < LAYOUTS; i++) {
        sm_tokenizer *tokenizer = load(layouts[i]);
        size_t here = differences(tokenizer, layouts[i], expected + i * (2 * STRINGS + 8));
        if (here) {
            print_message("%s: %zu of %d strings differ\n", layouts[i], here, STRINGS);
        }
        wrong += here;
        sm_tokenizer_free(tokenizer);
    }
    free(expected);
    assert_int_equal(wrong, 0);
}

static void equals_it_on_a_real_model(void **state)
{
    const char *dir = getenv("SLUICE_STORIES");
    if (!dir) {
        print_message("skipped: SLUICE_STORIES does not name a folder with stories260K\n");
        skip();
    }
    size_t length;
    sm_error error;
    sm_tokenizer *tokenizer;
    char *expected = read_golden("tokenizer_stories.bin", &length);
    assert_int_equal(length, 2 * STRINGS + 8);
    assert_int_equal(sm_tokenizer_load(&tokenizer, dir, &error), SM_OK);
    assert_int_equal(differences(tokenizer, "stories260K", expected), 0);

    sm_tokens tokens = {0};
    static const uint32_t once[] = {1, 403, 407, 261, 378};
    assert_int_equal(sm_encode(tokenizer, "Once upon a time", 16, SM_ADD_SPECIAL, &tokens, NULL), SM_OK);
    assert_int_equal(tokens.count, 5);
    assert_memory_equal(tokens.ids, once, sizeof once);
    sm_tokens_free(&tokens);

    size_t count;
    const uint32_t *stop = sm_tokenizer_stop_ids(tokenizer, &count);
    assert_int_equal(count, 2);
    assert_int_equal(stop[0], 1);
    assert_int_equal(stop[1], 2);
    assert_int_equal(sm_tokenizer_bos(tokenizer), 1);
    assert_int_equal(sm_tokenizer_eos(tokenizer), 2);
    assert_int_equal(sm_tokenizer_unk(tokenizer), 0);
    assert_int_equal(sm_tokenizer_pad(tokenizer), SM_NO_TOKEN);
    sm_tokenizer_free(tokenizer);
    free(expected);
}

/* --- decoding as tokens arrive --- */

static size_t first_bad_byte(const char *bytes, size_t length)
{
    /* An encoder refuses bad UTF-8, which makes it the judge of what the decoder gives. */
    static sm_tokenizer *judge;
    sm_tokens tokens = {0};
    if (!bytes) {
        sm_tokenizer_free(judge);
        judge = NULL;
        return 0;
    }
    judge = judge ? judge : load("gpt2");
    int code = sm_encode(judge, bytes, length, 0, &tokens, NULL);
    sm_tokens_free(&tokens);
    return code == SM_OK ? length : 0;
}

static void streams_what_it_decodes_at_once(void **state)
{
    for (size_t i = 0; i < LAYOUTS; i++) {
        sm_tokenizer *tokenizer = load(layouts[i]);
        uint32_t size = sm_tokenizer_size(tokenizer);
        sm_decoder *decoder = sm_decoder_new(tokenizer, i % 2);
        uint64_t draw = 1;
        for (size_t trial = 0; trial < 300; trial++) {
            sm_tokens tokens = {0};
            sm_text whole = {0}, streamed = {0};
            if (trial % 2) {
                sm_encode(tokenizer, strings.text[trial * 7], strings.length[trial * 7], SM_PARSE_SPECIAL, &tokens,
                          NULL);
            } else {
                for (size_t k = 0; k < 40; k++) {
                    draw = draw * 6364136223846793005u + 1442695040888963407u;
                    sm_tokens_push(&tokens, (uint32_t)(draw >> 33) % (size + 2));
                }
            }
            assert_int_equal(sm_decode(tokenizer, tokens.ids, tokens.count, i % 2, &whole, NULL), SM_OK);
            for (size_t k = 0; k <= tokens.count; k++) {
                size_t before = streamed.length;
                int code = k < tokens.count ? sm_decoder_feed(decoder, tokens.ids[k], &streamed, NULL)
                                            : sm_decoder_finish(decoder, &streamed, NULL);
                assert_int_equal(code, SM_OK);
                if (streamed.length > before) {
                    assert_int_equal(first_bad_byte(streamed.bytes + before, streamed.length - before),
                                     streamed.length - before);
                }
            }
            assert_int_equal(streamed.length, whole.length);
            assert_true(!whole.length || memcmp(streamed.bytes, whole.bytes, whole.length) == 0);
            sm_tokens_free(&tokens);
            sm_text_free(&whole);
            sm_text_free(&streamed);
        }
        sm_decoder_free(decoder);
        sm_tokenizer_free(tokenizer);
    }
    first_bad_byte(NULL, 0);
}

static void holds_back_no_more_than_it_must(void **state)
{
    sm_tokenizer *tokenizer = load("gpt2");
    sm_decoder *decoder = sm_decoder_new(tokenizer, true);
    sm_tokens tokens = {0};
    sm_text text = {0};
    /* The vocabulary has no token for this character: four bytes. */
    assert_int_equal(sm_encode(tokenizer, "\xf0\x9f\xa6\xa5", 4, 0, &tokens, NULL), SM_OK);
    assert_true(tokens.count > 1);
    for (size_t i = 0; i < tokens.count; i++) {
        assert_int_equal(text.length, 0);
        assert_int_equal(sm_decoder_feed(decoder, tokens.ids[i], &text, NULL), SM_OK);
    }
    assert_string_equal(text.bytes, "\xf0\x9f\xa6\xa5");
    /* Half of it, and the end. */
    text.length = 0;
    assert_int_equal(sm_decoder_feed(decoder, tokens.ids[0], &text, NULL), SM_OK);
    assert_int_equal(text.length, 0);
    assert_int_equal(sm_decoder_finish(decoder, &text, NULL), SM_OK);
    assert_string_equal(text.bytes, "\xef\xbf\xbd");
    sm_tokens_free(&tokens);
    sm_text_free(&text);
    sm_decoder_free(decoder);
    sm_tokenizer_free(tokenizer);
}

/* --- special tokens --- */

static size_t specials_in(const sm_tokenizer *tokenizer, const sm_tokens *tokens)
{
    size_t count = 0;
    for (size_t i = 0; i < tokens->count; i++) {
        uint32_t id = tokens->ids[i];
        count += sm_tokenizer_is_special(tokenizer, id) && id != sm_tokenizer_unk(tokenizer);
    }
    return count;
}

static void text_never_becomes_a_special_token(void **state)
{
    for (size_t i = 0; i < LAYOUTS; i++) {
        sm_tokenizer *tokenizer = load(layouts[i]);
        size_t count;
        const uint32_t *special = sm_tokenizer_special(tokenizer, &count);
        for (size_t k = 0; k < count; k++) {
            size_t length;
            const char *token = sm_tokenizer_token_text(tokenizer, special[k], &length);
            assert_int_equal(sm_tokenizer_find(tokenizer, token, length), special[k]);
            char text[256];
            snprintf(text, sizeof text, "a %s b%s%s", token, token, token);
            sm_tokens tokens = {0};
            assert_int_equal(sm_encode(tokenizer, text, strlen(text), 0, &tokens, NULL), SM_OK);
            assert_int_equal(specials_in(tokenizer, &tokens), 0);
            sm_tokens_free(&tokens);
        }
        for (size_t k = 0; k < STRINGS; k += 10) {
            sm_tokens tokens = {0};
            assert_int_equal(sm_encode(tokenizer, strings.text[k], strings.length[k], 0, &tokens, NULL), SM_OK);
            assert_int_equal(specials_in(tokenizer, &tokens), 0);
            sm_tokens_free(&tokens);
        }
        sm_tokenizer_free(tokenizer);
    }
}

static void encode_guarded(const sm_tokenizer *tokenizer, const char *text, const char *guard, sm_tokens *tokens)
{
    uint8_t bytes[256];
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i++) {
        bytes[i] = guard[i] == '1';
    }
    tokens->count = 0;
    assert_int_equal(sm_encode_guarded(tokenizer, text, length, bytes, SM_PARSE_SPECIAL, tokens, NULL), SM_OK);
}

static void a_guard_protects_what_it_covers_and_no_more(void **state)
{
    sm_tokenizer *tokenizer = load("qwen2");
    sm_tokens guarded = {0}, plain = {0};
    /* The same tokens as without a guard, where the guarded text has none of its own. */
    const char *text = "<|im_start|>user\nWhat is it?<|im_end|>\n";
    encode_guarded(tokenizer, text, "000000000000000001111111111100000000000", &guarded);
    assert_int_equal(sm_encode(tokenizer, text, strlen(text), SM_PARSE_SPECIAL, &plain, NULL), SM_OK);
    assert_int_equal(specials_in(tokenizer, &guarded), 2);
    assert_int_equal(guarded.count, plain.count);
    assert_memory_equal(guarded.ids, plain.ids, plain.count * sizeof *plain.ids);

    encode_guarded(tokenizer, "<|im_start|>a<|im_end|><|im_end|>", "000000000000111111111110000000000", &guarded);
    assert_int_equal(specials_in(tokenizer, &guarded), 2);
    /* A token half of which is guarded is text, and hides nothing behind it. */
    encode_guarded(tokenizer, "<|im_end|><|im_end|>", "11111000000000000000", &guarded);
    assert_int_equal(specials_in(tokenizer, &guarded), 1);
    sm_tokenizer_free(tokenizer);

    /* Special tokens that are searched in normalized text are guarded through the normalizer. */
    tokenizer = load("llama2");
    encode_guarded(tokenizer, "a b<wide>c", "0000000000", &guarded);
    size_t open = specials_in(tokenizer, &guarded);
    encode_guarded(tokenizer, "a b<wide>c", "0001111110", &guarded);
    assert_int_equal(specials_in(tokenizer, &guarded), 0);
    encode_guarded(tokenizer, "a b<wide>c", "1110000001", &guarded);
    assert_int_equal(specials_in(tokenizer, &guarded), open);
    sm_tokens_free(&guarded);
    sm_tokens_free(&plain);
    sm_tokenizer_free(tokenizer);
}

/* --- bad text, long text, threads --- */

/* An answer that begins with a space goes on from its prompt as if both were one text: no second space comes between.
 */
static void continued_text_gets_no_second_space(void **state)
{
    static const char *const words[] = {"there was a girl", "x", "été", "1 2", "\n", "a  b"};
    sm_error error;
    for (size_t k = 0; k < LAYOUTS; k++) {
        sm_tokenizer *tokenizer = load(layouts[k]);
        for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
            sm_tokens plain = {0}, continued = {0}, spaced = {0};
            char text[64];
            snprintf(text, sizeof text, " %s", words[i]);
            assert_int_equal(sm_encode(tokenizer, words[i], strlen(words[i]), 0, &plain, &error), SM_OK);
            assert_int_equal(sm_encode(tokenizer, words[i], strlen(words[i]), SM_CONTINUE, &continued, &error), SM_OK);
            assert_int_equal(sm_encode(tokenizer, text, strlen(text), SM_CONTINUE, &spaced, &error), SM_OK);
            assert_int_equal(plain.count, continued.count);
            assert_memory_equal(plain.ids, continued.ids, plain.count * sizeof *plain.ids);
            if (strcmp(layouts[k], "llama2") == 0) {
                assert_int_equal(plain.count, spaced.count);
                assert_memory_equal(plain.ids, spaced.ids, plain.count * sizeof *plain.ids);
            }
            sm_tokens_free(&plain);
            sm_tokens_free(&continued);
            sm_tokens_free(&spaced);
        }
        sm_tokenizer_free(tokenizer);
    }
}

static void refuses_bad_utf8_with_its_offset(void **state)
{
    static const struct {
        const char *text;
        size_t length, offset;
    } cases[] = {
        {"\xff", 1, 0},
        {"abc\x80", 4, 3},
        {"abcdefghijk\xc3", 12, 11},
        {"\xc0\xaf", 2, 0},
        {"a\xed\xa0\x80z", 5, 1},
        {"\xf4\x90\x80\x80", 4, 0},
        {"ok \xe2\x82 no", 8, 3},
        {"\xf0\x9f\x98\x80\xf0\x9f\x98", 7, 4},
        {"\xe0\x80\x80", 3, 0},
    };
    sm_tokenizer *tokenizer = load("llama3");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sm_error error;
        char offset[32];
        sm_tokens tokens = {0};
        sm_tokens_push(&tokens, 7);
        snprintf(offset, sizeof offset, "at byte %zu", cases[i].offset);
        assert_int_equal(sm_encode(tokenizer, cases[i].text, cases[i].length, SM_ADD_SPECIAL, &tokens, &error),
                         SM_BAD_ARGUMENT);
        assert_non_null(strstr(error.text, offset));
        assert_int_equal(tokens.count, 1);
        sm_tokens_free(&tokens);
    }
    sm_tokenizer_free(tokenizer);
}

static void long_words_take_no_longer_than_their_length(void **state)
{
    static const char *const names[] = {"gpt2", "llama2", "metaspace_first", "flags"};
    enum { LENGTH = 1 << 20 };
    char *text = malloc(LENGTH);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        sm_tokenizer *tokenizer = load(names[i]);
        for (const char *fill = " aet<\n"; *fill; fill++) {
            for (size_t k = 0; k < LENGTH; k++) {
                text[k] = *fill == 't' ? "the"[k % 3] : *fill;
            }
            sm_tokens tokens = {0};
            struct timespec begin, end;
            clock_gettime(CLOCK_MONOTONIC, &begin);
            assert_int_equal(sm_encode(tokenizer, text, LENGTH, SM_PARSE_SPECIAL, &tokens, NULL), SM_OK);
            clock_gettime(CLOCK_MONOTONIC, &end);
            /* A quadratic one would take an hour. */
            assert_true(end.tv_sec - begin.tv_sec < 60);
            assert_true(tokens.count > 0);
            sm_tokens_free(&tokens);
        }
        sm_tokenizer_free(tokenizer);
    }
    free(text);
}

typedef struct thread_case {
    const sm_tokenizer *tokenizer;
    uint64_t hash;
} thread_case;

static void *encode_in_thread(void *argument)
{
    thread_case *c = argument;
    for (size_t i = 0; i < STRINGS; i += 5) {
        sm_tokens tokens = {0};
        sm_encode(c->tokenizer, strings.text[i], strings.length[i], SM_PARSE_SPECIAL, &tokens, NULL);
        c->hash = XXH64(tokens.ids, tokens.count * sizeof *tokens.ids, c->hash);
        sm_tokens_free(&tokens);
    }
    return NULL;
}

static void threads_share_a_tokenizer(void **state)
{
    sm_tokenizer *tokenizer = load("flags");
    pthread_t threads[4];
    thread_case cases[4];
    for (size_t i = 0; i < 4; i++) {
        cases[i] = (thread_case){tokenizer, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_in_thread, &cases[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(cases[i].hash, cases[0].hash);
    }
    sm_tokenizer_free(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_tokenizers_library),
        cmocka_unit_test(equals_it_on_a_real_model),
        cmocka_unit_test(streams_what_it_decodes_at_once),
        cmocka_unit_test(holds_back_no_more_than_it_must),
        cmocka_unit_test(text_never_becomes_a_special_token),
        cmocka_unit_test(a_guard_protects_what_it_covers_and_no_more),
        cmocka_unit_test(continued_text_gets_no_second_space),
        cmocka_unit_test(refuses_bad_utf8_with_its_offset),
        cmocka_unit_test(long_words_take_no_longer_than_their_length),
        cmocka_unit_test(threads_share_a_tokenizer),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, read_strings, free_strings);
}
