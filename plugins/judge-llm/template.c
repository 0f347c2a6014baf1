/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "plugins/judge-llm/template.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST_FILE ((size_t)1 << 20)

static const char *const place_names[PLACES] = {"prompt", "answer", "a", "b"};

/* Where reading stands, and what to say of it. */
struct reader {
    const sluice_host *host;
    const char *name;
    bool two;
    template *t;
    long line;
    bool seen[PLACES];
};

static int no_memory(const struct reader *r)
{
    return sluice_error(r->host, SLUICE_NO_MEMORY, "out of memory for the prompt of %s", r->name);
}

/* --- the bytes --- */

/* Length of the UTF-8 sequence at the front of n bytes; 0 where there is none. */
static size_t sequence(const unsigned char *s, size_t n)
{
    size_t length = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : 4;
    if (s[0] == 0 || (s[0] >= 0x80 && s[0] < 0xc2) || s[0] > 0xf4 || length > n)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool beyond = (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf4 && s[1] > 0x8f);
    return overlong || beyond ? 0 : length;
}

/* Is it text? Line ends become "\n". */
static int check_text(const struct reader *r, char *s, size_t *count)
{
    long line = 1;
    size_t kept = 0, mark = *count >= 3 && memcmp(s, "\xef\xbb\xbf", 3) == 0 ? 3 : 0; /* a byte order mark */
    for (size_t i = mark, n; i < *count; i += n) {
        n = sequence((const unsigned char *)s + i, *count - i);
        if (n == 0)
            return sluice_error(r->host, SLUICE_BAD_PARAMETER, "%s:%ld: this is no UTF-8 text; save it as such",
                                r->name, line);
        line += s[i] == '\n';
        if (s[i] == '\r' && i + 1 < *count && s[i + 1] == '\n')
            continue;
        memmove(s + kept, s + i, n);
        kept += n;
    }
    s[ *count = kept] = 0;
    return SLUICE_OK;
}

static int read_file(const struct reader *r, const char *path, char **out, size_t *count)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return sluice_error(r->host, SLUICE_IO, "%s cannot be read: %s", path, strerror(errno));
    *out = malloc(LONGEST_FILE + 1);
    *count = *out ? fread(*out, 1, LONGEST_FILE + 1, file) : 0;
    int failed = ferror(file) ? errno : 0;
    fclose(file);
    if (!*out)
        return no_memory(r);
    if (failed)
        return sluice_error(r->host, SLUICE_IO, "%s cannot be read: %s", path, strerror(failed));
    if (*count > LONGEST_FILE)
        return sluice_error(r->host, SLUICE_BAD_PARAMETER, "%s is longer than %zu bytes, too long for a prompt", path,
                            LONGEST_FILE);
    return SLUICE_OK;
}

/* --- sections and parts --- */

static template_part *add_part(struct reader *r)
{
    template *t = r->t;
    if (t->part_count == t->part_room) {
        size_t room = 2 * t->part_room + 16;
        template_part *grown = realloc(t->parts, room * sizeof *grown);
        if (!grown)
            return NULL;
        t->parts = grown;
        t->part_room = room;
    }
    return memset(&t->parts[t->part_count++], 0, sizeof(template_part));
}

static int add_text(struct reader *r, const char *text, size_t length)
{
    if (length == 0)
        return SLUICE_OK;
    template_part *part = add_part(r);
    if (!part)
        return no_memory(r);
    *part = (template_part){.text = text, .length = length};
    return SLUICE_OK;
}

static int add_section(struct reader *r, const char *role)
{
    template *t = r->t;
    if (t->section_count == t->section_room) {
        size_t room = 2 * t->section_room + 8;
        template_section *grown = realloc(t->sections, room * sizeof *grown);
        if (!grown)
            return no_memory(r);
        t->sections = grown;
        t->section_room = room;
    }
    t->sections[t->section_count++] = (template_section){role, t->part_count, t->part_count, r->line};
    return SLUICE_OK;
}

/* The role that a line of `length` bytes names; *wrong where it looks like one that there is not. */
static const char *section_role(const char *line, size_t length, bool *wrong)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    *wrong = false;
    while (length > 0 && (line[length - 1] == ' ' || line[length - 1] == '\t'))
        length--;
    if (length < 3 || line[0] != '[' || line[length - 1] != ']')
        return NULL;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strlen(roles[i]) == length - 2 && memcmp(line + 1, roles[i], length - 2) == 0)
            return roles[i];
    *wrong = true;
    for (size_t i = 1; i + 1 < length; i++)
        *wrong &= (line[i] >= 'a' && line[i] <= 'z') || (line[i] >= 'A' && line[i] <= 'Z');
    return NULL;
}

/* {name} at the front of `s`, which ends at `end`. */
static int add_place(struct reader *r, const char **s, const char *end)
{
    const char *known = r->two ? "{prompt}, {a} and {b}" : "{prompt} and {answer}";
    const char *close = *s + 1;
    while (close < end && *close != '}' && *close != '\n' && *close != '{')
        close++;
    if (close == end || *close != '}')
        return sluice_error(r->host, SLUICE_BAD_PARAMETER, "%s:%ld: '{' has no '}'; write '{{' for a brace", r->name,
                            r->line);
    size_t length = (size_t)(close - *s) - 1;
    for (int p = 0; p < PLACES; p++) {
        bool here = p == PLACE_PROMPT || (p != PLACE_ANSWER) == r->two;
        if (!here || strlen(place_names[p]) != length || memcmp(*s + 1, place_names[p], length) != 0)
            continue;
        template_part *part = add_part(r);
        if (!part)
            return no_memory(r);
        part->place = p;
        r->seen[p] = true;
        *s = close + 1;
        return SLUICE_OK;
    }
    return sluice_error(r->host, SLUICE_BAD_PARAMETER,
                        "%s:%ld: there is no '{%.*s}' here, only %s; write '{{' for a brace", r->name, r->line,
                        (int)(length < 40 ? length : 40), *s + 1, known);
}

/* The parts of a section's text. */
static int add_parts(struct reader *r, const char *s, const char *end)
{
    const char *text = s;
    int rc = SLUICE_OK;
    while (rc >= 0 && s < end) {
        if (*s != '{' && *s != '}') {
            r->line += *s++ == '\n';
            continue;
        }
        bool twice = s + 1 < end && s[1] == *s;
        if (!twice && *s == '}')
            return sluice_error(r->host, SLUICE_BAD_PARAMETER, "%s:%ld: '}' has no '{'; write '}}' for a brace",
                                r->name, r->line);
        rc = add_text(r, text, (size_t)(s - text) + twice); /* of two braces the first is text, the second is not */
        if (twice)
            s += 2;
        else if (rc >= 0)
            rc = add_place(r, &s, end);
        text = s;
    }
    return rc < 0 ? rc : add_text(r, text, (size_t)(s - text));
}

/* Text from `s` to `end` belongs to the section that was begun last, or is the only one. */
static int end_section(struct reader *r, const char *s, const char *end)
{
    template *t = r->t;
    long last = r->line;
    for (; s < end && *s == '\n'; s++)
        r->line++;
    while (end > s && end[-1] == '\n')
        end--;
    if (t->section_count == 0) {
        bool blank = true;
        for (const char *c = s; c < end; c++)
            blank &= *c == ' ' || *c == '\t' || *c == '\n';
        if (blank)
            return SLUICE_OK;
        int rc = add_section(r, "user");
        if (rc < 0)
            return rc;
    }
    template_section *section = &t->sections[t->section_count - 1];
    if (s == end)
        return sluice_error(r->host, SLUICE_BAD_PARAMETER,
                            "%s:%ld: section [%s] is empty; give it a text or take it out", r->name, section->line,
                            section->role);
    int rc = add_parts(r, s, end);
    t->sections[t->section_count - 1].end = t->part_count;
    r->line = last;
    return rc;
}

static int read_sections(struct reader *r, const char *s, const char *end)
{
    const char *begin = s; /* of the section's text */
    long begun = 1, line = 1;
    bool any = false;
    for (; s < end; line++) {
        const char *stop = memchr(s, '\n', (size_t)(end - s));
        size_t length = stop ? (size_t)(stop - s) : (size_t)(end - s);
        bool wrong;
        const char *role = section_role(s, length, &wrong);
        if (wrong)
            return sluice_error(r->host, SLUICE_BAD_PARAMETER,
                                "%s:%ld: there is no section '%.*s', only [system], [user] and [assistant]; put a "
                                "blank before it where it is text",
                                r->name, line, (int)(length < 40 ? length : 40), s);
        if (role) {
            r->line = begun;
            int rc = end_section(r, begin, s);
            if (rc >= 0 && !any && r->t->section_count > 0)
                rc = sluice_error(r->host, SLUICE_BAD_PARAMETER,
                                  "%s:%ld: text before the first section; put [user] or [system] above it", r->name,
                                  r->t->sections[0].line);
            r->line = line;
            if (rc >= 0)
                rc = add_section(r, role);
            if (rc < 0)
                return rc;
            any = true;
            begin = s + length + (stop != NULL);
            begun = line + 1;
        }
        s += length + (stop != NULL);
    }
    r->line = begun;
    return end_section(r, begin, end);
}

static int check_places(const struct reader *r)
{
    const template *t = r->t;
    if (t->section_count == 0)
        return sluice_error(r->host, SLUICE_BAD_PARAMETER, "%s:1: there is no text; say what the judge is to be asked",
                            r->name);
    for (int p = PLACE_ANSWER; p < PLACES; p++)
        if ((p != PLACE_ANSWER) == r->two && !r->seen[p])
            return sluice_error(
                r->host, SLUICE_BAD_PARAMETER,
                "%s:%ld: {%s} stands nowhere in this text; put it where the judge is to read the answer", r->name,
                t->sections[0].line, place_names[p]);
    const template_section *last = &t->sections[t->section_count - 1];
    for (size_t i = last->begin; strcmp(last->role, "assistant") == 0 && i < last->end; i++)
        if (!t->parts[i].text)
            return sluice_error(
                r->host, SLUICE_BAD_PARAMETER,
                "%s:%ld: {%s} stands in the last section, which begins the judge's own answer; ask in a "
                "[user] section after it",
                r->name, last->line, place_names[t->parts[i].place]);
    if (t->section_count == 1 && strcmp(t->sections[0].role, "user") != 0)
        return sluice_error(r->host, SLUICE_BAD_PARAMETER, "%s:%ld: there is no [user] section; nobody asks the judge",
                            r->name, t->sections[0].line);
    return SLUICE_OK;
}

int template_read(const sluice_host *host, const char *path, const char *text, const char *name, bool two, template *t)
{
    struct reader r = {.host = host, .name = path ? path : name, .two = two, .t = t, .line = 1};
    size_t count = 0;
    int rc = SLUICE_OK;
    *t = (template){0};
    if (path)
        rc = read_file(&r, path, &t->source, &count);
    else if ((t->source = strdup(text)))
        count = strlen(text);
    else
        rc = no_memory(&r);
    if (rc >= 0)
        rc = check_text(&r, t->source, &count);
    if (rc >= 0)
        rc = read_sections(&r, t->source, t->source + count);
    if (rc >= 0)
        rc = check_places(&r);
    if (rc >= 0)
        t->begins_answer = t->section_count > 1 && strcmp(t->sections[t->section_count - 1].role, "assistant") == 0;
    return rc;
}

void template_free(template *t)
{
    free(t->source);
    free(t->parts);
    free(t->sections);
    *t = (template){0};
}

/* --- filling --- */

char *template_fill_section(const template *t, size_t index, const template_texts *texts)
{
    const template_section *section = &t->sections[index];
    size_t length = 0;
    for (size_t i = section->begin; i < section->end; i++)
        length += t->parts[i].text ? t->parts[i].length : strlen(texts->place[t->parts[i].place]);
    char *content = malloc(length + 1), *at = content;
    for (size_t i = section->begin; content && i < section->end; i++) {
        const template_part *part = &t->parts[i];
        const char *text = part->text ? part->text : texts->place[part->place];
        size_t n = part->text ? part->length : strlen(text);
        memcpy(at, text, n);
        at += n;
    }
    if (content)
        *at = 0;
    return content;
}

int template_fill(const template *t, const template_texts *texts, sluice_message *messages)
{
    for (size_t i = 0; i < t->section_count; i++) {
        messages[i] = (sluice_message){t->sections[i].role, template_fill_section(t, i, texts)};
        if (messages[i].content)
            continue;
        while (i > 0)
            free((char *)(uintptr_t)messages[--i].content);
        return SLUICE_NO_MEMORY;
    }
    return SLUICE_OK;
}
