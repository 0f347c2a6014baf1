/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/base/cbor.h"
#include "core/base/json.h"
#include "core/cli/model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "sluice score --model DIR [FILE.jsonl] [--raw] [--threads N]\n\n"
    "Log-probabilities of given answers. Reads JSON lines, {\"prompt\", \"completion\"} or {\"tokens\", \"from\"} "
    "(from: how many\n"
    "of the tokens are the prompt), from a file or standard input, and writes each back with \"tokens\", \"from\", "
    "\"logprobs\"\n"
    "(natural, one per token after the prompt) and their \"sum\".\n\n"
    "  --model DIR   a Hugging Face checkpoint folder\n"
    "  --raw         prompts do not go through the model's chat template\n"
    "  --threads N   changes speed, never what comes out\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the model is damaged, or a line is wrong (the lines before\nit are "
    "written).\n\n"
    "Example:\n"
    "  echo '{\"prompt\": \"12 + 7 = ?\", \"completion\": \"19\"}' | sluice score --model models/embedded\n";

enum { BATCH = 64, LONGEST_LINE = 64 << 20 };

/* A line of input. `json` is the object without its closing brace and without the keys that are written anew. */
typedef struct item {
    sl_buffer json;
    sluice_ids prompt, completion;
    float *logprobs;
} item;

typedef struct scoring {
    const sl_command *command;
    const sl_models *models;
    sluice_model *model;
    const char *file;
    unsigned long line;
    bool raw;
    sl_buffer cbor;
    item items[BATCH];
    size_t count;
} scoring;

static int bad_line(const scoring *s, const char *format, ...) SLUICE_PRINTF(2, 3);
static int bad_line(const scoring *s, const char *format, ...)
{
    char what[512];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    fflush(stdout);
    fprintf(stderr, "%s:%lu: %s\n", s->file, s->line, what);
    return SLUICE_BAD_RECORD;
}

/* The values of a line that matter, borrowed from its CBOR. */
typedef struct fields {
    const char *prompt, *completion;
    size_t prompt_size, completion_size;
    sl_cbor_reader tokens; /* at NULL = absent */
    uint64_t token_count;
    int64_t from; /* -1 = absent */
} fields;

static bool is_key(const char *key, size_t size, const char *name)
{
    return strlen(name) == size && memcmp(key, name, size) == 0;
}

static int copy_key(item *it, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size)
{
    int rc = it->json.size > 1 ? sl_buffer_append(&it->json, ", ", 2) : SLUICE_OK;
    if (rc == SLUICE_OK)
        rc = sl_cbor_to_json(key, key_size, &it->json);
    if (rc == SLUICE_OK)
        rc = sl_buffer_append(&it->json, ": ", 2);
    return rc == SLUICE_OK ? sl_cbor_to_json(value, value_size, &it->json) : rc;
}

/* Reads one member's value into `out`; keys that the output gets anew are not copied. */
static int read_member(const scoring *s, sl_cbor_reader *r, item *it, fields *out)
{
    static const char *const anew[] = {"tokens", "from", "logprobs", "sum"};
    const char *key;
    size_t size;
    double number;
    const uint8_t *key_at = r->at;
    if (!sl_cbor_text(r, &key, &size))
        return bad_line(s, "%s", r->error);
    const size_t key_size = (size_t)(r->at - key_at);
    const uint8_t *value = r->at;
    sl_cbor_reader in = *r;
    if (!sl_cbor_skip(r))
        return bad_line(s, "%s", r->error);
    if (is_key(key, size, "prompt") && !sl_cbor_text(&in, &out->prompt, &out->prompt_size))
        return bad_line(s, "\"prompt\" must be a string");
    if (is_key(key, size, "completion") && !sl_cbor_text(&in, &out->completion, &out->completion_size))
        return bad_line(s, "\"completion\" must be a string");
    if (is_key(key, size, "tokens")) {
        if (!sl_cbor_expect(&in, SL_CBOR_ARRAY, &out->token_count))
            return bad_line(s, "\"tokens\" must be a list of token ids");
        out->tokens = in;
    }
    if (is_key(key, size, "from")) {
        if (!sl_cbor_number(&in, &number) || number < 0 || number > 1e9 || number != (double)(int64_t)number)
            return bad_line(s, "\"from\" must be how many of the tokens are the prompt");
        out->from = (int64_t)number;
    }
    for (size_t i = 0; i < sizeof anew / sizeof *anew; i++)
        if (is_key(key, size, anew[i]))
            return SLUICE_OK;
    return copy_key(it, key_at, key_size, value, (size_t)(r->at - value));
}

static int append_id(sluice_ids *ids, uint32_t id)
{
    uint32_t *items = sl_items_grow(ids->items, ids->count, &ids->capacity, sizeof *items);
    if (!items)
        return SLUICE_NO_MEMORY;
    ids->items = items;
    ids->items[ids->count++] = id;
    return SLUICE_OK;
}

static int take_tokens(const scoring *s, item *it, fields *f)
{
    sluice_model_info info = {.size = sizeof info};
    double id;
    int rc = s->models->service->info(s->model, &info);
    if (rc == SLUICE_OK && f->from > (int64_t)f->token_count)
        rc = bad_line(s, "\"from\" is %lld, but there are %llu tokens", (long long)f->from,
                      (unsigned long long)f->token_count);
    for (uint64_t i = 0; rc == SLUICE_OK && i < f->token_count; i++) {
        if (!sl_cbor_number(&f->tokens, &id) || id < 0 || id != (double)(int64_t)id || id >= info.vocabulary)
            return bad_line(s, "token %llu is no id of this model (0 to %u)", (unsigned long long)i,
                            info.vocabulary - 1);
        rc = append_id(i < (uint64_t)f->from ? &it->prompt : &it->completion, (uint32_t)id);
    }
    return rc;
}

/* Prompt and completion are encoded apart, as in sampling. */
static int take_texts(const scoring *s, item *it, const fields *f)
{
    if (memchr(f->prompt, '\0', f->prompt_size))
        return bad_line(s, "\"prompt\" holds a NUL character");
    char *prompt = strndup(f->prompt, f->prompt_size);
    int rc = prompt ? sl_models_prompt(s->models, s->model, prompt, s->raw, &it->prompt) : SLUICE_NO_MEMORY;
    free(prompt);
    if (rc == SLUICE_OK)
        rc = s->models->service->encode(s->model, f->completion, f->completion_size, SLUICE_ENCODE_CONTINUE,
                                        &it->completion);
    return rc;
}

/* Said of the line alone: the service would refuse all lines that it scores together. */
static int check_length(const scoring *s, const item *it)
{
    sluice_model_info info = {.size = sizeof info};
    const size_t length = it->prompt.count + it->completion.count;
    int rc = s->models->service->info(s->model, &info);
    if (rc == SLUICE_OK && length > info.context)
        rc = bad_line(s, "%zu tokens are more than the model's context of %u; shorten the prompt or the completion",
                      length, info.context);
    return rc;
}

static int read_line(scoring *s, const char *text, size_t size)
{
    char error[256];
    item *it = &s->items[s->count];
    fields f = {.from = -1};
    uint64_t members;
    s->cbor.size = 0;
    int rc = sl_json_to_cbor(text, size, &s->cbor, error, sizeof error);
    if (rc == SLUICE_BAD_PARAMETER)
        return bad_line(s, "%s", error);
    if (rc != SLUICE_OK)
        return rc;
    sl_cbor_reader r = {.at = s->cbor.data, .end = s->cbor.data + s->cbor.size};
    if (!sl_cbor_expect(&r, SL_CBOR_MAP, &members))
        return bad_line(s, "an object {…} is wanted");
    rc = sl_buffer_append(&it->json, "{", 1);
    for (uint64_t i = 0; rc == SLUICE_OK && i < members; i++)
        rc = read_member(s, &r, it, &f);
    if (rc != SLUICE_OK)
        return rc;
    if (f.tokens.at && f.from >= 0)
        rc = take_tokens(s, it, &f);
    else if (f.prompt && f.completion)
        rc = take_texts(s, it, &f);
    else
        rc = bad_line(s, "either \"prompt\" and \"completion\" or \"tokens\" and \"from\" are wanted");
    return rc == SLUICE_OK ? check_length(s, it) : rc;
}

static int write_item(item *it)
{
    sl_buffer *out = &it->json;
    double sum = 0;
    for (size_t i = 0; i < it->completion.count; i++)
        sum += (double)it->logprobs[i];
    int rc = sl_buffer_printf(out, "%s\"tokens\": ", out->size > 1 ? ", " : "");
    for (size_t i = 0; rc == SLUICE_OK && i < it->completion.count; i++)
        rc = append_id(&it->prompt, it->completion.items[i]);
    if (rc == SLUICE_OK)
        rc = sl_json_tokens(out, it->prompt.items, it->prompt.count);
    if (rc == SLUICE_OK)
        rc = sl_buffer_printf(out, ", \"from\": %zu, \"logprobs\": ", it->prompt.count - it->completion.count);
    if (rc == SLUICE_OK)
        rc = sl_json_logprobs(out, it->logprobs, it->completion.count);
    if (rc == SLUICE_OK)
        rc = sl_buffer_printf(out, ", \"sum\": ");
    if (rc == SLUICE_OK)
        rc = sl_json_double(out, sum);
    if (rc == SLUICE_OK)
        rc = sl_buffer_append(out, "}\n", 2);
    if (rc == SLUICE_OK)
        fwrite(out->data, 1, out->size, stdout);
    return rc;
}

static void clear_item(item *it)
{
    sl_buffer_free(&it->json);
    free(it->prompt.items);
    free(it->completion.items);
    free(it->logprobs);
    *it = (item){0};
}

/* Scores and writes the lines gathered so far. */
static int flush_items(scoring *s)
{
    sluice_group groups[BATCH];
    sluice_span spans[BATCH];
    float *logprobs[BATCH];
    int rc = SLUICE_OK;
    for (size_t i = 0; i < s->count && rc == SLUICE_OK; i++) {
        item *it = &s->items[i];
        logprobs[i] = it->logprobs = calloc(it->completion.count + 1, sizeof *it->logprobs);
        spans[i] = (sluice_span){it->completion.items, it->completion.count};
        groups[i] = (sluice_group){{it->prompt.items, it->prompt.count}, &spans[i], 1, i};
        rc = it->logprobs ? SLUICE_OK : SLUICE_NO_MEMORY;
    }
    if (rc == SLUICE_OK && s->count > 0)
        rc = s->models->service->score(s->model, groups, s->count, logprobs, NULL);
    for (size_t i = 0; i < s->count && rc == SLUICE_OK; i++)
        rc = write_item(&s->items[i]);
    for (size_t i = 0; i < s->count; i++)
        clear_item(&s->items[i]);
    s->count = 0;
    return rc;
}

static int score_lines(scoring *s, FILE *in)
{
    char *text = NULL;
    size_t capacity = 0;
    int rc = SLUICE_OK;
    for (ssize_t size; rc == SLUICE_OK && (size = getline(&text, &capacity, in)) >= 0;) {
        s->line++;
        if (strspn(text, " \t\r\n") == (size_t)size)
            continue;
        rc = size > LONGEST_LINE ? bad_line(s, "a line of more than %d bytes", LONGEST_LINE)
                                 : read_line(s, text, (size_t)size);
        if (rc == SLUICE_OK && ++s->count == BATCH)
            rc = flush_items(s);
    }
    if (rc == SLUICE_OK && ferror(in)) {
        sl_fail(s->command, SL_EXIT_FAILED, "'%s' cannot be read: %s", s->file, strerror(errno));
        rc = SLUICE_IO;
    }
    clear_item(&s->items[s->count]); /* of a wrong line */
    const int last = flush_items(s); /* the lines before it are written all the same */
    free(text);
    return rc != SLUICE_OK ? rc : last;
}

static int score_with(const sl_command *command, const char *folder, const char *file, int64_t threads, bool raw)
{
    scoring *s = calloc(1, sizeof *s);
    FILE *in = file ? fopen(file, "r") : stdin;
    sl_models models = {0};
    int code = SL_EXIT_FAILED;
    if (!in)
        sl_fail(command, code, "'%s' cannot be read: %s", file, strerror(errno));
    else if (!s)
        sl_fail(command, code, "out of memory");
    else
        code = sl_models_open(command, threads, &models);
    if (code == SL_EXIT_OK) {
        *s = (scoring){.command = command, .models = &models, .file = file ? file : "standard input", .raw = raw};
        int rc = sl_models_load(command, &models, folder, &s->model);
        if (rc == SLUICE_OK) {
            rc = score_lines(s, in);
            models.service->close(s->model);
        }
        if (rc == SLUICE_NO_MEMORY)
            sl_fail(command, SL_EXIT_FAILED, "out of memory");
        code = sl_exit_of(rc);
        sl_buffer_free(&s->cbor);
        sl_models_close(&models);
    }
    if (in && file)
        fclose(in);
    free(s);
    return code;
}

static int command_score(const sl_command *command, int argc, char **argv)
{
    sl_words rest = {0};
    const char *folder = NULL;
    bool raw = false;
    int64_t threads = 0;
    const sl_option options[] = {{.name = "model", .kind = SL_WORD, .to = &folder},
                                 {.name = "raw", .kind = SL_FLAG, .to = &raw},
                                 {"threads", 'j', SL_OPTION_INTEGER, &threads, 1, 4096},
                                 {0}};
    int code = sl_options_read(command, argc, argv, options, &rest);
    if (code < 0 && !folder)
        code = sl_usage(command, "--model is missing");
    if (code < 0 && rest.count > 1)
        code = sl_usage(command, "one file is wanted, %zu are given", rest.count);
    if (code < 0)
        code = score_with(command, folder, rest.count && strcmp(rest.items[0], "-") != 0 ? rest.items[0] : NULL,
                          threads, raw);
    sl_words_free(&rest);
    return code;
}

const sl_command sl_command_score = {"score", "log-probabilities of given answers, from JSON lines", help,
                                     command_score};
