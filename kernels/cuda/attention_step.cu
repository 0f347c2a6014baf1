/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The plan of a call for cached pages. A step of generation asks the same in every layer, so the last plan is kept with
 * the cache and only compared. */
#include "attention_list.cuh"

#include <string.h>

namespace
{

/* The least sizes, so that short steps look alike. */
const uint32_t LEAST_BYTES = 1024;

size_t pages_of(const kn_cached_rows &s)
{
    return (s.position + s.count + KN_PAGE - 1) / KN_PAGE;
}

bool is_planned(const attend_step *step, const kn_cached_rows *s, size_t sequences)
{
    if (step == NULL || step->sequences != sequences)
        return false;
    const attend_rows *rows = attend_list_at<attend_rows>(step, step->at_rows);
    const uint32_t *pages = attend_list_at<uint32_t>(step, step->at_pages);
    for (size_t i = 0; i < sequences; i++)
        if (rows[i].row != s[i].row || rows[i].count != s[i].count || rows[i].before != s[i].position ||
            memcmp(pages + rows[i].prefix, s[i].pages, pages_of(s[i]) * sizeof(*pages)) != 0)
            return false;
    return true;
}

bool entries_ok(const kn_cache *cache, const kn_cached_rows *s, size_t sequences, size_t T)
{
    size_t pages = 0;
    for (size_t i = 0; i < sequences; i++) {
        if (s[i].row > T || s[i].count > T - s[i].row || s[i].position > ATTEND_MOST ||
            s[i].position + s[i].count > ATTEND_MOST)
            return false;
        uint32_t greatest = 0;
        for (size_t p = 0; p < pages_of(s[i]); p++)
            greatest = s[i].pages[p] > greatest ? s[i].pages[p] : greatest;
        if (pages_of(s[i]) > 0 && greatest >= cache->pages)
            return false;
        pages += pages_of(s[i]);
    }
    return pages <= ATTEND_MOST / 16 && sequences <= ATTEND_MOST / 16;
}

/* The parts of an entry with one query. */
void list_parts(attend_list<attend_part> &parts, attend_list<attend_joint> &joints, uint32_t *slots,
                const attend_rows &s, uint32_t number, const attend_shape &a)
{
    const int64_t from = (int64_t)s.before + 1 - a.window;
    const uint32_t first = (uint32_t)((from > 0 ? from : 0) / ATTEND_SPLIT), last = s.before / ATTEND_SPLIT;
    for (uint32_t p = first; p <= last; p++)
        parts.add({number, p, first == last ? ATTEND_WHOLE : *slots + (p - first)});
    if (first == last)
        return;
    joints.add({s.row, *slots, last - first + 1});
    *slots += last - first + 1;
}

/* One piece of memory from the lists. */
struct writer {
    uint32_t *words;
    uint32_t used;
};

template <class T> uint32_t lay(writer &w, const attend_list<T> &items)
{
    const uint32_t at = w.used;
    static_assert(sizeof(T) % sizeof(uint32_t) == 0, "a list of words");
    if (items.count > 0)
        memcpy(w.words + at, items.at, items.count * sizeof(T));
    w.used += (uint32_t)(items.count * sizeof(T) / sizeof(uint32_t));
    return at;
}

} // namespace

int attend_plan_step(kn_cuda *c, kn_cache *cache, const kn_cached_rows *s, size_t sequences, size_t T,
                     const attend_shape *a, uint32_t tile_rows)
{
    for (size_t i = 0; i < sequences; i++)
        if (s[i].row > T || s[i].count > T - s[i].row)
            return kn_cuda_refuse(c, KN_BAD_ARGUMENT);
    if (is_planned(cache->step, s, sequences))
        return KN_OK;
    if (!entries_ok(cache, s, sequences, T))
        return kn_cuda_refuse(c, KN_BAD_ARGUMENT);
    attend_list<attend_rows> rows;
    attend_list<attend_weighed<attend_tile>> work;
    attend_list<attend_tile> tiles;
    attend_list<attend_part> parts;
    attend_list<attend_joint> joints;
    attend_list<uint32_t> written;
    uint32_t pages = 0, slots = 0;
    for (size_t i = 0; i < sequences; i++) {
        attend_rows r = {};
        r.row = (uint32_t)s[i].row;
        r.count = (uint32_t)s[i].count;
        r.before = (uint32_t)s[i].position;
        r.prefix = pages;
        pages += (uint32_t)pages_of(s[i]);
        rows.add(r);
        if (r.count == 1)
            list_parts(parts, joints, &slots, r, (uint32_t)i, *a);
        else
            attend_list_tiles(work, r, (uint32_t)i, *a, tile_rows);
        for (uint32_t n = 0; n < r.count; n++) {
            const uint32_t at = r.before + n;
            written.add(r.row + n);
            written.add(s[i].pages[at / KN_PAGE] * KN_PAGE + at % KN_PAGE);
        }
    }
    attend_longest_first(tiles, work);
    if (rows.failed || tiles.failed || parts.failed || joints.failed || written.failed)
        return kn_cuda_refuse(c, KN_NO_MEMORY);
    const size_t need = sizeof(attend_step) + rows.count * sizeof(attend_rows) + pages * sizeof(uint32_t) +
                        written.count * sizeof(uint32_t) + tiles.count * sizeof(attend_tile) +
                        parts.count * sizeof(attend_part) + joints.count * sizeof(attend_joint);
    if (need > ATTEND_MOST || parts.count * 2 * a->heads > INT32_MAX || tiles.count * a->kv_heads > INT32_MAX)
        return kn_cuda_refuse(c, KN_UNSUPPORTED);
    const uint32_t size = attend_grid(std::max((uint32_t)need, LEAST_BYTES));
    if (cache->step_room < size) {
        free(cache->step);
        cache->step = (attend_step *)malloc(size);
        cache->step_room = cache->step ? size : 0;
    }
    attend_step *const step = cache->step;
    if (step == NULL)
        return kn_cuda_refuse(c, KN_NO_MEMORY);
    memset((void *)step, 0, size);
    writer w = {(uint32_t *)step, sizeof(*step) / sizeof(uint32_t)};
    step->size = size;
    step->sequences = (uint32_t)sequences;
    step->written = (uint32_t)(written.count / 2);
    step->tiles = (uint32_t)tiles.count;
    step->parts = (uint32_t)parts.count;
    step->joints = (uint32_t)joints.count;
    step->slots = slots;
    step->pages = pages;
    step->at_rows = lay(w, rows);
    step->at_written = lay(w, written);
    step->at_tiles = lay(w, tiles);
    step->at_parts = lay(w, parts);
    step->at_joints = lay(w, joints);
    step->at_pages = w.used;
    for (size_t i = 0; i < sequences; i++) {
        if (pages_of(s[i]) > 0)
            memcpy(w.words + w.used, s[i].pages, pages_of(s[i]) * sizeof(uint32_t));
        w.used += (uint32_t)pages_of(s[i]);
    }
    return KN_OK;
}
