/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The service sluice.model/1 as a plugin sees it: versions shared, copies written, training saved, errors reported. */
#include "tests/model_golden.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sluice/sluice.h>

#include "tests/folders.h"

extern const sluice_plugin sluice_plugin_entry;

/* --- a host that remembers the last error ---------------------------------------------------------------------------
 */

static char last_error[2000];
static int last_code, log_lines;

static void host_error(const sluice_host *host, const sluice_record *record, int code, const char *format, va_list args)
{
    (void)host;
    (void)record;
    last_code = code;
    vsnprintf(last_error, sizeof(last_error), format, args);
}

static void host_log(const sluice_host *host, int level, const char *format, va_list args)
{
    (void)host;
    (void)level;
    (void)format;
    (void)args;
    log_lines++;
}

/* No other service: no backend but the processor's. */
static const void *host_service(const sluice_host *host, const char *id)
{
    return NULL;
}

static const sluice_host_api host_api = {
    .size = sizeof(host_api), .verror = host_error, .vlog = host_log, .service = host_service};
static const sluice_host host = {&host_api};

/* --- the service ----------------------------------------------------------------------------------------------------
 */

static const sluice_model_service *service;
static void *state_of_service;

static int start(void **state)
{
    (void)state;
    const sluice_service_class *class = (const sluice_service_class *)(const void *)sluice_plugin_entry.classes[0];
    assert_string_equal(class->service, SLUICE_MODEL_SERVICE);
    state_of_service = calloc(1, class->base.state_size);
    assert_non_null(state_of_service);
    *(int64_t *)((char *)state_of_service + class->base.params[0].offset) = 2; /* threads */
    assert_int_equal(class->base.init(state_of_service, &host), SLUICE_OK);
    service = class->get(state_of_service);
    assert_int_equal(service->size, sizeof(*service));
    assert_non_null(class->numerics(state_of_service));
    return 0;
}

static int stop(void **state)
{
    (void)state;
    const sluice_service_class *class = (const sluice_service_class *)(const void *)sluice_plugin_entry.classes[0];
    class->base.fini(state_of_service);
    free(state_of_service);
    return 0;
}

static const char *golden_of(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof(path), "%s/golden/model/%s", getenv("SLUICE_TEST_DATA"), name);
    return path;
}

static int try_open(const char *path, const char *dtype, sluice_model **out)
{
    const sluice_model_ref ref = {.slot = "policy", .path = path, .dtype = dtype, .text = "policy@0"};
    return service->open(service, &host, &ref, out);
}

static sluice_model *opened_in(const char *path, const char *dtype)
{
    sluice_model *model;
    if (try_open(path, dtype, &model) != SLUICE_OK)
        fail_msg("%s", last_error);
    return model;
}

static sluice_model *opened(const char *path)
{
    return opened_in(path, "float32");
}

static sluice_model *opened_random(const char *path, uint64_t seed)
{
    const sluice_model_ref ref = {
        .slot = "policy", .path = path, .dtype = "float32", .text = "policy", .random = true, .seed = seed};
    sluice_model *model;
    if (service->open(service, &host, &ref, &model) != SLUICE_OK)
        fail_msg("%s", last_error);
    return model;
}

static double distance(sluice_model *a, sluice_model *b)
{
    double d = -1;
    assert_int_equal(service->distance(a, b, &d), SLUICE_OK);
    return d;
}

/* --- versions -------------------------------------------------------------------------------------------------------
 */

static void one_version_is_one_copy_in_memory(void **state)
{
    (void)state;
    sluice_model *a = opened(golden_of("grouped")), *b = opened(golden_of("grouped/../grouped/"));
    sluice_tensor x, y;
    sluice_model_info info = {.size = sizeof(info)}, other = {.size = sizeof(other)};
    assert_ptr_not_equal(a, b);
    assert_int_equal(service->tensor(a, 0, &x), SLUICE_OK);
    assert_int_equal(service->tensor(b, 0, &y), SLUICE_OK);
    assert_ptr_equal(x.data, y.data);
    assert_string_equal(x.name, "model.embed_tokens.weight");
    assert_int_equal(service->tensor_count(a), 2 + 2 * 9);
    assert_true(service->tensor(a, 20, &x) < 0);
    assert_int_equal(service->info(a, &info), SLUICE_OK);
    assert_int_equal(info.vocabulary, 80);
    assert_int_equal(info.context, 64);
    assert_int_equal(info.start_id, 1);
    assert_int_equal(info.stop_count, 1);
    assert_int_equal(info.stop_ids[0], 2);
    assert_false(info.has_tokenizer);
    service->close(a);
    assert_int_equal(service->info(b, &other), SLUICE_OK); /* still open */
    assert_memory_equal(info.content_hash, other.content_hash, 16);
    service->close(b);
    sluice_model *c = opened(golden_of("qwen2"));
    assert_int_equal(service->info(c, &other), SLUICE_OK);
    assert_memory_not_equal(info.content_hash, other.content_hash, 16);
    service->close(c);
}

static void what_cannot_be_opened_is_said_in_one_line(void **state)
{
    (void)state;
    sluice_model *model;
    assert_int_equal(try_open("/nowhere/at/all", "float32", &model), SLUICE_BAD_MODEL);
    assert_null(model);
    assert_non_null(strstr(last_error, "/nowhere/at/all"));
    assert_null(strchr(last_error, '\n'));
    assert_true(try_open(golden_of(""), NULL, &model) < 0); /* a folder without config.json */
    assert_non_null(strstr(last_error, "config.json"));
    assert_int_equal(try_open(golden_of("grouped"), "float16", &model), SLUICE_UNSUPPORTED);
    assert_non_null(strstr(last_error, "float16"));
    assert_int_equal(try_open(golden_of("grouped"), "int8", &model), SLUICE_UNSUPPORTED);
    assert_non_null(strstr(last_error, "int8"));
}

/* bfloat16 is another version in memory, with arithmetic of its own; where the device has none, the log says so. */
static void a_version_is_computed_in_the_type_asked_for(void **state)
{
    (void)state;
    golden g;
    golden_load(&g, "grouped");
    log_lines = 0;
    sluice_model *whole = opened(golden_of("grouped")), *half = opened_in(golden_of("grouped"), "bf16");
    assert_int_equal(log_lines, 2); /* however often it is opened */
    sluice_model *again = opened_in(golden_of("grouped"), "bfloat16");
    assert_int_equal(log_lines, 2);
    sluice_model_info a = {.size = sizeof(a)}, b = {.size = sizeof(b)};
    assert_int_equal(service->info(whole, &a), SLUICE_OK);
    assert_int_equal(service->info(half, &b), SLUICE_OK);
    assert_memory_equal(a.content_hash, b.content_hash, 16);
    float **other = golden_room(g.groups, g.group_count);
    assert_int_equal(service->score(whole, g.groups, g.group_count, g.logps, NULL), SLUICE_OK);
    assert_int_equal(service->score(half, g.groups, g.group_count, other, NULL), SLUICE_OK);
    const size_t bytes = g.groups[0].completions[1].count * sizeof(float);
    if (strcmp(a.numerics, b.numerics) == 0) {
        print_message("this device computes no bfloat16\n");
        assert_memory_equal(g.logps[1], other[1], bytes);
    } else {
        assert_memory_not_equal(g.logps[1], other[1], bytes);
    }
    assert_true(distance(whole, half) == 0); /* the numbers themselves are the files' */
    golden_room_free(other, g.completions);
    golden_free(&g);
    service->close(whole);
    service->close(half);
    service->close(again);
}

static void random_versions_depend_on_the_seed_alone(void **state)
{
    (void)state;
    sluice_model *a = opened_random(golden_of("grouped"), 5), *b = opened_random(golden_of("grouped"), 6);
    sluice_model *file = opened(golden_of("grouped"));
    assert_true(distance(a, b) > 1);
    assert_true(distance(a, file) > 1);
    sluice_model *again = opened_random(golden_of("grouped"), 5);
    assert_true(distance(a, again) == 0);
    service->close(a);
    service->close(b);
    service->close(file);
    service->close(again);
}

static void a_copy_is_written_and_saved_alone(void **state)
{
    (void)state;
    char *folder = folder_new();
    char to[4096];
    snprintf(to, sizeof(to), "%s/copy", folder);
    sluice_model *model = opened(golden_of("wide-heads")), *copy;
    sluice_tensor tensor;
    assert_int_equal(service->copy(model, &copy), SLUICE_OK);
    assert_true(distance(model, copy) == 0);
    assert_int_equal(service->tensor(copy, 3, &tensor), SLUICE_OK);
    tensor.data[0] += 3;
    assert_true(distance(model, copy) > 2.999 && distance(model, copy) < 3.001);
    service->close(model); /* the copy keeps what it needs */
    assert_int_equal(service->save(copy, to), SLUICE_OK);
    sluice_model *saved = opened(to);
    assert_true(distance(saved, copy) == 0);
    /* what the copy computes follows what is written to it */
    const uint32_t tokens[] = {5, 6, 7};
    const sluice_span answer = {tokens + 1, 2};
    const sluice_group group = {{tokens, 1}, &answer, 1, 0};
    float before[2], after[2], *to_before = before, *to_after = after;
    assert_int_equal(service->score(copy, &group, 1, &to_before, NULL), SLUICE_OK);
    tensor.data[1] -= 2;
    assert_int_equal(service->score(copy, &group, 1, &to_after, NULL), SLUICE_OK);
    assert_memory_not_equal(before, after, sizeof(before));
    service->close(saved);
    service->close(copy);
    folder_remove(folder);
}

static void merging_two_folders_gives_their_mean(void **state)
{
    (void)state;
    char *folder = folder_new();
    char to[4096], other[4096];
    snprintf(to, sizeof(to), "%s/mean", folder);
    snprintf(other, sizeof(other), "%s", golden_of("grouped/sft"));
    sluice_model *a = opened(golden_of("grouped")), *b = opened(other);
    const char *const folders[] = {golden_of("grouped"), other};
    if (service->merge(service, &host, SLUICE_MERGE_MEAN, folders, NULL, 2, to, "float32") != SLUICE_OK)
        fail_msg("%s", last_error);
    sluice_model *mean = opened(to);
    const double whole = distance(a, b);
    assert_true(distance(a, mean) > 0.499 * whole && distance(a, mean) < 0.501 * whole);
    assert_true(distance(b, mean) > 0.499 * whole && distance(b, mean) < 0.501 * whole);
    assert_true(service->merge(service, &host, SLUICE_MERGE_MEAN, folders, NULL, 2, to, "int8") < 0);
    assert_non_null(strstr(last_error, "int8"));
    service->close(a);
    service->close(b);
    service->close(mean);
    folder_remove(folder);
}

/* --- computing ------------------------------------------------------------------------------------------------------
 */

typedef struct scorer {
    sluice_model *model;
    const golden *g;
    float **logps;
    int rc;
} scorer;

static void *score_often(void *arg)
{
    scorer *s = arg;
    for (int i = 0; i < 5 && s->rc == SLUICE_OK; i++)
        s->rc = service->score(s->model, s->g->groups, s->g->group_count, s->logps, NULL);
    return NULL;
}

static void threads_share_a_version(void **state)
{
    (void)state;
    golden g;
    golden_load(&g, "grouped");
    scorer scorers[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        scorers[i] = (scorer){opened(golden_of("grouped")), &g, golden_room(g.groups, g.group_count), SLUICE_OK};
        assert_int_equal(pthread_create(&threads[i], NULL, score_often, &scorers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(scorers[i].rc, SLUICE_OK);
        size_t k = 0;
        for (size_t j = 0; j < g.group_count; j++)
            for (size_t c = 0; c < g.groups[j].completion_count; c++, k++)
                assert_memory_equal(scorers[i].logps[k], scorers[0].logps[k],
                                    g.groups[j].completions[c].count * sizeof(float));
    }
    for (int i = 0; i < 4; i++) {
        golden_room_free(scorers[i].logps, g.completions);
        service->close(scorers[i].model);
    }
    golden_free(&g);
}

static int raise_all(void *context, const float *const *logps, float *const *d_logps)
{
    const golden *g = context;
    size_t k = 0;
    (void)logps;
    for (size_t i = 0; i < g->group_count; i++)
        for (size_t c = 0; c < g->groups[i].completion_count; c++, k++)
            for (size_t t = 0; t < g->groups[i].completions[c].count; t++)
                d_logps[k][t] = -1;
    return SLUICE_OK;
}

static void expect_what_was_trained_to_be_saved(const char *dtype)
{
    golden g;
    golden_load(&g, "wide-heads");
    char *folder = folder_new();
    char to[4096];
    snprintf(to, sizeof(to), "%s/trained", folder);
    sluice_model *model = opened_in(golden_of("wide-heads"), dtype);
    const sluice_optimizer optimizer = {
        .size = sizeof(optimizer), .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .max_grad_norm = 1};
    sluice_training *training;
    assert_int_equal(service->train_begin(model, &optimizer, &training), SLUICE_OK);
    for (int i = 0; i < 3; i++) {
        sluice_step_info info;
        assert_int_equal(service->train_gradient(training, g.groups, g.group_count, raise_all, &g), SLUICE_OK);
        assert_int_equal(service->train_step(training, 1e-3, 1, &info), SLUICE_OK);
        assert_true(info.grad_norm > 0 && !info.skipped);
    }
    float **trained = golden_room(g.groups, g.group_count), **saved = golden_room(g.groups, g.group_count);
    assert_int_equal(service->train_score(training, g.groups, g.group_count, trained), SLUICE_OK);
    if (service->train_save(training, to) != SLUICE_OK)
        fail_msg("%s", last_error);
    sluice_model *version = opened_in(to, dtype);
    assert_true(distance(model, version) > 0); /* and the opened version is as it was */
    sluice_model *origin = opened_in(golden_of("wide-heads"), dtype);
    assert_true(distance(model, origin) == 0);
    service->close(origin);
    assert_int_equal(service->score(version, g.groups, g.group_count, saved, NULL), SLUICE_OK);
    double before = 0, after = 0;
    assert_int_equal(service->score(model, g.groups, g.group_count, g.logps, NULL), SLUICE_OK);
    size_t k = 0;
    for (size_t i = 0; i < g.group_count; i++)
        for (size_t c = 0; c < g.groups[i].completion_count; c++, k++)
            for (size_t t = 0; t < g.groups[i].completions[c].count; t++) {
                assert_true(trained[k][t] == saved[k][t]);
                before += g.logps[k][t];
                after += saved[k][t];
            }
    assert_true(after > before);
    service->close(model); /* training outlives the handle it began from */
    assert_int_equal(service->train_score(training, g.groups, g.group_count, trained), SLUICE_OK);
    service->train_end(training);
    service->close(version);
    golden_room_free(trained, g.completions);
    golden_room_free(saved, g.completions);
    golden_free(&g);
    folder_remove(folder);
}

static void what_was_trained_is_what_is_saved(void **state)
{
    (void)state;
    expect_what_was_trained_to_be_saved("float32");
    expect_what_was_trained_to_be_saved("bf16");
}

static int no_prompt(void *context, sluice_generate_prompt *out)
{
    (void)context;
    (void)out;
    return SLUICE_CANCELLED;
}

static void errors_come_back_as_they_are(void **state)
{
    (void)state;
    sluice_model *model = opened(golden_of("grouped"));
    const uint32_t tokens[] = {500, 1};
    const sluice_span answer = {tokens + 1, 1};
    const sluice_group group = {{tokens, 1}, &answer, 1, 0};
    float room, *logps = &room;
    assert_int_equal(service->score(model, &group, 1, &logps, NULL), SLUICE_BAD_RECORD);
    assert_non_null(strstr(last_error, "500"));
    const sluice_generation generation = {.size = sizeof(generation),
                                          .candidates = 1,
                                          .max_tokens = 1,
                                          .temperature = 1,
                                          .top_p = 1,
                                          .repetition_penalty = 1,
                                          .prompt = no_prompt};
    last_code = 0;
    assert_int_equal(service->generate(model, &generation), SLUICE_CANCELLED);
    assert_int_equal(last_code, 0); /* the caller knows its own reason */
    sluice_ids ids = {0};
    assert_int_equal(service->encode(model, "x", 1, 0, &ids), SLUICE_BAD_MODEL);
    assert_non_null(strstr(last_error, "tokenizer.json"));
    service->close(model);
}

/* --- text -----------------------------------------------------------------------------------------------------------
 */

static const char *stories(void)
{
    const char *folder = getenv("SLUICE_STORIES");
    if (!folder || !*folder) {
        print_message("SLUICE_STORIES is not set: the real model is left out\n");
        skip();
    }
    return folder;
}

/* A record that has just a prompt. */
typedef struct prompt_record {
    sluice_record base;
    const char *text;
    const sluice_message *messages;
    size_t message_count;
    const uint32_t *ids;
    size_t id_count;
} prompt_record;

static const char *record_prompt(const sluice_record *r)
{
    return ((const prompt_record *)(const void *)r)->text;
}
static size_t record_messages(const sluice_record *r, const sluice_message **messages)
{
    *messages = ((const prompt_record *)(const void *)r)->messages;
    return ((const prompt_record *)(const void *)r)->message_count;
}
static const uint32_t *record_tokens(const sluice_record *r, size_t *count)
{
    *count = ((const prompt_record *)(const void *)r)->id_count;
    return ((const prompt_record *)(const void *)r)->ids;
}

static const sluice_record_api record_api = {
    .size = sizeof(record_api), .prompt = record_prompt, .messages = record_messages, .prompt_tokens = record_tokens};

static void text_becomes_ids_and_back(void **state)
{
    (void)state;
    static const uint32_t expected[] = {1, 403, 407, 261, 378};
    sluice_model *model = opened(stories());
    sluice_ids ids = {0};
    sluice_text text = {0};
    assert_int_equal(service->encode(model, "Once upon a time", 16, SLUICE_ENCODE_START, &ids), SLUICE_OK);
    assert_int_equal(ids.count, 5);
    assert_memory_equal(ids.items, expected, sizeof(expected));
    assert_int_equal(service->decode(model, ids.items, ids.count, false, &text), SLUICE_OK);
    assert_string_equal(text.text, "Once upon a time");
    assert_int_equal(service->decode(model, ids.items, 0, false, &text), SLUICE_OK);
    assert_string_equal(text.text, "");
    ids.count = 0;
    assert_int_equal(service->encode(model, "a", 1, SLUICE_ENCODE_STOP, &ids), SLUICE_OK);
    assert_int_equal(ids.items[ids.count - 1], 2);
    assert_int_equal(service->encode(model, "ab\xff", 3, 0, &ids), SLUICE_BAD_RECORD);
    assert_non_null(strstr(last_error, "2"));
    free(ids.items);
    free(text.text);
    service->close(model);
}

static void prompts_are_fed_as_the_record_has_them(void **state)
{
    (void)state;
    static const uint32_t expected[] = {1, 403, 407, 261, 378};
    static const uint32_t given[] = {7, 8};
    const sluice_message message = {"user", "Once upon a time"};
    sluice_model *model = opened(stories());
    sluice_ids ids = {0};
    prompt_record record = {{&record_api}, "Once upon a time", NULL, 0, NULL, 0};
    assert_int_equal(service->encode_prompt(model, &record.base, false, &ids), SLUICE_OK);
    assert_int_equal(ids.count, 5);
    assert_memory_equal(ids.items, expected, sizeof(expected));
    /* no template: the message's text, and the log says so once */
    log_lines = 0;
    for (int i = 0; i < 2; i++) {
        record = (prompt_record){{&record_api}, NULL, &message, 1, NULL, 0};
        ids.count = 0;
        assert_int_equal(service->encode_prompt(model, &record.base, false, &ids), SLUICE_OK);
        assert_int_equal(ids.count, 5);
        assert_memory_equal(ids.items, expected, sizeof(expected));
    }
    assert_int_equal(log_lines, 1);
    record = (prompt_record){{&record_api}, "ignored", NULL, 0, given, 2};
    ids.count = 0;
    assert_int_equal(service->encode_prompt(model, &record.base, false, &ids), SLUICE_OK);
    assert_int_equal(ids.count, 2);
    assert_memory_equal(ids.items, given, sizeof(given));
    free(ids.items);
    service->close(model);
}

/* --- sluice.device/1 ------------------------------------------------------------------------------------------------
 */

static const void *host_with_models(const sluice_host *from, const char *id)
{
    return strcmp(id, SLUICE_MODEL_SERVICE) == 0 ? service : NULL;
}

/* y[m, n] by its definition. */
static void multiply(int layout, float *y, const float *a, const float *b, size_t m, size_t n, size_t k)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++)
            for (size_t l = 0; l < k; l++)
                y[i * n + j] += (layout == SLUICE_TN ? a[l * m + i] : a[i * k + l]) *
                                (layout == SLUICE_NT ? b[j * k + l] : b[l * n + j]);
}

static void the_device_multiplies_for_plugins(void **state)
{
    (void)state;
    enum { M = 5, N = 7, K = 3 };
    const sluice_service_class *class = (const sluice_service_class *)(const void *)sluice_plugin_entry.classes[1];
    assert_string_equal(class->service, SLUICE_DEVICE_SERVICE);
    sluice_host_api api = host_api;
    api.service = host_with_models;
    const sluice_host with = {&api};
    void *self = calloc(1, class->base.state_size);
    assert_int_equal(class->base.init(self, &with), SLUICE_OK);
    const sluice_device_service *devices = class->get(self);
    sluice_device *d;
    assert_int_equal(devices->open(devices, &with, &d), SLUICE_OK);
    sluice_device_info info = {.size = sizeof info};
    assert_int_equal(devices->info(d, &info), SLUICE_OK);
    assert_string_equal(info.kind, "cpu");
    float a[M * K], b[K * N], got[M * N], wanted[M * N];
    for (size_t i = 0; i < M * K; i++)
        a[i] = (float)(i % 5) - 2;
    for (size_t i = 0; i < K * N; i++)
        b[i] = (float)(i % 4) - 1;
    float *x = devices->alloc(d, sizeof a), *w = devices->alloc(d, sizeof b), *y = devices->alloc(d, sizeof got);
    assert_int_equal(devices->write(d, x, a, sizeof a), SLUICE_OK);
    assert_int_equal(devices->write(d, w, b, sizeof b), SLUICE_OK);
    for (int layout = SLUICE_NT; layout <= SLUICE_TN; layout++) {
        memset(wanted, 0, sizeof wanted);
        for (int times = 0; times < 2; times++) {
            assert_int_equal(devices->product(d, layout, y, x, w, M, N, K, times > 0), SLUICE_OK);
            multiply(layout, wanted, a, b, M, N, K);
            assert_int_equal(devices->read(d, got, y, sizeof got), SLUICE_OK);
            assert_memory_equal(got, wanted, sizeof got);
        }
    }
    double sum;
    assert_int_equal(devices->unit_rows(d, x, x, M, K), SLUICE_OK);
    assert_int_equal(devices->sum_squares(d, &sum, x, M * K), SLUICE_OK);
    assert_true(sum > M - 1e-5 && sum < M + 1e-5);
    assert_int_equal(devices->product(d, 9, y, x, w, M, N, K, false), SLUICE_FAILED);
    sluice_device_memory memory = {.size = sizeof memory};
    assert_int_equal(devices->memory(d, &memory), SLUICE_OK);
    assert_int_equal(memory.used, sizeof a + sizeof b + sizeof got);
    devices->free(d, x);
    devices->free(d, y);
    devices->close(d); /* frees the rest */
    free(self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_version_is_one_copy_in_memory),
        cmocka_unit_test(what_cannot_be_opened_is_said_in_one_line),
        cmocka_unit_test(a_version_is_computed_in_the_type_asked_for),
        cmocka_unit_test(random_versions_depend_on_the_seed_alone),
        cmocka_unit_test(a_copy_is_written_and_saved_alone),
        cmocka_unit_test(merging_two_folders_gives_their_mean),
        cmocka_unit_test(threads_share_a_version),
        cmocka_unit_test(what_was_trained_is_what_is_saved),
        cmocka_unit_test(errors_come_back_as_they_are),
        cmocka_unit_test(text_becomes_ids_and_back),
        cmocka_unit_test(prompts_are_fed_as_the_record_has_them),
        cmocka_unit_test(the_device_multiplies_for_plugins),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
