/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* One plugin, and what can be wrong with one: -DODD=… picks. */
#include <sluice/sluice.h>

#define GOOD         0
#define OTHER_ABI    1
#define OTHER_MAGIC  2
#define NO_ENTRY     3
#define TWIN         4 /* the same id as GOOD, in another file */
#define BAD_OFFSET   5
#define NO_FUNCTION  6
#define BAD_DEFAULT  7
#define LARGE_CLASS  8
#define OLD          9 /* knows fewer fields at the end of its class than the host: taken */
#define TWICE        10
#define UNRESOLVED   11
#define RESERVED     12
#define OPEN_TABLE   13
#define OTHER_KIND   14
#define LARGER_STAMP 15
#define CRASHES      16 /* while it is loaded */
#define HANGS        17
#define LEAVES       18 /* ends the process */

struct state {
    double share;
    int64_t number;
};

#if ODD == UNRESOLVED
int sluice_of_no_library(void);
#endif

#if ODD == CRASHES
#include <stdlib.h>
__attribute__((constructor)) static void load(void)
{
    abort();
}
#elif ODD == HANGS
#include <unistd.h>
__attribute__((constructor)) static void load(void)
{
    for (;;)
        pause();
}
#elif ODD == LEAVES
#include <unistd.h>
__attribute__((constructor)) static void load(void)
{
    _exit(3);
}
#endif

static int process(void *self, sluice_record *record)
{
    (void)self, (void)record;
#if ODD == UNRESOLVED
    return sluice_of_no_library();
#else
    return SLUICE_OK;
#endif
}

static const sluice_param params[] = {
    SLUICE_DOUBLE(struct state, share, .value = ODD == BAD_DEFAULT ? 2 : 0.5, .min = 0, .max = 1, .doc = "A share."),
#if ODD == TWICE
    SLUICE_DOUBLE(struct state, share, .doc = "Again."),
#endif
#if ODD == RESERVED
    {.name = "from",
     .type = SLUICE_TYPE_INT,
     .offset = offsetof(struct state, number),
     .min = 0,
     .max = 1,
     .above = -1,
     .below = 2},
#endif
#if ODD == OPEN_TABLE
#define ROW  SLUICE_BOOL(struct state, number)
#define ROWS ROW, ROW, ROW, ROW, ROW, ROW, ROW, ROW
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
    ROWS,
#endif
    SLUICE_PARAMS_END};

static const sluice_stage_class odd = {
    SLUICE_STAGE_CLASS(ODD == OTHER_KIND ? (sluice_kind)77 : SLUICE_REGULARIZER, "odd/stage", "A stage", struct state,
                       params),
#if ODD == BAD_OFFSET
    .base.state_size = 4,
#endif
#if ODD == LARGE_CLASS
    .base.size = sizeof(sluice_stage_class) + 8,
#endif
#if ODD == OLD
    .base.size = offsetof(sluice_stage_class, finish),
    .finish = (int (*)(void *))0x10, /* lies past the size: the host must not look */
#endif
    .process = ODD == NO_FUNCTION ? NULL : process,
};

#if ODD == NO_ENTRY
SLUICE_EXPORT extern const sluice_stage_class *const another_name;
const sluice_stage_class *const another_name = &odd;
#else
static const sluice_class *const classes[] = {&odd.base, NULL};
SLUICE_EXPORT extern const sluice_plugin sluice_plugin_entry;
const sluice_plugin sluice_plugin_entry = {
    .magic = ODD == OTHER_MAGIC ? 0x1234 : SLUICE_MAGIC,
    .stamp = {sizeof(sluice_stamp), ODD == OTHER_ABI ? SLUICE_ABI + 1 : SLUICE_ABI, sizeof(void *), 0x01020304,
              sizeof(sluice_class), sizeof(sluice_param) + (ODD == LARGER_STAMP ? 8 : 0)},
    .id = "odd",
    .version = ODD == TWIN ? "2.0" : "1.0",
    .license = "Apache-2.0",
    .classes = classes};
#endif
