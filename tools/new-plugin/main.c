/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* sluice new-plugin: a small plugin that builds, runs and passes its test, to be changed by its author. */
#include "core/cli/cli.h"
#include "core/base/near.h"
#include "core/run/internal.h"
#include "tools/new-plugin/place.h"
#include "tools/new-plugin/template.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char help[] =
    "sluice new-plugin KIND NAME [--dir FOLDER] [--cuda]\n\n"
    "Writes a folder with a small working plugin: its source, a Makefile that needs pkg-config and sluice's headers\n"
    "alone, a pipeline file that runs, a test (make check) and a README. KIND is one of\n"
    "  source, sink, sampler, judge, ranker, regularizer, loss, trainer, averager, evaluator, transform\n"
    "NAME is VENDOR/NAME, the id pipeline files will use, or NAME alone for my/NAME: lower-case letters, digits\n"
    "and -, a letter first.\n\n"
    "  --dir FOLDER  the folder to make; it must not exist (default: NAME)\n"
    "  --cuda        with CUDA kernels of its own, built by nvcc (a judge or a regularizer)\n\n"
    "Exit codes: 0 done, 1 failed (the folder exists, cannot write), 2 wrong usage.\n\n"
    "Example:\n"
    "  sluice new-plugin judge ann/brevity && cd brevity && make && make check\n";

static const sl_command command = {"new-plugin", "", help, NULL};

static const char *const kinds[] = {"source", "sink",    "sampler",  "judge",     "ranker",   "regularizer",
                                    "loss",   "trainer", "averager", "evaluator", "transform"};
/* What plugins with kernels have in common lies elsewhere. */
static const char COMMON[] = "common";

enum { KINDS = sizeof kinds / sizeof *kinds, MOST_NAME = 63 /* of an id: as the registry has it */ };

/* A file to write: a template of the folder `part` (NULL = the kind's own). */
typedef struct output {
    const char *part, *template;
    const char *name; /* one that begins with a point follows the plugin's name */
    bool optional;
} output;

static const output outputs[] = {
    {NULL, "plugin.c", ".c", false},          {NULL, "plugin.h", ".h", true},
    {NULL, "plugin.cu", ".cu", true},         {NULL, "pipeline.cfg", "pipeline.cfg", false},
    {NULL, "data.jsonl", "data.jsonl", true}, {NULL, "data.txt", "data.txt", true},
    {COMMON, "Makefile", "Makefile", false},  {"common", "check.sh", "check.sh", false},
    {COMMON, "README.md", "README.md", false}};

static int check_kind(const char *kind)
{
    sl_near near = {.wanted = kind};
    for (size_t i = 0; i < KINDS; i++) {
        if (strcmp(kinds[i], kind) == 0)
            return -1;
        sl_near_offer(&near, kinds[i]);
    }
    return near.best ? sl_usage(&command, "there is no kind '%s'; did you mean '%s'?", kind, near.best)
                     : sl_usage(&command, "there is no kind '%s'", kind);
}

static bool is_name(const char *name, size_t length)
{
    return length > 0 && name[0] >= 'a' && name[0] <= 'z' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") >= length;
}

/* `id` gets vendor and name. */
static int check_name(const char *given, char id[MOST_NAME + 1])
{
    const char *slash = strchr(given, '/');
    const size_t vendor = slash ? (size_t)(slash - given) : 0;
    const char *name = slash ? slash + 1 : given;
    if ((slash && !is_name(given, vendor)) || !is_name(name, strlen(name)))
        return sl_usage(&command,
                        "'%s' is no name of a plugin; use lower-case letters, digits and -, a letter first, and one / "
                        "after a vendor's name",
                        given);
    if (snprintf(id, MOST_NAME + 1, "%s%s", slash ? "" : "my/", given) > MOST_NAME)
        return sl_usage(&command, "'%s' is too long; an id has %d letters at most", given, MOST_NAME);
    return -1;
}

/* A path as it stands between quotes in a pipeline file. NULL when it cannot stand there. */
static const char *quoted(const char *path, char *to, size_t size)
{
    size_t used = 0;
    for (; *path; path++) {
        if ((unsigned char)*path < ' ' || used + 3 > size)
            return NULL;
        if (*path == '"' || *path == '\\')
            to[used++] = '\\';
        to[used++] = *path;
    }
    to[used] = '\0';
    return to;
}

static int write_output(const np_names *names, const output *file, const char *folder, char *error)
{
    char path[PATH_MAX + 2 * NAME_MAX];
    sl_buffer text = {0};
    const char *part = file->part ? file->part : names->own;
    if (part == COMMON && strcmp(names->own, names->kind) != 0)
        part = "cuda";
    snprintf(path, sizeof path, "%s/%s/%s", names->folder, part, file->template);
    if (file->optional && !sl_path_exists(path))
        return SLUICE_OK;
    int rc = np_template_fill(names, part, file->template, &text, error, SL_ERROR_SIZE);
    snprintf(path, sizeof path, "%s/%s%s", folder, file->name[0] == '.' ? names->name : "", file->name);
    if (rc >= 0)
        rc = sl_file_write(path, text.data, text.size, error);
    sl_buffer_free(&text);
    return rc;
}

/* Everything into a folder of another name first: it appears whole or not at all. */
static int write_folder(const np_names *names, const char *folder, char *error)
{
    char part[PATH_MAX];
    struct stat there;
    const char *slash = strrchr(folder, '/');
    const int parent = slash ? (int)(slash - folder) + 1 : 0;
    if (lstat(folder, &there) == 0) {
        snprintf(error, SL_ERROR_SIZE, "%.900s exists already; name another folder with --dir", folder);
        return SLUICE_FAILED;
    }
    if (snprintf(part, sizeof part, "%.*s.%s.XXXXXX", parent, folder, folder + parent) >= PATH_MAX - 64 ||
        !mkdtemp(part)) {
        snprintf(error, SL_ERROR_SIZE, "cannot make %.900s: %s", folder, strerror(errno));
        return SLUICE_IO;
    }
    int rc = SLUICE_OK;
    for (size_t i = 0; rc >= 0 && i < sizeof outputs / sizeof *outputs; i++)
        rc = write_output(names, &outputs[i], part, error);
    const mode_t mask = umask(0);
    umask(mask);
    if (rc >= 0 && (chmod(part, 0777 & ~mask) != 0 || sl_folder_sync(part) < 0 || rename(part, folder) != 0)) {
        snprintf(error, SL_ERROR_SIZE, "cannot make %.900s: %s", folder, strerror(errno));
        rc = SLUICE_IO;
    }
    if (rc < 0)
        sl_folder_remove(part);
    return rc;
}

static int new_plugin(const char *kind, const char *id, const char *dir, bool cuda)
{
    char data[PATH_MAX - 128], folder[PATH_MAX], templates[PATH_MAX], models[2 * PATH_MAX], error[SL_ERROR_SIZE] = "";
    const char *name = strchr(id, '/') + 1;
    if (snprintf(folder, sizeof folder, "%s", dir ? dir : name) >= (int)sizeof folder)
        return sl_fail(&command, SL_EXIT_FAILED, "the name of the folder is too long");
    for (size_t end = strlen(folder); end > 1 && folder[end - 1] == '/';)
        folder[--end] = '\0';
    char found[PATH_MAX];
    if (!np_data_folder(found) || snprintf(data, sizeof data, "%s", found) >= (int)sizeof data)
        return sl_fail(&command, SL_EXIT_FAILED, "the folder of sluice's files cannot be told: %s", strerror(errno));
    snprintf(templates, sizeof templates, "%s/tools/new-plugin/templates", data);
    snprintf(found, sizeof found, "%s/models", data);
    char own[64];
    snprintf(own, sizeof own, "%s%s", cuda ? "cuda-" : "", kind);
    const np_names names = {.kind = kind,
                            .own = own,
                            .id = id,
                            .name = name,
                            .folder = templates,
                            .models = quoted(found, models, sizeof models)};
    if (!names.models)
        return sl_fail(&command, SL_EXIT_FAILED, "sluice lies in a folder that no pipeline file can name: %s", found);
    /* Ctrl-C waits until the folder is there or gone: that takes milliseconds. */
    sigset_t stops, before;
    sigemptyset(&stops);
    sigaddset(&stops, SIGINT);
    sigaddset(&stops, SIGTERM);
    sigaddset(&stops, SIGHUP);
    sigprocmask(SIG_BLOCK, &stops, &before);
    const int rc = write_folder(&names, folder, error);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (rc < 0)
        return sl_fail(&command, SL_EXIT_FAILED, "%s", error);
    printf("%s: %s '%s'\n\n  cd %s && make && make check\n", folder, kind, id, folder);
    return SL_EXIT_OK;
}

int main(int argc, char **argv)
{
    sl_words rest = {0};
    const char *dir = NULL;
    char id[MOST_NAME + 1];
    bool cuda = false;
    const sl_option options[] = {
        {.name = "dir", .kind = SL_WORD, .to = &dir}, {.name = "cuda", .kind = SL_FLAG, .to = &cuda}, {0}};
    int code = sl_options_read(&command, argc - 1, argv + 1, options, &rest);
    if (code < 0 && rest.count != 2)
        code = sl_usage(&command, "a kind and a name are wanted");
    if (code < 0)
        code = check_kind(rest.items[0]);
    if (code < 0 && cuda && strcmp(rest.items[0], "judge") != 0 && strcmp(rest.items[0], "regularizer") != 0)
        code = sl_usage(&command, "--cuda writes a judge or a regularizer, no %s", rest.items[0]);
    if (code < 0)
        code = check_name(rest.items[1], id);
    if (code < 0 && dir && dir[0] == '\0')
        code = sl_usage(&command, "--dir is empty; name a folder");
    if (code < 0)
        code = new_plugin(rest.items[0], id, dir, cuda);
    sl_words_free(&rest);
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == SL_EXIT_OK)
        code = sl_fail(&command, SL_EXIT_FAILED, "writing to standard output failed: %s", strerror(errno));
    return code;
}
