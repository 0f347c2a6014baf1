/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/publish.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/head.h"
#include "model/json_file.h"
#include "model/weight_files.h"

#define COPY_BLOCK ((size_t)1 << 16)
#define CONFIG_CAP ((size_t)4 << 20)
#define ORIGINAL   "sluice_original_dtype"

/* A span of bytes within a text. */
struct span {
    size_t begin, end;
};

static size_t skip_blanks(const char *text, size_t length, size_t at)
{
    while (at < length && strchr(" \t\r\n", text[at])) {
        at++;
    }
    return at;
}

/* `at` stands on a quote; returns the place after the closing one. */
static size_t skip_string(const char *text, size_t length, size_t at)
{
    for (at++; at < length && text[at] != '"'; at++) {
        at += text[at] == '\\';
    }
    return at + 1;
}

/* The value, a text or null, of a field of the outermost object of valid JSON. */
static bool find_field(const char *text, size_t length, const char *key, struct span *value)
{
    const size_t key_length = strlen(key);
    int depth = 0;
    for (size_t at = 0; at < length; at++) {
        if (text[at] == '{' || text[at] == '[') {
            depth++;
        } else if (text[at] == '}' || text[at] == ']') {
            depth--;
        } else if (text[at] == '"') {
            const size_t end = skip_string(text, length, at), colon = skip_blanks(text, length, end);
            if (depth == 1 && colon < length && text[colon] == ':' && end - at == key_length + 2 &&
                memcmp(text + at + 1, key, key_length) == 0) {
                value->begin = skip_blanks(text, length, colon + 1);
                value->end =
                    text[value->begin] == '"' ? skip_string(text, length, value->begin) : value->begin + strlen("null");
                return value->end <= length;
            }
            at = end - 1;
        }
    }
    return false;
}

/* Replaces a field's value; false when there is no such field. `text` has room. */
static bool set_field(char *text, size_t *length, const char *key, const char *value)
{
    const size_t size = strlen(value);
    struct span old;
    if (!find_field(text, *length, key, &old)) {
        return false;
    }
    memmove(text + old.begin + size, text + old.end, *length - old.end);
    memcpy(text + old.begin, value, size);
    *length = *length - (old.end - old.begin) + size;
    return true;
}

/* Puts a field in front of all others. */
static void add_field(char *text, size_t *length, const char *key, const char *value)
{
    char line[100];
    const size_t added = (size_t)snprintf(line, sizeof line, "\n  \"%s\": %s,", key, value);
    const size_t after = (size_t)((char *)memchr(text, '{', *length) - text) + 1;
    memmove(text + after + added, text + after, *length - after);
    memcpy(text + after, line, added);
    *length += added;
}

char *sm_config_with_dtype(const char *text, size_t length, kn_dtype dtype, size_t *new_length)
{
    static const char *const keys[] = {"dtype", "torch_dtype"};
    char *result = malloc(length + 300);
    if (!result) {
        return NULL;
    }
    memcpy(result, text, length);
    char value[40], before[40] = "";
    snprintf(value, sizeof value, "\"%s\"", sm_dtype_name(dtype));
    bool found = false;
    for (int i = 0; i < 2; i++) {
        struct span old;
        if (find_field(result, length, keys[i], &old) && !*before) {
            snprintf(before, sizeof before, "%.*s", (int)(old.end - old.begin), result + old.begin);
        }
        found |= set_field(result, &length, keys[i], value);
    }
    if (!found) { /* the old spelling, which old and new readers understand */
        add_field(result, &length, "torch_dtype", value);
    }
    struct span original;
    if (dtype != KN_F32) {
        set_field(result, &length, ORIGINAL, value);
    } else if (!find_field(result, length, ORIGINAL, &original) &&
               (strcmp(before, "\"bfloat16\"") == 0 || strcmp(before, "\"float16\"") == 0)) {
        add_field(result, &length, ORIGINAL, before);
    }
    *new_length = length;
    return result;
}

/* Weights of any framework, which the new folder has its own of. */
static bool is_weights(const char *name)
{
    static const char *const suffixes[] = {".safetensors", ".index.json", ".bin",     ".pt",   ".pth",
                                           ".ckpt",        ".gguf",       ".msgpack", ".onnx", ".h5"};
    const size_t length = strlen(name);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        const size_t suffix = strlen(suffixes[i]);
        if (length > suffix && strcmp(name + length - suffix, suffixes[i]) == 0) {
            return true;
        }
    }
    return false;
}

static int write_all(int descriptor, const char *path, const char *at, size_t length, sm_error *error)
{
    while (length > 0) {
        const ssize_t put = write(descriptor, at, length);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            return sm_fail(error, SM_IO, "%s: cannot be written: %s", path, strerror(put < 0 ? errno : ENOSPC));
        }
        at += put;
        length -= (size_t)put;
    }
    return SM_OK;
}

static int create_file(const char *path, sm_error *error)
{
    const int descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return descriptor >= 0 ? descriptor : sm_fail(error, SM_IO, "%s: cannot be created: %s", path, strerror(errno));
}

/* Flushes and closes; keeps an earlier failure. */
static int finish_file(int descriptor, const char *path, int status, sm_error *error)
{
    if (status == SM_OK && fsync(descriptor) != 0) {
        status = sm_fail(error, SM_IO, "%s: cannot be flushed to the disk: %s", path, strerror(errno));
    }
    close(descriptor);
    return status;
}

static int copy_file(const char *from, const char *to, sm_error *error)
{
    unsigned long long size;
    const int in = sm_file_open(from, &size, error);
    if (in < 0) {
        return in;
    }
    const int out = create_file(to, error);
    int status = out < 0 ? out : SM_OK;
    char block[COPY_BLOCK];
    for (unsigned long long done = 0; status == SM_OK && done < size;) {
        const size_t now = size - done < COPY_BLOCK ? (size_t)(size - done) : COPY_BLOCK;
        if ((status = sm_file_read_at(in, from, block, now, done, error)) == SM_OK) {
            status = write_all(out, to, block, now, error);
        }
        done += now;
    }
    close(in);
    return out < 0 ? status : finish_file(out, to, status, error);
}

static int copy_config(const char *from, const char *to, const sm_config *config, kn_dtype dtype, sm_error *error)
{
    char *text;
    size_t length;
    int status = sm_file_read(from, CONFIG_CAP, &text, &length, error);
    if (status) {
        return status;
    }
    if (config->outputs > 0) {
        char *headed = sm_config_with_head(text, length, config, &length);
        free(text);
        text = headed;
    }
    char *changed = text ? sm_config_with_dtype(text, length, dtype, &length) : NULL;
    free(text);
    if (!changed) {
        return sm_fail(error, SM_NO_MEMORY, "%s: no memory to copy it", from);
    }
    const int out = create_file(to, error);
    status = out < 0 ? out : finish_file(out, to, write_all(out, to, changed, length, error), error);
    free(changed);
    return status;
}

static int copy_others(const char *source, const char *to, const sm_config *config, kn_dtype dtype, sm_error *error)
{
    DIR *dir = opendir(source);
    if (!dir) {
        return sm_fail(error, SM_IO, "%s: cannot be read: %s", source, strerror(errno));
    }
    int status = SM_OK;
    for (const struct dirent *entry; status == SM_OK && (entry = readdir(dir));) {
        if (entry->d_name[0] == '.' || is_weights(entry->d_name)) {
            continue;
        }
        char *from = sm_path(source, entry->d_name), *copy = sm_path(to, entry->d_name);
        struct stat found;
        if (!from || !copy) {
            status = sm_fail(error, SM_NO_MEMORY, "%s: no memory to copy its files", source);
        } else if (stat(from, &found) == 0 && S_ISREG(found.st_mode)) {
            status = strcmp(entry->d_name, "config.json") == 0 ? copy_config(from, copy, config, dtype, error)
                                                               : copy_file(from, copy, error);
        }
        free(from);
        free(copy);
    }
    closedir(dir);
    return status;
}

/* Removes a folder of plain files. */
static void remove_folder(const char *path)
{
    DIR *dir = opendir(path);
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        unlinkat(dirfd(dir), entry->d_name, 0); /* fails for . and .., as it should */
    }
    if (dir) {
        closedir(dir);
    }
    rmdir(path);
}

/* Splits "a/b/name/" into the parent's length (0: the current folder) and the name. */
static int name_hidden(sm_publication *publication, const char *to, sm_error *error)
{
    static atomic_uint number;
    size_t length = strlen(to);
    while (length > 1 && to[length - 1] == '/') {
        length--;
    }
    publication->to = strndup(to, length);
    publication->hidden = malloc(length + 48);
    if (!publication->to || !publication->hidden) {
        return sm_fail(error, SM_NO_MEMORY, "%s: no memory to write it", to);
    }
    const char *slash = strrchr(publication->to, '/');
    const char *name = slash ? slash + 1 : publication->to;
    if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        return sm_fail(error, SM_BAD_ARGUMENT, "%s: is not a name for a new folder", to);
    }
    snprintf(publication->hidden, length + 48, "%.*s.%s.tmp-%ld-%u", (int)(name - publication->to), publication->to,
             name, (long)getpid(), atomic_fetch_add(&number, 1));
    return SM_OK;
}

/* Said at the start, where it costs nothing, and not after the weights are written. */
static int check_free(const char *to, sm_error *error)
{
    struct stat found;
    if (lstat(to, &found) != 0) {
        return errno == ENOENT ? SM_OK : sm_fail(error, SM_IO, "%s: cannot be created: %s", to, strerror(errno));
    }
    DIR *dir = S_ISDIR(found.st_mode) ? opendir(to) : NULL;
    bool empty = dir != NULL;
    for (const struct dirent *entry; empty && (entry = readdir(dir));) {
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    }
    if (dir) {
        closedir(dir);
    }
    return empty ? SM_OK : sm_fail(error, SM_IO, "%s: already exists; remove it or name another folder", to);
}

int sm_publish_begin(sm_publication *publication, const char *to, const char *source, const sm_layout *layout,
                     kn_dtype dtype, sm_error *error)
{
    *publication = (sm_publication){0};
    int status = name_hidden(publication, to, error);
    if (status || (status = check_free(publication->to, error))) {
        free(publication->to);
        free(publication->hidden);
        return status;
    }
    if (mkdir(publication->hidden, 0777) != 0) {
        status = sm_fail(error, SM_IO, "%s: cannot be created: %s", to, strerror(errno));
        free(publication->to);
        free(publication->hidden);
        return status;
    }
    char *path = sm_path(publication->hidden, SM_WEIGHT_FILE);
    if (!path) {
        status = sm_fail(error, SM_NO_MEMORY, "%s: no memory to write it", to);
    } else if (!(status = copy_others(source, publication->hidden, &layout->config, dtype, error))) {
        status = sm_safetensors_create(&publication->weights, path, dtype, layout->tensor, layout->tensors, error);
    }
    free(path);
    if (status) {
        sm_publish_abort(publication);
    }
    return status;
}

/* Makes the folder's entries durable. */
static int flush_folder(const char *path, sm_error *error)
{
    const int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) {
        return sm_fail(error, SM_IO, "%s: cannot be opened: %s", path, strerror(errno));
    }
    /* Some file systems cannot flush a folder and say EINVAL; there is nothing more to do there. */
    const int failed = fsync(descriptor) != 0 && errno != EINVAL ? errno : 0;
    close(descriptor);
    return failed ? sm_fail(error, SM_IO, "%s: cannot be flushed to the disk: %s", path, strerror(failed)) : SM_OK;
}

int sm_publish_commit(sm_publication *publication, sm_error *error)
{
    int status = sm_safetensors_finish(publication->weights, 1, error);
    publication->weights = NULL;
    if (status == SM_OK) {
        status = flush_folder(publication->hidden, error);
    }
    if (status == SM_OK && rename(publication->hidden, publication->to) != 0) {
        status = sm_fail(error, SM_IO, "%s: cannot be put in place: %s", publication->to, strerror(errno));
    }
    if (status) {
        sm_publish_abort(publication);
        return status;
    }
    char *slash = strrchr(publication->to, '/');
    if (slash) {
        slash[slash == publication->to] = '\0';
    }
    status = flush_folder(slash ? publication->to : ".", error);
    free(publication->to);
    free(publication->hidden);
    *publication = (sm_publication){0};
    return status;
}

void sm_publish_abort(sm_publication *publication)
{
    if (publication->weights) {
        sm_safetensors_finish(publication->weights, 0, NULL);
    }
    remove_folder(publication->hidden);
    free(publication->to);
    free(publication->hidden);
    *publication = (sm_publication){0};
}
