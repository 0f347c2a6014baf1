/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A pipeline file as a tree of settings, before anything in it is understood: libconfig's reading, plus `--set`.
 *
 * libconfig refuses duplicate names, cannot read 1 as a float, and swallows some mistakes; so its tree is copied into
 * this one, where settings can be replaced and numbers keep both readings, and the text is scanned first for what it
 * swallows.
 */
#ifndef SL_SETTING_H
#define SL_SETTING_H

#include <stdio.h>
#include <sluice/abi.h>
#include "core/base/buffer.h"

typedef enum sl_setting_kind {
    SL_BOOLEAN,
    SL_INTEGER,
    SL_FLOAT,
    SL_TEXT,
    SL_LIST, /* ( … ) or [ … ] */
    SL_GROUP
} sl_setting_kind;

typedef struct sl_setting {
    sl_setting_kind kind;
    const char *name; /* NULL in a list */
    int line;         /* of the file; 0 = from `--set` */
    int level;        /* who said it: 0 the file, 1 `--set`, 2 a variant of the ablation */
    const char *set;  /* "trust.use=keep" when it comes from `--set`, otherwise NULL */
    bool boolean;
    int64_t integer;
    double number;    /* of integers too */
    const char *text; /* of SL_TEXT; of scalars from --set: as written */
    struct sl_setting *first, *last, *next;
    size_t count;                /* of members */
    struct sl_setting *replaced; /* what a lower level had said */
} sl_setting;

/* Mistakes, collected; printed in the order of their lines. */
typedef struct sl_mistakes sl_mistakes;
sl_mistakes *sl_mistakes_new(const char *file, sl_arena *);
/* at: where (its line or its --set); NULL = the whole file. stage: its name or NULL. `format`: what is wrong; how to
 * mend. */
void sl_mistake(sl_mistakes *, const sl_setting *at, const char *stage, const char *format, ...) SLUICE_PRINTF(4, 5);
void sl_mistake_line(sl_mistakes *, int line, const char *format, ...) SLUICE_PRINTF(3, 4);
/* A remark: printed too, but no mistake. */
void sl_remark(sl_mistakes *, const sl_setting *at, const char *stage, const char *format, ...) SLUICE_PRINTF(4, 5);
/* Further mistakes are of this variant of the ablation; NULL = of the file itself. */
void sl_mistakes_variant(sl_mistakes *, const char *variant);
size_t sl_mistakes_count(const sl_mistakes *);
void sl_mistakes_print(const sl_mistakes *, FILE *);
void sl_mistakes_free(sl_mistakes *);

/* What libconfig accepts or misreads without a word: integers that do not fit, unended comments and strings, bad UTF-8,
 * NUL bytes, @include, bottomless nesting. False when anything was found. */
bool sl_scan(const char *text, size_t size, sl_mistakes *);

/* Reads a file; NULL after a mistake. */
sl_setting *sl_settings_read(const char *file, sl_arena *, sl_mistakes *);
sl_setting *sl_setting_member(const sl_setting *group, const char *name);
sl_setting *sl_setting_copy(const sl_setting *, sl_arena *);
/* Appends, or replaces the member of the same name. */
void sl_setting_put(sl_setting *group, sl_setting *member);
/* "an integer", "a string", …, for messages. */
const char *sl_setting_kind_name(const sl_setting *);

/* Applies "key=value" (see sl_plan_read) to the tree. */
void sl_override(sl_setting *root, const char *text, sl_arena *, sl_mistakes *);
/* The group of a stage in any phase, NULL when there is none. */
sl_setting *sl_setting_stage(const sl_setting *root, const char *stage);
/* The name nearest to this one among those of stages, NULL when none is near. */
const char *sl_setting_near_stage(const sl_setting *root, const char *name);
/* Steps over members whether `list` is a list of groups or one group alone. */
sl_setting *sl_setting_first_group(sl_setting *list);

#endif
