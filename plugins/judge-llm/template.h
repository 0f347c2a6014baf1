/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What a judge is asked: a text with places for a record's prompt and answers, in sections that become chat messages.
 *
 *     [system]
 *     You compare answers.
 *     [user]
 *     {prompt}
 *     A: {a}
 *     B: {b}
 *
 * A line that is `[system]`, `[user]` or `[assistant]` and nothing else begins a section; a text without such a line is
 * one user message. Line breaks at both ends of a section are left out. `{{` and `}}` stand for braces. Where the last
 * of several sections is the assistant's, it is the beginning of the judge's own answer.
 *
 * A template never changes once it is read. All functions report errors through the host.
 */
#ifndef JUDGE_LLM_TEMPLATE_H
#define JUDGE_LLM_TEMPLATE_H

#include <sluice/host.h>
#include <sluice/record.h>

enum template_place { PLACE_PROMPT, PLACE_ANSWER, PLACE_A, PLACE_B, PLACES };

/* A run of text as it is, or one place to fill. */
typedef struct template_part {
    const char *text; /* NULL for a place */
    size_t length;
    int place;
} template_part;

typedef struct template_section {
    const char *role;
    size_t begin, end; /* parts */
    long line;
} template_section;

typedef struct template
{
    char *source; /* what parts point into */
    template_part *parts;
    size_t part_count, part_room;
    template_section *sections;
    size_t section_count, section_room;
    bool begins_answer; /* the last section is the beginning of the judge's answer */
}
template;

/* The texts that fill the places; NULL where the template has none. */
typedef struct template_texts {
    const char *place[PLACES];
} template_texts;

/* Reads `path`, or takes `text` where it is NULL. `name` stands for the text in messages. Wanted are the places of the
 * answers: two = {a} and {b}, otherwise {answer}; {prompt} may be left out. Free also after a failure. */
int template_read(const sluice_host *, const char *path, const char *text, const char *name, bool two, template *);
void template_free(template *);

/* The messages, one a section, in memory of the caller's: free each content. SLUICE_NO_MEMORY leaves nothing behind. */
int template_fill(const template *, const template_texts *, sluice_message *messages);
/* The text of one section, malloc'ed; NULL when out of memory. `texts` may be NULL where it has no place. */
char *template_fill_section(const template *, size_t section, const template_texts *texts);

#endif
