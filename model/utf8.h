/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
 */
#ifndef MODEL_UTF8_H
#define MODEL_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/text.h"

/* Length of the longest prefix that is valid UTF-8: `length` if all of it is. */
size_t sm_utf8_valid(const char *bytes, size_t length);

/* The code point at `bytes`, which must be valid; *size becomes its length in bytes, 1 to 4. */
uint32_t sm_utf8_decode(const char *bytes, size_t *size);

/* Length in bytes of the character that `lead` begins; 1 for a byte that begins none. */
static inline size_t sm_utf8_size(char lead)
{
    unsigned char c = (unsigned char)lead;
    return c < 0xc0 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* Writes the code point's 1 to 4 bytes and returns how many. */
size_t sm_utf8_encode(uint32_t code_point, char bytes[4]);

/* What Unicode calls white space (25 code points). */
bool sm_utf8_is_space(uint32_t code_point);

/* Bytes to UTF-8 as they come. Every maximal ill-formed part becomes one U+FFFD (Unicode 15, 3.9, "substitution of
 * maximal subparts"); a character that is cut is held back until it is complete or known to be broken. Starts as {0}.
 */
typedef struct sm_utf8_mender {
    char held[4];
    unsigned count;
} sm_utf8_mender;

int sm_utf8_mend(sm_utf8_mender *mender, const char *bytes, size_t length, sm_text *out);
int sm_utf8_mend_end(sm_utf8_mender *mender, sm_text *out);

#endif
