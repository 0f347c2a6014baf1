/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/test-plugin/drive.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <sluice/random.h>
#include "core/run/internal.h"
#include "tools/test-plugin/host.h"
#include "tools/test-plugin/loss.h"

/* ---- stages, as core/run/stage.c drives them */

static int drive_source(tp_host *host, const sluice_stage_class *type, void *self)
{
    for (uint64_t number = 0; number < TP_MOST_MADE; number++) {
        sl_record *record = tp_host_cancelled(host) ? NULL : sl_record_new();
        if (record == NULL)
            return SLUICE_CANCELLED;
        sl_record_set_number(record, number);
        const int rc = type->next(self, sl_record_public(record));
        if (rc != SLUICE_OK) {
            sl_record_free(record);
            return rc == SLUICE_END ? SLUICE_OK : rc;
        }
        tp_host_keep(host, record);
    }
    return SLUICE_OK;
}

static int drive_observe(tp_host *host, const sluice_stage_class *type, void *self)
{
    int rc = SLUICE_OK;
    for (size_t i = 0; rc >= 0; i++) {
        sl_record *record = tp_host_input(host, i);
        if (record == NULL)
            return type->settle != NULL ? type->settle(self) : SLUICE_OK;
        rc = tp_host_cancelled(host) ? SLUICE_CANCELLED : type->observe(self, sl_record_public(record));
        sl_record_free(record);
    }
    return rc;
}

static int drive_process(tp_host *host, const sluice_stage_class *type, void *self)
{
    int rc = SLUICE_OK;
    for (size_t i = 0; rc >= 0; i++) {
        sl_record *record = tp_host_input(host, i);
        if (record == NULL)
            return SLUICE_OK;
        rc = tp_host_cancelled(host) ? SLUICE_CANCELLED : type->process(self, sl_record_public(record));
        if (rc < 0 || rc == SLUICE_DROP)
            sl_record_free(record);
        else
            tp_host_keep(host, record);
    }
    return rc;
}

static int drive_batches(tp_host *host, const sluice_stage_class *type, void *self)
{
    const size_t most = type->batch > 0 ? type->batch : 64;
    bool more = true;
    int rc = SLUICE_OK;
    for (size_t at = 0, turn = 0; more && rc >= 0; turn++) {
        const uint64_t split = host->work->split;
        const size_t want = split > 0 ? 1 + (size_t)(sluice_mix(split, turn) % (most < 7 ? most : 7)) : most;
        /* Arrays of their own for each call: they are borrowed for it alone. */
        sl_record **records = calloc(want, sizeof *records);
        sluice_record **views = calloc(want, sizeof *views);
        bool *keep = calloc(want, sizeof *keep);
        size_t count = 0;
        rc = records != NULL && views != NULL && keep != NULL ? SLUICE_OK : SLUICE_NO_MEMORY;
        for (; rc >= 0 && count < want && (records[count] = tp_host_input(host, at)) != NULL; count++, at++) {
            views[count] = sl_record_public(records[count]);
            keep[count] = true;
        }
        more = count == want;
        if (rc >= 0 && tp_host_cancelled(host))
            rc = SLUICE_CANCELLED;
        if (rc >= 0 && count > 0)
            rc = type->process_batch(self, views, keep, count);
        for (size_t i = 0; i < count; i++)
            if (rc >= 0 && keep[i])
                tp_host_keep(host, records[i]);
            else
                sl_record_free(records[i]);
        free(records);
        free(views);
        free(keep);
    }
    return rc;
}

static int drive_stage(tp_host *host, const sluice_stage_class *type, void *self)
{
    int rc = SLUICE_OK;
    if (type->run != NULL)
        rc = type->run(self);
    else if (type->next != NULL)
        rc = drive_source(host, type, self);
    if (type->observe != NULL)
        rc = drive_observe(host, type, self);
    if (rc >= 0 && type->process_batch != NULL)
        rc = drive_batches(host, type, self);
    else if (rc >= 0 && type->process != NULL)
        rc = drive_process(host, type, self);
    /* A source that was stopped because it has no end did well. */
    if (host->made >= TP_MOST_MADE && rc == SLUICE_CANCELLED)
        rc = SLUICE_OK;
    else if (rc >= 0 && host->cancelled && host->made < TP_MOST_MADE)
        rc = SLUICE_CANCELLED;
    return rc >= 0 && type->finish != NULL ? type->finish(self) : rc;
}

/* ---- the others */

static int drive_loss(tp_host *host, const sluice_loss_class *loss, void *self)
{
    enum { ITEMS = 40 };
    sl_buffer *out = &host->out->numbers;
    int rc = SLUICE_OK;
    for (size_t at = 0, turn = 0; rc >= 0 && at < ITEMS; turn++) {
        const uint64_t split = host->work->split;
        size_t count = split > 0 ? 1 + (size_t)(sluice_mix(split, turn) % 9) : 16;
        count = count < ITEMS - at ? count : ITEMS - at;
        if (tp_host_cancelled(host))
            return SLUICE_CANCELLED;
        tp_batch *b = tp_batch_new(loss, host->subject->seed, at, count, TP_SIZE_USUAL);
        if (b == NULL)
            return SLUICE_NO_MEMORY;
        rc = tp_batch_call(loss, self, b);
        for (size_t i = 0; rc >= 0 && loss->pairs != NULL && i < count; i++) {
            sl_buffer_printf(out, "pair %zu: %a %a %a", at + i, b->pair_grads.loss[i], b->pair_grads.d_chosen[i],
                             b->pair_grads.d_rejected[i]);
            for (size_t h = i * b->pairs.heads; h < (i + 1) * b->pairs.heads; h++)
                sl_buffer_printf(out, " %a %a", b->pair_grads.d_chosen_value[h], b->pair_grads.d_rejected_value[h]);
            sl_buffer_printf(out, "\n");
        }
        for (size_t i = 0; rc >= 0 && loss->pairs == NULL && i < count; i++) {
            sl_buffer_printf(out, "sequence %zu: %a", at + i, b->token_grads.loss[i]);
            for (size_t t = b->sequences.offset[i]; t < b->sequences.offset[i + 1]; t++)
                sl_buffer_printf(out, " %a", b->token_grads.d_policy[t]);
            sl_buffer_printf(out, "\n");
        }
        at += count;
        tp_batch_free(b);
    }
    if (rc >= 0 && loss->reward_scale != NULL)
        sl_buffer_printf(out, "scale %a\n", loss->reward_scale(self));
    return rc;
}

static int drive_sink(tp_host *host, const sluice_metrics_class *sink, void *self)
{
    int rc = SLUICE_OK;
    for (int i = 0; rc >= 0 && i < 20; i++) {
        char name[32];
        if (tp_host_cancelled(host))
            return SLUICE_CANCELLED;
        snprintf(name, sizeof name, "stage-%d", i % 3);
        char *stage = strdup(name);
        sluice_number *numbers = calloc(2, sizeof *numbers);
        if (stage == NULL || numbers == NULL)
            return SLUICE_NO_MEMORY;
        numbers[0] = (sluice_number){stage, i};
        numbers[1] = (sluice_number){"loss", 1.0 / (i + 1)};
        const sluice_metrics_line line = {.size = sizeof line,
                                          .phase = "align",
                                          .stage = stage,
                                          .iteration = 1 + i / 10,
                                          .step = i % 5 - 1,
                                          .numbers = numbers,
                                          .count = 2,
                                          .time = 1.7e9 + i,
                                          .reused = i % 7 == 6};
        rc = sink->line(self, &line);
        free(numbers);
        free(stage);
    }
    return rc >= 0 && sink->finish != NULL ? sink->finish(self) : rc;
}

static int drive_service(tp_host *host, const sluice_service_class *service, void *self)
{
    if (service->get(self) == NULL)
        return sluice_error(&host->public, SLUICE_FAILED, "get gives NULL");
    const char *numerics = service->numerics != NULL ? service->numerics(self) : NULL;
    sl_buffer_printf(&host->out->numbers, "numerics %s\n", numerics != NULL ? numerics : "");
    return SLUICE_OK;
}

static int drive_object(tp_host *host, void *self)
{
    const sluice_class *type = host->subject->type;
    switch (type->kind) {
    case SLUICE_KIND_LOSS:
        return drive_loss(host, (const void *)type, self);
    case SLUICE_METRICS_SINK:
        return drive_sink(host, (const void *)type, self);
    case SLUICE_SERVICE:
        return drive_service(host, (const void *)type, self);
    default:
        return drive_stage(host, (const void *)type, self);
    }
}

/* ---- what is left */

static int only_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void read_files(const char *folder, sl_buffer *out)
{
    struct dirent **entries;
    sl_buffer file = {0};
    const int count = scandir(folder, &entries, only_visible, alphasort);
    for (int i = 0; i < count; i++) {
        char path[PATH_MAX];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        sl_buffer_printf(out, "\n%s\n", entries[i]->d_name);
        if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
            read_files(path, out);
        else if (sl_file_read(path, &file) >= 0)
            sl_buffer_append(out, file.data, file.size);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    sl_buffer_free(&file);
}

static int by_number(const void *a, const void *b)
{
    const uint64_t x = ((const tp_emitted *)a)->number, y = ((const tp_emitted *)b)->number;
    return x < y ? -1 : x > y;
}

void tp_drive(const tp_subject *subject, const tp_work *work, tp_outcome *out)
{
    tp_host host;
    tp_object object;
    memset(out, 0, sizeof *out);
    sl_folder_remove(TP_OUTPUT);
    mkdir(TP_OUTPUT, 0700);
    tp_host_init(&host, subject, work, out);
    out->rc = tp_object_begin(&object, subject, &host.public);
    out->began = out->rc >= 0;
    if (out->began) {
        out->rc = drive_object(&host, object.self);
        tp_object_end(&object, subject);
    }
    tp_host_end(&host);
    if (out->rc < 0 && out->rc != SLUICE_CANCELLED && out->error[0] == '\0')
        tp_fault(&host, TP_FAULT_MESSAGE,
                 "fails (%s) without saying why: call sluice_error where a function of record.h refuses something",
                 sl_result_text(out->rc));
    if (out->count > 0)
        qsort(out->records, out->count, sizeof *out->records, by_number);
    /* Event files and the like are named by time; what a metrics sink writes is its own affair. */
    if (subject->type->kind != SLUICE_METRICS_SINK)
        read_files(TP_OUTPUT, &out->files);
}

void tp_outcome_free(tp_outcome *out)
{
    for (size_t i = 0; i < out->count; i++)
        sl_buffer_free(&out->records[i].bytes);
    free(out->records);
    sl_buffer_free(&out->numbers);
    sl_buffer_free(&out->files);
    memset(out, 0, sizeof *out);
}

static bool same_bytes(const sl_buffer *a, const sl_buffer *b)
{
    return a->size == b->size && (a->size == 0 || memcmp(a->data, b->data, a->size) == 0);
}

bool tp_outcome_same(const tp_outcome *a, const tp_outcome *b, char *why, size_t size)
{
    if ((a->rc < 0) != (b->rc < 0)) {
        snprintf(why, size, "one ends well, the other with: %s", a->rc < 0 ? a->error : b->error);
        return false;
    }
    if (a->count != b->count) {
        snprintf(why, size, "%zu records came out, and %zu", a->count, b->count);
        return false;
    }
    for (size_t i = 0; i < a->count; i++)
        if (a->records[i].number != b->records[i].number || !same_bytes(&a->records[i].bytes, &b->records[i].bytes)) {
            snprintf(why, size, "record %llu differs", (unsigned long long)a->records[i].number);
            return false;
        }
    if (!same_bytes(&a->numbers, &b->numbers))
        snprintf(why, size, "the numbers reported differ");
    else if (!same_bytes(&a->files, &b->files))
        snprintf(why, size, "the files written differ");
    else
        return true;
    return false;
}
