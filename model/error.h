/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What went wrong, in one line for the user: what, where, how to mend it.
 *
 * Every function of the model library that can fail returns SM_OK or a negative sm_status and, when it was given an
 * sm_error, leaves one line of text in it (no newline, valid until the next failing call with the same sm_error). The
 * caller owns the struct. Errors are values, so any thread may use its own.
 */
#ifndef MODEL_ERROR_H
#define MODEL_ERROR_H

typedef enum sm_status {
    SM_OK = 0,
    SM_NO_MEMORY = -1,
    SM_IO = -2,           /* the operating system refused: missing file, full disk, no permission */
    SM_FORMAT = -3,       /* a file is not what it claims to be: truncated, bad JSON, wrong shapes */
    SM_UNSUPPORTED = -4,  /* a well-formed file asks for what this version does not do */
    SM_MISMATCH = -5,     /* two things that should belong together do not */
    SM_BAD_ARGUMENT = -6, /* the caller's own mistake */
    SM_CALLER = -7,       /* a function that the caller handed in ended the work; its own result says why */
    SM_DEVICE = -8        /* the device stopped working; no call on it succeeds any more */
} sm_status;

typedef struct sm_error {
    int code; /* an sm_status */
    char text[1000];
} sm_error;

/* Fills `error` (which may be NULL) and returns `code`, so that `return sm_fail(error, SM_IO, …)` reads well. Control
 * characters that a hostile file brought into the text become '?', so that the line stays one line. */
int sm_fail(sm_error *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
