/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plugins/evaluator/agreement.h"

#define MAX_GROUPS 1000

static int find_group(agreement *a, const sluice_host *host, const sluice_record *record, const char *group,
                      agreement_count **out)
{
    char name[160];
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

void agreement_free(agreement *a)
{
    for (size_t i = 0; i < a->group_count; i++)
        free(a->groups[i].name);
    free(a->groups);
}
