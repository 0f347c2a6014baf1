/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * After an interruption: what the judge had said of a record stands in what was put out for it, but not how often it
 * could not be read. So the counts are kept from time to time, as a checkpoint of all records put out so far; records
 * that they cover are copied, all others asked about again.
 */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "plugins/judge-llm/judge.h"

#define SAVE_EVERY 1.0 /* seconds */

struct saved {
    uint64_t records;
    struct counts counts;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int resume_begin(struct judge *judge)
{
    char path[PATH_MAX];
    const char *folder;
    struct saved saved;
    judge->saved_at = now();
    const int rc = sluice_checkpoint(judge->host, &folder);
    if (rc != SLUICE_OK)
        return rc == SLUICE_END ? SLUICE_OK : rc;
    snprintf(path, sizeof path, "%s/counts", folder);
    FILE *in = fopen(path, "rbe");
    const bool whole = in && fread(&saved, sizeof saved, 1, in) == 1 && fgetc(in) == EOF;
    if (in)
        fclose(in);
    if (!whole)
        return sluice_error(judge->host, SLUICE_BAD_FILE, "%s is damaged; delete its folder, or run again with --fresh",
                            path);
    judge->counted = saved.records;
    judge->counts = saved.counts;
    sluice_log(judge->host, SLUICE_LOG_INFO, "goes on after record %llu", (unsigned long long)saved.records);
    return SLUICE_OK;
}

int resume_save(struct judge *judge)
{
    char path[PATH_MAX];
    const char *folder;
    struct saved saved;
    if (judge->records <= judge->counted || now() - judge->saved_at < SAVE_EVERY)
        return SLUICE_OK;
    judge->saved_at = now();
    int rc = sluice_checkpoint_begin(judge->host, &folder);
    if (rc < 0)
        return rc == SLUICE_UNSUPPORTED ? SLUICE_OK : rc;
    memset(&saved, 0, sizeof saved);
    saved.records = judge->records;
    saved.counts = judge->counts;
    snprintf(path, sizeof path, "%s/counts", folder);
    FILE *out = fopen(path, "wbe");
    bool whole = out && fwrite(&saved, sizeof saved, 1, out) == 1;
    if (out)
        whole = fclose(out) == 0 && whole;
    if (!whole)
        return sluice_error(judge->host, SLUICE_IO, "cannot write %s: %s", path, strerror(errno));
    rc = sluice_checkpoint_commit(judge->host);
    judge->counted = rc >= 0 ? judge->records : judge->counted;
    return rc;
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
