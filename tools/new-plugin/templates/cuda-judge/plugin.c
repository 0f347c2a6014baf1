/* @ID@: scores answers on the GPU by the share of their n-grams of words that stand in the reference (the precision of
 * Papineni et al. 2002, BLEU, §2.1, without clipping). */
#include <stdlib.h>
#include <string.h>
#include <sluice/cuda.h>
#include <sluice/random.h>
#include <sluice/stage.h>

#include "@NAME@.h"

struct judge {
    int64_t n;

    const sluice_host *host;
    const sluice_cuda_service *cuda;
    sluice_cuda *gpu;
    uint64_t *words; /* hashes of all words of a batch */
    size_t word_count, word_room;
    struct text *texts; /* one an answer */
    float *overlap;
    size_t text_count, text_room;
    uint64_t answers;
    double sum;
};

static const sluice_param params[] = {
    SLUICE_INT(struct judge, n, .value = 2, .min = 1, .max = 16, .unit = "words", .doc = "Length of an n-gram."),
    SLUICE_PARAMS_END};

static const sluice_metric_info metrics[] = {
    {"answers", "candidates", "Answers judged."},
    {"overlap", NULL, "Mean share of an answer's n-grams that stand in the reference."},
    {NULL, NULL, NULL}};

static int init(void *self, const sluice_host *host)
{
    struct judge *judge = self;
    judge->host = host;
    judge->cuda = sluice_service(host, SLUICE_CUDA_SERVICE);
    if (!judge->cuda)
        return sluice_error(host, SLUICE_UNSUPPORTED, "this sluice was built without CUDA; build it where nvcc is");
    return judge->cuda->open(judge->cuda, host, &judge->gpu);
}

static void fini(void *self)
{
    struct judge *judge = self;
    if (judge->gpu)
        judge->cuda->close(judge->gpu);
    free(judge->words);
    free(judge->texts);
    free(judge->overlap);
}

/* --- texts become numbers ------------------------------------------------------------------------------------------
 */

/* Appends the hashes of the text's words; false when out of memory. */
static bool split(struct judge *judge, const char *text)
{
    static const char spaces[] = " \t\r\n.,;:!?\"";
    const size_t room = judge->word_count + strlen(text) / 2 + 1;
    if (room > judge->word_room) {
        uint64_t *grown = realloc(judge->words, 2 * room * sizeof *grown);
        if (!grown)
            return false;
        judge->words = grown;
        judge->word_room = 2 * room;
    }
    for (text += strspn(text, spaces); *text; text += strspn(text, spaces)) {
        const size_t length = strcspn(text, spaces);
        judge->words[judge->word_count++] = sluice_random_name(text, length);
        text += length;
    }
    return true;
}

static bool add_text(struct judge *judge, const struct text *text)
{
    if (judge->text_count == judge->text_room) {
        const size_t room = 2 * judge->text_room + 64;
        struct text *texts = realloc(judge->texts, room * sizeof *texts);
        float *overlap = realloc(judge->overlap, room * sizeof *overlap);
        judge->texts = texts ? texts : judge->texts;
        judge->overlap = overlap ? overlap : judge->overlap;
        if (!texts || !overlap)
            return false;
        judge->text_room = room;
    }
    judge->texts[judge->text_count++] = *text;
    return true;
}

/* The reference, then each answer that has a text. */
static int add_record(struct judge *judge, const sluice_record *record)
{
    const char *reference = sluice_record_meta_text(record, "reference");
    struct text text = {.reference = (uint32_t)judge->word_count};
    if (!reference)
        reference = sluice_record_prompt(record);
    bool good = split(judge, reference ? reference : "");
    text.reference_end = (uint32_t)judge->word_count;
    for (size_t i = 0; good && i < sluice_record_candidates(record); i++) {
        sluice_candidate candidate;
        const int rc = sluice_record_candidate(record, i, &candidate);
        if (rc < 0)
            return rc;
        text.begin = (uint32_t)judge->word_count;
        good = split(judge, candidate.text ? candidate.text : "");
        text.end = (uint32_t)judge->word_count;
        good = good && add_text(judge, &text);
    }
    if (!good || judge->word_count > UINT32_MAX)
        return sluice_error(judge->host, SLUICE_NO_MEMORY, "out of memory for the words of a batch");
    return SLUICE_OK;
}

/* --- the GPU ---------------------------------------------------------------------------------------------------------
 */

static int score(struct judge *judge)
{
    const sluice_cuda_service *cuda = judge->cuda;
    sluice_cuda *gpu = judge->gpu;
    struct CUstream_st *stream;
    const size_t word_bytes = judge->word_count * sizeof *judge->words;
    const size_t text_bytes = judge->text_count * sizeof *judge->texts;
    const size_t overlap_bytes = judge->text_count * sizeof *judge->overlap;
    uint64_t *words = cuda->alloc(gpu, word_bytes);
    struct text *texts = words ? cuda->alloc(gpu, text_bytes) : NULL;
    float *overlap = texts ? cuda->alloc(gpu, overlap_bytes) : NULL;
    int rc = overlap ? SLUICE_OK : SLUICE_NO_MEMORY;
    if (rc == SLUICE_OK)
        rc = cuda->write(gpu, words, judge->words, word_bytes);
    if (rc == SLUICE_OK)
        rc = cuda->write(gpu, texts, judge->texts, text_bytes);
    if (rc == SLUICE_OK)
        rc = sluice_cuda_enter(cuda, gpu, &stream);
    if (rc == SLUICE_OK) {
        const int error =
            launch_overlap(overlap, texts, (uint32_t)judge->text_count, words, (uint32_t)judge->n, stream);
        rc = sluice_cuda_leave(cuda, gpu, error);
    }
    if (rc == SLUICE_OK)
        rc = cuda->read(gpu, judge->overlap, overlap, overlap_bytes);
    cuda->free(gpu, overlap);
    cuda->free(gpu, texts);
    cuda->free(gpu, words);
    return rc;
}

static int process_batch(void *self, sluice_record *const *records, bool *keep, size_t count)
{
    struct judge *judge = self;
    size_t text = 0;
    int rc = SLUICE_OK;
    (void)keep;
    judge->word_count = judge->text_count = 0;
    for (size_t i = 0; rc == SLUICE_OK && i < count; i++)
        rc = add_record(judge, records[i]);
    if (rc == SLUICE_OK && judge->text_count > 0)
        rc = score(judge);
    for (size_t i = 0; rc == SLUICE_OK && i < count; i++)
        for (size_t k = 0; rc == SLUICE_OK && k < sluice_record_candidates(records[i]); k++) {
            const float share = judge->overlap[text++];
            if (share == NO_SHARE) /* too short to judge: no score, which is not 0 */
                continue;
            if (!(share >= 0 && share <= 1)) /* a mistake in the kernel, told with its place */
                return sluice_record_error(judge->host, records[i], SLUICE_FAILED,
                                           "the kernel says that %g of answer %zu stands in the reference",
                                           (double)share, k);
            rc = sluice_record_set_score(records[i], sluice_stage_name(judge->host), k, share);
            judge->answers++;
            judge->sum += share;
        }
    return rc;
}

static int finish(void *self)
{
    struct judge *judge = self;
    sluice_metric(judge->host, "answers", (double)judge->answers);
    if (judge->answers > 0)
        sluice_metric(judge->host, "overlap", judge->sum / (double)judge->answers);
    return SLUICE_OK;
}

static const sluice_stage_class judge_class = {
    SLUICE_STAGE_CLASS(SLUICE_JUDGE, "@ID@", "Scores answers on the GPU by what they share with a reference",
                       struct judge, params),
    .base.reads = SLUICE_FIELD_CANDIDATES,
    .base.adds = SLUICE_FIELD_SCORES,
    .base.traits = SLUICE_STATELESS | SLUICE_USES_DEVICE | SLUICE_USES_CUDA | SLUICE_IN_PROCESS,
    .base.doc = "The score is the share of the answer's n-grams of words that stand in the record's reference, or in "
                "its prompt "
                "where it has none. Answers of fewer than n words get no score.",
    .base.metrics = metrics,
    .base.init = init,
    .base.fini = fini,
    .batch = 256,
    .process_batch = process_batch,
    .finish = finish,
};
SLUICE_PLUGIN("@NAME@", "1.0", "MIT", &judge_class.base);
