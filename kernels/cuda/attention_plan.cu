/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* Attention's plans: what the host gives, as lists of work for the kernels. The same segments give the same lists, so
 * they are sent to the device once, not in every layer. */
#include "attention_list.cuh"

namespace
{

typedef attend_list<attend_rows> rows_list;

attend_queries plan_tiles(kn_cuda *c, const rows_list &rows, const attend_shape &a, uint32_t tile_rows)
{
    attend_list<attend_weighed<attend_tile>> work;
    for (size_t i = 0; i < rows.count; i++)
        attend_list_tiles(work, rows.at[i], (uint32_t)i, a, tile_rows);
    if (work.count * a.kv_heads > INT32_MAX)
        kn_cuda_refuse(c, KN_UNSUPPORTED);
    attend_queries q = {};
    attend_list<attend_tile> sorted;
    attend_longest_first(sorted, work);
    q.tiles = (uint32_t)sorted.count;
    q.rows = rows.upload(c);
    q.tile = sorted.upload(c);
    return q;
}

attend_rows rows_of(const kn_segment &s)
{
    attend_rows r = {};
    r.row = (uint32_t)s.row;
    r.count = (uint32_t)s.count;
    r.before = (uint32_t)s.prefix_count;
    r.prefix = s.prefix_count > 0 ? (uint32_t)s.prefix : 0;
    return r;
}

/* The earlier segment that the prefix of s[i] lies in, or `i` when there is none. */
size_t owner_of(const kn_segment *s, size_t i)
{
    for (size_t n = 0; n < i; n++)
        if (s[i].prefix >= s[n].row && s[i].prefix - s[n].row < s[n].count)
            return s[i].prefix_count <= s[n].count - (s[i].prefix - s[n].row) ? n : i;
    return i;
}

} // namespace

bool attend_shape_ok(const kn_attention *a)
{
    return a->heads > 0 && a->kv_heads > 0 && a->head_dim > 0 && a->heads % a->kv_heads == 0 && a->softcap >= 0;
}

bool attend_segments_ok(const kn_segment *s, size_t segments, size_t T)
{
    for (size_t i = 0; i < segments; i++)
        if (s[i].row > T || s[i].count > T - s[i].row ||
            (s[i].prefix_count > 0 && (s[i].prefix > T || s[i].prefix_count > T - s[i].prefix)))
            return false;
    return true;
}

attend_shape attend_shape_of(kn_cuda *c, const kn_attention *k, size_t T)
{
    const float log2e = 1.4426950408889634f;
    attend_shape a = {};
    if (k->head_dim > ATTEND_HEAD_DIM_MOST || k->heads > ATTEND_MOST / ATTEND_HEAD_DIM_MOST / 4 ||
        T > (size_t)ATTEND_MOST / k->heads) {
        kn_cuda_refuse(c, KN_UNSUPPORTED);
        return a;
    }
    a.heads = k->heads;
    a.kv_heads = k->kv_heads;
    a.group = k->heads / k->kv_heads;
    a.head_dim = k->head_dim;
    a.width = (k->heads + 2 * k->kv_heads) * k->head_dim;
    a.window = k->window == 0 || k->window > INT32_MAX ? INT32_MAX : (int32_t)k->window;
    a.scale = k->scale;
    a.cap = k->softcap;
    a.changed = k->softcap > 0 || !(k->scale > 0) ? 1 : 0;
    a.factor = a.changed ? 1 : k->scale * log2e;
    a.cap_in = k->softcap > 0 ? k->scale / k->softcap : k->scale * log2e;
    a.cap_out = k->softcap > 0 ? k->softcap * log2e : 0;
    return a;
}

attend_queries attend_plan_segments(kn_cuda *c, const kn_segment *segment, size_t segments, const attend_shape *a,
                                    uint32_t tile_rows)
{
    rows_list rows;
    for (size_t i = 0; i < segments; i++)
        rows.add(rows_of(segment[i]));
    return plan_tiles(c, rows, *a, tile_rows);
}

attend_viewed attend_plan_viewed(kn_cuda *c, const kn_segment *segment, size_t segments, const attend_shape *a,
                                 uint32_t block_keys)
{
    attend_viewed v = {};
    rows_list rows;
    attend_list<uint32_t> owner, viewers, start;
    size_t last = 0; /* many answers in a row name the same prompt */
    for (size_t i = 0; i < segments; i++) {
        const bool reads = segment[i].prefix_count > 0 && segment[i].count > 0;
        const bool again = reads && last < i && segment[last].prefix_count > 0 && segment[last].count > 0 &&
                           segment[i].prefix == segment[last].prefix &&
                           segment[i].prefix_count == segment[last].prefix_count;
        const size_t found = !reads ? i : again && !owner.failed ? owner.at[last] : owner_of(segment, i);
        if (reads && found == i) {
            kn_cuda_refuse(c, KN_BAD_ARGUMENT);
            return v;
        }
        rows.add(rows_of(segment[i]));
        owner.add((uint32_t)found);
        last = i;
    }
    /* Who sees each segment's keys: itself, then those with a prefix in it, in order. Counted, then laid out. */
    for (size_t i = 0; i <= segments; i++)
        start.add(0);
    for (size_t i = 0; i < segments; i++) {
        viewers.add(0);
        if (owner.failed || owner.at[i] != i)
            viewers.add(0);
    }
    if (owner.failed || viewers.failed || start.failed) {
        kn_cuda_refuse(c, KN_NO_MEMORY);
        return v;
    }
    for (size_t i = 0; i < segments; i++) {
        start.at[i + 1]++;
        if (owner.at[i] != i)
            start.at[owner.at[i] + 1]++;
    }
    for (size_t i = 0; i < segments; i++)
        start.at[i + 1] += start.at[i];
    attend_list<uint32_t> next;
    for (size_t i = 0; i < segments; i++)
        next.add(start.at[i]);
    if (next.failed) {
        kn_cuda_refuse(c, KN_NO_MEMORY);
        return v;
    }
    for (size_t i = 0; i < segments; i++)
        viewers.at[next.at[i]++] = (uint32_t)i;
    for (size_t i = 0; i < segments; i++)
        if (owner.at[i] != i)
            viewers.at[next.at[owner.at[i]]++] = (uint32_t)i;

    attend_list<attend_weighed<attend_block>> work;
    for (size_t i = 0; i < segments; i++) {
        const uint32_t row = (uint32_t)segment[i].row, count = (uint32_t)segment[i].count;
        for (uint32_t at = 0; at < count; at += block_keys) {
            const attend_block b = {row + at, std::min(block_keys, count - at), start.at[i], start.at[i + 1]};
            uint64_t cost = std::min(count - at, (uint32_t)a->window + b.count);
            for (uint32_t n = b.viewer + 1; n < b.viewer_end; n++) {
                const kn_segment &s = segment[viewers.at[n]];
                if (s.prefix < b.row + b.count && s.prefix + s.prefix_count > b.row)
                    cost += s.count;
            }
            work.add({std::min(cost, (uint64_t)UINT32_MAX >> 1), b});
        }
    }
    if (work.count * a->kv_heads > INT32_MAX)
        kn_cuda_refuse(c, KN_UNSUPPORTED);
    attend_list<attend_block> sorted;
    attend_longest_first(sorted, work);
    v.blocks = (uint32_t)sorted.count;
    v.rows = rows.upload(c);
    v.viewers = viewers.upload(c);
    v.block = sorted.upload(c);
    return v;
}
