/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of a tokenizer, in the order in which a text meets them: added tokens, normalizer, pre-tokenizer, byte-pair
 * encoding, post-processor; and the decoder for the way back. Internal to the tokenizer.
 *
 * Each part is read from its member of tokenizer.json by its _parse function (which checks everything), used from any
 * thread without changing, and released by its _free function, also after a failed parse.
 */
#ifndef MODEL_TOKENIZER_PARTS_H
#define MODEL_TOKENIZER_PARTS_H

#include "model/tokenizer.h"
#include "model/tokenizer_json.h"
#include "model/tokenizer_pattern.h"
#include "model/utf8.h"

#define SM_MAX_TEXT    ((size_t)1 << 28) /* bytes of one text to encode */
#define SM_MAX_TOKENS  ((uint32_t)1 << 22)
#define SM_MAX_ADDED   16384
#define SM_MAX_CONTENT 1024 /* bytes of an added token */

/* --- byte-pair encoding (tokenizer_bpe.c) --- */

typedef struct sm_merge {
    uint64_t pair; /* left id << 32 | right id */
    uint32_t rank;
    uint32_t id; /* SM_NO_TOKEN in an empty slot */
} sm_merge;

typedef struct sm_bpe {
    uint32_t size;    /* tokens of the model's own vocabulary */
    char *bytes;      /* their texts, each followed by a NUL */
    uint32_t *offset; /* [size + 1] where each text begins */
    uint32_t *slots;  /* open addressing: id, or SM_NO_TOKEN */
    uint32_t slot_mask;
    sm_merge *merges; /* open addressing */
    uint32_t merge_mask;
    uint32_t unk;     /* or SM_NO_TOKEN */
    bool unk_missing; /* an unk_token is named that the vocabulary lacks */
    bool fuse_unk, byte_fallback, ignore_merges;
    uint32_t byte_ids[256];  /* "<0x00>" … "<0xFF>", or SM_NO_TOKEN */
    uint32_t direct[1024];   /* ids of the one-character tokens below U+0400 */
    const uint64_t *special; /* bit per id, borrowed: tokens that text never becomes */
} sm_bpe;

/* Working memory of one encoding, reused from word to word. */
typedef struct sm_bpe_work {
    struct sm_symbol *symbols;
    struct sm_candidate *heap;
    size_t symbol_capacity, heap_capacity;
} sm_bpe_work;

int sm_bpe_parse_vocabulary(sm_bpe *bpe, const json_t *model, sm_error *error);
/* After the added tokens are known: merges that would make a special token are left out. */
int sm_bpe_parse_merges(sm_bpe *bpe, const json_t *model, sm_error *error);
void sm_bpe_free(sm_bpe *bpe);
uint32_t sm_bpe_find(const sm_bpe *bpe, const char *text, size_t length);
/* Appends the ids of one word. */
int sm_bpe_encode(const sm_bpe *bpe, sm_bpe_work *work, const char *word, size_t length, sm_tokens *out,
                  sm_error *error);
void sm_bpe_work_free(sm_bpe_work *work);

static inline bool sm_bit(const uint64_t *bits, uint32_t at)
{
    return bits[at / 64] >> (at % 64) & 1;
}

/* --- added tokens (tokenizer_added.c) --- */

typedef struct sm_added_token {
    uint32_t id;
    char *content;
    size_t length;
    sm_text normalized_content; /* what it is searched and decoded as, if normalizing changes it; else empty */
    bool single_word, lstrip, rstrip, normalized, special;
    bool control; /* by its spelling it structures chats, whether it is called special or not */
} sm_added_token;

typedef struct sm_trie {
    struct sm_trie_node {
        uint32_t child, sibling; /* 0: none */
        uint32_t token;          /* index into sm_added.tokens, or SM_NO_TOKEN */
        unsigned char byte;
    } * nodes;
    size_t count, capacity;
    uint32_t first[256]; /* the root's children */
} sm_trie;

typedef struct sm_added {
    sm_added_token *tokens;
    size_t count, capacity;
    sm_trie plain, normalized;
    sm_pattern *word; /* one word character, when a token is single_word */
} sm_added;

/* A part of a text: an added token, or (SM_NO_TOKEN) text between added tokens. */
typedef struct sm_part {
    size_t start, end;
    uint32_t id;
} sm_part;

typedef struct sm_parts {
    sm_part *items;
    size_t count, capacity;
} sm_parts;

/* Adds a token or, if its content is there, changes its flags. `size` counts all tokens so far. The id is the one that
 * the tokenizers library would give; `declared` must agree with it unless it is SM_NO_TOKEN. */
int sm_added_add(sm_added *added, const sm_bpe *bpe, uint32_t *size, const char *content, size_t length,
                 sm_added_token flags, uint32_t declared, sm_error *error);
int sm_added_parse(sm_added *added, const sm_bpe *bpe, uint32_t *size, const json_t *list, sm_error *error);
sm_added_token *sm_added_find(const sm_added *added, const char *content, size_t length);
/* Builds the tries, once all tokens and their normalized contents are there. */
int sm_added_build(sm_added *added, sm_error *error);
void sm_added_free(sm_added *added);
/* Splits at the tokens in the trie. Guarded bytes (all of them when `guarded`, none when that is false and `guard` is
 * NULL) never are part of a special token. */
int sm_added_split(const sm_added *added, const sm_trie *trie, const char *text, size_t length, const uint8_t *guard,
                   bool guarded, sm_parts *out, sm_error *error);

/* --- normalizer (tokenizer_normalize.c) --- */

typedef struct sm_normalizer {
    struct sm_normal_step *steps;
    size_t count;
} sm_normalizer;

typedef struct sm_normal {
    sm_text text;
    sm_text guard;  /* a byte for each byte of text, when a guard was given */
    bool lead_lost; /* the first character of the result is not the first of the input */
} sm_normal;

int sm_normalizer_parse(sm_normalizer *normalizer, const json_t *value, sm_error *error);
void sm_normalizer_free(sm_normalizer *normalizer);
/* Fills `out` anew; `guard` may be NULL. `continues`: nothing is put in front of a text that begins with a space. */
int sm_normalize(const sm_normalizer *normalizer, const char *text, size_t length, const uint8_t *guard, bool continues,
                 sm_normal *out, sm_error *error);
void sm_normal_free(sm_normal *normal);

/* --- pre-tokenizer (tokenizer_split.c) --- */

typedef struct sm_splitter {
    struct sm_split_step *steps;
    size_t count;
} sm_splitter;

typedef struct sm_word {
    size_t end;    /* it begins where the one before ends */
    bool at_start; /* it begins where the whole text begins */
} sm_word;

/* Words lie end to end in `text`. */
typedef struct sm_words {
    sm_text text;
    sm_word *items;
    size_t count, capacity;
} sm_words;

typedef struct sm_split_work {
    sm_words words, other; /* the result is in `words` */
    sm_spans spans;
    sm_text text;
} sm_split_work;

int sm_splitter_parse(sm_splitter *splitter, const json_t *value, sm_error *error);
void sm_splitter_free(sm_splitter *splitter);
int sm_split(const sm_splitter *splitter, const char *text, size_t length, bool at_start, sm_split_work *work,
             sm_error *error);
void sm_split_work_free(sm_split_work *work);
/* The GPT-2 alphabet: a byte's character, and a character's byte or -1. */
uint32_t sm_byte_to_char(unsigned char byte);
int sm_char_to_byte(uint32_t code_point);

/* --- post-processor (tokenizer_post.c) --- */

typedef struct sm_frame {
    sm_tokens before, after;
    bool templated; /* the file has a template, even one that adds nothing */
} sm_frame;

/* `size`: ids must be below. */
int sm_frame_parse(sm_frame *frame, const json_t *value, uint32_t size, sm_error *error);
void sm_frame_free(sm_frame *frame);

/* --- decoder (tokenizer_decode.c) --- */

typedef struct sm_unsplitter {
    struct sm_decode_step *steps;
    size_t count;
} sm_unsplitter;

int sm_unsplitter_parse(sm_unsplitter *unsplitter, const json_t *value, sm_error *error);
void sm_unsplitter_free(sm_unsplitter *unsplitter);

/* --- the whole (tokenizer.c, tokenizer_load.c) --- */

struct sm_tokenizer {
    sm_bpe bpe;
    sm_added added;
    sm_normalizer normalizer;
    sm_splitter splitter;
    sm_frame frame;
    sm_unsplitter unsplitter;
    uint32_t size;         /* ids are below */
    uint32_t *added_index; /* [size] index into added.tokens, or SM_NO_TOKEN */
    uint64_t *special;     /* bit per id */
    uint64_t *skipped;     /* bit per id: left out when special tokens are skipped */
    sm_tokens special_ids;
    sm_tokens stop_ids;
    uint32_t bos, eos, pad, unk;
};

/* Text of an id as the decoder takes it; NULL for an id that stands for no token. */
const char *sm_token_for_decoder(const sm_tokenizer *tokenizer, uint32_t id, size_t *length);

#endif
