/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/stream/earlier.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/stream/journal.h"

/* An entry of the journal for a record that came before its turn. */
typedef struct early {
    uint64_t number, offset;
} early;

struct sl_earlier {
    char *part, *journal_path; /* PATH.earlier.part, PATH.earlier.journal */
    sl_stream_reader *reader;  /* of the records in their order; NULL at their end */
    sl_record *current;        /* the reader's next */
    sl_journal journal;
    early *waiting; /* by number */
    size_t count, room;
    sl_record *given; /* from the journal */
    sl_buffer bytes;
};

static char *name(const char *path, const char *ending)
{
    char *joined = malloc(strlen(path) + strlen(ending) + 1);
    if (joined)
        sprintf(joined, "%s%s", path, ending);
    return joined;
}

static int64_t size_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (int64_t)st.st_size : -1;
}

/* The leftovers of the last writer take the place of older ones, unless those got further. */
static void move(const char *path, const sl_earlier *e)
{
    char *part = name(path, ".part"), *journal = name(path, ".journal");
    if (part && journal && size_of(part) >= 0) {
        const int64_t fresh = size_of(part) + size_of(journal), old = size_of(e->part) + size_of(e->journal_path);
        if (fresh >= old && rename(part, e->part) == 0) {
            if (rename(journal, e->journal_path) != 0)
                unlink(e->journal_path);
        }
    }
    free(part);
    free(journal);
}

static void advance(sl_earlier *e)
{
    sl_record_free(e->current);
    e->current = NULL;
    /* Damage ends the leftovers where it stands; what comes behind it is computed again. */
    if (e->reader && sl_stream_next(e->reader, &e->current) != SLUICE_OK) {
        sl_stream_reader_close(e->reader);
        e->reader = NULL;
    }
}

static int by_number(const void *a, const void *b)
{
    const early *x = a, *y = b;
    return x->number < y->number ? -1 : x->number > y->number;
}

static int note_waiting(void *context, uint64_t number, uint64_t offset)
{
    sl_earlier *e = context;
    early *more = sl_items_grow(e->waiting, e->count, &e->room, sizeof *more);
    if (!more)
        return SLUICE_NO_MEMORY;
    e->waiting = more;
    e->waiting[e->count++] = (early){number, offset};
    return SLUICE_OK;
}

int sl_earlier_take(const char *path, const uint8_t key[16], sl_earlier **out)
{
    char error[512];
    sl_earlier *e = *out = calloc(1, sizeof *e);
    if (!e)
        return SLUICE_NO_MEMORY;
    e->journal.fd = -1;
    e->part = name(path, ".earlier.part");
    e->journal_path = name(path, ".earlier.journal");
    if (!e->part || !e->journal_path) {
        sl_earlier_close(e, false);
        *out = NULL;
        return SLUICE_NO_MEMORY;
    }
    move(path, e);
    if (sl_stream_open(e->part, false, &e->reader, error, sizeof error) < 0 ||
        memcmp(sl_stream_reader_info(e->reader)->key, key, 16) != 0) {
        sl_earlier_close(e, true);
        *out = NULL;
        return SLUICE_OK;
    }
    advance(e);
    if (sl_journal_take(&e->journal, e->journal_path, note_waiting, e) < 0)
        e->count = 0;
    if (e->count > 0)
        qsort(e->waiting, e->count, sizeof *e->waiting, by_number);
    return SLUICE_OK;
}

static bool is(const sl_record *record, const char *id)
{
    return record && strcmp(sluice_record_id(sl_record_public((sl_record *)(uintptr_t)record)), id) == 0;
}

const sl_record *sl_earlier_find(sl_earlier *e, const char *id, uint64_t number)
{
    char why[128];
    size_t used;
    uint64_t sum;
    sl_record_free(e->given);
    e->given = NULL;
    if (is(e->current, id)) {
        e->given = e->current;
        e->current = NULL;
        advance(e);
        return e->given;
    }
    const early wanted = {.number = number},
                *found = e->count ? bsearch(&wanted, e->waiting, e->count, sizeof wanted, by_number) : NULL;
    if (!found || sl_journal_read(&e->journal, found->offset, &e->bytes, &sum) != SLUICE_OK ||
        sl_record_decode(e->bytes.data, e->bytes.size, &e->given, &used, why, sizeof why) != SLUICE_OK)
        return NULL;
    return is(e->given, id) ? e->given : NULL;
}

void sl_earlier_close(sl_earlier *e, bool done)
{
    if (!e)
        return;
    if (done && e->part && e->journal_path) {
        unlink(e->part);
        unlink(e->journal_path);
    }
    sl_record_free(e->current);
    sl_record_free(e->given);
    sl_stream_reader_close(e->reader);
    if (e->journal.fd >= 0)
        close(e->journal.fd);
    sl_buffer_free(&e->bytes);
    free(e->waiting);
    free(e->part);
    free(e->journal_path);
    free(e);
}

void sl_earlier_forget(const char *path)
{
    char *part = name(path, ".earlier.part"), *journal = name(path, ".earlier.journal");
    if (part)
        unlink(part);
    if (journal)
        unlink(journal);
    free(part);
    free(journal);
}
