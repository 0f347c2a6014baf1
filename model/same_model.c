/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/same_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/json_file.h"

#define TOKENIZER     "tokenizer.json"
#define TOKENIZER_CAP ((size_t)256 << 20)

int sm_same_config(const char *dir_a, const sm_config *a, const char *dir_b, const sm_config *b, sm_error *error)
{
    const struct {
        const char *field;
        double a, b;
    } pairs[] = {
        {"hidden_size", a->hidden, b->hidden},
        {"intermediate_size", a->intermediate, b->intermediate},
        {"num_hidden_layers", a->layers, b->layers},
        {"num_attention_heads", a->heads, b->heads},
        {"num_key_value_heads", a->kv_heads, b->kv_heads},
        {"head_dim", a->head_dim, b->head_dim},
        {"vocab_size", a->vocab, b->vocab},
        {"number of a reward model's outputs", a->outputs, b->outputs},
        {"tie_word_embeddings", a->tied, b->tied},
        {"attention_bias", a->qkv_bias, b->qkv_bias},
        {"attention_bias of the output", a->out_bias, b->out_bias},
        {"mlp_bias", a->mlp_bias, b->mlp_bias},
        {"rms_norm_eps", a->rms_eps, b->rms_eps},
        {"rope type", a->rope.type, b->rope.type},
        {"rope_theta", a->rope.theta, b->rope.theta},
        {"rope factor", a->rope.factor, b->rope.factor},
        {"rope low_freq_factor", a->rope.low_freq_factor, b->rope.low_freq_factor},
        {"rope high_freq_factor", a->rope.high_freq_factor, b->rope.high_freq_factor},
        {"rope original_max_position_embeddings", a->rope.original_max_position, b->rope.original_max_position},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (pairs[i].a != pairs[i].b) {
            return sm_fail(error, SM_MISMATCH,
                           "config.json: %s is %.9g in %s and %.9g in %s; take versions of one model", pairs[i].field,
                           pairs[i].a, dir_a, pairs[i].b, dir_b);
        }
    }
    return SM_OK;
}

/* Where two values part, for a message. */
struct difference {
    char path[160];
    const json_t *a, *b; /* NULL: absent there */
};

static bool differ(const json_t *a, const json_t *b, size_t at, struct difference *found);

static bool differ_below(const json_t *a, const json_t *b, const char *key, size_t at, struct difference *found)
{
    char *path = found->path;
    const size_t room = sizeof found->path - at;
    const int length = snprintf(path + at, room, "%s%s", at ? "." : "", key);
    if (differ(a, b, (size_t)length < room ? at + (size_t)length : sizeof found->path - 1, found)) {
        return true;
    }
    path[at] = '\0';
    return false;
}

static bool differ(const json_t *a, const json_t *b, size_t at, struct difference *found)
{
    if (json_is_object(a) && json_is_object(b)) {
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)a, key, value)
        {
            if (differ_below(value, json_object_get(b, key), key, at, found)) {
                return true;
            }
        }
        json_object_foreach((json_t *)b, key, value)
        {
            if (!json_object_get(a, key) && differ_below(NULL, value, key, at, found)) {
                return true;
            }
        }
        return false;
    }
    if (json_is_array(a) && json_is_array(b)) {
        const size_t in_a = json_array_size(a), in_b = json_array_size(b);
        for (size_t i = 0; i < in_a || i < in_b; i++) {
            char index[24];
            snprintf(index, sizeof index, "%zu", i);
            if (differ_below(json_array_get(a, i), json_array_get(b, i), index, at, found)) {
                return true;
            }
        }
        return false;
    }
    if (a == b || (a && b && json_equal(a, b))) {
        return false;
    }
    found->a = a;
    found->b = b;
    return true;
}

static const char *show(const json_t *value, char to[80])
{
    return value ? sm_json_show(value, to) : "absent";
}

int sm_same_tokenizer(const char *dir_a, const char *dir_b, sm_error *error)
{
    char *path_a = sm_path(dir_a, TOKENIZER), *path_b = sm_path(dir_b, TOKENIZER);
    json_t *a = NULL, *b = NULL;
    int status = SM_OK;
    if (!path_a || !path_b) {
        status = sm_fail(error, SM_NO_MEMORY, "%s: no memory to compare its tokenizer", dir_b);
        goto done;
    }
    const bool in_a = access(path_a, F_OK) == 0, in_b = access(path_b, F_OK) == 0;
    if (!in_a && !in_b) {
        goto done;
    }
    if (in_a != in_b) {
        status = sm_fail(error, SM_MISMATCH, "%s has a " TOKENIZER " and %s has none", in_a ? dir_a : dir_b,
                         in_a ? dir_b : dir_a);
        goto done;
    }
    if (!(a = sm_json_read(path_a, TOKENIZER_CAP, error)) || !(b = sm_json_read(path_b, TOKENIZER_CAP, error))) {
        status = SM_FORMAT;
        goto done;
    }
    static const char *const beside[] = {"version", "truncation", "padding"};
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        json_object_del(a, beside[i]);
        json_object_del(b, beside[i]);
    }
    struct difference found = {.path = ""};
    if (differ(a, b, 0, &found)) {
        char shown_a[80], shown_b[80];
        status = sm_fail(error, SM_MISMATCH, TOKENIZER ": %s is %s in %s and %s in %s; take versions of one model",
                         found.path, show(found.a, shown_a), dir_a, show(found.b, shown_b), dir_b);
    }
done:
    json_decref(a);
    json_decref(b);
    free(path_a);
    free(path_b);
    return status;
}
