/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Records: what is set is read, encoding is deterministic and keeps what it does not know, hostile bytes are refused.
 */
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/base/cbor.h"
#include "core/base/json.h"
#include "core/stream/record.h"

#define OK(call)  assert_int_equal((call), SLUICE_OK)
#define BAD(call) assert_int_equal((call), SLUICE_BAD_RECORD)

static sluice_record *new_record(const char *id)
{
    sl_record *r = sl_record_new();
    assert_non_null(r);
    OK(sluice_record_set_id(sl_record_public(r), id));
    return sl_record_public(r);
}

static void end(sluice_record *r)
{
    sl_record_free(sl_record_from_public(r));
}

static sl_buffer encode(sluice_record *r)
{
    sl_buffer out = {0};
    OK(sl_record_encode(sl_record_from_public(r), &out));
    return out;
}

static sluice_record *decode(const void *bytes, size_t size)
{
    sl_record *r;
    size_t used;
    char error[160] = "";
    int rc = sl_record_decode(bytes, size, &r, &used, error, sizeof error);
    if (rc != SLUICE_OK)
        print_message("%s\n", error);
    OK(rc);
    assert_int_equal(used, size);
    return sl_record_public(r);
}

static void assert_json(sluice_record *r, const char *expected)
{
    char *json = sluice_record_json(r);
    assert_non_null(json);
    assert_string_equal(json, expected);
    free(json);
}

/* A record with every field. */
static sluice_record *full(void)
{
    static const uint32_t tokens[] = {5, 70000, 2};
    static const float logprobs[] = {-0.5f, -1.25f, -0.1f}, reference[] = {-0.75f, -1.0f, -0.2f};
    static const sluice_message messages[] = {{"system", "Be brief."}, {"user", "What is 2+2?"}};
    static const sluice_segment segments[] = {{"assistant", 0, 2, true}, {"tool", 2, 3, false}};
    static const uint32_t ranks[] = {0, UINT32_MAX};
    sluice_record *r = new_record("q-1");
    OK(sluice_record_set_messages(r, messages, 2));
    OK(sluice_record_set_prompt_tokens(r, tokens, 2, 0x1234567890abcdef));
    sluice_candidate c = {"4", tokens, logprobs, 3, SLUICE_FINISH_STOP, -1, "t=0.8"};
    OK(sluice_record_add_candidate(r, &c));
    c = (sluice_candidate){.text = "5", .parent = 0, .finish = SLUICE_FINISH_LENGTH};
    OK(sluice_record_add_candidate(r, &c));
    OK(sluice_record_set_logps(r, 0, "policy@0", reference, 3));
    OK(sluice_record_set_segments(r, 0, segments, 2));
    OK(sluice_record_set_score(r, "verifier", 0, 1.0f));
    OK(sluice_record_set_score(r, "llm", 1, 0.1f));
    OK(sluice_record_set_ranking(r, "verifier", ranks));
    OK(sluice_record_add_pair(r, &(sluice_pair){0, 1, 0.75, 2, 0.1}));
    OK(sluice_record_set_reward(r, 0, 1, -0.5));
    OK(sluice_record_set_meta_text(r, "source", "sums"));
    OK(sluice_record_set_meta_number(r, "level", 3));
    OK(sluice_record_set_meta_bool(r, "hard", false));
    OK(sluice_record_set_meta_json(r, "extra", "{\"b\": [1, -2.5, null], \"a\": \"\\u00e9\"}"));
    OK(sluice_record_set_step(r, 7));
    return r;
}

static const char full_json[] =
    "{\"id\":\"q-1\",\"step\":7,\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},"
    "{\"role\":\"user\",\"content\":\"What is 2+2?\"}],\"prompt_tokens\":[5,70000],\"template\":\"1234567890abcdef\","
    "\"candidates\":[{\"tag\":\"t=0.8\",\"text\":\"4\",\"finish\":\"stop\",\"reward\":1.0,\"advantage\":-0.5,"
    "\"tokens\":[5,70000,2],\"logprobs\":[-0.5,-1.25,-0.1],\"logps\":{\"policy@0\":[-0.75,-1.0,-0.2]},"
    "\"segments\":[{\"role\":\"assistant\",\"begin\":0,\"end\":2,\"trained\":true},"
    "{\"role\":\"tool\",\"begin\":2,\"end\":3,\"trained\":false}]},"
    "{\"parent\":0,\"text\":\"5\",\"finish\":\"length\"}],"
    "\"scores\":{\"llm\":[null,0.1],\"verifier\":[1.0,null]},\"rankings\":{\"verifier\":[0,null]},"
    "\"pairs\":[{\"chosen\":0,\"rejected\":1,\"p\":0.75,\"weight\":2.0,\"margin\":0.1}],"
    "\"meta\":{\"hard\":false,\"extra\":{\"a\":\"\xc3\xa9\",\"b\":[1,-2.5,null]},\"level\":3.0,\"source\":\"sums\"}}";

static void round_trip_keeps_every_field(void **state)
{
    sluice_record *r = full();
    assert_json(r, full_json);
    sl_buffer first = encode(r);
    sluice_record *back = decode(first.data, first.size);
    assert_json(back, full_json);
    sl_buffer again = encode(back);
    assert_int_equal(first.size, again.size);
    assert_memory_equal(first.data, again.data, first.size);

    const sluice_message *messages;
    assert_int_equal(sluice_record_messages(back, &messages), 2);
    assert_string_equal(messages[1].content, "What is 2+2?");
    sluice_candidate c;
    OK(sluice_record_candidate(back, 0, &c));
    assert_int_equal(c.token_count, 3);
    assert_int_equal(c.tokens[1], 70000);
    assert_true(c.logprobs[1] == -1.25f);
    assert_true(isnan(sluice_record_scores(back, "llm")[0]));
    assert_null(sluice_record_scores(back, "nobody"));
    size_t count;
    assert_true(sluice_record_logps(back, 0, "policy@0", &count)[1] == -1.0f);
    assert_int_equal(count, 3);
    const char *const *judges;
    assert_int_equal(sluice_record_judges(back, &judges), 2);
    assert_string_equal(judges[0], "llm");
    double reward, advantage;
    OK(sluice_record_reward(back, 0, &reward, &advantage));
    assert_true(reward == 1 && advantage == -0.5);
    assert_int_equal(sluice_record_reward(back, 1, &reward, &advantage), SLUICE_END);
    assert_string_equal(sluice_record_meta_text(back, "source"), "sums");
    assert_null(sluice_record_meta_text(back, "level"));
    double level;
    OK(sluice_record_meta_number(back, "level", &level));
    assert_true(level == 3);
    assert_int_equal(sluice_record_meta_number(back, "source", &level), SLUICE_END);
    assert_int_equal(sluice_record_step(back), 7);
    end(back);
    end(r);
    sl_buffer_free(&first);
    sl_buffer_free(&again);
}

/* Written out by hand from RFC 8949 and RFC 8746. */
static void one_record_has_these_bytes(void **state)
{
    static const uint8_t golden[] = {
        0xa5,                                                                   /* map of 5 */
        0x62, 'i',  'd',  0x62, 'a',  '7',                                      /* "id": "a7" */
        0x65, 'p',  'a',  'i',  'r',  's',  0x81, 0xa3,                         /* "pairs": [{ */
        0x61, 'p',  0xf9, 0x3a, 0x00,                                           /* "p": 0.75 as half */
        0x66, 'c',  'h',  'o',  's',  'e',  'n',  0x01,                         /* "chosen": 1 */
        0x68, 'r',  'e',  'j',  'e',  'c',  't',  'e',  'd',  0x00,             /* "rejected": 0 }] */
        0x66, 'p',  'r',  'o',  'm',  'p',  't',  0x62, 'H',  'i',              /* "prompt": "Hi" */
        0x66, 's',  'c',  'o',  'r',  'e',  's',  0xa1, 0x61, 'j',  0xd8, 0x55, /* "scores": {"j": float32 LE [ */
        0x48, 0x00, 0x00, 0xc0, 0x7f, 0x00, 0x00, 0x00, 0x3f,                   /* NaN, 0.5 ] } */
        0x6a, 'c',  'a',  'n',  'd',  'i',  'd',  'a',  't',  'e',  's',  0x82, /* "candidates": [ */
        0xa1, 0x64, 't',  'e',  'x',  't',  0x61, 'x',                          /* {"text": "x"}, */
        0xa1, 0x66, 't',  'o',  'k',  'e',  'n',  's',  0xd8, 0x46,             /* {"tokens": uint32 LE */
        0x48, 0x01, 0x00, 0x00, 0x00, 0x70, 0x11, 0x01, 0x00,                   /* [1, 70000]}] */
    };
    static const uint32_t tokens[] = {1, 70000};
    sluice_record *r = new_record("a7");
    OK(sluice_record_set_prompt(r, "Hi"));
    OK(sluice_record_add_candidate(r, &(sluice_candidate){.text = "x", .parent = -1}));
    OK(sluice_record_add_candidate(r, &(sluice_candidate){.tokens = tokens, .token_count = 2, .parent = -1}));
    OK(sluice_record_set_score(r, "j", 1, 0.5f));
    OK(sluice_record_add_pair(r, &(sluice_pair){1, 0, 0.75, 1, NAN}));
    sl_buffer bytes = encode(r);
    assert_int_equal(bytes.size, sizeof golden);
    assert_memory_equal(bytes.data, golden, sizeof golden);
    sl_buffer_free(&bytes);
    end(r);
}

static void put_text(sl_cbor_writer *w, const char *s)
{
    sl_cbor_put_text(w, s, strlen(s));
}

static void unknown_keys_survive_at_every_level(void **state)
{
    sl_buffer b = {0};
    sl_cbor_writer writer = {&b, SLUICE_OK}, *w = &writer;
    sl_cbor_put_head(w, SL_CBOR_MAP, 6);
    sl_cbor_put_int(w, -3), sl_cbor_put_bool(w, true); /* an integer key */
    put_text(w, "a"), sl_cbor_put_double(w, 0.1);
    put_text(w, "id"), put_text(w, "u");
    put_text(w, "pairs"), sl_cbor_put_head(w, SL_CBOR_ARRAY, 1), sl_cbor_put_head(w, SL_CBOR_MAP, 3);
    put_text(w, "chosen"), sl_cbor_put_int(w, 0);
    put_text(w, "reason"), put_text(w, "longer");
    put_text(w, "rejected"), sl_cbor_put_int(w, 1);
    put_text(w, "messages"), sl_cbor_put_head(w, SL_CBOR_ARRAY, 2);
    sl_cbor_put_head(w, SL_CBOR_MAP, 2), put_text(w, "role"), put_text(w, "user"), put_text(w, "content"),
        put_text(w, "");
    sl_cbor_put_head(w, SL_CBOR_MAP, 3), put_text(w, "name"), put_text(w, "Ann");
    put_text(w, "role"), put_text(w, "user"), put_text(w, "content"), put_text(w, "x");
    put_text(w, "candidates"), sl_cbor_put_head(w, SL_CBOR_ARRAY, 2);
    sl_cbor_put_head(w, SL_CBOR_MAP, 2), put_text(w, "zz"), sl_cbor_put_typed(w, SL_CBOR_U32, "\1\0\0\0", 4);
    put_text(w, "segments"), sl_cbor_put_head(w, SL_CBOR_ARRAY, 1), sl_cbor_put_head(w, SL_CBOR_MAP, 5);
    put_text(w, "end"), sl_cbor_put_int(w, 0), put_text(w, "why"), sl_cbor_put_raw(w, "\xf6", 1); /* null */
    put_text(w, "role"), put_text(w, "r"), put_text(w, "begin"), sl_cbor_put_int(w, 0), put_text(w, "trained");
    sl_cbor_put_bool(w, false);
    sl_cbor_put_head(w, SL_CBOR_MAP, 0);
    OK(w->result);

    /* CBOR sorts integers before texts, negative ones after the others: -3 is 0x22, "a" is 0x61 0x61. */
    sluice_record *r = decode(b.data, b.size);
    sl_buffer again = encode(r);
    assert_int_equal(again.size, b.size);
    assert_memory_equal(again.data, b.data, b.size);
    assert_json(r,
                "{\"id\":\"u\",\"messages\":[{\"role\":\"user\",\"content\":\"\"},"
                "{\"role\":\"user\",\"content\":\"x\",\"name\":\"Ann\"}],"
                "\"candidates\":[{\"segments\":[{\"role\":\"r\",\"begin\":0,\"end\":0,\"trained\":false,\"why\":null}],"
                "\"zz\":[1]},{}],"
                "\"pairs\":[{\"chosen\":0,\"rejected\":1,\"p\":1.0,\"weight\":1.0,\"reason\":\"longer\"}],"
                "\"-3\":true,\"a\":0.1}");
    /* They stay when a stage changes what it knows. */
    OK(sluice_record_set_pair(r, 0, &(sluice_pair){1, 0, 0.5, 1, NAN}));
    OK(sluice_record_set_step(r, 1));
    sl_buffer changed = encode(r);
    sluice_record *back = decode(changed.data, changed.size);
    char *json = sluice_record_json(back);
    assert_non_null(strstr(json, "\"reason\":\"longer\""));
    assert_non_null(strstr(json, "\"a\":0.1"));
    free(json);
    end(back);
    end(r);
    sl_buffer_free(&b);
    sl_buffer_free(&again);
    sl_buffer_free(&changed);
}

static void wrong_values_are_refused(void **state)
{
    sluice_record *r = full();
    const float nan[] = {NAN, 0, 0};
    const uint32_t tokens[] = {1};
    BAD(sluice_record_set_score(r, "j", 0, NAN));
    BAD(sluice_record_set_score(r, "j", 0, INFINITY));
    BAD(sluice_record_set_score(r, "j", 2, 0));
    BAD(sluice_record_set_score(r, "", 0, 0));
    BAD(sluice_record_set_score(r, "\xff", 0, 0));
    BAD(sluice_record_set_id(r, ""));
    BAD(sluice_record_set_logps(r, 0, "v", nan, 2));
    BAD(sluice_record_set_logps(r, 0, "v", nan, 3));
    BAD(sluice_record_add_pair(r, &(sluice_pair){0, 0, 1, 1, NAN}));
    BAD(sluice_record_add_pair(r, &(sluice_pair){0, 2, 1, 1, NAN}));
    BAD(sluice_record_add_pair(r, &(sluice_pair){0, 1, 1.5, 1, NAN}));
    BAD(sluice_record_add_pair(r, &(sluice_pair){0, 1, NAN, 1, NAN}));
    BAD(sluice_record_add_pair(r, &(sluice_pair){0, 1, 1, -1, NAN}));
    BAD(sluice_record_set_pair(r, 1, &(sluice_pair){0, 1, 1, 1, NAN}));
    BAD(sluice_record_add_candidate(r, &(sluice_candidate){.parent = 2}));
    BAD(sluice_record_add_candidate(r, &(sluice_candidate){.parent = -1, .token_count = 1}));
    BAD(sluice_record_add_candidate(
        r, &(sluice_candidate){.parent = -1, .tokens = tokens, .token_count = 1, .logprobs = nan}));
    BAD(sluice_record_set_step(r, -2));
    BAD(sluice_record_set_segments(r, 0, &(sluice_segment){"a", 0, 4, true}, 1));
    assert_int_equal(sluice_record_set_meta_json(r, "x", "{\"a\":1,\"a\":2}"), SLUICE_BAD_PARAMETER);
    assert_json(r, full_json);
    end(r);
}

static void text_that_is_no_utf8_is_repaired(void **state)
{
    sluice_record *r = new_record("x");
    OK(sluice_record_set_prompt(r, "a\xff\xc3"));
    assert_string_equal(sluice_record_prompt(r), "a\xef\xbf\xbd\xef\xbf\xbd");
    end(r);
}

static void new_tokens_forget_what_was_said_of_the_old(void **state)
{
    static const uint32_t tokens[] = {9, 9};
    size_t count;
    sluice_record *r = full();
    sluice_candidate c;
    OK(sluice_record_candidate(r, 0, &c));
    c.text = "four";
    OK(sluice_record_set_candidate(r, 0, &c));
    assert_non_null(sluice_record_logps(r, 0, "policy@0", &count));
    c.tokens = tokens, c.token_count = 2, c.logprobs = NULL;
    OK(sluice_record_set_candidate(r, 0, &c));
    assert_null(sluice_record_logps(r, 0, "policy@0", &count));
    for (int i = 0; i < 20; i++)
        OK(sluice_record_add_candidate(r, &c));
    assert_true(isnan(sluice_record_scores(r, "verifier")[21]));
    assert_true(sluice_record_ranking(r, "verifier")[21] == UINT32_MAX);
    end(r);
}

static void some_candidates_stay_with_what_was_said_of_them(void **state)
{
    static const uint32_t order[] = {3, 1, 0}, twice[] = {1, 1}, beyond[] = {4};
    static const uint32_t ranks[] = {1, 0, 2, UINT32_MAX};
    sluice_record *r = new_record("x");
    for (uint32_t i = 0; i < 4; i++) {
        char text[8];
        snprintf(text, sizeof text, "a%u", i);
        sluice_candidate c = {.text = text, .tokens = &i, .token_count = 1, .parent = i == 1 ? 0 : i == 3 ? 2 : -1};
        float logp = -1.0f - (float)i;
        OK(sluice_record_add_candidate(r, &c));
        OK(sluice_record_set_logps(r, i, "m", &logp, 1));
        if (i != 1)
            OK(sluice_record_set_score(r, "j", i, (float)i));
    }
    OK(sluice_record_set_ranking(r, "j", ranks));
    OK(sluice_record_add_pair(r, &(sluice_pair){0, 1, 1, 1, NAN}));
    OK(sluice_record_add_pair(r, &(sluice_pair){2, 3, 1, 1, NAN}));
    assert_int_equal(sluice_record_keep_candidates(r, twice, 2), SLUICE_BAD_RECORD);
    assert_int_equal(sluice_record_keep_candidates(r, beyond, 1), SLUICE_BAD_RECORD);
    assert_int_equal(sluice_record_candidates(r), 4);
    OK(sluice_record_keep_candidates(r, order, 3));
    sluice_candidate c;
    sluice_pair pair;
    size_t count;
    assert_int_equal(sluice_record_candidates(r), 3);
    OK(sluice_record_candidate(r, 0, &c));
    assert_string_equal(c.text, "a3");
    assert_int_equal(c.parent, -1); /* 2 has gone */
    OK(sluice_record_candidate(r, 1, &c));
    assert_int_equal(c.parent, -1); /* 0 comes later now */
    assert_true(sluice_record_logps(r, 2, "m", &count)[0] == -1.0f);
    assert_true(sluice_record_scores(r, "j")[0] == 3 && isnan(sluice_record_scores(r, "j")[1]));
    assert_true(sluice_record_ranking(r, "j")[0] == UINT32_MAX && sluice_record_ranking(r, "j")[2] == 1);
    assert_int_equal(sluice_record_pairs(r), 1);
    OK(sluice_record_pair(r, 0, &pair));
    assert_true(pair.chosen == 2 && pair.rejected == 1);
    OK(sluice_record_add_candidate(r, &c));
    assert_true(isnan(sluice_record_scores(r, "j")[3]));
    OK(sluice_record_keep_candidates(r, NULL, 0));
    assert_int_equal(sluice_record_candidates(r), 0);
    end(r);
}

static void expect_refusal(const void *bytes, size_t size, const char *why)
{
    sl_record *r;
    size_t used;
    char error[160] = "";
    BAD(sl_record_decode(bytes, size, &r, &used, error, sizeof error));
    assert_null(r);
    if (why && !strstr(error, why))
        fail_msg("'%s' does not say '%s'", error, why);
}

#define REFUSED(literal, why) expect_refusal(literal, sizeof(literal) - 1, why)

static void hostile_bytes_are_refused(void **state)
{
    REFUSED("", "cut off");
    REFUSED("\xa0", "wants an id");
    REFUSED("\xa1\x62id\x62z", "past the end");
    REFUSED("\xa2\x62id\x61z\x62id\x61z", "twice");
    REFUSED("\xa2\x65zzzzz\x00\x62id\x61z", "out of order");
    REFUSED("\xa1\x62id\x78\x01z", "shortest");
    REFUSED("\xbf\x62id\x61z\xff", "indefinite");
    REFUSED("\xa1\x62id\x61\xff", "UTF-8");
    REFUSED("\xa1\x62id\x61\0", "NUL");
    REFUSED("\xa2\x61q\xfa\x3f\x80\x00\x00\x62id\x61z", "shortest");
    REFUSED("\xbb\x10\x00\x00\x00\x00\x00\x00\x00\x62id\x61z", "past the end");
    REFUSED("\xa2\x62id\x61z\x6a"
            "candidates\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
            "past the end");
    REFUSED("\xa2\x62id\x61z\x65"
            "pairs\x81\xa2\x66"
            "chosen\x00\x68rejected\x01",
            "pair");
    REFUSED("\xa2\x62id\x61z\x66scores\xa1\x61j\xd8\x55\x44\0\0\0\0", "one a candidate");
    /* one token, two log-probabilities */
    REFUSED("\xa2\x62id\x61z\x6a"
            "candidates\x81\xa2\x66tokens\xd8\x46\x44\0\0\0\0\x68logprobs\xd8\x55\x48\0\0\0\0\0\0\0\0",
            "one a token");

    uint8_t deep[400] = "\xa2\x62id\x61z\x64zzzz";
    memset(deep + 11, 0x81, sizeof deep - 11);
    expect_refusal(deep, sizeof deep, "too deeply");

    /* Empty candidates: a byte each, and structures of hundreds of bytes if they were believed. */
    const size_t count = 1 << 20;
    uint8_t *many = malloc(count + 64);
    assert_non_null(many);
    static const char head[] = "\xa2\x62id\x61z\x6a"
                               "candidates\x9a\x00\x10\x00\x00";
    memcpy(many, head, sizeof head - 1);
    memset(many + sizeof head - 1, 0xa0, count);
    expect_refusal(many, sizeof head - 1 + count, "memory");
    free(many);
}

static void any_cut_or_change_is_refused_or_read(void **state)
{
    sluice_record *r = full();
    sl_buffer bytes = encode(r);
    char error[160];
    size_t used;
    sl_record *back;
    for (size_t cut = 0; cut < bytes.size; cut++)
        expect_refusal(bytes.data, cut, NULL);
    for (size_t i = 0; i < bytes.size; i++)
        for (int bit = 0; bit < 8; bit++) {
            bytes.data[i] ^= (uint8_t)(1 << bit);
            if (sl_record_decode(bytes.data, bytes.size, &back, &used, error, sizeof error) == SLUICE_OK) {
                char *json = sluice_record_json(sl_record_public(back));
                assert_non_null(json);
                free(json);
                sl_record_free(back);
            }
            bytes.data[i] ^= (uint8_t)(1 << bit);
        }
    sl_buffer_free(&bytes);
    end(r);
}

static void copy_is_the_same_and_apart(void **state)
{
    sluice_record *r = full();
    sl_record_set_number(sl_record_from_public(r), 42);
    sl_record *copy;
    OK(sl_record_copy(sl_record_from_public(r), &copy));
    end(r);
    assert_json(sl_record_public(copy), full_json);
    assert_int_equal(sluice_record_number(sl_record_public(copy)), 42);
    sl_record_free(copy);
}

static void assert_number(double value, const char *expected)
{
    sl_buffer b = {0};
    OK(sl_json_double(&b, value));
    OK(sl_buffer_append(&b, "", 1));
    assert_string_equal((char *)b.data, expected);
    sl_buffer_free(&b);
}

/* Expected texts: Python's repr. */
static void numbers_are_written_shortest(void **state)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0, "0.0"},
                 {-0.0, "-0.0"},
                 {1, "1.0"},
                 {0.1, "0.1"},
                 {-2.5, "-2.5"},
                 {1e15, "1000000000000000.0"},
                 {1e16, "1e+16"},
                 {1e22, "1e+22"},
                 {123456789012345680.0, "1.2345678901234568e+17"},
                 {1e-4, "0.0001"},
                 {1e-5, "1e-05"},
                 {1.5e-7, "1.5e-07"},
                 {1.0 / 3, "0.3333333333333333"},
                 {2.0 / 3, "0.6666666666666666"},
                 {5e-324, "5e-324"},
                 {1.7976931348623157e308, "1.7976931348623157e+308"},
                 {0.30000000000000004, "0.30000000000000004"},
                 {100, "100.0"},
                 {9007199254740993.0, "9007199254740992.0"},
                 {NAN, "null"},
                 {-INFINITY, "null"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_number(cases[i].value, cases[i].text);
    uint64_t state64 = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        state64 ^= state64 << 13, state64 ^= state64 >> 7, state64 ^= state64 << 17;
        double wide;
        float single;
        uint32_t low = (uint32_t)state64;
        memcpy(&wide, &state64, 8);
        memcpy(&single, &low, 4);
        if (i % 2)
            wide = (double)(state64 >> 40) / 1000, single = (float)-(double)(low >> 8) / 1000000;
        sl_buffer b = {0};
        if (isfinite(wide)) {
            OK(sl_json_double(&b, wide));
            OK(sl_buffer_append(&b, "", 1));
            assert_true(strtod((char *)b.data, NULL) == wide);
        }
        b.size = 0;
        if (isfinite(single)) {
            OK(sl_json_float(&b, single));
            OK(sl_buffer_append(&b, "", 1));
            assert_true(strtof((char *)b.data, NULL) == single);
            char shorter[40]; /* no shorter one reads back */
            for (int places = 1; places <= 9; places++) {
                snprintf(shorter, sizeof shorter, "%.*e", places - 1, (double)single);
                if (strtof(shorter, NULL) == single) {
                    int digits = 0, zeros = 0, seen = 0;
                    for (char *c = (char *)b.data; *c && *c != 'e'; c++) {
                        seen |= *c >= '1' && *c <= '9';
                        digits += seen && *c >= '0' && *c <= '9';
                        zeros = *c == '0' ? zeros + 1 : *c == '.' ? zeros : 0;
                    }
                    assert_true(digits - zeros <= places);
                    break;
                }
            }
        }
        sl_buffer_free(&b);
    }
}

static void json_is_read_strictly(void **state)
{
    static const char *const good[][2] = {
        {" { \"b\" : 1 , \"a\" : [ true , null ] } ", "{\"a\":[true,null],\"b\":1}"},
        {"\"\\ud83d\\ude00 \\ud800 \\n\"", "\"\xf0\x9f\x98\x80 \xef\xbf\xbd \\n\""},
        {"-0", "0"},
        {"18446744073709551615", "18446744073709551615"},
        {"-9223372036854775808", "-9223372036854775808"},
        {"18446744073709551616", "1.8446744073709552e+19"},
        {"12.5e-1", "1.25"},
        {"1E400000000000000000000e", NULL},
        {"1e400", NULL},
        {"01", NULL},
        {"1.", NULL},
        {".5", NULL},
        {"+1", NULL},
        {"NaN", NULL},
        {"[1,]", NULL},
        {"{\"a\":1,}", NULL},
        {"{a:1}", NULL},
        {"\"\t\"", NULL},
        {"\"\\x\"", NULL},
        {"\"abc", NULL},
        {"1 2", NULL},
        {"", NULL},
        {"\"\xff\"", NULL},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        sl_buffer cbor = {0}, json = {0};
        char error[128] = "";
        int rc = sl_json_to_cbor(good[i][0], strlen(good[i][0]), &cbor, error, sizeof error);
        if (!good[i][1]) {
            assert_int_equal(rc, SLUICE_BAD_PARAMETER);
            assert_true(strncmp(error, "JSON at byte ", 13) == 0);
        } else {
            OK(rc);
            OK(sl_cbor_to_json(cbor.data, cbor.size, &json));
            OK(sl_buffer_append(&json, "", 1));
            assert_string_equal((char *)json.data, good[i][1]);
        }
        sl_buffer_free(&cbor);
        sl_buffer_free(&json);
    }
    char deep[1000];
    memset(deep, '[', sizeof deep);
    sl_buffer cbor = {0};
    char error[128];
    assert_int_equal(sl_json_to_cbor(deep, sizeof deep, &cbor, error, sizeof error), SLUICE_BAD_PARAMETER);
    assert_non_null(strstr(error, "too deeply"));
    sl_buffer_free(&cbor);
}

int main(void)
{
    setlocale(LC_ALL, ""); /* numbers must not depend on it */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip_keeps_every_field),
        cmocka_unit_test(one_record_has_these_bytes),
        cmocka_unit_test(unknown_keys_survive_at_every_level),
        cmocka_unit_test(wrong_values_are_refused),
        cmocka_unit_test(text_that_is_no_utf8_is_repaired),
        cmocka_unit_test(new_tokens_forget_what_was_said_of_the_old),
        cmocka_unit_test(some_candidates_stay_with_what_was_said_of_them),
        cmocka_unit_test(hostile_bytes_are_refused),
        cmocka_unit_test(any_cut_or_change_is_refused_or_read),
        cmocka_unit_test(copy_is_the_same_and_apart),
        cmocka_unit_test(numbers_are_written_shortest),
        cmocka_unit_test(json_is_read_strictly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
