/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tests/folders.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

char *folder_path(const char *folder, const char *name)
{
    const size_t length = strlen(folder) + strlen(name) + 2;
    char *path = malloc(length);
    assert_non_null(path);
    snprintf(path, length, "%s/%s", folder, name);
    return path;
}

char *folder_new(void)
{
    const char *parent = getenv("TMPDIR");
    char *path = folder_path(parent ? parent : "/tmp", "sluice-test-XXXXXX");
    assert_non_null(mkdtemp(path));
    return path;
}

static void remove_tree(const char *path)
{
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        char *inner = folder_path(path, entry->d_name);
        struct stat found;
        assert_int_equal(lstat(inner, &found), 0);
        if (S_ISDIR(found.st_mode)) {
            remove_tree(inner);
        } else {
            assert_int_equal(unlink(inner), 0);
        }
        free(inner);
    }
    closedir(dir);
    assert_int_equal(rmdir(path), 0);
}

void folder_remove(char *path)
{
    remove_tree(path);
    free(path);
}

char *golden_path(const char *name)
{
    const char *data = getenv("SLUICE_TEST_DATA");
    char *golden = folder_path(data ? data : "tests", "golden"), *path = folder_path(golden, name);
    free(golden);
    return path;
}

char *file_read(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        print_error("%s cannot be read\n", path);
    }
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    const long size = ftell(file);
    rewind(file);
    char *bytes = malloc((size_t)size + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, (size_t)size, file), size);
    bytes[size] = '\0';
    fclose(file);
    if (length) {
        *length = (size_t)size;
    }
    return bytes;
}

void file_write(const char *folder, const char *name, const void *bytes, size_t length)
{
    char *path = folder_path(folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
    free(path);
}

void folder_copy(const char *from, const char *to)
{
    DIR *dir = opendir(from);
    assert_non_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir));) {
        char *path = folder_path(from, entry->d_name);
        struct stat found;
        assert_int_equal(stat(path, &found), 0);
        if (S_ISREG(found.st_mode)) {
            size_t length;
            char *bytes = file_read(path, &length);
            file_write(to, entry->d_name, bytes, length);
            free(bytes);
        }
        free(path);
    }
    closedir(dir);
}

size_t folder_count(const char *path)
{
    DIR *dir = opendir(path);
    assert_non_null(dir);
    size_t count = 0;
    while (readdir(dir)) {
        count++;
    }
    closedir(dir);
    return count - 2;
}
