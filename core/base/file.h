/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing at a place of a file, whole or not at all: interrupted and short calls are gone on with. */
#ifndef SL_FILE_H
#define SL_FILE_H

#include <sys/types.h>
#include <sys/uio.h>
#include "core/base/buffer.h"

/* Writes all the pieces one after another from `offset`; changes them. 0, or -1 with errno set. */
int sl_write_at(int fd, struct iovec *pieces, int count, uint64_t offset);
/* Bytes read: fewer than `size` only at the end of the file. -1 with errno set. */
ssize_t sl_read_at(int fd, void *to, size_t size, uint64_t offset);
/* Size in bytes, or -1 with errno set. */
int64_t sl_fd_size(int fd);
/* Makes what happened to a file's name last: fsync of its folder. 0, or -1 with errno set. */
int sl_sync_folder(const char *path);
/* A folder with all that is in it; nothing there is fine. SLUICE_IO with errno set. */
int sl_folder_remove(const char *path);
/* A file without a name in the folder of `beside` (NULL, or one that cannot be written to: the system's for temporary
 * files), gone when it is closed. -1 with errno set. */
int sl_temporary_file(const char *beside);
/* A whole file; NUL-terminated past size. SLUICE_IO with errno set, or SLUICE_NO_MEMORY. */
int sl_file_read(const char *path, sl_buffer *);

#endif
