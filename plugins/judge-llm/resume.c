/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * After an interruption: what the judge had said of a record stands in what was put out for it, but not how often it
 * could not be read. So the counts are kept from time to time, as a checkpoint of all records put out so far; records
 * that they cover are copied, all others asked about again.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "plugins/judge-llm/judge.h"

int resume_begin(struct judge *judge)
{
    void *bytes;
    size_t size;
    int rc = counts_begin(&judge->keeper, judge->host, &bytes, &size);
    if (bytes && size == sizeof judge->counts)
        memcpy(&judge->counts, bytes, size);
    else if (bytes)
        rc = counts_damaged(judge->host);
    free(bytes);
    return rc;
}

int resume_save(struct judge *judge)
{
    return counts_due(&judge->keeper, judge->records)
               ? counts_save(&judge->keeper, judge->host, judge->records, &judge->counts, sizeof judge->counts)
               : SLUICE_OK;
}

static int copy(const struct judge *judge, sluice_record *record, const sluice_record *earlier)
{
    const char *stage = sluice_stage_name(judge->host);
    const float *scores = sluice_record_scores(earlier, stage);
    int rc = SLUICE_OK;
    for (size_t c = 0; scores && rc >= 0 && c < sluice_record_candidates(earlier); c++)
        if (!isnan(scores[c]))
            rc = sluice_record_set_score(record, stage, c, scores[c]);
    for (size_t k = 0; judge->mode == MODE_PAIRS && rc >= 0 && k < sluice_record_pairs(earlier); k++) {
        sluice_pair pair;
        rc = sluice_record_pair(earlier, k, &pair);
        if (rc >= 0)
            rc = sluice_record_set_pair(record, k, &pair);
    }
    return rc < 0
               ? sluice_record_error(judge->host, record, rc,
                                     "what an interrupted run left of this record does not fit; run again with --fresh")
               : rc;
}

int resume_copy(struct judge *judge, sluice_record *const *records, size_t count, sluice_record **open,
                size_t *open_count)
{
    int rc = SLUICE_OK;
    *open_count = 0;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        const sluice_record *earlier = sluice_earlier(judge->host, records[i]);
        if (earlier && sluice_record_candidates(earlier) == sluice_record_candidates(records[i]) &&
            sluice_record_pairs(earlier) == sluice_record_pairs(records[i]))
            rc = copy(judge, records[i], earlier);
        else
            open[(*open_count)++] = records[i];
    }
    return rc;
}
