/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Scoring in micro-batches. Because every row's result is its own, where a batch is cut decides memory and speed only;
 * a group with many completions may be cut between them, its prompt computed once more.
 */
#include "model/transformer.h"

/* Rows of a micro-batch: enough to feed the matrix products, few enough to stay in the cache of one core. */
#define MICRO_BATCH 1024

/* The next completion to score, and where its results go. */
typedef struct cursor {
    size_t group, completion;
    size_t output;
} cursor;

/* How many of the group's completions from `begin` on fit beside `rows` others; at least one into an empty batch. */
static size_t fitting(const sluice_group *group, size_t begin, size_t rows)
{
    size_t end = begin;
    while (end < group->completion_count) {
        if (rows + sm_pack_rows(group, begin, end + 1) > MICRO_BATCH && (rows > 0 || end > begin))
            break;
        end++;
    }
    return end;
}

static int fill(sm_pack *pack, cursor *c, const sm_config *config, const sluice_group *groups, size_t count,
                sm_error *error)
{
    sm_pack_clear(pack);
    while (c->group < count) {
        const sluice_group *group = &groups[c->group];
        const size_t end = fitting(group, c->completion, pack->rows);
        if (end == c->completion && c->completion < group->completion_count)
            break;
        const int rc = sm_pack_add(pack, group, c->completion, end, config->vocab, config->max_positions, error);
        if (rc != SM_OK)
            return rc;
        c->completion = end;
        if (end == group->completion_count) {
            c->group++;
            c->completion = 0;
        }
    }
    return SM_OK;
}

/* Deals the flat results of a batch out to the completions in [from, to). */
static void deal(cursor *from, const cursor *to, const sluice_group *groups, const float *flat, float *const *out)
{
    cursor c = *from;
    while (c.group < to->group || (c.group == to->group && c.completion < to->completion)) {
        const sluice_group *group = &groups[c.group];
        if (c.completion == group->completion_count) {
            c.group++;
            c.completion = 0;
            continue;
        }
        const size_t count = group->completions[c.completion].count, scored = sm_pack_scored(group, c.completion);
        float *to_array = out[c.output++];
        if (scored < count)
            to_array[0] = 0;
        for (size_t i = 0; i < scored; i++)
            to_array[count - scored + i] = *flat++;
        c.completion++;
    }
    from->output = c.output;
}

int sm_score(const sm_network *network, sm_workspace *workspace, const sluice_group *groups, size_t count,
             float *const *logps, float *const *entropy, sm_error *error)
{
    sm_pack pack = {0};
    cursor here = {0};
    int rc = SM_OK;
    while (rc == SM_OK && here.group < count) {
        cursor next = here, entropy_from = here;
        rc = fill(&pack, &next, &network->layout->config, groups, count, error);
        if (rc == SM_OK && pack.scored > 0)
            rc = sm_forward_pack(network, workspace, &pack, NULL, entropy != NULL, error);
        if (rc != SM_OK)
            break;
        deal(&here, &next, groups, workspace->host_logprob, logps);
        if (entropy)
            deal(&entropy_from, &next, groups, workspace->host_entropy, entropy);
        next.output = here.output;
        here = next;
    }
    sm_pack_free(&pack);
    return rc;
}
