/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/new-plugin/template.h"
#include "core/run/internal.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

/* What a mark stands for; NULL where there is none of that name. */
static const char *value(const np_names *names, const char *mark, size_t length)
{
    const struct {
        const char *mark, *value;
    } marks[] = {{"ID", names->id}, {"NAME", names->name}, {"KIND", names->kind}, {"MODELS", names->models}};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (strlen(marks[i].mark) == length && strncmp(marks[i].mark, mark, length) == 0)
            return marks[i].value;
    return NULL;
}

/* One line, its end included. */
static int fill_line(const np_names *names, const char *line, size_t length, sl_buffer *out)
{
    int rc = SLUICE_OK;
    while (rc >= 0 && length > 0) {
        const char *at = memchr(line, '@', length);
        const size_t plain = at ? (size_t)(at - line) : length;
        const char *end = at ? memchr(at + 1, '@', length - plain - 1) : NULL;
        const char *text = end ? value(names, at + 1, (size_t)(end - at) - 1) : NULL;
        const size_t taken = text ? plain : at ? plain + 1 : length;
        rc = sl_buffer_append(out, line, taken);
        if (rc >= 0 && text)
            rc = sl_buffer_append(out, text, strlen(text));
        const size_t used = text ? (size_t)(end - line) + 1 : taken;
        line += used;
        length -= used;
    }
    return rc;
}

static int fill(const np_names *names, const char *text, sl_buffer *out, char *error, size_t size)
{
    static const char include[] = "@INCLUDE ";
    char file[NAME_MAX];
    int rc = SLUICE_OK;
    for (size_t length; rc >= 0 && *text; text += length) {
        length = strcspn(text, "\n");
        length += text[length] == '\n';
        if (strncmp(text, include, sizeof include - 1) == 0 &&
            sscanf(text + sizeof include - 1, "%63[A-Za-z.]@", file) == 1)
            rc = np_template_fill(names, names->own, file, out, error, size);
        else if ((rc = fill_line(names, text, length, out)) < 0)
            snprintf(error, size, "out of memory");
    }
    return rc;
}

int np_template_fill(const np_names *names, const char *part, const char *file, sl_buffer *out, char *error,
                     size_t size)
{
    char path[PATH_MAX + 2 * NAME_MAX];
    sl_buffer text = {0};
    snprintf(path, sizeof path, "%s/%s/%s", names->folder, part, file);
    int rc = sl_file_read(path, &text);
    if (rc < 0)
        snprintf(error, size, "the template %s cannot be read: %s; install sluice again", path, strerror(errno));
    else
        rc = fill(names, (const char *)text.data, out, error, size);
    sl_buffer_free(&text);
    return rc;
}
