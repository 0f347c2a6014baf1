/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Folders that a test makes, fills and removes. Every function fails the running test when it cannot do its work. */
#ifndef TESTS_FOLDERS_H
#define TESTS_FOLDERS_H

#include <stddef.h>

/* A new empty folder under TMPDIR; its path in new memory. */
char *folder_new(void);
/* Removes it with all that is in it and frees the path. */
void folder_remove(char *path);
/* "folder/name" in new memory. */
char *folder_path(const char *folder, const char *name);
/* A golden of tests/golden/, by its path there; in new memory. */
char *golden_path(const char *name);
/* The whole file in new memory, with a NUL after its *length bytes (length may be NULL). */
char *file_read(const char *path, size_t *length);
/* Makes or replaces folder/name. */
void file_write(const char *folder, const char *name, const void *bytes, size_t length);
/* Copies the plain files of one folder into another. */
void folder_copy(const char *from, const char *to);
/* How many entries it has, hidden ones too, but not . and .. */
size_t folder_count(const char *path);

#endif
