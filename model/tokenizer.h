/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokenizers: text to token ids and back, as a Hugging Face tokenizer.json says.
 *
 * What is read: byte-pair encoding, byte-level (GPT-2, Llama 3, Qwen2, SmolLM, …) or SentencePiece-style with byte
 * fallback (Llama 2, Mistral, Gemma, …), with the normalizers, pre-tokenizers, decoders and post-processors such files
 * use. Whatever else a file asks for is refused when it is loaded, in one line. Ids and decoded text equal those of the
 * `tokenizers` library.
 *
 * A loaded tokenizer never changes: any number of threads may encode and decode with it at once. A decoder
 * (sm_decoder) belongs to one thread at a time.
 *
 * Text is UTF-8, with explicit lengths, and may hold NUL bytes.
 */
#ifndef MODEL_TOKENIZER_H
#define MODEL_TOKENIZER_H

#include <stdbool.h>

#include "model/error.h"
#include "model/text.h"

typedef struct sm_tokenizer sm_tokenizer;
typedef struct sm_decoder sm_decoder;

#define SM_NO_TOKEN UINT32_MAX

/* Reads `dir`/tokenizer.json, and, where they are there, tokenizer_config.json, special_tokens_map.json and
 * generation_config.json (names of the special tokens, ids that end an answer). *out is NULL on failure; free it with
 * sm_tokenizer_free. */
int sm_tokenizer_load(sm_tokenizer **out, const char *dir, sm_error *error);
void sm_tokenizer_free(sm_tokenizer *tokenizer);

enum {
    /* Special tokens written out in the text ("<|im_end|>") become their ids. Without this flag they are text like any
     * other: what a user writes must never be encoded with it. */
    SM_PARSE_SPECIAL = 1,
    /* Adds what the file's post-processor adds around one sequence: the start token and, rarely, the end token. */
    SM_ADD_SPECIAL = 2,
    /* The text goes on from one before it (an answer after its prompt): a tokenizer that puts a space in front of every
     * text puts none in front of one that begins with a space, as the two would be encoded in one piece. */
    SM_CONTINUE = 4
};

/* Appends the ids of `text` to `out`. Text that is not UTF-8 is refused with the offset of its first bad byte
 * (SM_BAD_ARGUMENT); on failure `out` is unchanged. */
int sm_encode(const sm_tokenizer *tokenizer, const char *text, size_t length, unsigned flags, sm_tokens *out,
              sm_error *error);

/* The same for a text of mixed origin, such as a rendered chat: `guard` has one byte for each byte of text, and special
 * tokens are parsed only where it is 0. A special token that touches a guarded byte is text; so is an added token
 * spelled
 * <|…|> or <｜…｜>, by which chats are structured, also where the file does not call it special. Apart from that the
 * text is one text: merges cross the borders of what is guarded exactly as if nothing were. */
int sm_encode_guarded(const sm_tokenizer *tokenizer, const char *text, size_t length, const uint8_t *guard,
                      unsigned flags, sm_tokens *out, sm_error *error);

/* Appends the text of `ids` to `out`. Bytes that form no UTF-8 become U+FFFD; ids that stand for no token give nothing.
 * With skip_special the special tokens are left out. Fails only for want of memory. */
int sm_decode(const sm_tokenizer *tokenizer, const uint32_t *ids, size_t count, bool skip_special, sm_text *out,
              sm_error *error);

/* Decoding as tokens arrive. The pieces appended to `out` by feed and finish, joined, equal sm_decode of all the ids;
 * each piece is whole UTF-8. The decoder keeps a reference to the tokenizer. NULL when out of memory. */
sm_decoder *sm_decoder_new(const sm_tokenizer *tokenizer, bool skip_special);
int sm_decoder_feed(sm_decoder *decoder, uint32_t id, sm_text *out, sm_error *error);
/* Appends what was held back, and makes the decoder ready for another text. */
int sm_decoder_finish(sm_decoder *decoder, sm_text *out, sm_error *error);
void sm_decoder_free(sm_decoder *decoder);

/* Number of ids: they are 0 … size-1. A model's embedding may have more rows than this. */
uint32_t sm_tokenizer_size(const sm_tokenizer *tokenizer);
/* A token as tokenizer.json spells it ("Ġthe", "▁the", "<0x0A>"): borrowed, NUL-terminated, NULL for an id that stands
 * for no token. `length` may be NULL. */
const char *sm_tokenizer_token_text(const sm_tokenizer *tokenizer, uint32_t id, size_t *length);
/* The id of a token so spelled, or SM_NO_TOKEN. */
uint32_t sm_tokenizer_find(const sm_tokenizer *tokenizer, const char *text, size_t length);

/* Named special tokens, SM_NO_TOKEN where the files name none. */
uint32_t sm_tokenizer_bos(const sm_tokenizer *tokenizer);
uint32_t sm_tokenizer_eos(const sm_tokenizer *tokenizer);
uint32_t sm_tokenizer_pad(const sm_tokenizer *tokenizer);
uint32_t sm_tokenizer_unk(const sm_tokenizer *tokenizer);

/* All special tokens, ascending; borrowed. */
const uint32_t *sm_tokenizer_special(const sm_tokenizer *tokenizer, size_t *count);
bool sm_tokenizer_is_special(const sm_tokenizer *tokenizer, uint32_t id);
/* The ids that end an answer: those of generation_config.json, or else the end token. Borrowed. */
const uint32_t *sm_tokenizer_stop_ids(const sm_tokenizer *tokenizer, size_t *count);

#endif
