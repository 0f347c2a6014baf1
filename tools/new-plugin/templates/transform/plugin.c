/* @ID@: leaves out records whose prompt came before. Prompts are the same when they differ in nothing but the case of
 * ASCII letters and the length of white space. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/random.h>
#include <sluice/stage.h>

struct transform {
    bool exact;

    const sluice_host *host;
    uint64_t *seen; /* hashes, open addressing; 0 = free */
    size_t room, count;
    uint64_t dropped;
};

static const sluice_param params[] = {
    SLUICE_BOOL(struct transform, exact, .value = 0, .doc = "Case and white space count as well."), SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {{"kept", "records", "Records whose prompt was new."},
                                             {"dropped", "records", "Records left out."},
                                             {NULL, NULL, NULL}};

static int init(void *self, const sluice_host *host)
{
    ((struct transform *)self)->host = host;
    return SLUICE_OK;
}

static void fini(void *self)
{
    free(((struct transform *)self)->seen);
}

static uint64_t add_text(const struct transform *t, uint64_t hash, const char *text)
{
    bool space = false, begun = false;
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        if (!t->exact && isspace(c)) {
            space = begun;
            continue;
        }
        if (space)
            hash = sluice_mix(hash, ' ');
        hash = sluice_mix(hash, t->exact ? c : (unsigned char)tolower(c));
        begun = true;
        space = false;
    }
    return sluice_mix(hash, 256); /* the end: "a", "b" is not "ab", "" */
}

/* Never 0. At 64 bits two of a million prompts meet by chance once in 40 million runs. */
static uint64_t prompt_hash(const struct transform *t, const sluice_record *record)
{
    const sluice_message *messages;
    const size_t count = sluice_record_messages(record, &messages);
    uint64_t hash = 1;
    for (size_t i = 0; i < count; i++)
        hash = add_text(t, add_text(t, hash, messages[i].role), messages[i].content);
    if (count == 0)
        hash = add_text(t, hash, sluice_record_prompt(record) ? sluice_record_prompt(record) : "");
    return hash ? hash : 1;
}

/* The place of a hash, or the free one where it belongs. `room` is a power of two and never full. */
static uint64_t *find(uint64_t *table, size_t room, uint64_t hash)
{
    size_t i = hash & (room - 1);
    while (table[i] && table[i] != hash)
        i = (i + 1) & (room - 1);
    return &table[i];
}

static bool grow(struct transform *t)
{
    const size_t room = t->room ? 2 * t->room : 1024;
    uint64_t *table = calloc(room, sizeof *table);
    if (!table)
        return false;
    for (size_t i = 0; i < t->room; i++)
        if (t->seen[i])
            *find(table, room, t->seen[i]) = t->seen[i];
    free(t->seen);
    t->seen = table;
    t->room = room;
    return true;
}

static int process(void *self, sluice_record *record)
{
    struct transform *t = self;
    if (2 * (t->count + 1) > t->room && !grow(t))
        return sluice_error(t->host, SLUICE_NO_MEMORY, "out of memory for %zu prompts", t->count);
    const uint64_t hash = prompt_hash(t, record);
    uint64_t *place = find(t->seen, t->room, hash);
    if (*place) {
        t->dropped++;
        return SLUICE_DROP;
    }
    *place = hash;
    t->count++;
    return SLUICE_OK;
}

static int finish(void *self)
{
    struct transform *t = self;
    const sluice_number numbers[] = {{"kept", (double)t->count}, {"dropped", (double)t->dropped}};
    sluice_metrics(t->host, -1, numbers, 2);
    return SLUICE_OK;
}

static const sluice_stage_class transform_class = {
    SLUICE_STAGE_CLASS(SLUICE_TRANSFORM, "@ID@", "Leaves out records whose prompt came before", struct transform,
                       params),
    .base.reads = SLUICE_FIELD_PROMPT,
    .base.doc =
        "The first record of a prompt stays. Prompts are the same when they differ in nothing but the case of ASCII "
        "letters and the length of white space; exact = true compares every byte. Memory: 16 to 32 bytes a prompt.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .process = process,
    .finish = finish,
};
SLUICE_PLUGIN("@NAME@", "1.0", "MIT", &transform_class.base);
