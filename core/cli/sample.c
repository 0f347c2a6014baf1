/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/base/json.h"
#include "core/base/utf8.h"
#include "core/cli/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "sluice sample --model DIR --prompt TEXT [OPTIONS]\n\n"
    "Continues a prompt and prints the continuation alone. The prompt goes through the model's chat template, where "
    "it\n"
    "has one. The same seed gives the same answer, whatever --batch and --threads.\n\n"
    "  --model DIR               a Hugging Face checkpoint folder\n"
    "  --prompt TEXT             may be given several times\n"
    "  --raw                     no chat template\n"
    "  --n 1                     answers a prompt\n"
    "  --max-tokens 128          the longest answer\n"
    "  --temperature 1 --top-p 1 --top-k 0 --min-p 0 --repetition-penalty 1\n"
    "  --greedy                  the likeliest token each time (temperature 0)\n"
    "  --stop TEXT               ends an answer before this text; may be given several times\n"
    "  --seed 1                  of the random choices\n"
    "  --json                    one object an answer: prompt, candidate, text, finish, tokens, logprobs (natural,\n"
    "                            temperature 1, untruncated)\n"
    "  --batch N, --threads N    answers decoded at once, threads: speed, never the answer\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the model is damaged, or the prompt is no UTF-8.\n\n"
    "Example:\n"
    "  sluice sample --model models/embedded --prompt '12 + 7 = ?' --n 3 --temperature 0.8\n";

/* An answer as it came: they come in any order and are printed in theirs. */
typedef struct answer {
    char *text;
    uint32_t *tokens;
    float *logprobs;
    uint32_t count;
    int32_t finish;
} answer;

typedef struct sampling {
    const sl_words *prompts;
    sluice_ids *ids; /* one a prompt */
    answer *answers; /* prompts × n */
    int64_t n;
    size_t asked; /* prompts handed out */
} sampling;

static int next_prompt(void *context, sluice_generate_prompt *prompt)
{
    sampling *s = context;
    if (s->asked == s->prompts->count)
        return SLUICE_END;
    const sluice_ids *ids = &s->ids[s->asked];
    *prompt = (sluice_generate_prompt){ids->items, ids->count, s->asked, &s->answers[s->asked * (size_t)s->n]};
    s->asked++;
    return SLUICE_OK;
}

static void *copy_of(const void *from, size_t size)
{
    void *to = malloc(size + 1);
    return to && size > 0 ? memcpy(to, from, size) : to;
}

static int take_answer(void *context, const sluice_generated *g)
{
    (void)context;
    answer *a = (answer *)g->user + g->candidate;
    a->text = strdup(g->text ? g->text : "");
    a->tokens = copy_of(g->tokens, g->token_count * sizeof *g->tokens);
    a->logprobs = copy_of(g->logprobs, g->token_count * sizeof *g->logprobs);
    a->count = g->token_count;
    a->finish = g->finish;
    return a->text && a->tokens && a->logprobs ? SLUICE_OK : SLUICE_NO_MEMORY;
}

static int print_json(const answer *a, size_t prompt, size_t candidate, sl_buffer *line)
{
    static const char *const finish[] = {"none", "stop", "length", "error"};
    line->size = 0;
    int rc = sl_buffer_printf(line, "{\"prompt\": %zu, \"candidate\": %zu, \"text\": ", prompt, candidate);
    if (rc == SLUICE_OK)
        rc = sl_json_string(line, a->text, strlen(a->text));
    if (rc == SLUICE_OK)
        rc = sl_buffer_printf(line, ", \"finish\": \"%s\", \"tokens\": ", finish[a->finish & 3]);
    if (rc == SLUICE_OK)
        rc = sl_json_tokens(line, a->tokens, a->count);
    if (rc == SLUICE_OK)
        rc = sl_buffer_printf(line, ", \"logprobs\": ");
    if (rc == SLUICE_OK)
        rc = sl_json_logprobs(line, a->logprobs, a->count);
    if (rc == SLUICE_OK)
        rc = sl_buffer_printf(line, "}\n");
    if (rc == SLUICE_OK)
        fwrite(line->data, 1, line->size, stdout);
    return rc;
}

static int sample(const sl_models *models, sluice_model *model, sluice_generation *g, sampling *s, bool raw, bool json)
{
    int rc = SLUICE_OK;
    for (size_t i = 0; rc == SLUICE_OK && i < s->prompts->count; i++)
        rc = sl_models_prompt(models, model, s->prompts->items[i], raw, &s->ids[i]);
    if (rc == SLUICE_OK)
        rc = models->service->generate(model, g);
    sl_buffer line = {0};
    for (size_t i = 0; rc == SLUICE_OK && i < s->prompts->count * (size_t)s->n; i++) {
        if (!s->answers[i].text)
            continue;
        if (json)
            rc = print_json(&s->answers[i], i / (size_t)s->n, i % (size_t)s->n, &line);
        else
            puts(s->answers[i].text);
    }
    sl_buffer_free(&line);
    return rc;
}

static int sample_with(const sl_command *command, const char *folder, sluice_generation *g, sampling *s,
                       int64_t threads, bool raw, bool json)
{
    const size_t answers = s->prompts->count * (size_t)s->n;
    sl_models models;
    sluice_model *model = NULL;
    int code = sl_models_open(command, threads, &models);
    if (code != SL_EXIT_OK)
        return code;
    s->ids = calloc(s->prompts->count, sizeof *s->ids);
    s->answers = calloc(answers, sizeof *s->answers);
    int rc = s->ids && s->answers ? sl_models_load(command, &models, folder, &model) : SLUICE_NO_MEMORY;
    if (rc == SLUICE_OK)
        rc = sample(&models, model, g, s, raw, json);
    if (rc == SLUICE_NO_MEMORY)
        sl_fail(command, SL_EXIT_FAILED, "out of memory");
    if (model)
        models.service->close(model);
    for (size_t i = 0; s->answers && i < answers; i++) {
        free(s->answers[i].text);
        free(s->answers[i].tokens);
        free(s->answers[i].logprobs);
    }
    for (size_t i = 0; s->ids && i < s->prompts->count; i++)
        free(s->ids[i].items);
    free(s->answers);
    free(s->ids);
    sl_models_close(&models);
    return sl_exit_of(rc);
}

static int command_sample(const sl_command *command, int argc, char **argv)
{
    sl_words prompts = {0}, stop = {0}, rest = {0};
    const char *folder = NULL;
    bool raw = false, greedy = false, json = false;
    int64_t n = 1, max_tokens = 128, top_k = 0, seed = 1, batch = 0, threads = 0;
    double temperature = 1, top_p = 1, min_p = 0, penalty = 1;
    const sl_option options[] = {{.name = "model", .kind = SL_WORD, .to = &folder},
                                 {.name = "prompt", .kind = SL_WORDS, .to = &prompts},
                                 {.name = "raw", .kind = SL_FLAG, .to = &raw},
                                 {"n", 'n', SL_OPTION_INTEGER, &n, 1, 100000},
                                 {"max-tokens", 0, SL_OPTION_INTEGER, &max_tokens, 1, 1 << 20},
                                 {"temperature", 0, SL_OPTION_NUMBER, &temperature, 0, 100},
                                 {"top-p", 0, SL_OPTION_NUMBER, &top_p, 1e-6, 1},
                                 {"top-k", 0, SL_OPTION_INTEGER, &top_k, 0, INT32_MAX},
                                 {"min-p", 0, SL_OPTION_NUMBER, &min_p, 0, 1},
                                 {"repetition-penalty", 0, SL_OPTION_NUMBER, &penalty, 0.01, 100},
                                 {.name = "greedy", .kind = SL_FLAG, .to = &greedy},
                                 {.name = "stop", .kind = SL_WORDS, .to = &stop},
                                 {"seed", 0, SL_OPTION_INTEGER, &seed, 0, 9e18},
                                 {.name = "json", .kind = SL_FLAG, .to = &json},
                                 {"batch", 0, SL_OPTION_INTEGER, &batch, 1, 65536},
                                 {"threads", 'j', SL_OPTION_INTEGER, &threads, 1, 4096},
                                 {0}};
    int code = sl_options_read(command, argc, argv, options, &rest);
    if (code < 0 && rest.count > 0)
        code = sl_usage(command, "'%s' is not wanted; give prompts by --prompt", rest.items[0]);
    if (code < 0 && !folder)
        code = sl_usage(command, "--model is missing");
    if (code < 0 && prompts.count == 0)
        code = sl_usage(command, "--prompt is missing");
    for (size_t i = 0; code < 0 && i < prompts.count; i++) {
        const size_t size = strlen(prompts.items[i]), bad = sl_utf8_check(prompts.items[i], size);
        if (bad < size)
            code = sl_fail(command, SL_EXIT_DAMAGED, "byte %zu of the prompt is no UTF-8", bad);
    }
    for (size_t i = 0; code < 0 && i < stop.count; i++)
        if (!*stop.items[i])
            code = sl_usage(command, "--stop is empty");
    if (code < 0) {
        sampling s = {.prompts = &prompts, .n = n};
        sluice_generation g = {.size = sizeof g,
                               .candidates = (uint32_t)n,
                               .max_tokens = (uint32_t)max_tokens,
                               .top_k = (uint32_t)top_k,
                               .temperature = greedy ? 0 : temperature,
                               .top_p = top_p,
                               .min_p = min_p,
                               .repetition_penalty = penalty,
                               .stop = stop.items,
                               .stop_count = stop.count,
                               .seed = (uint64_t)seed,
                               .slots = (uint32_t)batch,
                               .context = &s,
                               .prompt = next_prompt,
                               .done = take_answer};
        code = sample_with(command, folder, &g, &s, threads, raw, json);
    }
    sl_words_free(&prompts);
    sl_words_free(&stop);
    sl_words_free(&rest);
    return code;
}

const sl_command sl_command_sample = {"sample", "continues a prompt by a model", help, command_sample};
