/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/base/near.h"

#include <ctype.h>
#include <string.h>

enum { LONGEST = 64 };

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t sl_name_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    if (n >= LONGEST || m >= LONGEST)
        return n > m ? n : m;
    unsigned char rows[3][LONGEST]; /* two rows back, one row back, this row */
    unsigned char *before = rows[0], *above = rows[1], *row = rows[2];
    for (size_t j = 0; j <= m; j++)
        above[j] = (unsigned char)j;
    for (size_t i = 1; i <= n; i++) {
        row[0] = (unsigned char)i;
        int x = tolower((unsigned char)a[i - 1]);
        for (size_t j = 1; j <= m; j++) {
            int y = tolower((unsigned char)b[j - 1]);
            size_t cost = smaller(smaller(above[j], row[j - 1]) + 1u, above[j - 1] + (x != y));
            if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) && tolower((unsigned char)a[i - 2]) == y)
                cost = smaller(cost, before[j - 2] + 1u);
            row[j] = (unsigned char)cost;
        }
        unsigned char *oldest = before;
        before = above;
        above = row;
        row = oldest;
    }
    return above[m];
}

void sl_near_offer(sl_near *near, const char *name)
{
    size_t distance = sl_name_distance(near->wanted, name);
    size_t n = strlen(near->wanted), m = strlen(name), longer = n > m ? n : m;
    size_t bound = longer < 6 ? 1 : longer / 3;
    if (distance <= bound && (!near->best || distance < near->distance)) {
        near->best = name;
        near->distance = distance;
    }
}
