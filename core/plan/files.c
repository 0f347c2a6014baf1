/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that stages write, against those that others read or write. Two writers of one file take turns in spoiling each
 * other's work, and a source whose file the same run replaces would lose the user's data; a source of a later phase may
 * read what an earlier one wrote.
 */
#include "core/plan/build.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

typedef struct place {
    const sl_stage *stage;
    const sl_value *value;
    const char *path; /* links and .. resolved */
    bool writes;
} place;

/* The file itself where it is there, otherwise its name in the folder that will hold it. */
static const char *real_path(sl_arena *arena, const char *path)
{
    char real[PATH_MAX], folder[PATH_MAX];
    if (realpath(path, real))
        return sl_arena_strdup(arena, real);
    const char *slash = strrchr(path, '/');
    if (!slash || (size_t)(slash - path) + 2 > sizeof folder)
        return path;
    memcpy(folder, path, (size_t)(slash - path) + 1);
    folder[slash - path + 1] = '\0';
    return realpath(folder, real) ? sl_arena_printf(arena, "%s/%s", real, slash + 1) : path;
}

static size_t collect(sl_builder *b, place *places)
{
    size_t count = 0;
    for (size_t p = 0; p < b->plan->phase_count; p++)
        for (size_t s = 0; s < b->plan->phases[p].stage_count; s++) {
            const sl_stage *stage = &b->plan->phases[p].stages[s];
            for (size_t v = 0; stage->object.type && v < stage->object.value_count; v++) {
                const sl_value *value = &stage->object.values[v];
                if (value->param->type != SLUICE_TYPE_FILE || !value->text)
                    continue;
                if (places)
                    places[count] = (place){stage, value, real_path(b->arena, value->text),
                                            stage->object.type->type->kind == SLUICE_SINK};
                count++;
            }
        }
    return count;
}

void sl_build_files(sl_builder *b)
{
    const size_t count = collect(b, NULL);
    place *places = sl_build_alloc(b, count, sizeof *places);
    if (!places)
        return;
    collect(b, places);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; places[i].writes && j < count; j++) {
            const place *sink = &places[i], *other = &places[j];
            if (!sink->path || !other->path || strcmp(sink->path, other->path) != 0)
                continue;
            if (other->writes && j < i)
                sl_mistake(b->mistakes, sink->value->at, sink->stage->name,
                           "'%s': stage '%s' writes '%s' as well; give each a file of its own",
                           sink->value->param->name, other->stage->name, sink->value->text);
            else if (!other->writes && other->stage->phase->index <= sink->stage->phase->index)
                sl_mistake(b->mistakes, sink->value->at, sink->stage->name,
                           "'%s': stage '%s' reads '%s', which would be overwritten; write another file",
                           sink->value->param->name, other->stage->name, sink->value->text);
        }
}
