/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/head.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/json_file.h"

#define REWARD "ForSequenceClassification"

/* "LlamaForCausalLM" → "LlamaForSequenceClassification"; another reward model's name stays. */
static bool set_architecture(json_t *config, const sm_config *c)
{
    static const char *const names[][2] = {{"llama", "Llama"}, {"mistral", "Mistral"}, {"qwen2", "Qwen2"}};
    char name[80];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(c->model_type, names[i][0]) == 0) {
            snprintf(name, sizeof name, "%s" REWARD, names[i][1]);
            return json_object_set_new(config, "architectures", json_pack("[s]", name)) == 0;
        }
    }
    return false;
}

static bool set_labels(json_t *config, uint32_t outputs)
{
    json_t *names = json_object(), *numbers = json_object();
    bool ok = names && numbers;
    for (uint32_t i = 0; ok && i < outputs; i++) {
        char number[16], label[24];
        snprintf(number, sizeof number, "%u", i);
        snprintf(label, sizeof label, "LABEL_%u", i);
        ok = json_object_set_new(names, number, json_string(label)) == 0 &&
             json_object_set_new(numbers, label, json_integer(i)) == 0;
    }
    json_object_del(config, "num_labels");
    ok = ok && json_object_set(config, "id2label", names) == 0 && json_object_set(config, "label2id", numbers) == 0;
    json_decref(names);
    json_decref(numbers);
    return ok;
}

static bool set_padding(json_t *config, const sm_config *c)
{
    for (uint32_t i = 0; i < c->eos_count; i++) {
        if (c->pad == c->eos[i]) {
            return json_object_set_new(config, "pad_token_id", json_null()) == 0;
        }
    }
    return true;
}

char *sm_config_with_head(const char *text, size_t length, const sm_config *config, size_t *new_length)
{
    sm_config now;
    if (sm_config_parse(&now, "config.json", text, length, NULL, NULL, 0, NULL) == SM_OK &&
        now.outputs == config->outputs) {
        char *same = malloc(length + 1);
        if (same) {
            memcpy(same, text, length);
            same[length] = '\0';
            *new_length = length;
        }
        return same;
    }
    json_t *changed = json_loadb(text, length, JSON_DECODE_ANY, NULL);
    char *result = NULL;
    if (changed && set_architecture(changed, config) && set_labels(changed, config->outputs) &&
        json_object_set_new(changed, "problem_type", json_string("regression")) == 0 && set_padding(changed, config)) {
        result = json_dumps(changed, JSON_INDENT(2));
        *new_length = result ? strlen(result) : 0;
    }
    json_decref(changed);
    return result;
}
