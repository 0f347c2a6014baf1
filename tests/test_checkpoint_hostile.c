/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Checkpoint folders that are broken, foreign or malicious: each is refused in one line that says what is wrong, and
 * none brings the program down. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/checkpoint.h"
#include "tests/folders.h"

#define WEIGHTS "model.safetensors"

static sm_error error;

/* Loads and wants a complaint with these words; `label` says which case it was. */
static void assert_refused(const char *dir, const char *label, const char *words)
{
    sm_checkpoint *checkpoint = NULL;
    error = (sm_error){0};
    const int status = sm_checkpoint_load(&checkpoint, dir, &error);
    if (status == SM_OK || checkpoint || error.code != status || !strstr(error.text, words) ||
        strpbrk(error.text, "\n\r\t")) {
        print_error("%s: expected \"%s\", got %d: %s\n", label, words, status, error.text);
        fail();
    }
}

static void assert_loads(const char *dir, const char *note)
{
    sm_checkpoint *checkpoint;
    if (sm_checkpoint_load(&checkpoint, dir, &error) != SM_OK) {
        print_error("%s\n", error.text);
        fail();
    }
    if (note) {
        assert_non_null(checkpoint->note);
        assert_non_null(strstr(checkpoint->note, note));
    } else {
        assert_null(checkpoint->note);
    }
    sm_checkpoint_free(checkpoint);
}

/* A copy of a golden folder, and the parts of its weights. */
struct victim {
    char *dir;
    char *file;
    size_t size;
    size_t header; /* bytes of it, after the first 8 */
};

static struct victim victim_new(const char *name)
{
    struct victim v = {.dir = folder_new()};
    char path[100];
    snprintf(path, sizeof path, "checkpoint/%s", name);
    char *source = golden_path(path), *weights = folder_path(source, WEIGHTS);
    folder_copy(source, v.dir);
    if (access(weights, F_OK) == 0) {
        v.file = file_read(weights, &v.size);
        uint64_t header;
        memcpy(&header, v.file, 8);
        v.header = (size_t)header;
    }
    free(weights);
    free(source);
    return v;
}

static void victim_free(struct victim *v)
{
    folder_remove(v->dir);
    free(v->file);
}

/* Weights of this header and `size` bytes of data. */
static void write_weights(const struct victim *v, const char *header, size_t length, const char *data, size_t size)
{
    const uint64_t prefix = length;
    char *bytes = malloc(8 + length + size);
    assert_non_null(bytes);
    memcpy(bytes, &prefix, 8);
    memcpy(bytes + 8, header, length);
    memcpy(bytes + 8 + length, data, size);
    file_write(v->dir, WEIGHTS, bytes, 8 + length + size);
    free(bytes);
}

/* `text` with every `what` replaced, in new memory. */
static char *replaced(const char *text, size_t length, const char *what, const char *with, size_t *new_length)
{
    char *copy = malloc(length * (strlen(with) + 1) + 1), *to = copy;
    assert_non_null(copy);
    size_t found = 0;
    for (size_t at = 0; at < length;) {
        if (length - at >= strlen(what) && memcmp(text + at, what, strlen(what)) == 0) {
            memcpy(to, with, strlen(with));
            to += strlen(with);
            at += strlen(what);
            found++;
        } else {
            *to++ = text[at++];
        }
    }
    if (!found) {
        print_error("\"%s\" is not in the golden\n", what);
    }
    assert_true(found > 0);
    *new_length = (size_t)(to - copy);
    return copy;
}

/* The tied golden's tensors in order of place: embed_tokens [0,512], layers.0.input_layernorm [512,544], … */
static void test_headers(void **state)
{
    static const struct {
        const char *what, *with, *words;
    } cases[] = {
        {"[512,544]", "[508,540]", "overlap"},
        {"[512,544]", "[516,548]", "leave a gap"},
        {"[512,544]", "[0,544]", "takes 32 bytes"},
        {"[512,544]", "[544,512]", "takes 32 bytes"},
        {"[512,544]", "[512]", "malformed"},
        {"[512,544]", "[512,544,560]", "malformed"},
        {"[512,544]", "[-32,0]", "malformed"},
        {"[512,544]", "[512.0,544.0]", "malformed"},
        {"[512,544]", "\"512,544\"", "malformed"},
        {"[512,544]", "[512,9223372036854775807]", "takes 32 bytes"},
        {"[512,544]", "[512,99999999999999999999]", "not valid JSON"},
        {"[16,8]", "[8,16]", "has shape [8, 16]; config.json asks for [16, 8]"},
        {"[16,8]", "[128]", "has shape [128]; config.json asks for [16, 8]"},
        {"[16,8]", "[16,8,1]", "has shape [16, 8, 1]"},
        {"[16,8]", "[16,9]", "takes 576 bytes"},
        {"[16,8]", "[0,8]", "takes 0 bytes"},
        {"[16,8]", "[-16,-8]", "something other than sizes"},
        {"[16,8]", "[16,true]", "something other than sizes"},
        {"[16,8]", "[4294967296,4294967296,8]", "impossibly large"},
        {"[16,8]", "[9223372036854775807,2]", "impossibly large"},
        {"[16,8]", "[4611686018427387904,4]", "impossibly large"},
        {"[16,8]", "[2305843009213693952,8]", "impossibly large"},
        {"[16,8]", "[1,1,1,1,1,1,1,16,8]", "9 dimensions"},
        {"[16,8]", "{\"0\":16}", "malformed"},
        {"\"F32\"", "\"I32\"", "holds I32; supported: F32, BF16 and F16"},
        {"\"F32\"", "\"BF16\"", "takes 256 bytes"},
        {"\"F32\"", "\"F4\"", "takes"},
        {"\"F32\"", "\"FLOAT\"", "unknown dtype \"FLOAT\""},
        {"\"F32\"", "32", "malformed"},
        {"\"dtype\"", "\"type\"", "malformed"},
        {"\"model.norm.weight\"", "\"model.norm.weights\"", "model.norm.weight of shape [8] is missing"},
        {"\"model.embed_tokens.weight\"", "\"x\"", "model.embed_tokens.weight of shape [16, 8] is missing"},
        {"\"model.norm.weight\"", "\"model.embed_tokens.weight\"", "duplicate"},
        {"\"model.norm.weight\"", "\"a\\u0000b\"", "not valid JSON"},
        {"\"model.norm.weight\"", "\"a\nb\"", "not valid JSON"},
        {"\"model.norm.weight\"", "\"\xff\xfe\"", "not valid JSON"},
        {"\"model.norm.weight\"", "\"a\\nb\\u001b[31m\"", "model.norm.weight"},
        {"\"pt\"", "7", "__metadata__"},
        {"{\"format\":\"pt\"}", "[]", "__metadata__"},
        {"}}", "}", "not valid JSON"},
        {"}}", "}}}", "not valid JSON"},
    };
    struct victim v = victim_new("tied");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t length;
        char *header = replaced(v.file + 8, v.header, cases[i].what, cases[i].with, &length);
        write_weights(&v, header, length, v.file + 8 + v.header, v.size - 8 - v.header);
        assert_refused(v.dir, cases[i].with, cases[i].words);
        free(header);
    }
    victim_free(&v);
}

static void test_lengths(void **state)
{
    struct victim v = victim_new("tied");
    char *path = folder_path(v.dir, WEIGHTS);
    for (size_t length = v.size; length > 0;) { /* every cut near the ends, and one in seven between */
        length -= length < 24 || length + 9 > v.size ? 1 : 7;
        assert_int_equal(truncate(path, (off_t)length), 0);
        assert_refused(v.dir, "truncated", WEIGHTS);
    }
    free(path);
    static const uint64_t lengths[] = {0,         1,          7,          (uint64_t)1 << 20, (uint64_t)1 << 26,
                                       100000001, UINT32_MAX, UINT64_MAX, (uint64_t)1 << 63, UINT64_MAX - 7};
    char *copy = malloc(v.size + 5);
    assert_non_null(copy);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memcpy(copy, v.file, v.size);
        memcpy(copy, &lengths[i], 8);
        file_write(v.dir, WEIGHTS, copy, v.size);
        assert_refused(v.dir, "header length", WEIGHTS);
    }
    memcpy(copy, v.file, v.size);
    memset(copy + v.size, 0, 5);
    file_write(v.dir, WEIGHTS, copy, v.size + 5);
    assert_refused(v.dir, "trailing bytes", "5 bytes follow the last tensor");
    free(copy);
    victim_free(&v);
}

/* A header of one kind of bracket: the parser must stop, not recurse until the stack is gone. */
static void test_nesting(void **state)
{
    struct victim v = victim_new("tied");
    const size_t depth = 1 << 20;
    char *deep = malloc(depth);
    assert_non_null(deep);
    memset(deep, '[', depth);
    write_weights(&v, deep, depth, "", 0);
    assert_refused(v.dir, "nesting", "not valid JSON");
    for (size_t i = 0; i + 5 <= depth; i += 5) {
        memcpy(deep + i, "{\"a\":", 5);
    }
    write_weights(&v, deep, depth, "", 0);
    assert_refused(v.dir, "nesting", "not valid JSON");
    free(deep);
    victim_free(&v);
}

static void test_numbers(void **state)
{
    struct victim v = victim_new("tied");
    static const uint32_t bad[] = {0x7f800000, 0xff800000, 0x7fc00000, 0xffffffff};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char kept[4];
        char *at = v.file + 8 + v.header + 512 + 12; /* in layers.0.input_layernorm */
        memcpy(kept, at, 4);
        memcpy(at, &bad[i], 4);
        file_write(v.dir, WEIGHTS, v.file, v.size);
        assert_refused(v.dir, "not finite", "model.layers.0.input_layernorm.weight holds an infinity or a NaN");
        memcpy(at, kept, 4);
    }
    victim_free(&v);
}

static void test_extra_and_tied_tensors(void **state)
{
    struct victim v = victim_new("tied");
    const char *data = v.file + 8 + v.header;
    const size_t size = v.size - 8 - v.header;
    char *grown = malloc(size + 512), entry[200];
    assert_non_null(grown);
    memcpy(grown, data, size);
    memcpy(grown + size, data, 512); /* the embedding once more */
    snprintf(entry, sizeof entry,
             "{\"lm_head.weight\":{\"dtype\":\"F32\",\"shape\":[16,8],\"data_offsets\":[%zu,%zu]},", size, size + 512);
    size_t length;
    char *header = replaced(v.file + 8, v.header, "{\"__metadata__\":{\"format\":\"pt\"},", entry, &length);
    write_weights(&v, header, length, grown, size + 512);
    assert_loads(v.dir, NULL);
    grown[size + 100] ^= 1;
    write_weights(&v, header, length, grown, size + 512);
    assert_refused(v.dir, "another output matrix", "differs from model.embed_tokens.weight");
    free(header);

    snprintf(entry, sizeof entry, "{\"model.inv_freq\":{\"dtype\":\"I64\",\"shape\":[64],\"data_offsets\":[%zu,%zu]},",
             size, size + 512);
    header = replaced(v.file + 8, v.header, "{\"__metadata__\":{\"format\":\"pt\"},", entry, &length);
    write_weights(&v, header, length, grown, size + 512);
    assert_loads(v.dir, "ignored 1 tensor that this model has no use for: model.inv_freq");
    free(header);

    header = replaced(v.file + 8, v.header, "model.embed_tokens.weight", "lm_head.weight", &length);
    write_weights(&v, header, length, data, size);
    assert_loads(v.dir, NULL); /* the shared matrix under its other name */
    free(header);
    free(grown);
    victim_free(&v);
}

/* Whatever the bytes are, the answer is a model or one line. */
static void test_flipped_bytes(void **state)
{
    struct victim v = victim_new("f16");
    uint32_t random = 12345;
    for (int i = 0; i < 600; i++) {
        char *copy = malloc(v.size);
        assert_non_null(copy);
        memcpy(copy, v.file, v.size);
        for (int flips = i % 3; flips >= 0; flips--) {
            random = random * 1664525 + 1013904223;
            const uint32_t place = random >> 8;
            random = random * 1664525 + 1013904223;
            copy[place % (8 + v.header)] = (char)(random >> 24);
        }
        file_write(v.dir, WEIGHTS, copy, v.size);
        sm_checkpoint *checkpoint;
        error = (sm_error){0};
        if (sm_checkpoint_load(&checkpoint, v.dir, &error) == SM_OK) {
            sm_checkpoint_free(checkpoint);
        } else {
            assert_true(error.text[0] != '\0' && !strpbrk(error.text, "\n\r"));
        }
        free(copy);
    }
    victim_free(&v);
}

static void test_configs(void **state)
{
    static const struct {
        const char *what, *with, *words;
    } cases[] = {
        {"\"llama\"", "\"gpt2\"", "model_type \"gpt2\" is not supported; supported: llama, mistral or qwen2"},
        {"\"llama\"", "7", "model_type is 7"},
        {"\"LlamaForCausalLM\"", "\"LlamaForTokenClassification\"", "architectures[0]"},
        {"\"silu\"", "\"gelu\"", "hidden_act is \"gelu\"; expected \"silu\""},
        {"\"hidden_size\": 8", "\"hidden_size\": 0", "hidden_size is 0"},
        {"\"hidden_size\": 8", "\"hidden_size\": -8", "hidden_size is -8"},
        {"\"hidden_size\": 8", "\"hidden_size\": 8.5", "hidden_size is 8.5"},
        {"\"hidden_size\": 8", "\"hidden_size\": \"8\"", "hidden_size is \"8\""},
        {"\"hidden_size\": 8", "\"hidden_size\": 4294967304", "hidden_size is 4294967304"},
        {"\"hidden_size\": 8", "\"hidden_size\": null", "hidden_size is missing"},
        {"\"hidden_size\": 8", "\"hidden_size\": 8, \"hidden_size\": 8", "duplicate"},
        {"\"hidden_size\": 8", "\"hidden_size\": 16", "config.json asks for [16, 16]"},
        {"\"vocab_size\": 16", "\"vocab_size\": 17", "config.json asks for [17, 8]"},
        {"\"vocab_size\": 16", "\"vocab_size\": 99999999", "vocab_size is 99999999"},
        {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3",
         "model.layers.2.input_layernorm.weight of shape [8] is missing"},
        {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1000000000", "num_hidden_layers is 1000000000"},
        {"\"num_key_value_heads\": 1", "\"num_key_value_heads\": 3", "not a multiple of num_key_value_heads (3)"},
        {"\"num_key_value_heads\": 1", "\"num_key_value_heads\": 0", "num_key_value_heads is 0"},
        {"\"head_dim\": 6", "\"head_dim\": 5", "head_dim is 5; expected an even number"},
        {"\"head_dim\": 6", "\"head_dim\": 1000000", "head_dim is 1000000"},
        {"\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": -1", "rms_norm_eps is -1"},
        {"\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": \"tiny\"", "rms_norm_eps is \"tiny\""},
        {"\"eos_token_id\": 2", "\"eos_token_id\": 16",
         "eos_token_id is 16; expected a token id below vocab_size (16)"},
        {"\"eos_token_id\": 2", "\"eos_token_id\": [2, -1]", "eos_token_id is -1"},
        {"\"eos_token_id\": 2", "\"eos_token_id\": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "lists 17 ids"},
        {"\"bos_token_id\": 1", "\"bos_token_id\": \"<s>\"", "bos_token_id is \"<s>\""},
        {"\"rope_type\": \"default\"", "\"rope_type\": \"yarn\", \"factor\": 2", "rope type \"yarn\" is not supported"},
        {"\"rope_type\": \"default\"", "\"rope_type\": \"dynamic\"", "rope type \"dynamic\" is not supported"},
        {"\"rope_type\": \"default\"", "\"rope_type\": \"linear\"", "factor is missing"},
        {"\"rope_type\": \"default\"", "\"rope_type\": \"linear\", \"factor\": 0", "factor is 0"},
        {"\"rope_type\": \"default\"", "\"rope_type\": 3", "rope_type is 3"},
        {"\"rope_type\": \"default\"", "\"partial_rotary_factor\": 0.5", "partial_rotary_factor is 0.5"},
        {"\"rope_theta\": 10000.0", "\"rope_theta\": 0", "rope_theta is 0"},
        {"\"rope_parameters\"", "\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8}, \"x\"",
         "low_freq_factor is missing"},
        {"\"rope_parameters\"", "\"rope_scaling\": [1], \"x\"", "rope_scaling is [1]"},
        {"\"tie_word_embeddings\": true", "\"tie_word_embeddings\": 1", "tie_word_embeddings is 1"},
        {"\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false", "set tie_word_embeddings"},
        {"\"dtype\": \"float32\"", "\"dtype\": \"float8\"", "dtype is \"float8\""},
        {"\"attention_bias\": false", "\"attention_bias\": true", "self_attn.q_proj.bias of shape [12] is missing"},
        {"\"attention_bias\": false", "\"quantization_config\": {\"bits\": 4}", "quantized"},
        {"\"llama\"", "\"mistral\"", "architectures[0]"},
        {"}\n", "} x", "not valid JSON"},
        {"{", "[{", "not valid JSON"},
    };
    struct victim v = victim_new("tied");
    char *path = folder_path(v.dir, "config.json");
    size_t length, changed_length;
    char *text = file_read(path, &length);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *changed = replaced(text, length, cases[i].what, cases[i].with, &changed_length);
        file_write(v.dir, "config.json", changed, changed_length);
        assert_refused(v.dir, cases[i].with, cases[i].words);
        assert_non_null(strstr(error.text, v.dir));
        free(changed);
    }
    for (size_t cut = 0; cut + 2 < length; cut += 5) {
        file_write(v.dir, "config.json", text, cut);
        assert_refused(v.dir, "truncated config", "config.json");
    }
    file_write(v.dir, "config.json", text, length);
    file_write(v.dir, "generation_config.json", "{\"eos_token_id\": [1, 99]}", 25);
    assert_refused(v.dir, "generation_config.json", "generation_config.json: eos_token_id is 99");
    file_write(v.dir, "generation_config.json", "[]", 2);
    assert_refused(v.dir, "generation_config.json", "generation_config.json: holds no JSON object");
    free(text);
    free(path);
    victim_free(&v);
}

static void test_windows(void **state)
{
    struct victim v = victim_new("mistral");
    char *path = folder_path(v.dir, "config.json");
    size_t length, changed_length;
    char *text = file_read(path, &length);
    char *changed = replaced(text, length, "\"sliding_window\": null", "\"sliding_window\": 32", &changed_length);
    file_write(v.dir, "config.json", changed, changed_length);
    assert_refused(v.dir, "window", "sliding_window is 32, shorter than max_position_embeddings (64)");
    free(changed);
    changed = replaced(text, length, "\"sliding_window\": null", "\"sliding_window\": 64", &changed_length);
    file_write(v.dir, "config.json", changed, changed_length);
    assert_loads(v.dir, NULL);
    free(changed);
    free(text);
    free(path);
    victim_free(&v);
}

static void test_shards(void **state)
{
    static const char first[] = "\"model-00001-of-00002.safetensors\"";
    static const struct {
        const char *with, *words;
    } cases[] = {
        {"\"../model-00001-of-00002.safetensors\"", "expected the plain name of a .safetensors file"},
        {"\"/etc/passwd\"", "expected the plain name of a .safetensors file"},
        {"\"/tmp/x.safetensors\"", "expected the plain name of a .safetensors file"},
        {"\"..\"", "expected the plain name"},
        {"\"sub/x.safetensors\"", "expected the plain name"},
        {"\".safetensors\"", "expected the plain name"},
        {"\"x.safetensors\\u0000\"", "not valid JSON"},
        {"\"config.json\"", "expected the plain name"},
        {"7", "puts model."},
        {"\"model-00003-of-00002.safetensors\"", "cannot be read"},
        {"\"model-00002-of-00002.safetensors\"", "is missing, which model.safetensors.index.json places there"},
    };
    struct victim v = victim_new("shards");
    char *path = folder_path(v.dir, "model.safetensors.index.json");
    size_t length, changed_length;
    char *text = file_read(path, &length);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *changed = replaced(text, length, first, cases[i].with, &changed_length);
        file_write(v.dir, "model.safetensors.index.json", changed, changed_length);
        assert_refused(v.dir, cases[i].with, cases[i].words);
        free(changed);
    }
    file_write(v.dir, "model.safetensors.index.json", "{\"weight_map\":{}}", 17);
    assert_refused(v.dir, "empty map", "weight_map is missing or empty");
    file_write(v.dir, "model.safetensors.index.json", text, length);
    char *one = folder_path(v.dir, "model-00001-of-00002.safetensors"), *two = folder_path(v.dir, "copy");
    assert_int_equal(rename(one, two), 0);
    assert_refused(v.dir, "missing file", "model-00001-of-00002.safetensors: cannot be read: No such file");
    assert_int_equal(symlink("copy", one), 0); /* as a hub cache has it */
    assert_loads(v.dir, NULL);
    free(one);
    free(two);
    free(text);
    free(path);
    victim_free(&v);
}

static void test_strange_files(void **state)
{
    struct victim v = victim_new("tied");
    char *weights = folder_path(v.dir, WEIGHTS), *pickle = folder_path(v.dir, "pytorch_model.bin");
    assert_int_equal(unlink(weights), 0);
    assert_refused(v.dir, "no weights", "has no model.safetensors");
    file_write(v.dir, "pytorch_model.bin", "x", 1);
    assert_refused(v.dir, "pickle", "save_pretrained() it again");
    assert_int_equal(mkfifo(weights, 0666), 0);
    assert_refused(v.dir, "pipe", "is not a plain file"); /* and does not wait for a writer */
    assert_int_equal(unlink(weights), 0);
    assert_int_equal(mkdir(weights, 0777), 0);
    assert_refused(v.dir, "folder", "is not a plain file");
    assert_int_equal(rmdir(weights), 0);
    assert_int_equal(symlink(WEIGHTS, weights), 0);
    assert_refused(v.dir, "circle", WEIGHTS);
    assert_int_equal(unlink(weights), 0);
    char *config = folder_path(v.dir, "config.json");
    assert_int_equal(unlink(config), 0);
    assert_refused(v.dir, "no config", "config.json: cannot be read: No such file");
    assert_refused("no/such/folder", "no folder", "no/such/folder/config.json: cannot be read");
    free(config);
    free(pickle);
    free(weights);
    victim_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_extra_and_tied_tensors),
        cmocka_unit_test(test_flipped_bytes),
        cmocka_unit_test(test_configs),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_strange_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
