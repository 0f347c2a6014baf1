/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sluice/random.h>
#include "plugins/trainer/validate.h"

size_t validate_split(const examples *all, uint64_t seed, double share, uint32_t *members)
{
    static const char name[] = "validation";
    const uint64_t place = sluice_mix(seed, sluice_random_name(name, sizeof name - 1));
    size_t trained = 0, held = all->count;
    for (size_t i = 0; i < all->count; i++) {
        example x;
        examples_get(all, i, &x);
        const double u = (double)(sluice_mix(place, x.key) >> 11) * 0x1p-53;
        if (u < share)
            members[--held] = (uint32_t)i;
        else
            members[trained++] = (uint32_t)i;
    }
    return trained;
}

int validate(batch *b, const uint32_t *order, size_t count, uint64_t step, double progress, double values[BY_COUNT])
{
    batch_sums sums = {0};
    const int rc = batch_measure(b, order, count, step, progress, &sums);
    if (rc < 0)
        return rc;
    const bool pairs = ((const sluice_loss_class *)(const void *)b->loss->type)->pairs != NULL;
    const double n = pairs ? (double)sums.examples : NAN;
    values[BY_LOSS] = sums.loss / sums.divisor;
    values[BY_ACCURACY] = sums.correct / n;
    values[BY_MARGIN] = (sums.chosen_reward - sums.rejected_reward) / n;
    values[BY_CHOSEN] = sums.chosen_reward / n;
    const sluice_number numbers[] = {{"validation/loss", values[BY_LOSS]},
                                     {"validation/rewards/accuracies", values[BY_ACCURACY]},
                                     {"validation/rewards/margins", values[BY_MARGIN]},
                                     {"validation/rewards/chosen", values[BY_CHOSEN]}};
    sluice_metrics(b->host, (int64_t)step, numbers, pairs ? 4 : 1);
    return SLUICE_OK;
}

bool validate_better(int by, const double *values, const double *than)
{
    if (!isfinite(values[by]))
        return false;
    return !isfinite(than[by]) || (by == BY_LOSS ? values[by] < than[by] : values[by] > than[by]);
}

void validate_forget(const char *folder)
{
    char path[PATH_MAX];
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (entry->d_name[0] != '.' &&
            (size_t)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) < sizeof path)
            unlink(path);
    if (dir)
        closedir(dir);
}
