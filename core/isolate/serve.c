/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What a stage's process asks for, but for models: records, numbers, words, folders. */
#include "core/isolate/isolate.h"

#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 8 }; /* questions within questions: a generation, its prompt, what that asks */

int sl_isolate_reply(sl_isolate *x, int rc, sl_message *reply)
{
    sl_message whole = {.kind = SL_WIRE_REPLY};
    sl_put(&whole, (uint64_t)(int64_t)rc);
    sl_put_text(&whole, rc < 0 && x->job->host.error[0] != '\0' ? x->job->host.error : NULL);
    if (reply != NULL) {
        whole.failed = whole.failed < 0 ? whole.failed : reply->failed;
        if (whole.failed == SLUICE_OK)
            whole.failed = sl_buffer_append(&whole.body, reply->body.data, reply->body.size);
        sl_message_free(reply);
    }
    rc = sl_process_send(&x->process, &whole);
    sl_message_free(&whole);
    return rc;
}

/* ---- records */

/* A record was given and has not come back. */
static int hold(sl_isolate *x, sl_record *record)
{
    sl_record **more = sl_items_grow(x->hand, x->hand_count, &x->hand_room, sizeof *more);
    if (more == NULL)
        return SLUICE_NO_MEMORY;
    x->hand = more;
    x->hand[x->hand_count++] = record;
    return SLUICE_OK;
}

/* Of a number, or all of them. */
static void let_go(sl_isolate *x, bool all, uint64_t number)
{
    size_t kept = 0;
    for (size_t i = 0; i < x->hand_count; i++)
        if (all || sluice_record_number(sl_record_public(x->hand[i])) == number)
            sl_record_free(x->hand[i]);
        else
            x->hand[kept++] = x->hand[i];
    x->hand_count = kept;
    x->job->current = NULL;
}

static bool is_left_out(const sl_isolate *x, uint64_t number)
{
    for (size_t i = 0; i < x->left_out_count; i++)
        if (x->left_out[i] == number)
            return true;
    return false;
}

static int give_next(sl_isolate *x)
{
    sl_job *job = x->job;
    sl_message reply = {0};
    sl_buffer bytes = {0};
    sl_record *record = NULL;
    /* All but process_batch ask for the next when they are done with the last. */
    const bool batch = job->type->process_batch != NULL;
    if (!batch)
        let_go(x, true, 0);
    int rc = job->producer != NULL ? sl_stage_next(job, &record) : SLUICE_END;
    while (rc == SLUICE_OK && is_left_out(x, sluice_record_number(sl_record_public(record)))) {
        sl_record_free(record);
        rc = sl_stage_next(job, &record);
    }
    if (rc == SLUICE_OK) {
        rc = sl_record_encode(record, &bytes);
        sl_put(&reply, sluice_record_number(sl_record_public(record)));
        sl_put_bytes(&reply, bytes.data, bytes.size);
        if (rc < 0 || hold(x, record) < 0) {
            sl_record_free(record);
            rc = sluice_error(&job->host.public, SLUICE_NO_MEMORY, "out of memory");
        } else if (job->type->process != NULL) {
            job->current = record;
        }
    }
    sl_buffer_free(&bytes);
    return sl_isolate_reply(x, rc, &reply);
}

/* True when this number is in the output from an attempt before; else it is from now on. */
static int place(sl_isolate *x, uint64_t number, bool *before)
{
    const size_t byte = (size_t)(number / 8);
    const uint8_t bit = (uint8_t)(1u << (number % 8));
    if (number > (uint64_t)1 << 40)
        return sl_process_crashed(&x->process, "sent a record of no number, and was ended");
    if (byte >= x->placed_size) {
        const size_t size = 2 * byte + 64;
        uint8_t *more = realloc(x->placed, size);
        if (more == NULL)
            return sluice_error(&x->job->host.public, SLUICE_NO_MEMORY, "out of memory");
        memset(more + x->placed_size, 0, size - x->placed_size);
        x->placed = more;
        x->placed_size = size;
    }
    *before = (x->placed[byte] & bit) != 0;
    x->placed[byte] |= bit;
    return SLUICE_OK;
}

static int take_record(sl_isolate *x, sl_message *m)
{
    sl_job *job = x->job;
    char why[256];
    size_t size, used;
    sl_record *record = NULL;
    bool before = false;
    const uint64_t number = sl_get(m);
    const bool keep = m->kind == SL_WIRE_APPEND;
    const uint8_t *bytes = keep ? sl_get_bytes(m, 1, &size) : NULL;
    if (m->bad)
        return SLUICE_FAILED;
    int rc = place(x, number, &before);
    const bool whole = rc >= 0 && keep && !before && sl_stage_has_output(job->stage);
    if (whole && sl_record_decode(bytes, size, &record, &used, why, sizeof why) < 0)
        return sl_process_crashed(&x->process, "sent a record that cannot be read, and was ended");
    if (rc >= 0 && whole)
        rc = sl_stage_append(job, record, number);
    else if (rc >= 0 && !keep && !before)
        rc = sl_stage_skip(job, number);
    let_go(x, false, number);
    return rc;
}

static int give_earlier(sl_isolate *x, sl_message *m)
{
    sl_message reply = {0};
    sl_buffer bytes = {0};
    const char *id = sl_get_text(m);
    const uint64_t number = sl_get(m);
    const sl_record *found =
        id != NULL && x->job->earlier != NULL ? sl_earlier_find(x->job->earlier, id, number) : NULL;
    const int rc = found != NULL && sl_record_encode(found, &bytes) >= 0 ? SLUICE_OK : SLUICE_END;
    if (rc == SLUICE_OK)
        sl_put_bytes(&reply, bytes.data, bytes.size);
    sl_buffer_free(&bytes);
    return sl_isolate_reply(x, rc, &reply);
}

/* ---- numbers and words */

static int take_metrics(sl_isolate *x, sl_message *m)
{
    const int64_t step = (int64_t)sl_get(m);
    const size_t count = sl_get_count(m, 16);
    sluice_number *numbers = calloc(count + 1, sizeof *numbers);
    for (size_t i = 0; numbers != NULL && i < count; i++) {
        numbers[i].name = sl_get_text(m);
        numbers[i].value = sl_get_double(m);
        m->bad = m->bad || numbers[i].name == NULL;
    }
    if (numbers != NULL && !m->bad)
        sl_metrics_add(x->job, step, numbers, count);
    free(numbers);
    return SLUICE_OK;
}

static void take_progress(sl_isolate *x, sl_message *m)
{
    const sluice_host *host = &x->job->host.public;
    const uint64_t done = sl_get(m), total = sl_get(m);
    const char *unit = sl_get_text(m);
    if (unit != NULL)
        sluice_progress(host, done, total, unit);
    sluice_tokens(host, sl_get(m));
}

static void take_line(sl_isolate *x, sl_message *m)
{
    const int level = (int)sl_get(m);
    const char *line = sl_get_text(m);
    if (line != NULL)
        sluice_log(&x->job->host.public, level, "%s", line);
}

/* ---- folders */

static int publish(sl_isolate *x, sl_message *m)
{
    const sluice_host *host = &x->job->host.public;
    sluice_model_ref ref = {.slot = sl_get_text(m)};
    const char *folder = NULL;
    sl_message reply = {0};
    ref.next = (int64_t)sl_get(m);
    const bool commit = sl_get(m) != 0;
    if (ref.slot == NULL)
        return SLUICE_FAILED;
    const int rc = commit ? sluice_publish_commit(host, &ref) : sluice_publish_begin(host, &ref, &folder);
    sl_put_text(&reply, folder);
    return sl_isolate_reply(x, rc, &reply);
}

static int checkpoint(sl_isolate *x, sl_message *m)
{
    const sluice_host *host = &x->job->host.public;
    const uint64_t what = sl_get(m);
    const char *folder = NULL;
    sl_message reply = {0};
    const int rc = what == 0   ? sluice_checkpoint(host, &folder)
                   : what == 1 ? sluice_checkpoint_begin(host, &folder)
                               : sluice_checkpoint_commit(host);
    sl_put_text(&reply, folder);
    return sl_isolate_reply(x, rc, &reply);
}

static int count(sl_isolate *x)
{
    sl_message reply = {0};
    sl_put(&reply, (uint64_t)sluice_input_count(&x->job->host.public));
    return sl_isolate_reply(x, SLUICE_OK, &reply);
}

/* ---- */

static int answer(sl_isolate *x, sl_message *m)
{
    switch (m->kind) {
    case SL_WIRE_NEXT:
        return give_next(x);
    case SL_WIRE_APPEND:
    case SL_WIRE_SKIP:
        return take_record(x, m);
    case SL_WIRE_LOG:
        take_line(x, m);
        return SLUICE_OK;
    case SL_WIRE_METRICS:
        return take_metrics(x, m);
    case SL_WIRE_PROGRESS:
        take_progress(x, m);
        return SLUICE_OK;
    case SL_WIRE_COUNT:
        return count(x);
    case SL_WIRE_EARLIER:
        return give_earlier(x, m);
    case SL_WIRE_PUBLISH:
        return publish(x, m);
    case SL_WIRE_CHECKPOINT:
        return checkpoint(x, m);
    default:
        if (m->kind >= SL_WIRE_OPEN && m->kind <= SL_WIRE_GENERATE)
            return sl_isolate_model(x, m);
        m->bad = true;
        return SLUICE_FAILED;
    }
}

int sl_isolate_serve(sl_isolate *x, enum sl_wire_kind until, sl_message *m)
{
    int rc = SLUICE_OK;
    if (x->depth == DEEPEST)
        return sl_process_crashed(&x->process, "asked without end, and was ended");
    x->depth++;
    while (rc >= 0 && (rc = sl_process_receive(&x->process, m)) >= 0 && m->kind != (uint32_t)until) {
        rc = answer(x, m);
        if (m->bad)
            rc = sl_process_crashed(&x->process, "sent a message that cannot be read, and was ended");
        sl_message_free(m);
    }
    x->depth--;
    return rc;
}
