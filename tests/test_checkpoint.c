/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Checkpoint folders against transformers, torch and numpy (tests/golden/make_checkpoint.py): what is read, written,
 * made anew, averaged and named by content. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "model/average.h"
#include "model/checkpoint.h"
#include "model/dtype.h"
#include "model/publish.h"
#include "tests/folders.h"

static sm_error error;

/* Says what the library complained about when it should not have. */
#define assert_ok(call)                      \
    do {                                     \
        if ((call) != SM_OK) {               \
            print_error("%s\n", error.text); \
            fail();                          \
        }                                    \
    } while (0)

#define assert_refused(call, code, words)                                 \
    do {                                                                  \
        error.text[0] = '\0';                                             \
        assert_int_equal((call), (code));                                 \
        if (!strstr(error.text, (words))) {                               \
            print_error("expected \"%s\" in: %s\n", (words), error.text); \
            fail();                                                       \
        }                                                                 \
    } while (0)

static char *golden(const char *name)
{
    char path[240];
    snprintf(path, sizeof path, "checkpoint/%s", name);
    return golden_path(path);
}

static int save(const char *to, const sm_layout *layout, const float *params, kn_dtype dtype, const char *source,
                sm_error *why)
{
    const sm_numbers numbers = {.params = params};
    return sm_checkpoint_save(to, layout, &numbers, dtype, source, why);
}

static float *golden_values(const char *name, size_t *count)
{
    char file[200];
    snprintf(file, sizeof file, "%s.values", name);
    char *path = golden(file);
    float *values = (float *)(void *)file_read(path, count);
    *count /= sizeof *values;
    free(path);
    return values;
}

static sm_checkpoint *load(const char *dir)
{
    sm_checkpoint *checkpoint;
    assert_ok(sm_checkpoint_load(&checkpoint, dir, &error));
    return checkpoint;
}

static sm_checkpoint *load_golden(const char *name)
{
    char *dir = golden(name);
    sm_checkpoint *checkpoint = load(dir);
    free(dir);
    return checkpoint;
}

static void assert_values(const sm_checkpoint *checkpoint, const char *name)
{
    size_t count;
    float *values = golden_values(name, &count);
    assert_int_equal(count, checkpoint->layout.count);
    assert_memory_equal(values, checkpoint->params, count * sizeof *values);
    free(values);
}

static const struct {
    const char *name;
    kn_dtype dtype;
    uint32_t head_dim;
    bool tied, qkv_bias, out_bias;
} models[] = {{"tied", KN_F32, 6, true, false, false},     {"untied", KN_F32, 4, false, false, false},
              {"biases", KN_BF16, 4, false, true, true},   {"f16", KN_F16, 2, true, false, false},
              {"shards", KN_BF16, 6, false, false, false}, {"qwen2", KN_BF16, 4, true, true, false},
              {"mistral", KN_BF16, 4, false, false, false}};

static void test_loads_what_transformers_saved(void **state)
{
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        sm_checkpoint *checkpoint = load_golden(models[i].name);
        const sm_config *config = &checkpoint->layout.config;
        assert_values(checkpoint, models[i].name);
        assert_int_equal(checkpoint->stored, models[i].dtype);
        assert_int_equal(config->dtype, models[i].dtype);
        assert_int_equal(config->head_dim, models[i].head_dim);
        assert_int_equal(config->heads, 2);
        assert_int_equal(config->kv_heads, 1);
        assert_int_equal(config->tied, models[i].tied);
        assert_int_equal(config->qkv_bias, models[i].qkv_bias);
        assert_int_equal(config->out_bias, models[i].out_bias);
        assert_int_equal(config->bos, 1);
        assert_int_equal(config->pad, SM_NO_TOKEN);
        assert_int_equal(config->eos_count, 1);
        assert_int_equal(config->eos[0], 2);
        assert_null(checkpoint->note);
        assert_int_equal((uintptr_t)checkpoint->params % 64, 0);
        sm_checkpoint_free(checkpoint);
    }
}

static void test_layout_is_fused_and_dense(void **state)
{
    sm_checkpoint *checkpoint = load_golden("biases");
    const sm_layout *layout = &checkpoint->layout;
    const sm_config *c = &layout->config;
    size_t next = 0;
    for (size_t i = 0; i < layout->tensors; i++) {
        assert_int_equal(layout->tensor[i].offset, next);
        next += layout->tensor[i].count;
    }
    assert_int_equal(next, layout->count);
    const sm_tensor *k = sm_layout_find(layout, "model.layers.1.self_attn.k_proj.weight");
    assert_int_equal(k->offset, layout->layer[1].qkv + (size_t)c->heads * c->head_dim * c->hidden);
    const sm_tensor *up = sm_layout_find(layout, "model.layers.1.mlp.up_proj.bias");
    assert_int_equal(up->offset, layout->layer[1].gate_up_bias + c->intermediate);
    assert_int_equal(sm_layout_find(layout, "lm_head.weight")->offset, layout->head);
    assert_null(sm_layout_find(layout, "model.layers.2.input_layernorm.weight"));
    sm_checkpoint_free(checkpoint);
    checkpoint = load_golden("tied");
    assert_int_equal(checkpoint->layout.head, checkpoint->layout.embed);
    assert_int_equal(checkpoint->layout.layer[0].qkv_bias, SM_ABSENT);
    sm_checkpoint_free(checkpoint);
}

static void test_saves_the_bytes_that_transformers_saves(void **state)
{
    char *dir = folder_new();
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        sm_checkpoint *checkpoint = load_golden(models[i].name);
        char *source = golden(models[i].name), *to = folder_path(dir, models[i].name);
        assert_ok(save(to, &checkpoint->layout, checkpoint->params, models[i].dtype, source, &error));
        static const char *const files[] = {"config.json", "generation_config.json", "tokenizer.json",
                                            "tokenizer_config.json", "model.safetensors"};
        for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
            char *ours = folder_path(to, files[f]), *theirs = folder_path(source, files[f]);
            if (access(theirs, F_OK) == 0) { /* the sharded model comes back as one file */
                size_t our_size, their_size;
                char *a = file_read(ours, &our_size), *b = file_read(theirs, &their_size);
                assert_int_equal(our_size, their_size);
                assert_memory_equal(a, b, our_size);
                free(a);
                free(b);
            }
            free(ours);
            free(theirs);
        }
        assert_int_equal(folder_count(to), 5);
        sm_checkpoint *again = load(to);
        assert_values(again, models[i].name);
        sm_checkpoint_free(again);
        sm_checkpoint_free(checkpoint);
        free(source);
        free(to);
    }
    assert_int_equal(folder_count(dir), sizeof models / sizeof *models);
    folder_remove(dir);
}

static void test_save_casts_and_says_so_in_the_config(void **state)
{
    char *dir = folder_new(), *source = golden("tied"), *to = folder_path(dir, "half/");
    sm_checkpoint *checkpoint = load(source);
    const sm_layout *layout = &checkpoint->layout;
    assert_ok(save(to, layout, checkpoint->params, KN_BF16, source, &error));
    sm_checkpoint *half = load(to);
    assert_int_equal(half->stored, KN_BF16);
    assert_int_equal(half->layout.config.dtype, KN_BF16);
    for (size_t i = 0; i < layout->count; i++) {
        uint16_t bits;
        float rounded;
        sm_dtype_encode(&bits, &checkpoint->params[i], 1, KN_BF16);
        sm_dtype_decode(&rounded, &bits, 1, KN_BF16);
        assert_true(half->params[i] == rounded && fabsf(rounded - checkpoint->params[i]) <= fabsf(rounded) / 256);
    }
    sm_checkpoint_free(half);
    sm_checkpoint_free(checkpoint);
    free(source);
    free(to);
    folder_remove(dir);
}

static void test_save_refuses_and_leaves_nothing(void **state)
{
    char *dir = folder_new(), *source = golden("tied"), *to = folder_path(dir, "new"), *other = golden("untied");
    sm_checkpoint *checkpoint = load(source);
    const sm_layout *layout = &checkpoint->layout;
    float *value = &checkpoint->params[sm_layout_find(layout, "model.layers.1.mlp.down_proj.weight")->offset + 5];
    const float kept = *value;
    *value = NAN;
    assert_refused(save(to, layout, checkpoint->params, KN_F32, source, &error), SM_FORMAT,
                   "model.layers.1.mlp.down_proj.weight");
    *value = 70000;
    assert_refused(save(to, layout, checkpoint->params, KN_F16, source, &error), SM_FORMAT, "float16");
    *value = kept;
    assert_refused(save(to, layout, checkpoint->params, KN_F32, other, &error), SM_MISMATCH, "shape");
    assert_int_equal(folder_count(dir), 0);
    file_write(dir, "new", "mine", 4);
    assert_refused(save(to, layout, checkpoint->params, KN_F32, source, &error), SM_IO, "already exists");
    assert_int_equal(folder_count(dir), 1);
    char *deep = folder_path(dir, "no/such/new");
    assert_refused(save(deep, layout, checkpoint->params, KN_F32, source, &error), SM_IO, "No such file");
    free(deep);
    sm_checkpoint_free(checkpoint);
    free(source);
    free(other);
    free(to);
    folder_remove(dir);
}

static void test_save_takes_text_files_and_leaves_weights_behind(void **state)
{
    char *dir = folder_new(), *golden_dir = golden("tied"), *source = folder_path(dir, "source");
    assert_int_equal(mkdir(source, 0777), 0);
    folder_copy(golden_dir, source);
    file_write(source, "chat_template.jinja", "{{ x }}", 7);
    file_write(source, "pytorch_model.bin", "old", 3);
    file_write(source, "training_args.bin", "old", 3);
    file_write(source, ".hidden", "x", 1);
    char *inner = folder_path(source, "checkpoint-500"), *link = folder_path(source, "merges.txt");
    assert_int_equal(mkdir(inner, 0777), 0);
    assert_int_equal(symlink("tokenizer_config.json", link), 0);
    char *to = folder_path(dir, "to");
    assert_int_equal(mkdir(to, 0777), 0); /* an empty folder is as good as none */
    sm_checkpoint *checkpoint = load(source);
    assert_ok(save(to, &checkpoint->layout, checkpoint->params, KN_F32, source, &error));
    assert_int_equal(folder_count(to), 7);
    char *template = folder_path(to, "chat_template.jinja"), *text = file_read(template, NULL);
    assert_string_equal(text, "{{ x }}");
    sm_checkpoint_free(checkpoint);
    free(text);
    free(template);
    free(to);
    free(link);
    free(inner);
    free(source);
    free(golden_dir);
    folder_remove(dir);
}

static void test_dtype_fields_change_and_nothing_else(void **state)
{
    static const struct {
        const char *before, *after;
    } cases[] = {
        {"{\"dtype\":\"float32\"}", "{\"dtype\":\"bfloat16\"}"},
        {"{ \"a\": {\"dtype\": \"x\"}, \"torch_dtype\" : null ,\"b\":1e-05}",
         "{ \"a\": {\"dtype\": \"x\"}, \"torch_dtype\" : \"bfloat16\" ,\"b\":1e-05}"},
        {"{\"x\":\"dtype\",\"y\":[\"torch_dtype\"],\"q\":\"\\\"dtype\\\":\",\"dtype\":\"float16\",\"torch_dtype\":"
         "\"float16\"}",
         "{\"x\":\"dtype\",\"y\":[\"torch_dtype\"],\"q\":\"\\\"dtype\\\":\",\"dtype\":\"bfloat16\",\"torch_dtype\":"
         "\"bfloat16\"}"},
        {"{\"a\": 1}", "{\n  \"torch_dtype\": \"bfloat16\",\"a\": 1}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t length;
        char *after = sm_config_with_dtype(cases[i].before, strlen(cases[i].before), KN_BF16, &length);
        assert_int_equal(length, strlen(cases[i].after));
        assert_memory_equal(after, cases[i].after, length);
        free(after);
    }
}

/* Parts in any order make the file that front to back makes, and one with a part missing is not finished. */
static void test_parts_at_their_places(void **state)
{
    const sm_tensor tensors[] = {{.name = "b", .rank = 1, .shape = {3, 1}, .count = 3},
                                 {.name = "a", .rank = 2, .shape = {2, 2}, .count = 4}};
    const float values[] = {1, 2, 3, 4, 5, 6, 7}; /* "a" comes first */
    char *folder = folder_new(), *path[3];
    for (int i = 0; i < 3; i++) {
        const char *names[] = {"in-order", "in-parts", "short"};
        sm_safetensors_writer *writer;
        path[i] = folder_path(folder, names[i]);
        assert_ok(sm_safetensors_create(&writer, path[i], KN_BF16, tensors, 2, &error));
        if (i == 0) {
            assert_ok(sm_safetensors_write(writer, values, 4, &error));
            assert_ok(sm_safetensors_write(writer, values + 4, 3, &error));
            assert_refused(sm_safetensors_write(writer, values, 1, &error), SM_BAD_ARGUMENT, "more values");
        } else {
            assert_ok(sm_safetensors_write_at(writer, 1, 1, values + 5, 2, &error));
            assert_ok(sm_safetensors_write_at(writer, 0, 0, values, 4, &error));
            assert_refused(sm_safetensors_write_at(writer, 1, 2, values, 2, &error), SM_BAD_ARGUMENT, "more values");
            assert_refused(sm_safetensors_write_at(writer, 2, 0, values, 1, &error), SM_BAD_ARGUMENT, "more values");
        }
        if (i == 2) {
            assert_refused(sm_safetensors_finish(writer, 1, &error), SM_BAD_ARGUMENT, "not all");
            break;
        }
        if (i == 1) {
            assert_ok(sm_safetensors_write_at(writer, 1, 0, values + 4, 1, &error));
        }
        assert_ok(sm_safetensors_finish(writer, 1, &error));
    }
    size_t lengths[2];
    char *bytes[] = {file_read(path[0], &lengths[0]), file_read(path[1], &lengths[1])};
    assert_int_equal(lengths[0], lengths[1]);
    assert_memory_equal(bytes[0], bytes[1], lengths[0]);
    for (int i = 0; i < 3; i++) {
        free(path[i]);
        free(i < 2 ? bytes[i] : NULL);
    }
    folder_remove(folder);
}

/* Long runs go through vector loops: they give what one number at a time gives, and no place hides a number that is not
 * finite. */
static void test_dtype_of_long_runs(void **state)
{
    enum { COUNT = 0x10000, AT = 77 };
    static uint16_t halves[COUNT + 1], back[COUNT];
    static float values[COUNT + 1];
    for (kn_dtype dtype = KN_BF16; dtype <= KN_F16; dtype++) {
        for (uint32_t i = 0; i < COUNT; i++) {
            halves[i] = (uint16_t)i;
        }
        assert_false(sm_dtype_decode(values, halves, COUNT, dtype)); /* infinities and NaNs are among them */
        for (uint32_t i = 0; i < COUNT; i++) {
            float one;
            const bool finite = sm_dtype_decode(&one, &halves[i], 1, dtype);
            assert_memory_equal(&one, &values[i], sizeof one);
            assert_int_equal(finite, isfinite(one) != 0);
            values[i] = isfinite(one) ? one : 0.5f;
        }
        assert_true(sm_dtype_finite(values, COUNT));
        assert_true(sm_dtype_encode(back, values, COUNT, dtype));
        for (uint32_t i = 0; i < COUNT; i++) {
            uint16_t one;
            sm_dtype_encode(&one, &values[i], 1, dtype);
            assert_int_equal(one, back[i]);
        }
        for (size_t length = AT + 1; length < AT + 70; length++) {
            for (size_t i = 0; i < 2; i++) { /* in the middle of a vector, and behind the last whole one */
                const size_t place = i ? length - 1 : AT / 2;
                const float kept = values[place];
                values[place] = -INFINITY;
                assert_false(sm_dtype_finite(values, length));
                assert_false(sm_dtype_encode(back, values, length, dtype));
                assert_false(sm_dtype_decode(values, values, length, KN_F32));
                values[place] = kept;
                assert_true(sm_dtype_encode(back, values, length, dtype));
                back[place] = 0x7fff;
                assert_false(sm_dtype_decode(values + length, back, length, dtype));
            }
        }
    }
}

static void test_dtype_rounding_is_torchs(void **state)
{
    size_t count;
    uint32_t *table = (uint32_t *)(void *)golden_values("dtype", &count);
    assert_true(count > 3000);
    for (size_t i = 0; i + 2 < count; i += 3) {
        float value, back;
        memcpy(&value, &table[i], sizeof value);
        uint16_t half;
        assert_int_equal(sm_dtype_encode(&half, &value, 1, KN_BF16), (table[i + 1] & 0x7f80) != 0x7f80);
        assert_int_equal(half, table[i + 1]);
        assert_int_equal(sm_dtype_encode(&half, &value, 1, KN_F16), (table[i + 2] & 0x7c00) != 0x7c00);
        assert_int_equal(half, table[i + 2]);
        assert_true(sm_dtype_encode(&back, &value, 1, KN_F32));
        assert_memory_equal(&back, &value, sizeof value);
    }
    free(table);
    /* Every 16-bit number survives the way to float32 and back. */
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        const uint16_t half = (uint16_t)bits;
        for (kn_dtype dtype = KN_BF16; dtype <= KN_F16; dtype++) {
            float value;
            uint16_t back;
            sm_dtype_decode(&value, &half, 1, dtype);
            if (isfinite(value)) {
                sm_dtype_encode(&back, &value, 1, dtype);
                assert_int_equal(back, half);
            }
        }
    }
}

static void test_rope_frequencies_are_transformers(void **state)
{
    char *path = golden("rope.json");
    json_t *file = json_load_file(path, 0, NULL), *one;
    free(path);
    size_t index;
    assert_int_equal(json_array_size(json_object_get(file, "cases")), 7);
    json_array_foreach(json_object_get(file, "cases"), index, one)
    {
        char *text = json_dumps(json_object_get(one, "config"), 0);
        sm_config config;
        assert_ok(sm_config_parse(&config, "rope.json", text, strlen(text), NULL, NULL, 0, &error));
        free(text);
        float frequency[16];
        assert_int_equal(config.head_dim, 32);
        sm_config_rope_frequencies(&config, frequency);
        for (size_t i = 0; i < 16; i++) {
            const double theirs = json_real_value(json_array_get(json_object_get(one, "frequency"), i));
            if (fabs(frequency[i] - theirs) > 3e-7 * theirs) {
                print_error("case %zu, pair %zu: %.9g, expected %.9g\n", index, i, frequency[i], theirs);
                fail();
            }
        }
    }
    json_decref(file);
}

static void test_create_is_normal_and_repeats(void **state)
{
    char *dir = folder_new();
    const char config[] =
        "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":128,\"num_hidden_layers\":2,"
        "\"num_attention_heads\":4,\"vocab_size\":512,\"mlp_bias\":true,\"initializer_range\":0.05}";
    file_write(dir, "config.json", config, strlen(config));
    sm_checkpoint *a, *b, *c;
    assert_ok(sm_checkpoint_create(&a, dir, 7, &error));
    assert_ok(sm_checkpoint_create(&b, dir, 7, &error));
    assert_ok(sm_checkpoint_create(&c, dir, 8, &error));
    assert_memory_equal(a->params, b->params, a->layout.count * sizeof(float));
    assert_memory_not_equal(a->params, c->params, a->layout.count * sizeof(float));
    for (size_t i = 0; i < a->layout.tensors; i++) {
        const sm_tensor *tensor = &a->layout.tensor[i];
        double sum = 0, squares = 0, fourth = 0;
        for (size_t k = 0; k < tensor->count; k++) {
            const double x = a->params[tensor->offset + k] / 0.05;
            sum += x;
            squares += x * x;
            fourth += x * x * x * x;
        }
        const double n = (double)tensor->count;
        if (tensor->rank == 2) { /* moments of a normal, to five standard errors */
            assert_true(fabs(sum / n) < 5 / sqrt(n));
            assert_true(fabs(squares / n - 1) < 5 * sqrt(2 / n));
            assert_true(fabs(fourth / n - 3) < 5 * sqrt(96 / n));
        } else {
            const double expected = strstr(tensor->name, ".bias") ? 0 : 1;
            assert_true(fabs(sum * 0.05 / n - expected) < 1e-9);
        }
    }
    sm_checkpoint_free(a);
    sm_checkpoint_free(b);
    sm_checkpoint_free(c);
    folder_remove(dir);
}

static void test_hash_follows_content_not_place(void **state)
{
    char *dir = folder_new(), *source = golden("tied");
    folder_copy(source, dir);
    uint64_t first[2], second[2];
    assert_ok(sm_checkpoint_hash(first, source, &error));
    file_write(dir, "README.md", "hello", 5);
    assert_ok(sm_checkpoint_hash(second, dir, &error));
    assert_memory_equal(first, second, sizeof first);
    static const char *const files[] = {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = folder_path(dir, files[i]);
        size_t length;
        char *bytes = file_read(path, &length);
        bytes[length / 2] ^= 1;
        file_write(dir, files[i], bytes, length);
        assert_ok(sm_checkpoint_hash(second, dir, &error));
        assert_memory_not_equal(first, second, sizeof first);
        bytes[length / 2] ^= 1;
        file_write(dir, files[i], bytes, length);
        free(bytes);
        free(path);
    }
    assert_ok(sm_checkpoint_hash(second, dir, &error));
    assert_memory_equal(first, second, sizeof first);
    file_write(dir, "chat_template.jinja", "", 0);
    assert_ok(sm_checkpoint_hash(second, dir, &error));
    assert_memory_not_equal(first, second, sizeof first);
    free(source);
    folder_remove(dir);
}

static void test_averages_are_numpys(void **state)
{
    char *const dirs[] = {golden("tied"), golden("second"), golden("bf16-third")};
    const double weights[] = {1, 2.5, 0.5};
    static const char *const names[] = {"mean", "weighted", "running"};
    char *dir = folder_new();
    for (int method = SM_AVERAGE_MEAN; method <= SM_AVERAGE_RUNNING; method++) {
        const sm_average average = {(sm_average_method)method, (const char *const *)dirs, 3, weights, 0.3, KN_F32};
        char *to = folder_path(dir, names[method]);
        assert_ok(sm_average_write(to, &average, &error));
        sm_checkpoint *result = load(to);
        assert_values(result, names[method]);
        assert_int_equal(folder_count(to), 5);
        sm_checkpoint_free(result);
        free(to);
    }
    for (size_t i = 0; i < 3; i++) {
        free(dirs[i]);
    }
    folder_remove(dir);
}

static int average_of(const char *to, const char *a, const char *b, const double *weights, double mu)
{
    const char *const dirs[] = {a, b};
    const sm_average average = {weights ? SM_AVERAGE_WEIGHTED : SM_AVERAGE_RUNNING, dirs, 2, weights, mu, KN_F32};
    return sm_average_write(to, &average, &error);
}

/* Puts `with` in place of `what` in folder/name. */
static void replace(const char *folder, const char *name, const char *what, const char *with)
{
    char *path = folder_path(folder, name), *text = file_read(path, NULL), *at = strstr(text, what);
    assert_non_null(at);
    const size_t room = strlen(text) + strlen(with) + 1;
    char *changed = malloc(room);
    assert_non_null(changed);
    snprintf(changed, room, "%.*s%s%s", (int)(at - text), text, with, at + strlen(what));
    file_write(folder, name, changed, strlen(changed));
    free(changed);
    free(text);
    free(path);
}

static void test_averages_refuse_strangers(void **state)
{
    char *dir = folder_new(), *a = golden("tied"), *b = folder_path(dir, "b"), *to = folder_path(dir, "to");
    char *wider = golden("untied");
    assert_int_equal(mkdir(b, 0777), 0);
    folder_copy(a, b);
    assert_refused(average_of(to, a, wider, NULL, 0.5), SM_MISMATCH, "head_dim is 6");
    assert_refused(average_of(to, a, b, NULL, 1.5), SM_BAD_ARGUMENT, "mu is 1.5");
    assert_refused(average_of(to, a, b, NULL, NAN), SM_BAD_ARGUMENT, "mu is");
    assert_refused(average_of(to, a, b, (const double[]){1, -1}, 0), SM_BAD_ARGUMENT, "is -1; expected 0 or more");
    assert_refused(average_of(to, a, b, (const double[]){0, 0}, 0), SM_BAD_ARGUMENT, "add up to 0");
    replace(b, "tokenizer.json", "\"d\": 6", "\"D\": 6");
    assert_refused(average_of(to, a, b, NULL, 0.5), SM_MISMATCH, "model.vocab.d is 6");
    replace(b, "tokenizer.json", "\"D\": 6", "\"d\": 16");
    assert_refused(average_of(to, a, b, NULL, 0.5), SM_MISMATCH, "model.vocab.d is 6");
    replace(b, "tokenizer.json", "\"d\": 16", "\"d\":    6"); /* layout is nobody's business */
    replace(b, "config.json", "10000.0", "20000");
    assert_refused(average_of(to, a, b, NULL, 0.5), SM_MISMATCH, "rope_theta is 10000");
    replace(b, "config.json", "20000", "10000");
    char *tokenizer = folder_path(b, "tokenizer.json");
    assert_int_equal(unlink(tokenizer), 0);
    assert_refused(average_of(to, a, b, NULL, 0.5), SM_MISMATCH, "has none");
    assert_int_equal(folder_count(dir), 1);
    free(tokenizer);
    free(wider);
    free(a);
    free(b);
    free(to);
    folder_remove(dir);
}

static void test_reads_the_published_stories_model(void **state)
{
    const char *dir = getenv("SLUICE_STORIES");
    if (!dir) {
        print_message("skipped: SLUICE_STORIES names no folder\n");
        skip();
    }
    sm_checkpoint *checkpoint = load(dir);
    assert_int_equal(checkpoint->layout.count, 260032);
    assert_int_equal(checkpoint->layout.config.eos_count, 2); /* generation_config.json's list */
    sm_checkpoint_free(checkpoint);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loads_what_transformers_saved),
        cmocka_unit_test(test_layout_is_fused_and_dense),
        cmocka_unit_test(test_saves_the_bytes_that_transformers_saves),
        cmocka_unit_test(test_save_casts_and_says_so_in_the_config),
        cmocka_unit_test(test_save_refuses_and_leaves_nothing),
        cmocka_unit_test(test_save_takes_text_files_and_leaves_weights_behind),
        cmocka_unit_test(test_dtype_fields_change_and_nothing_else),
        cmocka_unit_test(test_dtype_rounding_is_torchs),
        cmocka_unit_test(test_dtype_of_long_runs),
        cmocka_unit_test(test_parts_at_their_places),
        cmocka_unit_test(test_rope_frequencies_are_transformers),
        cmocka_unit_test(test_create_is_normal_and_repeats),
        cmocka_unit_test(test_hash_follows_content_not_place),
        cmocka_unit_test(test_averages_are_numpys),
        cmocka_unit_test(test_averages_refuse_strangers),
        cmocka_unit_test(test_reads_the_published_stories_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
