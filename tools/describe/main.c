/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* sluice describe: classes by their own descriptions. */
#include "core/cli/cli.h"
#include "core/run/internal.h"
#include "tools/describe/describe.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "sluice describe ID [--format text|markdown|json|man]\n"
    "sluice describe --all [--format …] [--out FOLDER]\n\n"
    "Prints what a class does, the record fields it reads and adds, its parameters with type, default and range, and\n"
    "the numbers it reports; of all classes that are installed one after another.\n\n"
    "  --all            every class\n"
    "  --format FORMAT  text (default), markdown, json, or man: a page for man -l -\n"
    "  --out FOLDER     a file a class in this folder, which is made: ID.txt, ID.md, ID.json, sluice-ID.7; of "
    "markdown\n"
    "                   a list of them too, README.md\n\n"
    "Exit codes: 0 done, 1 failed, 2 there is no such class, or wrong usage.\n\n"
    "Example:\n"
    "  sluice describe cream\n"
    "  sluice describe --all --format json\n";

static const sl_command command = {"describe", "", help, NULL};

typedef struct ds_format {
    const char *name;
    void (*write)(const sl_registered *, FILE *);
    const char *prefix, *suffix;       /* of a class's file */
    const char *begin, *between, *end; /* of all classes in one output */
} ds_format;

static const ds_format formats[] = {{"text", ds_text, "", ".txt", "", "\n", ""},
                                    {"markdown", ds_markdown, "", ".md", "# Classes\n\n", "\n", ""},
                                    {"json", ds_json, "", ".json", "[\n", ",", "]\n"},
                                    {"man", ds_man, "sluice-", ".7", "", "", ""}};

static const ds_format *find_format(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i].name, name) == 0)
            return &formats[i];
    return NULL;
}

static int by_id(const void *a, const void *b)
{
    const sl_registered *const *x = a, *const *y = b;
    return strcmp((*x)->type->id, (*y)->type->id);
}

static int describe_one(const sl_registry *registry, const char *id, const ds_format *format)
{
    const sl_registered *found = sl_registry_find(registry, id);
    const char *near = sl_registry_near(registry, id, -1), *conflict = sl_registry_conflict(registry, id);
    if (conflict)
        return sl_fail(&command, SL_EXIT_USAGE, "%s", conflict);
    if (!found && near)
        return sl_fail(&command, SL_EXIT_USAGE, "there is no class '%s'; did you mean '%s'?", id, near);
    if (!found)
        return sl_fail(&command, SL_EXIT_USAGE, "there is no class '%s'; `sluice plugins` lists those there are", id);
    format->write(found, stdout);
    return SL_EXIT_OK;
}

/* A class's file: an id's / is - there. */
static void file_name(const ds_format *format, const sl_registered *r, char *name, size_t size)
{
    snprintf(name, size, "%s%s%s", format->prefix, r->type->id, format->suffix);
    for (char *slash = strchr(name, '/'); slash; slash = strchr(slash, '/'))
        *slash = '-';
}

/* The list of all pages. */
static void write_list(const ds_format *format, sl_registered *const *classes, size_t count, FILE *out)
{
    char name[128];
    fputs("# Classes\n\nWhat each class says of itself: `sluice describe ID`.\n\n| class | kind | |\n| --- | --- | --- "
          "|\n",
          out);
    for (size_t i = 0; i < count; i++) {
        const sluice_class *c = classes[i]->type;
        file_name(format, classes[i], name, sizeof name);
        fprintf(out, "| [%s](%s) | %s | %s |\n", c->id, name, sl_kind_name(c->kind), c->summary);
    }
}

/* Closes `memory`, a stream that wrote `text`, and makes that a file, whole or not at all. */
static int keep(FILE *memory, char *const *text, const size_t *size, const char *folder, const char *name, char *error)
{
    char path[PATH_MAX];
    const bool whole = !ferror(memory);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(error, SL_ERROR_SIZE, "out of memory");
    return fclose(memory) == 0 && whole ? sl_file_write(path, *text, *size, error) : SLUICE_NO_MEMORY;
}

/* Class number i's page; past the last the list of all. */
static int write_page(const ds_format *format, sl_registered *const *classes, size_t count, size_t i,
                      const char *folder, char *error)
{
    char *text = NULL, name[128] = "README.md";
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    if (!memory) {
        snprintf(error, SL_ERROR_SIZE, "out of memory");
        return SLUICE_NO_MEMORY;
    }
    if (i < count) {
        file_name(format, classes[i], name, sizeof name);
        format->write(classes[i], memory);
    } else {
        write_list(format, classes, count, memory);
    }
    const int rc = keep(memory, &text, &size, folder, name, error);
    free(text);
    return rc;
}

static int describe_into(sl_registered *const *classes, size_t count, const ds_format *format, const char *folder)
{
    char error[SL_ERROR_SIZE];
    const size_t pages = count + (format->write == ds_markdown);
    int rc = sl_folder_make(folder, error);
    for (size_t i = 0; rc >= 0 && i < pages; i++)
        rc = write_page(format, classes, count, i, folder, error);
    return rc < 0 ? sl_fail(&command, SL_EXIT_FAILED, "%s", error) : SL_EXIT_OK;
}

static int describe_all(const sl_registry *registry, const ds_format *format, const char *folder)
{
    const size_t count = sl_registry_count(registry);
    sl_registered **classes = malloc((count + 1) * sizeof *classes);
    int code = SL_EXIT_OK;
    if (!classes)
        return sl_fail(&command, SL_EXIT_FAILED, "out of memory");
    for (size_t i = 0; i < count; i++)
        classes[i] = (sl_registered *)(uintptr_t)sl_registry_at(registry, i);
    qsort(classes, count, sizeof(sl_registered *), by_id);
    if (folder) {
        code = describe_into(classes, count, format, folder);
    } else {
        fputs(format->begin, stdout);
        for (size_t i = 0; i < count; i++) {
            fputs(i ? format->between : "", stdout);
            format->write(classes[i], stdout);
        }
        fputs(format->end, stdout);
    }
    free(classes);
    return code;
}

int main(int argc, char **argv)
{
    sl_words rest = {0};
    const char *name = "text", *folder = NULL;
    bool all = false;
    const sl_option options[] = {{.name = "format", .kind = SL_WORD, .to = &name},
                                 {.name = "all", .kind = SL_FLAG, .to = &all},
                                 {.name = "out", .kind = SL_WORD, .to = &folder},
                                 {0}};
    int code = sl_options_read(&command, argc - 1, argv + 1, options, &rest);
    const ds_format *format = find_format(name);
    if (code < 0 && rest.count != (all ? 0 : 1))
        code = sl_usage(&command, all ? "--all is every class; name none"
                                      : "the id of one class is wanted, or --all; `sluice plugins` lists them");
    if (code < 0 && folder && (!all || folder[0] == '\0'))
        code = sl_usage(&command, all ? "--out is empty; name a folder" : "--out goes with --all");
    if (code < 0 && !format)
        code = sl_usage(&command, "--format is '%s'; choose text, markdown, json or man", name);
    if (code < 0) {
        sl_registry *registry = sl_registry_open();
        if (!registry)
            code = sl_fail(&command, SL_EXIT_FAILED, "out of memory");
        else
            code = all ? describe_all(registry, format, folder) : describe_one(registry, rest.items[0], format);
        sl_registry_close(registry);
    }
    sl_words_free(&rest);
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == SL_EXIT_OK)
        code = sl_fail(&command, SL_EXIT_FAILED, "writing to standard output failed: %s", strerror(errno));
    return code;
}
