/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * From groups (a prompt and its completions) to the packed rows of one forward pass.
 *
 * A group's prompt becomes one run of rows; each completion follows as a run of its own that sees the prompt's rows and
 * itself. Positions of a completion continue after the prompt. The row of a completion's last token would predict what
 * nobody asks for, so it is left out. Log-probabilities are read off at the scored rows only: the prompt's last row
 * gives a completion's first token, each completion row its next.
 *
 * A pack for a reward model's values (`values`) keeps that last row instead and scores it alone: one row a completion,
 * the prompt's last where the completion is empty, and no target.
 *
 * `multiple` fills every group up to a multiple of so many rows, and of scored rows, with rows that depend on nothing
 * and that nothing depends on: where a device sums gradients of weights over groups of rows (row_group of
 * kernels/ops.h), a record's groups are then its own, and the sum over records does not depend on where a batch was
 * cut. The gradient of such a row is 0.
 *
 * A pack is plain host memory that grows as groups are added, belongs to one thread, and starts as {0}.
 */
#ifndef MODEL_PACK_H
#define MODEL_PACK_H

#include <sluice/model.h>

#include "kernels/ops.h"
#include "model/error.h"

typedef struct sm_pack {
    bool values;     /* set before groups are added: scored rows are last rows */
    size_t multiple; /* likewise: groups are filled up; 0 and 1 = not */
    size_t rows;
    uint32_t *token;    /* [rows] */
    uint32_t *position; /* [rows] in its own sequence */
    uint64_t *row_id;   /* [rows] what names a row in dropout: group key, completion and position, not its place here */
    size_t segments;
    kn_segment *segment;
    size_t scored;
    uint32_t *scored_row; /* [scored] the row whose hidden state predicts … */
    uint32_t *target;     /* [scored] … this token; completion after completion, in the order they were added */

    size_t row_capacity, segment_capacity, scored_capacity;
} sm_pack;

/* Adds the completions [begin, end) of a group, and its prompt's rows before them. SM_BAD_ARGUMENT when a sequence is
 * longer than max_positions or a token is no id of the vocabulary (the message says which). */
int sm_pack_add(sm_pack *pack, const sluice_group *group, size_t begin, size_t end, uint32_t vocab,
                uint32_t max_positions, sm_error *error);
/* Rows that sm_pack_add would add to a pack for log-probabilities without filling; for values, one more a completion.
 */
size_t sm_pack_rows(const sluice_group *group, size_t begin, size_t end);
/* Tokens of a completion that have a log-probability: all, but without a prompt the first has none. */
size_t sm_pack_scored(const sluice_group *group, size_t completion);
/* Places of the arrays scored_row and target that sm_pack_add fills with these completions. */
size_t sm_pack_places(const sm_pack *pack, const sluice_group *group, size_t begin, size_t end);
void sm_pack_clear(sm_pack *pack); /* empty again, memory kept */
void sm_pack_free(sm_pack *pack);

#endif
