/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plugins/evaluator/agreement.h"

#define MAX_GROUPS 1000
#define GROUP_NAME 160

static int find_group(agreement *a, const sluice_host *host, const sluice_record *record, const char *group,
                      agreement_count **out)
{
    char name[GROUP_NAME];
    double number;
    const char *text = sluice_record_meta_text(record, group);
    if (text)
        snprintf(name, sizeof name, "pair_accuracy/%.100s", text);
    else if (sluice_record_meta_number(record, group, &number) == SLUICE_OK)
        snprintf(name, sizeof name, "pair_accuracy/%.6g", number);
    else
        return sluice_record_error(host, record, SLUICE_BAD_RECORD,
                                   "the meta field '%s', which group names, is missing", group);
    for (size_t i = 0; i < a->group_count; i++)
        if (strcmp(a->groups[i].name, name) == 0) {
            *out = &a->groups[i];
            return SLUICE_OK;
        }
    if (a->group_count == MAX_GROUPS)
        return sluice_record_error(host, record, SLUICE_BAD_RECORD,
                                   "the meta field '%s' has more than %d values; let group name a field with few",
                                   group, MAX_GROUPS);
    agreement_count *grown = realloc(a->groups, (a->group_count + 1) * sizeof *grown);
    char *copy = strdup(name);
    a->groups = grown ? grown : a->groups;
    if (!grown || !copy) {
        free(copy);
        return sluice_error(host, SLUICE_NO_MEMORY, "out of memory for %zu groups", a->group_count + 1);
    }
    *out = &a->groups[a->group_count++];
    **out = (agreement_count){.name = copy};
    return SLUICE_OK;
}

int agreement_add(agreement *a, const sluice_host *host, const sluice_record *record, const char *judge,
                  const char *group)
{
    const float *scores = sluice_record_scores(record, judge);
    agreement_count *own = NULL;
    if (!scores || sluice_record_pairs(record) == 0)
        return SLUICE_OK;
    int rc = group ? find_group(a, host, record, group, &own) : SLUICE_OK;
    for (size_t i = 0; rc >= 0 && i < sluice_record_pairs(record); i++) {
        sluice_pair pair;
        if ((rc = sluice_record_pair(record, i, &pair)) < 0 || pair.p == 0.5 || isnan(scores[pair.chosen]) ||
            isnan(scores[pair.rejected]))
            continue;
        const double difference = ((double)scores[pair.chosen] - scores[pair.rejected]) * (pair.p < 0.5 ? -1 : 1);
        const double right = difference > 0 ? 1 : difference == 0 ? 0.5 : 0;
        a->all.pairs++;
        a->all.right += right;
        if (own) {
            own->pairs++;
            own->right += right;
        }
    }
    return rc < 0 ? rc : SLUICE_OK;
}

void agreement_report(const agreement *a, const sluice_host *host)
{
    for (size_t i = 0; i < a->group_count; i++)
        if (a->groups[i].pairs > 0)
            sluice_metric(host, a->groups[i].name, a->groups[i].right / (double)a->groups[i].pairs);
}

static void write_count(const agreement_count *c, FILE *out)
{
    const size_t length = c->name ? strlen(c->name) : 0;
    fwrite(&c->pairs, sizeof c->pairs, 1, out);
    fwrite(&c->right, sizeof c->right, 1, out);
    fwrite(&length, sizeof length, 1, out);
    fwrite(c->name ? c->name : "", 1, length, out);
}

static bool read_count(agreement_count *c, FILE *in)
{
    size_t length;
    if (fread(&c->pairs, sizeof c->pairs, 1, in) != 1 || fread(&c->right, sizeof c->right, 1, in) != 1 ||
        fread(&length, sizeof length, 1, in) != 1 || length >= GROUP_NAME)
        return false;
    c->name = length > 0 ? calloc(1, length + 1) : NULL;
    return length == 0 || (c->name && fread(c->name, 1, length, in) == length);
}

void agreement_write(const agreement *a, FILE *out)
{
    write_count(&a->all, out);
    fwrite(&a->group_count, sizeof a->group_count, 1, out);
    for (size_t i = 0; i < a->group_count; i++)
        write_count(&a->groups[i], out);
}

bool agreement_read(agreement *a, FILE *in)
{
    size_t count;
    if (!read_count(&a->all, in) || a->all.name || fread(&count, sizeof count, 1, in) != 1 || count > MAX_GROUPS)
        return false;
    a->groups = calloc(count + 1, sizeof *a->groups);
    bool whole = a->groups != NULL;
    for (; whole && a->group_count < count; a->group_count++)
        whole = read_count(&a->groups[a->group_count], in) && a->groups[a->group_count].name;
    return whole;
}

void agreement_free(agreement *a)
{
    for (size_t i = 0; i < a->group_count; i++)
        free(a->groups[i].name);
    free(a->groups);
}
