/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include <sluice/abi.h>

static void canonical(XXH128_hash_t hash, uint8_t out[SL_HASH_SIZE])
{
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, hash);
    memcpy(out, c.digest, SL_HASH_SIZE);
}

void sl_hash_bytes(const void *bytes, size_t size, uint8_t out[SL_HASH_SIZE])
{
    canonical(XXH3_128bits(bytes, size), out);
}

int sl_hash_file(const char *path, uint8_t out[SL_HASH_SIZE])
{
    const size_t room = 1 << 20;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return SLUICE_IO;
    XXH3_state_t *hash = XXH3_createState();
    void *bytes = malloc(room);
    int rc = hash != NULL && bytes != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
    if (rc == SLUICE_OK)
        XXH3_128bits_reset(hash);
    for (ssize_t n = 1; rc == SLUICE_OK && n != 0;) {
        n = read(fd, bytes, room);
        if (n > 0)
            XXH3_128bits_update(hash, bytes, (size_t)n);
        else if (n < 0 && errno != EINTR)
            rc = SLUICE_IO;
    }
    if (rc == SLUICE_OK)
        canonical(XXH3_128bits_digest(hash), out);
    const int why = errno;
    close(fd);
    XXH3_freeState(hash);
    free(bytes);
    errno = why;
    return rc;
}

void sl_hex(const uint8_t *bytes, size_t count, char *text)
{
    for (size_t i = 0; i < count; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

static int digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *found = c != '\0' ? strchr(digits, c) : NULL;
    return found != NULL ? (int)(found - digits) : -1;
}

bool sl_unhex(const char *text, size_t count, uint8_t *bytes)
{
    for (size_t i = 0; i < count; i++) {
        const int high = digit(text[2 * i]), low = high >= 0 ? digit(text[2 * i + 1]) : -1;
        if (low < 0)
            return false;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return text[2 * count] == '\0';
}
