/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The plan of a call for cached pages. A step of generation asks the same in every layer, so the last plan is kept with
 * the cache and only compared. */
#include "attention_list.cuh"

#include <string.h>

namespace
{

/* The least sizes, so that short steps look alike. */
const uint32_t LEAST_BYTES = 1024;
/* Parts that must be spared before some are taken together: that is one more launch, and the cache of the second level
 * has what was read just before. */
const size_t LEAST_SPARED = 48;

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
void list_parts(attend_list<attend_part> &parts, uint32_t *slots, const attend_rows &s, uint32_t number,
                const attend_shape &a)
{
    const int64_t from = (int64_t)s.before + 1 - a.window;
    const uint32_t first = (uint32_t)((from > 0 ? from : 0) / ATTEND_SPLIT), last = s.before / ATTEND_SPLIT;
    for (uint32_t p = first; p <= last; p++)
        parts.add({number, p, first == last ? ATTEND_WHOLE : *slots + (p - first), 0});
    *slots += first == last ? 0 : last - first + 1;
}

/* How many parts of its query each of the first `count` parts is among: those of one query lie side by side. */
void count_alone(attend_part *part, uint32_t count)
{
    for (uint32_t i = 0, end; i < count; i = end) {
        for (end = i; end < count && part[end].rows == part[i].rows; end++)
            ;
        for (uint32_t n = i; n < end; n++)
            part[n].alone = end - i;
    }
}

/* A part that others may have too, by the page that it begins with. */
struct sharable {
    uint64_t order; /* that page, then its place among the parts */
    uint32_t part;
};

/* Parts in the same pages, whole and seen whole, to the end of the list, in runs of `members` at most. */
void share_parts(attend_list<attend_part> &parts, attend_list<attend_run> &runs, const attend_list<attend_rows> &rows,
                 const kn_cached_rows *s, const attend_shape &a, uint32_t members)
{
    const uint32_t each = ATTEND_SPLIT / KN_PAGE;
    attend_list<sharable> found;
    for (size_t i = 0; i < parts.count && members > 1; i++) {
        const attend_part &p = parts.at[i];
        const int64_t before = rows.at[p.rows].before, from = (int64_t)p.part * ATTEND_SPLIT;
        if (before >= from + ATTEND_SPLIT && before + 1 - a.window <= from)
            found.add({(uint64_t)s[p.rows].pages[p.part * each] << 32 | i, (uint32_t)i});
    }
    std::sort(found.at, found.at + found.count, [](const sharable &x, const sharable &y) { return x.order < y.order; });
    attend_list<attend_part> alone, together;
    const auto pages = [&](size_t k) {
        const attend_part &p = parts.at[found.at[k].part];
        return s[p.rows].pages + p.part * each;
    };
    size_t spared = 0;
    for (size_t k = 0, end; k < found.count; k = end) {
        for (end = k + 1; end < found.count && end - k < members && memcmp(pages(k), pages(end), each * 4) == 0 &&
                          parts.at[found.at[k].part].part == parts.at[found.at[end].part].part;)
            end++;
        spared += end - k - 1;
        if (end - k > 1)
            runs.add({(uint32_t)together.count, (uint32_t)(end - k)});
        for (size_t n = k; n < end && end - k > 1; n++) {
            together.add(parts.at[found.at[n].part]);
            found.at[n].order = UINT64_MAX;
        }
    }
    runs.failed = runs.failed || found.failed || together.failed;
    if (spared < LEAST_SPARED || runs.failed) {
        runs.count = 0;
        return;
    }
    attend_list<uint8_t> taken;
    for (size_t i = 0; i < parts.count; i++)
        taken.add(0);
    for (size_t k = 0; k < found.count && !taken.failed; k++)
        taken.at[found.at[k].part] = found.at[k].order == UINT64_MAX;
    for (size_t i = 0; i < parts.count && !taken.failed; i++)
        if (!taken.at[i])
            alone.add(parts.at[i]);
    parts.failed = parts.failed || taken.failed || alone.failed;
    if (parts.failed)
        return;
    memcpy(parts.at, alone.at, alone.count * sizeof(*parts.at));
    memcpy(parts.at + alone.count, together.at, together.count * sizeof(*parts.at));
    for (size_t i = 0; i < runs.count; i++)
        runs.at[i].first += (uint32_t)alone.count;
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
                     const attend_shape *a, uint32_t tile_rows, uint32_t members)
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
    attend_list<attend_run> runs;
    attend_list<attend_written> written;
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
            list_parts(parts, &slots, r, (uint32_t)i, *a);
        else
            attend_list_tiles(work, r, (uint32_t)i, *a, tile_rows);
        for (uint32_t n = 0; n < r.count && (r.count > 1 || members == 0); n++) {
            const uint32_t at = r.before + n;
            written.add({r.row + n, s[i].pages[at / KN_PAGE] * KN_PAGE + at % KN_PAGE, at});
        }
    }
    attend_longest_first(tiles, work);
    if (!rows.failed && !parts.failed)
        share_parts(parts, runs, rows, s, *a, members);
    if (rows.failed || tiles.failed || parts.failed || runs.failed || written.failed)
        return kn_cuda_refuse(c, KN_NO_MEMORY);
    const size_t need = sizeof(attend_step) + rows.count * sizeof(attend_rows) + pages * sizeof(uint32_t) +
                        written.count * sizeof(attend_written) + tiles.count * sizeof(attend_tile) +
                        parts.count * sizeof(attend_part) + runs.count * sizeof(attend_run);
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
    step->written = (uint32_t)written.count;
    step->tiles = (uint32_t)tiles.count;
    step->parts = runs.count > 0 ? runs.at[0].first : (uint32_t)parts.count;
    step->runs = (uint32_t)runs.count;
    step->slots = slots;
    step->pages = pages;
    step->at_rows = lay(w, rows);
    step->at_written = lay(w, written);
    step->at_tiles = lay(w, tiles);
    count_alone(parts.at, step->parts);
    step->at_parts = lay(w, parts);
    step->at_runs = lay(w, runs);
    step->at_pages = w.used;
    for (size_t i = 0; i < sequences; i++) {
        if (pages_of(s[i]) > 0)
            memcpy(w.words + w.used, s[i].pages, pages_of(s[i]) * sizeof(uint32_t));
        w.used += (uint32_t)pages_of(s[i]);
    }
    return KN_OK;
}
