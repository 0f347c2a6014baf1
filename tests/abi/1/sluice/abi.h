/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The ABI's version, its result codes, and the few attributes every other header uses.
 *
 * A plugin is compiled against these headers and linked against nothing. The host reads the stamp a plugin carries
 * before it calls anything in it; a plugin of another ABI version is refused with the field that differs. Within one
 * version structs only grow at their end and functions are only appended to tables: `size` members say how much is
 * there.
 */
#ifndef SLUICE_ABI_H
#define SLUICE_ABI_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

#define SLUICE_ABI 1

/* Every function that can fail returns one of these (int). Zero and above are no errors. */
#define SLUICE_RESULTS(X)                                                      \
    X(SLUICE_OK, 0, "ok")                                                      \
    X(SLUICE_END, 1, "no more records")                                        \
    X(SLUICE_DROP, 2, "the record is left out of the output")                  \
    X(SLUICE_FAILED, -1, "failed")                                             \
    X(SLUICE_NO_MEMORY, -2, "out of memory")                                   \
    X(SLUICE_BAD_PARAMETER, -3, "a parameter is wrong")                        \
    X(SLUICE_BAD_RECORD, -4, "a record is wrong")                              \
    X(SLUICE_BAD_FILE, -5, "a file is missing, damaged or of another kind")    \
    X(SLUICE_BAD_MODEL, -6, "a model is missing, damaged or of another kind")  \
    X(SLUICE_BAD_PLUGIN, -7, "a plugin is missing, damaged or of another ABI") \
    X(SLUICE_IO, -8, "reading or writing failed")                              \
    X(SLUICE_UNSUPPORTED, -9, "not supported")                                 \
    X(SLUICE_CANCELLED, -10, "cancelled")                                      \
    X(SLUICE_CORRUPT, -11, "a stream is damaged")

enum sluice_result {
#define SLUICE_RESULT(name, value, text) name = value,
    SLUICE_RESULTS(SLUICE_RESULT)
#undef SLUICE_RESULT
};

#if defined(__GNUC__)
#define SLUICE_EXPORT            __attribute__((visibility("default")))
#define SLUICE_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define SLUICE_UNUSED            __attribute__((unused))
#else
#define SLUICE_EXPORT
#define SLUICE_PRINTF(fmt, args)
#define SLUICE_UNUSED
#endif

#endif
